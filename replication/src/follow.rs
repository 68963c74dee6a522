//! One stream to a secondary: segments as they are asked for, and a heartbeat when there are none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::{Changed, ChangesError, Write, watch};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::{Instant, sleep_until};

use crate::cursor::{Cursor, Epoch, Generation};
use crate::history::History;
use crate::link::{LinkError, PayloadStream, Refusal};
use crate::segment::{Segment, Shipped};
use crate::sieve::{Kind, Sieve, Sieves};
use crate::source::{Heard, Roles, Source};

/// What follows `cursor`, until the secondary lets go or must not have it any more.
pub(crate) fn stream(
    source: Arc<Source>,
    to: &str,
    kind: Kind,
    sieves: Arc<dyn Sieves>,
    cursor: Cursor,
) -> PayloadStream {
    let open = Open::new(source.clone(), to, kind);
    let follower = Follower {
        roles: source.roles.subscribe(),
        heard: source.heard.subscribe(),
        applied: source.replica.applied(),
        history: History::default(),
        gather_until: Instant::now(),
        beat_at: Instant::now(),
        lonely_beats: 0,
        open,
        sieves,
        cursor,
    };
    let items = futures::stream::unfold(Some(follower), async |follower| {
        let mut follower = follower?;
        match follower.next().await {
            Ok(segment) => Some((Ok(segment), Some(follower))),
            Err(err) => Some((Err(err), None)),
        }
    });
    items.boxed()
}

/// A stream that the status counts.
struct Open {
    source: Arc<Source>,
    to: String,
    kind: Kind,
}

impl Open {
    fn new(source: Arc<Source>, to: &str, kind: Kind) -> Self {
        let now_ms = (source.clock)();
        source.note(to, kind, |status| {
            status.streams += 1;
            status.connected_at_ms = status.connected_at_ms.or(Some(now_ms));
        });
        Self { source, to: to.to_owned(), kind }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // One that was revoked is not told of any more.
        if self.source.admit(&self.to, self.kind).is_err() {
            return;
        }
        self.source.note(&self.to, self.kind, |status| {
            status.streams = status.streams.saturating_sub(1);
            if status.streams == 0 {
                status.connected_at_ms = None;
            }
        });
    }
}

struct Follower {
    open: Open,
    sieves: Arc<dyn Sieves>,
    /// Behind what was sent.
    cursor: Cursor,
    roles: watch::Receiver<Roles>,
    heard: watch::Receiver<BTreeMap<Kind, Heard>>,
    applied: watch::Receiver<u64>,
    /// As last looked at: generations are only ever added.
    history: History,
    /// When the next segment may be cut.
    gather_until: Instant,
    /// When the next heartbeat is due.
    beat_at: Instant,
    /// Heartbeats that were due while this member knew no leader.
    lonely_beats: u32,
}

/// Elections take less than so many heartbeats. A member that is without a leader for longer does not know what its cluster
/// does, and must not let a secondary believe that it is current.
const LONELY_BEATS_MAX: u32 = 2;

/// Entries that go into one segment.
#[derive(Default)]
struct Run {
    to: Option<(u64, Generation)>,
    entries: Vec<Shipped>,
    bytes: usize,
}

impl Follower {
    async fn next(&mut self) -> Result<Bytes, LinkError> {
        loop {
            // Seen before looked at, so that nothing falls in between.
            self.roles.borrow_and_update();
            self.heard.borrow_and_update();
            let applied = *self.applied.borrow_and_update();
            let epoch = self.open.source.admit(&self.open.to, self.open.kind)?;
            let is_gathering = applied > self.cursor.index && Instant::now() < self.gather_until;
            if applied > self.cursor.index
                && !is_gathering
                && let Some(segment) = self.cut(epoch)?
            {
                let pause =
                    if segment.to < applied { Duration::ZERO } else { self.open.source.settings.gather };
                self.gather_until = Instant::now() + pause;
                return Ok(self.send(segment));
            }
            if Instant::now() >= self.beat_at && self.is_lonely()? {
                self.beat_at += self.open.source.settings.heartbeat;
            } else if Instant::now() >= self.beat_at {
                let (index, generation) = (self.cursor.index, self.cursor.generation);
                let run = Run { to: Some((index, generation)), ..Run::default() };
                return Ok(self.send(self.segment(epoch, index, generation, run)));
            }
            let closed = tokio::select! {
                biased;
                changed = self.applied.changed(), if !is_gathering => changed.is_err(),
                changed = self.roles.changed() => changed.is_err(),
                changed = self.heard.changed() => changed.is_err(),
                () = sleep_until(self.gather_until), if is_gathering => false,
                () = sleep_until(self.beat_at) => false,
            };
            if closed {
                return Err(LinkError::Unreachable("the node is being stopped".to_owned()));
            }
        }
    }

