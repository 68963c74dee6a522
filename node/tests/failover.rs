//! The active node dies by SIGKILL under steady writes through the standbys: nothing acknowledged is lost, somebody
//! else takes over, and the dead node rejoins by itself once it is unsealed. How fast is for `arca-failover` to measure:
//! a test machine may be slow, but not wrong.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::time::Duration;

use arca_harness::failover::{kill_active, p50_and_max};
use arca_harness::{Cluster, ClusterOptions};

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_active_node_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::up(ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.path())).await.unwrap();
    let mut kills = Vec::new();
    for round in 0..3 {
        kills.push(kill_active(&mut cluster, round).await.unwrap());
    }
    let (middle, max) = p50_and_max(&kills);
    println!("longest gap between acknowledged writes: p50 {middle:?}, max {max:?}; {kills:?}");
}

/// It cannot know whether another one leads by now: whoever balances load by its health sends nobody there.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_lost_its_quorum_is_not_called_active() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::up(ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.path())).await.unwrap();
    let active = cluster.active().await.unwrap();
    for at in (0..3).filter(|at| *at != active) {
        cluster.kill(at).unwrap();
    }
    let client = cluster.client(active).unwrap();
    let told = async {
        while !client.sys().health().await.unwrap().standby {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    assert!(!client.sys().leader().await.unwrap().is_self);
}
