//! What one request changes: applied whole, or refused whole.
//!
//! Optimistic concurrency: the set lists the version of every key the request read. `apply` compares them on every
//! replica, in log order; one that moved refuses the set, and the caller runs the request again on fresh state.
//! Read next: [`crate::command`] for how sets travel, [`crate::state`] for what applying one does.

use crate::codec::{self, Malformed, Reader};
use crate::command::CommandError;

/// A physical key: class byte and sealed name. Opaque here.
pub type Key = Vec<u8>;
/// A sealed value. Opaque here.
pub type Value = Vec<u8>;

/// Log index of the entry that last wrote a key; zero means the key is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

impl Version {
    /// The version of a key that is not there.
    pub const ABSENT: Self = Self(0);
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Remove the key; fine if it is not there.
    Delete(Key),
    /// Store the value.
    Put(Key, Value),
}

impl Write {
    /// The key it touches.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Delete(key) | Self::Put(key, _) => key,
        }
    }

    /// Bytes of key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Delete(key) => key.len(),
            Self::Put(key, value) => key.len() + value.len(),
        }
    }
}

/// The reads and writes of one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteSet {
    /// Keys whose version the request relied on.
    pub reads: Vec<(Key, Version)>,
    /// Changes, in order. A later one wins over an earlier one on the same key.
    pub writes: Vec<Write>,
}

/// Longest key.
pub const KEY_BYTES_MAX: usize = 16 << 10;
/// Longest value. A larger one would not fit in an entry with its key and reads.
pub const VALUE_BYTES_MAX: usize = 6 << 20;
/// Most reads, and most writes, of one set.
pub const SET_CHANGES_MAX: usize = 64 << 10;
/// First byte from which keys belong to the state machine itself.
pub(crate) const RESERVED_FROM: u8 = 0xF0;

// On disk for ever: never renumber, never reuse.
const PUT: u8 = 1;
const DELETE: u8 = 2;

impl WriteSet {
    /// Bytes [`Self::encode_into`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let reads =
            self.reads.iter().map(|(key, version)| codec::bytes_len(key) + codec::varint_len(version.0));
        let writes = self.writes.iter().map(|write| match write {
            Write::Delete(key) => 1 + codec::bytes_len(key),
            Write::Put(key, value) => 1 + codec::bytes_len(key) + codec::bytes_len(value),
        });
        codec::varint_len(self.reads.len() as u64)
            + reads.sum::<usize>()
            + codec::varint_len(self.writes.len() as u64)
            + writes.sum::<usize>()
    }

    /// Appends the set. Sets follow one another without a separator.
    ///
    /// # Errors
    /// When a key is empty or reserved, or something is over a limit; `out` is then unchanged.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), CommandError> {
        self.check()?;
        out.reserve(self.encoded_len());
        codec::put_varint(out, self.reads.len() as u64);
        for (key, version) in &self.reads {
            codec::put_bytes(out, key);
            codec::put_varint(out, version.0);
        }
        codec::put_varint(out, self.writes.len() as u64);
        for write in &self.writes {
            match write {
                Write::Put(key, value) => {
                    out.push(PUT);
                    codec::put_bytes(out, key);
                    codec::put_bytes(out, value);
                }
                Write::Delete(key) => {
                    out.push(DELETE);
                    codec::put_bytes(out, key);
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), CommandError> {
        limit("reads of a write set", self.reads.len(), SET_CHANGES_MAX)?;
        limit("writes of a write set", self.writes.len(), SET_CHANGES_MAX)?;
        for key in self.reads.iter().map(|(key, _)| key.as_slice()).chain(self.writes.iter().map(Write::key))
        {
            limit("key", key.len(), KEY_BYTES_MAX)?;
            check_key(key)?;
        }
        for write in &self.writes {
            if let Write::Put(_, value) = write {
                limit("value", value.len(), VALUE_BYTES_MAX)?;
            }
        }
        Ok(())
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        // The smallest read is a length, a byte of key and a version; the smallest write a tag, a length and a byte.
        let reads = (0..decode_count(reader)?)
            .map(|_| Ok((decode_key(reader)?, Version(reader.varint()?))))
            .collect::<Result<_, _>>()?;
        let writes = (0..decode_count(reader)?).map(|_| decode_write(reader)).collect::<Result<_, _>>()?;
        Ok(Self { reads, writes })
    }
}

fn decode_count(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    let count = reader.count(3)?;
    if count > SET_CHANGES_MAX { Err(Malformed("too many changes in a write set")) } else { Ok(count) }
}

fn decode_key(reader: &mut Reader<'_>) -> Result<Key, Malformed> {
    let key = reader.bytes(KEY_BYTES_MAX)?;
    check_key(key)?;
    Ok(key.to_vec())
}

fn decode_write(reader: &mut Reader<'_>) -> Result<Write, Malformed> {
    match reader.byte()? {
        PUT => Ok(Write::Put(decode_key(reader)?, reader.bytes(VALUE_BYTES_MAX)?.to_vec())),
        DELETE => Ok(Write::Delete(decode_key(reader)?)),
        _ => Err(Malformed("unknown kind of write")),
    }
}

pub(crate) fn check_key(key: &[u8]) -> Result<(), Malformed> {
    match key.first() {
        None => Err(Malformed("empty key")),
        Some(first) if *first >= RESERVED_FROM => Err(Malformed("reserved key")),
        Some(_) => Ok(()),
    }
}

fn limit(what: &'static str, size: usize, limit: usize) -> Result<(), CommandError> {
    if size > limit { Err(CommandError::TooLarge { what, size, limit }) } else { Ok(()) }
}
