//! Whom this cluster serves, as its roles say, kept current on every node; and what follows for writes.
//!
//! **Invariants.** A cluster that is not the primary commits nothing of its own but entries of class `Node`, and a
//! performance secondary nothing of what it shares with its primary ([`Standing::admit`]). Every other commit depends on
//! the role records as they were when it was let through, so of a write and a change of roles one is in front in the log:
//! nothing is written behind a fence, a demotion, or the copy of another cluster's state.
//! Read next: [`super::record`] for what is stored, [`super::contact`] for a primary that hears of nobody, [`crate::store`] for where commits are let through.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use arca_barrier::{Barrier, Class};
use arca_danger::Bug;
use arca_engine_api::Clock;
use arca_raft_storage::{ApplyObserver, Change, Key, Version, WriteSet};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::contact::Contact;
use super::record::{Fence, Kind, Mode, RoleRecord};
use crate::KernelError;
use crate::kernel::Kernel;
use crate::store::SealedStore;
use crate::tx::{Mode as TxMode, Tx, is_shared};

/// Whom a cluster serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// Everybody: it is nobody's secondary.
    All,
    /// Nobody: it waits.
    DrSecondary,
    /// Those who read: it was the primary, and heard that another is.
    Fenced {
        /// Of which kind it was the primary.
        kind: Kind,
        /// What it heard.
        fence: Fence,
    },
    /// Those who read and log in; what is shared is written at its primary.
    PerformanceSecondary,
    /// Nobody: the roles cannot be read, and never could since this node was unsealed.
    #[default]
    Unknown,
}

/// The roles of this cluster, and what they amount to.
#[derive(Default)]
pub struct Standing {
    roles: [RoleRecord; 2],
    serves: Serves,
    /// The role records as they were.
    guards: Vec<(Key, Version)>,
    contact: Option<Arc<Contact>>,
    /// One more than the index of the view they were read from; zero before anything was read.
    read_at: u64,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing")
            .field("roles", &self.roles)
            .field("serves", &self.serves)
            .finish_non_exhaustive()
    }
}

impl Standing {
    fn read(tx: &Tx, contact: &Arc<Contact>) -> Result<Self, KernelError> {
        let [dr, performance] = Kind::ALL;
        let roles = [RoleRecord::load(tx, dr)?, RoleRecord::load(tx, performance)?];
        let mut guards = Vec::with_capacity(Kind::ALL.len());
        for kind in Kind::ALL {
            let key = tx.physical_key(Class::Node, kind.path())?;
            guards.push((key, tx.version(Class::Node, kind.path())?));
        }
        let contact = Some(Arc::clone(contact));
        Ok(Self { serves: serves(&roles), roles, guards, contact, read_at: tx.index() + 1 })
    }

    /// Whom it serves.
    #[must_use]
    pub fn serves(&self) -> &Serves {
        &self.serves
    }

    /// What it is of one kind.
    #[must_use]
    pub fn role(&self, kind: Kind) -> &RoleRecord {
        let [dr, performance] = &self.roles;
        match kind {
            Kind::Dr => dr,
            Kind::Performance => performance,
        }
    }

