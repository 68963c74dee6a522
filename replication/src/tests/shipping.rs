//! Everything arrives, once and in order, whatever breaks on the way.

use std::sync::atomic::Ordering;
use std::time::Duration;

use arca_raft_storage::{MemberId, Replica as _};
use bytes::Bytes;
use tokio::time::sleep;

use super::region::{LONG, Region, dr_sieve, key, put, values_of};
use super::road::Road;
use crate::{Connection, Kind, State};

/// Two regions, one following the other.
pub(super) async fn pair(size: usize) -> (Region, Region, Road) {
    let (mut east, mut west) = (Region::new("east", size).await, Region::new("west", size).await);
    let road = Road::new("west", dr_sieve());
    east.lead(1, std::slice::from_ref(&road)).await;
    west.follow(&road);
    west.catch_up_with(&east).await;
    (east, west, road)
}

/// Numbers that follow one another whatever their seed.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn check_all(east: &Region, west: &Region) {
    west.catch_up_with(east).await;
    west.check_equal(east, &dr_sieve()).await;
    let counter = key(1, "n");
    let (sent, arrived) = (
        values_of(east.leader().await.as_ref(), &counter),
        values_of(west.leader().await.as_ref(), &counter),
    );
    assert_eq!(sent, (1..=sent.len() as u64).collect::<Vec<_>>());
    assert_eq!(arrived, sent, "each arrived once, in order");
}

