//! Bytes of messages and records: a version byte, then fields in order. Integers are LEB128 varints unless fixed in size.

use bytes::Bytes;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or_default());
}

/// Appends `bytes` with their length before them.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

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
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end")) }
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed("ends early"))
    }

    /// A varint.
    ///
    /// # Errors
    /// When it is cut off or over 64 bits.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number over 64 bits"))
    }

    /// So many bytes, not copied.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn take(&mut self, count: usize) -> Result<Bytes, Malformed> {
        if count > self.0.len() {
            return Err(Malformed("ends early"));
        }
        Ok(self.0.split_to(count))
    }

    /// Bytes with their length before them, at most `most`.
    ///
    /// # Errors
    /// When there are fewer, or they are more than that.
    pub fn bytes(&mut self, most: usize) -> Result<Bytes, Malformed> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > most {
            return Err(Malformed("longer than allowed"));
        }
        self.take(count)
    }

    /// How many things of at least `least` bytes follow: no more than there are bytes for.
    ///
    /// # Errors
    /// When there are too few bytes.
    pub fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > self.0.len() / least.max(1) {
            return Err(Malformed("more than there is"));
        }
        Ok(count)
    }

    /// An array.
    ///
    /// # Errors
    /// At the end.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.as_ref().try_into().map_err(|_| Malformed("ends early"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_come_back_and_longer_ones_are_refused() {
        for value in [0, 1, 127, 128, 300, 1 << 32, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(bytes.into());
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
        for wrong in [vec![0x80], vec![0xff; 10], vec![0xff; 11]] {
            assert!(Reader::new(wrong.into()).varint().is_err());
        }
    }
}
