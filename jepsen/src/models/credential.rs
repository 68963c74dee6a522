//! A user of a real database, made for a lease: let in until the lease ends or is revoked, and never again after that.
//!
//! Not a matter of order alone but of time, so there is no search. Deadlines are reckoned as in [`super::lease`]; a renewal
//! that was acknowledged sets one anew, and one in doubt may have. A login that the database did not answer, because it was
//! down, says nothing. What must hold, in the order of the check:
//! - No login is let in that began after a revocation was acknowledged which waited for the end, nor long after another
//!   revocation, or after the deadline: how long is [`Options::revoke_slack_ms`].
//! - Who was refused once is never let in again.
//! - Nobody is refused before the deadline, unless a revocation was asked for by then that did not surely fail.
//!
//! Whether such a user is gone at the end, known to somebody or not, is the matter of [`super::leftover`].

use super::{Options, in_words};
use crate::checker::{Evidence, Verdict};
use crate::history::{Call, End, Operation};

const NS_PER_MS: u64 = 1_000_000;

const fn in_ns(ms: u64) -> u64 {
    ms.saturating_mul(NS_PER_MS)
}

/// What one key went through, sorted.
struct Story<'a> {
    made: &'a Operation,
    operations: &'a [&'a Operation],
}

/// Checks one user.
#[must_use]
pub fn check(operations: &[&Operation], options: Options) -> Verdict {
    let made = operations.iter().find_map(|found| match found.call {
        Call::Create { ttl_ms: Some(ttl_ms), .. } => Some((*found, ttl_ms)),
        _ => None,
    });
    let Some((made, ttl_ms)) = made else { return Verdict::Unknown("nobody made it".to_owned()) };
    let Some(made_ns) = made.ended_ns.filter(|_| made.end == End::Ok) else {
        // Nobody was told of it, so nobody can have logged in with it.
        return Verdict::Valid;
    };
    let story = Story { made, operations };
    let slack = in_ns(options.lease_slack_ms);
    let surely_until = story.surely_until(ttl_ms).saturating_sub(slack);
    let gone_from = in_ns(options.revoke_slack_ms);
    let over_by = story.over_by(made_ns.saturating_add(in_ns(ttl_ms))).saturating_add(slack);
    story
        .let_in_after_its_end(over_by.saturating_add(gone_from), gone_from)
        .or_else(|| story.let_in_after_a_refusal())
        .or_else(|| story.refused_too_early(surely_until))
        .unwrap_or(Verdict::Valid)
}

impl<'a> Story<'a> {
    fn logins(&self, end: End) -> impl Iterator<Item = &'a Operation> {
        let is_wanted =
            move |found: &&&Operation| matches!(found.call, Call::Login { .. }) && found.end == end;
        self.operations.iter().filter(is_wanted).copied()
    }

    /// The first of a kind that was acknowledged.
    fn acknowledged(&self, call: &Call) -> Option<&'a Operation> {
        let found = self.operations.iter().filter(|found| found.call == *call && found.end == End::Ok);
        found.min_by_key(|found| found.ended_at).copied()
    }

    fn renewals(&self, end: End) -> impl Iterator<Item = (&'a Operation, u64)> {
        self.operations.iter().filter(move |found| found.end == end).filter_map(|found| match found.call {
            Call::Renew { ttl_ms } => Some((*found, in_ns(ttl_ms))),
            _ => None,
        })
    }

    /// Its lease lasts until then at least.
    fn surely_until(&self, ttl_ms: u64) -> u64 {
        let renewed =
            self.renewals(End::Ok).map(|(renewal, ttl)| renewal.invoked_ns.saturating_add(ttl)).max();
        self.made.invoked_ns.saturating_add(in_ns(ttl_ms)).max(renewed.unwrap_or_default())
    }

    /// Its lease lasts until then at most: a renewal in doubt may have come at the last moment.
    fn over_by(&self, first: u64) -> u64 {
        let renewed =
            self.renewals(End::Ok).filter_map(|(renewal, ttl)| Some(renewal.ended_ns?.saturating_add(ttl)));
        let known = renewed.max().unwrap_or_default().max(first);
        self.renewals(End::Unknown).fold(known, |over, (_, ttl)| over.saturating_add(ttl))
    }

    fn let_in_after_its_end(&self, gone_by: u64, gone_after: u64) -> Option<Verdict> {
        let now = self.acknowledged(&Call::RevokeNow);
        let soon = self.acknowledged(&Call::Revoke);
        let gone_after_revocation =
            soon.and_then(|found| found.ended_ns).map(|ns| ns.saturating_add(gone_after));
        for login in self.logins(End::Ok) {
            if let Some(now) = now
                && now.ended_at.is_some_and(|ended| ended < login.invoked_at)
            {
                let summary = "a user was let in after its revocation was waited for and acknowledged";
                return Some(self.wrong(summary, &[now, login]));
            }
            if let Some(soon) = soon
                && gone_after_revocation.is_some_and(|gone| gone < login.invoked_ns)
            {
                return Some(self.wrong("a user was let in long after its revocation", &[soon, login]));
            }
            if login.invoked_ns > gone_by {
                return Some(self.wrong("a user was let in long after its lease had ended", &[login]));
            }
        }
        None
    }

    fn let_in_after_a_refusal(&self) -> Option<Verdict> {
        let refused = self.logins(End::Refused).min_by_key(|found| found.ended_at)?;
        let ended = refused.ended_at?;
        let again = self.logins(End::Ok).find(|found| found.invoked_at > ended)?;
        Some(self.wrong("a user was let in again after it was refused", &[refused, again]))
    }

    fn refused_too_early(&self, surely_until: u64) -> Option<Verdict> {
        let is_revocation = |found: &&&Operation| {
            matches!(found.call, Call::Revoke | Call::RevokeNow) && found.end != End::Fail
        };
        let revoked_from = self.operations.iter().filter(is_revocation).map(|found| found.invoked_at).min();
        let wrongly = self.logins(End::Refused).find(|found| {
            let is_early = found.ended_ns.is_some_and(|ended| ended < surely_until);
            let is_revoked = revoked_from.is_some_and(|from| found.ended_at.is_some_and(|at| from < at));
            is_early && !is_revoked
        })?;
        Some(self.wrong("a user was refused before its lease ended", &[wrongly]))
    }

    fn wrong(&self, summary: &str, witnesses: &[&Operation]) -> Verdict {
        let after = |ns: u64| ns.saturating_sub(self.made.invoked_ns) / NS_PER_MS;
        let times = witnesses.last().map_or_else(String::new, |found| {
            let ended = found.ended_ns.map_or_else(|| "?".to_owned(), |ns| after(ns).to_string());
            format!(": {}..{ended} ms after it was asked for", after(found.invoked_ns))
        });
        let lines = std::iter::once(&self.made).chain(witnesses).map(|found| in_words(found)).collect();
        Verdict::Invalid(Box::new(Evidence::with(format!("{summary}{times}"), lines)))
    }
}
