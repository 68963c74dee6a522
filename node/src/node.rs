//! One node: what it is right now (new, joining, sealed, unsealed, removed) and the orders that change it.
//! **Invariant:** only one order changes the phase at a time; status pages read a copy and never wait for one.
//! Read next: [`crate::unsealed`] for what runs once the keys are there, [`crate::init`] and [`crate::join`].

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use arca_api::{RequestIds, SealStatus};
use arca_barrier::{Offer, RootKey, SealConfig, Share, UnsealProgress, boot_key};
use arca_engine_api::{Clock, EngineType, Entropy, UnixMillis};
use arca_kernel::key_keeper::LockedOut;
use arca_raft_storage::{Member, Replica as _, Version};
use parking_lot::RwLock;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Storage};
use crate::disk::Disk;
use crate::joiner::{Joiner, PendingJoin};
use crate::node_file::{NodeRecord, Stage};
use crate::nonces::Used;
use crate::superseded::{LastTold, Told};
use crate::unsealed::{Unsealed, UnsealedParts};
use crate::world::SystemEntropy;

/// Version of the Vault API this build speaks, then its own: clients enable features by the first part.
pub const VERSION: &str = concat!("1.21.0+arca.", env!("CARGO_PKG_VERSION"));
/// Most callers at once that bring shares. They need no token, and are never many.
const UNSEALING_MAX: usize = 32;
/// How long leadership may take to move when this node seals or stops.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(3);
/// How long a leader that seals for good reason waits for the others to learn that reason.
const FOLLOW_PATIENCE: Duration = Duration::from_secs(10);

/// An order could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The caller's mistake.
    #[error("{0}")]
    Invalid(String),
    /// Ours.
    #[error("{0}")]
    Failed(String),
    /// Only the active node can do it.
    #[error("this node is a standby")]
    NeedsActive,
    /// Too many at once.
    #[error("too many calls of this kind are under way, try again later")]
    TooMany,
    /// No cluster yet.
    #[error("server is not yet initialized")]
    Uninitialized,
}

impl NodeError {
    /// An unexpected failure, with what was being done.
    pub fn failed(doing: &str, err: impl std::fmt::Display) -> Self {
        Self::Failed(format!("{doing}: {err}"))
    }
}

/// What the node is.
pub(crate) enum Phase {
    /// Belongs to no cluster.
    New,
    /// Knows a cluster, waits for shares to prove itself to it.
    Joining(Box<PendingJoin>),
    /// Member of a cluster, without keys.
    Sealed(Box<SealedParts>),
    /// Running.
    Unsealed,
    /// Was removed from its cluster.
    Removed,
    /// Member of a cluster, without keys; its data directory could not be read just now. The next share tries again.
    Unreadable(Box<NodeRecord>),
}

/// What a sealed member has.
pub(crate) struct SealedParts {
    pub(crate) record: NodeRecord,
    pub(crate) progress: UnsealProgress,
    pub(crate) wrapped_root_key: Vec<u8>,
    pub(crate) sealed_keyring: Vec<u8>,
    /// Certificate of the CA in the state, DER: after a restore it may be another than the record's.
    pub(crate) ca: Vec<u8>,
    /// Log index that wrote the wrapped root key.
    pub(crate) seal_version: Version,
    /// The members it last knew.
    pub(crate) members: Vec<Member>,
}

/// What status pages show without waiting for an order under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Face {
    pub(crate) is_initialized: bool,
    pub(crate) is_sealed: bool,
    pub(crate) is_removed: bool,
    pub(crate) threshold: u8,
    pub(crate) shares: u8,
    pub(crate) progress: u8,
    pub(crate) nonce: String,
    pub(crate) cluster_id: String,
}

/// Orders the node gives itself.
#[derive(Debug)]
pub(crate) enum Order {
    /// Seal, as an operator asked.
    Seal,
    /// The state was replaced by one that the keys of this node do not open. If it was announced, its root key came with
    /// the announcement.
    LockedOut(LockedOut),
    /// This member was removed from its cluster.
    Retire,
}

/// See the module's header.
pub struct Node {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) engines: Vec<EngineType>,
    pub(crate) request_ids: Arc<RequestIds>,
    pub(crate) disk: Disk,
    pub(crate) phase: Mutex<Phase>,
    pub(crate) face: RwLock<Face>,
    pub(crate) unsealed: ArcSwapOption<Unsealed>,
    /// Joiners' challenges that were answered here.
    pub(crate) challenges: parking_lot::Mutex<Used>,
    pub(crate) joiner: Joiner,
    /// What peers said about the seal last.
    pub(crate) told: Mutex<LastTold>,
    /// Room for callers that bring shares.
    unsealing: Semaphore,
    /// Cancelled when this node must not go on.
    pub(crate) halt: CancellationToken,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.config.node_name)
    }
}

