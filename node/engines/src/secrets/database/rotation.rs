//! Passwords that are changed: those of static roles and of connections themselves.
//!
//! Three steps, each safe to repeat. The new password is stored as the next one; the database is told to set it; once it
//! has, it becomes the current one. Between the steps the record stands in the index of what is due, so that a tick goes
//! on where a crash or a database that does not answer left it, with the same password. Only if no attempt so far can
//! have changed anything is the next password forgotten ([`super::pending`]).

use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, Map, Request, Response, UnixMillis};

use super::adapter::{Database, Failure, NewPassword};
use super::config::{self, Config};
use super::connections::Connections;
use super::due::{self, Due, Work};
use super::intent::{Intent, Rotated, from_map, to_map};
use super::pending::{Pending, check_at_rest};
use super::static_roles::StaticRole;

/// Intents of one tick.
const INTENTS_MAX: usize = 48;
/// Intents of one tick for one database, so that one that hangs leaves room for others.
const INTENTS_PER_DATABASE_MAX: usize = 8;
/// While it is not known which password holds, it is tried again this soon, as often as [`SOON_MAX`] says.
const SOON: Duration = Duration::from_secs(30);
const SOON_MAX: u32 = 20;

/// Stages a static role with its next password, and intends to set it.
pub(super) fn begin(
    ctx: &Ctx<'_>,
    config: &Config,
    mut role: StaticRole,
    name: &str,
    is_creation: bool,
) -> Result<Response, EngineError> {
    check_at_rest(role.next.as_ref(), ctx.clock.now())?;
    let next =
        Pending::begin(ctx, role.next.take(), || role.credential.password(ctx, &config.password_policy))?;
    let (attempt, until) = (next.attempt, next.until);
    role.next = Some(next);
    role.store(ctx.storage, name, until)?;
    let intent = to_map(&Intent::RotateStatic { name: name.to_owned(), attempt, is_creation })?;
    Ok(Response { intent: Some(intent), ..Response::default() })
}

/// Changes a static role's password now.
pub(super) fn rotate_role(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let name = request.param("name");
    let role = StaticRole::find(ctx.storage, name)?;
    let role = role.ok_or_else(|| EngineError::invalid("no static role found for role name"))?;
    let config = Config::require(ctx.storage, &role.db_name)?;
    config.check_role(name)?;
    begin(ctx, &config, role, name, false)
}

/// Changes a connection's own password now.
pub(super) fn rotate_root(
    ctx: &Ctx<'_>,
    connections: &Connections,
    request: &Request,
) -> Result<Response, EngineError> {
    let name = request.param("name");
    let mut config = Config::require(ctx.storage, name)?;
    let refuse = |why: &str| Err(EngineError::Invalid(format!("unable to rotate root credentials: {why}")));
    let username = config.username()?;
    for (what, is_missing) in [("username", username.is_empty()), ("password", config.password.is_empty())] {
        if is_missing {
            return refuse(&format!("no {what} in configuration"));
        }
    }
    // A password that stands in the URL itself would go on being used, and let in no more.
    let login = (connections.kind(&config)?.login)(&config.settings()?);
    if !login.is_some_and(|login| login.takes_password && login.username == username) {
        return refuse("connection_url must log in with {{username}} and {{password}}");
    }
    check_at_rest(config.next.as_ref(), ctx.clock.now())?;
    let attempt = attempt_root(ctx, &mut config, name)?;
    let intent = to_map(&Intent::RotateRoot { name: name.to_owned(), attempt })?;
    Ok(Response { intent: Some(intent), ..Response::default() })
}

/// Stages one more attempt to set a connection's next password.
fn attempt_root(ctx: &Ctx<'_>, config: &mut Config, name: &str) -> Result<u64, EngineError> {
    let next = Pending::begin(ctx, config.next.take(), || ctx.passwords.generate(&config.password_policy))?;
    let (attempt, until) = (next.attempt, next.until);
    config.next = Some(next);
    retry_root_at(ctx, config, name, until)?;
    Ok(attempt)
}

fn retry_root_at(ctx: &Ctx<'_>, config: &mut Config, name: &str, due: UnixMillis) -> Result<(), EngineError> {
    Due::new(name, config.retry_due, Work::Root, name).remove(ctx.storage)?;
    config.retry_due = due;
    Due::new(name, due, Work::Root, name).store(ctx.storage)?;
    config.store(ctx.storage, ctx.entropy, name)
}

