//! Questions and answers of a comparison. Format: `docs/formats/replication-compare.md`.

use arca_raft_storage::write_set::KEY_BYTES_MAX;
use bytes::Bytes;

use super::trie::{self, DEPTH_MAX, Total};
use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::copy::{Entry, put_entry, read_entry};
use crate::pinned::Position;

/// Most nodes in a question.
pub(crate) const NODES_MAX: usize = 4096;
/// About how many pairs a part of a table has.
pub(crate) const PART_PAIRS: usize = 16 << 10;
/// Most pairs of a part: a leaf is not cut.
pub(crate) const PART_PAIRS_MAX: usize = 256 << 10;
/// Most pairs of a table.
pub(crate) const TABLE_PAIRS_MAX: usize = 512 << 10;
/// A key to go on from may be one byte longer than one that is there.
const FROM_BYTES_MAX: usize = KEY_BYTES_MAX + 1;

const V1: u8 = 1;

/// Names a session.
pub(crate) type SessionId = u64;

/// What the sum is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To find differences: hashed with a key of its own.
    Differences = 1,
    /// To show: hashed with the key that every cluster knows.
    Root = 2,
}

/// The entries of one leaf, as a sink has them: ids and marks, ascending by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeafPairs {
    pub(crate) leaf: u32,
    pub(crate) pairs: Vec<(u64, u64)>,
}

/// What a sink asks. Each names its session, but for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Pin a state.
    Begin(Purpose),
    /// How much is it, and what is its sum? Asked again until it was read.
    Shape(SessionId),
    /// Here are hash and mark of the keys that open the rest: which are others?
    Keys(SessionId, Vec<(u64, u64)>),
    /// The sums of the children of these nodes, `level` bits from the root, ascending.
    Children { session: SessionId, level: u32, nodes: Vec<u32> },
    /// Part `part` of what the sink has in the leaves that differ, at this depth. Part 0 begins another table.
    Table { session: SessionId, part: u64, depth: u32, leaves: Vec<LeafPairs> },
    /// What is not in the table, of keys from this on?
    Differences(SessionId, Bytes),
    /// It is over.
    End(SessionId),
}

/// How to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Ask for differences from this key on.
    From(Bytes),
    /// That was all. These of the table, by number and ascending, are not there.
    Removed(Vec<u64>),
}

/// What a source answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A session, the key of its hashes, and where its state is.
    Begun { session: SessionId, key: [u8; 32], position: Position },
    /// So many entries were read so far; ask again.
    Counting(u64),
    /// All were.
    Shape { depth: u32, total: Total },
    /// These keys are others.
    Keys(Vec<Entry>),
    /// For each node asked for, the sums of all its children but the last.
    Children(Vec<u64>),
    /// Done.
    Taken,
    /// Entries that are not in the table, ascending.
    Differences(Vec<Entry>, Then),
}

