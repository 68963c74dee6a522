//! One member, put together: open it, start a cluster with it or join one, and use it as a [`Replica`].

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::channel::oneshot;
use openraft::AsyncRuntime as _;
use openraft::errors::{InitializeError, RaftError};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::barrier::{ReadBarrier, leased};
use super::config::{RaftConfig, Threads};
use super::gate::Gate;
use super::inbound::Calls;
use super::machine::{Machine, snapshot_meta};
use super::network::{Addresses, Network};
use super::proposer::Proposer;
use super::shared::{Metrics, Shared, stopped};
use super::silence::Silences;
use super::status::{self, StatusCell};
use super::{OpenError, Runtime, guard, members, runtime, upkeep};
use crate::kv::{KvError, KvHome, Visit};
use crate::log::openraft::{RaftLog, log_id};
use crate::log::{Options, SegmentLog};
use crate::state::{NodeStore, Scope, State};
use crate::watch;
use crate::{
    ApplyObserver, Committed, Inbound, Member, MemberId, Membership, Progress, ProposeError, ReadView,
    Replica, ReplicaError, ReplicaStatus, SnapshotStream, Transport, Vfs, WriteSet,
};

/// Where this member's node-class store remembers its own id.
const ID_KEY: &[u8] = b"raft/member-id";
/// Pause before a new cluster's first write is tried again.
const LEAD_PAUSE: Duration = Duration::from_millis(20);
/// For everything to be on the disk when the member is shut down.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a member runs on.
#[derive(Clone, Debug)]
pub struct RaftParts {
    /// For the log and the node-class values.
    pub vfs: Arc<dyn Vfs>,
    /// Directory of the log. Nothing else may live there.
    pub log_dir: PathBuf,
    /// Directory of the node-class values.
    pub node_dir: PathBuf,
    /// The state machine's store.
    pub home: Arc<dyn KvHome>,
    /// How to reach the others; [`crate::transport::Nobody`] for a member that stays alone.
    pub transport: Arc<dyn Transport>,
}

/// One member of the replicated store.
pub struct RaftReplica {
    pub(super) shared: Arc<Shared>,
    reads: ReadBarrier,
    proposer: Proposer,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for RaftReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftReplica").field("id", &self.shared.me()).finish_non_exhaustive()
    }
}

impl Drop for RaftReplica {
    fn drop(&mut self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        // openraft's own tasks go on until told otherwise.
        if !self.shared.gate.is_closed.set(true) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let raft = self.shared.raft.clone();
            drop(runtime.spawn(async move { raft.shutdown().await }));
        }
    }
}

/// Opens the node-class store and the log, and checks that both are this member's.
pub(super) fn open_files(
    config: &RaftConfig,
    parts: &RaftParts,
) -> Result<(NodeStore, SegmentLog), OpenError> {
    config.check()?;
    let node = NodeStore::open(parts.vfs.clone(), &parts.node_dir)?;
    claim_id(&node, config.id)?;
    let mut options = Options::new(&parts.log_dir, config.cluster());
    options.free_bytes_min = config.low_water_bytes;
    options.segment_bytes = config.limits.segment_bytes;
    let (log, writer) = SegmentLog::open(parts.vfs.clone(), options)?;
    match config.threads {
        // It ends when the log is closed.
        Threads::None => drop(tokio::spawn(writer.run())),
        Threads::Spawn => drop(writer.spawn().map_err(|err| OpenError::Thread(err.to_string()))?),
    }
    Ok((node, log))
}

/// Data of one member must not be used under the id of another: that member's votes would be forgotten.
fn claim_id(node: &NodeStore, id: MemberId) -> Result<(), OpenError> {
    let mine = id.0.to_be_bytes();
    match node.get(ID_KEY)? {
        None => Ok(node.put(ID_KEY, &mine)?),
        Some(found) if found == mine => Ok(()),
        Some(found) => {
            let found = found.try_into().map_or(0, u64::from_be_bytes);
            Err(OpenError::WrongMember { found: MemberId(found), expected: id })
        }
    }
}

/// Log and state must be of one life: without its log a member has forgotten its votes, and what the log has purged
/// must be in the state.
fn check_fit(log: &SegmentLog, state: &State) -> Result<(), OpenError> {
    let (log, view) = (log.state(), state.view());
    let applied = view.meta().index;
    if log.vote.is_none() && !view.meta().is_empty() {
        return Err(OpenError::Unfit(format!("the state is at index {applied}, but the log is new")));
    }
    match log.purged {
        Some(purged) if view.meta().is_empty() || purged.index > applied => {
            let purged = purged.index;
            Err(OpenError::Unfit(format!(
                "the state is at index {applied}, but the log begins after {purged}"
            )))
        }
        _ => Ok(()),
    }
}

