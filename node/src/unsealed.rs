//! A node with its keys: Raft, the cluster port and the kernel, started together and stopped together.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_api::system::{Carried, CarriedBack, CarryFailure};
use arca_api::{Api, RawBody, RawRequest};
use arca_barrier::{Barrier, Keyring, RootKey};
use arca_kernel::audit::AuditSettings;
use arca_kernel::key_keeper::KeyKeeper;
use arca_kernel::{Kernel, KernelConfig, KernelParts};
use arca_raft_storage::{
    ApplyObserver, Member, MemberId, Nobody, RaftConfig, RaftReplica, Replica, ReplicaStatus, Role,
    Transport, Version,
};
use arca_replicator::Replicator;
use arca_rpc::replication::{ReplicationDoor, Unserved};
use arca_rpc::{
    Announced, ForwardError, ForwardedRequest, ForwardedResponse, Gatekeeper, GrpcTransport, NodeFacts,
    NodeIdentity, Replicated, RpcServer, ServerParts, TcpDial,
};
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::config::{Config, Storage};
use crate::identity;
use crate::node::{Node, NodeError, Order, VERSION};
use crate::node_file::NodeRecord;
use crate::replication::{Keyed, replicator};
use crate::root_keys::Attempts;
use crate::superseded::SealObserver;
use crate::system::NodeSystem;
use crate::world::SystemEntropy;

/// Name under which a node's own TLS key is sealed in `node.json`.
pub(crate) const NODE_KEY_NAME: &[u8] = b"\x03node-tls-key";
/// Longest wait for a peer's facts.
pub(crate) const ECHO_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before peers that are behind are asked again.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);
/// Longest wait for the active node's answer to a carried request; the listener's own limit is shorter or equal.
const CARRY_TIMEOUT: Duration = Duration::from_secs(90);

/// What starting needs.
pub(crate) struct UnsealedParts<'a> {
    pub(crate) node: &'a Arc<Node>,
    pub(crate) record: NodeRecord,
    pub(crate) root: RootKey,
    pub(crate) sealed_keyring: Vec<u8>,
    pub(crate) wrapped_root_key: Vec<u8>,
    /// Log index that wrote the wrapped root key.
    pub(crate) seal_version: Version,
}

