//! Outgoing calls: one connection a peer and lane, made when first needed and remade when lost.
//!
//! Lanes keep a long snapshot or a slow forwarded request from delaying Raft's heartbeats.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arca_raft_storage::{Call, Member, MemberId, SnapshotStream, Transport, TransportError};
use arca_replication::{Follower, Refusal, Replicated, Unserved};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::forward::{ForwardError, ForwardedRequest, ForwardedResponse, header_from_wire};
use crate::identity::member_dns_name;
use crate::io::Duplex;
use crate::proto::node_client::NodeClient;
use crate::proto::{
    AnnounceReply, AnnounceRequest, EchoRequest, RaftRequest, ReplicateRequest, SnapshotPart,
    replicate_reply, snapshot_part,
};
use crate::server::Announced;
use crate::{IdentityError, NodeIdentity, tls};

/// Largest message either way, bytes. Above any legal Raft entry batch and HTTP body.
pub const MESSAGE_SIZE_MAX: usize = 64 << 20;
/// Longest wait for a TCP and TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A peer that answers no HTTP/2 ping for this long is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Opens byte streams to peers. The seam through which the simulation passes its own network.
#[async_trait]
pub trait Dial: Debug + Send + Sync {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// As the network reports.
    async fn dial(&self, addr: &str) -> io::Result<Box<dyn DialedStream>>;
}

/// What [`Dial`] returns.
pub trait DialedStream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> DialedStream for T {}

/// Real TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial;

#[async_trait]
impl Dial for TcpDial {
    async fn dial(&self, addr: &str) -> io::Result<Box<dyn DialedStream>> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// What keeps calls apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Bulk,
    Forward,
    Raft,
}

/// What a peer says of itself.
#[derive(Clone, Debug, Default)]
pub struct PeerFacts {
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
    /// Free bytes of its disk beyond those it keeps free, if it says so.
    pub room_bytes: Option<u64>,
}

/// A client a peer and lane, with the address it was made for.
type Clients = BTreeMap<(MemberId, Lane), (String, NodeClient<Channel>)>;

/// The real [`Transport`].
pub struct GrpcTransport {
    cluster_id: String,
    tls: TlsConnector,
    dial: Arc<dyn Dial>,
    clients: Mutex<Clients>,
}

impl Debug for GrpcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GrpcTransport({})", self.cluster_id)
    }
}

impl GrpcTransport {
    /// A transport that speaks as `identity`.
    ///
    /// # Errors
    /// When the identity does not parse.
    pub fn new(identity: &NodeIdentity, dial: Arc<dyn Dial>) -> Result<Self, IdentityError> {
        Ok(Self {
            cluster_id: identity.cluster_id.clone(),
            tls: TlsConnector::from(Arc::new(tls::client_config(identity)?)),
            dial,
            clients: Mutex::default(),
        })
    }

    fn client(&self, to: &Member, lane: Lane) -> Result<NodeClient<Channel>, TransportError> {
        let mut clients = self.clients.lock();
        if let Some((addr, client)) = clients.get(&(to.id, lane))
            && *addr == to.cluster_addr
        {
            return Ok(client.clone());
        }
        let client = NodeClient::new(self.channel(to)?)
            .max_decoding_message_size(MESSAGE_SIZE_MAX)
            .max_encoding_message_size(MESSAGE_SIZE_MAX);
        clients.insert((to.id, lane), (to.cluster_addr.clone(), client.clone()));
        Ok(client)
    }

