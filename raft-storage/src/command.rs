//! What a normal entry of the replicated log carries. An entry is on disk and on the wire for as long as any member
//! may replay it, so every command begins with a tag and a version that are never renumbered and never reused.
//!
//! **Invariant:** a tag or version this build does not know stops the node. Skipping it would make the replicas
//! differ; so a leader proposes a new one only once every member says that it knows it.

use crate::WriteSet;
use crate::codec::{self, Malformed, Reader};

/// Largest encoded command.
pub const COMMAND_BYTES_MAX: usize = 8 << 20;
/// Most write sets in one entry.
pub const BATCH_SETS_MAX: usize = 4096;
/// Most bytes of one staged chunk of an import.
pub const IMPORT_CHUNK_BYTES_MAX: usize = 1 << 20;

/// A command that cannot be encoded, or an entry that cannot be understood. The latter stops the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not what its tag promises.
    #[error("malformed command: {0}")]
    Malformed(&'static str),
    /// Over a limit.
    #[error("{what}: {size} is over the limit of {limit}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// Bytes, or how many.
        size: usize,
        /// Most allowed.
        limit: usize,
    },
    /// Written by a newer build.
    #[error("command {tag} version {version} is unknown: a newer build wrote it")]
    Unknown {
        /// Tag found.
        tag: u8,
        /// Version found.
        version: u8,
    },
}

impl From<Malformed> for CommandError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

/// One command. An import is named by the log index of its `ImportBegin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Write sets of several requests; each is applied or refused by itself, in order.
    Batch(Vec<WriteSet>),
    /// Forgets what was staged.
    ImportAbort {
        /// Which import.
        import: u64,
    },
    /// Starts staging a new state beside the visible one, forgetting what was staged before.
    ImportBegin,
    /// Stages the next piece.
    ImportChunk {
        /// Which import.
        import: u64,
        /// Counts from zero.
        seq: u64,
        /// Entries, as in the data frames of an export.
        bytes: Vec<u8>,
    },
    /// Replaces the visible state by what was staged, if all of it is there.
    ImportCommit {
        /// Which import.
        import: u64,
        /// How many pieces.
        chunks: u64,
        /// BLAKE3 of the pieces, one after the other.
        digest: [u8; 32],
    },
    /// Changes nothing: its own log index is what was wanted.
    Reserve(Purpose),
}

/// What an index was reserved for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// To be the raft id of a new member.
    MemberId = 1,
}

const BATCH: u8 = 1;
const RESERVE: u8 = 2;
const IMPORT_BEGIN: u8 = 3;
const IMPORT_CHUNK: u8 = 4;
const IMPORT_COMMIT: u8 = 5;
const IMPORT_ABORT: u8 = 6;
/// Every tag is at its first version.
const V1: u8 = 1;

impl Command {
    /// The bytes for the log.
    ///
    /// # Errors
    /// When over a limit, or a key is empty or reserved.
    pub fn encode(&self) -> Result<Vec<u8>, CommandError> {
        let mut out = vec![self.tag(), V1];
        match self {
            Self::Batch(sets) => {
                codec::put_varint(&mut out, sets.len() as u64);
                for set in sets {
                    set.encode_into(&mut out)?;
                }
                check_sets(sets.len())?;
            }
            Self::ImportAbort { import } => codec::put_varint(&mut out, *import),
            Self::ImportBegin => {}
            Self::ImportChunk { import, seq, bytes } => {
                check_chunk(bytes.len())?;
                codec::put_varint(&mut out, *import);
                codec::put_varint(&mut out, *seq);
                codec::put_bytes(&mut out, bytes);
            }
            Self::ImportCommit { import, chunks, digest } => {
                codec::put_varint(&mut out, *import);
                codec::put_varint(&mut out, *chunks);
                out.extend_from_slice(digest);
            }
            Self::Reserve(purpose) => out.push(*purpose as u8),
        }
        checked(out)
    }

    /// A [`Command::Batch`] of sets that were encoded one by one with [`WriteSet::encode_into`], so that proposals
    /// that wait together are joined without encoding them again.
    ///
    /// # Errors
    /// When over a limit.
    pub fn batch_of<T: AsRef<[u8]>>(sets: &[T]) -> Result<Vec<u8>, CommandError> {
        check_sets(sets.len())?;
        let size = sets.iter().map(|set| set.as_ref().len()).sum::<usize>();
        let mut out = Vec::with_capacity(2 + codec::varint_len(sets.len() as u64) + size);
        out.extend_from_slice(&[BATCH, V1]);
        codec::put_varint(&mut out, sets.len() as u64);
        for set in sets {
            out.extend_from_slice(set.as_ref());
        }
        checked(out)
    }