/// See the module's header.
pub(crate) struct Unsealed {
    pub(crate) record: NodeRecord,
    /// This node at the addresses it is configured with.
    pub(crate) me: Member,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) replica: Arc<RaftReplica>,
    pub(crate) transport: Option<Arc<GrpcTransport>>,
    pub(crate) keys: Arc<KeyKeeper>,
    /// Root tokens and key shares in the making.
    pub(crate) attempts: tokio::sync::Mutex<Attempts>,
    /// What other clusters are to this one; none without a cluster port.
    pub(crate) replicator: Option<Arc<Replicator>>,
    rpc: Mutex<Option<RpcServer>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Unsealed {
    /// Starts everything. On a failure, what had been started is stopped again.
    pub(crate) async fn start(parts: UnsealedParts<'_>) -> Result<Arc<Self>, NodeError> {
        let UnsealedParts { node, record, root, sealed_keyring, wrapped_root_key, seal_version } = parts;
        let unopened = |err| NodeError::failed("opening the keyring", err);
        let keyring = Keyring::open(&root, &sealed_keyring).map_err(unopened)?;
        let barrier = Arc::new(Barrier::new(keyring, Arc::new(SystemEntropy)));
        let orders = node.orders.clone();
        let lock_out = move |why| {
            // Nobody listens only when the process is ending.
            let _ = orders.send(Order::LockedOut(why));
        };
        let keys = KeyKeeper::new(root, seal_version, &barrier, lock_out).map_err(unopened)?;
        let keys = Arc::new(keys);
        let (record, identity) = identity::establish(node, record, &barrier)?;
        let network = Network::open(node, &identity).await?;
        let replica = open_replica(node, &record, network.transport()).await?;
        keys.follow(&(Arc::clone(&replica) as Arc<dyn Replica>));
        // In this order: what is applied in between is seen twice rather than missed.
        replica.observe(Arc::clone(&keys) as Arc<dyn ApplyObserver>);
        keys.reload();
        SealObserver::register(node, &replica);
        let grpc = network.grpc.clone();
        let me = member_of(&node.config, record.member);
        let door = ReplicationDoor::default();
        let replicator = grpc.as_ref().map(|transport| {
            let (replica, keys, barrier) = (&replica, &keys, &barrier);
            let keyed = Keyed { replica, keys, barrier };
            let reached = (Arc::clone(transport), door.clone());
            replicator(node, me.clone(), &record.cluster_id, &keyed, reached)
        });
        let replicator =
            replicator.transpose().map_err(|err| NodeError::failed("starting replication", err))?;
        let rpc = network.serve(node, identity, &replica, door)?;
        let cluster =
            Cluster::new(node, &record, &replica, grpc.clone(), Arc::clone(&barrier), Arc::clone(&keys));
        let kernel = Kernel::start(KernelParts {
            barrier,
            replica: Arc::clone(&replica) as Arc<dyn Replica>,
            clock: Arc::clone(&node.clock),
            entropy: Arc::clone(&node.entropy),
            engines: node.engines.clone(),
            cluster: Arc::clone(&cluster) as Arc<dyn arca_kernel::ports::ClusterPort>,
            outside: crate::outside::outside(),
            config: kernel_config(&node.config),
        })
        .map_err(|err| NodeError::failed("starting the kernel", err))?;
        let unsealed = Arc::new(Self {
            me,
            record,
            cluster,
            kernel,
            replica,
            transport: grpc,
            keys,
            attempts: tokio::sync::Mutex::default(),
            replicator,
            rpc: Mutex::new(rpc),
            tasks: Mutex::default(),
        });
        if let Some(replicator) = &unsealed.replicator {
            replicator.attach(&unsealed.kernel);
            unsealed.tasks.lock().push(tokio::spawn(Replicator::run(Arc::downgrade(replicator))));
        }
        let following = tokio::spawn(follow_role(Arc::downgrade(&unsealed), Arc::downgrade(node)));
        let tending = tokio::spawn(crate::join::tend_members(Arc::downgrade(&unsealed)));
        let announcing = tokio::spawn(crate::addresses::keep_current(Arc::downgrade(&unsealed)));
        let watching = tokio::spawn(crate::autopilot::run(Arc::downgrade(&unsealed.cluster)));
        let (weak_node, weak) = (Arc::downgrade(node), Arc::downgrade(&unsealed));
        let checking = tokio::spawn(crate::superseded::check_shares(weak_node, weak, wrapped_root_key));
        unsealed.tasks.lock().extend([following, tending, announcing, watching, checking]);
        Ok(unsealed)
    }

    /// As leader: stays until every member that answers has applied what is applied here, or `patience` is over. One that
    /// is left alone with an entry it holds but does not know to be committed learns of it from nobody else.
    pub(crate) async fn let_others_follow(&self, patience: Duration) {
        let Some(transport) = &self.transport else { return };
        let index = self.replica.status().applied_index;
        let deadline = tokio::time::Instant::now() + patience;
        while self.replica.status().role == Role::Leader && tokio::time::Instant::now() < deadline {
            let members = self.replica.membership().members.into_values();
            let others = members.map(|(member, _)| member).filter(|member| member.id != self.me.id);
            let asked = others.map(|member| async move {
                let answer = transport.echo(&member, &self.me.name, ECHO_TIMEOUT).await;
                answer.is_ok_and(|facts| facts.applied_index < index)
            });
            let behind = futures::future::join_all(asked).await;
            if !behind.contains(&true) {
                return;
            }
            tokio::time::sleep(FOLLOW_PAUSE).await;
        }
    }

    /// Hands leadership over, if this node has it and it can be done within `patience`. It serves on meanwhile, and
    /// carries to its successor what comes afterwards.
    pub(crate) async fn hand_over(&self, patience: Duration) {
        if self.replica.status().role == Role::Leader && !patience.is_zero() {
            let handing = self.replica.transfer_leadership(None);
            match tokio::time::timeout(patience, handing).await {
                Ok(Ok(())) => tracing::info!("leadership handed over"),
                Ok(Err(err)) => tracing::warn!(error = %err, "leadership could not be handed over"),
                Err(_) => tracing::warn!("nobody took leadership over in time"),
            }
        }
    }

    /// Stops everything, handing leadership over first if it can be done within `patience`.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.hand_over(patience).await;
        let tasks: Vec<_> = self.tasks.lock().drain(..).collect();
        for task in tasks {
            task.abort();
            // What it holds keeps the store open: the next unseal would find it locked.
            let _ = task.await;
        }
        if let Some(replicator) = &self.replicator {
            replicator.stop().await;
        }
        self.kernel.deactivate();
        self.kernel.shutdown().await;
        let rpc = self.rpc.lock().take();
        if let Some(rpc) = rpc {
            rpc.stop().await;
        }
        self.replica.shutdown().await;
    }

    /// Carries a request to the active node, waiting for one to be found.
    pub(crate) async fn carry(
        &self,
        request: Carried,
        patience: Duration,
        node_name: &str,
    ) -> Result<CarriedBack, CarryFailure> {
        let Some(transport) = &self.transport else { return Err(CarryFailure::Undelivered) };
        let wire = ForwardedRequest {
            method: request.method,
            target: request.target,
            headers: request
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                .collect(),
            body: request.body,
            remote_addr: Some(request.remote.ip()),
            remote_port: request.remote.port(),
            client_certificates: request.client_certificates.to_vec(),
            forwarded_from: node_name.to_owned(),
        };
        let deadline = tokio::time::Instant::now() + patience;
        let mut changes = self.replica.watch();
        loop {
            if self.kernel.is_active() {
                return Err(CarryFailure::Undelivered);
            }
            let leader =
                changes.borrow_and_update().leader.clone().filter(|leader| leader.id != self.record.member);
            if let Some(leader) = leader {
                match transport.forward(&leader, wire.clone(), CARRY_TIMEOUT).await {
                    Ok(response) if was_not_served(&response) => {}
                    Ok(response) => {
                        let ForwardedResponse { status, headers, body } = response;
                        return Ok(CarriedBack { status, headers, body });
                    }
                    Err(ForwardError::Undelivered(_)) => {}
                    Err(ForwardError::Unanswered(reason)) => {
                        tracing::warn!(leader = %leader.name, reason, "the active node did not answer");
                        return Err(CarryFailure::OutcomeUnknown);
                    }
                }
            }
            // Whatever comes first: news of a leader, or a short pause before asking the same one again.
            let pause = tokio::time::Instant::now() + Duration::from_millis(20);
            if pause >= deadline {
                return Err(CarryFailure::Undelivered);
            }
            let _ = tokio::time::timeout_at(pause, changes.changed()).await;
        }
    }
}

