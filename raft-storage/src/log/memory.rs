//! What the log knows without touching the disk: where each entry stands, who proposed it, the newest payloads, and
//! the vote.
//!
//! **Invariant:** `slots` covers consecutive indexes from `first`; `recent` covers the last of them; a slot is
//! pending only while its payload is in `recent`.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{EntryId, Payload};

/// Where an entry was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

impl Slot {
    /// Not written yet. No segment reaches this offset.
    const PENDING: Self = Self { segment: 0, offset: 0 };
}

#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    term: u64,
    leader: u64,
}

#[derive(Clone, Debug)]
struct Recent {
    payload: Payload,
    sequence: u64,
}

/// Where to get an entry's payload.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Memory(Payload),
    Disk(Slot),
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    first: u64,
    slots: VecDeque<Slot>,
    /// Who proposed which stretch of entries, in order.
    runs: VecDeque<Run>,
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    recent_bytes_max: usize,
    next_sequence: u64,
    pub(super) purged: Option<EntryId>,
    pub(super) committed: Option<EntryId>,
    pub(super) vote: Option<Bytes>,
}

impl Memory {
    pub(super) fn new(recent_bytes_max: usize) -> Self {
        Self { recent_bytes_max, ..Self::default() }
    }

    pub(super) fn first_index(&self) -> Option<u64> {
        (!self.slots.is_empty()).then_some(self.first)
    }

    /// One past the last entry held; meaningless when there is none.
    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// The last entry, or what was purged last if there is none.
    pub(super) fn last(&self) -> Option<EntryId> {
        self.last_entry().or(self.purged)
    }

    pub(super) fn last_entry(&self) -> Option<EntryId> {
        self.id_of(self.end().checked_sub(1)?)
    }

    /// The index the next entry must have; `None` while any will do.
    pub(super) fn next_index(&self) -> Option<u64> {
        if self.slots.is_empty() { self.purged.map(|id| id.index + 1) } else { Some(self.end()) }
    }