    /// Reads a command back.
    ///
    /// # Errors
    /// When it is not exactly one command this build knows. The node must then stop.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(Malformed("command is too large").into());
        }
        let mut reader = Reader::new(bytes);
        let (tag, version) = (reader.byte()?, reader.byte()?);
        let command = match (tag, version) {
            (BATCH, V1) => Self::Batch(decode_sets(&mut reader)?),
            (IMPORT_ABORT, V1) => Self::ImportAbort { import: reader.varint()? },
            (IMPORT_BEGIN, V1) => Self::ImportBegin,
            (IMPORT_CHUNK, V1) => Self::ImportChunk {
                import: reader.varint()?,
                seq: reader.varint()?,
                bytes: reader.bytes(IMPORT_CHUNK_BYTES_MAX)?.to_vec(),
            },
            (IMPORT_COMMIT, V1) => Self::ImportCommit {
                import: reader.varint()?,
                chunks: reader.varint()?,
                digest: reader.array()?,
            },
            (RESERVE, V1) => Self::Reserve(decode_purpose(reader.byte()?)?),
            (tag, version) => return Err(CommandError::Unknown { tag, version }),
        };
        reader.finish()?;
        Ok(command)
    }

    pub(crate) const fn is_import(&self) -> bool {
        match self {
            Self::Batch(_) | Self::Reserve(_) => false,
            Self::ImportAbort { .. }
            | Self::ImportBegin
            | Self::ImportChunk { .. }
            | Self::ImportCommit { .. } => true,
        }
    }

    /// Whether applying the command in `bytes` builds a whole store. Looks at nothing but its tag.
    pub(crate) fn builds_a_store(bytes: &[u8]) -> bool {
        bytes.first() == Some(&IMPORT_COMMIT)
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::Batch(_) => BATCH,
            Self::ImportAbort { .. } => IMPORT_ABORT,
            Self::ImportBegin => IMPORT_BEGIN,
            Self::ImportChunk { .. } => IMPORT_CHUNK,
            Self::ImportCommit { .. } => IMPORT_COMMIT,
            Self::Reserve(_) => RESERVE,
        }
    }
}

fn decode_sets(reader: &mut Reader<'_>) -> Result<Vec<WriteSet>, Malformed> {
    let count = reader.count(2)?;
    if count > BATCH_SETS_MAX {
        return Err(Malformed("too many write sets"));
    }
    (0..count).map(|_| WriteSet::decode(reader)).collect()
}

const fn decode_purpose(byte: u8) -> Result<Purpose, Malformed> {
    match byte {
        1 => Ok(Purpose::MemberId),
        _ => Err(Malformed("unknown purpose")),
    }
}

const fn check_sets(count: usize) -> Result<(), CommandError> {
    if count > BATCH_SETS_MAX {
        return Err(CommandError::TooLarge {
            what: "write sets in one entry",
            size: count,
            limit: BATCH_SETS_MAX,
        });
    }
    Ok(())
}

const fn check_chunk(size: usize) -> Result<(), CommandError> {
    if size > IMPORT_CHUNK_BYTES_MAX {
        return Err(CommandError::TooLarge {
            what: "chunk of an import",
            size,
            limit: IMPORT_CHUNK_BYTES_MAX,
        });
    }
    Ok(())
}