    fn channel(&self, to: &Member) -> Result<Channel, TransportError> {
        let name = member_dns_name(&self.cluster_id, to.id);
        let server_name = ServerName::try_from(name.clone()).map_err(unreachable_peer)?;
        let (tls, dial, addr) = (self.tls.clone(), Arc::clone(&self.dial), to.cluster_addr.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, dial, addr, server_name) =
                (tls.clone(), Arc::clone(&dial), addr.clone(), server_name.clone());
            async move {
                let connecting = connect(dial.as_ref(), &tls, &addr, server_name, CONNECT_TIMEOUT);
                connecting.await.map(TokioIo::new).map_err(NotConnected)
            }
        });
        let endpoint = Endpoint::from_shared(format!("http://{name}"))
            .map_err(unreachable_peer)?
            .http2_keep_alive_interval(KEEPALIVE_TIMEOUT)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// Carries a client's request to `to`.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn forward(
        &self,
        to: &Member,
        request: ForwardedRequest,
        timeout: Duration,
    ) -> Result<ForwardedResponse, ForwardError> {
        let mut client =
            self.client(to, Lane::Forward).map_err(|err| ForwardError::Undelivered(err.to_string()))?;
        let wire: crate::proto::ForwardRequest = request.into();
        let reply = match tokio::time::timeout(timeout, client.forward(wire)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if was_never_sent(&status) => {
                return Err(ForwardError::Undelivered(describe(&status)));
            }
            Ok(Err(status)) => return Err(ForwardError::Unanswered(describe(&status))),
            Err(_) => return Err(ForwardError::Unanswered("timed out".to_owned())),
        };
        Ok(ForwardedResponse {
            status: u16::try_from(reply.status).unwrap_or(500),
            headers: reply.headers.into_iter().map(header_from_wire).collect(),
            body: reply.body,
        })
    }

    /// Asks a peer who it is.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn echo(
        &self,
        to: &Member,
        node_name: &str,
        timeout: Duration,
    ) -> Result<PeerFacts, TransportError> {
        let mut client = self.client(to, Lane::Forward)?;
        let call = client.echo(EchoRequest { node_name: node_name.to_owned() });
        let reply = bounded(call, timeout).await?.into_inner();
        Ok(PeerFacts {
            node_name: reply.node_name,
            version: reply.version,
            hostname: reply.hostname,
            applied_index: reply.applied_index,
            is_sealed: reply.is_sealed,
            room_bytes: reply.room_bytes,
        })
    }
}

