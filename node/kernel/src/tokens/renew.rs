//! Renewing: a new deadline within everything that bounds a token.

use std::time::Duration;

use arca_engine_api::{Map, UnixMillis};

use super::lifetime::{self, Limits, Wish};
use super::store::{queue, unqueue};
use super::{TokenEntry, TokenRef, TokenState, TokenStore};
use crate::KernelError;
use crate::tx::Tx;

/// What an auth method answered when a token of its logins was to be renewed.
#[derive(Clone, Debug, Default)]
pub struct LoginRenewal {
    /// Lifetime where the caller wants none; zero for the usual.
    pub ttl: Duration,
    /// Longest lifetime, zero for the mount's; none for what the login said.
    pub max_ttl: Option<Duration>,
    /// Period; none for what the login said.
    pub period: Option<Duration>,
    /// New data for the next renewal, if any.
    pub internal: Map,
    /// Groups the method says the caller is in; none when it says nothing of them.
    pub group_aliases: Option<Vec<String>>,
}

/// A renewal.
#[derive(Clone, Debug, Default)]
pub struct Renewal {
    /// Wanted lifetime; zero for the usual.
    pub increment: Duration,
    /// Lifetimes the mount allows: of the login, or of `auth/token/`.
    pub limits: Limits,
    /// For tokens of logins.
    pub login: Option<LoginRenewal>,
}

/// # Errors
/// When the token is of a kind that cannot be renewed.
pub(super) fn check_renewable(entry: &TokenEntry) -> Result<(), KernelError> {
    if entry.is_batch() {
        return Err(KernelError::invalid("batch tokens cannot be renewed"));
    }
    if !entry.is_renewable || entry.expires.is_none() {
        return Err(KernelError::invalid("lease is not renewable"));
    }
    Ok(())
}

impl TokenStore {
    /// Gives a live token a new deadline; answers its record and warnings.
    ///
    /// # Errors
    /// When the token is gone, ended, cannot be renewed, or is at its limit.
    pub fn renew(
        &self,
        tx: &Tx,
        wanted: &TokenRef,
        renewal: Renewal,
        now: UnixMillis,
    ) -> Result<(TokenEntry, Vec<String>), KernelError> {
        let missing = || KernelError::invalid("token not found");
        let mut entry = self.load(tx, wanted)?.ok_or_else(missing)?;
        // A token on its last use is on its way out in this very transaction; it may not come back.
        if entry.state != TokenState::Live || entry.has_ended(now) {
            return Err(missing());
        }
        check_renewable(&entry)?;
        let wish = self.wish(tx, &entry, &renewal)?;
        let granted = lifetime::grant(&wish, renewal.limits, entry.created, now)
            .map_err(|_| KernelError::invalid("past the max TTL, cannot renew"))?;
        unqueue(tx, &entry)?;
        entry.expires = Some(now.after(granted.ttl));
        entry.last_renewed = Some(now);
        if let (Some(origin), Some(login)) = (&mut entry.login, renewal.login)
            && !login.internal.is_empty()
        {
            origin.internal = login.internal;
        }
        self.save(tx, &entry)?;
        queue(tx, &entry)?;
        Ok((entry, granted.warnings))
    }

    fn wish(&self, tx: &Tx, entry: &TokenEntry, renewal: &Renewal) -> Result<Wish, KernelError> {
        let mut wish = Wish {
            ttl: renewal.increment,
            // What somebody asked for at the last renewal is the usual from then on; a login says its own.
            fallback_ttl: entry.granted().filter(|_| entry.login.is_none()).unwrap_or(entry.ttl),
            period: entry.period,
            explicit_max_ttl: entry.explicit_max_ttl,
            ..Wish::default()
        };
        if let Some(origin) = &entry.login {
            wish.max_ttl = origin.max_ttl;
        }
        if let Some(login) = &renewal.login {
            // A wish may be longer than the usual lifetime: what bounds it are the maximum and the period.
            if wish.ttl.is_zero() {
                wish.ttl = login.ttl;
            }
            wish.max_ttl = login.max_ttl.unwrap_or(wish.max_ttl);
            wish.period = login.period.unwrap_or(entry.period);
            if login.period.is_some() {
                wish.fallback_ttl = Duration::ZERO; // A login told anew without a lifetime wants the mount's.
            }
        }
        if !entry.role.is_empty() {
            let role = self.role(tx, &entry.namespace_id, &entry.role)?.ok_or_else(|| {
                KernelError::invalid("original token role could not be found, not renewing")
            })?;
            wish.period = lifetime::lesser(entry.period, role.period);
            wish.explicit_max_ttl = lifetime::lesser(entry.explicit_max_ttl, role.explicit_max_ttl);
        }
        Ok(wish)
    }
}
