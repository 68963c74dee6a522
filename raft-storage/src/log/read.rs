//! Reads entries: recent ones from memory, older ones from their segment, checked again on the way.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use arca_danger::Bug;
use bytes::Bytes;

use super::format::{FRAME_BYTES, Frame, Kind, Place};
use super::handle::SegmentLog;
use super::memory::{Slot, Source};
use super::{EntryId, LogError, Payload};
use crate::vfs::VfsFile;

/// One read from a file fetches this much: entries lie one after the other.
const CHUNK_BYTES: usize = 128 << 10;
/// Entries located under one lock.
const LOCATED_MAX: usize = 4096;

enum Located {
    Memory(Payload),
    Disk { slot: Slot, file: Arc<dyn VfsFile>, path: PathBuf },
}

impl SegmentLog {
    /// The entries of `range` that the log holds, from the first on, up to about `bytes_max` of payload. Never empty if
    /// the log holds the first index; never with a gap.
    ///
    /// # Errors
    /// When a file cannot be read or an entry in it is damaged.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<(EntryId, Payload)>, LogError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut chunk = Chunk::default();
        for (id, located) in self.locate(range) {
            let payload = match located {
                Located::Memory(payload) => payload,
                Located::Disk { slot, file, path } => chunk.entry(id, slot, &file, path)?,
            };
            bytes += payload.bytes.len() + FRAME_BYTES;
            entries.push((id, payload));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(entries)
    }

    fn locate(&self, range: Range<u64>) -> Vec<(EntryId, Located)> {
        let state = self.shared().state.lock();
        let start = range.start.max(state.memory.first_index().unwrap_or(range.start));
        let mut located = Vec::new();
        for index in (start..range.end).take(LOCATED_MAX) {
            let Some((id, source)) = state.memory.source(index) else { break };
            let place = match source {
                Source::Memory(payload) => Located::Memory(payload),
                Source::Disk(slot) => {
                    let Some(segment) = state.segments.get(&slot.segment) else { break };
                    Located::Disk { slot, file: Arc::clone(&segment.file), path: segment.path.clone() }
                }
            };
            located.push((id, place));
        }
        located
    }
}

/// The last stretch of a segment that was read.
#[derive(Default)]
struct Chunk {
    segment: u32,
    start: u64,
    bytes: Bytes,
}

impl Chunk {
    fn entry(
        &mut self,
        id: EntryId,
        slot: Slot,
        file: &Arc<dyn VfsFile>,
        path: PathBuf,
    ) -> Result<Payload, LogError> {
        let place = Place { segment: slot.segment, offset: u64::from(slot.offset) };
        let frame = self.get(place, FRAME_BYTES, file, &path)?;
        let damaged =
            |what| LogError::EntryDamaged { file: path.clone(), offset: place.offset, index: id.index, what };
        let frame = Frame::decode(&frame, place)
            .map_err(|_| damaged("the record's header does not match its checksum"))?;
        if frame.kind != Kind::Entry || frame.id != Some(id) {
            return Err(damaged("another record stands in its place"));
        }
        let record = self.get(place, frame.record_len(), file, &path)?;
        let payload = record.slice(FRAME_BYTES.min(record.len())..);
        if !frame.is_payload(&payload) && !arca_danger::is(Bug::TornTailAccepted) {
            return Err(damaged("the payload does not match its checksum"));
        }
        Ok(Payload { tag: frame.tag, bytes: payload })
    }

    /// `count` bytes at `place`; fewer at the end of the file.
    fn get(
        &mut self,
        place: Place,
        count: usize,
        file: &Arc<dyn VfsFile>,
        path: &std::path::Path,
    ) -> Result<Bytes, LogError> {
        let end = self.start + self.bytes.len() as u64;
        let is_here =
            self.segment == place.segment && place.offset >= self.start && place.offset + count as u64 <= end;
        if !is_here {
            let mut bytes = vec![0; count.max(CHUNK_BYTES)];
            let read = file.read_at(&mut bytes, place.offset).map_err(LogError::io("read", path))?;
            bytes.truncate(read);
            *self = Self { segment: place.segment, start: place.offset, bytes: bytes.into() };
        }
        let from = usize::try_from(place.offset - self.start).unwrap_or(usize::MAX).min(self.bytes.len());
        let to = from.saturating_add(count).min(self.bytes.len());
        Ok(self.bytes.slice(from..to))
    }
}
