//! Logins, and the renewal of their tokens.
//!
//! With a secret id of unlimited uses, a login reads three small records that are kept decoded and writes nothing of
//! the mount's; with a counted one, the use is taken in the login's own transaction, so that of two logins at once one
//! is run again and finds it gone.

use arca_engine_api::{Cidr, Ctx, EngineError, LeaseRecord, Login, Request, Response};
use serde_json::Value;
use zeroize::Zeroizing;

use super::keys::Keys;
use super::role::{self, Role, blocks};
use super::secret_id::{self, SecretId};

/// The same whether the role id or the secret id is wrong.
const REFUSAL: &str = "invalid role or secret ID";

/// Whom a login says it is of.
pub(super) fn name(request: &Request) -> Option<String> {
    let role_id = request.fields().string("role_id").ok().flatten()?;
    Some(role_id.trim().to_owned()).filter(|name| !name.is_empty())
}

/// A login.
pub(super) fn login(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let role_id = request.fields().string("role_id")?.unwrap_or_default();
    let role_id = role_id.trim();
    if role_id.is_empty() {
        return Err(EngineError::invalid("missing role_id"));
    }
    let keys = Keys::of(ctx)?;
    let text = Zeroizing::new(request.fields().string("secret_id")?.unwrap_or_default());
    let text = text.trim();
    let found = role::find_by_id(ctx, &keys, role_id)?;
    // Without a secret id, a role nobody has answers as one that asks for it: the two must not be told apart.
    if text.is_empty() && found.as_ref().is_none_or(|role| role.bind_secret_id) {
        return Err(EngineError::invalid("missing secret_id"));
    }
    let role = found.ok_or(EngineError::BadLogin { text: REFUSAL })?;
    let secret = if role.bind_secret_id { Some(secret_of(ctx, text, &keys, &role)?) } else { None };
    check_from(request, &role.secret_id_bound_cidrs)?;
    if let Some((hash, secret)) = &secret {
        secret_id::check_subset(&secret.cidr_list, &role.secret_id_bound_cidrs)?;
        check_from(request, &secret.cidr_list)?;
        secret_id::take_use(ctx, &role, hash, secret)?;
    }
    let secret = secret.as_ref().map(|(_, secret)| &**secret);
    Ok(Response { login: Some(granted(request, &role, secret)?), ..Response::default() })
}

/// The secret id that came with the login. A keyed hash finds it, so there is nothing to compare.
fn secret_of(
    ctx: &Ctx<'_>,
    text: &str,
    keys: &Keys,
    role: &Role,
) -> Result<(String, std::sync::Arc<SecretId>), EngineError> {
    let hash = keys.secret(role, text);
    let found = secret_id::find(ctx, role, &hash)?.filter(|secret| secret.is_good(ctx.clock.now()));
    let secret = found.ok_or(EngineError::BadLogin { text: REFUSAL })?;
    Ok((hash, secret))
}

/// # Errors
/// When the login comes from elsewhere.
fn check_from(request: &Request, ranges: &[String]) -> Result<(), EngineError> {
    if Cidr::any_contains(&blocks(ranges)?, request.remote_addr) {
        return Ok(());
    }
    Err(EngineError::invalid("source address unauthorized by CIDR restrictions on the role or the secret ID"))
}

fn granted(request: &Request, role: &Role, secret: Option<&SecretId>) -> Result<Login, EngineError> {
    let metadata = secret_id::login_metadata(role, secret);
    let mut login = Login {
        alias_name: role.role_id.clone(),
        alias_metadata: metadata.clone(),
        metadata,
        internal: secret_id::internal(role),
        ..role.token.login(request)?
    };
    let of_secret = secret.map(|secret| secret.token_bound_cidrs.as_slice()).unwrap_or_default();
    if !of_secret.is_empty() && !role.token.binds_address {
        login.bound_cidrs = of_secret.to_vec();
    }
    Ok(login)
}

/// A renewal: the role must still be there.
pub(super) fn renew(ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
    let kept = |name: &str| lease.internal.get(name).and_then(Value::as_str).unwrap_or_default();
    let role = role::find(ctx, kept("role_name"))?.filter(|role| role.uid == kept("role_uid"));
    let role = role.ok_or_else(|| EngineError::invalid("the role does not exist during renewal"))?;
    Ok(role.token.renewal(lease))
}
