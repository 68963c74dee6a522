//! The mount table as requests change it.

use arca_engine_api::{EngineKind, Operation};
use serde_json::{Value, json};

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

#[tokio::test]
async fn the_fixed_mounts_are_not_tuned() {
    let rig = Rig::active().await;
    for path in ["sys", "cubbyhole", "identity"] {
        for name in ["description", "default_lease_ttl", "max_lease_ttl"] {
            let tuned = rig.post("root", &format!("sys/mounts/{path}/tune"), json!({name: "1h"})).await;
            assert_eq!(text(tuned), format!("cannot tune parameter {name} of {path}/"));
        }
    }
    assert_eq!(text(rig.post("root", "sys/auth/token/tune", json!({"description": "x"})).await), "None []");
    for wanted in ["batch", "default-service", ""] {
        let tuned = rig.post("root", "sys/auth/token/tune", json!({"token_type": wanted})).await;
        let refused = "'token_type' cannot be set for 'token' or 'ns_token' auth mounts";
        assert_eq!(text(tuned), refused, "{wanted:?}");
    }
    assert_eq!(
        text(rig.ask("root", Operation::Delete, "sys/mounts/sys", Value::Null, None).await),
        "cannot unmount \"sys/\""
    );
}

#[tokio::test]
async fn options_an_engine_does_not_take_are_refused_at_once() {
    let rig = Rig::active().await;
    let third = json!({"options": {"version": "3"}});
    let refused = "there is no such version";
    let body = json!({"type": "stubborn", "options": {"version": "3"}});
    assert_eq!(text(rig.post("root", "sys/mounts/new", body).await), refused);
    assert_eq!(text(rig.post("root", "sys/mounts/new", json!({"type": "stubborn-v3"})).await), refused);
    assert!(rig.get("root", "sys/mounts/new").await.is_err());
    assert_eq!(text(rig.post("root", "sys/mounts/aws/tune", third).await), refused);
    let second = json!({"options": {"version": "2"}});
    assert_eq!(text(rig.post("root", "sys/mounts/aws/tune", second).await), "None []");
    let data = rig.get("root", "sys/mounts/aws").await.unwrap().data.unwrap();
    assert_eq!(data["options"], json!({"version": "2"}));
    // The name of the type says more than the options.
    let body = json!({"type": "stubborn-v2", "options": {"version": "1"}});
    assert_eq!(text(rig.post("root", "sys/mounts/named", body).await), "None []");
    let data = rig.get("root", "sys/mounts/named").await.unwrap().data.unwrap();
    assert_eq!(data["options"], json!({"version": "2"}));
}

/// `sys/mounts` needs no sudo, `sys/auth` does: the first is no way around the second.
#[tokio::test]
async fn auth_methods_come_and_go_through_their_own_table() {
    let rig = Rig::active().await;
    for path in ["auth", "auth/new", "auth/userpass", "auth/token", "/auth//"] {
        let shown = format!("{}/", path.trim_matches('/'));
        let table = format!("sys/mounts/{path}");
        let mounted = rig.post("root", &table, json!({"type": "stubborn"})).await;
        assert_eq!(text(mounted), format!("cannot mount \"{shown}\""));
        let unmounted = rig.ask("root", Operation::Delete, &table, Value::Null, None).await;
        assert_eq!(text(unmounted), format!("cannot unmount \"{shown}\""));
    }
    assert!(rig.get("root", "sys/mounts/auth/userpass").await.is_ok(), "looking is no harm");
    let tuned = rig.post("root", "sys/mounts/auth/userpass/tune", json!({"description": "x"})).await;
    assert_eq!(text(tuned), "None []");
    assert!(rig.get("root", "sys/auth/userpass").await.is_ok());
}

#[tokio::test]
async fn the_fixed_types_are_mounted_once() {
    let rig = Rig::active().await;
    for name in ["cubbyhole", "identity", "system", "token"] {
        let mounted = rig.post("root", "sys/mounts/new", json!({"type": name})).await;
        assert_eq!(text(mounted), format!("mount type of \"{name}\" is not mountable"));
    }
    let versioned = rig.post("root", "sys/mounts/new", json!({"type": "cubbyhole-v2"})).await;
    assert_eq!(text(versioned), "mount type of \"cubbyhole\" is not mountable");
    let method = rig.post("root", "sys/auth/new", json!({"type": "token"})).await;
    assert_eq!(text(method), "token credential backend cannot be instantiated");
}

/// Fills with the number of the call, but for the fourth, which repeats the second.
#[derive(Debug, Default)]
struct Repeating(std::sync::atomic::AtomicU8);

impl arca_engine_api::Entropy for Repeating {
    fn fill(&self, dest: &mut [u8]) -> Result<(), arca_engine_api::EntropyError> {
        let number = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        dest.fill(if number == 3 { 1 } else { number });
        Ok(())
    }
}

/// Aliases are told apart by accessors: no two mounts share one.
#[tokio::test]
async fn an_accessor_is_given_once() {
    let rig = Rig::active().await;
    let entropy = Repeating::default();
    let mut accessors = Vec::new();
    for path in ["one", "two"] {
        let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
        let new = crate::mounts::NewMount {
            path: path.to_owned(),
            engine: "stubborn".to_owned(),
            ..crate::mounts::NewMount::default()
        };
        let root = crate::namespaces::Namespace::root();
        let mounts = &rig.kernel.mounts;
        let made = rig.commit(|tx| mounts.enable(tx, &router, &root, EngineKind::Auth, new, &entropy));
        accessors.push(made.await.unwrap().accessor);
    }
    assert_eq!(accessors, ["auth_stubborn_01010101", "auth_stubborn_04040404"]);
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    assert_eq!(router.by_accessor("root", &accessors[1]).unwrap().record.path, "auth/two/");
    assert!(router.by_accessor("n1", &accessors[1]).is_none());
}
