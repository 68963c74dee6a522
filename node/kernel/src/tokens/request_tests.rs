//! Tokens, leases and wrapping as clients meet them: whole requests, through the pipeline.

use std::time::Duration;

use arca_barrier::Class;
use arca_engine_api::Operation;
use serde_json::{Value, json};

use super::rig::{Rig, text};
use super::store::by_path_prefix;
use crate::KernelError;
use crate::answer::{Answer, AnswerBody};
use crate::tx::Plain;

fn raw(answer: Answer) -> Value {
    match answer.body {
        AnswerBody::Raw(raw) => serde_json::from_slice(&raw.body).unwrap(),
        _ => panic!("no raw body"),
    }
}

#[tokio::test]
async fn a_token_looks_after_itself() {
    let rig = Rig::active().await;
    let token = rig.made("root", json!({"ttl": "1h", "policies": "default"})).await;
    let data = rig.get(&token, "auth/token/lookup-self").await.unwrap().data.unwrap();
    assert_eq!((&data["id"], &data["ttl"]), (&json!(token), &json!(3_600)));
    let renewed = rig.post(&token, "auth/token/renew-self", json!({"increment": "2h"})).await.unwrap();
    assert_eq!(renewed.auth.unwrap().lease_duration, 7_200);
    let negative = rig.post(&token, "auth/token/renew-self", json!({"increment": "-5"})).await;
    assert!(text(negative).ends_with("expected a duration, such as 90m or 24h, of at most 100 years"));
    assert!(rig.list(&token, "auth/token/accessors/").await.is_err());
    rig.post(&token, "auth/token/revoke-self", json!({})).await.unwrap();
    assert_eq!(text(rig.get(&token, "auth/token/lookup-self").await), "permission denied");
    let accessors = rig.list("root", "auth/token/accessors/").await.unwrap().data.unwrap();
    assert_eq!(accessors["keys"], json!([rig.root.accessor]), "taken away before the answer");
}

#[tokio::test]
async fn refusals_have_the_words_clients_know() {
    let rig = Rig::active().await;
    let batch = rig.made("root", json!({"type": "batch", "policies": "default"})).await;
    let cases = [
        ("root", "auth/token/renew", json!({"token": "nope"}), "token not found"),
        ("root", "auth/token/renew", json!({}), "missing token ID"),
        ("root", "auth/token/renew-self", json!({}), "lease is not renewable"),
        ("root", "auth/token/renew-accessor", json!({"accessor": "nope"}), "invalid accessor"),
        ("root", "auth/token/lookup-accessor", json!({}), "missing accessor"),
        ("root", "auth/token/revoke-orphan", json!({"token": "nope"}), "token to revoke not found"),
        (
            "root",
            "auth/token/revoke-accessor",
            json!({"accessor": "nope"}),
            "None [\"No token found with this accessor\"]",
        ),
        ("root", "auth/token/revoke", json!({"token": "nope"}), "None []"),
        ("root", "auth/token/revoke", json!({"token": batch}), "batch tokens cannot be revoked"),
        (&batch, "auth/token/renew-self", json!({}), "batch tokens cannot be renewed"),
        (&batch, "auth/token/revoke-self", json!({}), "batch tokens cannot be revoked"),
        ("root", "auth/token/create/none", json!({}), "unknown role"),
        ("root", "auth/token/create", json!({"type": "batch"}), "batch tokens cannot be root tokens"),
        ("root", "auth/token/create", json!({"num_uses": -1}), "number of uses cannot be negative"),
        ("root", "auth/token/create", json!({"ttl": "-1s"}), "ttl must be positive"),
        (
            "root",
            "auth/token/create",
            json!({"entity_alias": "x"}),
            "'entity_alias' is only allowed in combination with token role",
        ),
        ("root", "sys/leases/lookup", json!({"lease_id": "nope"}), "invalid lease"),
        ("root", "sys/leases/renew", json!({"lease_id": "nope"}), "lease not found"),
        ("root", "sys/leases/revoke", json!({"lease_id": "nope"}), "None []"),
        ("root", "sys/leases/revoke", json!({}), "lease_id must be specified"),
        ("root", "sys/wrapping/wrap", json!({"a": 1}), "endpoint requires response wrapping to be used"),
        ("root", "sys/wrapping/unwrap", json!({}), "wrapping token is not valid or does not exist"),
        ("nope", "sys/wrapping/unwrap", json!({}), "wrapping token is not valid or does not exist"),
        ("", "sys/wrapping/lookup", json!({}), "wrapping token is not valid or does not exist"),
        ("nope", "auth/token/lookup", json!({"token": "root"}), "permission denied"),
    ];
    for (token, path, body, want) in cases {
        assert_eq!(text(rig.post(token, path, body.clone()).await), want, "{path} {body}");
    }
}

