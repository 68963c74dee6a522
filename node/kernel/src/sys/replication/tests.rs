//! Roles through the whole pipeline, with a node behind them that only takes notes.

use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{Fault, Operation};
use arca_raft_storage::MemberId;
use serde_json::{Value, json};

use crate::answer::Shape;
use crate::replication::door::BY_TOKEN_READ;
use crate::replication::{Fence, Filter, FilterMode, Kind, Mode, ReplicationPort, RoleRecord, Serves};
use crate::testing::NotingReplication;
use crate::tokens::rig::{Rig, text};
use crate::{Answer, KernelError};

const DISABLED: &str = "path disabled in replication DR secondary mode";
const PROMOTE: &str = "sys/replication/dr/secondary/promote";
const HOUR: u64 = 3_600;

struct Roles {
    rig: Rig,
    port: Arc<NotingReplication>,
}

fn role(mode: Mode) -> RoleRecord {
    RoleRecord { mode, epoch: 3, ..RoleRecord::default() }
}

fn fenced() -> RoleRecord {
    let fence = Fence { epoch: 4, primary_addresses: vec!["10.0.0.9:8201".to_owned()], heard_at: 0 };
    RoleRecord { fence: Some(fence), ..role(Mode::Primary) }
}

fn bounded() -> RoleRecord {
    RoleRecord { fence_after_s: 30, ..role(Mode::Primary) }
}

impl Roles {
    async fn new() -> Self {
        let (rig, port) = (Rig::active().await, Arc::new(NotingReplication::default()));
        rig.cluster.set_replication(Arc::clone(&port) as Arc<dyn ReplicationPort>);
        Self { rig, port }
    }

    async fn of(mode: Mode) -> Self {
        let roles = Self::new().await;
        roles.become_one(&role(mode)).await;
        roles
    }

    async fn become_one(&self, role: &RoleRecord) {
        self.rig.commit(|tx| role.store(tx, Kind::Dr)).await.unwrap();
    }

    async fn operation_token(&self) -> String {
        self.rig.kernel.make_operation_token().await.unwrap().to_string()
    }

    /// What the node was asked to do, or what the caller was told.
    async fn told(&self, token: &str, path: &str, body: Value) -> String {
        let result = self.rig.post(token, path, body).await;
        match (self.port.take_notes().as_slice(), result) {
            ([], result) => text(result),
            ([note], Ok(_)) => note.clone(),
            (notes, result) => format!("{notes:?} {}", text(result)),
        }
    }

    #[track_caller]
    fn index(&self) -> u64 {
        self.rig.view().index()
    }
}

/// CVE-2021-27668: on a DR secondary things could be read without a token. CVE-2021-3282: a member could be removed.
#[tokio::test]
async fn a_dr_secondary_serves_nobody() {
    let roles = Roles::of(Mode::Secondary).await;
    let index = roles.index();
    for path in [
        "secret/a",
        "aws/creds",
        "sys/mounts",
        "sys/config/state/sanitized",
        "sys/host-info",
        "sys/metrics",
        "sys/ha-status",
        "sys/internal/ui/mounts",
        "sys/internal/specs/openapi",
        "sys/leader",
        "auth/token/lookup-self",
        "auth/userpass/login/a",
        "sys/generate-root/attempt",
        "sys/wrapping/lookup",
        "sys/replication/dr/secondary/enable",
        "sys/replication/dr/primary/enable",
        "sys/storage/raft/snapshot-force",
        "sys/replication/reindex",
        "sys/replication/performance/secondary/promote",
        "sys/leases/count",
        "nowhere",
    ] {
        for token in ["", "root", "wrong"] {
            for operation in [Operation::Read, Operation::Update, Operation::Delete, Operation::Help] {
                let refused = roles.rig.ask(token, operation, path, json!({}), None).await;
                let refused = refused.err().map(|err| (err.to_string(), err.fault()));
                assert_eq!(refused, Some((DISABLED.to_owned(), Fault::DrSecondary)), "{operation:?} {path}");
            }
        }
    }
    for path in [PROMOTE, "sys/storage/raft/remove-peer", "sys/storage/raft/configuration", "sys/step-down"] {
        for token in ["", "wrong"] {
            let refused = roles.rig.post(token, path, json!({"server_id": "node-2"})).await;
            assert!(matches!(refused, Err(KernelError::Denied)), "{path}");
        }
    }
    // A backup is read with a token and never restored, autopilot shown and never changed.
    for path in BY_TOKEN_READ {
        let changed = roles.rig.post("root", path, json!({})).await;
        assert!(matches!(changed, Err(KernelError::DrSecondary)), "{path}");
        assert!(roles.rig.get("root", path).await.is_ok(), "{path}");
        assert!(roles.rig.get("", path).await.is_err(), "{path}");
    }
    assert_eq!(roles.told("root", "sys/step-down", json!({})).await, "None []");
    assert_eq!((roles.index(), roles.rig.cluster.take_notes()), (index, Vec::new()));
    assert!(roles.port.take_notes().is_empty());
}

