//! The kernel of an unsealed node: its parts, and its start, roles and end.
//!
//! The node starts one when it is unsealed, tells it when it becomes or stops being the active node, and shuts it
//! down before it seals. **Invariant:** nothing is loaded when a node becomes active; a promotion is a flag and a
//! few spawned tasks.
//! Read next: [`crate::pipeline`] for requests, [`crate::housekeeping`] for what the active node does by itself.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_barrier::Barrier;
use arca_engine_api::{Clock, EngineType, Entropy};
use arca_raft_storage::Replica;

use crate::KernelError;
use crate::cache::ObjectCache;
use crate::mounts::Mounts;
use crate::policy::PolicyStore;
use crate::ports::ClusterPort;
use crate::store::SealedStore;
use crate::watch::{Observer, Watches};

/// Settings of the kernel.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Lifetime of leases and tokens whose mount says nothing.
    pub default_lease_ttl: Duration,
    /// Longest lifetime of leases and tokens whose mount says nothing.
    pub max_lease_ttl: Duration,
}

impl Default for KernelConfig {
    /// 768 hours each, as everybody in this family.
    fn default() -> Self {
        let ttl = Duration::from_secs(768 * 3600);
        Self { default_lease_ttl: ttl, max_lease_ttl: ttl }
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
    /// Settings.
    pub config: KernelConfig,
}

/// See the file's header.
pub struct Kernel {
    pub(crate) store: SealedStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) cluster: Arc<dyn ClusterPort>,
    pub(crate) config: KernelConfig,
    pub(crate) cache: Arc<ObjectCache>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) mounts: Mounts,
    pub(crate) policies: PolicyStore,
    active: AtomicBool,
    me: Weak<Self>,
}

impl Kernel {
    /// Starts a kernel as a standby.
    ///
    /// # Errors
    /// When names cannot be sealed.
    pub fn start(parts: KernelParts) -> Result<Arc<Self>, KernelError> {
        let KernelParts { barrier, replica, clock, entropy, engines, cluster, config } = parts;
        let (cache, watches) = (Arc::new(ObjectCache::default()), Arc::new(Watches::default()));
        replica.observe(Arc::new(Observer::new(&cache, &watches)));
        let store = SealedStore::new(barrier, replica);
        let mounts =
            Mounts::new(Arc::clone(&watches), engines, config.default_lease_ttl, config.max_lease_ttl);
        mounts.watch_root(&store)?;
        Ok(Arc::new_cyclic(|me| Self {
            store,
            clock,
            entropy,
            cluster,
            config,
            cache,
            watches,
            mounts,
            policies: PolicyStore::default(),
            active: AtomicBool::new(false),
            me: Weak::clone(me),
        }))
    }

    /// Whether this node is the active one.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("is_active", &self.is_active()).finish_non_exhaustive()
    }
}