#[tokio::test]
async fn the_last_use_shows_and_refusals_take_uses_too() {
    let rig = Rig::active().await;
    let token = rig.made("root", json!({"policies": "default", "num_uses": 3})).await;
    let uses = |answer: Answer| answer.data.unwrap()["num_uses"].clone();
    assert_eq!(uses(rig.get(&token, "auth/token/lookup-self").await.unwrap()), json!(2));
    assert_eq!(text(rig.list(&token, "auth/token/accessors/").await), "permission denied");
    assert_eq!(uses(rig.get(&token, "auth/token/lookup-self").await.unwrap()), json!(-1));
    assert_eq!(text(rig.get(&token, "auth/token/lookup-self").await), "permission denied");
}

#[tokio::test]
async fn token_leases_are_seen_by_path_and_revoked_by_id() {
    let rig = Rig::active().await;
    let token = rig.made("root", json!({"ttl": "1h", "policies": "default"})).await;
    assert_eq!(rig.list("root", "sys/leases/lookup/").await.unwrap().data.unwrap()["keys"], json!(["auth/"]));
    let keys = rig.list("root", "sys/leases/lookup/auth/token/create/").await.unwrap().data.unwrap();
    let id = format!("auth/token/create/{}", keys["keys"][0].as_str().unwrap());
    let data = rig.post("root", "sys/leases/lookup", json!({"lease_id": id})).await.unwrap().data.unwrap();
    assert_eq!((&data["id"], &data["ttl"], &data["last_renewal"]), (&json!(id), &json!(3_600), &Value::Null));
    let renewed = rig.post("root", "sys/leases/renew", json!({"lease_id": id})).await;
    assert_eq!(text(renewed), "tokens cannot be renewed through this endpoint");
    assert_eq!(text(rig.list(&token, "sys/leases/lookup/").await), "permission denied");
    rig.post("root", "sys/leases/revoke", json!({"lease_id": id})).await.unwrap();
    assert_eq!(text(rig.get(&token, "auth/token/lookup-self").await), "permission denied");
    assert_eq!(text(rig.post("root", "sys/leases/lookup", json!({"lease_id": id})).await), "invalid lease");
}

#[tokio::test]
async fn a_prefix_leaves_the_root_tokens_that_no_request_made() {
    let rig = Rig::active().await;
    let id = rig.root.lease_id();
    let keys = rig.list("root", "sys/leases/lookup/auth/token/").await;
    assert_eq!(text(keys), "Some({}) []");
    // A link that an earlier version left.
    let link = by_path_prefix("root", &id);
    rig.commit(|tx| Ok(tx.put(Class::Local, &link, Plain::default())?)).await.unwrap();
    assert_eq!(text(rig.post("root", "sys/leases/lookup", json!({"lease_id": id})).await), "invalid lease");
    let child = rig.made("root", json!({"policies": "root"})).await;
    for (prefix, is_sync) in [(id.as_str(), false), ("auth/token/root", true), ("auth/token", true)] {
        let path = format!("sys/leases/revoke-prefix/{prefix}");
        rig.post("root", &path, json!({"sync": is_sync})).await.unwrap();
        assert!(rig.get("root", "auth/token/lookup-self").await.is_ok(), "{prefix}");
    }
    assert_eq!(text(rig.get(&child, "auth/token/lookup-self").await), "permission denied");
    assert!(rig.view().get(Class::Local, &link).unwrap().is_none());
}

