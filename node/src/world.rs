//! The real world behind the seams: the system's clock and its random source.
//! The only file of the server that asks the operating system for time or randomness.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arca_engine_api::{Clock, Entropy, EntropyError, UnixMillis};

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[allow(clippy::disallowed_methods)] // This is what stands behind the seam.
impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic(&self) -> Duration {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// The system's random source, through the barrier's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError> {
        arca_barrier::Entropy::fill(&arca_barrier::OsEntropy, dest).map_err(|_| EntropyError)
    }
}

impl arca_barrier::Entropy for SystemEntropy {
    fn fill(&self, dest: &mut [u8]) -> Result<(), arca_barrier::EntropyError> {
        arca_barrier::Entropy::fill(&arca_barrier::OsEntropy, dest)
    }
}
