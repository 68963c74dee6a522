//! Roles: what users of a database are made like.

use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, Request, Response, Storage, StorageError, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::credential::Credential;
use super::fields::{check_name, page, statements};
use super::static_roles;

/// Where roles lie.
const ROLES: &str = "role/";

/// A role's record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    layout: u8,
    pub(super) db_name: String,
    pub(super) creation: Vec<String>,
    pub(super) revocation: Vec<String>,
    pub(super) rollback: Vec<String>,
    pub(super) renewal: Vec<String>,
    pub(super) default_ttl: Duration,
    pub(super) max_ttl: Duration,
    pub(super) credential: Credential,
}

impl Role {
    const LAYOUT: u8 = 1;

    pub(super) fn find(storage: &dyn Storage, name: &str) -> Result<Option<Self>, StorageError> {
        storage.get_record(&at(name))
    }

    fn empty() -> Self {
        Self {
            layout: Self::LAYOUT,
            db_name: String::new(),
            creation: Vec::new(),
            revocation: Vec::new(),
            rollback: Vec::new(),
            renewal: Vec::new(),
            default_ttl: Duration::ZERO,
            max_ttl: Duration::ZERO,
            credential: Credential::default(),
        }
    }

    fn show(&self) -> Response {
        let mut data = json!({
            "creation_statements": self.creation,
            "credential_type": self.credential.kind.as_str(),
            "db_name": self.db_name,
            "default_ttl": self.default_ttl.as_secs(),
            "max_ttl": self.max_ttl.as_secs(),
            "renew_statements": self.renewal,
            "revocation_statements": self.revocation,
            "rollback_statements": self.rollback,
        });
        if let (Some(config), Value::Object(data)) = (self.credential.show(), &mut data) {
            data.insert("credential_config".to_owned(), config);
        }
        Response::data(data)
    }
}

fn at(name: &str) -> String {
    format!("{ROLES}{name}")
}

/// Whether there is a role of that name.
pub(super) fn exists(storage: &dyn Storage, name: &str) -> Result<bool, StorageError> {
    Ok(storage.get(&at(name))?.is_some())
}

pub(super) fn list(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    Ok(Response::list(ctx.storage.list(ROLES, &page(request)?)?))
}

pub(super) fn read(ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
    Ok(Role::find(ctx.storage, name)?.map_or_else(Response::empty, |role| role.show()))
}

pub(super) fn delete(ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
    ctx.storage.delete(&at(name))?;
    Ok(Response::empty())
}

/// Makes or changes a role.
pub(super) fn write(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (name, fields) = (request.param("name"), request.fields());
    check_name(name)?;
    if static_roles::exists(ctx.storage, name)? {
        return Err(EngineError::invalid("Role and Static Role names must be unique"));
    }
    let mut role = Role::find(ctx.storage, name)?.unwrap_or_else(Role::empty);
    if let Some(db_name) = fields.string("db_name")? {
        role.db_name = db_name;
    }
    if role.db_name.is_empty() {
        return Err(EngineError::invalid("database name is required"));
    }
    role.credential.change(fields)?;
    for (field, place) in [
        ("creation_statements", &mut role.creation),
        ("revocation_statements", &mut role.revocation),
        ("rollback_statements", &mut role.rollback),
        ("renew_statements", &mut role.renewal),
    ] {
        if let Some(found) = statements(fields, field)? {
            *place = found;
        }
    }
    // Blank ones would run as nothing and count as done.
    role.revocation.retain(|statement| !statement.trim().is_empty());
    if let Some(ttl) = fields.duration("default_ttl")? {
        role.default_ttl = ttl;
    }
    if let Some(ttl) = fields.duration("max_ttl")? {
        role.max_ttl = ttl;
    }
    ctx.storage.put_record(&at(name), &role)?;
    Ok(Response::empty())
}
