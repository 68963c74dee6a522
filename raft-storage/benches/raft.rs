//! Three members in one process, on real files and RocksDB, over a network that takes no time: what consensus itself
//! costs. Writes alone and together, read barriers on leader and follower, and the gap a lost leader leaves.
//!
//! Run with `cargo bench -p arca-raft-storage --bench raft`. It prints a table; the disk's own sync time is in it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark may stop at the first surprise"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_raft_storage::kv::{RocksHome, RocksOptions};
use arca_raft_storage::testing::{ModelNet, Weather};
use arca_raft_storage::{
    Member, MemberId, OsVfs, RaftConfig, RaftParts, RaftReplica, Replica, Role, Vfs, Write, WriteSet,
};

const MEASURE: Duration = Duration::from_secs(3);
const VALUE_BYTES: usize = 400;
const SYNCS: usize = 200;

struct Cluster {
    net: ModelNet,
    replicas: BTreeMap<MemberId, Arc<RaftReplica>>,
    dir: tempfile::TempDir,
}

fn member(id: MemberId) -> Member {
    Member { id, name: format!("n{id}"), cluster_addr: String::new(), api_addr: String::new() }
}

fn put(n: u64) -> WriteSet {
    let key = [&[1], &n.to_be_bytes()[..]].concat();
    WriteSet { reads: vec![], writes: vec![Write::Put(key, vec![7; VALUE_BYTES])] }
}

impl Cluster {
    async fn new() -> Self {
        let net = ModelNet::new();
        net.set_weather(Weather::calm(Duration::ZERO));
        let mut cluster = Self { net, replicas: BTreeMap::new(), dir: tempfile::tempdir().unwrap() };
        let first = MemberId(1);
        cluster.start(first).await;
        let leader = cluster.replicas[&first].clone();
        leader.bootstrap(member(first), put(0)).await.unwrap();
        for _ in 1..3 {
            let id = leader.reserve_member_id().await.unwrap();
            cluster.start(id).await;
            leader.add_learner(member(id)).await.unwrap();
            leader.promote(id).await.unwrap();
        }
        cluster
    }

    async fn start(&mut self, id: MemberId) {
        let dir = self.dir.path().join(id.to_string());
        let parts = RaftParts {
            vfs: Arc::new(OsVfs),
            log_dir: dir.join("log"),
            node_dir: dir.clone(),
            home: Arc::new(RocksHome::new(dir.join("state"), RocksOptions::default())),
            transport: self.net.transport(id),
        };
        let replica = RaftReplica::open(RaftConfig::new(id, "bench"), parts).await.unwrap();
        self.net.join(id, replica.inbound());
        self.replicas.insert(id, replica);
    }

    fn leader(&self) -> Option<&Arc<RaftReplica>> {
        self.replicas.values().find(|replica| replica.status().role == Role::Leader)
    }

    fn follower(&self) -> &Arc<RaftReplica> {
        self.replicas.values().find(|replica| replica.status().role == Role::Follower).unwrap()
    }
}

/// `clients` do `work` one after the other for a while; prints rate and times.
async fn measure<F: Future<Output = bool> + Send>(
    name: &str,
    clients: u64,
    work: impl Fn(u64) -> F + Clone + Send + 'static,
) {
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let work = work.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while started.elapsed() < MEASURE {
                    let before = Instant::now();
                    if work(client << 32 | times.len() as u64).await {
                        times.push(before.elapsed());
                    }
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort();
    let rate = times.len() as f64 / started.elapsed().as_secs_f64();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("{name:<28} {clients:>4} clients {rate:>10.0}/s   p50 {p50:>10.1?}   p99 {p99:>10.1?}");
}

fn sync_p50(dir: &Path) -> Duration {
    let file = OsVfs.create(&dir.join("fdatasync")).unwrap();
    let mut times: Vec<Duration> = (0..SYNCS)
        .map(|turn| {
            let started = Instant::now();
            file.write_at(&[7; 4096], (turn * 4096) as u64).unwrap();
            file.sync_data().unwrap();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[SYNCS / 2]
}

async fn failover(cluster: &mut Cluster) {
    let mut gaps = Vec::new();
    for _ in 0..5 {
        while cluster.leader().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let id = cluster.leader().unwrap().status().id;
        let before = Instant::now();
        cluster.net.leave(id);
        drop(cluster.replicas.remove(&id));
        let write = async {
            loop {
                if let Some(leader) = cluster.leader()
                    && leader.propose(put(9)).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        write.await;
        gaps.push(before.elapsed());
        // RocksDB lets go of its lock once openraft's tasks have ended.
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.start(id).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    gaps.sort();
    println!("failover, five times: {gaps:.0?}");
}

#[tokio::main]
async fn main() {
    let mut cluster = Cluster::new().await;
    println!("fdatasync p50 of this disk, now: {:?}", sync_p50(cluster.dir.path()));
    let (leader, follower) = (cluster.leader().unwrap().clone(), cluster.follower().clone());
    for clients in [1, 16, 64, 256] {
        let leader = leader.clone();
        measure("write", clients, move |n| {
            let leader = leader.clone();
            async move { leader.propose(put(n)).await.is_ok() }
        })
        .await;
    }
    for (name, replica) in [("read barrier on leader", leader), ("read barrier on follower", follower)] {
        for clients in [1, 64] {
            let replica = replica.clone();
            measure(name, clients, move |_| {
                let replica = replica.clone();
                async move { replica.read_barrier().await.is_ok() }
            })
            .await;
        }
    }
    failover(&mut cluster).await;
}
