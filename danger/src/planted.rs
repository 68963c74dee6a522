//! Which fault is planted in this process.

#[cfg(feature = "danger_planted")]
use std::sync::atomic::{AtomicU8, Ordering};

use crate::Bug;

/// Whether faults can be planted in this build.
pub const PLANTED: bool = cfg!(feature = "danger_planted");

/// One more than the number of the one planted; zero for none.
#[cfg(feature = "danger_planted")]
static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// Whether `bug` is planted.
#[cfg(not(feature = "danger_planted"))]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

/// Whether `bug` is planted.
#[cfg(feature = "danger_planted")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    CHOSEN.load(Ordering::Relaxed) == bug as u8 + 1
}

/// Plants `bug` in this process, before anything runs in it.
#[cfg(feature = "danger_planted")]
pub fn plant(bug: Bug) {
    CHOSEN.store(bug as u8 + 1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_planted_unless_asked_for() {
        assert!(Bug::ALL.iter().all(|bug| !is(*bug)));
        #[cfg(feature = "danger_planted")]
        {
            plant(Bug::VoteBeforeSync);
            let planted: Vec<_> = Bug::ALL.iter().filter(|bug| is(**bug)).collect();
            assert_eq!(planted, [&Bug::VoteBeforeSync]);
        }
    }
}
