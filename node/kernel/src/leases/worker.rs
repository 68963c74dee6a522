//! What the active node does about what is due: tokens and leases that ended, and jobs that are not done.
//!
//! Everything due stands in one index, so this finds what fell due while nobody was active. Each step is a
//! transaction of bounded size; one that conflicts is left for the next round. **Invariant:** a step that fails stays
//! in the index: nothing is forgotten.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Class, TimedIndex};
use arca_engine_api::{Ctx, EngineError, LeaseGrant, Response, UnixMillis};
use futures::StreamExt as _;

use super::jobs::Work;
use super::{LeaseEntry, LeaseState};
use crate::KernelError;
use crate::kernel::Kernel;
use crate::namespaces::Namespace;
use crate::router::Mount;
use crate::tokens::renew::LoginRenewal;
use crate::tokens::{Limits, Reaped, TokenEntry, TokenRef};
use crate::tx::{EngineStorage, Mode, Tx};

/// Entries looked at in one round.
const ROUND_MAX: usize = 1_024;
/// Tokens and jobs handled in one transaction.
const TOGETHER_MAX: usize = 16;
/// Leases undone at the same time: engines may wait for systems behind them.
const AT_ONCE: usize = 16;
/// Longest wait for an engine to undo one lease.
const REVOKE_PATIENCE: Duration = Duration::from_secs(60);
/// Steps taken for one revocation before its request is answered; the rest is done in the background.
const STEPS_AT_ONCE: usize = 8;

/// Something due.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    Job { namespace_id: String, id: String },
    Lease { namespace_id: String, id: String },
    Token(TokenRef),
}

impl Due {
    fn parse(path: &str) -> Option<Self> {
        let (namespace_id, rest) = path.split_once('/')?;
        let namespace_id = namespace_id.to_owned();
        if let Some(key) = rest.strip_prefix("token/id/") {
            return Some(Self::Token(TokenRef { namespace_id, key: key.to_owned() }));
        }
        if let Some(id) = rest.strip_prefix("lease/id/") {
            return Some(Self::Lease { namespace_id, id: id.to_owned() });
        }
        rest.strip_prefix("lease/job/").map(|id| Self::Job { namespace_id, id: id.to_owned() })
    }
}

type Entry = (UnixMillis, String, Due);

