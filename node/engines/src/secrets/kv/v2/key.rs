//! A key's metadata: its versions, its settings, and what adding, deleting and destroying does to them.
//!
//! Pure: no storage, time passed in. Read next: [`super::keys`], which loads and stores it.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_danger::Bug;
use arca_engine_api::{Map, UnixMillis};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::config::Config;
use crate::secrets::kv::time::{moment, span};

/// Versions kept where neither the mount nor the key says how many.
const VERSIONS_KEPT: u32 = 10;

/// One version, without its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    /// When it was written.
    pub(super) created: UnixMillis,
    /// When it was deleted, or when it will count as deleted by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) deleted: Option<UnixMillis>,
    /// It was deleted by a caller, and is so at once on every node, whatever that node's clock says of `deleted`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_deleted: bool,
    /// Its data is gone for good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_destroyed: bool,
}

impl Version {
    /// Whether its data may be shown.
    pub(super) fn is_live(&self, now: UnixMillis) -> bool {
        let is_deleted = self.is_deleted && !arca_danger::is(Bug::DeletionByClock);
        !self.is_destroyed && !is_deleted && self.deleted.is_none_or(|deleted| deleted > now)
    }

    pub(super) fn delete(&mut self, now: UnixMillis) {
        self.deleted = Some(now);
        self.is_deleted = true;
    }

    pub(super) fn undelete(&mut self) {
        self.deleted = None;
        self.is_deleted = false;
    }

    fn shown(&self) -> Map {
        Map::from_iter([
            ("created_time".to_owned(), moment(Some(self.created)).into()),
            ("deletion_time".to_owned(), moment(self.deleted).into()),
            ("destroyed".to_owned(), self.is_destroyed.into()),
        ])
    }
}

/// See the file's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Key {
    /// Number of the latest version; 0 while there are settings only.
    pub(super) current: u64,
    /// Versions kept, by number.
    pub(super) versions: BTreeMap<u64, Version>,
    /// When the first version or setting was written.
    pub(super) created: UnixMillis,
    /// When the last version was written.
    pub(super) updated: UnixMillis,
    /// Versions to keep; 0 leaves it to the mount.
    #[serde(default)]
    pub(super) max_versions: u32,
    /// Writes must name the version they replace.
    #[serde(default)]
    pub(super) cas_required: bool,
    /// Changes of the settings must name the settings they replace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) metadata_cas_required: bool,
    /// New versions delete themselves after this; zero leaves it to the mount.
    #[serde(default)]
    pub(super) delete_version_after: Duration,
    /// The caller's own notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) custom: Option<BTreeMap<String, String>>,
    /// Counts changes of the settings, for check-and-set on them.
    #[serde(default)]
    pub(super) settings_version: u64,
    /// It still lies in version 1's place; the next change moves it. Never stored.
    #[serde(skip)]
    pub(super) is_plain: bool,
}

impl Key {
    /// A key that has nothing yet.
    pub(super) fn new(now: UnixMillis) -> Self {
        Self { created: now, updated: now, ..Self::default() }
    }

    /// A secret of a version 1 mount, as its own first version.
    pub(super) fn from_plain(written: UnixMillis) -> Self {
        let version = Version { created: written, ..Version::default() };
        Self { current: 1, versions: BTreeMap::from([(1, version)]), is_plain: true, ..Self::new(written) }
    }

    /// The lowest version kept; 0 while there is none above the first.
    fn oldest(&self) -> u64 {
        match self.versions.keys().next() {
            Some(1) | None => 0,
            Some(oldest) => *oldest,
        }
    }

