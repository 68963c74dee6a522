//! Secondaries call a primary over real loopback connections with real certificates.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arca_raft_storage::{Call as RaftCall, Inbound, MemberId, SnapshotStream};
use arca_replication::{ASK_BYTES_MAX, Call, Link as _, LinkError, PayloadStream, PrimaryLink as _, Refusal};
use arca_rpc::replication::{
    Follower, Greeting, GrpcLink, LinkIdentity, PrimarySide, ReplicationAuthority, ReplicationDoor,
    ServedReplication, Unserved, Welcome, activate,
};
use arca_rpc::{
    Announced, Authority, ForwardedRequest, ForwardedResponse, Gatekeeper, NodeFacts, NodeIdentity, NodeKey,
    Replicated, RpcServer, ServerParts, TcpDial,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;

/// A cluster nobody calls.
#[derive(Debug)]
struct Quiet;

#[async_trait]
impl Inbound for Quiet {
    async fn serve(&self, _: MemberId, _: RaftCall, _: Bytes) -> Result<Bytes, String> {
        Err("nobody is here".to_owned())
    }

    fn is_removed(&self, _: MemberId) -> bool {
        false
    }

    async fn receive_snapshot(&self, _: MemberId, _: Bytes, _: SnapshotStream) -> Result<Bytes, String> {
        Err("nobody is here".to_owned())
    }
}

#[async_trait]
impl Gatekeeper for Quiet {
    fn is_member(&self, _: MemberId) -> bool {
        false
    }

    async fn forwarded(&self, _: ForwardedRequest) -> ForwardedResponse {
        ForwardedResponse { status: 500, headers: Vec::new(), body: Bytes::new() }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts::default()
    }

    async fn replicated(&self, _asked: Replicated) -> Result<Bytes, Unserved> {
        Err(Unserved::NotActive)
    }

    async fn announced(&self, _: MemberId, _: String, _: String) -> Result<Announced, String> {
        Err("nobody is here".to_owned())
    }
}

/// Answers with what it was asked, and by whom.
#[derive(Default)]
struct Side {
    is_standby: bool,
    is_revoked: AtomicBool,
    /// Whether it takes calls and never answers.
    is_lost: bool,
    asked: AtomicUsize,
}

#[async_trait]
impl PrimarySide for Side {
    async fn activate(&self, request: Bytes) -> Result<Bytes, Unserved> {
        if request.is_empty() {
            return Err(Refusal::Malformed("empty".to_owned()).into());
        }
        Ok([b"welcome ", &request[..]].concat().into())
    }

    async fn admit(&self, follower: &Follower) -> Result<(), Unserved> {
        let is_fine = follower.activation == "a1" && !self.is_revoked.load(Ordering::Relaxed);
        if is_fine { Ok(()) } else { Err(Refusal::Revoked.into()) }
    }

    async fn call(&self, follower: &Follower, call: Call, payload: Bytes) -> Result<Bytes, Unserved> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.is_standby {
            return Err(Unserved::NotActive);
        }
        if self.is_lost {
            std::future::pending::<()>().await;
        }
        if payload.is_empty() {
            return Err(Refusal::Gone.into());
        }
        Ok([follower.secondary_id.as_bytes(), &[call as u8], &payload[..]].concat().into())
    }

    async fn stream(&self, _: &Follower, _: Call, payload: Bytes) -> Result<PayloadStream, Unserved> {
        if payload.is_empty() {
            return Err(Refusal::Gone.into());
        }
        let first = futures::stream::iter([Ok(payload.clone()), Ok(payload)]);
        Ok(Box::pin(first.chain(futures::stream::pending())))
    }

    fn greet(&self, follower: &Follower, greeting: Greeting) -> Welcome {
        Welcome { mode: follower.secondary_id.clone(), version: greeting.version, ..Welcome::default() }
    }
}

struct Primary {
    server: RpcServer,
    door: ReplicationDoor,
    authority: ReplicationAuthority,
    side: Arc<Side>,
}

impl Primary {
    async fn start(side: Side) -> Self {
        let authority = ReplicationAuthority::create("r1").unwrap();
        Self::start_with(side, authority).await
    }

