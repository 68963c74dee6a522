//! Equal states: members that have applied up to the same index hold the same bytes.

use std::collections::BTreeMap;

use arca_raft_storage::Replica as _;

use super::{Invariant, Seen};

/// Looks between two comparisons: each reads everything.
const EVERY: u64 = 25;

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct StateHash {
    looks: u64,
    hashes: BTreeMap<u64, [u8; 32]>,
}

impl Invariant for StateHash {
    fn name(&self) -> &'static str {
        "equal state at equal index"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        self.looks += 1;
        if !self.looks.is_multiple_of(EVERY) {
            return Ok(());
        }
        for seen in members {
            // Nothing runs between these two: both are of one moment.
            let index = seen.replica.status().applied_index;
            let hash = seen.replica.state_hash();
            let hash =
                hash.map_err(|err| format!("the state of {} cannot be read: {err}", seen.status.id))?;
            let first = *self.hashes.entry(index).or_insert(hash);
            if first != hash {
                return Err(format!("{} differs from another member at index {index}", seen.status.id));
            }
        }
        Ok(())
    }
}
