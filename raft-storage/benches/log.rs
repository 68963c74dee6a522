//! How fast the log acknowledges: batches of 1, 16 and 128 entries appended, written with one write and one sync.
//!
//! Run with `cargo bench -p arca-raft-storage --bench log`. The disk's own fdatasync time is printed beside it: a rate
//! means nothing without it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark may stop at the first surprise"
)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use arca_raft_storage::log::{ClusterId, EntryId, Options, Payload, SegmentLog};
use arca_raft_storage::vfs::{OsVfs, Vfs};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PAYLOAD_BYTES: usize = 512;
const SYNCS: usize = 200;
const PURGE_EVERY: u64 = 1 << 16;

/// Median time of one 4 KiB append and its fdatasync in `dir`.
#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn fdatasync_p50(dir: &Path) -> Duration {
    let file = OsVfs.create(&dir.join("fdatasync")).unwrap();
    let block = [7; 4096];
    let mut times: Vec<Duration> = (0..SYNCS)
        .map(|turn| {
            let started = Instant::now();
            file.write_at(&block, (turn * block.len()) as u64).unwrap();
            file.sync_data().unwrap();
            started.elapsed()
        })
        .collect();
    times.sort();
    OsVfs.remove(&dir.join("fdatasync")).unwrap();
    times[SYNCS / 2]
}

fn append_and_sync(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    println!("fdatasync p50 of this disk, now: {:?}", fdatasync_p50(dir.path()));
    let (log, writer) =
        SegmentLog::open(Arc::new(OsVfs), Options::new(dir.path().join("log"), ClusterId([1; 16]))).unwrap();
    let thread = writer.spawn().unwrap();
    let payload = Payload { tag: 1, bytes: Bytes::from(vec![9; PAYLOAD_BYTES]) };
    let mut next = 1;
    let mut group = criterion.benchmark_group("log/append_and_sync");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for batch in [1_u64, 16, 128] {
        group.throughput(Throughput::Elements(batch));
        group.bench_function(BenchmarkId::from_parameter(batch), |bencher| {
            bencher.iter(|| {
                let entries = (next..next + batch)
                    .map(|index| (EntryId { term: 1, leader: 1, index }, payload.clone()))
                    .collect();
                next += batch;
                let (tx, rx) = mpsc::channel();
                log.append(entries, Box::new(move |result| tx.send(result).unwrap())).unwrap();
                rx.recv().unwrap().unwrap();
                if next % PURGE_EVERY < batch {
                    log.purge_up_to(next - 1).unwrap();
                }
            });
        });
    }
    group.finish();
    black_box(log.stats());
    log.close(Box::new(|result| result.unwrap()));
    thread.join().unwrap();
}

criterion_group!(benches, append_and_sync);
criterion_main!(benches);
