//! What a new cluster starts with: its identity, its keys, the fixed mounts and a root token.

use std::sync::Arc;

use arca_barrier::{Barrier, Class};
use arca_engine_api::{Clock, EngineType, Entropy};
use arca_raft_storage::ReadView;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::kernel::KernelConfig;
use crate::mounts::Mounts;
use crate::namespaces::ROOT_ID;
use crate::tx::{Mode, Tx};
use crate::watch::Watches;
use crate::{KernelError, index_header, tokens};

const IDENTITY_PATH: &str = "root/core/cluster";

/// A cluster to be made.
pub struct NewCluster<'a> {
    /// Its random id.
    pub cluster_id: String,
    /// Its name.
    pub cluster_name: String,
    /// Every type that can be mounted: those with a fixed place are.
    pub engines: &'a [EngineType],
    /// The root token, where one is chosen (`-dev-root-token-id`).
    pub root_token: Option<String>,
}

/// Who a cluster is. Never leaves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) cluster_id: String,
    pub(crate) cluster_name: String,
}

pub(crate) fn identity(tx: &Tx) -> Result<Option<Identity>, KernelError> {
    Ok(tx.get_record(Class::Node, IDENTITY_PATH)?)
}

/// The cluster's name as it was stored when the cluster was made.
#[must_use]
pub fn cluster_name(barrier: &Arc<Barrier>, view: Arc<dyn ReadView>) -> Option<String> {
    let tx = Tx::new(Arc::clone(barrier), view, Mode::ReadOnly);
    identity(&tx).ok().flatten().map(|identity| identity.cluster_name)
}

/// Stages everything a new cluster starts with and answers its root token.
///
/// # Errors
/// When randomness fails, or a chosen root token is no token.
pub fn initial_state(
    tx: &Tx,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    new: &NewCluster<'_>,
) -> Result<Zeroizing<String>, KernelError> {
    let identity = Identity { cluster_id: new.cluster_id.clone(), cluster_name: new.cluster_name.clone() };
    tx.put_record(Class::Node, IDENTITY_PATH, &identity)?;
    let mut key = Zeroizing::new(vec![0; 32]);
    entropy.fill(&mut key)?;
    tx.put(Class::Local, index_header::KEY_PATH, key)?;
    let config = KernelConfig::default();
    let mounts = Mounts::new(
        Arc::new(Watches::default()),
        new.engines.to_vec(),
        config.default_lease_ttl,
        config.max_lease_ttl,
    );
    mounts.write_built_in(tx, ROOT_ID, entropy)?;
    tokens::create::initial_root(tx, clock, entropy, new.root_token.as_deref())
}
