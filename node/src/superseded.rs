//! What nodes make of key shares that were replaced while they were not looking.
//!
//! A rekey is one entry in the log. A node that was stopped or sealed then still has the old wrapping of the old root
//! key: on its own it would take the old shares and refuse the new ones. So a sealed node first asks its peers for a
//! newer seal; and one that was unsealed all the same by shares since replaced seals itself once it has caught up.
//!
//! What a peer answers is no secret, and is signed with the key of the cluster's CA, which only unsealed members have:
//! whoever stands between, or was a member under another CA, cannot make right shares look wrong. An answer that was
//! true once may be repeated later; the next newer one takes its place.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_barrier::{SealConfig, UnsealProgress, boot_key};
use arca_client::{Address, Client, Config as ClientConfig};
use arca_raft_storage::state::State;
use arca_raft_storage::{ApplyObserver, Change, Member, RaftReplica, ReadView, Replica as _, Version, Write};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::{JoinTarget, Storage};
use crate::join::{Challenge, authority};
use crate::joiner::Wanted;
use crate::node::{Node, NodeError, Order, Phase, SealedParts};
use crate::unsealed::Unsealed;

/// Where nodes tell each other.
const PATH: &str = "sys/storage/raft/bootstrap/seal";
/// Longest wait for all peers together: somebody is typing a share.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1_500);
/// How long an answer is good for. Whoever calls meanwhile shares it, however many there are.
const FRESH: Duration = Duration::from_secs(1);
/// Most peers asked.
const PEERS_MAX: usize = 16;
/// Largest answer of a peer, bytes. A keyring takes 53 for each time it was rotated.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// Pause between two tries to learn what is current.
const PAUSE: Duration = Duration::from_millis(500);
const STATEMENT_CONTEXT: &str = "arca 2026-11 seal facts";

/// The seal and the keyring under it, as one state has them. Hex where bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SealFacts {
    pub(crate) cluster_id: String,
    /// Log index that wrote `root_key`: the newer one is right.
    pub(crate) version: u64,
    pub(crate) seal_config: String,
    pub(crate) root_key: String,
    pub(crate) keyring: String,
    /// Of the cluster's CA, over all the others.
    #[serde(default)]
    pub(crate) signature: String,
}

/// The newest of `told` about this cluster that its CA signed, if it is newer than `ours`.
fn newest(told: Vec<SealFacts>, cluster_id: &str, ca: &[u8], ours: Version) -> Option<SealFacts> {
    let is_useful = |facts: &SealFacts| {
        facts.cluster_id == cluster_id && Version(facts.version) > ours && facts.is_signed_by(ca)
    };
    told.into_iter().filter(is_useful).max_by_key(|facts| facts.version)
}

impl SealFacts {
    /// As the state of an unsealed node has them, all from one view, not signed.
    pub(crate) fn read(unsealed: &Unsealed) -> Result<Self, NodeError> {
        let view = unsealed.replica.view();
        let read = |name: &str| {
            let found =
                view.get(&boot_key(name)).map_err(|err| NodeError::failed("reading the seal", err))?;
            found.ok_or_else(|| NodeError::Failed(format!("boot/{name} is missing")))
        };
        let root_key = read("root-key")?;
        Ok(Self {
            cluster_id: unsealed.record.cluster_id.clone(),
            version: root_key.version.0,
            seal_config: hex::encode(read("seal-config")?.value),
            root_key: hex::encode(root_key.value),
            keyring: hex::encode(read("keyring")?.value),
            signature: String::new(),
        })
    }

    /// What is signed: words that say what it is for, then each part with its length.
    fn statement(&self) -> Vec<u8> {
        let version = self.version.to_string();
        let parts =
            [STATEMENT_CONTEXT, &self.cluster_id, &version, &self.seal_config, &self.root_key, &self.keyring];
        let mut statement = Vec::new();
        for part in parts {
            statement.extend_from_slice(part.as_bytes());
            statement.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        }
        statement
    }