    /// Whether the roles have been read at all.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.read_at != 0
    }

    /// The time without a word from a DR secondary after which this primary takes no writes, if that is over.
    #[must_use]
    pub fn alone_after(&self) -> Option<Duration> {
        let [dr, _] = &self.roles;
        let limit = dr.fence_after()?;
        let is_heard = self.contact.as_ref().is_some_and(|contact| contact.is_within(limit));
        (!is_heard).then_some(limit)
    }

    /// Whether it is a primary that goes on answering those who read, and takes no writes.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        match self.serves {
            Serves::Fenced { .. } => true,
            Serves::All | Serves::PerformanceSecondary => self.alone_after().is_some(),
            _ => false,
        }
    }

    /// Whether the active node does by itself what is due: expiry, ticks. Only where it is the one to do it: a lease
    /// that a fenced primary ended would take a credential away that the new primary still vouches for. Tokens, leases and
    /// local mounts of a performance secondary are its own.
    #[must_use]
    pub fn keeps_house(&self) -> bool {
        matches!(self.serves, Serves::All | Serves::PerformanceSecondary) && !self.is_fenced()
    }

    /// Whether what is shared with others is its to look after: shared mounts, identities, the keyring.
    #[must_use]
    pub fn keeps_what_is_shared(&self) -> bool {
        matches!(self.serves, Serves::All) && !self.is_fenced()
    }

    /// Whether what is due of a class is done here.
    #[must_use]
    pub fn looks_after(&self, class: Class) -> bool {
        if class == Class::Replicated { self.keeps_what_is_shared() } else { self.keeps_house() }
    }

    /// Whether what is shared is written at a primary, and everything else here.
    #[must_use]
    pub fn is_performance_secondary(&self) -> bool {
        self.serves == Serves::PerformanceSecondary
    }

    /// Refuses what writes, with the reason, where this cluster is not the one to write.
    ///
    /// # Errors
    /// Unless it serves everybody; and where it hears no DR secondary and is configured not to write then.
    pub fn check_writes(&self) -> Result<(), KernelError> {
        match &self.serves {
            Serves::All => self.check_is_heard(),
            Serves::DrSecondary => Err(KernelError::DrSecondary),
            Serves::Fenced { kind, fence } => {
                Err(KernelError::Fenced { kind: *kind, fence: Box::new(fence.clone()) })
            }
            Serves::PerformanceSecondary => Err(KernelError::NeedsPrimary),
            Serves::Unknown => {
                Err(KernelError::Bug("the roles of this cluster in replication cannot be read".to_owned()))
            }
        }
    }

    /// As [`Self::check_writes`], for what writes nothing that is shared: tokens, leases, local mounts.
    ///
    /// # Errors
    /// Unless it serves everybody, or is a performance secondary.
    pub fn check_local_writes(&self) -> Result<(), KernelError> {
        if self.is_performance_secondary() { self.check_is_heard() } else { self.check_writes() }
    }

    /// As [`Self::check_local_writes`], for what an operator needs although no DR secondary is heard.
    ///
    /// # Errors
    /// As there, but for that.
    pub fn check_operator_writes(&self) -> Result<(), KernelError> {
        match self.check_local_writes() {
            Err(KernelError::Alone { .. }) => Ok(()),
            checked => checked,
        }
    }

    fn check_is_heard(&self) -> Result<(), KernelError> {
        match self.alone_after() {
            None => Ok(()),
            Some(limit) => Err(KernelError::Alone { limit }),
        }
    }

    /// Refuses what only a DR secondary does.
    ///
    /// # Errors
    /// On every other cluster.
    pub fn check_is_dr_secondary(&self) -> Result<(), KernelError> {
        if self.serves == Serves::DrSecondary {
            return Ok(());
        }
        Err(KernelError::invalid("this cluster is not a DR secondary"))
    }

    /// As [`Self::admit`], also where no DR secondary is heard.
    ///
    /// # Errors
    /// As there, but for that.
    pub(crate) fn admit_although_alone(&self, set: &mut WriteSet) -> Result<(), KernelError> {
        match self.admit(set) {
            Err(KernelError::Alone { .. }) => {
                self.guard(set);
                Ok(())
            }
            admitted => admitted,
        }
    }

    /// Lets a commit through, or refuses it; one that is let through fails if the roles change before it is applied.
    ///
    /// # Errors
    /// As [`Self::check_writes`], unless it is of class `Node` alone; as [`Self::check_local_writes`] where it writes
    /// nothing that is shared.
    pub fn admit(&self, set: &mut WriteSet) -> Result<(), KernelError> {
        if set.writes.iter().all(|write| write.key().first() == Some(&Class::Node.tag())) {
            return Ok(());
        }
        if set.writes.iter().any(|write| is_shared(write.key())) {
            self.check_writes()?;
        } else {
            self.check_local_writes()?;
        }
        self.guard(set);
        Ok(())
    }

    /// Has the commit fail if the roles change before it is applied.
    fn guard(&self, set: &mut WriteSet) {
        if !arca_danger::is(Bug::WritesUnguarded) {
            set.reads.extend(self.guards.iter().cloned());
        }
    }
}

