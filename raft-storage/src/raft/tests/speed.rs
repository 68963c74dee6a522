//! How much faster than the clock a simulated cluster runs. Measures, and judges nothing:
//!
//! `cargo test -p arca-raft-storage --lib speed -- --ignored --nocapture`

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::support::{Cluster, put};
use super::trace::Trace;
use crate::Replica;

/// Simulated.
const LENGTH: Duration = Duration::from_secs(600);

/// What this thread has had of a processor so far.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// Lets three members run with so many clients, each of which waits for `pause` after every write.
async fn measure(clients: usize, pause: Duration) {
    let trace = Trace::new();
    let cluster = Cluster::seeded(3, |_| {}, 1, trace.clone()).await;
    let leader = cluster.leader().await;
    let lines = trace.text().lines().count();
    let (began, before, index) = (Instant::now(), processor_time(), leader.status().applied_index);
    let client = async |number: usize| {
        while began.elapsed() < LENGTH {
            leader.propose(put(&format!("{number}"), "a value of some length")).await.unwrap();
            sleep(pause).await;
        }
    };
    futures::future::join(sleep(LENGTH), futures::future::join_all((0..clients).map(client))).await;
    let spent = processor_time() - before;
    let entries = leader.status().applied_index - index;
    let lines = trace.text().lines().count() - lines;
    let ratio = began.elapsed().as_secs_f64() / spent.as_secs_f64();
    println!(
        "{clients} clients, a write each {pause:?}: {entries} entries and {lines} lines of trace \
         in {LENGTH:?}, {spent:?} of a processor: {ratio:.0} times as fast"
    );
}

#[test]
#[ignore = "a measurement"]
fn speed_of_a_simulated_cluster() {
    for (clients, pause) in [(0, 0), (1, 1000), (1, 100), (4, 10), (4, 1)] {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(measure(clients, Duration::from_millis(pause)));
    }
}
