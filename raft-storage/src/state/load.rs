//! Takes the data of a state stream apart into entries, and fills a store with them.

use std::sync::Arc;

use arca_danger::Bug;
use bytes::{Buf, BytesMut};

use super::StateError;
use super::export::{KEPT_CLASS, Scope};
use super::{marks, meta};
use crate::Version;
use crate::codec::{Malformed, Reader};
use crate::kv::{Batch, Kv, KvError};
use crate::write_set::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

/// A batch this large is written.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// A stored value is a value and its version.
const STORED_BYTES_MAX: usize = VALUE_BYTES_MAX + 64;

/// A key and its stored value.
type Entry<'a> = (&'a [u8], &'a [u8]);

/// Splits data into entries and checks their order. Keeps less than one entry and one piece.
#[derive(Debug, Default)]
pub(super) struct Entries {
    buffer: BytesMut,
    last_key: Vec<u8>,
    count: u64,
}

impl Entries {
    /// Adds a piece and hands every entry that is complete to `take`.
    pub(super) fn push(
        &mut self,
        piece: &[u8],
        mut take: impl FnMut(&[u8], &[u8]) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        self.buffer.extend_from_slice(piece);
        let mut reader = Reader::new(&self.buffer);
        let mut done = 0;
        while let Some((key, stored)) = next_entry(&mut reader)? {
            if self.count > 0 && key <= self.last_key.as_slice() {
                return Err(StateError::Damaged(format!("entry {}: keys do not ascend", self.count)));
            }
            take(key, stored)?;
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
            self.count += 1;
            done = self.buffer.len() - reader.remaining();
        }
        self.buffer.advance(done);
        Ok(())
    }

    /// How many entries there were, if the data ended with one.
    pub(super) fn finish(&self) -> Result<u64, StateError> {
        if self.buffer.is_empty() {
            return Ok(self.count);
        }
        Err(StateError::Damaged(format!("entry {}: cut off", self.count)))
    }
}

/// The next entry, if all of it is there. Lengths are checked before the bytes are waited for.
fn next_entry<'a>(reader: &mut Reader<'a>) -> Result<Option<Entry<'a>>, StateError> {
    let mut ahead = *reader;
    match (|| Ok((ahead.bytes(KEY_BYTES_MAX)?, ahead.bytes(STORED_BYTES_MAX)?)))() {
        Ok(entry) => {
            *reader = ahead;
            Ok(Some(entry))
        }
        Err(Malformed::ENDS_EARLY) => Ok(None),
        Err(problem) => Err(StateError::Damaged(problem.0.to_owned())),
    }
}

/// Checks a key, and says what of a stored value to keep, when it comes from a stream of this scope.
pub(super) fn check_entry(scope: Scope, key: &[u8], stored: &[u8]) -> Result<(), StateError> {
    if key.is_empty() || key >= scope.end().as_slice() {
        return Err(StateError::Damaged("a key lies outside of what such a stream may hold".to_owned()));
    }
    if key < meta::OWN_KEYS.as_slice() {
        meta::split(key, stored).map_err(|err| StateError::Damaged(err.to_string()))?;
    }
    Ok(())
}

/// Fills a store that nobody sees yet.
#[derive(Debug)]
pub(super) struct Loader {
    kv: Arc<dyn Kv>,
    entries: Entries,
    sink: Sink,
}

#[derive(Debug, Default)]
struct Sink {
    batch: Batch,
    bytes: usize,
}

impl Loader {
    pub(super) fn new(kv: Arc<dyn Kv>) -> Self {
        Self { kv, entries: Entries::default(), sink: Sink::default() }
    }

    /// Stores the entries of a member's state as they are.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), StateError> {
        let Self { kv, entries, sink } = self;
        entries.push(piece, |key, stored| {
            check_entry(Scope::Member, key, stored)?;
            Ok(sink.put(kv.as_ref(), key, stored.to_vec())?)
        })
    }

    /// Stores the entries of a backup as written at `version`: whatever a request read before is gone.
    pub(super) fn push_backup(&mut self, piece: &[u8], version: Version) -> Result<(), StateError> {
        let Self { kv, entries, sink } = self;
        entries.push(piece, |key, stored| {
            check_entry(Scope::Backup, key, stored)?;
            let (_, value) = meta::split(key, stored)?;
            Ok(sink.put(kv.as_ref(), key, meta::stored(version, value))?)
        })
    }

    /// Stores the entries a backup does not hold and the marks of the log, as they are in `snapshot`.
    pub(super) fn keep(&mut self, snapshot: &dyn crate::KvSnapshot) -> Result<(), KvError> {
        self.copy(snapshot, &[KEPT_CLASS], &meta::OWN_KEYS)?;
        let (start, end) = marks::range();
        self.copy(snapshot, start, end)
    }

    fn copy(&mut self, snapshot: &dyn crate::KvSnapshot, start: &[u8], end: &[u8]) -> Result<(), KvError> {
        let mut outcome = Ok(());
        snapshot.visit(start, Some(end), &mut |key, stored| match self.sink.put(
            self.kv.as_ref(),
            key,
            stored.to_vec(),
        ) {
            Ok(()) => crate::Visit::Next,
            Err(err) => {
                outcome = Err(err);
                crate::Visit::Stop
            }
        })?;
        outcome
    }

    /// Writes what is left, with the records of `meta`, and answers how many entries were pushed.
    pub(super) fn finish(mut self, meta: &super::Meta) -> Result<u64, StateError> {
        let entries = self.entries.finish()?;
        meta.write_applied(&mut self.sink.batch);
        if !arca_danger::is(Bug::SnapshotWithoutMembership) {
            meta.write_membership(&mut self.sink.batch);
        }
        self.kv.write(self.sink.batch)?;
        Ok(entries)
    }
}

/// For [`Bug::SnapshotOverOldState`].
pub(super) fn copy(from: &dyn crate::KvSnapshot, to: &dyn Kv) -> Result<(), KvError> {
    let mut batch = Batch::default();
    from.visit(&[], Some(&meta::OWN_KEYS), &mut |key, stored| {
        batch.changes.push((key.to_vec(), Some(stored.to_vec())));
        crate::Visit::Next
    })?;
    to.write(batch)
}

impl Sink {
    fn put(&mut self, kv: &dyn Kv, key: &[u8], stored: Vec<u8>) -> Result<(), KvError> {
        self.bytes += key.len() + stored.len();
        self.batch.changes.push((key.to_vec(), Some(stored)));
        if self.bytes >= BATCH_BYTES_MAX {
            self.bytes = 0;
            kv.write(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }
}
