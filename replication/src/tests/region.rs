//! A cluster over model disks and a model network, with what replication runs on each member.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_raft_storage::kv::ModelHome;
use arca_raft_storage::raft::Threads;
use arca_raft_storage::testing::{CrashPolicy, ModelNet, ModelVfs};
use arca_raft_storage::{
    Changes, Committed, Member, MemberId, ProposeError, RaftConfig, RaftParts, RaftReplica, ReadView,
    Replica, Role, Version, Visit, Write, WriteSet,
};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::road::Road;
use crate::{
    Catchup, CatchupError, Clock, Comparing, Cursor, Ended, Epoch, History, Kind, Link, Pace, Primary, Sieve,
    Sink, SinkSettings, SinkStatus, Source, SourceSettings, State, Tell, cursor_key, load_cursor,
};

/// Far longer than anything here takes; time is not real.
pub(super) const LONG: Duration = Duration::from_secs(120);

pub(super) struct Node {
    pub(super) vfs: ModelVfs,
    pub(super) home: Arc<ModelHome>,
    config: RaftConfig,
    replica: Option<Arc<RaftReplica>>,
    source: Option<Arc<Source>>,
    tasks: Vec<JoinHandle<()>>,
}

pub(super) struct Region {
    net: ModelNet,
    pub(super) nodes: BTreeMap<MemberId, Node>,
    name: &'static str,
    tune: fn(&mut RaftConfig),
    /// Whether its members begin generations.
    pub(super) begins: bool,
    /// How long its members keep the log for a secondary that shows no life.
    pub(super) retention_time: Duration,
    primary: Option<Primary>,
    /// Ways that lead here.
    roads: Vec<Road>,
    /// The way to the cluster that is followed.
    upstream: Option<Road>,
    pub(super) said: Arc<Said>,
}

/// What the sinks of a region came to say.
#[derive(Debug, Default)]
pub(super) struct Said {
    region: &'static str,
    pub(super) ended: Mutex<Option<Ended>>,
    pub(super) status: Mutex<SinkStatus>,
    pub(super) copies: AtomicU64,
    /// Comparisons that were begun.
    comparisons: AtomicU64,
    names: AtomicU64,
}

impl Said {
    /// How many comparisons were begun.
    pub(super) fn compared(&self) -> u64 {
        self.comparisons.load(Ordering::Relaxed)
    }

    /// As good as random: no two are the same.
    fn next_name(&self) -> [u8; 16] {
        let mut name = [0; 16];
        let number = self.names.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        blake3::Hasher::new().update(self.region.as_bytes()).update(&number).finalize_xof().fill(&mut name);
        name
    }
}

pub(super) fn clock() -> Clock {
    // Paused time begins somewhere; only differences count.
    let begin = Instant::now();
    Arc::new(move || 1_000_000 + u64::try_from(begin.elapsed().as_millis()).unwrap())
}

fn member(id: MemberId) -> Member {
    Member { id, name: format!("n{id}"), cluster_addr: String::new(), api_addr: String::new() }
}

/// A key of a class.
pub(super) fn key(class: u8, name: &str) -> Vec<u8> {
    [&[class], name.as_bytes()].concat()
}

pub(super) fn put(key: Vec<u8>, value: &[u8]) -> WriteSet {
    WriteSet { reads: vec![], writes: vec![Write::Put(key, value.to_vec())] }
}

pub(super) fn dr_sieve() -> Sieve {
    Sieve { own: vec![key(2, "own/"), key(0, "ca")], ..Sieve::new(Kind::Dr) }
}

impl Region {
    pub(super) async fn new(name: &'static str, size: usize) -> Self {
        Self::tuned(name, size, |_| {}).await
    }

    pub(super) async fn tuned(name: &'static str, size: usize, tune: fn(&mut RaftConfig)) -> Self {
        let mut region = Self {
            net: ModelNet::new(),
            nodes: BTreeMap::new(),
            name,
            tune,
            begins: true,
            retention_time: SourceSettings::default().retention_time,
            primary: None,
            roads: Vec::new(),
            upstream: None,
            said: Arc::new(Said { region: name, ..Said::default() }),
        };
        let first = MemberId(1);
        region.add(first).await;
        region.at(first).bootstrap(member(first), put(key(0, "ca"), name.as_bytes())).await.unwrap();
        for _ in 1..size {
            let id = region.leader().await.reserve_member_id().await.unwrap();
            region.add(id).await;
            let leader = region.leader().await;
            leader.add_learner(member(id)).await.unwrap();
            leader.promote(id).await.unwrap();
        }
        region
    }

