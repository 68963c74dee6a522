//! The beginning of a login: where to send the browser.

use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, Map, Request, Response};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::config::{Config, text};
use super::super::login::role_name;
use super::super::role::{CallbackMode, Role, RoleType};
use super::super::{Jwt, role};
use super::exchange::{form, post};
use super::pending::{self, LIFETIME, Pending, random};
use super::redirect;

/// Between polls, seconds, unless the role or the provider says otherwise.
const POLL_INTERVAL_S: u64 = 5;
/// Longest life of a device code.
const DEVICE_LIFETIME_MAX: Duration = Duration::from_secs(15 * 60);

/// Answers where to send the browser; an empty URL if the role does not let it come back to where it wants.
pub(in crate::auth::jwt) async fn auth_url(
    jwt: &Jwt,
    ctx: &Ctx<'_>,
    request: &Request,
) -> Result<Response, EngineError> {
    let config = Config::load(ctx)?;
    let (name, role) = role::wanted(ctx, &role_name(request, config.as_ref())?)?;
    let config = config.filter(Config::is_oidc);
    let config = config.ok_or_else(|| EngineError::invalid("OIDC login is not configured for this mount"))?;
    let fields = request.fields();
    let client_nonce = fields.string("client_nonce")?.unwrap_or_default();
    if role.callback_mode != CallbackMode::Client && client_nonce.is_empty() {
        return Err(EngineError::invalid("missing client_nonce"));
    }
    let mut pending = Pending {
        role: name,
        mode: role.callback_mode,
        redirect_uri: String::new(),
        nonce: String::new(),
        code_verifier: random(ctx.entropy, 32)?,
        client_nonce,
        client: request.remote_addr,
        expires: ctx.clock.now().after(LIFETIME),
        device_code: String::new(),
        posted: None,
        claims: None,
        is_used: false,
    };
    let state = format!("st_{}", random(ctx.entropy, 20)?);
    if role.callback_mode == CallbackMode::Device {
        if role.role_type != RoleType::Oidc {
            return Ok(answer("", None));
        }
        let intent = json!({"kind": "device", "pending": to_json(&pending)?, "state": state});
        return Ok(Response { intent: intent.as_object().cloned(), ..Response::default() });
    }
    let redirect_uri = fields.required_string("redirect_uri")?;
    let (redirect_uri, namespace) = if config.namespace_in_state {
        redirect::without_namespace(&redirect_uri)
    } else {
        (redirect_uri, None)
    };
    let allowed = role.allowed_redirect_uris.as_deref().unwrap_or_default();
    if role.role_type != RoleType::Oidc || !redirect::is_allowed(&redirect_uri, allowed) {
        return Ok(answer("", None));
    }
    pending.redirect_uri = redirect_uri;
    pending.nonce = format!("n_{}", random(ctx.entropy, 20)?);
    let shown_state = namespace.map_or_else(|| state.clone(), |namespace| format!("{state},ns={namespace}"));
    let source = config.source().ok_or_else(|| EngineError::Bug("OIDC without a provider".to_owned()))?;
    let endpoints = jwt.provider.endpoints(ctx, &source).await?;
    let url = url(&config, &role, &pending, &endpoints.authorization, &shown_state);
    pending::begin(jwt, ctx, &pending, &state)?;
    let polled = (role.callback_mode == CallbackMode::Direct).then(|| (state, interval(&role, 0)));
    Ok(answer(&url, polled.as_ref().map(|(state, interval)| (state.as_str(), *interval))))
}

/// Seconds between polls.
fn interval(role: &Role, providers_s: u64) -> u64 {
    [role.poll_interval_s, providers_s].into_iter().find(|seconds| *seconds != 0).unwrap_or(POLL_INTERVAL_S)
}

fn answer(url: &str, polled: Option<(&str, u64)>) -> Response {
    Response::data(match polled {
        None => json!({"auth_url": url}),
        // A string, as others send it.
        Some((state, interval)) => {
            json!({"auth_url": url, "state": state, "poll_interval": interval.to_string()})
        }
    })
}

pub(super) fn to_json(pending: &Pending) -> Result<Value, EngineError> {
    serde_json::to_value(pending).map_err(|err| EngineError::Bug(format!("a login under way: {err}")))
}

