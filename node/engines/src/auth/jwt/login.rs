//! Logins with a token that the client has, and the renewal of any login's token.

use arca_engine_api::{Ctx, EngineError, LeaseRecord, Login, Map, Request, Response};
use serde_json::Value;

use super::config::{Config, text};
use super::role::{Role, RoleType};
use super::{Jwt, claims, custom, role};
use crate::auth::jose::{JoseError, Jws, audiences, times};
use crate::auth::roles;

/// The role a request names, or the mount's.
pub(super) fn role_name(request: &Request, config: Option<&Config>) -> Result<String, EngineError> {
    let named = request.fields().string("role")?.filter(|name| !name.is_empty());
    let named = named.or_else(|| config.map(|config| config.default_role.clone()));
    named.filter(|name| !name.is_empty()).ok_or_else(|| EngineError::invalid("missing role"))
}

/// A login.
pub(super) async fn login(jwt: &Jwt, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let config = Config::load(ctx)?;
    let (name, role) = role::wanted(ctx, &role_name(request, config.as_ref())?)?;
    if role.role_type == RoleType::Oidc {
        return Err(EngineError::invalid("role with oidc role_type is not allowed"));
    }
    let token = request.fields().string("jwt")?.filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| EngineError::invalid("missing token"))?;
    role.token.check_address(request)?;
    let config = config.ok_or_else(|| EngineError::invalid("could not load configuration"))?;
    let claims = verified(jwt, ctx, &config, &token).await?;
    check(&config, &role, &claims, ctx)?;
    let groups = custom::groups(ctx, &config, &role, &claims, None).await?;
    let who = claims::identity(&name, &role, &claims, groups.as_ref())?;
    let login = with_token(who, role.token.login(request)?);
    Ok(Response { login: Some(login), ..Response::default() })
}

/// Who it is, with what the role gives.
pub(super) fn with_token(who: Login, token: Login) -> Login {
    let Login { alias_name, alias_metadata, display_name, metadata, group_aliases, internal, .. } = who;
    Login { alias_name, alias_metadata, display_name, metadata, group_aliases, internal, ..token }
}

/// The claims of a token that the mount's keys signed.
async fn verified(jwt: &Jwt, ctx: &Ctx<'_>, config: &Config, token: &str) -> Result<Map, EngineError> {
    let signature = "error validating token: error verifying token signature";
    let unexpected = || {
        let why = "error validating token: invalid algorithm (alg) header parameter";
        EngineError::Invalid(format!("{why}: {}", JoseError::Algorithm))
    };
    let jws = Jws::parse(token).map_err(|err| match err {
        JoseError::Algorithm => unexpected(),
        err => EngineError::Invalid(format!("{signature}: {err}")),
    })?;
    if !config.takes(jws.alg) {
        return Err(unexpected());
    }
    match config.source() {
        Some(source) => jwt.provider.claims(ctx, &source, &jws).await.map_err(|err| err.at(signature)),
        None => {
            let keys = config.pubkeys()?;
            jws.claims(&keys).map_err(|err| EngineError::Invalid(format!("{signature}: {err}")))
        }
    }
}

/// Whether a token is from whom, about whom, for whom and of when it must be.
fn check(config: &Config, role: &Role, claims: &Map, ctx: &Ctx<'_>) -> Result<(), EngineError> {
    let refuse = |text: &str| Err(EngineError::Invalid(format!("error validating token: {text}")));
    let is_text = |name: &str| claims.get(name).is_none_or(|value| value.is_string() || value.is_null());
    if !is_text("iss") || !is_text("sub") {
        return refuse("iss and sub must be strings");
    }
    // Providers of many tenants sign for all of them with the same keys: the issuer tells them apart.
    let issuer =
        if config.bound_issuer.is_empty() { &config.oidc_discovery_url } else { &config.bound_issuer };
    if !issuer.is_empty() && text(claims, "iss") != issuer {
        return refuse("invalid issuer (iss) claim");
    }
    if !role.bound_subject.is_empty() && text(claims, "sub") != role.bound_subject {
        return refuse("invalid subject (sub) claim");
    }
    let Some(audiences) = audiences::of(claims) else {
        return refuse("aud must be a string or a list of strings");
    };
    let bound = role.bound_audiences.as_deref().unwrap_or_default();
    if !bound.is_empty() && !audiences::meet(&audiences, bound) {
        let text = "invalid audience (aud) claim: audience claim does not match any expected audience";
        return refuse(text);
    }
    times::check(claims, role.leeways(), ctx.clock.now()).or_else(|err| refuse(&err.to_string()))?;
    // A token made for somebody else says nothing here.
    if bound.is_empty() && !audiences.is_empty() {
        return Err(EngineError::invalid("audience claim found in JWT but no audiences bound to the role"));
    }
    Ok(())
}

/// A renewal: the role must still be there; it says how long the token may live now.
pub(super) fn renew(ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
    let name = lease.internal.get("role").and_then(Value::as_str).unwrap_or_default();
    let role = roles::find::<Role>(ctx, name)?;
    let role = role.ok_or_else(|| EngineError::invalid("the role does not exist during renewal"))?;
    Ok(role.token.renewal(lease))
}
