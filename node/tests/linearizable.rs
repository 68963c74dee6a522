//! What was acknowledged on one node is there on every other one at once, also while the active node dies and comes
//! back. `arca-stale-reads` does the same a million times.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arca_harness::stale::{Plan, Progress, run};
use arca_harness::{Cluster, ClusterOptions};
use serde_json::json;

/// How many pairs are asked for before the next thing happens.
const STAGE: u64 = 1_500;

async fn reach(cluster: &Cluster, progress: &Progress, pairs: u64) {
    let done = || async { (progress.pairs.load(Ordering::Relaxed) >= pairs).then_some(()) };
    cluster.wait_for(&format!("{pairs} pairs"), Duration::from_secs(60), done).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_elsewhere_misses_an_acknowledged_write() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        ClusterOptions { is_tls: false, ..ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.path()) };
    let mut cluster = Cluster::up(options).await.unwrap();
    cluster.client(0).unwrap().write("sys/mounts/kv1", &json!({"type": "kv"})).await.unwrap();
    let plan = Plan {
        ports: cluster.nodes.iter().map(|node| node.port).collect(),
        token: cluster.root_token.clone(),
        workers: 16,
        pairs: 4 * STAGE,
    };
    let progress = Arc::new(Progress::default());
    let running = tokio::spawn(run(plan, Arc::clone(&progress)));
    reach(&cluster, &progress, STAGE).await;
    let active = cluster.active().await.unwrap();
    cluster.kill(active).unwrap();
    let so_far = progress.pairs.load(Ordering::Relaxed);
    reach(&cluster, &progress, so_far + STAGE / 2).await;
    cluster.launch(active).unwrap();
    cluster.unseal(active).await.unwrap();
    reach(&cluster, &progress, 4 * STAGE).await;
    running.await.unwrap();
    let examples = progress.examples.lock().unwrap().clone();
    assert_eq!(progress.stale.load(Ordering::Relaxed), 0, "{examples:#?}");
}