#[tokio::test(start_paused = true)]
async fn everything_that_may_leave_arrives_and_nothing_else() {
    let (east, west, _road) = pair(3).await;
    for _ in 0..5 {
        // All but one at a time are refused, and tried again.
        futures::future::join_all((0..8).map(|_| east.count(b"\x01n"))).await;
    }
    for class in 0..4 {
        east.write(key(class, "k"), b"v").await;
        east.write(key(class, "own/k"), b"v").await;
    }
    check_all(&east, &west).await;
    let view = west.leader().await.view();
    let has = |key: &[u8]| view.get(key).unwrap().is_some();
    assert!((0..3).all(|class| has(&key(class, "k"))));
    assert!(has(&key(0, "own/k")) && has(&key(1, "own/k")));
    assert!(!has(&key(2, "own/k")) && !has(&key(3, "k")) && !has(&key(3, "own/k")));
    assert_eq!(view.get(&key(0, "ca")).unwrap().unwrap().value, b"west");
    assert_eq!(west.said.copies.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn leaders_die_and_links_break_and_each_write_arrives_once() {
    for seed in 1..4 {
        let (mut east, mut west, road) = pair(3).await;
        let mut dice = Dice(seed);
        for round in 0..12 {
            for _ in 0..4 {
                futures::future::join_all((0..6).map(|_| east.count(b"\x01n"))).await;
                sleep(Duration::from_millis(dice.roll(40))).await;
            }
            match dice.roll(4) {
                0 => {
                    let id = east.leader_id().await;
                    east.crash(id).await;
                    east.write(key(1, "while"), &[round]).await;
                    east.start(id).await;
                }
                1 => {
                    let id = west.leader_id().await;
                    west.crash(id).await;
                    east.write(key(1, "while"), &[round]).await;
                    west.start(id).await;
                }
                2 => {
                    road.cut().await;
                    east.count(b"\x01n").await;
                    road.heal();
                }
                _ => road.break_all().await,
            }
        }
        check_all(&east, &west).await;
        assert_eq!(west.said.copies.load(Ordering::Relaxed), 1, "seed {seed}: no second copy");
    }
}

#[tokio::test(start_paused = true)]
async fn segments_that_are_lost_repeated_swapped_or_altered_change_nothing() {
    let (east, west, road) = pair(3).await;
    let (mut dice, mut held) = (Dice(7), None::<Bytes>);
    let mut last = Bytes::new();
    road.meddle(move |segment| {
        let before = std::mem::replace(&mut last, segment.clone());
        if let Some(held) = held.take() {
            return vec![segment, held];
        }
        match dice.roll(12) {
            0 => vec![],
            1 => vec![segment.clone(), segment],
            2 => vec![before, segment],
            3 => {
                held = Some(segment);
                vec![]
            }
            4 => {
                let mut altered = segment.to_vec();
                let at = usize::try_from(dice.roll(altered.len() as u64)).unwrap();
                altered[at] ^= 1;
                vec![altered.into()]
            }
            5 => vec![segment.slice(..segment.len() / 2)],
            _ => vec![segment],
        }
    });
    for _ in 0..60 {
        futures::future::join_all((0..4).map(|_| east.count(b"\x01n"))).await;
        sleep(Duration::from_millis(50)).await;
    }
    road.leave_alone();
    check_all(&east, &west).await;
    assert!(road.streams() > 10, "{}", road.streams());
}

#[tokio::test(start_paused = true)]
async fn two_sinks_at_once_apply_each_write_once() {
    let (east, mut west, road) = pair(1).await;
    west.follow(&road);
    for _ in 0..40 {
        futures::future::join_all((0..4).map(|_| east.count(b"\x01n"))).await;
        sleep(Duration::from_millis(20)).await;
    }
    check_all(&east, &west).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_too_large_for_the_secondary_is_cut() {
    let mut east = Region::new("east", 1).await;
    let mut west = Region::tuned("west", 1, |config| config.limits.set_bytes = 64 << 10).await;
    let road = Road::new("west", dr_sieve());
    east.lead(1, std::slice::from_ref(&road)).await;
    west.follow(&road);
    west.catch_up_with(&east).await;
    let mut set = put(key(1, "first"), b"x");
    for n in 0..400 {
        set.writes.extend(put(key(1, &n.to_string()), &[5; 1000]).writes);
    }
    east.leader().await.propose(set).await.unwrap();
    for n in 0..50 {
        east.write(key(1, &n.to_string()), b"later").await;
    }
    check_all(&east, &west).await;
    // One that no cut makes small enough ends it, with the reason.
    east.write(key(1, "huge"), &vec![1; 100_000]).await;
    let ended = format!("{:?}", west.ended().await);
    assert!(ended.contains("over the limit of 65536"), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_lost_its_cluster_lets_its_secondary_go() {
    let (east, west, _road) = pair(3).await;
    let is_followed =
        |id: &MemberId| east.source(*id).secondaries(Kind::Dr).iter().any(|secondary| secondary.streams > 0);
    let id = east.running().into_iter().find(is_followed).unwrap();
    east.isolate(id);
    sleep(Duration::from_secs(5)).await;
    east.count(b"\x01n").await;
    check_all(&east, &west).await;
    assert!(!is_followed(&id));
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_is_current_and_what_is_cut_off_lags() {
    let (east, west, road) = pair(1).await;
    let index = east.write(key(1, "a"), b"1").await.index;
    west.catch_up_with(&east).await;
    sleep(Duration::from_secs(3)).await;
    let status = west.said.status.lock().clone();
    assert_eq!((status.state, status.connection), (State::StreamWals, Connection::Ready));
    assert_eq!((status.lag_entries(), status.lag_bytes), (0, 0));
    assert!(status.cursor.index >= index && status.complete_at_ms.is_some(), "{status:?}");
    let known =
        east.sources().iter().flat_map(|source| source.secondaries(road.sieve().kind)).next().unwrap();
    assert_eq!((known.id.as_str(), known.streams), ("west", 1));
    assert_eq!(known.acknowledged.map(|cursor| cursor.index), Some(status.cursor.index));
    assert!(known.bytes_sent > 0 && known.entries_sent > 0 && known.connected_at_ms.is_some());

    let lost_at_ms = status.heard_at_ms.unwrap();
    road.cut().await;
    for n in 0..20 {
        east.write(key(1, &n.to_string()), b"1").await;
    }
    sleep(LONG).await;
    let status = west.said.status.lock().clone();
    assert_eq!(status.connection, Connection::TransientFailure);
    assert!(status.problem.is_some() && status.lag_ms(lost_at_ms + 60_000) >= Some(59_000), "{status:?}");
    let known =
        east.sources().iter().flat_map(|source| source.secondaries(road.sieve().kind)).next().unwrap();
    assert_eq!((known.streams, known.connected_at_ms), (0, None));
    road.heal();
    west.catch_up_with(&east).await;
}

/// A segment that takes longer than any silence is waited for while the primary answers acknowledgements beside it.
#[tokio::test(start_paused = true)]
async fn a_large_segment_on_a_slow_line_is_not_taken_for_silence() {
    let (east, west, road) = pair(1).await;
    let begun = road.streams();
    road.hold_streams(Duration::from_secs(12));
    east.write(key(1, "large"), &[1; 100_000]).await;
    west.catch_up_with(&east).await;
    assert_eq!(road.streams(), begun, "no stream was begun anew");
    west.check_equal(&east, &dr_sieve()).await;
}
