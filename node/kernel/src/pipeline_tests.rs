//! Requests as they pass through the pipeline.

use arca_engine_api::Operation;
use serde_json::json;

use crate::admission::Asked;
use crate::tokens::rig::{Rig, text};
use crate::tx::Mode;
use crate::{Body, Incoming, KernelError};

#[tokio::test]
async fn a_state_that_is_not_here_is_asked_of_the_active_node_if_the_caller_wants() {
    let mut rig = Rig::active().await;
    let header = rig.kernel.index_header().unwrap().unwrap().write(1_000_000, 1_000_000).unwrap();
    let ask = async |rig: &Rig, forwards_when_behind: bool| {
        let mut incoming = rig.incoming("root", Operation::Read, "auth/token/lookup-self");
        incoming.required_index = vec![header.clone()];
        incoming.forwards_when_behind = forwards_when_behind;
        rig.kernel.handle(incoming).await.map(drop)
    };
    assert!(matches!(ask(&rig, true).await, Err(KernelError::NotYet)), "nobody to carry it to");
    rig.become_standby();
    assert!(matches!(ask(&rig, true).await, Err(KernelError::NeedsActive)));
    assert!(matches!(ask(&rig, false).await, Err(KernelError::NotYet)));
}

/// Of two requests that saw nothing at a path, one creates what is there; the other may not write over it.
#[tokio::test]
async fn create_without_update_writes_over_nothing() {
    let rig = Rig::active().await;
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    let policy = r#"path "notes/new/*" { capabilities = ["create"] }
        path "notes/old/*" { capabilities = ["update"] }
        path "notes/any/*" { capabilities = ["create", "update"] }"#;
    rig.post("root", "sys/policies/acl/p", json!({"policy": policy})).await.unwrap();
    rig.post("root", "notes/old/a", json!({"by": "root"})).await.unwrap();
    let token = rig.made("root", json!({"policies": "p"})).await;
    // Decides, lets another request get in between, then runs.
    let overtaken = async |path: &str, operation, body| -> Result<(), KernelError> {
        let data = json!({"by": "p"}).as_object().unwrap().clone();
        let incoming = rig.incoming(&token, Operation::Update, path);
        let mut asked = Asked::new(Incoming { body: Body::Fields(data), ..incoming });
        let tx = rig.kernel.store.begin(Mode::ReadOnly);
        let mut admitted = rig.kernel.admit(&tx, &mut asked)?;
        rig.ask("root", operation, path, body, None).await.unwrap();
        rig.kernel.attempt(tx, &asked, &mut admitted).await.map(drop)
    };
    let by_root = json!({"by": "root"});
    assert!(overtaken("notes/new/a", Operation::Update, by_root.clone()).await.unwrap_err().is_conflict());
    assert!(overtaken("notes/old/a", Operation::Delete, json!(null)).await.unwrap_err().is_conflict());
    assert!(overtaken("notes/any/a", Operation::Update, by_root.clone()).await.is_ok(), "no matter here");
    // Run again, they are refused.
    let again = async |path: &str| text(rig.post(&token, path, json!({"by": "p"})).await);
    assert_eq!(again("notes/new/a").await, "permission denied");
    assert_eq!(again("notes/old/a").await, "permission denied");
    assert_eq!(rig.get("root", "notes/new/a").await.unwrap().data.unwrap()["by"], json!("root"));
}

#[tokio::test]
async fn what_is_too_large_is_told_without_where_it_would_lie() {
    let rig = Rig::active().await;
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    let refused = rig.post("root", "notes/a", json!({"a": "x".repeat(1 << 20)})).await;
    assert_eq!(text(refused), "the value is too large: 1048584 bytes, at most 1048576");
}

/// A field that counts for nothing is spoken of where there is an answer to say it in.
#[tokio::test]
async fn fields_that_count_for_nothing_are_told() {
    let rig = Rig::active().await;
    let ignored = |names: &str| format!("Endpoint ignored these unrecognized parameters: [{names}]");
    let replaced = |names: &str| {
        format!(
            "Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [{names}]"
        )
    };
    let policy = r#"path "a" { capabilities = ["read"] }"#;
    for (operation, path, body, want) in [
        (Operation::Update, "auth/token/roles/r", json!({"foo": 1, "orphan": true}), vec![]),
        (Operation::Update, "sys/policies/acl/p", json!({"policy": policy, "name": "q", "foo": 1}), vec![]),
        (Operation::Update, "auth/token/create/r", json!({}), vec![]),
        (
            Operation::Update,
            "auth/token/create/r",
            json!({"role_name": "r", "foo": 1, "bar": null}),
            vec![ignored("bar foo"), replaced("role_name")],
        ),
        (Operation::Update, "auth/token/create/r", json!({"role_name": null}), vec![]),
        (Operation::Update, "sys/tools/hash", json!({"input": "", "urlalgorithm": "sha2-512"}), vec![]),
        (
            Operation::Update,
            "sys/tools/hash/sha2-256",
            json!({"input": "", "urlalgorithm": "sha2-512"}),
            vec![replaced("urlalgorithm")],
        ),
        (Operation::Read, "sys/policies/acl/p", json!({"foo": "1"}), vec![ignored("foo")]),
        (Operation::List, "sys/policies/acl/", json!({"limit": "1", "foo": "1"}), vec![ignored("foo")]),
        (Operation::Delete, "sys/policies/acl/p", json!({"foo": "1"}), vec![]),
    ] {
        let answer = rig.ask("root", operation, path, body.clone(), None).await.unwrap();
        let told = answer.warnings.iter().filter(|text| text.starts_with("Endpoint"));
        assert_eq!(told.cloned().collect::<Vec<_>>(), want, "{operation:?} {path} {body}");
    }
}
