//! Long work in small transactions: revoking everything below a path, tidying. A job is a record that stands in the
//! time index like a lease that is due, so it goes on after a failover where it stopped.

use std::time::Duration;

use arca_barrier::{Class, TimedIndex};
use arca_engine_api::{Entropy, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{FIRST_IN_LINE, LeaseEntry, LeaseState, Leases, id_path};
use crate::tokens::revoke::ByPath;
use crate::tokens::store::{by_path_prefix, id_path as token_path};
use crate::tokens::{TokenEntry, TokenStore};
use crate::tx::Tx;
use crate::{KernelError, ids};

/// Records one step looks at.
const STEP_MAX: usize = 256;
/// Between looks at whether what a job has ended is undone.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A job that has ended so many that are still to be undone waits for them.
const BACKLOG_MAX: usize = 4_096;
/// Leases and tokens counted at most, for those who want to know how many are left.
const COUNT_MAX: usize = 10_000;

/// The one mount that work is about, at a path that others may have now or have had: on a performance secondary, a local mount
/// hides one of the primary, and a mount that is made anew follows one that has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfMount {
    /// Its id, as leases have it.
    pub uuid: String,
    /// Its accessor, as tokens of logins have it; empty if it was never noted: then all of them count as its own.
    pub accessor: String,
    /// No other mount is at the path. Tokens that wrap an answer do not say of which mount, and count as its own only then.
    #[serde(default)]
    pub is_alone: bool,
    /// It is gone, so that nothing it granted can be undone: what was given up stays so.
    #[serde(default)]
    pub is_gone: bool,
}

impl OfMount {
    /// Whether a token was made by requests to it.
    pub(crate) fn made(&self, token: &TokenEntry) -> bool {
        match &token.login {
            Some(login) => self.accessor.is_empty() || login.mount_accessor == self.accessor,
            None => self.is_alone,
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Work {
    /// End every lease below a path that ends in `/`, then revoke the tokens that wrap answers from there.
    EndLeases {
        /// The path.
        prefix: String,
        /// Drop leases that cannot be undone.
        is_forced: bool,
        /// Leave those alone that wait for their next attempt: nobody asks, it only happens again and again.
        #[serde(default)]
        is_patient: bool,
        /// Only what this mount granted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<OfMount>,
    },
    /// Revoke every token made by requests below a path that ends in `/`.
    RevokeTokens {
        /// The path.
        prefix: String,
        /// Only those made by this mount.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<OfMount>,
    },
    /// Look for leases whose token is gone.
    TidyLeases,
    /// Look for accessors and parents that lead nowhere.
    TidyTokens,
}

/// A job's record, at `<namespace id>/lease/job/<id>`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    work: Work,
    /// Its place in the time index.
    queued: UnixMillis,
    /// Path at which the last step ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    /// When it was asked for.
    #[serde(default)]
    started: UnixMillis,
    /// Leases and tokens ended so far.
    #[serde(default)]
    ended: u64,
    /// Everything is marked; what it marked is being undone.
    #[serde(default)]
    is_marked: bool,
}

/// What a step left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing for now: the job is gone, or looked at again later.
    Done,
    /// More to do, at once.
    More,
}

/// How far a job is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub work: Work,
    /// When it was asked for.
    pub started: UnixMillis,
    /// Leases and tokens ended so far.
    pub ended: u64,
    /// Everything is marked, and is being undone.
    pub is_marked: bool,
    /// Leases below its path that are there yet, counted up to a limit.
    pub left: usize,
    /// Whether there may be more than that.
    pub is_left_more: bool,
}

impl Job {
    /// Where to go on in a folder. Earlier versions left a job for tokens where its leases ended.
    fn after_in(&self, folder: &str) -> Option<&str> {
        self.after.as_deref().filter(|after| after.starts_with(folder))
    }
}

