//! What nodes make of key shares that were replaced while they were not looking.
//!
//! A rekey is one entry in the log. A node that was stopped or sealed then still has the old wrapping of the root key:
//! on its own it would take the old shares and refuse the new ones. So a sealed node first asks its peers for a newer
//! wrapping; and one that was unsealed all the same by shares since replaced seals itself once it has caught up.
//!
//! What a peer answers is no secret, and cannot make a node give anything away: shares are put together here, and
//! what they give must open what is stored here. At worst a false answer makes right shares look wrong.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_barrier::{SealConfig, UnsealProgress, boot_key};
use arca_client::{Address, Client, Config as ClientConfig};
use arca_raft_storage::state::State;
use arca_raft_storage::{ApplyObserver, Change, Member, RaftReplica, ReadView, Replica as _, Version, Write};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{JoinTarget, Storage};
use crate::node::{Node, NodeError, Order, Phase, SealedParts};
use crate::unsealed::Unsealed;

/// Where nodes tell each other.
const PATH: &str = "sys/storage/raft/bootstrap/seal";
/// Longest wait for all peers together: somebody is typing a share.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1_500);
/// Most peers asked.
const PEERS_MAX: usize = 16;
/// Pause between two tries to learn what is current.
const PAUSE: Duration = Duration::from_millis(500);

/// The seal as one node has it. Hex where bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SealFacts {
    cluster_id: String,
    /// Log index that wrote `root_key`: the newer one is right.
    version: u64,
    seal_config: String,
    root_key: String,
}

/// The newest of `told` about this cluster, if it is newer than `ours`.
fn newest(told: Vec<SealFacts>, cluster_id: &str, ours: Version) -> Option<SealFacts> {
    let about_us = told.into_iter().filter(|facts| facts.cluster_id == cluster_id);
    about_us.filter(|facts| Version(facts.version) > ours).max_by_key(|facts| facts.version)
}

impl SealFacts {
    /// The parts of a sealed node, with this seal: shares given so far were of another set.
    fn apply(&self, parts: &mut SealedParts) -> Result<SealConfig, NodeError> {
        let bytes = |text: &str| hex::decode(text).map_err(|err| NodeError::failed("a peer's seal", err));
        let failed = |err| NodeError::failed("a peer's seal", err);
        let config = SealConfig::from_json(&bytes(&self.seal_config)?).map_err(failed)?;
        parts.progress = UnsealProgress::new(&config).map_err(failed)?;
        parts.wrapped_root_key = bytes(&self.root_key)?;
        parts.seal_version = Version(self.version);
        Ok(config)
    }
}

/// What the state of a node that is not running says: which wrapping it has, and who the members were.
pub(crate) fn last_known(state: &State) -> Result<(Version, Vec<Member>), NodeError> {
    let stored = state.view().get(&boot_key("root-key"));
    let stored = stored.map_err(|err| NodeError::failed("reading the state machine", err))?;
    let members = arca_raft_storage::raft::members_of(state)
        .map_err(|err| NodeError::failed("reading the state machine", err))?;
    Ok((stored.map(|found| found.version).unwrap_or_default(), members))
}

impl Node {
    /// The seal as this node has it; only an unsealed one knows that nothing newer is stored here.
    ///
    /// # Errors
    /// When it is sealed, or reading fails.
    pub fn seal_facts(&self) -> Result<Value, NodeError> {
        let unsealed = self.unsealed.load_full().ok_or(NodeError::NeedsActive)?;
        let view = unsealed.replica.view();
        let read = |name: &str| {
            let found =
                view.get(&boot_key(name)).map_err(|err| NodeError::failed("reading the seal", err))?;
            found.ok_or_else(|| NodeError::Failed(format!("boot/{name} is missing")))
        };
        let (config, root_key) = (read("seal-config")?, read("root-key")?);
        let facts = SealFacts {
            cluster_id: unsealed.record.cluster_id.clone(),
            version: root_key.version.0,
            seal_config: hex::encode(config.value),
            root_key: hex::encode(root_key.value),
        };
        serde_json::to_value(facts).map_err(|err| NodeError::failed("reading the seal", err))
    }

