//! What another cluster's connection may send, decided before a byte of it is read.
//!
//! Defends the primary's memory against strangers: whoever has no certificate yet may show a token, which is small, and
//! so many of them at once; nothing else of theirs is let in.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::Semaphore;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::Connected;

use super::door::FollowerStream;
use super::service::{MESSAGE_SIZE_MAX, Service};
use crate::replication_proto::replication_server::ReplicationServer;

/// Largest message of whoever has no certificate yet, bytes.
const ACTIVATION_SIZE_MAX: usize = 64 << 10;
/// As many tokens are looked at at once.
const ACTIVATIONS_MAX: usize = 64;
/// How a token arrives.
const ACTIVATE_PATH: &str = "/arca.replication.v1.Replication/Activate";

/// Stands before the service.
#[derive(Clone)]
pub(crate) struct Gate {
    followers: ReplicationServer<Service>,
    strangers: ReplicationServer<Service>,
    activations: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        let service = Arc::new(Service);
        let followers = ReplicationServer::from_arc(Arc::clone(&service))
            .max_decoding_message_size(MESSAGE_SIZE_MAX)
            .max_encoding_message_size(MESSAGE_SIZE_MAX);
        let strangers = ReplicationServer::from_arc(service).max_decoding_message_size(ACTIVATION_SIZE_MAX);
        Self { followers, strangers, activations: Arc::new(Semaphore::new(ACTIVATIONS_MAX)) }
    }
}

impl NamedService for Gate {
    const NAME: &'static str = <ReplicationServer<Service> as NamedService>::NAME;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

fn refused(status: &Status) -> Answer {
    Box::pin(std::future::ready(Ok(status.clone().into_http())))
}

impl tower::Service<http::Request<Body>> for Gate {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let caller = request.extensions().get::<<FollowerStream as Connected>::ConnectInfo>();
        if caller.is_some_and(|caller| caller.follower.is_some()) {
            return self.followers.call(request);
        }
        if request.uri().path() != ACTIVATE_PATH {
            return refused(&Status::permission_denied("this needs a certificate"));
        }
        match Arc::clone(&self.activations).try_acquire_owned() {
            Ok(permit) => {
                let answering = self.strangers.call(request);
                Box::pin(async move {
                    let answer = answering.await;
                    drop(permit);
                    answer
                })
            }
            Err(_) => refused(&Status::resource_exhausted("too many activations at once: try again")),
        }
    }
}
