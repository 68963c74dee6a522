//! Accounts in a system outside: whatever fails, and wherever, none is left that no lease removes.

use std::pin::pin;
use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::Operation;
use serde_json::{Value, json};

use super::SETTLED_AFTER;
use crate::testing::outward::Mood;
use crate::tokens::rig::{Rig, text};
use crate::{Answer, KernelError};

async fn rig() -> Rig {
    let rig = Rig::active().await;
    rig.post("root", "sys/mounts/out", json!({"type": "outward"})).await.unwrap();
    rig
}

fn last(rig: &Rig) -> Option<bool> {
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    let prefix = router.at("out/").unwrap().storage_prefix();
    rig.view().get_record(Class::Replicated, &format!("{prefix}last")).unwrap()
}

async fn ask(rig: &Rig) -> Result<Answer, KernelError> {
    rig.get("root", "out/creds/a").await
}

/// Begins a request and gives it up once it waits for the system outside.
async fn cut_off(rig: &Rig) {
    let mut asking = pin!(ask(rig));
    for _ in 0..100 {
        assert!(futures::poll!(asking.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_account_lasts_as_long_as_its_lease() {
    let rig = rig().await;
    let answer = ask(&rig).await.unwrap();
    assert_eq!(answer.lease_duration, 600);
    assert_eq!(rig.accounts.all(), [answer.data.unwrap()["username"].as_str().unwrap()]);
    rig.advance(599);
    rig.keep_house().await;
    assert_eq!((rig.accounts.all().len(), last(&rig)), (1, Some(true)));
    rig.advance(2);
    rig.keep_house().await;
    assert!(rig.accounts.all().is_empty());
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

#[tokio::test]
async fn a_lease_can_be_renewed_once_it_is_confirmed() {
    let rig = rig().await;
    let id = ask(&rig).await.unwrap().lease_id;
    let renewed = rig.post("root", "sys/leases/renew", json!({"lease_id": id, "increment": 60})).await;
    assert_eq!(renewed.unwrap().lease_duration, 60);
    rig.post("root", "sys/leases/revoke", json!({"lease_id": id, "sync": true})).await.unwrap();
    assert!(rig.accounts.all().is_empty());
}

#[tokio::test]
async fn an_answer_can_be_wrapped() {
    let rig = rig().await;
    let ttl = Some(Duration::from_secs(60));
    let answer = rig.ask("root", Operation::Read, "out/creds/a", Value::Null, ttl).await.unwrap();
    let token = answer.wrap_info.unwrap().token.to_string();
    let inside = rig.post(&token, "sys/wrapping/unwrap", json!({})).await.unwrap();
    let crate::AnswerBody::Raw(raw) = inside.body else { panic!("no raw body") };
    let inside: Value = serde_json::from_slice(&raw.body).unwrap();
    assert_eq!(inside["data"]["username"].as_str().unwrap(), rig.accounts.all()[0]);
    assert!(inside["lease_id"].as_str().unwrap().starts_with("out/creds/a/"));
}

#[tokio::test]
async fn what_fails_is_undone_at_once() {
    for (mood, want) in [(Mood::Lying, "it broke"), (Mood::Unwilling, "no")] {
        let rig = rig().await;
        rig.accounts.set(mood);
        assert_eq!(text(ask(&rig).await), want);
        // What the engine recorded of its failure is kept.
        assert_eq!(last(&rig), Some(false));
        rig.accounts.set(Mood::Well);
        rig.keep_house().await;
        assert!(rig.accounts.all().is_empty());
        assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
    }
}

/// A system that is gone for good does not keep its mount: nothing was made, so nothing is to be undone.
#[tokio::test]
async fn nothing_is_left_of_what_was_never_made() {
    let rig = rig().await;
    let token = rig.made("root", json!({"ttl": "1h"})).await;
    let before = rig.leftovers();
    rig.accounts.set(Mood::Unreachable);
    let (asked, caller) = (rig.get(&token, "out/creds/a"), rig.get("root", "out/creds/a"));
    assert_eq!([text(asked.await), text(caller.await)], ["no way", "no way"]);
    assert_eq!(last(&rig), Some(false));
    assert_eq!(rig.leftovers(), before);
    assert_eq!(rig.accounts.removals(), 0);
    rig.ask("root", Operation::Delete, "sys/mounts/out", Value::Null, None).await.unwrap();
    assert!(rig.kernel.mounts.router(&rig.kernel.store).unwrap().at("out/").is_none());
}

/// Somebody revokes the lease while the system outside fails for certain.
#[tokio::test]
async fn what_was_never_made_and_is_revoked_meanwhile_is_gone() {
    let rig = rig().await;
    rig.accounts.set(Mood::Deaf);
    let mut asking = pin!(ask(&rig));
    for _ in 0..100 {
        assert!(futures::poll!(asking.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    rig.post("root", "sys/leases/revoke-prefix/out", json!({"sync": false})).await.unwrap();
    let before = rig.leftovers();
    assert!(!before.is_empty());
    let ids = rig.list("root", "sys/leases/lookup/out/creds/a/").await.unwrap().data.unwrap();
    let id = format!("out/creds/a/{}", ids["keys"][0].as_str().unwrap());
    let lease = rig.kernel.leases.load(&rig.view(), "root", &id).unwrap().unwrap();
    rig.commit(|tx| rig.kernel.leases.take_back(tx, &lease)).await.unwrap();
    rig.commit(|tx| rig.kernel.leases.take_back(tx, &lease)).await.unwrap();
    rig.clock.advance(SETTLED_AFTER);
    rig.keep_house().await;
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

/// What is granted to a token on its last use ends at once: it is not made at all.
#[tokio::test]
async fn a_last_use_is_granted_nothing() {
    let rig = rig().await;
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    for path in ["out/creds/a", "notes/lease/a"] {
        let policy = r#"path "*" { capabilities = ["read"] }"#;
        rig.post("root", "sys/policies/acl/all", json!({"policy": policy})).await.unwrap();
        let token = rig.made("root", json!({"policies": "all", "num_uses": 2})).await;
        let before = rig.accounts.all().len();
        let first = rig.get(&token, path).await.unwrap();
        assert!(!first.lease_id.is_empty());
        let made = rig.accounts.all().len();
        assert_eq!(
            text(rig.get(&token, path).await),
            "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked."
        );
        assert_eq!(rig.accounts.all().len(), made, "{path} {before}");
        assert_eq!(text(rig.get(&token, path).await), "permission denied", "the use is taken");
    }
    rig.keep_house().await;
    assert!(rig.accounts.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_system_that_never_answers_is_given_up() {
    let rig = rig().await;
    rig.accounts.set(Mood::Mute);
    let said = text(ask(&rig).await);
    assert_eq!(said, "the system behind the engine did not answer in time");
    assert_eq!(rig.accounts.all().len(), 1);
    rig.accounts.set(Mood::Well);
    rig.advance(SETTLED_AFTER.as_secs() + 1);
    rig.keep_house().await;
    assert!(rig.accounts.all().is_empty());
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

/// What nobody waits for any more may still be done: undone before that, it would stay for good.
#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_undone_once_it_has_ended() {
    let rig = rig().await;
    rig.accounts.set(Mood::Deaf);
    assert!(ask(&rig).await.is_err());
    rig.accounts.set(Mood::Well);
    rig.keep_house().await;
    assert_eq!(rig.accounts.removals(), 0, "it may still be under way");
    let late = rig.accounts.make_late();
    rig.advance(SETTLED_AFTER.as_secs() + 1);
    rig.keep_house().await;
    assert!(!rig.accounts.all().contains(&late));
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

/// A request and housekeeping come upon the same lease: the system outside hears of it once.
#[tokio::test]
async fn an_account_is_removed_by_one_at_a_time() {
    let rig = rig().await;
    let id = ask(&rig).await.unwrap().lease_id;
    let mut revoking = pin!(rig.post("root", "sys/leases/revoke", json!({"lease_id": id, "sync": true})));
    // The engine is asked, and not yet answered.
    while rig.accounts.removals() == 0 {
        assert!(futures::poll!(revoking.as_mut()).is_pending());
    }
    let mut keeping = pin!(rig.keep_house());
    for _ in 0..100 {
        assert!(futures::poll!(keeping.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    revoking.await.unwrap();
    keeping.await;
    assert_eq!(rig.accounts.removals(), 1);
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

/// The node dies, or the caller goes away, after the account was made and before anybody wrote so.
#[tokio::test]
async fn a_crash_before_the_conclusion_leaves_a_lease_that_ends_soon() {
    for mood in [Mood::Mute, Mood::Deaf] {
        let mut rig = rig().await;
        rig.accounts.set(mood);
        cut_off(&rig).await;
        rig.accounts.set(Mood::Well);
        rig.fail_over();
        rig.kernel.activate();
        rig.clock.advance(SETTLED_AFTER - Duration::from_secs(1));
        rig.keep_house().await;
        assert_eq!(rig.accounts.all().len(), usize::from(mood == Mood::Mute), "it may still be under way");
        rig.advance(2);
        rig.keep_house().await;
        assert!(rig.accounts.all().is_empty());
        assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
    }
}

/// Lets some work go on for so many steps, from one await that waits to the next. Says whether it has ended.
async fn steps<F: Future>(work: F, count: usize) -> bool {
    let mut work = pin!(work);
    for _ in 0..count {
        if futures::poll!(work.as_mut()).is_ready() {
            return true;
        }
        // Whatever it waits for goes on meanwhile.
        tokio::task::yield_now().await;
    }
    false
}

/// The node dies wherever it waits for something while it issues an account.
#[tokio::test]
async fn a_crash_at_any_await_of_issuing_leaves_nothing() {
    for count in 1..100 {
        let mut rig = rig().await;
        let is_done = steps(ask(&rig), count).await;
        rig.fail_over();
        rig.kernel.activate();
        rig.clock.advance(SETTLED_AFTER + Duration::from_secs(600));
        rig.keep_house().await;
        assert!(rig.accounts.all().is_empty(), "{count} steps");
        assert!(rig.leftovers().is_empty(), "{count} steps: {:?}", rig.leftovers());
        if is_done {
            assert!(count > 6, "two commits and a call outside are six awaits, not {count}");
            return;
        }
    }
    panic!("it does not end");
}

/// The node dies wherever it waits for something while it revokes one.
#[tokio::test]
async fn a_crash_at_any_await_of_revoking_leaves_nothing() {
    for count in 1..100 {
        let mut rig = rig().await;
        ask(&rig).await.unwrap();
        rig.advance(601);
        let is_done = steps(rig.keep_house(), count).await;
        rig.fail_over();
        rig.kernel.activate();
        rig.keep_house().await;
        assert!(rig.accounts.all().is_empty(), "{count} steps");
        assert!(rig.leftovers().is_empty(), "{count} steps: {:?}", rig.leftovers());
        if is_done {
            assert!(count > 4, "a call outside and a commit are four awaits, not {count}");
            return;
        }
    }
    panic!("it does not end");
}

/// Without a crash each account is removed once, however many look after it.
#[tokio::test]
async fn nothing_is_undone_twice() {
    let rig = rig().await;
    for _ in 0..40 {
        ask(&rig).await.unwrap();
    }
    rig.advance(601);
    rig.keep_house().await;
    rig.keep_house().await;
    assert_eq!(rig.accounts.removals(), 40);
}

/// Revoking what is still being made waits: an account made after it was undone would stay for good.
#[tokio::test]
async fn a_revocation_waits_for_what_is_under_way() {
    let rig = rig().await;
    rig.accounts.set(Mood::Deaf);
    cut_off(&rig).await;
    rig.accounts.set(Mood::Well);
    let ids = rig.list("root", "sys/leases/lookup/out/creds/a/").await.unwrap().data.unwrap();
    let id = format!("out/creds/a/{}", ids["keys"][0].as_str().unwrap());
    let renewed = rig.post("root", "sys/leases/renew", json!({"lease_id": id})).await;
    assert_eq!(text(renewed), "lease is not renewable");
    let said = text(rig.post("root", "sys/leases/revoke", json!({"lease_id": id, "sync": true})).await);
    assert!(said.contains("still being made"), "{said}");
    rig.post("root", "sys/leases/revoke-prefix/out", json!({"sync": false})).await.unwrap();
    rig.keep_house().await;
    assert!(!rig.leftovers().is_empty());
    rig.clock.advance(SETTLED_AFTER);
    rig.keep_house().await;
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

/// The account is made, but its lease was revoked before that was written: it goes, and nobody gets it.
#[tokio::test]
async fn what_was_revoked_meanwhile_is_not_handed_out() {
    let rig = rig().await;
    rig.accounts.set(Mood::Mute);
    let mut asking = pin!(ask(&rig));
    while rig.accounts.all().is_empty() {
        assert!(futures::poll!(asking.as_mut()).is_pending());
    }
    rig.post("root", "sys/leases/revoke-prefix/out", json!({"sync": false})).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(crate::calling::CARRY_OUT_PATIENCE + Duration::from_secs(1)).await;
    assert!(asking.await.is_err());
    rig.accounts.set(Mood::Well);
    rig.advance(SETTLED_AFTER.as_secs() + 1);
    rig.keep_house().await;
    assert!(rig.accounts.all().is_empty());
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
}

#[tokio::test]
async fn a_tick_acts_after_its_commit() {
    let rig = rig().await;
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    let path = format!("{}wanted", router.at("out/").unwrap().storage_prefix());
    rig.commit(|tx| Ok(tx.put_record(Class::Replicated, &path, &"x")?)).await.unwrap();
    rig.kernel.tick_all().await;
    assert_eq!((rig.accounts.all(), last(&rig)), (vec!["x".to_owned()], Some(true)));
    rig.kernel.tick_all().await;
    assert_eq!(rig.accounts.all().len(), 1);
}

#[tokio::test]
async fn a_standby_begins_nothing() {
    let mut rig = rig().await;
    rig.become_standby();
    assert!(matches!(ask(&rig).await, Err(KernelError::NeedsActive)));
    assert!(rig.accounts.all().is_empty());
}