impl Question {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![V1];
        let mut head = |tag: u8, session: SessionId| {
            out.push(tag);
            out.extend_from_slice(&session.to_be_bytes());
        };
        match self {
            Self::Begin(purpose) => out.extend_from_slice(&[1, *purpose as u8]),
            Self::Shape(session) => head(2, *session),
            Self::Keys(session, pairs) => {
                head(3, *session);
                for (hash, mark) in pairs {
                    out.extend_from_slice(&hash.to_be_bytes());
                    put_48(&mut out, *mark);
                }
            }
            Self::Children { session, level, nodes } => {
                head(4, *session);
                put_varint(&mut out, u64::from(*level));
                put_ascending(&mut out, nodes.iter().map(|node| u64::from(*node)));
            }
            Self::Table { session, part, depth, leaves } => {
                head(5, *session);
                put_varint(&mut out, *part);
                put_varint(&mut out, u64::from(*depth));
                put_leaves(&mut out, *depth, leaves);
            }
            Self::Differences(session, from) => {
                head(6, *session);
                put_bytes(&mut out, from);
            }
            Self::End(session) => head(7, *session),
        }
        out.into()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != V1 {
            return Err(Malformed("a comparison of an unknown version"));
        }
        let tag = reader.byte()?;
        if tag == 1 {
            let purpose = match reader.byte()? {
                1 => Purpose::Differences,
                2 => Purpose::Root,
                _ => return Err(Malformed("an unknown purpose")),
            };
            reader.finish()?;
            return Ok(Self::Begin(purpose));
        }
        let session = u64::from_be_bytes(reader.array()?);
        let question = match tag {
            2 => Self::Shape(session),
            3 => {
                let mut pairs = Vec::new();
                while !reader.is_empty() {
                    pairs.push((u64::from_be_bytes(reader.array()?), read_48(&mut reader)?));
                }
                Self::Keys(session, pairs)
            }
            4 => {
                let level = read_depth(&mut reader)?;
                let nodes = read_ascending(&mut reader, NODES_MAX, 1 << level)?;
                let nodes = nodes.into_iter().filter_map(|node| u32::try_from(node).ok()).collect();
                Self::Children { session, level, nodes }
            }
            5 => {
                let (part, depth) = (reader.varint()?, read_depth(&mut reader)?);
                Self::Table { session, part, depth, leaves: read_leaves(&mut reader, depth)? }
            }
            6 => Self::Differences(session, reader.bytes(FROM_BYTES_MAX)?),
            7 => Self::End(session),
            _ => return Err(Malformed("an unknown question")),
        };
        reader.finish()?;
        Ok(question)
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![V1];
        match self {
            Self::Begun { session, key, position } => {
                out.push(1);
                out.extend_from_slice(&session.to_be_bytes());
                out.extend_from_slice(key);
                position.encode_into(&mut out);
            }
            Self::Counting(entries) => {
                out.push(2);
                put_varint(&mut out, *entries);
            }
            Self::Shape { depth, total } => {
                out.push(3);
                for number in [u64::from(*depth), total.entries, total.bytes] {
                    put_varint(&mut out, number);
                }
                out.extend_from_slice(&total.sum.to_be_bytes());
            }
            Self::Keys(entries) => {
                out.push(4);
                put_entries(&mut out, entries);
            }
            Self::Children(sums) => {
                out.push(5);
                for sum in sums {
                    out.extend_from_slice(&sum.to_be_bytes());
                }
            }
            Self::Taken => out.push(6),
            Self::Differences(entries, Then::From(key)) => {
                out.push(7);
                put_bytes(&mut out, key);
                put_entries(&mut out, entries);
            }
            Self::Differences(entries, Then::Removed(removed)) => {
                out.push(8);
                put_varint(&mut out, removed.len() as u64);
                put_ascending(&mut out, removed.iter().copied());
                put_entries(&mut out, entries);
            }
        }
        out.into()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != V1 {
            return Err(Malformed("a comparison of an unknown version"));
        }
        let answer = match reader.byte()? {
            1 => Self::Begun {
                session: u64::from_be_bytes(reader.array()?),
                key: reader.array()?,
                position: Position::read(&mut reader)?,
            },
            2 => Self::Counting(reader.varint()?),
            3 => {
                let depth = read_depth(&mut reader)?;
                let (entries, bytes) = (reader.varint()?, reader.varint()?);
                let sum = u128::from_be_bytes(reader.array()?);
                Self::Shape { depth, total: Total { entries, bytes, sum } }
            }
            4 => Self::Keys(read_entries(&mut reader)?),
            5 => {
                let mut sums = Vec::new();
                while !reader.is_empty() {
                    sums.push(u64::from_be_bytes(reader.array()?));
                }
                Self::Children(sums)
            }
            6 => Self::Taken,
            7 => {
                let key = reader.bytes(FROM_BYTES_MAX)?;
                Self::Differences(read_entries(&mut reader)?, Then::From(key))
            }
            8 => {
                let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
                if count > TABLE_PAIRS_MAX {
                    return Err(Malformed("more is gone than there was"));
                }
                let removed = read_numbers(&mut reader, count, TABLE_PAIRS_MAX as u64)?;
                Self::Differences(read_entries(&mut reader)?, Then::Removed(removed))
            }
            _ => return Err(Malformed("an unknown answer")),
        };
        reader.finish()?;
        Ok(answer)
    }
}

