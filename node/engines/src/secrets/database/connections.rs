//! Databases that were opened, kept for the next who asks.
//!
//! A cache and nothing more: a connection that was changed has another generation, by whichever node it was changed, and
//! what was opened for an earlier one is dropped with all its connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_engine_api::EngineError;
use parking_lot::Mutex;

use super::adapter::{Database, Kind, kind_named};
use super::config::Config;

#[derive(Debug)]
struct Opened {
    generation: u64,
    database: Arc<dyn Database>,
}

/// The databases of one mount.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) kinds: &'static [&'static [Kind]],
    opened: Mutex<BTreeMap<String, Opened>>,
}

impl Connections {
    pub(super) fn new(kinds: &'static [&'static [Kind]]) -> Self {
        Self { kinds, opened: Mutex::default() }
    }

    pub(super) fn kind(&self, config: &Config) -> Result<&'static Kind, EngineError> {
        kind_named(self.kinds, &config.plugin_name)
            .ok_or_else(|| EngineError::Bug("a connection to an unknown type of database".to_owned()))
    }

    /// The database of a connection.
    pub(super) fn database(&self, name: &str, config: &Config) -> Result<Arc<dyn Database>, EngineError> {
        let mut opened = self.opened.lock();
        if let Some(found) = opened.get(name).filter(|found| found.generation == config.generation) {
            return Ok(Arc::clone(&found.database));
        }
        let database = (self.kind(config)?.open)(&config.settings()?)?;
        let entry = Opened { generation: config.generation, database: Arc::clone(&database) };
        opened.insert(name.to_owned(), entry);
        Ok(database)
    }

    /// Closes what was opened for a connection; what is under way goes on to its end.
    pub(super) fn forget(&self, name: &str) {
        self.opened.lock().remove(name);
    }

    /// Closes what has been idle for long.
    pub(super) fn sweep(&self) {
        for opened in self.opened.lock().values() {
            opened.database.sweep();
        }
    }
}
