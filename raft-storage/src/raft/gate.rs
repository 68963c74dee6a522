//! What keeps this member from writing, voting or campaigning for now: a full disk, a hanging disk, a fresh start, its
//! removal. Set by the guard and by what peers say; read on every proposal and every call.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// All of it is false in a healthy member.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Too little room on the disk: no proposals, no entries.
    pub(super) is_disk_full: Flag,
    /// Writes to the log have hung for longer than an election: no proposals, no leadership.
    pub(super) is_stalled: Flag,
    /// Just started: a leader may still hold a lease that this member granted before it went down.
    pub(super) is_fresh: Flag,
    /// Shutting down.
    pub(super) is_closed: Flag,
    /// The newest membership that a peer says this member is not part of; zero for none.
    removed_at: AtomicU64,
    /// The last term in which this member, leading, asked another one to take over.
    handed_over_in: AtomicU64,
    /// The highest commit index that this member, leading, has told others of.
    told_commit: AtomicU64,
}

impl Gate {
    /// Leadership is about to be offered to another member, which may then be elected within this one's lease.
    pub(super) fn hand_over(&self, term: u64) {
        self.handed_over_in.fetch_max(term, Ordering::AcqRel);
    }

    /// Whether the lease of `term` cannot be relied on any more.
    pub(super) fn is_handed_over(&self, term: u64) -> bool {
        self.handed_over_in.load(Ordering::Acquire) >= term
    }

    /// Others are about to be told that everything up to `index` is committed, and may show it before this member does.
    pub(super) fn tell_commit(&self, index: u64) {
        self.told_commit.fetch_max(index, Ordering::AcqRel);
    }

    /// What others may show already.
    pub(super) fn told_commit(&self) -> u64 {
        self.told_commit.load(Ordering::Acquire)
    }

    /// A peer answered that by the committed membership at `index` this is not a member.
    pub(super) fn removed_at(&self, index: u64) {
        self.removed_at.fetch_max(index, Ordering::AcqRel);
    }

    /// Whether it was removed after the membership at `index`, the newest it knows.
    pub(super) fn is_removed_after(&self, index: u64) -> bool {
        self.removed_at.load(Ordering::Acquire) > index
    }
}

/// A bool that threads share.
#[derive(Debug, Default)]
pub(super) struct Flag(AtomicBool);

impl Flag {
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sets it, and answers whether that changed it.
    pub(super) fn set(&self, value: bool) -> bool {
        self.0.swap(value, Ordering::AcqRel) != value
    }
}
