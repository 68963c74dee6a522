//! Bytes of messages and records: a version byte, then fields in order. Integers are varints unless fixed in size, as in
//! everything that [`arca_raft_storage::codec`] writes; what is read here shares the bytes that came instead of copying them.

use arca_raft_storage::codec::Reader as SliceReader;
pub use arca_raft_storage::codec::{Malformed, put_bytes, put_varint};
use bytes::{Buf as _, Bytes};

/// Reads fields one after the other.
#[derive(Clone, Debug)]
pub struct Reader(Bytes);

impl Reader {
    /// At the beginning of `bytes`.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Refuses bytes behind the last field.
    ///
    /// # Errors
    /// When there are any.
    pub fn finish(self) -> Result<(), Malformed> {
        SliceReader::new(&self.0).finish()
    }

    fn read<T>(
        &mut self,
        read: impl FnOnce(&mut SliceReader<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let mut ahead = SliceReader::new(&self.0);
        let value = read(&mut ahead)?;
        let used = self.0.len() - ahead.remaining();
        self.0.advance(used);
        Ok(value)
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.read(|reader| reader.byte())
    }

    /// A varint.
    ///
    /// # Errors
    /// When it is cut off, over 64 bits or longer than it has to be.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        self.read(|reader| reader.varint())
    }

    /// So many bytes, not copied.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.0.len() {
            return Err(Malformed::ENDS_EARLY);
        }
        Ok(self.0.split_to(count))
    }

    /// Bytes with their length before them, at most `most`; not copied.
    ///
    /// # Errors
    /// When there are fewer, or they are more than that.
    pub fn bytes(&mut self, most: usize) -> Result<Bytes, Malformed> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > most {
            return Err(Malformed("length is over the limit"));
        }
        self.take(count)
    }

    /// How many things of at least `least` bytes follow: no more than there are bytes for.
    ///
    /// # Errors
    /// When there are too few bytes.
    pub fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        self.read(|reader| reader.count(least))
    }

    /// An array.
    ///
    /// # Errors
    /// At the end.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.read(|reader| reader.array())
    }
}