    pub(super) fn id_of(&self, index: u64) -> Option<EntryId> {
        if index < self.first || index >= self.end() {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        let run = self.runs.get(after.checked_sub(1)?)?;
        Some(EntryId { term: run.term, leader: run.leader, index })
    }

    /// The last entry of each run of one proposer in `from..to`, and nothing else: enough to know every entry's id.
    pub(super) fn run_ends(&self, from: u64, to: u64) -> Vec<EntryId> {
        let starts = self.runs.iter().map(|run| run.first).skip(1).chain([self.end()]);
        let ends = starts.map(|next| next.min(to).saturating_sub(1)).filter(|end| *end >= from && *end < to);
        let mut ids: Vec<EntryId> = ends.filter_map(|end| self.id_of(end)).collect();
        ids.dedup();
        ids
    }

    /// Adds an entry that is still to be written; returns the number that [`Self::publish`] wants back.
    pub(super) fn push(&mut self, id: EntryId, payload: Payload) -> u64 {
        self.push_slot(id, Slot::PENDING);
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.recent_bytes += payload.bytes.len();
        self.recent.push_back(Recent { payload, sequence });
        sequence
    }

    /// Adds an entry read from the disk.
    pub(super) fn push_slot(&mut self, id: EntryId, slot: Slot) {
        if self.slots.is_empty() {
            self.first = id.index;
            self.runs.clear();
        }
        let is_same = |run: &Run| run.term == id.term && run.leader == id.leader;
        if !self.runs.back().is_some_and(is_same) {
            self.runs.push_back(Run { first: id.index, term: id.term, leader: id.leader });
        }
        self.slots.push_back(slot);
    }

    /// An entry is on the disk, unless it was truncated meanwhile. Lets go of payloads over the limit.
    pub(super) fn publish(&mut self, index: u64, sequence: u64, slot: Slot) {
        let recent_first = self.end() - self.recent.len() as u64;
        let in_recent = index.checked_sub(recent_first).and_then(|at| self.recent.get(usize_of(at)));
        if in_recent.is_some_and(|recent| recent.sequence == sequence)
            && let Some(target) = self.slots.get_mut(usize_of(index - self.first))
        {
            *target = slot;
        }
    }

    /// Lets go of the oldest written payloads over the limit.
    pub(super) fn evict(&mut self) {
        while self.recent_bytes > self.recent_bytes_max {
            let oldest = self.slots.len() - self.recent.len();
            if self.slots.get(oldest).is_none_or(|slot| *slot == Slot::PENDING) {
                break;
            }
            self.pop_recent_front();
        }
    }

    fn pop_recent_front(&mut self) {
        if let Some(gone) = self.recent.pop_front() {
            self.recent_bytes -= gone.payload.bytes.len();
        }
    }

    /// Drops every entry after `index`; all of them if it is before the first.
    pub(super) fn truncate_after(&mut self, index: Option<u64>) {
        let keep_end = index.map_or(0, |index| index.saturating_add(1));
        while !self.slots.is_empty() && self.end() > keep_end {
            self.slots.pop_back();
            if let Some(gone) = self.recent.pop_back() {
                self.recent_bytes -= gone.payload.bytes.len();
            }
        }
        let end = self.end();
        while self.runs.back().is_some_and(|run| run.first >= end) {
            self.runs.pop_back();
        }
    }

    /// Drops every entry up to and including `id`. False if that was done already.
    pub(super) fn purge(&mut self, id: EntryId) -> bool {
        if self.purged.is_some_and(|purged| purged.index >= id.index) {
            return false;
        }
        self.purged = Some(id);
        while !self.slots.is_empty() && self.first <= id.index {
            self.slots.pop_front();
            self.first += 1;
            if self.recent.len() > self.slots.len() {
                self.pop_recent_front();
            }
        }
        if self.slots.is_empty() {
            self.runs.clear();
        }
        while self.runs.get(1).is_some_and(|run| run.first <= self.first) {
            self.runs.pop_front();
        }
        true
    }

    pub(super) fn source(&self, index: u64) -> Option<(EntryId, Source)> {
        let id = self.id_of(index)?;
        let recent_first = self.end() - self.recent.len() as u64;
        let recent = index.checked_sub(recent_first).and_then(|at| self.recent.get(usize_of(at)));
        let source = match recent {
            Some(recent) => Source::Memory(recent.payload.clone()),
            None => Source::Disk(*self.slots.get(usize_of(index - self.first))?),
        };
        Some((id, source))
    }
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term, leader: 1, index }
    }

    fn payload(len: usize) -> Payload {
        Payload { tag: 0, bytes: vec![0; len].into() }
    }

    fn filled(ids: impl IntoIterator<Item = EntryId>) -> (Memory, Vec<u64>) {
        let mut memory = Memory::new(100);
        let sequences = ids.into_iter().map(|id| memory.push(id, payload(40))).collect();
        (memory, sequences)
    }

    #[test]
    fn a_truncated_entry_is_not_published_over_its_successor() {
        let (mut memory, sequences) = filled([id(1, 1), id(1, 2)]);
        memory.truncate_after(Some(1));
        let successor = memory.push(id(2, 2), payload(1));
        memory.publish(2, sequences[1], Slot { segment: 1, offset: 96 });
        assert_eq!(memory.slots[1], Slot::PENDING);
        memory.publish(2, successor, Slot { segment: 1, offset: 200 });
        assert_eq!(memory.slots[1].offset, 200);
        assert_eq!(memory.last(), Some(id(2, 2)));
    }

    #[test]
    fn payloads_stay_until_written_then_go_by_bytes() {
        let (mut memory, sequences) = filled((1..=5).map(|index| id(1, index)));
        memory.evict();
        assert_eq!(memory.recent.len(), 5, "nothing is written yet");
        for (index, sequence) in (1..).zip(sequences) {
            memory.publish(index, sequence, Slot { segment: 1, offset: 100 });
        }
        memory.evict();
        assert_eq!(memory.recent.len(), 2);
        assert!(matches!(memory.source(3), Some((_, Source::Disk(_)))));
        assert!(matches!(memory.source(4), Some((_, Source::Memory(_)))));
    }

    #[test]
    fn ids_follow_runs_through_truncation_and_purge() {
        let (mut memory, _) = filled([id(1, 5), id(1, 6), id(2, 7), id(3, 8), id(3, 9)]);
        assert_eq!(memory.run_ends(5, 10), [id(1, 6), id(2, 7), id(3, 9)]);
        assert_eq!(memory.run_ends(6, 9), [id(1, 6), id(2, 7), id(3, 8)]);
        memory.truncate_after(Some(7));
        assert!(memory.purge(id(1, 6)));
        assert!(!memory.purge(id(1, 5)), "purging goes forward only");
        assert_eq!((memory.first_index(), memory.last()), (Some(7), Some(id(2, 7))));
        assert!(memory.purge(id(9, 20)));
        assert_eq!((memory.last(), memory.next_index()), (Some(id(9, 20)), Some(21)));
    }
}
