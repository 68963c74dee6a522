//! The cluster's operations behind `sys/`: members, leadership, backups, keyring rotation, figures.
//! The kernel has authorized and audited each call before it arrives here.

use std::sync::{Arc, Weak};

use arca_barrier::{Barrier, RotationConfig};
use arca_engine_api::Map;
use arca_kernel::key_keeper::KeyKeeper;
use arca_kernel::ports::{ClusterInfo, ClusterPort, HaNode};
use arca_kernel::replication::ReplicationPort;
use arca_kernel::root_keys::RootKeys;
use arca_kernel::{Kernel, KernelError};
use arca_raft_storage::{Member, MemberId, MemberKind, RaftReplica, Replica as _, Role, SnapshotStream};
use arca_rpc::GrpcTransport;
use async_trait::async_trait;
use serde_json::{Value, json};

use crate::autopilot::Autopilot;
use crate::backup;
use crate::join::mark_learner;
use crate::node::{Node, NodeError, Order, VERSION};
use crate::node_file::NodeRecord;
use crate::root_keys::NodeRootKeys;
use crate::unsealed::{Unsealed, member_of};
use crate::world::SystemEntropy;

/// See the module's header.
pub(crate) struct Cluster {
    node: Weak<Node>,
    pub(crate) me: Member,
    cluster_id: String,
    pub(crate) replica: Arc<RaftReplica>,
    pub(crate) transport: Option<Arc<GrpcTransport>>,
    pub(crate) autopilot: Autopilot,
    barrier: Arc<Barrier>,
    keys: Arc<KeyKeeper>,
    storage_type: &'static str,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({} of {})", self.me.name, self.cluster_id)
    }
}

fn refused(err: impl std::fmt::Display) -> KernelError {
    KernelError::Invalid(err.to_string())
}

fn map(value: Value) -> Map {
    if let Value::Object(map) = value { map } else { Map::new() }
}

impl Cluster {
    pub(crate) fn new(
        node: &Arc<Node>,
        record: &NodeRecord,
        replica: &Arc<RaftReplica>,
        transport: Option<Arc<GrpcTransport>>,
        barrier: Arc<Barrier>,
        keys: Arc<KeyKeeper>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node: Arc::downgrade(node),
            me: member_of(&node.config, record.member),
            cluster_id: record.cluster_id.clone(),
            replica: Arc::clone(replica),
            transport,
            barrier,
            keys,
            storage_type: node.disk.kind(),
            autopilot: Autopilot::default(),
        })
    }

    /// The name made at init, as the kernel stored it. After a backup of another cluster was restored, and until
    /// [`Self::keep_identity`], the one it would be given now.
    pub(crate) fn cluster_name(&self) -> String {
        let stored = arca_kernel::cluster_name(&self.barrier, self.replica.view());
        stored.unwrap_or_else(|| {
            let configured = self.node.upgrade().and_then(|node| node.config.cluster_name.clone());
            let made = || format!("arca-cluster-{}", self.cluster_id.get(..8).unwrap_or_default());
            configured.unwrap_or_else(made)
        })
    }

    /// Writes the cluster's identity where a restored backup has left none that can be read.
    pub(crate) async fn keep_identity(&self, kernel: &Kernel) {
        if let Err(err) = kernel.keep_identity(&self.cluster_id, &self.cluster_name()).await {
            // The next node that becomes active tries again.
            tracing::warn!(error = %err, "the cluster's identity could not be written");
        }
    }

    pub(crate) fn node(&self) -> Result<Arc<Node>, KernelError> {
        self.node.upgrade().ok_or(KernelError::Sealed)
    }

    pub(crate) fn unsealed(&self) -> Result<Arc<Unsealed>, KernelError> {
        self.node()?.unsealed.load_full().ok_or(KernelError::Sealed)
    }

    /// How much room the disk of each member has, by name, as far as it says.
    async fn rooms(&self) -> Vec<(String, Option<u64>)> {
        let facts = self.ask_peers().await;
        let others = facts.into_values().map(|facts| (facts.node_name, facts.room_bytes));
        others.chain([(self.me.name.clone(), self.replica.room_bytes())]).collect()
    }

    fn member_named(&self, name: &str) -> Result<(MemberId, MemberKind), KernelError> {
        let membership = self.replica.membership();
        let found = membership.members.values().find(|(member, _)| member.name == name);
        found.map(|(member, kind)| (member.id, *kind)).ok_or_else(|| {
            KernelError::Invalid("no member of that name: see the raft configuration".to_owned())
        })
    }

    fn servers(&self) -> (u64, Vec<Value>) {
        let leader = self.replica.status().leader.map(|leader| leader.id);
        let membership = self.replica.membership();
        let servers = membership.members.values().map(|(member, kind)| {
            json!({
                "node_id": member.name,
                "address": member.cluster_addr,
                "leader": leader == Some(member.id),
                "voter": *kind == MemberKind::Voter,
                "protocol_version": "3",
            })
        });
        (membership.index, servers.collect())
    }
}

