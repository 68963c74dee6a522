//! Backups restored into real clusters, and what becomes of the nodes' keys; and nodes that come back elsewhere.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::disallowed_methods)] // A test fails by panicking; real processes live in real time.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_client::raft::Restore;
use arca_harness::{Cluster, ClusterOptions};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

async fn start(dir: &Path, nodes: usize) -> Cluster {
    let mut options = ClusterOptions::new(env!("CARGO_BIN_EXE_arca"), dir);
    (options.nodes, options.shares, options.threshold) = (nodes, 2, 2);
    let mut cluster = Cluster::start(options).unwrap();
    cluster.bring_up().await.unwrap();
    let active = cluster.active().await.unwrap();
    let client = cluster.client(active).unwrap();
    client.write("sys/mounts/kv", &json!({"type": "kv"})).await.unwrap();
    cluster
}

async fn put(cluster: &Cluster, at: usize, key: &str, value: &str) {
    cluster.client(at).unwrap().kv1("kv").put(key, &json!({"value": value})).await.unwrap();
}

/// Waits until the node answers, which may take an election.
async fn check(cluster: &Cluster, at: usize, key: &str, expected: Option<&str>) {
    let client = cluster.client(at).unwrap();
    let found = cluster
        .wait_for("an answer", LONG, || async { client.kv1("kv").get(key).await.ok() })
        .await
        .unwrap()
        .map(|data| data["value"].clone());
    assert_eq!(found, expected.map(|text| Value::String(text.to_owned())), "node {at}, {key}");
}

async fn backup(cluster: &Cluster, file: &Path) -> PathBuf {
    let active = cluster.active().await.unwrap();
    let mut out = tokio::fs::File::create(file).await.unwrap();
    cluster.client(active).unwrap().sys().raft_snapshot(&mut out).await.unwrap();
    tokio::io::AsyncWriteExt::flush(&mut out).await.unwrap();
    file.to_owned()
}

async fn restart_all(cluster: &mut Cluster) {
    for at in 0..cluster.nodes.len() {
        cluster.kill(at).unwrap();
    }
    for at in 0..cluster.nodes.len() {
        cluster.launch(at).unwrap();
        cluster.unseal(at).await.unwrap();
    }
    cluster.active().await.unwrap();
}

#[tokio::test]
async fn a_backup_from_before_a_rotation_is_served_and_written_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(&dir.path().join("c"), 2).await;
    put(&cluster, 0, "a", "then").await;
    let file = backup(&cluster, &dir.path().join("backup")).await;
    let active = cluster.active().await.unwrap();
    cluster.client(active).unwrap().sys().rotate().await.unwrap();
    put(&cluster, 0, "a", "now").await;
    put(&cluster, 0, "b", "now").await;
    // The key of this one is sealed under a term that the backup does not know.
    let late = cluster.add_node("late").unwrap();
    cluster.unseal(late).await.unwrap();
    cluster.wait_for_voters(3).await.unwrap();
    let active = cluster.active().await.unwrap();
    cluster.client(active).unwrap().sys().raft_restore(&file, Restore::Checked).await.unwrap();
    let status = cluster.client(active).unwrap().sys().key_status().await.unwrap();
    assert_eq!(status.term, 1);
    for at in 0..3 {
        check(&cluster, at, "a", Some("then")).await;
        check(&cluster, at, "b", None).await;
        put(&cluster, at, &format!("new-{at}"), "written after it").await;
    }
    restart_all(&mut cluster).await;
    for at in 0..3 {
        check(&cluster, at, "a", Some("then")).await;
        check(&cluster, at, &format!("new-{}", (at + 1) % 3), Some("written after it")).await;
    }
    put(&cluster, late, "c", "and after a restart").await;
    let active = cluster.active().await.unwrap();
    cluster.client(active).unwrap().sys().rotate().await.unwrap();
    put(&cluster, late, "d", "and after a rotation").await;
    for at in 0..3 {
        check(&cluster, at, "d", Some("and after a rotation")).await;
    }
}