/// The other node found that it is not active: nothing was done.
fn was_not_served(response: &ForwardedResponse) -> bool {
    response.headers.iter().any(|(name, _)| name == arca_api::handler::NOT_ACTIVE_HEADER)
}

/// The kernel's settings. Its audit files must stay out of the data directory: a line appended to a file of the
/// node's own would be the end of it.
fn kernel_config(config: &Config) -> KernelConfig {
    let mut folders = Vec::new();
    if let Some(folder) = config.storage.folder() {
        folders.push(folder.to_owned());
        // What the path leads to now; links may change.
        folders.extend(folder.canonicalize());
    }
    KernelConfig {
        default_lease_ttl: config.default_lease_ttl,
        max_lease_ttl: config.max_lease_ttl,
        audit: AuditSettings { forbidden_folders: folders, ..AuditSettings::default() },
        lockout: config.user_lockout.clone(),
    }
}

/// The member this node is, at the addresses it is configured with now.
pub(crate) fn member_of(config: &Config, id: MemberId) -> Member {
    Member {
        id,
        name: config.node_name.clone(),
        cluster_addr: config.cluster_addr.clone(),
        api_addr: config.api_addr.clone(),
    }
}

/// Raft's settings for this node.
pub(crate) fn raft_config(config: &Config, record: &NodeRecord) -> RaftConfig {
    let settings = &config.raft;
    let mut raft = RaftConfig::new(record.member, record.cluster_id.clone());
    raft.low_water_bytes = settings.low_water_bytes;
    raft.limits.set_bytes = usize::try_from(settings.entry_size_max).unwrap_or(usize::MAX);
    raft.retention.bytes = match &config.storage {
        // Old log is for members that were away. Nobody follows here, and it may lie in memory.
        Storage::File { .. } | Storage::InMemory => 0,
        Storage::Raft { .. } => settings.log_retention_bytes,
    };
    raft.retention.bytes_max = raft.retention.bytes_max.max(settings.log_retention_bytes);
    // Until it is known which log secondaries need, a moment after the start.
    raft.holds_log = matches!(config.storage, Storage::Raft { .. });
    let factor = settings.performance_multiplier.max(1);
    raft.timings.heartbeat *= factor;
    raft.timings.election_min *= factor;
    raft.timings.election_max *= factor;
    raft
}

