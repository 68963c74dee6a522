//! Kubernetes: pods that log in with the token of their service account.
//!
//! **Invariant:** no login without the cluster's own word for the token (TokenReview), and none for another account than
//! the token and the cluster both name. Read next: [`login`], [`review`], [`config`] for who asks the cluster,
//! `README.md` for routes and what differs from others.

mod account;
mod config;
mod login;
mod review;
mod role;
mod routes;
mod selector;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arca_engine_api::{
    Ctx, Engine, EngineError, EngineKind, EngineType, LeaseRecord, MountView, Operation, Request, Response,
    RouteTable,
};
use async_trait::async_trait;

use self::role::Role;
use super::roles;

/// The type this folder brings.
pub const TYPES: &[EngineType] = &[EngineType {
    name: "kubernetes",
    kind: EngineKind::Auth,
    make,
    summary: "Logins of Kubernetes service accounts.",
}];

fn make(_: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Kubernetes { table: routes::table() }))
}

struct Kubernetes {
    table: RouteTable,
}

#[async_trait]
impl Engine for Kubernetes {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        match (request.route.id, request.operation) {
            ("config", Operation::Read) => config::read(ctx),
            ("config", _) => config::write(ctx, request).await,
            ("login", _) => login::login(ctx, request).await,
            ("role", Operation::Delete) => roles::delete(ctx, request),
            ("role", Operation::Read) => roles::read::<Role>(ctx, request),
            ("role", _) => roles::write::<Role>(ctx, request).map(|(_, response)| response),
            ("roles", _) => roles::list(ctx, request),
            _ => Err(EngineError::Unsupported),
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        if request.route.id == "role" { roles::exists(ctx, request) } else { Ok(None) }
    }

    async fn renew(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
        login::renew(ctx, lease).await
    }
}
