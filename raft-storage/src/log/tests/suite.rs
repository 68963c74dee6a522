//! openraft's own storage suite, over the log on the model disk and on the real one. The state machine beside it is
//! the least that the suite's log tests need.

use std::io;

use ::openraft::storage::{EntryResponder, RaftStateMachine};
use ::openraft::testing::log::{StoreBuilder, Suite};
use ::openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use ::openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageError};
use futures::{Stream, TryStreamExt};
use tempfile::TempDir;

use super::*;
use crate::log::openraft::RaftLog;
use crate::types::{LogId, TypeConfig};
use crate::vfs::OsVfs;

type Meta = SnapshotMetaOf<TypeConfig>;
type Snapshot = SnapshotOf<TypeConfig, ()>;

#[derive(Clone, Default)]
struct Machine(Arc<Mutex<(Meta, Option<Meta>)>>);

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let mut state = self.0.lock();
        let meta = state.0.clone();
        state.1 = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembershipOf<TypeConfig>)> {
        let state = self.0.lock();
        Ok((state.0.last_log_id, state.0.last_membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let mut state = self.0.lock();
            state.0.last_log_id = Some(entry.log_id);
            if let EntryPayload::Membership(membership) = entry.payload {
                state.0.last_membership =
                    StoredMembershipOf::<TypeConfig>::new(Some(entry.log_id), membership);
            }
            assert!(responder.is_none(), "the suite proposes nothing");
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &Meta, (): ()) -> io::Result<()> {
        *self.0.lock() = (meta.clone(), Some(meta.clone()));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.0.lock().1.clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct OnModel;

impl StoreBuilder<TypeConfig, RaftLog, Machine> for OnModel {
    async fn build(&self) -> Result<((), RaftLog, Machine), StorageError<TypeConfig>> {
        let (log, writer) = open(&ModelVfs::new(7)).unwrap();
        tokio::spawn(writer.run());
        Ok(((), RaftLog::new(log), Machine::default()))
    }
}

struct OnDisk;

impl StoreBuilder<TypeConfig, RaftLog, Machine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, RaftLog, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { dir: dir.path().join("log"), ..options() };
        let (log, writer) = SegmentLog::open(Arc::new(OsVfs), options).unwrap();
        writer.spawn().unwrap();
        Ok((dir, RaftLog::new(log), Machine::default()))
    }
}

#[tokio::test(start_paused = true)]
async fn openraft_suite_on_the_model() {
    Suite::test_all(OnModel).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn openraft_suite_on_the_disk() {
    Suite::test_all(OnDisk).await.unwrap();
}
