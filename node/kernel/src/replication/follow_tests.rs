//! What a performance secondary has of its own under mounts of its primary, when these go.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::{Http as _, HttpRequest, LeaseGrant, Map, Operation};
use arca_raft_storage::{Replica as _, Write, WriteSet};
use serde_json::{Value, json};

use super::filter;
use super::filter_tests::{deny, record};
use super::secondary_tests::{Regions, settle, token};
use crate::leases::worker::limits_of;
use crate::leases::{GrantTo, LeaseEntry};
use crate::tokens::rig::Rig;

const DAY: u64 = 24 * 60 * 60;

/// A lease that the mount at `path` granted here, and what it granted outside.
async fn leased(rig: &Rig, path: &str, account: &str) -> LeaseEntry {
    let body = account.as_bytes().to_vec();
    rig.accounts.send(HttpRequest { body, ..HttpRequest::new("POST", "http://outside/") }).await.unwrap();
    rig.commit(|tx| {
        let router = rig.kernel.mounts.router(&rig.kernel.store)?;
        let mount = router.at(path).unwrap();
        let path = format!("{path}creds/x");
        let to = GrantTo {
            namespace_id: "root",
            path: &path,
            mount_uuid: &mount.record.uuid,
            limits: limits_of(mount),
            token: Some(&rig.root),
        };
        let internal = Map::from_iter([("account".to_owned(), account.into())]);
        let grant = LeaseGrant { ttl: Duration::from_secs(600), internal, ..LeaseGrant::default() };
        let kernel = &rig.kernel;
        let granted = kernel.leases.grant(tx, &kernel.tokens, kernel.entropy.as_ref(), rig.now(), to, &grant);
        granted.map(|(lease, _)| lease)
    })
    .await
    .unwrap()
}

async fn disable(rig: &Rig, path: &str) {
    rig.ask("root", Operation::Delete, path, json!({}), None).await.unwrap();
}

/// Leases of the secondary that are kept for people to see.
fn kept(regions: &Regions) -> usize {
    let rig = &regions.secondary;
    rig.kernel.leases.irrevocable(&rig.view(), "root", 9).unwrap().len()
}

/// As replication does where there is a filter: what does not pass is deleted.
async fn ship_filtered(regions: &Regions) {
    regions.link.ship().await;
    let rules = filter::rules(&regions.primary.view(), "east").unwrap();
    let passes = |key: &[u8]| {
        let its = rules.iter().filter(|(prefix, _)| key.starts_with(prefix));
        its.max_by_key(|(prefix, _)| prefix.len()).is_none_or(|(_, passes)| *passes)
    };
    let replica = &regions.secondary.replica;
    let kept = replica.keys().into_iter().filter(|key| crate::tx::is_shared(key) && !passes(key));
    let writes = kept.map(Write::Delete).collect();
    replica.propose(WriteSet { reads: Vec::new(), writes }).await.unwrap();
}

async fn follow(regions: &Regions) {
    regions.secondary.kernel.follow_mounts().await.unwrap();
}

/// With one more mount that is shared with the secondary.
async fn shared(path: &str, body: Value) -> Regions {
    let regions = Regions::new().await;
    regions.primary.post("root", path, body).await.unwrap();
    regions.link.ship().await;
    follow(&regions).await;
    regions
}

/// The primary gives them the time, if it has a link to ask.
#[tokio::test(start_paused = true)]
async fn leases_of_a_secondary_are_undone_before_the_mount_goes() {
    let regions = shared("sys/mounts/out", json!({"type": "outward"})).await;
    regions.primary.cluster.set_replication(Arc::clone(&regions.link) as Arc<dyn super::ReplicationPort>);
    leased(&regions.secondary, "out/", "ann").await;
    disable(&regions.primary, "sys/mounts/out").await;
    assert!(regions.secondary.accounts.all().is_empty());
    assert_eq!(record(&regions.primary, "out/"), None);
    regions.link.ship().await;
    settle().await;
    assert_eq!(kept(&regions), 0);
    assert!(regions.secondary.leftovers().is_empty(), "{:?}", regions.secondary.leftovers());
}

/// What a mount that is gone granted lives on: somebody has to know.
#[tokio::test(start_paused = true)]
async fn leases_that_can_not_be_undone_any_more_are_kept() {
    let regions = shared("sys/mounts/out", json!({"type": "outward"})).await;
    let lease = leased(&regions.secondary, "out/", "ann").await;
    disable(&regions.primary, "sys/mounts/out").await;
    regions.link.ship().await;
    follow(&regions).await;
    regions.secondary.keep_house().await;
    assert_eq!(regions.secondary.accounts.all(), ["ann"]);
    assert_eq!(kept(&regions), 1);
    let path = format!("sys/leases/revoke-force/{}", lease.id);
    regions.secondary.post("root", &path, json!({})).await.unwrap();
    assert_eq!(kept(&regions), 0, "until somebody has looked after it");
}

