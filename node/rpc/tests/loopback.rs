//! Two members talk over a real loopback connection with real certificates.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::{Call, Inbound, Member, MemberId, SnapshotStream, Transport, TransportError};
use arca_rpc::replication::{ReplicationDoor, Unserved};
use arca_rpc::transport::DialedStream;
use arca_rpc::{
    Announced, Authority, Dial, ForwardError, ForwardedRequest, ForwardedResponse, Gatekeeper, GrpcTransport,
    NodeFacts, NodeIdentity, NodeKey, Replicated, RpcServer, ServerParts, TcpDial,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

/// Member 9 was removed.
#[derive(Debug)]
struct Echo;

#[async_trait]
impl Inbound for Echo {
    async fn serve(&self, peer: MemberId, call: Call, payload: Bytes) -> Result<Bytes, String> {
        if payload.is_empty() {
            Err("empty".to_owned())
        } else {
            Ok([&[peer.0 as u8, call as u8], &payload[..]].concat().into())
        }
    }

    fn is_removed(&self, peer: MemberId) -> bool {
        peer == MemberId(9)
    }

    async fn receive_snapshot(
        &self,
        peer: MemberId,
        header: Bytes,
        mut chunks: SnapshotStream,
    ) -> Result<Bytes, String> {
        let mut all = [&[peer.0 as u8], &header[..]].concat();
        while let Some(chunk) = chunks.next().await {
            all.extend(chunk?);
        }
        Ok(all.into())
    }
}

struct Members(Vec<u64>);

#[async_trait]
impl Gatekeeper for Members {
    fn is_member(&self, peer: MemberId) -> bool {
        self.0.contains(&peer.0)
    }

    async fn forwarded(&self, request: ForwardedRequest) -> ForwardedResponse {
        ForwardedResponse { status: 201, headers: request.headers, body: request.body }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts { node_name: "n1".to_owned(), room_bytes: Some(7), ..NodeFacts::default() }
    }

    async fn replicated(&self, _asked: Replicated) -> Result<Bytes, Unserved> {
        Err(Unserved::NotActive)
    }

    async fn announced(
        &self,
        peer: MemberId,
        cluster_addr: String,
        _api_addr: String,
    ) -> Result<Announced, String> {
        if cluster_addr == "there:1" {
            return Ok(Announced::Recorded);
        }
        let leader = Member { id: peer, cluster_addr: "leader:1".to_owned(), ..Member::default() };
        Ok(Announced::AskLeader(Some(leader)))
    }
}

fn identity(authority: &Authority, cluster_id: &str, id: u64) -> NodeIdentity {
    let key = NodeKey::generate().unwrap();
    NodeIdentity {
        cluster_id: cluster_id.to_owned(),
        member: MemberId(id),
        ca: authority.certificate().to_vec(),
        certificate: authority.issue(&key.signing_request().unwrap(), MemberId(id)).unwrap(),
        key: key.expose(),
    }
}

struct Pair {
    server: RpcServer,
    authority: Authority,
}

async fn start(members: Vec<u64>) -> Pair {
    let authority = Authority::create("c1").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let parts = ServerParts {
        identity: identity(&authority, "c1", 1),
        inbound: Arc::new(Echo),
        gatekeeper: Arc::new(Members(members)),
        replication: ReplicationDoor::default(),
    };
    Pair { server: RpcServer::start(listener, parts).unwrap(), authority }
}

fn member(pair: &Pair, id: u64) -> Member {
    Member { id: MemberId(id), cluster_addr: pair.server.addr().to_string(), ..Member::default() }
}

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn members_call_forward_and_ship_snapshots() {
    let pair = start(vec![1, 2]).await;
    let transport = GrpcTransport::new(&identity(&pair.authority, "c1", 2), Arc::new(TcpDial)).unwrap();
    let to = member(&pair, 1);
    let reply = transport.call(&to, Call::Vote, Bytes::from_static(b"x"), SOON).await.unwrap();
    assert_eq!(&reply[..], b"\x02\x02x", "who called, as its certificate says");
    let refused = transport.call(&to, Call::Vote, Bytes::new(), SOON).await.unwrap_err();
    assert!(matches!(refused, TransportError::Refused(text) if text.contains("empty")));
    let chunks: SnapshotStream =
        Box::pin(futures::stream::iter([Ok(Bytes::from_static(b"b")), Ok(Bytes::from_static(b"c"))]));
    let reply = transport.send_snapshot(&to, Bytes::from_static(b"a"), chunks, SOON).await.unwrap();
    assert_eq!(&reply[..], b"\x02abc");
    let response = transport.forward(&to, request(), SOON).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (201, &b"body"[..]));
    let facts = transport.echo(&to, "n2", SOON).await.unwrap();
    assert_eq!((facts.node_name.as_str(), facts.room_bytes), ("n1", Some(7)));
    let announced = transport.announce(&to, "there:1", "https://there", SOON).await.unwrap();
    assert_eq!(announced, Announced::Recorded);
    let announced = transport.announce(&to, "ask:1", "https://there", SOON).await.unwrap();
    let leader = Member { id: MemberId(2), cluster_addr: "leader:1".to_owned(), ..Member::default() };
    assert_eq!(announced, Announced::AskLeader(Some(leader)));
    assert!(transport.announce(&to, "", "https://there", SOON).await.is_err());
    pair.server.stop().await;
}

