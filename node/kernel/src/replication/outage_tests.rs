//! A performance secondary whose primary cannot be reached, or whose state is being compared with it.

use std::sync::atomic::Ordering;

use arca_engine_api::{Fault, Operation};
use serde_json::json;

use super::secondary_tests::{Regions, token};

#[tokio::test(start_paused = true)]
async fn without_the_primary_reads_and_known_logins_go_on() {
    let regions = Regions::new().await;
    regions.log_in("alice", json!({})).await.unwrap();
    regions.secondary.post("root", "notes/a", json!({"v": 1})).await.unwrap();
    regions.link.is_down.store(true, Ordering::SeqCst);
    let refused = regions.secondary.post("root", "notes/a", json!({"v": 2})).await.err().unwrap();
    assert_eq!(refused.fault(), Fault::Unavailable);
    assert!(refused.to_string().contains("reads go on here"), "{refused}");
    assert!(regions.secondary.get("root", "notes/a").await.is_ok());
    let known = regions.log_in("alice", json!({})).await.unwrap();
    regions.secondary.get(&token(&known), "auth/token/lookup-self").await.unwrap();
    let stranger = regions.log_in("bob", json!({})).await.err().unwrap();
    assert_eq!(stranger.fault(), Fault::Unavailable);
    regions.same();
}

/// What was found here is said where nobody can be asked whether it is still so.
#[tokio::test(start_paused = true)]
async fn without_the_primary_mistakes_are_still_mistakes() {
    let regions = Regions::new().await;
    regions.link.is_down.store(true, Ordering::SeqCst);
    let tuned = regions.secondary.post("root", "sys/mounts/none/tune", json!({"description": "d"})).await;
    assert_eq!(tuned.err().unwrap().fault(), Fault::Invalid);
    regions.secondary.ask("root", Operation::Delete, "sys/mounts/none", json!({}), None).await.unwrap();
    assert_eq!(regions.asked(), 0);
}

/// A login that counts at the primary, for a token that would be good for nothing until that is here: a secret that is good
/// for one login would be gone.
#[tokio::test(start_paused = true)]
async fn nothing_that_is_counted_is_taken_while_states_are_compared() {
    let regions = Regions::new().await;
    regions.log_in("alice", json!({})).await.unwrap();
    let counted = async || {
        let read = regions.primary.get("root", "auth/people/count/alice").await.unwrap();
        read.data.unwrap()["count"].clone()
    };
    regions.asked();
    regions.link.is_comparing.store(true, Ordering::SeqCst);
    regions.link.is_slow.store(true, Ordering::SeqCst);
    let refused = regions.log_in("alice", json!({"counts": true})).await.err().unwrap();
    assert_eq!(refused.fault(), Fault::Unavailable);
    assert!(refused.to_string().contains("nothing was done"), "{refused}");
    assert_eq!((regions.asked(), counted().await), (0, json!(0)));
    regions.log_in("alice", json!({})).await.unwrap();
    regions.link.is_comparing.store(false, Ordering::SeqCst);
    regions.link.is_slow.store(false, Ordering::SeqCst);
    regions.log_in("alice", json!({"counts": true})).await.unwrap();
    assert_eq!(counted().await, json!(1));
}
