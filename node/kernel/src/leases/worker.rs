//! What the active node does about what is due: tokens and leases that ended, and jobs that are not done.
//!
//! Everything due stands in one index, so this finds what fell due while nobody was active. Each step is a
//! transaction of bounded size; one that conflicts is left for the next round. **Invariant:** a step that fails stays
//! in the index, so nothing is forgotten, and is passed over, so nothing waits behind it.
//! Read next: [`super::steady`] for what counts as due when a clock jumps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arca_barrier::{Class, TimedIndex};
use arca_engine_api::{EngineError, LeaseGrant, Response, UnixMillis};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;

use super::jobs::Work;
use super::{LeaseEntry, LeaseState};
use crate::KernelError;
use crate::kernel::Kernel;
use crate::namespaces::Namespace;
use crate::router::Mount;
use crate::tokens::renew::LoginRenewal;
use crate::tokens::{Limits, Reaped, TokenEntry, TokenRef};
use crate::tx::{Mode, Tx};

/// Entries looked at in one go.
const PAGE_MAX: usize = 1_024;
/// Tokens and jobs handled in one transaction.
const TOGETHER_MAX: usize = 16;
/// Leases of one mount undone at the same time: engines may wait for systems behind them.
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

/// Which of the things due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Leases,
    /// And jobs.
    Tokens,
}

/// What going through everything due has taught so far.
#[derive(Default)]
struct Round {
    /// Only entries whose path begins so.
    below: String,
    /// Paths of entries that failed: left to the next round.
    failed: Mutex<BTreeSet<String>>,
    /// Mounts whose engine did not answer in time.
    stuck: Mutex<BTreeSet<String>>,
}

impl Round {
    fn takes(&self, path: &str) -> bool {
        path.starts_with(&self.below) && !self.failed.lock().contains(path)
    }

    /// One step of progress, or none: what failed stays in the index. Only losing the lead ends the round.
    fn counted(&self, path: &str, result: Result<(), KernelError>) -> Result<usize, KernelError> {
        match result {
            Ok(()) => Ok(1),
            Err(KernelError::NeedsActive) => Err(KernelError::NeedsActive),
            Err(err) if err.is_conflict() => Ok(0),
            Err(err) => {
                tracing::warn!(error = %err, "something due could not be handled, will try again");
                self.failed.lock().insert(path.to_owned());
                Ok(0)
            }
        }
    }
}

/// How undoing a lease went.
enum Undone {
    /// There is nothing left to do now.
    Done,
    /// Its engine did not answer in time.
    Late,
}

impl Undone {
    fn or_late(self) -> Result<(), KernelError> {
        match self {
            Self::Done => Ok(()),
            Self::Late => Err(EngineError::Upstream("the engine did not answer in time".to_owned()).into()),
        }
    }
}

impl Kernel {
    /// Handles the tokens and jobs that are due; answers how many steps were committed.
    pub(crate) async fn expire_tokens(&self) -> Result<usize, KernelError> {
        self.expire(Kind::Tokens, "").await
    }

    /// Handles the leases that are due; answers how many steps were committed.
    pub(crate) async fn expire_leases(&self) -> Result<usize, KernelError> {
        self.expire(Kind::Leases, "").await
    }

    /// What stands below a path only.
    async fn expire(&self, kind: Kind, below: &str) -> Result<usize, KernelError> {
        let (round, mut total) = (Round { below: below.to_owned(), ..Round::default() }, 0);
        loop {
            let progress = self.go_through(kind, &round).await?;
            if progress == 0 {
                return Ok(total);
            }
            total += progress;
        }
    }

    /// Goes through everything due once, page by page: what fails holds up nothing behind it.
    async fn go_through(&self, kind: Kind, round: &Round) -> Result<usize, KernelError> {
        let (now, mut progress, mut last) = (self.due_by(), 0, None);
        loop {
            let tx = self.store.begin(Mode::ReadOnly);
            let index = TimedIndex::LeaseDeadline;
            let page = tx.due(Class::Local, index, now, last.as_ref(), PAGE_MAX)?;
            let is_last = page.len() < PAGE_MAX;
            last = page.last().cloned();
            let (mut leases, mut others) = (Vec::new(), Vec::new());
            for (at, path) in page.into_iter().filter(|(_, path)| round.takes(path)) {
                match Due::parse(&path) {
                    Some(due @ Due::Lease { .. }) => leases.push((at, path, due)),
                    Some(other) => others.push((at, path, other)),
                    None => tracing::error!("the time index holds an entry of an unknown kind"),
                }
            }
            progress += match kind {
                Kind::Leases => self.undo_page(leases, round, now).await?,
                Kind::Tokens => self.handle_page(&others, round, now).await?,
            };
            if is_last {
                return Ok(progress);
            }
        }
    }