#[async_trait]
impl ClusterPort for Cluster {
    fn info(&self) -> ClusterInfo {
        let leader = self.replica.status().leader;
        ClusterInfo {
            cluster_id: self.cluster_id.clone(),
            cluster_name: self.cluster_name(),
            node_name: self.me.name.clone(),
            api_addr: self.me.api_addr.clone(),
            cluster_addr: self.me.cluster_addr.clone(),
            leader_api_addr: leader.as_ref().map(|leader| leader.api_addr.clone()),
            leader_cluster_addr: leader.as_ref().map(|leader| leader.cluster_addr.clone()),
            version: VERSION.to_owned(),
            storage_type: self.storage_type.to_owned(),
        }
    }

    async fn ha_status(&self) -> Result<Vec<HaNode>, KernelError> {
        let leader = self.replica.status().leader.map(|leader| leader.id);
        let now = self.node()?.now();
        let mut peers = self.ask_peers().await;
        let mut nodes = Vec::new();
        for (member, _) in self.replica.membership().members.into_values() {
            let is_me = member.id == self.me.id;
            let facts = peers.remove(&member.id);
            if !is_me && facts.is_none() {
                // Not heard of now: it is in the raft configuration, but no healthy node to list.
                continue;
            }
            nodes.push(HaNode {
                hostname: facts.as_ref().map_or_else(crate::host::hostname, |facts| facts.hostname.clone()),
                api_address: member.api_addr,
                cluster_address: member.cluster_addr,
                is_active: leader == Some(member.id),
                version: facts.map_or_else(|| VERSION.to_owned(), |facts| facts.version),
                last_echo: (leader != Some(member.id)).then(|| arca_kernel::rfc3339::format(now)),
            });
        }
        Ok(nodes)
    }

    async fn step_down(&self) -> Result<(), KernelError> {
        if self.replica.status().role != Role::Leader {
            return Err(KernelError::NeedsActive);
        }
        let began = tokio::time::Instant::now();
        let outcome = self.replica.transfer_leadership(None).await.map_err(refused);
        metrics::histogram!("vault.core.step_down").record(began.elapsed().as_secs_f64() * 1e3);
        outcome
    }

    async fn seal(&self) -> Result<(), KernelError> {
        let node = self.node()?;
        node.orders.send(Order::Seal).map_err(|_| KernelError::Sealed)
    }

    async fn raft_configuration(&self) -> Result<Map, KernelError> {
        let (index, servers) = self.servers();
        Ok(map(json!({ "config": { "index": index, "servers": servers } })))
    }

    async fn remove_peer(&self, node_name: &str) -> Result<(), KernelError> {
        let (id, _) = self.member_named(node_name)?;
        let unsealed = self.unsealed()?;
        self.replica.remove(id).await.map_err(refused)?;
        if self.replica.status().role == Role::Leader {
            mark_learner(&unsealed, id, false).await.map_err(refused)?;
        }
        tracing::info!(member = %id, name = node_name, "member removed");
        Ok(())
    }