/// Replaces the key shares by as many new ones.
async fn replace_shares(cluster: &Cluster) -> Vec<String> {
    let client = cluster.client(cluster.active().await.unwrap()).unwrap();
    let data = |secret: Option<arca_client::Secret>| secret.unwrap().data.unwrap();
    let plan = json!({"secret_shares": 2, "secret_threshold": 2});
    let begun = data(client.write("sys/rotate/root/init", &plan).await.unwrap());
    let mut done = serde_json::Map::new();
    for share in &cluster.shares {
        let offered = json!({"key": share, "nonce": begun["nonce"]});
        done = data(client.write("sys/rotate/root/update", &offered).await.unwrap());
    }
    done["keys_base64"].as_array().unwrap().iter().map(|share| share.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_backup_of_another_cluster_brings_its_shares_and_its_ca() {
    let dir = tempfile::tempdir().unwrap();
    let source = start(&dir.path().join("source"), 1).await;
    put(&source, 0, "a", "theirs").await;
    let file = backup(&source, &dir.path().join("backup")).await;
    let (shares, root_token) = (source.shares.clone(), source.root_token.clone());
    drop(source);
    let mut cluster = start(&dir.path().join("target"), 3).await;
    put(&cluster, 0, "a", "ours").await;
    let active = cluster.active().await.unwrap();
    let before = cluster.client(active).unwrap().sys().seal_status().await.unwrap();
    let refused = cluster.client(active).unwrap().sys().raft_restore(&file, Restore::Checked).await;
    assert!(refused.unwrap_err().to_string().contains("other keys"));
    cluster.client(active).unwrap().sys().raft_restore(&file, Restore::Forced).await.unwrap();
    for at in 0..3 {
        let client = cluster.client(at).unwrap();
        let sealed = || async { client.sys().seal_status().await.ok().filter(|status| status.sealed) };
        cluster.wait_for("every node to be sealed", LONG, sealed).await.unwrap();
        let log = std::fs::read_to_string(&cluster.nodes[at].log).unwrap();
        assert!(log.contains("unseal it with the shares of the cluster the backup was made in"), "node {at}");
    }
    (cluster.shares, cluster.root_token) = (shares, root_token);
    for at in 0..2 {
        cluster.unseal(at).await.unwrap();
    }
    // The third is still sealed, with the CA of before in its own file, when the shares are replaced.
    cluster.shares = replace_shares(&cluster).await;
    cluster.unseal(2).await.unwrap();
    for at in 0..3 {
        check(&cluster, at, "a", Some("theirs")).await;
    }
    put(&cluster, 1, "b", "written after it").await;
    restart_all(&mut cluster).await;
    for at in 0..3 {
        check(&cluster, at, "a", Some("theirs")).await;
        check(&cluster, at, "b", Some("written after it")).await;
    }
    let after = cluster.client(0).unwrap().sys().seal_status().await.unwrap();
    assert_eq!(after.cluster_id, before.cluster_id);
    assert!(after.cluster_name.starts_with("arca-cluster-"), "{}", after.cluster_name);
    let new = cluster.add_node("new").unwrap();
    cluster.unseal(new).await.unwrap();
    cluster.wait_for_voters(4).await.unwrap();
    check(&cluster, new, "b", Some("written after it")).await;
}

#[tokio::test]
async fn a_standby_that_comes_back_elsewhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = start(&dir.path().join("c"), 3).await;
    let active = cluster.active().await.unwrap();
    let moves = (active + 1) % 3;
    cluster.kill(moves).unwrap();
    let port = cluster.change_cluster_port(moves).unwrap();
    cluster.launch(moves).unwrap();
    cluster.unseal(moves).await.unwrap();
    let (client, name) = (cluster.client(active).unwrap(), cluster.nodes[moves].name.clone());
    let moved = || async {
        let peers = client.sys().raft_peers().await.ok()?;
        let peer = peers.into_iter().find(|peer| peer.node_id == name)?;
        (peer.address == format!("127.0.0.1:{port}")).then_some(peer.voter)
    };
    let is_voter = cluster.wait_for("the new address to be known", LONG, moved).await.unwrap();
    assert!(is_voter);
    put(&cluster, active, "a", "1").await;
    check(&cluster, moves, "a", Some("1")).await;
}
