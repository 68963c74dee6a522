//! What a member's replicator has around it: other members over the cluster's own network, other clusters over the lines
//! between regions, and certificates that follow from the seed.
//!
//! Certificates are names and nothing more: what they prove is the matter of `node/rpc`, and of its tests.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_barrier::{Barrier, Class, boot_key};
use arca_engine_api::{Clock, Entropy};
use arca_kernel::KernelError;
use arca_kernel::key_keeper::{KeyKeeper, ROOT_KEY_PATH};
use arca_kernel::replication::UpstreamRecord;
use arca_raft_storage::{Member, RaftReplica, Replica as _};
use arca_replication::{Follower, Kind, LinkError, PrimaryLink, Replicated, SourceSettings, Unserved};
use arca_replicator::{Authority, NewKey, Replicator, ReplicatorParts, Served, Surroundings, TokenDoor};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Region;
use super::road::{Ends, Road};
use crate::cluster::{Shared, member};
use crate::machine::Machine;
use crate::run::Failure;
use crate::world::SimEntropy;

/// Longest wait for another member's facts, as a node has it.
const ECHO_TIMEOUT: Duration = Duration::from_secs(1);
/// What every simulated node says that it runs.
const VERSION: &str = "simulated";
/// Folders that are a cluster's own, although of class `Local`.
const OWN_FOLDERS: [&str; 2] = ["root/core/cluster-ca/", "root/core/cluster/"];

/// What stands for a certificate.
#[derive(Serialize, Deserialize)]
struct Certificate {
    secondary_id: String,
    activation: String,
}

/// See the file's header.
struct Around {
    me: Member,
    region: Region,
    shared: Weak<Shared>,
    entropy: Arc<SimEntropy>,
    death: CancellationToken,
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Around({})", self.me.name)
    }
}

/// Prefixes of keys that never leave a cluster, in the names of its state.
///
/// # Errors
/// When a name cannot be sealed.
pub fn own_prefixes(barrier: &Barrier) -> Result<Vec<Vec<u8>>, Failure> {
    let mut own = vec![boot_key("ca")];
    for folder in OWN_FOLDERS {
        own.push(barrier.seal_name(Class::Local, folder).map_err(Failure::setup)?);
    }
    Ok(own)
}

/// What the member on `machine` does about other clusters; nothing if there are none.
///
/// # Errors
/// When it cannot be made.
pub fn replicator(
    machine: &Machine,
    shared: &Arc<Shared>,
    (replica, keys, barrier): (&Arc<RaftReplica>, &Arc<KeyKeeper>, &Arc<Barrier>),
    death: &CancellationToken,
) -> Result<Option<Arc<Replicator>>, Failure> {
    let Some(region) = &shared.region else { return Ok(None) };
    region.ways.own(&region.name, own_prefixes(barrier)?);
    let root_key = barrier.seal_name(Class::Local, ROOT_KEY_PATH).map_err(Failure::setup)?;
    region.ways.own(&format!("{}/root-key", region.name), vec![root_key]);
    let me = member(machine.id, &machine.host);
    let surroundings = Around {
        me: me.clone(),
        region: region.clone(),
        shared: Arc::downgrade(shared),
        entropy: Arc::clone(machine.entropy()),
        death: death.clone(),
    };
    let parts = ReplicatorParts {
        surroundings: Arc::new(surroundings),
        clock: Arc::clone(&machine.clock) as Arc<dyn Clock>,
        entropy: Arc::clone(machine.entropy()) as Arc<dyn Entropy>,
        sealing: Arc::clone(machine.entropy()) as Arc<dyn arca_barrier::Entropy>,
        me,
        cluster_id: shared.cluster_id.clone(),
        version: VERSION,
        replica: Arc::clone(replica),
        keys: Arc::clone(keys),
        barrier: Arc::clone(barrier),
        bytes_per_second: 0,
        source: SourceSettings {
            // So that records of it are written within a run.
            record_entries: 256,
            record_age: Duration::from_secs(10),
            retention_check: Duration::from_secs(1),
            ..SourceSettings::default()
        },
    };
    Replicator::new(parts).map(Some).map_err(Failure::setup)
}

