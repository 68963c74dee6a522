//! Every field of every documented operation, given what it was not made for: a 4xx or a sensible answer, never a 5xx.
//! The operations come from the server's own OpenAPI document, so that a new one is tried without being listed here.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use arca_harness::raw::Connection;
use arca_harness::{Cluster, ClusterOptions};
use serde_json::{Map, Value, json};

/// Values that suit few fields.
fn strange_values() -> Vec<Value> {
    let huge = serde_json::from_str("1e400").unwrap();
    let long = "x".repeat(20_000);
    vec![
        json!({"a": {"b": [{}]}}),
        json!([[1, [null]], {}]),
        json!("\u{0}\u{202e}\u{1f4a5}\n\"\\ ../%2e%2e/"),
        json!(-1),
        json!(u64::MAX),
        huge,
        json!(true),
        json!("99999999999999999999h"),
        json!("-1s"),
        json!(long),
        json!(""),
    ]
}

/// A value that a field of this schema may well have.
fn plausible(name: &str, schema: &Value) -> Value {
    match (name, schema["type"].as_str().unwrap()) {
        ("type", _) => json!("kv"),
        (_, "boolean") => json!(false),
        (_, "integer") => json!(1),
        (_, "array") => json!(["x"]),
        (_, "object") => json!({}),
        _ => json!("1h"),
    }
}

/// One field set, alone and among others that make sense.
fn bodies(properties: &Map<String, Value>) -> Vec<(String, Value)> {
    let others: Map<String, Value> =
        properties.iter().map(|(name, schema)| (name.clone(), plausible(name, schema))).collect();
    let mut bodies = Vec::new();
    for name in properties.keys() {
        for value in strange_values() {
            let shown: String = value.to_string().chars().take(40).collect();
            let mut among = others.clone();
            among.insert(name.clone(), value.clone());
            bodies.push((format!("{name} = {shown}"), json!({ name.as_str(): value })));
            bodies.push((format!("{name} = {shown} among others"), among.into()));
        }
    }
    bodies
}

async fn server(dir: &std::path::Path) -> Cluster {
    let options = ClusterOptions {
        nodes: 1,
        shares: 1,
        threshold: 1,
        is_tls: false,
        storage: "inmem",
        ..ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir)
    };
    Cluster::start(options).unwrap()
}

fn verb(name: &str) -> Option<(&'static str, &'static str)> {
    match name {
        "post" => Some(("POST", "application/json")),
        "patch" => Some(("PATCH", "application/merge-patch+json")),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_field_makes_the_server_fail() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = server(dir.path()).await;
    cluster.bring_up().await.unwrap();
    cluster.mount_kv().await.unwrap();
    cluster.client(0).unwrap().write("sys/mounts/plain", &json!({"type": "kv"})).await.unwrap();
    let mut connection = Connection::open(cluster.nodes[0].port).await.unwrap();
    let document =
        connection.call("GET", "/v1/sys/internal/specs/openapi", &cluster.root_token, "").await.unwrap();
    let document = document.json();
    let (mut tried, mut failed) = (0, Vec::new());
    for (pattern, item) in document["paths"].as_object().unwrap() {
        for (name, operation) in item.as_object().unwrap() {
            let Some((method, kind)) = verb(name) else { continue };
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let Some(properties) = schema["properties"].as_object() else { continue };
            let path = pattern.replace(['{', '}'], "");
            for (what, body) in bodies(properties) {
                let body = body.to_string();
                let head = format!(
                    "{method} /v1{path} HTTP/1.1\r\nHost: arca\r\nX-Vault-Token: {}\r\nContent-Type: {kind}\r\n\
                     Content-Length: {}\r\n\r\n",
                    cluster.root_token,
                    body.len(),
                );
                connection.send(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
                let answer = connection.answer().await.unwrap();
                tried += 1;
                if answer.status >= 500 {
                    failed.push(format!("{method} {path}, {what}: {} {}", answer.status, answer.text()));
                }
            }
        }
    }
    println!("{tried} bodies tried");
    assert!(
        failed.is_empty(),
        "{} of {tried}:\n{}\n{}",
        failed.len(),
        failed.join("\n"),
        cluster.nodes[0].log_text()
    );
    assert!(tried > 1_000, "only {tried} bodies tried");
    assert!(!cluster.nodes[0].log_text().contains(" ERROR "), "{}", cluster.nodes[0].log_text());
}

/// What a node answers before it has keys, and before it belongs to a cluster.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_strange_initializes_or_unseals() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = server(dir.path()).await;
    cluster.wait_until_listening(0).await.unwrap();
    let mut connection = Connection::open(cluster.nodes[0].port).await.unwrap();
    let mut refuse = async |path: &str, body: Value| {
        let answer =
            connection.call("POST", &format!("/v1/sys/{path}"), "", &body.to_string()).await.unwrap();
        let (status, text) = (answer.status, answer.text());
        assert!(
            (400..500).contains(&status) && answer.json()["errors"].is_array(),
            "{path} {body}: {status} {text}"
        );
    };
    for (shares, threshold) in
        [(0, 0), (1, 2), (3, 0), (0, 3), (5, 1), (256, 3), (-5, 3), (5, -3), (100_000, 2)]
    {
        refuse("init", json!({"secret_shares": shares, "secret_threshold": threshold})).await;
    }
    for value in strange_values().into_iter().filter(|value| *value != json!("")) {
        refuse("init", json!({ "secret_shares": value })).await;
        refuse("init", json!({ "secret_threshold": value, "secret_shares": 5 })).await;
        refuse("init", json!({ "pgp_keys": [value] })).await;
        refuse("unseal", json!({ "key": value })).await;
        refuse("storage/raft/join", json!({ "leader_api_addr": value })).await;
    }
    cluster.bring_up().await.unwrap();
    cluster.client(0).unwrap().sys().seal().await.unwrap();
    let is_sealed =
        || async { cluster.client(0).ok()?.sys().seal_status().await.ok().filter(|status| status.sealed) };
    cluster.wait_for("the seal", std::time::Duration::from_secs(30), is_sealed).await.unwrap();
    for value in strange_values() {
        refuse("unseal", json!({ "key": value })).await;
        refuse("init", json!({ "secret_shares": value })).await;
    }
    cluster.unseal(0).await.unwrap();
    cluster.active().await.unwrap();
    for value in strange_values() {
        for field in ["server_id", "nonce", "proof", "signing_request", "cluster_addr"] {
            refuse("storage/raft/bootstrap/answer", json!({ field: value })).await;
        }
        refuse("init", json!({ "secret_shares": value })).await;
    }
}
