//! The cluster port: accepts verified members only, and hands what they send to Raft or to the request pipeline.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::{Call, Inbound, Member, MemberId, SnapshotStream};
use arca_replication::{Follower, Replicated, Unserved};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use crate::accept::{Acceptor, Greeter};
use crate::connections::Connections;
use crate::door::Door;
use crate::forward::{ForwardedRequest, ForwardedResponse, header_to_wire};
use crate::io::{Peer, PeerStream};
use crate::proto::node_server::Node;
use crate::proto::{
    AnnounceReply, AnnounceRequest, EchoReply, EchoRequest, ForwardReply, ForwardRequest, RaftReply,
    RaftRequest, ReplicateReply, ReplicateRequest, SnapshotPart, replicate_reply, snapshot_part,
};
use crate::replication::ReplicationDoor;
use crate::replication::gate::Gate;
use crate::{IdentityError, NodeIdentity, tls};

/// Longest address a member may announce, bytes.
const ADDRESS_MAX: usize = 1024;
/// Most calls at once on one connection. A standby carries all its clients' requests over one.
const STREAMS_MAX: u32 = 1024;
/// How often a secondary is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// One that answers no HTTP/2 ping for this long is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Verified connections that wait to be served.
const ACCEPTED_MAX: usize = 64;

/// What a node says of itself to its peers.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Its `node_id`.
    pub node_name: String,
    /// Its version.
    pub version: String,
    /// Its host name.
    pub hostname: String,
    /// Its applied index.
    pub applied_index: u64,
    /// Whether it is sealed.
    pub is_sealed: bool,
    /// Free bytes of its disk beyond those it keeps free, if it can tell.
    pub room_bytes: Option<u64>,
}

/// What becomes of a member's announcement that it moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// The membership has the addresses.
    Recorded,
    /// Only the leader can record them: this one, if known.
    AskLeader(Option<Member>),
}

/// The node's side of the cluster port.
#[async_trait]
pub trait Gatekeeper: Send + Sync {
    /// Whether `peer` is a member now. A removed member keeps a valid certificate, and is refused here.
    fn is_member(&self, peer: MemberId) -> bool;
    /// Serves a request a standby forwarded. The peer is verified; its word about the client is taken.
    async fn forwarded(&self, request: ForwardedRequest) -> ForwardedResponse;
    /// Facts for the peer.
    fn facts(&self) -> NodeFacts;
    /// Answers what a secondary cluster asked a standby. The peer has verified who asks; what it asks is checked as ever.
    ///
    /// # Errors
    /// Why it is not served.
    async fn replicated(&self, asked: Replicated) -> Result<Bytes, Unserved>;
    /// `peer` says that it is at these addresses now.
    ///
    /// # Errors
    /// A text for the peer's log.
    async fn announced(
        &self,
        peer: MemberId,
        cluster_addr: String,
        api_addr: String,
    ) -> Result<Announced, String>;
}

/// What the server needs.
pub struct ServerParts {
    /// Who we are.
    pub identity: NodeIdentity,
    /// Raft.
    pub inbound: Arc<dyn Inbound>,
    /// Everything else.
    pub gatekeeper: Arc<dyn Gatekeeper>,
    /// What other clusters find here.
    pub replication: ReplicationDoor,
}

/// The running cluster port.
#[derive(Debug)]
pub struct RpcServer {
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    addr: SocketAddr,
}

impl RpcServer {
    /// Serves on `listener` until [`Self::stop`].
    ///
    /// # Errors
    /// When the identity does not parse or the listener has no address.
    pub fn start(listener: TcpListener, parts: ServerParts) -> Result<Self, IdentityError> {
        let addr = listener.local_addr().map_err(|err| IdentityError::Certificate(err.to_string()))?;
        let tls = Arc::new(tls::server_config(&parts.identity)?);
        let stop = CancellationToken::new();
        let (accepted, incoming) = mpsc::channel(ACCEPTED_MAX);
        let (followers, following) = mpsc::channel(ACCEPTED_MAX);
        let cluster_id = parts.identity.cluster_id.clone();
        let (connections, replication) = (Connections::default(), parts.replication);
        let greeter = Greeter { tls, cluster_id, connections, accepted, replication, followers };
        let accepting = Acceptor { greeter }.run(listener, stop.clone());
        let service = Service { inbound: Arc::clone(&parts.inbound), gatekeeper: parts.gatekeeper };
        let service = Door::new(parts.inbound, service);
        let serving = builder()
            .add_service(service)
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), stop.clone().cancelled_owned());
        let replicating = builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(Gate::new())
            .serve_with_incoming_shutdown(ReceiverStream::new(following), stop.clone().cancelled_owned());
        let tasks =
            vec![tokio::spawn(accepting), tokio::spawn(logged(serving)), tokio::spawn(logged(replicating))];
        Ok(Self { stop, tasks, addr })
    }

    /// The address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting and closes every connection.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // Connections may be held open by peers; give them a moment, then drop them.
            let abort = task.abort_handle();
            if tokio::time::timeout(Duration::from_millis(500), task).await.is_err() {
                abort.abort();
            }
        }
    }
}

fn builder() -> Server {
    Server::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(STREAMS_MAX)
}

