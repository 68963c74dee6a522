//! The history of a cluster that is followed: whether a cursor is of it.
//!
//! An index does not name an entry for ever: after the disks of a cluster were put back to an older state it writes others
//! at the same indexes, perhaps in the same terms. So whoever becomes the active member of a primary begins a *generation*
//! of a random name, once a term: the name stands for all entries of that term. **Invariant:** entries are shipped only
//! once the generation of their term is known, so two clusters that know the same generation at the same index share
//! everything up to there.
//! Read next: [`crate::source`], which asks. Format: `docs/formats/replication.md`.

use std::sync::Arc;

use arca_raft_storage::{Changes, KvError, ProposeError, ReadView, ReplicaError, Version, Write, WriteSet};

use crate::codec::{Malformed, Reader, put_varint};
use crate::cursor::{Cursor, Generation};
use crate::link::Refusal;
use crate::record::{HISTORY_KEY, damaged};

/// As many generations are remembered.
pub const GENERATIONS_MAX: usize = 1024;
const V1: u8 = 1;
/// Times that a generation is tried to be begun before giving up: each time somebody else led meanwhile.
const TRIES: usize = 8;

/// The entries of one term, and of those before it that nobody named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its random name.
    pub generation: Generation,
    /// The term.
    pub term: u64,
    /// The last index of the stretch before.
    pub after: u64,
}

/// The newest generations, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    stretches: Vec<Stretch>,
}