#[tokio::test]
async fn paths_of_other_namespaces_are_closed_as_well() {
    let roles = Roles::of(Mode::Secondary).await;
    let mut incoming = roles.rig.incoming("root", Operation::Read, "sys/replication/status");
    incoming.namespace = "a/".to_owned();
    assert!(matches!(roles.rig.kernel.handle(incoming).await, Err(KernelError::DrSecondary)));
}

#[tokio::test]
async fn the_status_is_for_everybody_and_at_both_levels() {
    for (mode, name) in
        [(Mode::Disabled, "disabled"), (Mode::Primary, "primary"), (Mode::Secondary, "secondary")]
    {
        let roles = Roles::of(mode).await;
        let ask = async |path: &str| -> Answer { roles.rig.get("", path).await.unwrap() };
        let both = ask("sys/replication/status").await;
        assert_eq!(both.shape, Shape::EnvelopeAndTop);
        let both = Value::Object(both.data.unwrap());
        assert_eq!((&both["dr"]["mode"], &both["performance"]["mode"]), (&json!(name), &json!("disabled")));
        let one = Value::Object(ask("sys/replication/dr/status").await.data.unwrap());
        assert_eq!(one, both["dr"]);
        assert_eq!(one.get("last_wal").is_some(), mode != Mode::Disabled);
        let other = ask("sys/replication/performance/status").await.data.unwrap();
        assert_eq!(Value::Object(other), json!({"mode": "disabled"}));
    }
}

/// Which tokens of the primary promote its copy.
#[tokio::test]
async fn a_dr_secondary_takes_three_kinds_of_tokens() {
    let roles = Roles::new().await;
    let rig = &roles.rig;
    let policy = format!(r#"path "{PROMOTE}" {{ capabilities = ["update"] }}"#);
    rig.post("root", "sys/policies/acl/dr", json!({"policy": policy})).await.unwrap();
    let made = async |body: Value| rig.made("root", body).await;
    let good = made(json!({"type": "batch", "policies": "dr", "ttl": "1h"})).await;
    let powerless = made(json!({"type": "batch", "policies": "default", "ttl": "1h"})).await;
    let service = made(json!({"policies": "dr"})).await;
    let counted = made(json!({"policies": "root", "num_uses": 5})).await;
    let root = made(json!({"policies": "root"})).await;
    roles.become_one(&role(Mode::Secondary)).await;
    let operation = roles.operation_token().await;
    let promoted = "promote dr secondary at \"\", Ordinary";
    let cases = [(&good, true), (&root, true), (&powerless, false), (&service, false), (&counted, false)];
    for (token, is_taken) in cases {
        let want = if is_taken { promoted } else { "permission denied" };
        assert_eq!(roles.told("", PROMOTE, json!({"dr_operation_token": token})).await, want);
        assert_eq!(roles.told(token, PROMOTE, json!({})).await, want, "in the header");
    }
    // Where policies do not reach.
    let elsewhere = "sys/storage/raft/remove-peer";
    let body = json!({"server_id": "n", "dr_operation_token": good});
    assert_eq!(roles.told("", elsewhere, body).await, "permission denied");
    rig.advance(2 * HOUR);
    assert_eq!(
        roles.told("", PROMOTE, json!({"dr_operation_token": good})).await,
        "permission denied",
        "expired"
    );
    // The operation token was used up by the first promotion, whoever made it.
    assert_eq!(roles.told("", PROMOTE, json!({"dr_operation_token": operation})).await, "permission denied");
}

#[tokio::test]
async fn an_operation_token_is_good_until_it_is_replaced_used_or_deleted() {
    let roles = Roles::of(Mode::Secondary).await;
    let with = |token: &str| json!({"dr_operation_token": token});
    let (reindex, delete) =
        ("sys/replication/dr/secondary/reindex", "sys/replication/dr/secondary/operation-token/delete");
    let first = roles.operation_token().await;
    assert_eq!(first.len(), crate::tokens::ROOT_TOKEN_LEN);
    for _ in 0..2 {
        assert_eq!(roles.told("", reindex, with(&first)).await, "reindex dr", "it can be used again");
    }
    let second = roles.operation_token().await;
    assert_eq!(roles.told("", reindex, with(&first)).await, "permission denied");
    assert_eq!(roles.told(&second, reindex, json!({})).await, "reindex dr", "in the header");
    assert_eq!(roles.told("", delete, with(&second)).await, "None []");
    assert_eq!(roles.told("", reindex, with(&second)).await, "permission denied");
    // A promotion that the node refuses leaves it.
    let third = roles.operation_token().await;
    roles.port.refuse(true);
    assert_eq!(roles.told("", PROMOTE, with(&third)).await, "refused by the node");
    roles.port.refuse(false);
    assert_eq!(roles.told("", PROMOTE, with(&third)).await, "promote dr secondary at \"\", Ordinary");
    assert_eq!(roles.told("", reindex, with(&third)).await, "permission denied");
    // The root token of the copied state does not show it, nor can it be used anywhere else.
    let fourth = roles.operation_token().await;
    roles.become_one(&role(Mode::Primary)).await;
    assert_eq!(text(roles.rig.get(&fourth, "sys/mounts").await), "permission denied");
    assert!(roles.rig.kernel.make_operation_token().await.is_err());
}

/// Wrong tokens are slowed down, the right one is not: nobody keeps the operator out by guessing.
#[tokio::test]
async fn a_flood_of_wrong_tokens_is_slowed_and_the_right_one_passes() {
    let roles = Roles::of(Mode::Secondary).await;
    let token = roles.operation_token().await;
    let reindex = "sys/replication/dr/secondary/reindex";
    let mut last = String::new();
    for _ in 0..1_100 {
        last = roles.told("guess", reindex, json!({})).await;
    }
    assert_eq!(last, KernelError::TooMany.to_string());
    assert_eq!(roles.told(&token, reindex, json!({})).await, "reindex dr");
}

#[tokio::test]
async fn only_the_active_node_acts_and_every_node_refuses() {
    let mut roles = Roles::of(Mode::Secondary).await;
    let token = roles.operation_token().await;
    roles.rig.become_standby();
    assert_eq!(text(roles.rig.get("root", "sys/mounts").await), DISABLED);
    assert_eq!(text(roles.rig.post("x", PROMOTE, json!({})).await), "permission denied");
    let refused = roles.rig.post(&token, PROMOTE, json!({})).await;
    assert!(matches!(refused, Err(KernelError::NeedsActive)), "carried to the active node");
    let status = async || roles.rig.get("", "sys/replication/dr/status").await;
    assert!(status().await.is_ok(), "nobody else is known to be asked");
    roles.rig.replica.hear_of_leader(MemberId(1));
    assert!(
        matches!(status().await, Err(KernelError::NeedsActive)),
        "links and lags are the active node's to know"
    );
}

/// Lines of `mode | path | body | what the node was asked to do, or what the caller was told`.
const ORDERS: &str = include_str!("../../../testdata/replication_orders.txt");

#[tokio::test]
async fn orders_reach_the_node_in_the_mode_they_are_for() {
    let mut checked = 0;
    for mode in [Mode::Disabled, Mode::Primary, Mode::Secondary] {
        let roles = Roles::of(mode).await;
        let lines = ORDERS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [of, path, body, want] = parts[..] else { panic!("{line}") };
            if of != mode.name() {
                continue;
            }
            let body = serde_json::from_str(body).unwrap();
            let got = roles.told("root", &format!("sys/replication/dr/{path}"), body).await;
            assert_eq!(got, want, "{line}");
            checked += 1;
        }
    }
    assert_eq!(checked, 41);
}

