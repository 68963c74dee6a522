//! JWT and OIDC: logins with a signed token, or by a visit to a provider that signs one.
//!
//! **Invariant:** a claim is looked at only after its signature was found good by a key of the mount's settings; what the
//! token itself says never chooses the key's source or the algorithm's kind. Read next: [`login`], [`provider`] for keys,
//! [`claims`] for whom a token is, [`oidc`], `README.md` for routes and what differs from others.

mod claims;
mod config;
mod custom;
mod login;
mod oidc;
mod provider;
mod role;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arca_engine_api::{
    Ctx, Engine, EngineError, EngineKind, EngineType, LeaseRecord, Map, MountView, Operation, Request,
    Response, RouteTable,
};
use async_trait::async_trait;

use self::oidc::places::Places;
use self::oidc::{begin, callback, pending, poll};
use self::provider::Provider;
use self::role::Role;
use super::roles;

/// The types this folder brings: one engine by two names.
pub const TYPES: &[EngineType] = &[
    EngineType { name: "jwt", kind: EngineKind::Auth, make, summary: "Logins with a signed token." },
    EngineType { name: "oidc", kind: EngineKind::Auth, make, summary: "Logins at an OIDC provider." },
];

fn make(_: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    let table = routes::table();
    Ok(Arc::new(Jwt { table, provider: Provider::default(), places: Places::default() }))
}

struct Jwt {
    table: RouteTable,
    provider: Provider,
    /// Which logins are under way.
    places: Places,
}

#[async_trait]
impl Engine for Jwt {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        match (request.route.id, request.operation) {
            ("auth-url", _) => begin::auth_url(self, ctx, request).await,
            ("callback", _) => callback::callback(ctx, request),
            ("config", Operation::Read) => config::read(self, ctx).await,
            ("config", _) => config::write(self, ctx, request).await,
            ("login", _) => login::login(self, ctx, request).await,
            ("poll", _) => poll::poll(ctx, request),
            ("role", Operation::Delete) => roles::delete(ctx, request),
            ("role", Operation::Read) => roles::read::<Role>(ctx, request),
            ("role", _) => role::write(ctx, request),
            ("roles", _) => roles::list(ctx, request),
            _ => Err(EngineError::Unsupported),
        }
    }

    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        if request.route.id == "role" { roles::exists(ctx, request) } else { Ok(None) }
    }

    fn local_prefixes(&self) -> &'static [&'static str] {
        &[pending::PREFIX]
    }

    async fn carry_out(&self, ctx: &Ctx<'_>, intent: &Map) -> Result<Map, EngineError> {
        match oidc::kind(intent) {
            "callback" => callback::exchange(self, ctx, intent).await,
            "device" => begin::ask_device(self, ctx, intent).await,
            "poll" => poll::ask(self, ctx, intent).await,
            _ => Err(EngineError::Bug("an intent of no kind".to_owned())),
        }
    }

    fn conclude(
        &self,
        ctx: &Ctx<'_>,
        intent: &Map,
        outcome: Result<Map, EngineError>,
    ) -> Result<Response, EngineError> {
        match oidc::kind(intent) {
            "callback" => callback::conclude(ctx, intent, outcome),
            "device" => begin::keep_device(self, ctx, intent, &outcome?),
            "poll" => poll::conclude(ctx, intent, outcome),
            _ => Err(EngineError::Bug("an intent of no kind".to_owned())),
        }
    }

    async fn renew(&self, ctx: &Ctx<'_>, lease: &LeaseRecord) -> Result<Response, EngineError> {
        login::renew(ctx, lease)
    }

    /// Forgets logins that were begun and never ended.
    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        pending::sweep(self, ctx)?;
        Ok(Vec::new())
    }
}
