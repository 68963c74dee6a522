//! Whole conversations with a mount, and with a cluster that a test plays.

use std::sync::{Arc, Mutex};

use arca_engine_api::Operation::{Delete, List, Read, Update};
use arca_engine_api::{EngineError, Http, HttpAnswer, HttpRequest, Login, Map, Pod, PodFile};
use async_trait::async_trait;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::make;
use crate::auth::jose::keys::testing::{hmac_token, signer};
use crate::testing::Rig;

const NOW_S: u64 = 1;
const HOST: &str = "https://k8s";

/// A certificate of nobody's.
const CA: &str = include_str!("../../secrets/transit/testdata/authority.crt.pem");

/// What a cluster is asked and what it answers.
#[derive(Debug)]
struct Cluster {
    status: Mutex<(u16, Value)>,
    labels: Mutex<(u16, Value)>,
    asked: Mutex<Vec<(String, String)>>,
}

impl Cluster {
    fn says(&self, status: u16, said: Value) {
        *self.status.lock().unwrap() = (status, json!({"kind": "TokenReview", "status": said}));
    }

    fn has_labels(&self, status: u16, labels: Value) {
        *self.labels.lock().unwrap() = (status, json!({"metadata": {"labels": labels}}));
    }

    /// By whose token it was asked what, since the last look.
    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[async_trait]
impl Http for Cluster {
    async fn send(&self, request: HttpRequest) -> Result<HttpAnswer, EngineError> {
        assert_eq!(request.ca_pem, CA);
        let header = request.headers.iter().find(|(name, _)| *name == "authorization");
        let bearer = header.map(|(_, value)| value.0.trim_start_matches("Bearer ").to_owned());
        let path = request.url.strip_prefix(HOST).unwrap();
        let line = format!("{} {path}", request.method);
        self.asked.lock().unwrap().push((bearer.unwrap(), line));
        let answer = if path.contains("/namespaces/") { &self.labels } else { &self.status };
        let (status, body) = answer.lock().unwrap().clone();
        if status == 0 {
            return Err(EngineError::Upstream("asking k8s: no answer in time".to_owned()));
        }
        Ok(HttpAnswer { status, headers: Vec::new(), body: body.to_string().into_bytes() })
    }
}

/// A pod with a service account of its own.
#[derive(Debug)]
struct InPod;

#[async_trait]
impl Pod for InPod {
    async fn read(&self, file: PodFile) -> Result<Zeroizing<String>, EngineError> {
        Ok(Zeroizing::new(match file {
            PodFile::Authority => CA.to_owned(),
            PodFile::Token => "local-token\n".to_owned(),
        }))
    }
}

fn good() -> Value {
    json!({
        "authenticated": true,
        "audiences": ["api"],
        "user": {"username": "system:serviceaccount:n:a", "uid": "U", "groups": ["system:serviceaccounts"]},
    })
}

/// The token of a pod.
fn claims() -> Value {
    json!({
        "aud": ["api"], "exp": NOW_S + 600, "iat": NOW_S, "nbf": NOW_S, "iss": "https://k", "sub": "system:serviceaccount:n:a",
        "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "a", "uid": "U"}},
    })
}

/// The token of a secret.
fn old_claims() -> Value {
    json!({
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": "n",
        "kubernetes.io/serviceaccount/secret.name": "a-token",
        "kubernetes.io/serviceaccount/service-account.name": "a",
        "kubernetes.io/serviceaccount/service-account.uid": "U",
    })
}

fn token(claims: &Value) -> String {
    signer("rsa").token("RS256", &Value::Null, claims)
}

fn mount(config: Value, role: Value) -> (Rig, Arc<Cluster>) {
    let cluster =
        Arc::new(Cluster { status: Mutex::default(), labels: Mutex::default(), asked: Mutex::default() });
    cluster.says(201, good());
    let mut rig = Rig::new(make, "").with_http(Arc::clone(&cluster) as Arc<dyn Http>);
    rig.come_from("10.1.2.3");
    let mut all = json!({"kubernetes_host": HOST, "kubernetes_ca_cert": CA});
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    assert_eq!(rig.say(Update, "config", &all), "none");
    let mut all = json!({"bound_service_account_names": "a", "bound_service_account_namespaces": "n", "token_policies": "p", "token_ttl": 60});
    all.as_object_mut().unwrap().extend(role.as_object().unwrap().clone());
    assert_eq!(rig.say(Update, "role/r", &all), "none");
    (rig, cluster)
}

fn log_in(rig: &Rig, token: &str) -> Result<Login, EngineError> {
    rig.call(Update, "login", &json!({"role": "R", "jwt": token})).map(|answer| answer.login.unwrap())
}

#[track_caller]
fn check(rig: &Rig, token: &str, want: &str) {
    let got = log_in(rig, token).map_or_else(|err| err.to_string(), |login| login.alias_name);
    assert_eq!(got, want);
}

const DENIED: &str = "permission denied";

#[test]
fn settings_are_checked_and_shown_without_the_reviewers_token() {
    let (rig, _) =
        mount(json!({"token_reviewer_jwt": "canary", "pem_keys": [signer("rsa").pem()]}), json!({}));
    let shown = rig.say(Read, "config", &Value::Null);
    assert!(!shown.contains("canary") && shown.contains(r#""token_reviewer_jwt_set":true"#), "{shown}");
    assert!(
        shown.contains(r#""disable_iss_validation":true,"disable_local_ca_jwt":false,"issuer":"""#),
        "{shown}"
    );
    for (config, want) in [
        (json!({}), "no host provided"),
        (json!({"kubernetes_host": HOST}), "no kubernetes_ca_cert was given, and this node runs in no pod"),
        (
            json!({"kubernetes_host": HOST, "disable_local_ca_jwt": true}),
            "kubernetes_ca_cert must be given when disable_local_ca_jwt is true",
        ),
        (
            json!({"kubernetes_host": HOST, "kubernetes_ca_cert": "zz"}),
            "kubernetes_ca_cert holds no certificate in PEM",
        ),
        (
            json!({"kubernetes_host": HOST, "kubernetes_ca_cert": CA, "pem_keys": "zz"}),
            "data does not contain any valid public keys",
        ),
        (
            json!({"kubernetes_host": HOST, "kubernetes_ca_cert": CA, "pem_keys": format!("{0}{0}", signer("rsa").pem())}),
            "unexpected trailing data after parsed PEM block",
        ),
        (
            json!({"kubernetes_host": "a b", "kubernetes_ca_cert": CA}),
            "kubernetes_host is no host and no URL",
        ),
    ] {
        assert_eq!(rig.say(Update, "config", &config), format!("error: {want}"), "{config}");
    }
    assert_eq!(rig.say(Read, "config", &Value::Null), shown, "nothing was stored");
}

#[test]
fn a_role_is_shown_as_others_show_it() {
    let (rig, _) = mount(json!({}), json!({"audience": "api", "ttl": 60, "token_ttl": null}));
    let want = r#"{"alias_name_source":"serviceaccount_uid","audience":"api","bound_service_account_names":["a"],"bound_service_account_namespace_selector":"","bound_service_account_namespaces":["n"],"token_bound_cidrs":[],"token_explicit_max_ttl":0,"token_max_ttl":0,"token_no_default_policy":false,"token_num_uses":0,"token_period":0,"token_policies":["p"],"token_strictly_bind_ip":false,"token_ttl":60,"token_type":"default","ttl":60}"#;
    assert_eq!(rig.say(Read, "role/r", &Value::Null), want);
    assert_eq!(rig.say(List, "role", &Value::Null), r#"{"keys":["r"]}"#);
    assert_eq!(rig.say(Delete, "role/R", &Value::Null), "none");
    assert_eq!(rig.exists("role/r"), Some(false));
    for (role, want) in [
        (json!({}), "\"bound_service_account_names\" can not be empty"),
        (
            json!({"bound_service_account_names": "a"}),
            "\"bound_service_account_namespaces\" can not be empty if \"bound_service_account_namespace_selector\" is not set",
        ),
        (
            json!({"bound_service_account_names": "a,*", "bound_service_account_namespaces": "n"}),
            "can not mix \"*\" with values",
        ),
        (
            json!({"bound_service_account_names": "a", "bound_service_account_namespace_selector": "zz"}),
            "invalid \"bound_service_account_namespace_selector\" configured",
        ),
        (
            json!({"bound_service_account_names": "a", "bound_service_account_namespaces": "n", "alias_name_source": "zz"}),
            "invalid alias_name_source, must be one of: serviceaccount_uid, serviceaccount_name",
        ),
        (
            json!({"bound_service_account_names": "a", "bound_service_account_namespaces": "n", "alias_name_source": ""}),
            "invalid alias_name_source, must be one of: serviceaccount_uid, serviceaccount_name",
        ),
    ] {
        assert_eq!(rig.say(Update, "role/x", &role), format!("error: {want}"), "{role}");
    }
}

#[test]
fn an_account_logs_in() {
    let (rig, cluster) = mount(json!({}), json!({}));
    for (claims, secret) in [(claims(), ""), (old_claims(), "a-token")] {
        let login = log_in(&rig, &token(&claims)).unwrap();
        assert_eq!((login.alias_name.as_str(), login.display_name.as_str()), ("U", "n-a"));
        let alias = json!({"service_account_name": "a", "service_account_namespace": "n", "service_account_secret_name": secret, "service_account_uid": "U"});
        assert_eq!(json!(login.alias_metadata), alias);
        let mut metadata = alias;
        metadata["role"] = json!("r");
        assert_eq!(json!(login.metadata), metadata);
        assert_eq!((login.policies, login.ttl.as_secs()), (vec!["p".to_owned()], 60));
    }
    assert_eq!(rig.say(Update, "role/r", &json!({"alias_name_source": "serviceaccount_name"})), "none");
    check(&rig, &token(&claims()), "n/a");
    assert_eq!(cluster.asked().len(), 3);
}

#[test]
fn the_cluster_is_asked_by_the_right_token() {
    let own = token(&claims());
    let asked_by = |rig: &Rig, cluster: &Cluster| {
        assert!(log_in(rig, &own).is_ok());
        let [(bearer, line)] = cluster.asked().try_into().unwrap();
        assert_eq!(line, "POST /apis/authentication.k8s.io/v1/tokenreviews");
        bearer
    };
    let (rig, cluster) = mount(json!({"token_reviewer_jwt": "reviewer"}), json!({}));
    let rig = rig.with_pod(Arc::new(InPod));
    assert_eq!(asked_by(&rig, &cluster), "reviewer");
    let (rig, cluster) = mount(json!({}), json!({}));
    assert_eq!(asked_by(&rig, &cluster), own, "no pod: the token asks for itself");
    let rig = rig.with_pod(Arc::new(InPod));
    assert_eq!(asked_by(&rig, &cluster), "local-token");
    assert_eq!(rig.say(Update, "config", &json!({"kubernetes_host": HOST})), "none");
    assert_eq!(asked_by(&rig, &cluster), "local-token", "and the pod's authorities");
    let alone = json!({"kubernetes_host": HOST, "kubernetes_ca_cert": CA, "disable_local_ca_jwt": true});
    assert_eq!(rig.say(Update, "config", &alone), "none");
    assert_eq!(asked_by(&rig, &cluster), own);
}

#[test]
fn what_the_cluster_does_not_say_is_not_so() {
    let (rig, cluster) = mount(json!({}), json!({}));
    let changed = |name: &str, value: Value| {
        let mut said = good();
        *said.pointer_mut(name).unwrap() = value;
        said
    };
    for said in [
        changed("/authenticated", json!(false)),
        changed("/authenticated", json!("true")),
        changed("/user/username", json!("system:serviceaccount:n:other")),
        changed("/user/username", json!("system:serviceaccount:m:a")),
        changed("/user/username", json!("a")),
        changed("/user/uid", json!("other")),
        changed("/audiences", json!(["other"])),
        changed("/audiences", json!([])),
        changed("/audiences", json!("api")),
        json!({"authenticated": true}),
        json!({"authenticated": true, "error": "x", "audiences": ["api"], "user": good()["user"]}),
        Value::Null,
    ] {
        cluster.says(201, said.clone());
        check(&rig, &token(&claims()), DENIED);
    }
    for status in [400, 401, 403, 404, 302] {
        cluster.says(status, good());
        check(&rig, &token(&claims()), DENIED);
    }
    cluster.says(500, good());
    check(&rig, &token(&claims()), "the Kubernetes API answered 500");
    cluster.says(0, good());
    check(&rig, &token(&claims()), "asking k8s: no answer in time");
}

#[test]
fn bad_tokens_are_not_even_asked_about() {
    let keys = json!({"pem_keys": [signer("rsa").pem(), signer("p256").pem()], "issuer": "https://k", "disable_iss_validation": false});
    let (rig, cluster) = mount(keys, json!({"audience": "api"}));
    check(&rig, &token(&claims()), "U");
    check(&rig, &signer("p256").token("ES256", &Value::Null, &claims()), "U");
    cluster.asked();
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        token(&claims)
    };
    let audience = "invalid audience (aud) claim: audience claim does not match any expected audience";
    let account = |namespace: &str, name: &str| {
        with("kubernetes.io", json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": "U"}}))
    };
    for (token, want) in [
        ("zz".to_owned(), DENIED),
        ("a.b.c".to_owned(), DENIED),
        (signer("other-rsa").token("RS256", &Value::Null, &claims()), DENIED),
        (signer("rsa").token("none", &Value::Null, &claims()), DENIED),
        (hmac_token(signer("rsa").pem().as_bytes(), &claims()), DENIED),
        (with("iss", json!("other")), "invalid issuer (iss) claim"),
        (with("aud", json!(["other"])), audience),
        (with("aud", json!("ap")), audience),
        (with("aud", json!({"api": 1})), DENIED),
        (with("exp", json!(-100)), "invalid expiration time (exp) claim: token is expired"),
        (with("nbf", json!(NOW_S + 100)), "invalid not before (nbf) claim: token not yet valid"),
        (account("n", "b"), "service account name not authorized"),
        (account("m", "a"), "namespace not authorized"),
        (with("kubernetes.io", json!({})), "service account name not authorized"),
    ] {
        check(&rig, &token, want);
    }
    assert_eq!(cluster.asked(), []);
    let text = |body: Value| rig.call(Update, "login", &body).unwrap_err().to_string();
    assert_eq!(text(json!({})), "missing role");
    assert_eq!(text(json!({"role": "r"})), "missing jwt");
    assert_eq!(text(json!({"role": "canary", "jwt": "x"})), "invalid role name");
}

#[test]
fn an_issuer_that_is_looked_at_counts_named_or_not() {
    let (rig, _) = mount(json!({"disable_iss_validation": false}), json!({}));
    check(&rig, &token(&claims()), "invalid issuer (iss) claim");
    check(&rig, &token(&old_claims()), "U");
    let (rig, _) = mount(json!({"disable_iss_validation": false, "issuer": "https://other"}), json!({}));
    check(&rig, &token(&claims()), "invalid issuer (iss) claim");
    check(&rig, &token(&old_claims()), "invalid issuer (iss) claim");
}

#[test]
fn a_write_without_a_selector_takes_the_selector_away() {
    let selector = r#"{"matchLabels":{"env":"prod"}}"#;
    let (rig, cluster) = mount(
        json!({"token_reviewer_jwt": "rev"}),
        json!({"bound_service_account_namespace_selector": selector}),
    );
    cluster.has_labels(200, json!({"env": "prod"}));
    let shown = |name: &str| rig.call(Read, "role/r", &Value::Null).unwrap().data.unwrap()[name].clone();
    assert_eq!(shown("bound_service_account_namespace_selector"), json!(selector));
    assert_eq!(rig.say(Update, "role/r", &json!({"bound_service_account_namespaces": "m"})), "none");
    assert_eq!(shown("bound_service_account_namespace_selector"), json!(""));
    check(&rig, &token(&claims()), "namespace not authorized");
    assert_eq!(rig.say(Update, "role/r", &json!({"token_policies": null})), "none");
    assert_eq!(shown("token_policies"), json!([]));
    let said = rig.say(Update, "role/r", &json!({"bound_service_account_namespaces": null}));
    assert!(said.starts_with("error: \"bound_service_account_namespaces\" can not be empty"), "{said}");
}

#[test]
fn names_are_patterns_and_odd_ones_go_nowhere() {
    let (rig, cluster) = mount(
        json!({"token_reviewer_jwt": "reviewer"}),
        json!({"bound_service_account_names": "*", "bound_service_account_namespaces": "*"}),
    );
    check(&rig, &token(&claims()), "U");
    cluster.asked();
    for (namespace, name) in
        [("n", ""), ("", "a"), ("../x", "a"), ("n", "a:b"), ("n:x", "a"), ("N", "a"), ("n", ".")]
    {
        let mut claims = claims();
        claims["kubernetes.io"] =
            json!({"namespace": namespace, "serviceaccount": {"name": name, "uid": "U"}});
        check(&rig, &token(&claims), DENIED);
    }
    assert_eq!(cluster.asked(), []);
    assert_eq!(rig.say(Update, "role/r", &json!({"bound_service_account_names": "b*,a*"})), "none");
    check(&rig, &token(&claims()), "U");
}

#[test]
fn namespaces_are_chosen_by_labels_too() {
    let role = json!({"bound_service_account_namespaces": "x", "bound_service_account_namespace_selector": r#"{"matchLabels":{"env":"prod"}}"#});
    let (rig, cluster) = mount(json!({"token_reviewer_jwt": "reviewer"}), role);
    cluster.has_labels(200, json!({"env": "prod"}));
    check(&rig, &token(&claims()), "U");
    assert_eq!(
        cluster.asked().pop().unwrap(),
        ("reviewer".to_owned(), "GET /api/v1/namespaces/n".to_owned())
    );
    cluster.has_labels(200, json!({"env": "test"}));
    check(&rig, &token(&claims()), "namespace not authorized");
    cluster.has_labels(403, json!({"env": "prod"}));
    check(&rig, &token(&claims()), "namespace not authorized err=failed to get namespace (code 403)");
    let config = json!({"kubernetes_host": HOST, "kubernetes_ca_cert": CA});
    assert_eq!(rig.say(Update, "config", &config), "none");
    let want = "namespace not authorized err=namespace lookup failed: TokenReviewer JWT needs to be configured to use namespace selectors";
    check(&rig, &token(&claims()), want);
}

#[test]
fn a_login_comes_from_where_its_token_may_be_used() {
    let (mut rig, cluster) = mount(json!({}), json!({"token_bound_cidrs": "10.0.0.0/8"}));
    check(&rig, &token(&claims()), "U");
    cluster.asked();
    rig.come_from("11.0.0.1");
    check(&rig, &token(&claims()), DENIED);
    assert_eq!(cluster.asked(), []);
}

/// CVE-2026-115356: tokens were renewed though their account was gone.
#[test]
fn cve_2026_115356_a_renewal_asks_whether_the_account_is_still_there() {
    let (rig, cluster) = mount(json!({"token_reviewer_jwt": "reviewer"}), json!({}));
    let internal: Map = log_in(&rig, &token(&claims())).unwrap().internal;
    assert_eq!(rig.renew(&internal), "ttl 60 max 0 period 0");
    let gone = "error: failed to validate that token and service account still exist during renewal: permission denied";
    cluster.says(201, json!({"authenticated": false, "error": "service account n/a has been deleted"}));
    assert_eq!(rig.renew(&internal), gone);
    let mut anew = good();
    anew["user"]["uid"] = json!("another");
    cluster.says(201, anew);
    assert_eq!(rig.renew(&internal), gone);
    cluster.says(503, good());
    assert_eq!(rig.renew(&internal), "error: the Kubernetes API answered 503");
    cluster.says(201, good());
    assert_eq!(rig.renew(&internal), "ttl 60 max 0 period 0");
    rig.say(Delete, "role/r", &Value::Null);
    assert_eq!(rig.renew(&internal), "error: the role does not exist during renewal");
}
