//! What a file held when it was last synced: kept page by page while it is written, and put back when power is lost.
//!
//! The backing file always holds what the writer sees. Pages are saved before they are changed for the first time, so
//! that appending, which is most of what logs and tables do, saves nothing at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use crate::dice::Dice;

/// What a disk writes at once, at most: parts of it may be lost apart from each other.
pub(super) const PAGE_BYTES: u64 = 4_096;
/// What a disk never writes a part of.
const SECTOR_BYTES: u64 = 512;

/// What of the unsynced a power loss takes.
#[derive(Clone, Debug)]
pub enum Loss {
    /// All of it, as if nothing had been written back yet.
    All,
    /// Each page for itself, or parts of it: what was written back before the lights went out, in whatever order.
    Some(Box<Dice>),
}

/// One file that was changed since it was synced.
#[derive(Debug)]
pub(super) struct Undo {
    file: Arc<File>,
    synced_len: u64,
    /// What pages held when they were synced, up to `synced_len`.
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Undo {
    /// To be made before the first change of a file that is on disk as it is.
    pub(super) fn new(file: Arc<File>) -> io::Result<Self> {
        let synced_len = file.metadata()?.len();
        Ok(Self { file, synced_len, pages: BTreeMap::new() })
    }

    /// To be called before bytes are written or cut off.
    pub(super) fn save(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len).min(self.synced_len);
        if offset >= end {
            return Ok(());
        }
        for page in offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
            if !self.pages.contains_key(&page) {
                let start = page * PAGE_BYTES;
                let len = PAGE_BYTES.min(self.synced_len - start);
                let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
                self.file.read_exact_at(&mut bytes, start)?;
                self.pages.insert(page, bytes);
            }
        }
        Ok(())
    }

    /// Puts the file back. Answers how many pages were lost.
    pub(super) fn lose(self, loss: &mut Loss) -> io::Result<u64> {
        let len = self.file.metadata()?.len();
        match loss {
            Loss::All => self.lose_all(len),
            Loss::Some(dice) => self.lose_some(len, dice),
        }
    }

    fn lose_all(self, len: u64) -> io::Result<u64> {
        for (page, bytes) in &self.pages {
            self.file.write_all_at(bytes, page * PAGE_BYTES)?;
        }
        self.file.set_len(self.synced_len)?;
        let appended = len.saturating_sub(self.synced_len).div_ceil(PAGE_BYTES);
        Ok(u64::try_from(self.pages.len()).unwrap_or(u64::MAX) + appended)
    }

    fn lose_some(self, len: u64, dice: &mut Dice) -> io::Result<u64> {
        let mut lost = 0;
        for (page, bytes) in &self.pages {
            // 0: the new content was written back; 1: it was not; 2: as far as some sector.
            let from = match dice.within(0..3) {
                0 => continue,
                1 => 0,
                _ => dice.within(0..PAGE_BYTES / SECTOR_BYTES) * SECTOR_BYTES,
            };
            if let Some(old) = bytes.get(usize::try_from(from).unwrap_or_default()..) {
                self.file.write_all_at(old, page * PAGE_BYTES + from)?;
                lost += 1;
            }
        }
        if len <= self.synced_len {
            // It was cut: a cut is there or it is not.
            if dice.chance(50) {
                self.lose_all(len)?;
            }
            return Ok(lost);
        }
        let kept = self.synced_len + dice.within(0..len - self.synced_len + 1);
        self.file.set_len(kept)?;
        // The length may be written back before what it covers.
        for page in self.synced_len.div_ceil(PAGE_BYTES)..kept.div_ceil(PAGE_BYTES) {
            if dice.chance(25) {
                let start = page * PAGE_BYTES;
                let zeros = vec![0; usize::try_from(PAGE_BYTES.min(kept - start)).unwrap_or_default()];
                self.file.write_all_at(&zeros, start)?;
                lost += 1;
            }
        }
        Ok(lost + (len - kept).div_ceil(PAGE_BYTES))
    }
}
