//! Passwords that change, and nodes that crash meanwhile.

use arca_engine_api::Operation;
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
        assert_eq!(talk.read("static-roles/s").await, "NotFound: not found");
    }
    assert!(
        talk.write("static-roles/s", json!({"db_name": "db", "username": "a'b", "rotation_period": 60}))
            .await
            .contains("may hold")
    );
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
    // Said anew in between, it is the operator's that holds.
    drop(talk.call(Operation::Update, "rotate-root/db", json!({}), Crash::BeforeActing).await);
    talk.write("config/db", json!({"password": "secret"})).await;
    talk.advance(120);
    assert_eq!(talk.tick().await, 0);
    assert_eq!((talk.server.password("root").unwrap().as_str(), talk.due().len()), ("secret", 0));
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
