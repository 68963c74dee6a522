//! The kernel of an unsealed node: its parts, and its start, roles and end.
//!
//! The node starts one when it is unsealed, tells it when it becomes or stops being the active node, and shuts it
//! down before it seals. **Invariant:** nothing is loaded when a node becomes active; a promotion is a flag and a
//! few spawned tasks.
//! Read next: [`crate::pipeline`] for requests, [`crate::housekeeping`] for what the active node does by itself.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use arca_barrier::Barrier;
use arca_danger::Bug;
use arca_engine_api::{
    AtOnce, Clock, EngineType, Entropy, Http, NoHttp, NoPod, Pod, StorageError, UnixMillis, Workers,
};
use arca_raft_storage::Replica;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::audit::{AuditBroker, AuditSettings};
use crate::builtin::Builtin;
use crate::cache::ObjectCache;
use crate::contention::Contention;
use crate::identity::Resolver;
use crate::in_flight::InFlight;
use crate::index_header::IndexHeader;
use crate::leases::{Claims, Leases, SteadyTime};
use crate::lockout::{Lockout, LockoutDefaults};
use crate::mounts::Mounts;
use crate::policy::PolicyStore;
use crate::ports::ClusterPort;
use crate::store::SealedStore;
use crate::sys::pace::Pace;
use crate::tokens::TokenStore;
use crate::tx::{Mode, Tx};
use crate::watch::{Observer, Watches};
use crate::{KernelError, initial, sys};

/// Longest wait for requests under way when the kernel is shut down.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);
/// Times a write of the kernel's own is repeated on conflicts.
pub(crate) const COMMITS_MAX: usize = 32;

/// Settings of the kernel.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Lifetime of leases and tokens whose mount says nothing.
    pub default_lease_ttl: Duration,
    /// Longest lifetime of leases and tokens whose mount says nothing.
    pub max_lease_ttl: Duration,
    /// What the node says about audit.
    pub audit: AuditSettings,
    /// What the node says about failed logins.
    pub lockout: LockoutDefaults,
}

impl Default for KernelConfig {
    /// 768 hours each, as everybody in this family.
    fn default() -> Self {
        let ttl = Duration::from_secs(768 * 3600);
        Self {
            default_lease_ttl: ttl,
            max_lease_ttl: ttl,
            audit: AuditSettings::default(),
            lockout: LockoutDefaults::default(),
        }
    }
}

/// What engines may reach beyond their storage.
#[derive(Clone, Debug)]
pub struct Outside {
    /// Other systems.
    pub http: Arc<dyn Http>,
    /// Threads for what takes long.
    pub workers: Arc<dyn Workers>,
    /// The pod the node runs in.
    pub pod: Arc<dyn Pod>,
}

impl Default for Outside {
    /// Nobody can be reached, and everything is computed at once: for tests and the simulation.
    fn default() -> Self {
        Self { http: Arc::new(NoHttp), workers: Arc::new(AtOnce), pod: Arc::new(NoPod) }
    }
}

/// What a kernel is made of.
pub struct KernelParts {
    /// Seals and opens.
    pub barrier: Arc<Barrier>,
    /// This member's copy of the state.
    pub replica: Arc<dyn Replica>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Every type that can be mounted.
    pub engines: Vec<EngineType>,
    /// The node around it.
    pub cluster: Arc<dyn ClusterPort>,
    /// What engines may reach.
    pub outside: Outside,
    /// Settings.
    pub config: KernelConfig,
}

/// A key lasts as long as the state it is of.
struct LoadedHeader {
    header: Arc<IndexHeader>,
    /// Index of the view it was read from.
    read_at: u64,
}

