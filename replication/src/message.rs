//! The small messages of a [`crate::Link`]: what is asked with, and what is answered. Each begins with a version.

use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::cursor::{Cursor, Epoch};

const V1: u8 = 1;
const ADDRESSES_MAX: usize = 64;
const ADDRESS_BYTES_MAX: usize = 512;

/// Asks for what follows a cursor, or acknowledges everything up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorMessage(pub Cursor);

impl CursorMessage {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&[V1][..], &self.0.encode()].concat()
    }

    /// What was sent.
    ///
    /// # Errors
    /// When it is none, or of a newer version.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        version(reader)?;
        let cursor = Cursor::read(reader)?;
        reader.clone().finish()?;
        Ok(Self(cursor))
    }
}

/// Who is primary from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The newest epoch.
    pub epoch: Epoch,
    /// Cluster addresses of the primary in it.
    pub addresses: Vec<String>,
    /// Up to where that primary followed whom it tells; unknown if it did not. What comes behind never reached it.
    pub followed: Cursor,
}

impl Announcement {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![V1];
        put_varint(&mut out, self.epoch.0);
        put_varint(&mut out, self.addresses.len().min(ADDRESSES_MAX) as u64);
        for address in self.addresses.iter().take(ADDRESSES_MAX) {
            put_bytes(&mut out, address.as_bytes());
        }
        out.extend_from_slice(&self.followed.encode());
        out
    }

    /// What was sent.
    ///
    /// # Errors
    /// When it is none, of a newer version or over a limit.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        version(reader)?;
        let epoch = Epoch(reader.varint()?);
        let count = reader.count(1)?;
        if count > ADDRESSES_MAX {
            return Err(Malformed("too many addresses"));
        }
        let address = |reader: &mut Reader| {
            let bytes = reader.bytes(ADDRESS_BYTES_MAX)?;
            String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("an address that is no text"))
        };
        let addresses = (0..count).map(|_| address(reader)).collect::<Result<_, _>>()?;
        let followed = Cursor::read(reader)?;
        reader.clone().finish()?;
        Ok(Self { epoch, addresses, followed })
    }
}

/// How the primary is, to an acknowledgement or an announcement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its own epoch.
    pub epoch: Epoch,
    /// The newest entry applied at whoever answers.
    pub applied: u64,
    /// Its wall clock, milliseconds since 1970.
    pub clock_ms: u64,
}

impl Answer {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![V1];
        for number in [self.epoch.0, self.applied, self.clock_ms] {
            put_varint(&mut out, number);
        }
        out
    }

    /// What was sent.
    ///
    /// # Errors
    /// When it is none, or of a newer version.
    pub fn decode(reader: &mut Reader) -> Result<Self, Malformed> {
        version(reader)?;
        let answer =
            Self { epoch: Epoch(reader.varint()?), applied: reader.varint()?, clock_ms: reader.varint()? };
        reader.clone().finish()?;
        Ok(answer)
    }
}

fn version(reader: &mut Reader) -> Result<(), Malformed> {
    if reader.byte()? == V1 { Ok(()) } else { Err(Malformed("a message of an unknown version")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Generation;

    #[test]
    fn golden_bytes() {
        let cursor = Cursor { epoch: Epoch(3), generation: Generation([7; 16]), index: 300, chain: [9; 32] };
        let golden = [&[1, 1, 3][..], &[7; 16], &[0xac, 2], &[9; 32]].concat();
        assert_eq!(CursorMessage(cursor).encode(), golden);
        assert_eq!(CursorMessage::decode(&mut Reader::new(golden.into())), Ok(CursorMessage(cursor)));

        let addresses = vec!["a:1".to_owned(), String::new()];
        let news = Announcement { epoch: Epoch(300), addresses, followed: cursor };
        let golden = [&[1, 0xac, 2, 2, 3, b'a', b':', b'1', 0], cursor.encode().as_slice()].concat();
        assert_eq!(news.encode(), golden);
        assert_eq!(Announcement::decode(&mut Reader::new(golden.into())), Ok(news));

        let answer = Answer { epoch: Epoch(1), applied: 300, clock_ms: 5 };
        assert_eq!(answer.encode(), [1, 1, 0xac, 2, 5]);
        assert_eq!(Answer::decode(&mut Reader::new(answer.encode().into())), Ok(answer));
    }

    #[test]
    fn damaged_ones_are_refused() {
        for bytes in [vec![], vec![2, 0, 0], vec![1, 0, 65], vec![1, 0, 1, 1, 0xff], vec![1, 0, 0, 0]] {
            assert!(Announcement::decode(&mut Reader::new(bytes.clone().into())).is_err(), "{bytes:?}");
        }
        assert!(CursorMessage::decode(&mut Reader::new(vec![1, 1].into())).is_err());
        assert!(Answer::decode(&mut Reader::new(vec![1, 1, 1, 1, 1].into())).is_err());
    }
}
