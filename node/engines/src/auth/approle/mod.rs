//! Approle: machines that log in with a role id and a secret id.
//!
//! **Invariant:** neither id is stored in the clear; what a secret id opens is decided by its keyed hash, its time and
//! its uses, at the login itself. Read next: [`keys`] for where things lie, [`login`], [`secret_id`], [`role`], `README.md`
//! for routes and what differs from others.

mod keys;
mod login;
mod owners;
mod role;
mod routes;
mod secret_id;
#[cfg(test)]
mod tests;
mod tidy;

use std::sync::Arc;

use arca_engine_api::{
    Ctx, Engine, EngineError, EngineKind, EngineType, LeaseRecord, Map, MountView, Operation, Request,
    Response, RouteTable,
};
use async_trait::async_trait;

/// The type this folder brings.
pub const TYPES: &[EngineType] = &[EngineType {
    name: "approle",
    kind: EngineKind::Auth,
    make,
    summary: "Logins of machines, with a role id and a secret id.",
}];

fn make(_: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Approle { table: routes::table(), round: tidy::Round::default() }))
}

struct Approle {
    table: RouteTable,
    round: tidy::Round,
}

#[async_trait]
impl Engine for Approle {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        match (request.route.id, request.operation) {
            ("custom-secret-id", _) => secret_id::generate(ctx, request),
            ("destroy" | "destroy-accessor", _) => secret_id::destroy(ctx, request),
            ("login", _) => login::login(ctx, request),
            ("lookup" | "lookup-accessor", _) => secret_id::lookup(ctx, request),
            ("role", Operation::Delete) => role::delete(ctx, request),
            ("role", Operation::Read) => role::read(ctx, request),
            ("role", _) => role::write(ctx, request),
            ("roles", _) => role::list(ctx, request),
            ("secret-id", Operation::List) => secret_id::list(ctx, request),
            ("secret-id", _) => secret_id::generate(ctx, request),
            ("tidy", _) => tidy::tidy(ctx, &self.round),
            _ => role::part(ctx, request),
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        if request.route.id == "role" { role::exists(ctx, request) } else { Ok(None) }
    }

    fn local_prefixes(&self) -> &'static [&'static str] {
        &[keys::LOCAL]
    }

    async fn initialize(&self, ctx: &Ctx<'_>) -> Result<(), EngineError> {
        keys::initialize(ctx)
    }

    fn locks_names(&self) -> bool {
        true
    }

    fn login_name(&self, request: &Request) -> Option<String> {
        login::name(request)
    }

    async fn renew(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
        login::renew(ctx, lease)
    }

    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        tidy::sweep(ctx, &self.round)?;
        Ok(Vec::new())
    }
}