impl Around {
    fn random(&self) -> Result<[u8; 32], KernelError> {
        let mut bytes = [0; 32];
        Entropy::fill(self.entropy.as_ref(), &mut bytes)?;
        Ok(bytes)
    }

    fn road(&self, replication_id: &str, ca: &[u8], follower: Follower, addresses: Vec<String>) -> Road {
        let ends = Ends {
            region: self.region.name.clone(),
            replication_id: replication_id.to_owned(),
            ca: ca.to_vec(),
            follower,
            kind: Kind::Dr,
        };
        Road::new(self.region.ways.clone(), ends, addresses)
    }
}

#[async_trait]
impl Surroundings for Around {
    async fn carry(&self, leader: &Member, question: Replicated, limit: Duration) -> Result<Bytes, Unserved> {
        let shared = self.shared.upgrade().ok_or(Unserved::NotActive)?;
        let (directory, to) = (shared.directory.clone(), leader.id);
        let work = async move {
            let listening = directory.of(to)?;
            let replicator = listening.replicator.as_ref()?.upgrade()?;
            listening.death.run_until_cancelled(replicator.carried(question)).await
        };
        shared.net.trip(self.me.id, to, limit, work).await.unwrap_or(Err(Unserved::NotActive))
    }

    async fn applied_at(&self, member: &Member) -> Option<u64> {
        let shared = self.shared.upgrade()?;
        let (directory, to) = (shared.directory.clone(), member.id);
        let work = async move { Some(directory.of(to)?.replica.upgrade()?.status().applied_index) };
        shared.net.trip(self.me.id, to, ECHO_TIMEOUT, work).await.ok()
    }

    fn serve(&self, served: Vec<Served>) -> Result<(), String> {
        self.region.ways.serve(&self.me.cluster_addr, served, &self.death);
        Ok(())
    }

    fn end(&self, replication_id: &str, secondary_id: &str) {
        self.region.ways.end(&self.me.cluster_addr, replication_id, secondary_id);
    }

    fn link(
        &self,
        replication_id: &str,
        upstream: &UpstreamRecord,
    ) -> Result<Arc<dyn PrimaryLink>, KernelError> {
        let damaged = |_| KernelError::Bug("the role of this cluster is damaged".to_owned());
        let (ca, own) = (hex::decode(&upstream.ca), hex::decode(&upstream.certificate));
        let own: Certificate = serde_json::from_slice(&own.map_err(damaged)?)
            .map_err(|err| KernelError::Bug(err.to_string()))?;
        let Certificate { secondary_id, activation } = own;
        let follower = Follower { secondary_id, activation };
        let addresses = upstream.addresses.clone();
        Ok(Arc::new(self.road(replication_id, &ca.map_err(damaged)?, follower, addresses)))
    }

    async fn activate(&self, door: TokenDoor<'_>, request: Bytes) -> Result<Bytes, LinkError> {
        let TokenDoor { replication_id, ca, addresses } = door;
        let road = self.road(replication_id, ca, Follower::default(), addresses.to_vec());
        road.activate(request).await
    }

    fn new_authority(&self, replication_id: &str) -> Result<Authority, KernelError> {
        let key = self.random()?;
        Ok(Authority {
            replication_id: replication_id.to_owned(),
            certificate: blake3::hash(&key).as_bytes().to_vec(),
            key: Zeroizing::new(key.to_vec()),
        })
    }

    fn issue(
        &self,
        _authority: &Authority,
        signing_request: &[u8],
        follower: &Follower,
    ) -> Result<Vec<u8>, String> {
        if signing_request.is_empty() {
            return Err("a malformed signing request".to_owned());
        }
        let Follower { secondary_id, activation } = follower.clone();
        serde_json::to_vec(&Certificate { secondary_id, activation }).map_err(|err| err.to_string())
    }

    fn new_key(&self) -> Result<NewKey, KernelError> {
        let key = self.random()?;
        let signing_request = blake3::hash(&key).as_bytes().to_vec();
        Ok(NewKey { key: Zeroizing::new(key.to_vec()), signing_request })
    }
}
