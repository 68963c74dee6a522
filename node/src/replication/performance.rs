//! Performance secondaries, one node each, in this process over real connections: what they get, what they do themselves, what
//! their primary does for them, and whom they follow when it is gone.

mod engines;

use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::Page;
use http::Method;
use serde_json::{Value, json};

use super::tests::{DR, Region};

const PERFORMANCE: &str = "sys/replication/performance";
const FILTER: &str = "sys/replication/performance/primary/paths-filter/far";

impl Region {
    /// A primary of performance secondaries with two mounts, and somebody who may do everything.
    async fn sharing() -> Self {
        let east = Self::open("east").await;
        for mount in ["kv", "hidden"] {
            let options = json!({ "type": "kv", "options": { "version": "1" } });
            east.write(&format!("sys/mounts/{mount}"), options).await;
            east.write(&format!("{mount}/before"), json!({ "value": "1" })).await;
        }
        let policy = "path \"*\" { capabilities = [\"create\", \"read\", \"update\", \"delete\", \"list\", \"sudo\"] }";
        east.write("sys/policies/acl/all", json!({ "policy": policy })).await;
        east.write("sys/auth/userpass", json!({ "type": "userpass" })).await;
        east.write("auth/userpass/users/ann", json!({ "password": "pass-of-ann", "policies": "all" })).await;
        east.write(&format!("{PERFORMANCE}/primary/enable"), json!({})).await;
        east
    }

    /// A performance secondary called `far`, with a token of its own.
    async fn far_of(primary: &Self) -> Self {
        let mut far = Self::open("far").await;
        far.write("sys/mounts/own", json!({ "type": "kv", "options": { "version": "1" } })).await;
        let token = primary.activation_token_of(PERFORMANCE, "far").await;
        far.write(&format!("{PERFORMANCE}/secondary/enable"), json!({ "token": token })).await;
        far.caught_up_with(PERFORMANCE, primary).await;
        far.token = far.login().await;
        far
    }

