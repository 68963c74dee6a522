//! Counts by size, for openraft's statistics: what it takes of the crate `base2histogram`, and nothing else.
//!
//! Each power of two has four buckets, so a percentile is off by at most a quarter. The bucket of a value, and the
//! least value of a bucket, are computed: no tables.
//! Read next: `docs/adr/0013-own-histogram-for-openraft.md`.

use std::fmt;
use std::marker::PhantomData;

/// Leading bits of a value that tell its bucket.
const WIDTH: u32 = 3;
/// Buckets of one power of two.
const GROUP: usize = 1 << (WIDTH - 1);
/// Values below [`GROUP`] have a bucket each, then every power of two a group.
const BUCKETS: usize = GROUP * (u64::BITS - WIDTH + 2) as usize;

fn bucket_of(value: u64) -> usize {
    let Ok(small) = usize::try_from(value) else { return bucket_of_large(value) };
    if small < GROUP { small } else { bucket_of_large(value) }
}

fn bucket_of_large(value: u64) -> usize {
    let shift = u64::BITS - value.leading_zeros() - WIDTH;
    let within = usize::try_from(value >> shift).unwrap_or_default() % GROUP;
    GROUP + usize::try_from(shift).unwrap_or_default() * GROUP + within
}

fn least_of(bucket: usize) -> u64 {
    let (shift, within) = match bucket.checked_sub(GROUP) {
        None => return bucket as u64,
        Some(rest) => (rest / GROUP, rest % GROUP),
    };
    ((GROUP + within) as u64) << shift
}

/// How often values of each size were seen. `T` is for users of features that are not here.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    total: u64,
    unused: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// One that has seen nothing. It takes memory with the first value.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: Vec::new(), total: 0, unused: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value that was seen several times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        self.counts.resize(BUCKETS, 0);
        if let Some(count) = self.counts.get_mut(bucket_of(value)) {
            *count = count.saturating_add(times);
            self.total = self.total.saturating_add(times);
        }
    }

    /// The least value of the bucket in which `permille` thousandths of what was seen are reached; 0 for nothing seen.
    fn at(&self, permille: u64) -> u64 {
        let wanted = (u128::from(self.total) * u128::from(permille)).div_ceil(1_000).max(1);
        let mut seen = 0_u128;
        let found = self.counts.iter().position(|count| {
            seen += u128::from(*count);
            seen >= wanted
        });
        found.map_or(0, least_of)
    }

    /// The usual percentiles.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total,
            p0_1: self.at(1),
            p1: self.at(10),
            p5: self.at(50),
            p10: self.at(100),
            p50: self.at(500),
            p90: self.at(900),
            p99: self.at(990),
            p99_9: self.at(999),
        }
    }
}

impl<T> fmt::Debug for Histogram<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({})", self.percentile_stats())
    }
}

/// Percentiles of what a [`Histogram`] has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names say it: p99_9 is the value that 99.9 % do not exceed.
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "n={samples} p50={p50} p90={p90} p99={p99} p99.9={p99_9}")
    }
}

/// Several histograms, a line each.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart {
    lines: Vec<(String, Histogram)>,
}

impl AsciiChart {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more.
    #[must_use]
    pub fn add(mut self, name: impl Into<String>, histogram: Histogram) -> Self {
        self.lines.push((name.into(), histogram));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines
            .iter()
            .try_for_each(|(name, histogram)| writeln!(f, "{name}: {}", histogram.percentile_stats()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gaps() {
        for bucket in 0..BUCKETS {
            let least = least_of(bucket);
            assert_eq!(bucket_of(least), bucket);
            if let Some(before) = least.checked_sub(1) {
                assert_eq!(bucket_of(before), bucket - 1);
            }
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_off_by_a_quarter_at_most() {
        let mut seen: Histogram = Histogram::new();
        assert_eq!(seen.percentile_stats().p99, 0);
        for value in 1..=10_000 {
            seen.record(value);
        }
        let found = seen.percentile_stats();
        assert_eq!(found.samples, 10_000);
        for (got, exact) in [(found.p1, 100), (found.p50, 5_000), (found.p90, 9_000), (found.p99_9, 9_990)] {
            assert!(got <= exact && got * 5 >= exact * 4, "{got} for {exact}");
        }
    }
}
