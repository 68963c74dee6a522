//! Whole conversations with a mount, by keys of its own and by those of a provider that a test plays.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use arca_engine_api::Operation::{Delete, List, Read, Update};
use arca_engine_api::{EngineError, Http, HttpAnswer, HttpRequest, Login, Map, Response};
use async_trait::async_trait;
use serde_json::{Value, json};

use super::make;
use super::provider::WAITING_MAX;
use crate::auth::jose::keys::testing::{ALL, hmac_token, signer};
use crate::testing::Rig;

mod oidc;

/// The time of the rig's clock at the beginning of each test, seconds.
const NOW_S: u64 = 1;

/// A provider: what it answers at each URL, and what it was asked.
#[derive(Debug, Default)]
struct Web {
    pages: Mutex<BTreeMap<String, (u16, String)>>,
    asked: Mutex<Vec<String>>,
    /// It takes requests and answers none.
    hangs: AtomicBool,
}

impl Web {
    fn says(&self, url: &str, status: u16, body: impl ToString) {
        self.pages.lock().unwrap().insert(url.to_owned(), (status, body.to_string()));
    }

    /// What it was asked since the last look: `GET /path body`.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Http for Web {
    async fn send(&self, request: HttpRequest) -> Result<HttpAnswer, EngineError> {
        let header = |name: &str| request.headers.iter().find(|(found, _)| *found == name);
        let authorization = header("authorization").map_or("", |(_, value)| value.0.as_str());
        let body = String::from_utf8_lossy(&request.body);
        let line = format!("{} {} {authorization} {body}", request.method, request.url);
        self.asked.lock().unwrap().push(line.split_whitespace().collect::<Vec<_>>().join(" "));
        let answering = |_: &mut Context<'_>| {
            if self.hangs.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(()) }
        };
        std::future::poll_fn(answering).await;
        match self.pages.lock().unwrap().get(&request.url) {
            Some((status, body)) => {
                Ok(HttpAnswer { status: *status, headers: Vec::new(), body: body.clone().into_bytes() })
            }
            None => Err(EngineError::Upstream("nobody there".to_owned())),
        }
    }
}

fn rig() -> Rig {
    let mut rig = Rig::new(make, "").with_counting_entropy();
    rig.come_from("10.1.2.3");
    rig
}

/// A mount that takes tokens of every key there is.
fn with_keys(config: Value) -> Rig {
    let rig = rig();
    let pems: Vec<String> = ALL.iter().map(|(name, _)| signer(name).pem()).collect();
    let mut all = json!({"jwt_validation_pubkeys": pems});
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    assert_eq!(rig.say(Update, "config", &all), "none");
    rig
}

fn role(rig: &Rig, role: Value) {
    let mut all = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["a", "b"], "token_policies": ["p"]});
    all.as_object_mut().unwrap().extend(role.as_object().unwrap().clone());
    rig.say(Delete, "role/r", &Value::Null);
    assert_eq!(rig.say(Update, "role/r", &all), "none");
}

fn base() -> Value {
    json!({"sub": "alice", "aud": "a", "iss": "i", "iat": NOW_S, "nbf": NOW_S, "exp": NOW_S + 60})
}

