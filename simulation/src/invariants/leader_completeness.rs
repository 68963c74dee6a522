//! Leader completeness: whoever leads has in its log all that was committed under earlier leaders (Ongaro and
//! Ousterhout, 2014, figure 3).
//!
//! Leaders are told apart, and ordered, by term and member id: openraft lets a second member lead in the same term if
//! its id is greater, as if each pair were a term of its own. So "at most one leader a term" need not hold, and this
//! is what election safety is for.

use arca_raft_storage::log::EntryId;
use arca_raft_storage::{MemberId, Role};

use super::{Invariant, Seen};

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct LeaderCompleteness {
    /// The newest entry that anybody has applied.
    newest: Option<EntryId>,
    /// Leaders that were looked at.
    known: Vec<(u64, MemberId)>,
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        for Seen { replica, status, .. } in members.iter().filter(|seen| seen.status.role == Role::Leader) {
            let leader = (status.term, status.id);
            if self.known.contains(&leader) {
                continue;
            }
            self.known.push(leader);
            let Some(newest) = self.newest else { continue };
            // One that was deposed before it was first seen owes nothing to its successors.
            let is_later = leader >= (newest.term, MemberId(newest.leader));
            let log = replica.log();
            let is_purged = log.state().purged.is_some_and(|purged| purged.index >= newest.index);
            if is_later && !is_purged && log.id_of(newest.index) != Some(newest) {
                return Err(format!(
                    "{} leads in term {} without the committed entry {newest:?}: it has {:?} there",
                    status.id,
                    status.term,
                    log.id_of(newest.index)
                ));
            }
        }
        for Seen { replica, status, .. } in members {
            let entry = replica.log().id_of(status.applied_index);
            self.newest = self.newest.into_iter().chain(entry).max_by_key(|entry| entry.index);
        }
        Ok(())
    }
}