impl Node {
    /// Opens the data directory and finds out what this node is. Starts nothing that needs keys.
    ///
    /// # Errors
    /// When the directory belongs to somebody else, is damaged, or was written by a newer build.
    pub fn open(
        config: Config,
        clock: Arc<dyn Clock>,
        engines: Vec<EngineType>,
    ) -> Result<Arc<Self>, NodeError> {
        let disk = Disk::new(&config.storage);
        let request_ids =
            RequestIds::new(&SystemEntropy).map_err(|err| NodeError::failed("starting", err))?;
        let (orders, received) = mpsc::unbounded_channel();
        let mut node = Self {
            config,
            clock,
            entropy: Arc::new(SystemEntropy),
            engines,
            request_ids: Arc::new(request_ids),
            disk,
            phase: Mutex::new(Phase::New),
            face: RwLock::default(),
            unsealed: ArcSwapOption::empty(),
            challenges: parking_lot::Mutex::default(),
            joiner: Joiner::default(),
            told: Mutex::default(),
            unsealing: Semaphore::new(UNSEALING_MAX),
            halt: CancellationToken::new(),
            orders,
        };
        let phase = node.found_on_disk()?;
        node.show(&phase);
        *node.phase.get_mut() = phase;
        let node = Arc::new(node);
        tokio::spawn(obey(Arc::clone(&node), received));
        Ok(node)
    }

    fn found_on_disk(&self) -> Result<Phase, NodeError> {
        let Some(record) = self.disk.record()? else { return Ok(Phase::New) };
        record.check_name(&self.config.node_name).map_err(|err| NodeError::Invalid(err.to_string()))?;
        match record.stage {
            Stage::Beginning => {
                tracing::warn!(
                    "an earlier init or join was cut off before anything was acknowledged: starting anew"
                );
                self.disk.clear()?;
                Ok(Phase::New)
            }
            Stage::Removed => Ok(Phase::Removed),
            Stage::Member => Ok(Phase::Sealed(Box::new(self.sealed_parts(record)?))),
        }
    }

    /// Reads what unsealing needs: from the replicated state if it is there, else as it was given at join.
    pub(crate) fn sealed_parts(&self, record: NodeRecord) -> Result<SealedParts, NodeError> {
        let state = self.disk.open_state()?;
        let view = state.view();
        let read = |name: &str, given: &str| -> Result<Vec<u8>, NodeError> {
            let stored = arca_raft_storage::ReadView::get(view.as_ref(), &boot_key(name))
                .map_err(|err| NodeError::failed("reading the state machine", err))?;
            match stored {
                Some(found) => Ok(found.value),
                None => hex::decode(given).map_err(|err| NodeError::failed("reading node.json", err)),
            }
        };
        let seal_config = read("seal-config", &record.seal_config)?;
        let config = SealConfig::from_json(&seal_config)
            .map_err(|err| NodeError::failed("seal configuration", err))?;
        let progress =
            UnsealProgress::new(&config).map_err(|err| NodeError::failed("seal configuration", err))?;
        {
            let mut face = self.face.write();
            (face.shares, face.threshold) = (config.secret_shares, config.secret_threshold);
            face.cluster_id.clone_from(&record.cluster_id);
        }
        let wrapped_root_key = read("root-key", &record.root_key)?;
        let sealed_keyring = read("keyring", &record.keyring)?;
        let ca = read("ca", &record.ca)?;
        let (seal_version, members) = crate::superseded::last_known(&state)?;
        Ok(SealedParts { record, progress, wrapped_root_key, sealed_keyring, ca, seal_version, members })
    }

    /// Publishes what status pages show of `phase`.
    pub(crate) fn show(&self, phase: &Phase) {
        let mut face = self.face.write();
        face.is_initialized = !matches!(phase, Phase::New);
        face.is_sealed = !matches!(phase, Phase::Unsealed);
        face.is_removed = matches!(phase, Phase::Removed);
        let progress = match phase {
            Phase::Sealed(parts) => Some(&parts.progress),
            Phase::Joining(pending) => Some(&pending.progress),
            Phase::New | Phase::Removed | Phase::Unreadable(_) | Phase::Unsealed => None,
        };
        face.progress = progress.map_or(0, |progress| u8::try_from(progress.progress()).unwrap_or(u8::MAX));
        face.nonce = progress.map(|progress| progress.nonce().to_owned()).unwrap_or_default();
    }

