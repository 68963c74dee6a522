//! One stream from the primary: what comes is checked and queued, and committed in order, as much at once as there is.
//!
//! While one write set is committed, the next segments are received: as many as the queue has room for, so that the
//! primary is held back by a slow disk here and by nothing else.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arca_danger::Bug;
use arca_raft_storage::{Committed, ProposeError, Version, Write, watch};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::cursor::Cursor;
use crate::link::{Call, Link, LinkError, PayloadStream, Refusal};
use crate::message::CursorMessage;
use crate::moments::Moments;
use crate::segment::Segment;
use crate::sink::{Break, Ended, Sink};
use crate::status::{Connection, State};

/// Most writes of one write set, and room for the cursor.
const SET_WRITES_MAX: usize = (64 << 10) - 16;
/// A stream that brought nothing for so many times the longest silence is dead, whatever else the primary answers.
const STALLED: u32 = 60;
/// What a write takes in a set beside its key and value, bytes.
const WRITE_OVERHEAD: usize = 16;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a segment writes, and where the secondary is with it.
struct Part {
    writes: VecDeque<Write>,
    cursor: Cursor,
    bytes: usize,
    entries: u64,
    segments: u64,
    /// Whether the cursor has moved and the writes are still to come: never so, but as a fault that was planted.
    is_ahead: bool,
}

/// A write set on its way.
struct Sent {
    /// The cursor it moves to; `None` for one that is only the beginning of a segment.
    part: Option<Part>,
    /// Writes of it, the cursor aside.
    writes: usize,
}

struct Following<'a> {
    sink: &'a Sink,
    link: &'a Arc<dyn Link>,
    /// Behind everything that was received.
    received: Cursor,
    /// Behind everything that is committed, with the version of the record.
    durable: Cursor,
    version: Version,
    queue: VecDeque<Part>,
    queue_bytes: usize,
    /// When a cursor that moved without a write is to be committed nevertheless.
    move_at: Option<Instant>,
    /// The newest entry that somebody waits for.
    wanted: watch::Receiver<u64>,
    acknowledge_at: Instant,
    /// When the primary last said anything.
    heard_at: Instant,
    /// When the stream last brought anything.
    received_at: Instant,
    /// What the primary had when, as far as it was heard.
    moments: Moments,
}

/// Follows from `cursor`, which the record has at `version`, until something is in the way.
pub(crate) async fn run(sink: &Sink, link: &Arc<dyn Link>, cursor: Cursor, version: Version) -> Break {
    let asked = link.stream(Call::Follow, CursorMessage(cursor).encode().into());
    let stream = match timeout(sink.settings.answer_timeout, asked).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(err)) => return err.into(),
        Err(_) => return Break::Again("the primary does not answer".to_owned()),
    };
    sink.tell.state(State::StreamWals);
    let now = Instant::now();
    let mut following = Following {
        sink,
        link,
        received: cursor,
        durable: cursor,
        version,
        queue: VecDeque::new(),
        queue_bytes: 0,
        move_at: None,
        wanted: sink.wanted.subscribe(),
        acknowledge_at: now,
        heard_at: now,
        received_at: now,
        moments: Moments::default(),
    };
    following.run(stream).await
}

/// What happens next.
enum Event {
    Committed(Result<Committed, ProposeError>),
    Acknowledged(Result<Bytes, LinkError>),
    Received(Option<Result<Bytes, LinkError>>),
    Silence,
    AcknowledgeDue,
    Wanted,
}

