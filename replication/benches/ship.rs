//! Two clusters of one member each in one process, on real files and RocksDB, the one following the other over a way that
//! takes no time: what shipping itself costs the primary, and how far the secondary is behind.
//!
//! Run with `cargo bench -p arca-replication --bench ship`. It prints a table.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a benchmark may stop at the first surprise"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arca_raft_storage::kv::{RocksHome, RocksOptions};
use arca_raft_storage::{
    Changes, Member, MemberId, Nobody, OsVfs, RaftConfig, RaftParts, RaftReplica, Replica as _, Write,
    WriteSet,
};
use arca_replication::{
    Call, Catchup, CatchupError, Cursor, Epoch, History, Kind, Link, LinkError, PayloadStream, Primary,
    Sieve, Sink, SinkSettings, Source, SourceSettings, Tell, cursor_key,
};
use async_trait::async_trait;
use bytes::Bytes;

const MEASURE: Duration = Duration::from_secs(5);
const VALUE_BYTES: usize = 200;
const CLIENTS: u64 = 64;
const SECONDARY: &str = "west";

#[derive(Debug)]
struct Direct(Arc<Source>);

#[async_trait]
impl Link for Direct {
    async fn call(&self, call: Call, payload: Bytes) -> Result<Bytes, LinkError> {
        Ok(self.0.serve(SECONDARY, &Sieve::new(Kind::Dr), call, payload).await?)
    }

    async fn stream(&self, call: Call, payload: Bytes) -> Result<PayloadStream, LinkError> {
        Ok(self.0.stream(SECONDARY, &Sieve::new(Kind::Dr), call, payload).await?)
    }
}

/// Both begin empty.
#[derive(Debug)]
struct Never;

#[async_trait]
impl Catchup for Never {
    async fn catch_up(&self, _: &Arc<dyn Link>, _: &Tell) -> Result<Cursor, CatchupError> {
        panic!("the log was purged")
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

async fn open(dir: &Path) -> Arc<RaftReplica> {
    let id = MemberId(1);
    let parts = RaftParts {
        vfs: Arc::new(OsVfs),
        log_dir: dir.join("log"),
        node_dir: dir.to_path_buf(),
        home: Arc::new(RocksHome::new(dir.join("state"), RocksOptions::default())),
        transport: Arc::new(Nobody),
    };
    let replica = RaftReplica::open(RaftConfig::new(id, dir.display().to_string()), parts).await.unwrap();
    let me = Member { id, name: "n1".to_owned(), cluster_addr: String::new(), api_addr: String::new() };
    replica.bootstrap(me, put(0)).await.unwrap();
    replica
}

fn put(n: u64) -> WriteSet {
    let key = [&[1], &n.to_be_bytes()[..], &[5; 40]].concat();
    WriteSet { reads: vec![], writes: vec![Write::Put(key, vec![7; VALUE_BYTES])] }
}

/// Writes at `rate` a second, or as many as it can at zero; prints how many it were, and how far `west` was behind.
async fn load(name: &str, rate: u64, east: &Arc<RaftReplica>, sink: Option<&Sink>) {
    let started = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let east = east.clone();
            tokio::spawn(async move {
                let mut count = 0_u64;
                while started.elapsed() < MEASURE {
                    east.propose(put(client << 32 | (count % 1000))).await.unwrap();
                    count += 1;
                    if let Some(due_us) = (count * 1_000_000 * CLIENTS).checked_div(rate) {
                        let due = started + Duration::from_micros(due_us);
                        tokio::time::sleep_until(due.into()).await;
                    }
                }
                count
            })
        })
        .collect();
    let mut lags_ms = vec![0];
    while let (Some(sink), true) = (sink, started.elapsed() < MEASURE) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        lags_ms.push(sink.status().borrow().lag_ms(now_ms()).unwrap_or(0));
    }
    let mut count = 0;
    for client in clients {
        count += client.await.unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    let index = east.view().index();
    let caught_up = async {
        while sink.is_some_and(|sink| sink.status().borrow().cursor.index < index) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let stopped = Instant::now();
    caught_up.await;
    lags_ms.sort_unstable();
    let p99 = lags_ms[lags_ms.len() * 99 / 100];
    let after = stopped.elapsed();
    println!(
        "{name:<32} {:>8.0} writes/s   lag p99 {p99:>5} ms   all there after {after:.0?}",
        count as f64 / seconds
    );
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let (east, west) = (open(&dir.path().join("east")).await, open(&dir.path().join("west")).await);
    load("alone, 5,000/s", 5000, &east, None).await;
    load("alone, all it can", 0, &east, None).await;

    let changes: Arc<dyn Changes> = east.clone();
    let history = History::begin(&changes, [1; 16]).await.unwrap();
    let source = Source::new(changes, SourceSettings::default(), Arc::new(now_ms));
    let secondaries = [SECONDARY.to_owned()].into();
    source.set_primary(Kind::Dr, Some(Primary { epoch: Epoch(1), secondaries, fence: None }));
    drop(tokio::spawn(source.clone().keep_log()));
    let generation = history.stretches().last().unwrap().generation;
    let cursor = Cursor::after_copy(Epoch(1), generation, east.view().index());
    let record = Write::Put(cursor_key(Kind::Dr), cursor.encode());
    west.propose(WriteSet { reads: vec![], writes: vec![record] }).await.unwrap();
    let sink = Arc::new(Sink::new(
        west,
        Sieve::new(Kind::Dr),
        Arc::new(Never),
        SinkSettings::default(),
        Arc::new(now_ms),
    ));
    let running = sink.clone();
    let link: Arc<dyn Link> = Arc::new(Direct(source));
    drop(tokio::spawn(async move { running.run(link, std::future::pending()).await }));
    load("followed, 5,000/s", 5000, &east, Some(&sink)).await;
    load("followed, all it can", 0, &east, Some(&sink)).await;
}
