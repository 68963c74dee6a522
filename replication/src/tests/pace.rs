//! A secondary keeps up with a busy primary over a long way.

use std::time::Duration;

use arca_raft_storage::{Replica as _, Write, WriteSet};
use tokio::time::{Instant, sleep_until};

use super::region::{clock, dr_sieve, key};
use super::shipping::pair;

/// 5,000 writes of 200 bytes a second, for ten seconds, over 80 milliseconds there and back.
#[tokio::test(start_paused = true)]
async fn a_second_is_the_most_that_is_behind_at_five_thousand_writes_a_second() {
    let (east, west, road) = pair(3).await;
    road.set_latency(Duration::from_millis(40));
    road.break_all().await;
    let (leader, follower, clock) = (east.leader().await, west.leader().await, clock());
    let begin = Instant::now();
    let (mut lags_ms, mut writes) = (Vec::new(), Vec::new());
    for tick in 0..1000_u64 {
        sleep_until(begin + Duration::from_millis(10 * tick)).await;
        for n in 0..50_u64 {
            let name = format!("{}", (tick * 50 + n) % 4000);
            let mut value = clock().to_be_bytes().to_vec();
            value.resize(200, 0);
            let set = WriteSet { reads: vec![], writes: vec![Write::Put(key(1, &name), value)] };
            let leader = leader.clone();
            writes.push(tokio::spawn(async move { leader.propose(set).await }));
        }
        // The newest of what arrived, by when it was written.
        let newest =
            (0..4000_u64).step_by(50).filter_map(|n| follower.view().get(&key(1, &n.to_string())).unwrap());
        let newest = newest.map(|found| u64::from_be_bytes(found.value[..8].try_into().unwrap())).max();
        lags_ms.push(newest.map_or(0, |newest| clock() - newest));
    }
    for write in writes {
        write.await.unwrap().unwrap();
    }
    lags_ms.sort_unstable();
    let late = lags_ms[lags_ms.len() * 99 / 100];
    assert!(late <= 1000, "{late} ms behind");
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
}
