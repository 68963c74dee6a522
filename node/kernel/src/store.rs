//! Where transactions begin and where they are committed: the barrier over the replica.
//!
//! A transaction sees one consistent view; committing proposes its write set once. Conflicts are the caller's to
//! repeat, since only the caller can run the request again.

use std::fmt;
use std::sync::{Arc, Weak};

use arca_barrier::Barrier;
use arca_danger::Bug;
use arca_engine_api::Clock;
use arca_raft_storage::{ApplyObserver, Change, Committed, Key, ProposeError, Replica, Version, WriteSet};

use crate::KernelError;
use crate::cache::PlainCache;
use crate::replication::standing::{RoleObserver, Standing, Standings};
use crate::tx::{Mode, Tx};

/// See the file's header.
#[derive(Clone)]
pub struct SealedStore {
    barrier: Arc<Barrier>,
    replica: Arc<dyn Replica>,
    opened: Arc<PlainCache>,
    standings: Arc<Standings>,
}

impl SealedStore {
    /// A store that seals with `barrier` what it keeps in `replica`.
    ///
    /// # Errors
    /// When names cannot be sealed.
    pub fn new(
        barrier: Arc<Barrier>,
        replica: Arc<dyn Replica>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KernelError> {
        let opened = Arc::new(PlainCache::default());
        let standings = Arc::new(Standings::new(&barrier, clock)?);
        replica.observe(Arc::new(Evictor(Arc::downgrade(&opened))));
        replica.observe(Arc::new(RoleObserver(Arc::downgrade(&standings))));
        Ok(Self { barrier, replica, opened, standings })
    }

    /// The barrier.
    #[must_use]
    pub fn barrier(&self) -> &Arc<Barrier> {
        &self.barrier
    }

    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Arc<dyn Replica> {
        &self.replica
    }

    /// Whom this cluster serves.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.standings.current(self)
    }

    /// Whether this cluster serves everybody, those who write too.
    #[must_use]
    pub fn serves_all(&self) -> bool {
        self.standings.is_open() || self.standing().check_writes().is_ok()
    }

    pub(crate) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// Begins a transaction on what is applied here now. Linearizable only after [`Self::read_barrier`].
    #[must_use]
    pub fn begin(&self, mode: Mode) -> Tx {
        Tx::new(Arc::clone(&self.barrier), self.replica.view(), mode).with_opened(Arc::clone(&self.opened))
    }

    /// Waits until everything acknowledged anywhere before the call is visible here.
    ///
    /// # Errors
    /// When no leader with a quorum answers.
    pub async fn read_barrier(&self) -> Result<(), KernelError> {
        self.replica.read_barrier().await?;
        Ok(())
    }

    /// Commits what was staged; `None` when nothing was.
    ///
    /// # Errors
    /// [`KernelError::is_conflict`] when something read has changed: nothing was written, run the request again. Others
    /// where this cluster is not the one to write.
    pub async fn commit(&self, tx: Tx) -> Result<Option<Committed>, KernelError> {
        self.commit_if(tx, Standing::admit).await
    }

    /// As [`Self::commit`], also where no DR secondary is heard: only for what an operator needs to change that.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub(crate) async fn commit_although_alone(&self, tx: Tx) -> Result<Option<Committed>, KernelError> {
        self.commit_if(tx, Standing::admit_although_alone).await
    }

    async fn commit_if(
        &self,
        tx: Tx,
        admit: impl FnOnce(&Standing, &mut WriteSet) -> Result<(), KernelError>,
    ) -> Result<Option<Committed>, KernelError> {
        if !tx.is_dirty() {
            return Ok(None);
        }
        let mut set = tx.into_write_set()?;
        admit(&self.standing(), &mut set)?;
        let reads = set.reads.clone();
        let began = tokio::time::Instant::now();
        let committed = match self.replica.propose(set).await {
            Err(ProposeError::Conflict) => {
                return Err(KernelError::Conflict { changed: self.changed(reads) });
            }
            other => other?,
        };
        metrics::counter!("vault.raft.apply").increment(1);
        metrics::histogram!("vault.raft.commitTime").record(began.elapsed().as_secs_f64() * 1e3);
        Ok(Some(committed))
    }

    /// The first key that is not as it was read.
    fn changed(&self, reads: Vec<(Key, Version)>) -> Option<Key> {
        let view = self.replica.view();
        let is_changed = |(key, read): &(Key, Version)| {
            let found = view.get(key);
            found.is_ok_and(|found| found.map_or(Version::ABSENT, |found| found.version) != *read)
        };
        reads.into_iter().find(is_changed).map(|(key, _)| key)
    }
}

/// Takes what an entry changes out of the opened values before anybody can see the entry.
struct Evictor(Weak<PlainCache>);

impl ApplyObserver for Evictor {
    fn applied(&self, index: u64, change: Change<'_>) {
        let Some(opened) = self.0.upgrade() else { return };
        match change {
            Change::Everything => opened.evict_everything(index),
            Change::Write(_) if arca_danger::is(Bug::CacheNotEvicted) => {}
            Change::Write(write) => opened.evict(write.key(), index),
        }
    }
}

impl fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedStore").finish_non_exhaustive()
    }
}