    /// Takes one share.
    ///
    /// # Errors
    /// On a malformed share, a wrong set, or when starting up with the right one fails.
    pub async fn unseal(self: &Arc<Self>, key: &str) -> Result<SealStatus, NodeError> {
        let Ok(_room) = self.unsealing.try_acquire() else { return Err(NodeError::TooMany) };
        // Nobody is asked for what is no share.
        let told = if Share::parse(key).is_ok() { self.learn_of_seal().await } else { Told::default() };
        let mut phase = self.phase.lock().await;
        if let Phase::Unreadable(record) = &*phase {
            self.disk.closed().await;
            *phase = Phase::Sealed(Box::new(self.sealed_parts(NodeRecord::clone(record))?));
        }
        let share = match &*phase {
            Phase::New => return Err(self.uninitialized()),
            Phase::Removed => return Err(NodeError::Invalid(REMOVED.to_owned())),
            Phase::Unsealed => return Ok(self.seal_status()),
            Phase::Joining(_) | Phase::Sealed(_) | Phase::Unreadable(_) => {
                Share::parse(key).map_err(|err| NodeError::Invalid(err.to_string()))?
            }
        };
        self.follow_seal(&mut phase, told);
        let outcome = match &mut *phase {
            Phase::Sealed(parts) => {
                let offered = parts.progress.offer_seal_key(share, &SystemEntropy, &parts.wrapped_root_key);
                match offered.map_err(|err| NodeError::Invalid(err.to_string())) {
                    Ok(Offer::Complete((_seal, root))) => self.start(&mut phase, root).await,
                    Ok(Offer::Pending) => Ok(()),
                    Err(err) => Err(err),
                }
            }
            Phase::Joining(pending) => {
                let offered = pending.offer(share).map_err(|err| NodeError::Invalid(err.to_string()));
                match offered {
                    Ok(Offer::Complete((_seal, root))) => self.complete_join(&mut phase, root).await,
                    Ok(Offer::Pending) => Ok(()),
                    Err(err) => Err(err),
                }
            }
            Phase::New | Phase::Removed | Phase::Unreadable(_) | Phase::Unsealed => Ok(()),
        };
        self.show(&phase);
        outcome.map(|()| self.seal_status())
    }

    /// A node that looks for its cluster must not be taken for one that wants a cluster of its own.
    fn uninitialized(&self) -> NodeError {
        let Storage::Raft { retry_join, .. } = &self.config.storage else { return NodeError::Uninitialized };
        if retry_join.is_empty() {
            return NodeError::Uninitialized;
        }
        NodeError::Invalid(
            "server is not yet initialized: it has not found the cluster named in its retry_join so far, and its log \
             says why. If this is to be a new cluster, initialize it on one of its nodes, and on no second one"
                .to_owned(),
        )
    }

    /// Forgets the shares given so far.
    pub async fn reset_unseal(&self) -> SealStatus {
        let mut phase = self.phase.lock().await;
        match &mut *phase {
            Phase::Sealed(parts) => parts.progress.reset(),
            Phase::Joining(pending) => pending.progress.reset(),
            Phase::New | Phase::Removed | Phase::Unreadable(_) | Phase::Unsealed => {}
        }
        self.show(&phase);
        self.seal_status()
    }

    /// From sealed to unsealed. On a failure the node stays sealed.
    pub(crate) async fn start(self: &Arc<Self>, phase: &mut Phase, root: RootKey) -> Result<(), NodeError> {
        let Phase::Sealed(parts) = std::mem::replace(phase, Phase::Unsealed) else { return Ok(()) };
        let record = parts.record.clone();
        let unsealed = Unsealed::start(UnsealedParts {
            node: self,
            record: parts.record,
            root,
            sealed_keyring: parts.sealed_keyring,
            wrapped_root_key: parts.wrapped_root_key,
            seal_version: parts.seal_version,
        });
        match unsealed.await {
            Ok(unsealed) => {
                self.unsealed.store(Some(unsealed));
                tracing::info!(member = %record.member, "unsealed");
                Ok(())
            }
            Err(err) => {
                *phase = self.sealed_again(record).await;
                Err(err)
            }
        }
    }

    /// What a member without keys is, as its data directory can be read now. A new TLS key may have been made since
    /// `record` was read, so the file has the last word.
    async fn sealed_again(&self, record: NodeRecord) -> Phase {
        self.disk.closed().await;
        let record = self.disk.record().ok().flatten().unwrap_or(record);
        match self.sealed_parts(record.clone()) {
            Ok(parts) => Phase::Sealed(Box::new(parts)),
            Err(err) => {
                tracing::error!(error = %err, "the data directory cannot be read: the next unseal key tries again");
                Phase::Unreadable(Box::new(record))
            }
        }
    }