#[tokio::test]
async fn orders_for_all_kinds_go_to_those_that_are_enabled() {
    let check = async |mode, path: &str, want: &str| {
        let roles = Roles::of(mode).await;
        let got = roles.told("root", &format!("sys/replication/{path}"), json!({})).await;
        assert!(got.contains(want), "{mode:?} {path}: {got}");
    };
    check(Mode::Disabled, "recover", "nothing to recover").await;
    check(Mode::Disabled, "reindex", "replication is not enabled on this cluster").await;
    check(Mode::Disabled, "merkle-check", "merkle-check").await;
    check(Mode::Primary, "reindex", "a primary keeps no index").await;
    check(Mode::Primary, "recover", "nothing to recover").await;
}

#[tokio::test]
async fn performance_takes_the_orders_that_dr_does() {
    let roles = Roles::new().await;
    let told = async |path: &str, body| {
        roles.told("root", &format!("sys/replication/performance/{path}"), body).await
    };
    assert_eq!(
        told("primary/demote", json!({})).await,
        "performance replication is not enabled on this cluster"
    );
    assert_eq!(told("primary/enable", json!({})).await, "enable performance primary at \"\"");
    let enabled = told("secondary/enable", json!({"token": "t"})).await;
    assert_eq!(enabled, "enable performance secondary with 1 characters");
    roles.rig.commit(|tx| role(Mode::Primary).store(tx, Kind::Performance)).await.unwrap();
    assert_eq!(told("primary/demote", json!({})).await, "demote performance primary");
    let token = told("primary/secondary-token", json!({"id": "far"})).await;
    assert_eq!(token, "performance token for \"far\", 1800 s, public key None");
    let text = roles.told("root", "sys/replication/dr/primary/enable", json!({})).await;
    assert_eq!(text, "enable dr primary at \"\"", "it may be both");
    let got = roles.told("root", "sys/replication/other/primary/enable", json!({})).await;
    assert_eq!(got, "unsupported path");
}

