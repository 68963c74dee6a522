//! Two clusters of one node each, in this process, over real connections: from a copy to a promotion and back.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::Method;
use serde_json::{Value, json};

use crate::testing::Rig;

/// A cluster of one node, and what its operator has.
pub(super) struct Region {
    pub(super) rig: Rig,
    pub(super) token: String,
    pub(super) share: Value,
    _dir: tempfile::TempDir,
}

pub(super) const DR: &str = "sys/replication/dr";

impl Region {
    pub(super) async fn open(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::open(&format!("storage \"raft\" {{ path = {:?} node_id = {name:?} }}", dir.path()));
        let (token, share) = rig.bring_up_with_share().await;
        Self { rig, token, share, _dir: dir }
    }

    #[track_caller]
    pub(super) fn is_fine((status, said): &(u16, Value)) {
        assert!((200..300).contains(status), "{status}: {said}");
    }

    pub(super) async fn write(&self, path: &str, body: Value) -> Value {
        let answer = self.rig.ask(Method::POST, path, &self.token, &body).await;
        Self::is_fine(&answer);
        answer.1
    }

    pub(super) async fn refuses(&self, path: &str, body: Value) -> String {
        let (status, said) = self.rig.ask(Method::POST, path, &self.token, &body).await;
        assert_eq!(status, 400, "{said}");
        said["errors"][0].as_str().unwrap_or_default().to_owned()
    }

    pub(super) async fn read(&self, path: &str, token: &str) -> (u16, Value) {
        self.rig.ask(Method::GET, path, token, &Value::Null).await
    }

    /// Of one kind, that of the paths below `of`.
    pub(super) async fn status_of(&self, of: &str) -> Value {
        let (status, said) = self.read(&format!("{of}/status"), "").await;
        if status == 200 { said["data"].clone() } else { json!({ "status": status }) }
    }

    /// Waits until the status is as wanted; answers it.
    pub(super) async fn wait(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.wait_for(DR, what, is_so).await
    }

