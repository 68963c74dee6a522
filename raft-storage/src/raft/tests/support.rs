//! A cluster over model disks, model stores and a model network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::trace::Trace;
use crate::kv::ModelHome;
use crate::raft::{RaftConfig, RaftParts, RaftReplica, Threads};
use crate::testing::{CrashPolicy, ModelNet, ModelVfs};
use crate::{
    Committed, Member, MemberId, ProposeError, Replica, ReplicaError, ReplicaStatus, Role, Write, WriteSet,
};

/// Far longer than anything here takes; time is not real.
pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) struct Node {
    pub(super) vfs: ModelVfs,
    pub(super) home: Arc<ModelHome>,
    pub(super) replica: Option<Arc<RaftReplica>>,
    pub(super) config: RaftConfig,
}

pub(super) struct Cluster {
    pub(super) net: ModelNet,
    pub(super) nodes: BTreeMap<MemberId, Node>,
    tune: fn(&mut RaftConfig),
    sim: Option<Sim>,
}

/// A cluster that does the same each time.
struct Sim {
    seed: u64,
    /// Members started so far: none draws what it drew in its last life.
    starts: u64,
    trace: Arc<Trace>,
}

pub(super) fn member(id: MemberId) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        cluster_addr: format!("127.0.0.1:{id}"),
        api_addr: format!("https://127.0.0.1:{id}"),
    }
}

pub(super) fn put(key: &str, value: &str) -> WriteSet {
    WriteSet { reads: vec![], writes: vec![Write::Put(bytes(key), value.into())] }
}

/// Keys begin with a class byte.
pub(super) fn bytes(key: &str) -> Vec<u8> {
    [&[1], key.as_bytes()].concat()
}

impl Cluster {
    /// `size` voters, and a first entry at `first`.
    pub(super) async fn new(size: usize) -> Self {
        Self::tuned(size, |_| {}).await
    }

    pub(super) async fn tuned(size: usize, tune: fn(&mut RaftConfig)) -> Self {
        Self { net: ModelNet::new(), nodes: BTreeMap::new(), tune, sim: None }.filled(size).await
    }

    /// The same each time for one seed, and traced.
    pub(super) async fn seeded(size: usize, tune: fn(&mut RaftConfig), seed: u64, trace: Arc<Trace>) -> Self {
        let net = ModelNet::seeded(seed);
        trace.follow_net(&net);
        let sim = Some(Sim { seed, starts: 0, trace });
        Self { net, nodes: BTreeMap::new(), tune, sim }.filled(size).await
    }

    async fn filled(self, size: usize) -> Self {
        let mut cluster = self;
        let first = MemberId(1);
        cluster.start_new(first).await;
        cluster.at(first).bootstrap(member(first), put("first", "0")).await.unwrap();
        for _ in 1..size {
            let id = cluster.join().await;
            cluster.leader().await.promote(id).await.unwrap();
        }
        for id in cluster.ids() {
            cluster.wait(id, |status| status.leader.is_some()).await;
        }
        cluster
    }

    pub(super) fn ids(&self) -> Vec<MemberId> {
        self.nodes.keys().copied().collect()
    }

    pub(super) fn running(&self) -> Vec<MemberId> {
        self.nodes.iter().filter(|(_, node)| node.replica.is_some()).map(|(id, _)| *id).collect()
    }

    pub(super) fn at(&self, id: MemberId) -> Arc<RaftReplica> {
        self.nodes[&id].replica.clone().unwrap()
    }

    /// A new member, added as a learner.
    pub(super) async fn join(&mut self) -> MemberId {
        self.join_with(|_, _| {}).await
    }

    /// The same, after `prepare` was told who it will be.
    pub(super) async fn join_with(&mut self, prepare: impl FnOnce(&Self, MemberId)) -> MemberId {
        let id = self.by_leader(async |leader| leader.reserve_member_id().await).await;
        self.start_new(id).await;
        prepare(self, id);
        self.by_leader(async |leader| leader.add_learner(member(id)).await).await;
        id
    }

    async fn start_new(&mut self, id: MemberId) {
        let mut config = RaftConfig::new(id, "test");
        config.threads = Threads::None;
        (self.tune)(&mut config);
        let vfs = ModelVfs::new(id.0 ^ self.sim.as_ref().map_or(0, |sim| sim.seed));
        if let Some(sim) = &self.sim {
            sim.trace.follow_disk(id, &vfs);
        }
        let node = Node { vfs, home: Arc::new(ModelHome::new()), replica: None, config };
        self.nodes.insert(id, node);
        self.start(id).await;
    }

    pub(super) fn parts(&self, id: MemberId) -> RaftParts {
        let node = &self.nodes[&id];
        RaftParts {
            vfs: Arc::new(node.vfs.clone()),
            log_dir: "/data/log".into(),
            node_dir: "/data".into(),
            home: node.home.clone(),
            transport: self.net.transport(id),
        }
    }