#[tokio::test]
async fn promoting_a_performance_secondary_needs_sudo_and_no_operation_token() {
    let roles = Roles::new().await;
    let policy = |extra: &str| json!({"policy": format!("path \"sys/replication/*\" {{ capabilities = [\"update\"{extra}] }}")});
    roles.rig.post("root", "sys/policies/acl/r", policy("")).await.unwrap();
    roles.rig.post("root", "sys/policies/acl/s", policy(", \"sudo\"")).await.unwrap();
    let (plain, sudo) = (
        roles.rig.made("root", json!({"policies": "r"})).await,
        roles.rig.made("root", json!({"policies": "s"})).await,
    );
    roles.rig.commit(|tx| role(Mode::Primary).store(tx, Kind::Performance)).await.unwrap();
    let promote = "sys/replication/performance/secondary/promote";
    assert_eq!(roles.told(&plain, promote, json!({})).await, "permission denied");
    let text = roles.told(&sudo, promote, json!({})).await;
    assert_eq!(text, "this cluster is a performance primary, not a secondary");
}

/// It lacks what was kept from it, and the filters of others.
#[tokio::test]
async fn a_filtered_secondary_is_promoted_by_force_alone() {
    let roles = Roles::new().await;
    let rig = &roles.rig;
    let list = "root/core/replication/filtered";
    let become_secondary = async |is_filtered: bool| {
        rig.commit(|tx| RoleRecord::default().store(tx, Kind::Performance)).await.unwrap();
        rig.commit(|tx| {
            Filter { mode: FilterMode::Deny, paths: vec!["a/".to_owned()] }.store(tx, "far")?;
            if is_filtered {
                tx.delete(arca_barrier::Class::Replicated, list)?; // It gets its own filter, and no more.
            }
            role(Mode::Secondary).store(tx, Kind::Performance)
        })
        .await
        .unwrap();
    };
    become_secondary(true).await;
    let promote = "sys/replication/performance/secondary/promote";
    let told = roles.told("root", promote, json!({})).await;
    assert!(told.starts_with("a path filter keeps a part"), "{told}");
    let both = roles.told("root", promote, json!({"force": true, "planned": true})).await;
    assert_eq!(both, "force and planned are opposites");
    let forced = roles.told("root", promote, json!({"force": true})).await;
    assert_eq!(forced, "promote performance secondary at \"\", Forced");
    become_secondary(false).await;
    let told = roles.told("root", promote, json!({})).await;
    assert_eq!(told, "promote performance secondary at \"\", Ordinary", "others' filters are no matter");
}

/// What passes to a secondary of this name, by the path of what is stored.
fn passes(rig: &Rig, id: &str, path: &str) -> bool {
    let tx = rig.view();
    let key = tx.physical_key(arca_barrier::Class::Replicated, path).unwrap();
    let rules = crate::replication::filter::rules(&tx, id).unwrap();
    let rule =
        rules.iter().filter(|(prefix, _)| key.starts_with(prefix)).max_by_key(|(prefix, _)| prefix.len());
    rule.is_none_or(|(_, passes)| *passes)
}

#[tokio::test]
async fn a_filter_withholds_mounts_and_what_the_table_does_not_know() {
    let roles = Roles::new().await;
    let rig = &roles.rig;
    rig.commit(|tx| role(Mode::Primary).store(tx, Kind::Performance)).await.unwrap();
    for mount in ["a", "b"] {
        rig.post("root", &format!("sys/mounts/{mount}"), json!({"type": "notes"})).await.unwrap();
    }
    let uuid = |path: &str| {
        let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
        router.at(path).unwrap().record.uuid.clone()
    };
    let (a, b, identity) = (uuid("a/"), uuid("b/"), uuid("identity/"));
    let stored = |uuid: &str| [format!("root/core/mounts/{uuid}"), format!("root/logical/{uuid}/x/y")];
    let check = |id: &str, uuid: &str, want: bool| {
        for path in stored(uuid) {
            assert_eq!(passes(rig, id, &path), want, "{id} {path}");
        }
    };
    let filter = |id: &str| format!("sys/replication/performance/primary/paths-filter/{id}");
    let changed = |id: &str| crate::replication::filter::Stamp::read(&rig.view(), id).unwrap().changed_at();
    check("far", &a, true);
    rig.post("root", &filter("far"), json!({"mode": "deny", "paths": ["a"]})).await.unwrap();
    rig.post("root", &filter("near"), json!({"mode": "allow", "paths": "/a/"})).await.unwrap();
    for (id, of_a) in [("far", false), ("near", true), ("other", true)] {
        check(id, &a, of_a);
        check(id, &b, id != "near");
        check(id, &identity, true);
        check(id, "nobody-knows", id == "other");
        for always in ["root/core/policy/acl/p", "root/identity/entity/e", "root/core/mounts-revision"] {
            assert!(passes(rig, id, always), "{id} {always}");
        }
        assert_eq!(
            passes(rig, id, "n1/core/policy/acl/p"),
            id == "other",
            "of a namespace that nobody knows"
        );
    }
    let shown = rig.get("root", &filter("far")).await.unwrap().data.unwrap();
    assert_eq!((&shown["mode"], &shown["paths"]), (&json!("deny"), &json!(["a/"])));
    let dynamic = "sys/replication/performance/primary/dynamic-filter/near";
    let shown = rig.get("root", dynamic).await.unwrap().data.unwrap();
    let withheld = shown["dynamic_filtered_mounts"].as_array().unwrap();
    assert!(withheld.contains(&json!("b/")) && !withheld.contains(&json!("a/")), "{shown:?}");

    // A mount that moves, or goes, is looked at anew by everybody who has a filter.
    let before = (changed("far"), changed("near"), changed("other"));
    rig.post("root", "sys/mounts/c", json!({"type": "notes"})).await.unwrap();
    assert_eq!(
        (changed("far"), changed("near")),
        (before.0, before.1),
        "a new one changes nothing of the old"
    );
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    let mut record = router.at("b/").unwrap().record.clone();
    record.path = "a/".to_owned();
    rig.commit(|tx| rig.kernel.mounts.write(tx, "root", &record)).await.unwrap();
    let moved = (changed("far"), changed("near"), changed("other"));
    assert!(moved.0 > before.0 && moved.1 > before.1 && moved.2 == before.2);
    check("far", &b, false);
    rig.commit(|tx| rig.kernel.mounts.remove(tx, "root", &record)).await.unwrap();
    assert!(changed("far") > moved.0);

    rig.ask("root", Operation::Delete, &filter("far"), json!({}), None).await.unwrap();
    check("far", &a, true);
    assert_eq!(text(rig.get("root", &filter("far")).await), "no filter is set for \"far\"");
}

