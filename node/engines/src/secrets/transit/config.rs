//! What holds for the whole mount: `config/keys`, and `cache-config`, which is kept and shown, and changes nothing: what
//! is cached here follows the state by itself.

use arca_engine_api::{EngineError, Fields, Response, Storage, StorageError, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

const KEYS_RECORD: &str = "config/keys";
const CACHE_RECORD: &str = "config/cache";
/// Smallest cache the field knows, besides none at all.
const CACHE_SIZE_MIN: i64 = 10;

/// Settings of all keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeysConfig {
    /// Encrypting makes no keys.
    pub(super) disable_upsert: bool,
}

impl KeysConfig {
    pub(super) fn load(storage: &dyn Storage) -> Result<Self, StorageError> {
        Ok(storage.get_record(KEYS_RECORD)?.unwrap_or_default())
    }

    fn show(self) -> Response {
        Response::data(json!({ "disable_upsert": self.disable_upsert }))
    }
}

/// Shows the settings of all keys.
pub(super) fn read_keys(storage: &dyn Storage) -> Result<Response, EngineError> {
    Ok(KeysConfig::load(storage)?.show())
}

/// Changes them.
pub(super) fn write_keys(storage: &dyn Storage, fields: Fields<'_>) -> Result<Response, EngineError> {
    let config = KeysConfig { disable_upsert: fields.boolean("disable_upsert")?.unwrap_or_default() };
    storage.put_record(KEYS_RECORD, &config)?;
    Ok(config.show())
}

/// Shows the size of the cache.
pub(super) fn read_cache(storage: &dyn Storage) -> Result<Response, EngineError> {
    let size: i64 = storage.get_record(CACHE_RECORD)?.unwrap_or_default();
    Ok(Response::data(json!({ "size": size })))
}

/// Notes the size of the cache.
pub(super) fn write_cache(storage: &dyn Storage, fields: Fields<'_>) -> Result<Response, EngineError> {
    let size = fields.integer("size")?.unwrap_or_default();
    if size != 0 && size < CACHE_SIZE_MIN {
        return Err(EngineError::Invalid(format!(
            "size must be 0 or a value greater or equal to {CACHE_SIZE_MIN}"
        )));
    }
    storage.put_record(CACHE_RECORD, &size)?;
    Ok(Response::data(json!({ "size": size })))
}
