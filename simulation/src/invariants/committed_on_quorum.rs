//! Committed on a quorum: what any member knows committed is in the logs of a majority of the voters. A machine that is
//! down is taken to have it, as nobody can look; so this bites while a minority is cut off and all run.

use arca_raft_storage::log::EntryId;
use arca_raft_storage::replica::MemberKind;
use arca_raft_storage::{Replica as _, Role};

use super::{Invariant, Seen};

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct CommittedOnQuorum {
    /// Up to where it was looked at.
    checked: u64,
}

/// Whether the log of a member has the entry, or had it: what was purged was applied.
fn has(seen: &Seen, entry: EntryId) -> bool {
    let log = seen.replica.log();
    log.id_of(entry.index) == Some(entry)
        || log.state().purged.is_some_and(|purged| purged.index >= entry.index)
}

impl Invariant for CommittedOnQuorum {
    fn name(&self) -> &'static str {
        "committed on a quorum"
    }

    fn look(&mut self, members: &[Seen]) -> Result<(), String> {
        let leader = members.iter().filter(|seen| seen.status.role == Role::Leader);
        let Some(leader) = leader.max_by_key(|seen| seen.status.term) else { return Ok(()) };
        let committed = leader.status.committed_index;
        if committed <= self.checked {
            return Ok(());
        }
        let Some(entry) = leader.replica.log().id_of(committed) else { return Ok(()) };
        self.checked = committed;
        let membership = leader.replica.membership();
        // Across a change of members the older or the newer majority counts; either has it soon.
        if membership.index >= committed {
            return Ok(());
        }
        let voters = membership.members.iter().filter(|(_, (_, kind))| *kind == MemberKind::Voter);
        let voters: Vec<_> = voters.map(|(id, _)| *id).collect();
        let lacking =
            members.iter().filter(|seen| voters.contains(&seen.status.id) && !has(seen, entry)).count();
        if (voters.len() - lacking) * 2 <= voters.len() {
            return Err(format!(
                "{} has committed {committed}, which {lacking} of {} voters do not have",
                leader.status.id,
                voters.len()
            ));
        }
        Ok(())
    }
}
