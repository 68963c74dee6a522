//! What was there when: so that of a side that is behind it can be said since when, and not only by how many entries.

use std::collections::VecDeque;

/// Most moments that are remembered. Beyond it every second one is forgotten, and those to come are further apart, so that
/// a long lag is known less exactly, never too small.
const MOMENTS_MAX: usize = 512;

/// See the file's header.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    /// An index and milliseconds since 1970, both ascending.
    noted: VecDeque<(u64, u64)>,
    /// Milliseconds from one to the next, at the least.
    apart_ms: u64,
}

impl Moments {
    /// At `now_ms` everything up to `index` was there to be had.
    pub(crate) fn note(&mut self, index: u64, now_ms: u64) {
        if self.noted.back().is_some_and(|(_, last_ms)| *last_ms > now_ms) {
            *self = Self::default(); // The clock was set back: they are of another time.
        }
        if self.noted.len() >= MOMENTS_MAX {
            let mut place = 0;
            self.noted.retain(|_| {
                place += 1;
                place % 2 == 1
            });
            let span = self.noted.front().map_or(0, |(_, first_ms)| now_ms.saturating_sub(*first_ms));
            self.apart_ms = span / self.noted.len().max(1) as u64;
        }
        let is_news =
            |(last, last_ms): &(u64, u64)| *last < index && now_ms.saturating_sub(*last_ms) >= self.apart_ms;
        if self.noted.back().is_none_or(is_news) {
            self.noted.push_back((index, now_ms));
        }
    }

    /// The latest moment of which somebody who has everything up to `index` has all there was, if it is known and was
    /// not said before.
    pub(crate) fn reached(&mut self, index: u64) -> Option<u64> {
        let mut reached = None;
        while let Some((_, at_ms)) = self.noted.pop_front_if(|(noted, _)| *noted <= index) {
            reached = Some(at_ms);
        }
        if self.noted.is_empty() {
            self.apart_ms = 0;
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_that_of_the_oldest_entry_that_is_missing() {
        let mut moments = Moments::default();
        let mut at = |has, there, now_ms| {
            moments.note(there, now_ms);
            moments.reached(has)
        };
        assert_eq!(at(3, 5, 1_000), None, "what was before is not known");
        assert_eq!(at(5, 9, 2_000), Some(1_000));
        assert_eq!(at(8, 20, 3_000), None, "entry 9 came at two seconds or before");
        assert_eq!(at(19, 30, 4_000), Some(2_000));
        assert_eq!(at(30, 30, 5_000), Some(4_000));
    }

    #[test]
    fn a_long_lag_is_known_less_exactly_and_never_too_small() {
        let mut moments = Moments::default();
        for second in 1..=10_000 {
            moments.note(second, second * 1_000);
        }
        assert!(moments.noted.len() <= MOMENTS_MAX);
        let reached = moments.reached(5_000).unwrap();
        assert!((4_800_000..=5_000_000).contains(&reached), "{reached}");
    }
}
