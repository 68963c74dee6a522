//! What one member of a primary remembers of a secondary: how far it is, of which moment it has everything, and whether it
//! shows any life.

use std::time::Duration;

use tokio::time::Instant;

use crate::moments::Moments;
use crate::source::SecondaryStatus;

/// A sign of life: what is recorded of it, and when this member heard it.
type Sign = (u64, Option<u64>);

/// See the file's header.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) status: SecondaryStatus,
    /// What was applied here when.
    moments: Moments,
    /// The newest sign of life, and when it came.
    sign: Option<(Sign, Instant)>,
}

impl Known {
    /// The secondary has everything up to entry `index`, at a moment when everything up to `applied` is applied here.
    pub(crate) fn has(&mut self, index: u64, applied: u64, now_ms: u64) {
        self.moments.note(applied, now_ms);
        let reached = if index >= applied { Some(now_ms) } else { self.moments.reached(index) };
        self.status.complete_at_ms = reached.or(self.status.complete_at_ms);
    }

    /// How long it has shown no life, by what is recorded of it and what came to this member.
    pub(crate) fn silence(&mut self, recorded: u64) -> Duration {
        let sign = (recorded, self.status.heard_at_ms);
        match self.sign {
            Some((known, at)) if known == sign => at.elapsed(),
            _ => {
                self.sign = Some((sign, Instant::now()));
                Duration::ZERO
            }
        }
    }
}
