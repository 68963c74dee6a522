//! Passwords that are changed: those of static roles and of connections themselves.
//!
//! Three steps, each safe to repeat. The new password is stored as the next one; the database is told to set it; once it
//! has, it becomes the current one. Between the steps the record stands in the index of what is due, so that a tick goes
//! on where a crash or a database that does not answer left it, with the same password. If the database says no, the next
//! password is dropped, for nothing has changed.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, Map, Request, Response, UnixMillis};

use super::adapter::{Failure, NewPassword};
use super::config::Config;
use super::connections::Connections;
use super::due::{self, Due, Work};
use super::intent::{Intent, Rotated, from_map, to_map};
use super::static_roles::StaticRole;

/// When a rotation is looked after that nobody has been heard of. Carrying it out has ended by then for certain.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);
/// Entries a tick looks at.
const LOOKED_AT_MAX: usize = 256;
/// Intents of one tick.
const INTENTS_MAX: usize = 48;
/// Intents of one tick for one database, so that one that hangs leaves room for others.
const INTENTS_PER_DATABASE_MAX: usize = 8;

/// Stages a static role with its next password, and intends to set it.
pub(super) fn begin(
    ctx: &Ctx<'_>,
    config: &Config,
    mut role: StaticRole,
    name: &str,
) -> Result<Response, EngineError> {
    if role.next_password.is_none() {
        role.next_password = Some(role.credential.password(ctx, &config.password_policy)?.to_string());
    }
    role.store(ctx.storage, name, ctx.clock.now().after(GIVEN_UP_AFTER))?;
    let intent = to_map(&Intent::RotateStatic { name: name.to_owned(), is_asked: true })?;
    Ok(Response { intent: Some(intent), ..Response::default() })
}

/// Changes a static role's password now.
pub(super) fn rotate_role(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let name = request.param("name");
    let role = StaticRole::find(ctx.storage, name)?;
    let role = role.ok_or_else(|| EngineError::invalid("no static role found for role name"))?;
    let config = Config::require(ctx.storage, &role.db_name)?;
    config.check_role(name)?;
    begin(ctx, &config, role, name)
}

/// Changes a connection's own password now.
pub(super) fn rotate_root(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let name = request.param("name");
    let mut config = Config::require(ctx.storage, name)?;
    for (what, value) in [("username", config.username()?), ("password", config.password.clone())] {
        if value.is_empty() {
            let text = format!("unable to rotate root credentials: no {what} in configuration");
            return Err(EngineError::Invalid(text));
        }
    }
    if config.next_password.is_none() {
        config.next_password = Some(ctx.passwords.generate(&config.password_policy)?.to_string());
    }
    retry_root_at(ctx, &mut config, name, ctx.clock.now().after(GIVEN_UP_AFTER))?;
    let intent = to_map(&Intent::RotateRoot { name: name.to_owned() })?;
    Ok(Response { intent: Some(intent), ..Response::default() })
}

fn retry_root_at(ctx: &Ctx<'_>, config: &mut Config, name: &str, due: UnixMillis) -> Result<(), EngineError> {
    Due::new(config.retry_due, Work::Root, name).remove(ctx.storage)?;
    config.retry_due = due;
    Due::new(due, Work::Root, name).store(ctx.storage)?;
    config.store(ctx.storage, ctx.entropy, name)
}

/// Sets a password in the database.
async fn set(
    connections: &Connections,
    db_name: &str,
    config: &Config,
    change: &NewPassword<'_>,
) -> Result<Map, EngineError> {
    let outcome = match connections.database(db_name, config) {
        Ok(database) => database.change_password(change).await,
        Err(err) => Err(Failure::Invalid(err)),
    };
    let failed = outcome.err().map(|failure| {
        let is_certain = failure.is_certain();
        let mut secrets = config.secrets();
        secrets.push(change.password);
        (failure.into_error(&secrets).to_string(), is_certain)
    });
    to_map(&Rotated { password: change.password.to_owned(), failed })
}

/// Sets a static role's next password.
pub(super) async fn carry_out_static(
    ctx: &Ctx<'_>,
    connections: &Connections,
    name: &str,
) -> Result<Map, EngineError> {
    let role = StaticRole::find(ctx.storage, name)?;
    // Deleted or done by another in between: there is nothing to do.
    let Some((role, password)) = role.and_then(|role| role.next_password.clone().map(|next| (role, next)))
    else {
        return to_map(&Rotated { password: String::new(), failed: None });
    };
    let config = Config::require(ctx.storage, &role.db_name)?;
    let change = NewPassword { username: &role.username, password: &password, statements: &role.statements };
    set(connections, &role.db_name, &config, &change).await
}

/// Sets a connection's next password.
pub(super) async fn carry_out_root(
    ctx: &Ctx<'_>,
    connections: &Connections,
    name: &str,
) -> Result<Map, EngineError> {
    let config = Config::require(ctx.storage, name)?;
    let Some(password) = &config.next_password else {
        return to_map(&Rotated { password: String::new(), failed: None });
    };
    let username = config.username()?;
    let statements = &config.root_rotation_statements;
    set(connections, name, &config, &NewPassword { username: &username, password, statements }).await
}

/// What came of it. Without an answer nothing is certain.
fn read(outcome: Result<Map, EngineError>) -> Result<Rotated, EngineError> {
    match outcome {
        Ok(map) => from_map(&map),
        Err(err) => Ok(Rotated { password: String::new(), failed: Some((err.to_string(), false)) }),
    }
}

