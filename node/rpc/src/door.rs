//! What a member may send, decided before a byte of it is read.
//!
//! A member that was removed keeps its certificate and may not have heard of its removal, which it learns by calling
//! for votes ([`arca_raft_storage::Inbound`]). Those calls are small: nothing else of it is let in.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arca_raft_storage::Inbound;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::Connected;

use crate::io::PeerStream;
use crate::proto::node_server::{Node, NodeServer};
use crate::transport::MESSAGE_SIZE_MAX;

/// Largest message of a member that was removed, bytes. A call for a vote takes a tenth.
const REMOVED_MESSAGE_SIZE_MAX: usize = 1 << 10;
/// How such a call arrives.
const RAFT_PATH: &str = "/arca.node.v1.Node/Raft";

/// Stands before the service.
pub(crate) struct Door<T> {
    inbound: Arc<dyn Inbound>,
    members: NodeServer<T>,
    removed: NodeServer<T>,
}

impl<T: Node> Door<T> {
    pub(crate) fn new(inbound: Arc<dyn Inbound>, service: T) -> Self {
        let service = Arc::new(service);
        let members = NodeServer::from_arc(Arc::clone(&service))
            .max_decoding_message_size(MESSAGE_SIZE_MAX)
            .max_encoding_message_size(MESSAGE_SIZE_MAX);
        let removed = NodeServer::from_arc(service).max_decoding_message_size(REMOVED_MESSAGE_SIZE_MAX);
        Self { inbound, members, removed }
    }
}

impl<T> Clone for Door<T> {
    fn clone(&self) -> Self {
        let Self { inbound, members, removed } = self;
        Self { inbound: Arc::clone(inbound), members: members.clone(), removed: removed.clone() }
    }
}

impl<T> NamedService for Door<T> {
    const NAME: &'static str = <NodeServer<T> as NamedService>::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<T: Node> tower::Service<http::Request<Body>> for Door<T> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let peer = request.extensions().get::<<PeerStream as Connected>::ConnectInfo>();
        match peer {
            Some(peer) if !self.inbound.is_removed(peer.member) => self.members.call(request),
            Some(_) if request.uri().path() == RAFT_PATH => self.removed.call(request),
            _ => {
                let refused = Status::permission_denied("not a member of this cluster");
                Box::pin(std::future::ready(Ok(refused.into_http())))
            }
        }
    }
}
