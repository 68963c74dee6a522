//! The one place that writes: drains the queue into one write and one sync, then tells the callers, in order.
//!
//! It is a pump. On a real disk it runs on its own thread ([`Writer::spawn`]); the simulation, which may not have
//! threads, runs it as a task ([`Writer::run`]) or calls [`Writer::flush`] when it likes.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use arca_danger::Bug;
use tokio::time::sleep;

use super::format::{BatchWriter, Hash, Kind, Place, Record};
use super::handle::{Item, Shared, State, Work};
use super::memory::Slot;
use super::recover::{Active, Opening};
use super::{EntryId, LogError};

/// Writes what users of the [`super::SegmentLog`] ask for. Dropping it before the log is closed stops the log.
pub struct Writer {
    shared: Arc<Shared>,
    active: Active,
    /// What the records written so far say; memory may be ahead of it.
    written: Opening,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("active", &self.active.path).finish_non_exhaustive()
    }
}

/// A writer that goes on after `active`.
pub(super) fn writer(shared: Arc<Shared>, active: Active, opening: Opening) -> Result<Writer, LogError> {
    let mut writer = Writer { shared, active, written: opening, buffer: Vec::new() };
    if writer.active.seal.is_some() {
        writer.start_segment()?;
    }
    Ok(writer)
}

/// What one flush writes.
struct Batch {
    items: Vec<Item>,
    committed: Option<Option<EntryId>>,
}

/// What it wrote.
#[derive(Default)]
struct Written {
    slots: Vec<(u64, u64, Slot)>,
    purged: bool,
    seal: Option<Hash>,
    records: u64,
    /// What was written, until it is synced; empty if there was nothing to write.
    bytes: Vec<u8>,
}