async fn logged(serving: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(err) = serving.await {
        tracing::error!(error = %err, "the cluster port stopped");
    }
}

struct Service {
    inbound: Arc<dyn Inbound>,
    gatekeeper: Arc<dyn Gatekeeper>,
}

/// Who the connection's certificate says the caller is.
fn caller<T>(request: &Request<T>) -> Result<Peer, Status> {
    request
        .extensions()
        .get::<<PeerStream as Connected>::ConnectInfo>()
        .copied()
        .ok_or_else(|| Status::unauthenticated("unknown peer"))
}

impl Service {
    fn verified<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let peer = caller(request)?;
        if self.gatekeeper.is_member(peer.member) {
            Ok(peer)
        } else {
            tracing::warn!(member = %peer.member, addr = %peer.addr, "refused a node that is not a member any more");
            Err(Status::permission_denied("not a member of this cluster"))
        }
    }
}

#[async_trait]
impl Node for Service {
    async fn replicate(
        &self,
        request: Request<ReplicateRequest>,
    ) -> Result<Response<ReplicateReply>, Status> {
        self.verified(&request)?;
        let ReplicateRequest { replication_id, secondary_id, activation, call, payload } =
            request.into_inner();
        let asked = if call == 0 {
            None
        } else {
            let call = u8::try_from(call).ok().and_then(arca_replication::Call::from_tag);
            let call = call.ok_or_else(|| Status::unimplemented("unknown replication call"))?;
            Some((Follower { secondary_id, activation }, call))
        };
        let answered = self.gatekeeper.replicated(Replicated { replication_id, asked, payload }).await;
        let outcome = match answered {
            Ok(payload) => replicate_reply::Outcome::Payload(payload),
            Err(Unserved::NotActive) => replicate_reply::Outcome::NotActive(true),
            Err(Unserved::Refused(refusal)) => replicate_reply::Outcome::Refusal(refusal.encode().into()),
        };
        Ok(Response::new(ReplicateReply { outcome: Some(outcome) }))
    }

    async fn raft(&self, request: Request<RaftRequest>) -> Result<Response<RaftReply>, Status> {
        // Raft itself checks that the caller is a member: a joiner hears of its own membership through these very calls.
        let peer = caller(&request)?;
        let request = request.into_inner();
        let call = u8::try_from(request.call)
            .ok()
            .and_then(Call::from_tag)
            .ok_or_else(|| Status::unimplemented("unknown raft call"))?;
        let served = self.inbound.serve(peer.member, call, request.payload).await;
        let payload = served.map_err(Status::failed_precondition)?;
        Ok(Response::new(RaftReply { payload }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotPart>>,
    ) -> Result<Response<RaftReply>, Status> {
        let peer = caller(&request)?;
        let mut parts = request.into_inner();
        let header = match parts.message().await?.and_then(|part| part.part) {
            Some(snapshot_part::Part::Header(header)) => header,
            _ => return Err(Status::invalid_argument("a snapshot begins with its header")),
        };
        let chunks: SnapshotStream = Box::pin(parts.map(|part| match part {
            Ok(SnapshotPart { part: Some(snapshot_part::Part::Chunk(chunk)) }) => Ok::<Bytes, String>(chunk),
            Ok(_) => Err("unexpected part in a snapshot".to_owned()),
            Err(status) => Err(status.message().to_owned()),
        }));
        let received = self.inbound.receive_snapshot(peer.member, header, chunks).await;
        let payload = received.map_err(Status::failed_precondition)?;
        Ok(Response::new(RaftReply { payload }))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<ForwardReply>, Status> {
        self.verified(&request)?;
        let response = self.gatekeeper.forwarded(request.into_inner().into()).await;
        Ok(Response::new(ForwardReply {
            status: response.status.into(),
            headers: response.headers.into_iter().map(header_to_wire).collect(),
            body: response.body,
        }))
    }

    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoReply>, Status> {
        self.verified(&request)?;
        let facts = self.gatekeeper.facts();
        Ok(Response::new(EchoReply {
            node_name: facts.node_name,
            version: facts.version,
            hostname: facts.hostname,
            applied_index: facts.applied_index,
            is_sealed: facts.is_sealed,
            room_bytes: facts.room_bytes,
        }))
    }

    async fn announce(&self, request: Request<AnnounceRequest>) -> Result<Response<AnnounceReply>, Status> {
        let peer = self.verified(&request)?;
        let AnnounceRequest { cluster_addr, api_addr } = request.into_inner();
        let is_plausible = |addr: &str| (1..=ADDRESS_MAX).contains(&addr.len());
        if !is_plausible(&cluster_addr) || !is_plausible(&api_addr) {
            return Err(Status::invalid_argument("an address is missing or too long"));
        }
        let announced = self.gatekeeper.announced(peer.member, cluster_addr, api_addr).await;
        Ok(Response::new(match announced.map_err(Status::failed_precondition)? {
            Announced::Recorded => AnnounceReply { is_recorded: true, ..AnnounceReply::default() },
            Announced::AskLeader(leader) => {
                let leader = leader.unwrap_or_default();
                AnnounceReply {
                    is_recorded: false,
                    leader: leader.id.0,
                    leader_cluster_addr: leader.cluster_addr,
                }
            }
        }))
    }
}
