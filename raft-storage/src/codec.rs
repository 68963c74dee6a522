//! Bytes in and out, for every format that is written by hand, here and in `replication`: varints and length-prefixed bytes.
//!
//! A varint is seven bits a byte, lowest first, in its shortest form only, so that a value has one encoding.
//! Reading never panics and never allocates more than it was given.

/// Input that does not parse: says what was expected, never the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl Malformed {
    /// The only problem that more bytes could cure.
    pub const ENDS_EARLY: Self = Self("ends early");
}

/// Most bytes a varint takes.
const VARINT_BYTES_MAX: usize = 10;

/// Appends `value` as a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of `bytes` and `bytes`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Bytes [`put_varint`] would append.
#[must_use]
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Bytes [`put_bytes`] would append.
#[must_use]
pub const fn bytes_len(bytes: &[u8]) -> usize {
    varint_len(bytes.len() as u64) + bytes.len()
}

/// Takes values off the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// At their beginning.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// One byte.
    ///
    /// # Errors
    /// At the end.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed::ENDS_EARLY)?;
        self.rest = rest;
        Ok(*first)
    }

    /// So many bytes.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed::ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An array.
    ///
    /// # Errors
    /// At the end.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed::ENDS_EARLY)
    }

    /// A varint.
    ///
    /// # Errors
    /// When it is cut off, over 64 bits or longer than it has to be.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for position in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if position == VARINT_BYTES_MAX - 1 && bits > 1 {
                return Err(Malformed("number does not fit in 64 bits"));
            }
            value |= bits << (7 * position);
            if byte & 0x80 == 0 {
                let is_shortest = byte != 0 || position == 0;
                return if is_shortest { Ok(value) } else { Err(Malformed("number has a needless byte")) };
            }
        }
        Err(Malformed("number has no end"))
    }

    /// A count of things that take at least `each` bytes each, so that the count is bounded by what is there.
    ///
    /// # Errors
    /// When it is larger than that.
    pub fn count(&mut self, each: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.varint()?).map_err(|_| Malformed("count is too large"))?;
        if count.checked_mul(each.max(1)).is_none_or(|least| least > self.rest.len()) {
            return Err(Malformed("count is larger than what follows"));
        }
        Ok(count)
    }

    /// Bytes with their length before them, at most `limit`.
    ///
    /// # Errors
    /// When there are fewer, or they are more than that.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed("length is too large"))?;
        if len > limit {
            return Err(Malformed("length is over the limit"));
        }
        self.take(len)
    }

    /// Refuses bytes behind the last value.
    ///
    /// # Errors
    /// When there are any.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes follow the end")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<u64, &'static str>) {
        assert_eq!(Reader::new(bytes).varint(), expected.map_err(Malformed), "input {bytes:02x?}");
    }

    #[test]
    fn numbers() {
        check(&[0], Ok(0));
        check(&[0x7f], Ok(127));
        check(&[0x80, 1], Ok(128));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Ok(u64::MAX));
        check(&[], Err("ends early"));
        check(&[0x80], Err("ends early"));
        check(&[0x80, 0], Err("number has a needless byte"));
        check(
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            Err("number does not fit in 64 bits"),
        );
        check(&[0x80; 11], Err("number has no end"));
    }

    proptest! {
        #[test]
        fn round_trip(value: u64, bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            put_bytes(&mut out, &bytes);
            prop_assert_eq!(out.len(), varint_len(value) + bytes_len(&bytes));
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.bytes(300), Ok(&bytes[..]));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }
}
