//! Data that is not this node's, or not this build's: of another cluster, of another node, of a newer format, of
//! another program. The node says so and does not touch it. Damage is in `damage.rs`.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::fs;
use std::path::Path;
use std::time::Duration;

use arca_client::Client;
use arca_harness::trial::{Seen, Trial, replace};
use arca_harness::{Cluster, ClusterOptions, Joining, Node};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_arca");

/// Changes the data directory, starts, looks, and puts everything back.
#[track_caller]
fn assert_refused(what: &str, seen: &Seen, words: &[&str]) {
    let is_fine = matches!(seen, Seen::Refused(text) if words.iter().all(|word| text.contains(word)));
    assert!(is_fine, "{what}: wanted a refusal that holds {words:?}, saw {seen:#?}");
}

fn rewrite(path: &Path, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    fs::write(path, change(fs::read(path).unwrap())).unwrap();
}

/// `node.json` of the next format, with the checksum that goes with it.
fn newer_node_file(bytes: &[u8]) -> Vec<u8> {
    let stored: Value = serde_json::from_slice(bytes).unwrap();
    let mut record: Value = serde_json::from_str(stored["record"].as_str().unwrap()).unwrap();
    record["version"] = json!(2);
    record["a-field-of-the-future"] = json!(true);
    let record = record.to_string();
    let checksum = blake3::hash(record.as_bytes()).to_hex().to_string();
    serde_json::to_vec(&json!({ "checksum": checksum, "record": record })).unwrap()
}

/// `content` with its checksum at its end.
fn summed(mut content: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&content);
    content.extend_from_slice(&checksum.to_be_bytes());
    content
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_formats_are_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::prepare(BINARY, dir.path()).await.unwrap();
    type Change = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Change, &[&str]); 4] = [
        ("node.json", |bytes| newer_node_file(&bytes), &["node.json", "has format 2"]),
        ("raft/node/node", |_| summed(b"ARCANODE\x02".to_vec()), &["raft/node/node", "has format 2"]),
        (
            "raft/log/0000000001.seg",
            |mut bytes| {
                bytes[7] = 2;
                let checksum = crc32c::crc32c(&bytes[..92]).to_le_bytes();
                bytes[92..96].copy_from_slice(&checksum);
                bytes
            },
            &["0000000001.seg", "has format version 2"],
        ),
        (
            "raft/state/live",
            |_| {
                let line = "arca-state 2 generation 1";
                format!("{line} crc32c {:08x}\n", crc32c::crc32c(line.as_bytes())).into_bytes()
            },
            &["raft/state/live", "has format 2"],
        ),
    ];
    for (file, change, words) in cases {
        let path = trial.data().join(file);
        rewrite(&path, change);
        let written = fs::read(&path).unwrap();
        let seen = trial.start().await.unwrap();
        assert_refused(file, &seen, words);
        assert_eq!(fs::read(&path).unwrap(), written, "{file} was changed");
        trial.restore().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_programs_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::prepare(BINARY, dir.path()).await.unwrap();
    fs::write(trial.data().join("raft/log/0000000001.wal"), b"what is this?").unwrap();
    assert_refused(
        "a strange segment",
        &trial.start().await.unwrap(),
        &["0000000001.wal", "is not a log segment"],
    );
    // A data directory as Vault and OpenBao leave it.
    fs::remove_dir_all(trial.data()).unwrap();
    fs::create_dir_all(trial.data().join("raft")).unwrap();
    fs::write(trial.data().join("vault.db"), b"\x00bolt").unwrap();
    fs::write(trial.data().join("raft/raft.db"), b"\x00bolt").unwrap();
    assert_refused(
        "another server's",
        &trial.start().await.unwrap(),
        &["node.json is missing", "holds data"],
    );
    assert_eq!(fs::read(trial.data().join("raft/raft.db")).unwrap(), b"\x00bolt");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = Trial::prepare(BINARY, &dir.path().join("other")).await.unwrap();
    let mut trial = Trial::prepare(BINARY, &dir.path().join("own")).await.unwrap();
    let shares_do_not_fit: &[&str] = &["unsealing", "shares do not give the key"];
    let cases: [(&str, &[&str]); 5] = [
        ("", shares_do_not_fit),
        ("raft", shares_do_not_fit),
        ("raft/state", shares_do_not_fit),
        ("raft/log", &["0000000001.seg", "wrong data directory?"]),
        // It says which cluster this is, and the log is of another one.
        ("node.json", &["0000000001.seg", "wrong data directory?"]),
    ];
    for (part, words) in cases {
        replace(&other.pristine().join(part), &trial.data().join(part)).unwrap();
        assert_refused(&format!("{part:?} of another cluster"), &trial.start().await.unwrap(), words);
        trial.restore().unwrap();
    }
    assert_eq!(trial.start().await.unwrap(), Seen::Right);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_another_node_id_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut trial = Trial::prepare(BINARY, dir.path()).await.unwrap();
    let config = trial.cluster.nodes[0].config.clone();
    rewrite(&config, |bytes| {
        String::from_utf8(bytes).unwrap().replace("\"node1\"", "\"other\"").into_bytes()
    });
    let words = ["node_id", "\"node1\"", "\"other\""];
    assert_refused("another node_id", &trial.start().await.unwrap(), &words);
}

