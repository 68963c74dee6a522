//! A cluster port that notes what it was asked and carries nothing out, but for rotations once it was given keys.

use std::sync::Arc;

use arca_barrier::{Entropy, RotationConfig};
use arca_engine_api::Map;
use arca_raft_storage::SnapshotStream;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::json;

use crate::KernelError;
use crate::key_keeper::KeyKeeper;
use crate::ports::{ClusterInfo, ClusterPort, HaNode};
use crate::replication::ReplicationPort;
use crate::root_keys::RootKeys;

/// What carries rotations out, and with which randomness.
type Keys = (Arc<KeyKeeper>, Arc<dyn Entropy>);

/// See the file's header.
#[derive(Default)]
pub struct NotingCluster {
    notes: Mutex<Vec<String>>,
    root_keys: Mutex<Option<Arc<dyn RootKeys>>>,
    keys: Mutex<Option<Keys>>,
    replication: Mutex<Option<Arc<dyn ReplicationPort>>>,
}

impl std::fmt::Debug for NotingCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotingCluster").field("notes", &self.notes).finish_non_exhaustive()
    }
}

impl NotingCluster {
    /// What carries rotations out from now on, as in a node.
    pub fn set_keys(&self, keys: Arc<KeyKeeper>, entropy: Arc<dyn Entropy>) {
        *self.keys.lock() = Some((keys, entropy));
    }

    /// What was asked since the last call.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock())
    }

    /// What answers for root tokens and key shares from now on.
    pub fn set_root_keys(&self, root_keys: Arc<dyn RootKeys>) {
        *self.root_keys.lock() = Some(root_keys);
    }

    /// What changes and shows roles from now on.
    pub fn set_replication(&self, replication: Arc<dyn ReplicationPort>) {
        *self.replication.lock() = Some(replication);
    }

    fn note(&self, text: impl Into<String>) {
        self.notes.lock().push(text.into());
    }
}

fn object(value: serde_json::Value) -> Map {
    if let serde_json::Value::Object(map) = value { map } else { Map::new() }
}

#[async_trait]
impl ClusterPort for NotingCluster {
    fn info(&self) -> ClusterInfo {
        ClusterInfo {
            cluster_id: "11111111-2222-3333-4444-555555555555".to_owned(),
            cluster_name: "test".to_owned(),
            node_name: "node-1".to_owned(),
            api_addr: "https://127.0.0.1:8200".to_owned(),
            cluster_addr: "https://127.0.0.1:8201".to_owned(),
            version: "2.0.0".to_owned(),
            storage_type: "raft".to_owned(),
            ..ClusterInfo::default()
        }
    }

    async fn ha_status(&self) -> Result<Vec<HaNode>, KernelError> {
        Ok(vec![HaNode {
            hostname: "node-1".to_owned(),
            api_address: "https://127.0.0.1:8200".to_owned(),
            cluster_address: "https://127.0.0.1:8201".to_owned(),
            is_active: true,
            version: "2.0.0".to_owned(),
            last_echo: None,
        }])
    }

    async fn step_down(&self) -> Result<(), KernelError> {
        self.note("step-down");
        Ok(())
    }

    async fn seal(&self) -> Result<(), KernelError> {
        self.note("seal");
        Ok(())
    }

    async fn raft_configuration(&self) -> Result<Map, KernelError> {
        Ok(object(json!({"config": {"index": 0, "servers": []}})))
    }

    async fn remove_peer(&self, node_name: &str) -> Result<(), KernelError> {
        self.note(format!("remove-peer {node_name}"));
        Ok(())
    }

    async fn promote(&self, node_name: &str) -> Result<(), KernelError> {
        self.note(format!("promote {node_name}"));
        Ok(())
    }

    async fn demote(&self, node_name: &str) -> Result<(), KernelError> {
        self.note(format!("demote {node_name}"));
        Ok(())
    }

    async fn autopilot_state(&self) -> Result<Map, KernelError> {
        Ok(object(json!({"healthy": true})))
    }

    async fn snapshot(&self) -> Result<SnapshotStream, KernelError> {
        let chunk = Ok(Bytes::from_static(b"snapshot"));
        Ok(Box::pin(futures::stream::iter([chunk])))
    }

    async fn restore(&self, mut backup: SnapshotStream, is_forced: bool) -> Result<(), KernelError> {
        let mut size = 0;
        while let Some(chunk) = backup.next().await {
            size += chunk.map_err(KernelError::Invalid)?.len();
        }
        self.note(format!("restore {size} bytes, forced {is_forced}"));
        Ok(())
    }

    async fn rotate_keyring(&self) -> Result<(), KernelError> {
        self.note("rotate");
        let keys = self.keys.lock().clone();
        match keys {
            Some((keys, entropy)) => {
                keys.store(entropy.as_ref(), |_| Ok(()), |barrier| barrier.rotated(0)).await
            }
            None => Ok(()),
        }
    }

    async fn configure_rotation(&self, config: RotationConfig) -> Result<(), KernelError> {
        self.note(format!("rotate after {} operations", config.max_operations));
        Ok(())
    }

    async fn host_info(&self) -> Result<Map, KernelError> {
        Ok(object(json!({"host": {"hostname": "node-1"}})))
    }

    fn metrics(&self, is_prometheus: bool) -> Result<String, KernelError> {
        Ok(if is_prometheus { "# none\n".to_owned() } else { "{}".to_owned() })
    }

    fn root_keys(&self) -> Option<Arc<dyn RootKeys>> {
        self.root_keys.lock().clone()
    }

    fn replication(&self) -> Option<Arc<dyn ReplicationPort>> {
        self.replication.lock().clone()
    }

    fn sanitized_config(&self) -> Map {
        object(json!({"api_addr": "https://127.0.0.1:8200"}))
    }
}
