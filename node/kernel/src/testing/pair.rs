//! Two kernels over one state in memory, one of them active: for tests of what stands on kernels.

use std::sync::Arc;

use arca_barrier::{Barrier, Keyring, Suite};
use arca_engine_api::{Clock, EngineKind, EngineType};

use super::{LocalReplica, NotingCluster, SeededEntropy, TestClock, notes_engine};
use crate::initial::{NewCluster, initial_state};
use crate::tx::Mode;
use crate::{Kernel, KernelConfig, KernelError, KernelParts, Outside};

/// See the file's header.
pub struct Pair {
    /// The active node's.
    pub active: Arc<Kernel>,
    /// The standby's.
    pub standby: Arc<Kernel>,
}

impl Pair {
    /// Makes a cluster with this root token.
    ///
    /// # Errors
    /// When its first state cannot be made.
    pub async fn new(root_token: &str) -> Result<Self, KernelError> {
        let (entropy, clock) = (Arc::new(SeededEntropy::default()), Arc::new(TestClock::default()));
        let keyring = Keyring::generate(entropy.as_ref(), clock.now().0, Suite::XChaCha20Poly1305)
            .map_err(|err| KernelError::Bug(err.to_string()))?;
        let barrier = Arc::new(Barrier::new(keyring, Arc::clone(&entropy) as Arc<dyn arca_barrier::Entropy>));
        let engines = vec![EngineType { name: "cubbyhole", ..notes_engine(EngineKind::Secrets) }];
        let start = |replica: &LocalReplica| {
            Kernel::start(KernelParts {
                barrier: Arc::clone(&barrier),
                replica: Arc::new(replica.clone()),
                clock: Arc::clone(&clock) as Arc<dyn Clock>,
                entropy: Arc::clone(&entropy) as Arc<dyn arca_engine_api::Entropy>,
                engines: engines.clone(),
                cluster: Arc::new(NotingCluster::default()),
                outside: Outside::default(),
                config: KernelConfig::default(),
            })
        };
        let replica = LocalReplica::default();
        let active = start(&replica)?;
        let tx = active.store.begin(Mode::ReadWrite);
        let new = NewCluster {
            cluster_id: "c".to_owned(),
            cluster_name: "n".to_owned(),
            engines: &engines,
            root_token: Some(root_token.to_owned()),
        };
        initial_state(&tx, clock.as_ref(), entropy.as_ref(), &new)?;
        active.store.commit(tx).await?;
        active.activate();
        let standby = start(&replica.follower())?;
        Ok(Self { active, standby })
    }
}
