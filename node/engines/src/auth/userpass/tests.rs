//! Whole conversations with a mount.

use arca_engine_api::Operation::{Delete, List, Read, Update};
use arca_engine_api::{Asker, EngineError, Login};
use serde_json::{Value, json};

use super::make;
use super::password::{Cost, take_made};
use crate::testing::Rig;

/// Made by crypt(3) of `Z`: as cheap as hashes may be.
const HASH_OF_Z: &str = "$2y$05$abcdefghijklmnopqrstuudBClYVkfpX.rTzANjj0r468RBla4GKe";

fn rig() -> Rig {
    let mut rig = Rig::new(make, "");
    rig.come_from("10.1.2.3");
    rig
}

fn with_bob() -> Rig {
    let rig = rig();
    let bob = json!({"password_hash": HASH_OF_Z, "token_policies": "b,a", "token_ttl": "1m"});
    assert_eq!(rig.say(Update, "users/Bob", &bob), "none");
    rig
}

#[track_caller]
fn log_in(rig: &Rig, name: &str, password: &str) -> Result<Login, EngineError> {
    let answer = rig.call(Update, &format!("login/{name}"), &json!({"password": password}));
    answer.map(|answer| answer.login.unwrap())
}

#[track_caller]
fn refused(rig: &Rig, name: &str, password: &str, want: &str) {
    assert_eq!(log_in(rig, name, password).unwrap_err().to_string(), want, "{name}");
}

/// Anybody can have passwords hashed: those who have a token must not wait for them.
#[test]
fn logins_wait_in_a_line_of_their_own() {
    let mut rig = with_bob();
    for address in ["10.1.2.3", "10.9.9.9"] {
        rig.come_from(address);
        for (name, password) in [("bob", "Z"), ("bob", "wrong"), ("nobody", "Z"), ("a b", "Z")] {
            let before = rig.computed();
            drop(log_in(&rig, name, password));
            let asker = Asker::Anybody(address.parse().ok());
            assert_eq!((rig.computed() - before, rig.computed_for()), (1, Some(asker)), "{name}");
        }
    }
    rig.say(Update, "users/alice", &json!({"password": "x"}));
    assert_eq!(rig.computed_for(), Some(Asker::Known));
}

