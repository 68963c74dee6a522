//! A secondary that was cut off for a day of load: what it takes to be current again, by segments or by comparison.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_raft_storage::{RaftConfig, Replica as _, Write, WriteSet};
use tokio::time::sleep;

use super::region::{Region, dr_sieve, key};
use super::road::Road;
use super::shipping::Dice;

/// Entries that there are, of about a KiB each.
const ENTRIES: u64 = 10_000;
const VALUE_BYTES: usize = 1000;
/// The cut, in minutes; each has one commit.
const MINUTES: u64 = 24 * 60;
/// Entries that each commit changes.
const CHANGES: u64 = 8;

/// Writes these entries anew; what they weigh.
async fn write(region: &Region, names: &[u64], value: u8) -> usize {
    let entry = |name: &u64| Write::Put(key(1, &format!("{name:08}")), vec![value; VALUE_BYTES]);
    let writes: Vec<Write> = names.iter().map(entry).collect();
    let bytes = writes.iter().map(Write::bytes).sum();
    region.leader().await.propose(WriteSet { reads: vec![], writes }).await.unwrap();
    bytes
}

/// What a day of load weighs: all of it, and what it changed in the end.
struct Day {
    written: usize,
    changed: usize,
}

async fn live_a_day(region: &Region, hot: u64) -> Day {
    let (mut dice, mut written, mut last) = (Dice(24), 0, BTreeMap::new());
    for minute in 0..MINUTES {
        let names: Vec<u64> = (0..CHANGES).map(|_| dice.roll(hot)).collect();
        let value = u8::try_from(2 + minute % 250).unwrap();
        let bytes = write(region, &names, value).await;
        written += bytes;
        last.extend(names.iter().map(|name| (*name, bytes / names.len())));
        sleep(Duration::from_secs(60)).await;
    }
    Day { written, changed: last.values().sum() }
}

/// A member that need not look after itself every moment of a day.
fn unhurried(config: &mut RaftConfig) {
    config.timings.heartbeat = Duration::from_secs(20);
    config.timings.election_min = Duration::from_secs(40);
    config.timings.election_max = Duration::from_secs(50);
    config.timings.check = Duration::from_secs(20);
    config.retention.bytes = 0;
}

/// A log that holds some minutes of it.
fn short(config: &mut RaftConfig) {
    unhurried(config);
    config.retention.bytes_max = 256 << 10;
    config.limits.segment_bytes = 64 << 10;
}

/// Bytes that it took to be current again after the cut, and how heavy the day was.
async fn cut_off_for_a_day(tune: fn(&mut RaftConfig), hot: u64) -> (usize, Day, bool) {
    let mut east = Region::tuned("east", 1, tune).await;
    let mut west = Region::tuned("west", 1, unhurried).await;
    for first in (0..ENTRIES).step_by(500) {
        write(&east, &(first..first + 500).collect::<Vec<_>>(), 1).await;
    }
    let road = Road::comparing("west", dr_sieve());
    east.lead(1, std::slice::from_ref(&road)).await;
    west.follow(&road);
    west.catch_up_with(&east).await;
    road.cut().await;
    let day = live_a_day(&east, hot).await;
    let (arrived, compared) = (road.arrived(), west.said.compared());
    road.heal();
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
    (road.arrived() - arrived, day, west.said.compared() > compared)
}

#[tokio::test(start_paused = true)]
async fn a_day_that_the_log_still_has_is_sent_as_segments() {
    let (arrived, day, compared) = cut_off_for_a_day(unhurried, ENTRIES).await;
    assert!(!compared, "the log is kept for a secondary that is known");
    assert!(arrived * 10 <= day.written * 12, "{arrived} bytes for {}", day.written);
}

#[tokio::test(start_paused = true)]
async fn of_a_day_that_the_log_has_lost_only_what_changed_is_sent() {
    // Entries change many times each, and most never.
    let (arrived, day, compared) = cut_off_for_a_day(short, 1_000).await;
    assert!(compared);
    assert!(day.changed * 5 < day.written);
    assert!(arrived * 10 <= day.changed * 12, "{arrived} bytes for {}", day.changed);
}
