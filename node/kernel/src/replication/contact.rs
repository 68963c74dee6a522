//! Quorum fencing: a DR primary with `fence_after` takes writes only while it has heard a DR secondary within that time.
//! Whoever is about to promote one while the primary cannot be reached then knows when that has stopped by itself.
//!
//! **Invariant:** only what this process heard counts, by its own monotonic clock, which nobody sets: a node that has just
//! started knows of nothing heard before and takes no writes until it hears something. Secondaries greet every two seconds
//! and acknowledge every second, and every node counts what comes to it, so after most elections the new active node knows
//! already.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arca_engine_api::Clock;

/// When a DR secondary was last heard by this node.
pub struct Contact {
    clock: Arc<dyn Clock>,
    /// One more than the milliseconds that the clock showed; zero if none was heard.
    heard_at: AtomicU64,
}

impl fmt::Debug for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contact").field("silence", &self.silence()).finish_non_exhaustive()
    }
}

impl Contact {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, heard_at: AtomicU64::new(0) }
    }

    /// A DR secondary that is known, and was not revoked, has just asked for something.
    pub fn hear(&self) {
        let now = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        self.heard_at.fetch_max(now.saturating_add(1), Ordering::AcqRel);
    }

    /// How long none has been heard; nothing if none ever was.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        let heard_at = self.heard_at.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.clock.monotonic().saturating_sub(Duration::from_millis(heard_at)))
    }

    /// Whether one was heard at most `limit` ago.
    #[must_use]
    pub fn is_within(&self, limit: Duration) -> bool {
        self.silence().is_some_and(|silence| silence <= limit)
    }
}