    pub(super) async fn start(&mut self, id: MemberId) {
        let parts = self.parts(id);
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some(sim) = &mut self.sim {
            sim.starts += 1;
            node.config.seed = Some(sim.seed.wrapping_add(sim.starts));
        }
        let replica = RaftReplica::open(node.config.clone(), parts).await.unwrap();
        if let Some(sim) = &self.sim {
            replica.observe(sim.trace.applier(id));
        }
        self.net.join(id, replica.inbound());
        node.replica = Some(replica);
    }

    /// Power loss: what was not synced is gone.
    pub(super) fn crash(&mut self, id: MemberId) {
        self.crash_with(id, CrashPolicy::LosePending, id.0);
    }

    pub(super) fn crash_with(&mut self, id: MemberId, policy: CrashPolicy, seed: u64) {
        self.net.leave(id);
        let node = self.nodes.get_mut(&id).unwrap();
        node.replica = None;
        node.vfs.crash(policy);
        node.home.crash(seed);
    }

    pub(super) async fn wait(
        &self,
        id: MemberId,
        condition: impl FnMut(&ReplicaStatus) -> bool,
    ) -> ReplicaStatus {
        let mut watch = self.at(id).watch();
        timeout(LONG, watch.wait_for(condition)).await.unwrap().unwrap().clone()
    }

    /// The leader that the running members agree on.
    pub(super) async fn leader(&self) -> Arc<RaftReplica> {
        self.leader_among(&self.running()).await
    }

    pub(super) async fn leader_among(&self, ids: &[MemberId]) -> Arc<RaftReplica> {
        let agreed = async {
            loop {
                for id in ids {
                    let is_leader = self.at(*id).status().role == Role::Leader;
                    if is_leader && self.at(*id).read_barrier().await.is_ok() {
                        return self.at(*id);
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, agreed).await.unwrap()
    }

    /// Has whoever leads do something, and the next one if that does not lead to the end.
    pub(super) async fn by_leader<T>(
        &self,
        work: impl AsyncFn(&RaftReplica) -> Result<T, ReplicaError>,
    ) -> T {
        let done = async {
            loop {
                match work(self.leader().await.as_ref()).await {
                    Ok(done) => return done,
                    Err(ReplicaError::NoLeader(_) | ReplicaError::Timeout(_)) => {}
                    Err(err) => panic!("{err}"),
                }
            }
        };
        timeout(LONG * 2, done).await.unwrap()
    }

    /// Writes through whoever leads, as a client does: again and again until it is told that it is done.
    pub(super) async fn write(&self, key: &str, value: &str) -> Committed {
        let work = async {
            loop {
                match self.leader().await.propose(put(key, value)).await {
                    Ok(committed) => return committed,
                    Err(ProposeError::NotLeader { .. } | ProposeError::OutcomeUnknown) => {}
                    Err(err) => panic!("{err}"),
                }
            }
        };
        timeout(LONG, work).await.unwrap()
    }

    /// Two hundred entries, keys `0` to `199`, of which the leader's log keeps at most the second half: purging follows
    /// a flush by itself where retention is zero. Answers the leader.
    pub(super) async fn fill_and_purge(&self) -> Arc<RaftReplica> {
        for n in 0..200 {
            self.write(&n.to_string(), &"x".repeat(100)).await;
        }
        let leader = self.leader().await;
        leader.flush().await.unwrap();
        let purged = async {
            while leader.log().state().purged.is_none_or(|purged| purged.index < 100) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LONG, purged).await.unwrap();
        leader
    }

    pub(super) async fn read(&self, id: MemberId, key: &str) -> Option<String> {
        self.at(id).read_barrier().await.unwrap();
        self.peek(id, key)
    }

    pub(super) fn peek(&self, id: MemberId, key: &str) -> Option<String> {
        let found = self.at(id).view().get(&bytes(key)).unwrap();
        found.map(|found| String::from_utf8(found.value).unwrap())
    }

    pub(super) async fn others(&self) -> Vec<MemberId> {
        let leader = self.leader().await.status().id;
        self.running().into_iter().filter(|id| *id != leader).collect()
    }

    /// Every running member has applied the same, and holds the same bytes.
    pub(super) async fn check_equal(&self) {
        let index = self.leader().await.read_barrier().await.unwrap();
        let mut hashes = Vec::new();
        for id in self.running() {
            self.at(id).await_applied(index, LONG).await.unwrap();
        }
        for id in self.running() {
            hashes.push(self.at(id).state_hash().unwrap());
        }
        hashes.dedup();
        assert_eq!(hashes.len(), 1, "members differ");
    }
}
