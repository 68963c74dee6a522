//! Reads one segment from front to back, trusts nothing, and tells a torn tail from damage.
//!
//! A torn tail is the last batch, cut short by a crash before its sync: it was never acknowledged, so dropping it loses
//! nothing. It shows as a place that was never written: the file ends there, or a sector is all zeros, and no record of
//! a later batch follows. Anything else that does not check out is damage, and the log does not open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arca_danger::Bug;

use super::format::{
    BadFrame, BadHeader, FORMAT_VERSION, FRAME_BYTES, Frame, HEADER_BYTES, Hash, Header, Kind, Place,
};
use super::{ClusterId, LogError};
use crate::vfs::VfsFile;

const WINDOW_BYTES: usize = 1 << 20;
const SECTOR_BYTES: u64 = 512;

/// One record of a complete batch.
#[derive(Clone, Debug)]
pub(super) struct Scanned {
    pub(super) frame: Frame,
    pub(super) offset: u64,
    /// From 0 after the segment's header.
    pub(super) number: u64,
    /// Only what recovery needs: the vote. Entries stay on the disk.
    pub(super) payload: Vec<u8>,
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Contents {
    /// One past the last complete batch.
    pub(super) end: u64,
    /// Where the last complete batch starts; everything before it was synced for sure.
    pub(super) last_batch_at: u64,
    /// Its number.
    pub(super) last_batch: u64,
    pub(super) sealed: Option<Hash>,
    /// Has seen everything up to `end`.
    pub(super) hasher: blake3::Hasher,
    /// Bytes after `end` that a crash left half written.
    pub(super) torn_bytes: u64,
}

/// What to expect of a segment.
pub(super) struct Expected {
    pub(super) cluster: ClusterId,
    pub(super) number: u32,
    /// The previous segment's seal, if that segment is still there.
    pub(super) previous: Option<Hash>,
    /// The previous segment's last batch.
    pub(super) batch: Option<u64>,
    /// Only the last segment may have a torn tail or no seal.
    pub(super) is_last: bool,
}

pub(super) struct Scanner<'a> {
    path: &'a Path,
    file: Arc<dyn VfsFile>,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
    expected: Expected,
    hasher: blake3::Hasher,
    offset: u64,
    records: u64,
}

enum Next {
    Record(Frame),
    Nothing,
    Damage(&'static str),
}

impl<'a> Scanner<'a> {
    pub(super) fn new(path: &'a Path, file: Arc<dyn VfsFile>, expected: Expected) -> Result<Self, LogError> {
        let len = file.len().map_err(LogError::io("measure", path))?;
        Ok(Self {
            path,
            file,
            len,
            window: Vec::new(),
            window_at: 0,
            expected,
            hasher: blake3::Hasher::new(),
            offset: 0,
            records: 0,
        })
    }

    /// Walks the whole segment and hands over each complete batch.
    pub(super) fn run(
        mut self,
        visit: &mut dyn FnMut(Vec<Scanned>) -> Result<(), LogError>,
    ) -> Result<Contents, LogError> {
        self.header()?;
        let mut found = Contents {
            end: HEADER_BYTES as u64,
            last_batch_at: HEADER_BYTES as u64,
            last_batch: self.expected.batch.unwrap_or(0),
            sealed: None,
            hasher: self.hasher.clone(),
            torn_bytes: 0,
        };
        let mut batch = Vec::new();
        loop {
            match self.next(&found, !batch.is_empty())? {
                Next::Record(frame) => {
                    let scanned = self.accept(frame, &mut found, &batch)?;
                    batch.push(scanned);
                    if frame.is_last_of_batch {
                        found.last_batch_at = found.end;
                        found.end = self.offset;
                        found.last_batch = frame.batch;
                        found.hasher.clone_from(&self.hasher);
                        visit(std::mem::take(&mut batch))?;
                    }
                }
                Next::Nothing => break,
                Next::Damage(what) => {
                    self.require_torn(found.last_batch + 1, what)?;
                    break;
                }
            }
        }
        self.finish(found)
    }

    fn finish(self, mut found: Contents) -> Result<Contents, LogError> {
        if !self.expected.is_last && (found.sealed.is_none() || found.end != self.len) {
            return Err(self.corrupt(found.end, "the segment has no seal, but another follows it"));
        }
        if found.end == HEADER_BYTES as u64 {
            return Err(self.corrupt(found.end, "the segment does not start with a complete batch"));
        }
        found.torn_bytes = self.len - found.end;
        Ok(found)
    }

