//! Requests that collide, with each other and with those who have nothing to do with it.

use std::pin::pin;

use arca_engine_api::Operation;
use futures::future::join_all;
use serde_json::{Value, json};

use super::*;
use crate::testing::SeededEntropy;
use crate::testing::outward::Mood;
use crate::tokens::rig::{Rig, text};

/// Lets everything go on that can.
async fn settle<F: Future>(mut work: std::pin::Pin<&mut F>) {
    for _ in 0..200 {
        assert!(futures::poll!(work.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
}

/// What many write is written by all of them, each after a few attempts.
#[tokio::test]
async fn many_writers_of_one_key_all_get_through() {
    let rig = Rig::active().await;
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    let before = rig.replica.conflicts();
    for answer in join_all((0..100).map(|_| rig.post("root", "notes/count/a", json!({})))).await {
        answer.unwrap();
    }
    let count = rig.get("root", "notes/count/a").await.unwrap().data.unwrap()["count"].clone();
    assert_eq!((count, rig.replica.conflicts() - before), (json!(100), 99));
}

/// The uses of one token are counted by requests whatever their path.
#[tokio::test]
async fn many_uses_of_one_token_on_many_paths_all_get_through() {
    let rig = Rig::active().await;
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    let token = rig.made("root", json!({"policies": "root", "num_uses": 200})).await;
    let before = rig.replica.conflicts();
    let paths: Vec<String> = (0..100).map(|at| format!("notes/count/{at}")).collect();
    for answer in join_all(paths.iter().map(|path| rig.get(&token, path))).await {
        answer.unwrap();
    }
    assert_eq!(rig.replica.conflicts() - before, 99);
}

/// Those who collided wait for a system outside; nobody waits for them.
#[tokio::test]
async fn what_acts_outside_has_no_turn_any_more() {
    let rig = Rig::active().await;
    rig.post("root", "sys/mounts/out", json!({"type": "outward"})).await.unwrap();
    let token = rig.made("root", json!({"policies": "root", "num_uses": 50})).await;
    rig.accounts.set(Mood::Mute);
    let before = rig.replica.conflicts();
    let mut stuck = pin!(join_all((0..4).map(|_| rig.get(&token, "out/creds/a"))));
    settle(stuck.as_mut()).await;
    assert_eq!((rig.replica.conflicts() - before, rig.accounts.all().len()), (3, 4));
    rig.accounts.set(Mood::Well);
    assert_eq!(text(rig.get("", "out/creds/a").await), "permission denied");
    let more = tokio::time::timeout(PATIENCE / 2, join_all((0..4).map(|_| rig.get(&token, "out/creds/a"))));
    assert!(more.await.unwrap().iter().all(Result::is_ok));
}

/// Whoever has not collided does not queue behind those who have.
#[tokio::test]
async fn newcomers_wait_for_no_turn() {
    let rig = Rig::active().await;
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    let mut turns = Vec::new();
    for stripe in 0..STRIPES {
        turns.push(rig.kernel.contention.turn_on(stripe).await.unwrap());
    }
    let body = json!({"a": 1});
    let asked = rig.ask("root", Operation::Update, "notes/a", body, None);
    tokio::time::timeout(PATIENCE / 2, asked).await.unwrap().unwrap();
    let read = rig.ask("root", Operation::Read, "notes/a", Value::Null, None);
    tokio::time::timeout(PATIENCE / 2, read).await.unwrap().unwrap();
}

/// One whose engine hangs keeps its turn; the others go on without.
#[tokio::test(start_paused = true)]
async fn nobody_waits_long_for_a_turn() {
    let contention = Contention::new(&SeededEntropy::default()).unwrap();
    let held = contention.next_turn(None, b"a").await.unwrap();
    assert!(contention.next_turn(None, b"a").await.is_none());
    let kept = contention.next_turn(Some(held), b"a").await.unwrap();
    let moved = contention.next_turn(Some(kept), b"b").await.unwrap();
    assert_ne!(moved.stripe, contention.stripe(b"a"));
    assert!(contention.next_turn(None, b"a").await.is_some());
}
