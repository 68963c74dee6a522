//! How fast strangers may call: for each address a bucket of calls that fills up at a steady rate, so that a flood of
//! one does not keep the holders of shares out on the day they are needed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use arca_engine_api::cidr::source_of;
use parking_lot::Mutex;

use crate::KernelError;

/// Calls at once after a silence: the largest set of shares comes in twice over.
const BURST: u64 = 1_024;
/// Time after which one more call is allowed.
const REFILL: Duration = Duration::from_millis(50);
/// Most addresses that are told apart. Those that come when that many have called lately share a bucket.
const SOURCES_MAX: usize = 4_096;

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    by_source: HashMap<IpAddr, Bucket>,
    /// Of callers without an address, and of those who are too many to be told apart.
    of_others: Bucket,
}

#[derive(Debug, Default)]
struct Bucket {
    spent: u64,
    counted_from: Duration,
}

impl Bucket {
    /// Gives back what has been waited for since.
    fn refill(&mut self, now: Duration) {
        let refill = u64::try_from(REFILL.as_millis()).unwrap_or(u64::MAX);
        let passed = u64::try_from(now.saturating_sub(self.counted_from).as_millis()).unwrap_or(u64::MAX);
        let back = passed.checked_div(refill).unwrap_or_default();
        self.spent = self.spent.saturating_sub(back);
        // What was not enough for a whole call counts on.
        self.counted_from = if self.spent == 0 {
            now
        } else {
            self.counted_from + Duration::from_millis(back.saturating_mul(refill))
        };
    }

    /// Takes one call out at `now`; false when there is none.
    fn take(&mut self, now: Duration) -> bool {
        self.refill(now);
        let may = self.spent < BURST;
        self.spent += u64::from(may);
        may
    }
}

impl Buckets {
    fn of(&mut self, source: Option<IpAddr>, now: Duration) -> &mut Bucket {
        let Some(source) = source.map(source_of) else { return &mut self.of_others };
        if !self.by_source.contains_key(&source) && self.by_source.len() >= SOURCES_MAX {
            self.by_source.retain(|_, bucket| {
                bucket.refill(now);
                bucket.spent > 0
            });
            if self.by_source.len() >= SOURCES_MAX {
                return &mut self.of_others;
            }
        }
        self.by_source.entry(source).or_default()
    }
}

impl Pace {
    /// Counts a call from `source` at `now` (monotonic).
    ///
    /// # Errors
    /// When there were too many.
    pub(crate) fn step(&self, source: Option<IpAddr>, now: Duration) -> Result<(), KernelError> {
        if self.0.lock().of(source, now).take(now) { Ok(()) } else { Err(KernelError::TooMany) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_a_flood_is_slowed() {
        let (mut bucket, start) = (Bucket::default(), Duration::from_secs(100));
        let passed = (0..BURST * 2).filter(|_| bucket.take(start)).count();
        assert_eq!(passed as u64, BURST);
        assert!(!bucket.take(start + REFILL - Duration::from_millis(1)));
        assert!(bucket.take(start + REFILL));
        assert!(!bucket.take(start + REFILL));
        let later = start + Duration::from_secs(3_600);
        assert_eq!((0..BURST * 2).filter(|_| bucket.take(later)).count() as u64, BURST);
    }

    #[test]
    fn slow_calls_all_pass() {
        let mut bucket = Bucket::default();
        assert!((0..10_000_u32).all(|number| bucket.take(REFILL * number)));
    }

    fn passed(pace: &Pace, source: &str, calls: u64) -> usize {
        let source = source.parse().ok();
        (0..calls).filter(|_| pace.step(source, Duration::from_secs(100)).is_ok()).count()
    }

    #[test]
    fn a_flood_is_its_own() {
        let pace = Pace::default();
        assert_eq!(passed(&pace, "10.0.0.1", BURST * 2) as u64, BURST);
        assert_eq!(passed(&pace, "10.0.0.2", 9), 9);
        assert_eq!(passed(&pace, "::ffff:10.0.0.1", 1), 0, "the same address");
        assert_eq!(passed(&pace, "2001:db8::1", BURST * 2) as u64, BURST);
        assert_eq!(passed(&pace, "2001:db8::7:2", 1), 0, "the same network");
        assert_eq!(passed(&pace, "2001:db8:0:1::1", 9), 9);
        assert_eq!(passed(&pace, "", 9), 9);
    }

    #[test]
    fn many_sources_take_no_memory_without_end() {
        let pace = Pace::default();
        let step =
            |number: u32, at| pace.step(Some(IpAddr::from(number.to_be_bytes())), Duration::from_secs(at));
        for number in 0..20_000 {
            // The common bucket of those who are too many is empty at some time.
            let _ = step(number, 100);
        }
        assert_eq!(pace.0.lock().by_source.len(), SOURCES_MAX);
        assert!(step(0, 100).is_ok(), "who was here before goes on");
        step(50_000, 200).unwrap();
        assert_eq!(pace.0.lock().by_source.len(), 1, "those who have been silent are forgotten");
    }
}
