//! Long work in small transactions: revoking everything below a path, tidying. A job is a record that stands in the
//! time index like a lease that is due, so it goes on after a failover where it stopped.

use arca_barrier::{Class, TimedIndex};
use arca_engine_api::{Entropy, UnixMillis};
use serde::{Deserialize, Serialize};

use super::{FIRST_IN_LINE, LeaseState, Leases, id_path};
use crate::tokens::TokenStore;
use crate::tx::Tx;
use crate::{KernelError, ids};

/// Records one step looks at.
const STEP_MAX: usize = 256;

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
    },
    /// Revoke every token made by requests below a path that ends in `/`.
    RevokeTokens {
        /// The path.
        prefix: String,
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
}

pub(super) fn job_path(namespace_id: &str, id: &str) -> String {
    format!("{namespace_id}/lease/job/{id}")
}

impl Work {
    /// The work that ends what requests below `prefix` granted. Paths below `auth/` made tokens and nothing else.
    /// Other paths made leases and tokens that wrap an answer, and no token but these (Vault 0.6.0).
    #[must_use]
    pub fn ending(prefix: &str, is_forced: bool) -> Self {
        let prefix = format!("{}/", prefix.trim_end_matches('/'));
        if prefix.starts_with("auth/") {
            Self::RevokeTokens { prefix }
        } else {
            Self::EndLeases { prefix, is_forced }
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
        let mut job = Job { work, queued: FIRST_IN_LINE, after: None };
        if self.step(tx, tokens, namespace_id, &mut job, now)? {
            return Ok(true);
        }
        let path = job_path(namespace_id, &ids::hex(entropy, 16)?);
        tx.put_record(Class::Local, &path, &job)?;
        tx.put_timed(Class::Local, TimedIndex::LeaseDeadline, job.queued, &path)?;
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
    ) -> Result<bool, KernelError> {
        let path = job_path(namespace_id, id);
        let Some(mut job) = tx.get_record::<Job>(Class::Local, &path)? else { return Ok(true) };
        if self.step(tx, tokens, namespace_id, &mut job, now)? {
            tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, job.queued, &path)?;
            tx.delete(Class::Local, &path)?;
            return Ok(true);
        }
        tx.put_record(Class::Local, &path, &job)?;
        Ok(false)
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
            Work::RevokeTokens { prefix } => {
                return Ok(tokens.revoke_by_path(tx, namespace_id, prefix, STEP_MAX, now)? < STEP_MAX);
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
            let is_forced = match job.work {
                Work::EndLeases { is_forced, .. } => is_forced,
                _ => {
                    let owner = lease.token.as_ref().map(|owner| tokens.load(tx, owner)).transpose()?;
                    if lease.state != LeaseState::Live || owner.is_none_or(|found| found.is_some()) {
                        continue;
                    }
                    false
                }
            };
            self.end(tx, lease, is_forced)?;
        }
        job.after = found.last().cloned();
        let left = STEP_MAX - found.len();
        let Work::EndLeases { prefix, .. } = &job.work else { return Ok(left > 0) };
        if left == 0 {
            return Ok(false);
        }
        if tokens.revoke_by_path(tx, namespace_id, prefix, left, now)? < left {
            return Ok(true);
        }
        job.work = Work::RevokeTokens { prefix: prefix.clone() };
        Ok(false)
    }
}