impl Kernel {
    /// Handles what is due until nothing is left that could be got further with now.
    pub(crate) async fn expire_due(&self) -> Result<(), KernelError> {
        loop {
            let now = self.clock.now();
            let due = self.store.begin(Mode::ReadOnly).due(
                Class::Local,
                TimedIndex::LeaseDeadline,
                now,
                ROUND_MAX,
            )?;
            if self.handle_due(due, now).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Answers how many steps were committed.
    async fn handle_due(
        &self,
        due: Vec<(UnixMillis, String)>,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        let (mut leases, mut others) = (Vec::new(), Vec::new());
        for (at, path) in due {
            match Due::parse(&path) {
                Some(due @ Due::Lease { .. }) => leases.push((at, path, due)),
                Some(other) => others.push((at, path, other)),
                None => tracing::error!("the time index holds an entry of an unknown kind"),
            }
        }
        let mut progress = 0;
        for together in others.chunks(TOGETHER_MAX) {
            progress += self.handle_together(together, now).await?;
        }
        let mut undone = futures::stream::iter(leases)
            .map(|(at, path, due)| async move { counted(self.undo_due(at, &path, &due).await) })
            .buffer_unordered(AT_ONCE);
        while let Some(result) = undone.next().await {
            progress += result?;
        }
        Ok(progress)
    }

    /// Several steps in one transaction; one by one if that does not work out.
    async fn handle_together(&self, entries: &[Entry], now: UnixMillis) -> Result<usize, KernelError> {
        match self.handle_entries(entries, now).await {
            Ok(()) => return Ok(entries.len()),
            Err(KernelError::NeedsActive) => return Err(KernelError::NeedsActive),
            Err(_) => {}
        }
        let mut progress = 0;
        for entry in entries {
            progress += counted(self.handle_entries(std::slice::from_ref(entry), now).await)?;
        }
        Ok(progress)
    }

    async fn handle_entries(&self, entries: &[Entry], now: UnixMillis) -> Result<(), KernelError> {
        let tx = self.store.begin(Mode::ReadWrite);
        for (at, path, due) in entries {
            let is_stale = match due {
                Due::Token(wanted) => self.reap_step(&tx, wanted, now)? != Reaped::More,
                Due::Job { namespace_id, id } => {
                    self.leases.go_on(&tx, &self.tokens, namespace_id, id, now)?
                }
                Due::Lease { .. } => false,
            };
            if is_stale {
                tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, *at, path)?;
            }
        }
        self.store.commit(tx).await?;
        Ok(())
    }

    fn reap_step(&self, tx: &Tx, wanted: &TokenRef, now: UnixMillis) -> Result<Reaped, KernelError> {
        let drawers = self.drawers(&wanted.namespace_id)?;
        self.tokens.reap(tx, &self.leases, wanted, &drawers, now)
    }

    /// Folders of what belongs to one token each: its cubbyhole in every namespace it could use.
    fn drawers(&self, namespace_id: &str) -> Result<Vec<(Class, String)>, KernelError> {
        let router = self.mounts.router(&self.store)?;
        let mut drawers = Vec::new();
        let home = router.namespaces().iter().find(|namespace| namespace.id == namespace_id).cloned();
        for namespace in router.namespaces().iter() {
            let is_reachable = home.as_ref().is_some_and(|home| namespace.path.starts_with(&home.path));
            let cubbyhole = router.at(&format!("{}cubbyhole/", namespace.path)).filter(|_| is_reachable);
            drawers.extend(cubbyhole.map(|mount| (mount.class(), mount.storage_prefix())));
        }
        Ok(drawers)
    }

    /// Takes a revoked token away as far as a few steps go. Whatever is left or fails is left to housekeeping.
    pub(crate) async fn reap_soon(&self, wanted: TokenRef) {
        for _ in 0..STEPS_AT_ONCE {
            let tx = self.store.begin(Mode::ReadWrite);
            let step = self.reap_step(&tx, &wanted, self.clock.now());
            let committed = self.store.commit(tx).await;
            match (step, committed) {
                (Ok(Reaped::More), Ok(_)) => {}
                (Ok(_), Ok(_)) => return,
                (Err(err), _) | (_, Err(err)) => {
                    tracing::debug!(error = %err, "a revoked token is left to housekeeping");
                    return;
                }
            }
        }
    }

    /// Handles one lease that is due.
    async fn undo_due(&self, at: UnixMillis, path: &str, due: &Due) -> Result<(), KernelError> {
        let Due::Lease { namespace_id, id } = due else { return Ok(()) };
        let tx = self.store.begin(Mode::ReadWrite);
        let now = self.clock.now();
        let lease = self.leases.load(&tx, namespace_id, id)?;
        let Some(lease) = lease.filter(|lease| lease.due().is_some_and(|due| due <= now)) else {
            tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, at, path)?; // Renewed, or gone.
            self.store.commit(tx).await?;
            return Ok(());
        };
        match self.undo(&tx, &lease).await {
            Ok(()) => {
                self.leases.remove(&tx, &lease)?;
                self.store.commit(tx).await?;
            }
            Err(err) => self.undo_failed(namespace_id, id, &err).await?,
        }
        Ok(())
    }

    async fn undo_failed(&self, namespace_id: &str, id: &str, err: &KernelError) -> Result<(), KernelError> {
        let now = self.clock.now();
        let tx = self.store.begin(Mode::ReadWrite);
        let Some(lease) = self.leases.load(&tx, namespace_id, id)? else { return Ok(()) };
        tracing::warn!(mount = lease.mount_uuid, attempts = lease.attempts + 1, error = %err, "a lease could not be revoked");
        self.leases.put_off(&tx, lease, &err.to_string(), now)?;
        self.store.commit(tx).await?;
        Ok(())
    }