    async fn add(&mut self, id: MemberId) {
        let mut config = RaftConfig::new(id, self.name);
        config.threads = Threads::None;
        config.holds_log = true;
        (self.tune)(&mut config);
        let (vfs, home) = (ModelVfs::new(id.0), Arc::new(ModelHome::new()));
        let node = Node { vfs, home, config, replica: None, source: None, tasks: Vec::new() };
        self.nodes.insert(id, node);
        self.start(id).await;
    }

    pub(super) async fn start(&mut self, id: MemberId) {
        let transport = self.net.transport(id);
        let node = self.nodes.get_mut(&id).unwrap();
        let parts = RaftParts {
            vfs: Arc::new(node.vfs.clone()),
            log_dir: "/data/log".into(),
            node_dir: "/data".into(),
            home: node.home.clone(),
            transport,
        };
        let replica = RaftReplica::open(node.config.clone(), parts).await.unwrap();
        self.net.join(id, replica.inbound());
        node.replica = Some(replica);
        self.serve(id);
        self.follow_at(id);
    }

    /// What a member of a primary runs.
    fn serve(&mut self, id: MemberId) {
        let (primary, said) = (self.primary.clone(), self.said.clone());
        let node = self.nodes.get_mut(&id).unwrap();
        let (Some(primary), Some(replica)) = (primary, node.replica.clone()) else { return };
        let settings = SourceSettings {
            retention_check: Duration::from_millis(500),
            retention_time: self.retention_time,
            ..SourceSettings::default()
        };
        let source = Source::new(replica.clone(), settings, clock());
        source.set_primary(Kind::Dr, Some(primary));
        for road in &self.roads {
            road.open(id, source.clone());
        }
        node.tasks.push(tokio::spawn(source.clone().keep_log()));
        if self.begins {
            node.tasks.push(tokio::spawn(begin_generations(replica, said)));
        }
        node.source = Some(source);
    }

    /// What a member of a secondary runs.
    fn follow_at(&mut self, id: MemberId) {
        let (road, said) = (self.upstream.clone(), self.said.clone());
        let node = self.nodes.get_mut(&id).unwrap();
        let (Some(road), Some(replica)) = (road, node.replica.clone()) else { return };
        node.tasks.push(tokio::spawn(follow(replica, road, said)));
    }

    /// Makes the region a primary, with these ways to it.
    pub(super) async fn lead(&mut self, epoch: u64, roads: &[Road]) {
        self.roads = roads.to_vec();
        let secondaries: BTreeSet<String> = roads.iter().map(|road| road.secondary().to_owned()).collect();
        self.primary = Some(Primary { epoch: Epoch(epoch), secondaries, fence: None });
        for id in self.running() {
            self.serve(id);
        }
        let leader: Arc<dyn Changes> = self.leader().await;
        History::begin(&leader, self.said.next_name()).await.unwrap();
    }

    pub(super) fn set_primary(&mut self, primary: Option<Primary>) {
        self.primary.clone_from(&primary);
        for source in self.sources() {
            source.set_primary(Kind::Dr, primary.clone());
        }
    }

    pub(super) fn sources(&self) -> Vec<Arc<Source>> {
        self.nodes.values().filter_map(|node| node.source.clone()).collect()
    }

    pub(super) fn source(&self, id: MemberId) -> Arc<Source> {
        self.nodes[&id].source.clone().unwrap()
    }

    /// Has the region follow.
    pub(super) fn follow(&mut self, road: &Road) {
        self.upstream = Some(road.clone());
        *self.said.ended.lock() = None;
        for id in self.running() {
            self.follow_at(id);
        }
    }

    pub(super) fn running(&self) -> Vec<MemberId> {
        self.nodes.iter().filter(|(_, node)| node.replica.is_some()).map(|(id, _)| *id).collect()
    }

    pub(super) fn at(&self, id: MemberId) -> Arc<RaftReplica> {
        self.nodes[&id].replica.clone().unwrap()
    }

    /// Ends everything a member runs, and takes what was not synced.
    pub(super) async fn crash(&mut self, id: MemberId) {
        self.net.leave(id);
        for road in &self.roads {
            road.close(id).await;
        }
        let node = self.nodes.get_mut(&id).unwrap();
        for task in node.tasks.drain(..) {
            task.abort();
            // It was aborted.
            let _ = task.await;
        }
        (node.replica, node.source) = (None, None);
        node.vfs.crash(CrashPolicy::LosePending);
        node.home.crash(id.0);
    }

