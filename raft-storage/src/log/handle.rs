//! The log as its users hold it: what they append is readable at once and durable when they are told so.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::memory::Memory;
use super::recover::{Opening, Recovered, Segment, recover};
use super::writer::{Writer, writer};
use super::{Done, EntryId, LogError, Options, PAYLOAD_MAX, Payload};
use crate::vfs::Vfs;

const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// One thing to write, and whom to tell.
pub(super) struct Item {
    pub(super) work: Work,
    pub(super) done: Option<Done>,
    pub(super) since: Instant,
    pub(super) bytes: usize,
}

pub(super) enum Work {
    /// Nothing to write; done once everything before it is durable.
    Barrier,
    Entries {
        entries: Vec<(EntryId, Payload)>,
        first_sequence: u64,
    },
    Purge(EntryId),
    Truncate(Option<u64>),
    Vote(Bytes),
}

pub(super) struct State {
    pub(super) memory: Memory,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) queue: VecDeque<Item>,
    pub(super) queue_bytes: usize,
    /// The committed mark moved since it was last written. It waits for something worth a sync.
    pub(super) is_committed_unwritten: bool,
    pub(super) in_flight_since: Option<Instant>,
    pub(super) fatal: Option<Arc<str>>,
    pub(super) is_closed: bool,
    pub(super) batches: u64,
    pub(super) records: u64,
}

pub(super) struct Shared {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) options: Options,
    pub(super) state: Mutex<State>,
    /// Wakes a writer on a thread.
    pub(super) work: Condvar,
    /// Wakes a writer in a task.
    pub(super) work_async: Notify,
    pub(super) room: Notify,
}

impl Shared {
    pub(super) fn wake(&self) {
        self.work.notify_one();
        self.work_async.notify_one();
    }
}

/// Closes the log when its last user lets go.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        close(&self.0, None);
    }
}

fn close(shared: &Shared, done: Option<Done>) {
    let mut state = shared.state.lock();
    if let Some(error) = state.refusal() {
        drop(state);
        if let Some(done) = done {
            done(Err(error));
        }
        return;
    }
    state.enqueue(Work::Barrier, 0, done);
    state.is_closed = true;
    drop(state);
    shared.wake();
}

/// What the log holds. Includes what is not yet durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// Index of the first entry, if there is one.
    pub first: Option<u64>,
    /// The last entry, or the last purged one if none is left.
    pub last: Option<EntryId>,
    /// The last entry purged.
    pub purged: Option<EntryId>,
    /// The committed mark, as last told.
    pub committed: Option<EntryId>,
    /// The vote, as last told.
    pub vote: Option<Bytes>,
}

/// Figures for metrics and retention.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Segment files.
    pub segments: usize,
    /// Index of the first entry, if there is one.
    pub first: Option<u64>,
    /// Index of the last entry, or of the last purged one.
    pub last: Option<u64>,
    /// Writes with a sync since the log was opened.
    pub batches: u64,
    /// Records in them; divided by `batches` it is the group commit's gain.
    pub records: u64,
    /// Bytes waiting for the writer.
    pub queued_bytes: usize,
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number, counting from 1.
    pub number: u32,
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Lowest and highest entry index written to it; both may since be truncated or purged.
    pub indexes: Option<(u64, u64)>,
    /// BLAKE3 of everything before the seal. A sealed segment never changes.
    pub seal: Option<[u8; 32]>,
}

/// The log. Clones share it; the last one to go closes it.
#[derive(Clone)]
pub struct SegmentLog(Arc<Handle>);

impl fmt::Debug for SegmentLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentLog").field("dir", &self.shared().options.dir).finish_non_exhaustive()
    }
}

impl SegmentLog {
    /// Opens the log, or creates it if the directory is empty. Nothing is written until the [`Writer`] runs.
    ///
    /// # Errors
    /// When a file is damaged, missing, of another cluster or of a newer format, naming it; or as the system reports.
    pub fn open(vfs: Arc<dyn Vfs>, mut options: Options) -> Result<(Self, Writer), LogError> {
        options.segment_bytes = options.segment_bytes.min(SEGMENT_BYTES_MAX);
        let Recovered { memory, segments, active } = recover(vfs.as_ref(), &options)?;
        let opening = Opening::of(&memory);
        let state = State {
            memory,
            segments,
            queue: VecDeque::new(),
            queue_bytes: 0,
            is_committed_unwritten: false,
            in_flight_since: None,
            fatal: None,
            is_closed: false,
            batches: 0,
            records: 0,
        };
        let shared = Arc::new(Shared {
            vfs,
            options,
            state: Mutex::new(state),
            work: Condvar::new(),
            work_async: Notify::new(),
            room: Notify::new(),
        });
        let writer = writer(Arc::clone(&shared), active, opening)?;
        Ok((Self(Arc::new(Handle(shared))), writer))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.0
    }

