//! The replicated log on disk: segment files of checksummed records, written by one writer, synced in groups.
//!
//! It knows nothing of openraft: entries, votes and marks are opaque bytes with an [`EntryId`]. [`openraft`] adapts it.
//! **Invariants:** nothing is acknowledged before its sync; acknowledgements come in the order of the calls; a failed
//! write or sync stops the log for good; a damaged file is named and refused, never repaired by guessing.
//! Read next: [`SegmentLog`], [`Writer`], then `docs/formats/raft-log.md`.

mod error;
mod format;
mod handle;
mod memory;
pub mod openraft;
mod read;
mod recover;
mod scan;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

pub use error::LogError;
pub use format::{FORMAT_VERSION, FRAME_BYTES, HEADER_BYTES, PAYLOAD_MAX};
pub use handle::{LogState, LogStats, SegmentInfo, SegmentLog};
pub use writer::Writer;

/// Which cluster the files belong to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

/// Which entry: who proposed it, and its index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// Member id of that leader.
    pub leader: u64,
    /// Position in the log.
    pub index: u64,
}

/// What an entry carries. The tag is stored with it and means what the caller says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// What sort of bytes.
    pub tag: u8,
    /// The bytes.
    pub bytes: Bytes,
}

/// Called once, when what was asked for is on the disk, or never will be.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// Where the log lives and how large its parts may grow.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory; created if missing. Nothing else may live there.
    pub dir: PathBuf,
    /// Files of another cluster are refused.
    pub cluster: ClusterId,
    /// A segment is sealed once it is this large. At most 1 GiB.
    pub segment_bytes: u64,
    /// Payloads kept in memory for replication; older ones are read from the files.
    pub recent_bytes: usize,
    /// Most bytes per write and sync, give or take one call's.
    pub batch_bytes: usize,
    /// [`SegmentLog::room`] waits while more than this is queued.
    pub queue_bytes: usize,
    /// [`SegmentLog::has_room_on_disk`] says no below this.
    pub free_bytes_min: u64,
}

impl Options {
    /// The defaults, for `cluster` in `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, cluster: ClusterId) -> Self {
        Self {
            dir: dir.into(),
            cluster,
            segment_bytes: 64 << 20,
            recent_bytes: 16 << 20,
            batch_bytes: 8 << 20,
            queue_bytes: 64 << 20,
            free_bytes_min: 256 << 20,
        }
    }
}