/// Opens Raft on the node's disk.
pub(crate) async fn open_replica(
    node: &Node,
    record: &NodeRecord,
    transport: Arc<dyn Transport>,
) -> Result<Arc<RaftReplica>, NodeError> {
    RaftReplica::open(raft_config(&node.config, record), node.disk.raft_parts(transport))
        .await
        .map_err(|err| NodeError::failed("opening the raft log", err))
}

/// The cluster port, or none in the embedded modes.
struct Network {
    grpc: Option<Arc<GrpcTransport>>,
    listener: Option<TcpListener>,
}

impl Network {
    async fn open(node: &Node, identity: &NodeIdentity) -> Result<Self, NodeError> {
        if !node.disk.is_clustered() {
            return Ok(Self { grpc: None, listener: None });
        }
        let transport = GrpcTransport::new(identity, Arc::new(TcpDial))
            .map_err(|err| NodeError::failed("reading this node's certificate", err))?;
        let listen = &node.config.cluster_listen;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|err| NodeError::failed(&format!("binding {listen}"), err))?;
        Ok(Self { grpc: Some(Arc::new(transport)), listener: Some(listener) })
    }

    fn transport(&self) -> Arc<dyn Transport> {
        match &self.grpc {
            Some(grpc) => Arc::clone(grpc) as Arc<dyn Transport>,
            None => Arc::new(Nobody),
        }
    }

    fn serve(
        self,
        node: &Arc<Node>,
        identity: NodeIdentity,
        replica: &Arc<RaftReplica>,
        replication: ReplicationDoor,
    ) -> Result<Option<RpcServer>, NodeError> {
        let Some(listener) = self.listener else { return Ok(None) };
        let gatekeeper = Gate { node: Arc::downgrade(node), replica: Arc::clone(replica) };
        let (inbound, gatekeeper) = (replica.inbound(), Arc::new(gatekeeper));
        let parts = ServerParts { identity, inbound, gatekeeper, replication };
        RpcServer::start(listener, parts)
            .map(Some)
            .map_err(|err| NodeError::failed("starting the cluster port", err))
    }
}

/// The node's side of the cluster port.
struct Gate {
    node: Weak<Node>,
    replica: Arc<RaftReplica>,
}