    fn usable(&self) -> Result<MutexGuard<'_, State>, LogError> {
        let state = self.shared().state.lock();
        match state.refusal() {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }

    /// Adds entries at the end. They are readable on return; `done` is called once they are durable, after everything
    /// asked for before.
    ///
    /// # Errors
    /// When the entries do not follow the last one, one is too large, or the log is closed or stopped; nothing is
    /// added then, and `done` is dropped uncalled.
    pub fn append(&self, entries: Vec<(EntryId, Payload)>, done: Done) -> Result<(), LogError> {
        let mut state = self.usable()?;
        state.check(&entries)?;
        let bytes = entries.iter().map(|(_, payload)| payload.bytes.len()).sum();
        let mut first_sequence = None;
        for (id, payload) in &entries {
            let sequence = state.memory.push(*id, payload.clone());
            first_sequence.get_or_insert(sequence);
        }
        let first_sequence = first_sequence.unwrap_or_default();
        state.enqueue(Work::Entries { entries, first_sequence }, bytes, Some(done));
        drop(state);
        self.shared().wake();
        Ok(())
    }

    /// Stores the vote; `done` is called once it is durable.
    ///
    /// # Errors
    /// When it is too large, or the log is closed or stopped.
    pub fn save_vote(&self, vote: Bytes, done: Done) -> Result<(), LogError> {
        check_size(vote.len())?;
        let mut state = self.usable()?;
        state.memory.vote = Some(vote.clone());
        let bytes = vote.len();
        state.enqueue(Work::Vote(vote), bytes, Some(done));
        drop(state);
        self.shared().wake();
        Ok(())
    }

    /// Moves the committed mark. It is written along with whatever is written next, never synced for its own sake:
    /// after a crash an older mark is as true as a newer one.
    ///
    /// # Errors
    /// When the log is closed or stopped.
    pub fn save_committed(&self, committed: Option<EntryId>) -> Result<(), LogError> {
        let mut state = self.usable()?;
        state.memory.committed = committed;
        state.is_committed_unwritten = true;
        Ok(())
    }

    /// Drops every entry after `index`, or all of them. Effective at once and written in order; not waited for, since
    /// only what follows it is ever acknowledged.
    ///
    /// # Errors
    /// When the log is closed or stopped.
    pub fn truncate_after(&self, index: Option<u64>) -> Result<(), LogError> {
        let mut state = self.usable()?;
        state.memory.truncate_after(index);
        state.enqueue(Work::Truncate(index), 0, None);
        drop(state);
        self.shared().wake();
        Ok(())
    }

    /// Drops every entry up to and including `id`, which may lie beyond the last one. Files that held nothing else go
    /// once the record of it is durable. The caller answers for it that the state machine has made these entries
    /// durable elsewhere.
    ///
    /// # Errors
    /// When the log is closed or stopped.
    pub fn purge(&self, id: EntryId) -> Result<(), LogError> {
        let mut state = self.usable()?;
        if state.memory.purge(id) {
            state.enqueue(Work::Purge(id), 0, None);
            drop(state);
            self.shared().wake();
        }
        Ok(())
    }

    /// [`Self::purge`] by index alone. Answers the entry purged up to, or `None` if the log does not hold that index.
    ///
    /// # Errors
    /// When the log is closed or stopped.
    pub fn purge_up_to(&self, index: u64) -> Result<Option<EntryId>, LogError> {
        let id = self.usable()?.memory.id_of(index);
        if let Some(id) = id {
            self.purge(id)?;
        }
        Ok(id)
    }

    /// Calls `done` once everything asked for so far, the committed mark too, is durable.
    ///
    /// # Errors
    /// When the log is closed or stopped.
    pub fn flush(&self, done: Done) -> Result<(), LogError> {
        let mut state = self.usable()?;
        state.enqueue(Work::Barrier, 0, Some(done));
        drop(state);
        self.shared().wake();
        Ok(())
    }

