//! Keeps static roles away from the users that connections log in as.
//!
//! Defends against: a static role that changes the password of a connection's own user. The connection is locked out
//! then, with every lease that it must end and every password that it must change. Looked at from both sides, when a
//! static role is written and when a connection is, and over all connections of the mount: what counts is the server that
//! is behind a connection, as its URL names it, and not the connection's name. One server by two names looks like two.

use arca_engine_api::{Ctx, EngineError};

use super::config::{self, Config};
use super::connections::Connections;
use super::static_roles::{self, StaticRole};

/// The servers behind a connection, and who it logs in as there.
#[derive(PartialEq)]
struct Place {
    servers: Vec<String>,
    users: Vec<String>,
}

impl Place {
    fn of(connections: &Connections, config: &Config) -> Result<Self, EngineError> {
        let (kind, settings) = (connections.kind(config)?, config.settings()?);
        let login = (kind.login)(&settings).map(|login| login.username);
        let users = std::iter::once(config.username()?).chain(login);
        let users = users.filter(|username| !username.is_empty()).collect();
        Ok(Self { servers: (kind.servers)(&settings), users })
    }

    fn is_at(&self, other: &Self) -> bool {
        self.servers.iter().any(|server| other.servers.contains(server))
    }
}

/// Refuses a static role of this username on the connection `db_name`.
pub(super) fn check_role(
    ctx: &Ctx<'_>,
    connections: &Connections,
    username: &str,
    db_name: &str,
    config: &Config,
) -> Result<(), EngineError> {
    let place = Place::of(connections, config)?;
    if place.users.iter().any(|user| user == username) {
        return Err(EngineError::invalid(
            "the username is that of the connection itself, whose password is changed by rotate-root",
        ));
    }
    for name in config::names(ctx.storage)?.into_iter().filter(|name| name != db_name) {
        let Some(other) = Config::find(ctx.storage, &name)? else { continue };
        let other = Place::of(connections, &other)?;
        if other.is_at(&place) && other.users.iter().any(|user| user == username) {
            return Err(EngineError::Invalid(format!(
                "the username is that of the connection {name:?} to the same server, whose password is changed by \
                 rotate-root"
            )));
        }
    }
    Ok(())
}

/// Refuses a connection that is to log in as the user of a static role. One that does already can still be repaired.
pub(super) fn check_connection(
    ctx: &Ctx<'_>,
    connections: &Connections,
    name: &str,
    config: &Config,
) -> Result<(), EngineError> {
    let place = Place::of(connections, config)?;
    let before = Config::find(ctx.storage, name)?.and_then(|before| Place::of(connections, &before).ok());
    if before.is_some_and(|before| before == place) {
        return Ok(());
    }
    for role_name in static_roles::names(ctx.storage)? {
        let Some(role) = StaticRole::find(ctx.storage, &role_name)? else { continue };
        if !place.users.contains(&role.username) {
            continue;
        }
        let is_same = role.db_name == name
            || match Config::find(ctx.storage, &role.db_name)? {
                Some(other) => Place::of(connections, &other)?.is_at(&place),
                None => false,
            };
        if is_same {
            return Err(EngineError::Invalid(format!(
                "the username is that of the static role {role_name:?}, which changes its password"
            )));
        }
    }
    Ok(())
}
