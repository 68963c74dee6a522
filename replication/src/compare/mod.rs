//! Two states made equal by sending little more than what differs: for a secondary whose place in the primary's log is
//! unknown or gone.
//!
//! Both sides sum hashes over what passes the sieve ([`trie`]). The sink goes down where sums differ, says what it has in
//! the leaves that do, and is sent what it lacks and told what is too much. [`source`] pins one state for that and
//! [`sink`] changes its own. Hashes are over ciphertext.
//! Read next: [`sink`] for the order of steps. Format: `docs/formats/replication-compare.md`.

mod apply;
mod message;
pub mod root;
mod session;
pub mod sink;
pub mod source;
mod trie;

#[cfg(test)]
mod tests;

use std::fmt;

use arca_raft_storage::{Key, KvError, ReadView, Value, Version, Visit, Write};
use bytes::Bytes;

pub use root::Root;
pub use sink::{CompareError, Comparison};
pub use source::Comparisons;

use crate::codec::Malformed;
use crate::sieve::Sieve;

/// Most bytes of entries that open the rest: they are sent and written together.
const KEYS_BYTES_MAX: usize = 4 << 20;
/// What the root that is shown is hashed with: it is to find damage, not to withstand somebody who makes entries for it.
const ROOT_CONTEXT: &str = "arca 2026-11 replication: root of a state";
/// The first key after class `boot`.
const BOOT_END: [u8; 1] = [1];

/// The keys of the entries in an answer to a question about differences.
pub(crate) fn keys(answer: Bytes) -> Result<Vec<Key>, Malformed> {
    match message::Answer::decode(answer)? {
        message::Answer::Keys(entries) | message::Answer::Differences(entries, _) => {
            Ok(entries.into_iter().map(|(key, _)| key.into()).collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// What a secondary writes together with the keys that open the rest: a comparison may take away the keys under which it sealed
/// what is its own, and nothing would open that any more.
pub trait OwnRecords: fmt::Debug + Send + Sync {
    /// What is written in the same set as `keys`, the entries that open the rest and are about to replace those in
    /// `view`; each with the version of what it takes the place of there.
    ///
    /// # Errors
    /// A text, when these are not to be taken over. Nothing is written then.
    fn along_with(
        &self,
        view: &dyn ReadView,
        keys: &[(Bytes, Bytes)],
    ) -> Result<Vec<(Write, Version)>, String>;
}

/// The entries that open the rest, of those that pass: they belong together, so they are taken over in one step. Those
/// that always pass come first: a member that applies the step needs the root key to open the keyring behind it.
fn own_keys(view: &dyn ReadView, sieve: &Sieve) -> Result<Vec<(Key, Value)>, KvError> {
    let mut found = Vec::new();
    for key in sieve.always.iter().filter(|key| sieve.passes(key)) {
        if key.as_slice() >= BOOT_END.as_slice()
            && let Some(entry) = view.get(key)?
        {
            found.push((key.clone(), entry.value));
        }
    }
    view.visit(&[], Some(&BOOT_END), &mut |key, value, _| {
        if sieve.passes(key) {
            found.push((key.to_vec(), value.to_vec()));
        }
        Visit::Next
    })?;
    Ok(found)
}
