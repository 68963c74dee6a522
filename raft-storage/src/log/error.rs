//! What can be wrong with a log, always with the file and the record it was found in.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ClusterId;

/// Why the log could not be opened, read or written. Cheap to clone: one failed sync fails many callers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// Bytes on the disk are not what was written. The log must not be used: this member has to be replaced.
    #[error("{} is damaged at offset {offset}, record {record}: {what}", file.display())]
    Corrupt {
        /// Segment file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Number of the record in the file, from 0 after the header.
        record: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// An entry that was fine before now reads back wrong.
    #[error("{} is damaged at offset {offset}, log entry {index}: {what}", file.display())]
    EntryDamaged {
        /// Segment file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Log index of the entry.
        index: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A write or sync failed earlier. What is on the disk is unknown until the process starts again.
    #[error("the log stopped after a failed write: {0}")]
    Fatal(Arc<str>),
    /// An entry does not follow the one before it.
    #[error("log entry {found} does not follow: expected {expected}")]
    Gap {
        /// Next index.
        expected: u64,
        /// Index offered.
        found: u64,
    },
    /// The system refused an operation.
    #[error("cannot {what} {}", file.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        file: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// A segment between or before others is gone.
    #[error("segment {} is missing", file.display())]
    MissingSegment {
        /// The file that should be there.
        file: PathBuf,
    },
    /// A newer version of Arca wrote the file.
    #[error("{} has format version {found}, newer than {supported}: run a newer Arca", file.display())]
    NewerFormat {
        /// Segment file.
        file: PathBuf,
        /// Its version.
        found: u8,
        /// The newest this program reads.
        supported: u8,
    },
    /// A newer version of Arca wrote the record.
    #[error("{} holds a record of unknown kind {kind} at offset {offset}, record {record}: run a newer Arca", file.display())]
    NewerRecord {
        /// Segment file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// Number of the record in the file.
        record: u64,
        /// The unknown kind.
        kind: u8,
    },
    /// The file is something else.
    #[error("{} is not a log segment", file.display())]
    NotASegment {
        /// The file.
        file: PathBuf,
    },
    /// A payload is over [`super::PAYLOAD_MAX`].
    #[error("payload of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Its bytes.
        size: usize,
        /// Most allowed.
        limit: usize,
    },
    /// The files belong to another cluster.
    #[error("{} belongs to cluster {found}, not {expected}: wrong data directory?", file.display())]
    WrongCluster {
        /// Segment file.
        file: PathBuf,
        /// The cluster that wrote it.
        found: ClusterId,
        /// This cluster.
        expected: ClusterId,
    },
}

impl LogError {
    /// Wraps a system error with what was tried on which file.
    pub(super) fn io(what: &'static str, file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io { what, file, source: Arc::new(source) }
    }

    /// The error and its causes in one line, for a state that outlives it.
    pub(super) fn in_full(&self) -> Arc<str> {
        match self {
            Self::Fatal(why) => Arc::clone(why),
            Self::Io { source, .. } => format!("{self}: {source}").into(),
            other => other.to_string().into(),
        }
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::other(error)
    }
}
