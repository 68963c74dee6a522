//! The trait every secrets engine and auth method implements.
//!
//! Engines hold no state but caches: everything durable goes through [`Ctx::storage`]. `handle` may run several
//! times for one request (optimistic concurrency), so it must not act on the outside world. It answers an intent
//! ([`Response::intent`]) instead: once what it staged is committed, [`Engine::carry_out`] acts, once, and
//! [`Engine::conclude`] records what came of it. A crash in between leaves what was staged: a lease that is revoked
//! soon, or a record of the engine's own that its tick finds. Looking at other systems is free at any time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Asker, Clock, EngineError, Entropy, Http, Map, Passwords, Pod, Request, Response, RouteTable, Storage,
    Workers, outside,
};

/// The mount an engine serves, as far as it may know it.
#[derive(Clone, Debug, Default)]
pub struct MountView {
    /// Path with a trailing slash, without the namespace.
    pub path: String,
    /// Stable id of the mount; survives a move.
    pub uuid: String,
    /// Accessor shown to people and used by identity aliases.
    pub accessor: String,
    /// `options` given at enable or tune (`version` for KV).
    pub options: BTreeMap<String, String>,
    /// Default lifetime of what it issues, system defaults already applied.
    pub default_lease_ttl: Duration,
    /// Longest lifetime of what it issues, system limits already applied.
    pub max_lease_ttl: Duration,
    /// Never shipped to performance secondaries.
    pub is_local: bool,
}

/// Everything an engine may touch while it handles one request.
pub struct Ctx<'a> {
    /// Its own storage.
    pub storage: &'a dyn Storage,
    /// Its mount.
    pub mount: &'a MountView,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub entropy: &'a dyn Entropy,
    /// Other systems.
    pub http: &'a dyn Http,
    /// Password policies.
    pub passwords: &'a dyn Passwords,
    /// Threads for what takes long.
    pub workers: &'a dyn Workers,
    /// The pod the node runs in.
    pub pod: &'a dyn Pod,
}

impl Ctx<'_> {
    /// Runs a computation that takes longer than a millisecond or so (hashing a password, making an RSA key) where it
    /// keeps no other request waiting. For callers with a token; on a route that takes anybody, use
    /// [`Self::compute_for`].
    ///
    /// # Errors
    /// [`EngineError::Busy`] when too many wait already; when it panics.
    pub async fn compute<T, F>(&self, work: F) -> Result<T, EngineError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        outside::computed(self.workers, Asker::Known, work).await
    }

    /// As [`Self::compute`], for whoever made `request`. Without a token it waits in a line of its own, so that a flood of
    /// logins delays nobody who is in already.
    ///
    /// # Errors
    /// [`EngineError::Busy`] when too many wait already; when it panics.
    pub async fn compute_for<T, F>(&self, request: &Request, work: F) -> Result<T, EngineError>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        outside::computed(self.workers, Asker::of(request), work).await
    }
}

/// A granted lease, as handed back for renewal and revocation.
#[derive(Clone, Debug)]
pub struct LeaseRecord {
    /// Full lease id.
    pub id: String,
    /// [`crate::LeaseGrant::internal`] as the engine gave it.
    pub internal: Map,
    /// Wanted increment on renewal; zero for the default.
    pub increment: Duration,
    /// Lifetime at issue.
    pub ttl: Duration,
}

/// A secrets engine or auth method.
#[async_trait]
pub trait Engine: Send + Sync {
    /// The paths it serves on this mount. The same table for the lifetime of the value.
    fn routes(&self) -> &RouteTable;

