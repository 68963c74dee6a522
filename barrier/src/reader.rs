//! Reads fixed-size fields off the front of untrusted bytes. Never panics, never reads past the end.

use crate::BarrierError;

/// The bytes not read yet.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, size: usize) -> Result<&'a [u8], BarrierError> {
        let (head, tail) = self.0.split_at_checked(size).ok_or(BarrierError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], BarrierError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(BarrierError::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, BarrierError> {
        self.array::<1>().map(|[byte]| *byte)
    }

    pub(crate) fn be_u16(&mut self) -> Result<u16, BarrierError> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(crate) fn be_u32(&mut self) -> Result<u32, BarrierError> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(crate) fn be_u64(&mut self) -> Result<u64, BarrierError> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }
}
