//! Linearizable reads while members, links and leaders come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::support::{Cluster, put};
use crate::{Call, Replica};

#[tokio::test(start_paused = true)]
async fn readers_that_wait_together_share_a_question() {
    let cluster = Cluster::new(3).await;
    let follower = cluster.at(cluster.others().await[0]);
    let before = cluster.net.calls(Call::ReadIndex);
    let reads = futures::future::join_all((0..1000).map(|_| follower.read_barrier())).await;
    assert!(reads.iter().all(Result::is_ok));
    let asked = cluster.net.calls(Call::ReadIndex) - before;
    assert!(asked <= 3, "{asked} questions for 1000 readers");
}

/// Once a write is acknowledged, no later read anywhere shows an older value, whatever happens to links and leaders.
#[tokio::test(start_paused = true)]
async fn no_read_is_stale() {
    let cluster = Arc::new(Cluster::new(3).await);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicU64::new(0));
    let mut readers = Vec::new();
    for id in cluster.ids() {
        let (cluster, acknowledged, is_over) = (cluster.clone(), acknowledged.clone(), is_over.clone());
        readers.push(tokio::spawn(async move {
            let mut reads = 0u64;
            while is_over.load(Ordering::SeqCst) == 0 {
                let least = acknowledged.load(Ordering::SeqCst);
                if cluster.at(id).read_barrier().await.is_ok() {
                    let seen: u64 = cluster.peek(id, "n").map_or(0, |seen| seen.parse().unwrap());
                    assert!(seen >= least, "member {id} showed {seen} after {least} was acknowledged");
                    reads += 1;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            reads
        }));
    }
    for n in 1..=300u64 {
        if n % 30 == 0 {
            disturb(&cluster, n).await;
        }
        cluster.write("n", &n.to_string()).await;
        acknowledged.store(n, Ordering::SeqCst);
    }
    cluster.net.heal();
    is_over.store(1, Ordering::SeqCst);
    for reader in readers {
        assert!(reader.await.unwrap() > 300);
    }
    cluster.check_equal().await;
}

async fn disturb(cluster: &Cluster, n: u64) {
    cluster.net.heal();
    let leader = cluster.leader().await.status().id;
    let other = cluster.others().await[usize::try_from(n / 30 % 2).unwrap()];
    match n / 30 % 4 {
        0 => cluster.net.isolate(leader),
        1 => cluster.net.cut(leader, other),
        2 => cluster.net.cut(other, leader),
        _ => drop(cluster.at(leader).transfer_leadership(None).await),
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_member_withholds_its_vote_for_a_lease() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let others = cluster.others().await;
    // The leader hears one follower only, and that one restarts.
    let (away, back) = (others[0], others[1]);
    cluster.net.isolate(away);
    tokio::time::sleep(Duration::from_secs(5)).await;
    leader.propose(put("a", "old")).await.unwrap();
    let lease = cluster.nodes[&back].config.timings.election_max;
    cluster.crash(back);
    cluster.net.heal();
    let crashed = tokio::time::Instant::now();
    cluster.start(back).await;
    cluster.net.isolate(leader.status().id);
    let new = cluster.leader_among(&[away, back]).await;
    assert!(crashed.elapsed() >= lease, "a new leader after {:?}, within the lease", crashed.elapsed());
    assert_ne!(new.status().id, leader.status().id);
}
