//! What this node does about the roles of its cluster: serves secondaries where the cluster is a primary, follows the
//! primary where it is a secondary.
//!
//! The roles are records in the state, so every member knows them. Each member of a primary serves; the active member of
//! a secondary follows; what changes a role or a secondary is done on the active member. [`Replicator::reconcile`] makes
//! what runs equal to what the records say, whenever they change. Nothing here names gRPC or makes a certificate: that is
//! behind [`Surroundings`], so that the simulation runs all of it.
//! Read next: [`roles`] for what an operator orders, [`bootstrap`] for how a cluster becomes a copy, [`follower`] for how
//! it follows, [`primary`] for what secondaries are answered.

mod activation;
mod announce;
mod asking;
mod beside;
mod bootstrap;
mod compare;
mod figures;
mod filtered;
mod follower;
mod primary;
mod records;
mod roles;
mod sealed_box;
mod status;
mod surroundings;
mod tail;
#[cfg(test)]
mod tests;
mod token;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arca_barrier::{Barrier, BarrierError, Class, boot_key};
use arca_engine_api::{Clock, Entropy, EntropyError, UnixMillis};
use arca_kernel::key_keeper::{KeyKeeper, ROOT_KEY_PATH};
use arca_kernel::replication::{Kind, Mode, RoleRecord, Standing};
use arca_kernel::tx::Tx;
use arca_kernel::{Kernel, KernelError};
use arca_raft_storage::{
    ApplyObserver, Change, Key, Member, ProposeError, RaftReplica, ReadView, Replica as _, Version, Write,
};
use arca_replication::source::{Source, SourceSettings};
use arca_replication::{Comparisons, Pace, Sieve};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::follower::Following;
use self::primary::{Met, Serving};
pub use self::surroundings::{Authority, NewKey, Served, Surroundings, TokenDoor};

/// How often what runs is compared with what the records say, if nothing is heard.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Times a write of ours is repeated when another one got in between.
const COMMITS_MAX: usize = 32;

/// Prefixes of what is a cluster's own although it is of class `Local`.
const OWN_FOLDERS: [&str; 2] = ["root/core/cluster-ca/", "root/core/cluster/"];

/// See the module's header.
pub struct Replicator {
    this: Weak<Self>,
    surroundings: Arc<dyn Surroundings>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// For the keys of a state that is copied.
    sealing: Arc<dyn arca_barrier::Entropy>,
    version: &'static str,
    /// Everything that runs here ends with it.
    life: CancellationToken,
    kernel: OnceLock<Weak<Kernel>>,
    me: Member,
    cluster_id: String,
    replica: Arc<RaftReplica>,
    keys: Arc<KeyKeeper>,
    barrier: Arc<Barrier>,
    source: Arc<Source>,
    /// Secondaries that compare their state with the one here.
    comparisons: Comparisons,
    /// When what each secondary gets had changed last, as it compared last.
    compared: Mutex<BTreeMap<(Kind, String), u64>>,
    /// How fast copies and comparisons may go.
    pace: Arc<Pace>,
    /// One order at a time.
    orders: tokio::sync::Mutex<()>,
    /// Held by whoever changes what runs, or keeps it from running.
    running: tokio::sync::Mutex<()>,
    /// Something of class `Node` was written.
    changed: Arc<Notify>,
    following: Mutex<Option<Following>>,
    served: Mutex<Serving>,
    met: Mutex<Met>,
    announcing: Mutex<BTreeMap<Kind, JoinHandle<()>>>,
}

impl std::fmt::Debug for Replicator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replicator({} of {})", self.me.name, self.cluster_id)
    }
}

/// What [`Replicator::new`] needs.
pub struct ReplicatorParts {
    /// The node around it.
    pub surroundings: Arc<dyn Surroundings>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for names and secrets.
    pub entropy: Arc<dyn Entropy>,
    /// Randomness for what is sealed under the keys of a state that is copied.
    pub sealing: Arc<dyn arca_barrier::Entropy>,
    /// This member.
    pub me: Member,
    /// Its cluster.
    pub cluster_id: String,
    /// What the node says that it runs.
    pub version: &'static str,
    /// Its log and state.
    pub replica: Arc<RaftReplica>,
    /// Its keys.
    pub keys: Arc<KeyKeeper>,
    /// What opens its state.
    pub barrier: Arc<Barrier>,
    /// How fast copies and comparisons may go; 0 for no limit.
    pub bytes_per_second: u64,
    /// How the source goes about it.
    pub source: SourceSettings,
}

impl std::fmt::Debug for ReplicatorParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReplicatorParts({} of {})", self.me.name, self.cluster_id)
    }
}

