//! What only grows: a member's term, over all its lives; what it knows committed and has applied, within one.
//!
//! Nothing is said about the two together: openraft tells its figures late, after a vote is synced, while what it had handed
//! over is being applied. Whether that was committed shows in `committed_log.rs`.

use std::collections::BTreeMap;

use arca_raft_storage::MemberId;

use super::{Invariant, Seen};

#[derive(Clone, Copy, Debug, Default)]
struct Last {
    life: u64,
    term: u64,
    committed: u64,
    applied: u64,
}

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Monotonic {
    last: BTreeMap<MemberId, Last>,
}

impl Invariant for Monotonic {
    fn name(&self) -> &'static str {
        "monotonic term, commit and apply"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        for Seen { status, life, .. } in members {
            let now = Last {
                life: *life,
                term: status.term,
                committed: status.committed_index,
                applied: status.applied_index,
            };
            let last = self.last.insert(status.id, now).unwrap_or_default();
            let is_same_life = last.life == now.life;
            // A member that has just started has not yet read its vote.
            let has_term = now.term > 0 || is_same_life;
            if has_term && now.term < last.term {
                return Err(format!("the term of {} went from {} to {}", status.id, last.term, now.term));
            }
            if is_same_life && (now.committed < last.committed || now.applied < last.applied) {
                return Err(format!("{} went back: from {last:?} to {now:?}", status.id));
            }
        }
        Ok(())
    }
}
