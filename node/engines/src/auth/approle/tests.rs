//! Whole conversations with a mount.

use arca_engine_api::Operation::{Delete, List, Read, Update};
use arca_engine_api::{EngineError, Login, Map};
use serde_json::{Value, json};

use super::make;
use crate::testing::Rig;

const REFUSED: &str = "invalid role or secret ID";

fn rig() -> Rig {
    let mut rig = Rig::new(make, "").with_counting_entropy();
    rig.come_from("10.1.2.3");
    rig.initialize();
    rig
}

/// A mount with a role `app` whose role id is `app-id`.
fn with_app(settings: &Value) -> Rig {
    let rig = rig();
    let mut role = json!({"role_id": "app-id", "token_policies": "p"});
    role.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    assert_eq!(rig.say(Update, "role/App", &role), "none");
    rig
}

/// What a request that has to go well answers.
#[track_caller]
fn data(rig: &Rig, path: &str, data: &Value) -> Map {
    rig.call(Update, path, data).unwrap_or_else(|err| panic!("{path}: {err}")).data.unwrap_or_default()
}

/// A new secret id and its accessor.
#[track_caller]
fn secret(rig: &Rig, role: &str, settings: &Value) -> (String, String) {
    let made = data(rig, &format!("role/{role}/secret-id"), settings);
    (made["secret_id"].as_str().unwrap().to_owned(), made["secret_id_accessor"].as_str().unwrap().to_owned())
}

fn log_in(rig: &Rig, role_id: &str, secret_id: &str) -> Result<Login, EngineError> {
    let answer = rig.call(Update, "login", &json!({"role_id": role_id, "secret_id": secret_id}));
    answer.map(|answer| answer.login.unwrap())
}

#[track_caller]
fn refused(rig: &Rig, role_id: &str, secret_id: &str, want: &str) {
    assert_eq!(log_in(rig, role_id, secret_id).unwrap_err().to_string(), want);
}

#[track_caller]
fn check(rig: &Rig, operation: arca_engine_api::Operation, path: &str, body: &Value, want: &str) {
    assert_eq!(rig.say(operation, path, body), want, "{path} {body}");
}

