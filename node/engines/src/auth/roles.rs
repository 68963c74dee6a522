//! Roles of a method, by name: what kubernetes and jwt do with them alike.
//!
//! Stored at `role/<name>`, the name in its one form ([`names::name`]).

use arca_engine_api::{Ctx, EngineError, Fields, Request, Response, StorageExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::names;
use super::token_params::{TokenParams, warn_of_max_ttl};

/// What a method keeps of a role.
pub(super) trait StoredRole:
    Clone + Default + DeserializeOwned + Send + Serialize + Sync + 'static
{
    /// Takes what a request says.
    ///
    /// # Errors
    /// When a field is of the wrong kind.
    fn update(&mut self, fields: Fields<'_>) -> Result<(), EngineError>;

    /// Whether it makes sense as a whole.
    ///
    /// # Errors
    /// When it does not.
    fn check(&self) -> Result<(), EngineError>;

    /// As clients see it.
    fn show(&self) -> Value;

    /// What its tokens are like.
    fn token(&self) -> &TokenParams;
}

fn key(name: &str) -> String {
    format!("role/{name}")
}

/// The role of that name, in its one form.
pub(super) fn find<R: StoredRole>(ctx: &Ctx<'_>, name: &str) -> Result<Option<R>, EngineError> {
    Ok(ctx.storage.get_shared::<R>(&key(name))?.map(|role| R::clone(&role)))
}

/// Whether there is a role of the name in the path.
pub(super) fn exists(ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
    let Some(name) = names::name(request.param("name")) else { return Ok(Some(false)) };
    Ok(Some(ctx.storage.get(&key(&name))?.is_some()))
}

/// Names of roles.
pub(super) fn list(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    Ok(Response::list(ctx.storage.list("role/", &names::page(request.fields())?)?))
}

/// A role.
pub(super) fn read<R: StoredRole>(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let name = names::name(request.param("name"));
    let found = name.map(|name| find::<R>(ctx, &name)).transpose()?.flatten();
    Ok(found.map_or_else(Response::empty, |role| Response::data(role.show())))
}

/// Takes a role away.
pub(super) fn delete(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    if let Some(name) = names::name(request.param("name")) {
        ctx.storage.delete(&key(&name))?;
    }
    Ok(Response::empty())
}

/// Makes a role or changes one; answers what it is now, and what there is to say to the client.
pub(super) fn write<R: StoredRole>(ctx: &Ctx<'_>, request: &Request) -> Result<(R, Response), EngineError> {
    let text = "invalid role name: letters, digits and _, with - and . in between";
    let name = names::name(request.param("name")).ok_or_else(|| EngineError::invalid(text))?;
    let mut role = find::<R>(ctx, &name)?.unwrap_or_default();
    role.update(request.fields())?;
    role.check()?;
    ctx.storage.put_record(&key(&name), &role)?;
    let response = warn_of_max_ttl(ctx, role.token(), Response::empty());
    Ok((role, response))
}
