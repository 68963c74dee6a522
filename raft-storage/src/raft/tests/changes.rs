//! What entries changed, told by every member alike.

use std::collections::BTreeMap;

use futures::StreamExt as _;

use super::support::{Cluster, LONG, bytes, put};
use crate::raft::machine::receive_all;
use crate::raft::{Changed, Changes as _, ChangesError, What};
use crate::state::{Mark, Scope};
use crate::{MemberId, ProposeError, RaftReplica, Replica as _, Version, Visit, Write, WriteSet};

/// All changes since the first entry, taken in small pieces.
fn all(replica: &RaftReplica) -> Vec<Changed> {
    let mut found: Vec<Changed> = Vec::new();
    loop {
        let after = found.last().map_or(0, |last| last.at.index);
        let piece = replica.changes(after, 200).unwrap();
        if piece.is_empty() {
            return found;
        }
        found.extend(piece);
    }
}

/// What is there once all changes were made one after the other.
fn replayed(changes: &[Changed]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut state = BTreeMap::new();
    for changed in changes {
        let What::Wrote(writes) = &changed.what else { panic!("{changed:?}") };
        for write in writes {
            match write {
                Write::Put(key, value) => drop(state.insert(key.clone(), value.clone())),
                Write::Delete(key) => drop(state.remove(key)),
            }
        }
    }
    state
}

fn stored(replica: &RaftReplica) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut visitor = |key: &[u8], value: &[u8], _: Version| {
        found.insert(key.to_vec(), value.to_vec());
        Visit::Next
    };
    replica.view().visit(&[], None, &mut visitor).unwrap();
    found
}

fn marks(replica: &RaftReplica) -> Vec<(u64, Mark)> {
    replica.shared.state.view().marks(0, u64::MAX).unwrap().into_iter().collect()
}

/// Adds one to a counter that was read at `version`.
fn count(version: Version, value: &str) -> WriteSet {
    WriteSet { reads: vec![(bytes("n"), version)], ..put("n", value) }
}

#[tokio::test(start_paused = true)]
async fn changes_replay_to_the_state_without_what_was_refused() {
    let mut cluster = Cluster::new(3).await;
    let leader = cluster.leader().await;
    let version = Version(leader.propose(put("n", "0")).await.unwrap().index);
    // Proposed together they share an entry, and all but the first are refused.
    let tries = (1..=5).map(|n| leader.propose(count(version, if n == 1 { "1" } else { "lost" })));
    let results = futures::future::join_all(tries).await;
    assert_eq!(results.iter().filter(|result| matches!(result, Err(ProposeError::Conflict))).count(), 4);
    let gone = WriteSet { writes: vec![Write::Delete(bytes("first"))], ..WriteSet::default() };
    leader.propose(gone).await.unwrap();
    let learner = cluster.join().await;
    cluster.write("last", "x").await;
    let index = leader.read_barrier().await.unwrap();

    let told = all(&leader);
    let positions: Vec<u64> = told.iter().map(|changed| changed.at.index).collect();
    assert_eq!(positions, (1..=index).collect::<Vec<_>>());
    assert_eq!(replayed(&told), stored(&leader));
    for id in cluster.running().into_iter().filter(|id| *id != learner) {
        cluster.at(id).await_applied(index, LONG).await.unwrap();
        assert_eq!(all(&cluster.at(id)), told, "{id}");
    }
    cluster.check_equal().await;
}

#[tokio::test(start_paused = true)]
async fn marks_outlive_crashes() {
    let mut cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    let version = Version(leader.propose(put("n", "0")).await.unwrap().index);
    leader.propose(count(version, "1")).await.unwrap();
    assert!(leader.propose(count(version, "lost")).await.is_err());
    let told = all(&leader);
    cluster.crash(MemberId(1));
    cluster.start(MemberId(1)).await;
    let again = cluster.leader().await;
    assert_eq!(all(&again)[..told.len()], told);
}