/// A power loss may take from the log what the state machine had applied, and kept. What the log has in its place is an
/// earlier leader's and was never committed: it goes, and the log goes on behind the state.
pub(super) fn drop_contradicted(log: &SegmentLog, state: &State) -> Result<(), OpenError> {
    let Some(applied) = snapshot_meta(state.view().meta())?.last_log_id else { return Ok(()) };
    if log.id_of(applied.index).is_some_and(|found| log_id(found) != applied) {
        tracing::warn!(index = applied.index, "dropped the end of the log: the state is of a later leader");
        log.truncate_after(applied.index.checked_sub(1))?;
    }
    Ok(())
}

impl RaftReplica {
    /// Opens a member. It follows, or waits to be added or for [`Self::bootstrap`]. Give [`Self::inbound`] to whatever
    /// listens for peers.
    ///
    /// # Errors
    /// When files are damaged, of another member or cluster or of a newer format, naming them; or the system fails.
    pub async fn open(config: RaftConfig, parts: RaftParts) -> Result<Arc<Self>, OpenError> {
        // Members may be given one seed, and must not draw the same numbers.
        let seed = config.seed.map(|seed| seed ^ config.id.0.rotate_right(16));
        runtime::within(seed, Self::start(config, parts)).await
    }

    async fn start(config: RaftConfig, parts: RaftParts) -> Result<Arc<Self>, OpenError> {
        let settings = Arc::new(config.openraft()?);
        let (node, log) = open_files(&config, &parts)?;
        let state = Arc::new(State::open(parts.home.clone())?);
        check_fit(&log, &state)?;
        drop_contradicted(&log, &state)?;
        let cluster = config.cluster();
        let gate = Arc::new(Gate::default());
        gate.is_fresh.set(true);
        let addresses = Addresses::default();
        let network = Network {
            addresses: addresses.clone(),
            transport: parts.transport.clone(),
            gate: gate.clone(),
            cluster,
            me: config.id,
            append_timeout: config.timings.append,
            silences: Silences::default(),
        };
        let machine = Machine::new(state.clone(), cluster, config.threads);
        let has_lived = log.state().vote.is_some();
        let storage = RaftLog::new(log.clone());
        let raft = openraft::Raft::build(config.id.0, settings, network, storage, machine);
        let raft = raft.await.map_err(|fatal| OpenError::Raft(fatal.to_string()))?;
        addresses.follow(&raft);
        // The guard lets it campaign when its time has come.
        raft.runtime_config().elect(false);
        raft.run();
        let (reads, asker) = ReadBarrier::new();
        let (proposer, batcher) = Proposer::new(&config.limits);
        let shared = Arc::new(Shared {
            status: StatusCell::new(config.id, config.timings.silence()),
            transport: parts.transport,
            changing: tokio::sync::Mutex::default(),
            receiving: tokio::sync::Mutex::default(),
            held: AtomicU64::new(if config.holds_log { 0 } else { u64::MAX }),
            config,
            cluster,
            raft,
            state,
            node,
            log,
            gate,
        });
        let fresh_until = Instant::now() + keep_promises(&shared, has_lived).await?;
        let tasks = vec![
            spawn_vital(&shared, "status", status::follow(shared.clone())),
            spawn_vital(&shared, "guard", guard::run(shared.clone(), fresh_until)),
            spawn_vital(&shared, "membership", members::finish_changes(shared.clone())),
            spawn_vital(&shared, "upkeep", upkeep::run(shared.clone())),
            spawn_vital(&shared, "read barrier", asker.run(shared.clone())),
            spawn_vital(&shared, "proposer", batcher.run(shared.clone())),
        ];
        Ok(Arc::new(Self { shared, reads, proposer, tasks: Mutex::new(tasks) }))
    }

    /// What peers may ask of this member.
    #[must_use]
    pub fn inbound(&self) -> Arc<dyn Inbound> {
        Arc::new(Calls(self.shared.clone()))
    }

    /// The log, for what ships it elsewhere and for metrics.
    #[must_use]
    pub fn log(&self) -> &SegmentLog {
        &self.shared.log
    }

    /// Free bytes of this member's disk beyond those it keeps free, if it can tell.
    #[must_use]
    pub fn room_bytes(&self) -> Option<u64> {
        let free = self.shared.log.free_space().ok()?;
        Some(free.saturating_sub(self.shared.config.low_water_bytes))
    }

    /// How far each member is, as the leader knows; empty elsewhere.
    #[must_use]
    pub fn progress(&self) -> std::collections::BTreeMap<MemberId, Progress> {
        self.shared.progress()
    }

    /// Whether this member would answer a read now without asking any other.
    #[must_use]
    pub fn is_leased(&self) -> bool {
        leased(&self.shared).is_some()
    }