/// The usual claims with some changed, or taken out where null.
fn claims(changes: &Value) -> Value {
    let mut claims = base();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn token(changes: &Value) -> String {
    signer("rsa").token("RS256", &Value::Null, &claims(changes))
}

fn log_in(rig: &Rig, token: &str) -> Result<Login, EngineError> {
    rig.call(Update, "login", &json!({"role": "r", "jwt": token})).map(|answer| answer.login.unwrap())
}

fn outcome(rig: &Rig, token: &str) -> String {
    log_in(rig, token).map_or_else(|err| err.to_string(), |login| login.alias_name)
}

#[track_caller]
fn check(rig: &Rig, token: &str, want: &str) {
    assert_eq!(outcome(rig, token), want);
}

#[test]
fn settings_are_checked_and_shown_without_the_secret() {
    let rig = rig();
    assert_eq!(rig.say(Read, "config", &Value::Null), "none");
    let pem = signer("rsa").pem();
    let one = "exactly one of 'jwt_validation_pubkeys', 'jwks_url' or 'oidc_discovery_url' must be set";
    for (config, want) in [
        (json!({}), one),
        (json!({"jwt_validation_pubkeys": pem, "jwks_url": "http://h"}), one),
        (
            json!({"jwt_validation_pubkeys": "x"}),
            "error parsing public key: data does not contain any valid public keys",
        ),
        (
            json!({"jwt_validation_pubkeys": [format!("{pem}{}", signer("p256").pem())]}),
            "error parsing public key: unexpected trailing data after parsed PEM block",
        ),
        (
            json!({"oidc_discovery_url": "http://h", "oidc_client_id": "x"}),
            "both 'oidc_client_id' and 'oidc_client_secret' must be set for OIDC",
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "oidc_client_id": "x", "oidc_client_secret": "x"}),
            "'oidc_discovery_url' must be set for OIDC",
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "jwt_supported_algs": "HS256"}),
            "invalid jwt_supported_algs: unsupported signing algorithm",
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "jwt_supported_algs": "none"}),
            "invalid jwt_supported_algs: unsupported signing algorithm",
        ),
        (
            json!({"oidc_discovery_url": "http://h/.well-known/openid-configuration"}),
            "'oidc_discovery_url' contains '.well-known' component",
        ),
        (
            json!({"oidc_discovery_url": "http://h", "oidc_response_types": "id_token"}),
            "query response_mode may not be used with an id_token response_type",
        ),
        (json!({"jwks_url": "http://h"}), "error checking jwks URL: no other system can be reached"),
        (
            json!({"jwt_validation_pubkeys": pem, "provider_config": {"a": "b"}}),
            "invalid provider_config: 'provider' field not found in provider_config",
        ),
        (
            json!({"jwt_validation_pubkeys": pem, "provider_config": {"provider": "gsuite"}}),
            "invalid provider_config: that provider is not found in custom providers: azure, ibmisam and secureauth are there",
        ),
    ] {
        assert_eq!(rig.say(Update, "config", &config), format!("error: {want}"), "{config}");
    }
    let skipped = json!({"oidc_discovery_url": "http://h", "oidc_client_id": "x", "oidc_client_secret": "canary", "skip_jwks_validation": true});
    let warning = "error checking oidc discovery URL: no other system can be reached";
    assert_eq!(rig.say(Update, "config", &skipped), format!("none warning: {warning}"));
    let shown = rig.say(Read, "config", &Value::Null);
    assert!(!shown.contains("canary") && shown.contains(r#""status":"invalid""#), "{shown}");
    assert!(shown.ends_with(&format!(" warning: {warning}")), "{shown}");
    assert!(shown.contains(r#""namespace_in_state":true"#), "{shown}");
}

#[test]
fn a_role_is_shown_as_others_show_it() {
    let rig = rig();
    let sent = json!({"role_type": "jwt", "user_claim": "sub", "bound_subject": "a", "expiration_leeway": "-1", "clock_skew_leeway": -1, "not_before_leeway": "5s"});
    assert_eq!(rig.say(Update, "role/R", &sent), "none");
    let want = r#"{"allowed_redirect_uris":null,"bound_audiences":null,"bound_claims":null,"bound_claims_type":"string","bound_subject":"a","callback_mode":"client","claim_mappings":null,"clock_skew_leeway":-1,"expiration_leeway":-1,"groups_claim":"","max_age":0,"not_before_leeway":5,"oauth2_metadata":null,"oidc_disable_confirmation":false,"oidc_scopes":null,"role_type":"jwt","token_bound_cidrs":[],"token_explicit_max_ttl":0,"token_max_ttl":0,"token_no_default_policy":false,"token_num_uses":0,"token_period":0,"token_policies":[],"token_policies_template_claims":false,"token_strictly_bind_ip":false,"token_ttl":0,"token_type":"default","user_claim":"sub","user_claim_json_pointer":false,"verbose_oidc_logging":false}"#;
    assert_eq!(rig.say(Read, "role/r", &Value::Null), want);
    assert_eq!(rig.say(List, "role", &Value::Null), r#"{"keys":["r"]}"#);
    assert_eq!(rig.exists("role/R"), Some(true));
    assert_eq!(rig.say(Delete, "role/r", &Value::Null), "none");
    assert_eq!(rig.say(Read, "role/r", &Value::Null), "none");
}

#[test]
fn a_role_that_takes_anybody_or_makes_no_sense_is_refused() {
    let rig = rig();
    let with = |more: Value| {
        let mut role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": "a"});
        role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rig.say(Update, "role/r", &role)
    };
    let uris = "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.";
    for (more, want) in [
        (json!({"user_claim": ""}), "a user claim must be defined on the role"),
        (json!({"role_type": "zz"}), "invalid 'role_type'"),
        (
            json!({"bound_audiences": []}),
            "must have at least one bound constraint when creating/updating a role",
        ),
        (json!({"role_type": "oidc"}), uris),
        (json!({"role_type": ""}), uris),
        (json!({"bound_claims_type": "zz"}), "invalid 'bound_claims_type'"),
        (json!({"bound_claims_type": ""}), "invalid 'bound_claims_type'"),
        (json!({"callback_mode": "zz"}), "invalid 'callback_mode'"),
        (json!({"callback_mode": ""}), "invalid 'callback_mode'"),
        (
            json!({"bound_audiences": null}),
            "must have at least one bound constraint when creating/updating a role",
        ),
        (json!({"oauth2_metadata": "zz"}), "Unrecognized oauth2 metadata name"),
        (
            json!({"claim_mappings": {"a": "role"}}),
            "metadata key \"role\" is reserved and may not be a mapping destination",
        ),
        (json!({"claim_mappings": {"a": "b", "c": "b"}}), "multiple keys are mapped to metadata key \"b\""),
        (json!({"bound_claims_type": "glob", "bound_claims": {"x": ["a", 1]}}), "claim is not a string"),
        (json!({"bound_claims": {"x": {"a": 1}}}), "bound claim is not a string, bool, int or list"),
    ] {
        assert_eq!(with(more.clone()), format!("error: {want}"), "{more}");
        assert_eq!(rig.say(Read, "role/r", &Value::Null), "none");
    }
}

/// What a field of the role `r` shows after a further write.
fn after(rig: &Rig, change: &Value, name: &str) -> Value {
    let mut write = json!({"role_type": "jwt"});
    write.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    assert_eq!(rig.say(Update, "role/r", &write), "none", "{change}");
    rig.call(Read, "role/r", &Value::Null).unwrap().data.unwrap()[name].clone()
}

#[test]
fn what_a_write_leaves_out_stays_or_not_as_others_have_it() {
    let rig = rig();
    role(
        &rig,
        json!({"oidc_disable_confirmation": true, "bound_claims": {"x": "y"}, "clock_skew_leeway": -5}),
    );
    assert_eq!(after(&rig, &json!({"groups_claim": "g"}), "oidc_disable_confirmation"), json!(false));
    assert_eq!(after(&rig, &json!({}), "clock_skew_leeway"), json!(-5));
    assert_eq!(after(&rig, &json!({"clock_skew_leeway": "-1h"}), "clock_skew_leeway"), json!(-3_600));
    assert_eq!(after(&rig, &json!({"clock_skew_leeway": "-100ms"}), "clock_skew_leeway"), json!(-1));
    assert_eq!(after(&rig, &json!({}), "token_policies"), json!(["p"]));
    assert_eq!(after(&rig, &json!({"token_policies": null}), "token_policies"), json!([]));
    assert_eq!(after(&rig, &json!({"bound_claims": null}), "bound_claims"), json!({}));
    let long = json!({"role_type": "jwt", "token_max_ttl": "90000h"});
    let said = rig.say(Update, "role/r", &long);
    assert!(said.contains("warning: token_max_ttl is greater than"), "{said}");
}

#[test]
fn a_good_token_logs_in() {
    let rig = with_keys(json!({"default_role": "R"}));
    role(
        &rig,
        json!({"claim_mappings": {"mail": "email", "/n/x": "nx", "none": "y"}, "groups_claim": "/g/h", "token_ttl": "1m"}),
    );
    let changes = json!({"mail": "a@b", "n": {"x": "5"}, "g": {"h": ["one", "two", "one", ""]}});
    let login = log_in(&rig, &token(&changes)).unwrap();
    assert_eq!((login.alias_name.as_str(), login.display_name.as_str()), ("alice", "alice"));
    assert_eq!(json!(login.metadata), json!({"email": "a@b", "nx": "5", "role": "r"}));
    assert_eq!(json!(login.alias_metadata), json!({"email": "a@b", "nx": "5"}));
    assert_eq!(json!(login.group_aliases), json!(["one", "two"]));
    assert_eq!((login.policies, login.ttl.as_secs()), (vec!["p".to_owned()], 60));
    role(&rig, json!({}));
    for (name, algs) in ALL {
        for alg in algs.iter() {
            check(&rig, &signer(name).token(alg, &Value::Null, &base()), "alice");
        }
    }
    // Without a role in the request it is the mount's.
    let answer = rig.call(Update, "login", &json!({"jwt": token(&json!({}))})).unwrap();
    assert_eq!(answer.login.unwrap().metadata["role"], "r");
}

#[test]
fn bad_tokens_log_nobody_in() {
    let rig = with_keys(json!({"bound_issuer": "i"}));
    role(&rig, json!({}));
    let signature = "error validating token: error verifying token signature: ";
    let algorithm = "error validating token: invalid algorithm (alg) header parameter: token signed with unexpected algorithm";
    let audience = "error validating token: invalid audience (aud) claim: audience claim does not match any expected audience";
    let issuer = "error validating token: invalid issuer (iss) claim";
    check(&rig, &hmac_token(signer("rsa").pem().as_bytes(), &base()), algorithm);
    check(&rig, &signer("rsa").token("none", &Value::Null, &base()), algorithm);
    let untrusted =
        signer("other-rsa").token("RS256", &json!({"jwk": signer("other-rsa").jwk("k")}), &base());
    check(&rig, &untrusted, &format!("{signature}no known key successfully validated the token signature"));
    check(&rig, "a.b", &format!("{signature}compact JWS format must have three parts"));
    let twice = base().to_string().replacen('{', r#"{"sub":"eve","#, 1);
    let twice = signer("rsa").token_of("RS256", r#"{"alg":"RS256"}"#, &twice);
    let once = "the payload is no JSON object whose names are there once each";
    check(&rig, &twice, &format!("{signature}{once}"));
    for (changes, want) in [
        (json!({"iss": "j"}), issuer),
        (json!({"iss": null}), issuer),
        (json!({"iss": ["i"]}), "error validating token: iss and sub must be strings"),
        (json!({"sub": 5}), "error validating token: iss and sub must be strings"),
        (json!({"sub": null}), "claim \"sub\" not found in token"),
        (json!({"sub": ""}), "claim \"sub\" is empty"),
        (json!({"aud": "c"}), audience),
        (json!({"aud": null}), audience),
        (json!({"aud": {"a": 1}}), "error validating token: aud must be a string or a list of strings"),
        (
            json!({"nbf": NOW_S + 100, "exp": NOW_S + 200}),
            "error validating token: invalid not before (nbf) claim: token not yet valid",
        ),
        (
            json!({"iat": NOW_S + 100, "exp": NOW_S + 200}),
            "error validating token: invalid issued at (iat) claim: token issued in the future",
        ),
        (
            json!({"iat": null, "nbf": null, "exp": null}),
            "error validating token: no issued at (iat), not before (nbf), or expiration time (exp) claims in token",
        ),
    ] {
        check(&rig, &token(&changes), want);
    }
    let early = token(&json!({}));
    rig.advance(120);
    check(&rig, &early, "alice");
    rig.advance(2);
    check(&rig, &early, "error validating token: invalid expiration time (exp) claim: token is expired");
}

/// CVE-2024-5798: an audience that was one string matched where it should not.
#[test]
fn cve_2024_5798_an_audience_is_one_of_the_bound_ones_whole() {
    let rig = with_keys(json!({}));
    role(&rig, json!({"bound_audiences": ["app", "other"]}));
    let refused = "error validating token: invalid audience (aud) claim: audience claim does not match any expected audience";
    for (audience, want) in [
        (json!("app"), "alice"),
        (json!(["app"]), "alice"),
        (json!(["x", "other"]), "alice"),
        (json!("b"), refused),
        (json!("ap"), refused),
        (json!("appx"), refused),
        (json!("app,other"), refused),
        (json!("App"), refused),
        (json!(""), refused),
        (json!([]), refused),
        (json!(["x"]), refused),
    ] {
        check(&rig, &token(&json!({"aud": audience})), want);
    }
    role(&rig, json!({"bound_audiences": [], "bound_subject": "alice"}));
    check(&rig, &token(&json!({"aud": null})), "alice");
    let bound_to_none = "audience claim found in JWT but no audiences bound to the role";
    check(&rig, &token(&json!({})), bound_to_none);
    check(
        &rig,
        &token(&json!({"aud": null, "sub": "eve"})),
        "error validating token: invalid subject (sub) claim",
    );
}

#[test]
fn claims_have_the_values_a_role_wants() {
    let rig = with_keys(json!({}));
    let mismatch = "error validating claims: claim \"x\" does not match any associated bound claim values";
    let cases = |bound: Value, cases: &[(Value, &str)]| {
        role(&rig, bound);
        for (claim, want) in cases {
            check(&rig, &token(&json!({"x": claim})), want);
        }
    };
    cases(
        json!({"bound_claims": {"x": "1"}}),
        &[
            (json!("1"), "alice"),
            (json!(["0", "1"]), "alice"),
            (json!(1), mismatch),
            (json!("11"), mismatch),
            (json!([]), mismatch),
            (json!({"1": 1}), "error validating claims: received claim is not a string, bool, int or list"),
            (Value::Null, "error validating claims: claim \"x\" is missing"),
        ],
    );
    cases(
        json!({"bound_claims": {"x": [true, 3, 12_345_678_901_234_567_i64]}}),
        &[
            (json!(true), "alice"),
            (json!("true"), mismatch),
            (json!(3), "alice"),
            (json!(3.0), "alice"),
            (json!("3"), mismatch),
            (json!(12_345_678_901_234_567_i64), "alice"),
            (json!(12_345_678_901_234_568_i64), mismatch),
        ],
    );
    cases(
        json!({"bound_claims": {"x": ["a*c", "d"]}, "bound_claims_type": "glob"}),
        &[
            (json!("abbc"), "alice"),
            (json!(["q", "d"]), "alice"),
            (json!("abcd"), mismatch),
            (json!(5), mismatch),
        ],
    );
    cases(json!({"bound_claims": {"x": []}}), &[(json!("a"), mismatch), (json!([]), mismatch)]);
    cases(json!({"bound_claims": {"/x/y": "v"}}), &[(json!({"y": "v"}), "alice")]);
}

#[test]
fn claims_of_the_wrong_type_are_refused() {
    let rig = with_keys(json!({}));
    role(&rig, json!({"groups_claim": "g"}));
    check(&rig, &token(&json!({})), "failed to fetch groups: \"g\" claim not found in token");
    check(&rig, &token(&json!({"g": 3})), "a value in groups claim could not be parsed as string");
    check(&rig, &token(&json!({"g": ["x", 3]})), "a value in groups claim could not be parsed as string");
    check(&rig, &token(&json!({"g": {"a": 1}})), "\"g\" claim could not be converted to string list");
    let groups = log_in(&rig, &token(&json!({"g": "one"}))).unwrap().group_aliases;
    assert_eq!(json!(groups), json!(["one"]));
    let many: Vec<String> = (0..1_001).map(|at| at.to_string()).collect();
    check(&rig, &token(&json!({"g": many})), "the groups claim has more than 1000 groups");
    role(&rig, json!({"claim_mappings": {"m": "m"}}));
    check(&rig, &token(&json!({"m": 5})), "error converting claim 'm' to string");
    role(&rig, json!({"user_claim": "/n/x", "user_claim_json_pointer": true}));
    check(&rig, &token(&json!({"n": {"x": "bob"}})), "bob");
    check(&rig, &token(&json!({"n": {"x": 5}})), "claim \"/n/x\" could not be converted to string");
    role(&rig, json!({"user_claim": "/n/x"}));
    check(&rig, &token(&json!({"n": {"x": "bob"}})), "claim \"/n/x\" not found in token");
    check(&rig, &token(&json!({"/n/x": "bob"})), "bob");
}

#[test]
fn some_providers_tell_groups_in_one_text() {
    for (provider, told, want) in [
        ("secureauth", json!("a b,c , "), json!(["a b", "c"])),
        ("secureauth", json!(["a,b", "c"]), json!(["a,b", "c"])),
        ("ibmisam", json!("a b,c"), json!(["a", "b,c"])),
        ("azure", json!("a b,c"), json!(["a b,c"])),
    ] {
        let rig = with_keys(json!({"provider_config": {"provider": provider}}));
        let shown = rig.call(Read, "config", &Value::Null).unwrap().data.unwrap();
        assert_eq!(shown["provider_config"], json!({"provider": provider}));
        role(&rig, json!({"groups_claim": "/in/g"}));
        let login = log_in(&rig, &token(&json!({"in": {"g": told}}))).unwrap();
        assert_eq!(json!(login.group_aliases), want, "{provider}");
    }
    let rig = with_keys(json!({"provider_config": {"provider": "azure"}}));
    role(&rig, json!({"groups_claim": "g"}));
    let sources = json!({"s": {"endpoint": "https://graph.microsoft.com/v1.0/x"}});
    let elsewhere = token(&json!({"_claim_names": {"g": "s"}, "_claim_sources": sources}));
    check(&rig, &elsewhere, "failed to fetch groups: token unavailable to call Microsoft Graph API");
}

#[test]
fn a_login_names_a_role_and_brings_a_token() {
    let rig = with_keys(json!({"jwt_supported_algs": "RS256,ES256"}));
    role(&rig, json!({"token_bound_cidrs": "10.0.0.0/8"}));
    let said = |body: Value| rig.call(Update, "login", &body).unwrap_err().to_string();
    assert_eq!(said(json!({"jwt": "x"})), "missing role");
    assert_eq!(said(json!({"role": "canary", "jwt": "x"})), "role could not be found");
    assert_eq!(said(json!({"role": "r"})), "missing token");
    let algorithm = "error validating token: invalid algorithm (alg) header parameter: token signed with unexpected algorithm";
    check(&rig, &signer("rsa").token("PS256", &Value::Null, &base()), algorithm);
    check(&rig, &signer("p256").token("ES256", &Value::Null, &base()), "alice");
    let mut rig = rig;
    rig.come_from("11.1.1.1");
    check(&rig, &token(&json!({})), "permission denied");
    let oidc = json!({"user_claim": "sub", "allowed_redirect_uris": "http://x"});
    assert_eq!(rig.say(Update, "role/o", &oidc), "none");
    assert_eq!(said_by(&rig, "o"), "role with oidc role_type is not allowed");
}

fn said_by(rig: &Rig, role: &str) -> String {
    rig.call(Update, "login", &json!({"role": role, "jwt": token(&json!({}))})).unwrap_err().to_string()
}

#[test]
fn a_renewal_asks_whether_the_role_is_still_there() {
    let rig = with_keys(json!({}));
    role(&rig, json!({"token_ttl": 60, "token_max_ttl": 90}));
    let internal: Map = log_in(&rig, &token(&json!({}))).unwrap().internal;
    assert_eq!(rig.renew(&internal), "ttl 60 max 90 period 0");
    role(&rig, json!({"token_period": 30}));
    assert_eq!(rig.renew(&internal), "ttl 0 max 0 period 30");
    rig.say(Delete, "role/r", &Value::Null);
    assert_eq!(rig.renew(&internal), "error: the role does not exist during renewal");
}

fn key_set(names: &[&str]) -> Value {
    json!({"keys": names.iter().map(|name| signer(name).jwk(name)).collect::<Vec<_>>()})
}

fn named(name: &str, kid: &str) -> String {
    let alg = ALL.iter().find(|(known, _)| *known == name).map_or("RS256", |(_, algs)| algs[0]);
    let far = claims(&json!({"exp": 100_000}));
    signer(name).token(alg, &json!({"kid": kid}), &far)
}

#[test]
fn keys_are_fetched_once_and_again_for_one_nobody_knows() {
    let web = Arc::new(Web::default());
    let rig = rig().with_http(Arc::clone(&web) as Arc<dyn Http>);
    let url = "http://h/jwks";
    web.says(url, 200, key_set(&["rsa"]));
    assert_eq!(rig.say(Update, "config", &json!({"jwks_url": url})), "none");
    role(&rig, json!({}));
    web.asked();
    check(&rig, &named("rsa", "rsa"), "alice");
    check(&rig, &token(&json!({})), "alice");
    assert_eq!(web.asked(), [format!("GET {url}")]);
    let unknown = "error validating token: error verifying token signature: no known key successfully validated the token signature";
    // A new key is found at once.
    web.says(url, 200, key_set(&["rsa", "p256"]));
    check(&rig, &named("p256", "p256"), "alice");
    assert_eq!(web.asked().len(), 1);
    // However many tokens have unknown keys, the provider is asked every ten seconds at most.
    for _ in 0..50 {
        check(&rig, &named("rsa", "stranger"), unknown);
        check(&rig, &named("other-rsa", "rsa"), unknown);
    }
    assert_eq!(web.asked().len(), 0);
    rig.advance(10);
    check(&rig, &named("rsa", "stranger"), unknown);
    check(&rig, &named("rsa", "stranger"), unknown);
    assert_eq!(web.asked().len(), 1);
    // A name that is not the key's does not do, though the key would.
    check(&rig, &named("p256", "rsa"), unknown);
}

/// A provider may change its key and keep its name, or name none.
#[test]
fn a_new_key_under_an_old_name_is_found_at_once() {
    let web = Arc::new(Web::default());
    let rig = rig().with_http(Arc::clone(&web) as Arc<dyn Http>);
    let (url, unknown) = (
        "http://h/jwks",
        "error validating token: error verifying token signature: no known key successfully validated the token signature",
    );
    let set = |key: &str, kid: &str| {
        let mut jwk = signer(key).jwk(kid);
        if kid.is_empty() {
            jwk.as_object_mut().unwrap().remove("kid");
        }
        web.says(url, 200, json!({"keys": [jwk]}));
    };
    let of = |key: &str, kid: &str| {
        let header = if kid.is_empty() { json!({}) } else { json!({"kid": kid}) };
        signer(key).token("RS256", &header, &claims(&json!({"exp": 100_000})))
    };
    for kid in ["k", ""] {
        set("rsa", kid);
        rig.advance(601);
        assert_eq!(rig.say(Update, "config", &json!({"jwks_url": url})), "none");
        role(&rig, json!({}));
        check(&rig, &of("rsa", kid), "alice");
        set("other-rsa", kid);
        rig.advance(10);
        web.asked();
        check(&rig, &of("other-rsa", kid), "alice");
        check(&rig, &of("rsa", kid), unknown);
        check(&rig, &of("rsa", kid), unknown);
        assert_eq!(web.asked().len(), 1, "{kid:?}");
        // It stays the token's fault if the provider cannot be asked.
        web.says(url, 500, "");
        rig.advance(10);
        check(&rig, &of("rsa", kid), unknown);
        check(&rig, &of("other-rsa", kid), "alice");
    }
}

#[test]
fn a_withdrawn_key_is_not_outlived_by_its_copy() {
    let web = Arc::new(Web::default());
    let rig = rig().with_http(Arc::clone(&web) as Arc<dyn Http>);
    let url = "http://h/jwks";
    web.says(url, 200, key_set(&["rsa", "p256"]));
    assert_eq!(rig.say(Update, "config", &json!({"jwks_url": url})), "none");
    role(&rig, json!({}));
    check(&rig, &named("p256", "p256"), "alice");
    web.says(url, 200, key_set(&["rsa"]));
    rig.advance(599);
    check(&rig, &named("p256", "p256"), "alice");
    rig.advance(1);
    let unknown = "error validating token: error verifying token signature: no known key successfully validated the token signature";
    check(&rig, &named("p256", "p256"), unknown);
    // A provider that is away for a while stops nobody; one that stays away does.
    web.says(url, 500, "");
    rig.advance(601);
    check(&rig, &named("rsa", "rsa"), "alice");
    rig.advance(3_000);
    let down = "error validating token: error verifying token signature: the provider answered 500";
    check(&rig, &named("rsa", "rsa"), down);
    web.asked();
    let paused = "error validating token: error verifying token signature: the provider failed a moment ago";
    check(&rig, &named("rsa", "rsa"), paused);
    assert_eq!(web.asked().len(), 0);
    web.says(url, 200, key_set(&["rsa"]));
    rig.advance(2);
    check(&rig, &named("rsa", "rsa"), "alice");
    // Other settings, other keys.
    web.says("http://other/jwks", 200, key_set(&["p384"]));
    assert_eq!(rig.say(Update, "config", &json!({"jwks_url": "http://other/jwks"})), "none");
    check(&rig, &named("rsa", "rsa"), unknown);
    check(&rig, &named("p384", "p384"), "alice");
}

type Begun<'a> = Pin<Box<dyn Future<Output = Result<Response, EngineError>> + 'a>>;

fn ten<'a>(rig: &'a Rig, token: &str) -> Vec<Begun<'a>> {
    logins(rig, token, 10)
}

/// Logins at once.
fn logins<'a>(rig: &'a Rig, token: &str, count: usize) -> Vec<Begun<'a>> {
    let data = json!({"role": "r", "jwt": token});
    (0..count).map(|_| Box::pin(rig.begin(Update, "login", &data)) as Begun<'a>).collect()
}

/// What came of those that have ended; leaves the others.
fn ended(logins: &mut Vec<Begun<'_>>) -> Vec<String> {
    let mut said = Vec::new();
    logins.retain_mut(|login| match login.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        Poll::Ready(answer) => {
            said.push(answer.map_or_else(|err| err.to_string(), |answer| answer.login.unwrap().alias_name));
            false
        }
    });
    said
}

/// Each login waited for the one before it, and for a fetch of its own, though good keys were kept.
#[test]
fn a_provider_that_hangs_holds_up_one_login() {
    let web = Arc::new(Web::default());
    let rig = rig().with_http(Arc::clone(&web) as Arc<dyn Http>);
    let url = "http://h/jwks";
    web.says(url, 200, key_set(&["rsa"]));
    assert_eq!(rig.say(Update, "config", &json!({"jwks_url": url})), "none");
    role(&rig, json!({}));
    let (right, strange) = (named("rsa", "rsa"), named("rsa", "stranger"));
    let unknown = "error validating token: error verifying token signature: no known key successfully validated the token signature";
    check(&rig, &right, "alice");
    web.asked();
    rig.advance(11 * 60);
    web.says(url, 500, "");
    web.hangs.store(true, Ordering::Relaxed);
    let mut logins = ten(&rig, &right);
    assert_eq!(ended(&mut logins), ["alice"; 9], "one waits");
    // Tokens that nobody knows the key of wait for the same fetch, and keep nobody else.
    let mut strangers = ten(&rig, &strange);
    assert_eq!(ended(&mut strangers).len(), 0);
    assert_eq!(ended(&mut ten(&rig, &right)), ["alice"; 10]);
    assert_eq!(web.asked().len(), 1);
    // The fetch fails after a while. All of them end by that, and nobody asks again.
    rig.advance(10);
    web.hangs.store(false, Ordering::Relaxed);
    assert_eq!(ended(&mut logins), ["alice"]);
    web.hangs.store(true, Ordering::Relaxed);
    assert_eq!(ended(&mut strangers), [unknown; 10]);
    rig.advance(9);
    assert_eq!(ended(&mut ten(&rig, &right)), ["alice"; 10]);
    assert_eq!(ended(&mut ten(&rig, &strange)), [unknown; 10]);
    assert_eq!(web.asked().len(), 0);
    rig.advance(1);
    let mut logins = ten(&rig, &right);
    assert_eq!(ended(&mut logins).len(), 9);
    web.says(url, 200, key_set(&["rsa", "p256"]));
    web.hangs.store(false, Ordering::Relaxed);
    assert_eq!(ended(&mut logins), ["alice"]);
    check(&rig, &named("p256", "p256"), "alice");
    assert_eq!(web.asked().len(), 1);
}

/// Anybody could have logins lie in memory for as long as a provider takes to answer, as many as they liked.
#[test]
fn those_who_wait_for_a_provider_are_bounded() {
    let web = Arc::new(Web::default());
    let rig = rig().with_http(Arc::clone(&web) as Arc<dyn Http>);
    let url = "http://h/jwks";
    web.says(url, 200, key_set(&["rsa"]));
    assert_eq!(rig.say(Update, "config", &json!({"jwks_url": url})), "none");
    role(&rig, json!({}));
    check(&rig, &named("rsa", "rsa"), "alice");
    rig.advance(10);
    web.hangs.store(true, Ordering::Relaxed);
    // One more is the one that asks.
    let mut strangers = logins(&rig, &named("rsa", "stranger"), WAITING_MAX + 3);
    assert_eq!(ended(&mut strangers), [EngineError::Busy.to_string(), EngineError::Busy.to_string()]);
    assert_eq!(ended(&mut ten(&rig, &named("rsa", "rsa"))), ["alice"; 10]);
    web.hangs.store(false, Ordering::Relaxed);
    assert_eq!(ended(&mut strangers).len(), WAITING_MAX + 1);
}
