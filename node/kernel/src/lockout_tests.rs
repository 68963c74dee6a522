//! Names locked and unlocked, on one node and over failovers.

use arca_engine_api::Page;
use serde_json::{Value, json};

use super::*;
use crate::tokens::rig::{Rig, text};

async fn rig() -> Rig {
    let rig = Rig::active().await;
    rig.post("root", "sys/auth/people", json!({"type": "notes"})).await.unwrap();
    rig
}

/// Tries to log in and says how it went.
async fn try_login(rig: &Rig, name: &str, is_wrong: bool) -> &'static str {
    let answer = rig.post("", &format!("auth/people/login/{name}"), json!({"wrong": is_wrong})).await;
    match answer {
        Ok(answer) if answer.auth.is_some() => "in",
        Ok(_) => "out",
        Err(KernelError::Denied) => "locked",
        Err(err) if err.fault() == arca_engine_api::Fault::Invalid => "wrong",
        Err(err) => panic!("{err}"),
    }
}

async fn fail(rig: &Rig, name: &str, times: usize, want: &str) {
    for at in 0..times {
        assert_eq!(try_login(rig, name, true).await, want, "{name} {at}");
    }
}

async fn tune(rig: &Rig, config: Value) -> Result<(), KernelError> {
    let body = json!({"user_lockout_config": config});
    rig.post("root", "sys/auth/people/tune", body).await.map(drop)
}

fn accessor(rig: &Rig) -> String {
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    router.at("auth/people/").unwrap().record.accessor.clone()
}

/// Who is locked, by the answer.
async fn locked(rig: &Rig) -> Value {
    let answer = rig.get("root", "sys/locked-users").await.unwrap();
    let mut data = answer.data.unwrap();
    assert_eq!(data["by_namespace"][0]["counts"], data["total"]);
    data["by_namespace"][0]["mount_accessors"].take()
}

fn stored(rig: &Rig) -> Vec<String> {
    rig.view().scan(Class::Local, &format!("root/{FOLDER}"), &Page::default()).unwrap()
}

#[tokio::test]
async fn a_name_is_locked_for_a_while() {
    let rig = rig().await;
    fail(&rig, "bob", 5, "wrong").await;
    assert_eq!(try_login(&rig, "bob", true).await, "locked");
    assert_eq!(try_login(&rig, "bob", false).await, "locked");
    assert_eq!(try_login(&rig, "alice", false).await, "in");
    let want = json!([{"alias_identifiers": ["bob"], "counts": 1, "mount_accessor": accessor(&rig)}]);
    assert_eq!(locked(&rig).await, want);
    rig.advance(15 * 60 - 1);
    assert_eq!(try_login(&rig, "bob", false).await, "locked");
    rig.advance(1);
    assert_eq!(locked(&rig).await, json!([]));
    assert_eq!(try_login(&rig, "bob", false).await, "in");
    assert_eq!(stored(&rig), [""; 0]);
}

#[tokio::test]
async fn a_login_forgets_what_failed_before() {
    let rig = rig().await;
    for _ in 0..3 {
        fail(&rig, "bob", 4, "wrong").await;
        assert_eq!(try_login(&rig, "bob", false).await, "in");
    }
    fail(&rig, "bob", 4, "wrong").await;
    rig.advance(15 * 60 + 1);
    fail(&rig, "bob", 5, "wrong").await;
    fail(&rig, "bob", 1, "locked").await;
}

/// CVE-2025-6004: the count went by the name as sent, the login by the name in lower case.
#[tokio::test]
async fn cve_2025_6004_other_spellings_are_locked_too() {
    let rig = rig().await;
    for name in ["bob", "Bob", "BOB", "bOb", "boB"] {
        fail(&rig, name, 1, "wrong").await;
    }
    for name in ["bob", "BOB"] {
        fail(&rig, name, 1, "locked").await;
    }
}

/// CVE-2025-6010: only names somebody has were locked, which told them from others.
#[tokio::test]
async fn cve_2025_6010_names_nobody_has_are_locked_alike() {
    let rig = rig().await;
    let ask = |name: &str| {
        let (rig, path) = (&rig, format!("auth/people/login/{name}"));
        async move { text(rig.post("", &path, json!({"wrong": true})).await) }
    };
    for _ in 0..8 {
        assert_eq!(ask("bob").await, ask("xavier").await);
    }
    fail(&rig, "xavier", 1, "locked").await;
    rig.kernel.lockout.written().await;
    assert_eq!(stored(&rig).len(), 2);
    assert_eq!(locked(&rig).await[0]["alias_identifiers"], json!(["bob", "xavier"]));
    rig.advance(15 * 60);
    assert_eq!(ask("bob").await, ask("xavier").await);
}