/// Whoever has everything goes on to withhold should it be promoted; who is filtered may not know what others do not get, nor the
/// paths that moves name.
#[tokio::test]
async fn filters_go_to_whoever_has_none() {
    let roles = Roles::new().await;
    roles.rig.commit(|tx| role(Mode::Primary).store(tx, Kind::Performance)).await.unwrap();
    for id in ["far", "near"] {
        let path = format!("sys/replication/performance/primary/paths-filter/{id}");
        roles.rig.post("root", &path, json!({"mode": "deny", "paths": ["a"]})).await.unwrap();
    }
    for (path, filtered) in [
        ("root/core/replication/filters/far", Some("far")),
        ("root/core/replication/filter-changes/near", None),
        ("root/core/replication/filtered", None),
        ("root/core/remount/m", None),
    ] {
        for id in ["far", "near", "other"] {
            assert_eq!(passes(&roles.rig, id, path), id == "other" || filtered == Some(id), "{id} {path}");
        }
    }
}

#[tokio::test]
async fn filters_are_refused_that_make_no_sense() {
    let roles = Roles::new().await;
    let path = "sys/replication/performance/primary/paths-filter/far";
    let told = async |body: Value| text(roles.rig.post("root", path, body).await);
    let deny = |given: &str| json!({"mode": "deny", "paths": [given]});
    assert_eq!(told(deny("a")).await, "performance replication is not enabled on this cluster");
    roles.rig.commit(|tx| role(Mode::Primary).store(tx, Kind::Performance)).await.unwrap();
    assert_eq!(told(json!({"paths": ["a"]})).await, "mode must be allow or deny");
    assert_eq!(told(deny("/")).await, "invalid mount path");
    assert_eq!(told(deny("a//b")).await, "invalid mount path");
    for protected in ["sys/", "identity", "auth/", "auth/token/", "cubbyhole/"] {
        assert!(told(deny(protected)).await.starts_with("cannot filter"), "{protected}");
    }
    let odd =
        roles.rig.post("root", "sys/replication/performance/primary/paths-filter/a%20b", deny("a")).await;
    assert!(text(odd).starts_with("id must be"));
}

#[tokio::test]
async fn roles_need_a_token_and_secondary_tokens_need_sudo() {
    let roles = Roles::of(Mode::Primary).await;
    let rig = &roles.rig;
    let policy = r#"path "sys/replication/*" { capabilities = ["update", "read"] }"#;
    rig.post("root", "sys/policies/acl/r", json!({"policy": policy})).await.unwrap();
    let token = rig.made("root", json!({"policies": "r"})).await;
    let (demote, issue) = ("sys/replication/dr/primary/demote", "sys/replication/dr/primary/secondary-token");
    assert_eq!(roles.told("", demote, json!({})).await, "permission denied");
    assert_eq!(roles.told(&token, demote, json!({})).await, "demote dr primary");
    assert_eq!(roles.told(&token, issue, json!({"id": "b"})).await, "permission denied");
    assert_eq!(roles.told(&token, "sys/replication/reindex", json!({})).await, "permission denied");
    assert_eq!(text(rig.get(&token, "sys/replication/dr/tail").await), "permission denied");
}