    /// Serves one request whose route matched.
    ///
    /// # Errors
    /// As [`EngineError`] says.
    async fn handle(&self, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError>;

    /// Whether something is already at the request's path: decides between `create` and `update`.
    /// `None` when the path knows no difference; it then counts as `update`.
    ///
    /// # Errors
    /// When storage fails.
    fn exists(&self, _ctx: &Ctx<'_>, _request: &Request) -> Result<Option<bool>, EngineError> {
        Ok(None)
    }

    /// Whether failed logins are counted and names locked that were tried too often ([`Self::login_name`]).
    fn locks_names(&self) -> bool {
        false
    }

    /// Whom a login says it is of, in the one form that the login itself will use. Asked before the login is tried, of
    /// auth methods that lock names; none when the request names nobody.
    fn login_name(&self, _request: &Request) -> Option<String> {
        None
    }

    /// Prefixes of its storage that are of class local even in a replicated mount.
    fn local_prefixes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Called once when the mount is created, in the same entry that records the mount.
    ///
    /// # Errors
    /// Refuses the mount.
    async fn initialize(&self, _ctx: &Ctx<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// Acts on the outside world as [`Response::intent`] says, after what came with it is committed. Called once for
    /// each intent; storage shows the committed state and takes no writes. Takes a minute at most: the kernel gives up
    /// then, and what the engine had begun must be undone by revoking the lease, or by a later tick.
    ///
    /// # Errors
    /// Shown to the caller; [`Self::conclude`] hears of it, and a lease granted with the intent is revoked, or taken
    /// away where the failure says [`EngineError::NothingDone`].
    async fn carry_out(&self, _ctx: &Ctx<'_>, _intent: &Map) -> Result<Map, EngineError> {
        Err(EngineError::Unsupported)
    }

    /// Records what came of an intent; its answer is the caller's. May run several times, on fresh state. What it
    /// stages is committed even when it answers an error, as it does by default when carrying out failed.
    ///
    /// # Errors
    /// As [`EngineError`] says.
    fn conclude(
        &self,
        _ctx: &Ctx<'_>,
        _intent: &Map,
        outcome: Result<Map, EngineError>,
    ) -> Result<Response, EngineError> {
        let data = outcome?;
        Ok(Response { data: Some(data), ..Response::default() })
    }

    /// Extends a lease; the answer's `lease` gives the new lifetime.
    ///
    /// # Errors
    /// Refuses the renewal.
    async fn renew(&self, _ctx: &Ctx<'_>, _lease: &LeaseRecord) -> Result<Response, EngineError> {
        Err(EngineError::Unsupported)
    }

    /// Undoes what a lease granted. Called until it succeeds, so it must be safe to repeat.
    ///
    /// # Errors
    /// The kernel retries with back-off.
    async fn revoke(&self, _ctx: &Ctx<'_>, _lease: &LeaseRecord) -> Result<(), EngineError> {
        Err(EngineError::Unsupported)
    }

    /// How often it gets a tick; five seconds at the least.
    fn tick_interval(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Housekeeping on the active node, every [`Self::tick_interval`], as a request of its own. What it answers are intents, to
    /// be carried out side by side once what it staged is committed.
    ///
    /// # Errors
    /// Logged; tried again next time.
    async fn tick(&self, _ctx: &Ctx<'_>) -> Result<Vec<Map>, EngineError> {
        Ok(Vec::new())
    }

    /// One more step of housekeeping that is too much for one entry of the log, as a request of its own: what it stages
    /// is committed before the next. Called behind each tick, and again after the pause it answers, until it answers that
    /// nothing is left or the next tick is due. The kernel makes the pause longer if that is needed to leave most of the
    /// time to others.
    ///
    /// # Errors
    /// Logged; tried again behind the next tick.
    async fn go_on(&self, _ctx: &Ctx<'_>) -> Result<Option<Duration>, EngineError> {
        Ok(None)
    }
}

/// Whether an engine holds secrets or proves identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineKind {
    /// Under `auth/`.
    Auth,
    /// Anywhere else.
    Secrets,
}

/// An entry of the list of engines: what `secrets enable TYPE` can name.
#[derive(Clone, Copy)]
pub struct EngineType {
    /// The type as users write it.
    pub name: &'static str,
    /// Secrets engine or auth method.
    pub kind: EngineKind,
    /// Makes the engine for a mount.
    pub make: fn(&MountView) -> Result<Arc<dyn Engine>, EngineError>,
    /// One line for people.
    pub summary: &'static str,
}

impl std::fmt::Debug for EngineType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EngineType({})", self.name)
    }
}