/// See the file's header.
pub struct Kernel {
    pub(crate) store: SealedStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) cluster: Arc<dyn ClusterPort>,
    pub(crate) outside: Outside,
    pub(crate) config: KernelConfig,
    pub(crate) watches: Arc<Watches>,
    pub(crate) mounts: Mounts,
    pub(crate) policies: PolicyStore,
    pub(crate) tokens: TokenStore,
    pub(crate) identities: Resolver,
    pub(crate) leases: Leases,
    pub(crate) lockout: Lockout,
    pub(crate) audit: AuditBroker,
    pub(crate) contention: Contention,
    pub(crate) system_groups: Vec<Box<dyn Builtin>>,
    pub(crate) token_groups: Vec<Box<dyn Builtin>>,
    pub(crate) identity_groups: Vec<Box<dyn Builtin>>,
    /// Mounts whose change this node is finishing right now.
    pub(crate) changing: Mutex<BTreeSet<String>>,
    /// Leases this node is undoing right now.
    pub(crate) undoing: Claims,
    index_header: ArcSwapOption<LoadedHeader>,
    /// The wall clock held against the monotonic one.
    pub(crate) steady: Mutex<SteadyTime>,
    active: AtomicBool,
    /// Milliseconds; zero when it is not.
    active_since: AtomicU64,
    housekeeping: Mutex<Vec<AbortHandle>>,
    requests: TaskTracker,
    pub(crate) in_flight: InFlight,
    /// Index of the router whose mounts were followed last; zero before any was. Held by whoever follows them.
    pub(crate) followed: tokio::sync::Mutex<u64>,
    /// Of wrong tokens on a DR secondary.
    pub(crate) operation_pace: Pace,
    pub(crate) me: Weak<Self>,
}

impl Kernel {
    /// Starts a kernel as a standby.
    ///
    /// # Errors
    /// When names cannot be sealed, or there is no randomness.
    pub fn start(parts: KernelParts) -> Result<Arc<Self>, KernelError> {
        let KernelParts { barrier, replica, clock, entropy, engines, cluster, outside, config } = parts;
        let (cache, watches) = (Arc::new(ObjectCache::default()), Arc::new(Watches::default()));
        replica.observe(Arc::new(Observer::new(&cache, &watches)));
        let store = SealedStore::new(barrier, replica, Arc::clone(&clock))?;
        let mounts =
            Mounts::new(Arc::clone(&watches), engines, config.default_lease_ttl, config.max_lease_ttl);
        mounts.watch_root(&store)?;
        let audit = AuditBroker::new(config.audit.clone(), Arc::clone(&entropy));
        let steady = Mutex::new(SteadyTime::new(clock.now(), clock.monotonic()));
        let contention = Contention::new(entropy.as_ref())?;
        let kernel = Arc::new_cyclic(|me| Self {
            tokens: TokenStore::new(Arc::clone(&cache)),
            identities: Resolver::new(cache),
            leases: Leases,
            lockout: Lockout::default(),
            store,
            clock,
            entropy,
            cluster,
            outside,
            config,
            watches,
            mounts,
            policies: PolicyStore::default(),
            audit,
            contention,
            system_groups: sys::groups(),
            token_groups: crate::tokens::routes::groups(),
            identity_groups: crate::identity::groups(),
            changing: Mutex::default(),
            undoing: Claims::default(),
            index_header: ArcSwapOption::empty(),
            steady,
            active: AtomicBool::new(false),
            active_since: AtomicU64::new(0),
            housekeeping: Mutex::default(),
            requests: TaskTracker::new(),
            in_flight: InFlight::default(),
            followed: tokio::sync::Mutex::default(),
            operation_pace: Pace::default(),
            me: Weak::clone(me),
        });
        crate::housekeeping::watch_clock(&kernel.me);
        crate::replication::standing::announce(&kernel);
        Ok(kernel)
    }

    /// Whether this node is the active one.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Whether another node is the active one, as far as this one knows.
    pub(crate) fn can_ask_active(&self) -> bool {
        let status = self.store.replica().status();
        !self.is_active() && status.leader.is_some_and(|leader| leader.id != status.id)
    }

    /// Since when, if it is.
    #[must_use]
    pub fn active_since(&self) -> Option<UnixMillis> {
        let since = self.active_since.load(Ordering::Acquire);
        (self.is_active() && since != 0).then_some(UnixMillis(since))
    }

