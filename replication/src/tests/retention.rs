//! The log is kept for as long as a secondary needs it, as far as it may grow at all; then a comparison does it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use arca_raft_storage::{Changes as _, RaftConfig, Replica as _, Visit};
use tokio::time::sleep;

use super::region::{Region, dr_sieve, key};
use super::road::Road;
use crate::record::ACKNOWLEDGED;

fn small(config: &mut RaftConfig) {
    config.retention.bytes = 0;
    config.limits.segment_bytes = 4096;
    config.flush.interval = Duration::from_secs(1);
}

fn tiny(config: &mut RaftConfig) {
    small(config);
    config.retention.bytes_max = 16 << 10;
}

async fn pair(tune: fn(&mut RaftConfig)) -> (Region, Region, Road) {
    follow(Region::tuned("east", 3, tune).await).await
}

async fn follow(mut east: Region) -> (Region, Region, Road) {
    let mut west = Region::new("west", 1).await;
    let road = Road::new("west", dr_sieve());
    east.lead(1, std::slice::from_ref(&road)).await;
    west.follow(&road);
    west.catch_up_with(&east).await;
    (east, west, road)
}

async fn fill(region: &Region) {
    for n in 0..200 {
        region.write(key(1, &n.to_string()), &[1; 200]).await;
    }
    sleep(Duration::from_secs(20)).await;
}

#[tokio::test(start_paused = true)]
async fn every_member_keeps_what_a_secondary_needs_even_after_a_restart() {
    let (mut east, west, road) = pair(small).await;
    sleep(Duration::from_secs(2)).await;
    road.cut().await;
    let behind = west.cursor().await.index;
    fill(&east).await;
    for id in east.running() {
        assert!(east.at(id).changes(behind, 1).is_ok(), "{id} kept it");
        east.crash(id).await;
        east.start(id).await;
    }
    fill(&east).await;
    for id in east.running() {
        assert!(east.at(id).changes(behind, 1).is_ok(), "{id} still kept it");
    }
    road.heal();
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
    assert_eq!(west.said.copies.load(Ordering::Relaxed), 1);
    // Now nobody needs it any more.
    east.set_primary(None);
    fill(&east).await;
    for id in east.running() {
        assert!(east.at(id).changes(behind, 1).is_err(), "{id} let it go");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_is_not_kept_for_ever_for_a_secondary_that_shows_no_life() {
    let mut east = Region::tuned("east", 3, small).await;
    east.retention_time = Duration::from_secs(1_000);
    let (east, west, road) = follow(east).await;
    road.cut().await;
    let behind = west.cursor().await.index;
    fill(&east).await;
    sleep(Duration::from_secs(800)).await;
    fill(&east).await;
    for id in east.running() {
        assert!(east.at(id).changes(behind, 1).is_ok(), "{id} still kept it");
    }
    sleep(Duration::from_secs(300)).await;
    fill(&east).await;
    for id in east.running() {
        assert!(east.at(id).changes(behind, 1).is_err(), "{id} let it go");
    }
    road.heal();
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
    assert_eq!(west.said.copies.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn what_outgrows_the_log_is_compared() {
    let (east, west, road) = pair(tiny).await;
    road.cut().await;
    let behind = west.cursor().await.index;
    fill(&east).await;
    for id in east.running() {
        assert!(east.at(id).changes(behind, 1).is_err());
    }
    road.heal();
    west.catch_up_with(&east).await;
    west.check_equal(&east, &dr_sieve()).await;
    assert_eq!(west.said.copies.load(Ordering::Relaxed), 2);
    assert_eq!(*west.said.ended.lock(), None);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_are_recorded_seldom_and_forgotten_with_the_secondary() {
    let (mut east, west, _road) = pair(small).await;
    fill(&east).await;
    west.catch_up_with(&east).await;
    let before = east.leader().await.view().index();
    sleep(Duration::from_secs(500)).await;
    let idle = east.leader().await.view().index() - before;
    assert!(idle <= 2, "{idle} entries of an idle primary");
    assert_eq!(acknowledged(&east).await, 1);
    east.set_primary(None);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(acknowledged(&east).await, 0);
}

/// How many secondaries it has records of.
async fn acknowledged(region: &Region) -> usize {
    let mut found = 0;
    let view = region.leader().await.view();
    let mut visitor = |_: &[u8], _: &[u8], _| {
        found += 1;
        Visit::Next
    };
    view.visit(&ACKNOWLEDGED, Some(&[3, 0, 0, b'b']), &mut visitor).unwrap();
    found
}
