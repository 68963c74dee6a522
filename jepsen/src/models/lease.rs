//! A token that ends by itself: good until its deadline, not after it, and gone some time later.
//!
//! Not a matter of order but of time, so there is no search. Times are those of the recorder, which no fault
//! touches; the deadline is reckoned by the server's wall clock when the token was made, so it lies between
//! the beginning and the end of that call plus the time to live, give or take [`Options::lease_slack_ms`]. A
//! run that sets clocks wrong by a second has to allow for that second. A lease that nobody looked for long
//! enough after its deadline is `unknown`: that it ends was not shown.

use super::{Options, in_words};
use crate::checker::{Evidence, Verdict};
use crate::history::{Answer, Call, End, Operation};

const NS_PER_MS: u64 = 1_000_000;

const fn in_ns(ms: u64) -> u64 {
    ms.saturating_mul(NS_PER_MS)
}

/// Checks one lease.
#[must_use]
pub fn check(operations: &[&Operation], options: Options) -> Verdict {
    let made = operations.iter().find_map(|found| match found.call {
        Call::Create { ttl_ms: Some(ttl_ms), .. } => Some((*found, ttl_ms)),
        _ => None,
    });
    let Some((made, ttl_ms)) = made else { return Verdict::Unknown("nobody made it".to_owned()) };
    let Some(made_ns) = made.ended_ns.filter(|_| made.end == End::Ok) else {
        // Nobody was told of it, so nobody can have used it.
        return Verdict::Valid;
    };
    let (ttl, slack) = (in_ns(ttl_ms), in_ns(options.lease_slack_ms));
    let surely_good_until = made.invoked_ns.saturating_add(ttl).saturating_sub(slack);
    let surely_bad_from = made_ns.saturating_add(ttl).saturating_add(slack);
    let wrong = |summary: &str, found: &Operation| {
        let lines = vec![in_words(made), in_words(found)];
        Verdict::Invalid(Box::new(Evidence::with(format!("{summary}: {}", times(made, found)), lines)))
    };
    for found in operations.iter().filter(|found| found.call == Call::Use) {
        match found.end {
            End::Ok if found.invoked_ns > surely_bad_from => {
                return wrong("a lease was good after its deadline", found);
            }
            End::Refused if found.ended_ns.is_some_and(|ended| ended < surely_good_until) => {
                return wrong("a lease was refused before its deadline", found);
            }
            _ => {}
        }
    }
    let gone_from = surely_bad_from.saturating_add(in_ns(options.revoke_slack_ms));
    revoked(operations, made, gone_from, surely_good_until)
}

/// Whether it was seen to be gone in time, and not before.
fn revoked(operations: &[&Operation], made: &Operation, gone_from: u64, good_until: u64) -> Verdict {
    let mut is_shown = false;
    let probes = operations.iter().filter(|found| found.call == Call::Probe && found.end == End::Ok);
    for found in probes {
        let is_there = found.answer == Some(Answer::Done);
        let summary = if is_there && found.invoked_ns > gone_from {
            "a lease is still stored long after its deadline"
        } else if !is_there && found.ended_ns.is_some_and(|ended| ended < good_until) {
            "a lease was gone before its deadline"
        } else {
            is_shown |= !is_there;
            continue;
        };
        let lines = vec![in_words(made), in_words(found)];
        let evidence = Evidence::with(format!("{summary}: {}", times(made, found)), lines);
        return Verdict::Invalid(Box::new(evidence));
    }
    if is_shown {
        Verdict::Valid
    } else {
        Verdict::Unknown("nobody saw it gone after its deadline".to_owned())
    }
}

fn times(made: &Operation, found: &Operation) -> String {
    let after = |ns: u64| ns.saturating_sub(made.invoked_ns) / NS_PER_MS;
    let ended = found.ended_ns.map_or_else(|| "?".to_owned(), |ns| after(ns).to_string());
    format!("{}..{ended} ms after it was asked for", after(found.invoked_ns))
}