#[test]
fn a_user_is_shown_as_others_show_it() {
    let rig = with_bob();
    let want = r#"{"token_bound_cidrs":[],"token_explicit_max_ttl":0,"token_max_ttl":0,"token_no_default_policy":false,"token_num_uses":0,"token_period":0,"token_policies":["b","a"],"token_strictly_bind_ip":false,"token_ttl":60,"token_type":"default"}"#;
    assert_eq!(rig.say(Read, "users/BOB", &Value::Null), want);
    assert_eq!(rig.say(Read, "users/nobody", &Value::Null), "none");
    assert_eq!(rig.say(Update, "users/bob/policies", &json!({"policies": "C", "token_ttl": 5})), "none");
    let shown = rig.say(Read, "users/bob", &Value::Null);
    assert!(shown.starts_with(r#"{"policies":["c"],"#) && shown.contains(r#""token_ttl":60"#), "{shown}");
    rig.say(Update, "users/alice", &json!({"password": "x"}));
    assert_eq!(rig.say(List, "users", &Value::Null), r#"{"keys":["alice","bob"]}"#);
    assert_eq!(rig.say(List, "users", &json!({"after": "alice"})), r#"{"keys":["bob"]}"#);
    assert_eq!((rig.exists("users/BOB"), rig.exists("users/eve")), (Some(true), Some(false)));
    assert_eq!(rig.say(Delete, "users/ALICE", &Value::Null), "none");
    assert_eq!(rig.say(List, "users", &Value::Null), r#"{"keys":["bob"]}"#);
}

/// Clients in Go send a list that has nothing in it as null: whoever takes all policies away must not keep them.
#[test]
fn a_null_list_takes_what_was_there_away() {
    for (path, field) in
        [("users/bob", "token_policies"), ("users/bob/policies", "policies"), ("users/bob", "policies")]
    {
        let rig = with_bob();
        assert_eq!(rig.say(Update, path, &json!({field: null, "password": null, "token_ttl": null})), "none");
        let login = log_in(&rig, "bob", "Z").unwrap();
        assert_eq!((login.policies.len(), login.ttl.as_secs()), (0, 60), "{path} {field}");
    }
}

#[test]
fn a_login_says_who_it_is() {
    let rig = with_bob();
    let login = log_in(&rig, "BoB", "Z").unwrap();
    assert_eq!((login.alias_name.as_str(), login.display_name.as_str()), ("bob", "bob"));
    assert_eq!(json!(login.metadata), json!({"username": "bob"}));
    assert_eq!(login.policies, ["b", "a"]);
    assert!(login.is_renewable && login.ttl.as_secs() == 60);
    assert_eq!(rig.login_name("login/BoB", &Value::Null).as_deref(), Some("bob"));
}

#[test]
fn a_password_is_hashed_by_argon2_unless_it_came_hashed() {
    let rig = with_bob();
    let long = "p".repeat(80);
    assert_eq!(rig.say(Update, "users/bob/password", &json!({"password": long})), "none");
    assert!(log_in(&rig, "bob", &long).is_ok());
    refused(&rig, "bob", &"p".repeat(81), "invalid username or password");
    refused(&rig, "bob", "Z", "invalid username or password");
    for (body, want) in [
        (json!({}), "must provide either password or password_hash"),
        (json!({"password": ""}), "must provide either password or password_hash"),
        (
            json!({"password": "a", "password_hash": HASH_OF_Z}),
            "only one of password or password_hash may be provided",
        ),
        (json!({"password_hash": "canary"}), "password_hash is not a valid bcrypt or Argon2id hash"),
        (json!({"password": "p".repeat(4097)}), "a password has at most 4096 bytes"),
    ] {
        assert_eq!(rig.say(Update, "users/bob/password", &body), format!("error: {want}"));
        assert_eq!(rig.say(Update, "users/new", &body), format!("error: {want}"));
    }
    let unknown = rig.say(Update, "users/eve/password", &json!({"password": "a"}));
    assert_eq!(unknown, "error: username does not exist");
    assert_eq!(rig.say(Update, "users/eve/policies", &json!({})), "error: username does not exist");
    assert_eq!(rig.say(Read, "users/new", &Value::Null), "none");
}

#[test]
fn names_that_are_none_are_refused() {
    let rig = with_bob();
    let want = "error: invalid username: letters, digits and _, with - and . in between";
    for name in [" bob", "bob ", "-a", "a@b", ".."] {
        assert_eq!(rig.say(Update, &format!("users/{name}"), &json!({"password": "x"})), want);
        assert_eq!(rig.say(Read, &format!("users/{name}"), &Value::Null), "none");
        refused(&rig, name, "Z", "invalid username or password");
    }
    assert_eq!(rig.say(Update, "login/bob", &json!({})), "error: missing password");
}

/// CVE-2025-6004: a name counted under one spelling and logged in under another was never locked.
#[test]
fn cve_2025_6004_every_spelling_counts_as_one_name() {
    let rig = with_bob();
    for name in ["bob", "Bob", "BOB", "bOb"] {
        assert_eq!(rig.login_name(&format!("login/{name}"), &Value::Null).as_deref(), Some("bob"));
        assert!(log_in(&rig, name, "Z").is_ok());
    }
    for name in [" bob", "bob ", "\u{ff22}ob", "bo\u{212a}"] {
        assert_eq!(rig.login_name(&format!("login/{name}"), &Value::Null), None);
        refused(&rig, name, "Z", "invalid username or password");
    }
}

/// CVE-2025-6011: an unknown user was refused before a hash was made. The same hashes are made for everybody.
#[test]
fn cve_2025_6011_unknown_users_cost_as_much_as_known_ones() {
    let rig = rig();
    refused(&rig, "nobody", "wrong", "invalid username or password");
    assert_eq!(take_made(), [Cost::DEFAULT]);
    rig.say(Update, "users/bob", &json!({"password_hash": HASH_OF_Z}));
    rig.say(Update, "users/dear", &json!({"password_hash": HASH_OF_Z.replace("$05$", "$06$")}));
    rig.say(Update, "users/own", &json!({"password": "own"}));
    take_made();
    let all = [Cost::DEFAULT, Cost::Bcrypt { log_rounds: 5 }, Cost::Bcrypt { log_rounds: 6 }];
    for name in ["bob", "dear", "own", "nobody", "no name"] {
        for password in ["wrong", "Z", "own"] {
            drop(log_in(&rig, name, password));
            assert_eq!(take_made(), all, "{name} {password}");
        }
    }
}

#[test]
fn what_failed_is_not_told_from_who_is_unknown() {
    let rig = with_bob();
    for name in ["bob", "nobody"] {
        let err = log_in(&rig, name, "wrong").unwrap_err();
        assert!(matches!(err, EngineError::BadLogin { .. }), "{name}");
        assert_eq!(err.to_string(), "invalid username or password");
    }
}

#[test]
fn hashes_of_too_many_kinds_are_refused_until_some_are_gone() {
    let rig = with_bob();
    for cost in ["06", "07", "08"] {
        let hash = HASH_OF_Z.replace("$05$", &format!("${cost}$"));
        assert_eq!(rig.say(Update, &format!("users/u{cost}"), &json!({"password_hash": hash})), "none");
    }
    let too_many = "error: the password hashes of one mount have at most 4 different costs";
    assert_eq!(rig.say(Update, "users/new", &json!({"password": "x"})), too_many);
    rig.say(Delete, "users/u06", &Value::Null);
    rig.tick();
    assert_eq!(rig.say(Update, "users/new", &json!({"password": "x"})), "none");
    assert!(log_in(&rig, "new", "x").is_ok() && log_in(&rig, "bob", "Z").is_ok());
}

#[test]
fn a_login_comes_from_where_its_token_may_be_used() {
    let mut rig = with_bob();
    rig.say(Update, "users/bob", &json!({"token_bound_cidrs": "10.0.0.0/8"}));
    assert_eq!(log_in(&rig, "bob", "Z").unwrap().bound_cidrs, ["10.0.0.0/8"]);
    rig.come_from("192.0.2.1");
    refused(&rig, "bob", "Z", "permission denied");
    refused(&rig, "bob", "wrong", "invalid username or password");
    rig.say(Update, "users/bob", &json!({"token_bound_cidrs": "", "token_strictly_bind_ip": true}));
    assert_eq!(log_in(&rig, "bob", "Z").unwrap().bound_cidrs, ["192.0.2.1"]);
}

#[test]
fn a_renewal_asks_whether_the_user_is_still_the_same() {
    let rig = with_bob();
    let internal = log_in(&rig, "bob", "Z").unwrap().internal;
    assert_eq!(rig.renew(&internal), "ttl 60 max 0 period 0");
    rig.say(
        Update,
        "users/bob",
        &json!({"token_policies": "A,default,b", "token_period": 30, "token_max_ttl": 90}),
    );
    assert_eq!(rig.renew(&internal), "ttl 60 max 90 period 30");
    for policies in ["a", "", "a,b,c"] {
        rig.say(Update, "users/bob", &json!({"token_policies": policies}));
        assert_eq!(rig.renew(&internal), "error: policies have changed, not renewing");
    }
    rig.say(Delete, "users/bob", &Value::Null);
    assert_eq!(rig.renew(&internal), "error: the user is gone, not renewing");
}

/// Nothing that is read shows a password or its hash.
#[test]
fn nothing_read_shows_a_hash() {
    let rig = with_bob();
    for shown in [rig.say(Read, "users/bob", &Value::Null), rig.say(List, "users", &Value::Null)] {
        assert!(!shown.contains("$2") && !shown.contains("password"), "{shown}");
    }
}