    fn header(&mut self) -> Result<(), LogError> {
        let bytes = self.bytes(0, HEADER_BYTES)?.to_vec();
        let file = self.path.to_owned();
        let header = match Header::decode(&bytes) {
            Ok(header) => header,
            Err(BadHeader::Magic) => return Err(LogError::NotASegment { file }),
            Err(BadHeader::Newer(found)) => {
                return Err(LogError::NewerFormat { file, found, supported: FORMAT_VERSION });
            }
            Err(BadHeader::Checksum) => return Err(self.corrupt(0, "the header's checksum does not match")),
            Err(BadHeader::Short) => return Err(self.corrupt(0, "the header is cut off")),
        };
        if header.cluster != self.expected.cluster {
            let expected = self.expected.cluster;
            return Err(LogError::WrongCluster { file, found: header.cluster, expected });
        }
        if header.number != self.expected.number {
            return Err(self.corrupt(0, "the header's segment number is not the file's"));
        }
        if self.expected.previous.is_some_and(|hash| hash != header.previous) {
            return Err(
                self.corrupt(0, "the hash chain is broken: this is not what followed the segment before")
            );
        }
        self.hasher.update(&bytes);
        self.offset = HEADER_BYTES as u64;
        Ok(())
    }

    /// Looks at what stands at the current offset.
    fn next(&mut self, found: &Contents, is_inside_batch: bool) -> Result<Next, LogError> {
        if self.offset == self.len {
            return Ok(if is_inside_batch { Next::Damage("the batch is cut off") } else { Next::Nothing });
        }
        if found.sealed.is_some() {
            return Ok(Next::Damage("something follows the seal"));
        }
        let offset = self.offset;
        let place = Place { segment: self.expected.number, offset };
        let frame = match Frame::decode(self.bytes(offset, FRAME_BYTES)?, place) {
            Ok(frame) => frame,
            Err(BadFrame::Newer(kind)) => {
                let (file, record) = (self.path.to_owned(), self.records);
                return Err(LogError::NewerRecord { file, offset, record, kind });
            }
            Err(BadFrame::Unreadable) => {
                return Ok(Next::Damage("the record's header does not match its checksum"));
            }
        };
        let payload = self.bytes(offset + FRAME_BYTES as u64, frame.payload_len as usize)?;
        if frame.is_payload(payload) || arca_danger::is(Bug::TornTailAccepted) {
            Ok(Next::Record(frame))
        } else {
            Ok(Next::Damage("the payload does not match its checksum"))
        }
    }

    /// Checks a sound record against its neighbours and moves past it.
    fn accept(&mut self, frame: Frame, found: &mut Contents, batch: &[Scanned]) -> Result<Scanned, LogError> {
        let offset = self.offset;
        let is_first = batch.is_empty() && found.end == HEADER_BYTES as u64 && self.expected.batch.is_none();
        if !is_first && frame.batch != found.last_batch + 1 {
            return Err(self.corrupt(offset, "batches are missing before this record"));
        }
        if batch.first().is_some_and(|first| first.frame.batch != frame.batch) {
            return Err(self.corrupt(offset, "the batch changes before its end"));
        }
        if is_first {
            // Older segments are purged: the count goes on from here.
            found.last_batch = frame.batch.saturating_sub(1);
        }
        let payload = match frame.kind {
            Kind::Seal | Kind::Vote => {
                self.bytes(offset + FRAME_BYTES as u64, frame.payload_len as usize)?.to_vec()
            }
            _ => Vec::new(),
        };
        if frame.kind == Kind::Seal {
            let hash = *self.hasher.finalize().as_bytes();
            if payload != hash || !frame.is_last_of_batch {
                return Err(self.corrupt(offset, "the seal does not match the segment's content"));
            }
            found.sealed = Some(hash);
        }
        let record = self.bytes(offset, frame.record_len())?.to_vec();
        self.hasher.update(&record);
        self.offset += record.len() as u64;
        self.records += 1;
        Ok(Scanned { frame, offset, number: self.records - 1, payload })
    }

