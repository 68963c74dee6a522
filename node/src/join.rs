//! A node joins a cluster: it proves that it can unwrap the cluster's root key, and so does the cluster in return.
//! Here is the active node's side, and what is said between the two; [`crate::joiner`] is the other one.
//!
//! 1. The joiner asks any node's API for a challenge: a nonce, the seal's settings and the wrapped root key.
//! 2. Its operators give it shares; with enough of them it unwraps the root key, and asks for a fresh challenge.
//! 3. It answers with a keyed hash over nonce, name, addresses and signing request; the active node checks it, reserves
//!    a member id never used before, signs the certificate, adds a learner, and answers with a keyed hash of its own.
//!
//! What it defends against: nodes without the shares, replayed answers (a nonce is used once), a false cluster in
//! front of a true joiner, and floods of challenges (they leave nothing behind, see [`crate::nonces`]).

use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_barrier::{Class, RootKey};
use arca_engine_api::StorageError;
use arca_kernel::tx::Tx;
use arca_raft_storage::{Member, MemberId, MemberKind, Replica as _, Role, TransportError};
use arca_rpc::Authority;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::node::{Node, NodeError};
use crate::nonces::{self, Spent};
use crate::superseded::SealFacts;
use crate::unsealed::Unsealed;

/// Where the CA's certificate is stored.
pub(crate) const CA_CERTIFICATE_PATH: &str = "root/core/cluster-ca/certificate";
/// Where its key is stored.
pub(crate) const CA_KEY_PATH: &str = "root/core/cluster-ca/key";
/// Below it, one record a member that stays a learner.
const LEARNERS_PATH: &str = "root/core/cluster/learners/";
/// Longest wait for a member of a joiner's name to say that it lives.
const ECHO_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the active node looks for learners to promote.
const TENDING_INTERVAL: Duration = Duration::from_millis(250);

/// First answer of the cluster. Hex where bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Challenge {
    pub(crate) nonce: String,
    pub(crate) seal_config: String,
    pub(crate) root_key: String,
}

/// The joiner's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) nonce: String,
    pub(crate) server_id: String,
    pub(crate) cluster_addr: String,
    pub(crate) api_addr: String,
    pub(crate) signing_request: String,
    pub(crate) non_voter: bool,
    pub(crate) proof: String,
}

/// The cluster's last word.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) cluster_id: String,
    pub(crate) member: MemberId,
    pub(crate) ca: String,
    pub(crate) certificate: String,
    /// Log index that wrote `root_key`.
    pub(crate) seal_version: u64,
    pub(crate) seal_config: String,
    pub(crate) root_key: String,
    pub(crate) keyring: String,
    pub(crate) proof: String,
}

/// How the cluster takes an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The joiner is a member now.
    Welcome(Box<Welcome>),
    /// It is not; nothing was changed.
    Refused(Refusal),
}

/// Why not. The joiner has words for each, so that none of another node's need to be shown to its operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refusal {
    /// The challenge is not of this cluster, too old, or was answered before.
    ChallengeUnknown,
    /// A member that lives has this name.
    NameTaken,
    /// It was answered with other shares.
    ProofWrong,
    /// Too many joined just now.
    TooMany,
}