/// Nobody has to wait for the next round.
#[tokio::test(start_paused = true)]
async fn a_mount_that_goes_is_followed_at_once() {
    let regions = Regions::new().await;
    settle().await;
    let alice = token(&regions.log_in("alice", json!({})).await.unwrap());
    disable(&regions.primary, "sys/auth/people").await;
    regions.link.ship().await;
    settle().await;
    assert!(regions.secondary.get(&alice, "auth/token/lookup-self").await.is_err());
}

/// Its engine can be asked wherever it is.
#[tokio::test(start_paused = true)]
async fn leases_of_a_mount_that_moved_are_undone() {
    let regions = shared("sys/mounts/out", json!({"type": "outward"})).await;
    leased(&regions.secondary, "out/", "ann").await;
    regions.primary.post("root", "sys/remount", json!({"from": "out", "to": "away"})).await.unwrap();
    settle().await;
    regions.link.ship().await;
    follow(&regions).await;
    assert!(record(&regions.secondary, "away/").is_some());
    assert_eq!((regions.secondary.accounts.all().len(), kept(&regions)), (0, 0));
    leased(&regions.secondary, "away/", "bob").await;
    follow(&regions).await;
    assert_eq!(regions.secondary.accounts.all(), ["bob"]);
}

/// Paths say whose something is only where there is one mount at them.
#[tokio::test(start_paused = true)]
async fn what_another_mount_granted_at_the_same_path_stays() {
    let regions = Regions::new().await;
    let rig = &regions.secondary;
    let local = json!({"type": "outward", "local": true});
    rig.post("root", "sys/mounts/both", local).await.unwrap();
    rig.post("root", "sys/auth/staff", json!({"type": "notes", "local": true})).await.unwrap();
    let lease = leased(rig, "both/", "ann").await;
    let ann = token(&rig.post("", "auth/staff/login/ann", json!({})).await.unwrap());
    for (path, engine) in [("sys/mounts/both", "outward"), ("sys/auth/staff", "notes")] {
        regions.primary.post("root", path, json!({"type": engine})).await.unwrap();
        regions.link.ship().await;
        follow(&regions).await;
        disable(&regions.primary, path).await;
        regions.link.ship().await;
        follow(&regions).await;
    }
    assert_eq!(rig.accounts.all(), ["ann"]);
    assert!(rig.kernel.leases.load(&rig.view(), "root", &lease.id).unwrap().unwrap().is_good(rig.now()));
    rig.get(&ann, "auth/token/lookup-self").await.unwrap();

    // One that is made anew at the path of one that has gone.
    let regions = shared("sys/mounts/out", json!({"type": "outward"})).await;
    let rig = &regions.secondary;
    let old = token(&regions.log_in("alice", json!({})).await.unwrap());
    leased(rig, "out/", "old").await;
    for (path, engine) in [("sys/mounts/out", "outward"), ("sys/auth/people", "notes")] {
        disable(&regions.primary, path).await;
        regions.primary.post("root", path, json!({"type": engine})).await.unwrap();
    }
    // Before it is seen that they are others.
    let busy = rig.kernel.followed.lock().await;
    regions.link.ship().await;
    let lease = leased(rig, "out/", "new").await;
    let new = token(&regions.log_in("alice", json!({})).await.unwrap());
    drop(busy);
    follow(&regions).await;
    assert_eq!(kept(&regions), 1);
    assert!(rig.kernel.leases.load(&rig.view(), "root", &lease.id).unwrap().unwrap().is_good(rig.now()));
    rig.get(&new, "auth/token/lookup-self").await.unwrap();
    assert!(rig.get(&old, "auth/token/lookup-self").await.is_err());
}

/// A filter that is set by mistake is taken back; what only this cluster had must not be gone meanwhile.
#[tokio::test(start_paused = true)]
async fn a_mount_that_comes_back_finds_what_it_had() {
    let regions = shared("sys/mounts/out", json!({"type": "outward"})).await;
    let rig = &regions.secondary;
    let path = format!("root/logical/{}/local/x", record(rig, "out/").unwrap().uuid);
    rig.kernel.commit_with(|tx| tx.put_record(Class::Local, &path, &1)).await.unwrap();
    let has_local = || rig.view().get(Class::Local, &path).unwrap().is_some();
    leased(rig, "out/", "ann").await;
    deny(&regions, &["out/"]).await;
    ship_filtered(&regions).await;
    follow(&regions).await;
    assert_eq!((record(rig, "out/"), kept(&regions), has_local()), (None, 1, true));
    follow(&regions).await;
    assert_eq!(kept(&regions), 1);
    regions.link.ship().await;
    follow(&regions).await;
    rig.keep_house().await;
    assert_eq!((kept(&regions), has_local()), (0, true));
    assert!(rig.accounts.all().is_empty(), "its engine can be asked again");
    // What it grants from now on is its own.
    leased(rig, "out/", "bob").await;
    follow(&regions).await;
    assert_eq!(rig.accounts.all(), ["bob"]);

    // For good.
    ship_filtered(&regions).await;
    follow(&regions).await;
    rig.advance(DAY - 60);
    follow(&regions).await;
    assert!(has_local());
    rig.advance(60);
    follow(&regions).await;
    assert!(!has_local());
    assert_eq!(kept(&regions), 1);
}