fn request() -> ForwardedRequest {
    ForwardedRequest {
        method: "PUT".to_owned(),
        target: "/v1/x".to_owned(),
        headers: vec![("h".to_owned(), b"v".to_vec())],
        body: Bytes::from_static(b"body"),
        remote_addr: None,
        remote_port: 0,
        client_certificates: Vec::new(),
        forwarded_from: "n2".to_owned(),
    }
}

/// A network on which no connection comes to be, for one reason or another.
#[derive(Debug)]
struct Broken(std::io::ErrorKind);

#[async_trait]
impl Dial for Broken {
    async fn dial(&self, _addr: &str) -> std::io::Result<Box<dyn DialedStream>> {
        Err(self.0.into())
    }
}

/// The other end is gone before the handshake is over.
#[derive(Debug)]
struct HangsUp;

#[async_trait]
impl Dial for HangsUp {
    async fn dial(&self, _addr: &str) -> std::io::Result<Box<dyn DialedStream>> {
        let (here, there) = tokio::io::duplex(64);
        drop(there);
        Ok(Box::new(here))
    }
}

/// Takes a request and never answers it.
struct NeverAnswers(tokio::sync::Notify);

#[async_trait]
impl Gatekeeper for NeverAnswers {
    fn is_member(&self, _peer: MemberId) -> bool {
        true
    }

    async fn forwarded(&self, _request: ForwardedRequest) -> ForwardedResponse {
        self.0.notify_one();
        std::future::pending().await
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts::default()
    }

    async fn replicated(&self, _asked: Replicated) -> Result<Bytes, Unserved> {
        Err(Unserved::NotActive)
    }

    async fn announced(&self, _: MemberId, _: String, _: String) -> Result<Announced, String> {
        Ok(Announced::Recorded)
    }
}

async fn forwarding_fails(dial: Arc<dyn Dial>) -> ForwardError {
    let authority = Authority::create("c1").unwrap();
    let transport = GrpcTransport::new(&identity(&authority, "c1", 2), dial).unwrap();
    let to = Member { id: MemberId(1), cluster_addr: "peer:1".to_owned(), ..Member::default() };
    transport.forward(&to, request(), SOON).await.unwrap_err()
}