#[test]
fn a_role_is_shown_as_others_show_it() {
    let rig = with_app(&json!({"period": "1h", "policies": "Q,p", "secret_id_ttl": "5m"}));
    let want = r#"{"bind_secret_id":true,"local_secret_ids":false,"period":3600,"policies":["p"],"secret_id_bound_cidrs":null,"secret_id_num_uses":0,"secret_id_ttl":300,"token_bound_cidrs":[],"token_explicit_max_ttl":0,"token_max_ttl":0,"token_no_default_policy":false,"token_num_uses":0,"token_period":3600,"token_policies":["p"],"token_strictly_bind_ip":false,"token_ttl":0,"token_type":"default"}"#;
    check(&rig, Read, "role/APP", &Value::Null, want);
    check(&rig, List, "role", &Value::Null, r#"{"keys":["app"]}"#);
    check(&rig, Read, "role/other", &Value::Null, "none");
    assert_eq!((rig.exists("role/aPP"), rig.exists("role/other")), (Some(true), Some(false)));
    check(&rig, Delete, "role/other", &Value::Null, "none");
    check(&rig, Delete, "role/App", &Value::Null, "none");
    check(&rig, Read, "role/app", &Value::Null, "none");
    refused(&rig, "app-id", "x", REFUSED);
}

#[test]
fn what_is_empty_or_null_is_taken_as_others_take_it() {
    let rig = with_app(&json!({"secret_id_bound_cidrs": "10.0.0.0/8"}));
    let shown = |name: &str| rig.call(Read, "role/app", &Value::Null).unwrap().data.unwrap()[name].clone();
    let empty = "error: invalid role_id: it is empty";
    check(&rig, Update, "role/app", &json!({"role_id": " "}), empty);
    check(&rig, Update, "role/new", &json!({"role_id": ""}), empty);
    assert_eq!(rig.exists("role/new"), Some(false));
    check(&rig, Update, "role/app", &json!({"token_policies": null, "secret_id_bound_cidrs": null}), "none");
    assert_eq!((shown("token_policies"), shown("secret_id_bound_cidrs")), (json!([]), Value::Null));
    check(&rig, Update, "role/app/policies", &json!({"token_policies": "q"}), "none");
    check(&rig, Update, "role/app/policies", &json!({"token_policies": null}), "none");
    assert_eq!(shown("token_policies"), json!([]));
    check(&rig, Update, "role/app", &json!({"role_id": null}), empty);
    let unbound = "error: at least one constraint should be enabled on the role";
    check(&rig, Update, "role/app", &json!({"bind_secret_id": null}), unbound);
    assert_eq!(shown("bind_secret_id"), json!(true));
    let said =
        json!({"token_ttl": "1h", "token_num_uses": 3, "secret_id_num_uses": 4, "secret_id_ttl": "2h"});
    check(&rig, Update, "role/app", &said, "none");
    let nulls =
        json!({"token_ttl": null, "token_num_uses": null, "secret_id_num_uses": null, "secret_id_ttl": null});
    check(&rig, Update, "role/app", &nulls, "none");
    // A lifetime of null is as good as not sent.
    assert_eq!((shown("token_ttl"), shown("secret_id_ttl")), (json!(3_600), json!(7_200)));
    assert_eq!((shown("token_num_uses"), shown("secret_id_num_uses")), (json!(0), json!(0)));
    // Read as no items at all, these would let anybody in from anywhere.
    for name in ["token_bound_cidrs", "secret_id_bound_cidrs"] {
        let text = format!(
            "error: field validation failed: error converting input for field \"{name}\": expected a list without \
             empty items"
        );
        check(&rig, Update, "role/app", &json!({name: [""]}), &text);
    }
    for kind in ["batch", "service"] {
        let warning = format!("default-{kind} has no useful meaning; adjusting to {kind}");
        let body = json!({"token_type": format!("default-{kind}")});
        check(&rig, Update, "role/app", &body, &format!("none warning: {warning}"));
        assert_eq!(shown("token_type"), json!(kind));
    }
}

#[test]
fn every_field_has_a_path() {
    let rig = with_app(&json!({}));
    for (part, body, shown, reset) in [
        (
            "bind-secret-id",
            json!({"bind_secret_id": true}),
            r#"{"bind_secret_id":true}"#,
            r#"{"bind_secret_id":true}"#,
        ),
        ("period", json!({"period": 9}), r#"{"period":9,"token_period":9}"#, r#"{"token_period":0}"#),
        ("period", json!({"token_period": 9}), r#"{"token_period":9}"#, r#"{"token_period":0}"#),
        (
            "policies",
            json!({"token_policies": "a,B"}),
            r#"{"token_policies":["a","B"]}"#,
            r#"{"token_policies":[]}"#,
        ),
        (
            "secret-id-bound-cidrs",
            json!({"secret_id_bound_cidrs": "10.0.0.1/32"}),
            r#"{"secret_id_bound_cidrs":["10.0.0.1/32"]}"#,
            r#"{"secret_id_bound_cidrs":null}"#,
        ),
        (
            "secret-id-num-uses",
            json!({"secret_id_num_uses": 4}),
            r#"{"secret_id_num_uses":4}"#,
            r#"{"secret_id_num_uses":0}"#,
        ),
        (
            "secret-id-ttl",
            json!({"secret_id_ttl": "6m"}),
            r#"{"secret_id_ttl":360}"#,
            r#"{"secret_id_ttl":0}"#,
        ),
        (
            "token-bound-cidrs",
            json!({"token_bound_cidrs": "10.0.0.1/32"}),
            r#"{"token_bound_cidrs":["10.0.0.1"]}"#,
            r#"{"token_bound_cidrs":[]}"#,
        ),
        ("token-max-ttl", json!({"token_max_ttl": 0}), r#"{"token_max_ttl":0}"#, r#"{"token_max_ttl":0}"#),
        (
            "token-num-uses",
            json!({"token_num_uses": 2}),
            r#"{"token_num_uses":2}"#,
            r#"{"token_num_uses":0}"#,
        ),
        ("token-ttl", json!({"token_ttl": 5}), r#"{"token_ttl":5}"#, r#"{"token_ttl":0}"#),
    ] {
        let path = format!("role/app/{part}");
        check(&rig, Update, &path, &body, "none");
        check(&rig, Read, &path, &Value::Null, shown);
        check(&rig, Delete, &path, &Value::Null, "none");
        check(&rig, Read, &path, &Value::Null, reset);
        let missing = rig.say(Update, &path, &json!({"other": 1}));
        assert!(missing.starts_with("error: missing "), "{part}: {missing}");
        check(&rig, Read, &format!("role/other/{part}"), &Value::Null, "none");
        let missing = r#"error: role "other" does not exist"#;
        check(&rig, Update, &format!("role/other/{part}"), &body, missing);
    }
    check(&rig, Read, "role/app/local-secret-ids", &Value::Null, r#"{"local_secret_ids":false}"#);
    check(&rig, Read, "role/app/role-id", &Value::Null, r#"{"role_id":"app-id"}"#);
    let old = rig.say(Read, "role/app/bound-cidr-list", &Value::Null);
    assert!(old.starts_with(r#"{"bound_cidr_list":null} warning: "#), "{old}");
}

#[test]
fn a_role_id_is_one_roles() {
    let rig = with_app(&json!({}));
    check(&rig, Update, "role/b", &json!({"role_id": "app-id"}), "error: role_id already in use");
    check(&rig, Update, "role/b", &json!({}), "none");
    check(&rig, Update, "role/b/role-id", &json!({"role_id": " app-id "}), "error: role_id already in use");
    check(&rig, Update, "role/app/role-id", &json!({"role_id": "new"}), "none");
    check(&rig, Update, "role/b/role-id", &json!({"role_id": "app-id"}), "none");
    let (of_app, _) = secret(&rig, "app", &json!({}));
    assert!(log_in(&rig, "new", &of_app).is_ok());
    refused(&rig, "app-id", &of_app, REFUSED);
    check(&rig, Update, "role/b/role-id", &json!({"role_id": " "}), "error: missing role_id");
}

#[test]
fn roles_that_bind_nothing_are_refused() {
    let rig = with_app(&json!({}));
    let want = "error: at least one constraint should be enabled on the role";
    check(&rig, Update, "role/b", &json!({"bind_secret_id": false}), want);
    check(&rig, Update, "role/app/bind-secret-id", &json!({"bind_secret_id": false}), want);
    let bound = json!({"bind_secret_id": false, "secret_id_bound_cidrs": "10.0.0.0/8", "role_id": "b-id"});
    check(&rig, Update, "role/b", &bound, "none");
    check(&rig, Delete, "role/b/secret-id-bound-cidrs", &Value::Null, want);
    check(&rig, Update, "role/b/secret-id", &json!({}), "error: bind_secret_id is not set on the role");
    assert!(log_in(&rig, "b-id", "").is_ok());
    let wrong = "error: failed to validate CIDR blocks: invalid CIDR address";
    for cidr in ["canary", "10.0.0.1", "10.0.0.0/33"] {
        check(&rig, Update, "role/app", &json!({"secret_id_bound_cidrs": cidr}), wrong);
        check(&rig, Update, "role/app/secret-id", &json!({"cidr_list": cidr}), wrong);
    }
    let fixed = "error: local_secret_ids can only be modified during role creation";
    check(&rig, Update, "role/app", &json!({"local_secret_ids": true}), fixed);
    check(&rig, Update, "role/app", &json!({"local_secret_ids": false}), "none");
}

#[test]
fn a_login_says_who_it_is() {
    let rig = with_app(&json!({"token_ttl": 60}));
    let (id, _) = secret(&rig, "app", &json!({"metadata": r#"{"team": "x", "role_name": "evil"}"#}));
    let login = log_in(&rig, " app-id ", &format!(" {id}\n")).unwrap();
    assert_eq!((login.alias_name.as_str(), login.display_name.as_str()), ("app-id", ""));
    assert_eq!(json!(login.metadata), json!({"role_name": "app", "team": "x"}));
    assert_eq!(login.alias_metadata, login.metadata);
    assert_eq!(login.policies, ["p"]);
    assert_eq!(rig.login_name("login", &json!({"role_id": " app-id "})).as_deref(), Some("app-id"));
    assert_eq!(rig.login_name("login", &json!({})), None);
    check(&rig, Update, "login", &json!({"role_id": "app-id"}), "error: missing secret_id");
    // As a role there is: who has no secret id must not learn which role ids there are.
    check(&rig, Update, "login", &json!({"role_id": "ghost"}), "error: missing secret_id");
    check(&rig, Update, "login", &json!({"role_id": "ghost", "secret_id": " "}), "error: missing secret_id");
    check(&rig, Update, "login", &json!({"secret_id": id}), "error: missing role_id");
    refused(&rig, "app-id", "wrong", REFUSED);
    refused(&rig, "wrong", &id, REFUSED);
}

#[test]
fn a_login_writes_nothing_unless_uses_are_counted() {
    let rig = with_app(&json!({}));
    let (free, _) = secret(&rig, "app", &json!({}));
    let (counted, accessor) = secret(&rig, "app", &json!({"num_uses": 2}));
    let before = rig.stored();
    assert!(log_in(&rig, "app-id", &free).is_ok());
    assert!(log_in(&rig, "app-id", &counted).is_ok());
    assert_eq!(rig.stored(), before);
    let shown = data(&rig, "role/app/secret-id/lookup", &json!({"secret_id": counted}));
    assert_eq!(shown["secret_id_num_uses"], json!(1));
    assert!(log_in(&rig, "app-id", &counted).is_ok());
    refused(&rig, "app-id", &counted, REFUSED);
    let gone =
        rig.say(Update, "role/app/secret-id-accessor/lookup", &json!({"secret_id_accessor": accessor}));
    assert_eq!(gone, "error: not found");
    assert_eq!(rig.stored().len(), before.len() - 2);
}

#[test]
fn a_secret_id_is_shown_without_itself() {
    let rig = with_app(&json!({"secret_id_num_uses": 3}));
    let made = data(
        &rig,
        "role/app/secret-id",
        &json!({"metadata": "a=b, c = d", "ttl": "1m", "cidr_list": "10.0.0.0/8"}),
    );
    assert_eq!((&made["secret_id_num_uses"], &made["secret_id_ttl"]), (&json!(3), &json!(60)));
    let (id, accessor) = (&made["secret_id"], &made["secret_id_accessor"]);
    let want = json!({
        "cidr_list": ["10.0.0.0/8"], "creation_time": "1970-01-01T00:00:01Z",
        "expiration_time": "1970-01-01T00:01:01Z", "last_updated_time": "1970-01-01T00:00:01Z",
        "metadata": {"a": "b", "c": "d"}, "secret_id_accessor": accessor, "secret_id_num_uses": 3,
        "secret_id_ttl": 60, "token_bound_cidrs": [],
    });
    assert_eq!(Value::Object(data(&rig, "role/app/secret-id/lookup", &json!({"secret_id": id}))), want);
    let by_accessor = json!({"secret_id_accessor": accessor});
    assert_eq!(Value::Object(data(&rig, "role/app/secret-id-accessor/lookup", &by_accessor)), want);
    check(&rig, List, "role/app/secret-id", &Value::Null, &json!({"keys": [accessor]}).to_string());
    check(&rig, Update, "role/app/secret-id/lookup", &json!({"secret_id": "wrong"}), "none");
    check(&rig, Update, "role/app/secret-id/lookup", &json!({}), "error: missing secret_id");
    let endless = data(&rig, "role/app/secret-id", &json!({}));
    let shown = data(&rig, "role/app/secret-id/lookup", &json!({"secret_id": endless["secret_id"]}));
    assert_eq!(shown["expiration_time"], json!("0001-01-01T00:00:00Z"));
    for metadata in
        [json!({"a": "b"}), json!(r#"{"a":"b"}"#), json!("eyJhIjoiYiJ9"), json!("a=b"), json!(["a=b"])]
    {
        let made = data(&rig, "role/app/secret-id", &json!({"metadata": metadata}));
        let shown = data(&rig, "role/app/secret-id/lookup", &json!({"secret_id": made["secret_id"]}));
        assert_eq!(shown["metadata"], json!({"a": "b"}), "{metadata}");
    }
    let wrong = rig.say(Update, "role/app/secret-id", &json!({"metadata": "canary"}));
    assert!(wrong.starts_with("error: failed to parse metadata") && !wrong.contains("canary"), "{wrong}");
}

#[test]
fn a_secret_id_stays_within_its_role() {
    let within = json!({"secret_id_num_uses": 3, "secret_id_ttl": 60, "secret_id_bound_cidrs": "10.0.0.0/8", "token_bound_cidrs": "10.1.0.0/16"});
    let rig = with_app(&within);
    let uses = "error: num_uses cannot be higher than the role's secret_id_num_uses";
    let ttl = "error: ttl cannot be longer than the role's secret_id_ttl";
    let subset = "error: failed to verify subset relationship between CIDR blocks on the role and CIDR blocks on the secret ID";
    for (body, want) in [
        (json!({"num_uses": 4}), uses),
        (json!({"num_uses": 0}), uses),
        (json!({"num_uses": -1}), "error: num_uses cannot be negative"),
        (json!({"ttl": 61}), ttl),
        (json!({"ttl": 0}), ttl),
        (json!({"cidr_list": "11.0.0.0/8"}), subset),
        (json!({"cidr_list": ["10.0.0.0/8", "10.0.0.0/7"]}), subset),
        (json!({"token_bound_cidrs": "10.0.0.0/8"}), subset),
    ] {
        check(&rig, Update, "role/app/secret-id", &body, want);
    }
    secret(
        &rig,
        "app",
        &json!({"num_uses": 2, "ttl": 5, "cidr_list": "10.1.0.0/16", "token_bound_cidrs": "10.1.2.3/32"}),
    );
    let missing = "error: role \"other\" does not exist";
    check(&rig, Update, "role/Other/secret-id", &json!({}), missing);
    check(&rig, List, "role/other/secret-id", &Value::Null, missing);
    check(&rig, List, "role/o\"her/secret-id", &Value::Null, "error: the role does not exist");
    let response = rig.call(Update, "role/app/secret-id", &json!({})).unwrap();
    assert_eq!(json!(response.accessor), response.data.unwrap()["secret_id_accessor"]);
}

#[test]
fn logins_come_from_where_they_may() {
    let mut rig = with_app(&json!({}));
    let (id, _) =
        secret(&rig, "app", &json!({"cidr_list": "10.0.0.0/8", "token_bound_cidrs": "10.1.2.3/32"}));
    assert_eq!(log_in(&rig, "app-id", &id).unwrap().bound_cidrs, ["10.1.2.3/32"]);
    let elsewhere = "source address unauthorized by CIDR restrictions on the role or the secret ID";
    rig.come_from("192.0.2.1");
    refused(&rig, "app-id", &id, elsewhere);
    rig.come_from("10.1.2.3");
    rig.say(Update, "role/app", &json!({"secret_id_bound_cidrs": "192.0.2.0/24"}));
    refused(&rig, "app-id", &id, elsewhere);
    let (counted, _) = secret(&rig, "app", &json!({"num_uses": 1}));
    refused(&rig, "app-id", &counted, elsewhere);
    rig.come_from("192.0.2.1");
    assert!(log_in(&rig, "app-id", &counted).is_ok(), "a refused login takes no use");
    rig.come_from("not known");
    let (free, _) = secret(&rig, "app", &json!({}));
    refused(&rig, "app-id", &free, elsewhere);
}

#[test]
fn chosen_secret_ids_count_like_others() {
    let rig = with_app(&json!({}));
    let custom = json!({"secret_id": " mine ", "ttl": 60});
    assert_eq!(data(&rig, "role/app/custom-secret-id", &custom)["secret_id"], json!("mine"));
    check(&rig, Update, "role/app/custom-secret-id", &custom, "error: the secret_id is already registered");
    check(&rig, Update, "role/app/custom-secret-id", &json!({"secret_id": " "}), "error: missing secret_id");
    assert!(log_in(&rig, "app-id", "mine").is_ok());
    rig.advance(61);
    refused(&rig, "app-id", "mine", REFUSED);
    data(&rig, "role/app/custom-secret-id", &custom);
    assert!(log_in(&rig, "app-id", "mine").is_ok());
    let listed = rig.call(List, "role/app/secret-id", &Value::Null).unwrap().data.unwrap();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1);
}

/// CVE-2026-115362: the end of a secret id was enforced by tidying alone.
#[test]
fn cve_2026_115362_a_secret_id_ends_without_tidying() {
    for role in [
        json!({"secret_id_ttl": 60}),
        json!({"secret_id_ttl": 60, "secret_id_num_uses": 5, "local_secret_ids": true}),
    ] {
        let rig = with_app(&role);
        let (id, accessor) = secret(&rig, "app", &json!({}));
        rig.advance(59);
        assert!(log_in(&rig, "app-id", &id).is_ok());
        rig.advance(1);
        refused(&rig, "app-id", &id, REFUSED);
        check(&rig, Update, "role/app/secret-id/lookup", &json!({"secret_id": id}), "none");
        let by_accessor = json!({"secret_id_accessor": accessor});
        check(&rig, Update, "role/app/secret-id-accessor/lookup", &by_accessor, "error: not found");
    }
}

/// CVE-2023-24999: whoever could destroy secret ids of one role could destroy those of all by their accessors.
#[test]
fn cve_2023_24999_accessors_are_of_one_role() {
    let rig = with_app(&json!({}));
    rig.say(Update, "role/other", &json!({}));
    let (id, accessor) = secret(&rig, "app", &json!({}));
    let body = json!({"secret_id_accessor": accessor});
    for path in ["role/other/secret-id-accessor/destroy", "role/other/secret-id-accessor/lookup"] {
        check(&rig, Update, path, &body, "error: not found");
    }
    let climbing = json!({"secret_id_accessor": format!("../{accessor}")});
    check(&rig, Update, "role/other/secret-id-accessor/destroy", &climbing, "error: not found");
    check(&rig, Update, "role/other/secret-id/destroy", &json!({"secret_id": id}), "none");
    assert!(log_in(&rig, "app-id", &id).is_ok());
    check(&rig, Update, "role/app/secret-id-accessor/destroy", &body, "none");
    refused(&rig, "app-id", &id, REFUSED);
    check(&rig, Update, "role/app/secret-id-accessor/destroy", &body, "error: not found");
}

/// Vault 0.10.2: a role named in mixed case had secret ids without accessors, which could not be destroyed.
#[test]
fn vault_0_10_2_the_case_of_a_roles_name_does_not_count() {
    let rig = with_app(&json!({}));
    let (id, accessor) = secret(&rig, "APP", &json!({}));
    assert!(log_in(&rig, "app-id", &id).is_ok());
    let body = json!({"secret_id_accessor": accessor});
    check(&rig, Update, "role/app/secret-id-accessor/destroy", &body, "none");
    refused(&rig, "app-id", &id, REFUSED);
    check(&rig, List, "role/App/secret-id", &Value::Null, "{}");
}

/// Vault 0.7.3: ids lay in storage without a salt.
#[test]
fn vault_0_7_3_no_stored_name_holds_an_id() {
    let rig = with_app(&json!({"secret_id_ttl": 60}));
    let (id, _) = secret(&rig, "app", &json!({}));
    data(&rig, "role/app/custom-secret-id", &json!({"secret_id": "mine-mine"}));
    for key in rig.stored() {
        assert!(!key.contains("app-id") && !key.contains(&id) && !key.contains("mine-mine"), "{key}");
    }
}

#[test]
fn what_ended_is_taken_away_in_rounds() {
    let rig = with_app(&json!({"secret_id_ttl": 60}));
    rig.say(Update, "role/kept", &json!({"local_secret_ids": true}));
    let empty = rig.stored();
    for _ in 0..3 {
        secret(&rig, "app", &json!({}));
    }
    let (_, kept) = secret(&rig, "kept", &json!({}));
    rig.tick();
    assert_eq!(rig.stored().len(), empty.len() + 3 * 3 + 3);
    rig.advance(200);
    rig.tick();
    assert_eq!(rig.stored().len(), empty.len() + 3);
    check(&rig, List, "role/kept/secret-id", &Value::Null, &json!({"keys": [kept]}).to_string());
    rig.say(Delete, "role/kept", &Value::Null);
    let answer = rig.call(Update, "tidy/secret-id", &json!({})).unwrap();
    assert_eq!(answer.status, Some(202));
    assert!(
        rig.stored().iter().all(|key| !key.contains("kept") && !key.starts_with("local/")),
        "{:?}",
        rig.stored()
    );
    assert!(rig.stored().iter().all(|key| !key.starts_with("orphan/")));
}

/// A role is deleted in another cluster, which knows nothing of the secret ids that this one keeps to itself.
#[test]
fn secret_ids_of_this_cluster_go_though_another_deletes_their_role() {
    let rig = with_app(&json!({"local_secret_ids": true}));
    rig.say(Update, "role/kept", &json!({"local_secret_ids": true}));
    let (id, _) = secret(&rig, "app", &json!({}));
    secret(&rig, "kept", &json!({}));
    let local =
        |rig: &Rig| rig.stored().iter().filter(|key| key.starts_with("local/")).cloned().collect::<Vec<_>>();
    let of_both = local(&rig);
    let role = rig.with_ctx(|ctx| ctx.storage.get("role/app").unwrap().unwrap());
    let delete = |rig: &Rig| rig.with_ctx(|ctx| ctx.storage.delete("role/app").unwrap());
    // While this cluster catches up with another, a role may not be there for a while.
    delete(&rig);
    rig.tick();
    rig.advance(24 * 3_600 - 1);
    rig.tick();
    rig.plant("role/app", &role);
    rig.tick();
    assert_eq!(local(&rig), of_both);
    assert!(log_in(&rig, "app-id", &id).is_ok());
    delete(&rig);
    rig.tick();
    rig.advance(24 * 3_600 - 1);
    rig.tick();
    assert_eq!(local(&rig), of_both);
    rig.advance(1);
    rig.tick();
    assert_eq!(local(&rig).len() * 2, of_both.len());
    assert!(rig.stored().iter().any(|key| key == "role/kept"));
}

/// However many roles there are, a round looks at a few, and the next one goes on from there.
#[test]
fn rounds_come_to_every_role() {
    let rig = with_app(&json!({}));
    for at in 0..250 {
        rig.plant(&format!("local/owner/{at:03}"), br#"{"role":"no","is_deleted":true,"gone_since":null}"#);
    }
    let left = |rig: &Rig| rig.stored().iter().filter(|key| key.starts_with("local/owner/")).count();
    let live = br#"{"role":"app","is_deleted":false,"gone_since":null}"#;
    rig.plant("local/owner/000", live);
    for want in [151, 51, 1, 1] {
        rig.tick();
        assert_eq!(left(&rig), want);
    }
}

#[test]
fn a_round_is_of_bounded_size() {
    let rig = with_app(&json!({"secret_id_ttl": 60}));
    for at in 0..700 {
        data(&rig, "role/app/custom-secret-id", &json!({"secret_id": format!("s{at}")}));
    }
    rig.advance(200);
    let left = |rig: &Rig| rig.stored().iter().filter(|key| key.starts_with("secret-id/")).count();
    rig.tick();
    assert_eq!(left(&rig), 200);
    rig.tick();
    assert_eq!(left(&rig), 0);
}

/// A new role of an old name has nothing of the old one.
#[test]
fn a_role_made_anew_opens_to_no_old_secret_id() {
    let rig = with_app(&json!({}));
    let (id, _) = secret(&rig, "app", &json!({}));
    let internal = log_in(&rig, "app-id", &id).unwrap().internal;
    assert_eq!(rig.renew(&internal), "ttl 0 max 0 period 0");
    rig.say(Update, "role/app", &json!({"token_ttl": 60, "token_period": 30, "token_policies": "other"}));
    assert_eq!(rig.renew(&internal), "ttl 60 max 0 period 30");
    rig.say(Delete, "role/app", &Value::Null);
    assert_eq!(rig.renew(&internal), "error: the role does not exist during renewal");
    rig.say(Update, "role/app", &json!({"role_id": "app-id"}));
    refused(&rig, "app-id", &id, REFUSED);
    check(&rig, List, "role/app/secret-id", &Value::Null, "{}");
    assert_eq!(rig.renew(&internal), "error: the role does not exist during renewal");
}