    /// Revokes a lease at once, whatever its deadline.
    ///
    /// # Errors
    /// When its engine fails: the lease is kept and tried again later.
    pub(crate) async fn revoke_lease_now(&self, namespace_id: &str, id: &str) -> Result<(), KernelError> {
        let tx = self.store.begin(Mode::ReadWrite);
        let Some(lease) = self.leases.load(&tx, namespace_id, id)? else { return Ok(()) };
        if let Err(err) = self.undo(&tx, &lease).await {
            self.undo_failed(namespace_id, id, &err).await?;
            let is_gone = self.leases.load(&self.store.begin(Mode::ReadOnly), namespace_id, id)?.is_none();
            return if is_gone { Ok(()) } else { Err(err) };
        }
        self.leases.remove(&tx, &lease)?;
        match self.store.commit(tx).await {
            Err(err) if err.is_conflict() => Ok(()), // Somebody else took it away, or will.
            other => other.map(|_| ()),
        }
    }

    /// Ends everything that requests to a mount granted, and waits for it.
    ///
    /// # Errors
    /// When something could not be undone yet: it is tried again, and so may this be.
    pub(crate) async fn revoke_mount(&self, mount: &Mount) -> Result<(), KernelError> {
        self.end_below(&mount.namespace.id, &mount.record.path, false).await
    }

    /// Ends everything that requests below a path granted, and waits for it.
    ///
    /// # Errors
    /// As [`Self::revoke_mount`].
    pub(crate) async fn end_below(
        &self,
        namespace_id: &str,
        prefix: &str,
        is_forced: bool,
    ) -> Result<(), KernelError> {
        self.commit_staged(|tx| {
            let work = Work::ending(prefix, is_forced);
            self.leases.begin(tx, &self.tokens, self.entropy.as_ref(), self.clock.now(), namespace_id, work)
        })
        .await?;
        self.expire_due().await?;
        if self.leases.has_any_below(&self.store.begin(Mode::ReadOnly), namespace_id, prefix)? {
            let text = "some leases could not be revoked yet; they will be tried again";
            return Err(EngineError::Upstream(text.to_owned()).into());
        }
        Ok(())
    }