    /// Before a share is taken: the seal the cluster has by now, if this node can learn of it.
    pub(crate) async fn follow_rekey(&self, phase: &mut Phase) {
        match phase {
            Phase::Sealed(parts) => self.follow_seal(parts).await,
            Phase::Joining(pending) => {
                if let Some(config) = pending.renew(&self.config.node_name).await {
                    self.show_counts(&config);
                }
            }
            Phase::New | Phase::Removed | Phase::Unreadable(_) | Phase::Unsealed => {}
        }
    }

    async fn follow_seal(&self, parts: &mut SealedParts) {
        let peers = self.peers(&parts.members);
        let asking = peers.iter().map(|peer| async move { tokio::time::timeout(PATIENCE, ask(peer)).await });
        let told = futures::future::join_all(asking).await;
        let told = told.into_iter().filter_map(|answer| answer.ok().flatten()).collect();
        let Some(facts) = newest(told, &parts.record.cluster_id, parts.seal_version) else { return };
        match facts.apply(parts) {
            Ok(config) => {
                tracing::warn!(
                    "the key shares were replaced while this node was away: it takes the new ones only"
                );
                self.show_counts(&config);
            }
            Err(err) => tracing::warn!(error = %err, "what a peer says about the seal cannot be used"),
        }
    }

    /// Nodes that may know more: those this one joins through, and the members it last knew.
    fn peers(&self, members: &[Member]) -> Vec<JoinTarget> {
        let Storage::Raft { retry_join, .. } = &self.config.storage else { return Vec::new() };
        let mut peers = retry_join.clone();
        for member in members {
            if !peers.iter().any(|peer| peer.api_addr == member.api_addr) {
                // Reached with the same CA as those this node joins through.
                let like = retry_join.first().cloned().unwrap_or_default();
                peers.push(JoinTarget { api_addr: member.api_addr.clone(), tls_server_name: None, ..like });
            }
        }
        peers.retain(|peer| !peer.api_addr.is_empty() && peer.api_addr != self.config.api_addr);
        peers.truncate(PEERS_MAX);
        peers
    }

    /// Shows the numbers of a seal that has just been applied.
    fn show_seal(&self, config: &[u8]) {
        match SealConfig::from_json(config) {
            Ok(config) => self.show_counts(&config),
            Err(err) => tracing::error!(error = %err, "the replicated seal settings cannot be used"),
        }
    }

    fn show_counts(&self, config: &SealConfig) {
        let mut face = self.face.write();
        (face.shares, face.threshold) = (config.secret_shares, config.secret_threshold);
    }
}

/// Asks one peer. Anything but an answer is no answer.
async fn ask(peer: &JoinTarget) -> Option<SealFacts> {
    let address: Address = peer.api_addr.parse().ok()?;
    let mut config = ClientConfig::new(address);
    config.tls.ca_pem.clone_from(&peer.ca_cert);
    config.tls.ca_cert.clone_from(&peer.ca_cert_file);
    config.tls.client_cert.clone_from(&peer.client_cert_file);
    config.tls.client_key.clone_from(&peer.client_key_file);
    config.tls.server_name.clone_from(&peer.tls_server_name);
    // A node that was told of no CA cannot check one. Nothing secret goes out or comes back, see the header.
    config.tls.danger_skip_verify = peer.ca_cert.is_none() && peer.ca_cert_file.is_none();
    config.retry.retries = 0;
    config.timeout = PATIENCE;
    config.connect_timeout = PATIENCE;
    let reply = Client::new(config).ok()?.write(PATH, &json!({})).await.ok()??;
    serde_json::from_value(Value::Object(reply.data?)).ok()
}

