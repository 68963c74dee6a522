//! How far a copy or a comparison is: what status pages show of it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Nothing.
    #[default]
    Idle,
    /// The whole state is copied.
    Copy,
    /// Both states are hashed, and it is found out where they differ.
    Diff,
    /// What differs is fetched.
    Sync,
}

/// Figures of the stage that is under way, or of the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Which.
    pub stage: Stage,
    /// Entries done.
    pub entries: u64,
    /// How many it will be, roughly; 0 while that is unknown.
    pub entries_total: u64,
    /// Bytes of keys and values done.
    pub bytes: u64,
    /// How many it will be, roughly; 0 while that is unknown.
    pub bytes_total: u64,
    /// How long it will take at the pace of the stage so far, if that can be said.
    pub left: Option<Duration>,
}

/// Written by whoever does the work, read by anybody.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    figures: Figures,
    since: Option<Instant>,
}

impl Progress {
    /// Figures now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let state = self.0.lock();
        Figures { left: left(&state), ..state.figures }
    }

    /// A stage begins.
    pub(crate) fn begin(&self, stage: Stage, entries_total: u64, bytes_total: u64) {
        let figures = Figures { stage, entries_total, bytes_total, ..Figures::default() };
        *self.0.lock() = State { figures, since: Some(Instant::now()) };
    }

    /// More is known about how much there is to do.
    pub(crate) fn expect(&self, entries_total: u64, bytes_total: u64) {
        let mut state = self.0.lock();
        (state.figures.entries_total, state.figures.bytes_total) = (entries_total, bytes_total);
    }

    /// So much more is done.
    pub(crate) fn add(&self, entries: u64, bytes: u64) {
        let mut state = self.0.lock();
        state.figures.entries = state.figures.entries.saturating_add(entries);
        state.figures.bytes = state.figures.bytes.saturating_add(bytes);
    }

    /// Nothing is under way any more. The figures stay.
    pub(crate) fn end(&self) {
        let mut state = self.0.lock();
        state.figures.stage = Stage::Idle;
        state.since = None;
    }
}

fn left(state: &State) -> Option<Duration> {
    let Figures { bytes, bytes_total, .. } = state.figures;
    let spent = state.since?.elapsed();
    if bytes == 0 || bytes_total == 0 {
        return None;
    }
    let to_do = u128::from(bytes_total.saturating_sub(bytes));
    let millis = spent.as_millis().saturating_mul(to_do) / u128::from(bytes);
    Some(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_left_follows_from_the_pace_so_far() {
        let progress = Progress::default();
        assert_eq!(progress.figures(), Figures::default());
        progress.begin(Stage::Copy, 0, 0);
        tokio::time::advance(Duration::from_secs(10)).await;
        progress.add(5, 100);
        assert_eq!(progress.figures().left, None);
        progress.expect(20, 400);
        assert_eq!(progress.figures().left, Some(Duration::from_secs(30)));
        progress.end();
        let figures = progress.figures();
        assert_eq!((figures.stage, figures.entries, figures.left), (Stage::Idle, 5, None));
    }
}