pub(super) fn from_json(intent: &Map) -> Result<Pending, EngineError> {
    let value = intent.get("pending").cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|err| EngineError::Bug(format!("a login under way: {err}")))
}

fn scopes(role: &Role) -> String {
    let more = role.oidc_scopes.iter().flatten().map(String::as_str).filter(|scope| *scope != "openid");
    std::iter::once("openid").chain(more).collect::<Vec<_>>().join(" ")
}

/// The URL of RFC 6749, 4.1.1, and OpenID Connect Core, 3.1.2.1. With PKCE, so that a code that was caught on its way
/// back is of no use to who caught it.
fn url(config: &Config, role: &Role, pending: &Pending, endpoint: &str, state: &str) -> String {
    let types: Vec<&str> = config.oidc_response_types.iter().map(String::as_str).collect();
    let response_type = if types.is_empty() { "code".to_owned() } else { types.join(" ") };
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, pending.code_verifier.as_bytes()).as_ref());
    let (scope, max_age) = (scopes(role), role.max_age_s.to_string());
    let mut parameters = vec![("client_id", config.oidc_client_id.as_str())];
    if response_type.contains("code") {
        parameters.extend([("code_challenge", challenge.as_str()), ("code_challenge_method", "S256")]);
    }
    if role.max_age_s != 0 {
        parameters.push(("max_age", &max_age));
    }
    parameters.extend([("nonce", pending.nonce.as_str()), ("redirect_uri", &pending.redirect_uri)]);
    if config.is_posted() {
        parameters.push(("response_mode", "form_post"));
    }
    parameters.extend([("response_type", response_type.as_str()), ("scope", &scope), ("state", state)]);
    let joint = if endpoint.contains('?') { '&' } else { '?' };
    format!("{endpoint}{joint}{}", form(&parameters))
}

/// Asks the provider for a device code (RFC 8628).
pub(in crate::auth::jwt) async fn ask_device(
    jwt: &Jwt,
    ctx: &Ctx<'_>,
    intent: &Map,
) -> Result<Map, EngineError> {
    let pending = from_json(intent)?;
    let (_, role) = role::wanted(ctx, &pending.role)?;
    let config = Config::load(ctx)?.filter(Config::is_oidc);
    let config = config.ok_or_else(|| EngineError::invalid("OIDC login is not configured for this mount"))?;
    let source = config.source().ok_or_else(|| EngineError::Bug("OIDC without a provider".to_owned()))?;
    let endpoints = jwt.provider.endpoints(ctx, &source).await?;
    if endpoints.device_authorization.is_empty() {
        return Err(EngineError::invalid("the provider has no device_authorization_endpoint"));
    }
    let scope = scopes(&role);
    let fields = [
        ("client_id", config.oidc_client_id.as_str()),
        ("client_secret", &config.oidc_client_secret),
        ("scope", &scope),
    ];
    let answered = post(ctx, &endpoints.device_authorization, &config, &fields, None).await?;
    super::super::provider::document(&answered)
}

/// Keeps the device code, and answers where the user is to go.
pub(in crate::auth::jwt) fn keep_device(
    jwt: &Jwt,
    ctx: &Ctx<'_>,
    intent: &Map,
    said: &Map,
) -> Result<Response, EngineError> {
    let mut pending = from_json(intent)?;
    let (_, role) = role::wanted(ctx, &pending.role)?;
    let number = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or_default();
    let complete = text(said, "verification_uri_complete");
    let url = if complete.is_empty() { text(said, "verification_uri") } else { complete };
    pending.device_code = text(said, "device_code").to_owned();
    if pending.device_code.is_empty() || url.is_empty() {
        return Err(EngineError::Upstream("the provider gave no device code".to_owned()));
    }
    let life = Duration::from_secs(number("expires_in")).min(DEVICE_LIFETIME_MAX);
    if !life.is_zero() {
        pending.expires = ctx.clock.now().after(life);
    }
    let state = text(intent, "state");
    pending::begin(jwt, ctx, &pending, state)?;
    let mut response = answer(url, Some((state, interval(&role, number("interval")))));
    if complete.is_empty()
        && let Some(data) = &mut response.data
    {
        data.insert("user_code".to_owned(), Value::from(text(said, "user_code")));
    }
    Ok(response)
}
