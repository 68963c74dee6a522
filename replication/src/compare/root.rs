//! One number over a state, to be shown on both sides: equal if the states are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::{KvError, ReadView, Replica};
use tokio::time::{Instant, sleep};

use super::ROOT_CONTEXT;
use super::message::Purpose;
use super::session::Session;
use super::sink::CompareError;
use super::trie::{Hashes, Total};
use crate::link::Link;
use crate::pace::Pace;
use crate::pinned::{Position, slice};
use crate::record::load_cursor;
use crate::sieve::Sieve;

/// A secondary gets this long to come to where its primary was asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// The sum over everything that passes a sieve, under the key that every cluster knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The cluster's own index of the state.
    pub index: u64,
    /// Entries that pass.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Over all of them.
    pub sum: u128,
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

impl Root {
    const fn new(index: u64, total: Total) -> Self {
        Self { index, entries: total.entries, bytes: total.bytes, sum: total.sum }
    }

    /// Whether both are of the same state, wherever that is in either log.
    #[must_use]
    pub const fn is_same_state(&self, other: &Self) -> bool {
        self.sum == other.sum && self.entries == other.entries && self.bytes == other.bytes
    }

    /// Of what passes `sieve` in `view`. Reads everything, in slices between which others get a turn.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of(view: &dyn ReadView, sieve: &Sieve) -> Result<Self, KvError> {
        let hashes = Hashes(blake3::derive_key(ROOT_CONTEXT, &[]));
        let (mut total, mut next) = (Total::default(), Some(Vec::new()));
        while let Some(start) = next {
            let slice = slice(view, sieve, &start, &mut |key, value| {
                total.add(key.len() + value.len(), hashes.entry(key, value));
                true
            })?;
            next = slice.next;
            tokio::task::yield_now().await;
        }
        Ok(Self::new(view.index(), total))
    }
}

/// What a comparison of two roots says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The states are the same.
    Same,
    /// They are not, at the same position: one of them is damaged.
    Differ,
    /// They are not, but the secondary was somewhere else: ask again when less is written.
    Elsewhere,
}

/// The roots of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// Where the primary's state was.
    pub position: Position,
    /// The primary's.
    pub primary: Root,
    /// The secondary's.
    pub secondary: Root,
    /// What follows from them.
    pub verdict: Verdict,
}

/// Compares the roots of the primary at `link` and of this secondary, while both go on.
///
/// # Errors
/// See [`CompareError`].
pub async fn check(
    link: &Arc<dyn Link>,
    replica: &Arc<dyn Replica>,
    sieve: &Sieve,
    pace: &Pace,
) -> Result<Check, CompareError> {
    let session = Session::begin(link.as_ref(), pace, Purpose::Root).await?;
    let position = session.position;
    // Taken now: there is nothing newer in it once the secondary is there.
    let (view, is_there) = view_at(replica, sieve, position.index).await?;
    let secondary = Root::of(view.as_ref(), sieve).await?;
    let total = loop {
        if let Some((_, total)) = session.shape().await? {
            break total;
        }
    };
    session.end().await;
    let primary = Root::new(position.index, total);
    let verdict = match (primary.is_same_state(&secondary), is_there) {
        (true, _) => Verdict::Same,
        (false, true) => Verdict::Differ,
        (false, false) => Verdict::Elsewhere,
    };
    Ok(Check { position, primary, secondary, verdict })
}

/// The state here once its cursor is at `index`, or another one and false.
async fn view_at(
    replica: &Arc<dyn Replica>,
    sieve: &Sieve,
    index: u64,
) -> Result<(Arc<dyn ReadView>, bool), CompareError> {
    let begun = Instant::now();
    loop {
        let view = replica.view();
        let (cursor, _) = load_cursor(view.as_ref(), sieve.kind)?;
        if cursor.index >= index || begun.elapsed() >= PATIENCE {
            let is_there = cursor.index == index && !cursor.is_unknown();
            return Ok((view, is_there));
        }
        sleep(LOOK).await;
    }
}
