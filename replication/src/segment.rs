//! What is shipped: a run of entries, with where it belongs and what came before it.
//!
//! A segment is `chain before it | body | chain behind it`, the last being BLAKE3 over the first two: whoever holds the
//! chain of a cursor accepts nothing but what follows it, whole. It is not compressed: values are ciphertext, names nearly so; what little
//! repeats is left to whatever carries it. Format: `docs/formats/replication.md`.

use arca_raft_storage::Write;
use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::cursor::{Cursor, Epoch, Generation};

/// Largest encoded segment: one entry, which a command's limit bounds, and what is around it.
pub const SEGMENT_BYTES_MAX: usize = 9 << 20;
/// Longest key and longest value, as the replicated store has them.
const KEY_BYTES_MAX: usize = 16 << 10;
const VALUE_BYTES_MAX: usize = 6 << 20;
/// Least bytes of an entry and of a write: what a count may promise.
const ENTRY_BYTES_MIN: usize = 2;
const WRITE_BYTES_MIN: usize = 3;

const V1: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// What one entry changed, of what passes the sieve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Its index, in the log of the cluster that is followed.
    pub index: u64,
    /// In order.
    pub writes: Vec<Write>,
}

/// The chains on both sides of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chains {
    /// Before it.
    pub before: [u8; 32],
    /// Behind it.
    pub after: [u8; 32],
}

/// A run of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Of the primary that ships it.
    pub epoch: Epoch,
    /// Of the entry at [`Self::to`].
    pub generation: Generation,
    /// The last entry before it.
    pub from: u64,
    /// Its last entry; the same as [`Self::from`] in one that only says that the primary is there.
    pub to: u64,
    /// The newest entry that is applied where it was made.
    pub applied: u64,
    /// Bytes of log between the two, roughly.
    pub behind_bytes: u64,
    /// Wall clock where it was made, milliseconds since 1970.
    pub clock_ms: u64,
    /// Entries of which something passed the sieve, ascending.
    pub entries: Vec<Shipped>,
}

impl Segment {
    /// As it is sent behind `chain`.
    #[must_use]
    pub fn encode(&self, chain: &[u8; 32]) -> Bytes {
        self.encode_chained(chain).0
    }

    /// The same, and the chain behind it.
    pub(crate) fn encode_chained(&self, chain: &[u8; 32]) -> (Bytes, [u8; 32]) {
        let mut out = chain.to_vec();
        out.push(V1);
        put_varint(&mut out, self.epoch.0);
        out.extend_from_slice(&self.generation.0);
        for number in [self.from, self.to, self.applied, self.behind_bytes, self.clock_ms] {
            put_varint(&mut out, number);
        }
        put_varint(&mut out, self.entries.len() as u64);
        for entry in &self.entries {
            put_varint(&mut out, entry.index);
            put_varint(&mut out, entry.writes.len() as u64);
            for write in &entry.writes {
                put_write(&mut out, write);
            }
        }
        let after = *blake3::hash(&out).as_bytes();
        out.extend_from_slice(&after);
        (out.into(), after)
    }

    /// What was sent, with the chains before and behind it.
    ///
    /// # Errors
    /// When it is damaged, of a newer version or over a limit. Nothing is allocated that was only promised.
    pub fn decode(mut bytes: Bytes) -> Result<(Chains, Self), Malformed> {
        if bytes.len() > SEGMENT_BYTES_MAX {
            return Err(Malformed("a segment over the limit"));
        }
        let after = bytes.len().checked_sub(32).map(|at| bytes.split_off(at));
        let after = Reader::new(after.ok_or(Malformed("ends early"))?).array()?;
        if *blake3::hash(&bytes).as_bytes() != after {
            return Err(Malformed("a segment that was altered on its way"));
        }
        let mut reader = Reader::new(bytes);
        let before = reader.array()?;
        if reader.byte()? != V1 {
            return Err(Malformed("a segment of an unknown version"));
        }
        let mut segment = Self {
            epoch: Epoch(reader.varint()?),
            generation: Generation(reader.array()?),
            from: reader.varint()?,
            to: reader.varint()?,
            applied: reader.varint()?,
            behind_bytes: reader.varint()?,
            clock_ms: reader.varint()?,
            entries: Vec::new(),
        };
        for _ in 0..reader.count(ENTRY_BYTES_MIN)? {
            let index = reader.varint()?;
            let last = segment.entries.last().map_or(segment.from, |entry| entry.index);
            if index <= last || index > segment.to {
                return Err(Malformed("entries out of order"));
            }
            let count = reader.count(WRITE_BYTES_MIN)?;
            let writes = (0..count).map(|_| read_write(&mut reader)).collect::<Result<_, _>>()?;
            segment.entries.push(Shipped { index, writes });
        }
        reader.finish()?;
        if segment.from > segment.to || segment.to > segment.applied {
            return Err(Malformed("a segment that ends before it begins, or beyond what was applied"));
        }
        Ok((Chains { before, after }, segment))
    }