/// CVE-2026-45808: the old names of lease paths decided differently.
#[tokio::test]
async fn cve_2026_45808_old_lease_paths_decide_alike() {
    let rig = Rig::active().await;
    let foreign = rig.foreign("n1", Duration::from_secs(600)).await;
    let lease = rig.lease(&foreign.entry, "n1", "aws/creds/x", 600).await.unwrap();
    for path in ["sys/leases/revoke", "sys/revoke"] {
        rig.post("root", path, json!({"lease_id": lease.id})).await.unwrap();
        rig.post("root", &format!("{path}/{}", lease.id), json!({})).await.unwrap();
    }
    for path in ["sys/leases/revoke-prefix/aws", "sys/revoke-prefix/aws", "sys/leases/revoke-force/aws"] {
        rig.post("root", path, json!({})).await.unwrap();
    }
    assert!(rig.has_lease(&lease) && !rig.is_undone(&lease));
    for path in ["sys/leases/renew", "sys/renew"] {
        assert_eq!(text(rig.post("root", path, json!({"lease_id": lease.id})).await), "lease not found");
    }
}

#[tokio::test]
async fn leases_are_renewed_and_revoked_at_once_if_asked() {
    let rig = Rig::active().await;
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    let body = json!({"lease_id": lease.id, "increment": "2m"});
    let answer = rig.post("root", "sys/leases/renew", body).await.unwrap();
    assert_eq!((answer.lease_id.as_str(), answer.lease_duration), (lease.id.as_str(), 120));
    rig.break_engine(true).await;
    let body = json!({"lease_id": lease.id, "sync": true});
    assert_eq!(text(rig.post("root", "sys/leases/revoke", body.clone()).await), "no route to host");
    assert!(rig.has_lease(&lease));
    rig.break_engine(false).await;
    rig.post("root", "sys/leases/revoke", body).await.unwrap();
    assert!(!rig.has_lease(&lease) && rig.is_undone(&lease));
}

#[tokio::test]
async fn what_is_granted_is_shown_whole_however_long_the_request_takes() {
    let rig = Rig::active().await;
    rig.clock.creep(Duration::from_millis(3));
    for (ttl, seconds) in [("1h", 3_600), ("1s", 1)] {
        let body = json!({"ttl": ttl, "policies": "default"});
        let made = rig.post("root", "auth/token/create", body).await.unwrap().auth.unwrap();
        assert_eq!(made.lease_duration, seconds);
    }
    let made = rig.made("root", json!({"ttl": "1h", "policies": "default"})).await;
    let renewed = rig.post(&made, "auth/token/renew-self", json!({"increment": "2h"})).await.unwrap();
    assert_eq!(renewed.auth.unwrap().lease_duration, 7_200);
    let lease = rig.lease(&rig.root, "root", "aws/creds/x", 60).await.unwrap();
    let renewed = rig.post("root", "sys/leases/renew", json!({"lease_id": lease.id, "increment": 90})).await;
    assert_eq!(renewed.unwrap().lease_duration, 90);
}

/// The usual lifetime of a role's logins is for who asks for none; the maximum is what bounds a renewal.
#[tokio::test]
async fn a_renewal_may_ask_for_more_than_the_usual() {
    let rig = Rig::active().await;
    rig.post("root", "sys/auth/people", json!({"type": "notes"})).await.unwrap();
    let login = rig.post("", "auth/people/login/ann", json!({"policies": "default"})).await.unwrap();
    let token = login.auth.unwrap().client_token.to_string();
    for (role, increment, seconds, warnings) in [
        (json!({"ttl": "1m"}), "", 60, json!([])),
        (json!({"ttl": "1m"}), "30s", 30, json!([])),
        (json!({"ttl": "1m"}), "90s", 90, json!([])),
        (json!({"ttl": "1m", "max_ttl": "100s"}), "90s", 90, json!([])),
        (
            json!({"ttl": "1m", "max_ttl": "100s"}),
            "1h",
            100,
            json!([
                r#"TTL of "1h" exceeded the effective max_ttl of "1m40s"; TTL value is capped accordingly"#
            ]),
        ),
        // The role as it is now counts, not as it was at the login or at the renewal before.
        (json!({"ttl": "1m", "max_ttl": "200s"}), "150s", 150, json!([])),
        (json!({}), "2h", 7_200, json!([])),
    ] {
        rig.post("root", "auth/people/groups/ann", role).await.unwrap();
        let body = json!({"increment": increment});
        let renewed = rig.post(&token, "auth/token/renew-self", body).await.unwrap();
        assert_eq!(renewed.auth.unwrap().lease_duration, seconds, "{increment:?}");
        assert_eq!(json!(renewed.warnings), warnings, "{increment:?}");
    }
}

