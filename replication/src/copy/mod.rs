//! The whole state of the cluster that is followed, for one that begins to follow it: one stream, in key order.
//!
//! The source reads one view; the sink verifies order, number and hash before the end of what it hands to
//! [`arca_raft_storage::Replica::import`], so that a copy that was cut off or altered changes nothing.
//! Read next: [`source`], [`sink`]. Format: `docs/formats/replication-compare.md`.

pub mod sink;
pub mod source;

#[cfg(test)]
mod tests;

use arca_raft_storage::Key;
use arca_raft_storage::write_set::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::pinned::Position;

pub use sink::{CopyError, Incoming};
pub use source::stream;

/// A batch has no more than this, unless one entry alone does.
const BATCH_BYTES: usize = 256 << 10;
const HASH_CONTEXT: &str = "arca 2026-11 replication: entries of a copy";

const V1: u8 = 1;
// On the wire: never renumber, never reuse.
const HEAD: u8 = 1;
const COUNT: u8 = 2;
const BATCH: u8 = 3;
const END: u8 = 4;

/// A key and its value.
pub(crate) type Entry = (Bytes, Bytes);

/// One payload of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Message {
    /// First.
    Head(Position),
    /// How much there is; so far, while it is being counted.
    Count { entries: u64, bytes: u64 },
    /// The next entries.
    Batch(Vec<Entry>),
    /// Last.
    End { entries: u64, hash: [u8; 32] },
}

impl Message {
    fn encode(&self) -> Bytes {
        let mut out = vec![V1];
        match self {
            Self::Head(position) => {
                out.push(HEAD);
                position.encode_into(&mut out);
            }
            Self::Count { entries, bytes } => {
                out.push(COUNT);
                put_varint(&mut out, *entries);
                put_varint(&mut out, *bytes);
            }
            Self::Batch(entries) => {
                out.push(BATCH);
                for (key, value) in entries {
                    put_entry(&mut out, key, value);
                }
            }
            Self::End { entries, hash } => {
                out.push(END);
                put_varint(&mut out, *entries);
                out.extend_from_slice(hash);
            }
        }
        out.into()
    }

    fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != V1 {
            return Err(Malformed("a copy of an unknown version"));
        }
        let message = match reader.byte()? {
            HEAD => Self::Head(Position::read(&mut reader)?),
            COUNT => Self::Count { entries: reader.varint()?, bytes: reader.varint()? },
            BATCH => {
                let mut entries = Vec::new();
                while !reader.is_empty() {
                    entries.push(read_entry(&mut reader)?);
                }
                Self::Batch(entries)
            }
            END => Self::End { entries: reader.varint()?, hash: reader.array()? },
            _ => return Err(Malformed("an unknown part of a copy")),
        };
        reader.finish()?;
        Ok(message)
    }
}

/// The keys of the entries in a message of a copy.
pub(crate) fn keys(payload: Bytes) -> Result<Vec<Key>, Malformed> {
    match Message::decode(payload)? {
        Message::Batch(entries) => Ok(entries.into_iter().map(|(key, _)| key.into()).collect()),
        Message::Head(_) | Message::Count { .. } | Message::End { .. } => Ok(Vec::new()),
    }
}

pub(crate) fn put_entry(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    put_bytes(out, key);
    put_bytes(out, value);
}

pub(crate) fn read_entry(reader: &mut Reader) -> Result<Entry, Malformed> {
    let key = reader.bytes(KEY_BYTES_MAX)?;
    if key.is_empty() {
        return Err(Malformed("an empty key"));
    }
    Ok((key, reader.bytes(VALUE_BYTES_MAX)?))
}

/// Over every entry, in order, and where they are from.
struct EntriesHash {
    hasher: blake3::Hasher,
    entries: u64,
}

impl EntriesHash {
    fn new(position: Position) -> Self {
        let mut head = Vec::new();
        position.encode_into(&mut head);
        let mut hasher = blake3::Hasher::new_derive_key(HASH_CONTEXT);
        hasher.update(&head);
        Self { hasher, entries: 0 }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        for part in [key, value] {
            self.hasher.update(&(part.len() as u64).to_be_bytes()).update(part);
        }
        self.entries += 1;
    }

    fn end(&self) -> Message {
        Message::End { entries: self.entries, hash: *self.hasher.finalize().as_bytes() }
    }
}
