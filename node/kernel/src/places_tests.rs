//! One name, one form: what a rule says of it holds however it is spelled.

use arca_engine_api::Operation;
use serde_json::{Value, json};

use super::*;
use crate::tokens::rig::{Rig, text};

const DENIED: &str = "permission denied";
const SPELLINGS: [&str; 4] = ["admin", "ADMIN", "Admin", "aDmIn"];
/// Roads to what is below a path, and whether they take it back.
const PREFIXES: [(&str, bool); 5] = [
    ("sys/leases/lookup", false),
    ("sys/leases/revoke-force", true),
    ("sys/leases/revoke-prefix", true),
    ("sys/revoke-force", true),
    ("sys/revoke-prefix", true),
];

async fn rig() -> Rig {
    let rig = Rig::active().await;
    for path in ["sys/mounts/notes", "sys/auth/people"] {
        rig.post("root", path, json!({"type": "names"})).await.unwrap();
    }
    rig
}

/// A token that may do everything but at these paths.
async fn all_but(rig: &Rig, denied: &[&str]) -> String {
    let all = r#"capabilities = ["create", "read", "update", "patch", "delete", "list", "sudo"]"#;
    let none = r#"capabilities = ["deny"]"#;
    let rules: Vec<String> = denied.iter().map(|path| format!("path \"{path}\" {{ {none} }}\n")).collect();
    let policy = format!("path \"*\" {{ {all} }}\n{}", rules.concat());
    rig.post("root", "sys/policies/acl/p", json!({ "policy": policy })).await.unwrap();
    rig.made("root", json!({"policies": "p"})).await
}

#[tokio::test]
async fn cve_2026_89322_a_denial_holds_for_every_spelling() {
    let rig = rig().await;
    let token =
        all_but(&rig, &["auth/people/count/admin", "auth/people/guarded/admin", "notes/lease/admin"]).await;
    for name in SPELLINGS {
        for (operation, path) in [
            (Operation::Delete, "auth/people/count"),
            (Operation::Read, "auth/people/count"),
            (Operation::Update, "auth/people/count"),
            (Operation::Read, "auth/people/guarded"),
            (Operation::Read, "notes/lease"),
        ] {
            let path = format!("{path}/{name}");
            assert_eq!(text(rig.ask(&token, operation, &path, Value::Null, None).await), DENIED, "{path}");
            let body = json!({"paths": [path, format!("/{path}")], "token": token});
            let asked = rig.post("root", "sys/capabilities", body).await.unwrap().data.unwrap();
            assert!(asked.values().all(|words| *words == json!(["deny"])), "{asked:?}");
        }
    }
    for name in ["bob", "BOB"] {
        rig.post(&token, &format!("auth/people/count/{name}"), json!({})).await.unwrap();
    }
    let counted = rig.get("root", "auth/people/count/Bob").await.unwrap().data.unwrap();
    assert_eq!(counted["count"], 2, "one name");
}

/// Where case counts, it counts for rules too.
#[tokio::test]
async fn names_that_differ_in_case_are_two_where_the_engine_says_nothing_else() {
    let rig = rig().await;
    let token = all_but(&rig, &["notes/admin", "auth/token/roles/admin"]).await;
    for path in ["notes/Admin", "auth/token/roles/Admin"] {
        rig.post(&token, path, json!({"orphan": true})).await.unwrap();
        let lower = path.to_ascii_lowercase();
        assert_eq!(text(rig.post(&token, &lower, json!({})).await), DENIED);
        assert!(rig.get("root", &lower).await.is_err(), "{lower}");
    }
}

#[tokio::test]
async fn cve_2026_89322_a_prefix_ends_the_logins_of_every_spelling() {
    let rig = rig().await;
    for (road, _) in PREFIXES.into_iter().filter(|(_, ends)| *ends) {
        let mut tokens = Vec::new();
        for name in ["mallory", "Mallory", "MALLORY"] {
            let made = rig.post("", &format!("auth/people/login/{name}"), json!({})).await.unwrap();
            let token = made.auth.unwrap().client_token.to_string();
            let shown = rig.get(&token, "auth/token/lookup-self").await.unwrap().data.unwrap();
            assert_eq!(shown["path"], "auth/people/login/mallory");
            tokens.push(token);
        }
        let leased = rig.get("root", "notes/lease/Mallory").await.unwrap().lease_id;
        assert!(leased.starts_with("notes/lease/mallory/"), "{leased}");
        let listed = rig.list("root", "sys/leases/lookup/auth/people/login/Mallory/").await.unwrap();
        assert_eq!(listed.data.unwrap()["keys"].as_array().unwrap().len(), tokens.len());
        for path in ["auth/people/login/mALLORY", "notes/lease/mALLORY"] {
            rig.post("root", &format!("{road}/{path}"), json!({})).await.unwrap();
        }
        for token in &tokens {
            assert_eq!(text(rig.get(token, "auth/token/lookup-self").await), DENIED, "{road}");
        }
        let lookup = rig.post("root", "sys/leases/lookup", json!({"lease_id": leased})).await;
        assert_eq!(text(lookup), "invalid lease", "{road}");
    }
}

/// Who may take back what others were given may not by another spelling either.
#[tokio::test]
async fn cve_2026_89322_a_denied_prefix_is_denied_in_every_spelling() {
    let rig = rig().await;
    let denied: Vec<String> =
        PREFIXES.iter().map(|(road, _)| format!("{road}/auth/people/login/admin")).collect();
    let token = all_but(&rig, &denied.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for (road, ends) in PREFIXES {
        let operation = if ends { Operation::Update } else { Operation::List };
        for name in SPELLINGS {
            let path = format!("{road}/auth/people/login/{name}");
            assert_eq!(text(rig.ask(&token, operation, &path, Value::Null, None).await), DENIED, "{path}");
        }
    }
}

#[track_caller]
fn check(router: &Router, path: &str, want: &str) {
    let place = Place::find(router, &Namespace::root(), path);
    assert_eq!(place.full_path, want, "{path}");
    assert_eq!(place.path(), want, "{path}");
    let below = place.target().map(|(mount, rest)| format!("{}{rest}", mount.record.path));
    assert!(below.is_none_or(|below| below.trim_end_matches('/') == want.trim_end_matches('/')), "{path}");
}

#[tokio::test]
async fn a_path_has_one_form() {
    let rig = rig().await;
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    for (path, want) in [
        ("auth/people/login/BoB", "auth/people/login/bob"),
        ("auth/people/BoB", "auth/people/BoB"),
        ("auth/People/login/BoB", "auth/People/login/BoB"),
        ("auth/people", "auth/people"),
        ("notes/count/BoB/x", "notes/count/BoB/x"),
        ("notes/count/BoB/", "notes/count/BoB/"),
        ("nowhere/count/BoB", "nowhere/count/BoB"),
        ("sys/policy/BoB", "sys/policy/bob"),
        ("sys/leases/revoke-prefix/auth/people/login/BoB/", "sys/leases/revoke-prefix/auth/people/login/bob"),
        ("sys/leases/lookup/auth/people/login/BoB/", "sys/leases/lookup/auth/people/login/bob/"),
        ("sys/leases/lookup/aws/creds/BoB", "sys/leases/lookup/aws/creds/BoB"),
        ("sys/leases/revoke/auth/people/login/BoB", "sys/leases/revoke/auth/people/login/BoB"),
        ("sys/leases/revoke-prefix/", "sys/leases/revoke-prefix/"),
        ("", ""),
    ] {
        check(&router, path, want);
    }
}
