//! Userpass: people and programs that log in with a name and a password.
//!
//! **Invariant:** nothing an answer says or how long it takes tells whether there is a user of a name. Read next:
//! [`password`] for what is kept of passwords, [`login`], [`users`], `README.md` for routes and what differs from others.

mod login;
mod password;
mod routes;
#[cfg(test)]
mod tests;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_engine_api::{
    Ctx, Engine, EngineError, EngineKind, EngineType, LeaseRecord, Map, MountView, Operation, Request,
    Response, RouteTable,
};
use async_trait::async_trait;

use crate::auth::names;

/// The type this folder brings.
pub const TYPES: &[EngineType] = &[EngineType {
    name: "userpass",
    kind: EngineKind::Auth,
    make,
    summary: "Logins with a name and a password.",
}];

fn make(_: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Userpass { table: routes::table(), next_count_ms: AtomicU64::new(0) }))
}

/// Between counts of the kinds of hash in use.
const COUNT_EVERY: Duration = Duration::from_secs(3_600);

struct Userpass {
    table: RouteTable,
    /// When to count the kinds of hash again, in monotonic time. A cache: forgetting it costs one count.
    next_count_ms: AtomicU64,
}

#[async_trait]
impl Engine for Userpass {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        match (request.route.id, request.operation) {
            ("login", _) => login::login(ctx, request).await,
            ("password" | "policies", _) => users::write_part(ctx, request).await,
            ("user", Operation::Delete) => users::delete(ctx, request),
            ("user", Operation::Read) => users::read(ctx, request),
            ("user", _) => users::write(ctx, request).await,
            ("users", _) => users::list(ctx, request),
            _ => Err(EngineError::Unsupported),
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        if request.route.id == "user" { users::exists(ctx, request) } else { Ok(None) }
    }

    fn locks_names(&self) -> bool {
        true
    }

    fn login_name(&self, request: &Request) -> Option<String> {
        names::name(request.param("username"))
    }

    async fn renew(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
        login::renew(ctx, lease)
    }

    /// Forgets kinds of hash that nobody has any more.
    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        let now_ms = u64::try_from(ctx.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        if now_ms >= self.next_count_ms.load(Ordering::Relaxed) {
            users::recount(ctx)?;
            let next = u64::try_from(COUNT_EVERY.as_millis()).unwrap_or(u64::MAX);
            self.next_count_ms.store(now_ms.saturating_add(next), Ordering::Relaxed);
        }
        Ok(Vec::new())
    }
}
