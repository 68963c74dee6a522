//! Three clusters as processes, one node each: one serves close to its users, and goes on when its primary is gone and the
//! primary's DR secondary was promoted.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // A test fails by panicking.

use std::path::Path;

use arca_harness::regions::far::Far;
use arca_harness::regions::region::Region;
use serde_json::{Map, Value, json};

fn follows(status: &Map<String, Value>) -> bool {
    status.get("state") == Some(&json!("stream-wals")) && status.get("lag_entries") == Some(&json!(0))
}

fn address(region: &Region) -> String {
    format!("127.0.0.1:{}", region.cluster_ports()[0])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_serves_and_goes_over_when_its_primary_is_gone() {
    let (dir, binary) = (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_BIN_EXE_arca")));
    let mut east = Region::of_nodes(1, "east", binary, dir.path()).await.unwrap();
    let mut west = Region::of_nodes(1, "west", binary, dir.path()).await.unwrap();
    east.order("primary/enable", &json!({})).await.unwrap();
    let token = east.secondary_token("west").await.unwrap();
    west.order("secondary/enable", &json!({ "token": token })).await.unwrap();
    west.until("the copy", follows).await.unwrap();

    let mut far = Far::follow(&east, &address(&east), binary, dir.path()).await.unwrap();
    for _ in 0..3 {
        far.check(&east).await.unwrap();
    }
    let written = east.status().await.unwrap()["last_wal"].as_u64().unwrap();
    let has_all = |status: &Map<String, Value>| {
        follows(status) && status["last_remote_wal"].as_u64().is_some_and(|at| at >= written)
    };
    west.until("the DR secondary to have that as well", has_all).await.unwrap();

    let shares = east.cluster.shares.clone();
    east.cluster.kill(0).unwrap();
    let operation = west.operation_token(&shares, 3).await.unwrap();
    west.order("secondary/promote", &json!({ "dr_operation_token": operation })).await.unwrap();
    west.cluster.root_token.clone_from(&east.cluster.root_token);
    far.come_over(&west, Some(&address(&west))).await.unwrap();
    far.check(&west).await.unwrap();
}