impl Writer {
    /// Runs on a thread of its own until the log is closed or stops.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(mut self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
            while self.wait() {
                self.flush();
            }
        })
    }

    /// Runs as a task until the log is closed or stops. A sync takes as long as the disk says beforehand.
    pub async fn run(mut self) {
        while self.ready().await {
            let Some(batch) = self.take() else { continue };
            let written = self.write(&batch);
            let pause = self.shared.vfs.sync_time();
            if !pause.is_zero() {
                sleep(pause).await;
            }
            self.finish(batch.items, written);
        }
    }

    /// Waits for something to write. False once there never will be.
    pub async fn ready(&self) -> bool {
        loop {
            let notified = self.shared.work_async.notified();
            if let Some(is_ready) = self.shared.state.lock().is_ready() {
                return is_ready;
            }
            notified.await;
        }
    }

    fn wait(&self) -> bool {
        let mut state = self.shared.state.lock();
        loop {
            if let Some(is_ready) = state.is_ready() {
                return is_ready;
            }
            self.shared.work.wait(&mut state);
        }
    }

    /// Writes and syncs what is queued, up to one batch, and tells the callers. Does nothing when nothing is queued.
    pub fn flush(&mut self) {
        let Some(batch) = self.take() else { return };
        let written = self.write(&batch);
        self.finish(batch.items, written);
    }

    fn finish(&mut self, items: Vec<Item>, written: Result<Written, LogError>) {
        match written.and_then(|written| self.sync(written)) {
            Ok(written) => self.complete(items, &written),
            Err(error) => {
                self.roll_back(&error);
                self.fail(items, &error);
            }
        }
    }

    fn take(&mut self) -> Option<Batch> {
        let batch_bytes = self.shared.options.batch_bytes;
        let mut state = self.shared.state.lock();
        if state.fatal.is_some() {
            return None;
        }
        state.in_flight_since = Some(state.queue.front()?.since);
        let mut items = Vec::new();
        let mut bytes = 0;
        while let Some(item) = state.queue.pop_front() {
            bytes += item.bytes;
            items.push(item);
            if bytes >= batch_bytes {
                break;
            }
        }
        state.queue_bytes -= bytes;
        // The mark may speak of entries still queued: it goes only with the last of them.
        let is_due = state.queue.is_empty() && std::mem::take(&mut state.is_committed_unwritten);
        let committed = is_due.then_some(state.memory.committed);
        drop(state);
        self.shared.room.notify_waiters();
        Some(Batch { items, committed })
    }

    fn write(&mut self, batch: &Batch) -> Result<Written, LogError> {
        let start = Place { segment: self.active.number, offset: self.active.offset };
        let mut out = BatchWriter::new(start, self.active.batch, std::mem::take(&mut self.buffer));
        let mut written = Written::default();
        for item in &batch.items {
            self.encode(&item.work, &mut out, &mut written);
        }
        if let Some(committed) = batch.committed {
            self.written.committed = committed;
            out.push(Record::bare(Kind::Committed, committed));
            written.records += 1;
        }
        if out.len() == 0 {
            return Ok(written);
        }
        let is_full = self.active.offset + out.len() as u64 >= self.shared.options.segment_bytes;
        let bytes = if is_full {
            let (bytes, seal) = out.finish_sealed(None, self.active.hasher.clone());
            written.seal = Some(seal);
            bytes
        } else {
            out.finish()
        };
        let path = &self.active.path;
        self.active.file.write_at(&bytes, self.active.offset).map_err(LogError::io("write", path))?;
        written.bytes = bytes;
        Ok(written)
    }

    fn sync(&mut self, mut written: Written) -> Result<Written, LogError> {
        let bytes = std::mem::take(&mut written.bytes);
        if bytes.is_empty() {
            return Ok(written);
        }
        let file = &self.active.file;
        let is_repeated = arca_danger::is(Bug::FailedSyncRepeated);
        let synced =
            file.sync_data().or_else(|error| if is_repeated { file.sync_data() } else { Err(error) });
        synced.map_err(LogError::io("sync", &self.active.path))?;
        self.active.hasher.update(&bytes);
        self.active.offset += bytes.len() as u64;
        self.active.batch += 1;
        self.active.seal = written.seal;
        self.buffer = bytes;
        Ok(written)
    }

    fn encode(&mut self, work: &Work, out: &mut BatchWriter, written: &mut Written) {
        match work {
            Work::Barrier => return,
            Work::Entries { entries, first_sequence } => {
                for (sequence, (id, payload)) in (*first_sequence..).zip(entries) {
                    let (tag, payload) = (payload.tag, payload.bytes.clone());
                    let offset = out.push(Record { kind: Kind::Entry, tag, id: Some(*id), payload });
                    // Segments stay below 4 GiB: see `SEGMENT_BYTES_MAX`.
                    let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                    written.slots.push((id.index, sequence, Slot { segment: self.active.number, offset }));
                }
                written.records += entries.len() as u64;
                return;
            }
            Work::Purge(id) => {
                self.written.purged = Some(*id);
                written.purged = true;
                out.push(Record::bare(Kind::Purge, Some(*id)));
            }
            Work::Truncate(_) if arca_danger::is(Bug::TruncationNotLogged) => return,
            Work::Truncate(index) => {
                let after = index.map(|index| EntryId { index, ..EntryId::default() });
                out.push(Record::bare(Kind::Truncate, after));
            }
            Work::Vote(vote) => {
                self.written.vote = Some(vote.clone());
                out.push(Record::vote(vote.clone()));
            }
        }
        written.records += 1;
    }

    fn complete(&mut self, items: Vec<Item>, written: &Written) {
        {
            let mut state = self.shared.state.lock();
            state.in_flight_since = None;
            state.batches += u64::from(written.records > 0);
            state.records += written.records;
            for (index, sequence, slot) in &written.slots {
                state.memory.publish(*index, *sequence, *slot);
            }
            state.memory.evict();
            if let Some(segment) = state.segments.get_mut(&self.active.number) {
                segment.bytes = self.active.offset;
                segment.seal = written.seal;
                written.slots.iter().for_each(|(index, ..)| segment.note(*index));
            }
        }
        for done in items.into_iter().filter_map(|item| item.done) {
            done(Ok(()));
        }
        let rolled = if written.seal.is_some() { self.start_segment() } else { Ok(()) };
        let tidied = rolled.and_then(|()| if written.purged { self.remove_purged() } else { Ok(()) });
        if let Err(error) = tidied {
            self.fail(Vec::new(), &error);
        }
    }

    fn start_segment(&mut self) -> Result<(), LogError> {
        let (vfs, options) = (self.shared.vfs.as_ref(), &self.shared.options);
        let number = self.active.number + 1;
        let previous = self.active.seal.unwrap_or_default();
        self.active = self.written.create_segment(vfs, options, number, previous, self.active.batch)?;
        self.shared.state.lock().segments.insert(number, self.active.segment());
        Ok(())
    }

    /// Removes the oldest segments while all they hold is purged. One at a time, each removal durable before the next:
    /// a crash must not leave a hole.
    fn remove_purged(&mut self) -> Result<(), LogError> {
        let Some(purged) = self.written.purged else { return Ok(()) };
        loop {
            let state = self.shared.state.lock();
            let oldest = state.segments.values().next().filter(|segment| {
                segment.number != self.active.number
                    && segment.indexes.is_none_or(|(_, last)| last <= purged.index)
            });
            let Some((number, path)) = oldest.map(|segment| (segment.number, segment.path.clone())) else {
                return Ok(());
            };
            drop(state);
            let (vfs, dir) = (&self.shared.vfs, &self.shared.options.dir);
            vfs.remove(&path).map_err(LogError::io("remove", &path))?;
            vfs.sync_dir(dir).map_err(LogError::io("sync", dir))?;
            self.shared.state.lock().segments.remove(&number);
        }
    }

    /// On a full disk, gives back what the failed write took. The log stops all the same: memory is ahead of the disk.
    fn roll_back(&self, error: &LogError) {
        let LogError::Io { source, .. } = error else { return };
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            && let Err(error) = self.active.file.set_len(self.active.offset)
        {
            tracing::error!(%error, file = %self.active.path.display(), "cannot cut back a failed write");
        }
    }

    /// Stops the log for good and tells everyone who waits.
    fn fail(&self, items: Vec<Item>, error: &LogError) {
        let why = error.in_full();
        tracing::error!(error = %why, "the log stops: a write failed, and its outcome is unknown until a restart");
        let queued = {
            let mut state = self.shared.state.lock();
            state.fatal = Some(Arc::clone(&why));
            state.in_flight_since = None;
            state.queue_bytes = 0;
            std::mem::take(&mut state.queue)
        };
        self.shared.room.notify_waiters();
        for done in items.into_iter().chain(queued).filter_map(|item| item.done) {
            let is_told = !arca_danger::is(Bug::FailedSyncAcknowledged);
            done(if is_told { Err(LogError::Fatal(Arc::clone(&why))) } else { Ok(()) });
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (is_over, is_fatal) = {
            let state = self.shared.state.lock();
            (state.is_closed && state.queue.is_empty(), state.fatal.is_some())
        };
        if !is_over && !is_fatal {
            self.fail(Vec::new(), &LogError::Fatal("the log's writer is gone".into()));
        }
    }
}

impl State {
    /// Whether there is something to write; `None` if not yet.
    fn is_ready(&self) -> Option<bool> {
        if self.fatal.is_some() {
            return Some(false);
        }
        if self.queue.is_empty() { self.is_closed.then_some(false) } else { Some(true) }
    }
}