fn serves(roles: &[RoleRecord; 2]) -> Serves {
    let [dr, performance] = roles;
    if dr.mode == Mode::Secondary {
        return Serves::DrSecondary;
    }
    for (kind, role) in Kind::ALL.into_iter().zip(roles) {
        if let (Mode::Primary, Some(fence)) = (role.mode, &role.fence) {
            return Serves::Fenced { kind, fence: fence.clone() };
        }
    }
    if performance.mode == Mode::Secondary { Serves::PerformanceSecondary } else { Serves::All }
}

/// What a caller of a fenced primary is told.
pub(crate) fn fenced_text(kind: Kind, fence: &Fence) -> String {
    let at = arca_engine_api::rfc3339::format(arca_engine_api::UnixMillis(fence.heard_at));
    let (name, epoch) = (kind.name(), fence.epoch);
    let place = if fence.primary_addresses.is_empty() {
        "it did not say where it is".to_owned()
    } else {
        format!("its cluster addresses are {}", fence.primary_addresses.join(", "))
    };
    format!(
        "this cluster is no longer the primary: at {at} it heard that another is since epoch {epoch}, and {place}. It \
         takes no writes any more, reads go on; send writes there. An operator can see what was never shipped at \
         sys/replication/{name}/tail, and make this cluster follow the new primary by \
         sys/replication/{name}/primary/demote and then sys/replication/{name}/secondary/update-primary"
    )
}

/// What a caller of a primary is told that has heard no DR secondary for `limit`.
pub(crate) fn alone_text(limit: Duration) -> String {
    let seconds = limit.as_secs();
    format!(
        "this cluster takes no writes: it is configured to stop when it hears no DR secondary for {seconds} seconds \
         (fence_after), and that is so now: one may have been promoted in its place. Reads go on, and writes do once a DR \
         secondary is heard. If none was promoted, and they are to go on without, an operator can set fence_after to 0 at \
         sys/replication/dr/primary/config"
    )
}

/// The standing as it is read again whenever a role record changes.
pub(crate) struct Standings {
    keys: [Key; 2],
    current: ArcSwap<Standing>,
    changed_at: AtomicU64,
    /// One more than the change that could not be read, so that this is logged once.
    failed_at: AtomicU64,
    refreshing: Mutex<()>,
    contact: Arc<Contact>,
    heard: watch::Sender<u64>,
    told: watch::Sender<Arc<Standing>>,
}

impl Standings {
    pub(crate) fn new(barrier: &Barrier, clock: Arc<dyn Clock>) -> Result<Self, KernelError> {
        let [dr, performance] = Kind::ALL.map(|kind| barrier.seal_name(Class::Node, kind.path()));
        Ok(Self {
            keys: [dr?, performance?],
            current: ArcSwap::default(),
            changed_at: AtomicU64::new(0),
            failed_at: AtomicU64::new(0),
            refreshing: Mutex::default(),
            contact: Arc::new(Contact::new(clock)),
            heard: watch::Sender::new(0),
            told: watch::Sender::default(),
        })
    }

    /// The standing as the state here has it.
    pub(crate) fn current(&self, store: &SealedStore) -> Arc<Standing> {
        let current = self.current.load();
        if current.read_at > self.changed_at.load(Ordering::Acquire) {
            return Arc::clone(&current);
        }
        drop(current);
        self.refreshed(store)
    }

    /// Whether everybody is served, as far as it can be told without reading anything: what is asked of most requests.
    pub(crate) fn is_open(&self) -> bool {
        let current = self.current.load();
        let is_bounded = current.roles.iter().any(|role| role.fence_after().is_some());
        current.serves == Serves::All
            && !is_bounded
            && current.read_at > self.changed_at.load(Ordering::Acquire)
    }

