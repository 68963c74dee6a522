//! The joining node's side: whom to ask, the one background task that keeps asking, and the answer once the shares are
//! there. [`crate::join`] is the cluster's side, and says what is proven.
//!
//! **Invariant:** what a caller without a token can make this node do is bounded: nothing once it belongs to a
//! cluster; one call at a time; one background task, with few targets; and no word of what was answered is shown to
//! the caller, so that the node is no way to look around in its network. The log says more.

use std::sync::Arc;
use std::time::Duration;

use arca_api::JoinRequest;
use arca_barrier::{
    Barrier, BarrierError, Keyring, Offer, RootKey, SealConfig, ShamirSeal, Share, UnsealProgress,
};
use arca_client::{Address, Client, Config as ClientConfig};
use arca_raft_storage::Version;
use arca_rpc::NodeKey;
use serde_json::{Value, json};

use crate::config::{JoinTarget, Storage};
use crate::join::{Answer, Challenge, Refusal, Reply, Welcome, is_proven, parsed, unhex};
use crate::node::{Node, NodeError, Phase, SealedParts};
use crate::node_file::{NodeRecord, Stage};
use crate::unsealed::NODE_KEY_NAME;
use crate::world::SystemEntropy;

/// Pause between two rounds of the background task.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Most nodes the background task asks.
pub(crate) const TARGETS_MAX: usize = 32;
/// Longest wait for one answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer: a keyring of many terms, in hex, and room to spare.
const REPLY_BYTES_MAX: usize = 4 << 20;
/// Most characters of a reason in the log.
const REASON_CHARS_MAX: usize = 300;
/// Times the answer is sent anew because its challenge was not known (a failover in between).
const ANSWERS_MAX: usize = 3;

/// A node to join through, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) target: JoinTarget,
    pub(crate) is_non_voter: bool,
}

/// What this node does to find a cluster.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    search: parking_lot::Mutex<Search>,
    /// Held while a caller's node is asked: the next caller is told to wait, not queued.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Search {
    wanted: Vec<Wanted>,
    is_running: bool,
}

impl Search {
    /// Adds targets; true when the task has to be started.
    fn widen(&mut self, more: Vec<Wanted>) -> Result<bool, NodeError> {
        let new: Vec<Wanted> = more.into_iter().filter(|wanted| !self.wanted.contains(wanted)).collect();
        if self.wanted.len() + new.len() > TARGETS_MAX {
            return Err(NodeError::TooMany);
        }
        self.wanted.extend(new);
        Ok(!std::mem::replace(&mut self.is_running, true))
    }
}

#[cfg(test)]
impl Joiner {
    pub(crate) fn is_searching(&self) -> bool {
        self.search.lock().is_running
    }

    pub(crate) fn targets(&self) -> usize {
        self.search.lock().wanted.len()
    }
}

/// A join that waits for shares.
pub(crate) struct PendingJoin {
    wanted: Wanted,
    challenge: Challenge,
    pub(crate) progress: UnsealProgress,
}

impl PendingJoin {
    /// Whom it joins, and how.
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Takes a fresh challenge while there is no share: they may have been replaced while this node waited. Answers the
    /// settings of the seal if it can be used.
    pub(crate) fn renew(&mut self, challenge: Challenge) -> Option<SealConfig> {
        if self.progress.progress() > 0 {
            return None;
        }
        let config = SealConfig::from_json(&unhex(&challenge.seal_config).ok()?).ok()?;
        self.progress = UnsealProgress::new(&config).ok()?;
        self.challenge = challenge;
        Some(config)
    }

    /// Takes one share; complete when the root key opens.
    pub(crate) fn offer(&mut self, share: Share) -> Result<Offer<(ShamirSeal, RootKey)>, BarrierError> {
        let wrapped = hex::decode(&self.challenge.root_key).map_err(|_| BarrierError::Truncated)?;
        self.progress.offer_seal_key(share, &SystemEntropy, &wrapped)
    }
}

/// Why a node could not be asked. The text is for the log of this node alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AskError {
    /// This node belongs to a cluster by now.
    Taken,
    /// No answer, or none that can be used.
    Useless(String),
}

impl AskError {
    fn useless(err: impl std::fmt::Display) -> Self {
        let mut reason: String = err.to_string().chars().take(REASON_CHARS_MAX).collect();
        if reason.contains("UnknownIssuer") {
            reason.push_str(" (its CA is set by leader_ca_cert_file, in the same retry_join)");
        }
        Self::Useless(reason)
    }

    /// What the caller hears.
    fn public(self, target: &JoinTarget) -> NodeError {
        NodeError::Invalid(match self {
            Self::Taken => "this node already belongs to a cluster".to_owned(),
            Self::Useless(reason) => {
                tracing::warn!(target = ?target.api_addr, ?reason, "a node could not be joined");
                "the node at leader_api_addr did not answer as the active node of a cluster does: this node's log \
                 says why"
                    .to_owned()
            }
        })
    }
}

