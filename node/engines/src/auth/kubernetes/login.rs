//! Logins with a service account's token, and the renewal of the tokens they gave.

use std::collections::BTreeMap;

use arca_engine_api::{Ctx, EngineError, LeaseRecord, Login, Map, Request, Response};
use serde_json::{Value, json};

use super::account::Account;
use super::config::Config;
use super::review::{labels, review};
use super::role::Role;
use crate::auth::jose::{Jws, audiences, times};
use crate::auth::{names, roles};

/// A login.
pub(super) async fn login(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let fields = request.fields();
    let given = |name: &str| Ok::<_, EngineError>(fields.string(name)?.filter(|text| !text.is_empty()));
    let name = given("role")?.ok_or_else(|| EngineError::invalid("missing role"))?;
    let token = given("jwt")?.ok_or_else(|| EngineError::invalid("missing jwt"))?;
    let unknown = || EngineError::invalid("invalid role name");
    let name = names::name(&name).ok_or_else(unknown)?;
    let role = roles::find::<Role>(ctx, &name)?.ok_or_else(unknown)?;
    role.token.check_address(request)?;
    let config = Config::load(ctx)?;
    let config = config.ok_or_else(|| EngineError::invalid("could not load backend configuration"))?;
    let token = token.trim();
    let account = accepted(ctx, &config, &role, token).await?;
    let metadata = BTreeMap::from([
        ("service_account_name".to_owned(), account.name.clone()),
        ("service_account_namespace".to_owned(), account.namespace.clone()),
        ("service_account_secret_name".to_owned(), account.secret_name.clone()),
        ("service_account_uid".to_owned(), account.uid.clone()),
    ]);
    let mut token_metadata = metadata.clone();
    token_metadata.insert("role".to_owned(), name.clone());
    // The token is kept, sealed with what it gave: a renewal asks about it again.
    let internal = json!({"role": name, "jwt": token});
    let login = Login {
        alias_name: role.alias_of(&account),
        alias_metadata: metadata,
        display_name: format!("{}-{}", account.namespace, account.name),
        metadata: token_metadata,
        internal: internal.as_object().cloned().unwrap_or_default(),
        ..role.token.login(request)?
    };
    Ok(Response { login: Some(login), ..Response::default() })
}

/// The account of a token that is good for the role: by what it says, and by what the cluster says of it.
async fn accepted(ctx: &Ctx<'_>, config: &Config, role: &Role, token: &str) -> Result<Account, EngineError> {
    let claims = claims(config, token)?;
    check(ctx, config, role, &claims)?;
    let account = Account::of(&claims);
    if !role.takes_name(&account.name) {
        return Err(EngineError::Forbidden("service account name not authorized".to_owned()));
    }
    if !account.is_sound() {
        return Err(EngineError::Denied);
    }
    let api = config.api(ctx).await?;
    let selector = role.selector()?;
    let is_listed = role.takes_namespace(&account.namespace);
    if !is_listed && selector.is_none() {
        return Err(EngineError::Forbidden("namespace not authorized".to_owned()));
    }
    review(ctx, &api, token, &wanted_audiences(role, &claims), &account).await?;
    // Only for tokens the cluster stands by: else anybody could have namespaces looked up.
    if let Some(selector) = selector.filter(|_| !is_listed)
        && !selector.matches(&labels(ctx, &api, &account.namespace).await?)
    {
        return Err(EngineError::Forbidden("namespace not authorized".to_owned()));
    }
    Ok(account)
}

/// The claims, signed by one of the keys of the settings if there are any; else the cluster's word is all there is.
fn claims(config: &Config, token: &str) -> Result<Map, EngineError> {
    let jws = Jws::parse(token).map_err(|_| EngineError::Denied)?;
    let keys = config.keys()?;
    let claims = if keys.is_empty() { jws.unverified_claims() } else { jws.claims(&keys) };
    claims.map_err(|_| EngineError::Denied)
}

fn check(ctx: &Ctx<'_>, config: &Config, role: &Role, claims: &Map) -> Result<(), EngineError> {
    let refuse = |text: &str| Err(EngineError::Forbidden(text.to_owned()));
    let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
    if config.wanted_issuer().is_some_and(|wanted| wanted != issuer) {
        return refuse("invalid issuer (iss) claim");
    }
    let found = audiences::of(claims).ok_or(EngineError::Denied)?;
    if !role.audience.is_empty() && !found.contains(&role.audience) {
        return refuse("invalid audience (aud) claim: audience claim does not match any expected audience");
    }
    times::check_given(claims, ctx.clock.now()).or_else(|err| refuse(&err.to_string()))
}

/// For whom the cluster is asked whether the token is: for the role's audience, else for those the token names.
fn wanted_audiences(role: &Role, claims: &Map) -> Vec<String> {
    if role.audience.is_empty() {
        audiences::of(claims).unwrap_or_default()
    } else {
        vec![role.audience.clone()]
    }
}

/// A renewal: the role must still be there, and the cluster must still stand by the token of the login. So an account
/// that was deleted, or a token that ended, ends what it gave (CVE-2026-115356).
pub(super) async fn renew(ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
    let kept = |name: &str| lease.internal.get(name).and_then(Value::as_str).unwrap_or_default();
    let role = roles::find::<Role>(ctx, kept("role"))?;
    let role = role.ok_or_else(|| EngineError::invalid("the role does not exist during renewal"))?;
    let config = Config::load(ctx)?;
    let config = config.ok_or_else(|| EngineError::invalid("could not load backend configuration"))?;
    let gone = |err: EngineError| match err {
        EngineError::Denied => EngineError::Forbidden(
            "failed to validate that token and service account still exist during renewal: permission denied"
                .to_owned(),
        ),
        err => err,
    };
    let token = kept("jwt");
    let claims = claims(&config, token).map_err(gone)?;
    let account = Account::of(&claims);
    let api = config.api(ctx).await?;
    review(ctx, &api, token, &wanted_audiences(&role, &claims), &account).await.map_err(gone)?;
    Ok(role.token.renewal(lease))
}
