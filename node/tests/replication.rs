//! Two clusters of three nodes each, as processes: one becomes the other's copy, takes over when it is gone, and gives the
//! role back.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test fails by panicking.

use std::time::Duration;

use arca_client::{Client, Request, Token};
use arca_harness::{Cluster, ClusterOptions};
use serde_json::{Value, json};

const DR: &str = "sys/replication/dr";
/// For anything that takes an election and a connection.
const LIMIT: Duration = Duration::from_secs(90);

async fn put(client: &Client, path: &str, body: &Value) -> Result<Value, String> {
    let request = Request::put(path).json(body).unwrap();
    let response = client.send(request).await.map_err(|err| err.to_string())?;
    Ok(response.json().unwrap_or(Value::Null))
}

/// Through any node that answers, until it works.
async fn order(cluster: &Cluster, path: &str, body: Value) -> Value {
    let done = cluster.wait_for(path, LIMIT, || async {
        let active = cluster.active().await.ok()?;
        match put(&cluster.client(active).ok()?, path, &body).await {
            Ok(said) => Some(said),
            Err(err) => {
                println!("{path}: {err}");
                None
            }
        }
    });
    done.await.unwrap()
}

async fn status(cluster: &Cluster) -> Option<Value> {
    let client = cluster.client(cluster.active().await.ok()?).ok()?;
    let said = client.read(&format!("{DR}/status")).await.ok()??;
    Some(Value::Object(said.data?))
}

async fn wait(cluster: &Cluster, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let found =
        cluster.wait_for(what, LIMIT, || async { status(cluster).await.filter(|status| is_so(status)) });
    match found.await {
        Ok(found) => found,
        Err(err) => panic!("{err}: {:?}", status(cluster).await),
    }
}

async fn caught_up(secondary: &Cluster, primary: &Cluster) {
    let until = status(primary).await.unwrap()["last_dr_wal"].as_u64().unwrap();
    let is_there = |status: &Value| {
        status["state"] == "stream-wals" && status["last_remote_wal"].as_u64().is_some_and(|at| at >= until)
    };
    wait(secondary, "the secondary to catch up", is_there).await;
}

async fn operation_token(cluster: &Cluster) -> String {
    let path = format!("{DR}/secondary/generate-operation-token");
    let begun = order(cluster, &format!("{path}/attempt"), json!({})).await;
    let (nonce, otp) = (begun["nonce"].clone(), begun["otp"].as_str().unwrap().to_owned());
    let client = cluster.client(cluster.active().await.unwrap()).unwrap();
    let mut last = Value::Null;
    for share in cluster.shares.iter().take(3) {
        last =
            put(&client, &format!("{path}/update"), &json!({ "key": share, "nonce": nonce })).await.unwrap();
    }
    let encoded = json!({ "encoded_token": last["encoded_token"], "otp": otp });
    let decoded = put(&client, "sys/decode-token", &encoded).await.unwrap();
    decoded["data"]["token"].as_str().unwrap().to_owned()
}

async fn activation_token(primary: &Cluster, id: &str) -> String {
    let made = order(primary, &format!("{DR}/primary/secondary-token"), json!({ "id": id })).await;
    made["wrap_info"]["token"].as_str().unwrap().to_owned()
}

/// Writes numbers; those that were acknowledged are counted on to be read.
async fn write_numbers(cluster: &Cluster, from: u32, to: u32) {
    for number in from..to {
        let body = json!({ "data": { "n": number } });
        order(cluster, &format!("secret/data/n{number}"), body).await;
    }
}

async fn check_numbers(cluster: &Cluster, token: &str, to: u32) {
    let client = cluster.client(cluster.active().await.unwrap()).unwrap().with_token(Some(Token::new(token)));
    for number in 0..to {
        let said = client.read(&format!("secret/data/n{number}")).await.unwrap();
        let said = said.and_then(|said| said.data).unwrap_or_else(|| panic!("n{number} is lost"));
        assert_eq!(said["data"]["n"], number);
    }
}

async fn start(name: &str, dir: &std::path::Path) -> Cluster {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir.join(name));
    // Six nodes share a machine.
    options.extra_storage = "  performance_multiplier = 3\n".to_owned();
    Cluster::up(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_fails_and_the_other_takes_over_and_gives_back() {
    let dir = tempfile::tempdir().unwrap();
    let (mut east, mut west) = (start("east", dir.path()).await, start("west", dir.path()).await);
    order(&east, &format!("{DR}/primary/enable"), json!({})).await;
    write_numbers(&east, 0, 5).await;
    let user =
        order(&east, "auth/token/create", json!({ "policies": ["root"], "ttl": "1h", "period": "1h" })).await;
    let user = user["auth"]["client_token"].as_str().unwrap().to_owned();
    let token = activation_token(&east, "west").await;
    order(&west, &format!("{DR}/secondary/enable"), json!({ "token": token })).await;
    caught_up(&west, &east).await;
    (west.shares, west.root_token) = (east.shares.clone(), east.root_token.clone());
    for at in 0..3 {
        let health = west.client(at).unwrap().sys().seal_status().await.unwrap();
        assert!(!health.sealed, "every member has changed over to the primary's keys");
    }

    // Both lose their active nodes.
    let (a, b) = (east.active().await.unwrap(), west.active().await.unwrap());
    east.kill(a).unwrap();
    west.kill(b).unwrap();
    write_numbers(&east, 5, 10).await;
    caught_up(&west, &east).await;
    west.launch(b).unwrap();
    west.unseal(b).await.unwrap();

    // The first region is gone.
    for at in (0..3).filter(|at| *at != a) {
        east.kill(at).unwrap();
    }
    let operation = operation_token(&west).await;
    order(&west, &format!("{DR}/secondary/promote"), json!({ "dr_operation_token": operation })).await;
    write_numbers(&west, 10, 15).await;
    check_numbers(&west, &user, 15).await;

    // It returns, and is told.
    for at in 0..3 {
        east.launch(at).unwrap();
    }
    for at in 0..3 {
        east.unseal(at).await.unwrap();
    }
    wait(&east, "the fence", |status| status["state"] == "fenced").await;
    let client = east.client(east.active().await.unwrap()).unwrap();
    let refused = put(&client, "secret/data/late", &json!({ "data": { "n": 1 } })).await.unwrap_err();
    assert!(refused.contains("no longer the primary"), "{refused}");
    assert!(client.read("secret/data/n1").await.unwrap().is_some(), "it still reads");

    // It becomes a secondary by comparison.
    order(&east, &format!("{DR}/primary/demote"), json!({})).await;
    let token = activation_token(&west, "east").await;
    let operation = operation_token(&east).await;
    let update = json!({ "dr_operation_token": operation, "token": token });
    order(&east, &format!("{DR}/secondary/update-primary"), update).await;
    caught_up(&east, &west).await;

    // And the roles are switched back: nothing is lost.
    write_numbers(&west, 15, 20).await;
    order(&west, &format!("{DR}/primary/demote"), json!({})).await;
    let promote = json!({ "dr_operation_token": operation_token(&east).await });
    order(&east, &format!("{DR}/secondary/promote"), promote).await;
    let token = activation_token(&east, "west-again").await;
    let update = json!({ "dr_operation_token": operation_token(&west).await, "token": token });
    order(&west, &format!("{DR}/secondary/update-primary"), update).await;
    write_numbers(&east, 20, 25).await;
    caught_up(&west, &east).await;
    check_numbers(&east, &user, 25).await;
}