#[tokio::test]
async fn roles_are_written_read_and_removed() {
    let rig = Rig::active().await;
    rig.post("root", "auth/token/roles/r", json!({"period": "1h", "allowed_policies": "a,b"})).await.unwrap();
    let data = rig.get("root", "auth/token/roles/r").await.unwrap().data.unwrap();
    let want = json!({
        "allowed_entity_aliases": null, "allowed_policies": ["a", "b"], "allowed_policies_glob": [],
        "disallowed_policies": [], "disallowed_policies_glob": [], "explicit_max_ttl": 0, "name": "r",
        "orphan": false, "path_suffix": "", "period": 3_600, "renewable": true, "token_explicit_max_ttl": 0,
        "token_no_default_policy": false, "token_period": 3_600, "token_type": "default-service",
    });
    assert_eq!(Value::Object(data), want);
    assert_eq!(rig.list("root", "auth/token/roles/").await.unwrap().data.unwrap()["keys"], json!(["r"]));
    let made = rig.post("root", "auth/token/create/r", json!({})).await.unwrap();
    assert_eq!(made.auth.unwrap().policies, ["a", "b", "default"]);
    assert_eq!(made.warnings, [r#"Policy "a" does not exist"#, r#"Policy "b" does not exist"#]);
    rig.ask("root", Operation::Delete, "auth/token/roles/r", Value::Null, None).await.unwrap();
    assert!(matches!(rig.get("root", "auth/token/roles/r").await, Err(KernelError::NotFound(_))));
}

/// Where a role and a creation both say something, the lesser counts, and that is told.
#[tokio::test]
async fn what_a_role_makes_less_comes_with_warnings() {
    let rig = Rig::active().await;
    let role = json!({"token_period": "1h", "token_explicit_max_ttl": "30m"});
    rig.post("root", "auth/token/roles/r", role).await.unwrap();
    let made = async |body| {
        let made = rig.post("root", "auth/token/create/r", body).await.unwrap();
        (made.auth.unwrap().lease_duration, made.warnings)
    };
    let (seconds, warnings) =
        made(json!({"period": "2h", "explicit_max_ttl": "10m", "policies": "default"})).await;
    assert_eq!(
        (seconds, warnings),
        (
            600,
            vec![
                "Explicit max TTL specified both during creation call and in role; using the lesser value of 600 seconds"
                    .to_owned(),
                "Period specified both during creation call and in role; using the lesser value of 3600 seconds"
                    .to_owned(),
                r#"period of "1h" exceeded the effective max_ttl of "10m"; period value is capped accordingly"#
                    .to_owned(),
            ]
        )
    );
}

#[tokio::test]
async fn one_of_a_hundred_unwraps_gets_the_answer() {
    let rig = Rig::active().await;
    let info = rig.wrapped(json!({"a": 1})).await;
    let token = info.token.to_string();
    let looked = rig.post("", "sys/wrapping/lookup", json!({"token": token})).await.unwrap().data.unwrap();
    assert_eq!(
        (&looked["creation_path"], &looked["creation_ttl"]),
        (&json!("sys/wrapping/wrap"), &json!(60))
    );
    // Half of them present it as their own token, half name it.
    let attempts = (0..100).map(|number| {
        let (rig, token) = (&rig, token.clone());
        async move {
            if number % 2 == 0 {
                rig.post(&token, "sys/wrapping/unwrap", json!({})).await
            } else {
                rig.post("root", "sys/wrapping/unwrap", json!({"token": token})).await
            }
        }
    });
    let (mut got, mut refused) = (Vec::new(), 0);
    for result in futures::future::join_all(attempts).await {
        match result {
            Ok(answer) => got.push(raw(answer)),
            Err(err) => {
                assert_eq!(err.to_string(), "wrapping token is not valid or does not exist");
                refused += 1;
            }
        }
    }
    assert_eq!((got.len(), refused), (1, 99));
    assert_eq!(got[0]["data"], json!({"a": 1}));
    assert_eq!(rig.leftovers(), Vec::<String>::new(), "the token is gone with what it wrapped");
}

#[tokio::test]
async fn a_wrapping_token_can_do_nothing_else_and_moves_once() {
    let rig = Rig::active().await;
    let info = rig.wrapped(json!({"a": 1})).await;
    let token = info.token.to_string();
    let moved =
        rig.post("root", "sys/wrapping/rewrap", json!({"token": token})).await.unwrap().wrap_info.unwrap();
    assert_eq!((moved.ttl, moved.creation_path.as_str()), (60, "sys/wrapping/wrap"));
    let old = rig.post("", "sys/wrapping/unwrap", json!({"token": token})).await;
    assert_eq!(text(old), "wrapping token is not valid or does not exist");
    // Trying something else with it takes its use.
    assert_eq!(text(rig.get(&moved.token, "auth/token/lookup-self").await), "permission denied");
    let late = rig.post(&moved.token, "sys/wrapping/unwrap", json!({})).await;
    assert_eq!(text(late), "wrapping token is not valid or does not exist");
}

/// Without this, whoever holds a wrapping token could keep what it wraps alive for ever.
#[tokio::test]
async fn moving_and_unwrapping_by_name_need_a_token_that_may() {
    let rig = Rig::active().await;
    let named = async |own: &str, path: &str| {
        let token = rig.wrapped(json!({"a": 1})).await.token.to_string();
        let result = rig.post(own, path, json!({"token": token})).await;
        result.map_err(|err| err.to_string()).map(drop)
    };
    let denied = Err("permission denied".to_owned());
    let by_default = rig.made("root", json!({"policies": "default"})).await;
    let bare = rig.made("root", json!({"policies": "none", "no_default_policy": true})).await;
    for own in ["", "nope", &bare] {
        assert_eq!(named(own, "sys/wrapping/unwrap").await, denied, "{own}");
        assert_eq!(named(own, "sys/wrapping/rewrap").await, denied, "{own}");
        assert_eq!(named(own, "sys/wrapping/lookup").await, Ok(()), "{own}");
    }
    assert_eq!(named(&by_default, "sys/wrapping/unwrap").await, Ok(()));
    assert_eq!(named(&by_default, "sys/wrapping/rewrap").await, denied);
    let wrapping = rig.wrapped(json!({"a": 1})).await.token.to_string();
    assert_eq!(text(rig.post(&wrapping, "sys/wrapping/rewrap", json!({})).await), "permission denied");
    // A token that counts its uses gives one for each answer taken out.
    let once = rig.made("root", json!({"policies": "default", "num_uses": 1})).await;
    assert_eq!(named(&once, "sys/wrapping/unwrap").await, Ok(()));
    assert_eq!(named(&once, "sys/wrapping/unwrap").await, denied);
}

#[tokio::test]
async fn a_wrapped_token_shows_its_accessor_and_comes_out_whole() {
    let rig = Rig::active().await;
    let ttl = Some(Duration::from_secs(60));
    let body = json!({"policies": "default", "ttl": "1h"});
    let answer = rig.ask("root", Operation::Update, "auth/token/create", body, ttl).await.unwrap();
    let info = answer.wrap_info.unwrap();
    assert!(answer.auth.is_none() && info.wrapped_accessor.is_some());
    let out = raw(rig.post(&info.token, "sys/wrapping/unwrap", json!({})).await.unwrap());
    assert_eq!(out["auth"]["accessor"], json!(info.wrapped_accessor));
    let inner = out["auth"]["client_token"].as_str().unwrap();
    assert!(rig.get(inner, "auth/token/lookup-self").await.is_ok());
    rig.advance(61);
    let late = rig.wrapped(json!({"a": 1})).await;
    rig.advance(60);
    let late = rig.post(&late.token, "sys/wrapping/unwrap", json!({})).await;
    assert_eq!(
        text(late),
        "wrapping token is not valid or does not exist",
        "ended, whether or not it was removed"
    );
}

#[tokio::test]
async fn tidying_is_accepted_and_counts_are_of_what_cannot_be_revoked() {
    let rig = Rig::active().await;
    for path in ["auth/token/tidy", "sys/leases/tidy"] {
        let answer = rig.post("root", path, json!({})).await.unwrap();
        assert!(matches!(&answer.body, AnswerBody::Raw(raw) if raw.status == 202));
    }
    let ask =
        |path: &'static str| rig.ask("root", Operation::Read, path, json!({"type": "irrevocable"}), None);
    assert_eq!(
        text(ask("sys/leases/count").await),
        r#"Some({"counts": Object {}, "lease_count": Number(0)}) []"#
    );
    assert_eq!(text(ask("sys/leases").await), r#"Some({"lease_count": Number(0), "leases": Array []}) []"#);
}

/// What is odd about a role is said when it is written.
#[tokio::test]
async fn a_role_with_odd_bounds_comes_with_warnings() {
    let rig = Rig::active().await;
    let write = async |body| rig.post("root", "auth/token/roles/r", body).await.unwrap().warnings;
    assert_eq!(
        write(json!({"token_period": "1h", "period": "2h"})).await,
        ["Both 'token_period' and deprecated 'period' value supplied, ignoring the deprecated value"]
    );
    assert_eq!(
        write(json!({"token_explicit_max_ttl": "90000h"})).await,
        [
            "Given explicit max TTL of 324000000 is greater than system/mount allowed value of 2764800 seconds; until \
             this is fixed attempting to create tokens against this role will result in an error"
        ]
    );
    assert!(write(json!({"orphan": true})).await.is_empty(), "said once");
    assert!(write(json!({"token_explicit_max_ttl": "1h"})).await.is_empty());
}

#[tokio::test]
async fn a_roles_patterns_are_read_in_their_one_form() {
    let rig = Rig::active().await;
    let body = json!({
        "allowed_policies_glob": ["z*", " a* ", "A*", ""], "disallowed_policies_glob": "B*,b*",
        "allowed_entity_aliases": ["Al*"],
    });
    rig.post("root", "auth/token/roles/r", body).await.unwrap();
    let read = rig.get("root", "auth/token/roles/r").await.unwrap().data.unwrap();
    assert_eq!(read["allowed_policies_glob"], json!(["a*", "z*"]));
    assert_eq!(read["disallowed_policies_glob"], json!(["b*"]));
    assert_eq!(read["allowed_entity_aliases"], json!(["al*"]));
}

#[tokio::test]
async fn a_token_named_in_the_query_is_the_one_looked_up() {
    let rig = Rig::active().await;
    let token = rig.made("root", json!({"policies": "default"})).await;
    let look = |body: Value| rig.ask("root", Operation::Read, "auth/token/lookup", body, None);
    assert_eq!(look(json!({"token": token})).await.unwrap().data.unwrap()["id"], json!(token));
    assert_eq!(look(json!({})).await.unwrap().data.unwrap()["id"], json!("root"));
    assert_eq!(text(look(json!({"token": "nope"})).await), "bad token");
}

/// `no_parent` says nothing beside a role: it needs no sudo and makes no orphan.
#[tokio::test]
async fn a_role_decides_who_is_an_orphan() {
    let rig = Rig::active().await;
    let policy = r#"path "auth/token/create/*" { capabilities = ["update"] }"#;
    rig.post("root", "sys/policies/acl/maker", json!({"policy": policy})).await.unwrap();
    let maker = rig.made("root", json!({"policies": "maker", "ttl": "1h"})).await;
    for is_orphan in [false, true] {
        rig.post("root", "auth/token/roles/r", json!({"orphan": is_orphan})).await.unwrap();
        for (caller, no_parent) in [("root", true), (maker.as_str(), true), (maker.as_str(), false)] {
            let body = json!({"no_parent": no_parent});
            let made = rig.post(caller, "auth/token/create/r", body).await.unwrap().auth.unwrap();
            assert_eq!(made.is_orphan, is_orphan, "{no_parent}");
        }
    }
}

#[tokio::test]
async fn a_bare_renewal_gives_what_was_given_last() {
    let rig = Rig::active().await;
    let token = rig.made("root", json!({"ttl": "1h", "policies": "default"})).await;
    let renew = async |body| {
        let answer = rig.post(&token, "auth/token/renew-self", body).await.unwrap();
        answer.auth.unwrap().lease_duration
    };
    assert_eq!(renew(json!({})).await, 3_600);
    for (asked, seconds) in [("2h", 7_200), ("10m", 600)] {
        assert_eq!(renew(json!({"increment": asked})).await, seconds);
        rig.advance(60);
        assert_eq!(renew(json!({})).await, seconds, "{asked}");
        assert_eq!(renew(json!({"increment": 0})).await, seconds, "{asked}");
    }
}

/// Like `auth/token/tidy`, it takes nothing away that is still good.
#[tokio::test]
async fn leases_are_tidied_without_sudo() {
    let rig = Rig::active().await;
    let policy = r#"path "sys/leases/tidy" { capabilities = ["update"] }"#;
    rig.post("root", "sys/policies/acl/tidier", json!({"policy": policy})).await.unwrap();
    let token = rig.made("root", json!({"policies": "tidier", "ttl": "1h"})).await;
    let answer = rig.post(&token, "sys/leases/tidy", json!({})).await.unwrap();
    assert!(matches!(&answer.body, AnswerBody::Raw(raw) if raw.status == 202));
}

/// The texts clients of this family look for.
#[tokio::test]
async fn refusals_are_worded_as_elsewhere() {
    let rig = Rig::active().await;
    let looked = rig.post("root", "auth/token/lookup", json!({"token": "nope"})).await;
    assert!(looked.as_ref().is_err_and(|err| err.fault() == arca_engine_api::Fault::Denied));
    assert_eq!(text(looked), "bad token");
    let renewed = rig.post("root", "sys/leases/renew", json!({"lease_id": "nope", "increment": "x"})).await;
    assert!(text(renewed).contains("increment"), "the field comes first");
    for (limit, want) in [
        ("0", "limit must be 'none' or a positive integer"),
        ("-3", "limit must be 'none' or a positive integer"),
        ("none", r#"Some({"lease_count": Number(0), "leases": Array []}) []"#),
        ("5", r#"Some({"lease_count": Number(0), "leases": Array []}) []"#),
    ] {
        let body = json!({"type": "irrevocable", "limit": limit});
        let listed = rig.ask("root", Operation::Read, "sys/leases", body, None).await;
        assert_eq!(text(listed), want, "{limit}");
    }
}

#[tokio::test]
async fn a_password_policy_may_have_slashes_in_its_name() {
    let rig = Rig::active().await;
    let policy = r#"length = 8 rule "charset" { charset = "a" }"#;
    rig.post("root", "sys/policies/password/a/b", json!({"policy": policy})).await.unwrap();
    let made = rig.get("root", "sys/policies/password/a/b/generate").await.unwrap().data.unwrap();
    assert_eq!(made["password"], json!("aaaaaaaa"));
    let read = rig.get("root", "sys/policies/password/a/b").await.unwrap().data.unwrap();
    assert_eq!(read["policy"], json!(policy));
    assert!(rig.get("root", "sys/policies/password/a/generate").await.is_err());
}

/// An empty item would leave no bound where one was meant.
#[tokio::test]
async fn a_role_is_bound_to_no_empty_address() {
    let rig = Rig::active().await;
    for sent in [json!([""]), json!(["10.0.0.0/8", ""]), json!("10.0.0.0/8,,")] {
        let made = rig.post("root", "auth/token/roles/r", json!({ "token_bound_cidrs": sent })).await;
        assert!(made.is_err_and(|err| err.fault() == arca_engine_api::Fault::Invalid), "{sent}");
    }
}