/// Records what came of changing a static role's password.
pub(super) fn conclude_static(
    ctx: &Ctx<'_>,
    name: &str,
    is_asked: bool,
    outcome: Result<Map, EngineError>,
) -> Result<Response, EngineError> {
    let rotated = read(outcome)?;
    let Some(mut role) = StaticRole::find(ctx.storage, name)? else { return Ok(Response::empty()) };
    let now = ctx.clock.now();
    let Some((why, is_certain)) = rotated.failed else {
        if role.next_password.as_ref().is_some_and(|next| *next == rotated.password) {
            role.password = role.next_password.take();
            role.rotated = Some(now);
            role.failures = 0;
            role.scheduled = role.schedule.next(now, now)?;
            let due = role.scheduled;
            role.store(ctx.storage, name, due)?;
        }
        return Ok(Response::empty());
    };
    if role.password.is_none() && is_asked {
        role.remove(ctx.storage, name)?;
        return Err(EngineError::Upstream(format!("error setting credentials: {why}")));
    }
    if is_certain {
        role.next_password = None;
    }
    role.store(ctx.storage, name, now.after(due::retry_after(role.failures)))?;
    Err(EngineError::Upstream(format!(
        "unable to finish rotating credentials; retries will continue in the background but it is also safe to \
         retry manually: {why}"
    )))
}

/// Records what came of changing a connection's own password.
pub(super) fn conclude_root(
    ctx: &Ctx<'_>,
    connections: &Connections,
    name: &str,
    outcome: Result<Map, EngineError>,
) -> Result<Response, EngineError> {
    let rotated = read(outcome)?;
    connections.forget(name);
    let Some(mut config) = Config::find(ctx.storage, name)? else { return Ok(Response::empty()) };
    if config.next_password.is_none() {
        return Ok(Response::empty());
    }
    let is_certain = rotated.failed.as_ref().is_none_or(|(_, is_certain)| *is_certain);
    if rotated.failed.is_none() && config.next_password.as_ref() == Some(&rotated.password) {
        config.password = rotated.password;
    }
    if is_certain {
        config.next_password = None;
        Due::new(config.retry_due, Work::Root, name).remove(ctx.storage)?;
        config.store(ctx.storage, ctx.entropy, name)?;
    }
    match rotated.failed {
        None => Ok(Response::empty()),
        Some((why, _)) => Err(EngineError::Upstream(format!("failed to update user: {why}"))),
    }
}

/// What is due, so much of it as a tick takes on.
pub(super) fn tick(ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
    let mut intents = Vec::new();
    let mut by_database: BTreeMap<String, usize> = BTreeMap::new();
    for due in due::until(ctx.storage, ctx.clock.now(), LOOKED_AT_MAX)? {
        if intents.len() >= INTENTS_MAX {
            break;
        }
        let mut has_room = |db_name: &str| {
            let count = by_database.entry(db_name.to_owned()).or_default();
            *count += 1;
            *count <= INTENTS_PER_DATABASE_MAX
        };
        let intent = match due.work {
            Work::Root => take_up_root(ctx, &due)?,
            Work::Static => take_up_static(ctx, &due, &mut has_room)?,
        };
        intents.extend(intent);
    }
    intents.iter().map(to_map).collect()
}

fn take_up_root(ctx: &Ctx<'_>, due: &Due) -> Result<Option<Intent>, EngineError> {
    let config = Config::find(ctx.storage, &due.name)?;
    let is_pending = |config: &Config| config.next_password.is_some() && config.retry_due == due.moment;
    let Some(mut config) = config.filter(is_pending) else {
        due.remove(ctx.storage)?;
        return Ok(None);
    };
    retry_root_at(ctx, &mut config, &due.name, ctx.clock.now().after(GIVEN_UP_AFTER))?;
    Ok(Some(Intent::RotateRoot { name: due.name.clone() }))
}

fn take_up_static(
    ctx: &Ctx<'_>,
    due: &Due,
    has_room: &mut impl FnMut(&str) -> bool,
) -> Result<Option<Intent>, EngineError> {
    let role = StaticRole::find(ctx.storage, &due.name)?;
    let Some(mut role) = role.filter(|role| role.due == due.moment) else {
        due.remove(ctx.storage)?;
        return Ok(None);
    };
    let now = ctx.clock.now();
    if role.next_password.is_none() && role.schedule.is_over(role.scheduled, now) {
        role.scheduled = role.schedule.next(now, now)?;
        let next = role.scheduled;
        role.store(ctx.storage, &due.name, next)?;
        return Ok(None);
    }
    if !has_room(&role.db_name) {
        return Ok(None);
    }
    // Whatever is missing for this role must not keep the others waiting.
    let policy = Config::find(ctx.storage, &role.db_name)?.map(|config| config.password_policy);
    let password = match (&role.next_password, policy) {
        (Some(next), Some(_)) => Ok(next.clone()),
        (None, Some(policy)) => role.credential.password(ctx, &policy).map(|made| made.to_string()),
        (_, None) => Err(EngineError::invalid("its connection is gone")),
    };
    role.failures = role.failures.saturating_add(1);
    let again = now.after(due::retry_after(role.failures).max(GIVEN_UP_AFTER));
    match password {
        Ok(password) => {
            role.next_password = Some(password);
            role.store(ctx.storage, &due.name, again)?;
            Ok(Some(Intent::RotateStatic { name: due.name.clone(), is_asked: false }))
        }
        Err(EngineError::Storage(err)) => Err(err.into()),
        Err(err) => {
            tracing::warn!(role = due.name, error = %err, "a static role cannot be rotated");
            role.store(ctx.storage, &due.name, again)?;
            Ok(None)
        }
    }
}
