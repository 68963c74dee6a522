//! What a simulated node has for a clock and for randomness.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arca_engine_api::{Clock, Entropy, EntropyError, UnixMillis};
use arca_jepsen::dice::Dice;
use parking_lot::Mutex;
use tokio::time::Instant;

/// When every simulation begins: noon of 1 January 2026.
const BEGINNING: i64 = 1_767_268_800_000;

/// A clock that runs a little fast or slow, and can be set.
#[derive(Debug)]
pub struct SimClock {
    began: Instant,
    /// How much too fast it runs, in millionths.
    drift_ppm: i64,
    /// How far it was set forward, milliseconds. The wall clock only.
    set_by: AtomicI64,
}

impl SimClock {
    /// A clock that was right when the simulation `began`.
    #[must_use]
    pub fn new(began: Instant, drift_ppm: i64) -> Self {
        Self { began, drift_ppm, set_by: AtomicI64::new(0) }
    }

    /// Sets the wall clock forward (or back), as an operator or a time server would.
    pub fn set_by(&self, millis: i64) {
        self.set_by.fetch_add(millis, Ordering::Relaxed);
    }

    /// Sets the wall clock right.
    pub fn set_right(&self) {
        self.set_by.store(0, Ordering::Relaxed);
    }

    /// Microseconds since its start, as this clock counts them.
    fn counted(&self) -> i64 {
        let passed = i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX);
        passed.saturating_add(passed / 1_000_000 * self.drift_ppm)
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixMillis {
        let shown = BEGINNING + self.counted() / 1_000 + self.set_by.load(Ordering::Relaxed);
        UnixMillis(u64::try_from(shown).unwrap_or_default())
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(u64::try_from(self.counted()).unwrap_or_default())
    }
}

/// Randomness that follows from the seed. Nonces and ids never repeat within a run, as the stream does not.
#[derive(Debug)]
pub struct SimEntropy(Mutex<Dice>);

impl SimEntropy {
    /// The stream `dice`.
    #[must_use]
    pub fn new(dice: Dice) -> Self {
        Self(Mutex::new(dice))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        self.0.lock().fill(dest);
        Ok(())
    }
}

impl arca_barrier::Entropy for SimEntropy {
    fn fill(&self, dest: &mut [u8]) -> Result<(), arca_barrier::EntropyError> {
        self.0.lock().fill(dest);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_drifts_and_can_be_set() {
        let clock = SimClock::new(Instant::now(), 100);
        let began = clock.now();
        tokio::time::advance(Duration::from_secs(1_000)).await;
        assert_eq!(clock.now().since(began), Duration::from_millis(1_000_100));
        assert_eq!(clock.monotonic(), Duration::from_millis(1_000_100));
        clock.set_by(-5_000);
        assert_eq!(clock.now().since(began), Duration::from_millis(995_100));
        assert_eq!(clock.monotonic(), Duration::from_millis(1_000_100), "it is the wall clock that was set");
        clock.set_right();
        assert_eq!(clock.now().since(began), Duration::from_millis(1_000_100));
    }
}
