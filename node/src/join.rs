//! A node joins a cluster: it proves that it can unwrap the cluster's root key, and so does the cluster in return.
//!
//! 1. The joiner asks any node's API for a challenge: a nonce, the seal's settings and the wrapped root key.
//! 2. Its operators give it shares; with enough of them it unwraps the root key.
//! 3. It answers with a keyed hash over nonce, name, addresses and signing request; the active node checks it, reserves
//!    a member id never used before, signs the certificate, adds a learner, and answers with a keyed hash of its own.
//!
//! What it defends against: nodes without the shares, replayed answers (a nonce is used once), a false cluster in
//! front of a true joiner, and floods of challenges (bounded, oldest forgotten: CVE-2024-8185).

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_api::JoinRequest;
use arca_barrier::{
    Barrier, BarrierError, Class, Keyring, Offer, RootKey, SealConfig, ShamirSeal, Share, UnsealProgress,
    boot_key,
};
use arca_client::{Address, Client, Config as ClientConfig};
use arca_engine_api::UnixMillis;
use arca_raft_storage::{Member, MemberId, MemberKind, Replica as _, Role};
use arca_rpc::{Authority, NodeKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::config::JoinTarget;
use crate::node::{Node, NodeError, Phase, SealedParts};
use crate::node_file::{NodeRecord, Stage};
use crate::unsealed::{NODE_KEY_NAME, Unsealed};
use crate::world::SystemEntropy;

/// Where the CA's certificate is stored.
pub(crate) const CA_CERTIFICATE_PATH: &str = "root/core/cluster-ca/certificate";
/// Where its key is stored.
pub(crate) const CA_KEY_PATH: &str = "root/core/cluster-ca/key";
/// Below it, one record a member that stays a learner.
const LEARNERS_PATH: &str = "root/core/cluster/learners/";
/// Most challenges waiting for their answer; beyond it the oldest is forgotten.
const CHALLENGES_MAX: usize = 256;
/// How long a challenge can be answered: unsealing a joiner takes people some time.
const CHALLENGE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Pause between two tries of `retry_join`.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often the active node looks for learners to promote.
const TENDING_INTERVAL: Duration = Duration::from_millis(250);

/// Challenges given out by this node.
#[derive(Default)]
pub(crate) struct Challenges {
    waiting: VecDeque<(Vec<u8>, UnixMillis)>,
}

impl Challenges {
    fn add(&mut self, nonce: Vec<u8>, now: UnixMillis) {
        self.waiting.retain(|(_, made)| now.since(*made) < CHALLENGE_LIFE);
        while self.waiting.len() >= CHALLENGES_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((nonce, now));
    }

    /// True once for each challenge.
    fn take(&mut self, nonce: &[u8], now: UnixMillis) -> bool {
        self.waiting.retain(|(_, made)| now.since(*made) < CHALLENGE_LIFE);
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| waiting != nonce);
        self.waiting.len() < before
    }
}

/// First answer of the cluster. Hex where bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Challenge {
    nonce: String,
    seal_config: String,
    root_key: String,
}

/// The joiner's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    nonce: String,
    server_id: String,
    cluster_addr: String,
    api_addr: String,
    signing_request: String,
    non_voter: bool,
    proof: String,
}

/// The cluster's last word.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Welcome {
    cluster_id: String,
    member: MemberId,
    ca: String,
    certificate: String,
    seal_config: String,
    root_key: String,
    keyring: String,
    proof: String,
}

/// A join that waits for shares.
pub(crate) struct PendingJoin {
    target: JoinTarget,
    is_non_voter: bool,
    challenge: Challenge,
    pub(crate) progress: UnsealProgress,
}

impl PendingJoin {
    /// Takes one share; complete when the root key opens.
    pub(crate) fn offer(&mut self, share: Share) -> Result<Offer<(ShamirSeal, RootKey)>, BarrierError> {
        let wrapped = hex::decode(&self.challenge.root_key).map_err(|_| BarrierError::Truncated)?;
        self.progress.offer_seal_key(share, &SystemEntropy, &wrapped)
    }
}

