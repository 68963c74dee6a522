//! Until when things count as due, on a node whose wall clock may be set while it runs.
//!
//! Deadlines are wall-clock moments, and what is revoked is gone for good, so the wall clock alone may not decide: it
//! is held against the monotonic one. Where it has been set forward, only what is due by both counts as due, until it
//! is set right again or as much time has really passed as it was set; set back, it is believed at once. Whether a
//! token is *good* is another question, answered by the wall clock alone: that answer comes back with the clock.
//! Watched from the moment the node is unsealed, so a node that becomes active knows what happened while it was a
//! standby. What it cannot know is whether its clock was right to begin with: members' clocks are to agree.

use std::time::Duration;

use arca_engine_api::UnixMillis;

use crate::kernel::Kernel;

/// Difference that is no jump: corrections in small steps, and the time between two looks at a clock.
const TOLERANCE: Duration = Duration::from_secs(2);
/// Longest time for which a clock that was set forward is not believed: nobody corrects it any more.
const DISBELIEF_MAX: Duration = Duration::from_secs(86_400);

/// Something an operator should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The clocks agree again.
    Agreed,
    /// The wall clock is believed although it was never set back.
    Believed,
    /// The wall clock was set forward by so much.
    Forward(Duration),
}

/// The wall clock as it would be, had nobody set it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SteadyTime {
    wall: UnixMillis,
    monotonic: Duration,
    /// When (monotonic) they were first seen apart.
    apart_since: Option<Duration>,
}

impl SteadyTime {
    /// Believes the wall clock, this once.
    pub(crate) fn new(wall: UnixMillis, monotonic: Duration) -> Self {
        Self { wall, monotonic, apart_since: None }
    }

    /// The moment up to which things are due.
    pub(crate) fn step(&mut self, wall: UnixMillis, monotonic: Duration) -> (UnixMillis, Option<News>) {
        let steady = self.wall.after(monotonic.saturating_sub(self.monotonic));
        let ahead = wall.since(steady);
        if ahead <= TOLERANCE {
            let news = self.apart_since.map(|_| News::Agreed);
            *self = Self::new(wall, monotonic);
            return (wall, news);
        }
        let since = *self.apart_since.get_or_insert(monotonic);
        if monotonic.saturating_sub(since) >= ahead.min(DISBELIEF_MAX) {
            *self = Self::new(wall, monotonic);
            return (wall, Some(News::Believed));
        }
        (steady, (since == monotonic).then_some(News::Forward(ahead)))
    }
}

impl Kernel {
    /// The moment up to which things are due.
    pub(crate) fn due_by(&self) -> UnixMillis {
        let mut steady = self.steady.lock();
        let (due_by, news) = steady.step(self.clock.now(), self.clock.monotonic());
        drop(steady);
        match news {
            None => {}
            Some(News::Agreed) => tracing::info!("the wall clock is right again"),
            Some(News::Believed) => {
                tracing::warn!("the wall clock was not set back: what is due by it is revoked from now on");
            }
            Some(News::Forward(by)) => tracing::warn!(
                by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX),
                "the wall clock was set forward: nothing is revoked before its time has really passed"
            ),
        }
        due_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000_000;
    const HOUR: u64 = 3_600;

    /// A look at the clocks, in seconds since the start: wall, monotonic, what is due by then, and the news.
    type Look = (u64, u64, u64, Option<News>);

    #[track_caller]
    fn check(looks: &[Look]) {
        let at = |seconds: u64| UnixMillis(START + seconds * 1_000);
        let mut steady = SteadyTime::new(at(0), Duration::ZERO);
        for (wall, monotonic, due_by, news) in looks {
            let got = steady.step(at(*wall), Duration::from_secs(*monotonic));
            assert_eq!(got, (at(*due_by), *news), "wall {wall}, monotonic {monotonic}");
        }
    }

    fn forward(seconds: u64) -> Option<News> {
        Some(News::Forward(Duration::from_secs(seconds)))
    }

    #[test]
    fn clocks_that_agree_say_when() {
        check(&[(0, 0, 0, None), (10, 10, 10, None), (12, 11, 12, None), (86_412, 86_411, 86_412, None)]);
    }

    #[test]
    fn a_jump_forward_is_held_until_the_clock_is_set_back() {
        check(&[
            (10, 10, 10, None),
            (HOUR + 11, 11, 11, forward(HOUR)),
            (HOUR + 20, 20, 20, None),
            (30, 30, 30, Some(News::Agreed)),
            (40, 40, 40, None),
        ]);
    }

    #[test]
    fn a_jump_forward_is_believed_once_the_time_has_passed() {
        check(&[
            (HOUR + 10, 10, 10, forward(HOUR)),
            (2 * HOUR + 9, HOUR + 9, HOUR + 9, None),
            (2 * HOUR + 10, HOUR + 10, 2 * HOUR + 10, Some(News::Believed)),
            (2 * HOUR + 11, HOUR + 11, 2 * HOUR + 11, None),
        ]);
        let (year, day) = (365 * 86_400, 86_400);
        check(&[(year, 0, 0, forward(year)), (year + day, day, year + day, Some(News::Believed))]);
    }

    #[test]
    fn two_jumps_add_up() {
        check(&[
            (HOUR, 0, 0, forward(HOUR)),
            (2 * HOUR + 10, 10, 10, None),
            (3 * HOUR + 9, HOUR + 9, HOUR + 9, None),
            (4 * HOUR, 2 * HOUR, 4 * HOUR, Some(News::Believed)),
        ]);
    }

    #[test]
    fn a_jump_back_puts_everything_off() {
        let at = |seconds: u64| UnixMillis(START + seconds * 1_000);
        let mut steady = SteadyTime::new(at(HOUR), Duration::ZERO);
        assert_eq!(steady.step(at(0), Duration::ZERO), (at(0), None));
        assert_eq!(steady.step(at(10), Duration::from_secs(10)), (at(10), None));
        // Set right again, it looks like a jump forward: late, never early.
        assert_eq!(steady.step(at(HOUR + 20), Duration::from_secs(20)), (at(20), forward(HOUR)));
    }
}