    /// Refuses everything from now on; `done` is called once all that was asked for is durable. The writer then ends.
    pub fn close(&self, done: Done) {
        close(self.shared(), Some(done));
    }

    /// Waits while too much is queued. Whoever appends from a task calls this first, so that a slow disk fills no memory.
    pub async fn room(&self) {
        let shared = self.shared();
        loop {
            let notified = shared.room.notified();
            {
                let state = shared.state.lock();
                if state.queue_bytes <= shared.options.queue_bytes || state.refusal().is_some() {
                    return;
                }
            }
            notified.await;
        }
    }

    /// What the log holds.
    #[must_use]
    pub fn state(&self) -> LogState {
        let memory = &self.shared().state.lock().memory;
        LogState {
            first: memory.first_index(),
            last: memory.last(),
            purged: memory.purged,
            committed: memory.committed,
            vote: memory.vote.clone(),
        }
    }

    /// Who proposed the entry at `index`, if the log holds it.
    #[must_use]
    pub fn id_of(&self, index: u64) -> Option<EntryId> {
        self.shared().state.lock().memory.id_of(index)
    }

    /// Among the entries `from..to`, the last one of each leader's run.
    #[must_use]
    pub fn run_ends(&self, from: u64, to: u64) -> Vec<EntryId> {
        self.shared().state.lock().memory.run_ends(from, to)
    }

    /// Why the log stopped for good, if it did. The process must exit: only a fresh start knows what is on the disk.
    #[must_use]
    pub fn fatal(&self) -> Option<String> {
        self.shared().state.lock().fatal.as_deref().map(str::to_owned)
    }

    /// How long the oldest thing asked for has waited for the disk; `None` when nothing waits. More than an election
    /// timeout means the disk hangs, and a leader should stop its heartbeats.
    #[must_use]
    pub fn pending_age(&self) -> Option<Duration> {
        let state = self.shared().state.lock();
        let since = state.in_flight_since.or_else(|| state.queue.front().map(|item| item.since));
        since.map(|since| since.elapsed())
    }

    /// Bytes free on the log's disk.
    ///
    /// # Errors
    /// As the system reports.
    pub fn free_space(&self) -> io::Result<u64> {
        self.shared().vfs.free_space(&self.shared().options.dir)
    }

    /// Whether the disk has more room than the low-water mark. When not, refuse proposals before they get here: an
    /// append that runs into a full disk stops the log.
    ///
    /// # Errors
    /// As the system reports.
    pub fn has_room_on_disk(&self) -> io::Result<bool> {
        Ok(self.free_space()? >= self.shared().options.free_bytes_min)
    }

    /// Figures for metrics and retention.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let state = self.shared().state.lock();
        LogStats {
            bytes: state.segments.values().map(|segment| segment.bytes).sum(),
            segments: state.segments.len(),
            first: state.memory.first_index(),
            last: state.memory.last().map(|id| id.index),
            batches: state.batches,
            records: state.records,
            queued_bytes: state.queue_bytes,
        }
    }

    /// Every segment file, oldest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared().state.lock();
        let info = |segment: &Segment| SegmentInfo {
            number: segment.number,
            path: segment.path.clone(),
            bytes: segment.bytes,
            indexes: segment.indexes,
            seal: segment.seal,
        };
        state.segments.values().map(info).collect()
    }
}

impl State {
    pub(super) fn refusal(&self) -> Option<LogError> {
        match &self.fatal {
            Some(why) => Some(LogError::Fatal(Arc::clone(why))),
            None => self.is_closed.then_some(LogError::Closed),
        }
    }

    fn enqueue(&mut self, work: Work, bytes: usize, done: Option<Done>) {
        self.queue_bytes += bytes;
        self.queue.push_back(Item { work, done, since: Instant::now(), bytes });
    }

    fn check(&self, entries: &[(EntryId, Payload)]) -> Result<(), LogError> {
        let mut next = self.memory.next_index();
        for (id, payload) in entries {
            check_size(payload.bytes.len())?;
            let expected = next.unwrap_or(id.index);
            if id.index != expected {
                return Err(LogError::Gap { expected, found: id.index });
            }
            next = Some(expected + 1);
        }
        Ok(())
    }
}

fn check_size(size: usize) -> Result<(), LogError> {
    if size > PAYLOAD_MAX { Err(LogError::TooLarge { size, limit: PAYLOAD_MAX }) } else { Ok(()) }
}
