//! What is to be done when: for each database apart, in order of time, so that a tick reads what is due and no more, and
//! a database with many entries that wait hides no other's.

use std::time::Duration;

use arca_engine_api::{Page, Storage, StorageError, UnixMillis};
use zeroize::Zeroizing;

/// Where the index lies: `due/<connection>/<milliseconds, 20 digits>/<kind>-<name>`.
const DUE: &str = "due/";

/// What a tick looks after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A connection's own password, whose change was not seen through.
    Root,
    /// A static role's password.
    Static,
}

/// An entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// The connection.
    pub(super) database: String,
    pub(super) moment: UnixMillis,
    pub(super) work: Work,
    pub(super) name: String,
}

impl Due {
    pub(super) fn new(database: &str, moment: UnixMillis, work: Work, name: &str) -> Self {
        Self { database: database.to_owned(), moment, work, name: name.to_owned() }
    }

    fn key(&self) -> String {
        let work = match self.work {
            Work::Root => "root",
            Work::Static => "static",
        };
        format!("{DUE}{}/{:020}/{work}-{}", self.database, self.moment.0, self.name)
    }

    fn parse(database: &str, key: &str) -> Option<Self> {
        let (moment, rest) = key.split_once('/')?;
        let (work, name) = rest.split_once('-')?;
        let work = match work {
            "root" => Work::Root,
            "static" => Work::Static,
            _ => return None,
        };
        Some(Self::new(database, UnixMillis(moment.parse().ok()?), work, name))
    }

    pub(super) fn store(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        storage.put(&self.key(), Zeroizing::new(b"{}".to_vec()))
    }

    pub(super) fn remove(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        storage.delete(&self.key())
    }
}

/// At most so many entries of a database that are due, the oldest first.
pub(super) fn until(
    storage: &dyn Storage,
    database: &str,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<Due>, StorageError> {
    let folder = format!("{DUE}{database}/");
    let keys = storage.scan(&folder, &Page { after: None, limit: Some(limit) })?;
    let parse = |key: String| {
        Due::parse(database, &key).ok_or_else(|| StorageError::Damaged {
            key: format!("{folder}{key}"),
            reason: "no entry of this index".to_owned(),
        })
    };
    let mut found = keys.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    found.retain(|due| due.moment <= now);
    Ok(found)
}

/// How long to wait before what failed so often in a row is tried again.
pub(super) fn retry_after(failures: u32) -> Duration {
    Duration::from_secs(60 << failures.min(5))
}