/// Why a generation could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// The record cannot be read.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The record could not be written.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The state here could not be brought up to date.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl History {
    /// What `view` knows.
    ///
    /// # Errors
    /// When the store fails or the record is damaged.
    pub fn load(view: &dyn ReadView) -> Result<Self, KvError> {
        Ok(Self::load_versioned(view)?.0)
    }

    fn load_versioned(view: &dyn ReadView) -> Result<(Self, Version), KvError> {
        let Some(found) = view.get(&HISTORY_KEY)? else { return Ok((Self::default(), Version::ABSENT)) };
        let history = Self::decode(&mut Reader::new(found.value.into())).map_err(damaged("history"))?;
        Ok((history, found.version))
    }

    /// Begins the generation of this member's term, if that has not begun: called by the active member of a primary
    /// whenever it becomes active and whenever the cluster becomes a primary. `name` is random.
    ///
    /// # Errors
    /// See [`BeginError`]: when this member does not lead, or the store fails.
    pub async fn begin(replica: &Arc<dyn Changes>, name: [u8; 16]) -> Result<Self, BeginError> {
        for _ in 0..TRIES {
            replica.read_barrier().await?;
            let term = replica.status().term;
            let (mut history, version) = Self::load_versioned(replica.view().as_ref())?;
            if history.stretches.last().is_some_and(|newest| newest.term == term) {
                return Ok(history);
            }
            history.push(name_of(&name, term), term, |term| replica.term_end(term));
            let set = WriteSet {
                reads: vec![(HISTORY_KEY.to_vec(), version)],
                writes: vec![Write::Put(HISTORY_KEY.to_vec(), history.encode())],
            };
            // The next round sees whether it is there. Another term may have begun on the way: then that one's is begun.
            match replica.propose(set).await {
                Ok(_) | Err(ProposeError::Conflict | ProposeError::OutcomeUnknown) => {}
                Err(err) => return Err(err.into()),
            }
        }
        Err(ProposeError::OutcomeUnknown.into())
    }

    fn push(&mut self, generation: Generation, term: u64, end_of: impl FnOnce(u64) -> Option<u64>) {
        let after = match self.stretches.last() {
            // If the log does not tell any more where the last one ended, nobody can rely on any of it: whoever followed it
            // compares.
            Some(last) => end_of(last.term).unwrap_or(last.after).max(last.after),
            None => end_of(term.saturating_sub(1)).unwrap_or(0),
        };
        self.stretches.push(Stretch { generation, term, after });
        let surplus = self.stretches.len().saturating_sub(GENERATIONS_MAX);
        self.stretches.drain(..surplus);
    }

    /// The stretches, oldest first.
    #[must_use]
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// The generation of entries of `term` that come behind everything that is forgotten; none if it has not begun.
    #[must_use]
    pub fn of_term(&self, term: u64) -> Option<Generation> {
        let found = self.stretches.partition_point(|stretch| stretch.term < term);
        self.stretches.get(found).map(|stretch| stretch.generation)
    }

    /// The generation of what is applied in `view`: what a cursor of that state names.
    ///
    /// # Errors
    /// [`Refusal::Busy`] while the history of the newest entry has not begun, as for a moment after an election.
    pub fn at(replica: &dyn Changes, view: &dyn ReadView) -> Result<Generation, Refusal> {
        let busy = |why: &str| Refusal::Busy(why.to_owned());
        let history = Self::load(view).map_err(|err| Refusal::Busy(err.to_string()))?;
        let term =
            replica.term_at(view.index()).ok_or_else(|| busy("the log does not tell where the view is"))?;
        history.of_term(term).ok_or_else(|| busy("no member of this cluster is active yet"))
    }

    /// Whether a secondary at `cursor` has the history of this cluster. `applied` and `term` are the newest index applied
    /// here, which nothing that is committed may be ahead of, and the term of the cursor's entry if the log still tells.
    ///
    /// # Errors
    /// [`Refusal::Gone`] for a cursor that is not known to be of any history, [`Refusal::Forked`] for one of another.
    pub fn check(&self, cursor: &Cursor, applied: u64, term: Option<u64>) -> Result<(), Refusal> {
        if cursor.is_unknown() {
            return Err(Refusal::Gone);
        }
        let found = self.stretches.iter().position(|at| at.generation == cursor.generation);
        let Some((at, stretch)) = found.and_then(|at| Some((at, self.stretches.get(at)?))) else {
            return Err(Refusal::Forked(format!(
                "the secondary follows a history that this cluster never had or no longer remembers: {EXPLAINED}"
            )));
        };
        let end = self.stretches.get(at + 1).map_or(applied, |next| next.after);
        // A stretch holds at least the entry that began it. Nobody knows where this one ended: the log did not tell any more
        // when the next one began. Whether the cursor is of it cannot be told; it is only sure to be of a fork if it is ahead.
        if end == stretch.after && cursor.index <= applied {
            return Err(Refusal::Gone);
        }
        let is_inside = cursor.index > stretch.after && cursor.index <= end;
        if is_inside && term.is_none_or(|term| self.of_term(term) == Some(stretch.generation)) {
            return Ok(());
        }
        Err(Refusal::Forked(format!(
            "the secondary has entry {} of a history that here goes on with other entries after {}: {EXPLAINED}",
            cursor.index,
            end.min(cursor.index.saturating_sub(1)),
        )))
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![V1];
        put_varint(&mut out, self.stretches.len() as u64);
        for stretch in &self.stretches {
            out.extend_from_slice(&stretch.generation.0);
            put_varint(&mut out, stretch.term);
            put_varint(&mut out, stretch.after);
        }
        out
    }

    fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        if reader.byte()? != V1 {
            return Err(Malformed("a history of an unknown version"));
        }
        let count = reader.varint()?;
        if count > GENERATIONS_MAX as u64 {
            return Err(Malformed("more generations than are remembered"));
        }
        let mut stretches: Vec<Stretch> = Vec::new();
        for _ in 0..count {
            let generation = Generation(reader.array()?);
            let stretch = Stretch { generation, term: reader.varint()?, after: reader.varint()? };
            if stretches.last().is_some_and(|last| last.term >= stretch.term || last.after > stretch.after) {
                return Err(Malformed("generations out of order"));
            }
            stretches.push(stretch);
        }
        reader.clone().finish()?;
        Ok(Self { stretches })
    }
}

/// No two terms get one name, whatever became of an earlier try.
fn name_of(random: &[u8; 16], term: u64) -> Generation {
    let mut name = [0; 16];
    let mut hasher = blake3::Hasher::new_derive_key("arca 2026-11 replication: name of a generation");
    hasher.update(random).update(&term.to_be_bytes()).finalize_xof().fill(&mut name);
    Generation(name)
}