#[async_trait]
impl Gatekeeper for Gate {
    fn is_member(&self, peer: MemberId) -> bool {
        self.replica.membership().members.contains_key(&peer)
    }

    async fn forwarded(&self, request: ForwardedRequest) -> ForwardedResponse {
        let Some(node) = self.node.upgrade() else { return unavailable() };
        let Some(raw) = raw_request(request) else { return unavailable() };
        let api = Api {
            request_ids: Arc::clone(&node.request_ids),
            clock: Arc::clone(&node.clock),
            system: Arc::new(NodeSystem(node)),
        };
        // In a task of its own: should the standby go away, what it asked for is still finished.
        let Ok(response) = tokio::spawn(async move { api.respond(raw).await }).await else {
            let headers = vec![("content-type".to_owned(), b"application/json".to_vec())];
            let body = bytes::Bytes::from_static(br#"{"errors":["internal error"]}"#);
            return ForwardedResponse { status: 500, headers, body };
        };
        let (parts, body) = response.into_parts();
        let Ok(body) = body.collect().await else { return unavailable() };
        ForwardedResponse {
            status: parts.status.as_u16(),
            headers: parts
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                .collect(),
            body: body.to_bytes(),
        }
    }

    fn facts(&self) -> NodeFacts {
        let node = self.node.upgrade();
        NodeFacts {
            node_name: node.as_ref().map(|node| node.config.node_name.clone()).unwrap_or_default(),
            version: VERSION.to_owned(),
            hostname: crate::host::hostname(),
            applied_index: self.replica.status().applied_index,
            is_sealed: false,
            room_bytes: self.replica.room_bytes(),
        }
    }

    async fn replicated(&self, asked: Replicated) -> Result<bytes::Bytes, Unserved> {
        let unsealed = self.node.upgrade().and_then(|node| node.unsealed.load_full());
        match unsealed.as_ref().and_then(|unsealed| unsealed.replicator.as_ref()) {
            Some(replicator) => replicator.carried(asked).await,
            None => Err(Unserved::NotActive),
        }
    }

    async fn announced(
        &self,
        peer: MemberId,
        cluster_addr: String,
        api_addr: String,
    ) -> Result<Announced, String> {
        let status = self.replica.status();
        if status.role != Role::Leader {
            return Ok(Announced::AskLeader(status.leader));
        }
        let known = self.replica.membership().members.get(&peer).map(|(known, _)| known.clone());
        let known = known.ok_or_else(|| "not a member of this cluster".to_owned())?;
        let moved = Member { cluster_addr, api_addr, ..known };
        let name = moved.name.clone();
        self.replica.add_learner(moved).await.map_err(|err| err.to_string())?;
        tracing::info!(member = %peer, name, "a member has moved: its new addresses are recorded");
        Ok(Announced::Recorded)
    }
}

fn unavailable() -> ForwardedResponse {
    let headers = vec![(arca_api::handler::NOT_ACTIVE_HEADER.to_owned(), b"1".to_vec())];
    ForwardedResponse { status: 503, headers, body: bytes::Bytes::new() }
}

fn raw_request(request: ForwardedRequest) -> Option<RawRequest> {
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut headers = http::HeaderMap::new();
    for (name, value) in request.headers {
        let name = http::HeaderName::try_from(name).ok()?;
        headers.append(name, http::HeaderValue::from_bytes(&value).ok()?);
    }
    Some(RawRequest {
        method: http::Method::from_bytes(request.method.as_bytes()).ok()?,
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: RawBody::Bytes(request.body),
        remote: (request.remote_addr?, request.remote_port).into(),
        client_certificates: request.client_certificates.into(),
        forwarded_from: Some(request.forwarded_from),
        allows_stale: false,
        unauthenticated_metrics: false,
        // The listener that took it has decided.
        closed: arca_api::ClosedPaths::NONE,
    })
}

/// Turns Raft's roles into the kernel's: active once this member leads and has applied all that was committed before.
async fn follow_role(unsealed: Weak<Unsealed>, node: Weak<Node>) {
    let Some(mut changes) = unsealed.upgrade().map(|unsealed| unsealed.replica.watch()) else { return };
    loop {
        let status: ReplicaStatus = changes.borrow_and_update().clone();
        {
            let (Some(unsealed), Some(node)) = (unsealed.upgrade(), node.upgrade()) else { return };
            if let Some(reason) = &status.fatal {
                stop_for(reason, status.is_removed, &node);
                return;
            }
            match (status.role == Role::Leader, unsealed.kernel.is_active()) {
                (true, false) => activate(&unsealed).await,
                (false, true) => {
                    let held = unsealed.kernel.active_since().map(|since| node.now().since(since));
                    unsealed.kernel.deactivate();
                    let held = held.unwrap_or_default().as_secs_f64() * 1e3;
                    metrics::histogram!("vault.core.leadership_lost").record(held);
                    // One that is busy right now finds out by itself.
                    if let Ok(mut attempts) = unsealed.attempts.try_lock() {
                        attempts.forget();
                    }
                    tracing::info!(term = status.term, "standby");
                }
                _ => {}
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn activate(unsealed: &Unsealed) {
    let began = tokio::time::Instant::now();
    match unsealed.replica.read_barrier().await {
        Ok(index) => {
            unsealed.keys.reload();
            // One that the state has locked out is about to seal itself, and speaks for nobody.
            if unsealed.keys.is_locked_out() {
                return;
            }
            unsealed.kernel.activate();
            tracing::info!(index, "active");
            unsealed.cluster.keep_identity(&unsealed.kernel).await;
        }
        // Leadership was lost again before it was usable; the next change says so.
        Err(err) => {
            let spent = began.elapsed().as_secs_f64() * 1e3;
            metrics::histogram!("vault.core.leadership_setup_failed").record(spent);
            tracing::warn!(error = %err, "elected, but not yet able to serve");
        }
    }
}

/// A member that was removed retires; any other end of Raft halts the node: one that cannot trust its disk or its state
/// must not go on.
fn stop_for(reason: &str, is_removed: bool, node: &Node) {
    if is_removed {
        // Nobody listens only when the process is ending.
        let _ = node.orders.send(Order::Retire);
        return;
    }
    tracing::error!(reason, "raft stopped for good: the node halts, so that nothing wrong is served");
    node.halt.cancel();
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::stop_for;
    use crate::testing::Rig;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_halted_node_leaves_the_end_of_the_process_to_whoever_runs_it() {
        let rig = Rig::open("storage \"inmem\" {}");
        stop_for("the disk lies", false, &rig.node);
        rig.node.halted().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_audit_file_lands_in_the_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (data, link) = (dir.path().join("data"), dir.path().join("link"));
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let rig = Rig::open(&format!("storage \"file\" {{ path = {link:?} }}"));
        let token = rig.bring_up().await;
        let before = std::fs::read(data.join("node.json")).unwrap();
        for (path, wanted) in [
            (data.join("node.json"), 400),
            (link.join("node.json"), 400),
            (data.join("audit.log"), 400),
            (data.join("raft/log/audit.log"), 400),
            (dir.path().join("audit.log"), 204),
        ] {
            let body = json!({"type": "file", "options": {"file_path": path}});
            let (status, said) = rig.ask(Method::PUT, "sys/audit/file", &token, &body).await;
            assert_eq!(status, wanted, "{}: {said}", path.display());
        }
        let (status, _) = rig.ask(Method::GET, "sys/mounts", &token, &Value::Null).await;
        assert_eq!(status, 200);
        assert_eq!(std::fs::read(data.join("node.json")).unwrap(), before);
        rig.node.shutdown().await;
    }
}
