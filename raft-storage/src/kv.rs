//! The seam under the state machine: ordered keys, atomic batches, snapshots and flush.
//!
//! `RocksKv` is the real one, `ModelKv` stands in for it in tests and simulation; one differential property test
//! holds both to the contract below.
//!
//! Durability contract: a batch is atomic, but survives a power loss only once a later [`Kv::flush`] returned. After
//! a crash the store shows some prefix of the batches, at least up to the last flush, never half a batch.

pub mod model;
pub mod rocks;
pub mod rocks_home;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub use model::{ModelHome, ModelKv};
pub use rocks::{RocksKv, RocksOptions};
pub use rocks_home::RocksHome;

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
    #[error("{what} has format {found}, this build knows up to {known}: run the newer version that wrote it")]
    NewerFormat {
        /// The file, or the entry by its key in hex.
        what: String,
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
    /// Go on with the first key at or after this one, which lies ahead; one that does not means [`Visit::Next`].
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
}

/// Where stores live: one is current, and another can be filled beside it, out of sight, to take its place.
pub trait KvHome: Debug + Send + Sync {
    /// Opens the current store; the first time, makes an empty one.
    ///
    /// # Errors
    /// When it is damaged, of a newer format, in use by another process, or the system fails.
    fn open(&self) -> Result<Arc<dyn Kv>, KvError>;

    /// Whether the current store is open in this process, so that opening it again would be refused.
    fn is_in_use(&self) -> bool {
        false
    }

    /// An empty store beside the current one.
    ///
    /// # Errors
    /// When the system fails.
    fn draft(&self) -> Result<Box<dyn KvDraft>, KvError>;

    /// How long the next batch is to take, for a model whose writes block nobody. A real one takes its time by itself.
    fn write_time(&self) -> Duration {
        Duration::ZERO
    }
}

/// A store being filled. Dropping it removes it.
pub trait KvDraft: Debug + Send + Sync {
    /// Where to write.
    fn kv(&self) -> &Arc<dyn Kv>;

    /// Flushes it and makes it the current store, durably and in one step: a crash leaves the old or the new one.
    /// The old one lives on until its last snapshot is dropped, and is then removed.
    ///
    /// # Errors
    /// When the system fails. Which store is current is then known only after opening again.
    fn promote(self: Box<Self>) -> Result<Arc<dyn Kv>, KvError>;
}

#[cfg(test)]
mod tests;