impl From<Spent> for Refusal {
    fn from(spent: Spent) -> Self {
        match spent {
            Spent::TooMany => Self::TooMany,
            Spent::Unknown => Self::ChallengeUnknown,
        }
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

/// Longest name of a node, bytes.
const NAME_SIZE_MAX: usize = 256;
/// Longest address, bytes.
const ADDRESS_SIZE_MAX: usize = 1024;

impl Answer {
    /// What comes from anybody is bounded before it is logged, and long before it becomes part of the membership.
    fn check_sizes(&self) -> Result<(), NodeError> {
        for (what, text, max) in [
            ("server_id", &self.server_id, NAME_SIZE_MAX),
            ("cluster_addr", &self.cluster_addr, ADDRESS_SIZE_MAX),
            ("api_addr", &self.api_addr, ADDRESS_SIZE_MAX),
        ] {
            if text.is_empty() || text.len() > max {
                return Err(NodeError::Invalid(format!("{what} must be of 1 to {max} bytes")));
            }
        }
        Ok(())
    }

    pub(crate) fn proof(&self, root: &RootKey) -> blake3::Hash {
        let voter = if self.non_voter { "learner" } else { "voter" };
        let parts =
            [&self.nonce, &self.server_id, &self.cluster_addr, &self.api_addr, &self.signing_request, voter]
                .map(|part| part as &str);
        proof(root, ANSWER_CONTEXT, &parts)
    }
}

impl Welcome {
    pub(crate) fn proof(&self, root: &RootKey, nonce: &str) -> blake3::Hash {
        let (member, version) = (self.member.to_string(), self.seal_version.to_string());
        let parts = [
            nonce,
            &self.cluster_id,
            &member,
            &self.ca,
            &self.certificate,
            &version,
            &self.seal_config,
            &self.root_key,
            &self.keyring,
        ];
        proof(root, WELCOME_CONTEXT, &parts)
    }
}

/// Whether `claimed` (hex) is `expected`; takes the same time for every wrong one.
pub(crate) fn is_proven(expected: &blake3::Hash, claimed: &str) -> bool {
    blake3::Hash::from_hex(claimed).is_ok_and(|claimed| *expected == claimed)
}

pub(crate) fn parsed<T: DeserializeOwned>(value: Value) -> Result<T, NodeError> {
    serde_json::from_value(value).map_err(|err| NodeError::Invalid(format!("malformed join message: {err}")))
}

pub(crate) fn unhex(text: &str) -> Result<Vec<u8>, NodeError> {
    hex::decode(text).map_err(|_| NodeError::Invalid("malformed join message: bytes are not hex".to_owned()))
}

// The active node's side.
impl Node {
    /// Gives out a challenge.
    ///
    /// # Errors
    /// When this node is not the active one.
    pub fn join_challenge(&self) -> Result<Value, NodeError> {
        let unsealed = self.active()?;
        let nonce = nonces::make(&unsealed.keys.root(), self.entropy.as_ref(), self.now())
            .map_err(|err| NodeError::failed("making a challenge", err))?;
        let SealFacts { seal_config, root_key, .. } = SealFacts::read(&unsealed)?;
        let challenge = Challenge { nonce: hex::encode(nonce), seal_config, root_key };
        serde_json::to_value(challenge).map_err(|err| NodeError::failed("making a challenge", err))
    }

    fn active(&self) -> Result<Arc<Unsealed>, NodeError> {
        self.unsealed.load_full().filter(|unsealed| unsealed.kernel.is_active()).ok_or(NodeError::NeedsActive)
    }

    /// Checks a joiner's answer and takes it in, or says why not.
    ///
    /// # Errors
    /// When the answer is malformed, or the cluster cannot change its members now.
    pub async fn join_answer(&self, request: Value) -> Result<Value, NodeError> {
        let unsealed = self.active()?;
        let answer: Answer = parsed(request)?;
        answer.check_sizes()?;
        // One key for the whole exchange, whatever a rekey does meanwhile.
        let root = unsealed.keys.root();
        let reply = match self.admitted(&unsealed, &root, &answer).await? {
            Some(refusal) => {
                tracing::warn!(name = ?answer.server_id, ?refusal, "a node was not let into the cluster");
                Reply::Refused(refusal)
            }
            None => Reply::Welcome(Box::new(take_in(&unsealed, &root, &answer).await?)),
        };
        serde_json::to_value(reply).map_err(|err| NodeError::failed("answering a joiner", err))
    }

    /// Uses up the challenge and makes room for the name; or why not.
    async fn admitted(
        &self,
        unsealed: &Unsealed,
        root: &RootKey,
        answer: &Answer,
    ) -> Result<Option<Refusal>, NodeError> {
        let nonce = unhex(&answer.nonce)?;
        let Some(made) = nonces::check(root, &nonce, self.now()) else {
            return Ok(Some(Refusal::ChallengeUnknown));
        };
        if !is_proven(&answer.proof(root), &answer.proof) {
            return Ok(Some(Refusal::ProofWrong));
        }
        // Only now: what is remembered cost its sender the shares.
        if let Err(spent) = self.challenges.lock().spend(&nonce, made, self.now()) {
            return Ok(Some(spent.into()));
        }
        make_room(unsealed, answer, &self.config.node_name).await
    }
}

/// Makes the joiner a member.
async fn take_in(unsealed: &Unsealed, root: &RootKey, answer: &Answer) -> Result<Welcome, NodeError> {
    let failed = |err: &dyn std::fmt::Display| NodeError::failed("taking in the new member", err);
    let (authority, request) = (authority(unsealed)?, unhex(&answer.signing_request)?);
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
        mark_learner(unsealed, id, true).await?;
    }
    let certificate = issue(id)?;
    tracing::info!(member = %id, name = ?answer.server_id, "a new member joined");
    let seal = SealFacts::read(unsealed)?;
    let mut welcome = Welcome {
        cluster_id: unsealed.record.cluster_id.clone(),
        member: id,
        ca: unsealed.record.ca.clone(),
        certificate: hex::encode(certificate),
        seal_version: seal.version,
        seal_config: seal.seal_config,
        root_key: seal.root_key,
        keyring: seal.keyring,
        proof: String::new(),
    };
    welcome.proof = welcome.proof(root, &answer.nonce).to_hex().to_string();
    Ok(welcome)
}

/// A name belongs to one member. A learner that never finished joining, and so does not answer, makes room; a voter
/// does not, nor does anybody who lives.
async fn make_room(
    unsealed: &Unsealed,
    answer: &Answer,
    my_name: &str,
) -> Result<Option<Refusal>, NodeError> {
    let membership = unsealed.replica.membership();
    let Some((member, kind)) =
        membership.members.values().find(|(member, _)| member.name == answer.server_id)
    else {
        return Ok(None);
    };
    if *kind == MemberKind::Voter {
        return Ok(Some(Refusal::NameTaken));
    }
    // Its certificate names its member id: nobody else can answer for it. One that does not know us yet refuses to talk,
    // and lives.
    if let Some(transport) = &unsealed.transport
        && matches!(
            transport.echo(member, my_name, ECHO_TIMEOUT).await,
            Ok(_) | Err(TransportError::Refused(_))
        )
    {
        return Ok(Some(Refusal::NameTaken));
    }
    let failed = |err: &dyn std::fmt::Display| {
        NodeError::failed("removing an unfinished member of the same name", err)
    };
    unsealed.replica.remove(member.id).await.map_err(|err| failed(&err))?;
    mark_learner(unsealed, member.id, false).await?;
    tracing::info!(member = %member.id, name = ?member.name, "an unfinished member made room");
    Ok(None)
}

pub(crate) fn authority(unsealed: &Unsealed) -> Result<Authority, NodeError> {
    let tx = unsealed.kernel.read_tx();
    let read = |path: &str| {
        tx.peek(Class::Local, path)
            .map_err(|err| NodeError::failed("reading the cluster's CA", err))?
            .ok_or_else(|| NodeError::Failed(format!("{path} is missing")))
    };
    let certificate = read(CA_CERTIFICATE_PATH)?;
    Ok(Authority::from_parts(&unsealed.record.cluster_id, certificate.to_vec(), read(CA_KEY_PATH)?))
}

/// Records whether a member stays a learner when it has caught up. Past the kernel: members are a cluster's own, also of
/// one that is another's copy and writes nothing else.
pub(crate) async fn mark_learner(unsealed: &Unsealed, id: MemberId, stays: bool) -> Result<(), NodeError> {
    let failed = |err: &dyn std::fmt::Display| NodeError::failed("recording a learner", err);
    let (tx, path) = (unsealed.kernel.read_tx().writing(), format!("{LEARNERS_PATH}{id}"));
    let staged = if stays {
        tx.put(Class::Local, &path, Zeroizing::new(b"{}".to_vec()))
    } else {
        tx.delete(Class::Local, &path)
    };
    let set = staged.and_then(|()| tx.into_write_set()).map_err(|err| failed(&err))?;
    unsealed.replica.propose(set).await.map(drop).map_err(|err| failed(&err))
}

/// On the active node: makes learners voters once they have caught up, except those that are to stay learners.
pub(crate) async fn tend_members(unsealed: Weak<Unsealed>) {
    loop {
        tokio::time::sleep(TENDING_INTERVAL).await;
        let Some(unsealed) = unsealed.upgrade() else { return };
        let status = unsealed.replica.status();
        if status.role != Role::Leader || !unsealed.kernel.is_active() {
            continue;
        }
        // Alone, nobody is there to be heard of.
        let has_peers = unsealed.replica.membership().members.len() > 1;
        if let Some(age) = status.quorum_ack_age.filter(|_| has_peers) {
            metrics::histogram!("vault.raft.leader.lastContact").record(age.as_secs_f64() * 1e3);
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
    // Unknown: better not to change who votes.
    learners.into_iter().filter(|id| !stays_learner(&tx, *id).unwrap_or(true)).collect()
}

/// Whether a member is to stay a learner when it has caught up.
pub(crate) fn stays_learner(tx: &Tx, id: MemberId) -> Result<bool, StorageError> {
    Ok(tx.peek(Class::Local, &format!("{LEARNERS_PATH}{id}"))?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

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
