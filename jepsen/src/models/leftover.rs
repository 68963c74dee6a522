//! A kind of thing of which nothing may be left: users in a database, leases, leases that were given up.
//!
//! A key is a kind. Only looks that must find nothing are in a history: those after everything was healed and has had the time
//! to end. Who never got to look has shown nothing.

use crate::checker::{Evidence, Verdict};
use crate::history::{Answer, End, Operation};

/// Checks one kind.
#[must_use]
pub fn check(operations: &[&Operation]) -> Verdict {
    let looks = operations.iter().filter(|found| found.end == End::Ok);
    let mut found = looks.filter_map(|found| match &found.answer {
        Some(Answer::Names(names)) => Some(names),
        _ => None,
    });
    let Some(first) = found.next() else { return Verdict::Unknown("nobody could look".to_owned()) };
    match std::iter::once(first).chain(found).find(|names| !names.is_empty()) {
        None => Verdict::Valid,
        Some(left) => {
            let summary = format!("{} left where nothing may be", left.len());
            Verdict::Invalid(Box::new(Evidence::with(summary, left.clone())))
        }
    }
}