/// What a look at some of what a job has ended showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undoing {
    /// Everything is undone.
    Done,
    /// Something is left.
    Left,
    /// Nothing so far, but there is more to look at.
    Unknown,
}

pub(super) fn job_path(namespace_id: &str, id: &str) -> String {
    format!("{namespace_id}/lease/job/{id}")
}

impl Work {
    /// The same, leaving leases alone that wait for their next attempt.
    #[must_use]
    pub fn patiently(self) -> Self {
        match self {
            Self::EndLeases { prefix, is_forced, of, .. } => {
                Self::EndLeases { prefix, is_forced, is_patient: true, of }
            }
            other => other,
        }
    }

    /// The same, leaving alone what other mounts granted.
    #[must_use]
    pub fn of(self, mount: OfMount) -> Self {
        match self {
            Self::EndLeases { prefix, is_forced, is_patient, .. } => {
                Self::EndLeases { prefix, is_forced, is_patient, of: Some(mount) }
            }
            Self::RevokeTokens { prefix, .. } => Self::RevokeTokens { prefix, of: Some(mount) },
            other => other,
        }
    }

    /// Whether a lease is to end, if there is no more to it than that; forced or not.
    fn ends(&self, lease: &LeaseEntry) -> Option<bool> {
        let Self::EndLeases { is_forced, is_patient, of, .. } = self else { return None };
        let is_gone = of.as_ref().is_some_and(|of| of.is_gone);
        let is_let_be = match lease.state {
            LeaseState::Live => false,
            LeaseState::Revoking => *is_patient,
            LeaseState::Irrevocable => *is_patient && is_gone,
        };
        let is_its = of.as_ref().is_none_or(|of| of.uuid == lease.mount_uuid);
        (is_its && !is_let_be).then_some(*is_forced)
    }

    /// Its name, also for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::EndLeases { .. } | Self::RevokeTokens { .. } => "revoke-prefix",
            Self::TidyLeases => "tidy-leases",
            Self::TidyTokens => "tidy-tokens",
        }
    }

    /// The work that ends what requests below `prefix` granted. Paths below `auth/` made tokens and nothing else.
    /// Other paths made leases and tokens that wrap an answer, and no token but these (Vault 0.6.0).
    #[must_use]
    pub fn ending(prefix: &str, is_forced: bool) -> Self {
        let prefix = format!("{}/", prefix.trim_end_matches('/'));
        if prefix.starts_with("auth/") {
            Self::RevokeTokens { prefix, of: None }
        } else {
            Self::EndLeases { prefix, is_forced, is_patient: false, of: None }
        }
    }
}

impl Leases {
    /// Does the first step of some work; if that is not all, stages a job for the rest and says so.
    ///
    /// # Errors
    /// When randomness or storage fails.
    pub fn begin(
        &self,
        tx: &Tx,
        tokens: &TokenStore,
        entropy: &dyn Entropy,
        now: UnixMillis,
        namespace_id: &str,
        work: Work,
    ) -> Result<bool, KernelError> {
        let path = job_path(namespace_id, &ids::hex(entropy, 16)?);
        self.begin_at(tx, tokens, &path, now, namespace_id, work)
    }

    /// As [`Self::begin`], for work of which there is one job at a time in a namespace; answers whether there is none yet.
    ///
    /// # Errors
    /// When storage fails.
    pub fn begin_once(
        &self,
        tx: &Tx,
        tokens: &TokenStore,
        now: UnixMillis,
        namespace_id: &str,
        work: Work,
    ) -> Result<bool, KernelError> {
        let path = job_path(namespace_id, work.name());
        if tx.get(Class::Local, &path)?.is_some() {
            return Ok(false);
        }
        self.begin_at(tx, tokens, &path, now, namespace_id, work)?;
        Ok(true)
    }