    /// Whether this member knows no leader.
    fn is_lonely(&mut self) -> Result<bool, Refusal> {
        let is_lonely = self.open.source.replica.status().leader.is_none();
        self.lonely_beats = if is_lonely { self.lonely_beats + 1 } else { 0 };
        if self.lonely_beats > LONELY_BEATS_MAX {
            return Err(Refusal::Busy("this node has lost its cluster".to_owned()));
        }
        Ok(is_lonely)
    }

    /// The next segment. None while what follows must not be told yet.
    ///
    /// **Invariant:** no entry is told through a sieve that is older than it, and none to a secondary whose state is of
    /// another sieve: the view that the sieve is of was taken after the entries.
    fn cut(&mut self, epoch: Epoch) -> Result<Option<Segment>, Refusal> {
        let settings = self.open.source.settings;
        let changed = self.open.source.replica.changes(self.cursor.index, settings.segment_bytes);
        let changed = changed.map_err(|err| match err {
            ChangesError::Gone { .. } => Refusal::Gone,
            err => Refusal::Busy(err.to_string()),
        })?;
        let sieved = self.sieves.of(&self.open.source.replica.view()).map_err(Refusal::Busy)?;
        if self.cursor.index < sieved.since {
            return Err(self.changed_by(sieved.since));
        }
        let mut run = Run::default();
        for entry in changed {
            let Some(generation) = self.generation_of(entry.term())? else { break };
            if !run.take(entry, generation, &sieved.sieve, settings.segment_bytes)? {
                break;
            }
        }
        let Some((to, generation)) = run.to else { return Ok(None) };
        Ok(Some(self.segment(epoch, to, generation, run)))
    }

    /// Why a secondary from before that change is not followed up: a backup that was restored is for an operator to look at.
    fn changed_by(&self, index: u64) -> Refusal {
        let entry = self.open.source.replica.changes(index.saturating_sub(1), 1);
        let entry = entry.ok().and_then(|entries| entries.into_iter().next());
        let is_backup = entry.is_some_and(|entry| entry.at.index == index && entry.written().is_none());
        if is_backup { Refusal::Replaced } else { Refusal::Gone }
    }

    fn segment(&self, epoch: Epoch, to: u64, generation: Generation, run: Run) -> Segment {
        let replica = &self.open.source.replica;
        let applied = replica.view().index().max(to);
        Segment {
            epoch,
            generation,
            from: self.cursor.index,
            to,
            applied,
            behind_bytes: if applied > to { replica.bytes_after(to) } else { 0 },
            clock_ms: (self.open.source.clock)(),
            entries: run.entries,
        }
    }

    /// **Invariant:** nothing is told of a term whose generation has not begun: the secondary could not say later of which
    /// history it is.
    fn generation_of(&mut self, term: u64) -> Result<Option<Generation>, Refusal> {
        if self.history.of_term(term).is_none() {
            let view = self.open.source.replica.view();
            self.history = History::load(view.as_ref()).map_err(|err| Refusal::Busy(err.to_string()))?;
        }
        Ok(self.history.of_term(term))
    }

    fn send(&mut self, segment: Segment) -> Bytes {
        let (encoded, chain) = segment.encode_chained(&self.cursor.chain);
        self.beat_at = Instant::now() + self.open.source.settings.heartbeat;
        if !segment.is_heartbeat() {
            self.cursor = segment.cursor_after(chain);
        }
        self.open.source.note(&self.open.to, self.open.kind, |status| {
            status.sent_index = segment.to;
            status.entries_sent += segment.to - segment.from;
            status.bytes_sent += encoded.len() as u64;
        });
        encoded
    }
}

impl Run {
    /// Adds what `entry` did, unless it would be too much. Answers whether it did.
    fn take(
        &mut self,
        entry: Changed,
        generation: Generation,
        sieve: &Sieve,
        bytes_max: usize,
    ) -> Result<bool, Refusal> {
        let index = entry.at.index;
        let Some(writes) = entry.written() else {
            // What came before it may still be told.
            return if self.to.is_some() { Ok(false) } else { Err(Refusal::Replaced) };
        };
        let writes: Vec<Write> = writes.into_iter().filter(|write| sieve.passes(write.key())).collect();
        let bytes: usize = writes.iter().map(Write::bytes).sum();
        if self.bytes > 0 && self.bytes + bytes > bytes_max {
            return Ok(false);
        }
        self.bytes += bytes;
        self.to = Some((index, generation));
        if !writes.is_empty() {
            self.entries.push(Shipped { index, writes });
        }
        Ok(true)
    }
}