impl Following<'_> {
    async fn run(&mut self, mut stream: PayloadStream) -> Break {
        let mut committing: Option<Work<Result<Committed, ProposeError>>> = None;
        let mut sent: Option<Sent> = None;
        let mut acknowledging: Option<Work<Result<Bytes, LinkError>>> = None;
        let mut over: Option<Break> = None;
        loop {
            if committing.is_none() {
                match self.next_set(over.is_some()) {
                    Some((work, what)) => (committing, sent) = (Some(work), Some(what)),
                    // What was received before the stream broke is committed by now.
                    None => {
                        if let Some(reason) = over.take() {
                            return reason;
                        }
                    }
                }
            }
            let can_receive = over.is_none() && self.queue_bytes < self.sink.settings.queue_bytes;
            // A large segment on a slow line arrives late, while acknowledgements are answered beside it.
            let silence = self.sink.settings.silence;
            let silent_at = (self.heard_at + silence).min(self.received_at + silence * STALLED);
            let event = tokio::select! {
                biased;
                done = one(&mut committing) => Event::Committed(done),
                answer = one(&mut acknowledging) => Event::Acknowledged(answer),
                () = sleep_until(self.acknowledge_at), if acknowledging.is_none() => Event::AcknowledgeDue,
                // Its sender lives as long as the sink.
                Ok(()) = self.wanted.changed() => Event::Wanted,
                item = timeout_at(silent_at, stream.next()), if can_receive => {
                    item.map_or(Event::Silence, Event::Received)
                }
            };
            let went = match event {
                Event::Committed(done) => {
                    committing = None;
                    // Nothing that was queued behind it may be committed now.
                    if let Err(reason) = self.committed(done, sent.take()) {
                        return reason;
                    }
                    Ok(())
                }
                Event::Acknowledged(answer) => {
                    acknowledging = None;
                    self.answered(answer)
                }
                Event::AcknowledgeDue => {
                    acknowledging = Some(self.acknowledge());
                    Ok(())
                }
                Event::Wanted => Ok(()),
                Event::Received(Some(Ok(bytes))) => self.receive(bytes),
                Event::Received(Some(Err(err))) => Err(err.into()),
                Event::Received(None) => Err(Break::Again("the primary ended the stream".to_owned())),
                Event::Silence => Err(Break::Again("the primary has fallen silent".to_owned())),
            };
            if let Err(reason) = went {
                over.get_or_insert(reason);
            }
        }
    }

    /// Checks a segment and queues it.
    fn receive(&mut self, bytes: Bytes) -> Result<(), Break> {
        let size = bytes.len();
        let (chains, segment) = Segment::decode(bytes)?;
        if segment.epoch < self.received.epoch {
            return Err(Refusal::Fenced(self.received.epoch).into());
        }
        if segment.from != self.received.index {
            let (from, next) = (segment.from, self.received.index);
            return Err(Break::Again(format!(
                "a segment that follows entry {from} came where {next} was due"
            )));
        }
        if chains.before != self.received.chain {
            return Err(Break::Again("a segment came that does not follow what came before".to_owned()));
        }
        let foreign = segment.entries.iter().flat_map(|entry| &entry.writes);
        if foreign.map(Write::key).any(|key| !self.sink.sieve.passes(key)) {
            return Err(Break::Again(
                "the primary sent an entry that is none of this secondary's".to_owned(),
            ));
        }
        self.received_at = Instant::now();
        self.heard_at = self.received_at;
        self.hear(&segment);
        if !segment.is_heartbeat() {
            self.queue(segment, chains.after, size);
        }
        Ok(())
    }

    fn queue(&mut self, segment: Segment, chain: [u8; 32], size: usize) {
        self.received = segment.cursor_after(chain);
        let entries = segment.to - segment.from;
        let writes: VecDeque<Write> = segment.entries.into_iter().flat_map(|entry| entry.writes).collect();
        if writes.is_empty() {
            let late = Instant::now() + self.sink.settings.presence;
            self.move_at.get_or_insert(late);
        }
        self.queue_bytes += size;
        let part = Part { writes, cursor: self.received, bytes: size, entries, segments: 1, is_ahead: false };
        match self.queue.back_mut() {
            // Segments of which nothing passed the sieve only move the cursor.
            Some(last) if last.writes.is_empty() && part.writes.is_empty() => last.join(part),
            _ => self.queue.push_back(part),
        }
    }

    /// The next write set, if there is something worth one.
    fn next_set(&mut self, is_last: bool) -> Option<(Work<Result<Committed, ProposeError>>, Sent)> {
        let has_writes = self.queue.iter().any(|part| !part.writes.is_empty());
        // What is beyond the primary's log is wanted by somebody who saw it in another one.
        let wanted = *self.wanted.borrow();
        let there = self.sink.tell.watch().borrow().primary_index;
        let is_wanted = wanted > self.durable.index && wanted <= there;
        let is_late = self.move_at.is_some_and(|at| is_wanted || Instant::now() >= at);
        if self.queue.is_empty() || !(has_writes || is_late || is_last) {
            return None;
        }
        let limit = self.sink.set_bytes_max();
        let first = self.queue.front_mut()?;
        let (set, sent) = if let Some(beginning) = first.cut(limit) {
            let sent = Sent { part: None, writes: beginning.len() };
            (self.sink.set(self.version, beginning, None), sent)
        } else if arca_danger::is(Bug::CursorBeforeWrites) && !first.is_ahead {
            first.is_ahead = true;
            let (part, cursor) = (first.without_writes(), first.cursor);
            (self.sink.set(self.version, Vec::new(), Some(&cursor)), Sent { part: Some(part), writes: 0 })
        } else {
            let part = self.next_part(limit.min(self.sink.settings.set_bytes))?;
            let (moved, cursor) = (part.without_writes(), part.cursor);
            let sent = Sent { writes: part.writes.len(), part: Some(moved) };
            (self.sink.set(self.version, part.writes.into(), Some(&cursor)), sent)
        };
        let replica = self.sink.replica.clone();
        Some((Box::pin(async move { replica.propose(set).await }), sent))
    }

    /// As many queued segments as fit in one write set, one at the least.
    fn next_part(&mut self, bytes_max: usize) -> Option<Part> {
        let mut whole = self.queue.pop_front()?;
        while let Some(next) = self.queue.front() {
            let is_full = whole.bytes + next.bytes > bytes_max
                || whole.writes.len() + next.writes.len() > SET_WRITES_MAX;
            if is_full {
                break;
            }
            if let Some(next) = self.queue.pop_front() {
                whole.join(next);
            }
        }
        if self.queue.iter().all(|part| !part.writes.is_empty()) {
            self.move_at = None;
        }
        Some(whole)
    }

    fn committed(&mut self, done: Result<Committed, ProposeError>, sent: Option<Sent>) -> Result<(), Break> {
        let committed = match (done, &sent) {
            (Ok(committed), _) => committed,
            // Cut smaller the next time, if that is possible.
            (Err(ProposeError::TooLarge { limit, .. }), Some(sent)) if sent.writes > 1 => {
                let smaller = (limit.saturating_sub(1024)).min(self.sink.set_bytes_max() / 2);
                self.sink.set_bytes_max.store(smaller, Ordering::Relaxed);
                return Err(Break::Anew);
            }
            (Err(err), _) => return Err(err.into()),
        };
        let Some(part) = sent.and_then(|sent| sent.part) else { return Ok(()) };
        self.durable = part.cursor;
        self.version = Version(committed.index);
        self.queue_bytes = self.queue_bytes.saturating_sub(part.bytes);
        let next = Instant::now() + self.sink.settings.acknowledge;
        self.acknowledge_at = self.acknowledge_at.min(next);
        let (now_ms, queued) = ((self.sink.clock)(), self.queue_bytes as u64);
        let reached = self.moments.reached(part.cursor.index);
        let is_all = self.durable == self.received;
        self.sink.tell.change(|status| {
            status.cursor = part.cursor;
            status.segments += part.segments;
            status.entries += part.entries;
            status.bytes += part.bytes as u64;
            if is_all && part.cursor.index >= status.primary_index {
                status.complete_at_ms = Some(now_ms);
                status.lag_bytes = 0;
            } else {
                // A moment that lies ahead is of before the clock was set back.
                status.complete_at_ms = reached.max(status.complete_at_ms.filter(|at_ms| *at_ms <= now_ms));
                status.lag_bytes = status.lag_bytes.max(queued);
            }
        });
        Ok(())
    }

    fn hear(&mut self, segment: &Segment) {
        let now_ms = (self.sink.clock)();
        self.moments.note(segment.applied, now_ms);
        let (durable, queued) = (self.durable.index, self.queue_bytes as u64);
        self.sink.tell.change(|status| {
            (status.connection, status.problem) = (Connection::Ready, None);
            (status.primary_index, status.primary_epoch) = (segment.applied, segment.epoch);
            status.primary_clock_ms = segment.clock_ms;
            status.heard_at_ms = Some(now_ms);
            status.lag_bytes = segment.behind_bytes.saturating_add(queued);
            if durable >= segment.applied {
                status.complete_at_ms = Some(now_ms);
            }
        });
    }

    fn acknowledge(&mut self) -> Work<Result<Bytes, LinkError>> {
        self.acknowledge_at = Instant::now() + self.sink.settings.presence;
        let early = arca_danger::is(Bug::AcknowledgedBeforeDurable);
        let cursor = if early { self.received } else { self.durable };
        let payload = CursorMessage(cursor).encode().into();
        let (link, limit) = (self.link.clone(), self.sink.settings.answer_timeout);
        Box::pin(async move {
            let answer = timeout(limit, link.call(Call::Acknowledge, payload)).await;
            answer.unwrap_or_else(|_| Err(LinkError::Unreachable("no answer in time".to_owned())))
        })
    }

    fn answered(&mut self, answer: Result<Bytes, LinkError>) -> Result<(), Break> {
        match answer {
            Ok(_) => {
                self.heard_at = Instant::now();
                Ok(())
            }
            Err(LinkError::Unreachable(_)) => Ok(()),
            // The stream says better what it means.
            Err(LinkError::Refused(
                Refusal::Gone | Refusal::Busy(_) | Refusal::Malformed(_) | Refusal::Unanswered(_),
            )) => Ok(()),
            Err(LinkError::Refused(refusal)) => Err(Break::End(Ended::Refused(refusal))),
        }
    }
}