    fn is_signed_by(&self, ca: &[u8]) -> bool {
        let signature = hex::decode(&self.signature).unwrap_or_default();
        arca_rpc::is_statement_of(ca, &self.statement(), &signature)
    }

    /// The parts of a sealed node, with this seal: shares given so far were of another set. Nothing changes on an error.
    fn apply(&self, parts: &mut SealedParts) -> Result<SealConfig, NodeError> {
        let bytes = |text: &str| hex::decode(text).map_err(|err| NodeError::failed("a peer's seal", err));
        let failed = |err| NodeError::failed("a peer's seal", err);
        let config = SealConfig::from_json(&bytes(&self.seal_config)?).map_err(failed)?;
        let progress = UnsealProgress::new(&config).map_err(failed)?;
        let (root_key, keyring) = (bytes(&self.root_key)?, bytes(&self.keyring)?);
        parts.progress = progress;
        (parts.wrapped_root_key, parts.sealed_keyring) = (root_key, keyring);
        parts.seal_version = Version(self.version);
        Ok(config)
    }
}

/// What to ask before a share is taken.
#[derive(Clone, PartialEq, Eq)]
enum Question {
    /// A sealed member: has the seal changed?
    Seal(Vec<JoinTarget>),
    /// A joiner without shares so far: a fresh challenge, for the shares may have been replaced while it waited.
    Challenge(Box<Wanted>),
    /// Neither.
    Nothing,
}

/// What was answered.
#[derive(Clone, Default)]
pub(crate) struct Told {
    seals: Vec<SealFacts>,
    /// And whom it came from.
    challenge: Option<(Box<Wanted>, Challenge)>,
}

