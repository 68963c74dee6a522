//! Where a secondary is in the history of the cluster it follows.
//!
//! An index alone does not say it: after a cluster's disks were put back to an older state it uses the same indexes, and
//! perhaps the same terms, for other entries. So a cluster that is followed begins a new *generation*, with a random name,
//! whenever a member becomes its active one, and remembers at which index each began. A cursor of a generation that the
//! cluster does not know, or of an index outside of it, is of a history that has forked.

use crate::codec::{Malformed, Reader, put_varint};

/// Raised by every change of roles, in the log. Nobody takes segments of an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The random name of a stretch of history, from one activation to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub [u8; 16]);

/// Up to where a secondary has applied everything, and what led there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// Of the newest segment.
    pub epoch: Epoch,
    /// Of the newest entry; zeros for a secondary that has yet to compare its state.
    pub generation: Generation,
    /// Log index of the newest entry, in the log of the cluster that is followed; zero if none of it was ever followed.
    pub index: u64,
    /// Over every segment since the state was copied or compared: see [`Self::after_copy`].
    pub chain: [u8; 32],
}

const V1: u8 = 1;
const COPY_CONTEXT: &str = "arca 2026-11 replication: chain after a copy";

impl Cursor {
    /// The cursor of a secondary whose state is the one at `index`: with a chain that is made of nothing else.
    #[must_use]
    pub fn after_copy(epoch: Epoch, generation: Generation, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(COPY_CONTEXT);
        hasher.update(&epoch.0.to_be_bytes()).update(&generation.0).update(&index.to_be_bytes());
        Self { epoch, generation, index, chain: *hasher.finalize().as_bytes() }
    }

    /// The cursor of one that has yet to compare its state with that of the cluster it has followed up to here. It keeps the
    /// index: a comparison makes nothing older, so at the least everything up to there is here.
    #[must_use]
    pub fn forgotten(&self) -> Self {
        Self { epoch: self.epoch, index: self.index, ..Self::default() }
    }

    /// Whether the state has yet to be compared with that of the cluster that is followed.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.generation == Generation::default()
    }

    /// As it is stored and sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![V1];
        put_varint(&mut out, self.epoch.0);
        out.extend_from_slice(&self.generation.0);
        put_varint(&mut out, self.index);
        out.extend_from_slice(&self.chain);
        out
    }

    /// The next field of a message or record.
    ///
    /// # Errors
    /// When it is none, or of a newer version.
    pub fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        if reader.byte()? != V1 {
            return Err(Malformed("a cursor of an unknown version"));
        }
        Ok(Self {
            epoch: Epoch(reader.varint()?),
            generation: Generation(reader.array()?),
            index: reader.varint()?,
            chain: reader.array()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_keeps_its_bytes() {
        let cursor = Cursor { epoch: Epoch(3), generation: Generation([7; 16]), index: 300, chain: [9; 32] };
        let golden = [&[1, 3][..], &[7; 16], &[0xac, 2], &[9; 32]].concat();
        assert_eq!(cursor.encode(), golden);
        assert_eq!(Cursor::read(&mut Reader::new(golden.into())), Ok(cursor));
        assert!(Cursor::read(&mut Reader::new(vec![2; 60].into())).is_err());
    }

    #[test]
    fn a_copy_s_chain_is_its_own() {
        let of = |epoch, index| Cursor::after_copy(Epoch(epoch), Generation([1; 16]), index).chain;
        assert_ne!(of(1, 2), of(2, 1));
        assert_eq!(of(1, 2), of(1, 2));
    }
}