/// Connects to `addr` and shakes hands with whoever has a certificate for `server_name`, within `limit`.
pub(crate) async fn connect(
    dial: &dyn Dial,
    tls: &TlsConnector,
    addr: &str,
    server_name: ServerName<'static>,
    limit: Duration,
) -> io::Result<Box<dyn Duplex>> {
    let connecting = async {
        let stream = dial.dial(addr).await?;
        let stream: Box<dyn Duplex> = Box::new(tls.connect(server_name, stream).await?);
        Ok(stream)
    };
    tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl GrpcTransport {
    /// Has `to`, the active node, answer what a secondary cluster asked here.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn replicate(
        &self,
        to: &Member,
        question: Replicated,
        timeout: Duration,
    ) -> Result<Result<Bytes, Unserved>, ForwardError> {
        let mut client =
            self.client(to, Lane::Forward).map_err(|err| ForwardError::Undelivered(err.to_string()))?;
        let Replicated { replication_id, asked, payload } = question;
        let (follower, call) =
            asked.map_or((Follower::default(), 0), |(who, call)| (who, u32::from(call as u8)));
        let Follower { secondary_id, activation } = follower;
        let request = ReplicateRequest { replication_id, secondary_id, activation, call, payload };
        let reply = match tokio::time::timeout(timeout, client.replicate(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if was_never_sent(&status) => {
                return Err(ForwardError::Undelivered(describe(&status)));
            }
            Ok(Err(status)) => return Err(ForwardError::Unanswered(describe(&status))),
            Err(_) => return Err(ForwardError::Unanswered("timed out".to_owned())),
        };
        let malformed = || ForwardError::Unanswered("an answer of a newer version".to_owned());
        Ok(match reply.outcome.ok_or_else(malformed)? {
            replicate_reply::Outcome::Payload(payload) => Ok(payload),
            replicate_reply::Outcome::NotActive(_) => Err(Unserved::NotActive),
            replicate_reply::Outcome::Refusal(refusal) => {
                Err(Refusal::decode(refusal).map_err(|_| malformed())?.into())
            }
        })
    }

    /// Tells `to` that this member is at these addresses now.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn announce(
        &self,
        to: &Member,
        cluster_addr: &str,
        api_addr: &str,
        timeout: Duration,
    ) -> Result<Announced, TransportError> {
        let mut client = self.client(to, Lane::Forward)?;
        let request =
            AnnounceRequest { cluster_addr: cluster_addr.to_owned(), api_addr: api_addr.to_owned() };
        let reply = bounded(client.announce(request), timeout).await?.into_inner();
        let AnnounceReply { is_recorded, leader, leader_cluster_addr } = reply;
        let leader = Member { id: MemberId(leader), cluster_addr: leader_cluster_addr, ..Member::default() };
        let is_known = !leader.cluster_addr.is_empty();
        Ok(if is_recorded { Announced::Recorded } else { Announced::AskLeader(is_known.then_some(leader)) })
    }
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn call(
        &self,
        to: &Member,
        call: Call,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let mut client = self.client(to, Lane::Raft)?;
        let request = RaftRequest { call: u32::from(call as u8), payload };
        Ok(bounded(client.raft(request), timeout).await?.into_inner().payload)
    }

    async fn send_snapshot(
        &self,
        to: &Member,
        header: Bytes,
        chunks: SnapshotStream,
        timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        let mut client = self.client(to, Lane::Bulk)?;
        let failure = Arc::new(Mutex::new(None));
        let parts = Parts { header: Some(header), chunks, failure: Arc::clone(&failure) };
        let reply = bounded(client.snapshot(parts), timeout).await;
        if let Some(err) = failure.lock().take() {
            return Err(TransportError::Refused(format!("reading the snapshot failed: {err}")));
        }
        Ok(reply?.into_inner().payload)
    }
}

/// A snapshot as gRPC messages. Ends early when reading fails; the receiver misses the trailer and refuses it.
struct Parts {
    header: Option<Bytes>,
    chunks: SnapshotStream,
    failure: Arc<Mutex<Option<String>>>,
}

impl Stream for Parts {
    type Item = SnapshotPart;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SnapshotPart>> {
        if let Some(header) = self.header.take() {
            return Poll::Ready(Some(SnapshotPart { part: Some(snapshot_part::Part::Header(header)) }));
        }
        Poll::Ready(match ready!(self.chunks.poll_next_unpin(cx)) {
            Some(Ok(chunk)) => Some(SnapshotPart { part: Some(snapshot_part::Part::Chunk(chunk)) }),
            Some(Err(err)) => {
                *self.failure.lock() = Some(err);
                None
            }
            None => None,
        })
    }
}

async fn bounded<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    timeout: Duration,
) -> Result<tonic::Response<T>, TransportError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(status)) if status.code() == Code::Unavailable => {
            Err(TransportError::Unreachable(describe(&status)))
        }
        Ok(Err(status)) => Err(TransportError::Refused(describe(&status))),
        Err(_) => Err(TransportError::Timeout),
    }
}

fn unreachable_peer(err: impl std::fmt::Display) -> TransportError {
    TransportError::Unreachable(err.to_string())
}

/// No connection was made, whatever the reason: nothing can have been sent over it.
#[derive(Debug, thiserror::Error)]
#[error("no connection: {0}")]
pub(crate) struct NotConnected(#[source] pub(crate) io::Error);

/// True when the failure shows that the request never reached the peer's application: no connection was made. An error
/// of a connection that was there says nothing, whatever its kind.
pub(crate) fn was_never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(err) = cause {
        if err.is::<NotConnected>() {
            return true;
        }
        cause = err.source();
    }
    false
}

pub(crate) fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(err) = cause {
        // Some say their own cause as well.
        let more = err.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = err.source();
    }
    text
}