#[tokio::test]
async fn a_secondary_token_is_shown_as_a_wrapping_token_and_nothing_else() {
    let roles = Roles::of(Mode::Primary).await;
    let path = "sys/replication/dr/primary/secondary-token";
    let answer = roles.rig.post("root", path, json!({"id": "b", "ttl": 60})).await.unwrap();
    assert!(answer.data.is_none() && answer.auth.is_none());
    let info = answer.wrap_info.unwrap();
    assert_eq!((info.token.as_str(), info.accessor.as_str()), ("the.token", "handle"));
    assert_eq!((info.ttl, info.creation_path.as_str()), (60, path));
    let ttl = Some(Duration::from_secs(60));
    let wrapped = roles.rig.ask("root", Operation::Update, path, json!({"id": "b"}), ttl).await;
    assert_eq!(text(wrapped), "the answer of this path cannot be wrapped");
}

#[tokio::test]
async fn the_tail_is_shown_page_by_page() {
    let roles = Roles::new().await;
    roles.become_one(&fenced()).await;
    let ask = async |body: Value| {
        let asked = roles.rig.ask("root", Operation::Read, "sys/replication/dr/tail", body, None).await;
        (text(asked), roles.port.take_notes().pop().unwrap_or_default())
    };
    assert_eq!(ask(json!({})).await.1, "dr tail after None, 100");
    assert_eq!(ask(json!({"after": "9", "limit": "5"})).await.1, "dr tail after Some(\"9\"), 5");
    assert_eq!(ask(json!({"limit": 0})).await.0, "limit must be from 1 to 1000");
}

