//! Restoring backups where there is little room, or little speed.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::support::{Cluster, LONG, bytes, member, put};
use crate::kv::{Kv, KvDraft, KvError, KvHome, ModelHome};
use crate::testing::ModelVfs;
use crate::{
    MemberId, Nobody, RaftConfig, RaftParts, RaftReplica, Replica as _, ReplicaError, SnapshotStream, Visit,
};

/// Free space below which a member refuses writes.
const LOW_WATER: u64 = 1 << 20;

/// A cluster that once held more than it does now, and a backup of then.
async fn with_backup() -> (Cluster, SnapshotStream) {
    let cluster = Cluster::tuned(3, |config| config.low_water_bytes = LOW_WATER).await;
    for n in 0..20 {
        cluster.write(&n.to_string(), &"x".repeat(10_000)).await;
    }
    let backup = cluster.leader().await.export().await.unwrap();
    cluster.write("a", "now").await;
    (cluster, backup)
}

#[tokio::test(start_paused = true)]
async fn a_backup_without_enough_room_is_refused_and_stops_nobody() {
    let (cluster, backup) = with_backup().await;
    let leader = cluster.leader().await;
    let id = leader.status().id;
    let (vfs, store) = (cluster.nodes[&id].vfs.clone(), cluster.nodes[&id].home.current());
    // Enough for writes, and for staging the backup; not for a second store.
    vfs.set_capacity(vfs.used() + LOW_WATER + 500_000);
    let refused = leader.import(backup).await;
    assert!(matches!(&refused, Err(ReplicaError::Snapshot(why)) if why.contains("free")), "{refused:?}");
    for id in cluster.ids() {
        assert_eq!(cluster.at(id).status().fatal, None);
        assert_eq!(cluster.read(id, "a").await.as_deref(), Some("now"));
    }
    // Nothing is left of it but that it began.
    let mut staged = 0;
    store
        .snapshot()
        .visit(&[0xff], None, &mut |_, value| {
            staged += value.len();
            Visit::Next
        })
        .unwrap();
    assert!(staged < 1_000, "{staged} bytes of the store's own");
    cluster.check_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_backup_with_enough_room_is_restored() {
    let (cluster, backup) = with_backup().await;
    let leader = cluster.leader().await;
    let vfs = cluster.nodes[&leader.status().id].vfs.clone();
    vfs.set_capacity(vfs.used() + LOW_WATER + 2_000_000);
    leader.import(backup).await.unwrap();
    assert!(leader.view().get(&bytes("a")).unwrap().is_none());
    cluster.check_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_takes_in_no_snapshot() {
    let mut cluster = Cluster::tuned(1, |config| {
        config.retention.bytes = 0;
        config.limits.segment_bytes = 4096;
        config.low_water_bytes = LOW_WATER;
        // It looks at its disk once, and then as a snapshot comes.
        config.timings.check = LONG;
    })
    .await;
    let leader = cluster.fill_and_purge().await;
    let sender = leader.status().id;
    let learner = cluster.join_with(|cluster, id| cluster.net.cut(sender, id)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.nodes[&learner].vfs.set_capacity(LOW_WATER / 2);
    cluster.net.heal();
    let refused = async {
        while cluster.net.snapshots() < 3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, refused).await.unwrap();
    assert_eq!((cluster.at(learner).status().fatal, cluster.peek(learner, "7")), (None, None));
    cluster.nodes[&learner].vfs.set_capacity(1 << 40);
    leader.promote(learner).await.unwrap();
    assert_eq!(cluster.read(learner, "7").await, Some("x".repeat(100)));
}

/// A home where building a store takes until it is let through.
#[derive(Debug)]
struct SlowHome {
    inner: ModelHome,
    begun: Notify,
    through: Mutex<mpsc::Receiver<()>>,
}

impl KvHome for SlowHome {
    fn open(&self) -> Result<Arc<dyn Kv>, KvError> {
        self.inner.open()
    }

    fn draft(&self) -> Result<Box<dyn KvDraft>, KvError> {
        self.begun.notify_one();
        self.through.lock().recv_timeout(LONG).unwrap();
        self.inner.draft()
    }
}

/// On threads, since it blocks one, and so in real time until nothing but that one is under way.
#[tokio::test]
async fn a_backup_that_takes_long_to_restore_is_restored() {
    let (let_through, through) = mpsc::channel();
    let home =
        Arc::new(SlowHome { inner: ModelHome::new(), begun: Notify::new(), through: Mutex::new(through) });
    let id = MemberId(1);
    let parts = RaftParts {
        vfs: Arc::new(ModelVfs::new(1)),
        log_dir: "/data/log".into(),
        node_dir: "/data".into(),
        home: home.clone(),
        transport: Arc::new(Nobody),
    };
    let replica = RaftReplica::open(RaftConfig::new(id, "test"), parts).await.unwrap();
    replica.bootstrap(member(id), put("a", "then")).await.unwrap();
    let backup = replica.export().await.unwrap();
    replica.propose(put("a", "now")).await.unwrap();
    let importing = tokio::spawn({
        let replica = replica.clone();
        async move { replica.import(backup).await }
    });
    home.begun.notified().await;
    tokio::time::pause();
    for _ in 0..600 {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(!importing.is_finished());
    tokio::time::resume();
    let_through.send(()).unwrap();
    importing.await.unwrap().unwrap();
    assert_eq!(replica.view().get(&bytes("a")).unwrap().unwrap().value, b"then");
}
