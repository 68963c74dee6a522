//! The browser is back.
//!
//! The login is taken out of storage first, in a commit of its own; then the provider is asked; then the token is made. A
//! code is thus exchanged once, however often the browser comes.

use std::collections::BTreeMap;

use arca_engine_api::{Ctx, EngineError, Login, Map, Operation, Request, Response};
use serde_json::{Value, json};

use super::super::config::{Config, text};
use super::super::login::with_token;
use super::super::role::{CallbackMode, Role};
use super::super::{Jwt, claims, role};
use super::begin::{from_json, to_json};
use super::exchange::{Visit, error_name};
use super::pending::{Pending, Posted, hash, random, state_of};
use super::{failed, no_state, page};

/// Longest code or ID token taken, bytes.
const POSTED_MAX: usize = 64 * 1024;
/// Random bytes of what the browser that posted must bring back.
const PROOF_LEN: usize = 20;

/// What a callback brings.
fn brought(request: &Request) -> Result<(String, Posted), EngineError> {
    let read = |name| field(request, name);
    let posted = Posted {
        code: read("code")?,
        id_token: read("id_token")?,
        error: read("error")?,
        proof: String::new(),
    };
    if [&posted.code, &posted.id_token, &posted.error].iter().any(|text| text.len() > POSTED_MAX) {
        return Err(failed("The callback is too long."));
    }
    Ok((state_of(&read("state")?).to_owned(), posted))
}

fn field(request: &Request, name: &str) -> Result<String, EngineError> {
    Ok(request.fields().string(name)?.unwrap_or_default())
}

/// A callback, by the client or by the browser itself.
pub(in crate::auth::jwt) fn callback(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let is_post = request.operation != Operation::Read;
    if is_post && !Config::load(ctx)?.is_some_and(|config| config.is_posted()) {
        return Err(EngineError::Unsupported);
    }
    let (state, posted) = brought(request)?;
    let pending = match Pending::find(ctx, &state) {
        Ok(pending) if pending.mode != CallbackMode::Device && !pending.is_used => pending,
        Ok(_) => return refusal(is_post, no_state()),
        Err(err @ EngineError::Invalid(_)) => return refusal(is_post, err),
        Err(err) => return Err(err),
    };
    if is_post {
        keep(ctx, request, &state, pending, posted)
    } else {
        go_on(ctx, request, &state, pending, posted)
    }
}

/// Keeps what a browser posted, for when the same browser or its client asks for it.
fn keep(
    ctx: &Ctx<'_>,
    request: &Request,
    state: &str,
    mut pending: Pending,
    mut posted: Posted,
) -> Result<Response, EngineError> {
    // Once posted, it stands: nobody else's code gets in.
    if pending.posted.is_some() {
        return refusal(true, no_state());
    }
    if pending.mode == CallbackMode::Direct {
        if needs_no_confirmation(ctx, &pending, &posted)? {
            return end(ctx, request, state, pending, &posted);
        }
        let confirmation = random(ctx.entropy, PROOF_LEN)?;
        posted.proof = hash(&confirmation);
        let page = page::confirmation(pending.client, &pending.role, state, "", &confirmation);
        pending.posted = Some(posted);
        pending.put(ctx, state)?;
        return Ok(page);
    }
    // The code shows who posted it. In its place stands a text made here, but for a client that took the post itself and
    // says so by its nonce: it will have nothing else to show.
    let code = if !posted.code.is_empty() || pending.is_begun_by(&field(request, "client_nonce")?) {
        posted.code.clone()
    } else {
        random(ctx.entropy, PROOF_LEN)?
    };
    posted.proof = hash(&code);
    pending.posted = Some(posted);
    pending.put(ctx, state)?;
    Ok(page::hand_over(&ctx.mount.path, state, &code))
}

/// Ends a login, unless the user must be asked first.
fn go_on(
    ctx: &Ctx<'_>,
    request: &Request,
    state: &str,
    mut pending: Pending,
    mut posted: Posted,
) -> Result<Response, EngineError> {
    if let Some(earlier) = pending.posted.take() {
        let proof = if pending.mode == CallbackMode::Direct { "confirmation" } else { "code" };
        // Who does not come from where it was posted gets nothing, and ends the login: else whoever began it would wait
        // for somebody else's post and take it (CVE-2026-33757).
        let is_proved = earlier.is_proved_by(&field(request, proof)?);
        let posted = if is_proved { earlier } else { Posted::default() };
        return end(ctx, request, state, pending, &posted);
    }
    // A token in a query was not asked for.
    posted.id_token.clear();
    let may_end = pending.mode == CallbackMode::Client
        || request.fields().has("confirmation")
        || needs_no_confirmation(ctx, &pending, &posted)?;
    if may_end {
        return end(ctx, request, state, pending, &posted);
    }
    // The code itself comes back with the confirmation, and only the user's browser has it.
    Ok(page::confirmation(pending.client, &pending.role, state, &posted.code, "1"))
}

/// Whether a direct login may end unconfirmed: it failed, or its role says so.
fn needs_no_confirmation(ctx: &Ctx<'_>, pending: &Pending, posted: &Posted) -> Result<bool, EngineError> {
    if !posted.error.is_empty() {
        return Ok(true);
    }
    let (_, role) = role::wanted(ctx, &pending.role)?;
    Ok(role.oidc_disable_confirmation)
}

