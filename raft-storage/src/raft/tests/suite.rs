//! openraft's own suite for a log and a state machine, on the models and on real files.

use std::io;
use std::sync::Arc;

use futures::{Stream, TryStreamExt as _, stream};
use openraft::entry::EntryPayload;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{OptionalSend, StorageError};

use crate::kv::{KvHome, ModelHome, RocksHome, RocksOptions};
use crate::log::openraft::RaftLog;
use crate::log::{ClusterId, Options, SegmentLog};
use crate::raft::{Builder, Machine, Runtime, SnapshotData, Threads};
use crate::state::State;
use crate::testing::ModelVfs;
use crate::types::{Entry, LogId, StoredMembership, TypeConfig};
use crate::{OsVfs, Vfs};

const CLUSTER: ClusterId = ClusterId([7; 16]);

/// The suite applies entries with gaps, which openraft never does and [`State`] refuses: fills them with blanks.
struct Filled(Machine);

impl RaftStateMachine<TypeConfig> for Filled {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.0.applied_state().await
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let entries = entries.try_collect::<Vec<_>>().await?;
        let mut next = self.0.applied_state().await?.0.map(|log_id| log_id.index + 1);
        let mut filled = Vec::new();
        for (entry, responder) in entries {
            for index in next.unwrap_or(entry.log_id.index)..entry.log_id.index {
                let log_id = LogId::new(entry.log_id.leader_id, index);
                filled.push(Ok((Entry { log_id, payload: EntryPayload::Blank }, None)));
            }
            next = Some(entry.log_id.index + 1);
            filled.push(Ok((entry, responder)));
        }
        self.0.apply(stream::iter(filled)).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.0.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        self.0.get_current_snapshot().await
    }
}

struct OnModels;

struct OnFiles;

fn open(
    vfs: Arc<dyn Vfs>,
    dir: &std::path::Path,
    home: Arc<dyn KvHome>,
    threads: Threads,
) -> (RaftLog, Filled) {
    let (log, writer) = SegmentLog::open(vfs, Options::new(dir.join("log"), CLUSTER)).unwrap();
    match threads {
        Threads::None => drop(tokio::spawn(writer.run())),
        Threads::Spawn => drop(writer.spawn().unwrap()),
    }
    let state = State::open(home).unwrap();
    (RaftLog::new(log), Filled(Machine::new(Arc::new(state), CLUSTER, threads)))
}

impl StoreBuilder<TypeConfig, RaftLog, Filled> for OnModels {
    async fn build(&self) -> Result<((), RaftLog, Filled), StorageError<TypeConfig>> {
        let home = Arc::new(ModelHome::new());
        let (log, machine) = open(Arc::new(ModelVfs::new(1)), "/data".as_ref(), home, Threads::None);
        Ok(((), log, machine))
    }
}

impl StoreBuilder<TypeConfig, RaftLog, Filled, tempfile::TempDir> for OnFiles {
    async fn build(&self) -> Result<(tempfile::TempDir, RaftLog, Filled), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let home = Arc::new(RocksHome::new(dir.path().join("state"), RocksOptions::default()));
        let (log, machine) = open(Arc::new(OsVfs), dir.path(), home, Threads::Spawn);
        Ok((dir, log, machine))
    }
}

#[test]
fn openraft_suite_on_models() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(Suite::test_all(OnModels)).unwrap();
}

#[test]
fn openraft_suite_on_files() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(OnFiles)).unwrap();
}

#[test]
fn openraft_suite_on_the_runtime() {
    openraft::testing::runtime::Suite::<Runtime>::test_all();
}
