//! Static roles: users that are there already, whose passwords are changed from time to time.
//!
//! **Invariant:** a password is stored before the database hears of it, and is the one that is shown once the database is
//! known to have it. In between both are kept, and whoever carries on sets the same one again.
//!
//! Read next: [`super::rotation`].

use arca_engine_api::{
    Ctx, EngineError, Page, Request, Response, Storage, StorageError, StorageExt as _, UnixMillis, rfc3339,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::Config;
use super::connections::Connections;
use super::credential::{Credential, CredentialType};
use super::due::{Due, Work};
use super::fields::{check_name, page, statements};
use super::pending::{Pending, check_at_rest};
use super::schedule::Schedule;
use super::{lockouts, roles, rotation, usernames};

/// Where static roles lie.
const ROLES: &str = "static-role/";

/// A static role's record.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StaticRole {
    layout: u8,
    pub(super) db_name: String,
    pub(super) username: String,
    pub(super) statements: Vec<String>,
    pub(super) credential: Credential,
    pub(super) schedule: Schedule,
    /// None until the first change.
    pub(super) password: Option<String>,
    /// The password being set, until it is known to be.
    pub(super) next: Option<Pending>,
    /// Of the last change.
    pub(super) rotated: Option<UnixMillis>,
    /// When the next change is wanted.
    pub(super) scheduled: UnixMillis,
    /// When a tick looks at it: then, or later, when it failed.
    pub(super) due: UnixMillis,
    /// In a row.
    pub(super) failures: u32,
}

impl StaticRole {
    const LAYOUT: u8 = 1;

    pub(super) fn find(storage: &dyn Storage, name: &str) -> Result<Option<Self>, StorageError> {
        storage.get_record(&at(name))
    }

    fn due_entry(&self, name: &str) -> Due {
        Due::new(&self.db_name, self.due, Work::Static, name)
    }

    /// Stages the record, to be looked at at `due`.
    pub(super) fn store(
        &mut self,
        storage: &dyn Storage,
        name: &str,
        due: UnixMillis,
    ) -> Result<(), StorageError> {
        self.due_entry(name).remove(storage)?;
        self.due = due;
        self.due_entry(name).store(storage)?;
        storage.put_record(&at(name), self)
    }

    /// Stages the removal.
    pub(super) fn remove(&self, storage: &dyn Storage, name: &str) -> Result<(), StorageError> {
        self.due_entry(name).remove(storage)?;
        storage.delete(&at(name))
    }

    fn show_schedule(&self, data: &mut Map<String, Value>) {
        match &self.schedule {
            Schedule::Period(period) => {
                data.insert("rotation_period".to_owned(), period.as_secs().into());
            }
            Schedule::Calendar { cron, window } => {
                data.insert("rotation_schedule".to_owned(), cron.as_str().into());
                if !window.is_zero() {
                    data.insert("rotation_window".to_owned(), window.as_secs().into());
                }
            }
        }
        if let Some(rotated) = self.rotated {
            data.insert("last_vault_rotation".to_owned(), rfc3339::format(rotated).into());
        }
    }
}

fn at(name: &str) -> String {
    format!("{ROLES}{name}")
}

/// Whether there is a static role of that name.
pub(super) fn exists(storage: &dyn Storage, name: &str) -> Result<bool, StorageError> {
    Ok(storage.get(&at(name))?.is_some())
}

/// The names of all static roles.
pub(super) fn names(storage: &dyn Storage) -> Result<Vec<String>, StorageError> {
    storage.list(ROLES, &Page::default())
}

pub(super) fn list(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    Ok(Response::list(ctx.storage.list(ROLES, &page(request)?)?))
}

pub(super) fn read(ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
    let Some(role) = StaticRole::find(ctx.storage, name)? else { return Ok(Response::empty()) };
    let mut data = Map::new();
    data.insert("credential_type".to_owned(), role.credential.kind.as_str().into());
    data.insert("db_name".to_owned(), role.db_name.as_str().into());
    data.insert("rotation_statements".to_owned(), json!(role.statements));
    data.insert("username".to_owned(), role.username.as_str().into());
    data.extend(role.credential.show().map(|config| ("credential_config".to_owned(), config)));
    role.show_schedule(&mut data);
    Ok(Response { data: Some(data), ..Response::default() })
}

pub(super) fn delete(ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
    if let Some(role) = StaticRole::find(ctx.storage, name)? {
        check_at_rest(role.next.as_ref(), ctx.clock.now())?;
        role.remove(ctx.storage, name)?;
    }
    Ok(Response::empty())
}

