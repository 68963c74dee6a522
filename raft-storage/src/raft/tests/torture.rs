//! Everything at once: power losses that tear and reorder, links that come and go, hand-overs, while clients write and
//! read everywhere. Whatever was acknowledged stays, no read goes back in time, and in the end all members are equal.
//!
//! `ARCA_SEEDS=1000` runs more of it; `ARCA_SEED=7` runs one seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use tokio::task::JoinHandle;

use super::support::{Cluster, bytes, put};
use crate::raft::{RaftConfig, RaftReplica};
use crate::testing::CrashPolicy;
use crate::{MemberId, ProposeError, Replica, Role};

const CLIENTS: u64 = 4;
const STEPS: u64 = 40;

pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

/// What clients see of the cluster.
#[derive(Clone, Default)]
pub(super) struct Town {
    pub(super) members: Arc<RwLock<BTreeMap<MemberId, Arc<RaftReplica>>>>,
    acknowledged: Arc<[AtomicU64; CLIENTS as usize]>,
    is_over: Arc<AtomicBool>,
}

impl Town {
    /// Sets the clients to work.
    pub(super) fn settle(cluster: &Cluster, seed: u64) -> (Self, Vec<JoinHandle<()>>) {
        let town = Self::default();
        town.members.write().extend(cluster.ids().into_iter().map(|id| (id, cluster.at(id))));
        let clients = (0..CLIENTS).flat_map(|client| {
            let at = usize::try_from(client).unwrap();
            let reader = Dice(seed ^ (client + 1) << 20);
            [tokio::spawn(town.clone().write(at)), tokio::spawn(town.clone().read(at, reader))]
        });
        let clients = clients.collect();
        (town, clients)
    }

    fn any(&self, dice: &mut Dice) -> Option<(MemberId, Arc<RaftReplica>)> {
        let members: Vec<_> = self.members.read().iter().map(|(id, member)| (*id, member.clone())).collect();
        let at = usize::try_from(dice.roll(members.len().max(1) as u64)).unwrap();
        members.into_iter().nth(at)
    }

    fn leader(&self) -> Option<Arc<RaftReplica>> {
        self.members.read().values().find(|member| member.status().role == Role::Leader).cloned()
    }

    /// Counts up its key; a write whose outcome is unknown is not repeated.
    async fn write(self, client: usize) {
        let mut n = 1;
        while !self.is_over.load(Ordering::SeqCst) {
            let Some(leader) = self.leader() else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            match leader.propose(put(&client.to_string(), &n.to_string())).await {
                Ok(_) => {
                    self.acknowledged[client].fetch_max(n, Ordering::SeqCst);
                    n += 1;
                }
                Err(ProposeError::OutcomeUnknown) => n += 1,
                Err(_) => {}
            }
            // Time only passes while everybody waits.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn read(self, client: usize, mut dice: Dice) {
        while !self.is_over.load(Ordering::SeqCst) {
            if let Some((id, member)) = self.any(&mut dice) {
                let least = self.acknowledged[client].load(Ordering::SeqCst);
                if member.read_barrier().await.is_ok() {
                    let seen = counted(&member, client);
                    assert!(
                        seen >= least,
                        "member {id} shows {seen} of client {client}, {least} was acknowledged"
                    );
                    // What one reader saw, all must see from now on.
                    self.acknowledged[client].fetch_max(seen, Ordering::SeqCst);
                }
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

fn counted(member: &RaftReplica, client: usize) -> u64 {
    let found = member.view().get(&bytes(&client.to_string())).unwrap();
    found.map_or(0, |found| String::from_utf8(found.value).unwrap().parse().unwrap())
}

/// Short of memory, a log is purged early, and whoever missed something needs a snapshot.
pub(super) fn tight(config: &mut RaftConfig) {
    config.retention.bytes = 0;
    config.limits.segment_bytes = 4096;
}

/// Lets everything pass again and starts who is down.
pub(super) async fn mend(cluster: &mut Cluster, town: &Town) {
    cluster.net.heal();
    for id in cluster.ids() {
        if !cluster.running().contains(&id) {
            cluster.start(id).await;
            town.members.write().insert(id, cluster.at(id));
        }
    }
}

pub(super) async fn step(cluster: &mut Cluster, town: &Town, dice: &mut Dice) {
    let (ids, running) = (cluster.ids(), cluster.running());
    let (one, other) = (dice.pick(&ids), dice.pick(&ids));
    match dice.roll(10) {
        0..3 if !running.is_empty() => {
            let id = dice.pick(&running);
            let policies = [
                CrashPolicy::KeepPending,
                CrashPolicy::KeepPrefix,
                CrashPolicy::LosePending,
                CrashPolicy::Reorder { block: 512 },
                CrashPolicy::Torn { block: 1 },
            ];
            town.members.write().remove(&id);
            cluster.crash_with(id, dice.pick(&policies), dice.roll(1 << 30));
        }
        0..5 => {
            for id in ids.into_iter().filter(|id| !running.contains(id)) {
                cluster.start(id).await;
                town.members.write().insert(id, cluster.at(id));
            }
        }
        5 => cluster.net.isolate(one),
        6 => cluster.net.cut(one, other),
        7 if running.contains(&one) => {
            // It may not lead, or nobody may be there to take over.
            let _ = cluster.at(one).transfer_leadership(None).await;
        }
        8 if running.contains(&one) => drop(cluster.at(one).flush().await.unwrap()),
        _ => cluster.net.heal(),
    }
    tokio::time::sleep(Duration::from_millis(dice.roll(1500))).await;
}

async fn run(seed: u64) {
    let mut dice = Dice(seed);
    let mut cluster = Cluster::tuned(3, tight).await;
    let (town, clients) = Town::settle(&cluster, seed);
    for _ in 0..STEPS {
        step(&mut cluster, &town, &mut dice).await;
    }
    finish(&mut cluster, &town, clients).await;
}

/// Ends the clients' work and checks what is left of it.
pub(super) async fn finish(cluster: &mut Cluster, town: &Town, clients: Vec<JoinHandle<()>>) {
    mend(cluster, town).await;
    town.is_over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    cluster.check_equal().await;
    for client in 0..usize::try_from(CLIENTS).unwrap() {
        let least = town.acknowledged[client].load(Ordering::SeqCst);
        assert!(least > 0, "client {client} wrote nothing");
        for id in cluster.ids() {
            assert!(counted(&cluster.at(id), client) >= least, "member {id} lost a write of client {client}");
        }
    }
}

#[test]
fn what_is_acknowledged_survives_everything() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = number("ARCA_SEED").map_or(0..number("ARCA_SEEDS").unwrap_or(10), |seed| seed..seed + 1);
    for seed in seeds {
        // Shown when it fails.
        println!("seed {seed}");
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(seed));
    }
}
