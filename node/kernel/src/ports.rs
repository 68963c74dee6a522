//! What the kernel needs from the node around it: the cluster's operations. The node implements, the kernel calls;
//! the kernel has already authorized and audited.

use std::fmt::Debug;
use std::sync::Arc;

use arca_barrier::RotationConfig;
use arca_engine_api::Map;
use arca_raft_storage::SnapshotStream;
use async_trait::async_trait;

use crate::KernelError;
use crate::replication::ReplicationPort;
use crate::root_keys::RootKeys;

/// Names and addresses of this node and its cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterInfo {
    /// Random id, made at init.
    pub cluster_id: String,
    /// From the configuration, or made at init.
    pub cluster_name: String,
    /// `node_id` of this node.
    pub node_name: String,
    /// This node's API address.
    pub api_addr: String,
    /// This node's cluster address.
    pub cluster_addr: String,
    /// API address of the active node, if known.
    pub leader_api_addr: Option<String>,
    /// Cluster address of the active node, if known.
    pub leader_cluster_addr: Option<String>,
    /// Version string.
    pub version: String,
    /// `raft`, `inmem` or `file`.
    pub storage_type: String,
}

/// One row of `sys/ha-status`.
#[derive(Clone, Debug)]
pub struct HaNode {
    /// Host name.
    pub hostname: String,
    /// API address.
    pub api_address: String,
    /// Cluster address.
    pub cluster_address: String,
    /// Whether it is the active node.
    pub is_active: bool,
    /// Version it runs.
    pub version: String,
    /// RFC 3339, absent for the active node.
    pub last_echo: Option<String>,
}

/// Cluster operations behind `sys/`. Names are `node_id`s. Answers are ready-made `data` objects in Vault's shape.
#[async_trait]
pub trait ClusterPort: Debug + Send + Sync {
    /// Names and addresses.
    fn info(&self) -> ClusterInfo;

    /// Rows for `sys/ha-status`.
    async fn ha_status(&self) -> Result<Vec<HaNode>, KernelError>;

    /// Hands leadership over; returns once another node leads.
    async fn step_down(&self) -> Result<(), KernelError>;

    /// Seals this node (the active node first hands leadership over). Returns at once; sealing follows the answer.
    async fn seal(&self) -> Result<(), KernelError>;

    /// `sys/storage/raft/configuration`: `{"config": {"index": …, "servers": [...]}}`.
    async fn raft_configuration(&self) -> Result<Map, KernelError>;

    /// Removes a member by name.
    async fn remove_peer(&self, node_name: &str) -> Result<(), KernelError>;

    /// Learner to voter.
    async fn promote(&self, node_name: &str) -> Result<(), KernelError>;

    /// Voter to learner.
    async fn demote(&self, node_name: &str) -> Result<(), KernelError>;

    /// `sys/storage/raft/autopilot/state`.
    async fn autopilot_state(&self) -> Result<Map, KernelError>;

    /// A backup: gzip tar of `meta.json`, `state.bin`, `SHA256SUMS`, `SHA256SUMS.sealed`.
    async fn snapshot(&self) -> Result<SnapshotStream, KernelError>;

    /// Restores a backup. `is_forced` skips the check that it was made under this cluster's keys.
    async fn restore(&self, backup: SnapshotStream, is_forced: bool) -> Result<(), KernelError>;

    /// Rotates the keyring: adds a term, persists it, installs it on every node.
    async fn rotate_keyring(&self) -> Result<(), KernelError>;

    /// Changes when the keyring rotates by itself: persists the setting, installs it on every node.
    async fn configure_rotation(&self, config: RotationConfig) -> Result<(), KernelError>;

    /// `sys/host-info`.
    async fn host_info(&self) -> Result<Map, KernelError>;

    /// Metrics: Prometheus text when `is_prometheus`, else JSON in go-metrics' shape.
    fn metrics(&self, is_prometheus: bool) -> Result<String, KernelError>;

    /// `sys/config/state/sanitized`.
    fn sanitized_config(&self) -> Map;

    /// Root tokens and key shares; `None` while sealing.
    fn root_keys(&self) -> Option<Arc<dyn RootKeys>>;

    /// What this cluster is to others; `None` while sealing, and where there is nobody to follow or be followed by.
    fn replication(&self) -> Option<Arc<dyn ReplicationPort>> {
        None
    }
}