    /// Nothing passes between this member and the others of the region.
    pub(super) fn isolate(&self, id: MemberId) {
        self.net.isolate(id);
    }

    pub(super) async fn leader(&self) -> Arc<RaftReplica> {
        let agreed = async {
            loop {
                for id in self.running() {
                    let replica = self.at(id);
                    if replica.status().role == Role::Leader && replica.read_barrier().await.is_ok() {
                        return replica;
                    }
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, agreed).await.unwrap()
    }

    pub(super) async fn leader_id(&self) -> MemberId {
        self.leader().await.status().id
    }

    /// Writes until it is known to be written.
    pub(super) async fn write(&self, key: Vec<u8>, value: &[u8]) -> Committed {
        let work = async {
            loop {
                match self.leader().await.propose(put(key.clone(), value)).await {
                    Ok(committed) => return committed,
                    Err(ProposeError::NotLeader { .. } | ProposeError::OutcomeUnknown) => {}
                    Err(err) => panic!("{err}"),
                }
            }
        };
        timeout(LONG, work).await.unwrap()
    }

    /// Adds one to the counter at `key`, and writes beside it. Several at once refuse one another.
    pub(super) async fn count(&self, key: &[u8]) {
        let work = async {
            loop {
                let leader = self.leader().await;
                let found = leader.view().get(key).unwrap();
                let version = found.as_ref().map_or(Version::ABSENT, |found| found.version);
                let number = found.map_or(0, |found| u64::from_be_bytes(found.value.try_into().unwrap())) + 1;
                let beside = [key, &number.to_be_bytes()].concat();
                let mut set = put(key.to_vec(), &number.to_be_bytes());
                set.reads.push((key.to_vec(), version));
                set.writes.push(Write::Put(beside.clone(), b"x".to_vec()));
                if number.is_multiple_of(3) {
                    set.writes.push(Write::Delete(beside));
                }
                match leader.propose(set).await {
                    Ok(_) => return,
                    Err(
                        ProposeError::Conflict
                        | ProposeError::NotLeader { .. }
                        | ProposeError::OutcomeUnknown,
                    ) => {}
                    Err(err) => panic!("{err}"),
                }
            }
        };
        timeout(LONG, work).await.unwrap();
    }

    pub(super) async fn cursor(&self) -> Cursor {
        load_cursor(self.leader().await.view().as_ref(), Kind::Dr).unwrap().0
    }

    /// Waits until everything is here that `primary` has applied now.
    pub(super) async fn catch_up_with(&self, primary: &Self) {
        let index = primary.leader().await.read_barrier().await.unwrap();
        let caught_up = async {
            while self.cursor().await.index < index {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = timeout(LONG, caught_up).await;
        assert!(waited.is_ok(), "{index} is wanted: {:?} {:?}", self.cursor().await, self.said);
    }

    /// Waits until no sink goes on, and says why.
    pub(super) async fn ended(&self) -> Ended {
        let ended = async {
            loop {
                if let Some(ended) = self.said.ended.lock().clone() {
                    return ended;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = timeout(LONG, ended).await;
        waited.unwrap_or_else(|_| panic!("{:?}", self.said))
    }

    /// The state is that of `primary`, as far as it passes.
    pub(super) async fn check_equal(&self, primary: &Self, sieve: &Sieve) {
        let (here, there) = (self.leader().await, primary.leader().await);
        let (here, there) = (passing(here.view().as_ref(), sieve), passing(there.view().as_ref(), sieve));
        let differing: Vec<_> = here
            .keys()
            .chain(there.keys())
            .filter(|key| here.get(*key) != there.get(*key))
            .map(|key| String::from_utf8_lossy(key))
            .collect();
        assert_eq!(differing, Vec::<String>::new());
    }
}

pub(super) fn passing(view: &dyn ReadView, sieve: &Sieve) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut visitor = |key: &[u8], value: &[u8], _: Version| {
        if sieve.passes(key) {
            found.insert(key.to_vec(), value.to_vec());
        }
        Visit::Next
    };
    view.visit(&[], None, &mut visitor).unwrap();
    found
}

/// Every value that `key` ever had, in order, as the log tells.
pub(super) fn values_of(replica: &RaftReplica, key: &[u8]) -> Vec<u64> {
    let (mut values, mut after) = (Vec::new(), 0);
    loop {
        let piece = replica.changes(after, 1 << 20).unwrap();
        let Some(last) = piece.last() else { return values };
        after = last.at.index;
        for write in piece.into_iter().filter_map(arca_raft_storage::Changed::written).flatten() {
            match write {
                Write::Put(found, value) if found == key => {
                    values.push(u64::from_be_bytes(value.try_into().unwrap()));
                }
                _ => {}
            }
        }
    }
}

async fn begin_generations(replica: Arc<RaftReplica>, said: Arc<Said>) {
    let mut watch = replica.watch();
    loop {
        let status = watch.borrow_and_update().clone();
        if status.role == Role::Leader {
            let name = said.next_name();
            let replica: Arc<dyn Changes> = replica.clone();
            // Whoever leads next does it.
            let _ = History::begin(&replica, name).await;
        }
        if watch.changed().await.is_err() {
            return;
        }
    }
}

async fn follow(replica: Arc<RaftReplica>, road: Road, said: Arc<Said>) {
    let catchup: Arc<dyn Catchup> = if road.compares() {
        Arc::new(Comparing::new(replica.clone(), road.sieve().clone(), Arc::new(Pace::new(0))))
    } else {
        Arc::new(Copier { replica: replica.clone(), road: road.clone(), said: said.clone() })
    };
    let sink = Sink::new(replica.clone(), road.sieve().clone(), catchup, SinkSettings::default(), clock());
    let link: Arc<dyn Link> = Arc::new(road);
    let mut watch = replica.watch();
    let mut told = sink.status();
    loop {
        if watch.wait_for(|status| status.role == Role::Leader).await.is_err() {
            return;
        }
        let mut roles = replica.watch();
        let stop = async move { drop(roles.wait_for(|status| status.role != Role::Leader).await) };
        let tell = async {
            loop {
                let now = told.borrow_and_update().clone();
                let before = std::mem::replace(&mut *said.status.lock(), now.clone());
                if now.state == State::MerkleDiff && before.state != State::MerkleDiff {
                    said.comparisons.fetch_add(1, Ordering::Relaxed);
                }
                if told.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let ended = tokio::select! {
            biased;
            ended = sink.run(link.clone(), stop) => ended,
            () = tell => return,
        };
        match ended {
            Ended::Stopped | Ended::NotLeader => sleep(Duration::from_millis(50)).await,
            ended => {
                *said.status.lock() = sink.status().borrow().clone();
                *said.ended.lock() = Some(ended);
                return;
            }
        }
    }
}

/// Looks at the other cluster's state as if it were its own: what a comparison comes to.
#[derive(Debug)]
struct Copier {
    replica: Arc<RaftReplica>,
    road: Road,
    said: Arc<Said>,
}

#[async_trait]
impl Catchup for Copier {
    async fn catch_up(&self, link: &Arc<dyn Link>, tell: &Tell) -> Result<Cursor, CatchupError> {
        let _ = link;
        let gone = || crate::LinkError::Unreachable("nobody is there".to_owned());
        let source = self.road.any_source().ok_or_else(gone)?;
        let sieve = self.road.sieve();
        let epoch = source.admit(self.road.secondary(), sieve.kind).map_err(crate::LinkError::from)?;
        let view = source.replica.view();
        let generation =
            History::at(source.replica.as_ref(), view.as_ref()).map_err(crate::LinkError::from)?;
        tell.state(State::MerkleSync);
        let (_, version) = load_cursor(self.replica.view().as_ref(), sieve.kind)?;
        let (there, here) = (passing(view.as_ref(), sieve), passing(self.replica.view().as_ref(), sieve));
        let gone = here.keys().filter(|key| !there.contains_key(*key)).cloned().map(Write::Delete);
        let cursor = Cursor::after_copy(epoch, generation, view.index());
        let mut set = WriteSet { reads: vec![(cursor_key(sieve.kind), version)], writes: gone.collect() };
        set.writes.extend(there.into_iter().map(|(key, value)| Write::Put(key, value)));
        set.writes.push(Write::Put(cursor_key(sieve.kind), cursor.encode()));
        self.replica.propose(set).await?;
        self.said.copies.fetch_add(1, Ordering::Relaxed);
        Ok(cursor)
    }
}
