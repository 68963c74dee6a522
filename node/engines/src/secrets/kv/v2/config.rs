//! What a mount says for all its keys.

use std::time::Duration;

use arca_engine_api::fields::parse_duration;
use arca_engine_api::{EngineError, Fields, Response, Storage, StorageError, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::secrets::kv::time::span;

const RECORD: &str = "config";

/// See the file's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Config {
    /// Versions to keep of each key; 0 means ten.
    pub(super) max_versions: u32,
    /// Every write must name the version it replaces.
    pub(super) cas_required: bool,
    /// Every change of a key's settings must name the settings it replaces.
    #[serde(default)]
    pub(super) metadata_cas_required: bool,
    /// How long new versions live.
    pub(super) delete_version_after: Lifetime,
}

/// How long new versions live, as far as the mount has a say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Lifetime {
    /// For ever, whatever a key says.
    Endless,
    /// At most so long; a key may say less.
    Limited(Duration),
    /// As the key says.
    #[default]
    Open,
}

impl Config {
    pub(super) fn load(storage: &dyn Storage) -> Result<Self, StorageError> {
        Ok(storage.get_record(RECORD)?.unwrap_or_default())
    }

    /// How long a new version of a key lives that wants `wanted` (zero for no wish); `None` for ever.
    pub(super) fn life_of(&self, wanted: Duration) -> Option<Duration> {
        match self.delete_version_after {
            Lifetime::Endless => None,
            Lifetime::Open => Some(wanted).filter(|wanted| !wanted.is_zero()),
            Lifetime::Limited(limit) if wanted.is_zero() => Some(limit),
            Lifetime::Limited(limit) => Some(limit.min(wanted)),
        }
    }

    pub(super) fn read(storage: &dyn Storage) -> Result<Response, EngineError> {
        let config = Self::load(storage)?;
        let life = match config.delete_version_after {
            Lifetime::Endless => "-1ns".to_owned(),
            Lifetime::Open => span(Duration::ZERO),
            Lifetime::Limited(limit) => span(limit),
        };
        Ok(Response::data(json!({
            "cas_required": config.cas_required,
            "delete_version_after": life,
            "max_versions": config.max_versions,
            "metadata_cas_required": config.metadata_cas_required,
        })))
    }

    pub(super) fn write(storage: &dyn Storage, fields: Fields<'_>) -> Result<Response, EngineError> {
        let mut config = Self::load(storage)?;
        if let Some(max) = max_versions(fields)? {
            config.max_versions = max;
        }
        if let Some(required) = fields.boolean("cas_required")? {
            config.cas_required = required;
        }
        if let Some(required) = fields.boolean("metadata_cas_required")? {
            config.metadata_cas_required = required;
        }
        if let Some(text) =
            fields.string("delete_version_after")?.filter(|_| fields.has("delete_version_after"))
        {
            config.delete_version_after = lifetime(&text)?;
        }
        storage.put_record(RECORD, &config)?;
        Ok(Response::empty())
    }
}

/// `max_versions`, here and on a key.
pub(super) fn max_versions(fields: Fields<'_>) -> Result<Option<u32>, EngineError> {
    let Some(number) = fields.integer("max_versions")? else { return Ok(None) };
    u32::try_from(number)
        .map(Some)
        .map_err(|_| EngineError::invalid("max_versions must be between 0 and 4294967295"))
}

/// A negative span switches the deletion by age off, zero leaves it to the keys.
fn lifetime(text: &str) -> Result<Lifetime, EngineError> {
    let text = text.trim();
    let (is_negative, size) = text.strip_prefix('-').map_or((false, text), |size| (true, size));
    let size = parse_duration(size)
        .ok_or_else(|| EngineError::invalid("delete_version_after must be a duration"))?;
    Ok(match (is_negative, size) {
        (_, Duration::ZERO) => Lifetime::Open,
        (true, _) => Lifetime::Endless,
        (false, size) => Lifetime::Limited(size),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mount: &str, key_seconds: u64, want_seconds: Option<u64>) {
        let config = Config { delete_version_after: lifetime(mount).unwrap(), ..Config::default() };
        let life = config.life_of(Duration::from_secs(key_seconds));
        assert_eq!(life.map(|life| life.as_secs()), want_seconds, "mount {mount:?}");
    }

    #[test]
    fn the_shorter_life_wins() {
        check("0", 0, None);
        check("0s", 5, Some(5));
        check("1m", 0, Some(60));
        check("1m", 30, Some(30));
        check("1m", 90, Some(60));
        check("-1s", 30, None);
    }

    #[test]
    fn refuses_what_is_no_duration() {
        assert!(lifetime("soon").is_err() && lifetime("--1s").is_err());
    }
}
