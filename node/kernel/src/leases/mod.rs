//! Leases: what was granted for a time, when it ends, and whose it is.
//!
//! Deadlines stand in a time-ordered index in the store, so a node that becomes active loads nothing and misses
//! nothing: what fell due while nobody was active is found first. **Invariant:** a lease is taken from the store only
//! in the transaction in which its engine undid it, or by force.
//! Read next: [`lanes`] for what the active node does with what is due, [`crate::tokens`] for whose leases they are.

mod claims;
pub mod entry;
pub mod jobs;
mod lanes;
mod steady;
pub mod worker;

use std::time::Duration;

use arca_barrier::{Class, TimedIndex};
use arca_engine_api::{Entropy, LeaseGrant, UnixMillis};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) use claims::Claims;
pub use entry::{LeaseEntry, LeaseState};
pub use jobs::OfMount;
pub(crate) use steady::SteadyTime;

use crate::KernelError;
use crate::tokens::entry::LEASE_MARK;
use crate::tokens::lifetime::{self, Limits, Wish};
use crate::tokens::store::by_path_prefix;
use crate::tokens::{TokenEntry, TokenRef, TokenStore, secret};
use crate::tx::Tx;

/// How often undoing is tried before a lease counts as irrevocable.
pub const ATTEMPTS_MAX: u32 = 6;
/// Wait after the first failure; doubled after each further one.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// Where what was revoked by request stands in the time index: due whatever the clocks say.
pub(crate) const FIRST_IN_LINE: UnixMillis = UnixMillis(0);
/// Leases looked at in one go.
const LOOK_MAX: usize = 256;
/// Longest failure text kept.
const FAILURE_MAX: usize = 512;

/// The request that grants a lease.
#[derive(Clone, Copy)]
pub struct GrantTo<'a> {
    /// Namespace of the request.
    pub namespace_id: &'a str,
    /// Path of the request, without the namespace.
    pub path: &'a str,
    /// Id of the mount.
    pub mount_uuid: &'a str,
    /// Lifetimes the mount allows.
    pub limits: Limits,
    /// The token of the request; none where anybody may ask.
    pub token: Option<&'a TokenEntry>,
}

/// See the module's header. Holds nothing: everything is in the store.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leases;

/// What is left of what a mount granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOf {
    /// Leases that nobody tries to undo any more.
    pub(crate) given_up: usize,
    /// There are others.
    pub(crate) has_others: bool,
}

/// What [`token_path`] holds.
#[derive(Serialize, Deserialize)]
struct TokenLink {
    namespace_id: String,
    id: String,
}

pub(crate) fn id_path(namespace_id: &str, id: &str) -> String {
    format!("{namespace_id}/lease/id/{id}")
}

fn token_prefix(token: &TokenRef) -> String {
    format!("{}/lease/token/{}/", token.namespace_id, token.key)
}

