//! Root tokens and new key shares on real clusters: what operators do with them, and what happens when nodes are away.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test fails by panicking.

use std::time::Duration;

use arca_client::{Client, Request, Token};
use arca_harness::{Cluster, ClusterOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// Three nodes, unsealed by three of five shares.
async fn cluster() -> (Cluster, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.path().join("cluster"));
    options.extra_listener = "disable_unauthed_rekey_endpoints = false\n\
                              disable_unauthed_generate_root_endpoints = false\n"
        .to_owned();
    let mut cluster = Cluster::start(options).unwrap();
    cluster.bring_up().await.unwrap();
    (cluster, dir)
}

/// A client of a node that shows no token.
fn stranger(cluster: &Cluster, at: usize) -> Client {
    cluster.client(at).unwrap().with_token(None)
}

async fn ask(client: &Client, request: Request) -> Result<Value, String> {
    let response = client.send(request).await.map_err(|err| err.to_string())?;
    Ok(response.json().unwrap_or(Value::Null))
}

async fn put(client: &Client, path: &str, body: Value) -> Result<Value, String> {
    ask(client, Request::put(path).json(&body).unwrap()).await
}

async fn get(client: &Client, path: &str) -> Value {
    ask(client, Request::get(path)).await.unwrap()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}")).to_owned()
}

/// Gives shares to an attempt one by one; the last answer.
async fn give(client: &Client, path: &str, nonce: &str, shares: &[String]) -> Result<Value, String> {
    let mut last = Value::Null;
    for share in shares {
        last = put(client, path, json!({ "key": share, "nonce": nonce })).await?;
    }
    Ok(last)
}

/// Replaces the shares by four, of which three are needed; the new ones, base64.
async fn rekey(client: &Client, old: &[String]) -> Vec<String> {
    let plan = json!({ "secret_shares": 4, "secret_threshold": 3 });
    let begun = put(client, "sys/rekey/init", plan).await.unwrap();
    let done = give(client, "sys/rekey/update", &text(&begun, "nonce"), &old[..3]).await.unwrap();
    assert_eq!((done["complete"].as_bool(), done["keys"].as_array().unwrap().len()), (Some(true), 4));
    shares(&done)
}

fn shares(done: &Value) -> Vec<String> {
    done["keys_base64"].as_array().unwrap().iter().map(|share| share.as_str().unwrap().to_owned()).collect()
}

/// Gives three shares to a sealed node; whether it is unsealed then, or what it said.
async fn unseal(cluster: &Cluster, at: usize, shares: &[String]) -> Result<bool, String> {
    cluster.wait_until_listening(at).await.unwrap();
    let client = stranger(cluster, at);
    for share in &shares[..3] {
        client.sys().unseal(&Token::new(share.clone()), false).await.map_err(|err| err.to_string())?;
    }
    Ok(!client.sys().seal_status().await.unwrap().sealed)
}

async fn wait_for_counts(cluster: &Cluster, at: usize, n: u32) {
    let client = stranger(cluster, at);
    cluster
        .wait_for("the new number of shares", LIMIT, || async {
            let status = client.sys().seal_status().await.ok()?;
            (status.n == n && !status.sealed).then_some(())
        })
        .await
        .unwrap();
}

async fn wait_until_sealed(cluster: &Cluster, at: usize) {
    let client = stranger(cluster, at);
    cluster
        .wait_for("the node to seal itself", LIMIT, || async {
            client.sys().seal_status().await.ok().filter(|status| status.sealed).map(drop)
        })
        .await
        .unwrap();
}

/// The secret written by [`write_secret`], as a node shows it.
async fn read_secret(cluster: &Cluster, at: usize) -> Option<Value> {
    let secret = cluster.client(at).unwrap().read("cubbyhole/kept").await.ok()??;
    secret.data?.get("k").cloned()
}

async fn write_secret(cluster: &Cluster) {
    cluster.client(0).unwrap().write("cubbyhole/kept", &json!({"k": "v"})).await.unwrap();
}

