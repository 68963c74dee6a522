//! Users that live as long as a lease.
//!
//! Asked for one, the engine says what it is going to make, and which lease removes it; the kernel stores that before
//! anything is made. The name is in the lease, the password nowhere but in the answer.

use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, LeaseGrant, LeaseRecord, Request, Response, UnixMillis};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::adapter::{NewUser, OldUser, Renewal};
use super::config::Config;
use super::connections::Connections;
use super::credential::CredentialType;
use super::intent::{Intent, from_map, to_map};
use super::roles::Role;
use super::usernames;

/// A user expires in the database so much later than the lease, which is measured after it is made.
const EXPIRES_AFTER: Duration = Duration::from_secs(5);

/// A user to be made.
#[derive(Serialize, Deserialize)]
pub(super) struct Creation {
    role: String,
    db_name: String,
    username: String,
    password: String,
    expires: UnixMillis,
    /// As the lease has it.
    #[serde(default)]
    hosts: Option<Vec<String>>,
}

/// What a lease says about its user.
#[derive(Serialize, Deserialize)]
struct Internal {
    db_name: String,
    /// The latest moment that the database was told the user expires at.
    #[serde(default)]
    expires: UnixMillis,
    /// For which hosts the user is made, where that is a part of who it is and the role says so plainly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hosts: Option<Vec<String>>,
    issued: UnixMillis,
    /// Should the role be gone.
    revocation_statements: Vec<String>,
    role: String,
    username: String,
}

/// Intends a new user.
pub(super) fn intend(
    ctx: &Ctx<'_>,
    connections: &Connections,
    request: &Request,
) -> Result<Response, EngineError> {
    let name = request.param("name");
    let role = Role::find(ctx.storage, name)?
        .ok_or_else(|| EngineError::Invalid(format!("unknown role: {name}")))?;
    let config = Config::require(ctx.storage, &role.db_name)?;
    config.check_role(name)?;
    if role.credential.kind != CredentialType::Password {
        return Err(EngineError::Invalid(format!(
            "unsupported credential_type: {:?}",
            role.credential.kind.as_str()
        )));
    }
    if role.creation.is_empty() {
        return Err(EngineError::invalid("empty creation statements"));
    }
    let kind = connections.kind(&config)?;
    let username = usernames::generate(ctx, request, kind, &config.username_template()?, name)?;
    let password = role.credential.password(ctx, &config.password_policy)?;
    let now = ctx.clock.now();
    let expires = now.after(lifetime(ctx, &role, Duration::ZERO, Duration::ZERO)).after(EXPIRES_AFTER);
    let hosts = (kind.hosts)(&role.creation, &username);
    let internal = Internal {
        db_name: role.db_name.clone(),
        expires,
        hosts: hosts.clone(),
        issued: now,
        revocation_statements: role.revocation.clone(),
        role: name.to_owned(),
        username: username.clone(),
    };
    let creation = Creation {
        role: name.to_owned(),
        db_name: role.db_name.clone(),
        username,
        password: password.to_string(),
        expires,
        hosts,
    };
    let lease = LeaseGrant {
        ttl: role.default_ttl,
        max_ttl: role.max_ttl,
        is_renewable: true,
        internal: to_map(&internal)?,
    };
    let intent = Some(to_map(&Intent::Create(creation))?);
    Ok(Response { intent, lease: Some(lease), ..Response::default() })
}

/// How long a lease of this role lives, counted from now, `passed` after it was granted.
fn lifetime(ctx: &Ctx<'_>, role: &Role, increment: Duration, passed: Duration) -> Duration {
    let first = |wishes: [Duration; 2], last| wishes.into_iter().find(|wish| !wish.is_zero()).unwrap_or(last);
    let wanted = first([increment, role.default_ttl], ctx.mount.default_lease_ttl);
    let longest =
        [role.max_ttl, ctx.mount.max_lease_ttl].into_iter().filter(|longest| !longest.is_zero()).min();
    longest.map_or(wanted, |longest| wanted.min(longest.saturating_sub(passed)))
}