fn digest(namespace_id: &str, id: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(namespace_id.as_bytes());
    hash.update([0]);
    hash.update(id.as_bytes());
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn token_path(token: &TokenRef, lease: &LeaseEntry) -> String {
    format!("{}{}", token_prefix(token), digest(&lease.namespace_id, &lease.id))
}

fn irrevocable_path(namespace_id: &str, id: &str) -> String {
    format!("{namespace_id}/lease/irrevocable/{}", digest(namespace_id, id))
}

/// The key in a token's lease id; `None` for the id of another lease.
pub(crate) fn token_key_of(lease_id: &str) -> Option<&str> {
    let last = lease_id.rsplit('/').next()?.strip_prefix(LEASE_MARK)?;
    let key = last.split_once('.').map_or(last, |(key, _)| key);
    (key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(key)
}

impl Leases {
    /// Stages a lease for what a request granted; answers it, and what to warn of.
    ///
    /// # Errors
    /// When the token is gone or about to end, or randomness or storage fails.
    pub fn grant(
        &self,
        tx: &Tx,
        tokens: &TokenStore,
        entropy: &dyn Entropy,
        now: UnixMillis,
        to: GrantTo<'_>,
        grant: &LeaseGrant,
    ) -> Result<(LeaseEntry, Vec<String>), KernelError> {
        let wish = Wish { ttl: grant.ttl, max_ttl: grant.max_ttl, ..Wish::default() };
        let granted = lifetime::grant(&wish, to.limits, now, now)
            .map_err(|_| KernelError::invalid("the lease would end at once"))?;
        // A batch token cannot be found again when it ends: what it is granted ends with it (CVE-2020-25816).
        let never_after = to.token.filter(|token| token.is_batch()).and_then(|token| token.expires);
        let owner = to
            .token
            .and_then(|token| if token.is_batch() { token.parent.clone() } else { Some(token.reference()) });
        if let Some(owner) = &owner {
            tokens.hold(tx, owner)?;
        }
        let expires = now.after(granted.ttl);
        let expires = never_after.map_or(expires, |end| end.min(expires));
        let suffix = secret::namespace_suffix(to.namespace_id);
        let unique = secret::base62(entropy, secret::HANDLE_LEN)?;
        let lease = LeaseEntry {
            id: format!("{}/{}{suffix}", to.path.trim_end_matches('/'), *unique),
            namespace_id: to.namespace_id.to_owned(),
            path: to.path.to_owned(),
            mount_uuid: to.mount_uuid.to_owned(),
            token: owner,
            issued: now,
            expires,
            ttl: expires.since(now),
            max_ttl: grant.max_ttl,
            never_after,
            is_renewable: grant.is_renewable,
            internal: grant.internal.clone(),
            ..LeaseEntry::default()
        };
        if let Some(owner) = &lease.token {
            let link = TokenLink { namespace_id: lease.namespace_id.clone(), id: lease.id.clone() };
            tx.put_record(Class::Local, &token_path(owner, &lease), &link)?;
        }
        self.save(tx, &lease)?;
        queue(tx, &lease)?;
        Ok((lease, granted.warnings))
    }

    /// The record, whatever state it is in, in this namespace and no other (CVE-2026-55774).
    ///
    /// # Errors
    /// When storage fails.
    pub fn load(&self, tx: &Tx, namespace_id: &str, id: &str) -> Result<Option<LeaseEntry>, KernelError> {
        if id.is_empty() || id.ends_with('/') {
            return Ok(None);
        }
        Ok(tx.get_record(Class::Local, &id_path(namespace_id, id))?)
    }

    fn save(&self, tx: &Tx, lease: &LeaseEntry) -> Result<(), KernelError> {
        Ok(tx.put_record(Class::Local, &id_path(&lease.namespace_id, &lease.id), lease)?)
    }

    /// Gives a lease a new lifetime, as the engine answered.
    ///
    /// # Errors
    /// When it is at its limit, or storage fails.
    pub fn extend(
        &self,
        tx: &Tx,
        mut lease: LeaseEntry,
        answered: &LeaseGrant,
        increment: Duration,
        limits: Limits,
        now: UnixMillis,
    ) -> Result<(LeaseEntry, Vec<String>), KernelError> {
        let at_limit = || KernelError::invalid("past the max TTL, cannot renew");
        let wish = Wish {
            ttl: if answered.ttl.is_zero() { increment } else { answered.ttl },
            fallback_ttl: lease.ttl,
            max_ttl: lifetime::lesser(answered.max_ttl, lease.max_ttl),
            ..Wish::default()
        };
        let granted = lifetime::grant(&wish, limits, lease.issued, now).map_err(|_| at_limit())?;
        let expires = now.after(granted.ttl);
        let expires = lease.never_after.map_or(expires, |end| end.min(expires));
        if expires.since(now) < lifetime::TTL_MIN {
            return Err(at_limit());
        }
        unqueue(tx, &lease)?;
        lease.expires = expires;
        lease.last_renewed = Some(now);
        if !answered.internal.is_empty() {
            lease.internal.clone_from(&answered.internal);
        }
        self.save(tx, &lease)?;
        queue(tx, &lease)?;
        Ok((lease, granted.warnings))
    }

    /// Marks a lease: what it granted will be undone as soon as possible. Forced: even if undoing fails. One that waits
    /// after a failure waits no longer, and its failures are forgotten.
    ///
    /// # Errors
    /// When storage fails.
    pub fn end(
        &self,
        tx: &Tx,
        mut lease: LeaseEntry,
        is_forced: bool,
        now: UnixMillis,
    ) -> Result<(), KernelError> {
        let is_waiting = lease.settled_by.is_none() && lease.queued.is_some_and(|at| at > FIRST_IN_LINE);
        let is_under_way =
            lease.state == LeaseState::Revoking && !is_waiting && (lease.is_forced || !is_forced);
        if is_under_way {
            return Ok(());
        }
        unqueue(tx, &lease)?;
        tx.delete(Class::Local, &irrevocable_path(&lease.namespace_id, &lease.id))?;
        lease.state = LeaseState::Revoking;
        lease.is_forced |= is_forced;
        lease.expires = lease.expires.min(now);
        lease.attempts = 0;
        // What is still being made cannot be undone yet.
        lease.queued = Some(lease.settled_by.unwrap_or(FIRST_IN_LINE));
        self.save(tx, &lease)?;
        queue(tx, &lease)
    }

    /// What a lease granted is about to be made, and for certain no more after `settled_by`: until it is confirmed, the
    /// lease ends then.
    pub(crate) fn intend(
        &self,
        tx: &Tx,
        mut lease: LeaseEntry,
        settled_by: UnixMillis,
    ) -> Result<LeaseEntry, KernelError> {
        unqueue(tx, &lease)?;
        lease.settled_by = Some(settled_by);
        self.save(tx, &lease)?;
        queue(tx, &lease)?;
        Ok(lease)
    }

    /// What a lease granted has been made: it now lasts as long as it says.
    ///
    /// # Errors
    /// When it was revoked meanwhile; it is undone then.
    pub(crate) fn confirm(
        &self,
        tx: &Tx,
        intended: &LeaseEntry,
        has_ended: bool,
    ) -> Result<LeaseEntry, KernelError> {
        let found = self.load(tx, &intended.namespace_id, &intended.id)?;
        let Some(mut lease) = found.filter(|found| found.state == LeaseState::Live) else {
            self.abandon(tx, intended, has_ended)?;
            return Err(KernelError::invalid("the lease was revoked before it was granted"));
        };
        unqueue(tx, &lease)?;
        lease.settled_by = None;
        self.save(tx, &lease)?;
        queue(tx, &lease)?;
        Ok(lease)
    }

    /// Making what a lease granted has failed or is of no use: whatever there is of it is undone, at once if making it
    /// has ended, else when it has for certain.
    pub(crate) fn abandon(&self, tx: &Tx, intended: &LeaseEntry, has_ended: bool) -> Result<(), KernelError> {
        let found = self.load(tx, &intended.namespace_id, &intended.id)?;
        // Gone or not, something may have been made since.
        let mut lease = found.unwrap_or_else(|| LeaseEntry { token: None, ..intended.clone() });
        unqueue(tx, &lease)?;
        lease.settled_by = intended.settled_by.filter(|_| !has_ended);
        lease.state = LeaseState::Revoking;
        lease.attempts = 0;
        lease.queued = Some(lease.settled_by.unwrap_or(FIRST_IN_LINE));
        self.save(tx, &lease)?;
        tx.delete(Class::Local, &irrevocable_path(&lease.namespace_id, &lease.id))?;
        queue(tx, &lease)
    }

    /// Nothing of what a lease was to grant has been made: there is nothing to undo.
    pub(crate) fn take_back(&self, tx: &Tx, intended: &LeaseEntry) -> Result<(), KernelError> {
        match self.load(tx, &intended.namespace_id, &intended.id)? {
            Some(lease) => self.remove(tx, &lease),
            None => Ok(()),
        }
    }

    /// Ends at most `limit` leases of a token that goes away; answers how many.
    pub(crate) fn end_leases_of(
        &self,
        tx: &Tx,
        token: &TokenRef,
        limit: usize,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        let links = tx.some_below(Class::Local, &token_prefix(token), limit)?;
        for path in &links {
            let link: Option<TokenLink> = tx.get_record(Class::Local, path)?;
            if let Some(TokenLink { namespace_id, id }) = link
                && let Some(lease) = self.load(tx, &namespace_id, &id)?
                && lease.state == LeaseState::Live
            {
                self.end(tx, lease, false, now)?;
            }
            tx.delete(Class::Local, path)?;
        }
        Ok(links.len())
    }

    /// Stages the removal of a lease whose engine undid it.
    pub(crate) fn remove(&self, tx: &Tx, lease: &LeaseEntry) -> Result<(), KernelError> {
        unqueue(tx, lease)?;
        if let Some(token) = &lease.token {
            tx.delete(Class::Local, &token_path(token, lease))?;
        }
        tx.delete(Class::Local, &irrevocable_path(&lease.namespace_id, &lease.id))?;
        tx.delete(Class::Local, &id_path(&lease.namespace_id, &lease.id))?;
        Ok(())
    }

    /// Undoing failed: try again later, or give up, or drop the lease if it was forced.
    pub(crate) fn put_off(
        &self,
        tx: &Tx,
        mut lease: LeaseEntry,
        failure: &str,
        now: UnixMillis,
    ) -> Result<(), KernelError> {
        if lease.is_forced {
            return self.remove(tx, &lease);
        }
        unqueue(tx, &lease)?;
        lease.attempts += 1;
        lease.failure = failure.chars().take(FAILURE_MAX).collect();
        if lease.attempts >= ATTEMPTS_MAX {
            lease.state = LeaseState::Irrevocable;
            lease.queued = None;
            let path = irrevocable_path(&lease.namespace_id, &lease.id);
            tx.put(Class::Local, &path, lease.id.clone().into_bytes().into())?;
        } else {
            lease.state = LeaseState::Revoking;
            lease.queued = Some(now.after(RETRY_AFTER * 2_u32.saturating_pow(lease.attempts - 1)));
        }
        self.save(tx, &lease)?;
        queue(tx, &lease)
    }

    /// Undoing failed and would again, since nobody is left to ask: keeps the lease for people to see, or drops it if it was
    /// forced.
    pub(crate) fn give_up(
        &self,
        tx: &Tx,
        mut lease: LeaseEntry,
        failure: &str,
        now: UnixMillis,
    ) -> Result<(), KernelError> {
        lease.attempts = ATTEMPTS_MAX;
        self.put_off(tx, lease, failure, now)
    }

    /// What is left of what a mount granted below a path.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) fn left_of(
        &self,
        tx: &Tx,
        (namespace_id, prefix): (&str, &str),
        uuid: &str,
    ) -> Result<LeftOf, KernelError> {
        let (folder, ids) = (id_path(namespace_id, prefix), id_path(namespace_id, ""));
        let (mut left, mut after) = (LeftOf::default(), None::<String>);
        loop {
            let found = tx.some_below_after(Class::Local, &folder, after.as_deref(), LOOK_MAX)?;
            for path in &found {
                let lease = self.load(tx, namespace_id, path.strip_prefix(&ids).unwrap_or_default())?;
                let Some(lease) = lease.filter(|lease| lease.mount_uuid == uuid) else { continue };
                if lease.state == LeaseState::Irrevocable {
                    left.given_up += 1;
                } else {
                    left.has_others = true;
                }
            }
            if found.len() < LOOK_MAX {
                return Ok(left);
            }
            after = found.last().cloned();
        }
    }

    /// Has leases of a mount tried again that were given up, at most as many as are looked at with one step. Answers where the
    /// next step goes on, if there may be more.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) fn try_again(
        &self,
        tx: &Tx,
        (namespace_id, uuid): (&str, &str),
        after: Option<&str>,
        now: UnixMillis,
    ) -> Result<Option<String>, KernelError> {
        let folder = format!("{namespace_id}/lease/irrevocable/");
        let found = tx.some_below_after(Class::Local, &folder, after, LOOK_MAX)?;
        for path in &found {
            let Some(id) = tx.peek(Class::Local, path)? else { continue };
            let lease = self.load(tx, namespace_id, &String::from_utf8_lossy(&id))?;
            if let Some(lease) = lease.filter(|lease| lease.mount_uuid == uuid) {
                self.end(tx, lease, false, now)?;
            }
        }
        Ok(found.last().filter(|_| found.len() == LOOK_MAX).cloned())
    }

    /// Leases of a namespace that could not be undone.
    ///
    /// # Errors
    /// When storage fails.
    pub fn irrevocable(
        &self,
        tx: &Tx,
        namespace_id: &str,
        limit: usize,
    ) -> Result<Vec<LeaseEntry>, KernelError> {
        let prefix = format!("{namespace_id}/lease/irrevocable/");
        let mut found = Vec::new();
        for path in tx.some_below(Class::Local, &prefix, limit)? {
            let Some(id) = tx.peek(Class::Local, &path)? else { continue };
            let id = String::from_utf8_lossy(&id).into_owned();
            found.extend(self.load(tx, namespace_id, &id)?);
        }
        Ok(found)
    }

    /// Whether any lease or token made by requests at or below `prefix` is left: what a mount waits for before it
    /// goes.
    ///
    /// # Errors
    /// When storage fails.
    pub fn has_any_below(&self, tx: &Tx, namespace_id: &str, prefix: &str) -> Result<bool, KernelError> {
        let folder = format!("{}/", prefix.trim_end_matches('/'));
        let (lease, leases) = (id_path(namespace_id, prefix), id_path(namespace_id, &folder));
        for path in [lease, leases, by_path_prefix(namespace_id, &folder)] {
            if !tx.some_below(Class::Local, &path, 1)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn queue(tx: &Tx, lease: &LeaseEntry) -> Result<(), KernelError> {
    if let Some(due) = lease.due() {
        let path = id_path(&lease.namespace_id, &lease.id);
        tx.put_timed(Class::Local, TimedIndex::LeaseDeadline, due, &path)?;
    }
    Ok(())
}

fn unqueue(tx: &Tx, lease: &LeaseEntry) -> Result<(), KernelError> {
    if let Some(due) = lease.due() {
        let path = id_path(&lease.namespace_id, &lease.id);
        tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, due, &path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
