//! Transit: keys that stay here while others encrypt, sign and authenticate with them.
//!
//! **Invariant:** what reads a key or the mount's settings never shows a secret; only `export`, `byok-export` and
//! `backup` hand secrets out, and only of keys that say so. Read next: [`key`] for what a key is, [`keys`] for where it
//! lies, [`ring`] for encrypting, [`sign`] for signing, `README.md` for routes and what differs from others.

mod backup;
mod batch;
mod config;
mod csr;
mod decimal;
mod derive;
mod encrypt;
mod export;
mod generate;
mod import;
mod key;
mod keys;
mod kind;
mod manage;
mod material;
mod ready;
mod ring;
mod routes;
mod show;
mod sign;
mod slow;
mod symmetric;
#[cfg(test)]
mod tests;
mod text;
mod tools;
mod wrap;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_engine_api::{
    Ctx, Engine, EngineError, EngineKind, EngineType, Map, MountView, Operation, Request, Response,
    RouteTable,
};
use async_trait::async_trait;

use self::keys::Keys;
use self::manage::Hide;
use crate::crypto::{der, ec, ed25519, hashes, rsa_keys};

/// The type this folder brings.
pub const TYPES: &[EngineType] = &[EngineType {
    name: "transit",
    kind: EngineKind::Secrets,
    make,
    summary: "Encryption, signatures and HMACs by keys that stay here.",
}];

fn make(_: &MountView) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(Arc::new(Transit { table: RouteTable::new(routes::ROUTES), next_look_ms: AtomicU64::new(0) }))
}

/// Between looks for keys that are old enough to be rotated.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

struct Transit {
    table: RouteTable,
    /// When to look for old keys again, in monotonic time. A cache: forgetting it costs one look.
    next_look_ms: AtomicU64,
}

#[async_trait]
impl Engine for Transit {
    fn routes(&self) -> &RouteTable {
        &self.table
    }

    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
        let name = request.param("name");
        match (request.route.id, request.operation) {
            ("backup", _) => backup::backup(ctx, name),
            ("byok-export", _) => export::byok(ctx, request),
            ("cache-config", Operation::Read) => config::read_cache(ctx.storage),
            ("cache-config", _) => config::write_cache(ctx.storage, request.fields()),
            ("config-keys", Operation::Read) => config::read_keys(ctx.storage),
            ("config-keys", _) => config::write_keys(ctx.storage, request.fields()),
            ("datakey", _) => encrypt::data_key(ctx, request),
            ("decrypt", _) => encrypt::decrypt(ctx, request).await,
            ("derive-key", _) => derive::derive_key(ctx, request),
            ("encrypt", _) => encrypt::encrypt(ctx, request).await,
            ("export", _) => export::export(ctx, request),
            ("hash", _) => tools::hash(request),
            ("hmac", _) => tools::hmac(ctx, request),
            ("key", Operation::Read) => manage::read(ctx, request),
            ("key", Operation::Delete) => manage::delete(ctx, name),
            ("key", _) => manage::create(ctx, request).await,
            ("key-config", _) => manage::configure(ctx, request),
            ("key-csr", _) => csr::csr(ctx, request),
            ("key-import", _) => import::import(ctx, request),
            ("key-import-version", _) => import::import_version(ctx, request),
            ("key-rotate", _) => manage::rotate(ctx, name).await,
            ("key-set-certificate", _) => csr::set_certificate(ctx, request),
            ("key-soft-delete", _) => manage::hide(ctx, name, Hide::Hide),
            ("key-soft-delete-restore", _) => manage::hide(ctx, name, Hide::BringBack),
            ("key-trim", _) => manage::trim(ctx, request),
            ("keys", _) => manage::list(ctx, request),
            ("random", _) => tools::random(ctx, request),
            ("restore", _) => backup::restore(ctx, request),
            ("rewrap", _) => encrypt::rewrap(ctx, request).await,
            ("sign", _) => sign::sign(ctx, request).await,
            ("verify", _) => sign::verify(ctx, request).await,
            ("wrapping-key", _) => import::wrapping_key(ctx).await,
            _ => Err(EngineError::Unsupported),
        }
    }

    /// Encrypting by a name makes a key of it, for those who may create one.
    fn exists(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Option<bool>, EngineError> {
        match request.route.id {
            "encrypt" => Ok(Some(Keys::of(ctx).find(request.param("name"))?.is_some())),
            _ => Ok(None),
        }
    }

    /// Rotates keys by their age.
    async fn tick(&self, ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        let now_ms = u64::try_from(ctx.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        if now_ms < self.next_look_ms.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        // Rotated keys are not stored yet, and there may be more: look again at once.
        if !manage::rotate_old(ctx).await? {
            let next = u64::try_from(LOOK_EVERY.as_millis()).unwrap_or(u64::MAX);
            self.next_look_ms.store(now_ms.saturating_add(next), Ordering::Relaxed);
        }
        Ok(Vec::new())
    }
}
