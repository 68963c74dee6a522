//! An engine's own storage: string keys, byte values, isolated from every other mount.
//!
//! Reads see one consistent snapshot plus the request's own writes. Writes are collected and committed together,
//! in one Raft entry, after the engine returned; if anything the request read has changed by then, nothing is
//! written and the kernel runs the engine again on fresh state. Calls are synchronous: the data is on this node.

use std::any::Any;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::Fault;

/// Who receives a stored entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// This cluster and its disaster-recovery copies.
    Local,
    /// Every cluster downstream.
    Replicated,
}

/// Which part of a listing is wanted.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Only names sorting after this one.
    pub after: Option<String>,
    /// At most this many.
    pub limit: Option<usize>,
}

/// Storage failed or refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// A stored entry failed authentication or does not parse. Names the key, never the content.
    #[error("stored entry {key} is damaged: {reason}")]
    Damaged {
        /// Logical key.
        key: String,
        /// What failed.
        reason: String,
    },
    /// The backend failed.
    #[error("storage failed: {0}")]
    Failed(String),
    /// A standby met a write: the whole request goes to the active node.
    #[error("this node cannot write")]
    ReadOnly,
    /// One entry or one request is over the limit. Shown to the caller, so it names no key.
    #[error("the {what} is too large: {size} bytes, at most {limit}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// Bytes found.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

impl StorageError {
    /// What the caller can do about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Damaged { .. } | Self::Failed(_) => Fault::Internal,
            Self::ReadOnly => Fault::NeedsActive,
            Self::TooLarge { .. } => Fault::TooLarge,
        }
    }
}

/// An entry's value once decoded, shared by everybody who reads it.
pub type Decoded = Arc<dyn Any + Send + Sync>;

/// Keys are `/`-separated, without a leading slash; a key may be both an entry and a folder.
pub trait Storage: Send + Sync {
    /// The value at `key`, this request's own writes included.
    ///
    /// # Errors
    /// When the entry is damaged or the backend fails.
    fn get(&self, key: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StorageError>;

    /// The value at `key` as `decode` makes it of the bytes. Storage that remembers what it decoded does so once for
    /// as long as the entry stays the same, so what is kept must hold no secret.
    ///
    /// # Errors
    /// As [`Self::get`], and what `decode` says.
    fn decoded(
        &self,
        key: &str,
        decode: &dyn Fn(&[u8]) -> Result<Decoded, StorageError>,
    ) -> Result<Option<Decoded>, StorageError> {
        self.get(key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Names directly under `prefix` (empty, or ending in `/`), sorted, folders with a trailing slash.
    ///
    /// # Errors
    /// When the backend fails.
    fn list(&self, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError>;

    /// Keys at any depth under `prefix`, relative to it, sorted.
    ///
    /// # Errors
    /// When the backend fails.
    fn scan(&self, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError>;

    /// Stages a write.
    ///
    /// # Errors
    /// On a standby, or when the value is over the limit.
    fn put(&self, key: &str, value: Zeroizing<Vec<u8>>) -> Result<(), StorageError>;

    /// Stages a removal. Removing nothing is fine.
    ///
    /// # Errors
    /// On a standby.
    fn delete(&self, key: &str) -> Result<(), StorageError>;
}

/// Typed access on top of [`Storage`]; records are JSON.
pub trait StorageExt: Storage {
    /// The record at `key`.
    ///
    /// # Errors
    /// As [`Storage::get`], and when the record does not parse.
    fn get_record<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StorageError> {
        self.get(key)?.map(|bytes| parse(key, &bytes)).transpose()
    }

    /// The record at `key`, parsed once for many readers: for what is read often, is small and holds no secret.
    ///
    /// # Errors
    /// As [`Self::get_record`].
    fn get_shared<T>(&self, key: &str) -> Result<Option<Arc<T>>, StorageError>
    where
        T: DeserializeOwned + Send + Sync + 'static,
    {
        let decode = |bytes: &[u8]| parse::<T>(key, bytes).map(|record| Arc::new(record) as Decoded);
        match self.decoded(key, &decode)?.map(Arc::downcast) {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            // It was decoded as something else before.
            Some(Err(_)) => Ok(self.get_record(key)?.map(Arc::new)),
        }
    }

    /// Stages `record` at `key`.
    ///
    /// # Errors
    /// As [`Storage::put`].
    fn put_record<T: Serialize>(&self, key: &str, record: &T) -> Result<(), StorageError> {
        let bytes = serde_json::to_vec(record).map_err(|err| StorageError::Failed(err.to_string()))?;
        self.put(key, Zeroizing::new(bytes))
    }
}

impl<S: Storage + ?Sized> StorageExt for S {}

fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StorageError> {
    serde_json::from_slice(bytes)
        .map_err(|err| StorageError::Damaged { key: key.to_owned(), reason: format!("line {}", err.line()) })
}