#[tokio::test]
async fn a_lock_outlives_a_failover() {
    let mut rig = rig().await;
    for (name, times) in [("bob", 5), ("xavier", 5), ("alice", 3), ("xenia", 3)] {
        fail(&rig, name, times, "wrong").await;
    }
    rig.kernel.lockout.written().await;
    rig.fail_over();
    rig.kernel.activate();
    // Somebody or nobody, a lock stays, and fewer failures are forgotten.
    for name in ["bob", "xavier"] {
        fail(&rig, name, 1, "locked").await;
    }
    for name in ["alice", "xenia"] {
        fail(&rig, name, 5, "wrong").await;
        fail(&rig, name, 1, "locked").await;
    }
}

/// Strangers may lock as many names as they like: the store holds so many of them.
#[tokio::test]
async fn a_flood_of_locks_fills_no_store() {
    let rig = rig().await;
    let (rules, now) = (rules(&rig), rig.now());
    let written = |now| rig.kernel.lockout.with(&accessor(&rig), |names| names.writes_one_more(rules, now));
    assert_eq!((0..10_000).filter(|_| written(now)).count(), 4_096);
    assert!(written(now.after(rules.duration + Duration::from_secs(1))));
}

/// What a node counted when it was active before says nothing once another was.
#[tokio::test]
async fn a_node_that_is_active_again_counts_from_what_is_stored() {
    let rig = rig().await;
    fail(&rig, "bob", 5, "wrong").await;
    rig.kernel.lockout.written().await;
    rig.kernel.deactivate();
    let namespace = Namespace::root();
    let path = path(&namespace, &accessor(&rig), "bob");
    rig.commit(|tx| Ok(tx.delete(Class::Local, &path)?)).await.unwrap();
    rig.kernel.activate();
    fail(&rig, "bob", 1, "wrong").await;
}

#[tokio::test]
async fn an_operator_unlocks_a_name() {
    let rig = rig().await;
    fail(&rig, "bob", 5, "wrong").await;
    let path = format!("sys/locked-users/{}/unlock", accessor(&rig));
    rig.post("root", &format!("{path}/alice"), json!({})).await.unwrap();
    fail(&rig, "bob", 1, "locked").await;
    rig.post("root", &format!("{path}/bob"), json!({})).await.unwrap();
    assert_eq!(locked(&rig).await, json!([]));
    fail(&rig, "bob", 4, "wrong").await;
    assert_eq!(try_login(&rig, "bob", false).await, "in");
    let filtered = rig.ask(
        "root",
        arca_engine_api::Operation::Read,
        "sys/locked-users",
        json!({"mount_accessor": "other"}),
        None,
    );
    assert_eq!(filtered.await.unwrap().data.unwrap()["total"], json!(0));
}

#[tokio::test]
async fn a_mount_says_when_names_are_locked() {
    let rig = rig().await;
    tune(
        &rig,
        json!({"lockout_threshold": "2", "lockout_duration": "10s", "lockout_counter_reset_duration": 5}),
    )
    .await
    .unwrap();
    let shown = rig.get("root", "sys/auth/people/tune").await.unwrap().data.unwrap();
    assert_eq!((&shown["user_lockout_threshold"], &shown["user_lockout_duration"]), (&json!(2), &json!(10)));
    assert_eq!(shown["user_lockout_counter_reset_duration"], json!(5));
    fail(&rig, "bob", 1, "wrong").await;
    rig.advance(6);
    fail(&rig, "bob", 2, "wrong").await;
    fail(&rig, "bob", 1, "locked").await;
    rig.advance(10);
    assert_eq!(try_login(&rig, "bob", false).await, "in");
    tune(&rig, json!({"lockout_disable": true})).await.unwrap();
    fail(&rig, "bob", 9, "wrong").await;
    for config in [
        json!({"lockout_threshold": "x"}),
        json!({"lockout_threshold": -1}),
        json!({"lockout_duration": "-1s"}),
        json!({"lockout_disable": "maybe"}),
        json!("x"),
    ] {
        assert!(tune(&rig, config.clone()).await.is_err(), "{config}");
    }
    for path in ["sys/auth/token/tune", "sys/auth/userpass/tune", "sys/mounts/aws/tune"] {
        let body = json!({"user_lockout_config": {"lockout_threshold": "3"}});
        let text = text(rig.post("root", path, body).await);
        assert!(text.starts_with("tuning of user lockout configuration for auth type"), "{path}: {text}");
    }
}