    /// Up to `count` bytes at `at`; fewer only at the end of the file.
    fn bytes(&mut self, at: u64, count: usize) -> Result<&[u8], LogError> {
        let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let count = count.min(left);
        let start = usize::try_from(at.wrapping_sub(self.window_at)).unwrap_or(usize::MAX);
        if at < self.window_at || start.saturating_add(count) > self.window.len() {
            self.fill(at, count.max(WINDOW_BYTES.min(left)))?;
        }
        let start = usize::try_from(at - self.window_at).unwrap_or(usize::MAX);
        Ok(self.window.get(start..start.saturating_add(count)).unwrap_or_default())
    }

    fn fill(&mut self, at: u64, count: usize) -> Result<(), LogError> {
        self.window.resize(count, 0);
        let read = self.file.read_at(&mut self.window, at).map_err(LogError::io("read", self.path))?;
        if read != count {
            return Err(self.corrupt(at, "the file is shorter than it says"));
        }
        self.window_at = at;
        Ok(())
    }

    /// Damage at the current offset is fine only if it is what a crash leaves of `batch`.
    fn require_torn(&mut self, batch: u64, what: &'static str) -> Result<(), LogError> {
        let error = self.corrupt(self.offset, what);
        if !self.expected.is_last {
            return Err(error);
        }
        let offset = self.offset;
        let count = usize::try_from(self.len - offset).unwrap_or(usize::MAX);
        let tail = self.bytes(offset, count)?.to_vec();
        let tail = Tail { bytes: &tail, segment: self.expected.number, offset };
        let following = tail.records();
        if following.iter().any(|(_, frame)| frame.batch > batch) {
            return Err(error);
        }
        let is_cut_off = following.is_empty() && tail.ends_inside_record();
        if is_cut_off || tail.has_unwritten_sector(tail.damage_end()) { Ok(()) } else { Err(error) }
    }

    fn corrupt(&self, offset: u64, what: &'static str) -> LogError {
        LogError::Corrupt { file: self.path.to_owned(), offset, record: self.records, what }
    }
}

/// The bytes from the first record that does not check out to the end of the file.
struct Tail<'a> {
    bytes: &'a [u8],
    segment: u32,
    offset: u64,
}

impl Tail<'_> {
    fn frame_at(&self, at: usize) -> Option<Frame> {
        let place = Place { segment: self.segment, offset: self.offset + at as u64 };
        Frame::decode(self.bytes.get(at..)?, place).ok()
    }

    /// Every sound record after the damage, wherever it stands.
    fn records(&self) -> Vec<(usize, Frame)> {
        let mut found = Vec::new();
        let mut at = 1;
        while at + FRAME_BYTES <= self.bytes.len() {
            let frame = self.frame_at(at).filter(|frame| {
                let payload = self.bytes.get(at + FRAME_BYTES..at + frame.record_len());
                payload.is_some_and(|payload| frame.is_payload(payload))
            });
            at += frame.map_or(1, |frame| frame.record_len());
            if let Some(frame) = frame {
                found.push((at - frame.record_len(), frame));
            }
        }
        found
    }

    /// Whether the file ends before the first record does.
    fn ends_inside_record(&self) -> bool {
        self.bytes.len() < FRAME_BYTES
            || self.frame_at(0).is_some_and(|frame| frame.record_len() > self.bytes.len())
    }

    /// Where what does not check out ends: after the record if its frame is sound, and after its frame otherwise. What was
    /// never written behind that belongs to a later write, and excuses nothing before it.
    fn damage_end(&self) -> usize {
        self.frame_at(0).map_or(FRAME_BYTES, |frame| frame.record_len())
    }

    /// Whether a sector, as far as it lies in the first `end` bytes, was never written.
    fn has_unwritten_sector(&self, end: usize) -> bool {
        let mut rest = self.bytes.get(..end).unwrap_or(self.bytes);
        let mut offset = self.offset;
        while !rest.is_empty() {
            let in_sector = usize::try_from(SECTOR_BYTES - offset % SECTOR_BYTES).unwrap_or(1);
            let (sector, later) = rest.split_at(in_sector.min(rest.len()));
            if sector.iter().all(|byte| *byte == 0) {
                return true;
            }
            offset += sector.len() as u64;
            rest = later;
        }
        false
    }
}

/// The number in a segment's file name.
pub(super) fn segment_number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?.strip_suffix(".seg")?;
    let is_canonical = name.len() == 10 && name.bytes().all(|byte| byte.is_ascii_digit());
    if is_canonical { name.parse().ok() } else { None }
}

/// The file of a segment.
pub(super) fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:010}.seg"))
}
