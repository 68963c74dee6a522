//! What a secondary knows of its own progress: for status pages, metrics, and whoever decides about a promotion.

use std::fmt;

use arca_raft_storage::watch;

use crate::cursor::{Cursor, Epoch};
use crate::sink::Ended;

/// What a secondary is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing: it does not run, or has stopped.
    #[default]
    Idle,
    /// Finding out what differs.
    MerkleDiff,
    /// Taking over what differs.
    MerkleSync,
    /// Following.
    StreamWals,
}

impl State {
    /// As answers spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::MerkleDiff => "merkle-diff",
            Self::MerkleSync => "merkle-sync",
            Self::StreamWals => "stream-wals",
        }
    }
}

/// How the connection to the primary is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// There is none, and none is wanted.
    #[default]
    Idle,
    /// It is being made.
    Connecting,
    /// Something came over it lately.
    Ready,
    /// It broke, and will be tried again.
    TransientFailure,
}

impl Connection {
    /// As answers spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::TransientFailure => "transient_failure",
        }
    }
}

/// How far a comparison is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CatchupProgress {
    /// Entries looked at or taken over so far.
    pub entries: u64,
    /// Entries in all, as far as known.
    pub entries_total: u64,
    /// Bytes received so far.
    pub bytes: u64,
    /// Bytes in all, as far as known.
    pub bytes_total: u64,
    /// Time left, seconds, as far as known.
    pub seconds_left: Option<u64>,
}

/// How a secondary is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkStatus {
    /// What it is doing.
    pub state: State,
    /// Its connection to the primary.
    pub connection: Connection,
    /// Why it does not go on, if it has stopped for good.
    pub ended: Option<Ended>,
    /// What went wrong last, until something goes well.
    pub problem: Option<String>,
    /// Up to where everything is applied here for good.
    pub cursor: Cursor,
    /// The newest entry of the primary, as last heard.
    pub primary_index: u64,
    /// The epoch in which it was said: whoever says it had applied by then what began that epoch.
    pub primary_epoch: Epoch,
    /// Wall clock of the primary, as last heard, milliseconds since 1970.
    pub primary_clock_ms: u64,
    /// When something was last heard of it, milliseconds since 1970.
    pub heard_at_ms: Option<u64>,
    /// When everything was last here that the primary had, as far as it was heard, milliseconds since 1970.
    pub complete_at_ms: Option<u64>,
    /// Bytes of the primary's log that are not applied here, roughly.
    pub lag_bytes: u64,
    /// Segments applied since it runs.
    pub segments: u64,
    /// Entries applied since it runs.
    pub entries: u64,
    /// Bytes of segments applied since it runs.
    pub bytes: u64,
    /// How far a comparison is, while there is one.
    pub catchup: CatchupProgress,
}

impl SinkStatus {
    /// Entries of the primary that are not applied here, as far as it was heard.
    #[must_use]
    pub const fn lag_entries(&self) -> u64 {
        self.primary_index.saturating_sub(self.cursor.index)
    }

    /// For how long something may be missing here, milliseconds; nothing while what was last heard is all here. `None` if
    /// everything never was here since it runs.
    #[must_use]
    pub fn lag_ms(&self, now_ms: u64) -> Option<u64> {
        let is_current = self.connection == Connection::Ready && self.lag_entries() == 0;
        let complete_at_ms = self.complete_at_ms?;
        Some(if is_current { 0 } else { now_ms.saturating_sub(complete_at_ms) })
    }
}

/// Where the status is told.
pub struct Tell(watch::Sender<SinkStatus>);

impl Default for Tell {
    fn default() -> Self {
        Self(watch::Sender::new(SinkStatus::default()))
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tell").field(&*self.0.borrow()).finish()
    }
}

impl Tell {
    /// What was told.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<SinkStatus> {
        self.0.subscribe()
    }

    /// Another thing is being done.
    pub fn state(&self, state: State) {
        self.change(|status| status.state = state);
    }

    /// A comparison has come so far.
    pub fn catchup(&self, progress: CatchupProgress) {
        self.change(|status| status.catchup = progress);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut SinkStatus)) {
        self.0.send_modify(change);
    }

    pub(crate) fn begin(&self) {
        self.change(|status| {
            *status = SinkStatus { connection: Connection::Connecting, ..SinkStatus::default() };
        });
    }

    pub(crate) fn end(&self, ended: &Ended) {
        self.change(|status| {
            (status.state, status.connection) = (State::Idle, Connection::Idle);
            status.ended = Some(ended.clone());
        });
    }

    pub(crate) fn lose(&self, problem: &str) {
        self.change(|status| {
            status.connection = Connection::TransientFailure;
            status.problem = Some(problem.to_owned());
        });
    }

    /// How far it is. While states are compared nothing is known to be here, so that nobody takes the state for whole.
    pub(crate) fn at(&self, cursor: &Cursor) {
        let known = if cursor.is_unknown() { Cursor { index: 0, ..*cursor } } else { *cursor };
        self.change(|status| status.cursor = known);
    }

    /// Something that moves whenever anything went well.
    pub(crate) fn progress(&self) -> (Cursor, Option<u64>) {
        let status = self.0.borrow();
        (status.cursor, status.heard_at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_from_when_all_was_there() {
        let cursor = Cursor { index: 90, ..Cursor::default() };
        let status = SinkStatus {
            cursor,
            primary_index: 100,
            connection: Connection::Ready,
            complete_at_ms: Some(1_000),
            ..SinkStatus::default()
        };
        assert_eq!((status.lag_entries(), status.lag_ms(3_500)), (10, Some(2_500)));
        let all = SinkStatus { primary_index: 90, ..status.clone() };
        assert_eq!((all.lag_entries(), all.lag_ms(3_500)), (0, Some(0)));
        // Nobody knows what the primary has written since.
        let lost = SinkStatus { connection: Connection::TransientFailure, ..all };
        assert_eq!(lost.lag_ms(3_500), Some(2_500));
        assert_eq!(SinkStatus::default().lag_ms(5), None);
    }
}
