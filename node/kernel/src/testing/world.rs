//! Time and randomness for tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_engine_api::{Clock, Entropy, EntropyError, UnixMillis};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct TestClock {
    now_ms: AtomicU64,
    monotonic_ms: AtomicU64,
}

impl Default for TestClock {
    /// Noon of 1 January 2026.
    fn default() -> Self {
        Self { now_ms: AtomicU64::new(1_767_268_800_000), monotonic_ms: AtomicU64::new(1) }
    }
}

impl TestClock {
    /// Lets time pass.
    pub fn advance(&self, span: Duration) {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(span, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(span, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.now_ms.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

/// Bytes that look random and repeat from run to run: BLAKE3 of a counter.
#[derive(Debug, Default)]
pub struct SeededEntropy(AtomicU64);

impl Entropy for SeededEntropy {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(dest);
        Ok(())
    }
}

impl arca_barrier::Entropy for SeededEntropy {
    fn fill(&self, dest: &mut [u8]) -> Result<(), arca_barrier::EntropyError> {
        Entropy::fill(self, dest).map_err(|_| arca_barrier::EntropyError)
    }
}
