//! How a lease or a token ends, and how one is renewed: the engine that granted it is asked, then the store is changed.
//!
//! **Invariant:** a lease whose engine could not undo it is kept, and tried again.
//! Read next: [`super::lanes`] for who does this to all that is due, [`super::steady`] for what counts as due when a
//! clock jumps.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Class, TimedIndex};
use arca_danger::Bug;
use arca_engine_api::{EngineError, LeaseGrant, Response, UnixMillis};
use tokio::sync::Semaphore;

use super::jobs::{OfMount, Work};
use super::lanes::{Due, Entry, REPEATS_MAX};
use super::{LeaseEntry, LeaseState};
use crate::KernelError;
use crate::kernel::Kernel;
use crate::namespaces::Namespace;
use crate::router::Mount;
use crate::tokens::renew::LoginRenewal;
use crate::tokens::{Limits, Reaped, TokenEntry, TokenRef};
use crate::tx::{Mode, Tx};

/// Longest wait for an engine to undo one lease.
const REVOKE_PATIENCE: Duration = Duration::from_secs(60);
/// Steps taken for one revocation before its request is answered; the rest is done in the background.
const STEPS_AT_ONCE: usize = 8;

/// How undoing a lease went.
pub(super) enum Undone {
    /// There is nothing left to do now.
    Done,
    /// Its engine did not answer in time.
    Late,
    /// Its engine did not answer others in time, and was not asked.
    NotTried,
}

impl Undone {
    fn or_late(self) -> Result<(), KernelError> {
        match self {
            Self::Done => Ok(()),
            Self::Late | Self::NotTried => {
                Err(EngineError::Upstream("the engine did not answer in time".to_owned()).into())
            }
        }
    }
}

impl Kernel {
    fn reap_step(&self, tx: &Tx, wanted: &TokenRef, now: UnixMillis) -> Result<Reaped, KernelError> {
        let drawers = self.drawers(&wanted.namespace_id)?;
        self.tokens.reap(tx, &self.leases, wanted, &drawers, now)
    }

    /// Folders of what belongs to one token each: its cubbyhole in every namespace it could use.
    pub(super) fn drawers(&self, namespace_id: &str) -> Result<Vec<(Class, String)>, KernelError> {
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
            let step = self.reap_step(&tx, &wanted, self.due_by());
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

    /// Handles one lease that is due: it is undone, or put off. Whoever asks the engine holds a permit of `engine`, which
    /// is closed when the engine does not answer.
    pub(super) async fn undo_due(
        &self,
        entry: &Entry,
        engine: &Semaphore,
        now: UnixMillis,
    ) -> Result<Undone, KernelError> {
        let Due::Lease { namespace_id, id } = &entry.due else { return Ok(Undone::Done) };
        let _claim = self.undoing.take(&entry.path).await;
        let Ok(permit) = engine.acquire().await else { return Ok(Undone::NotTried) };
        let tx = self.store.begin(Mode::ReadWrite);
        let lease = self.leases.load(&tx, namespace_id, id)?;
        let Some(lease) = lease.filter(|lease| lease.due().is_some_and(|due| due <= now)) else {
            // Renewed, or gone.
            tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, entry.at, &entry.path)?;
            self.store.commit(tx).await?;
            return Ok(Undone::Done);
        };
        if arca_danger::is(Bug::LeaseGoneBeforeUndone) {
            self.leases.remove(&tx, &lease)?;
            self.store.commit(tx).await?;
            return self.undo(&self.store.begin(Mode::ReadOnly), &lease).await;
        }
        let undone = self.undo(&tx, &lease).await;
        drop(permit);
        if matches!(undone, Ok(Undone::Done)) {
            self.leases.remove(&tx, &lease)?;
            match self.store.commit(tx).await {
                // Its engine keeps something shared about it, which a performance secondary cannot take away.
                Err(err @ KernelError::NeedsPrimary) => {
                    self.undo_failed(namespace_id, id, &err).await?;
                    return Ok(Undone::Done);
                }
                other => other?,
            };
            if lease.state == LeaseState::Live {
                self.note_lateness(&[entry.at]);
            }
            return Ok(Undone::Done);
        }
        let is_late = matches!(undone, Ok(Undone::Late));
        if let Err(err) = undone.and_then(Undone::or_late) {
            self.undo_failed(namespace_id, id, &err).await?;
        }
        Ok(if is_late { Undone::Late } else { Undone::Done })
    }