impl Part {
    /// What is left of it once its writes are on their way.
    const fn without_writes(&self) -> Self {
        let Self { cursor, bytes, entries, segments, is_ahead, .. } = *self;
        Self { writes: VecDeque::new(), cursor, bytes, entries, segments, is_ahead }
    }

    fn join(&mut self, next: Self) {
        self.writes.extend(next.writes);
        self.cursor = next.cursor;
        self.bytes += next.bytes;
        self.entries += next.entries;
        self.segments += next.segments;
    }

    /// Takes the beginning off a segment that is too large for one write set. Its writes may be applied twice, should the
    /// rest have to be tried again: which changes nothing, since the cursor stays before the segment.
    fn cut(&mut self, bytes_max: usize) -> Option<Vec<Write>> {
        if arca_danger::is(Bug::CursorApart) && !self.writes.is_empty() {
            return Some(self.writes.drain(..).collect());
        }
        let size = |write: &Write| write.bytes() + WRITE_OVERHEAD;
        let whole: usize = self.writes.iter().map(size).sum();
        if whole <= bytes_max && self.writes.len() <= SET_WRITES_MAX {
            return None;
        }
        let (mut bytes, mut count) = (0, 0);
        for write in &self.writes {
            bytes += size(write);
            if count > 0 && (bytes > bytes_max || count >= SET_WRITES_MAX) {
                break;
            }
            count += 1;
        }
        // One that is too large by itself is proposed, so that whoever refuses it says why.
        (count < self.writes.len()).then(|| self.writes.drain(..count).collect())
    }
}

/// Waits for what is under way, for ever if nothing is.
async fn one<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
