//! How many bytes a second a copy or a comparison may move, so that it leaves room on the line for what is new. Over
//! tokio's time, so that tests and the simulation wait for nothing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// What may be moved at once after a pause, as time at the set rate.
const BURST: Duration = Duration::from_millis(250);
/// A change of the rate is noticed after this long, by those who wait.
const NOTICE: Duration = Duration::from_secs(1);

/// A token bucket. Shared by everything that keeps to one rate together.
#[derive(Debug)]
pub struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    bytes_per_second: u64,
    /// Until when what was moved so far is enough; `None` before anything was.
    paid_until: Option<Instant>,
    /// Counts changes of the rate.
    changes: u64,
}

impl Pace {
    /// With this rate; 0 for no limit.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self(Mutex::new(State { bytes_per_second, ..State::default() }))
    }

    /// Changes the rate; 0 for no limit.
    pub fn set(&self, bytes_per_second: u64) {
        let mut state = self.0.lock();
        *state = State { bytes_per_second, paid_until: None, changes: state.changes.wrapping_add(1) };
    }

    /// Waits for as long as `bytes` that were moved, or are about to be, have to last.
    pub async fn take(&self, bytes: usize) {
        let Some((due, changes)) = self.due(bytes) else { return };
        loop {
            let now = Instant::now();
            if now >= due || self.0.lock().changes != changes {
                return;
            }
            sleep_until(due.min(now + NOTICE)).await;
        }
    }

    fn due(&self, bytes: usize) -> Option<(Instant, u64)> {
        let mut state = self.0.lock();
        let lasts = (bytes as u128 * 1_000_000_000).checked_div(u128::from(state.bytes_per_second))?;
        let lasts = Duration::from_nanos(u64::try_from(lasts).unwrap_or(u64::MAX));
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let begin = state.paid_until.map_or(earliest, |until| until.max(earliest));
        let due = begin.checked_add(lasts).unwrap_or(begin);
        state.paid_until = Some(due);
        Some((due, state.changes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    async fn time_for(pace: &Pace, bytes: usize, times: usize) -> Duration {
        let before = Instant::now();
        for _ in 0..times {
            pace.take(bytes).await;
        }
        before.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_pauses_earn_a_little() {
        let pace = Pace::new(1_000_000);
        tokio::time::advance(BURST).await;
        let took = time_for(&pace, 100_000, 100).await;
        assert!((9_700..=10_000).contains(&took.as_millis()), "{took:?}");
        tokio::time::advance(Duration::from_secs(100)).await;
        let took = time_for(&pace, 100_000, 10).await;
        assert!((700..=760).contains(&took.as_millis()), "{took:?}");
        assert_eq!(time_for(&Pace::new(0), usize::MAX, 1_000).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn another_rate_frees_those_who_wait() {
        let pace = Arc::new(Pace::new(1));
        let waiting = tokio::spawn({
            let pace = Arc::clone(&pace);
            async move { time_for(&pace, 1_000_000, 1).await }
        });
        tokio::time::sleep(Duration::from_secs(10)).await;
        pace.set(0);
        assert!(waiting.await.unwrap() <= Duration::from_secs(11));
    }
}
