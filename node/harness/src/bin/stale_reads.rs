//! Writes through one random node and reads through another, a million times: counts reads that did not show what had
//! been acknowledged. Fails when there is one.

#![allow(clippy::disallowed_methods)] // It reports real time.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arca_harness::stale::{Plan, Progress, run};
use arca_harness::{Cluster, ClusterOptions, HarnessError, cluster};
use serde_json::json;

const HELP: &str = "usage: arca-stale-reads [PAIRS [WORKERS]]      (1000000 and 128 when absent)
  The arca binary is the one beside this program, or ARCA_BIN.";

#[tokio::main]
async fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let pairs = args.next().map_or(Ok(1_000_000), |text| text.parse::<u64>());
    let workers = args.next().map_or(Ok(128), |text| text.parse::<usize>());
    let (Ok(pairs), Ok(workers)) = (pairs, workers) else {
        eprintln!("{HELP}");
        return ExitCode::FAILURE;
    };
    match count(pairs, workers).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("stale reads: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn count(pairs: u64, workers: usize) -> Result<u64, HarnessError> {
    let dir = tempfile::tempdir().map_err(|err| HarnessError::new("making a directory", err))?;
    let options =
        ClusterOptions { is_tls: false, ..ClusterOptions::new(cluster::find_binary()?, dir.path()) };
    let cluster = Cluster::up(options).await?;
    let mounted = cluster.client(0)?.write("sys/mounts/kv1", &json!({"type": "kv"})).await;
    mounted.map_err(|err| HarnessError::new("mounting kv1/", err))?;
    let plan = Plan {
        ports: cluster.nodes.iter().map(|node| node.port).collect(),
        token: cluster.root_token.clone(),
        workers,
        pairs,
    };
    let progress = Arc::new(Progress::default());
    let began = Instant::now();
    let mut running = tokio::spawn(run(plan, Arc::clone(&progress)));
    let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
    while tokio::time::timeout(Duration::from_secs(10), &mut running).await.is_err() {
        println!(
            "{} pairs, {} stale, {} failed requests",
            read(&progress.pairs),
            read(&progress.stale),
            read(&progress.failed)
        );
    }
    for example in progress.examples.lock().map(|found| found.clone()).unwrap_or_default() {
        println!("STALE {example}");
    }
    println!(
        "{} pairs in {:.0} s: {} stale, {} failed requests",
        read(&progress.pairs),
        began.elapsed().as_secs_f64(),
        read(&progress.stale),
        read(&progress.failed)
    );
    Ok(read(&progress.stale))
}
