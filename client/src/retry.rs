//! Which failures are tried again, and after how long. Decisions only; [`crate::Client`] does the waiting.
//!
//! Refusals (no connection, 412, 429, 503) are repeated for every method: the server did nothing. When the outcome
//! is unknown (a broken connection, a timeout, 500, 502, 504) only requests that change nothing are repeated, unless
//! [`RetryPolicy::repeats_unknown_writes`] asks for what Vault's own client does.
//! **Invariant:** a single call never sleeps longer than `attempts × wait_max` plus what `Retry-After` asked for.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};

use crate::error::TransportKind;

/// How stubborn a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries: u32,
    /// The first wait; each further one doubles.
    pub wait_min: Duration,
    /// No wait is longer than this.
    pub wait_max: Duration,
    /// A `Retry-After` longer than this is not waited for: the caller gets the error at once.
    pub retry_after_max: Duration,
    /// Whether writes whose outcome is unknown are repeated too, as Vault's Go client does.
    pub repeats_unknown_writes: bool,
    /// Where the jitter starts; `None` draws it from the system. A simulation sets it.
    pub jitter_seed: Option<u64>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: 2,
            wait_min: Duration::from_millis(100),
            wait_max: Duration::from_millis(1_500),
            retry_after_max: Duration::from_secs(30),
            repeats_unknown_writes: false,
            jitter_seed: None,
        }
    }
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Status(StatusCode),
    Transport(TransportKind),
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Hand it to the caller.
    Final,
    /// Try again after a wait, at the same address.
    Again,
    /// Try again after a wait, at the next address if there are several.
    Elsewhere,
    /// Try the next address at once: this one was not reached.
    NextAddress,
}

impl RetryPolicy {
    pub(crate) fn verdict(&self, method: &Method, outcome: Outcome) -> Verdict {
        let may_repeat = self.repeats_unknown_writes || !changes_something(method);
        match outcome {
            Outcome::Transport(TransportKind::Connect) => Verdict::NextAddress,
            Outcome::Transport(kind) if kind.is_outcome_unknown() && may_repeat => Verdict::Elsewhere,
            Outcome::Transport(_) => Verdict::Final,
            Outcome::Status(status) => match status.as_u16() {
                412 | 429 => Verdict::Again,
                503 => Verdict::Elsewhere,
                501 => Verdict::Final,
                500..=599 if may_repeat => Verdict::Elsewhere,
                _ => Verdict::Final,
            },
        }
    }
}

/// Whether repeating the request could do its work twice.
fn changes_something(method: &Method) -> bool {
    !matches!(method.as_str(), "GET" | "HEAD" | "LIST" | "SCAN" | "HELP")
}

/// The waits of one call.
#[derive(Debug)]
pub(crate) struct Backoff<'a> {
    policy: &'a RetryPolicy,
    jitter: &'a Jitter,
    used: u32,
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(policy: &'a RetryPolicy, jitter: &'a Jitter) -> Self {
        Self { policy, jitter, used: 0 }
    }

    /// The wait before the next attempt, or `None` when it is time to give up.
    pub(crate) fn next(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        if self.used >= self.policy.retries
            || retry_after.is_some_and(|wait| wait > self.policy.retry_after_max)
        {
            return None;
        }
        let doubled = self.policy.wait_min.saturating_mul(1_u32.checked_shl(self.used).unwrap_or(u32::MAX));
        self.used += 1;
        let wait = doubled.min(self.policy.wait_max);
        // Between half and all of it, so that clients that failed together do not come back together.
        let jittered = wait / 2 + (wait / 2).mul_f64(self.jitter.unit());
        Some(retry_after.unwrap_or(jittered))
    }
}

/// A small generator for jitter; nothing secret depends on it.
#[derive(Debug)]
pub(crate) struct Jitter(AtomicU64);

impl Jitter {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        // The standard library seeds its hasher from the system.
        Self(AtomicU64::new(seed.unwrap_or_else(|| RandomState::new().build_hasher().finish())))
    }

    /// A number in `0.0..1.0` (splitmix64).
    fn unit(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        f64::from(u32::try_from(mixed >> 32).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(outcome: Outcome) -> (Verdict, Verdict, Verdict) {
        let safe = RetryPolicy::default();
        let like_vault = RetryPolicy { repeats_unknown_writes: true, ..RetryPolicy::default() };
        let read = safe.verdict(&Method::GET, outcome);
        (read, safe.verdict(&Method::PUT, outcome), like_vault.verdict(&Method::PUT, outcome))
    }

    #[test]
    fn statuses_by_class() {
        use Verdict::{Again, Elsewhere, Final};
        for (status, want) in [
            (200, (Final, Final, Final)),
            (307, (Final, Final, Final)),
            (400, (Final, Final, Final)),
            (403, (Final, Final, Final)),
            (404, (Final, Final, Final)),
            (412, (Again, Again, Again)),
            (429, (Again, Again, Again)),
            (472, (Final, Final, Final)),
            (500, (Elsewhere, Final, Elsewhere)),
            (501, (Final, Final, Final)),
            (502, (Elsewhere, Final, Elsewhere)),
            (503, (Elsewhere, Elsewhere, Elsewhere)),
            (504, (Elsewhere, Final, Elsewhere)),
        ] {
            assert_eq!(verdicts(Outcome::Status(StatusCode::from_u16(status).unwrap())), want, "{status}");
        }
    }

    #[test]
    fn transport_failures_by_class() {
        use TransportKind as Kind;
        use Verdict::{Elsewhere, Final, NextAddress};
        for (kind, want) in [
            (Kind::Connect, (NextAddress, NextAddress, NextAddress)),
            (Kind::Interrupted, (Elsewhere, Final, Elsewhere)),
            (Kind::Timeout, (Elsewhere, Final, Elsewhere)),
            (Kind::CertificateAuthority, (Final, Final, Final)),
            (Kind::HttpServerAskedForTls, (Final, Final, Final)),
        ] {
            assert_eq!(verdicts(Outcome::Transport(kind)), want, "{kind:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn waits_grow_stay_bounded_and_end(seed: u64, retries in 0_u32..80) {
            let policy = RetryPolicy { retries, ..RetryPolicy::default() };
            let jitter = Jitter::new(Some(seed));
            let mut backoff = Backoff::new(&policy, &jitter);
            let mut count = 0;
            while let Some(wait) = backoff.next(None) {
                let full = policy.wait_min.saturating_mul(1 << count.min(10)).min(policy.wait_max);
                proptest::prop_assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
                count += 1;
            }
            proptest::prop_assert_eq!(count, retries);
        }
    }

    #[test]
    fn retry_after_is_obeyed_or_handed_over() {
        let (policy, jitter) = (RetryPolicy::default(), Jitter::new(Some(1)));
        let mut backoff = Backoff::new(&policy, &jitter);
        assert_eq!(backoff.next(Some(Duration::from_secs(3))), Some(Duration::from_secs(3)));
        assert_eq!(backoff.next(Some(Duration::from_secs(31))), None);
    }
}
