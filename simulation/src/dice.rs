//! All randomness of a run: streams of bytes that follow from the seed and a purpose, so that one part's use of its
//! stream changes nothing for another.

use std::fmt;
use std::time::Duration;

/// A stream of choices.
pub struct Dice(blake3::OutputReader);

impl fmt::Debug for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice")
    }
}

impl Dice {
    /// The stream of `seed` for `purpose`.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("arca-simulation 2026 dice");
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(hasher.finalize_xof())
    }

    /// The next bytes.
    pub fn fill(&mut self, dest: &mut [u8]) {
        self.0.fill(dest);
    }

    /// Any number.
    pub fn word(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number in `0..count`; 0 if `count` is.
    pub fn below(&mut self, count: u64) -> u64 {
        // A bias of less than one in 2^40 for the small counts used here.
        self.word().checked_rem(count).unwrap_or_default()
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// A span in `low..=high`, to the microsecond.
    pub fn span(&mut self, low: Duration, high: Duration) -> Duration {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.between(micros(low), micros(high)))
    }

    /// True `percent` times out of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let at = self.below(items.len() as u64);
        items.get(usize::try_from(at).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_follow_from_seed_and_purpose_alone() {
        let words = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            [dice.word(), dice.word()]
        };
        assert_eq!(words(1, "net"), words(1, "net"));
        assert_ne!(words(1, "net"), words(2, "net"));
        assert_ne!(words(1, "net"), words(1, "disk"));
    }

    #[test]
    fn choices_stay_in_their_bounds() {
        let mut dice = Dice::new(7, "bounds");
        for _ in 0..1_000 {
            assert!((3..=5).contains(&dice.between(3, 5)));
            let span = dice.span(Duration::from_millis(1), Duration::from_millis(2));
            assert!((Duration::from_millis(1)..=Duration::from_millis(2)).contains(&span));
        }
        assert_eq!(dice.pick::<u8>(&[]), None);
        assert_eq!(dice.below(0), 0);
        assert!(dice.chance(100) && !dice.chance(0));
    }
}
