//! Users with leases, whatever the database does.

use std::time::Duration;

use arca_engine_api::{Engine as _, EngineError, LeaseGrant, Operation};
use serde_json::{Value, json};

use super::fake::Mood;
use super::{Crash, Talk};

async fn with_role(more: Value) -> Talk {
    let talk = Talk::new().await;
    let mut body = json!({"db_name": "db", "creation_statements": "make", "default_ttl": 60, "max_ttl": 600});
    body.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    assert_eq!(talk.write("roles/r", body).await, "none");
    talk.server.told.lock().clear();
    talk
}

async fn issue(talk: &Talk, crash: Crash) -> (String, LeaseGrant) {
    let (made, lease) = talk.call(Operation::Read, "creds/r", Value::Null, crash).await;
    let made = made.map(|made| Value::Object(made.data.unwrap()).to_string());
    (made.unwrap_or_else(|err| format!("{:?}: {err}", err.fault())), lease.unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_user_is_made_renewed_and_removed() {
    let talk = with_role(json!({})).await;
    let (made, lease) = issue(&talk, Crash::Never).await;
    let users = talk.server.made();
    assert_eq!(users.len(), 1);
    let password = talk.server.password(&users[0]).unwrap();
    assert_eq!(made, json!({"username": users[0], "password": password}).to_string());
    assert_eq!(
        (lease.ttl, lease.max_ttl, lease.is_renewable),
        (Duration::from_secs(60), Duration::from_secs(600), true)
    );
    talk.advance(30);
    let mut record = talk.lease(&lease);
    record.increment = Duration::from_secs(3_600);
    let renewed = talk.engine.renew(&talk.ctx(), &record).await.unwrap().lease.unwrap();
    assert_eq!(renewed.ttl, Duration::from_secs(3_600));
    talk.revoke(&lease).await.unwrap();
    talk.revoke(&lease).await.unwrap();
    assert!(talk.server.made().is_empty());
    assert_eq!(
        *talk.server.told.lock(),
        [
            "create until 2026-11-26 13:01:05+0000: make",
            // Ten minutes after it was made, and five seconds.
            "renew until 2026-11-26 13:10:05+0000",
            "revoke: ",
            "revoke: ",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_role_that_is_gone_still_says_how_to_revoke() {
    let talk = with_role(json!({"revocation_statements": ["unmake"]})).await;
    let (_, lease) = issue(&talk, Crash::Never).await;
    talk.say(Operation::Delete, "roles/r", Value::Null).await;
    talk.revoke(&lease).await.unwrap();
    assert_eq!(talk.server.told.lock().last().unwrap(), "revoke: unmake");
    // Or moved on to another database.
    let talk = with_role(json!({"revocation_statements": ["unmake"]})).await;
    let (_, lease) = issue(&talk, Crash::Never).await;
    talk.write("roles/r", json!({"db_name": "elsewhere", "revocation_statements": ["other"]})).await;
    talk.revoke(&lease).await.unwrap();
    assert_eq!(talk.server.told.lock().last().unwrap(), "revoke: unmake");
}

/// For which hosts a user was made is in its lease: the role may make them for others by now.
#[tokio::test(start_paused = true)]
async fn a_lease_knows_for_which_hosts_its_user_was_made() {
    let talk = with_role(json!({"creation_statements": "here"})).await;
    let (_, lease) = issue(&talk, Crash::Never).await;
    talk.write("roles/r", json!({"creation_statements": "elsewhere"})).await;
    let mut record = talk.lease(&lease);
    record.internal = talk.engine.renew(&talk.ctx(), &record).await.unwrap().lease.unwrap().internal;
    talk.engine.revoke(&talk.ctx(), &record).await.unwrap();
    assert_eq!(talk.server.told.lock().last().unwrap(), "revoke:  at here");
    // One whose role changed before it was made is none of either.
    talk.write("roles/r", json!({"creation_statements": "here"})).await;
    let request = talk.request(Operation::Read, "creds/r", Value::Null);
    let intent = talk.engine.handle(&talk.ctx(), &request).await.unwrap().intent.unwrap();
    talk.write("roles/r", json!({"creation_statements": "elsewhere"})).await;
    let outcome = talk.fulfil(&intent, Crash::Never).await;
    assert!(matches!(outcome, Err(EngineError::NothingDone(_))));
    assert!(talk.server.made().is_empty());
}

/// A lease that lives on keeps its user: no renewal, granted or refused, ends the user before it.
#[tokio::test(start_paused = true)]
async fn no_renewal_lets_a_user_expire_before_its_lease() {
    let talk = with_role(json!({})).await;
    let (_, lease) = issue(&talk, Crash::Never).await;
    let mut record = talk.lease(&lease);
    record.increment = Duration::from_secs(500);
    record.internal = talk.engine.renew(&talk.ctx(), &record).await.unwrap().lease.unwrap().internal;
    record.increment = Duration::from_secs(10);
    record.internal = talk.engine.renew(&talk.ctx(), &record).await.unwrap().lease.unwrap().internal;
    talk.advance(300);
    talk.write("roles/r", json!({"max_ttl": 200})).await;
    let refused = talk.engine.renew(&talk.ctx(), &record).await.unwrap_err();
    assert_eq!(refused.to_string(), "past the max TTL, cannot renew");
    // The second one was shorter, the third one refused before the database heard of it.
    let until = "renew until 2026-11-26 13:08:25+0000";
    assert_eq!(talk.server.told.lock()[1..], [until, until]);
}

/// Whatever happens on the way, the lease removes what there may be.
#[tokio::test(start_paused = true)]
async fn nobody_is_left_that_no_lease_removes() {
    for (mood, crash, want, count) in [
        (Mood::Well, Crash::BeforeActing, "Upstream: crashed", 0),
        (Mood::Well, Crash::BeforeConcluding, "Upstream: crashed", 1),
        (Mood::Refusing, Crash::Never, "Upstream: no", 0),
        (Mood::Unreachable, Crash::Never, "Upstream: no way", 0),
        (Mood::Deaf, Crash::Never, "Upstream: the database did not answer in time", 0),
        (Mood::Late(50), Crash::Never, "Upstream: the database did not answer in time", 0),
        (Mood::Lying, Crash::Never, "Upstream: the line broke", 1),
    ] {
        let talk = with_role(json!({})).await;
        talk.server.is(mood);
        let (answer, lease) = issue(&talk, crash).await;
        assert_eq!((answer.as_str(), talk.server.made().len()), (want, count), "{mood:?} {crash:?}");
        talk.server.is(Mood::Well);
        talk.revoke(&lease).await.unwrap();
        assert!(talk.server.made().is_empty(), "{mood:?} {crash:?}");
    }
}

/// Where nobody was made for certain the lease is not kept, and only there.
#[tokio::test(start_paused = true)]
async fn it_is_said_where_nobody_was_made() {
    for (mood, want) in
        [(Mood::Refusing, true), (Mood::Unreachable, true), (Mood::Deaf, false), (Mood::Lying, false)]
    {
        let talk = with_role(json!({})).await;
        talk.server.is(mood);
        let (made, _) = talk.call(Operation::Read, "creds/r", Value::Null, Crash::Never).await;
        assert_eq!(matches!(made, Err(EngineError::NothingDone(_))), want, "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_that_fails_says_so() {
    let talk = with_role(json!({})).await;
    let (_, lease) = issue(&talk, Crash::Never).await;
    for mood in [Mood::Refusing, Mood::Unreachable, Mood::Deaf, Mood::Lying] {
        talk.server.is(mood);
        assert!(talk.revoke(&lease).await.is_err(), "{mood:?}");
    }
    talk.server.is(Mood::Well);
    talk.revoke(&lease).await.unwrap();
    assert!(talk.server.made().is_empty());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_cannot_be_are_refused_before_anything_is_intended() {
    let talk = with_role(json!({})).await;
    for (path, body, want) in [
        ("roles/r", json!({"creation_statements": ""}), "Invalid: empty creation statements"),
        (
            "roles/r",
            json!({"db_name": "nodb"}),
            r#"Invalid: failed to find entry for connection with name: "nodb""#,
        ),
        ("roles/r", json!({"db_name": "db", "creation_statements": "x"}), ""),
        ("config/db", json!({"allowed_roles": "q*,s"}), r#"Invalid: "r" is not an allowed role"#),
        ("config/db", json!({"allowed_roles": ""}), r#"Invalid: "r" is not an allowed role"#),
        (
            "config/db",
            json!({"allowed_roles": "r*", "username_template": "a'{{.RoleName}}"}),
            "Invalid: the username may hold letters",
        ),
        (
            "config/db",
            json!({"username_template": "{{random 50}}"}),
            "Invalid: the username has more than 40 characters",
        ),
        (
            "config/db",
            json!({"username_template": "", "password_policy": "gone"}),
            "Invalid: no such password policy",
        ),
    ] {
        assert_eq!(talk.write(path, body.clone()).await, "none", "{body}");
        let answer = talk.read("creds/r").await;
        assert!(want.is_empty() || answer.starts_with(want), "{body}: {answer}");
    }
}
