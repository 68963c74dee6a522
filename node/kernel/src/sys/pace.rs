//! How fast strangers may call: a bucket of calls that fills up at a steady rate.

use std::time::Duration;

use parking_lot::Mutex;

use crate::KernelError;

/// Calls at once after a silence: the largest set of shares comes in twice over.
const BURST: u64 = 1_024;
/// Time after which one more call is allowed.
const REFILL: Duration = Duration::from_millis(50);

/// See the module's header.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Bucket>);

#[derive(Debug, Default)]
struct Bucket {
    spent: u64,
    counted_from: Duration,
}

impl Bucket {
    /// Takes one call out at `now`; false when there is none.
    fn take(&mut self, now: Duration) -> bool {
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
        let may = self.spent < BURST;
        self.spent += u64::from(may);
        may
    }
}

impl Pace {
    /// Counts a call at `now` (monotonic).
    ///
    /// # Errors
    /// When there were too many.
    pub(crate) fn step(&self, now: Duration) -> Result<(), KernelError> {
        if self.0.lock().take(now) { Ok(()) } else { Err(KernelError::TooMany) }
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
}