/// The last answer, when it came, and to what.
#[derive(Default)]
pub(crate) struct LastTold(Option<(Instant, Question, Told)>);

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
        let mut facts = SealFacts::read(&unsealed)?;
        let signature = authority(&unsealed)?
            .sign_statement(&facts.statement())
            .map_err(|err| NodeError::failed("signing the seal", err))?;
        facts.signature = hex::encode(signature);
        serde_json::to_value(facts).map_err(|err| NodeError::failed("reading the seal", err))
    }

    /// Before a share is taken: what others know of the seal. Asks without holding the phase, one question at a time:
    /// whoever comes meanwhile waits for the same answer, so nobody can make others wait for more than one.
    pub(crate) async fn learn_of_seal(&self) -> Told {
        let mut last = self.told.lock().await;
        let question = self.question(&*self.phase.lock().await);
        let is_fresh =
            |(at, asked, _): &&(Instant, Question, Told)| at.elapsed() < FRESH && *asked == question;
        if let Some((_, _, told)) = last.0.as_ref().filter(is_fresh) {
            return told.clone();
        }
        let told = match &question {
            Question::Seal(peers) => {
                let asking = peers.iter().map(|peer| async move {
                    tokio::time::timeout(PATIENCE, ask(peer)).await.ok().flatten()
                });
                let seals = futures::future::join_all(asking).await.into_iter().flatten().collect();
                Told { seals, ..Told::default() }
            }
            Question::Challenge(wanted) => {
                let asking = crate::joiner::ask_for_challenge(&wanted.target, &self.config.node_name);
                let challenge = tokio::time::timeout(PATIENCE, asking).await.ok().and_then(Result::ok);
                let challenge = challenge.map(|challenge| (wanted.clone(), challenge));
                Told { challenge, ..Told::default() }
            }
            Question::Nothing => return Told::default(),
        };
        last.0 = Some((Instant::now(), question, told.clone()));
        told
    }

    fn question(&self, phase: &Phase) -> Question {
        match phase {
            Phase::Sealed(parts) => Question::Seal(self.peers(&parts.members)),
            Phase::Joining(pending) if pending.progress.progress() == 0 => {
                Question::Challenge(Box::new(pending.wanted().clone()))
            }
            Phase::Joining(_) | Phase::New | Phase::Removed | Phase::Unreadable(_) | Phase::Unsealed => {
                Question::Nothing
            }
        }
    }

    /// Takes what was learnt, if it is news.
    pub(crate) fn follow_seal(&self, phase: &mut Phase, told: Told) {
        match phase {
            Phase::Sealed(parts) => {
                let facts = newest(told.seals, &parts.record.cluster_id, &parts.ca, parts.seal_version);
                let Some(facts) = facts else { return };
                match facts.apply(parts) {
                    Ok(config) => {
                        tracing::warn!(
                            "the key shares were replaced while this node was away: it takes the new ones only"
                        );
                        self.show_counts(&config);
                    }
                    Err(err) => {
                        tracing::warn!(error = %err, "what a peer says about the seal cannot be used");
                    }
                }
            }
            Phase::Joining(pending) => {
                let fresh = told.challenge.filter(|(wanted, _)| **wanted == *pending.wanted());
                if let Some(config) = fresh.and_then(|(_, challenge)| pending.renew(challenge)) {
                    self.show_counts(&config);
                }
            }
            Phase::New | Phase::Removed | Phase::Unreadable(_) | Phase::Unsealed => {}
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
    // A node that was told of no CA cannot check one. Nothing secret goes out, and what comes back is signed.
    config.tls.danger_skip_verify = peer.ca_cert.is_none() && peer.ca_cert_file.is_none();
    config.retry.retries = 0;
    config.timeout = PATIENCE;
    config.connect_timeout = PATIENCE;
    config.response_bytes_max = REPLY_BYTES_MAX;
    config.follows_redirects = false;
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
            let stored = match replica.view().get(&boot_key("root-key")) {
                Ok(stored) => stored,
                Err(err) => {
                    tracing::error!(error = %err, "the replicated seal cannot be read, trying again");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let is_current = stored.is_none_or(|found| found.value == opened);
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
    use arca_rpc::Authority;

    use super::*;

    fn facts(cluster_id: &str, version: u64, signer: &Authority) -> SealFacts {
        let mut facts = SealFacts {
            cluster_id: cluster_id.to_owned(),
            version,
            seal_config: "aa".to_owned(),
            root_key: "bb".to_owned(),
            keyring: "cc".to_owned(),
            signature: String::new(),
        };
        facts.signature = hex::encode(signer.sign_statement(&facts.statement()).unwrap());
        facts
    }

    #[test]
    fn the_newest_seal_of_the_own_cluster_counts() {
        let authority = Authority::create("ours").unwrap();
        let check = |told: &[(&str, u64)], want: Option<u64>| {
            let told = told.iter().map(|(cluster, version)| facts(cluster, *version, &authority)).collect();
            let newest = newest(told, "ours", authority.certificate(), Version(5));
            assert_eq!(newest.map(|facts| facts.version), want);
        };
        check(&[], None);
        check(&[("ours", 4), ("ours", 5)], None);
        check(&[("ours", 6), ("ours", 9), ("ours", 3)], Some(9));
        check(&[("theirs", 9)], None);
        check(&[("theirs", 9), ("ours", 6)], Some(6));
    }

    #[test]
    fn only_what_the_cluster_s_ca_signed_counts() {
        let (authority, other) = (Authority::create("ours").unwrap(), Authority::create("ours").unwrap());
        let true_one = facts("ours", 6, &authority);
        let (mut newer, mut unsigned, mut swapped) = (true_one.clone(), true_one.clone(), true_one.clone());
        newer.version = u64::MAX;
        unsigned.signature.clear();
        (swapped.root_key, swapped.keyring) = (true_one.keyring.clone(), true_one.root_key.clone());
        let told = vec![newer, unsigned, swapped, facts("ours", 7, &other), true_one];
        let newest = newest(told, "ours", authority.certificate(), Version(5));
        assert_eq!(newest.map(|facts| facts.version), Some(6));
    }
}