fn written(moment: UnixMillis) -> Result<String, EngineError> {
    let moment = i64::try_from(moment.0).ok().and_then(DateTime::from_timestamp_millis);
    let moment = moment.ok_or_else(|| EngineError::invalid("the lifetime is too long"))?;
    Ok(moment.format("%Y-%m-%d %H:%M:%S+0000").to_string())
}

/// Makes the user.
pub(super) async fn carry_out(
    ctx: &Ctx<'_>,
    connections: &Connections,
    creation: &Creation,
) -> Result<(), EngineError> {
    let found = (|| {
        let role = Role::find(ctx.storage, &creation.role)?;
        let role = role.ok_or_else(|| EngineError::invalid("the role was deleted in between"))?;
        let config = Config::require(ctx.storage, &creation.db_name)?;
        if (connections.kind(&config)?.hosts)(&role.creation, &creation.username) != creation.hosts {
            return Err(EngineError::invalid("the role was changed in between"));
        }
        let database = connections.database(&creation.db_name, &config)?;
        Ok((role, config, database))
    })();
    let (role, config, database) = found.map_err(EngineError::with_nothing_done)?;
    let user = NewUser {
        username: &creation.username,
        password: &creation.password,
        expiration: &written(creation.expires)?,
        statements: &role.creation,
        rollback: &role.rollback,
        revocation: &role.revocation,
    };
    database.create_user(&user).await.map_err(|failure| {
        let mut secrets = config.secrets();
        secrets.push(&creation.password);
        let is_certain = failure.is_certain();
        let err = failure.into_error(&secrets);
        if is_certain { err.with_nothing_done() } else { err }
    })
}

/// The answer once the user is made.
pub(super) fn conclude(creation: &Creation) -> Response {
    Response::data(json!({ "username": creation.username, "password": creation.password }))
}

/// Moves the moment the user expires.
pub(super) async fn renew(
    ctx: &Ctx<'_>,
    connections: &Connections,
    lease: &LeaseRecord,
) -> Result<Response, EngineError> {
    let mut internal: Internal = from_map(&lease.internal)?;
    let role = Role::find(ctx.storage, &internal.role)?.ok_or_else(|| {
        EngineError::Invalid(format!("error during renew: could not find role with name {:?}", internal.role))
    })?;
    let config = Config::require(ctx.storage, &internal.db_name)?;
    let now = ctx.clock.now();
    let ttl = lifetime(ctx, &role, lease.increment, now.since(internal.issued));
    if ttl.is_zero() {
        return Err(EngineError::invalid("past the max TTL, cannot renew"));
    }
    // Never earlier than before: should the lease live on as it is, its user must too. Where the lease does end sooner,
    // its end removes the user.
    internal.expires = internal.expires.max(now.after(ttl).after(EXPIRES_AFTER));
    let renewal = Renewal {
        username: &internal.username,
        expiration: &written(internal.expires)?,
        statements: &role.renewal,
    };
    let database = connections.database(&internal.db_name, &config)?;
    let outcome = database.renew_user(&renewal).await;
    outcome.map_err(|failure| failure.into_error(&config.secrets()))?;
    let increment = if lease.increment.is_zero() { role.default_ttl } else { lease.increment };
    let lease = LeaseGrant {
        ttl: increment,
        max_ttl: role.max_ttl,
        is_renewable: true,
        internal: to_map(&internal)?,
    };
    Ok(Response { lease: Some(lease), ..Response::default() })
}

/// Removes the user: by the role as it is now or, without it, as it was.
pub(super) async fn revoke(
    ctx: &Ctx<'_>,
    connections: &Connections,
    lease: &LeaseRecord,
) -> Result<(), EngineError> {
    let internal: Internal = from_map(&lease.internal)?;
    // A role that has moved on to another database says nothing about this one.
    let role = Role::find(ctx.storage, &internal.role)?.filter(|role| role.db_name == internal.db_name);
    let statements = role.map_or(internal.revocation_statements, |role| role.revocation);
    let config = Config::require(ctx.storage, &internal.db_name)?;
    let database = connections.database(&internal.db_name, &config)?;
    let user =
        OldUser { username: &internal.username, statements: &statements, hosts: internal.hosts.as_deref() };
    let outcome = database.revoke_user(&user).await;
    outcome.map_err(|failure| failure.into_error(&config.secrets()))
}
