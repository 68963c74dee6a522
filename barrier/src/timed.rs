//! Keys that sort by a moment: lease deadlines and the like.
//!
//! **The moment is readable at rest**, which is the price of finding what falls due without opening every entry. The
//! path is sealed in one piece under a key of its own and bound to class, index and moment, so that it cannot be
//! matched with the entry's own key. Names never collide: no sealed name begins with the marker byte.

use crate::names::{Ciphers, NOT_A_NAME, check_size};
use crate::reader::Reader;
use crate::{BarrierError, Class};

/// Which index an entry is in. The bytes are on disk for ever: never renumber, never reuse; 0 and 255 stay free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TimedIndex {
    /// When leases run out.
    LeaseDeadline = 1,
}

impl TimedIndex {
    /// Its byte in keys.
    #[must_use]
    pub const fn tag(self) -> u8 {
        self as u8
    }

    const fn from_tag(tag: u8) -> Result<Self, BarrierError> {
        match tag {
            1 => Ok(Self::LeaseDeadline),
            unknown => Err(BarrierError::UnknownIndex(unknown)),
        }
    }
}

/// Class, marker, index and moment, bytes.
const HEAD_SIZE: usize = 1 + 1 + 1 + 8;

fn head(class: Class, index: TimedIndex, at_ms: u64) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_SIZE);
    head.extend_from_slice(&[class.tag(), NOT_A_NAME, index.tag()]);
    head.extend_from_slice(&at_ms.to_be_bytes());
    head
}

pub(crate) fn seal(
    ciphers: &Ciphers,
    class: Class,
    index: TimedIndex,
    at_ms: u64,
    path: &str,
) -> Result<Vec<u8>, BarrierError> {
    check_size(path)?;
    let aad = head(class, index, at_ms);
    let mut key = aad.clone();
    ciphers.seal(&aad, path, &mut key)?;
    Ok(key)
}

/// The class of a timed key; the first step of [`open`].
pub(crate) fn class_of(key: &[u8]) -> Result<Class, BarrierError> {
    Class::from_tag(Reader::new(key).byte()?)
}

pub(crate) fn open(ciphers: &Ciphers, key: &[u8]) -> Result<(u64, String), BarrierError> {
    let (aad, _) = key.split_at_checked(HEAD_SIZE).ok_or(BarrierError::Truncated)?;
    let mut reader = Reader::new(key);
    reader.byte()?;
    if reader.byte()? != NOT_A_NAME {
        return Err(BarrierError::Malformed("not a key of a time index"));
    }
    TimedIndex::from_tag(reader.byte()?)?;
    let at_ms = reader.be_u64()?;
    let siv = reader.array()?;
    let mut path = String::new();
    ciphers.open(aad, siv, reader.rest(), &mut path)?;
    Ok((at_ms, path))
}

/// From the first entry of the index up to the first one after `until_ms`.
pub(crate) fn range(class: Class, index: TimedIndex, until_ms: u64) -> (Vec<u8>, Vec<u8>) {
    let start = head(class, index, 0);
    let end = until_ms
        .checked_add(1)
        .map_or_else(|| vec![class.tag(), NOT_A_NAME, index.tag() + 1], |after| head(class, index, after));
    (start, end)
}