    /// This node has become the active one: it writes, and keeps house.
    pub fn activate(&self) {
        if self.active.swap(true, Ordering::AcqRel) {
            return;
        }
        let led_at = self.active_since.swap(self.clock.now().0, Ordering::AcqRel);
        self.lockout.forget();
        tracing::info!("this node is active");
        if led_at != 0 && arca_danger::is(Bug::HousekeepingOnce) {
            return;
        }
        *self.housekeeping.lock() = crate::housekeeping::spawn(&self.me);
    }

    /// This node is no longer the active one.
    pub fn deactivate(&self) {
        if !self.active.swap(false, Ordering::AcqRel) {
            return;
        }
        tracing::info!("this node is a standby");
        for task in self.housekeeping.lock().drain(..) {
            task.abort();
        }
    }

    /// Opens the audit files anew, after they were moved away (SIGHUP).
    pub fn reload_audit(&self) {
        self.audit.reopen();
    }

    /// Takes no more requests and waits for those under way.
    pub async fn shutdown(&self) {
        self.deactivate();
        self.requests.close();
        if tokio::time::timeout(SHUTDOWN_PATIENCE, self.requests.wait()).await.is_err() {
            tracing::warn!("requests still under way are cut off");
        }
    }

    /// Counts a request as under way.
    pub(crate) fn enter(&self) -> Result<TaskTrackerToken, KernelError> {
        let token = self.requests.token();
        if self.requests.is_closed() { Err(KernelError::Sealed) } else { Ok(token) }
    }

    /// How many requests are under way.
    #[must_use]
    pub fn requests_under_way(&self) -> usize {
        self.requests.len()
    }

    /// What is applied here now, for reading.
    #[must_use]
    pub fn read_tx(&self) -> Tx {
        self.store.begin(Mode::ReadOnly)
    }

    /// Commits a write of the node's or the kernel's own, repeated on conflicts.
    ///
    /// # Errors
    /// When `stage` fails, or the commit does.
    pub async fn commit_with<F>(&self, mut stage: F) -> Result<(), KernelError>
    where
        F: FnMut(&Tx) -> Result<(), StorageError> + Send,
    {
        self.commit_staged(|tx| stage(tx).map_err(KernelError::from)).await.map(|_| ())
    }

    /// As [`Self::commit_with`]; answers what `stage` answered when it was committed.
    pub(crate) async fn commit_staged<T, F>(&self, mut stage: F) -> Result<T, KernelError>
    where
        F: FnMut(&Tx) -> Result<T, KernelError> + Send,
        T: Send,
    {
        for _ in 0..COMMITS_MAX {
            let tx = self.store.begin(Mode::ReadWrite);
            let staged = stage(&tx)?;
            match self.store.commit(tx).await {
                Ok(_) => return Ok(staged),
                Err(err) if err.is_conflict() => {}
                Err(err) => return Err(err),
            }
        }
        Err(KernelError::Contention)
    }

    /// Makes and reads `X-Vault-Index`; `None` on a cluster without the key for it.
    pub(crate) fn index_header(&self) -> Result<Option<Arc<IndexHeader>>, KernelError> {
        let replaced_at = self.watches.replaced_at();
        if let Some(loaded) = self.index_header.load_full().filter(|loaded| loaded.read_at >= replaced_at) {
            return Ok(Some(Arc::clone(&loaded.header)));
        }
        let tx = self.read_tx();
        let identity = match initial::identity(&tx) {
            Ok(Some(identity)) => identity,
            Ok(None) => return Ok(None),
            // A restored backup took away the keys it was sealed under; it is about to be written anew.
            Err(err) => {
                tracing::warn!(error = %err, "the cluster's identity cannot be read");
                return Ok(None);
            }
        };
        let header = IndexHeader::load(&tx, &identity.cluster_id)?.map(Arc::new);
        let loaded = header.clone().map(|header| Arc::new(LoadedHeader { header, read_at: tx.index() }));
        self.index_header.store(loaded);
        Ok(header)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("is_active", &self.is_active()).finish_non_exhaustive()
    }
}
