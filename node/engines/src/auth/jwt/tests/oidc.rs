//! Visits to a provider.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

const ISSUER: &str = "http://idp";
const BACK: &str = "http://localhost:8250/oidc/callback";

fn provider(web: &Web) {
    let said = json!({
        "issuer": ISSUER,
        "authorization_endpoint": "http://idp/auth?own=1",
        "token_endpoint": "http://idp/token",
        "jwks_uri": "http://idp/jwks",
        "userinfo_endpoint": "http://idp/userinfo",
        "device_authorization_endpoint": "http://idp/device",
    });
    web.says("http://idp/.well-known/openid-configuration", 200, said);
    web.says("http://idp/jwks", 200, key_set(&["rsa"]));
    web.says(
        "http://idp/userinfo",
        200,
        json!({"sub": "alice", "mail": "a@b", "iss": "evil", "aud": "evil"}),
    );
}

fn visit(config: Value, role: Value) -> (Rig, Arc<Web>) {
    let web = Arc::new(Web::default());
    provider(&web);
    let rig = rig().with_http(Arc::clone(&web) as Arc<dyn Http>);
    let mut all = json!({"oidc_discovery_url": ISSUER, "oidc_client_id": "cid", "oidc_client_secret": "s c"});
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    assert_eq!(rig.say(Update, "config", &all), "none");
    let mut all = json!({"user_claim": "sub", "allowed_redirect_uris": BACK, "claim_mappings": {"mail": "mail"}, "token_policies": "p"});
    all.as_object_mut().unwrap().extend(role.as_object().unwrap().clone());
    assert_eq!(rig.say(Update, "role/r", &all), "none");
    web.asked();
    (rig, web)
}