/// To a browser that posts, a page; to who asks by GET, an error. A browser that comes back to the server by GET is told
/// the same way until its login is known to be direct.
fn refusal(is_page: bool, err: EngineError) -> Result<Response, EngineError> {
    if is_page { Ok(page::failure(&err.to_string())) } else { Err(err) }
}

/// Takes the login out, and intends to ask the provider.
fn end(
    ctx: &Ctx<'_>,
    request: &Request,
    state: &str,
    mut pending: Pending,
    posted: &Posted,
) -> Result<Response, EngineError> {
    let intent = json!({
        "kind": "callback",
        "pending": to_json(&pending)?,
        "state": state,
        "posted": serde_json::to_value(posted).unwrap_or_default(),
        "client_nonce": request.fields().string("client_nonce")?.unwrap_or_default(),
        "client": request.remote_addr,
    });
    if pending.mode == CallbackMode::Direct {
        pending.is_used = true;
        pending.put(ctx, state)?;
    } else {
        Pending::remove(ctx, state)?;
    }
    Ok(Response { intent: intent.as_object().cloned(), ..Response::default() })
}

/// Asks the provider who it is.
pub(in crate::auth::jwt) async fn exchange(
    jwt: &Jwt,
    ctx: &Ctx<'_>,
    intent: &Map,
) -> Result<Map, EngineError> {
    let pending = from_json(intent)?;
    if pending.mode == CallbackMode::Client
        && !pending.client_nonce.is_empty()
        && !pending.is_begun_by(text(intent, "client_nonce"))
    {
        return Err(EngineError::invalid("invalid client_nonce"));
    }
    let posted: Posted =
        serde_json::from_value(intent.get("posted").cloned().unwrap_or_default()).unwrap_or_default();
    if !posted.error.is_empty() {
        return Err(failed(error_name(&posted.error)));
    }
    let (_, role) = role::wanted(ctx, &pending.role).map_err(|_| failed("Role could not be found"))?;
    let config = Config::load(ctx)?.filter(Config::is_oidc);
    let config = config.ok_or_else(|| failed("Could not load configuration."))?;
    let source = config.source().ok_or_else(|| failed("Could not load configuration."))?;
    let endpoints = jwt.provider.endpoints(ctx, &source).await?;
    let visit = Visit { jwt, ctx, config: &config, endpoints: &endpoints, role: &role, pending: &pending };
    if !posted.code.is_empty() {
        visit.by_code(&posted.code).await
    } else if !posted.id_token.is_empty() {
        visit.by_id_token(&posted.id_token).await
    } else {
        Err(failed("No code or id_token received."))
    }
}

/// The login of what the provider said, or a page that says how it went.
pub(in crate::auth::jwt) fn conclude(
    ctx: &Ctx<'_>,
    intent: &Map,
    outcome: Result<Map, EngineError>,
) -> Result<Response, EngineError> {
    let mut pending = from_json(intent)?;
    let client = intent.get("client").cloned().unwrap_or_default();
    let client = serde_json::from_value(client).unwrap_or_default();
    let login = outcome.and_then(|said| Ok((login(ctx, &pending.role, client, &said, pending.mode)?, said)));
    if pending.mode == CallbackMode::Client {
        return Ok(Response { login: Some(login?.0), ..Response::default() });
    }
    let state = text(intent, "state");
    match login {
        Ok((_, said)) => {
            // Of a poller that gave up meanwhile there is nothing left to tell.
            Pending::find(ctx, state)?;
            pending.is_used = true;
            pending.claims = Some(said);
            pending.put(ctx, state)?;
            Ok(page::success())
        }
        Err(err) => {
            Pending::remove(ctx, state)?;
            Ok(page::failure(&err.to_string()))
        }
    }
}

/// The login of a user of whom the provider said so. The address counts where it is the client's: the browser may be
/// elsewhere.
pub(super) fn login(
    ctx: &Ctx<'_>,
    role_name: &str,
    client: Option<std::net::IpAddr>,
    said: &Map,
    mode: CallbackMode,
) -> Result<Login, EngineError> {
    let (name, role) = role::wanted(ctx, role_name).map_err(|_| failed("Role could not be found"))?;
    if mode == CallbackMode::Client {
        role.token.check_address_of(client)?;
    }
    let who = identity(&name, &role, said)?;
    let token = if mode == CallbackMode::Client { role.token.login_of(client)? } else { Login::default() };
    Ok(with_token(who, token))
}

/// Who it is by what the provider said, with the provider's tokens if the role shows them.
pub(super) fn identity(name: &str, role: &Role, said: &Map) -> Result<Login, EngineError> {
    let nothing = Map::new();
    let part = |name: &str| said.get(name).and_then(Value::as_object).unwrap_or(&nothing);
    let (claims, tokens) = (part("claims"), part("metadata"));
    let groups = said.get("groups").filter(|groups| !groups.is_null());
    if !role.bound_subject.is_empty() && text(claims, "sub") != role.bound_subject {
        return Err(failed("sub claim does not match bound subject"));
    }
    let mut who = claims::identity(name, role, claims, groups).map_err(|err| match err {
        EngineError::Invalid(text) => failed(text),
        err => err,
    })?;
    let tokens: BTreeMap<String, String> =
        tokens.iter().filter_map(|(name, token)| Some((name.clone(), token.as_str()?.to_owned()))).collect();
    who.metadata.extend(tokens);
    Ok(who)
}
