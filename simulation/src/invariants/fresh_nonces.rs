//! No nonce twice: two values sealed under one key with one nonce give both away. Looks at what is stored,
//! where every value shows its term and its nonce (`docs/formats/barrier.md`).

use std::collections::BTreeMap;

use arca_raft_storage::{Replica as _, Visit};
use arca_replication::RECORDS;

use super::{Invariant, Seen};

/// Looks between two comparisons: each reads everything.
const EVERY: u64 = 25;
/// Class byte of the entries that are no sealed values.
const BOOT: u8 = 0;
/// Version, term and suite.
const HEADER_SIZE: usize = 1 + 4 + 1;
/// Where in it the suite stands, and how long the nonces of each are.
const SUITE_AT: usize = 5;
const NONCE_SIZES: [(u8, usize); 2] = [(1, 24), (2, 12)];

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct FreshNonces {
    looks: u64,
    /// The value that was sealed with a header and a nonce.
    sealed: BTreeMap<Vec<u8>, blake3::Hash>,
}

impl Invariant for FreshNonces {
    fn name(&self) -> &'static str {
        "no nonce twice"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        self.looks += 1;
        if !self.looks.is_multiple_of(EVERY) {
            return Ok(());
        }
        for Seen { replica, status, .. } in members {
            let mut is_repeated = false;
            let view = replica.view();
            let visited = view.visit(&[BOOT + 1], None, &mut |key, value, _| {
                let is_sealed = !key.starts_with(&RECORDS);
                let Some(head) = head(value).filter(|_| is_sealed) else { return Visit::Next };
                let hash = blake3::hash(value);
                let first = *self.sealed.entry(head.to_vec()).or_insert(hash);
                if first == hash {
                    return Visit::Next;
                }
                is_repeated = true;
                Visit::Stop
            });
            visited.map_err(|err| format!("the state of {} cannot be read: {err}", status.id))?;
            if is_repeated {
                return Err(format!("{} holds a value whose nonce had sealed another", status.id));
            }
        }
        Ok(())
    }
}

/// All before the ciphertext.
fn head(value: &[u8]) -> Option<&[u8]> {
    let suite = value.get(SUITE_AT)?;
    let (_, size) = NONCE_SIZES.iter().find(|(known, _)| known == suite)?;
    value.get(..HEADER_SIZE + size)
}
