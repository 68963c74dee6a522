//! What KV version 2 stores: one record of metadata a key, one entry a version.
//!
//! `m/<path>` holds the metadata, `v/<path>/<number>` the version's data, exactly as it was sent. A read needs both, a
//! write touches both and removes what is over the limit.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_engine_api::{Map, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::time::{moment, span};

/// Versions kept when nobody says otherwise.
const VERSIONS_DEFAULT: u64 = 10;

/// Settings of the mount.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) max_versions: u64,
    pub(super) cas_required: bool,
    /// Milliseconds; zero for never.
    pub(super) delete_version_after_ms: u64,
}

/// One version, without its data.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) created: UnixMillis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deleted: Option<UnixMillis>,
    #[serde(default)]
    pub(super) is_destroyed: bool,
}

/// A key's metadata.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Key {
    pub(super) versions: BTreeMap<u64, Version>,
    pub(super) current: u64,
    pub(super) oldest: u64,
    pub(super) created: UnixMillis,
    pub(super) updated: UnixMillis,
    pub(super) max_versions: u64,
    pub(super) cas_required: bool,
    pub(super) delete_version_after_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) custom_metadata: Option<BTreeMap<String, String>>,
}

impl Version {
    pub(super) fn is_gone(&self, now: UnixMillis) -> bool {
        self.is_destroyed || self.deleted.is_some_and(|deleted| deleted <= now)
    }

    /// As it appears in `metadata.versions`.
    fn shown(&self) -> Value {
        json!({ "created_time": moment(Some(self.created)), "deletion_time": moment(self.deleted), "destroyed": self.is_destroyed })
    }
}

impl Key {
    pub(super) fn kept(&self, config: &Config) -> u64 {
        match (self.max_versions, config.max_versions) {
            (0, 0) => VERSIONS_DEFAULT,
            (0, mount) => mount,
            (key, _) => key,
        }
    }

    pub(super) fn deletes_after(&self, config: &Config) -> Option<Duration> {
        let shorter = match (self.delete_version_after_ms, config.delete_version_after_ms) {
            (0, mount) => mount,
            (key, 0) => key,
            (key, mount) => key.min(mount),
        };
        (shorter > 0).then(|| Duration::from_millis(shorter))
    }

    /// Adds a version; answers its number and the numbers of those now over the limit.
    pub(super) fn add(&mut self, config: &Config, now: UnixMillis) -> (u64, Vec<u64>) {
        if self.current == 0 {
            self.created = now;
        }
        self.current += 1;
        self.updated = now;
        let deleted = self.deletes_after(config).map(|after| now.after(after));
        self.versions.insert(self.current, Version { created: now, deleted, is_destroyed: false });
        let keep_from = (self.current + 1).saturating_sub(self.kept(config));
        let old: Vec<u64> = self.versions.range(..keep_from).map(|(number, _)| *number).collect();
        for number in &old {
            self.versions.remove(number);
        }
        self.oldest = self.versions.keys().next().copied().filter(|first| *first > 1 || self.oldest > 0).unwrap_or(0);
        (self.current, old)
    }

    /// `metadata` beside a version's data.
    pub(super) fn shown_version(&self, number: u64, version: &Version) -> Value {
        let mut shown = version.shown();
        if let Some(map) = shown.as_object_mut() {
            map.insert("version".to_owned(), number.into());
            map.insert("custom_metadata".to_owned(), json!(self.custom_metadata));
        }
        shown
    }

    /// The whole metadata.
    pub(super) fn shown(&self) -> Map {
        let versions: Map =
            self.versions.iter().map(|(number, version)| (number.to_string(), version.shown())).collect();
        let value = json!({
            "cas_required": self.cas_required,
            "created_time": moment(Some(self.created)),
            "current_version": self.current,
            "custom_metadata": self.custom_metadata,
            "delete_version_after": span(Duration::from_millis(self.delete_version_after_ms)),
            "max_versions": self.max_versions,
            "oldest_version": self.oldest,
            "updated_time": moment(Some(self.updated)),
            "versions": versions,
        });
        if let Value::Object(map) = value { map } else { Map::new() }
    }
}