async fn small_cluster(dir: &Path) -> Cluster {
    let options = ClusterOptions {
        nodes: 1,
        shares: 1,
        threshold: 1,
        is_tls: false,
        ..ClusterOptions::new(BINARY, dir)
    };
    let mut cluster = Cluster::start(options).unwrap();
    cluster.bring_up().await.unwrap();
    let client = cluster.client(0).unwrap();
    client.write("sys/mounts/plain", &json!({"type": "kv"})).await.unwrap();
    client.write("plain/entry", &json!({"value": "as it was"})).await.unwrap();
    cluster
}

async fn value(client: &Client) -> Option<String> {
    let secret = client.read("plain/entry").await.unwrap()?;
    secret.field("value")?.as_str().map(str::to_owned)
}

/// A process that was given the data directory of `node`, and ports of its own.
fn second_process(node: &Node, dir: &Path) -> Node {
    let mut second = Node::new(&node.name, dir, false).unwrap();
    let text = fs::read_to_string(&node.config).unwrap();
    let text = text.replace(&format!(":{}", node.port), &format!(":{}", second.port));
    let text = text.replace(&format!(":{}", node.cluster_port), &format!(":{}", second.cluster_port));
    fs::write(&second.config, text).unwrap();
    second.launch(Path::new(BINARY)).unwrap();
    second
}

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_is_not_for_two_processes() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = small_cluster(dir.path()).await;
    let data = cluster.nodes[0].data.display().to_string();
    // While the first one serves, and while it waits to be unsealed.
    for turn in ["unsealed", "sealed"] {
        let mut second = second_process(&cluster.nodes[0], &dir.path().join(turn));
        let ended = second.ended(Duration::from_secs(30)).await;
        second.abandon();
        assert_eq!(ended.unwrap().code(), Some(1), "{turn}");
        let log = second.log_text();
        assert!(log.contains(&data) && log.contains("another process"), "{turn}: {log}");
        cluster.kill(0).unwrap();
        cluster.launch(0).unwrap();
        cluster.wait_until_listening(0).await.unwrap();
    }
    cluster.unseal(0).await.unwrap();
    cluster.active().await.unwrap();
    assert_eq!(value(&cluster.client(0).unwrap()).await.as_deref(), Some("as it was"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_not_for_two_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = small_cluster(dir.path()).await;
    let second = cluster.add_node_in("second", "node1", Joining::ByItself).unwrap();
    let refused = cluster.unseal(second).await.unwrap_err().to_string();
    assert!(refused.contains("node_id \"node1\" already belongs to"), "{refused}");
    assert!(refused.contains("remove-peer"), "{refused}");
    // It is as new as before, and the cluster knows nothing of it.
    assert!(!cluster.nodes[second].data.join("node.json").exists());
    let first = cluster.client(0).unwrap();
    let peers = first.sys().raft_peers().await.unwrap();
    assert_eq!(peers.iter().map(|peer| peer.node_id.as_str()).collect::<Vec<_>>(), ["node1"]);
    assert_eq!(value(&first).await.as_deref(), Some("as it was"));
    // Under a name of its own it is welcome.
    let third = cluster.add_node("node2").unwrap();
    cluster.unseal(third).await.unwrap();
    cluster.wait_for_voters(2).await.unwrap();
    assert_eq!(value(&cluster.client(third).unwrap()).await.as_deref(), Some("as it was"));
}