    /// Seals: hands leadership over if it can, stops everything that holds keys, forgets them.
    pub async fn seal(self: &Arc<Self>) {
        let mut phase = self.phase.lock().await;
        let Some(unsealed) = self.unsealed.swap(None) else { return };
        self.face.write().is_sealed = true;
        unsealed.stop(HAND_OVER_PATIENCE).await;
        self.forget_keys(&mut phase, unsealed).await;
        tracing::info!("sealed");
    }

    /// Seals because nothing can be opened any more, and unseals itself again if it was given the key. Nobody is better off
    /// as leader, so leadership stays; but this node leaves only when the others know what it knows.
    async fn lock_out(self: &Arc<Self>, why: LockedOut) {
        let mut phase = self.phase.lock().await;
        let Some(unsealed) = self.unsealed.swap(None) else { return };
        self.face.write().is_sealed = true;
        match &why {
            LockedOut::Lost => tracing::error!("{LOCKED_OUT}"),
            LockedOut::Successor(_) => {
                tracing::warn!("the state is a copy of the primary's now: changing over to its keys")
            }
        }
        unsealed.kernel.deactivate();
        unsealed.let_others_follow(FOLLOW_PATIENCE).await;
        unsealed.stop(Duration::ZERO).await;
        self.forget_keys(&mut phase, unsealed).await;
        let LockedOut::Successor(root) = why else { return };
        if !matches!(*phase, Phase::Sealed(_)) {
            tracing::error!(
                "the copied state cannot be read: unseal this node with the primary's key shares"
            );
            return;
        }
        if let Err(err) = self.start(&mut phase, root).await {
            tracing::error!(error = %err, "the keys of the copied state are there, but the node could not be started with them: \
                            unseal it with the primary's key shares");
        }
        self.show(&phase);
    }

    async fn forget_keys(&self, phase: &mut Phase, unsealed: Arc<Unsealed>) {
        let record = unsealed.record.clone();
        drop(unsealed);
        *phase = self.sealed_again(record).await;
        self.show(phase);
    }

    /// Keeps the data, but never joins again under this identity.
    async fn retire(self: &Arc<Self>) {
        let mut phase = self.phase.lock().await;
        let Some(unsealed) = self.unsealed.swap(None) else { return };
        let mut record = unsealed.record.clone();
        unsealed.stop(Duration::ZERO).await;
        record.stage = Stage::Removed;
        if let Err(err) = self.disk.write_record(&record) {
            tracing::error!(error = %err, "removal could not be recorded");
        }
        *phase = Phase::Removed;
        self.show(&phase);
        tracing::error!("{REMOVED}");
    }

    /// Stops for good, gracefully: leadership first, then everything else.
    pub async fn shutdown(self: &Arc<Self>) {
        let _phase = self.phase.lock().await;
        if let Some(unsealed) = self.unsealed.load_full() {
            unsealed.hand_over(HAND_OVER_PATIENCE).await;
        }
        if let Some(unsealed) = self.unsealed.swap(None) {
            unsealed.stop(Duration::ZERO).await;
        }
    }

    /// Reopens audit files.
    pub async fn reload(&self) {
        if let Some(unsealed) = self.unsealed.load_full() {
            unsealed.kernel.reload_audit();
        }
    }

    /// `sys/seal-status`.
    pub fn seal_status(&self) -> SealStatus {
        let face = self.face.read().clone();
        let is_open = !face.is_sealed;
        SealStatus {
            seal_type: SealConfig::SHAMIR.to_owned(),
            initialized: face.is_initialized,
            sealed: face.is_sealed,
            t: face.threshold,
            n: face.shares,
            progress: face.progress,
            nonce: face.nonce,
            version: VERSION.to_owned(),
            build_date: String::new(),
            migration: false,
            cluster_name: is_open.then(|| self.cluster_name()),
            cluster_id: is_open.then_some(face.cluster_id),
            recovery_seal: false,
            storage_type: self.disk.kind().to_owned(),
            removed_from_cluster: face.is_removed,
        }
    }

    pub(crate) fn cluster_name(&self) -> String {
        self.unsealed.load().as_ref().map(|unsealed| unsealed.cluster.cluster_name()).unwrap_or_default()
    }

    /// Whether this node leads, as far as it knows.
    pub(crate) fn is_active(&self) -> bool {
        self.unsealed.load().as_ref().is_some_and(|unsealed| unsealed.kernel.is_active())
    }

