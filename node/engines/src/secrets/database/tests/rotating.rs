//! Passwords that change, and nodes that crash meanwhile.

use arca_engine_api::{Engine as _, Operation, Storage as _};
use serde_json::{Value, json};

use super::fake::Mood;
use super::{Crash, Talk};

fn role() -> Value {
    json!({"db_name": "db", "username": "app", "rotation_period": 3600})
}

async fn shown(talk: &Talk) -> String {
    let made = talk.call(Operation::Read, "static-creds/s", Value::Null, Crash::Never).await.0;
    made.map_or_else(
        |err| err.to_string(),
        |made| made.data.unwrap()["password"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_static_role_has_its_password_changed_at_once_and_then_again() {
    let talk = Talk::new().await;
    assert_eq!(talk.write("static-roles/s", role()).await, "none");
    let first = shown(&talk).await;
    assert_eq!(talk.server.password("app").as_ref(), Some(&first));
    talk.advance(100);
    assert_eq!(
        talk.read("static-creds/s").await,
        json!({"last_vault_rotation": "2026-11-26T13:00:00Z", "password": first, "rotation_period": 3600, "ttl": 3500, "username": "app"}).to_string()
    );
    assert_eq!(
        talk.read("static-roles/s").await,
        r#"{"credential_type":"password","db_name":"db","last_vault_rotation":"2026-11-26T13:00:00Z","rotation_period":3600,"rotation_statements":[],"username":"app"}"#
    );
    assert_eq!(talk.tick().await, 0);
    talk.advance(3_500);
    assert_eq!(talk.tick().await, 1);
    assert_ne!(shown(&talk).await, first);
    assert_eq!(talk.server.password("app").unwrap(), shown(&talk).await);
    assert_eq!(talk.tick().await, 0);
    assert_eq!(talk.due().len(), 1);
    talk.say(Operation::Delete, "static-roles/s", Value::Null).await;
    assert!(talk.due().is_empty());
}

#[tokio::test(start_paused = true)]
async fn static_roles_that_cannot_be_are_refused() {
    let talk = Talk::new().await;
    for (body, want) in [
        (json!({}), "Invalid: database name is a required field"),
        (json!({"db_name": "db"}), "Invalid: username is a required field to create a static account"),
        (
            json!({"db_name": "db", "username": "app"}),
            "Invalid: rotation_period or rotation_schedule is required to create static accounts",
        ),
        (
            json!({"db_name": "db", "username": "app", "rotation_period": 2}),
            "Invalid: rotation_period must be 5 seconds or more",
        ),
        (
            json!({"db_name": "no", "username": "app", "rotation_period": 60}),
            r#"Invalid: failed to find entry for connection with name: "no""#,
        ),
        (
            json!({"db_name": "db", "username": "gone", "rotation_period": 60}),
            "Upstream: error setting credentials: no such user",
        ),
        (
            json!({"db_name": "db", "username": "app", "rotation_period": 60, "credential_type": "rsa_private_key"}),
            r#"Invalid: unsupported credential_type: "rsa_private_key""#,
        ),
    ] {
        assert_eq!(talk.write("static-roles/s", body).await, want);
        assert_eq!(talk.read("static-roles/s").await, "none");
    }
    // Names that are never made may be there all the same.
    for (name, want) in [
        ("a'b$é", "Upstream: error setting credentials: no such user"),
        ("a\nb", "Invalid: the username holds a control character"),
    ] {
        let body = json!({"db_name": "db", "username": name, "rotation_period": 60});
        assert_eq!(talk.write("static-roles/s", body).await, want);
    }
    assert!(talk.due().is_empty());
    talk.write("static-roles/s", role()).await;
    assert_eq!(
        talk.write("static-roles/s", json!({"username": "root"})).await,
        "Invalid: cannot update static account username"
    );
    assert_eq!(
        talk.write("rotate-role/none", json!({})).await,
        "Invalid: no static role found for role name"
    );
}

/// The database may have the new password or not: the next tick sees it through with the same one.
#[tokio::test(start_paused = true)]
async fn a_crash_while_rotating_is_mended_by_a_tick() {
    for crash in [Crash::BeforeActing, Crash::BeforeConcluding] {
        for path in ["rotate-role/s", "static-roles/s"] {
            let talk = Talk::new().await;
            let is_new = path == "static-roles/s";
            if !is_new {
                talk.write("static-roles/s", role()).await;
            }
            let before = talk.server.password("app").unwrap();
            let body = if is_new { role() } else { json!({}) };
            assert!(talk.call(Operation::Update, path, body, crash).await.0.is_err());
            let between = talk.server.password("app").unwrap();
            assert_eq!(between == before, crash == Crash::BeforeActing);
            assert_eq!(shown(&talk).await, if is_new { "unknown role: s".to_owned() } else { before });
            assert_eq!(talk.tick().await, 0, "not before it has ended for certain");
            talk.advance(120);
            assert_eq!(talk.tick().await, 1);
            assert_eq!(shown(&talk).await, talk.server.password("app").unwrap());
            assert!(crash == Crash::BeforeActing || shown(&talk).await == between);
            assert_eq!(talk.due().len(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_fails_is_tried_again() {
    for mood in [Mood::Deaf, Mood::Late(50), Mood::Lying, Mood::Refusing, Mood::Unreachable] {
        let talk = Talk::new().await;
        talk.write("static-roles/s", role()).await;
        let before = shown(&talk).await;
        talk.server.is(mood);
        let answer = talk.write("rotate-role/s", json!({})).await;
        assert!(
            answer.starts_with("Upstream: unable to finish rotating credentials; retries will"),
            "{answer}"
        );
        assert_eq!(shown(&talk).await, before);
        let between = talk.server.password("app").unwrap();
        talk.advance(60);
        assert_eq!(talk.tick().await, 1, "{mood:?}");
        talk.server.is(Mood::Well);
        talk.advance(3_600);
        assert_eq!(talk.tick().await, 1, "{mood:?}");
        assert_eq!(shown(&talk).await, talk.server.password("app").unwrap());
        assert_ne!(shown(&talk).await, before);
        assert!(mood != Mood::Lying || shown(&talk).await == between, "the same password is set again");
    }
}

#[tokio::test(start_paused = true)]
async fn the_root_password_survives_every_crash() {
    for crash in [Crash::BeforeActing, Crash::BeforeConcluding, Crash::Never] {
        for mood in [Mood::Well, Mood::Lying, Mood::Deaf, Mood::Refusing] {
            let talk = Talk::new().await;
            talk.write("roles/r", json!({"db_name": "db", "creation_statements": "x"})).await;
            talk.server.is(mood);
            let outcome = talk.call(Operation::Update, "rotate-root/db", json!({}), crash).await.0;
            assert_eq!(outcome.is_ok(), crash == Crash::Never && mood == Mood::Well);
            talk.server.is(Mood::Well);
            // Whichever password holds now, it lets in.
            assert!(talk.read("creds/r").await.contains("username"), "{crash:?} {mood:?}");
            talk.advance(120);
            talk.tick().await;
            assert!(talk.due().is_empty(), "{crash:?} {mood:?}");
            assert!(talk.read("creds/r").await.contains("username"), "{crash:?} {mood:?}");
            let is_changed = talk.server.password("root").unwrap() != "secret";
            assert_eq!(is_changed, !(mood == Mood::Refusing && crash == Crash::Never), "{crash:?} {mood:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_root_password_that_is_not_known_is_not_rotated() {
    let talk = Talk::new().await;
    talk.write(
        "config/bare",
        json!({"plugin_name": "fake", "connection_url": "x", "verify_connection": false}),
    )
    .await;
    assert_eq!(
        talk.write("rotate-root/bare", json!({})).await,
        "Invalid: unable to rotate root credentials: no username in configuration"
    );
    assert_eq!(
        talk.write("rotate-root/none", json!({})).await,
        r#"Invalid: failed to find entry for connection with name: "none""#
    );
    // One in the URL would stay there, and let in no more.
    let body =
        json!({"plugin_name": "fake", "connection_url": "canary", "username": "root", "password": "secret"});
    talk.write("config/fixed", body).await;
    assert_eq!(
        talk.write("rotate-root/fixed", json!({})).await,
        "Invalid: unable to rotate root credentials: connection_url must log in with {{username}} and {{password}}"
    );
    assert_eq!(talk.server.password("root").unwrap(), "secret");
}

/// Whether the connection gets in, and by which password the database lets it in.
async fn check_root(talk: &Talk, want: &str) {
    assert!(talk.read("creds/r").await.contains("username"));
    assert_eq!(talk.server.password("root").unwrap(), want);
}

async fn with_role() -> Talk {
    let talk = Talk::new().await;
    talk.write("roles/r", json!({"db_name": "db", "creation_statements": "x"})).await;
    talk
}

/// That a later attempt has certainly changed nothing says nothing about an earlier one.
#[tokio::test(start_paused = true)]
async fn a_password_that_may_hold_is_never_forgotten() {
    for mood in [Mood::Unreachable, Mood::Refusing, Mood::Remembering] {
        for crash in [Crash::BeforeConcluding, Crash::Never] {
            let talk = with_role().await;
            talk.write("static-roles/s", role()).await;
            talk.server.is(Mood::Lying);
            for path in ["rotate-root/db", "rotate-role/s"] {
                assert!(talk.call(Operation::Update, path, json!({}), crash).await.0.is_err());
            }
            let (root, app) = (talk.server.password("root").unwrap(), talk.server.password("app").unwrap());
            assert_ne!(root, "secret");
            talk.server.is(mood);
            talk.advance(120);
            for _ in 0..5 {
                talk.tick().await;
                talk.advance(30);
            }
            talk.server.is(Mood::Well);
            talk.tick().await;
            assert_eq!(shown(&talk).await, app, "{mood:?} {crash:?}");
            check_root(&talk, &root).await;
            assert_eq!(talk.due().len(), 1, "{mood:?} {crash:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_with_no_earlier_attempt_forgets_the_password() {
    let talk = with_role().await;
    talk.server.is(Mood::Refusing);
    assert_eq!(talk.write("rotate-root/db", json!({})).await, "Upstream: failed to update user: no");
    talk.server.is(Mood::Well);
    assert!(talk.due().is_empty());
    assert_eq!(talk.write("config/db", json!({"password": "secret"})).await, "none");
    check_root(&talk, "secret").await;
}

/// The one that lets in is one of the two that the record holds, whoever concludes in which order.
#[tokio::test(start_paused = true)]
async fn overlapping_rotations_lose_no_password() {
    let talk = with_role().await;
    talk.write("static-roles/s", role()).await;
    for (path, delete) in [("rotate-root/db", "config/db"), ("rotate-role/s", "static-roles/s")] {
        let request = talk.request(Operation::Update, path, json!({}));
        let first = talk.engine.handle(&talk.ctx(), &request).await.unwrap().intent.unwrap();
        for (operation, path) in [(Operation::Update, path), (Operation::Delete, delete)] {
            let refused = talk.say(operation, path, json!({})).await;
            assert!(
                refused.starts_with("Invalid: the password is being changed at this moment"),
                "{refused}"
            );
        }
        // The node is slow: a tick begins a second attempt, and then the first one goes on.
        talk.advance(120);
        let second = talk.engine.tick(&talk.ctx()).await.unwrap().remove(0);
        let late = talk.engine.carry_out(&talk.ctx(), &first).await;
        assert!(talk.engine.conclude(&talk.ctx(), &first, late).is_err());
        let done = talk.engine.carry_out(&talk.ctx(), &second).await;
        let failed = crate::secrets::database::intent::Rotated {
            password: String::new(),
            failed: Some(("no".to_owned(), true)),
        };
        let failed = crate::secrets::database::intent::to_map(&failed).unwrap();
        assert!(talk.engine.conclude(&talk.ctx(), &first, Ok(failed)).is_err());
        assert!(talk.engine.conclude(&talk.ctx(), &second, done.clone()).is_ok());
        // Once more is the same, but what is gone, or has another password, is never said to be well.
        assert!(talk.engine.conclude(&talk.ctx(), &second, done.clone()).is_ok());
        assert_eq!(shown(&talk).await, talk.server.password("app").unwrap());
        check_root(&talk, &talk.server.password("root").unwrap()).await;
        assert_eq!(talk.write(path, json!({})).await, "none");
        assert!(talk.engine.conclude(&talk.ctx(), &second, done.clone()).is_err());
        assert_eq!(talk.say(Operation::Delete, delete, json!({})).await, "none");
        assert!(talk.engine.conclude(&talk.ctx(), &second, done).is_err());
        if path == "rotate-root/db" {
            let root = talk.server.password("root").unwrap();
            let body = json!({"plugin_name": "fake", "connection_url": "x", "username": "root", "password": root, "allowed_roles": "*"});
            assert_eq!(talk.write("config/db", body).await, "none");
        }
    }
    assert!(talk.due().is_empty());
}

/// An operator's tool that sends the configuration again, with the old password, must not make anybody forget the new one.
#[tokio::test(start_paused = true)]
async fn a_configuration_sent_again_while_the_password_changes_is_refused() {
    for crash in [Crash::BeforeActing, Crash::BeforeConcluding] {
        let talk = with_role().await;
        drop(talk.call(Operation::Update, "rotate-root/db", json!({}), crash).await);
        for body in [json!({"password": "secret"}), json!({"username": "other"})] {
            let refused = talk.write("config/db", body).await;
            assert!(
                refused.starts_with("Invalid: the connection's own password is being changed"),
                "{refused}"
            );
        }
        assert_eq!(
            talk.write("config/db", json!({"username": "root", "password_policy": "p"})).await,
            "none"
        );
        talk.advance(120);
        assert_eq!(talk.tick().await, 1);
        let root = talk.server.password("root").unwrap();
        assert_ne!(root, "secret");
        check_root(&talk, &root).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_connections_own_user_has_no_static_role() {
    let talk = Talk::new().await;
    assert_eq!(
        talk.write("static-roles/s", json!({"db_name": "db", "username": "root", "rotation_period": 60}))
            .await,
        "Invalid: the username is that of the connection itself, whose password is changed by rotate-root"
    );
    assert_eq!(talk.server.password("root").unwrap(), "secret");
}

/// From before it was looked at: what is locked out can still be put right.
#[tokio::test(start_paused = true)]
async fn a_pair_that_is_there_already_can_be_repaired() {
    let talk = Talk::new().await;
    let config = json!({"plugin_name": "fake", "connection_url": "x", "username": "app", "password": "p", "allowed_roles": "*", "verify_connection": false});
    let role = json!({"db_name": "db", "username": "app", "rotation_period": 60});
    assert_eq!(talk.write("config/same", config).await, "none");
    let stored = talk.storage.get("config/same").unwrap().unwrap();
    talk.say(Operation::Delete, "config/same", Value::Null).await;
    assert_eq!(talk.write("static-roles/s", role).await, "none");
    talk.storage.put("config/same", stored).unwrap();
    assert_eq!(talk.write("config/same", json!({"password": "q", "verify_connection": false})).await, "none");
    assert_eq!(talk.write("static-roles/s", json!({"rotation_period": 120})).await, "none");
}

/// Neither made nor moved, by the static role or by the connection, as far as both are at one server.
#[tokio::test(start_paused = true)]
async fn no_connection_has_a_static_role_of_its_user_by_another_way() {
    let talk = Talk::new().await;
    let config = |url: &str, username: &str| json!({"plugin_name": "fake", "connection_url": url, "username": username, "password": "p", "allowed_roles": "*", "verify_connection": false});
    let role = |db_name: &str| json!({"db_name": db_name, "username": "app", "rotation_period": 60});
    talk.write("config/same", config("x", "app")).await;
    talk.write("config/far", config("y", "app")).await;
    let taken = r#"Invalid: the username is that of the connection "same" to the same server, whose password is changed by rotate-root"#;
    assert_eq!(talk.write("static-roles/s", role("db")).await, taken);
    assert_eq!(talk.server.password("app").unwrap(), "old");
    talk.say(Operation::Delete, "config/same", Value::Null).await;
    assert_eq!(talk.write("static-roles/s", role("db")).await, "none");
    // Moved to where it is the connection's own, or to where another one has it.
    let own =
        "Invalid: the username is that of the connection itself, whose password is changed by rotate-root";
    assert_eq!(talk.write("static-roles/s", role("far")).await, own);
    let held = r#"Invalid: the username is that of the static role "s", which changes its password"#;
    assert_eq!(talk.write("config/same", config("x", "app")).await, held);
    assert_eq!(talk.write("config/db", json!({"username": "app", "verify_connection": false})).await, held);
    assert_eq!(
        talk.write("config/far", json!({"connection_url": "x", "verify_connection": false})).await,
        held
    );
    // What another server has is another user.
    assert_eq!(
        talk.write("config/far", json!({"username": "app", "verify_connection": false})).await,
        "none"
    );
    assert_eq!(talk.say(Operation::Read, "config/same", Value::Null).await, "none");
}

/// Only the request that makes a role takes it back, and only if its user has the old password for certain.
#[tokio::test(start_paused = true)]
async fn a_static_role_whose_user_may_have_its_first_password_stays() {
    for (mood, crash) in [
        (Mood::Refusing, Crash::BeforeActing),
        (Mood::Unreachable, Crash::BeforeActing),
        (Mood::Unreachable, Crash::BeforeConcluding),
        (Mood::Lying, Crash::BeforeConcluding),
    ] {
        let talk = Talk::new().await;
        drop(talk.call(Operation::Update, "static-roles/s", role(), crash).await);
        talk.advance(120);
        talk.server.is(mood);
        let refused = talk.write("rotate-role/s", json!({})).await;
        assert!(refused.starts_with("Upstream: unable to finish rotating"), "{refused}");
        talk.server.is(Mood::Well);
        talk.advance(30);
        assert_eq!(talk.tick().await, 1, "{mood:?}");
        assert_eq!(shown(&talk).await, talk.server.password("app").unwrap());
    }
    for mood in [Mood::Lying, Mood::Deaf] {
        let talk = Talk::new().await;
        talk.server.is(mood);
        let refused = talk.write("static-roles/s", role()).await;
        assert!(refused.starts_with("Upstream: unable to finish rotating"), "{refused}");
        talk.server.is(Mood::Well);
        talk.advance(30);
        assert_eq!(talk.tick().await, 1, "{mood:?}");
        assert_eq!(shown(&talk).await, talk.server.password("app").unwrap());
    }
}

/// Neither does a window that is over leave a user with a password that nobody is shown.
#[tokio::test(start_paused = true)]
async fn a_change_begun_in_its_window_is_seen_through_after_it() {
    let talk = Talk::new().await;
    let body = json!({"db_name": "db", "username": "app", "rotation_schedule": "0 14 * * *", "rotation_window": 3600});
    talk.write("static-roles/s", body).await;
    talk.advance(2 * 3_600 - 1);
    talk.server.is(Mood::Lying);
    assert_eq!(talk.tick().await, 1);
    talk.server.is(Mood::Unreachable);
    talk.advance(31);
    assert_eq!(talk.tick().await, 1);
    talk.server.is(Mood::Well);
    talk.advance(31);
    assert_eq!(talk.tick().await, 1);
    assert_eq!(shown(&talk).await, talk.server.password("app").unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_calendar_has_its_window() {
    let talk = Talk::new().await;
    let body = json!({"db_name": "db", "username": "app", "rotation_schedule": "0 14 * * *", "rotation_window": 3600});
    assert_eq!(talk.write("static-roles/s", body).await, "none");
    let first = shown(&talk).await;
    // At 13:00 it is an hour until the moment; at 15:01 the window is over.
    talk.advance(2 * 3_600 + 60);
    assert_eq!(talk.tick().await, 0);
    assert_eq!(shown(&talk).await, first);
    talk.advance(23 * 3_600);
    assert_eq!(talk.tick().await, 1);
    assert_ne!(shown(&talk).await, first);
}

/// A tick takes on so much and no more, and one database that has many roles leaves room for another.
#[tokio::test(start_paused = true)]
async fn ticks_are_bounded() {
    let talk = Talk::new().await;
    talk.write("config/other", json!({"plugin_name": "fake", "connection_url": "x", "username": "root", "password": "secret", "allowed_roles": "*"})).await;
    for at in 0..20 {
        let body = json!({"db_name": "db", "username": "app", "rotation_period": 60});
        assert_eq!(talk.write(&format!("static-roles/s{at}"), body).await, "none");
    }
    let body = json!({"db_name": "other", "username": "app", "rotation_period": 60});
    talk.write("static-roles/z", body).await;
    talk.advance(60);
    assert_eq!([talk.tick().await, talk.tick().await, talk.tick().await, talk.tick().await], [9, 8, 4, 0]);
}

/// However much waits for one database, or for many, each entry has its turn.
#[tokio::test(start_paused = true)]
async fn a_database_with_much_to_do_starves_no_other() {
    let talk = Talk::new().await;
    let connection = json!({"plugin_name": "fake", "connection_url": "x", "username": "root", "password": "secret", "allowed_roles": "*"});
    for at in 0..300 {
        let body = json!({"db_name": "db", "username": "app", "rotation_period": 60});
        talk.write(&format!("static-roles/s{at}"), body).await;
    }
    talk.advance(1);
    for at in 0..60 {
        talk.write(&format!("config/c{at}"), connection.clone()).await;
        let body = json!({"db_name": format!("c{at}"), "username": "app", "rotation_period": 60});
        talk.write(&format!("static-roles/c{at}"), body).await;
    }
    talk.advance(60);
    talk.server.is(Mood::Unreachable);
    let mut seen = std::collections::BTreeSet::new();
    // First the oldest of each, as many as fit; then the rest, and eight of the database that has many.
    for want in [48, 13 + 8] {
        let intents = talk.engine.tick(&talk.ctx()).await.unwrap();
        assert_eq!(intents.len(), want);
        let names = intents.iter().map(|intent| intent["rotate-static"]["name"].as_str().unwrap().to_owned());
        seen.extend(names.filter(|name| name.starts_with('c')));
    }
    assert_eq!(seen.len(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_static_role_moves_with_its_entry() {
    let talk = Talk::new().await;
    let connection = json!({"plugin_name": "fake", "connection_url": "x", "username": "root", "password": "secret", "allowed_roles": "*"});
    talk.write("config/other", connection).await;
    talk.write("static-roles/s", role()).await;
    assert_eq!(talk.write("static-roles/s", json!({"db_name": "other"})).await, "none");
    assert_eq!(talk.due().len(), 1);
    talk.advance(3_600);
    assert_eq!(talk.tick().await, 1);
    drop(talk.call(Operation::Update, "rotate-role/s", json!({}), Crash::BeforeActing).await);
    let refused = talk.write("static-roles/s", json!({"db_name": "db"})).await;
    assert!(refused.starts_with("Invalid: the password is being changed"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn one_role_without_its_policy_keeps_no_other_waiting() {
    let talk = Talk::new().await;
    talk.write("static-roles/a", json!({"db_name": "db", "username": "app", "rotation_period": 60})).await;
    talk.write("static-roles/b", json!({"db_name": "db", "username": "app", "rotation_period": 60})).await;
    talk.write("static-roles/a", json!({"credential_config": {"password_policy": "gone"}})).await;
    talk.advance(60);
    assert_eq!(talk.tick().await, 1);
    assert_eq!(talk.due().len(), 2);
}