    async fn start_with(side: Side, authority: ReplicationAuthority) -> Self {
        let (cluster, key) = (Authority::create("c1").unwrap(), NodeKey::generate().unwrap());
        let identity = NodeIdentity {
            cluster_id: "c1".to_owned(),
            member: MemberId(1),
            ca: cluster.certificate().to_vec(),
            certificate: cluster.issue(&key.signing_request().unwrap(), MemberId(1)).unwrap(),
            key: key.expose(),
        };
        let (door, side) = (ReplicationDoor::default(), Arc::new(side));
        door.serve(vec![ServedReplication::new("r1", &authority, side.clone()).unwrap()]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (inbound, gatekeeper, replication) = (Arc::new(Quiet), Arc::new(Quiet), door.clone());
        let parts = ServerParts { identity, inbound, gatekeeper, replication };
        Self { server: RpcServer::start(listener, parts).unwrap(), door, authority, side }
    }

    fn addr(&self) -> String {
        self.server.addr().to_string()
    }

    fn identity(&self, activation: &str) -> LinkIdentity {
        let key = NodeKey::generate().unwrap();
        let follower = Follower { secondary_id: "west".to_owned(), activation: activation.to_owned() };
        LinkIdentity {
            replication_id: "r1".to_owned(),
            ca: self.authority.certificate().to_vec(),
            certificate: self.authority.issue(&key.signing_request().unwrap(), &follower).unwrap(),
            key: key.expose(),
        }
    }

    fn link(&self, activation: &str, addresses: &[String]) -> GrpcLink {
        GrpcLink::new(&self.identity(activation), addresses.to_vec(), Arc::new(TcpDial)).unwrap()
    }
}

const X: Bytes = Bytes::from_static(b"x");

#[tokio::test]
async fn a_secondary_asks_follows_and_greets() {
    let primary = Primary::start(Side::default()).await;
    let link = primary.link("a1", &[primary.addr()]);
    assert_eq!(&link.call(Call::Compare, X).await.unwrap()[..], b"west\x04x");
    assert_eq!(link.call(Call::Compare, Bytes::new()).await, Err(Refusal::Gone.into()));
    let mut stream = link.stream(Call::Follow, X).await.unwrap();
    assert_eq!((stream.next().await, stream.next().await), (Some(Ok(X)), Some(Ok(X))));
    assert_eq!(link.stream(Call::Follow, Bytes::new()).await.err(), Some(Refusal::Gone.into()));
    let greeting = Greeting { version: "v".to_owned(), ..Greeting::default() };
    let welcome = link.greet(&greeting).await.unwrap();
    assert_eq!((&*welcome.mode, &*welcome.version), ("west", "v"));
    primary.server.stop().await;
}

#[tokio::test]
async fn the_node_that_can_answer_is_found_and_asked_first() {
    let (standby, active) = two_nodes(Side { is_standby: true, ..Side::default() }).await;
    let nobody = "127.0.0.1:1".to_owned();
    let link = standby.link("a1", &[nobody.clone(), standby.addr(), active.addr()]);
    assert!(link.call(Call::Compare, X).await.is_ok());
    assert_eq!(link.addresses().first(), Some(&active.addr()));
    link.learn(vec![nobody.clone(), standby.addr()]);
    assert!(matches!(link.call(Call::Compare, X).await, Err(LinkError::Refused(Refusal::Busy(_)))));
    link.learn(vec![nobody]);
    assert!(matches!(link.call(Call::Compare, X).await, Err(LinkError::Unreachable(_))));
}

/// `first` and another node of the same primary, which is active.
async fn two_nodes(first: Side) -> (Primary, Primary) {
    let first = Primary::start(first).await;
    let (certificate, key) = (first.authority.certificate().to_vec(), first.authority.expose_key().to_vec());
    let authority = ReplicationAuthority::from_parts("r1", certificate, key.into());
    (first, Primary::start_with(Side::default(), authority).await)
}

#[tokio::test]
async fn what_the_primary_is_to_do_goes_past_who_cannot_do_it() {
    let (standby, active) = two_nodes(Side { is_standby: true, ..Side::default() }).await;
    let nobody = "127.0.0.1:1".to_owned();
    let link = standby.link("a1", &[nobody.clone(), standby.addr(), active.addr()]);
    assert_eq!(&link.call(Call::Ask, X).await.unwrap()[..], b"west\x06x");
    assert_eq!(link.addresses().first(), Some(&active.addr()));
    link.learn(vec![nobody.clone(), standby.addr()]);
    assert!(matches!(link.call(Call::Ask, X).await, Err(LinkError::Refused(Refusal::Busy(_)))));
    link.learn(vec![nobody]);
    assert!(matches!(link.call(Call::Ask, X).await, Err(LinkError::Unreachable(_))));
    let large = link.call(Call::Ask, vec![0; ASK_BYTES_MAX + 1].into()).await;
    assert!(matches!(large, Err(LinkError::Refused(Refusal::Malformed(_)))));
}

/// The node that took it may have done it: no other is asked.
#[tokio::test]
async fn what_the_primary_may_have_done_is_not_asked_for_again() {
    let (lost, active) = two_nodes(Side { is_lost: true, ..Side::default() }).await;
    let link = lost.link("a1", &[lost.addr(), active.addr()]);
    let ending = async {
        while lost.side.asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        lost.door.end("r1", "west");
    };
    let (answer, ()) = tokio::join!(link.call(Call::Ask, X), ending);
    assert!(matches!(answer, Err(LinkError::Refused(Refusal::Unanswered(_)))), "{answer:?}");
    assert_eq!(active.side.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn revoking_ends_open_streams_at_once() {
    let primary = Primary::start(Side::default()).await;
    let link = primary.link("a1", &[primary.addr()]);
    let mut stream = link.stream(Call::Follow, X).await.unwrap();
    assert_eq!((stream.next().await, stream.next().await), (Some(Ok(X)), Some(Ok(X))));
    primary.side.is_revoked.store(true, Ordering::Relaxed);
    primary.door.end("r1", "west");
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap();
    assert!(matches!(ended, Some(Err(LinkError::Unreachable(_))) | None), "{ended:?}");
    assert_eq!(link.call(Call::Compare, X).await, Err(Refusal::Revoked.into()));
    assert_eq!(link.greet(&Greeting::default()).await, Err(Refusal::Revoked.into()));
    let earlier = primary.link("a0", &[primary.addr()]);
    assert_eq!(earlier.call(Call::Compare, X).await, Err(Refusal::Revoked.into()), "an earlier activation");
}

#[tokio::test]
async fn strangers_may_show_a_token_and_nothing_else() {
    let primary = Primary::start(Side::default()).await;
    let (ca, addresses) = (primary.authority.certificate().to_vec(), [primary.addr()]);
    let dial = || Arc::new(TcpDial);
    let said = activate("r1", &ca, &addresses, X, dial()).await.unwrap();
    assert_eq!(&said[..], b"welcome x");
    let refused = activate("r1", &ca, &addresses, Bytes::new(), dial()).await;
    assert_eq!(refused, Err(Refusal::Malformed("empty".to_owned()).into()));
    let other = activate("r2", &ca, &addresses, X, dial()).await;
    assert!(matches!(other, Err(LinkError::Unreachable(_))), "{other:?}");
    let false_ca = ReplicationAuthority::create("r1").unwrap();
    // Whoever has no certificate yet sends little: what is more is not even read.
    let large = activate("r1", &ca, &addresses, vec![1; (64 << 10) + 1].into(), dial()).await;
    assert!(matches!(large, Err(LinkError::Unreachable(_))), "{large:?}");
    let fooled = activate("r1", false_ca.certificate(), &addresses, X, dial()).await;
    assert!(matches!(fooled, Err(LinkError::Unreachable(_))), "{fooled:?}");
    let mut forged = primary.identity("a1");
    let request = NodeKey::generate().unwrap();
    let follower = Follower { secondary_id: "west".to_owned(), activation: "a1".to_owned() };
    forged.certificate = false_ca.issue(&request.signing_request().unwrap(), &follower).unwrap();
    forged.key = request.expose();
    let link = GrpcLink::new(&forged, addresses.to_vec(), dial()).unwrap();
    assert!(matches!(link.call(Call::Compare, X).await, Err(LinkError::Unreachable(_))));
}

#[tokio::test]
async fn what_is_not_served_any_more_ends() {
    let primary = Primary::start(Side::default()).await;
    let link = primary.link("a1", &[primary.addr()]);
    assert!(link.call(Call::Compare, X).await.is_ok());
    primary.door.serve(Vec::new());
    assert!(matches!(link.call(Call::Compare, X).await, Err(LinkError::Unreachable(_))));
}
