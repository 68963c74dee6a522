//! Ids of requests: version 4 UUIDs that never repeat within a process, and by chance alone between two.
//!
//! They name requests in answers and audit logs, and open nothing: that the next one can be guessed does no harm. So
//! randomness is asked for once, not for each request.

use std::sync::atomic::{AtomicU64, Ordering};

use arca_engine_api::{Entropy, EntropyError};

/// See the file's header.
#[derive(Debug)]
pub struct RequestIds {
    base: u128,
    next: AtomicU64,
}

impl RequestIds {
    /// A sequence of its own.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut bytes = [0; 16];
        entropy.fill(&mut bytes)?;
        Ok(Self { base: u128::from_be_bytes(bytes), next: AtomicU64::new(0) })
    }

    /// The next id.
    #[must_use]
    pub fn next(&self) -> String {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        // Two bijections of the count, so that ids differ in more than their last digits.
        let (high, low) = (mixed(count), mixed(!count));
        uuid(self.base ^ (u128::from(high) << 64) ^ u128::from(low))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): a bijection.
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// `number` in the form of RFC 9562, with version and variant in place.
fn uuid(number: u128) -> String {
    let number = number & !(0xf000_u128 << 64) & !(0xc000_u128 << 48);
    let number = number | (0x4000_u128 << 64) | (0x8000_u128 << 48);
    let mut text = String::with_capacity(36);
    for (at, byte) in number.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0xf));
    }
    text
}

/// A hexadecimal digit. One is asked for 32 times a request.
fn digit(value: u8) -> char {
    char::from(if value < 10 { b'0' + value } else { b'a' - 10 + value })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arca_kernel::testing::SeededEntropy;

    use super::*;

    #[test]
    fn ids_are_version_4_uuids_and_differ() {
        let ids = RequestIds::new(&SeededEntropy::default()).unwrap();
        let made: BTreeSet<String> = (0..10_000).map(|_| ids.next()).collect();
        assert_eq!(made.len(), 10_000);
        for id in made {
            let parts: Vec<&str> = id.split('-').collect();
            assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
            assert!(parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']), "{id}");
            assert!(id.chars().all(|c| c == '-' || c.is_ascii_hexdigit()), "{id}");
        }
    }

    #[test]
    fn every_digit_is_in_its_place() {
        assert_eq!(uuid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef), "01234567-89ab-4def-8123-456789abcdef");
    }
}