    /// Calls the engine that granted a lease.
    async fn undo(&self, tx: &Tx, lease: &LeaseEntry) -> Result<(), KernelError> {
        let mount = self.mount_by_uuid(&lease.mount_uuid)?;
        let engine = mount.engine()?;
        let storage = EngineStorage::new(tx, mount.storage_prefix(), mount.class(), engine.local_prefixes());
        let record = lease.to_record(Duration::ZERO);
        let ctx = self.engine_ctx(&storage, &mount);
        let revoking = engine.revoke(&ctx, &record);
        match tokio::time::timeout(REVOKE_PATIENCE, revoking).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(EngineError::Upstream("the engine did not answer in time".to_owned()).into()),
        }
    }

    fn engine_ctx<'a>(&'a self, storage: &'a EngineStorage<'a>, mount: &'a Mount) -> Ctx<'a> {
        Ctx { storage, mount: &mount.view, clock: self.clock.as_ref(), entropy: self.entropy.as_ref() }
    }

    fn mount_by_uuid(&self, uuid: &str) -> Result<Arc<Mount>, KernelError> {
        let router = self.mounts.router(&self.store)?;
        let mount = router.by_uuid(uuid).cloned();
        mount.ok_or_else(|| KernelError::invalid("the mount that granted the lease is gone"))
    }

    /// Asks the engine for a longer lease and stages it; answers the lease, and the engine's answer.
    ///
    /// # Errors
    /// When the lease is gone, cannot be renewed, is at its limit, or the engine refuses.
    pub(crate) async fn renew_lease(
        &self,
        tx: &Tx,
        lease: LeaseEntry,
        increment: Duration,
    ) -> Result<(LeaseEntry, Response), KernelError> {
        let now = self.clock.now();
        if !lease.is_good(now) {
            return Err(KernelError::invalid("lease expired"));
        }
        if !lease.is_renewable || lease.state != LeaseState::Live {
            return Err(KernelError::invalid("lease is not renewable"));
        }
        let mount = self.mount_by_uuid(&lease.mount_uuid)?;
        let engine = mount.engine()?;
        let storage = EngineStorage::new(tx, mount.storage_prefix(), mount.class(), engine.local_prefixes());
        let ctx = self.engine_ctx(&storage, &mount);
        let mut response = engine.renew(&ctx, &lease.to_record(increment)).await?;
        let answered =
            response.lease.take().unwrap_or_else(|| LeaseGrant { ttl: increment, ..LeaseGrant::default() });
        let (lease, warning) = self.leases.extend(tx, lease, &answered, increment, limits_of(&mount), now)?;
        response.warnings.extend(warning);
        Ok((lease, response))
    }

    /// Asks an auth method whether a token of one of its logins may be renewed.
    ///
    /// # Errors
    /// When the mount is gone or the method refuses; one that knows nothing of renewals refuses.
    pub(crate) async fn renew_login(
        &self,
        tx: &Tx,
        entry: &TokenEntry,
        increment: Duration,
    ) -> Result<(Limits, LoginRenewal), KernelError> {
        let router = self.mounts.router(&self.store)?;
        let origin = entry.login.as_ref();
        let mount = origin.and_then(|origin| {
            let mut mounts = router.mounts_of(&entry.namespace_id);
            mounts.find(|mount| mount.record.accessor == origin.mount_accessor && mount.is_active()).cloned()
        });
        let (Some(origin), Some(mount)) = (origin, mount) else {
            return Err(KernelError::invalid("the auth method of this token is gone, not renewing"));
        };
        let engine = mount.engine()?;
        let storage = EngineStorage::new(tx, mount.storage_prefix(), mount.class(), engine.local_prefixes());
        let record = arca_engine_api::LeaseRecord {
            id: entry.lease_id(),
            internal: origin.internal.clone(),
            increment,
            ttl: if origin.ttl.is_zero() { entry.ttl } else { origin.ttl },
        };
        let response = match engine.renew(&self.engine_ctx(&storage, &mount), &record).await {
            Err(EngineError::Unsupported) => return Err(KernelError::invalid("lease is not renewable")),
            other => other?,
        };
        Ok((limits_of(&mount), LoginRenewal::from_response(entry, response)?))
    }

    /// Lifetimes that the token mount of a namespace allows.
    pub(crate) fn token_limits(&self, namespace: &Namespace) -> Result<Limits, KernelError> {
        let router = self.mounts.router(&self.store)?;
        let mount = router.at(&format!("{}auth/token/", namespace.path));
        let (default_ttl, max_ttl) = (self.config.default_lease_ttl, self.config.max_lease_ttl);
        Ok(mount.map_or(Limits { default_ttl, max_ttl }, |mount| limits_of(mount)))
    }
}

/// One step of progress, or none: what failed stays in the index for the next round. Only losing the lead ends it.
fn counted(result: Result<(), KernelError>) -> Result<usize, KernelError> {
    match result {
        Ok(()) => Ok(1),
        Err(KernelError::NeedsActive) => Err(KernelError::NeedsActive),
        Err(err) if err.is_conflict() => Ok(0),
        Err(err) => {
            tracing::warn!(error = %err, "something due could not be handled, will try again");
            Ok(0)
        }
    }
}

/// Lifetimes a mount allows.
pub(crate) fn limits_of(mount: &Mount) -> Limits {
    Limits { default_ttl: mount.view.default_lease_ttl, max_ttl: mount.view.max_lease_ttl }
}
