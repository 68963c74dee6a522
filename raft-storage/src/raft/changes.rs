//! What committed entries changed, read back from the log in order: what replication ships to other clusters.
//!
//! The log says what was proposed, the marks of the state what was refused of it. Only what is applied here is told, so
//! nothing that is told can be taken back. A state that came as a snapshot is ahead of the log until that is purged: what the
//! log says until then, of a leader that was deposed perhaps, nobody may have committed, and it is not told.

use std::sync::atomic::Ordering;

use arca_danger::Bug;

use super::RaftReplica;
use super::machine::applied_id;
use super::shared::Shared;
use crate::command::Command;
use crate::log::openraft::{TAG_NORMAL, log_id};
use crate::log::{LogError, SegmentInfo};
use crate::state::{MARKS_KEPT, Mark, StateError};
use crate::types::LogId;
use crate::{KvError, Replica, Write, watch};

/// A replica that tells what its entries changed, and how its history hangs together.
pub trait Changes: Replica {
    /// What the entries after `after` changed, as far as they are applied here and in order: one entry at the least if
    /// there is any, about `bytes_max` of log at the most.
    ///
    /// # Errors
    /// [`ChangesError::Gone`] when the log no longer goes back that far; when it or the store fails.
    fn changes(&self, after: u64, bytes_max: usize) -> Result<Vec<Changed>, ChangesError>;

    /// Asks this member to keep the entries after `after` for those who read [`Self::changes`], up to what the log may
    /// grow to at all; `u64::MAX` for nobody. Forgotten at a restart.
    fn hold_log(&self, after: u64);

    /// The applied index, as a stream of changes.
    fn applied(&self) -> watch::Receiver<u64>;

    /// The term of the entry at `index`, if that is applied here and the log tells.
    fn term_at(&self, index: u64) -> Option<u64>;

    /// The last index whose entry is of `term` or of one before it, if the log tells.
    fn term_end(&self, term: u64) -> Option<u64>;

    /// Bytes of log behind `index`, roughly.
    fn bytes_after(&self, index: u64) -> u64;
}

impl Changes for RaftReplica {
    fn changes(&self, after: u64, bytes_max: usize) -> Result<Vec<Changed>, ChangesError> {
        self.shared.changes(after, bytes_max)
    }

    fn hold_log(&self, after: u64) {
        self.shared.held.store(after, Ordering::Relaxed);
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.shared.state.applied()
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        let applied = applied_id(self.shared.state.view().meta()).ok()??;
        if index == applied.index {
            return Some(applied.leader_id.term);
        }
        let log = &self.shared.log;
        let purged = || log.state().purged.filter(|purged| purged.index == index);
        let found = log.id_of(index).or_else(purged).filter(|_| index < applied.index);
        found.filter(|_| self.shared.tells(applied)).map(|id| id.term)
    }

    fn term_end(&self, term: u64) -> Option<u64> {
        let log = &self.shared.log;
        let held = log.run_ends(0, u64::MAX).into_iter().rfind(|end| end.term <= term);
        held.or_else(|| log.state().purged.filter(|purged| purged.term <= term)).map(|id| id.index)
    }

    fn bytes_after(&self, index: u64) -> u64 {
        self.shared.log.segments().iter().map(|segment| bytes_behind(segment, index)).sum()
    }
}

/// Bytes of `segment` behind `index`, as if all its entries had one size.
fn bytes_behind(segment: &SegmentInfo, index: u64) -> u64 {
    match segment.indexes {
        Some((first, _)) if index < first => segment.bytes,
        Some((first, last)) if index < last => {
            let share = u128::from(segment.bytes) * u128::from(last - index) / u128::from(last - first + 1);
            u64::try_from(share).unwrap_or(u64::MAX)
        }
        _ => 0,
    }
}

/// Where an entry is in a cluster's history: two clusters that share one agree on both numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Log index.
    pub index: u64,
    /// Term of the leader that proposed it.
    pub term: u64,
}

/// What one entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The entry.
    pub at: Position,
    /// What came of it.
    pub what: What,
}

