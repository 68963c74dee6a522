//! The outside world, as far as an engine may touch it: time and randomness.
//! Both are seams: the simulation passes a seeded clock and generator, `main` the real ones.

use std::fmt::Debug;
use std::time::Duration;

/// Milliseconds since the Unix epoch, by the wall clock of the node that recorded them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// This moment plus `span`; saturates at the far end of time instead of wrapping.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long from `earlier` until this moment; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Tells the time. Wall time for records, monotonic time for intervals.
pub trait Clock: Debug + Send + Sync {
    /// Wall-clock time. May jump in either direction when an operator or NTP sets the clock.
    fn now(&self) -> UnixMillis;
    /// Time since an arbitrary fixed point of this process. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// The random source failed, so nothing that needs randomness may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the random source failed")]
pub struct EntropyError;

/// Cryptographically secure randomness. A failure is returned, never papered over with weaker bytes.
pub trait Entropy: Debug + Send + Sync {
    /// Fills `dest` whole, or fails leaving it unspecified.
    ///
    /// # Errors
    /// When the source cannot deliver.
    fn fill(&self, dest: &mut [u8]) -> Result<(), EntropyError>;
}