/// Keeps status pages true while unsealed: a rekey changes how many shares there are and are needed.
pub(crate) struct SealObserver {
    pub(crate) node: Weak<Node>,
    pub(crate) replica: Weak<RaftReplica>,
    pub(crate) runtime: tokio::runtime::Handle,
}

impl SealObserver {
    /// Shows what is applied now, and from now on.
    pub(crate) fn register(node: &Arc<Node>, replica: &Arc<RaftReplica>) {
        replica.observe(Arc::new(Self {
            node: Arc::downgrade(node),
            replica: Arc::downgrade(replica),
            runtime: tokio::runtime::Handle::current(),
        }));
        show_stored(node, replica);
    }
}

impl SealObserver {
    /// Makes what is being applied durable: a sealed node reads its seal from the state, without replaying the log.
    fn keep(&self) {
        let replica = Weak::clone(&self.replica);
        self.runtime.spawn(async move {
            let Some(replica) = replica.upgrade() else { return };
            if let Err(err) = replica.flush().await {
                tracing::error!(error = %err, "the new seal is not yet on this node's disk");
            }
        });
    }
}

fn show_stored(node: &Node, replica: &RaftReplica) {
    match replica.view().get(&boot_key("seal-config")) {
        Ok(Some(found)) => node.show_seal(&found.value),
        Ok(None) => {}
        Err(err) => tracing::error!(error = %err, "the replicated seal settings cannot be read"),
    }
}

impl ApplyObserver for SealObserver {
    fn applied(&self, _index: u64, change: Change<'_>) {
        match change {
            Change::Write(Write::Put(key, value)) if *key == boot_key("seal-config") => {
                if let Some(node) = self.node.upgrade() {
                    node.show_seal(value);
                }
                self.keep();
            }
            Change::Write(_) => {}
            Change::Everything => {
                // The view is published after observers return: read it from a task of its own.
                let (node, replica) = (Weak::clone(&self.node), Weak::clone(&self.replica));
                self.runtime.spawn(async move {
                    if let (Some(node), Some(replica)) = (node.upgrade(), replica.upgrade()) {
                        show_stored(&node, &replica);
                    }
                });
            }
        }
    }
}

/// Seals this node again if the shares that unsealed it, those of the wrapping `opened`, had been replaced before.
pub(crate) async fn check_shares(node: Weak<Node>, unsealed: Weak<Unsealed>, opened: Vec<u8>) {
    loop {
        let Some(replica) = unsealed.upgrade().map(|unsealed| Arc::clone(&unsealed.replica)) else { return };
        // Everything committed before this node came up is applied here once this returns.
        if replica.read_barrier().await.is_ok() {
            let stored = replica.view().get(&boot_key("root-key"));
            let is_current = !matches!(stored, Ok(Some(found)) if found.value != opened);
            if let (false, Some(node)) = (is_current, node.upgrade()) {
                tracing::error!(
                    "this node was unsealed with key shares that have been replaced: it seals itself, unseal it with \
                     the new ones"
                );
                // Nobody listens only when the process is ending.
                let _ = node.orders.send(Order::Seal);
            }
            return;
        }
        drop(replica);
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(cluster_id: &str, version: u64) -> SealFacts {
        SealFacts {
            cluster_id: cluster_id.to_owned(),
            version,
            seal_config: String::new(),
            root_key: String::new(),
        }
    }

    #[track_caller]
    fn check(told: &[(&str, u64)], want: Option<u64>) {
        let told = told.iter().map(|(cluster, version)| facts(cluster, *version)).collect();
        assert_eq!(newest(told, "ours", Version(5)).map(|facts| facts.version), want);
    }

    #[test]
    fn the_newest_seal_of_the_own_cluster_counts() {
        check(&[], None);
        check(&[("ours", 4), ("ours", 5)], None);
        check(&[("ours", 6), ("ours", 9), ("ours", 3)], Some(9));
        check(&[("theirs", 9)], None);
        check(&[("theirs", 9), ("ours", 6)], Some(6));
    }
}
