//! What secondaries ask a primary's node, handed to [`PrimarySide`].
//! Read next: [`super::gate`], which stands before it. **Invariant:** without a certificate there is one call, [`PrimarySide::activate`]; with one there is any other.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use arca_replication::{
    Call, Follower, Greeting, GreetingNode, LinkError, PrimarySide, Refusal, Unserved, Welcome,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use super::door::FollowerStream;
use crate::replication_proto as proto;

/// Largest message either way, bytes.
pub(crate) const MESSAGE_SIZE_MAX: usize = 64 << 20;

/// The other end of a connection.
#[derive(Clone)]
pub(crate) struct Caller {
    /// `None`: whoever wants to become a secondary.
    pub(crate) follower: Option<Follower>,
    pub(crate) addr: SocketAddr,
    pub(crate) side: Arc<dyn PrimarySide>,
}

/// Serves every connection by what its [`Caller`] says.
pub(crate) struct Service;

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<<FollowerStream as Connected>::ConnectInfo>();
    caller.cloned().ok_or_else(|| Status::unauthenticated("unknown peer"))
}

/// The secondary that calls. `Err` in the answer if it is not served.
async fn follower<T: Sync>(request: &Request<T>) -> Result<(Caller, Result<Follower, Unserved>), Status> {
    let caller = caller(request)?;
    let follower =
        caller.follower.clone().ok_or_else(|| Status::permission_denied("this needs a certificate"))?;
    let admitted = caller.side.admit(&follower).await;
    if let Err(Unserved::Refused(refusal)) = &admitted {
        tracing::warn!(secondary = follower.secondary_id, addr = %caller.addr, %refusal, "refused a secondary");
    }
    Ok((caller, admitted.map(|()| follower)))
}

fn call_of(tag: u32) -> Result<Call, Status> {
    let call = u8::try_from(tag).ok().and_then(Call::from_tag);
    call.ok_or_else(|| Status::unimplemented("unknown replication call"))
}

fn reply(outcome: Result<Bytes, Unserved>) -> proto::Reply {
    use proto::reply::Outcome;
    let outcome = match outcome {
        Ok(payload) => Outcome::Payload(payload),
        Err(Unserved::NotActive) => Outcome::NotActive(true),
        Err(Unserved::Refused(refusal)) => Outcome::Refusal(refusal.encode().into()),
    };
    proto::Reply { outcome: Some(outcome) }
}

type Replies = Pin<Box<dyn Stream<Item = Result<proto::Reply, Status>> + Send>>;

#[async_trait]
impl proto::replication_server::Replication for Service {
    type StreamStream = Replies;

    async fn activate(
        &self,
        request: Request<proto::ActivateRequest>,
    ) -> Result<Response<proto::Reply>, Status> {
        let caller = caller(&request)?;
        if caller.follower.is_some() {
            return Err(Status::permission_denied("this is a secondary already"));
        }
        let outcome = caller.side.activate(request.into_inner().payload).await;
        if let Err(Unserved::Refused(refusal)) = &outcome {
            tracing::warn!(addr = %caller.addr, %refusal, "an activation was refused");
        }
        Ok(Response::new(reply(outcome)))
    }

    async fn call(&self, request: Request<proto::CallRequest>) -> Result<Response<proto::Reply>, Status> {
        let (caller, follower) = follower(&request).await?;
        let proto::CallRequest { call, payload } = request.into_inner();
        let outcome = match follower {
            Ok(follower) => caller.side.call(&follower, call_of(call)?, payload).await,
            Err(unserved) => Err(unserved),
        };
        Ok(Response::new(reply(outcome)))
    }