/// Begins a login; answers the query of the URL.
fn begin(rig: &Rig, more: Value) -> BTreeMap<String, String> {
    let mut body = json!({"role": "r", "redirect_uri": BACK});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = rig.call(Update, "oidc/auth_url", &body).unwrap().data.unwrap();
    let url = answer["auth_url"].as_str().unwrap();
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn id_claims(query: &BTreeMap<String, String>) -> Value {
    json!({"iss": ISSUER, "aud": "cid", "sub": "alice", "exp": NOW_S + 1_000, "iat": NOW_S, "nonce": query["nonce"]})
}

fn gives(web: &Web, claims: &Value) {
    let id_token = signer("rsa").token("RS256", &json!({"kid": "rsa"}), claims);
    web.says(
        "http://idp/token",
        200,
        json!({"access_token": "AT", "refresh_token": "RT", "id_token": id_token}),
    );
}

fn back(rig: &Rig, query: &BTreeMap<String, String>, more: Value) -> Result<Login, EngineError> {
    let mut body = json!({"state": query["state"], "code": "CODE"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rig.call(Read, "oidc/callback", &body).map(|answer| answer.login.unwrap())
}

#[track_caller]
fn refused(answer: Result<Login, EngineError>, want: &str) {
    assert_eq!(answer.unwrap_err().to_string(), format!("Arca login failed. {want}"));
}

const NO_STATE: &str = "Expired or missing OAuth state.";

#[test]
fn a_browser_goes_and_comes_back_once() {
    let (rig, web) = visit(json!({}), json!({"oidc_scopes": "groups,openid"}));
    let query = begin(&rig, json!({"client_nonce": "N"}));
    let want = [
        ("client_id", "cid"),
        ("code_challenge_method", "S256"),
        ("own", "1"),
        ("redirect_uri", BACK),
        ("response_type", "code"),
        ("scope", "openid groups"),
    ];
    assert!(want.iter().all(|(name, value)| query[*name] == *value), "{query:?}");
    gives(&web, &id_claims(&query));
    web.asked();
    let login = back(&rig, &query, json!({"client_nonce": "N"})).unwrap();
    assert_eq!(login.alias_name, "alice");
    assert_eq!(json!(login.metadata), json!({"mail": "a@b", "role": "r"}));
    assert!(login.is_renewable && login.policies == ["p"]);
    let asked = web.asked();
    let [exchange, info] = asked.as_slice() else { panic!("{asked:?}") };
    // The secret is escaped before it is encoded: RFC 6749, 2.3.1.
    assert!(
        exchange.starts_with("POST http://idp/token Basic Y2lkOnMlMjBj code=CODE&code_verifier="),
        "{exchange}"
    );
    let verifier = exchange.split_once("&code_verifier=").unwrap().1.split('&').next().unwrap();
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()).as_ref());
    assert_eq!(challenge, query["code_challenge"]);
    assert_eq!(info, "GET http://idp/userinfo Bearer AT");
    refused(back(&rig, &query, json!({"client_nonce": "N"})), NO_STATE);
    assert_eq!(web.asked().len(), 0);
    assert!(rig.stored().iter().all(|key| !key.starts_with("oidc/")));
}

/// Another node serves the callback: it has nothing but what is stored.
#[test]
fn a_login_comes_back_to_another_node() {
    let (rig, web) = visit(json!({}), json!({}));
    let query = begin(&rig, json!({}));
    assert!(rig.stored().iter().all(|key| !key.contains(&query["state"])), "no state in a name");
    gives(&web, &id_claims(&query));
    let other = rig.remade(make, "");
    assert_eq!(back(&other, &query, json!({})).unwrap().alias_name, "alice");
    refused(back(&other, &query, json!({})), NO_STATE);
}

#[test]
fn a_login_ends_in_five_minutes_and_whatever_comes_of_it() {
    let (rig, web) = visit(json!({}), json!({}));
    for (more, want) in [
        (json!({"code": ""}), "No code or id_token received."),
        (json!({"code": "", "id_token": "x.y.z"}), "No code or id_token received."),
        (json!({"error": "access_denied", "code": ""}), "access_denied"),
        (json!({"error": "<script>", "code": ""}), "the provider refused"),
    ] {
        let query = begin(&rig, json!({}));
        gives(&web, &id_claims(&query));
        refused(back(&rig, &query, more), want);
        refused(back(&rig, &query, json!({})), NO_STATE);
    }
    let query = begin(&rig, json!({"client_nonce": "N"}));
    gives(&web, &id_claims(&query));
    let answer = back(&rig, &query, json!({"client_nonce": "M"}));
    assert_eq!(answer.unwrap_err().to_string(), "invalid client_nonce");
    refused(back(&rig, &query, json!({"client_nonce": "N"})), NO_STATE);
    for state in ["", "st_x", &query["code_challenge"]] {
        refused(back(&rig, &BTreeMap::from([("state".to_owned(), state.to_owned())]), json!({})), NO_STATE);
    }
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    rig.advance(300);
    refused(back(&rig, &query, json!({})), NO_STATE);
    rig.tick();
    assert!(rig.stored().iter().all(|key| !key.starts_with("oidc/")));
}

#[test]
fn the_providers_token_is_checked() {
    let (rig, web) = visit(json!({}), json!({"bound_claims": {"team": "x"}}));
    let failed = "Error exchanging oidc code: id_token failed verification: ";
    for (name, value, want) in [
        ("nonce", json!("other"), "invalid nonce"),
        ("aud", json!("other"), "invalid audience"),
        ("aud", json!(["cid", "other"]), "invalid authorized party (azp)"),
        ("iss", json!("http://evil"), "invalid issuer"),
        ("exp", json!(1), "token is expired"),
    ] {
        let query = begin(&rig, json!({}));
        let mut claims = id_claims(&query);
        claims[name] = value;
        gives(&web, &claims);
        refused(back(&rig, &query, json!({})), &format!("{failed}{want}"));
    }
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    refused(back(&rig, &query, json!({})), "error validating claims: claim \"team\" is missing");
    let query = begin(&rig, json!({}));
    let unexpected = signer("rsa").token("PS256", &json!({"kid": "rsa"}), &id_claims(&query));
    web.says("http://idp/token", 200, json!({"id_token": unexpected}));
    refused(back(&rig, &query, json!({})), &format!("{failed}token signed with unexpected algorithm"));
    let query = begin(&rig, json!({}));
    web.says("http://idp/token", 400, json!({"error": "invalid_grant", "error_description": "canary"}));
    refused(back(&rig, &query, json!({})), "Error exchanging oidc code: invalid_grant.");
}

#[test]
fn who_answers_must_be_the_issuer() {
    let web = Arc::new(Web::default());
    let rig = rig().with_http(Arc::clone(&web) as Arc<dyn Http>);
    web.says("http://h/.well-known/openid-configuration", 200, json!({"issuer": "http://h/"}));
    let want =
        "error: error checking oidc discovery URL: issuer did not match the issuer returned by provider";
    assert_eq!(rig.say(Update, "config", &json!({"oidc_discovery_url": "http://h"})), want);
}

/// Info about somebody else says nothing, and what the protocol itself says comes from the ID token alone.
#[test]
fn info_about_the_user_is_about_the_user() {
    let (rig, web) = visit(json!({}), json!({"claim_mappings": {"mail": "mail", "iss": "from"}}));
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    let login = back(&rig, &query, json!({})).unwrap();
    assert_eq!(json!(login.metadata), json!({"mail": "a@b", "from": ISSUER, "role": "r"}));
    web.says("http://idp/userinfo", 200, json!({"sub": "eve", "mail": "e@b"}));
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    assert_eq!(json!(back(&rig, &query, json!({})).unwrap().metadata), json!({"from": ISSUER, "role": "r"}));
}

#[test]
fn browsers_come_back_only_to_where_the_role_says() {
    let (rig, _web) = visit(json!({}), json!({}));
    let url = |uri: &str| rig.say(Update, "oidc/auth_url", &json!({"role": "r", "redirect_uri": uri}));
    assert_eq!(url("http://evil"), r#"{"auth_url":""}"#);
    assert!(url("http://localhost:1/oidc/callback").contains("localhost%3A1%2Foidc"));
    assert_eq!(url(""), "error: missing redirect_uri");
    let state = &begin(&rig, json!({"redirect_uri": format!("{BACK}?namespace=team%2Fa")}))["state"];
    assert!(state.ends_with(",ns=team/a"), "{state}");
    role(&rig, json!({}));
    assert_eq!(url(BACK), r#"{"auth_url":""}"#, "a role for tokens");
    let keys = with_keys(json!({"default_role": "r"}));
    role(&keys, json!({}));
    let none = "error: OIDC login is not configured for this mount";
    assert_eq!(keys.say(Update, "oidc/auth_url", &json!({"redirect_uri": BACK})), none);
}

fn page(answer: Result<arca_engine_api::Response, EngineError>) -> (u16, String) {
    let raw = answer.unwrap().raw.unwrap();
    (raw.status, String::from_utf8(raw.body).unwrap())
}

/// CVE-2026-33757: a login that came back to the server went to whoever had begun it, unasked.
#[test]
fn cve_2026_33757_a_direct_login_is_confirmed_by_the_user() {
    let (rig, web) = visit(json!({}), json!({"callback_mode": "direct", "poll_interval": 1}));
    assert_eq!(
        rig.say(Update, "oidc/auth_url", &json!({"role": "r", "redirect_uri": BACK})),
        "error: missing client_nonce"
    );
    let query = begin(&rig, json!({"client_nonce": "N"}));
    let poll =
        |nonce: &str| rig.call(Update, "oidc/poll", &json!({"state": query["state"], "client_nonce": nonce}));
    assert_eq!(poll("N").unwrap_err().to_string(), "authorization_pending");
    gives(&web, &id_claims(&query));
    web.asked();
    let come = |more: Value| {
        let mut body = json!({"state": query["state"], "code": "CODE"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rig.call(Read, "oidc/callback", &body)
    };
    let (status, html) = page(come(json!({})));
    assert!(status == 200 && html.contains("Confirm sign-in") && html.contains("10.1.2.3"), "{html}");
    assert_eq!(web.asked().len(), 0, "nothing is asked before the user confirmed");
    assert_eq!(poll("N").unwrap_err().to_string(), "authorization_pending");
    let (status, html) = page(come(json!({"confirmation": "1"})));
    assert!(status == 200 && html.contains("You can now close this window"), "{html}");
    let again = come(json!({"confirmation": "1"})).unwrap_err().to_string();
    assert_eq!(again, format!("Arca login failed. {NO_STATE}"));
    assert_eq!(poll("M").unwrap_err().to_string(), "invalid client_nonce");
    assert_eq!(poll("N").unwrap().login.unwrap().alias_name, "alice");
    assert_eq!(poll("N").unwrap_err().to_string(), format!("Arca login failed. {NO_STATE}"));
}

#[test]
fn a_direct_login_that_fails_is_over() {
    let (rig, web) = visit(json!({}), json!({"callback_mode": "direct", "oidc_disable_confirmation": true}));
    let query = begin(&rig, json!({"client_nonce": "N"}));
    web.says("http://idp/token", 400, json!({"error": "invalid_grant"}));
    let (status, html) =
        page(rig.call(Read, "oidc/callback", &json!({"state": query["state"], "code": "C"})));
    assert!(status == 400 && html.contains("invalid_grant"), "{html}");
    let poll = rig.call(Update, "oidc/poll", &json!({"state": query["state"], "client_nonce": "N"}));
    assert_eq!(poll.unwrap_err().to_string(), format!("Arca login failed. {NO_STATE}"));
}

fn posted(rig: &Rig, query: &BTreeMap<String, String>, more: Value) -> (u16, String) {
    let mut body = json!({"state": query["state"]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    page(rig.call(Update, "oidc/callback", &body))
}

/// The value of an attribute, or of a hidden field, of a page.
fn hidden(html: &str, name: &str) -> String {
    let start = [format!("{name}=\""), format!("name=\"{name}\" value=\"")];
    let rest = start.iter().find_map(|start| Some(html.split_once(start.as_str())?.1)).unwrap();
    rest.split('"').next().unwrap().to_owned()
}

const NOTHING: &str = "No code or id_token received.";

/// CVE-2026-33757: whoever began a direct login knows its state and nonce, and must not be able to confirm in the place
/// of the user whose browser posted the code.
#[test]
fn cve_2026_33757_a_posted_login_is_confirmed_by_who_posted_it() {
    let role = json!({"callback_mode": "direct"});
    for forged in [
        json!({"confirmation": "1"}),
        json!({"confirmation": ""}),
        json!({"code": "x", "confirmation": "1"}),
        json!({}),
    ] {
        let (rig, web) = visit(json!({"oidc_response_mode": "form_post"}), role.clone());
        let query = begin(&rig, json!({"client_nonce": "N"}));
        gives(&web, &id_claims(&query));
        web.asked();
        assert_eq!(posted(&rig, &query, json!({"code": "CODE"})).0, 200);
        let mut body = json!({"state": query["state"], "client_nonce": "N"});
        body.as_object_mut().unwrap().extend(forged.as_object().unwrap().clone());
        let (status, html) = page(rig.call(Read, "oidc/callback", &body));
        assert!(status == 400 && html.contains(NOTHING), "{forged}: {html}");
        assert!(!web.asked().iter().any(|asked| asked.contains("CODE")), "{forged}: the code is not used");
        let poll = rig.call(Update, "oidc/poll", &json!({"state": query["state"], "client_nonce": "N"}));
        assert_eq!(poll.unwrap_err().to_string(), format!("Arca login failed. {NO_STATE}"), "{forged}");
    }
    let (rig, web) = visit(json!({"oidc_response_mode": "form_post"}), role);
    let query = begin(&rig, json!({"client_nonce": "N"}));
    gives(&web, &id_claims(&query));
    let (_, html) = posted(&rig, &query, json!({"code": "CODE"}));
    assert!(!html.contains("CODE"), "what was posted stays here: {html}");
    let confirmation = hidden(&html, "confirmation");
    assert!(confirmation.len() > 20, "{confirmation}");
    assert_eq!(posted(&rig, &query, json!({"code": "other"})).0, 400, "what stands stands");
    let body = json!({"state": query["state"], "code": "", "confirmation": confirmation});
    assert_eq!(page(rig.call(Read, "oidc/callback", &body)).0, 200);
    let poll = rig.call(Update, "oidc/poll", &json!({"state": query["state"], "client_nonce": "N"}));
    assert_eq!(poll.unwrap().login.unwrap().alias_name, "alice");
}

/// The same where the browser comes back to the client: who began the login has its nonce, but not what was posted.
#[test]
fn cve_2026_33757_a_posted_code_is_not_given_to_who_does_not_have_it() {
    for forged in [json!({"code": ""}), json!({"code": "other"}), json!({"code": "no_code"})] {
        let (rig, web) = visit(json!({"oidc_response_mode": "form_post"}), json!({}));
        let query = begin(&rig, json!({"client_nonce": "N"}));
        gives(&web, &id_claims(&query));
        assert_eq!(posted(&rig, &query, json!({"code": "CODE"})).0, 200);
        let mut body = forged.clone();
        body["client_nonce"] = json!("N");
        refused(back(&rig, &query, body), NOTHING);
        refused(back(&rig, &query, json!({"code": "CODE", "client_nonce": "N"})), NO_STATE);
    }
    let (rig, web) = visit(json!({"oidc_response_mode": "form_post"}), json!({}));
    let query = begin(&rig, json!({"client_nonce": "N"}));
    gives(&web, &id_claims(&query));
    let (_, html) = posted(&rig, &query, json!({"code": "CODE"}));
    assert_eq!(hidden(&html, "data-code"), "CODE");
    assert_eq!(back(&rig, &query, json!({"client_nonce": "N"})).unwrap().alias_name, "alice");
}

#[test]
fn what_was_posted_is_kept_for_the_client() {
    let by_token = json!({"oidc_response_mode": "form_post", "oidc_response_types": "id_token"});
    let begun = || {
        let (rig, web) = visit(by_token.clone(), json!({}));
        let query = begin(&rig, json!({"client_nonce": "N"}));
        let modes = (query["response_mode"].as_str(), query["response_type"].as_str());
        assert_eq!(modes, ("form_post", "id_token"));
        let id_token = signer("rsa").token("RS256", &json!({"kid": "rsa"}), &id_claims(&query));
        (rig, web, query, id_token)
    };
    let (rig, _web, query, id_token) = begun();
    let (status, html) = posted(&rig, &query, json!({"id_token": id_token}));
    let code = hidden(&html, "data-code");
    assert!(status == 200 && code.len() > 20, "{html}");
    assert_eq!(posted(&rig, &query, json!({"id_token": "other"})).0, 400, "what stands stands");
    assert_eq!(back(&rig, &query, json!({"code": code, "client_nonce": "N"})).unwrap().alias_name, "alice");
    for forged in ["", "no_code"] {
        let (rig, _web, query, id_token) = begun();
        assert_eq!(posted(&rig, &query, json!({"id_token": id_token})).0, 200);
        refused(back(&rig, &query, json!({"code": forged, "client_nonce": "N"})), NOTHING);
    }
    // The command line takes the post itself, hands it on with its nonce, and has no code to show then.
    let (rig, _web, query, id_token) = begun();
    let (status, html) = posted(&rig, &query, json!({"id_token": id_token, "code": "", "client_nonce": "N"}));
    assert!(status == 200 && hidden(&html, "data-code").is_empty(), "{html}");
    assert_eq!(back(&rig, &query, json!({"code": "", "client_nonce": "N"})).unwrap().alias_name, "alice");
    let (rig, _web, query, id_token) = begun();
    posted(&rig, &query, json!({"id_token": id_token, "client_nonce": "M"}));
    refused(back(&rig, &query, json!({"code": "", "client_nonce": "N"})), NOTHING);
}

#[test]
fn nothing_is_posted_where_the_settings_do_not_say_so() {
    let (rig, _web) = visit(json!({}), json!({}));
    let query = begin(&rig, json!({}));
    let posted = rig.say(Update, "oidc/callback", &json!({"state": query["state"], "code": "x"}));
    assert_eq!(posted, "error: unsupported operation");
}

#[test]
fn a_device_is_asked_for_until_the_user_agreed() {
    let (rig, web) = visit(json!({}), json!({"callback_mode": "device", "allowed_redirect_uris": ""}));
    let device = json!({"device_code": "DC", "user_code": "UC", "verification_uri": "http://idp/v", "expires_in": 600, "interval": 2});
    web.says("http://idp/device", 200, device);
    let answer =
        rig.call(Update, "oidc/auth_url", &json!({"role": "r", "client_nonce": "N"})).unwrap().data.unwrap();
    assert_eq!(
        (&answer["auth_url"], &answer["poll_interval"], &answer["user_code"]),
        (&json!("http://idp/v"), &json!("2"), &json!("UC"))
    );
    let poll = || rig.call(Update, "oidc/poll", &json!({"state": answer["state"], "client_nonce": "N"}));
    web.says("http://idp/token", 400, json!({"error": "authorization_pending"}));
    assert_eq!(poll().unwrap_err().to_string(), "authorization_pending");
    let no_nonce = BTreeMap::from([("nonce".to_owned(), String::new())]);
    gives(&web, &id_claims(&no_nonce));
    web.asked();
    assert_eq!(poll().unwrap().login.unwrap().alias_name, "alice");
    let device_grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Adevice_code";
    assert!(web.asked()[0].ends_with(device_grant));
    assert_eq!(poll().unwrap_err().to_string(), format!("Arca login failed. {NO_STATE}"));
}

/// Vault 1.1.1: roles for OIDC did not look at where a login came from.
#[test]
fn vault_1_1_1_oidc_logins_come_from_where_the_role_says() {
    let (mut rig, web) = visit(json!({}), json!({"token_bound_cidrs": "10.0.0.0/8"}));
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    rig.come_from("11.1.1.1");
    assert_eq!(back(&rig, &query, json!({})).unwrap_err().to_string(), "permission denied");
    rig.come_from("10.1.1.1");
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    assert!(back(&rig, &query, json!({})).is_ok());
}

#[test]
fn tokens_of_the_provider_are_shown_only_where_the_role_says() {
    let (rig, web) = visit(json!({}), json!({"oauth2_metadata": "access_token,refresh_token"}));
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    let login = back(&rig, &query, json!({})).unwrap();
    let want = json!({"mail": "a@b", "role": "r", "oauth2_access_token": "AT", "oauth2_refresh_token": "RT"});
    assert_eq!(json!(login.metadata), want);
    assert!(!login.alias_metadata.contains_key("oauth2_access_token"));
}

/// The user's token goes to Microsoft's Graph, and nowhere else.
#[test]
fn azure_tells_many_groups_elsewhere() {
    let azure = json!({"provider_config": {"provider": "azure"}});
    let (rig, web) = visit(azure, json!({"groups_claim": "groups"}));
    let graph = "https://graph.microsoft.com/v1.0/t/users/u/getMemberObjects";
    web.says(graph, 200, json!({"value": ["g1", "g2"]}));
    let attempt = |endpoint: &str| {
        let query = begin(&rig, json!({}));
        let mut claims = id_claims(&query);
        claims["_claim_names"] = json!({"groups": "src1"});
        claims["_claim_sources"] = json!({"src1": {"endpoint": endpoint}});
        gives(&web, &claims);
        web.asked();
        back(&rig, &query, json!({}))
    };
    for endpoint in [graph, "https://graph.windows.net/t/users/u/getMemberObjects"] {
        assert_eq!(json!(attempt(endpoint).unwrap().group_aliases), json!(["g1", "g2"]));
        let asked = web.asked();
        let want = format!(r#"POST {graph} Bearer AT {{"securityEnabledOnly": false}}"#);
        assert_eq!(asked.last(), Some(&want));
    }
    for endpoint in [
        "",
        "http://graph.microsoft.com/x",
        "https://evil/graph.microsoft.com/",
        "https://graph.microsoft.com@evil/",
        "https://graph.microsoft.com:1/",
        "https://evil?https://graph.microsoft.com/",
    ] {
        let why =
            "failed to fetch groups: unable to get claim sources: the endpoint is not of Microsoft's Graph";
        refused(attempt(endpoint), why);
        assert!(!web.asked().iter().any(|asked| asked.contains("securityEnabledOnly")), "{endpoint}");
    }
    web.says(graph, 403, "no");
    assert_eq!(attempt(graph).unwrap_err().to_string(), "the provider answered 403");
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    let nowhere = "failed to fetch groups: unable to get claim sources: unable to locate the groups claim in _claim_names";
    refused(back(&rig, &query, json!({})), nowhere);
}

/// Anybody can begin logins. Whoever begins thousands of them ends their own, not those of others.
#[test]
fn a_flood_of_logins_blocks_nobody() {
    use super::super::oidc::places::PLACES;
    let (rig, web) = visit(json!({}), json!({}));
    let under_way =
        |rig: &Rig| rig.stored().into_iter().filter(|key| key.starts_with("oidc/")).collect::<Vec<_>>();
    let query = begin(&rig, json!({}));
    gives(&web, &id_claims(&query));
    let [own] = under_way(&rig).try_into().unwrap();
    let record = rig.with_ctx(|ctx| ctx.storage.get(&own).unwrap().unwrap());
    let mut record: Value = serde_json::from_slice(&record).unwrap();
    record["client"] = json!("10.9.9.9");
    for at in 0..PLACES {
        rig.plant(&format!("oidc/{at}"), record.to_string().as_bytes());
    }
    rig.tick();
    assert_eq!(under_way(&rig).len(), PLACES);
    for _ in 0..10 {
        rig.call(Update, "oidc/auth_url", &json!({"role": "r", "redirect_uri": BACK})).unwrap();
        assert_eq!(under_way(&rig).len(), PLACES);
    }
    assert_eq!(back(&rig, &query, json!({})).unwrap().alias_name, "alice");
}
