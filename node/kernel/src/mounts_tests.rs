//! The mount table as requests change it.

use arca_engine_api::EngineKind;
use serde_json::json;

use crate::tokens::rig::{Rig, text};

#[tokio::test]
async fn a_path_is_taken_from_the_moment_a_mount_is_sent_there() {
    let rig = Rig::active().await;
    rig.mount("gcp", EngineKind::Secrets).await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    rig.break_engine(true).await;
    let moved = rig.post("root", "sys/remount", json!({"from": "aws", "to": "team/aws"})).await.unwrap();
    let id = moved.data.unwrap()["migration_id"].as_str().unwrap().to_owned();
    for path in ["team/aws", "team", "team/aws/inside"] {
        let taken = rig.post("root", &format!("sys/mounts/{path}"), json!({"type": "stubborn"})).await;
        assert_eq!(text(taken), "path is already in use at aws/", "{path}");
        let taken = rig.post("root", "sys/remount", json!({"from": "gcp", "to": path})).await;
        assert_eq!(text(taken), format!("path already in use at \"{path}/\""));
    }
    rig.break_engine(false).await;
    rig.advance(60);
    // Housekeeping may be at it as well: whoever comes second leaves it to the first.
    let is_moved = async || {
        let status = rig.get("root", &format!("sys/remount/status/{id}")).await.unwrap().data.unwrap();
        status["migration_info"]["status"] == json!("success")
    };
    for _ in 0..100 {
        rig.kernel.finish_changes().await.unwrap();
        tokio::task::yield_now().await;
        if is_moved().await {
            break;
        }
    }
    assert!(is_moved().await && !rig.has_lease(&lease));
    assert!(rig.get("root", "sys/mounts/team/aws").await.is_ok());
    let free = rig.post("root", "sys/mounts/aws", json!({"type": "stubborn"})).await;
    assert_eq!(text(free), "None []");
}
