//! One path, one decision: what policies see is what handlers act on.

use arca_engine_api::{Operation, Route, RouteTable};
use serde_json::{Value, json};

use crate::Incoming;
use crate::tokens::rig::{Rig, text};

const WRITES: [Operation; 3] = [Operation::Create, Operation::Patch, Operation::Update];

impl Rig {
    /// A token with one policy of this text.
    async fn holder_of(&self, policy: &str) -> String {
        self.post("root", "sys/policies/acl/p", json!({ "policy": policy })).await.unwrap();
        self.made("root", json!({"policies": "p"})).await
    }
}

/// A path that the route serves.
fn sample(route: &Route) -> String {
    let segments =
        route.pattern.split('/').map(|segment| if segment.starts_with('{') { "x" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

fn check_table(table: &RouteTable) {
    for route in table.routes() {
        let (entry, takes_rest) = (sample(route), route.pattern.ends_with("...}"));
        let folder = format!("{entry}/");
        for operation in WRITES {
            assert_eq!(table.find(operation, &entry).unwrap().0.pattern, route.pattern, "{entry}");
            assert!(table.find(operation, &folder).is_none(), "{operation:?} {folder}");
        }
        for operation in [Operation::Delete, Operation::Read] {
            let found = table.find(operation, &folder).map(|(found, _)| found.pattern);
            assert!(found.is_none_or(|found| found.ends_with("...}")), "{operation:?} {folder} {found:?}");
            assert!(!takes_rest || found == Some(route.pattern), "{operation:?} {folder} {found:?}");
        }
        let found = table.find(Operation::List, &folder).map(|(found, _)| found.pattern);
        assert_eq!(found == Some(route.pattern), takes_rest || route.lists(), "list {folder}");
    }
}

#[tokio::test]
async fn no_built_in_path_is_reached_with_a_slash_too_many() {
    let rig = Rig::new().await;
    for group in rig.kernel.system_groups.iter().chain(&rig.kernel.token_groups) {
        check_table(group.routes());
    }
}

#[tokio::test]
async fn a_slash_does_not_lead_around_a_denial() {
    let rig = Rig::active().await;
    let policy = r#"
        path "sys/*" { capabilities = ["create", "update", "delete", "read", "list", "sudo"] }
        path "sys/step-down" { capabilities = ["deny"] }
        path "sys/leases/revoke" { capabilities = ["deny"] }
        path "sys/mounts/aws" { capabilities = ["deny"] }
        path "auth/token/*" { capabilities = ["create", "update", "delete", "read", "list"] }
        path "auth/token/roles/admin" { capabilities = ["deny"] }
    "#;
    let token = rig.holder_of(policy).await;
    rig.post("root", "auth/token/roles/admin", json!({})).await.unwrap();
    let folder = "cannot write to a path ending in '/'";
    for (operation, path, want) in [
        (Operation::Update, "sys/step-down", "permission denied"),
        (Operation::Update, "sys/step-down/", folder),
        (Operation::Update, "sys/leases/revoke/", folder),
        (Operation::Delete, "sys/mounts/aws", "permission denied"),
        (Operation::Delete, "sys/mounts/aws/", "permission denied"),
        (Operation::Update, "auth/token/roles/admin/", folder),
        (Operation::Delete, "auth/token/roles/admin/", "unsupported path"),
        (Operation::Read, "auth/token/roles/admin/", "unsupported path"),
    ] {
        assert_eq!(
            text(rig.ask(&token, operation, path, Value::Null, None).await),
            want,
            "{operation:?} {path}"
        );
    }
    assert_eq!(rig.cluster.take_notes(), Vec::<String>::new(), "nobody stepped down");
    assert!(rig.get("root", "auth/token/roles/admin").await.is_ok());
    assert!(rig.get("root", "sys/mounts/aws").await.is_ok());
}

#[tokio::test]
async fn a_slash_does_not_lead_from_roles_to_plain_tokens() {
    let rig = Rig::active().await;
    let token = rig.holder_of(r#"path "auth/token/create/*" { capabilities = ["create", "update"] }"#).await;
    assert_eq!(text(rig.post(&token, "auth/token/create", json!({})).await), "permission denied");
    let answer = rig.post(&token, "auth/token/create/", json!({})).await;
    assert_eq!(text(answer), "cannot write to a path ending in '/'");
    assert_eq!(text(rig.list("root", "auth/token/create/").await), "unsupported path");
}

#[tokio::test]
async fn help_on_a_protected_path_needs_no_sudo() {
    let rig = Rig::active().await;
    let token = rig.made("root", json!({"policies": "default"})).await;
    let answer = rig.ask(&token, Operation::Help, "sys/step-down", Value::Null, None).await.unwrap();
    assert!(answer.data.unwrap()["help"].as_str().unwrap().contains("Matching Route: step-down"));
    assert_eq!(text(rig.post(&token, "sys/step-down", json!({})).await), "permission denied");
}

#[tokio::test]
async fn help_at_the_root_of_a_mount_lists_its_paths() {
    let rig = Rig::active().await;
    let token = rig.made("root", json!({"policies": "default"})).await;
    for (root, path) in [("auth/token/", "lookup-self"), ("identity", "entity/merge"), ("sys/", "step-down")]
    {
        let stranger = rig.ask("nobody", Operation::Help, root, Value::Null, None).await;
        assert_eq!(text(stranger), "permission denied", "{root}");
        let answer = rig.ask(&token, Operation::Help, root, Value::Null, None).await.unwrap().data.unwrap();
        assert!(answer["help"].as_str().unwrap().contains(&format!("\n    {path}\n")), "{root}: {answer:?}");
        assert!(answer["openapi"]["paths"].as_object().is_some_and(|paths| !paths.is_empty()));
    }
}

#[tokio::test]
async fn the_types_of_one_kind_are_for_sudo() {
    let rig = Rig::active().await;
    for (capability, want) in [(r#""list""#, "permission denied"), (r#""list", "sudo""#, "stubborn")] {
        let policy = format!(r#"path "sys/plugins/catalog/*" {{ capabilities = [{capability}] }}"#);
        let token = rig.holder_of(&policy).await;
        let answer = text(rig.list(&token, "sys/plugins/catalog/auth").await);
        assert!(answer.contains(want), "{answer}");
    }
}

#[tokio::test]
async fn a_lease_in_the_path_is_the_one_that_is_meant() {
    let rig = Rig::active().await;
    let policy = r#"path "sys/leases/+/aws/creds/mine/*" { capabilities = ["update"] }"#;
    let token = rig.holder_of(policy).await;
    let other = rig.lease(&rig.root, "root", "aws/creds/other", 60).await.unwrap();
    let body = json!({ "lease_id": other.id });
    for operation in ["revoke", "renew"] {
        let path = format!("sys/leases/{operation}/aws/creds/mine/x");
        let asked = rig.post(&token, &path, body.clone()).await;
        assert_eq!(text(asked), "lease_id is not the lease that the path names", "{operation}");
    }
    assert!(rig.has_lease(&other));
    let path = format!("sys/leases/revoke/{}", other.id);
    rig.post("root", &path, body).await.unwrap();
    assert!(!rig.has_lease(&other) || rig.is_undone(&other));
}

/// CVE-2026-4525: a token that came as a bearer reached the mount.
#[tokio::test]
async fn cve_2026_4525_no_header_hands_the_token_on() {
    let rig = Rig::new().await;
    let mut incoming = rig.incoming("hvs.mine", Operation::Read, "aws/x");
    for (name, value) in [("authorization", "Bearer hvs.mine"), ("x-trace", "7")] {
        incoming.headers.insert(name.to_owned(), vec![value.to_owned()]);
    }
    let wanted = ["Authorization", "X-Trace", "X-None"].map(str::to_owned);
    let passed =
        |incoming: &Incoming| super::passed_headers(&wanted, incoming).into_keys().collect::<Vec<_>>();
    assert_eq!(passed(&incoming), ["x-trace"]);
    incoming.headers.insert("authorization".to_owned(), vec!["Basic dTpw".to_owned()]);
    assert_eq!(passed(&incoming), ["authorization", "x-trace"]);
}