impl Node {
    /// Asks `request`'s node for a challenge; with `retry`, keeps asking in the background.
    ///
    /// Answers yes at once when this node belongs to a cluster, or knows one.
    ///
    /// # Errors
    /// When nobody answers and no retry was asked for, or when somebody else's join is under way.
    pub async fn join(self: &Arc<Self>, request: JoinRequest) -> Result<bool, NodeError> {
        let invalid = |text: &str| Err(NodeError::Invalid(text.to_owned()));
        if !self.disk.is_clustered() {
            return invalid("this storage cannot join a cluster: configure storage \"raft\"");
        }
        if self.face.read().is_initialized {
            // As everybody in this family: whoever scripts a join may repeat it. Nobody is asked.
            return Ok(true);
        }
        if request.leader_api_addr.is_empty() {
            return invalid("leader_api_addr is missing");
        }
        if !request.leader_client_cert.is_empty() || !request.leader_client_key.is_empty() {
            return invalid("client certificates for joining are taken from files: set them in retry_join");
        }
        let some = |text: String| (!text.is_empty()).then_some(text);
        let target = JoinTarget {
            api_addr: request.leader_api_addr,
            ca_cert: some(request.leader_ca_cert),
            tls_server_name: some(request.leader_tls_servername),
            ..JoinTarget::default()
        };
        let wanted = Wanted { target, is_non_voter: request.non_voter };
        let Ok(_one) = self.joiner.asking.try_lock() else { return Err(NodeError::TooMany) };
        match self.ask_to_join(&wanted).await {
            Ok(()) => Ok(true),
            Err(AskError::Useless(reason)) if request.retry => {
                tracing::warn!(target = ?wanted.target.api_addr, ?reason, "join failed, trying again in the background");
                self.search(vec![wanted]).map(|()| true)
            }
            Err(err) => Err(err.public(&wanted.target)),
        }
    }

    /// Begins to ask the nodes of `retry_join`.
    ///
    /// # Errors
    /// When there are too many.
    pub(crate) fn join_as_configured(self: &Arc<Self>) -> Result<(), NodeError> {
        let Storage::Raft { retry_join, joins_as_non_voter, .. } = &self.config.storage else {
            return Ok(());
        };
        if retry_join.is_empty() {
            return Ok(());
        }
        let wanted =
            |target: &JoinTarget| Wanted { target: target.clone(), is_non_voter: *joins_as_non_voter };
        self.search(retry_join.iter().map(wanted).collect())
    }

    /// Has the background task ask these nodes as well; starts it if it does not run.
    ///
    /// # Errors
    /// When it would be too many.
    pub(crate) fn search(self: &Arc<Self>, wanted: Vec<Wanted>) -> Result<(), NodeError> {
        if self.joiner.search.lock().widen(wanted)? {
            tokio::spawn(Arc::clone(self).keep_joining());
        }
        Ok(())
    }

