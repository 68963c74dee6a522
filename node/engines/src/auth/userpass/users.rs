//! Users: one record each, by lower-case name.

use std::collections::BTreeSet;

use arca_engine_api::{Ctx, EngineError, Fields, Map, Request, Response, StorageExt as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::password::{COSTS_MAX, Cost, PASSWORD_MAX, PasswordHash, salt};
use super::routes::OLD_NAMES;
use crate::auth::names;
use crate::auth::token_params::TokenParams;

const COSTS: &str = "costs";
/// Users looked at when the costs in use are counted anew.
const COUNTED_MAX: usize = 10_000;

/// A user as stored.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct User {
    /// There is always one once it is stored.
    pub(super) password_hash: Option<PasswordHash>,
    /// What its tokens are like.
    pub(super) token: TokenParams,
}

fn key(name: &str) -> String {
    format!("user/{name}")
}

/// The user of that name, in its one form.
pub(super) fn find(ctx: &Ctx<'_>, name: &str) -> Result<Option<User>, EngineError> {
    Ok(ctx.storage.get_record(&key(name))?)
}

/// What password hashes in use on the mount cost.
pub(super) fn costs(ctx: &Ctx<'_>) -> Result<BTreeSet<Cost>, EngineError> {
    Ok(ctx.storage.get_record(COSTS)?.unwrap_or_default())
}

/// Whether there is a user of the name in the path.
pub(super) fn exists(ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
    let Some(name) = names::name(request.param("username")) else { return Ok(Some(false)) };
    Ok(Some(ctx.storage.get(&key(&name))?.is_some()))
}

fn name_of(request: &Request) -> Result<String, EngineError> {
    let text = "invalid username: letters, digits and _, with - and . in between";
    names::name(request.param("username")).ok_or_else(|| EngineError::invalid(text))
}

/// Names of users.
pub(super) fn list(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    Ok(Response::list(ctx.storage.list("user/", &names::page(request.fields())?)?))
}

/// A user, without its password.
pub(super) fn read(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let name = names::name(request.param("username"));
    let found = name.map(|name| find(ctx, &name)).transpose()?.flatten();
    let Some(user) = found else { return Ok(Response::empty()) };
    let mut data = Map::new();
    user.token.show(&mut data);
    Ok(Response { data: Some(data), ..Response::default() })
}

/// Removes a user. Tokens of its logins live on until they are to be renewed.
pub(super) fn delete(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    if let Some(name) = names::name(request.param("username")) {
        ctx.storage.delete(&key(&name))?;
    }
    Ok(Response::empty())
}

/// Makes a user or changes one.
pub(super) async fn write(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let name = name_of(request)?;
    let found = find(ctx, &name)?;
    let is_new = found.is_none();
    let mut user = found.unwrap_or_default();
    user.token.update(request.fields(), OLD_NAMES)?;
    if is_new || has_password(request.fields())? {
        user.set_password(ctx, request.fields()).await?;
    }
    ctx.storage.put_record(&key(&name), &user)?;
    Ok(Response::empty())
}

/// Changes a user's password, or its policies alone.
pub(super) async fn write_part(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let name = name_of(request)?;
    let mut user = find(ctx, &name)?.ok_or_else(|| EngineError::invalid("username does not exist"))?;
    if request.route.id == "password" {
        user.set_password(ctx, request.fields()).await?;
    } else {
        let wanted = |(name, _): &(&String, _)| matches!(name.as_str(), "policies" | "token_policies");
        let data: Map =
            request.data.iter().filter(wanted).map(|(name, value)| (name.clone(), value.clone())).collect();
        user.token.update(Fields::new(&data), OLD_NAMES)?;
    }
    ctx.storage.put_record(&key(&name), &user)?;
    Ok(Response::empty())
}

fn has_password(fields: Fields<'_>) -> Result<bool, EngineError> {
    for name in ["password", "password_hash"] {
        if fields.string(name)?.map(Zeroizing::new).is_some_and(|text| !text.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl User {
    /// Takes `password` or `password_hash`.
    async fn set_password(&mut self, ctx: &Ctx<'_>, fields: Fields<'_>) -> Result<(), EngineError> {
        let given = |name| {
            let text = fields.string(name)?.map(Zeroizing::new);
            Ok::<_, EngineError>(text.filter(|text| !text.is_empty()))
        };
        let hash = match (given("password")?, given("password_hash")?) {
            (Some(password), None) if password.len() > PASSWORD_MAX => {
                return Err(EngineError::Invalid(format!("a password has at most {PASSWORD_MAX} bytes")));
            }
            (Some(password), None) => {
                let salt = salt(ctx.entropy)?;
                ctx.compute(move || PasswordHash::of(password.as_bytes(), salt)).await??
            }
            (None, Some(hash)) => PasswordHash::parse(&hash)?,
            (Some(_), Some(_)) => {
                return Err(EngineError::invalid("only one of password or password_hash may be provided"));
            }
            (None, None) => {
                return Err(EngineError::invalid("must provide either password or password_hash"));
            }
        };
        note_cost(ctx, hash.cost())?;
        self.password_hash = Some(hash);
        Ok(())
    }
}

/// Notes that a cost is in use.
fn note_cost(ctx: &Ctx<'_>, cost: Cost) -> Result<(), EngineError> {
    let mut costs = costs(ctx)?;
    if !costs.insert(cost) {
        return Ok(());
    }
    if costs.len() > COSTS_MAX {
        return Err(EngineError::Invalid(format!(
            "the password hashes of one mount have at most {COSTS_MAX} different costs"
        )));
    }
    Ok(ctx.storage.put_record(COSTS, &costs)?)
}

/// Counts the costs in use anew, if there are several: each makes every login dearer.
pub(super) fn recount(ctx: &Ctx<'_>) -> Result<(), EngineError> {
    let noted = costs(ctx)?;
    if noted.len() < 2 {
        return Ok(());
    }
    let page = arca_engine_api::Page { limit: Some(COUNTED_MAX), ..Default::default() };
    let users = ctx.storage.list("user/", &page)?;
    if users.len() == COUNTED_MAX {
        return Ok(());
    }
    let mut used = BTreeSet::new();
    for name in users {
        let hash = find(ctx, &name)?.and_then(|user| user.password_hash);
        used.extend(hash.as_ref().map(PasswordHash::cost));
    }
    if used != noted {
        ctx.storage.put_record(COSTS, &used)?;
    }
    Ok(())
}
