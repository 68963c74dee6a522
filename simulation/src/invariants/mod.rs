//! What must hold at every moment, whatever goes wrong. Each is looked at again and again during a run; what each means
//! is in its file.

mod committed_log;
mod committed_on_quorum;
mod fresh_nonces;
mod handed_out;
mod intent_first;
mod kept_entries;
mod leader_completeness;
mod monotonic;
mod no_leak;
mod no_orphan;
mod one_lease;
mod openable;
mod removed_once;
mod state_hash;

use std::sync::Arc;

use arca_barrier::Barrier;
use arca_raft_storage::{RaftReplica, ReplicaStatus};

use crate::credentials::Credentials;
use crate::elsewhere::Elsewhere;

/// A member, as it is right now.
pub struct Seen {
    /// Raft on it.
    pub replica: Arc<RaftReplica>,
    /// What it says of itself.
    pub status: ReplicaStatus,
    /// What it opens values with.
    pub barrier: Arc<Barrier>,
    /// Whether its state is of other keys than these, as for a moment after another cluster's was copied.
    pub is_locked_out: bool,
    /// Which life of it this is: counted up at each start.
    pub life: u64,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seen({})", self.status.id)
    }
}

/// Something that must not be was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
}

/// One of them.
pub trait Invariant: Send {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at all members that run.
    ///
    /// # Errors
    /// A text that says what was seen.
    fn look(&mut self, members: &[Seen]) -> Result<(), String>;

    /// Looks at what must be so in the end, some time after nothing is wrong any more.
    ///
    /// # Errors
    /// A text that says what is not so yet.
    fn rest(&mut self, _members: &[Seen]) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
pub struct Invariants(Vec<Box<dyn Invariant>>);

impl std::fmt::Debug for Invariants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|invariant| invariant.name())).finish()
    }
}

impl Invariants {
    /// All of them, with nothing seen yet.
    #[must_use]
    pub fn new(elsewhere: &Elsewhere, credentials: &Credentials) -> Self {
        Self(vec![
            Box::new(handed_out::HandedOut::new(elsewhere, credentials)),
            Box::new(intent_first::IntentFirst::new(elsewhere)),
            Box::new(no_leak::NoLeak::new(elsewhere, credentials)),
            Box::new(no_orphan::NoOrphan::new(elsewhere)),
            Box::new(removed_once::RemovedOnce::new(elsewhere)),
            Box::<leader_completeness::LeaderCompleteness>::default(),
            Box::<monotonic::Monotonic>::default(),
            Box::<committed_log::CommittedLog>::default(),
            Box::<committed_on_quorum::CommittedOnQuorum>::default(),
            Box::<openable::Openable>::default(),
            Box::<kept_entries::KeptEntries>::default(),
            Box::<one_lease::OneLease>::default(),
            Box::<state_hash::StateHash>::default(),
            Box::<fresh_nonces::FreshNonces>::default(),
        ])
    }

    /// Looks at all members that run.
    ///
    /// # Errors
    /// The first violation.
    pub fn look(&mut self, members: &[Seen]) -> Result<(), Violation> {
        for invariant in &mut self.0 {
            let looked = invariant.look(members);
            looked.map_err(|detail| Violation { invariant: invariant.name(), detail })?;
        }
        Ok(())
    }

    /// Looks at what must be so in the end.
    ///
    /// # Errors
    /// The first that is not so yet.
    pub fn rest(&mut self, members: &[Seen]) -> Result<(), Violation> {
        for invariant in &mut self.0 {
            let looked = invariant.rest(members);
            looked.map_err(|detail| Violation { invariant: invariant.name(), detail })?;
        }
        Ok(())
    }
}
