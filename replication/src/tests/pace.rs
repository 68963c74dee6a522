//! A secondary keeps up with a busy primary over a long way, and costs it little.

use std::time::Duration;

use arca_raft_storage::{Replica as _, Write, WriteSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::filters::{cursor, follow, next, primary};
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

/// Each one costs both sides something, however little is in it.
#[tokio::test(start_paused = true)]
async fn segments_of_a_busy_primary_carry_several_entries() {
    let east = primary().await;
    let mut stream = follow(&east, cursor(&east).await).await;
    let name = |n: u64| key(1, &n.to_string());
    east.write(name(0), b"x").await;
    let began = Instant::now();
    assert_eq!(next(&mut stream).await, Ok(vec![name(0)]));
    assert_eq!(began.elapsed(), Duration::ZERO, "what comes after silence is sent at once");
    let writes = async {
        for n in 1..=10 {
            sleep(Duration::from_millis(1)).await;
            east.write(name(n), b"x").await;
        }
    };
    let reads = async {
        let mut segments = Vec::new();
        while segments.iter().map(Vec::len).sum::<usize>() < 10 {
            segments.push(next(&mut stream).await.unwrap());
        }
        segments
    };
    let ((), segments) = tokio::join!(writes, reads);
    assert_eq!(segments, [(1..=10).map(name).collect::<Vec<_>>()]);
}