const EXPLAINED: &str = "the data of one of the two was put back to an older state, or another cluster was promoted. \
     Nothing was changed. Decide which of the two has the data to keep, then run update-primary (or reindex) on the \
     secondary: it compares both states and takes over what differs";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Epoch;

    fn stretch(name: u8, term: u64, after: u64) -> Stretch {
        Stretch { generation: Generation([name; 16]), term, after }
    }

    fn history() -> History {
        History { stretches: vec![stretch(1, 2, 0), stretch(2, 5, 300), stretch(3, 6, 310)] }
    }

    #[test]
    fn golden_bytes() {
        let golden =
            [&[1, 3][..], &[1; 16], &[2, 0], &[2; 16], &[5, 0xac, 2], &[3; 16], &[6, 0xb6, 2]].concat();
        assert_eq!(history().encode(), golden);
        assert_eq!(History::decode(&mut Reader::new(golden.into())), Ok(history()));
    }

    #[test]
    fn damaged_records_are_refused() {
        let check = |bytes: Vec<u8>| assert!(History::decode(&mut Reader::new(bytes.into())).is_err());
        check(vec![]);
        check(vec![2, 0]);
        check(vec![1, 0, 0]);
        check(vec![1, 0xff, 0xff, 0xff, 0xff, 0xf]);
        check(History { stretches: vec![stretch(1, 2, 0), stretch(2, 2, 0)] }.encode());
        check(History { stretches: vec![stretch(1, 2, 9), stretch(2, 3, 8)] }.encode());
    }

    #[test]
    fn cursors_outside_of_their_generation_are_of_a_fork() {
        let check = |name: u8, index, term, want: Option<&str>| {
            let cursor =
                Cursor { epoch: Epoch(1), generation: Generation([name; 16]), index, chain: [0; 32] };
            let text = history().check(&cursor, 400, term).err().map(|refusal| match refusal {
                Refusal::Forked(text) => text,
                other => other.to_string(),
            });
            let is_right = match (want, &text) {
                (None, None) => true,
                (Some(want), Some(text)) => text.contains(want),
                _ => false,
            };
            assert!(is_right, "{name} at {index}: {text:?}");
        };
        check(1, 1, None, None);
        check(1, 300, Some(2), None);
        check(1, 301, None, Some("other entries after 300"));
        check(2, 300, None, Some("other entries"));
        check(2, 310, Some(5), None);
        // Two terms that nobody named came before the one that somebody did.
        check(2, 301, Some(3), None);
        check(2, 305, Some(4), None);
        check(2, 305, Some(2), Some("other entries after 304"));
        check(3, 400, Some(6), None);
        check(3, 401, None, Some("other entries after 400"));
        // The entry there is of a term whose generation has not begun: not what the secondary was sent.
        check(3, 399, Some(7), Some("other entries after 398"));
        check(9, 10, None, Some("never had"));
        check(0, 0, None, Some("no longer goes back"));
    }

    #[test]
    fn whoever_followed_a_generation_of_unknown_length_compares() {
        let mut history = history();
        history.push(Generation([4; 16]), 8, |_| None);
        let check = |index, applied| {
            let cursor = Cursor { epoch: Epoch(1), generation: Generation([3; 16]), index, chain: [0; 32] };
            history.check(&cursor, applied, None)
        };
        assert_eq!(check(390, 400), Err(Refusal::Gone));
        assert!(
            matches!(check(390, 380), Err(Refusal::Forked(_))),
            "what is ahead of everything is of a fork"
        );
    }

    #[test]
    fn a_generation_begins_where_the_last_one_ended() {
        let mut history = history();
        history.push(Generation([4; 16]), 8, |term| (term == 6).then_some(450));
        assert_eq!(history.stretches().last(), Some(&stretch(4, 8, 450)));
        // The log does not tell any more.
        history.push(Generation([5; 16]), 9, |_| None);
        assert_eq!(history.stretches().last(), Some(&stretch(5, 9, 450)));
        for term in 10..2000 {
            history.push(Generation([6; 16]), term, |_| Some(term));
        }
        assert_eq!(history.stretches().len(), GENERATIONS_MAX);
        assert_eq!(history.of_term(1999), Some(Generation([6; 16])));
        assert_eq!(history.of_term(2000), None);
        assert_eq!(History::decode(&mut Reader::new(history.encode().into())), Ok(history));
    }
}