/// A keyed hash over `parts`, each with its length, under a key that only holders of the root key have.
fn proof(root: &RootKey, context: &str, parts: &[&str]) -> blake3::Hash {
    // The bare root key goes into a key derivation and nowhere else.
    let key = Zeroizing::new(blake3::derive_key(context, root.expose()));
    let mut hasher = blake3::Hasher::new_keyed(&key);
    for part in parts {
        hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.finalize()
}

const ANSWER_CONTEXT: &str = "arca 2026-11 cluster join: answer of the joiner";
const WELCOME_CONTEXT: &str = "arca 2026-11 cluster join: answer of the cluster";

impl Answer {
    fn proof(&self, root: &RootKey) -> blake3::Hash {
        let voter = if self.non_voter { "learner" } else { "voter" };
        let parts =
            [&self.nonce, &self.server_id, &self.cluster_addr, &self.api_addr, &self.signing_request, voter]
                .map(|part| part as &str);
        proof(root, ANSWER_CONTEXT, &parts)
    }
}

impl Welcome {
    fn proof(&self, root: &RootKey, nonce: &str) -> blake3::Hash {
        let member = self.member.to_string();
        let parts = [
            nonce,
            &self.cluster_id,
            &member,
            &self.ca,
            &self.certificate,
            &self.seal_config,
            &self.root_key,
            &self.keyring,
        ];
        proof(root, WELCOME_CONTEXT, &parts)
    }
}

/// Whether `claimed` (hex) is `expected`; takes the same time for every wrong one.
fn is_proven(expected: &blake3::Hash, claimed: &str) -> bool {
    blake3::Hash::from_hex(claimed).is_ok_and(|claimed| *expected == claimed)
}

fn parsed<T: DeserializeOwned>(value: Value) -> Result<T, NodeError> {
    serde_json::from_value(value).map_err(|err| NodeError::Invalid(format!("malformed join message: {err}")))
}

fn unhex(text: &str) -> Result<Vec<u8>, NodeError> {
    hex::decode(text).map_err(|_| NodeError::Invalid("malformed join message: bytes are not hex".to_owned()))
}

// The joiner's side.
impl Node {
    /// Asks `request`'s node for a challenge; with `retry`, keeps asking in the background.
    ///
    /// # Errors
    /// When this node already belongs to a cluster, or nobody answers and no retry was asked for.
    pub async fn join(self: &Arc<Self>, request: JoinRequest) -> Result<bool, NodeError> {
        if !self.disk.is_clustered() {
            return Err(NodeError::Invalid(
                "this storage cannot join a cluster: configure storage \"raft\"".to_owned(),
            ));
        }
        if request.leader_api_addr.is_empty() {
            return Err(NodeError::Invalid("leader_api_addr is missing".to_owned()));
        }
        if !request.leader_client_cert.is_empty() || !request.leader_client_key.is_empty() {
            let text = "client certificates for joining are taken from files: set them in retry_join";
            return Err(NodeError::Invalid(text.to_owned()));
        }
        let some = |text: String| (!text.is_empty()).then_some(text);
        let target = JoinTarget {
            api_addr: request.leader_api_addr,
            ca_cert: some(request.leader_ca_cert),
            tls_server_name: some(request.leader_tls_servername),
            ..JoinTarget::default()
        };
        match self.ask_to_join(&target, request.non_voter).await {
            Ok(()) => Ok(true),
            Err(err) if request.retry => {
                tracing::warn!(error = %err, "join failed, trying again in the background");
                let node = Arc::clone(self);
                tokio::spawn(async move { node.keep_joining(&[target], request.non_voter).await });
                Ok(true)
            }
            Err(err) => Err(err),
        }
    }

    /// Tries `targets` in turn until this node belongs to a cluster.
    pub async fn keep_joining(self: &Arc<Self>, targets: &[JoinTarget], is_non_voter: bool) {
        let mut said = None;
        loop {
            for target in targets {
                if !matches!(*self.phase.lock().await, Phase::New) {
                    return;
                }
                match self.ask_to_join(target, is_non_voter).await {
                    Ok(()) => return,
                    // Said once for each reason: a node may wait long for its cluster to be initialized.
                    Err(err) if said.as_ref() != Some(&err.to_string()) => {
                        tracing::warn!(target = target.api_addr, error = %err, "cannot join yet, trying again");
                        said = Some(err.to_string());
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn ask_to_join(&self, target: &JoinTarget, is_non_voter: bool) -> Result<(), NodeError> {
        let answer =
            post(target, "sys/storage/raft/bootstrap/challenge", json!({"server_id": self.config.node_name}))
                .await?;
        let challenge: Challenge = parsed(answer)?;
        let config = SealConfig::from_json(&unhex(&challenge.seal_config)?)
            .map_err(|err| NodeError::Invalid(err.to_string()))?;
        let progress = UnsealProgress::new(&config).map_err(|err| NodeError::Invalid(err.to_string()))?;
        let mut phase = self.phase.lock().await;
        if !matches!(*phase, Phase::New) {
            return Err(NodeError::Invalid("this node already belongs to a cluster".to_owned()));
        }
        {
            let mut face = self.face.write();
            (face.shares, face.threshold) = (config.secret_shares, config.secret_threshold);
        }
        *phase = Phase::Joining(Box::new(PendingJoin {
            target: target.clone(),
            is_non_voter,
            challenge,
            progress,
        }));
        self.show(&phase);
        tracing::info!(target = target.api_addr, "found the cluster: unseal this node to complete the join");
        Ok(())
    }

    /// With the root key in hand, answers the challenge and starts as a member. On a failure the shares are asked for
    /// again, with a fresh challenge.
    pub(crate) async fn complete_join(
        self: &Arc<Self>,
        phase: &mut Phase,
        root: RootKey,
    ) -> Result<(), NodeError> {
        let Phase::Joining(pending) = std::mem::replace(phase, Phase::New) else { return Ok(()) };
        match self.answer_challenge(&pending, &root).await {
            Ok(parts) => {
                *phase = Phase::Sealed(Box::new(parts));
                self.start(phase, root).await
            }
            Err(err) => {
                let (node, target) = (Arc::clone(self), pending.target.clone());
                let is_non_voter = pending.is_non_voter;
                tokio::spawn(async move { node.keep_joining(&[target], is_non_voter).await });
                Err(err)
            }
        }
    }

    async fn answer_challenge(
        &self,
        pending: &PendingJoin,
        root: &RootKey,
    ) -> Result<SealedParts, NodeError> {
        let failed = |err: arca_rpc::IdentityError| NodeError::failed("making this node's key", err);
        let key = NodeKey::generate().map_err(failed)?;
        let mut answer = Answer {
            nonce: pending.challenge.nonce.clone(),
            server_id: self.config.node_name.clone(),
            cluster_addr: self.config.cluster_addr.clone(),
            api_addr: self.config.api_addr.clone(),
            signing_request: hex::encode(key.signing_request().map_err(failed)?),
            non_voter: pending.is_non_voter,
            proof: String::new(),
        };
        answer.proof = answer.proof(root).to_hex().to_string();
        let message = serde_json::to_value(&answer).map_err(|err| NodeError::failed("joining", err))?;
        let reply = post(&pending.target, "sys/storage/raft/bootstrap/answer", message).await?;
        let welcome: Welcome = parsed(reply)?;
        if !is_proven(&welcome.proof(root, &answer.nonce), &welcome.proof) {
            let text = "the answer does not come from the cluster these shares belong to: nothing was joined";
            return Err(NodeError::Invalid(text.to_owned()));
        }
        let keyring = Keyring::open(root, &unhex(&welcome.keyring)?)
            .map_err(|err| NodeError::failed("opening the cluster's keyring", err))?;
        let barrier = Barrier::new(keyring, Arc::new(SystemEntropy));
        let sealed_key = barrier
            .seal_value(NODE_KEY_NAME, &key.expose())
            .map_err(|err| NodeError::failed("sealing this node's key", err))?;
        let record = NodeRecord {
            version: NodeRecord::VERSION,
            stage: Stage::Member,
            cluster_id: welcome.cluster_id,
            member: welcome.member,
            node_name: self.config.node_name.clone(),
            ca: welcome.ca,
            certificate: welcome.certificate,
            sealed_key: hex::encode(sealed_key),
            seal_config: welcome.seal_config,
            root_key: welcome.root_key,
            keyring: welcome.keyring,
        };
        self.disk.write_record(&record)?;
        self.sealed_parts(record)
    }
}

/// A call to another node's API.
async fn post(target: &JoinTarget, path: &str, body: Value) -> Result<Value, NodeError> {
    let trouble = |err: &dyn std::fmt::Display| NodeError::Invalid(format!("{}: {err}", target.api_addr));
    let address: Address = target.api_addr.parse().map_err(|err| trouble(&err))?;
    let mut config = ClientConfig::new(address);
    config.tls.ca_pem.clone_from(&target.ca_cert);
    config.tls.ca_cert.clone_from(&target.ca_cert_file);
    config.tls.client_cert.clone_from(&target.client_cert_file);
    config.tls.client_key.clone_from(&target.client_key_file);
    config.tls.server_name.clone_from(&target.tls_server_name);
    config.retry.retries = 0;
    config.timeout = Duration::from_secs(15);
    let client = Client::new(config).map_err(|err| trouble(&err))?;
    let reply = client.write(path, &body).await.map_err(|err| trouble(&err))?;
    reply.and_then(|secret| secret.data).map(Value::Object).ok_or_else(|| trouble(&"the answer is empty"))
}

// The active node's side.
impl Node {
    /// Gives out a challenge.
    ///
    /// # Errors
    /// When this node is not the active one.
    pub fn join_challenge(&self) -> Result<Value, NodeError> {
        let unsealed = self.active()?;
        let mut nonce = [0_u8; 32];
        self.entropy.fill(&mut nonce).map_err(|err| NodeError::failed("making a challenge", err))?;
        self.challenges.lock().add(nonce.to_vec(), self.now());
        let challenge = Challenge {
            nonce: hex::encode(nonce),
            seal_config: boot_value(&unsealed, "seal-config")?,
            root_key: boot_value(&unsealed, "root-key")?,
        };
        serde_json::to_value(challenge).map_err(|err| NodeError::failed("making a challenge", err))
    }

    fn active(&self) -> Result<Arc<Unsealed>, NodeError> {
        self.unsealed.load_full().filter(|unsealed| unsealed.kernel.is_active()).ok_or(NodeError::NeedsActive)
    }

    /// Checks a joiner's answer and takes it in.
    ///
    /// # Errors
    /// When the proof is wrong, the challenge unknown, or the name taken.
    pub async fn join_answer(&self, request: Value) -> Result<Value, NodeError> {
        let unsealed = self.active()?;
        let answer: Answer = parsed(request)?;
        let is_known = self.challenges.lock().take(&unhex(&answer.nonce)?, self.now());
        if !is_known || !is_proven(&answer.proof(&unsealed.keys.root), &answer.proof) {
            let text =
                "join refused: the challenge is unknown, was used already, or was answered with other shares";
            return Err(NodeError::Invalid(text.to_owned()));
        }
        make_room(&unsealed, &answer).await?;
        let failed = |err: &dyn std::fmt::Display| NodeError::failed("taking in the new member", err);
        let (authority, request) = (authority(&unsealed)?, unhex(&answer.signing_request)?);
        let issue = |id| authority.issue(&request, id).map_err(|err| NodeError::Invalid(err.to_string()));
        // Once in vain: a malformed request must leave no member behind.
        issue(MemberId::default())?;
        let member = Member {
            id: MemberId::default(),
            name: answer.server_id.clone(),
            cluster_addr: answer.cluster_addr.clone(),
            api_addr: answer.api_addr.clone(),
        };
        let id = unsealed.replica.admit(member).await.map_err(|err| failed(&err))?;
        if answer.non_voter {
            // In time: it cannot catch up and be promoted before it has its certificate.
            mark_learner(&unsealed, id, true).await?;
        }
        let certificate = issue(id)?;
        tracing::info!(member = %id, name = answer.server_id, "a new member joined");
        let mut welcome = Welcome {
            cluster_id: unsealed.record.cluster_id.clone(),
            member: id,
            ca: unsealed.record.ca.clone(),
            certificate: hex::encode(certificate),
            seal_config: boot_value(&unsealed, "seal-config")?,
            root_key: boot_value(&unsealed, "root-key")?,
            keyring: boot_value(&unsealed, "keyring")?,
            proof: String::new(),
        };
        welcome.proof = welcome.proof(&unsealed.keys.root, &answer.nonce).to_hex().to_string();
        serde_json::to_value(welcome).map_err(|err| failed(&err))
    }
}

fn boot_value(unsealed: &Unsealed, name: &str) -> Result<String, NodeError> {
    let found = unsealed
        .replica
        .view()
        .get(&boot_key(name))
        .map_err(|err| NodeError::failed("reading the keys", err))?;
    found
        .map(|found| hex::encode(found.value))
        .ok_or_else(|| NodeError::Failed(format!("boot/{name} is missing")))
}

/// A name belongs to one member. A learner that never finished joining makes room; a voter does not.
async fn make_room(unsealed: &Unsealed, answer: &Answer) -> Result<(), NodeError> {
    let membership = unsealed.replica.membership();
    let Some((member, kind)) =
        membership.members.values().find(|(member, _)| member.name == answer.server_id)
    else {
        return Ok(());
    };
    if *kind == MemberKind::Voter {
        return Err(NodeError::Invalid(format!(
            "node_id {:?} already belongs to the member at {}: give this node another one, or remove that member first \
             (arca operator raft remove-peer {:?})",
            member.name, member.cluster_addr, member.name
        )));
    }
    unsealed
        .replica
        .remove(member.id)
        .await
        .map_err(|err| NodeError::failed("removing an unfinished member of the same name", err))
}

fn authority(unsealed: &Unsealed) -> Result<Authority, NodeError> {
    let tx = unsealed.kernel.read_tx();
    let read = |path: &str| {
        tx.peek(Class::Local, path)
            .map_err(|err| NodeError::failed("reading the cluster's CA", err))?
            .ok_or_else(|| NodeError::Failed(format!("{path} is missing")))
    };
    let certificate = read(CA_CERTIFICATE_PATH)?;
    Ok(Authority::from_parts(&unsealed.record.cluster_id, certificate.to_vec(), read(CA_KEY_PATH)?))
}

/// Records whether a member stays a learner when it has caught up.
pub(crate) async fn mark_learner(unsealed: &Unsealed, id: MemberId, stays: bool) -> Result<(), NodeError> {
    let path = format!("{LEARNERS_PATH}{id}");
    unsealed
        .kernel
        .commit_with(|tx| {
            if stays {
                tx.put(Class::Local, &path, Zeroizing::new(b"{}".to_vec()))
            } else {
                tx.delete(Class::Local, &path)
            }
        })
        .await
        .map_err(|err| NodeError::failed("recording a learner", err))
}

/// On the active node: makes learners voters once they have caught up, except those that are to stay learners.
pub(crate) async fn tend_members(unsealed: Weak<Unsealed>) {
    loop {
        tokio::time::sleep(TENDING_INTERVAL).await;
        let Some(unsealed) = unsealed.upgrade() else { return };
        if unsealed.replica.status().role != Role::Leader || !unsealed.kernel.is_active() {
            continue;
        }
        for id in waiting_learners(&unsealed) {
            match unsealed.replica.promote(id).await {
                Ok(()) => tracing::info!(member = %id, "the new member has caught up and votes now"),
                Err(err) => tracing::debug!(member = %id, error = %err, "a learner is not ready to vote"),
            }
        }
    }
}

fn waiting_learners(unsealed: &Unsealed) -> Vec<MemberId> {
    let learners: Vec<MemberId> = unsealed
        .replica
        .membership()
        .members
        .iter()
        .filter(|(_, (_, kind))| *kind == MemberKind::Learner)
        .map(|(id, _)| *id)
        .collect();
    if learners.is_empty() {
        return learners;
    }
    let tx = unsealed.kernel.read_tx();
    let stays = |id: &MemberId| match tx.peek(Class::Local, &format!("{LEARNERS_PATH}{id}")) {
        Ok(found) => found.is_some(),
        // Unknown: better not to change who votes.
        Err(_) => true,
    };
    learners.into_iter().filter(|id| !stays(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_answered_once_and_in_time() {
        let mut challenges = Challenges::default();
        challenges.add(vec![1], UnixMillis(0));
        assert!(!challenges.take(&[2], UnixMillis(1)));
        assert!(challenges.take(&[1], UnixMillis(1)));
        assert!(!challenges.take(&[1], UnixMillis(1)));
        challenges.add(vec![3], UnixMillis(0));
        assert!(!challenges.take(&[3], UnixMillis(0).after(CHALLENGE_LIFE)));
    }

    #[test]
    fn a_flood_of_challenges_is_bounded() {
        let mut challenges = Challenges::default();
        for number in 0..100_000_u32 {
            challenges.add(number.to_le_bytes().to_vec(), UnixMillis(0));
        }
        assert_eq!(challenges.waiting.len(), CHALLENGES_MAX);
        assert!(challenges.take(&99_999_u32.to_le_bytes(), UnixMillis(0)));
    }

    #[test]
    fn a_proof_covers_every_part_and_its_borders() {
        let root = RootKey::from_slice(&[7; 32]).unwrap();
        let first = proof(&root, ANSWER_CONTEXT, &["ab", "c"]);
        assert!(is_proven(&first, first.to_hex().as_str()));
        assert!(!is_proven(&first, proof(&root, ANSWER_CONTEXT, &["a", "bc"]).to_hex().as_str()));
        assert!(!is_proven(&first, proof(&root, WELCOME_CONTEXT, &["ab", "c"]).to_hex().as_str()));
        assert!(!is_proven(&first, "not hex"));
    }
}
