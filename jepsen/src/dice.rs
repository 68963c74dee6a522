//! The chances a run takes, all from its seed: the same seed makes the same choices in the same order.
//! It must never decide anything about secrets.

use std::ops::Range;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// A seeded source of choices.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The choices of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The choices of `seed` for one `purpose`: how many are made for it moves those of no other.
    #[must_use]
    pub fn for_purpose(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("arca-jepsen 2026 dice");
        hasher.update(&seed.to_le_bytes()).update(purpose.as_bytes());
        Self(ChaCha8Rng::from_seed(*hasher.finalize().as_bytes()))
    }

    /// Other dice, for a part of the run whose number of choices must not move those of the rest.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::new(self.0.next_u64())
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Any bytes.
    pub fn fill(&mut self, dest: &mut [u8]) {
        self.0.fill_bytes(dest);
    }

    /// A number within `range`; its start if it is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start).max(1);
        range.start.saturating_add(self.0.next_u64() % width)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.within(0..100) < percent
    }

    /// A time within `range`, in milliseconds.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// A time of at least `low` and at most `high`, to the microsecond.
    pub fn span(&mut self, low: Duration, high: Duration) -> Duration {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.within(micros(low)..micros(high).saturating_add(1)))
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        items.get(usize::try_from(self.within(0..count)).unwrap_or_default())
    }

    /// Shuffles `items`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let end = u64::try_from(last).unwrap_or(u64::MAX).saturating_add(1);
            items.swap(last, usize::try_from(self.within(0..end)).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rolls(seed: u64) -> Vec<u64> {
        let mut dice = Dice::new(seed);
        (0..20).map(|_| dice.within(3..9)).collect()
    }

    #[test]
    fn the_same_seed_rolls_the_same() {
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        assert!(rolls(7).iter().all(|roll| (3..9).contains(roll)));
    }

    #[test]
    fn each_purpose_has_choices_of_its_own() {
        let rolled = |seed, purpose| Dice::for_purpose(seed, purpose).number();
        assert_eq!(rolled(1, "net"), rolled(1, "net"));
        assert_ne!(rolled(1, "net"), rolled(2, "net"));
        assert_ne!(rolled(1, "net"), rolled(1, "disk"));
    }

    #[test]
    fn choices_stay_within_their_bounds() {
        let (low, high) = (Duration::from_micros(3), Duration::from_micros(5));
        let mut dice = Dice::new(7);
        assert!((0..1_000).all(|_| (low..=high).contains(&dice.span(low, high))));
        assert_eq!(dice.span(high, high), high);
        assert_eq!((dice.pick::<u8>(&[]), dice.within(0..0)), (None, 0));
        assert!(dice.chance(100) && !dice.chance(0));
    }

    #[test]
    fn shuffling_keeps_everything() {
        let mut items: Vec<u32> = (0..50).collect();
        Dice::new(1).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