#[tokio::test]
async fn without_a_connection_nothing_was_delivered() {
    use std::io::ErrorKind as Kind;
    for kind in [
        Kind::ConnectionRefused,
        Kind::ConnectionReset,
        Kind::HostUnreachable,
        Kind::NetworkUnreachable,
        Kind::NotFound,
        Kind::Other,
        Kind::TimedOut,
    ] {
        let err = forwarding_fails(Arc::new(Broken(kind))).await;
        assert!(matches!(err, ForwardError::Undelivered(_)), "{kind:?}: {err}");
    }
    let err = forwarding_fails(Arc::new(HangsUp)).await;
    assert!(matches!(err, ForwardError::Undelivered(_)), "{err}");
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_doubt() {
    let authority = Authority::create("c1").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Arc::new(NeverAnswers(tokio::sync::Notify::new()));
    let (inbound, gatekeeper) = (Arc::new(Echo), Arc::clone(&silent) as Arc<dyn Gatekeeper>);
    let parts = ServerParts {
        identity: identity(&authority, "c1", 1),
        inbound,
        gatekeeper,
        replication: ReplicationDoor::default(),
    };
    let server = RpcServer::start(listener, parts).unwrap();
    let to = Member { id: MemberId(1), cluster_addr: server.addr().to_string(), ..Member::default() };
    let transport = GrpcTransport::new(&identity(&authority, "c1", 2), Arc::new(TcpDial)).unwrap();
    let breaking = async {
        silent.0.notified().await;
        server.stop().await;
    };
    let (outcome, ()) = tokio::join!(transport.forward(&to, request(), SOON), breaking);
    let err = outcome.unwrap_err();
    assert!(matches!(err, ForwardError::Unanswered(_)), "{err}");
}

#[tokio::test]
async fn silent_strangers_keep_no_member_out() {
    let pair = start(vec![1, 2]).await;
    let transport = GrpcTransport::new(&identity(&pair.authority, "c1", 2), Arc::new(TcpDial)).unwrap();
    let connect = || tokio::net::TcpStream::connect(pair.server.addr());
    let mut silent = Vec::new();
    // More than there are places for.
    for _ in 0..300 {
        silent.push(connect().await.unwrap());
    }
    let reply = transport.call(&member(&pair, 1), Call::Vote, Bytes::from_static(b"x"), SOON).await.unwrap();
    assert_eq!(&reply[..], b"\x02\x02x");
    // The oldest went first.
    let mut byte = [0];
    let ended = tokio::io::AsyncReadExt::read(&mut silent[0], &mut byte).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn a_removed_member_is_refused() {
    let pair = start(vec![1]).await;
    let transport = GrpcTransport::new(&identity(&pair.authority, "c1", 2), Arc::new(TcpDial)).unwrap();
    let refused = transport.echo(&member(&pair, 1), "n2", SOON).await.unwrap_err();
    assert!(matches!(refused, TransportError::Refused(text) if text.contains("not a member")));
}

#[tokio::test]
async fn a_removed_member_may_call_for_votes_and_nothing_else() {
    let pair = start(vec![1, 9]).await;
    let transport = GrpcTransport::new(&identity(&pair.authority, "c1", 9), Arc::new(TcpDial)).unwrap();
    let to = member(&pair, 1);
    let reply = transport.call(&to, Call::Vote, Bytes::from_static(b"x"), SOON).await.unwrap();
    assert_eq!(&reply[..], b"\x09\x02x");
    let large = Bytes::from(vec![0; 64 << 10]);
    let refused = transport.call(&to, Call::Append, large, SOON).await.unwrap_err();
    assert!(matches!(&refused, TransportError::Refused(text) if text.contains("too large")), "{refused}");
    let endless: SnapshotStream = Box::pin(futures::stream::pending());
    let refused = transport.send_snapshot(&to, Bytes::from_static(b"a"), endless, SOON).await.unwrap_err();
    assert!(matches!(&refused, TransportError::Refused(text) if text.contains("not a member")), "{refused}");
    assert!(transport.echo(&to, "n9", SOON).await.is_err());
}

/// Counts the connections it makes.
#[derive(Debug, Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl Counting {
    fn count(&self) -> usize {
        self.0.load(std::sync::atomic::Ordering::Acquire)
    }
}

#[async_trait]
impl Dial for Counting {
    async fn dial(&self, addr: &str) -> std::io::Result<Box<dyn DialedStream>> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        TcpDial.dial(addr).await
    }
}

#[tokio::test]
async fn a_member_keeps_few_connections() {
    let pair = start(vec![1, 2]).await;
    let (me, to) = (identity(&pair.authority, "c1", 2), member(&pair, 1));
    let dial = Arc::new(Counting::default());
    let first = GrpcTransport::new(&me, Arc::<Counting>::clone(&dial)).unwrap();
    let call = async |transport: &GrpcTransport| {
        transport.call(&to, Call::Vote, Bytes::from_static(b"x"), SOON).await
    };
    call(&first).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..16 {
        let other = GrpcTransport::new(&me, Arc::new(TcpDial)).unwrap();
        call(&other).await.unwrap();
        others.push(other);
    }
    // The oldest has ended; its owner makes another.
    let again = async {
        while dial.count() < 2 || call(&first).await.is_err() {
            let _ = call(&first).await;
        }
    };
    tokio::time::timeout(SOON, again).await.unwrap();
    call(&others[15]).await.unwrap();
}

#[tokio::test]
async fn a_foreign_cluster_is_refused() {
    let pair = start(vec![1, 2]).await;
    let foreign = Authority::create("c1").unwrap();
    let transport = GrpcTransport::new(&identity(&foreign, "c1", 2), Arc::new(TcpDial)).unwrap();
    assert!(transport.echo(&member(&pair, 1), "n2", SOON).await.is_err());
}

#[tokio::test]
async fn the_wrong_member_at_an_address_is_refused() {
    let pair = start(vec![1, 2, 3]).await;
    let transport = GrpcTransport::new(&identity(&pair.authority, "c1", 2), Arc::new(TcpDial)).unwrap();
    let err =
        transport.call(&member(&pair, 3), Call::Vote, Bytes::from_static(b"x"), SOON).await.unwrap_err();
    assert!(matches!(err, TransportError::Unreachable(_)), "{err}");
}
