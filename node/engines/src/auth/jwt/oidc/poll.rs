//! Clients that wait for a login whose browser does not come back to them.

use arca_engine_api::{Ctx, EngineError, Map, Request, Response};
use serde_json::json;

use super::super::config::{Config, text};
use super::super::login::with_token;
use super::super::role::CallbackMode;
use super::super::{Jwt, role};
use super::begin::{from_json, to_json};
use super::callback::identity;
use super::exchange::Visit;
use super::failed;
use super::no_state;
use super::pending::{Pending, state_of};

/// Whether the login is through.
pub(in crate::auth::jwt) fn poll(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let fields = request.fields();
    let state = fields.string("state")?.unwrap_or_default();
    let state = state_of(&state);
    let pending = Pending::find(ctx, state)?;
    let client_nonce = fields.string("client_nonce")?.unwrap_or_default();
    if pending.mode == CallbackMode::Client || pending.client_nonce.is_empty() {
        return Err(no_state());
    }
    if !pending.is_begun_by(&client_nonce) {
        return Err(EngineError::invalid("invalid client_nonce"));
    }
    if pending.mode == CallbackMode::Device {
        let intent = json!({
            "kind": "poll",
            "pending": to_json(&pending)?,
            "state": state,
            "client": request.remote_addr,
        });
        return Ok(Response { intent: intent.as_object().cloned(), ..Response::default() });
    }
    let Some(said) = &pending.claims else { return Err(EngineError::invalid("authorization_pending")) };
    let answer = give(ctx, &pending, request.remote_addr, said)?;
    Pending::remove(ctx, state)?;
    Ok(answer)
}

fn give(
    ctx: &Ctx<'_>,
    pending: &Pending,
    client: Option<std::net::IpAddr>,
    said: &Map,
) -> Result<Response, EngineError> {
    let (name, role) = role::wanted(ctx, &pending.role).map_err(|_| failed("Role could not be found"))?;
    role.token.check_address_of(client)?;
    let who = identity(&name, &role, said)?;
    let login = with_token(who, role.token.login_of(client)?);
    Ok(Response { login: Some(login), ..Response::default() })
}

/// Asks the provider whether the user has answered.
pub(in crate::auth::jwt) async fn ask(jwt: &Jwt, ctx: &Ctx<'_>, intent: &Map) -> Result<Map, EngineError> {
    let pending = from_json(intent)?;
    let (_, role) = role::wanted(ctx, &pending.role).map_err(|_| failed("Role could not be found"))?;
    let config = Config::load(ctx)?.filter(Config::is_oidc);
    let config = config.ok_or_else(|| failed("Could not load configuration."))?;
    let source = config.source().ok_or_else(|| failed("Could not load configuration."))?;
    let endpoints = jwt.provider.endpoints(ctx, &source).await?;
    Visit { jwt, ctx, config: &config, endpoints: &endpoints, role: &role, pending: &pending }
        .by_device_code()
        .await
}

/// The login, if the user has agreed.
pub(in crate::auth::jwt) fn conclude(
    ctx: &Ctx<'_>,
    intent: &Map,
    outcome: Result<Map, EngineError>,
) -> Result<Response, EngineError> {
    let pending = from_json(intent)?;
    let state = text(intent, "state");
    let client = intent.get("client").cloned().unwrap_or_default();
    let said = match outcome {
        Ok(said) => said,
        Err(EngineError::Invalid(waiting))
            if matches!(waiting.as_str(), "authorization_pending" | "slow_down") =>
        {
            return Err(EngineError::Invalid(waiting));
        }
        // The provider could not be asked; the next poll may do better.
        Err(err @ EngineError::Upstream(_)) => return Err(err),
        Err(err) => {
            Pending::remove(ctx, state)?;
            return Err(err);
        }
    };
    // Another poll may have been quicker.
    Pending::find(ctx, state)?;
    Pending::remove(ctx, state)?;
    give(ctx, &pending, serde_json::from_value(client).unwrap_or_default(), &said)
}
