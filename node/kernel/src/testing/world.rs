//! Time and randomness for tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_engine_api::{Clock, Entropy, EntropyError, UnixMillis};

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct TestClock {
    now_ms: AtomicU64,
    monotonic_ms: AtomicU64,
    creep_ms: AtomicU64,
}

impl Default for TestClock {
    /// Noon of 1 January 2026.
    fn default() -> Self {
        Self {
            now_ms: AtomicU64::new(1_767_268_800_000),
            monotonic_ms: AtomicU64::new(1),
            creep_ms: AtomicU64::new(0),
        }
    }
}

impl TestClock {
    /// Lets time pass.
    pub fn advance(&self, span: Duration) {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(span, Ordering::SeqCst);
        self.monotonic_ms.fetch_add(span, Ordering::SeqCst);
    }

    /// Lets so much time pass whenever somebody looks at the clock.
    pub fn creep(&self, span: Duration) {
        self.creep_ms.store(u64::try_from(span.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Sets the wall clock `span` forward, as an operator or NTP would: no time passes.
    pub fn set_forward(&self, span: Duration) {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_add(span, Ordering::SeqCst);
    }

    /// Sets the wall clock `span` back.
    pub fn set_back(&self, span: Duration) {
        let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.now_ms.fetch_sub(span, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        let creep = self.creep_ms.load(Ordering::SeqCst);
        self.monotonic_ms.fetch_add(creep, Ordering::SeqCst);
        UnixMillis(self.now_ms.fetch_add(creep, Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }
}

/// Bytes that look random and repeat from run to run: BLAKE3 of a counter.
#[derive(Debug, Default)]
pub struct SeededEntropy(AtomicU64);

impl SeededEntropy {
    /// Other bytes than from the beginning.
    #[must_use]
    pub fn starting_at(number: u64) -> Self {
        Self(AtomicU64::new(number))
    }
}

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