    /// Where the roles cannot be read any more, what was known counts: a restored backup takes the keys away that they
    /// were sealed under, until they are written again ([`Kernel::keep_roles`]).
    fn refreshed(&self, store: &SealedStore) -> Arc<Standing> {
        let _one_at_a_time = self.refreshing.lock();
        let (current, changed_at) = (self.current.load_full(), self.changed_at.load(Ordering::Acquire));
        if current.read_at > changed_at {
            return current;
        }
        match Standing::read(&store.begin(TxMode::ReadOnly), &self.contact) {
            Ok(next) => {
                let next = Arc::new(next);
                self.current.store(Arc::clone(&next));
                self.told.send_if_modified(|told| {
                    let is_news = !told.is_known() || told.roles != next.roles;
                    told.clone_from(&next);
                    is_news
                });
                next
            }
            Err(err) => {
                if self.failed_at.swap(changed_at + 1, Ordering::AcqRel) != changed_at + 1 {
                    tracing::error!(error = %err, "the roles of this cluster in replication cannot be read");
                }
                current
            }
        }
    }

    fn hear(&self, index: u64) {
        self.changed_at.fetch_max(index, Ordering::AcqRel);
        self.heard.send_replace(index);
    }
}

/// Hears of changes inside apply: compares keys, opens nothing, never blocks.
pub(crate) struct RoleObserver(pub(crate) Weak<Standings>);

impl ApplyObserver for RoleObserver {
    fn applied(&self, index: u64, change: Change<'_>) {
        let Some(standings) = self.0.upgrade() else { return };
        let is_ours = match change {
            Change::Everything => true,
            Change::Write(write) => standings.keys.iter().any(|key| key.as_slice() == write.key()),
        };
        if is_ours {
            standings.hear(index);
        }
    }
}

impl Kernel {
    /// Whom this cluster serves, and why.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.store.standing()
    }

    /// What this cluster is of one kind.
    #[must_use]
    pub fn role(&self, kind: Kind) -> RoleRecord {
        self.standing().role(kind).clone()
    }

    /// When this node last heard a DR secondary of its cluster.
    #[must_use]
    pub fn contact(&self) -> &Contact {
        &self.store.standings().contact
    }

    /// Tells of every change of roles, on every node. The value seen first may be older than [`Self::standing`].
    #[must_use]
    pub fn watch_standing(&self) -> watch::Receiver<Arc<Standing>> {
        self.store.standings().told.subscribe()
    }

    /// Writes the roles down again where they cannot be read any more, as they were known here: a restored backup may
    /// take away the keys under which they were sealed.
    ///
    /// # Errors
    /// When it cannot be committed.
    pub async fn keep_roles(&self) -> Result<(), KernelError> {
        let standing = self.standing();
        for kind in Kind::ALL {
            // Opened anew: what was opened before says nothing about the keys of today.
            let tx = Tx::new(Arc::clone(self.store.barrier()), self.store.replica().view(), TxMode::ReadOnly);
            if !standing.is_known() || RoleRecord::load(&tx, kind).is_ok() {
                continue;
            }
            tracing::warn!(kind = kind.name(), "writing down again what this cluster is in replication");
            self.commit_staged(|tx| standing.role(kind).store(tx, kind)).await?;
        }
        Ok(())
    }
}

/// Reads the roles anew whenever they change, so that whoever watches is told although nobody asks.
pub(crate) fn announce(kernel: &Arc<Kernel>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let mut heard = kernel.store.standings().heard.subscribe();
    let mut status = kernel.store.replica().watch();
    let kernel = Arc::downgrade(kernel);
    drop(runtime.spawn(async move {
        loop {
            let index = *heard.borrow_and_update();
            // What is heard of becomes visible a moment later.
            while status.borrow_and_update().applied_index < index {
                if status.changed().await.is_err() {
                    return;
                }
            }
            let Some(kernel) = kernel.upgrade() else { return };
            drop(kernel.standing());
            drop(kernel);
            if heard.changed().await.is_err() {
                return;
            }
        }
    }));
}
