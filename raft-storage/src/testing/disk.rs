//! What a crash leaves of a file: its durable bytes, and whatever part of the unsynced changes the policy keeps.
//!
//! **Invariant:** `seen` is always `durable` with every change since the last good sync applied to it.

use super::rng::Dice;

/// What a power loss does to changes that were never synced. Names and contents alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPolicy {
    /// All of them reached the disk.
    KeepPending,
    /// The first few reached it, each whole.
    KeepPrefix,
    /// None reached it.
    LosePending,
    /// Blocks of this many bytes reached it or not, each by itself and in any order.
    Reorder {
        /// Block size; a real sector is 512 bytes or more.
        block: usize,
    },
    /// The first few reached it, and the next one only up to a multiple of this many bytes.
    Torn {
        /// 1 tears anywhere; a real sector is 512 bytes or more.
        block: usize,
    },
}

#[derive(Clone, Debug)]
enum Edit {
    SetLen(usize),
    Write { offset: usize, bytes: Vec<u8> },
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => content.resize(*len, 0),
            Self::Write { offset, bytes } => overwrite(content, *offset, bytes),
        }
    }
}

/// One file of the model.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    durable: Vec<u8>,
    pending: Vec<Edit>,
    seen: Vec<u8>,
}

impl Contents {
    /// What a reader sees now.
    pub(super) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// What is on the disk for sure.
    pub(super) fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.edit(Edit::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.edit(Edit::SetLen(len));
    }

    fn edit(&mut self, edit: Edit) {
        edit.apply(&mut self.seen);
        self.pending.push(edit);
    }

    /// A good sync.
    pub(super) fn sync(&mut self) {
        for edit in self.pending.drain(..) {
            edit.apply(&mut self.durable);
        }
    }

    /// A failed sync, as Linux does it: the pages stay readable, count as clean, and never reach the disk.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// Flips a bit on the disk itself. False if the file is shorter.
    pub(super) fn flip(&mut self, offset: usize, bit: u8) -> bool {
        let mask = 1 << (bit % 8);
        for content in [&mut self.durable, &mut self.seen] {
            if let Some(byte) = content.get_mut(offset) {
                *byte ^= mask;
            }
        }
        offset < self.seen.len()
    }

    /// A power loss.
    pub(super) fn crash(&mut self, policy: CrashPolicy, dice: &mut Dice) {
        let pending = std::mem::take(&mut self.pending);
        match policy {
            CrashPolicy::KeepPending => pending.iter().for_each(|edit| edit.apply(&mut self.durable)),
            CrashPolicy::LosePending => {}
            CrashPolicy::KeepPrefix => {
                let kept = dice.up_to(pending.len());
                pending.iter().take(kept).for_each(|edit| edit.apply(&mut self.durable));
            }
            CrashPolicy::Torn { block } => self.tear(&pending, block.max(1), dice),
            CrashPolicy::Reorder { block } => self.reorder(&pending, block.max(1), dice),
        }
        self.seen.clone_from(&self.durable);
    }

    fn tear(&mut self, pending: &[Edit], block: usize, dice: &mut Dice) {
        let kept = dice.up_to(pending.len());
        pending.iter().take(kept).for_each(|edit| edit.apply(&mut self.durable));
        if let Some(Edit::Write { offset, bytes }) = pending.get(kept) {
            let cut = (offset + dice.up_to(bytes.len())) / block * block;
            let part = bytes.get(..cut.saturating_sub(*offset)).unwrap_or(bytes);
            overwrite(&mut self.durable, *offset, part);
        }
    }

    fn reorder(&mut self, pending: &[Edit], block: usize, dice: &mut Dice) {
        for edit in pending {
            match edit {
                Edit::SetLen(_) if dice.coin() => edit.apply(&mut self.durable),
                Edit::SetLen(_) => {}
                Edit::Write { offset, bytes } => {
                    let mut at = *offset;
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let (piece, later) = rest.split_at((block - at % block).min(rest.len()));
                        if dice.coin() {
                            overwrite(&mut self.durable, at, piece);
                        }
                        at += piece.len();
                        rest = later;
                    }
                }
            }
        }
    }
}

/// Writes `bytes` at `offset`, growing with zeros as needed.
fn overwrite(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    if let Some(target) = content.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}
