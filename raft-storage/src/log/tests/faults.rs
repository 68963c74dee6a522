//! Disks that fail, fill up or hang, and what the log promises its callers meanwhile.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::*;
use crate::testing::{CrashPolicy, Operation};

type Outcomes = Arc<Mutex<Vec<(u64, bool)>>>;

fn entry(index: u64, size: usize) -> (EntryId, Payload) {
    let bytes = Bytes::from(vec![index as u8; size]);
    (EntryId { term: 1, leader: 1, index }, Payload { tag: 0, bytes })
}

fn append(log: &SegmentLog, index: u64, outcomes: &Outcomes) -> Result<(), LogError> {
    let outcomes = Arc::clone(outcomes);
    log.append(vec![entry(index, 100)], Box::new(move |result| outcomes.lock().push((index, result.is_ok()))))
}

fn big_segments(vfs: &ModelVfs) -> (SegmentLog, Writer) {
    SegmentLog::open(Arc::new(vfs.clone()), Options::new(DIR, CLUSTER)).unwrap()
}

#[test]
fn what_queues_up_shares_one_sync_and_is_told_in_order() {
    let vfs = ModelVfs::new(1);
    let (log, mut writer) = big_segments(&vfs);
    let syncs = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&syncs);
    vfs.set_hook(move |operation, _| {
        counter.fetch_add(u64::from(operation == Operation::Sync), Ordering::Relaxed);
    });
    let outcomes = Outcomes::default();
    (1..=100).for_each(|index| append(&log, index, &outcomes).unwrap());
    log.save_vote(Bytes::from_static(b"v"), ignore()).unwrap();
    assert!(outcomes.lock().is_empty(), "nothing is durable yet");
    assert_eq!(log.read(1..200, usize::MAX).unwrap().len(), 100, "but all is readable");
    writer.flush();
    assert_eq!(syncs.load(Ordering::Relaxed), 1);
    assert_eq!(*outcomes.lock(), (1..=100).map(|index| (index, true)).collect::<Vec<_>>());
    assert_eq!((log.stats().batches, log.stats().records), (1, 101));
}

/// Fails one operation in the middle of a run; the log must stop, say why, and be whole after a restart.
fn check_failure(operation: Operation, kind: ErrorKind) {
    let vfs = ModelVfs::new(5);
    let (log, mut writer) = big_segments(&vfs);
    let outcomes = Outcomes::default();
    append(&log, 1, &outcomes).unwrap();
    writer.flush();
    vfs.fail_nth(operation, 1, kind);
    append(&log, 2, &outcomes).unwrap();
    append(&log, 3, &outcomes).unwrap();
    writer.flush();
    append(&log, 4, &outcomes).expect_err("the log stopped");
    assert_eq!(*outcomes.lock(), [(1, true), (2, false), (3, false)]);
    let why = log.fatal().unwrap();
    assert!(why.contains("0000000001.seg") && why.contains("injected"), "{why}");
    assert!(matches!(log.save_committed(None), Err(LogError::Fatal(_))));
    writer.flush();
    drop((log, writer));

    // The process starts again; the machine kept running, so the page cache is still there.
    vfs.restart();
    let (log, _writer) = big_segments(&vfs);
    let shown = Reference::read(&log).unwrap();
    assert!(shown.entries.contains_key(&1) && shown.entries.keys().all(|index| *index <= 3), "{shown:?}");
    vfs.crash(CrashPolicy::LosePending);
    let (log, _writer) = big_segments(&vfs);
    assert_eq!(Reference::read(&log).unwrap(), shown, "what a restart showed is durable");
}

#[test]
fn a_failed_operation_stops_the_log_for_good() {
    check_failure(Operation::Sync, ErrorKind::Other);
    check_failure(Operation::Write, ErrorKind::Other);
    check_failure(Operation::Write, ErrorKind::StorageFull);
}

#[test]
fn a_full_disk_is_seen_before_and_costs_nothing_acknowledged() {
    let vfs = ModelVfs::new(5);
    let (log, mut writer) = big_segments(&vfs);
    assert!(log.has_room_on_disk().unwrap());
    let outcomes = Outcomes::default();
    append(&log, 1, &outcomes).unwrap();
    writer.flush();
    let used = log.stats().bytes;
    vfs.set_capacity(used + 100);
    assert!(!log.has_room_on_disk().unwrap());
    append(&log, 2, &outcomes).unwrap();
    writer.flush();
    assert!(log.fatal().unwrap().contains("full"), "{:?}", log.fatal());
    assert_eq!(vfs.contents(&segment(1)).unwrap().len() as u64, used, "the failed write was given back");
    assert_eq!(*outcomes.lock(), [(1, true), (2, false)]);
    vfs.restart();
    vfs.set_capacity(1 << 30);
    assert_eq!(big_segments(&vfs).0.state().last.map(|id| id.index), Some(1));
}

