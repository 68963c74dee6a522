//! The node as the API sees it.

use std::sync::Arc;
use std::time::Duration;

use arca_api::system::{Carried, CarriedBack, CarryFailure};
use arca_api::{
    Health, InitRequest, InitResponse, JoinRequest, LeaderStatus, SealStatus, System, SystemError,
    UnsealRequest,
};
use arca_kernel::Kernel;
use arca_raft_storage::Replica as _;
use async_trait::async_trait;
use serde_json::Value;

use crate::node::{Node, VERSION};
use crate::unsealed::Unsealed;

/// Go's zero time, as clients of this family show "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The node, shared with the API.
pub struct NodeSystem(pub Arc<Node>);

#[async_trait]
impl System for NodeSystem {
    fn kernel(&self) -> Option<Arc<Kernel>> {
        self.0.unsealed.load().as_ref().map(|unsealed| Arc::clone(&unsealed.kernel))
    }

    fn is_active(&self) -> bool {
        self.0.is_active()
    }

    fn is_behind(&self) -> bool {
        // A member whose disk is full takes no entries. Of the active one nothing is behind.
        let behind = |unsealed: &Unsealed| !unsealed.kernel.is_active() && unsealed.replica.is_disk_full();
        self.0.unsealed.load().as_ref().is_some_and(|unsealed| behind(unsealed))
    }

    fn seal_status(&self) -> SealStatus {
        self.0.seal_status()
    }

    fn health(&self) -> Health {
        let status = self.0.seal_status();
        let is_active = self.0.is_known_active();
        let has_leader =
            self.0.unsealed.load().as_ref().map(|unsealed| unsealed.replica.status().leader.is_some());
        Health {
            initialized: status.initialized,
            sealed: status.sealed,
            standby: !is_active,
            performance_standby: false,
            replication_performance_mode: "disabled".to_owned(),
            replication_dr_mode: "disabled".to_owned(),
            server_time_utc: self.0.clock.now().0 / 1_000,
            version: VERSION.to_owned(),
            enterprise: false,
            cluster_name: status.cluster_name,
            cluster_id: status.cluster_id,
            ha_connection_healthy: if is_active { None } else { has_leader },
            removed_from_cluster: status.removed_from_cluster,
        }
    }

    fn leader(&self) -> LeaderStatus {
        let Some(unsealed) = self.0.unsealed.load_full() else {
            return LeaderStatus {
                ha_enabled: self.0.disk.is_clustered(),
                active_time: NEVER.to_owned(),
                ..LeaderStatus::default()
            };
        };
        let status = unsealed.replica.status();
        let leader = status.leader.unwrap_or_default();
        let is_self = self.0.is_known_active();
        let active_since = unsealed.kernel.active_since().filter(|_| is_self);
        LeaderStatus {
            ha_enabled: self.0.disk.is_clustered(),
            is_self,
            active_time: active_since.map_or_else(|| NEVER.to_owned(), arca_kernel::rfc3339::format),
            leader_address: leader.api_addr,
            leader_cluster_address: if leader.cluster_addr.is_empty() {
                String::new()
            } else {
                format!("https://{}", leader.cluster_addr)
            },
            performance_standby: false,
            performance_standby_last_remote_wal: 0,
            raft_committed_index: status.committed_index,
            raft_applied_index: status.applied_index,
        }
    }

    async fn init(&self, request: InitRequest) -> Result<InitResponse, SystemError> {
        Ok(self.0.init(request).await?)
    }

    async fn unseal(&self, request: UnsealRequest) -> Result<SealStatus, SystemError> {
        if request.is_reset {
            return Ok(self.0.reset_unseal().await);
        }
        Ok(self.0.unseal(&request.key).await?)
    }

    async fn join(&self, request: JoinRequest) -> Result<bool, SystemError> {
        Ok(self.0.join(request).await?)
    }

    async fn join_challenge(&self, _request: Value) -> Result<Value, SystemError> {
        Ok(self.0.join_challenge()?)
    }

    async fn join_answer(&self, request: Value) -> Result<Value, SystemError> {
        Ok(self.0.join_answer(request).await?)
    }

    fn seal_facts(&self) -> Result<Value, SystemError> {
        Ok(self.0.seal_facts()?)
    }

    async fn carry(&self, request: Carried, patience: Duration) -> Result<CarriedBack, CarryFailure> {
        let Some(unsealed) = self.0.unsealed.load_full() else { return Err(CarryFailure::Undelivered) };
        unsealed.carry(request, patience, &self.0.config.node_name).await
    }

    fn metrics(&self, is_prometheus: bool) -> Option<String> {
        self.0.metrics(is_prometheus)
    }

    fn redirect_address(&self) -> Option<String> {
        let unsealed = self.0.unsealed.load_full()?;
        let leader = unsealed.replica.status().leader?;
        (leader.id != unsealed.record.member && !leader.api_addr.is_empty()).then_some(leader.api_addr)
    }
}