#[tokio::test(start_paused = true)]
async fn marks_go_to_members_and_into_no_backup() {
    let mut cluster = Cluster::tuned(1, |config| {
        config.retention.bytes = 0;
        config.limits.segment_bytes = 4096;
    })
    .await;
    let leader = cluster.leader().await;
    let version = Version(leader.propose(put("n", "0")).await.unwrap().index);
    leader.propose(count(version, "1")).await.unwrap();
    assert!(leader.propose(count(version, "lost")).await.is_err());
    cluster.fill_and_purge().await;
    let backup: Vec<_> = leader.export().await.unwrap().collect().await;
    cluster.join().await;
    cluster.check_equal().await;
    assert_eq!(cluster.net.snapshots(), 1);
    // A restored backup leaves the cluster's own marks where they are, and adds one.
    let before = marks(&leader);
    assert_eq!(before.len(), 1);
    leader.import(futures::stream::iter(backup).boxed()).await.unwrap();
    let after = marks(&leader);
    assert_eq!((after.len(), &after[..1]), (2, &before[..]));
    cluster.check_equal().await;
}

#[tokio::test(start_paused = true)]
async fn a_restored_backup_is_told_as_such() {
    let cluster = Cluster::new(1).await;
    let leader = cluster.leader().await;
    let backup = leader.export().await.unwrap();
    let version = Version(leader.propose(put("n", "0")).await.unwrap().index);
    leader.propose(count(version, "1")).await.unwrap();
    assert!(leader.propose(count(version, "lost")).await.is_err());
    leader.import(backup).await.unwrap();
    cluster.write("after", "x").await;
    let told = all(&leader);
    assert_eq!(told.iter().filter(|changed| changed.what == What::Replaced).count(), 1);
    // What was refused before it is still known.
    let lost = told.iter().any(|changed| {
        matches!(&changed.what, What::Wrote(writes)
        if writes.iter().any(|write| matches!(write, Write::Put(_, value) if value == b"lost")))
    });
    assert!(!lost);
}

/// Its state is replaced first and its log is purged after it: in between the log holds what it proposed and nobody took.
#[tokio::test(start_paused = true)]
async fn a_deposed_leader_tells_nothing_of_what_a_snapshot_made_void() {
    let cluster = Cluster::new(3).await;
    let old = cluster.leader().await;
    let after = old.read_barrier().await.unwrap();
    let id = old.status().id;
    cluster.net.isolate(id);
    for _ in 0..3 {
        old.propose(put("void", "x")).await.unwrap_err();
    }
    let others: Vec<_> = cluster.ids().into_iter().filter(|other| *other != id).collect();
    let new = cluster.leader_among(&others).await;
    let newest = new.propose(put("taken", "x")).await.unwrap().index;
    assert!(old.log().state().last.unwrap().index > after);
    assert_eq!(old.changes(after, usize::MAX).unwrap(), Vec::new());
    assert_eq!(old.term_at(newest), None);

    let snapshot = new.shared.state.export(Scope::Member, b"");
    let staged = receive_all(&old.shared.state, snapshot).unwrap();
    assert!(old.shared.state.install(staged).unwrap());
    assert_eq!(old.view().index(), newest);
    let told = old.changes(after, usize::MAX);
    assert!(matches!(told, Err(ChangesError::Gone { .. })), "{told:?}");
    assert_eq!(old.term_at(after + 1), None);
    assert_eq!(old.term_at(newest), new.term_at(newest), "where its state is, it says all the same");
}

#[tokio::test(start_paused = true)]
async fn purged_changes_are_gone_and_held_ones_are_not() {
    let small = |config: &mut crate::RaftConfig| {
        config.retention.bytes = 0;
        config.limits.segment_bytes = 4096;
    };
    let cluster = Cluster::tuned(1, small).await;
    let leader = cluster.fill_and_purge().await;
    let purged = leader.log().state().purged.unwrap().index;
    let refused = leader.changes(purged - 1, 1000);
    assert!(
        matches!(refused, Err(ChangesError::Gone { wanted, purged: last }) if wanted == purged && last == purged)
    );
    assert_eq!(leader.changes(purged, 1000).unwrap().first().unwrap().at.index, purged + 1);

    let held = leader.status().applied_index;
    leader.hold_log(held);
    for n in 0..200 {
        cluster.write(&n.to_string(), &"y".repeat(100)).await;
    }
    leader.flush().await.unwrap();
    tokio::time::sleep(LONG).await;
    assert_eq!(leader.changes(held, 1).unwrap().first().unwrap().at.index, held + 1);
    leader.hold_log(u64::MAX);
    let purged = async {
        while leader.changes(held, 1).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LONG, purged).await.unwrap();
    assert_eq!(leader.changes(u64::MAX, 1).unwrap(), Vec::new());
}