/// Sets a password in the database.
async fn set(
    connections: &Connections,
    db_name: &str,
    config: &Config,
    change: &NewPassword<'_>,
    is_uncertain: bool,
) -> Result<Map, EngineError> {
    let outcome = match connections.database(db_name, config) {
        Ok(database) => match database.change_password(change).await {
            // An earlier attempt may have set it, and a rule against using a password twice refuses it now.
            Err(Failure::Refused(_)) if is_uncertain && holds(database.as_ref(), change).await => Ok(()),
            other => other,
        },
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

/// Whether the database lets the user in by the new password, and not by any password.
async fn holds(database: &dyn Database, change: &NewPassword<'_>) -> bool {
    let another = format!("not-{}", change.password);
    matches!(database.lets_in(change.username, change.password).await, Ok(true))
        && matches!(database.lets_in(change.username, &another).await, Ok(false))
}

/// What is told to whoever comes too late: nothing was done for this attempt.
fn overtaken() -> Result<Map, EngineError> {
    let why = "it was deleted, or its password is being changed by another".to_owned();
    to_map(&Rotated { password: String::new(), failed: Some((why, true)) })
}

/// Sets a static role's next password.
pub(super) async fn carry_out_static(
    ctx: &Ctx<'_>,
    connections: &Connections,
    name: &str,
    attempt: u64,
) -> Result<Map, EngineError> {
    let Some(role) = StaticRole::find(ctx.storage, name)? else { return overtaken() };
    let Some(next) = role.next.as_ref().filter(|next| next.attempt == attempt) else { return overtaken() };
    let config = Config::require(ctx.storage, &role.db_name)?;
    let change =
        NewPassword { username: &role.username, password: &next.password, statements: &role.statements };
    set(connections, &role.db_name, &config, &change, next.is_uncertain).await
}

/// Sets a connection's next password.
pub(super) async fn carry_out_root(
    ctx: &Ctx<'_>,
    connections: &Connections,
    name: &str,
    attempt: u64,
) -> Result<Map, EngineError> {
    let Some(config) = Config::find(ctx.storage, name)? else { return overtaken() };
    let Some(next) = config.next.as_ref().filter(|next| next.attempt == attempt) else { return overtaken() };
    let username = config.username()?;
    let statements = &config.root_rotation_statements;
    let change = NewPassword { username: &username, password: &next.password, statements };
    set(connections, name, &config, &change, next.is_uncertain).await
}

/// What came of it. Without an answer nothing is certain.
fn read(outcome: Result<Map, EngineError>) -> Result<Rotated, EngineError> {
    match outcome {
        Ok(map) => from_map(&map),
        Err(err) => Ok(Rotated { password: String::new(), failed: Some((err.to_string(), false)) }),
    }
}

/// The answer when the database has a password that no record is waiting for: never that all is well.
fn unrecorded() -> EngineError {
    EngineError::Upstream(
        "the password was changed in the database, but what it belongs to was deleted or written anew meanwhile"
            .to_owned(),
    )
}

/// Records what came of changing a static role's password.
pub(super) fn conclude_static(
    ctx: &Ctx<'_>,
    name: &str,
    attempt: u64,
    is_creation: bool,
    outcome: Result<Map, EngineError>,
) -> Result<Response, EngineError> {
    let rotated = read(outcome)?;
    let found = StaticRole::find(ctx.storage, name)?;
    let now = ctx.clock.now();
    let Some((why, is_certain)) = rotated.failed else {
        let mut role = found.ok_or_else(unrecorded)?;
        if role.next.take_if(|next| next.password == rotated.password).is_some() {
            role.password = Some(rotated.password);
            role.rotated = Some(now);
            role.failures = 0;
            role.scheduled = role.schedule.next(now, now)?;
            let due = role.scheduled;
            role.store(ctx.storage, name, due)?;
        } else if role.password.as_ref() != Some(&rotated.password) {
            return Err(unrecorded());
        }
        return Ok(Response::empty());
    };
    let failed = |what: &str| Err(EngineError::Upstream(format!("{what}: {why}")));
    let Some(mut role) = found else { return failed("unable to finish rotating credentials") };
    let Some(next) = role.next.take_if(|next| next.attempt == attempt) else {
        return failed("unable to finish rotating credentials");
    };
    role.next = next.failed(is_certain, now);
    if is_creation && role.next.is_none() && role.password.is_none() {
        role.remove(ctx.storage, name)?;
        return failed("error setting credentials");
    }
    let again = match role.next {
        Some(_) if role.failures < SOON_MAX => SOON,
        _ => due::retry_after(role.failures),
    };
    role.store(ctx.storage, name, now.after(again))?;
    failed(
        "unable to finish rotating credentials; retries will continue in the background but it is also safe to \
         retry manually",
    )
}

/// Records what came of changing a connection's own password.
pub(super) fn conclude_root(
    ctx: &Ctx<'_>,
    connections: &Connections,
    name: &str,
    attempt: u64,
    outcome: Result<Map, EngineError>,
) -> Result<Response, EngineError> {
    let rotated = read(outcome)?;
    connections.forget(name);
    let found = Config::find(ctx.storage, name)?;
    let Some((why, is_certain)) = rotated.failed else {
        let mut config = found.ok_or_else(unrecorded)?;
        if config.next.take_if(|next| next.password == rotated.password).is_some() {
            config.password = rotated.password;
            Due::new(name, config.retry_due, Work::Root, name).remove(ctx.storage)?;
            config.store(ctx.storage, ctx.entropy, name)?;
        } else if config.password != rotated.password {
            return Err(unrecorded());
        }
        return Ok(Response::empty());
    };
    if let Some(mut config) = found
        && let Some(next) = config.next.take_if(|next| next.attempt == attempt)
    {
        let now = ctx.clock.now();
        config.next = next.failed(is_certain, now);
        if config.next.is_some() {
            retry_root_at(ctx, &mut config, name, now.after(SOON))?;
        } else {
            Due::new(name, config.retry_due, Work::Root, name).remove(ctx.storage)?;
            config.store(ctx.storage, ctx.entropy, name)?;
        }
    }
    Err(EngineError::Upstream(format!("failed to update user: {why}")))
}

/// What is due, so much of it as a tick takes on: the databases take turns, and within a turn comes first what has waited
/// longest. What is taken up goes to the end, so every entry has its turn whatever becomes of the others.
pub(super) fn tick(ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
    let now = ctx.clock.now();
    let mut waiting = Vec::new();
    for database in config::names(ctx.storage)? {
        let found = due::until(ctx.storage, &database, now, INTENTS_PER_DATABASE_MAX)?;
        waiting.extend(found.into_iter().enumerate());
    }
    waiting.sort_by_key(|(turn, due)| (*turn, due.moment));
    let mut intents = Vec::new();
    for (_, due) in waiting {
        if intents.len() >= INTENTS_MAX {
            break;
        }
        intents.extend(match due.work {
            Work::Root => take_up_root(ctx, &due)?,
            Work::Static => take_up_static(ctx, &due)?,
        });
    }
    intents.iter().map(to_map).collect()
}

fn take_up_root(ctx: &Ctx<'_>, due: &Due) -> Result<Option<Intent>, EngineError> {
    let config = Config::find(ctx.storage, &due.name)?;
    let is_pending = |config: &Config| config.next.is_some() && config.retry_due == due.moment;
    let Some(mut config) = config.filter(is_pending) else {
        due.remove(ctx.storage)?;
        return Ok(None);
    };
    let attempt = attempt_root(ctx, &mut config, &due.name)?;
    Ok(Some(Intent::RotateRoot { name: due.name.clone(), attempt }))
}

fn take_up_static(ctx: &Ctx<'_>, due: &Due) -> Result<Option<Intent>, EngineError> {
    let role = StaticRole::find(ctx.storage, &due.name)?;
    let is_due = |role: &StaticRole| role.due == due.moment && role.db_name == due.database;
    let Some(mut role) = role.filter(is_due) else {
        due.remove(ctx.storage)?;
        return Ok(None);
    };
    let now = ctx.clock.now();
    if role.next.is_none() && role.schedule.is_over(role.scheduled, now) {
        role.scheduled = role.schedule.next(now, now)?;
        let next = role.scheduled;
        role.store(ctx.storage, &due.name, next)?;
        return Ok(None);
    }
    // Whatever is missing for this role must not keep the others waiting.
    let begun = match Config::find(ctx.storage, &role.db_name)? {
        Some(config) => {
            Pending::begin(ctx, role.next.clone(), || role.credential.password(ctx, &config.password_policy))
        }
        None => Err(EngineError::invalid("its connection is gone")),
    };
    role.failures = role.failures.saturating_add(1);
    match begun {
        Ok(next) => {
            let (attempt, until) = (next.attempt, next.until);
            role.next = Some(next);
            role.store(ctx.storage, &due.name, until)?;
            Ok(Some(Intent::RotateStatic { name: due.name.clone(), attempt, is_creation: false }))
        }
        Err(EngineError::Storage(err)) => Err(err.into()),
        Err(err) => {
            tracing::warn!(role = due.name, error = %err, "a static role cannot be rotated");
            role.store(ctx.storage, &due.name, now.after(due::retry_after(role.failures)))?;
            Ok(None)
        }
    }
}