    async fn stream(&self, request: Request<proto::CallRequest>) -> Result<Response<Replies>, Status> {
        let (caller, follower) = follower(&request).await?;
        let proto::CallRequest { call, payload } = request.into_inner();
        let outcome = match follower {
            Ok(follower) => caller.side.stream(&follower, call_of(call)?, payload).await,
            Err(unserved) => Err(unserved),
        };
        let replies: Replies = match outcome {
            Ok(stream) => Box::pin(stream.map(|message| match message {
                Ok(payload) => Ok(reply(Ok(payload))),
                Err(LinkError::Refused(refusal)) => Ok(reply(Err(refusal.into()))),
                Err(LinkError::Unreachable(reason)) => Err(Status::unavailable(reason)),
            })),
            Err(unserved) => Box::pin(futures::stream::iter([Ok(reply(Err(unserved)))])),
        };
        Ok(Response::new(replies))
    }

    async fn greet(
        &self,
        request: Request<proto::GreetRequest>,
    ) -> Result<Response<proto::GreetReply>, Status> {
        let (caller, follower) = follower(&request).await?;
        let follower = follower.map_err(|unserved| match unserved {
            Unserved::Refused(Refusal::Revoked) => Status::permission_denied(REVOKED),
            Unserved::Refused(refusal) => Status::unavailable(refusal.to_string()),
            Unserved::NotActive => Status::unavailable("this node does not know the secondary yet"),
        })?;
        let welcome = caller.side.greet(&follower, request.into_inner().into());
        Ok(Response::new(welcome.into()))
    }
}

/// Said to a secondary that was revoked and greets.
pub(crate) const REVOKED: &str = "this secondary was revoked";

impl From<proto::GreetRequest> for Greeting {
    fn from(wire: proto::GreetRequest) -> Self {
        let proto::GreetRequest {
            node_name,
            cluster_addr,
            api_addr,
            version,
            cluster_id,
            epoch,
            clock_ms,
            took_ms,
        } = wire;
        // Kept, and shown to whoever asks: nobody's names are longer.
        let [node_name, cluster_addr, api_addr, version, cluster_id] =
            [node_name, cluster_addr, api_addr, version, cluster_id].map(bounded);
        Self { node_name, cluster_addr, api_addr, version, cluster_id, epoch, clock_ms, took_ms }
    }
}

/// Longest name or address of a node, bytes.
const NAME_BYTES_MAX: usize = 255;

fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(NAME_BYTES_MAX));
    text.shrink_to_fit();
    text
}

impl From<Greeting> for proto::GreetRequest {
    fn from(greeting: Greeting) -> Self {
        let Greeting { node_name, cluster_addr, api_addr, version, cluster_id, epoch, clock_ms, took_ms } =
            greeting;
        Self { node_name, cluster_addr, api_addr, version, cluster_id, epoch, clock_ms, took_ms }
    }
}

impl From<Welcome> for proto::GreetReply {
    fn from(welcome: Welcome) -> Self {
        let nodes = welcome.nodes.into_iter().map(|node| {
            let GreetingNode { node_name, cluster_addr, api_addr, is_active } = node;
            proto::GreetNode { node_name, cluster_addr, api_addr, is_active }
        });
        Self {
            nodes: nodes.collect(),
            mode: welcome.mode,
            epoch: welcome.epoch,
            is_fenced: welcome.is_fenced,
            version: welcome.version,
            cluster_id: welcome.cluster_id,
            clock_ms: welcome.clock_ms,
            has_leader: welcome.has_leader,
        }
    }
}

impl From<proto::GreetReply> for Welcome {
    fn from(wire: proto::GreetReply) -> Self {
        let nodes = wire.nodes.into_iter().map(|node| {
            let proto::GreetNode { node_name, cluster_addr, api_addr, is_active } = node;
            GreetingNode { node_name, cluster_addr, api_addr, is_active }
        });
        Self {
            nodes: nodes.collect(),
            mode: wire.mode,
            epoch: wire.epoch,
            is_fenced: wire.is_fenced,
            version: wire.version,
            cluster_id: wire.cluster_id,
            clock_ms: wire.clock_ms,
            has_leader: wire.has_leader,
        }
    }
}