    /// Whether this node is the active one as far as anybody is told: one that has lost its quorum does not know whether another
    /// is by now.
    pub(crate) fn is_known_active(&self) -> bool {
        let unsealed = self.unsealed.load();
        self.is_active()
            && unsealed.as_ref().is_some_and(|unsealed| unsealed.replica.status().leader.is_some())
    }

    /// Waits until this node can no longer trust its disk or its state. Whoever runs it ends the process then, at once and
    /// without closing anything: what is in memory may be wrong, what is on the disk may not get worse.
    pub async fn halted(&self) {
        self.halt.cancelled().await;
    }

    /// Wall-clock time now.
    pub(crate) fn now(&self) -> UnixMillis {
        self.clock.now()
    }

    /// A random version 4 UUID.
    pub(crate) fn uuid(&self) -> Result<String, NodeError> {
        let mut bytes = [0_u8; 16];
        self.entropy.fill(&mut bytes).map_err(|err| NodeError::failed("making an id", err))?;
        let bits = (u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let mut text = format!("{bits:032x}");
        for at in [20, 16, 12, 8] {
            text.insert(at, '-');
        }
        Ok(text)
    }
}

/// Shown wherever a removed node is asked for anything.
pub(crate) const REMOVED: &str = "this node was removed from its cluster. Its data is kept where it is; to use the node \
                                  again, stop it, empty its data directory and let it join anew";

/// Said when a restored backup locks the node out.
const LOCKED_OUT: &str = "the state is now under other keys than this node has: it seals itself. If a backup was restored, \
                          unseal it with the shares of the cluster the backup was made in, as they were then; the log of \
                          the node that took the backup in names that cluster. Otherwise the key shares were replaced \
                          while this node was away: unseal it with the new ones";

/// Carries out the node's orders to itself, one after the other.
async fn obey(node: Arc<Node>, mut orders: mpsc::UnboundedReceiver<Order>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Seal => node.seal().await,
            Order::LockedOut(why) => node.lock_out(why).await,
            Order::Retire => node.retire().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::world::SystemClock;

    /// A node of its own in a directory.
    fn open(dir: &Path, name: &str) -> Result<Arc<Node>, NodeError> {
        let text = "storage \"inmem\" {}\nlistener \"tcp\" { tls_disable = true }\ndisable_mlock = true\n";
        let (mut config, _) = crate::config::parse(&[(Path::new("a.hcl"), text)], None).unwrap();
        config.node_name = name.to_owned();
        config.storage = Storage::File { path: dir.to_owned() };
        Node::open(config, Arc::new(SystemClock), Vec::new())
    }

    async fn init(node: &Arc<Node>) -> String {
        let request = arca_api::InitRequest {
            secret_shares: Some(1),
            secret_threshold: Some(1),
            ..arca_api::InitRequest::default()
        };
        let made = node.init(request).await.unwrap();
        STANDARD.encode(made.shares[0].as_slice())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        init(&open(dir.path(), "one").unwrap()).await;
        // The directory stays the first node's own as long as this process lives: another look needs a copy.
        let copy = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("node.json"), copy.path().join("node.json")).unwrap();
        let err = open(copy.path(), "two").unwrap_err();
        assert!(
            matches!(&err, NodeError::Invalid(text) if text.contains("\"one\"") && text.contains("\"two\""))
        );
        open(copy.path(), "one").unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_directory_that_cannot_be_read_leaves_the_node_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), "one").unwrap();
        let key = init(&node).await;
        node.unseal(&key).await.unwrap();
        let marker = dir.path().join("raft/state/live");
        let good = std::fs::read(&marker).unwrap();
        std::fs::write(&marker, "nonsense").unwrap();
        node.seal().await;
        let status = node.seal_status();
        assert!(status.sealed && status.initialized && !status.removed_from_cluster);
        assert!(matches!(node.unseal(&key).await, Err(NodeError::Failed(_))), "still");
        std::fs::write(&marker, good).unwrap();
        assert!(!node.unseal(&key).await.unwrap().sealed);
        node.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_that_fails_is_not_shown_as_unsealed() {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), "one").unwrap();
        let key = init(&node).await;
        let marker = dir.path().join("raft/state/live");
        let good = std::fs::read(&marker).unwrap();
        std::fs::write(&marker, "nonsense").unwrap();
        assert!(matches!(node.unseal(&key).await, Err(NodeError::Failed(_))));
        assert!(node.seal_status().sealed);
        std::fs::write(&marker, good).unwrap();
        assert!(!node.unseal(&key).await.unwrap().sealed);
        node.shutdown().await;
    }
}