    /// BLAKE3 over everything applied here, for comparing members at one index. Reads everything.
    ///
    /// # Errors
    /// When the store fails.
    pub fn state_hash(&self) -> Result<[u8; 32], KvError> {
        self.shared.state.state_hash()
    }

    /// Campaigns now, rather than when this member has missed its leader for long enough. It asks for votes as it would then:
    /// nobody elects it during another's lease.
    ///
    /// # Errors
    /// When the member has stopped.
    pub async fn campaign(&self) -> Result<(), ReplicaError> {
        self.shared.raft.trigger().elect(true).await.map_err(|fatal| stopped(&fatal))
    }

    /// Makes durable what is applied here, and answers up to which index. Happens by itself now and then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn flush(&self) -> Result<u64, ReplicaError> {
        let flushed = super::machine::flush(&self.shared.state, self.shared.config.threads).await;
        flushed.map_err(|err| ReplicaError::Kv(KvError::Io(err.to_string())))
    }

    /// Makes a new cluster of this member alone, and writes `initial` into it before returning. Going on after a crash
    /// half-way is fine.
    ///
    /// # Errors
    /// When this member belongs to a cluster that holds data, or the system fails.
    pub async fn bootstrap(&self, me: Member, initial: WriteSet) -> Result<Committed, ReplicaError> {
        let shared = &self.shared;
        if me.id != shared.me() {
            return Err(ReplicaError::Membership(format!("this is member {}, not {}", shared.me(), me.id)));
        }
        match shared
            .raft
            .initialize([(me.id.0, me.clone())].into_iter().collect::<std::collections::BTreeMap<_, _>>())
            .await
        {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) if self.is_blank(&me)? => {}
            Err(RaftError::APIError(err)) => return Err(ReplicaError::Membership(err.to_string())),
            Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
        }
        let limit = shared.config.timings.membership;
        let written = timeout(limit, self.write_first(&initial)).await;
        written.map_err(|_| ReplicaError::Timeout("the first election and the initial write"))?
    }

    /// Writes what a new cluster begins with. On a disk that hangs for a moment its only member does not lead meanwhile: then
    /// nothing was written, and it is tried again.
    async fn write_first(&self, initial: &WriteSet) -> Result<Committed, ReplicaError> {
        let me = self.shared.me().0;
        let leads = |metrics: &Metrics| (metrics.current_leader == Some(me)).then_some(());
        loop {
            self.shared.metrics_when(leads).await?;
            match self.proposer.propose(&self.shared, initial).await {
                Err(ProposeError::NotLeader { .. }) => sleep(LEAD_PAUSE).await,
                proposed => {
                    return proposed
                        .map_err(|err| ReplicaError::Membership(format!("the initial write failed: {err}")));
                }
            }
        }
    }

    /// Whether a bootstrap was begun here and wrote nothing.
    fn is_blank(&self, me: &Member) -> Result<bool, ReplicaError> {
        let membership = self.shared.membership();
        let is_alone = membership.members.len() == 1 && membership.members.contains_key(&me.id);
        let mut has_data = false;
        self.shared.state.view().visit(&[], None, &mut |_, _, _| {
            has_data = true;
            Visit::Stop
        })?;
        Ok(is_alone && !has_data)
    }
}

/// For how long this member must not vote or campaign: before it went down it may have promised a leader, by answering
/// it, not to elect another during the lease. A member that is alone, or new, promised nothing.
async fn keep_promises(shared: &Shared, has_lived: bool) -> Result<Duration, OpenError> {
    let me = shared.me().0;
    let is_alone = shared.raft.with_raft_state(move |state| {
        let memberships = [state.membership_state.effective(), state.membership_state.committed()];
        memberships.iter().all(|membership| membership.voter_ids().eq([me]))
    });
    let is_alone = is_alone.await.map_err(|fatal| OpenError::Raft(fatal.to_string()))?;
    if has_lived && !is_alone {
        return Ok(shared.config.timings.lease());
    }
    shared.gate.is_fresh.set(false);
    Ok(Duration::ZERO)
}

/// Runs something the member cannot do without: should it end, the member is of no use and says so.
fn spawn_vital(
    shared: &Arc<Shared>,
    what: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let shared = shared.clone();
    Runtime::spawn(async move {
        let ended = AssertUnwindSafe(work).catch_unwind().await;
        if !shared.gate.is_closed.get() {
            let how = if ended.is_ok() { "ended" } else { "panicked" };
            shared.status.fail(&format!("the {what} {how}"));
        }
    })
}

#[async_trait]
impl Replica for RaftReplica {
    fn view(&self) -> Arc<dyn ReadView> {
        self.shared.state.view()
    }

