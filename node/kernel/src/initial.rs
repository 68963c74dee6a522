//! What a new cluster starts with: its identity, its keys, the fixed mounts and a root token.

use std::sync::Arc;

use arca_barrier::{Barrier, Class};
use arca_engine_api::{Clock, EngineType, Entropy};
use arca_raft_storage::ReadView;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::kernel::{Kernel, KernelConfig};
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
    tx.put(Class::Replicated, index_header::KEY_PATH, key)?;
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

impl Kernel {
    /// Makes what every cluster has of its own and the copy of another's state does not bring: the key under which tokens
    /// are known, and the mounts at fixed places that are local. Harmless where all of it is there.
    ///
    /// # Errors
    /// When it cannot be committed.
    pub async fn complete_local(&self) -> Result<(), KernelError> {
        self.commit_staged(|tx| {
            // Behind the view: it shows what the transaction does, and every change of mounts refuses the commit.
            let router = self.mounts.router(&self.store)?;
            self.tokens.prepare(tx, self.entropy.as_ref())?;
            for namespace in router.namespaces().iter() {
                self.mounts.write_missing(tx, &router, namespace, self.entropy.as_ref())?;
            }
            Ok(())
        })
        .await
    }

    /// Writes down who the cluster is, unless that is there and can be read: a restored backup holds no identity, and may
    /// take away the keys under which it was sealed. So with its roles.
    ///
    /// # Errors
    /// When it cannot be committed.
    pub async fn keep_identity(&self, cluster_id: &str, cluster_name: &str) -> Result<(), KernelError> {
        self.keep_roles().await?;
        let found = identity(&self.read_tx());
        if matches!(&found, Ok(Some(found)) if found.cluster_id == cluster_id) {
            return Ok(());
        }
        let identity = Identity { cluster_id: cluster_id.to_owned(), cluster_name: cluster_name.to_owned() };
        self.commit_with(|tx| tx.put_record(Class::Node, IDENTITY_PATH, &identity)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_header::Stated;
    use crate::tokens::rig::Rig;

    #[tokio::test]
    async fn nothing_is_kept_of_a_state_that_a_backup_replaced() {
        let rig = Rig::new().await;
        let kernel = &rig.kernel;
        let before = kernel.index_header().unwrap().unwrap().write(1, 1).unwrap();
        assert!(kernel.tokens.find(&rig.view(), "root", rig.now()).unwrap().is_some());
        rig.commit(|tx| {
            tx.put(Class::Local, "root/core/salt", Zeroizing::new(vec![9; 32]))?;
            Ok(tx.put(Class::Replicated, index_header::KEY_PATH, Zeroizing::new(vec![9; 32]))?)
        })
        .await
        .unwrap();
        rig.replica.say_replaced();
        assert!(kernel.tokens.find(&rig.view(), "root", rig.now()).unwrap().is_none(), "another salt");
        let header = kernel.index_header().unwrap().unwrap();
        assert!(header.read(&before).is_err(), "another key");
        assert_eq!(header.read(&header.write(1, 1).unwrap()).unwrap(), Stated::Ours { local: 1, shared: 1 });
    }

    #[tokio::test]
    async fn an_identity_is_written_only_where_none_can_be_read() {
        let rig = Rig::new().await;
        let name = || identity(&rig.view()).unwrap().unwrap().cluster_name;
        rig.kernel.keep_identity("c", "other").await.unwrap();
        assert_eq!(name(), "n", "it is there");
        rig.commit(|tx| Ok(tx.delete(Class::Node, IDENTITY_PATH)?)).await.unwrap();
        rig.kernel.keep_identity("c", "other").await.unwrap();
        assert_eq!(name(), "other");
        rig.commit(|tx| Ok(tx.put(Class::Node, IDENTITY_PATH, Zeroizing::new(b"nonsense".to_vec()))?))
            .await
            .unwrap();
        rig.kernel.keep_identity("c", "again").await.unwrap();
        assert_eq!(name(), "again");
    }
}