#[test]
fn the_committed_mark_never_overtakes_the_entries() {
    let vfs = ModelVfs::new(1);
    let (log, mut writer) = open(&vfs).unwrap();
    (1..=4).for_each(|index| log.append(vec![entry(index, 500)], ignore()).unwrap());
    log.save_committed(Some(entry(4, 0).0)).unwrap();
    writer.flush();
    vfs.crash(CrashPolicy::LosePending);
    let state = open(&vfs).unwrap().0.state();
    assert_eq!((state.last.map(|id| id.index), state.committed), (Some(2), None), "one batch of two");
}

#[test]
fn a_lost_writer_stops_the_log() {
    let (log, writer) = big_segments(&ModelVfs::new(1));
    let outcomes = Outcomes::default();
    append(&log, 1, &outcomes).unwrap();
    drop(writer);
    assert_eq!(*outcomes.lock(), [(1, false)]);
    assert_eq!(log.fatal().as_deref(), Some("the log's writer is gone"));
}

#[test]
fn bad_calls_are_refused_and_change_nothing() {
    let (log, mut writer) = big_segments(&ModelVfs::new(1));
    log.append(vec![entry(5, 1)], ignore()).unwrap();
    let refused = |entries| log.append(entries, ignore()).unwrap_err();
    assert!(matches!(refused(vec![entry(7, 1)]), LogError::Gap { expected: 6, found: 7 }));
    assert!(matches!(refused(vec![entry(6, 1), entry(6, 1)]), LogError::Gap { expected: 7, found: 6 }));
    assert!(matches!(refused(vec![entry(6, PAYLOAD_MAX + 1)]), LogError::TooLarge { .. }));
    assert_eq!(log.state().last.map(|id| id.index), Some(5));
    log.close(ignore());
    assert!(matches!(refused(vec![entry(6, 1)]), LogError::Closed));
    writer.flush();
    assert!(log.fatal().is_none());
}

#[test]
fn purged_segments_go_once_the_record_is_durable() {
    let vfs = ModelVfs::new(1);
    let mut driver = Driver::new(open(&vfs).unwrap(), Reference::default());
    for _ in 0..6 {
        driver.run(&Op::Append(vec![700, 700])).unwrap();
        driver.run(&Op::Flush).unwrap();
    }
    let before = driver.log.segments();
    assert!(before.len() >= 6, "{before:?}");
    assert_eq!(driver.log.purge_up_to(99).unwrap(), None, "an index it does not hold");
    let purged = driver.log.purge_up_to(7).unwrap().unwrap();
    assert_eq!(driver.log.segments(), before, "not before it is durable");
    driver.writer.flush();
    let after = driver.log.segments();
    assert!(
        after.len() < before.len()
            && after.iter().all(|segment| segment.indexes.is_none_or(|(_, last)| last > 7))
    );
    assert_eq!(driver.log.state().first, Some(8));
    drop(driver);
    let (log, _writer) = open(&vfs).unwrap();
    assert_eq!((log.state().purged, log.state().first), (Some(purged), Some(8)));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_disk_shows_and_holds_back_the_caller() {
    let vfs = ModelVfs::new(1);
    let options = Options { queue_bytes: 250, ..options() };
    let (log, mut writer) = SegmentLog::open(Arc::new(vfs), options).unwrap();
    assert_eq!(log.pending_age(), None);
    let outcomes = Outcomes::default();
    (1..=3).for_each(|index| append(&log, index, &outcomes).unwrap());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(log.pending_age(), Some(Duration::from_secs(5)));
    let waits = tokio::time::timeout(Duration::from_secs(1), log.room()).await;
    assert!(waits.is_err(), "300 bytes are queued, 250 are allowed");
    writer.flush();
    log.room().await;
    assert_eq!(log.pending_age(), None);
}

#[tokio::test(start_paused = true)]
async fn the_writer_runs_as_a_task_until_the_log_is_closed() {
    let vfs = ModelVfs::new(1);
    let (log, writer) = big_segments(&vfs);
    let task = tokio::spawn(writer.run());
    let (tx, rx) = tokio::sync::oneshot::channel();
    log.append(vec![entry(1, 1)], Box::new(|result| tx.send(result).unwrap())).unwrap();
    rx.await.unwrap().unwrap();
    log.save_committed(Some(EntryId { term: 1, leader: 1, index: 1 })).unwrap();
    drop(log);
    task.await.unwrap();
    vfs.crash(CrashPolicy::LosePending);
    let (log, _writer) = big_segments(&vfs);
    assert_eq!(log.state().committed.map(|id| id.index), Some(1), "closing writes the mark");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_acknowledged_while_a_sync_takes_its_time() {
    let vfs = ModelVfs::new(1);
    vfs.set_sync_time(|| Duration::from_millis(30));
    let (log, writer) = big_segments(&vfs);
    tokio::spawn(writer.run());
    let outcomes = Outcomes::default();
    append(&log, 1, &outcomes).unwrap();
    tokio::time::sleep(Duration::from_millis(29)).await;
    assert!(outcomes.lock().is_empty());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(*outcomes.lock(), [(1, true)]);
    append(&log, 2, &outcomes).unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    vfs.crash(CrashPolicy::LosePending);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(*outcomes.lock(), [(1, true), (2, false)], "the power went before the sync");
    let (log, _writer) = big_segments(&vfs);
    assert_eq!(log.state().last.map(|id| id.index), Some(1));
}