    async fn read_barrier(&self) -> Result<u64, ReplicaError> {
        self.reads.wait(&self.shared).await
    }

    async fn await_applied(&self, index: u64, timeout: Duration) -> Result<(), ReplicaError> {
        self.shared.await_applied(index, timeout).await.map(drop)
    }

    async fn propose(&self, set: WriteSet) -> Result<Committed, ProposeError> {
        self.proposer.propose(&self.shared, &set).await
    }

    fn status(&self) -> ReplicaStatus {
        self.shared.status.get(self.shared.state.view().meta().index)
    }

    fn is_disk_full(&self) -> bool {
        self.shared.gate.is_disk_full.get()
    }

    fn watch(&self) -> watch::Receiver<ReplicaStatus> {
        self.shared.status.watch()
    }

    fn observe(&self, observer: Arc<dyn ApplyObserver>) {
        self.shared.state.observe(observer);
    }

    fn membership(&self) -> Membership {
        self.shared.membership()
    }

    async fn reserve_member_id(&self) -> Result<MemberId, ReplicaError> {
        self.shared.reserve_member_id().await
    }

    async fn admit(&self, member: Member) -> Result<MemberId, ReplicaError> {
        self.shared.clone().admit(member).await
    }

    async fn add_learner(&self, member: Member) -> Result<(), ReplicaError> {
        self.shared.clone().add_learner(member).await
    }

    async fn promote(&self, id: MemberId) -> Result<(), ReplicaError> {
        self.shared.clone().promote(id).await
    }

    async fn demote(&self, id: MemberId) -> Result<(), ReplicaError> {
        self.shared.clone().demote(id).await
    }

    async fn remove(&self, id: MemberId) -> Result<(), ReplicaError> {
        self.shared.clone().remove(id).await
    }

    async fn transfer_leadership(&self, to: Option<MemberId>) -> Result<(), ReplicaError> {
        self.shared.transfer(to).await
    }

    async fn export(&self) -> Result<SnapshotStream, ReplicaError> {
        Ok(self.shared.state.export(Scope::Backup, &self.shared.cluster.0).into_stream())
    }

    async fn import(&self, stream: SnapshotStream) -> Result<(), ReplicaError> {
        self.shared.import(stream).await
    }

    fn node_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.shared.node.get(key)
    }

    fn node_put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        self.shared.node.put(key, value)
    }

    async fn shutdown(&self) {
        let shared = &self.shared;
        if !shared.gate.is_closed.set(true) {
            return;
        }
        if let Err(err) = shared.raft.shutdown().await {
            tracing::warn!(%err, "openraft did not end in order");
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        if let Err(err) = super::machine::flush(&shared.state, shared.config.threads).await {
            tracing::warn!(%err, "the state machine could not be flushed: the log will be replayed");
        }
        let (done, closed) = oneshot::channel();
        // The receiver may have given up.
        shared.log.close(Box::new(move |result| drop(done.send(result))));
        match timeout(CLOSE_TIMEOUT, closed).await {
            Ok(Ok(Ok(()))) => {}
            result => tracing::warn!(?result, "the log could not be closed in order"),
        }
        shared.status.close();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::kv::ModelHome;
    use crate::log::{EntryId, Payload};
    use crate::raft::machine::encode;
    use crate::state::{self, Apply};
    use crate::testing::ModelVfs;

    /// Where a log of three entries of one leader ends, once a state is found that has applied `applied`.
    #[track_caller]
    fn check(applied: EntryId, want: u64) {
        let options = Options::new("/data/log", RaftConfig::new(MemberId(1), "test").cluster());
        let (log, _writer) = SegmentLog::open(Arc::new(ModelVfs::new(1)), options).unwrap();
        let payload = Payload { tag: 0, bytes: Bytes::new() };
        let entries = (1..4).map(|index| (EntryId { term: 5, leader: 1, index }, payload.clone()));
        log.append(entries.collect(), Box::new(drop)).unwrap();
        let state = State::open(Arc::new(ModelHome::new())).unwrap();
        let log_id = encode(&log_id(applied)).unwrap();
        let payload = state::Payload::Blank;
        state.apply(Apply { index: applied.index, log_id: &log_id, payload }).unwrap();
        drop_contradicted(&log, &state).unwrap();
        assert_eq!(log.state().last.map(|last| last.index), Some(want), "{applied:?}");
    }

    #[test]
    fn what_the_state_contradicts_leaves_the_log() {
        check(EntryId { term: 5, leader: 1, index: 2 }, 3);
        check(EntryId { term: 6, leader: 8, index: 2 }, 1);
        check(EntryId { term: 6, leader: 8, index: 3 }, 2);
        check(EntryId { term: 6, leader: 8, index: 9 }, 3);
    }
}