    /// As somebody who logs in.
    async fn login(&self) -> String {
        let mut last = Value::Null;
        for _ in 0..200 {
            let body = json!({ "password": "pass-of-ann" });
            let (status, said) = self.rig.ask(Method::POST, "auth/userpass/login/ann", "", &body).await;
            if status == 200 {
                return said["auth"]["client_token"].as_str().unwrap().to_owned();
            }
            last = said;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nobody can log in: {last}");
    }

    /// What is stored of the mount of this id, by its path.
    fn stored_of(&self, uuid: &str) -> Vec<String> {
        let unsealed = self.rig.node.unsealed.load_full().unwrap();
        let tx = unsealed.kernel.read_tx();
        let mut found = Vec::new();
        for folder in ["root/core/mounts/", &format!("root/logical/{uuid}/")] {
            let names = tx.scan(Class::Replicated, folder, &Page::default()).unwrap();
            found.extend(names.into_iter().filter(|name| folder.contains(uuid) || name == uuid));
        }
        found
    }

    async fn until_stored(&self, what: &str, uuid: &str, is_so: impl Fn(&[String]) -> bool) {
        for _ in 0..600 {
            if is_so(&self.stored_of(uuid)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "waited in vain for {what}: {:?}; {}",
            self.stored_of(uuid),
            self.status_of(PERFORMANCE).await
        );
    }

    #[track_caller]
    fn holds((status, said): &(u16, Value), value: &str) {
        assert_eq!((*status, &said["data"]["value"]), (200, &json!(value)), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_performance_secondary_serves_and_has_shared_writes_done_at_its_primary() {
    let east = Region::sharing().await;
    let far = Region::far_of(&east).await;
    let status = far.status_of(PERFORMANCE).await;
    assert_eq!((&status["mode"], &status["secondary_id"]), (&json!("secondary"), &json!("far")), "{status}");
    let status = east.status_of(PERFORMANCE).await;
    assert_eq!(
        (&status["mode"], &status["known_secondaries"]),
        (&json!("primary"), &json!(["far"])),
        "{status}"
    );
    Region::holds(&far.read("kv/before", &far.token).await, "1");
    far.write("kv/after", json!({ "value": "2" })).await;
    Region::holds(&far.read("kv/after", &far.token).await, "2");
    Region::holds(&east.read("kv/after", &east.token).await, "2");
    assert_eq!(east.read("kv/after", &far.token).await.0, 403, "tokens are the cluster's own");
    assert_eq!(far.read("kv/after", &east.token).await.0, 403, "on both sides");
    assert!(far.read("own/x", &far.token).await.0 >= 400, "what it held before is gone");

    // What is local is made here, and stays here.
    let local = json!({ "type": "kv", "local": true, "options": { "version": "1" } });
    far.write("sys/mounts/local", local).await;
    far.write("local/a", json!({ "value": "3" })).await;
    Region::holds(&far.read("local/a", &far.token).await, "3");
    east.write("kv/last", json!({ "value": "4" })).await;
    far.caught_up_with(PERFORMANCE, &east).await;
    Region::holds(&far.read("kv/last", &far.token).await, "4");
    Region::holds(&far.read("local/a", &far.token).await, "3");

    // The primary is gone: reads go on, shared writes are refused in words.
    east.rig.node.shutdown().await;
    Region::holds(&far.read("kv/last", &far.token).await, "4");
    far.write("local/b", json!({ "value": "5" })).await;
    let (status, said) = far.rig.ask(Method::POST, "kv/lost", &far.token, &json!({ "value": "6" })).await;
    assert!(status == 503 && said.to_string().contains("primary"), "{status}: {said}");
    far.rig.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_mount_never_gets_there_and_filters_change_live() {
    let east = Region::sharing().await;
    east.write(FILTER, json!({ "mode": "deny", "paths": ["hidden/"] })).await;
    let far = Region::far_of(&east).await;
    let mounts = east.read("sys/mounts", &east.token).await.1;
    let uuid = |mount: &str| mounts["data"][mount]["uuid"].as_str().unwrap().to_owned();
    let (kv, hidden) = (uuid("kv/"), uuid("hidden/"));
    assert!(!far.stored_of(&kv).is_empty() && !east.stored_of(&hidden).is_empty());
    assert_eq!(far.stored_of(&hidden), Vec::<String>::new(), "by the first copy");
    east.write("hidden/more", json!({ "value": "2" })).await;
    east.write("kv/more", json!({ "value": "2" })).await;
    far.caught_up_with(PERFORMANCE, &east).await;
    assert_eq!(far.stored_of(&hidden), Vec::<String>::new(), "by the stream");
    assert!(far.read("hidden/more", &far.token).await.0 >= 400);
    Region::holds(&far.read("kv/more", &far.token).await, "2");
    let shown = far.read(&format!("{PERFORMANCE}/secondary/dynamic-filter/far"), &far.token).await.1;
    assert_eq!(shown["data"]["paths"], json!(["hidden/"]), "{shown}");

    // Another filter: what was let in is fetched, what must not be there any more is deleted.
    east.write(FILTER, json!({ "mode": "allow", "paths": ["hidden/", "auth/userpass/"] })).await;
    far.until_stored("the hidden mount", &hidden, |found| found.len() == 3).await;
    far.until_stored("the other one to go", &kv, <[String]>::is_empty).await;
    Region::holds(&far.read("hidden/more", &far.token).await, "2");
    assert!(far.read("kv/more", &far.token).await.0 >= 400);
    // A mount that moves to where the filter does not let it in.
    east.write("sys/remount", json!({ "from": "hidden", "to": "elsewhere" })).await;
    far.until_stored("the moved mount to go", &hidden, <[String]>::is_empty).await;
    // None: everything is there again.
    Region::is_fine(&east.rig.ask(Method::DELETE, FILTER, &east.token, &Value::Null).await);
    far.until_stored("the moved mount", &hidden, |found| found.len() == 3).await;
    far.caught_up_with(PERFORMANCE, &east).await;
    let same = far.write("sys/replication/merkle-check", json!({})).await;
    assert_eq!(same["data"]["merkle_corruption_report"]["corrupted_root"], json!(false), "{same}");
    for region in [&east, &far] {
        region.rig.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_performance_secondary_goes_over_to_a_promoted_dr_secondary() {
    let east = Region::sharing().await;
    east.write(FILTER, json!({ "mode": "deny", "paths": ["hidden/"] })).await;
    // It is a primary of both kinds.
    east.write(&format!("{DR}/primary/enable"), json!({})).await;
    let mut west = Region::open("west").await;
    let token = east.activation_token_of(DR, "west").await;
    west.write(&format!("{DR}/secondary/enable"), json!({ "token": token })).await;
    west.caught_up_with(DR, &east).await;
    west.token.clone_from(&east.token);
    let far = Region::far_of(&east).await;
    far.write("kv/one", json!({ "value": "1" })).await;
    west.caught_up_with(DR, &east).await;
    assert_eq!(west.read("kv/one", &west.token).await.0, 472);
    east.rig.node.shutdown().await;

    let promote = json!({ "dr_operation_token": west.operation_token(&east.share).await });
    west.write(&format!("{DR}/secondary/promote"), promote).await;
    let roles = west.status_of(PERFORMANCE).await;
    assert_eq!(roles["mode"], "disabled", "a DR secondary carries no performance role: {roles}");
    west.write(&format!("{PERFORMANCE}/primary/enable"), json!({})).await;
    let token = west.activation_token_of(PERFORMANCE, "far").await;
    far.write(&format!("{PERFORMANCE}/secondary/update-primary"), json!({ "token": token })).await;
    far.caught_up_with(PERFORMANCE, &west).await;
    let mounts = west.read("sys/mounts", &west.token).await.1;
    let hidden = mounts["data"]["hidden/"]["uuid"].as_str().unwrap();
    assert_eq!(far.stored_of(hidden), Vec::<String>::new(), "filters are replicated");
    far.write("kv/two", json!({ "value": "2" })).await;
    for region in [&far, &west] {
        for (path, value) in [("kv/one", "1"), ("kv/two", "2")] {
            Region::holds(&region.read(path, &region.token).await, value);
        }
    }
    for region in [&west, &far] {
        region.rig.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_performance_secondary_is_promoted_and_the_old_primary_follows_it() {
    let east = Region::sharing().await;
    let far = Region::far_of(&east).await;
    let near = format!("{PERFORMANCE}/primary/paths-filter/near");
    east.write(&near, json!({ "mode": "deny", "paths": ["hidden/"] })).await;
    far.write("kv/one", json!({ "value": "1" })).await;
    let promote = format!("{PERFORMANCE}/secondary/promote");
    let text = far.refuses(&promote, json!({})).await;
    assert!(text.contains("demote it first"), "{text}");
    east.write("kv/two", json!({ "value": "2" })).await;
    east.write(&format!("{PERFORMANCE}/primary/demote"), json!({})).await;
    far.write(&promote, json!({})).await;
    let status = far.wait_for(PERFORMANCE, "the promotion", |status| status["mode"] == "primary").await;
    assert_eq!(status["epoch"], 3, "{status}");
    let filter = far.read(&near, &far.token).await.1;
    assert_eq!(filter["data"]["paths"], json!(["hidden/"]), "it withholds what the primary did: {filter}");
    far.write("kv/three", json!({ "value": "3" })).await;

    // What is the old primary's own, its tokens above all, goes on.
    let token = far.activation_token_of(PERFORMANCE, "east").await;
    east.write(&format!("{PERFORMANCE}/secondary/update-primary"), json!({ "token": token })).await;
    east.caught_up_with(PERFORMANCE, &far).await;
    east.write("kv/four", json!({ "value": "4" })).await;
    for region in [&far, &east] {
        for (path, value) in [("kv/one", "1"), ("kv/two", "2"), ("kv/three", "3"), ("kv/four", "4")] {
            Region::holds(&region.read(path, &region.token).await, value);
        }
    }
    // Cut off for good.
    far.write(&format!("{PERFORMANCE}/primary/revoke-secondary"), json!({ "id": "east" })).await;
    let status = east.wait_for(PERFORMANCE, "the revocation", |status| status["stopped"].is_string()).await;
    assert!(status["stopped"].as_str().unwrap().contains("revoked"), "{status}");
    for region in [&east, &far] {
        region.rig.node.shutdown().await;
    }
}