/// The password of today.
pub(super) fn creds(ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
    let unknown = || EngineError::Invalid(format!("unknown role: {name}"));
    let role = StaticRole::find(ctx.storage, name)?.ok_or_else(unknown)?;
    Config::require(ctx.storage, &role.db_name)?.check_role(name)?;
    // Its first password is being set, and may not be yet.
    let password = role.password.as_deref().ok_or_else(unknown)?;
    let ttl = role.scheduled.since(ctx.clock.now());
    let mut data = Map::new();
    data.insert("password".to_owned(), password.into());
    data.insert("ttl".to_owned(), ttl.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX).into());
    data.insert("username".to_owned(), role.username.as_str().into());
    role.show_schedule(&mut data);
    Ok(Response { data: Some(data), ..Response::default() })
}

/// Makes a static role, which changes its user's password at once, or changes it.
pub(super) fn write(
    ctx: &Ctx<'_>,
    connections: &Connections,
    request: &Request,
) -> Result<Response, EngineError> {
    let (name, fields) = (request.param("name"), request.fields());
    check_name(name)?;
    if roles::exists(ctx.storage, name)? {
        return Err(EngineError::invalid("Role and Static Role names must be unique"));
    }
    let before = StaticRole::find(ctx.storage, name)?;
    let is_new = before.is_none();
    if let Some(before) = &before {
        // It stands elsewhere once the role is of another connection.
        before.due_entry(name).remove(ctx.storage)?;
    }
    let whose = |role: &StaticRole| (role.db_name.clone(), role.username.clone());
    let was = before.as_ref().map(whose);
    let mut role = changed(before, request)?;
    let config = Config::require(ctx.storage, &role.db_name)?;
    config.check_role(name)?;
    let kind = connections.kind(&config)?;
    usernames::check(&role.username, kind.username_max)?;
    if was != Some(whose(&role)) {
        lockouts::check_role(ctx, connections, &role.username, &role.db_name, &config)?;
    }
    role.credential.change(fields)?;
    if role.credential.kind != CredentialType::Password {
        return Err(EngineError::Invalid(format!(
            "unsupported credential_type: {:?}",
            role.credential.kind.as_str()
        )));
    }
    let now = ctx.clock.now();
    if is_new {
        // Refuses a calendar that never comes before anything is changed.
        role.schedule.next(now, now)?;
        return rotation::begin(ctx, &config, role, name, true);
    }
    if role.next.is_none() {
        role.scheduled = role.schedule.next(role.rotated.unwrap_or(now), now)?;
        let due = role.scheduled;
        role.store(ctx.storage, name, due)?;
    } else {
        let due = role.due;
        role.store(ctx.storage, name, due)?;
    }
    Ok(Response::empty())
}

fn changed(before: Option<StaticRole>, request: &Request) -> Result<StaticRole, EngineError> {
    let fields = request.fields();
    let db_name = fields.string("db_name")?.filter(|name| !name.is_empty());
    let username = fields.string("username")?.filter(|name| !name.is_empty());
    let schedule = Schedule::read(fields, before.as_ref().map(|role| &role.schedule));
    let mut role = match before {
        Some(role) => {
            if username.is_some_and(|username| username != role.username) {
                return Err(EngineError::invalid("cannot update static account username"));
            }
            let is_moved = db_name.as_ref().is_some_and(|db_name| *db_name != role.db_name);
            if is_moved && role.next.is_some() {
                return Err(EngineError::invalid(
                    "the password is being changed: the static role can be moved to another connection after that",
                ));
            }
            let schedule = schedule?.unwrap_or_else(|| role.schedule.clone());
            StaticRole { db_name: db_name.unwrap_or(role.db_name), schedule, ..role }
        }
        None => {
            let missing = |text: &str| EngineError::invalid(text);
            StaticRole {
                layout: StaticRole::LAYOUT,
                db_name: db_name.ok_or_else(|| missing("database name is a required field"))?,
                username: username
                    .ok_or_else(|| missing("username is a required field to create a static account"))?,
                statements: Vec::new(),
                credential: Credential::default(),
                schedule: schedule?.ok_or_else(|| {
                    missing("rotation_period or rotation_schedule is required to create static accounts")
                })?,
                password: None,
                next: None,
                rotated: None,
                scheduled: UnixMillis::default(),
                due: UnixMillis::default(),
                failures: 0,
            }
        }
    };
    if let Some(found) = statements(fields, "rotation_statements")? {
        role.statements = found;
    }
    Ok(role)
}
