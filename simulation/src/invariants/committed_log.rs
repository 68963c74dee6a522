//! Log matching and state machine safety: whatever one member knows to be committed at an index, every other one has
//! there too, in content as well, once it knows that it is committed.

use std::collections::BTreeMap;

use arca_raft_storage::MemberId;

use super::{Invariant, Seen};

/// Most payload read from a log at a look, bytes.
const BYTES_MAX: usize = 4 << 20;

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct CommittedLog {
    /// What the entry at an index is: term, and hash of its content.
    entries: BTreeMap<u64, (u64, blake3::Hash)>,
    /// Up to which index a member's log was compared, in which life.
    compared: BTreeMap<MemberId, (u64, u64)>,
}

impl Invariant for CommittedLog {
    fn name(&self) -> &'static str {
        "one committed log"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        for seen in members {
            let (id, known) = (seen.status.id, seen.status.applied_index.max(seen.status.committed_index));
            let (life, mut next) = self.compared.get(&id).copied().unwrap_or_default();
            if life != seen.life {
                // What it lost in a crash it may get anew.
                next = 0;
            }
            if next > known {
                continue;
            }
            let entries = seen.replica.log().read(next..known + 1, BYTES_MAX);
            let entries = entries.map_err(|err| format!("the log of {id} cannot be read: {err}"))?;
            for (entry, payload) in entries {
                let found = (entry.term, blake3::hash(&payload.bytes));
                let first = *self.entries.entry(entry.index).or_insert(found);
                if first != found {
                    return Err(format!(
                        "{id} has another entry at {}: term {} where term {} was committed",
                        entry.index, found.0, first.0
                    ));
                }
                next = entry.index + 1;
            }
            self.compared.insert(id, (seen.life, next));
        }
        Ok(())
    }
}