    /// Adds the next version and drops what is over the limit. Gives the numbers dropped.
    pub(super) fn add(&mut self, now: UnixMillis, config: &Config) -> Vec<u64> {
        let is_deleted = self.versions.get(&self.current).is_some_and(|version| version.is_deleted);
        if !(is_deleted && arca_danger::is(Bug::VersionReusedAfterDelete)) {
            self.current += 1;
        }
        self.updated = now;
        let deleted = config.life_of(self.delete_version_after).map(|life| now.after(life));
        self.versions.insert(self.current, Version { created: now, deleted, ..Version::default() });
        let kept = match self.max_versions.max(config.max_versions) {
            0 => VERSIONS_KEPT,
            kept => kept,
        };
        let first_kept = self.current.saturating_sub(u64::from(kept)) + 1;
        let kept = self.versions.split_off(&first_kept);
        std::mem::replace(&mut self.versions, kept).into_keys().collect()
    }

    /// The `metadata` object beside a version's data.
    pub(super) fn shown_version(&self, number: u64, version: &Version) -> Map {
        let mut shown = version.shown();
        shown.insert("version".to_owned(), number.into());
        shown.insert("custom_metadata".to_owned(), json!(self.custom));
        shown
    }

    /// The answer to reading the key's metadata.
    pub(super) fn shown(&self) -> Map {
        let versions: Map = self
            .versions
            .iter()
            .map(|(number, version)| (number.to_string(), Value::Object(version.shown())))
            .collect();
        Map::from_iter([
            ("cas_required".to_owned(), self.cas_required.into()),
            ("created_time".to_owned(), moment(Some(self.created)).into()),
            ("current_metadata_version".to_owned(), self.settings_version.into()),
            ("current_version".to_owned(), self.current.into()),
            ("custom_metadata".to_owned(), json!(self.custom)),
            ("delete_version_after".to_owned(), span(self.delete_version_after).into()),
            ("max_versions".to_owned(), self.max_versions.into()),
            ("metadata_cas_required".to_owned(), self.metadata_cas_required.into()),
            ("oldest_version".to_owned(), self.oldest().into()),
            ("updated_time".to_owned(), moment(Some(self.updated)).into()),
            ("versions".to_owned(), Value::Object(versions)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mount_keeps: u32, key_keeps: u32, writes: u64, want: (u64, u64, usize)) {
        let config = Config { max_versions: mount_keeps, ..Config::default() };
        let mut key = Key { max_versions: key_keeps, ..Key::new(UnixMillis(1)) };
        let dropped: usize = (0..writes).map(|at| key.add(UnixMillis(at), &config).len()).sum();
        assert_eq!((key.current, key.oldest(), dropped), want);
        assert_eq!(key.versions.len() + dropped, usize::try_from(writes).unwrap());
    }

    #[test]
    fn keeps_as_many_versions_as_the_larger_setting_says() {
        check(0, 0, 10, (10, 0, 0));
        check(0, 0, 12, (12, 3, 2));
        check(3, 0, 5, (5, 3, 2));
        check(0, 2, 5, (5, 4, 3));
        check(4, 2, 5, (5, 2, 1));
    }

    #[test]
    fn a_lowered_limit_drops_several_at_once() {
        let mut key = Key::new(UnixMillis(0));
        let mut config = Config::default();
        for at in 0..8 {
            key.add(UnixMillis(at), &config);
        }
        config.max_versions = 2;
        assert_eq!(key.add(UnixMillis(9), &config), [1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_version_lives_until_its_time_or_its_destruction() {
        let now = UnixMillis(1_000);
        let version = Version { created: now, deleted: Some(UnixMillis(1_001)), ..Version::default() };
        assert!(version.is_live(now) && !version.is_live(UnixMillis(1_001)));
        assert!(!Version { is_destroyed: true, deleted: None, ..version }.is_live(now));
    }

    #[test]
    fn what_a_caller_deleted_is_gone_on_a_node_whose_clock_is_behind() {
        let mut version = Version { created: UnixMillis(500), ..Version::default() };
        version.delete(UnixMillis(1_000));
        assert!(!version.is_live(UnixMillis(400)));
        version.undelete();
        assert!(version.is_live(UnixMillis(400)));
        // As older builds wrote it.
        let stored: Version = serde_json::from_str(r#"{"created":500,"deleted":1000}"#).unwrap();
        assert!(!stored.is_live(UnixMillis(1_000)) && !stored.is_deleted);
    }
}