/// A primary that was replaced: what it holds can be read, nothing can be written, and an operator can act.
#[tokio::test]
async fn a_fenced_primary_reads_and_does_not_write() {
    let roles = Roles::of(Mode::Primary).await;
    let rig = &roles.rig;
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    rig.post("root", "notes/a", json!({"by": "root"})).await.unwrap();
    let counted = rig.made("root", json!({"policies": "root", "num_uses": 5})).await;
    roles.become_one(&fenced()).await;
    let index = roles.index();
    assert!(matches!(rig.kernel.standing().serves(), Serves::Fenced { kind: Kind::Dr, .. }));
    assert_eq!(rig.get("root", "notes/a").await.unwrap().data.unwrap()["by"], json!("root"));
    for (token, operation, path, body) in [
        ("root", Operation::Update, "notes/a", json!({"by": "root"})),
        ("root", Operation::Delete, "notes/a", json!({})),
        ("root", Operation::Update, "auth/token/create", json!({})),
        ("root", Operation::Update, "identity/entity", json!({"name": "a"})),
        (
            "root",
            Operation::Update,
            "sys/policies/acl/p",
            json!({"policy": "path \"a\" { capabilities = [\"read\"] }"}),
        ),
        ("root", Operation::Update, "sys/mounts/b", json!({"type": "notes"})),
        ("root", Operation::Update, "sys/rotate", json!({})),
        ("root", Operation::Update, "sys/wrapping/wrap", json!({"a": 1})),
        ("root", Operation::Update, "sys/replication/dr/primary/secondary-token", json!({"id": "b"})),
        (&counted, Operation::Read, "notes/a", json!({})),
    ] {
        let ttl = path.ends_with("/wrap").then_some(Duration::from_secs(60));
        let refused = rig.ask(token, operation, path, body, ttl).await;
        let refused = refused.err().unwrap();
        assert_eq!(refused.fault(), Fault::Fenced, "{operation:?} {path}: {refused}");
        let said = refused.public_text();
        for part in
            ["1970-01-01T00:00:00Z", "epoch 4", "10.0.0.9:8201", "sys/replication/dr/tail", "primary/demote"]
        {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
    assert_eq!(roles.index(), index);
    assert!(rig.cluster.take_notes().is_empty());
    assert!(rig.get("root", "sys/storage/raft/configuration").await.is_ok());
    assert!(rig.post("root", "sys/storage/raft/remove-peer", json!({"server_id": "n"})).await.is_ok());
    assert_eq!(roles.told("root", "sys/replication/dr/primary/demote", json!({})).await, "demote dr primary");
}

/// Quorum fencing: a primary that is cut off from its DR secondaries is as one that was replaced, until it hears one.
#[tokio::test]
async fn a_bounded_primary_writes_no_longer_than_it_hears_a_dr_secondary() {
    let roles = Roles::of(Mode::Primary).await;
    let (rig, kernel) = (&roles.rig, &roles.rig.kernel);
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    let write = async || rig.post("root", "notes/a", json!({"by": "root"})).await.map(drop);
    write().await.unwrap();
    roles.become_one(&bounded()).await;
    let check_refused = async |why: &str| {
        let index = roles.index();
        let refused = write().await.err().unwrap();
        assert_eq!(refused.fault(), Fault::Fenced, "{why}: {refused}");
        for part in ["30 seconds", "fence_after", "sys/replication/dr/primary/config"] {
            assert!(refused.public_text().contains(part), "{why}: {part} in {refused}");
        }
        assert!(!kernel.standing().keeps_house() && !kernel.standing().keeps_what_is_shared(), "{why}");
        assert!(rig.get("root", "notes/a").await.is_ok(), "{why}");
        assert_eq!(roles.index(), index, "{why}");
    };
    check_refused("none was heard since this node was unsealed").await;
    kernel.contact().hear();
    write().await.unwrap();
    assert!(kernel.standing().keeps_house());
    rig.clock.set_back(Duration::from_secs(3_600));
    rig.clock.set_forward(Duration::from_secs(7_200));
    rig.clock.advance(Duration::from_secs(30));
    write().await.unwrap();
    rig.clock.advance(Duration::from_millis(1));
    check_refused("the silence is too long").await;
    assert!(rig.kernel.make_root_token().await.is_ok(), "the holders of shares are let in");
    assert!(kernel.standing().check_operator_writes().is_ok());
    let config = "sys/replication/dr/primary/config";
    assert_eq!(
        roles.told("root", config, json!({"fence_after": 0})).await,
        "fence dr primary after 0 s",
        "an operator can go on without"
    );
    kernel.contact().hear();
    write().await.unwrap();
}

#[tokio::test]
async fn what_a_primary_can_be_configured_to() {
    const RANGE: &str = "fence_after must be 0, or whole seconds from 5 seconds to 24 hours";
    let roles = Roles::of(Mode::Primary).await;
    let config = "sys/replication/dr/primary/config";
    for (given, expected) in [
        (json!({"fence_after": "45s"}), "fence dr primary after 45 s"),
        (json!({"fence_after": "0"}), "fence dr primary after 0 s"),
        (json!({"fence_after": 4}), RANGE),
        (json!({"fence_after": "7500ms"}), RANGE),
        (json!({"fence_after": "25h"}), RANGE),
        (json!({}), "fence_after must be given: a duration, or 0"),
    ] {
        assert_eq!(roles.told("root", config, given.clone()).await, expected, "{given}");
    }
    roles.become_one(&bounded()).await;
    let shown = roles.rig.get("root", config).await.unwrap();
    assert_eq!(shown.data.unwrap()["fence_after"], json!(30));
    let refused = roles.told("root", "sys/replication/performance/primary/config", json!({"fence_after": 9}));
    assert_eq!(refused.await, "performance replication is not enabled on this cluster");
    roles.become_one(&role(Mode::Secondary)).await;
    assert!(roles.rig.get("root", config).await.is_err());
}

/// What was decided before a change of roles is not written behind it.
#[tokio::test]
async fn nothing_is_written_behind_a_change_of_roles() {
    for next in [fenced(), role(Mode::Secondary)] {
        let roles = Roles::of(Mode::Primary).await;
        let kernel = &roles.rig.kernel;
        let tx = kernel.store.begin(crate::tx::Mode::ReadWrite);
        tx.put_record(arca_barrier::Class::Local, "root/a", &1).unwrap();
        let mut set = tx.into_write_set().unwrap();
        kernel.standing().admit(&mut set).unwrap();
        roles.become_one(&next).await;
        let written = kernel.store.replica().propose(set.clone()).await;
        assert!(matches!(written, Err(arca_raft_storage::ProposeError::Conflict)));
        assert!(kernel.standing().admit(&mut set).is_err());
    }
}

/// A DR secondary writes nothing by itself: what is due there was done, or will be, at its primary.
#[tokio::test(start_paused = true)]
async fn a_dr_secondary_keeps_no_house_until_it_is_promoted() {
    let roles = Roles::new().await;
    let rig = &roles.rig;
    rig.post("root", "sys/mounts/notes", json!({"type": "notes"})).await.unwrap();
    rig.lease(&rig.root, "root", "aws/creds/a", HOUR).await.unwrap();
    rig.post("root", "sys/mounts/out", json!({"type": "outward"})).await.unwrap();
    rig.get("root", "out/creds/a").await.unwrap();
    rig.made("root", json!({"ttl": "1h"})).await;
    let passes = async || {
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(2)).await;
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
        }
    };
    for next in [role(Mode::Secondary), fenced()] {
        roles.become_one(&next).await;
        passes().await; // What had begun before.
        let index = roles.index();
        rig.advance(90 * 24 * HOUR);
        passes().await;
        assert_eq!(roles.index(), index, "{next:?}");
        let outside = (rig.accounts.all().len(), rig.accounts.removals());
        assert_eq!(outside, (1, 0), "what was granted is the primary's to take away");
    }
    assert!(!rig.cluster.take_notes().contains(&"rotate".to_owned()));
    let index = roles.index();
    roles.become_one(&role(Mode::Primary)).await;
    passes().await;
    assert!(roles.index() > index + 1, "it begins without a restart");
    assert!(rig.leftovers().is_empty(), "{:?}", rig.leftovers());
    assert!(rig.accounts.all().is_empty());
}