/// The rules of the mount these tests log in at.
fn rules(rig: &Rig) -> Rules {
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    Rules::of(&mount_of(&router, &accessor(rig)).unwrap().record, &LockoutDefaults::default())
}

fn watched(rig: &Rig, name: &str) -> Watched {
    Watched {
        rules: rules(rig),
        key: key(&accessor(rig), name),
        name: name.to_owned(),
        path: path(&Namespace::root(), &accessor(rig), name),
        accessor: accessor(rig),
        mount_uuid: String::new(),
        stored: None,
    }
}

/// Of many tries at once as many are tried as may fail; the others hear nothing of their passwords.
#[tokio::test]
async fn of_many_tries_at_once_few_are_tried() {
    let rig = rig().await;
    for right in [None, Some(20)] {
        let name = format!("bob-{right:?}");
        let tries = (0..40).map(|at| try_login(&rig, &name, Some(at) != right));
        let told = futures::future::join_all(tries).await;
        let count = |want: &str| told.iter().filter(|told| **told == want).count();
        assert_eq!((count("wrong"), count("locked")), (5, 35), "{told:?}");
    }
}

#[tokio::test]
async fn of_many_right_tries_at_once_all_get_in() {
    let rig = rig().await;
    fail(&rig, "bob", 4, "wrong").await;
    let told = futures::future::join_all((0..40).map(|_| try_login(&rig, "bob", false))).await;
    assert_eq!(told, ["in"; 40]);
    fail(&rig, "bob", 5, "wrong").await;
}

/// Whoever gives up, or whose engine hangs, keeps others waiting for a while and no longer.
#[tokio::test(start_paused = true)]
async fn a_try_that_does_not_end_does_not_lock_a_name() {
    let rig = rig().await;
    let clock = rig.kernel.clock.as_ref();
    let mut begun = Vec::new();
    for _ in 0..5 {
        begun.push(rig.kernel.lockout.begin(watched(&rig, "bob"), clock).await.unwrap());
    }
    let refused = text(rig.post("", "auth/people/login/bob", json!({})).await);
    assert_eq!(refused, "too many requests, try again later");
    assert_eq!(try_login(&rig, "alice", false).await, "in");
    begun.pop();
    assert_eq!(try_login(&rig, "bob", false).await, "in");
}

/// Tries that end after the lock are refused, right or wrong.
#[tokio::test]
async fn a_try_that_ends_after_the_lock_hears_nothing_of_its_password() {
    let rig = rig().await;
    let tx = rig.kernel.store.begin(crate::tx::Mode::ReadWrite);
    let tried = rig.kernel.lockout.begin(watched(&rig, "bob"), rig.kernel.clock.as_ref()).await.unwrap();
    let tried_before = Tried { count: 5, last: rig.now() };
    rig.kernel
        .lockout
        .with(&accessor(&rig), |names| names.insert(tried.watched.key, tried_before, tried.watched.rules));
    let login = Some(arca_engine_api::Login::default());
    for answered in
        [Ok(Response { login, ..Response::default() }), Err(EngineError::BadLogin { text: "wrong" })]
    {
        let settled = rig.kernel.settle_login(&tx, &tried, &answered);
        assert!(matches!(settled, Err(KernelError::Denied)), "{answered:?}");
    }
}

/// Twice as many names as a table holds, each with so many failures.
fn flood(rig: &Rig, count: u64) {
    let (tried, rules) = (Tried { count, last: rig.now() }, rules(rig));
    rig.kernel.lockout.with(&accessor(rig), |names| {
        for at in 0..2 * names::NAMES_MAX {
            let key = *blake3::hash(&at.to_le_bytes()).as_bytes();
            names.insert(key, tried, rules);
        }
    });
}

/// Whoever tries a great many names neither opens a lock nor gets more tries, and learns nothing of who there is.
#[tokio::test]
async fn no_flood_of_names_makes_a_name_be_forgotten() {
    let rig = rig().await;
    for (name, times) in [("bob", 5), ("xavier", 5), ("carol", 4), ("xenia", 4)] {
        fail(&rig, name, times, "wrong").await;
    }
    for count in [1, 5] {
        rig.advance(1);
        flood(&rig, count);
        for name in ["bob", "xavier"] {
            fail(&rig, name, 1, "locked").await;
        }
        for name in ["carol", "xenia"] {
            fail(&rig, name, 1, if count == 1 { "wrong" } else { "locked" }).await;
        }
    }
    assert_eq!(try_login(&rig, "alice", false).await, "in");
    rig.advance(15 * 60);
    assert_eq!(try_login(&rig, "bob", false).await, "in");
}

