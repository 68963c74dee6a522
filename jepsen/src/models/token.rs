//! A token lives from its creation until it is revoked, and never again; and so does a secret id that does not count its
//! logins.
//!
//! No search: all that has to be found is one moment of revocation. It lies within some revocation that was
//! asked for, after every use that was let through had begun, and before every use that was refused, and
//! every revocation that was acknowledged, had ended. The check is exact. Such a token must not end by itself
//! during the run.

use super::in_words;
use crate::checker::{Evidence, Verdict};
use crate::history::{Call, End, Operation};

/// Checks one token.
#[must_use]
pub fn check(operations: &[&Operation]) -> Verdict {
    let is_use = |found: &Operation| matches!(found.call, Call::Login { .. } | Call::Use);
    let uses = |end: End| operations.iter().filter(move |found| is_use(found) && found.end == end);
    let revocations =
        || operations.iter().filter(|found| found.call == Call::Revoke && found.end != End::Fail);
    // Revoked before this: the first refusal, or acknowledgement, to end.
    let acknowledged = revocations().filter(|found| found.end == End::Ok);
    let end = acknowledged.chain(uses(End::Refused)).min_by_key(|found| found.ended_at);
    let Some((witness, end)) = end.and_then(|found| Some((*found, found.ended_at?))) else {
        return Verdict::Valid;
    };
    // Not revoked before this: the last use let through to begin.
    let accepted = uses(End::Ok).max_by_key(|found| found.invoked_at).copied();
    let begin = accepted.map_or(0, |found| found.invoked_at);
    if let Some(accepted) = accepted.filter(|_| begin > end) {
        let lines = vec![in_words(witness), in_words(accepted)];
        return invalid("a token was good again after it was revoked", lines);
    }
    let is_possible = |found: &&&Operation| {
        found.invoked_at < end && found.settled_at().is_none_or(|settled| settled > begin)
    };
    if revocations().any(|found| is_possible(&found)) {
        return Verdict::Valid;
    }
    let lines: Vec<_> = revocations().map(|found| in_words(found)).collect();
    let lines = std::iter::once(in_words(witness)).chain(accepted.map(in_words)).chain(lines).collect();
    invalid("a token was refused that no revocation can have ended by then", lines)
}

fn invalid(summary: &str, lines: Vec<String>) -> Verdict {
    Verdict::Invalid(Box::new(Evidence::with(summary, lines)))
}