#[tokio::test(start_paused = true)]
async fn every_node_is_told_of_every_change_of_roles() {
    let roles = Roles::new().await;
    let rig = &roles.rig;
    let mut told = rig.kernel.watch_standing();
    for mode in [Mode::Primary, Mode::Secondary, Mode::Primary] {
        roles.become_one(&role(mode)).await;
        let seen = told.wait_for(|standing| standing.role(Kind::Dr).mode == mode);
        tokio::time::timeout(Duration::from_secs(5), seen).await.unwrap().unwrap();
    }
    // A write of the same is no news, nor is a state in which nothing changed.
    told.borrow_and_update();
    roles.become_one(&role(Mode::Primary)).await;
    rig.replica.say_replaced();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!told.has_changed().unwrap());
}

/// A restored backup takes away the keys that the roles were sealed under.
#[tokio::test]
async fn roles_that_cannot_be_read_any_more_are_written_down_again() {
    let mut roles = Roles::of(Mode::Primary).await;
    assert_eq!(roles.rig.kernel.role(Kind::Dr).epoch, 3);
    let damage = async |rig: &Rig| {
        let path = Kind::Dr.path();
        let nonsense = zeroize::Zeroizing::new(b"nonsense".to_vec());
        rig.commit(|tx| Ok(tx.put(arca_barrier::Class::Node, path, nonsense)?)).await.unwrap();
        rig.replica.say_replaced();
    };
    damage(&roles.rig).await;
    assert_eq!(roles.rig.kernel.role(Kind::Dr).epoch, 3, "what was known counts");
    roles.rig.kernel.keep_identity("c", "n").await.unwrap();
    assert_eq!(RoleRecord::load(&roles.rig.view(), Kind::Dr).unwrap(), role(Mode::Primary));
    // Who never knew serves nobody: it might be a secondary.
    damage(&roles.rig).await;
    roles.rig.fail_over();
    roles.rig.kernel.activate();
    assert_eq!(*roles.rig.kernel.standing().serves(), Serves::Unknown);
    assert_eq!(roles.rig.get("root", "sys/mounts").await.err().unwrap().fault(), Fault::Internal);
}

#[tokio::test]
async fn a_second_role_does_not_go_with_a_copy_that_waits() {
    let roles = Roles::new().await;
    roles.rig.commit(|tx| role(Mode::Primary).store(tx, Kind::Performance)).await.unwrap();
    let got = roles.told("root", "sys/replication/dr/secondary/enable", json!({"token": "t"})).await;
    assert_eq!(got, "this cluster is a performance primary already");
    assert_eq!(*roles.rig.kernel.standing().serves(), Serves::All);
}

/// Devices are replicated; what a DR secondary serves is recorded there, what it turns away is not.
#[tokio::test]
async fn what_a_dr_secondary_serves_is_audited() {
    let roles = Roles::new().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let options = json!({"type": "file", "options": {"file_path": path}});
    roles.rig.post("root", "sys/audit/file", options).await.unwrap();
    roles.become_one(&role(Mode::Secondary)).await;
    let lines = || std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let before = lines().len();
    assert!(roles.rig.get("root", "sys/mounts").await.is_err());
    assert_eq!(lines().len(), before);
    let token = roles.operation_token().await;
    for (given, want) in [("guess", "permission denied"), (&token, "promote dr secondary at \"\", Ordinary")]
    {
        let before = lines().len();
        assert_eq!(roles.told("", PROMOTE, json!({"dr_operation_token": given})).await, want);
        let new = lines().split_off(before);
        assert_eq!(new.len(), 2, "request and response");
        assert!(new.iter().all(|line| line.contains(PROMOTE) && !line.contains(given)), "{new:?}");
    }
}

/// What is handed out opens everything, and comes past the pipeline.
#[tokio::test]
async fn the_use_of_an_activation_token_is_audited_or_refused() {
    let roles = Roles::of(Mode::Primary).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.log");
    let options = json!({"type": "file", "options": {"file_path": path}});
    roles.rig.post("root", "sys/audit/file", options).await.unwrap();
    let lines = || std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    let before = lines().len();
    let given = || serde_json::from_value(json!({"accessor": "a1b2", "secondary_id": "west"})).unwrap();
    let kernel = &roles.rig.kernel;
    let used = kernel.audit_activation(Kind::Dr, given()).await.unwrap();
    kernel.audit_activated(&used, Some("it has expired")).await.unwrap();
    let new = lines().split_off(before);
    assert_eq!(new.len(), 2, "request and response: {new:?}");
    for line in &new {
        let entry: Value = serde_json::from_str(line).unwrap();
        let request = &entry["request"];
        assert_eq!(request["path"], "sys/replication/dr/activate", "{line}");
        assert_eq!(
            (&request["data"]["accessor"], &request["data"]["secondary_id"]),
            (&json!("a1b2"), &json!("west"))
        );
    }
    assert!(!new[0].contains("it has expired") && new[1].contains("it has expired"), "{new:?}");
}
