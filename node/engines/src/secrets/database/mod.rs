//! Users of databases: made for a lease and removed with it, or there already and given new passwords from time to time.
//!
//! **Invariant:** a database is told nothing that is not in storage before: the lease that removes a user, the password
//! that is being set. Read next: [`creds`] for users with a lease, [`static_roles`] and [`rotation`] for the others,
//! [`adapter`] for what a database is, `README.md` for routes and what differs from others.

mod adapter;
mod config;
mod connections;
mod credential;
mod creds;
mod due;
mod fields;
mod functions;
mod intent;
mod lockouts;
mod mysql;
mod mysql_accounts;
mod mysql_dsn;
mod pending;
mod pool;
mod postgresql;
mod postgresql_tls;
mod postgresql_url;
mod roles;
mod rotation;
mod routes;
mod schedule;
mod statements;
mod static_roles;
mod template;
#[cfg(test)]
mod tests;
mod tls;
mod usernames;

use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{
    Ctx, Engine, EngineError, EngineKind, EngineType, LeaseRecord, Map, MountView, Operation, Request,
    Response, RouteTable,
};
use async_trait::async_trait;

use self::adapter::KINDS;
use self::config::{Config, verifying};
use self::connections::Connections;
use self::intent::{Intent, from_map};

/// The type this folder brings.
pub const TYPES: &[EngineType] = &[EngineType {
    name: "database",
    kind: EngineKind::Secrets,
    make,
    summary: "Users of PostgreSQL, MySQL and MariaDB, made for a lease or with passwords that change.",
}];

fn make(_: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Databases::new(KINDS)))
}

struct Databases {
    table: RouteTable,
    connections: Connections,
}

impl Databases {
    fn new(kinds: &'static [&'static [adapter::Kind]]) -> Self {
        Self { table: RouteTable::new(routes::ROUTES), connections: Connections::new(kinds) }
    }

    /// Opens a connection anew, and has a look whether the database lets it in.
    async fn reset(&self, ctx: &Ctx<'_>, name: &str) -> Result<Response, EngineError> {
        let config = Config::require(ctx.storage, name)?;
        self.connections.forget(name);
        let verified = self.connections.database(name, &config)?.verify().await;
        verified.map_err(|failure| verifying(failure.into_error(&config.secrets())))?;
        Ok(Response::empty())
    }
}

#[async_trait]
impl Engine for Databases {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let (name, connections) = (request.param("name"), &self.connections);
        match (request.route.id, request.operation) {
            ("config", Operation::Read) => config::read(ctx, connections, name),
            ("config", Operation::Delete) => config::delete(ctx, connections, name),
            ("config", _) => config::write(ctx, connections, request).await,
            ("configs", _) => config::list(ctx, request),
            ("creds", _) => creds::intend(ctx, connections, request),
            ("reset", _) => self.reset(ctx, name).await,
            ("role", Operation::Read) => roles::read(ctx, name),
            ("role", Operation::Delete) => roles::delete(ctx, name),
            ("role", _) => roles::write(ctx, request),
            ("roles", _) => roles::list(ctx, request),
            ("rotate-role", _) => rotation::rotate_role(ctx, request),
            ("rotate-root", _) => rotation::rotate_root(ctx, connections, request),
            ("static-creds", _) => static_roles::creds(ctx, name),
            ("static-role", Operation::Read) => static_roles::read(ctx, name),
            ("static-role", Operation::Delete) => static_roles::delete(ctx, name),
            ("static-role", _) => static_roles::write(ctx, connections, request),
            ("static-roles", _) => static_roles::list(ctx, request),
            _ => Err(EngineError::Unsupported),
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        let name = request.param("name");
        Ok(match request.route.id {
            "config" => Some(config::exists(ctx.storage, name)?),
            "role" => Some(roles::exists(ctx.storage, name)?),
            "static-role" => Some(static_roles::exists(ctx.storage, name)?),
            _ => None,
        })
    }

    async fn carry_out(&self, ctx: &Ctx<'_>, intent: &Map) -> Result<Map, EngineError> {
        match from_map(intent)? {
            Intent::Create(creation) => {
                creds::carry_out(ctx, &self.connections, &creation).await.map(|()| Map::new())
            }
            Intent::RotateRoot { name, attempt } => {
                rotation::carry_out_root(ctx, &self.connections, &name, attempt).await
            }
            Intent::RotateStatic { name, attempt, .. } => {
                rotation::carry_out_static(ctx, &self.connections, &name, attempt).await
            }
        }
    }

    fn conclude(
        &self,
        ctx: &Ctx<'_>,
        intent: &Map,
        outcome: Result<Map, EngineError>,
    ) -> Result<Response, EngineError> {
        match from_map(intent)? {
            Intent::Create(creation) => outcome.map(|_| creds::conclude(&creation)),
            Intent::RotateRoot { name, attempt } => {
                rotation::conclude_root(ctx, &self.connections, &name, attempt, outcome)
            }
            Intent::RotateStatic { name, attempt, is_creation } => {
                rotation::conclude_static(ctx, &name, attempt, is_creation, outcome)
            }
        }
    }

    async fn renew(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
        creds::renew(ctx, &self.connections, lease).await
    }

    async fn revoke(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<(), EngineError> {
        creds::revoke(ctx, &self.connections, lease).await
    }

    /// Passwords are to change when their time has come, not up to a minute later.
    fn tick_interval(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// Changes the passwords whose time has come.
    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        self.connections.sweep();
        rotation::tick(ctx)
    }
}