fn checked(out: Vec<u8>) -> Result<Vec<u8>, CommandError> {
    if out.len() > COMMAND_BYTES_MAX {
        let (size, limit) = (out.len(), COMMAND_BYTES_MAX);
        return Err(CommandError::TooLarge { what: "command", size, limit });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Version, Write};

    fn set() -> WriteSet {
        WriteSet {
            reads: vec![(vec![1, 0xaa], Version(300)), (vec![2], Version::ABSENT)],
            writes: vec![Write::Put(vec![1, 0xaa], vec![7, 8, 9]), Write::Delete(vec![2])],
        }
    }

    #[track_caller]
    fn golden(command: Command, bytes: &[u8]) {
        assert_eq!(command.encode().as_deref(), Ok(bytes), "{command:?}");
        assert_eq!(Command::decode(bytes), Ok(command));
    }

    /// These bytes are in logs: this test may grow, its lines never change.
    #[test]
    fn golden_bytes() {
        let set_bytes = [2, 2, 1, 0xaa, 0xac, 2, 1, 2, 0, 2, 1, 2, 1, 0xaa, 3, 7, 8, 9, 2, 1, 2];
        golden(Command::Batch(vec![]), &[1, 1, 0]);
        golden(Command::Batch(vec![set()]), &[&[1, 1, 1][..], &set_bytes].concat());
        golden(
            Command::Batch(vec![set(), WriteSet::default()]),
            &[&[1, 1, 2][..], &set_bytes, &[0, 0]].concat(),
        );
        golden(Command::Reserve(Purpose::MemberId), &[2, 1, 1]);
        golden(Command::ImportBegin, &[3, 1]);
        golden(Command::ImportChunk { import: 5, seq: 130, bytes: vec![9] }, &[4, 1, 5, 0x82, 1, 1, 9]);
        golden(
            Command::ImportCommit { import: 5, chunks: 2, digest: [0xee; 32] },
            &[&[5, 1, 5, 2][..], &[0xee; 32]].concat(),
        );
        golden(Command::ImportAbort { import: 5 }, &[6, 1, 5]);
    }

    #[test]
    fn sets_encoded_apart_make_the_same_batch() {
        let mut apart = Vec::new();
        set().encode_into(&mut apart).unwrap();
        assert_eq!(apart.len(), set().encoded_len());
        let joined = Command::batch_of(&[&apart, &apart]).unwrap();
        assert_eq!(Command::decode(&joined), Ok(Command::Batch(vec![set(), set()])));
    }

    #[track_caller]
    fn refuses(bytes: &[u8], expected: &str) {
        let got = Command::decode(bytes).map_err(|err| err.to_string());
        assert_eq!(got, Err(expected.to_owned()), "input {bytes:02x?}");
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        refuses(&[], "malformed command: ends early");
        refuses(&[0, 1], "command 0 version 1 is unknown: a newer build wrote it");
        refuses(&[7, 1], "command 7 version 1 is unknown: a newer build wrote it");
        refuses(&[1, 2, 0], "command 1 version 2 is unknown: a newer build wrote it");
        refuses(&[2, 1, 9], "malformed command: unknown purpose");
        refuses(&[3, 1, 0], "malformed command: bytes follow the end");
        refuses(&[1, 1, 1, 0, 1, 3, 1, 1], "malformed command: unknown kind of write");
        refuses(&[1, 1, 1, 0, 1, 2, 0, 0, 0], "malformed command: empty key");
        refuses(&[1, 1, 1, 0, 1, 2, 1, 0xff], "malformed command: reserved key");
        refuses(&[1, 1, 0xff, 0xff, 3], "malformed command: count is larger than what follows");
        refuses(&vec![1; COMMAND_BYTES_MAX + 1], "malformed command: command is too large");
    }

    #[track_caller]
    fn too_large(sets: Vec<WriteSet>, expected: &str) {
        let got = Command::Batch(sets).encode().map_err(|err| err.to_string());
        assert_eq!(got, Err(expected.to_owned()));
    }

    #[test]
    fn limits_are_reached() {
        let put = |key: usize, value: usize| WriteSet {
            reads: vec![],
            writes: vec![Write::Put(vec![1; key], vec![0; value])],
        };
        let many = WriteSet { reads: vec![(vec![1], Version(1)); 65537], writes: vec![] };
        too_large(vec![put(16385, 0)], "key: 16385 is over the limit of 16384");
        too_large(vec![put(1, (6 << 20) + 1)], "value: 6291457 is over the limit of 6291456");
        too_large(vec![put(1, 6 << 20), put(1, 6 << 20)], "command: 12582933 is over the limit of 8388608");
        too_large(vec![many], "reads of a write set: 65537 is over the limit of 65536");
        too_large(vec![WriteSet::default(); 4097], "write sets in one entry: 4097 is over the limit of 4096");
    }

    fn any_set() -> impl Strategy<Value = WriteSet> {
        let key = || proptest::collection::vec(0u8..4, 1..20);
        let write = prop_oneof![
            key().prop_map(Write::Delete),
            (key(), proptest::collection::vec(any::<u8>(), 0..200))
                .prop_map(|(key, value)| Write::Put(key, value)),
        ];
        let read = (key(), any::<u64>()).prop_map(|(key, version)| (key, Version(version)));
        (proptest::collection::vec(read, 0..5), proptest::collection::vec(write, 0..5))
            .prop_map(|(reads, writes)| WriteSet { reads, writes })
    }

    proptest! {
        #[test]
        fn round_trip(sets in proptest::collection::vec(any_set(), 0..5)) {
            let command = Command::Batch(sets);
            let bytes = command.encode().unwrap();
            prop_assert_eq!(Command::decode(&bytes), Ok(command));
        }

        /// Any bytes decode or do not, without a panic; what decodes encodes to the same bytes.
        #[test]
        fn never_panics(tag in 0u8..8, rest in proptest::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[tag, 1], &rest[..]].concat();
            if let Ok(command) = Command::decode(&bytes) {
                prop_assert_eq!(command.encode(), Ok(bytes));
            }
        }

        /// Small damage to a real entry likewise.
        #[test]
        fn damage_never_panics(set in any_set(), at in any::<prop::sample::Index>(), xor in 1u8..) {
            let mut bytes = Command::Batch(vec![set]).encode().unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            if let Ok(command) = Command::decode(&bytes) {
                prop_assert_eq!(command.encode(), Ok(bytes));
            }
        }
    }
}
