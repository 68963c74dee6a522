//! A state that stands still while it is copied or compared, and slices of it.

use std::fmt;
use std::sync::Arc;

use arca_raft_storage::state::export::KEPT_CLASS;
use arca_raft_storage::{Changes, KvError, ReadView, Visit};

use crate::codec::{Malformed, Reader, put_varint};
use crate::cursor::{Cursor, Epoch, Generation};
use crate::history::History;
use crate::link::Refusal;
use crate::sieve::Sieve;

/// Bytes read in one go: others get a turn of the runtime after it.
pub(crate) const SLICE_BYTES: usize = 256 << 10;
/// Entries read in one go.
const SLICE_ENTRIES: usize = 4096;

/// Where in a cluster's history a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The cluster's.
    pub epoch: Epoch,
    /// Of the entry at `index`.
    pub generation: Generation,
    /// The last entry that is applied to it.
    pub index: u64,
}

impl Position {
    /// What a secondary goes on from that has this state.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        Cursor::after_copy(self.epoch, self.generation, self.index)
    }

    pub(crate) fn encode_into(&self, out: &mut Vec<u8>) {
        put_varint(out, self.epoch.0);
        out.extend_from_slice(&self.generation.0);
        put_varint(out, self.index);
    }

    pub(crate) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        let epoch = Epoch(reader.varint()?);
        let generation = Generation(reader.array()?);
        if generation == Generation::default() {
            return Err(Malformed("a position without a generation"));
        }
        Ok(Self { epoch, generation, index: reader.varint()? })
    }
}

/// A state at one position, as one secondary may see it.
#[derive(Clone)]
pub struct Pinned {
    /// The state.
    pub view: Arc<dyn ReadView>,
    /// What of it the secondary gets.
    pub sieve: Sieve,
    /// The cluster's epoch.
    pub epoch: Epoch,
    /// The generation that the view's index belongs to.
    pub generation: Generation,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl Pinned {
    /// The state of this member of a primary in `epoch`, as it is now.
    ///
    /// # Errors
    /// [`Refusal::Busy`] while it is not known which generation the state is of, or the store fails.
    pub fn now(replica: &dyn Changes, sieve: Sieve, epoch: Epoch) -> Result<Self, Refusal> {
        let busy = |problem: &str| Refusal::Busy(problem.to_owned());
        let view = replica.view();
        let history = History::load(view.as_ref()).map_err(|err| busy(&err.to_string()))?;
        let term =
            replica.term_at(view.index()).ok_or_else(|| busy("the log does not tell where the state is"))?;
        let generation =
            history.of_term(term).ok_or_else(|| busy("no member of this cluster is active yet"))?;
        Ok(Self { view, sieve, epoch, generation })
    }

    /// Where it is.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, generation: self.generation, index: self.view.index() }
    }

    /// See [`slice()`].
    pub(crate) fn slice(
        &self,
        start: &[u8],
        take: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<Slice, KvError> {
        slice(self.view.as_ref(), &self.sieve, start, take)
    }
}

/// What was read in one go.
pub(crate) struct Slice {
    /// Bytes of keys and values, of those that do not pass as well.
    pub(crate) read: usize,
    /// The key to go on from; `None` at the end.
    pub(crate) next: Option<Vec<u8>>,
}

/// Hands over entries that pass, in key order, until it answers false or a slice is full.
pub(crate) fn slice(
    view: &dyn ReadView,
    sieve: &Sieve,
    start: &[u8],
    take: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<Slice, KvError> {
    let (mut read, mut count, mut next) = (0, 0, None);
    view.visit(start, Some(&[KEPT_CLASS]), &mut |key, value, _| {
        read += key.len() + value.len();
        count += 1;
        let is_enough = sieve.passes(key) && !take(key, value);
        if is_enough || read >= SLICE_BYTES || count >= SLICE_ENTRIES {
            next = Some([key, &[0]].concat());
            return Visit::Stop;
        }
        Visit::Next
    })?;
    Ok(Slice { read, next })
}