    async fn promote(&self, node_name: &str) -> Result<(), KernelError> {
        let (id, _) = self.member_named(node_name)?;
        mark_learner(&*self.unsealed()?, id, false).await.map_err(refused)?;
        self.replica.promote(id).await.map_err(refused)
    }

    async fn demote(&self, node_name: &str) -> Result<(), KernelError> {
        let (id, _) = self.member_named(node_name)?;
        // First that it stays a learner, or it would be promoted again at once.
        mark_learner(&*self.unsealed()?, id, true).await.map_err(refused)?;
        self.replica.demote(id).await.map_err(refused)
    }

    async fn autopilot_state(&self) -> Result<Map, KernelError> {
        self.state_as_seen().await
    }

    async fn snapshot(&self) -> Result<SnapshotStream, KernelError> {
        let node = self.node()?;
        backup::export(&self.replica, &self.keys.root(), &self.cluster_id, node.now()).await
    }

    async fn restore(&self, stream: SnapshotStream, is_forced: bool) -> Result<(), KernelError> {
        let unsealed = self.unsealed()?;
        let backup = backup::verify(&self.keys.root(), &self.cluster_id, stream, is_forced).await?;
        backup.check_room(&self.rooms().await)?;
        let origin = backup.origin.clone();
        // It took its time to arrive: the roles may have changed since the request was let through.
        unsealed.kernel.standing().check_writes()?;
        backup.import(&self.replica).await?;
        if self.keys.is_locked_out() {
            tracing::error!(
                cluster_id = origin,
                "a backup made under other keys was restored: every node of this cluster seals itself now, and is \
                 unsealed with the shares that the named cluster had when the backup was made"
            );
            return Ok(());
        }
        tracing::warn!(cluster_id = origin, "a backup was restored: the state is as it was then");
        self.keep_identity(&unsealed.kernel).await;
        Ok(())
    }

    async fn rotate_keyring(&self) -> Result<(), KernelError> {
        let (now, standing) = (self.node()?.now(), self.unsealed()?.kernel.standing());
        self.keys.store(&SystemEntropy, |set| standing.admit(set), |barrier| barrier.rotated(now.0)).await
    }

    async fn configure_rotation(&self, config: RotationConfig) -> Result<(), KernelError> {
        let standing = self.unsealed()?.kernel.standing();
        let make = |barrier: &Barrier| barrier.with_rotation_config(config);
        self.keys.store(&SystemEntropy, |set| standing.admit(set), make).await
    }

    async fn host_info(&self) -> Result<Map, KernelError> {
        let node = self.node()?;
        let now = node.now();
        let timestamp = arca_kernel::rfc3339::format(now);
        Ok(crate::host::info(&timestamp, now.0 / 1_000, node.config.storage.folder()))
    }

    fn metrics(&self, is_prometheus: bool) -> Result<String, KernelError> {
        self.node()?.metrics(is_prometheus).ok_or_else(|| KernelError::invalid("telemetry is not enabled"))
    }

    fn root_keys(&self) -> Option<Arc<dyn RootKeys>> {
        let (node, unsealed) = (self.node.upgrade()?, self.unsealed().ok()?);
        Some(Arc::new(NodeRootKeys { node, unsealed }))
    }

    fn replication(&self) -> Option<Arc<dyn ReplicationPort>> {
        let replicator = self.unsealed().ok()?.replicator.clone()?;
        Some(replicator)
    }

    fn sanitized_config(&self) -> Map {
        self.node.upgrade().map(|node| node.config.sanitized()).unwrap_or_default()
    }
}

impl From<NodeError> for arca_api::SystemError {
    fn from(err: NodeError) -> Self {
        match err {
            NodeError::Invalid(text) => Self::Invalid(text),
            NodeError::Failed(text) => Self::Failed(text),
            NodeError::NeedsActive => Self::NeedsActive,
            NodeError::TooMany => Self::TooMany,
            NodeError::Uninitialized => Self::Uninitialized,
        }
    }
}
