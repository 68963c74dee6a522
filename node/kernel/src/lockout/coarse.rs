//! Failed logins of names that had to make room in the tables: in cells that several names share, so that nothing is forgotten
//! early however many names are tried.
//!
//! A name has a cell in each of four rows. A cell holds the highest count of the names that share it, so the least of a name's
//! four is never too low: a name that collides in all four is locked too soon, none too late. With 180,000 names locked in a quarter of
//! an hour six in 10,000 others are locked with them, with a million one in seven: whoever tries so many could lock as many by
//! their names. Places are not secret: to collide with a name on purpose takes four times the tries that lock it.
//! Names somebody has and names nobody has are counted alike here (CVE-2025-6010).

use arca_engine_api::UnixMillis;

use super::{Key, Rules, Tried};

/// Cells in a row: four bytes of the key tell them apart.
const CELLS: usize = 1 << 20;
const ROWS: usize = 4;
/// Bits of a cell for the second; the count has the rest.
const TIME_BITS: u32 = 24;
/// Highest count of a cell; what is higher is held as this.
const COUNT_MAX: u64 = (1 << (32 - TIME_BITS)) - 1;
/// Seconds that a cell can tell: 194 days.
const SECONDS_MAX: u64 = (1 << TIME_BITS) - 1;

/// See the file's header. 16 MiB, of which an operating system gives what is written to.
pub(super) struct Coarse {
    /// Second zero of the cells.
    began: UnixMillis,
    /// The rows, one behind the other. Zero for none.
    cells: Vec<u32>,
}

impl Coarse {
    /// Empty cells; times before `began` count as that.
    pub(super) fn new(began: UnixMillis) -> Self {
        Self { began, cells: vec![0; ROWS * CELLS] }
    }

    /// Takes in what a table has no room for.
    pub(super) fn take(&mut self, key: &Key, tried: Tried, rules: Rules) {
        if tried.count == 0 {
            return;
        }
        if self.second(tried.last) >= SECONDS_MAX {
            *self = Self::new(tried.last);
        }
        let (second, began) = (self.second(tried.last), self.began);
        for place in places(key) {
            let Some(cell) = self.cells.get_mut(place) else { continue };
            let held = opened(*cell, began);
            let is_more = held.is_none_or(|held| tried.count >= held.count || held.is_old(rules, tried.last));
            if is_more {
                let count = tried.count.min(COUNT_MAX);
                *cell = u32::try_from(count << TIME_BITS | second).unwrap_or(u32::MAX);
            }
        }
    }

    /// What is counted for a name, or for those it shares its cells with.
    pub(super) fn find(&self, key: &Key) -> Option<Tried> {
        let mut least: Option<Tried> = None;
        for place in places(key) {
            let held = opened(self.cells.get(place).copied().unwrap_or_default(), self.began)?;
            let is_less = least.is_none_or(|least| (held.count, held.last) < (least.count, least.last));
            if is_less {
                least = Some(held);
            }
        }
        least
    }

    fn second(&self, at: UnixMillis) -> u64 {
        at.since(self.began).as_secs().min(SECONDS_MAX)
    }
}

fn opened(cell: u32, began: UnixMillis) -> Option<Tried> {
    let (count, second) = (cell >> TIME_BITS, u64::from(cell) & SECONDS_MAX);
    (count > 0).then(|| Tried { count: u64::from(count), last: UnixMillis(began.0 + second * 1_000) })
}

/// Where the cells of a name lie. Keys are hashes, so any of their bytes are as good as others.
fn places(key: &Key) -> impl Iterator<Item = usize> {
    let words = key.as_chunks::<4>().0.iter().take(ROWS).map(|word| u32::from_le_bytes(*word) as usize);
    words.enumerate().map(|(row, word)| row * CELLS + word % CELLS)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RULES: Rules = Rules {
        is_disabled: false,
        threshold: 5,
        duration: Duration::from_secs(900),
        counter_reset: Duration::from_secs(900),
    };

    fn key(name: u64) -> Key {
        *blake3::hash(&name.to_le_bytes()).as_bytes()
    }

    fn tried(count: u64, at: u64) -> Tried {
        Tried { count, last: UnixMillis(at) }
    }

    #[test]
    fn nothing_is_forgotten_early() {
        let mut coarse = Coarse::new(UnixMillis(1_000));
        for name in 0..100_000 {
            coarse.take(&key(name), tried(1 + name % 5, 2_000), RULES);
        }
        for name in 0..100_000 {
            let found = coarse.find(&key(name)).unwrap();
            assert!(found.count > name % 5 && found.last == UnixMillis(2_000), "{name}: {found:?}");
        }
        let too_many = (100_000..200_000).filter(|name| coarse.find(&key(*name)).is_some()).count();
        assert!(too_many < 50, "{too_many} names nobody tried are counted");
    }

    #[test]
    fn the_higher_count_stays_while_it_counts() {
        let mut coarse = Coarse::new(UnixMillis(0));
        for (count, at, want) in [
            (5, 1_000, tried(5, 1_000)),
            (2, 5_000, tried(5, 1_000)),
            (5, 9_000, tried(5, 9_000)),
            (1, 999_000, tried(1, 999_000)),
            (700, 999_000, tried(COUNT_MAX, 999_000)),
            (0, 999_000, tried(COUNT_MAX, 999_000)),
        ] {
            coarse.take(&key(1), tried(count, at), RULES);
            assert_eq!(coarse.find(&key(1)), Some(want), "{count} at {at}");
        }
        let later = SECONDS_MAX * 1_000 + 7;
        coarse.take(&key(2), tried(3, later), RULES);
        assert_eq!(coarse.find(&key(2)), Some(tried(3, later)));
        assert_eq!(coarse.find(&key(1)), None, "half a year later");
    }
}