impl Changed {
    /// The term of the entry.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.at.term
    }

    /// What was written, in order; `None` where the state was replaced.
    #[must_use]
    pub fn written(self) -> Option<Vec<Write>> {
        match self.what {
            What::Wrote(writes) => Some(writes),
            What::Replaced => None,
        }
    }
}

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The state was replaced by a backup: what came before says nothing of what is there now.
    Replaced,
    /// These were written, in order; none for entries that are not about the state.
    Wrote(Vec<Write>),
}

/// Why changes cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// The log no longer holds the first of them.
    #[error("entry {wanted} is no longer in the log, which begins after {purged}")]
    Gone {
        /// The first index asked for.
        wanted: u64,
        /// The last index that is gone.
        purged: u64,
    },
    /// The store failed or an entry is damaged.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The log failed or an entry is damaged.
    #[error("reading the log: {0}")]
    Log(#[from] LogError),
    /// The state does not say where it is.
    #[error(transparent)]
    State(#[from] StateError),
    /// An entry is not what it was when it was applied.
    #[error("entry {index} of the log: {problem}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        problem: String,
    },
}

impl Shared {
    /// See [`Changes::changes`].
    pub(super) fn changes(&self, after: u64, bytes_max: usize) -> Result<Vec<Changed>, ChangesError> {
        let view = self.state.view();
        let (first, applied) = (after.saturating_add(1), view.meta().index);
        if first > applied {
            return Ok(Vec::new());
        }
        if first <= applied.saturating_sub(MARKS_KEPT) {
            // The marks may be gone before the log is; without them what was refused would be told as written.
            return Err(self.gone(first));
        }
        let entries = self.log.read(first..applied.saturating_add(1), bytes_max)?;
        let (Some((begin, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return Err(self.gone(first));
        };
        if begin.index != first || !applied_id(view.meta())?.is_some_and(|applied| self.tells(applied)) {
            return Err(self.gone(first));
        }
        let mut marks = view.marks(first, last.index)?;
        entries
            .into_iter()
            .map(|(id, payload)| {
                let at = Position { index: id.index, term: id.term };
                let command =
                    (payload.tag == TAG_NORMAL).then(|| Command::decode(&payload.bytes)).transpose();
                let command = command
                    .map_err(|err| ChangesError::Entry { index: id.index, problem: err.to_string() })?;
                Ok(Changed { at, what: what(command, marks.remove(&id.index)) })
            })
            .collect()
    }

    /// Whether what the log has up to `applied` is what was applied: it is if it has that entry, as two logs that agree on one
    /// agree on all before it.
    fn tells(&self, applied: LogId) -> bool {
        self.log.id_of(applied.index).is_some_and(|found| log_id(found) == applied)
    }

    fn gone(&self, wanted: u64) -> ChangesError {
        let purged = self.log.state().purged.map_or(0, |purged| purged.index);
        ChangesError::Gone { wanted, purged }
    }
}

fn what(command: Option<Command>, mark: Option<Mark>) -> What {
    match (command, mark) {
        (_, Some(Mark::Replaced)) => What::Replaced,
        (Some(Command::Batch(sets)), mark) => {
            let refused = match mark {
                Some(Mark::Refused(positions)) if !arca_danger::is(Bug::RefusedSetsShipped) => positions,
                _ => Vec::new(),
            };
            let kept = sets.into_iter().enumerate().filter(|(position, _)| !refused.contains(position));
            What::Wrote(kept.flat_map(|(_, set)| set.writes).collect())
        }
        _ => What::Wrote(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_behind_an_index_are_a_share_of_the_segment() {
        let check = |indexes, index, want| {
            let segment = SegmentInfo { number: 1, path: "segment".into(), bytes: 100, indexes, seal: None };
            assert_eq!(bytes_behind(&segment, index), want, "{indexes:?} behind {index}");
        };
        check(None, 0, 0);
        check(Some((11, 20)), 0, 100);
        check(Some((11, 20)), 10, 100);
        check(Some((11, 20)), 15, 50);
        check(Some((11, 20)), 20, 0);
        check(Some((11, 20)), 30, 0);
    }
}
