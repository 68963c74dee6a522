//! The cluster's operations, as requests ask for them.

use arca_engine_api::Operation;
use bytes::Bytes;
use serde_json::json;

use crate::incoming::Body;
use crate::tokens::rig::{Rig, text};
use crate::{Answer, KernelError};

impl Rig {
    /// A token with sudo on everything that counts its uses.
    async fn metered(&self, uses: u32) -> String {
        let policy = r#"path "*" { capabilities = ["create", "read", "update", "sudo"] }"#;
        self.post("root", "sys/policies/acl/all", json!({ "policy": policy })).await.unwrap();
        self.made("root", json!({"policies": "all", "num_uses": uses})).await
    }

    async fn restore(&self, token: &str) -> Result<Answer, KernelError> {
        let mut incoming = self.incoming(token, Operation::Update, "sys/storage/raft/snapshot");
        let chunk = Ok(Bytes::from_static(b"backup"));
        incoming.body = Body::stream(Box::pin(futures::stream::iter([chunk])));
        self.kernel.handle(incoming).await.map(|answer| *answer)
    }
}

#[tokio::test]
async fn a_restore_that_meets_a_conflict_still_has_its_body() {
    let rig = Rig::active().await;
    let token = rig.metered(2).await;
    rig.replica.refuse_next(3);
    assert_eq!(text(rig.restore(&token).await), "None []");
    assert_eq!(rig.cluster.take_notes(), ["restore 6 bytes, forced false"]);
    let empty = rig.post(&token, "sys/storage/raft/snapshot", json!({})).await;
    assert_eq!(text(empty), "the request carries no snapshot");
}

#[tokio::test]
async fn sealing_is_for_the_node_that_is_asked() {
    let mut rig = Rig::active().await;
    let token = rig.metered(1).await;
    rig.become_standby();
    assert_eq!(text(rig.post(&token, "sys/seal", json!({})).await), "None []");
    assert_eq!(rig.cluster.take_notes(), ["seal"]);
    let refused = rig.post(&token, "sys/step-down", json!({})).await;
    assert!(matches!(refused, Err(KernelError::NeedsActive)));
}

#[tokio::test]
async fn the_active_node_takes_a_use_for_sealing_as_for_anything() {
    let rig = Rig::active().await;
    let token = rig.metered(1).await;
    assert_eq!(text(rig.post(&token, "sys/seal", json!({})).await), "None []");
    assert_eq!(text(rig.post(&token, "sys/seal", json!({})).await), "permission denied");
    assert_eq!(rig.cluster.take_notes(), ["seal"]);
}

#[tokio::test]
async fn a_node_alone_steps_down_in_name_only() {
    let rig = Rig::active().await;
    assert_eq!(text(rig.post("root", "sys/step-down", json!({})).await), "None []");
    assert!(rig.cluster.take_notes().is_empty());
    let _other = rig.replica.follower();
    assert_eq!(text(rig.post("root", "sys/step-down", json!({})).await), "None []");
    assert_eq!(rig.cluster.take_notes(), ["step-down"]);
}
