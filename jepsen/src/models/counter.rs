//! A token that counts its uses lets exactly so many through; so does a secret id that counts its logins; a wrapped answer
//! is taken out exactly once.
//!
//! No search: once the last use is taken the token is gone for good. So no more uses may be let through than
//! it has; and before the first refusal ended, all of them must have begun: those let through, and as many of
//! those in doubt as are missing. The check is exact. Such a token must not be revoked, or end by itself,
//! during the run.

use super::in_words;
use crate::checker::{Evidence, Verdict};
use crate::history::{Call, End, Operation};

/// Checks one token.
#[must_use]
pub fn check(operations: &[&Operation]) -> Verdict {
    let uses = match operations.iter().find_map(|found| limit(&found.call)) {
        Some(uses) => uses,
        None if operations.iter().any(|found| found.end == End::Ok) => {
            return invalid("it was used before anybody made it", Vec::new());
        }
        None => return Verdict::Unknown("nobody made it".to_owned()),
    };
    let spent = |end: End| operations.iter().filter(move |found| takes_use(&found.call) && found.end == end);
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let accepted = count(spent(End::Ok).count());
    if accepted > uses {
        let lines = spent(End::Ok).map(|found| in_words(found)).collect();
        return invalid(&format!("{accepted} uses were let through, of a token for {uses}"), lines);
    }
    let refusal = spent(End::Refused).min_by_key(|found| found.ended_at);
    let Some((refusal, end)) = refusal.and_then(|found| Some((*found, found.ended_at?))) else {
        return Verdict::Valid;
    };
    if let Some(late) = spent(End::Ok).find(|found| found.invoked_at > end) {
        let lines = vec![in_words(refusal), in_words(late)];
        return invalid("a use was let through after another had been refused", lines);
    }
    let possible = count(spent(End::Unknown).filter(|found| found.invoked_at < end).count());
    if accepted + possible >= uses {
        return Verdict::Valid;
    }
    let lines = std::iter::once(in_words(refusal)).chain(spent(End::Ok).map(|found| in_words(found)));
    let summary = format!("a use was refused when at most {} of {uses} had been taken", accepted + possible);
    invalid(&summary, lines.collect())
}

fn takes_use(call: &Call) -> bool {
    matches!(call, Call::Login { .. } | Call::Spend | Call::Unwrap)
}

fn limit(call: &Call) -> Option<u64> {
    match call {
        Call::Create { uses, .. } => *uses,
        Call::Wrap => Some(1),
        _ => None,
    }
}

fn invalid(summary: &str, lines: Vec<String>) -> Verdict {
    Verdict::Invalid(Box::new(Evidence::with(summary, lines)))
}
