//! Logins, and the renewal of their tokens.

use arca_engine_api::{Ctx, EngineError, LeaseRecord, Login, Map, Request, Response};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::password::{Cost, PASSWORD_MAX, check};
use super::users;
use crate::auth::names;
use crate::auth::token_params::are_equivalent;

/// The same for whoever it is, known or not.
const REFUSAL: &str = "invalid username or password";

/// A login.
pub(super) async fn login(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let password = Zeroizing::new(request.fields().string("password")?.unwrap_or_default());
    if password.is_empty() {
        return Err(EngineError::invalid("missing password"));
    }
    if password.len() > PASSWORD_MAX {
        return Err(EngineError::Invalid(format!("a password has at most {PASSWORD_MAX} bytes")));
    }
    let name = names::name(request.param("username"));
    let mut user = name.as_deref().map(|name| users::find(ctx, name)).transpose()?.flatten();
    let stored = user.as_mut().and_then(|user| user.password_hash.take());
    let mut costs: Vec<Cost> = users::costs(ctx)?.into_iter().collect();
    if costs.is_empty() {
        costs.push(Cost::DEFAULT);
    }
    let is_good =
        ctx.compute_for(request, move || check(password.as_bytes(), stored.as_ref(), &costs)).await??;
    let (Some(name), Some(user), true) = (name, &user, is_good) else {
        return Err(EngineError::BadLogin { text: REFUSAL });
    };
    user.token.check_address(request)?;
    let internal = json!({"username": name, "policies": user.token.policies});
    let login = Login {
        alias_name: name.clone(),
        display_name: name.clone(),
        metadata: [("username".to_owned(), name)].into(),
        internal: internal.as_object().cloned().unwrap_or_default(),
        ..user.token.login(request)?
    };
    Ok(Response { login: Some(login), ..Response::default() })
}

/// A renewal: the user must still be there, and with the same policies.
pub(super) fn renew(ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
    let name = lease.internal.get("username").and_then(Value::as_str).unwrap_or_default();
    let found = users::find(ctx, name)?;
    let user = found.ok_or_else(|| EngineError::invalid("the user is gone, not renewing"))?;
    if !are_equivalent(&policies(&lease.internal), &user.token.policies) {
        return Err(EngineError::invalid("policies have changed, not renewing"));
    }
    Ok(user.token.renewal(lease))
}

fn policies(internal: &Map) -> Vec<String> {
    let names = internal.get("policies").and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}