    /// Asks everybody wanted, in turn, until this node belongs to a cluster.
    async fn keep_joining(self: Arc<Self>) {
        let mut said = None;
        while self.still_searches().await {
            let wanted = self.joiner.search.lock().wanted.clone();
            for wanted in &wanted {
                match self.ask_to_join(wanted).await {
                    Ok(()) | Err(AskError::Taken) => break,
                    // Said once for each reason: a node may wait long for its cluster to be initialized.
                    Err(AskError::Useless(reason)) if said.as_ref() != Some(&reason) => {
                        tracing::warn!(target = ?wanted.target.api_addr, ?reason, "cannot join yet, trying again");
                        said = Some(reason);
                    }
                    Err(AskError::Useless(_)) => {}
                }
            }
            if self.is_new().await {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }

    async fn is_new(&self) -> bool {
        matches!(*self.phase.lock().await, Phase::New)
    }

    /// False once the background task has to end.
    async fn still_searches(&self) -> bool {
        if self.is_new().await {
            return true;
        }
        self.joiner.search.lock().is_running = false;
        // A join that fails makes the node new again, and whoever saw to that may have taken this task for running.
        self.is_new().await && !std::mem::replace(&mut self.joiner.search.lock().is_running, true)
    }

    async fn ask_to_join(&self, wanted: &Wanted) -> Result<(), AskError> {
        let challenge = ask_for_challenge(&wanted.target, &self.config.node_name).await?;
        let config = unhex(&challenge.seal_config).map_err(AskError::useless)?;
        let config = SealConfig::from_json(&config).map_err(AskError::useless)?;
        let progress = UnsealProgress::new(&config).map_err(AskError::useless)?;
        let mut phase = self.phase.lock().await;
        if !matches!(*phase, Phase::New) {
            return Err(AskError::Taken);
        }
        {
            let mut face = self.face.write();
            (face.shares, face.threshold) = (config.secret_shares, config.secret_threshold);
        }
        *phase = Phase::Joining(Box::new(PendingJoin { wanted: wanted.clone(), challenge, progress }));
        self.show(&phase);
        tracing::info!(
            target = ?wanted.target.api_addr,
            "found the cluster: unseal this node to complete the join"
        );
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
        match self.answer_challenge(&pending.wanted, &root).await {
            Ok(parts) => {
                *phase = Phase::Sealed(Box::new(parts));
                self.start(phase, root).await
            }
            Err(err) => {
                if let Err(err) = self.search(vec![pending.wanted]) {
                    tracing::warn!(error = %err, "the failed join is not tried again by itself");
                }
                Err(err)
            }
        }
    }

    async fn answer_challenge(&self, wanted: &Wanted, root: &RootKey) -> Result<SealedParts, NodeError> {
        let failed = |err: arca_rpc::IdentityError| NodeError::failed("making this node's key", err);
        let key = NodeKey::generate().map_err(failed)?;
        let mut answer = Answer {
            nonce: String::new(),
            server_id: self.config.node_name.clone(),
            cluster_addr: self.config.cluster_addr.clone(),
            api_addr: self.config.api_addr.clone(),
            signing_request: hex::encode(key.signing_request().map_err(failed)?),
            non_voter: wanted.is_non_voter,
            proof: String::new(),
        };
        let mut attempts = 1;
        let welcome = loop {
            match self.offer_answer(wanted, root, &mut answer).await? {
                Reply::Welcome(welcome) => break welcome,
                Reply::Refused(Refusal::ChallengeUnknown) if attempts < ANSWERS_MAX => attempts += 1,
                Reply::Refused(refusal) => return Err(self.refused(refusal)),
            }
        };
        if !is_proven(&welcome.proof(root, &answer.nonce), &welcome.proof) {
            let text = "the answer does not come from the cluster these shares belong to: nothing was joined";
            return Err(NodeError::Invalid(text.to_owned()));
        }
        self.become_member(*welcome, root, &key)
    }

    /// One answer, to a challenge made just now: people took their time with the shares.
    async fn offer_answer(
        &self,
        wanted: &Wanted,
        root: &RootKey,
        answer: &mut Answer,
    ) -> Result<Reply, NodeError> {
        let public = |err: AskError| err.public(&wanted.target);
        answer.nonce = ask_for_challenge(&wanted.target, &self.config.node_name).await.map_err(public)?.nonce;
        answer.proof = answer.proof(root).to_hex().to_string();
        let message = serde_json::to_value(&*answer).map_err(|err| NodeError::failed("joining", err))?;
        let reply =
            post(&wanted.target, "sys/storage/raft/bootstrap/answer", message).await.map_err(public)?;
        parsed(reply).map_err(|err| public(AskError::useless(err)))
    }

    fn refused(&self, refusal: Refusal) -> NodeError {
        let name = &self.config.node_name;
        NodeError::Invalid(match refusal {
            Refusal::ChallengeUnknown => {
                "join refused: the challenge was not honoured: check that the nodes' clocks agree".to_owned()
            }
            Refusal::NameTaken => format!(
                "join refused: node_id {name:?} already belongs to a member: give this node another one, or remove \
                 that member first (arca operator raft remove-peer {name:?})"
            ),
            Refusal::ProofWrong => {
                "join refused: these shares are not those of the cluster at leader_api_addr".to_owned()
            }
            Refusal::TooMany => "join refused: too many nodes joined just now, try again later".to_owned(),
        })
    }

    /// Keeps what makes this node a member; durable when this returns.
    fn become_member(
        &self,
        welcome: Welcome,
        root: &RootKey,
        key: &NodeKey,
    ) -> Result<SealedParts, NodeError> {
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
        let mut parts = self.sealed_parts(record)?;
        // What the log brings from before this seal is of older keys.
        parts.seal_version = parts.seal_version.max(Version(welcome.seal_version));
        Ok(parts)
    }
}

pub(crate) async fn ask_for_challenge(target: &JoinTarget, node_name: &str) -> Result<Challenge, AskError> {
    let question = json!({"server_id": node_name});
    let answer = post(target, "sys/storage/raft/bootstrap/challenge", question).await?;
    parsed(answer).map_err(AskError::useless)
}

/// A call to another node's API.
async fn post(target: &JoinTarget, path: &str, body: Value) -> Result<Value, AskError> {
    let address: Address = target.api_addr.parse().map_err(AskError::useless)?;
    let mut config = ClientConfig::new(address);
    config.tls.ca_pem.clone_from(&target.ca_cert);
    config.tls.ca_cert.clone_from(&target.ca_cert_file);
    config.tls.client_cert.clone_from(&target.client_cert_file);
    config.tls.client_key.clone_from(&target.client_key_file);
    config.tls.server_name.clone_from(&target.tls_server_name);
    config.retry.retries = 0;
    config.timeout = CALL_TIMEOUT;
    config.response_bytes_max = REPLY_BYTES_MAX;
    let client = Client::new(config).map_err(AskError::useless)?;
    let reply = client.write(path, &body).await.map_err(AskError::useless)?;
    reply
        .and_then(|secret| secret.data)
        .map(Value::Object)
        .ok_or_else(|| AskError::useless("the answer is empty"))
}
