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
        let reached = self.moments.reached(index);
        let reached = if index >= applied { Some(now_ms) } else { reached };
        // A moment that lies ahead is of before the clock was set back.
        let known = self.status.complete_at_ms.filter(|at_ms| *at_ms <= now_ms);
        self.status.complete_at_ms = reached.max(known);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_complete_once_is_not_of_an_earlier_moment_later() {
        let mut known = Known::default();
        let mut at = |index, applied, now_ms| {
            known.has(index, applied, now_ms);
            known.status.complete_at_ms
        };
        assert_eq!(at(3, 9, 1_000), None);
        assert_eq!(at(9, 9, 4_000), Some(4_000));
        assert_eq!(at(9, 9, 60_000), Some(60_000), "nothing is written, and it is there");
        assert_eq!(at(9, 20, 61_000), Some(60_000));
        assert_eq!(at(20, 30, 62_000), Some(61_000));
        assert_eq!(at(20, 40, 10_000), None, "the clock was set back: how far behind is not known");
        assert_eq!(at(40, 50, 11_000), Some(10_000));
    }
}
