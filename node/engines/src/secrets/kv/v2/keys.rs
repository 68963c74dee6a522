//! Where keys and versions lie: `meta/<path>` and `data/<path>/<number>`, and below `v1/` what the mount held before
//! it kept versions. Such a secret is shown as its own first version, and moved by the first change to it, so turning
//! versioning on takes no time however much is stored.

use std::sync::Arc;

use arca_engine_api::{Ctx, EngineError, Map, Page, Storage, StorageError, StorageExt as _, UnixMillis};

use super::config::Config;
use super::key::Key;
use crate::secrets::kv::plain;

/// A mount's keys, as one request sees them.
pub(super) struct Keys<'a> {
    storage: &'a dyn Storage,
    now: UnixMillis,
}

impl<'a> Keys<'a> {
    pub(super) fn of(ctx: &Ctx<'a>) -> Self {
        Self { storage: ctx.storage, now: ctx.clock.now() }
    }

    pub(super) fn now(&self) -> UnixMillis {
        self.now
    }

    pub(super) fn config(&self) -> Result<Config, StorageError> {
        Config::load(self.storage)
    }

    pub(super) fn find(&self, path: &str) -> Result<Option<Arc<Key>>, StorageError> {
        if let Some(key) = self.storage.get_shared(&format!("meta/{path}"))? {
            return Ok(Some(key));
        }
        Ok(plain::load(self.storage, path)?.map(|secret| Arc::new(Key::from_plain(secret.written))))
    }

    /// The same, to be changed.
    pub(super) fn load(&self, path: &str) -> Result<Option<Key>, StorageError> {
        Ok(self.find(path)?.map(Arc::unwrap_or_clone))
    }

    pub(super) fn data(&self, path: &str, key: &Key, number: u64) -> Result<Map, EngineError> {
        let found = if key.is_plain {
            plain::load(self.storage, path)?.map(|secret| secret.data)
        } else {
            self.storage.get_record(&version_at(path, number))?
        };
        found.ok_or_else(|| EngineError::Bug(format!("version {number} is listed, but its data is missing")))
    }

    /// Stages the key, moving it out of version 1's place if it lies there.
    pub(super) fn store(&self, path: &str, key: &mut Key) -> Result<(), StorageError> {
        if std::mem::take(&mut key.is_plain)
            && let Some(secret) = plain::load(self.storage, path)?
        {
            self.put_data(path, 1, &secret.data)?;
            plain::delete(self.storage, path)?;
        }
        self.storage.put_record(&format!("meta/{path}"), key)
    }

    pub(super) fn put_data(&self, path: &str, number: u64, data: &Map) -> Result<(), StorageError> {
        self.storage.put_record(&version_at(path, number), data)
    }

    pub(super) fn delete_data(&self, path: &str, number: u64) -> Result<(), StorageError> {
        self.storage.delete(&version_at(path, number))
    }

    /// Removes the key with all its versions.
    pub(super) fn delete(&self, path: &str, key: &Key) -> Result<(), StorageError> {
        if key.is_plain {
            return plain::delete(self.storage, path);
        }
        for number in key.versions.keys() {
            self.delete_data(path, *number)?;
        }
        self.storage.delete(&format!("meta/{path}"))
    }

    /// Names directly below `path`.
    pub(super) fn list(&self, path: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let versioned = self.storage.list(&format!("meta/{path}"), page)?;
        Ok(merged(versioned, plain::list(self.storage, path, page)?, page))
    }

    /// Every key below `path`, relative to it.
    pub(super) fn scan(&self, path: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let versioned = self.storage.scan(&format!("meta/{path}"), page)?;
        Ok(merged(versioned, plain::scan(self.storage, path, page)?, page))
    }
}

fn version_at(path: &str, number: u64) -> String {
    format!("data/{path}/{number}")
}

/// The names of both listings, each once, at most a page of them.
fn merged(mut names: Vec<String>, others: Vec<String>, page: &Page) -> Vec<String> {
    if !others.is_empty() {
        names.extend(others);
        names.sort_unstable();
        names.dedup();
        names.truncate(page.limit.unwrap_or(usize::MAX));
    }
    names
}
