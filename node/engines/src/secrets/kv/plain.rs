//! A secret without versions, as version 1 stores it below `v1/`. Version 2 reads it too, once a mount is upgraded.

use arca_engine_api::{Map, Page, Storage, StorageError, StorageExt as _, UnixMillis};
use serde::{Deserialize, Serialize};

/// A stored secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plain {
    /// What the caller wrote.
    pub(super) data: Map,
    /// When.
    pub(super) written: UnixMillis,
}

fn at(path: &str) -> String {
    format!("v1/{path}")
}

pub(super) fn load(storage: &dyn Storage, path: &str) -> Result<Option<Plain>, StorageError> {
    storage.get_record(&at(path))
}

pub(super) fn exists(storage: &dyn Storage, path: &str) -> Result<bool, StorageError> {
    Ok(storage.get(&at(path))?.is_some())
}

pub(super) fn store(storage: &dyn Storage, path: &str, secret: &Plain) -> Result<(), StorageError> {
    storage.put_record(&at(path), secret)
}

pub(super) fn delete(storage: &dyn Storage, path: &str) -> Result<(), StorageError> {
    storage.delete(&at(path))
}

pub(super) fn list(storage: &dyn Storage, path: &str, page: &Page) -> Result<Vec<String>, StorageError> {
    storage.list(&at(path), page)
}

pub(super) fn scan(storage: &dyn Storage, path: &str, page: &Page) -> Result<Vec<String>, StorageError> {
    storage.scan(&at(path), page)
}