/// A name that shares its count with others is opened all the same, by an operator and by its password.
#[tokio::test]
async fn a_name_that_made_room_is_opened_again() {
    let rig = rig().await;
    fail(&rig, "bob", 5, "wrong").await;
    fail(&rig, "carol", 4, "wrong").await;
    for count in [1, 5] {
        rig.advance(1);
        flood(&rig, count);
    }
    let path = format!("sys/locked-users/{}/unlock/BOB", accessor(&rig));
    rig.post("root", &path, json!({})).await.unwrap();
    assert_eq!(try_login(&rig, "carol", false).await, "in");
    for name in ["bob", "carol"] {
        fail(&rig, name, 4, "wrong").await;
        assert_eq!(try_login(&rig, name, false).await, "in");
    }
}

/// Failed logins of one mount say nothing of another's.
#[tokio::test]
async fn mounts_push_out_their_own_names_only() {
    let rig = rig().await;
    rig.post("root", "sys/auth/others", json!({"type": "notes"})).await.unwrap();
    for _ in 0..5 {
        let body = json!({"wrong": true});
        assert!(rig.post("", "auth/others/login/xavier", body).await.is_err());
    }
    rig.advance(1);
    flood(&rig, 5);
    let refused = text(rig.post("", "auth/others/login/xavier", json!({})).await);
    assert_eq!(refused, "permission denied");
}

#[tokio::test]
async fn what_says_nothing_any_more_is_forgotten() {
    let rig = rig().await;
    rig.post("root", "sys/auth/others", json!({"type": "notes"})).await.unwrap();
    fail(&rig, "bob", 5, "wrong").await;
    for _ in 0..5 {
        assert!(rig.post("", "auth/others/login/eve", json!({"wrong": true})).await.is_err());
    }
    rig.kernel.lockout.written().await;
    rig.kernel.forget_failed_logins().await.unwrap();
    assert_eq!(stored(&rig).len(), 2);
    rig.ask("root", arca_engine_api::Operation::Delete, "sys/auth/others", Value::Null, None).await.unwrap();
    rig.kernel.forget_failed_logins().await.unwrap();
    assert_eq!(stored(&rig).len(), 1);
    rig.advance(15 * 60 + 1);
    rig.kernel.forget_failed_logins().await.unwrap();
    assert_eq!(stored(&rig), [""; 0]);
}

#[test]
fn records_are_stored_in_one_form() {
    let record = Record { name: "bob".to_owned(), tried: Tried { count: 5, last: UnixMillis(7) } };
    let golden = r#"{"name":"bob","tried":{"count":5,"last":7}}"#;
    assert_eq!(serde_json::to_string(&record).unwrap(), golden);
    assert_eq!(serde_json::from_str::<Record>(golden).unwrap(), record);
    assert_eq!(serde_json::to_string(&LockoutTuning::default()).unwrap(), "{}");
}

/// Each setting by the first that says something.
#[tokio::test]
async fn the_mounts_tune_counts_before_what_the_node_says() {
    let rig = rig().await;
    let router = rig.kernel.mounts.router(&rig.kernel.store).unwrap();
    let record = &mount_of(&router, &accessor(&rig)).unwrap().record;
    let tuned = |threshold, duration_s, is_disabled| LockoutTuning {
        threshold,
        duration_s,
        is_disabled,
        ..LockoutTuning::default()
    };
    let none = LockoutTuning::default();
    let check =
        |mount: &LockoutTuning, method: &LockoutTuning, all: &LockoutTuning, want: (u64, u64, bool)| {
            let mut record = record.clone();
            record.config.user_lockout_config = mount.clone();
            let by_method = [(record.engine.clone(), method.clone())].into();
            let rules = Rules::of(&record, &LockoutDefaults { all: all.clone(), by_method });
            assert_eq!((rules.threshold, rules.duration.as_secs(), rules.is_disabled), want);
        };
    check(&none, &none, &none, (5, 900, false));
    check(&none, &none, &tuned(3, 60, true), (3, 60, true));
    check(&none, &tuned(4, 0, false), &tuned(3, 60, true), (4, 60, false));
    check(&tuned(0, 7, false), &tuned(4, 0, true), &none, (4, 7, false));
    check(&tuned(0, 0, true), &tuned(4, 0, false), &none, (4, 900, true));
}
