//! What a member has acknowledged it keeps: whatever befalls it, its log still has every committed entry that
//! it once told a leader it had. A majority of such promises is what a committed entry stands on, so one that
//! is broken is a loss even if nobody has missed the entry yet.

use std::collections::BTreeMap;

use arca_raft_storage::{MemberId, Role};

use super::{Invariant, Seen};

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct KeptEntries {
    /// The last committed index that a leader knew a member to have.
    acknowledged: BTreeMap<MemberId, u64>,
}

impl Invariant for KeptEntries {
    fn name(&self) -> &'static str {
        "acknowledged entries are kept"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        for Seen { replica, status, .. } in members {
            let Some(acknowledged) = self.acknowledged.get(&status.id) else { continue };
            let last = replica.log().state().last.map_or(0, |last| last.index);
            if last < *acknowledged {
                return Err(format!(
                    "the log of {} ends at {last}: it had acknowledged {acknowledged}",
                    status.id
                ));
            }
        }
        for Seen { replica, status, .. } in members.iter().filter(|seen| seen.status.role == Role::Leader) {
            for (id, progress) in replica.progress() {
                let committed = progress.index.min(status.committed_index);
                let known = self.acknowledged.entry(id).or_default();
                *known = committed.max(*known);
            }
        }
        Ok(())
    }
}