    pub(super) async fn wait_for(&self, of: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..600 {
            last = self.status_of(of).await;
            if is_so(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("waited in vain for {what}: {last}");
    }

    async fn activation_token(&self, id: &str) -> String {
        self.activation_token_of(DR, id).await
    }

    pub(super) async fn activation_token_of(&self, of: &str, id: &str) -> String {
        let made = self.write(&format!("{of}/primary/secondary-token"), json!({ "id": id })).await;
        made["wrap_info"]["token"].as_str().unwrap().to_owned()
    }

    /// Everything that the primary has now is here.
    async fn caught_up(&self, primary: &Self) -> Value {
        self.caught_up_with(DR, primary).await
    }

    pub(super) async fn caught_up_with(&self, of: &str, primary: &Self) -> Value {
        let until = primary.status_of(of).await["last_wal"].as_u64().unwrap();
        let is_there = |status: &Value| {
            status["state"] == "stream-wals"
                && status["last_remote_wal"].as_u64().is_some_and(|at| at >= until)
        };
        self.wait_for(of, "the stream", is_there).await
    }

    /// A DR operation token, out of the key shares of the primary.
    pub(super) async fn operation_token(&self, share: &Value) -> String {
        let path = format!("{DR}/secondary/generate-operation-token");
        let begun = self.write(&format!("{path}/attempt"), json!({})).await;
        let (nonce, otp) = (begun["nonce"].clone(), begun["otp"].as_str().unwrap().to_owned());
        let given = json!({ "key": share["key"], "nonce": nonce });
        let made = self.write(&format!("{path}/update"), given).await;
        let encoded = STANDARD_NO_PAD.decode(made["encoded_token"].as_str().unwrap()).unwrap();
        let token: Vec<u8> = encoded.iter().zip(otp.bytes()).map(|(byte, pad)| byte ^ pad).collect();
        String::from_utf8(token).unwrap()
    }

    /// A primary with a mount, a policy and a token of it.
    async fn primary() -> (Self, String) {
        let east = Self::open("east").await;
        east.write("sys/mounts/kv", json!({ "type": "kv", "options": { "version": "1" } })).await;
        east.write("kv/before", json!({ "value": "1" })).await;
        let policy =
            json!({ "policy": "path \"kv/*\" { capabilities = [\"create\", \"update\", \"read\"] }" });
        east.write("sys/policies/acl/user", policy).await;
        let made = east.write("auth/token/create", json!({ "policies": ["user"], "ttl": "1h" })).await;
        east.write(&format!("{DR}/primary/enable"), json!({})).await;
        (east, made["auth"]["client_token"].as_str().unwrap().to_owned())
    }

    async fn secondary_of(primary: &Self, name: &str) -> Self {
        let mut west = Self::open(name).await;
        west.write("sys/mounts/own", json!({ "type": "kv", "options": { "version": "1" } })).await;
        let token = primary.activation_token(name).await;
        west.write(&format!("{DR}/secondary/enable"), json!({ "token": token })).await;
        west.caught_up(primary).await;
        // Its own is gone, with everything else that it held.
        west.token.clone_from(&primary.token);
        west
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_becomes_a_copy_and_takes_over() {
    let (east, user) = Region::primary().await;
    let west = Region::secondary_of(&east, "west").await;
    east.write("kv/after", json!({ "value": "2" })).await;
    let status = west.caught_up(&east).await;
    assert_eq!((&status["mode"], &status["secondary_id"]), (&json!("secondary"), &json!("west")), "{status}");
    assert_eq!(west.read("kv/after", &user).await.0, 472);
    let known =
        east.wait("the secondary", |status| status["secondaries"][0]["connection_status"] == "connected");
    let known = known.await;
    assert_eq!(known["known_secondaries"], json!(["west"]), "{known}");

    let operation = west.operation_token(&east.share).await;
    let promote = json!({ "dr_operation_token": operation });
    let text = west.refuses(&format!("{DR}/secondary/promote"), promote.clone()).await;
    assert!(text.contains("demote it first"), "{text}");
    east.rig.node.shutdown().await;
    west.write(&format!("{DR}/secondary/promote"), promote).await;
    let status = west.wait("the promotion", |status| status["mode"] == "primary").await;
    assert_eq!(status["epoch"], 2, "{status}");
    for (path, value) in [("kv/before", "1"), ("kv/after", "2")] {
        let (status, said) = west.read(path, &user).await;
        assert_eq!((status, &said["data"]["value"]), (200, &json!(value)), "{path}: {said}");
    }
    let wrote = west.rig.ask(Method::POST, "kv/new", &user, &json!({ "value": "3" })).await;
    Region::is_fine(&wrote);
    assert_eq!(west.read("own/x", &east.token).await.0, 404, "what it held before is gone");
    west.rig.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_used_once_and_where_it_is_meant() {
    let (east, _) = Region::primary().await;
    let west = Region::open("west").await;
    let enable = format!("{DR}/secondary/enable");
    let text = west.refuses(&enable, json!({ "token": "nonsense" })).await;
    assert!(text.contains("no activation token"), "{text}");
    let made = west.write(&format!("{DR}/secondary/generate-public-key"), json!({})).await;
    let key = made["data"]["secondary_public_key"].as_str().unwrap().to_owned();
    let wanted = json!({ "id": "west", "secondary_public_key": key });
    let made = east.write(&format!("{DR}/primary/secondary-token"), wanted).await;
    let token = json!({ "token": made["wrap_info"]["token"] });
    let other = Region::open("other").await;
    let text = other.refuses(&enable, token.clone()).await;
    assert!(text.contains("for a public key"), "{text}");
    west.write(&enable, token.clone()).await;
    west.caught_up(&east).await;
    // The same token, and one for a name that was revoked.
    let spent = east.activation_token("third").await;
    other.write(&enable, json!({ "token": spent })).await;
    other.caught_up(&east).await;
    let third = Region::open("third").await;
    let text = third.refuses(&enable, json!({ "token": spent })).await;
    assert!(text.contains("was used before"), "{text}");

    let unused = east.activation_token("fourth").await;
    east.write(&format!("{DR}/primary/revoke-secondary"), json!({ "id": "fourth" })).await;
    let text = third.refuses(&enable, json!({ "token": unused })).await;
    assert!(text.contains("does not know this activation token"), "{text}");
    east.write(&format!("{DR}/primary/revoke-secondary"), json!({ "id": "third" })).await;
    let status = other.wait("the revocation", |status| status["stopped"].is_string()).await;
    assert!(status["stopped"].as_str().unwrap().contains("revoked"), "{status}");
    west.caught_up(&east).await;
    for region in [&east, &west, &other, &third] {
        region.rig.node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_is_fenced_and_comes_back_by_comparison() {
    let (east, user) = Region::primary().await;
    let west = Region::secondary_of(&east, "west").await;
    let promote = json!({ "dr_operation_token": west.operation_token(&east.share).await, "force": true });
    west.write(&format!("{DR}/secondary/promote"), promote).await;
    let fenced = east.wait("the fence", |status| status["state"] == "fenced").await;
    assert_eq!(fenced["fence"]["epoch"], 2, "{fenced}");
    let (status, said) = east.rig.ask(Method::POST, "kv/late", &user, &json!({ "value": "x" })).await;
    assert!(status >= 400 && said.to_string().contains("no longer the primary"), "{status}: {said}");
    assert_eq!(east.read("kv/before", &user).await.0, 200, "it still reads");
    let (status, tail) = east.read(&format!("{DR}/tail"), &east.token).await;
    assert_eq!(status, 200, "{tail}");
    west.write("kv/new", json!({ "value": "2" })).await;

    east.write(&format!("{DR}/primary/demote"), json!({})).await;
    let token = west.activation_token("east").await;
    let operation = east.operation_token(&east.share).await;
    let update = json!({ "dr_operation_token": operation, "token": token });
    east.write(&format!("{DR}/secondary/update-primary"), update).await;
    east.caught_up(&west).await;

    // A planned change back: what was written last is waited for.
    west.write("kv/last", json!({ "value": "3" })).await;
    west.write(&format!("{DR}/primary/demote"), json!({})).await;
    let promote = json!({ "dr_operation_token": east.operation_token(&east.share).await, "planned": true });
    east.write(&format!("{DR}/secondary/promote"), promote).await;
    east.wait("the promotion", |status| status["mode"] == "primary").await;
    for (path, value) in [("kv/before", "1"), ("kv/new", "2"), ("kv/last", "3")] {
        let (status, said) = east.read(path, &user).await;
        assert_eq!((status, &said["data"]["value"]), (200, &json!(value)), "{path}: {said}");
    }
    for region in [&east, &west] {
        region.rig.node.shutdown().await;
    }
}