fn put_48(out: &mut Vec<u8>, value: u64) {
    let [_, _, rest @ ..] = value.to_be_bytes();
    out.extend_from_slice(&rest);
}

fn read_48(reader: &mut Reader) -> Result<u64, Malformed> {
    let [a, b, c, d, e, f] = reader.array()?;
    Ok(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

fn read_depth(reader: &mut Reader) -> Result<u32, Malformed> {
    let depth = u32::try_from(reader.varint()?).unwrap_or(u32::MAX);
    if depth > DEPTH_MAX { Err(Malformed("deeper than there is")) } else { Ok(depth) }
}

/// Each as its distance from the one before, less one; the first as it is.
fn put_ascending(out: &mut Vec<u8>, numbers: impl Iterator<Item = u64>) {
    let mut next = 0;
    for number in numbers {
        put_varint(out, number.wrapping_sub(next));
        next = number.wrapping_add(1);
    }
}

fn read_number(reader: &mut Reader, next: &mut u64, end: u64) -> Result<u64, Malformed> {
    let number = next.checked_add(reader.varint()?).filter(|number| *number < end);
    let number = number.ok_or(Malformed("a number out of range"))?;
    *next = number + 1;
    Ok(number)
}

fn read_numbers(reader: &mut Reader, count: usize, end: u64) -> Result<Vec<u64>, Malformed> {
    let mut next = 0;
    (0..count).map(|_| read_number(reader, &mut next, end)).collect()
}

fn read_ascending(reader: &mut Reader, most: usize, end: u64) -> Result<Vec<u64>, Malformed> {
    let (mut next, mut numbers) = (0, Vec::new());
    while !reader.is_empty() {
        if numbers.len() == most {
            return Err(Malformed("too many numbers"));
        }
        numbers.push(read_number(reader, &mut next, end)?);
    }
    Ok(numbers)
}

fn put_leaves(out: &mut Vec<u8>, depth: u32, leaves: &[LeafPairs]) {
    let mut next = 0;
    for LeafPairs { leaf, pairs } in leaves {
        put_varint(out, u64::from(*leaf).wrapping_sub(next));
        next = u64::from(*leaf) + 1;
        put_varint(out, pairs.len() as u64);
        for (id, mark) in pairs {
            put_48(out, trie::tag(*id, depth));
            put_48(out, *mark);
        }
    }
}

fn read_leaves(reader: &mut Reader, depth: u32) -> Result<Vec<LeafPairs>, Malformed> {
    let (mut next, mut leaves, mut room) = (0, Vec::new(), PART_PAIRS_MAX);
    while !reader.is_empty() {
        let leaf = read_number(reader, &mut next, 1 << depth)?;
        let leaf = u32::try_from(leaf).map_err(|_| Malformed("a number out of range"))?;
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        room = room.checked_sub(count).ok_or(Malformed("too large a part of a table"))?;
        let mut pairs: Vec<(u64, u64)> = Vec::new();
        for _ in 0..count {
            let pair = (trie::id_of(leaf, read_48(reader)?, depth)?, read_48(reader)?);
            if pairs.last().is_some_and(|last| last.0 > pair.0) {
                return Err(Malformed("a table that does not ascend"));
            }
            pairs.push(pair);
        }
        leaves.push(LeafPairs { leaf, pairs });
    }
    Ok(leaves)
}

fn put_entries(out: &mut Vec<u8>, entries: &[Entry]) {
    for (key, value) in entries {
        put_entry(out, key, value);
    }
}

fn read_entries(reader: &mut Reader) -> Result<Vec<Entry>, Malformed> {
    let mut entries = Vec::new();
    while !reader.is_empty() {
        entries.push(read_entry(reader)?);
    }
    Ok(entries)
}