    /// Whether it ships nothing but that the primary is there.
    #[must_use]
    pub const fn is_heartbeat(&self) -> bool {
        self.from == self.to
    }

    /// The cursor of who has it, with the chain behind it. A heartbeat leaves the cursor as it is.
    #[must_use]
    pub const fn cursor_after(&self, chain: [u8; 32]) -> Cursor {
        Cursor { epoch: self.epoch, generation: self.generation, index: self.to, chain }
    }
}

fn put_write(out: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Put(key, value) => {
            out.push(PUT);
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Write::Delete(key) => {
            out.push(DELETE);
            put_bytes(out, key);
        }
    }
}

fn read_write(reader: &mut Reader) -> Result<Write, Malformed> {
    let tag = reader.byte()?;
    let key = reader.bytes(KEY_BYTES_MAX)?.to_vec();
    match tag {
        PUT => Ok(Write::Put(key, reader.bytes(VALUE_BYTES_MAX)?.to_vec())),
        DELETE => Ok(Write::Delete(key)),
        _ => Err(Malformed("an unknown kind of write")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Segment {
        Segment {
            epoch: Epoch(3),
            generation: Generation([7; 16]),
            from: 10,
            to: 300,
            applied: 301,
            behind_bytes: 5,
            clock_ms: 128,
            entries: vec![
                Shipped { index: 11, writes: vec![Write::Put(vec![1, 9], b"v".to_vec())] },
                Shipped { index: 300, writes: vec![Write::Delete(vec![1, 8]), Write::Delete(vec![2])] },
            ],
        }
    }

    fn body() -> Vec<u8> {
        let head = [&[9; 32][..], &[1, 3], &[7; 16], &[10, 0xac, 2, 0xad, 2, 5, 0x80, 1]].concat();
        [&head[..], &[2, 11, 1, 1, 2, 1, 9, 1, b'v', 0xac, 2, 2, 2, 2, 1, 8, 2, 1, 2]].concat()
    }

    fn whole(body: &[u8]) -> Bytes {
        [body, blake3::hash(body).as_bytes()].concat().into()
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(segment().encode(&[9; 32]), whole(&body()));
        let after = *blake3::hash(&body()).as_bytes();
        assert_eq!(Segment::decode(whole(&body())), Ok((Chains { before: [9; 32], after }, segment())));
        let cursor = segment().cursor_after(after);
        assert_eq!((cursor.epoch, cursor.generation, cursor.index), (Epoch(3), Generation([7; 16]), 300));
    }

    #[test]
    fn damaged_ones_are_refused() {
        let check = |what: &str, segment: Segment| {
            let refused = Segment::decode(segment.encode(&[0; 32])).unwrap_err();
            assert!(refused.0.contains(what), "{refused}");
        };
        let entry = |index| Shipped { index, writes: vec![Write::Delete(vec![1])] };
        check("out of order", Segment { entries: vec![entry(10)], ..segment() });
        check("out of order", Segment { entries: vec![entry(12), entry(12)], ..segment() });
        check("out of order", Segment { entries: vec![entry(301)], ..segment() });
        check("ends before", Segment { entries: vec![], to: 9, ..segment() });
        check("beyond", Segment { applied: 299, ..segment() });
        for at in 0..body().len() {
            assert!(Segment::decode(whole(&body()[..at])).is_err(), "cut at {at}");
            let mut altered = whole(&body()).to_vec();
            altered[at] ^= 1;
            assert_eq!(
                Segment::decode(altered.into()),
                Err(Malformed("a segment that was altered on its way"))
            );
        }
        assert!(Segment::decode(whole(&[body(), vec![0]].concat())).is_err());
        assert!(Segment::decode(Bytes::from_static(&[0; 31])).is_err());
        let mut newer = body();
        newer[32] = 2;
        assert_eq!(Segment::decode(whole(&newer)), Err(Malformed("a segment of an unknown version")));
    }

    #[test]
    fn sizes_that_are_only_promised_cost_nothing() {
        let head = body()[..58].to_vec();
        let mut entries = head.clone();
        put_varint(&mut entries, u64::MAX);
        assert_eq!(Segment::decode(whole(&entries)), Err(Malformed("count is larger than what follows")));
        let mut writes = [&head[..], &[1, 11]].concat();
        put_varint(&mut writes, 1 << 40);
        assert_eq!(Segment::decode(whole(&writes)), Err(Malformed("count is larger than what follows")));
        assert!(Segment::decode(vec![0; SEGMENT_BYTES_MAX + 1].into()).is_err());
    }
}