/// The kind as the shipping crate names it.
pub const fn shipped(kind: Kind) -> arca_replication::Kind {
    match kind {
        Kind::Dr => arca_replication::Kind::Dr,
        Kind::Performance => arca_replication::Kind::Performance,
    }
}

/// What this cluster is of a kind, as far as anything runs for it: one that waits as a DR secondary is nothing else, whatever
/// it was when it was a primary.
fn active_role(standing: &Standing, kind: Kind) -> RoleRecord {
    if kind == Kind::Performance && standing.role(Kind::Dr).mode == Mode::Secondary {
        return RoleRecord::default();
    }
    standing.role(kind).clone()
}

/// What a secondary gets, as long as no filter says that it is less.
pub fn sieve(barrier: &Barrier, kind: Kind) -> Result<Sieve, BarrierError> {
    let mut sieve = Sieve::new(shipped(kind));
    sieve.own.push(boot_key("ca"));
    for folder in OWN_FOLDERS {
        sieve.own.push(barrier.seal_name(Class::Local, folder)?);
    }
    // Passed over without its keyring, and the keyring without it: a comparison takes both over in one step.
    sieve.always.push(barrier.seal_name(Class::Local, ROOT_KEY_PATH)?);
    Ok(sieve)
}

impl Replicator {
    /// # Errors
    /// When the source of randomness fails.
    pub fn new(parts: ReplicatorParts) -> Result<Arc<Self>, EntropyError> {
        let mut seed = [0; 32];
        parts.entropy.fill(&mut seed)?;
        let clock = Arc::clone(&parts.clock);
        let wall = Arc::new(move || clock.now().0);
        let source = Source::new(Arc::clone(&parts.replica) as Arc<_>, parts.source, wall);
        let changed = Arc::<Notify>::default();
        parts.replica.observe(Arc::new(RecordObserver(Arc::downgrade(&changed))));
        Ok(Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            surroundings: parts.surroundings,
            clock: parts.clock,
            entropy: parts.entropy,
            sealing: parts.sealing,
            version: parts.version,
            life: CancellationToken::new(),
            kernel: OnceLock::new(),
            me: parts.me,
            cluster_id: parts.cluster_id,
            replica: parts.replica,
            keys: parts.keys,
            barrier: parts.barrier,
            source,
            comparisons: Comparisons::new(seed),
            compared: Mutex::default(),
            pace: Arc::new(Pace::new(parts.bytes_per_second)),
            orders: tokio::sync::Mutex::default(),
            running: tokio::sync::Mutex::default(),
            changed,
            following: Mutex::default(),
            served: Mutex::default(),
            met: Mutex::default(),
            announcing: Mutex::default(),
        }))
    }

    /// From here on there is somebody to ask for the roles.
    pub fn attach(&self, kernel: &Arc<Kernel>) {
        // Once: a node that is unsealed anew has another one of us.
        let _ = self.kernel.set(Arc::downgrade(kernel));
    }

    fn kernel(&self) -> Result<Arc<Kernel>, KernelError> {
        self.kernel.get().and_then(Weak::upgrade).ok_or(KernelError::Sealed)
    }

    fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// Runs `work` until this process, or the node's being unsealed, ends.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let life = self.life.clone();
        tokio::spawn(async move {
            life.run_until_cancelled(work).await;
        })
    }

    /// The kernel, if this is the active node.
    fn active(&self) -> Result<Arc<Kernel>, KernelError> {
        let kernel = self.kernel()?;
        if self.is_active(&kernel) { Ok(kernel) } else { Err(KernelError::NeedsActive) }
    }

    /// Whether this node speaks for its cluster: one that the state has locked out does not, although it may lead for a
    /// moment. It still finds the records of before, under the names of before, and would make the same copy once more.
    fn is_active(&self, kernel: &Kernel) -> bool {
        kernel.is_active() && !self.keys.is_locked_out()
    }

    /// Has a write set, made of what is in `view`, refused once the state has come under other keys.
    ///
    /// # Errors
    /// When that has happened already.
    fn guard_keys(&self, view: &dyn ReadView) -> Result<(Key, Version), KernelError> {
        let keyring = boot_key("keyring");
        let found = view.get(&keyring).map_err(|err| KernelError::Replica(err.into()))?;
        // After the view was taken: who holds it is locked out before a view of such a state can be.
        if self.keys.is_locked_out() {
            return Err(KernelError::Sealed);
        }
        Ok((keyring, found.map_or(Version::ABSENT, |found| found.version)))
    }

    fn role(&self, kind: Kind) -> Result<RoleRecord, KernelError> {
        Ok(self.kernel()?.role(kind))
    }

    /// Commits what `stage` stages together with the raw writes it answers, whatever the role: repeated on conflicts.
    async fn commit<F>(&self, mut stage: F) -> Result<u64, KernelError>
    where
        F: FnMut(&Tx) -> Result<Vec<Write>, KernelError> + Send,
    {
        for _ in 0..COMMITS_MAX {
            let keyring = self.guard_keys(self.replica.view().as_ref())?;
            let tx = self.kernel()?.read_tx().writing();
            let raw = stage(&tx)?;
            let mut set = tx.into_write_set()?;
            set.reads.push(keyring);
            set.writes.extend(raw);
            match self.replica.propose(set).await {
                Ok(committed) => return Ok(committed.index),
                Err(ProposeError::Conflict) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Err(KernelError::Contention)
    }

    /// Makes what runs equal to what the records say, until the node seals.
    pub async fn run(this: Weak<Self>) {
        let Some((life, source)) = this.upgrade().map(|this| (this.life.clone(), Arc::clone(&this.source)))
        else {
            return;
        };
        let mut heard = source.heard();
        let keeping = async move { source.keep_log().await };
        let keeping = AbortOnDrop(tokio::spawn(async move {
            life.run_until_cancelled(keeping).await;
        }));
        let Some((mut standing, mut status, changed)) = this.upgrade().and_then(|this| {
            Some((this.kernel().ok()?.watch_standing(), this.replica.watch(), Arc::clone(&this.changed)))
        }) else {
            return;
        };
        loop {
            {
                let Some(this) = this.upgrade() else { break };
                this.reconcile().await;
            }
            let mut role = status.borrow_and_update().role;
            let role_changed = async {
                loop {
                    if status.changed().await.is_err() {
                        return;
                    }
                    let now = status.borrow_and_update().role;
                    if std::mem::replace(&mut role, now) != now {
                        return;
                    }
                }
            };
            // In one order, so that a simulation can be run again.
            tokio::select! {
                biased;
                () = changed.notified() => {}
                () = role_changed => {}
                gone = standing.changed() => if gone.is_err() { break },
                gone = heard.changed() => if gone.is_err() { break },
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
        drop(keeping);
    }

    async fn reconcile(self: &Arc<Self>) {
        let _one_at_a_time = self.running.lock().await;
        let Ok(kernel) = self.kernel() else { return };
        let standing = kernel.standing();
        if !standing.is_known() {
            return;
        }
        let is_active = self.is_active(&kernel);
        let roles = Kind::ALL.map(|kind| (kind, active_role(&standing, kind)));
        self.serve_secondaries();
        self.comparisons.sweep();
        if is_active {
            self.lead(&roles).await;
        }
        self.keep_following(is_active, &roles).await;
        for (kind, role) in &roles {
            self.keep_announcing(*kind, is_active && role.mode == Mode::Primary);
        }
        if is_active {
            self.clear_leftovers().await;
            self.keep_beside(standing.role(Kind::Performance)).await;
        }
        for (kind, role) in &roles {
            self.show_figures(*kind, role);
        }
    }

    /// Ends what follows the primary, and keeps it from beginning anew until the answer is dropped.
    async fn pause(&self) -> tokio::sync::MutexGuard<'_, ()> {
        let paused = self.running.lock().await;
        self.stop_following().await;
        paused
    }

    /// Stops what runs. What is stored stays.
    pub async fn stop(&self) {
        let _last = self.running.lock().await;
        if let Err(err) = self.surroundings.serve(Vec::new()) {
            tracing::error!(error = %err, "secondaries are still served");
        }
        self.stop_following().await;
        let announcing = std::mem::take(&mut *self.announcing.lock());
        for announcing in announcing.into_values() {
            announcing.abort();
            let _ = announcing.await;
        }
        self.life.cancel();
    }

    /// Ends everything at once, as when the process dies: nothing is waited for.
    pub fn kill(&self) {
        self.life.cancel();
    }
}

/// Aborts a task when dropped.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Wakes whoever compares records with what runs.
struct RecordObserver(Weak<Notify>);

impl ApplyObserver for RecordObserver {
    fn applied(&self, _index: u64, change: Change<'_>) {
        let is_record = match change {
            Change::Everything => true,
            Change::Write(write) => {
                let key = write.key();
                key.first() == Some(&Class::Node.tag()) && !key.starts_with(&arca_replication::RECORDS)
            }
        };
        if let Some(changed) = self.0.upgrade().filter(|_| is_record) {
            changed.notify_one();
        }
    }
}
