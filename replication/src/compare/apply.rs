//! What a comparison writes: sets of bounded size, each refused when the cursor record is no longer the one that this
//! comparison stored. So two of them never mix, and nothing follows from a half state.

use arca_raft_storage::{Key, Replica, Value, Version, Write, WriteSet};

use super::sink::CompareError;
use crate::copy::Entry;
use crate::cursor::Cursor;
use crate::link::{LinkError, Refusal};
use crate::pinned::Position;
use crate::record::{cursor_key, load_cursor};
use crate::sieve::Kind;

/// A set takes no further write beyond this.
const SET_BYTES: usize = 1 << 20;
/// Most writes of a set.
const SET_WRITES: usize = 4096;

pub(super) struct Writer<'a> {
    replica: &'a dyn Replica,
    kind: Kind,
    version: Version,
    /// What else the next set depends on.
    reads: Vec<(Key, Version)>,
    pending: Vec<Write>,
    bytes: usize,
}

impl<'a> Writer<'a> {
    /// Stores an unknown cursor: whoever else compares or follows is refused from here on, and after a crash the states are
    /// compared again.
    pub(super) async fn claim(
        replica: &'a dyn Replica,
        kind: Kind,
        position: Position,
    ) -> Result<Self, CompareError> {
        replica.read_barrier().await?;
        let (cursor, version) = load_cursor(replica.view().as_ref(), kind)?;
        if position.epoch < cursor.epoch {
            return Err(LinkError::Refused(Refusal::Fenced(cursor.epoch)).into());
        }
        let unknown = cursor.forgotten();
        let mut writer = Self { replica, kind, version, reads: Vec::new(), pending: Vec::new(), bytes: 0 };
        let index = writer.propose(Some(&unknown)).await?;
        writer.version = Version(index);
        Ok(writer)
    }

    /// Writes all of these in one set, which is refused if what `along` takes the place of has changed.
    pub(super) async fn put_together(
        &mut self,
        entries: Vec<Entry>,
        along: Vec<(Write, Version)>,
    ) -> Result<(), CompareError> {
        self.flush().await?;
        self.pending = entries.into_iter().map(|(key, value)| Write::Put(key.into(), value.into())).collect();
        for (write, version) in along {
            self.reads.push((write.key().to_vec(), version));
            self.pending.push(write);
        }
        self.flush().await
    }

    pub(super) async fn put(&mut self, key: Key, value: Value) -> Result<(), CompareError> {
        self.push(Write::Put(key, value)).await
    }

    pub(super) async fn delete(&mut self, key: Key) -> Result<(), CompareError> {
        self.push(Write::Delete(key)).await
    }

    /// Writes what is left, and in the same set that the state is the one at `cursor`.
    pub(super) async fn finish(mut self, cursor: &Cursor) -> Result<(), CompareError> {
        self.propose(Some(cursor)).await?;
        Ok(())
    }

    async fn push(&mut self, write: Write) -> Result<(), CompareError> {
        let size = match &write {
            Write::Put(key, value) => key.len() + value.len(),
            Write::Delete(key) => key.len(),
        };
        if self.bytes + size > SET_BYTES || self.pending.len() >= SET_WRITES {
            self.flush().await?;
        }
        self.bytes += size;
        self.pending.push(write);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CompareError> {
        if !self.pending.is_empty() {
            self.propose(None).await?;
        }
        Ok(())
    }

    async fn propose(&mut self, cursor: Option<&Cursor>) -> Result<u64, CompareError> {
        let mut writes = std::mem::take(&mut self.pending);
        self.bytes = 0;
        let key = cursor_key(self.kind);
        writes.extend(cursor.map(|cursor| Write::Put(key.clone(), cursor.encode())));
        let mut reads = std::mem::take(&mut self.reads);
        reads.push((key, self.version));
        let set = WriteSet { reads, writes };
        Ok(self.replica.propose(set).await?.index)
    }
}