    /// Handles several leases of one mount that are due, in one transaction: all of them, or none.
    ///
    /// # Errors
    /// When one of them cannot be undone, or the transaction conflicts: what the engine did outside is done again then.
    pub(super) async fn undo_entries(
        &self,
        entries: &[Entry],
        now: UnixMillis,
    ) -> Result<Undone, KernelError> {
        // In one order for everybody: nobody who holds one of the claims waits for another that somebody holds who waits for it.
        let paths: BTreeSet<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        let mut claims = Vec::new();
        for path in paths {
            claims.push(self.undoing.take(path).await);
        }
        let (tx, mut gone) = (self.store.begin(Mode::ReadWrite), Vec::new());
        for entry in entries {
            let Due::Lease { namespace_id, id } = &entry.due else { continue };
            let lease = self.leases.load(&tx, namespace_id, id)?;
            let Some(lease) = lease.filter(|lease| lease.due().is_some_and(|due| due <= now)) else {
                tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, entry.at, &entry.path)?;
                continue;
            };
            match self.undo(&tx, &lease).await? {
                Undone::Done => self.leases.remove(&tx, &lease)?,
                late => return Ok(late),
            }
            if lease.state == LeaseState::Live {
                gone.push(entry.at);
            }
        }
        self.store.commit(tx).await?;
        self.note_lateness(&gone);
        Ok(Undone::Done)
    }

    async fn undo_failed(&self, namespace_id: &str, id: &str, err: &KernelError) -> Result<(), KernelError> {
        let now = self.due_by();
        let tx = self.store.begin(Mode::ReadWrite);
        let Some(lease) = self.leases.load(&tx, namespace_id, id)? else { return Ok(()) };
        tracing::warn!(mount = lease.mount_uuid, attempts = lease.attempts + 1, error = %err, "a lease could not be revoked");
        let router = self.mounts.router(&self.store)?;
        if router.by_uuid(&lease.mount_uuid).is_some() {
            self.leases.put_off(&tx, lease, &err.to_string(), now)?;
        } else {
            self.leases.give_up(&tx, lease, &err.to_string(), now)?;
        }
        self.store.commit(tx).await?;
        Ok(())
    }

    /// Revokes a lease at once, whatever its deadline. One that others keep colliding with is left to housekeeping.
    ///
    /// # Errors
    /// When its engine fails: the lease is kept and tried again later.
    pub(crate) async fn revoke_lease_now(&self, namespace_id: &str, id: &str) -> Result<(), KernelError> {
        let path = super::id_path(namespace_id, id);
        let _claim = self.undoing.take(&path).await;
        for _ in 0..=REPEATS_MAX {
            let tx = self.store.begin(Mode::ReadWrite);
            let Some(lease) = self.leases.load(&tx, namespace_id, id)? else { return Ok(()) };
            if lease.settled_by.is_some_and(|at| at > self.due_by()) {
                let text = "what the lease granted is still being made; it will be revoked after that";
                return Err(EngineError::Upstream(text.to_owned()).into());
            }
            if let Err(err) = self.undo(&tx, &lease).await.and_then(Undone::or_late) {
                self.undo_failed(namespace_id, id, &err).await?;
                let is_gone =
                    self.leases.load(&self.store.begin(Mode::ReadOnly), namespace_id, id)?.is_none();
                return if is_gone { Ok(()) } else { Err(err) };
            }
            self.leases.remove(&tx, &lease)?;
            match self.store.commit(tx).await {
                Err(err) if err.is_conflict() => {}
                other => return other.map(|_| ()),
            }
        }
        Ok(())
    }

    /// Ends everything that requests to a mount granted, and waits for it.
    ///
    /// # Errors
    /// When something could not be undone yet: it is tried again, and so may this be.
    pub(crate) async fn revoke_mount(&self, mount: &Mount) -> Result<(), KernelError> {
        let work = Work::ending(&mount.record.path, false).patiently();
        self.end_by(&mount.namespace.id, &mount.record.path, work).await
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
        self.end_by(namespace_id, prefix, Work::ending(prefix, is_forced)).await
    }

    async fn end_by(&self, namespace_id: &str, prefix: &str, work: Work) -> Result<(), KernelError> {
        self.end_as_far_as_it_goes(namespace_id, prefix, work).await?;
        if self.leases.has_any_below(&self.store.begin(Mode::ReadOnly), namespace_id, prefix)? {
            let text = "some leases could not be revoked yet; they will be tried again";
            return Err(EngineError::Upstream(text.to_owned()).into());
        }
        Ok(())
    }

    /// Ends what one mount granted below a path, and nothing of others there, and waits for it. Answers how many leases are
    /// kept for people to see because they could not be undone.
    ///
    /// # Errors
    /// When something could not be undone yet: it is tried again, and so may this be.
    pub(crate) async fn end_of_mount(
        &self,
        namespace_id: &str,
        prefix: &str,
        of: OfMount,
    ) -> Result<usize, KernelError> {
        let work = Work::ending(prefix, false).patiently().of(of.clone());
        self.end_as_far_as_it_goes(namespace_id, prefix, work).await?;
        let tx = self.store.begin(Mode::ReadOnly);
        let left = self.leases.left_of(&tx, (namespace_id, prefix), &of.uuid)?;
        // A mount that is there can still be asked: what was given up is tried again as often as this is.
        let waits = left.has_others || (left.given_up > 0 && !of.is_gone);
        if waits || self.tokens.has_any_of(&tx, namespace_id, prefix, &of)? {
            let text = "some leases could not be revoked yet; they will be tried again";
            return Err(EngineError::Upstream(text.to_owned()).into());
        }
        Ok(left.given_up)
    }

    /// Has leases of a mount tried again that were given up while it was not there.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) async fn try_given_up(&self, namespace_id: &str, uuid: &str) -> Result<(), KernelError> {
        let mut after: Option<String> = None;
        loop {
            let now = self.clock.now();
            let of = (namespace_id, uuid);
            after = self.commit_staged(|tx| self.leases.try_again(tx, of, after.as_deref(), now)).await?;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn end_as_far_as_it_goes(
        &self,
        namespace_id: &str,
        prefix: &str,
        work: Work,
    ) -> Result<(), KernelError> {
        self.commit_staged(|tx| {
            let work = work.clone();
            self.leases.begin(tx, &self.tokens, self.entropy.as_ref(), self.clock.now(), namespace_id, work)
        })
        .await?;
        // Nobody else's leases: an engine that does not answer is no matter of this one.
        let below = super::id_path(namespace_id, prefix);
        while self.expire_tokens().await? + self.expire_leases_below(&below).await? > 0 {}
        Ok(())
    }

    /// Calls the engine that granted a lease.
    async fn undo(&self, tx: &Tx, lease: &LeaseEntry) -> Result<Undone, KernelError> {
        let mount = self.mount_by_uuid(&lease.mount_uuid)?;
        let called = self.call(tx, &mount)?;
        let record = lease.to_record(Duration::ZERO);
        let ctx = called.ctx();
        let revoking = called.engine().revoke(&ctx, &record);
        match tokio::time::timeout(REVOKE_PATIENCE, revoking).await {
            Ok(result) => Ok(result.map(|()| Undone::Done)?),
            Err(_) => Ok(Undone::Late),
        }
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
        if !lease.is_renewable || lease.settled_by.is_some() || lease.state != LeaseState::Live {
            return Err(KernelError::invalid("lease is not renewable"));
        }
        let mount = self.mount_by_uuid(&lease.mount_uuid)?;
        let called = self.call(tx, &mount)?;
        let ctx = called.ctx();
        let mut response = called.engine().renew(&ctx, &lease.to_record(increment)).await?;
        let answered =
            response.lease.take().unwrap_or_else(|| LeaseGrant { ttl: increment, ..LeaseGrant::default() });
        let (lease, warnings) =
            self.leases.extend(tx, lease, &answered, increment, limits_of(&mount), now)?;
        response.warnings.extend(warnings);
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
            let mount = router.by_accessor(&entry.namespace_id, &origin.mount_accessor)?;
            mount.is_active().then(|| Arc::clone(mount))
        });
        let (Some(origin), Some(mount)) = (origin, mount) else {
            return Err(KernelError::invalid("the auth method of this token is gone, not renewing"));
        };
        let called = self.call(tx, &mount)?;
        let ctx = called.ctx();
        let record = arca_engine_api::LeaseRecord {
            id: entry.lease_id(),
            internal: origin.internal.clone(),
            increment,
            ttl: if origin.ttl.is_zero() { entry.ttl } else { origin.ttl },
        };
        let response = match called.engine().renew(&ctx, &record).await {
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

/// Lifetimes a mount allows.
pub(crate) fn limits_of(mount: &Mount) -> Limits {
    Limits { default_ttl: mount.view.default_lease_ttl, max_ttl: mount.view.max_lease_ttl }
}