    fn begin_at(
        &self,
        tx: &Tx,
        tokens: &TokenStore,
        path: &str,
        now: UnixMillis,
        namespace_id: &str,
        work: Work,
    ) -> Result<bool, KernelError> {
        let mut job =
            Job { work, queued: FIRST_IN_LINE, after: None, started: now, ended: 0, is_marked: false };
        if self.step(tx, tokens, namespace_id, &mut job, now)? {
            return Ok(true);
        }
        tx.put_record(Class::Local, path, &job)?;
        tx.put_timed(Class::Local, TimedIndex::LeaseDeadline, job.queued, path)?;
        Ok(false)
    }

    /// Does one step of a job; the job goes when it is done.
    pub(super) fn go_on(
        &self,
        tx: &Tx,
        tokens: &TokenStore,
        namespace_id: &str,
        id: &str,
        now: UnixMillis,
    ) -> Result<Step, KernelError> {
        let path = job_path(namespace_id, id);
        let Some(mut job) = tx.get_record::<Job>(Class::Local, &path)? else { return Ok(Step::Done) };
        if !job.is_marked && self.step(tx, tokens, namespace_id, &mut job, now)? {
            (job.is_marked, job.after) = (true, None);
        }
        if job.is_marked {
            let left = self.undoing(tx, namespace_id, &mut job)?;
            if left == Undoing::Unknown {
                tx.put_record(Class::Local, &path, &job)?;
                return Ok(Step::More);
            }
            tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, job.queued, &path)?;
            if left == Undoing::Done {
                tx.delete(Class::Local, &path)?;
                return Ok(Step::Done);
            }
            job.queued = now.after(LOOK_AGAIN);
            tx.put_timed(Class::Local, TimedIndex::LeaseDeadline, job.queued, &path)?;
            tx.put_record(Class::Local, &path, &job)?;
            return Ok(Step::Done);
        }
        tx.put_record(Class::Local, &path, &job)?;
        Ok(Step::More)
    }

    /// Whether a job has to wait: of what it ended, much is still to be undone. What failed stands later in the time index,
    /// and holds up nothing.
    pub(super) fn is_ahead(&self, tx: &Tx, namespace_id: &str, id: &str) -> Result<bool, KernelError> {
        let Some(job) = tx.get_record::<Job>(Class::Local, &job_path(namespace_id, id))? else {
            return Ok(false);
        };
        let folder = match &job.work {
            Work::EndLeases { prefix, .. } => id_path(namespace_id, prefix),
            Work::RevokeTokens { .. } => token_path(namespace_id, ""),
            Work::TidyLeases | Work::TidyTokens => return Ok(false),
        };
        if job.is_marked {
            return Ok(false);
        }
        let (mut after, mut waiting) = (None, 0);
        loop {
            let page =
                tx.due(Class::Local, TimedIndex::LeaseDeadline, FIRST_IN_LINE, after.as_ref(), BACKLOG_MAX)?;
            waiting += page.iter().filter(|(_, path)| path.starts_with(&folder)).count();
            if waiting >= BACKLOG_MAX || page.len() < BACKLOG_MAX {
                return Ok(waiting >= BACKLOG_MAX);
            }
            after = page.last().cloned();
        }
    }

    /// Looks on for something that a job has ended and that is still to be undone. What cannot be undone is no matter of
    /// the job's any more.
    fn undoing(&self, tx: &Tx, namespace_id: &str, job: &mut Job) -> Result<Undoing, KernelError> {
        let (Work::EndLeases { prefix, .. } | Work::RevokeTokens { prefix, .. }) = &job.work else {
            return Ok(Undoing::Done);
        };
        let (folder, ids) = (id_path(namespace_id, prefix), id_path(namespace_id, ""));
        let found = tx.some_below_after(Class::Local, &folder, job.after.as_deref(), STEP_MAX)?;
        for path in &found {
            let lease = self.load(tx, namespace_id, path.strip_prefix(&ids).unwrap_or_default())?;
            if lease.is_some_and(|lease| lease.state == LeaseState::Revoking) {
                return Ok(Undoing::Left);
            }
            job.after = Some(path.clone());
        }
        Ok(if found.len() < STEP_MAX { Undoing::Done } else { Undoing::Unknown })
    }

    /// The jobs of a namespace, by id.
    ///
    /// # Errors
    /// When storage fails.
    pub fn jobs(&self, tx: &Tx, namespace_id: &str) -> Result<Vec<(String, Progress)>, KernelError> {
        let folder = job_path(namespace_id, "");
        let mut found = Vec::new();
        for path in tx.some_below(Class::Local, &folder, usize::MAX)? {
            let Some(job) = tx.get_record::<Job>(Class::Local, &path)? else { continue };
            let left = match &job.work {
                Work::EndLeases { prefix, .. } => {
                    tx.some_below(Class::Local, &id_path(namespace_id, prefix), COUNT_MAX)?.len()
                }
                Work::RevokeTokens { prefix, .. } => {
                    let folder = by_path_prefix(namespace_id, prefix);
                    tx.some_below_after(Class::Local, &folder, job.after_in(&folder), COUNT_MAX)?.len()
                }
                Work::TidyLeases | Work::TidyTokens => 0,
            };
            let Job { work, started, ended, is_marked, .. } = job;
            let is_left_more = left == COUNT_MAX;
            let progress = Progress { work, started, ended, is_marked, left, is_left_more };
            found.push((path.strip_prefix(&folder).unwrap_or_default().to_owned(), progress));
        }
        Ok(found)
    }

    /// True when nothing is left.
    fn step(
        &self,
        tx: &Tx,
        tokens: &TokenStore,
        namespace_id: &str,
        job: &mut Job,
        now: UnixMillis,
    ) -> Result<bool, KernelError> {
        let folder = match &job.work {
            Work::RevokeTokens { prefix, of } => {
                let after = job.after_in(&by_path_prefix(namespace_id, prefix));
                let below = ByPath { namespace_id, prefix, after, of: of.as_ref() };
                let found = tokens.revoke_by_path(tx, below, STEP_MAX, now)?;
                job.ended += found.revoked;
                job.after = found.links.last().cloned();
                return Ok(found.links.len() < STEP_MAX);
            }
            Work::EndLeases { prefix, .. } => id_path(namespace_id, prefix),
            Work::TidyLeases => id_path(namespace_id, ""),
            Work::TidyTokens => {
                job.after = tokens.tidy_step(tx, namespace_id, job.after.as_deref(), STEP_MAX, now)?;
                return Ok(job.after.is_none());
            }
        };
        let found = tx.some_below_after(Class::Local, &folder, job.after.as_deref(), STEP_MAX)?;
        let ids = id_path(namespace_id, "");
        for path in &found {
            let id = path.strip_prefix(&ids).unwrap_or_default();
            let Some(lease) = self.load(tx, namespace_id, id)? else { continue };
            let is_forced = if job.work == Work::TidyLeases {
                let owner = lease.token.as_ref().map(|owner| tokens.load(tx, owner)).transpose()?;
                let is_lost = lease.state == LeaseState::Live && owner.is_some_and(|found| found.is_none());
                is_lost.then_some(false)
            } else {
                job.work.ends(&lease)
            };
            if let Some(is_forced) = is_forced {
                self.end(tx, lease, is_forced, now)?;
                job.ended += 1;
            }
        }
        job.after = found.last().cloned();
        let left = STEP_MAX - found.len();
        let Work::EndLeases { prefix, of, .. } = &job.work else { return Ok(left > 0) };
        if left == 0 {
            return Ok(false);
        }
        let below = ByPath { namespace_id, prefix, after: None, of: of.as_ref() };
        let found = tokens.revoke_by_path(tx, below, left, now)?;
        job.ended += found.revoked;
        job.after = found.links.last().cloned();
        if found.links.len() < left {
            return Ok(true);
        }
        job.work = Work::RevokeTokens { prefix: prefix.clone(), of: of.clone() };
        Ok(false)
    }
}
