//! The seam under the state machine: ordered keys, atomic batches, snapshots, flush and checkpoint.
//!
//! `RocksKv` is the real one, `ModelKv` stands in for it in tests and simulation; one differential property test
//! holds both to the contract below.
//!
//! Durability contract: a batch is atomic, but survives a power loss only once a later [`Kv::flush`] returned. After
//! a crash the store shows some prefix of the batches, at least up to the last flush, never half a batch.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

/// The store failed or found damage.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The data found is damaged. Names the file or key (in hex), never the content.
    #[error("state machine store is damaged: {0}")]
    Corrupt(String),
    /// No space left.
    #[error("state machine store: no space left on device")]
    Full,
    /// The operating system or the library failed.
    #[error("state machine store failed: {0}")]
    Io(String),
    /// The data was written by a newer format than this build knows.
    #[error("state machine store has format {found}, this build knows up to {known}")]
    NewerFormat {
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
}

/// What a scan does after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Go on with the next key.
    Next,
    /// Go on with the first key at or after this one. Must not lie behind.
    Seek(Vec<u8>),
    /// Enough.
    Stop,
}

/// Changes applied together. A later change wins over an earlier one on the same key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `Some` stores, `None` deletes.
    pub changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// A consistent, immutable picture of the store.
pub trait KvSnapshot: Send + Sync {
    /// The value at `key`.
    ///
    /// # Errors
    /// When the store fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Walks `start..end` in byte order.
    ///
    /// # Errors
    /// When the store fails.
    fn visit(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), KvError>;
}

/// The ordered key-value store under the state machine.
pub trait Kv: Debug + Send + Sync {
    /// The value at `key` now.
    ///
    /// # Errors
    /// When the store fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// A picture of now.
    fn snapshot(&self) -> Arc<dyn KvSnapshot>;

    /// Applies `batch` atomically; durable only after [`Self::flush`].
    ///
    /// # Errors
    /// When the store fails; nothing of the batch is then visible.
    fn write(&self, batch: Batch) -> Result<(), KvError>;

    /// Makes every earlier batch durable.
    ///
    /// # Errors
    /// When the store fails. The store must then not be used any more.
    fn flush(&self) -> Result<(), KvError>;

    /// Writes a complete, durable copy of the store into `dir`, which must not exist.
    ///
    /// # Errors
    /// When the store or the directory fails.
    fn checkpoint(&self, dir: &Path) -> Result<(), KvError>;
}