fn standby(active: usize) -> usize {
    (active + 1) % 3
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_token_is_made_from_key_shares() {
    let (cluster, _dir) = cluster().await;
    let active = cluster.active().await.unwrap();
    // A standby takes everything to the active node.
    let client = stranger(&cluster, standby(active));
    let (attempt, update) = ("sys/generate-root/attempt", "sys/generate-root/update");
    let idle = get(&client, attempt).await;
    assert_eq!((idle["started"].as_bool(), idle["otp_length"].as_u64()), (Some(false), Some(28)));
    let refused = put(&client, attempt, json!({ "otp": "short" })).await.unwrap_err();
    assert!(refused.contains("OTP string has incorrect length"), "{refused}");
    let refused = put(&client, attempt, json!({ "pgp_key": "x" })).await.unwrap_err();
    assert!(refused.contains("PGP encryption of the token is not supported"), "{refused}");
    let begun = put(&client, attempt, json!({})).await.unwrap();
    let (nonce, otp) = (text(&begun, "nonce"), text(&begun, "otp"));
    assert_eq!(get(&client, attempt).await["otp"], "", "the pad is shown once");
    let refused = put(&client, attempt, json!({})).await.unwrap_err();
    assert!(refused.contains("already in progress"), "{refused}");

    // Another nonce, the same share twice, and a share that is none of this set.
    let refused = give(&client, update, "x", &cluster.shares[..1]).await.unwrap_err();
    assert!(refused.contains(&nonce), "{refused}");
    assert_eq!(give(&client, update, &nonce, &cluster.shares[..1]).await.unwrap()["progress"], 1);
    let refused = give(&client, update, &nonce, &cluster.shares[..1]).await.unwrap_err();
    assert!(refused.contains("already been provided"), "{refused}");
    let strange = ["0a".repeat(32) + "63", "0b".repeat(32) + "64"];
    let refused = give(&client, update, &nonce, &strange).await.unwrap_err();
    assert!(refused.contains("root generation aborted"), "{refused}");
    assert_eq!(get(&client, attempt).await["progress"], 0, "a wrong set starts over");

    let done = give(&client, update, &nonce, &cluster.shares[2..]).await.unwrap();
    assert_eq!(
        (done["complete"].as_bool(), &done["encoded_token"]),
        (Some(true), &done["encoded_root_token"])
    );
    let encoded = text(&done, "encoded_token");
    let decoded = put(&client, "sys/decode-token", json!({ "encoded_token": encoded, "otp": otp }));
    let token = text(&decoded.await.unwrap()["data"], "token");
    assert!(token.starts_with("hvs.") && token.len() == 28);
    let root = stranger(&cluster, active).with_token(Some(Token::new(token)));
    assert_eq!(get(&root, "auth/token/lookup-self").await["data"]["policies"], json!(["root"]));
    assert_eq!(get(&client, attempt).await["started"], false);

    // With a token, the other family of paths does the same.
    let begun = put(&root, "sys/generate-root-token/attempt", json!({})).await.unwrap();
    assert_eq!(get(&client, attempt).await["nonce"], begun["data"]["nonce"], "it is the same attempt");
    let denied = put(&client, "sys/generate-root-token/attempt", json!({})).await.unwrap_err();
    assert!(denied.contains("permission denied"), "{denied}");
    ask(&root, Request::delete("sys/generate-root-token/attempt")).await.unwrap();

    // An attempt ends with the leadership it began under.
    put(&client, attempt, json!({})).await.unwrap();
    cluster.client(active).unwrap().sys().step_down().await.unwrap();
    cluster
        .wait_for("another active node", LIMIT, || async {
            (cluster.active().await.ok()? != active).then_some(())
        })
        .await
        .unwrap();
    assert_eq!(get(&client, attempt).await["started"], false);
    let log = std::fs::read_to_string(&cluster.nodes[active].log).unwrap();
    assert!(log.contains("a root token was generated with key shares"), "operators see it");
    for secret in [otp.as_str(), encoded.as_str(), cluster.shares[0].as_str()] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_shares_take_over_on_every_node_once_verified() {
    let (mut cluster, _dir) = cluster().await;
    write_secret(&cluster).await;
    let active = cluster.active().await.unwrap();
    let away = (active + 2) % 3;
    let client = stranger(&cluster, standby(active));
    cluster.kill(away).unwrap();

    for (plan, want) in [
        (json!({ "secret_shares": 4, "secret_threshold": 1 }), "threshold must be greater than one"),
        (json!({ "secret_shares": 256, "secret_threshold": 3 }), "secret_shares must be from 1 to 255"),
        (json!({ "secret_shares": 1, "secret_threshold": 1, "pgp_keys": ["x"] }), "not supported"),
        (json!({ "secret_shares": 4, "secret_threshold": 3, "backup": true }), "without providing PGP keys"),
    ] {
        let refused = put(&client, "sys/rekey/init", plan).await.unwrap_err();
        assert!(refused.contains(want), "{refused}");
    }
    let plan = json!({ "secret_shares": 4, "secret_threshold": 3, "require_verification": true });
    let begun = put(&client, "sys/rekey/init", plan).await.unwrap();
    let old = cluster.shares.clone();
    let made = give(&client, "sys/rekey/update", &text(&begun, "nonce"), &old[1..4]).await.unwrap();
    let (new, verification) = (shares(&made), text(&made, "verification_nonce"));
    assert_eq!(stranger(&cluster, active).sys().seal_status().await.unwrap().n, 5, "nothing has changed yet");
    let refused = give(&client, "sys/rekey/update", &text(&begun, "nonce"), &old[..1]).await.unwrap_err();
    assert!(refused.contains("verification must be performed"), "{refused}");
    let refused = give(&client, "sys/rekey/verify", &verification, &old[..3]).await.unwrap_err();
    assert!(refused.contains("incorrect key shares supplied"), "{refused}");
    let verification = text(&get(&client, "sys/rekey/verify").await, "nonce");
    let done = give(&client, "sys/rekey/verify", &verification, &new[1..]).await.unwrap();
    assert_eq!(done, json!({ "nonce": verification, "complete": true }));
    assert_eq!(get(&client, "sys/rekey/init").await["started"], false);

    // Both nodes that were there show it; the one that was away takes the new shares only.
    for at in [active, standby(active)] {
        wait_for_counts(&cluster, at, 4).await;
    }
    cluster.launch(away).unwrap();
    let refused = unseal(&cluster, away, &old).await.unwrap_err();
    assert!(refused.contains("key shares do not give the key"), "{refused}");
    assert_eq!(unseal(&cluster, away, &new).await, Ok(true));
    wait_for_counts(&cluster, away, 4).await;

    // The same for one that was sealed, and for a whole cluster that starts anew.
    cluster.client(away).unwrap().sys().seal().await.unwrap();
    wait_until_sealed(&cluster, away).await;
    assert!(unseal(&cluster, away, &old).await.is_err());
    assert_eq!(unseal(&cluster, away, &new).await, Ok(true));
    for at in 0..3 {
        cluster.kill(at).unwrap();
    }
    for at in 0..3 {
        cluster.launch(at).unwrap();
        assert!(unseal(&cluster, at, &old).await.is_err());
        assert_eq!(unseal(&cluster, at, &new).await, Ok(true));
    }
    let at = cluster.active().await.unwrap();
    assert_eq!(read_secret(&cluster, at).await, Some(json!("v")));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_shares_open_no_node_for_long() {
    let (mut cluster, _dir) = cluster().await;
    let active = cluster.active().await.unwrap();
    let away = standby(active);
    cluster.kill(away).unwrap();
    let old = cluster.shares.clone();
    let new = rekey(&stranger(&cluster, active), &old).await;
    for at in (0..3).filter(|at| *at != away) {
        cluster.kill(at).unwrap();
    }
    // Nobody is there to ask: the node knows only what it has.
    cluster.launch(away).unwrap();
    assert_eq!(unseal(&cluster, away, &old).await, Ok(true));
    // The node that was active is certain to know; the other learns from it if it has to.
    for at in [active, (active + 2) % 3] {
        cluster.launch(at).unwrap();
        assert_eq!(unseal(&cluster, at, &new).await, Ok(true));
    }
    // Once it has caught up it seals itself, and then takes the new ones.
    wait_until_sealed(&cluster, away).await;
    assert!(unseal(&cluster, away, &old).await.is_err());
    assert_eq!(unseal(&cluster, away, &new).await, Ok(true));
    wait_for_counts(&cluster, away, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_dies_with_the_active_node_and_changes_nothing() {
    let (mut cluster, _dir) = cluster().await;
    write_secret(&cluster).await;
    // The first node has nobody to join through, so nobody to ask about new shares while it is sealed.
    while cluster.active().await.unwrap() == 0 {
        cluster.client(0).unwrap().write("sys/step-down", &json!({})).await.unwrap();
    }
    let active = cluster.active().await.unwrap();
    let client = stranger(&cluster, active);
    let plan = json!({ "secret_shares": 4, "secret_threshold": 3, "require_verification": true });
    let begun = put(&client, "sys/rekey/init", plan).await.unwrap();
    let old = cluster.shares.clone();
    give(&client, "sys/rekey/update", &text(&begun, "nonce"), &old[..3]).await.unwrap();
    cluster.kill(active).unwrap();
    let next = cluster.active().await.unwrap();
    let client = stranger(&cluster, next);
    assert_eq!(get(&client, "sys/rekey/init").await["started"], false);
    // The old shares stay, and another attempt may begin: by the paths that need a token, this time.
    let root = cluster.client(next).unwrap();
    let plan = json!({ "secret_shares": 4, "secret_threshold": 3 });
    let begun = put(&root, "sys/rotate/root/init", plan).await.unwrap();
    let nonce = text(&begun["data"], "nonce");
    let done = give(&root, "sys/rotate/root/update", &nonce, &old[2..]).await.unwrap();
    let new = shares(&done["data"]);
    assert_eq!(new.len(), 4);
    let refused = put(&root, "sys/rotate/root", json!({})).await.unwrap_err();
    assert!(refused.contains("sys/rotate/root/init"), "{refused}");
    let refused = put(&client, "sys/rekey-recovery-key/init", json!({})).await.unwrap_err();
    assert!(refused.contains("recovery rekeying not supported"), "{refused}");
    cluster.launch(active).unwrap();
    assert_eq!(unseal(&cluster, active, &new).await, Ok(true));
    cluster.wait_for_voters(3).await.unwrap();
    assert_eq!(read_secret(&cluster, next).await, Some(json!("v")));
}

/// One node with the default listener.
async fn single() -> (Cluster, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.path().join("cluster"));
    (options.nodes, options.storage) = (1, "file");
    let mut cluster = Cluster::start(options).unwrap();
    cluster.bring_up().await.unwrap();
    (cluster, dir)
}

/// Runs `arca operator …` with the root token; what it prints, as JSON.
async fn operator(cluster: &Cluster, args: &[&str]) -> Value {
    let done = tokio::process::Command::new(env!("CARGO_BIN_EXE_arca"))
        .args(["operator", args[0], "-format=json"])
        .args(&args[1..])
        .env("ARCA_ADDR", cluster.nodes[0].url())
        .env("ARCA_CACERT", cluster.ca_file())
        .env("ARCA_TOKEN", &cluster.root_token)
        .output()
        .await
        .unwrap();
    assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_replaces_shares_and_makes_root_tokens() {
    let (cluster, _dir) = single().await;
    let begin = ["rotate-keys", "-init", "-verify", "-key-shares=2", "-key-threshold=2"];
    let begun = operator(&cluster, &begin).await;
    assert_eq!((begun["started"].as_bool(), begun["n"].as_u64()), (Some(true), Some(2)));
    let mut done = Value::Null;
    for share in &cluster.shares[..3] {
        done = operator(&cluster, &["rekey", share]).await;
    }
    let new = shares(&done);
    assert_eq!(
        (new.len(), operator(&cluster, &["rekey", "-verify", "-status"]).await["started"].as_bool()),
        (2, Some(true))
    );
    operator(&cluster, &["rekey", "-verify", &new[0]]).await;
    assert_eq!(operator(&cluster, &["rekey", "-verify", &new[1]]).await["complete"], true);
    wait_for_counts(&cluster, 0, 2).await;

    let begun = operator(&cluster, &["generate-root", "-init"]).await;
    operator(&cluster, &["generate-root", &new[0]]).await;
    let done = operator(&cluster, &["generate-root", &new[1]]).await;
    let (encoded, otp) = (text(&done, "encoded_token"), text(&begun, "otp"));
    let decoded = operator(&cluster, &["generate-root", "-decode", &encoded, "-otp", &otp]).await;
    let root = stranger(&cluster, 0).with_token(Some(Token::new(text(&decoded, "token"))));
    assert_eq!(get(&root, "auth/token/lookup-self").await["data"]["policies"], json!(["root"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn key_shares_need_a_token_by_default() {
    let (cluster, _dir) = single().await;
    let root = cluster.client(0).unwrap();
    put(&root, "sys/rotate/root/init", json!({ "secret_shares": 4, "secret_threshold": 3 })).await.unwrap();
    let anybody = stranger(&cluster, 0);
    for path in ["sys/rekey/init", "sys/generate-root/attempt"] {
        for request in
            [Request::get(path), Request::put(path).json(&json!({})).unwrap(), Request::delete(path)]
        {
            let refused = ask(&anybody, request).await.unwrap_err();
            assert!(refused.contains("takes no key shares without a token"), "{refused}");
        }
    }
    assert_eq!(get(&root, "sys/rotate/root/init").await["data"]["started"], true);
}
