//! `metadata/` and `detailed-metadata/`: keys' settings, listings, and the end of a key.

use arca_engine_api::{EngineError, Fields, Map, Request, Response};
use serde_json::Value;

use super::config::{Config, max_versions};
use super::custom;
use super::key::Key;
use super::keys::Keys;
use crate::secrets::kv::page;

/// Settings that a key cannot switch off where the mount has them on.
fn mandated(config: &Config) -> [(&'static str, bool); 2] {
    [("cas_required", config.cas_required), ("metadata_cas_required", config.metadata_cas_required)]
}

pub(super) fn read(keys: &Keys<'_>, path: &str) -> Result<Response, EngineError> {
    Ok(Response { data: keys.find(path)?.map(|key| key.shown()), ..Response::default() })
}

pub(super) fn write(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let (path, fields) = (request.param("path"), request.fields());
    if !SETTINGS.iter().any(|name| request.data.contains_key(*name)) {
        return Ok(Response::empty());
    }
    let custom = fields.object("custom_metadata")?.map(custom::replaced).transpose()?;
    let config = keys.config()?;
    let mut key = keys.load(path)?.unwrap_or_else(|| Key::new(keys.now()));
    check_and_set(fields, &config, &key)?;
    change(&mut key, fields)?;
    if let Some(custom) = custom {
        key.custom = Some(custom).filter(|custom| !custom.is_empty());
    }
    store(keys, path, key, &config, fields)
}

/// As [`write()`], for a key that exists: custom metadata merges, and a null setting goes back to its default.
pub(super) fn patch(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let (path, fields) = (request.param("path"), request.fields());
    let Some(mut key) = keys.load(path)? else { return Err(EngineError::NotFound) };
    let config = keys.config()?;
    check_and_set(fields, &config, &key)?;
    change(&mut key, fields)?;
    if fields.is_null("delete_version_after") {
        key.delete_version_after = std::time::Duration::ZERO;
    }
    if fields.is_null("custom_metadata") {
        key.custom = None;
    } else if let Some(patch) = fields.object("custom_metadata")? {
        key.custom = Some(custom::patched(key.custom.as_ref(), patch)?);
    }
    store(keys, path, key, &config, fields)
}

const SETTINGS: [&str; 5] =
    ["cas_required", "custom_metadata", "delete_version_after", "max_versions", "metadata_cas_required"];

fn change(key: &mut Key, fields: Fields<'_>) -> Result<(), EngineError> {
    if let Some(max) = max_versions(fields)? {
        key.max_versions = max;
    }
    if let Some(required) = fields.boolean("cas_required")? {
        key.cas_required = required;
    }
    if let Some(required) = fields.boolean("metadata_cas_required")? {
        key.metadata_cas_required = required;
    }
    if let Some(life) = fields.duration("delete_version_after")? {
        key.delete_version_after = life;
    }
    Ok(())
}

fn check_and_set(fields: Fields<'_>, config: &Config, key: &Key) -> Result<(), EngineError> {
    match fields.integer("metadata_cas")? {
        Some(seen) if u64::try_from(seen).ok() != Some(key.settings_version) => {
            Err(EngineError::invalid("metadata check-and-set parameter does not match the current version"))
        }
        None if config.metadata_cas_required || key.metadata_cas_required => {
            Err(EngineError::invalid("metadata check-and-set parameter required for this call"))
        }
        _ => Ok(()),
    }
}

fn store(
    keys: &Keys<'_>,
    path: &str,
    mut key: Key,
    config: &Config,
    fields: Fields<'_>,
) -> Result<Response, EngineError> {
    key.settings_version += 1;
    keys.store(path, &mut key)?;
    let mut response = Response::empty();
    for (name, _) in mandated(config).into_iter().filter(|(_, is_on)| *is_on) {
        if fields.boolean(name)? == Some(false) {
            let text = "set to false, but is mandated by backend config. This value will be ignored.";
            response = response.with_warning(format!("{name:?} {text}"));
        }
    }
    Ok(response)
}

pub(super) fn delete(keys: &Keys<'_>, path: &str) -> Result<Response, EngineError> {
    if let Some(key) = keys.find(path)? {
        keys.delete(path, &key)?;
    }
    Ok(Response::empty())
}

fn listed(keys: &Keys<'_>, request: &Request) -> Result<Vec<String>, EngineError> {
    let (path, page) = (request.param("path"), page(request)?);
    Ok(match request.operation {
        arca_engine_api::Operation::Scan => keys.scan(path, &page)?,
        _ => keys.list(path, &page)?,
    })
}

pub(super) fn names(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    Ok(Response::list(listed(keys, request)?))
}

pub(super) fn names_with_metadata(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let names = listed(keys, request)?;
    let mut details = Map::new();
    for name in names.iter().filter(|name| !name.ends_with('/')) {
        if let Some(key) = keys.find(&format!("{}{name}", request.param("path")))? {
            details.insert(name.clone(), Value::Object(key.shown()));
        }
    }
    let mut response = Response::list(names);
    if let Some(data) = response.data.as_mut().filter(|_| !details.is_empty()) {
        data.insert("key_info".to_owned(), Value::Object(details));
    }
    Ok(response)
}