    async fn handle_page(
        &self,
        entries: &[Entry],
        round: &Round,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        let mut progress = 0;
        for together in entries.chunks(TOGETHER_MAX) {
            progress += self.handle_together(together, round, now).await?;
        }
        Ok(progress)
    }

    /// Each mount's leases by themselves, so that an engine that does not answer keeps nobody else's waiting.
    async fn undo_page(
        &self,
        entries: Vec<Entry>,
        round: &Round,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        let tx = self.store.begin(Mode::ReadOnly);
        let (mut by_mount, mut progress) = (BTreeMap::<String, Vec<Entry>>::new(), 0);
        for entry in entries {
            let Due::Lease { namespace_id, id } = &entry.2 else { continue };
            match self.leases.load(&tx, namespace_id, id) {
                Ok(lease) => {
                    let uuid = lease.map(|lease| lease.mount_uuid).unwrap_or_default();
                    by_mount.entry(uuid).or_default().push(entry);
                }
                Err(err) => progress += round.counted(&entry.1, Err(err))?,
            }
        }
        drop(tx);
        let mut groups: FuturesUnordered<_> = by_mount
            .into_iter()
            .map(|(uuid, entries)| async move { self.undo_group(&uuid, entries, round, now).await })
            .collect();
        while let Some(result) = groups.next().await {
            progress += result?;
        }
        Ok(progress)
    }

    /// Undoes leases of one mount. Once its engine fails to answer in time, the rest is left to the next round.
    async fn undo_group(
        &self,
        uuid: &str,
        entries: Vec<Entry>,
        round: &Round,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        let mut progress = 0;
        let mut undone = futures::stream::iter(entries)
            .map(|(at, path, due)| async move {
                if round.stuck.lock().contains(uuid) {
                    return Ok(0);
                }
                match self.undo_due(at, &path, &due, now).await {
                    Ok(Undone::Late) => {
                        round.stuck.lock().insert(uuid.to_owned());
                        Ok(0)
                    }
                    result => round.counted(&path, result.map(drop)),
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some(result) = undone.next().await {
            progress += result?;
        }
        Ok(progress)
    }

    /// Several steps in one transaction; one by one if that does not work out.
    async fn handle_together(
        &self,
        entries: &[Entry],
        round: &Round,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        match self.handle_entries(entries, now).await {
            Ok(()) => return Ok(entries.len()),
            Err(KernelError::NeedsActive) => return Err(KernelError::NeedsActive),
            Err(_) => {}
        }
        let mut progress = 0;
        for entry in entries {
            let result = self.handle_entries(std::slice::from_ref(entry), now).await;
            progress += round.counted(&entry.1, result)?;
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

    /// Handles one lease that is due: it is undone, or put off.
    async fn undo_due(
        &self,
        at: UnixMillis,
        path: &str,
        due: &Due,
        now: UnixMillis,
    ) -> Result<Undone, KernelError> {
        let Due::Lease { namespace_id, id } = due else { return Ok(Undone::Done) };
        let tx = self.store.begin(Mode::ReadWrite);
        let lease = self.leases.load(&tx, namespace_id, id)?;
        let Some(lease) = lease.filter(|lease| lease.due().is_some_and(|due| due <= now)) else {
            tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, at, path)?; // Renewed, or gone.
            self.store.commit(tx).await?;
            return Ok(Undone::Done);
        };
        let undone = self.undo(&tx, &lease).await;
        if matches!(undone, Ok(Undone::Done)) {
            self.leases.remove(&tx, &lease)?;
            self.store.commit(tx).await?;
            return Ok(Undone::Done);
        }
        let is_late = matches!(undone, Ok(Undone::Late));
        if let Err(err) = undone.and_then(Undone::or_late) {
            self.undo_failed(namespace_id, id, &err).await?;
        }
        Ok(if is_late { Undone::Late } else { Undone::Done })
    }

    async fn undo_failed(&self, namespace_id: &str, id: &str, err: &KernelError) -> Result<(), KernelError> {
        let now = self.due_by();
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
        if lease.settled_by.is_some_and(|at| at > self.due_by()) {
            let text = "what the lease granted is still being made; it will be revoked after that";
            return Err(EngineError::Upstream(text.to_owned()).into());
        }
        if let Err(err) = self.undo(&tx, &lease).await.and_then(Undone::or_late) {
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
        // Nobody else's leases: an engine that does not answer is no matter of this one.
        let below = super::id_path(namespace_id, prefix);
        while self.expire_tokens().await? + self.expire(Kind::Leases, &below).await? > 0 {}
        if self.leases.has_any_below(&self.store.begin(Mode::ReadOnly), namespace_id, prefix)? {
            let text = "some leases could not be revoked yet; they will be tried again";
            return Err(EngineError::Upstream(text.to_owned()).into());
        }
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
