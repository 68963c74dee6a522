//! What the replicator needs of this node: gRPC to its other members and to other clusters, and certificates.
//! Read next: `arca_replicator`, for what is done with it.

#[cfg(test)]
mod performance;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Barrier;
use arca_engine_api::EntropyError;
use arca_kernel::KernelError;
use arca_kernel::key_keeper::KeyKeeper;
use arca_kernel::replication::UpstreamRecord;
use arca_raft_storage::{Member, RaftReplica};
use arca_replication::{Call, Follower, LinkError, PrimaryLink, Refusal, Replicated, Unserved};
use arca_replicator::{Authority, NewKey, Replicator, ReplicatorParts, Served, Surroundings, TokenDoor};
use arca_rpc::replication::{
    GrpcLink, LinkIdentity, ReplicationAuthority, ReplicationDoor, ServedReplication, activate,
};
use arca_rpc::{ForwardError, GrpcTransport, NodeKey, TcpDial};
use async_trait::async_trait;
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::node::{Node, VERSION};
use crate::unsealed::ECHO_TIMEOUT;
use crate::world::SystemEntropy;

/// See the file's header.
struct NodeSurroundings {
    node_name: String,
    transport: Arc<GrpcTransport>,
    door: ReplicationDoor,
}

impl fmt::Debug for NodeSurroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeSurroundings({})", self.node_name)
    }
}

/// What an unsealed node has of its own.
pub(crate) struct Keyed<'a> {
    pub(crate) replica: &'a Arc<RaftReplica>,
    pub(crate) keys: &'a Arc<KeyKeeper>,
    pub(crate) barrier: &'a Arc<Barrier>,
}

/// The replicator of a node that reaches its cluster by `transport`, and serves others at `door`.
pub(crate) fn replicator(
    node: &Node,
    me: Member,
    cluster_id: &str,
    keyed: &Keyed<'_>,
    (transport, door): (Arc<GrpcTransport>, ReplicationDoor),
) -> Result<Arc<Replicator>, EntropyError> {
    Replicator::new(ReplicatorParts {
        surroundings: Arc::new(NodeSurroundings { node_name: me.name.clone(), transport, door }),
        clock: Arc::clone(&node.clock),
        entropy: Arc::clone(&node.entropy),
        sealing: Arc::new(SystemEntropy),
        me,
        cluster_id: cluster_id.to_owned(),
        version: VERSION,
        replica: Arc::clone(keyed.replica),
        keys: Arc::clone(keyed.keys),
        barrier: Arc::clone(keyed.barrier),
        bytes_per_second: node.config.replication.bytes_per_second,
        source: arca_replication::SourceSettings {
            retention_time: node.config.replication.retention_time,
            ..arca_replication::SourceSettings::default()
        },
    })
}

fn usable(authority: &Authority) -> ReplicationAuthority {
    let Authority { replication_id, certificate, key } = authority;
    ReplicationAuthority::from_parts(replication_id, certificate.clone(), key.clone())
}

#[async_trait]
impl Surroundings for NodeSurroundings {
    async fn carry(&self, leader: &Member, question: Replicated, limit: Duration) -> Result<Bytes, Unserved> {
        let is_asked = matches!(&question.asked, Some((_, Call::Ask)));
        let answered = self.transport.replicate(leader, question, limit).await;
        answered.unwrap_or_else(|err| {
            tracing::debug!(error = %err, "what a secondary asked could not be carried to the active node");
            match err {
                // It may have been done: another node must not be asked to do it again.
                ForwardError::Unanswered(reason) if is_asked => Err(Refusal::Unanswered(reason).into()),
                ForwardError::Unanswered(_) | ForwardError::Undelivered(_) => Err(Unserved::NotActive),
            }
        })
    }

    async fn applied_at(&self, member: &Member) -> Option<u64> {
        let answer = self.transport.echo(member, &self.node_name, ECHO_TIMEOUT).await;
        answer.ok().map(|facts| facts.applied_index)
    }

    fn serve(&self, served: Vec<Served>) -> Result<(), String> {
        let opened = served.into_iter().map(|Served { authority, side }| {
            ServedReplication::new(&authority.replication_id, &usable(&authority), side)
        });
        let opened: Vec<_> = opened.collect::<Result<_, _>>().map_err(|err| err.to_string())?;
        self.door.serve(opened);
        Ok(())
    }

    fn end(&self, replication_id: &str, secondary_id: &str) {
        self.door.end(replication_id, secondary_id);
    }

    fn link(
        &self,
        replication_id: &str,
        upstream: &UpstreamRecord,
    ) -> Result<Arc<dyn PrimaryLink>, KernelError> {
        let bytes = |text: &str| {
            hex::decode(text).map_err(|_| KernelError::Bug("the role of this cluster is damaged".to_owned()))
        };
        let identity = LinkIdentity {
            replication_id: replication_id.to_owned(),
            ca: bytes(&upstream.ca)?,
            certificate: bytes(&upstream.certificate)?,
            key: Zeroizing::new(bytes(&upstream.key)?),
        };
        let link = GrpcLink::new(&identity, upstream.addresses.clone(), Arc::new(TcpDial));
        Ok(Arc::new(link.map_err(|err| KernelError::Bug(err.to_string()))?))
    }

    async fn activate(&self, door: TokenDoor<'_>, request: Bytes) -> Result<Bytes, LinkError> {
        activate(door.replication_id, door.ca, door.addresses, request, Arc::new(TcpDial)).await
    }

    fn new_authority(&self, replication_id: &str) -> Result<Authority, KernelError> {
        let made = ReplicationAuthority::create(replication_id);
        let made = made.map_err(|err| KernelError::Bug(format!("making the CA for secondaries: {err}")))?;
        Ok(Authority {
            replication_id: replication_id.to_owned(),
            certificate: made.certificate().to_vec(),
            // Exposed to be stored behind the barrier.
            key: Zeroizing::new(made.expose_key().to_vec()),
        })
    }

    fn issue(
        &self,
        authority: &Authority,
        signing_request: &[u8],
        follower: &Follower,
    ) -> Result<Vec<u8>, String> {
        usable(authority).issue(signing_request, follower).map_err(|err| err.to_string())
    }

    fn new_key(&self) -> Result<NewKey, KernelError> {
        let failed = |err: arca_rpc::IdentityError| KernelError::Bug(format!("making a key: {err}"));
        let key = NodeKey::generate().map_err(failed)?;
        let signing_request = key.signing_request().map_err(failed)?;
        Ok(NewKey { key: key.expose(), signing_request })
    }
}
