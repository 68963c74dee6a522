//! `data/` and `subkeys/`: reading and writing versions.

use arca_danger::Bug;
use arca_engine_api::{EngineError, Fields, Map, Request, Response};
use serde_json::Value;

use super::config::Config;
use super::key::Key;
use super::keys::Keys;

/// A version asked for.
enum Found {
    /// Deleted, or destroyed: only this is left to show.
    Gone(Map),
    Live {
        data: Map,
        metadata: Map,
    },
}

/// The version the request names, or the latest one; `None` where there never was one, or is no more.
fn find(keys: &Keys<'_>, request: &Request) -> Result<Option<Found>, EngineError> {
    let path = request.param("path");
    let Some(key) = keys.find(path)? else { return Ok(None) };
    let asked = request.fields().integer("version")?.and_then(|number| u64::try_from(number).ok());
    let number = asked.filter(|number| *number > 0).unwrap_or(key.current);
    let Some(version) = key.versions.get(&number) else { return Ok(None) };
    let metadata = key.shown_version(number, version);
    if !version.is_live(keys.now()) {
        return Ok(Some(Found::Gone(metadata)));
    }
    Ok(Some(Found::Live { data: keys.data(path, &key, number)?, metadata }))
}

/// A version's data under `name`, its metadata beside it.
fn answer(found: Option<Found>, name: &str, shown: impl FnOnce(Map) -> Map) -> Response {
    let (data, metadata, is_missing) = match found {
        None => return Response::empty(),
        Some(Found::Gone(metadata)) => (Value::Null, metadata, true),
        Some(Found::Live { data, metadata }) => (Value::Object(shown(data)), metadata, false),
    };
    let data = Map::from_iter([(name.to_owned(), data), ("metadata".to_owned(), Value::Object(metadata))]);
    Response { data: Some(data), is_missing, ..Response::default() }
}

pub(super) fn read(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    Ok(answer(find(keys, request)?, "data", |data| data))
}

pub(super) fn subkeys(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let depth = request.fields().integer("depth")?.unwrap_or_default();
    let levels = u32::try_from(depth).ok().filter(|levels| *levels > 0).unwrap_or(u32::MAX);
    Ok(answer(find(keys, request)?, "subkeys", |data| without_values(data, levels)))
}

/// Only the names of the fields, down to so many levels.
fn without_values(data: Map, levels: u32) -> Map {
    let shape = |value| match value {
        Value::Object(inner) if levels > 1 && !inner.is_empty() => {
            Value::Object(without_values(inner, levels - 1))
        }
        _ => Value::Null,
    };
    data.into_iter().map(|(name, value)| (name, shape(value))).collect()
}

pub(super) fn write(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let data = given_data(request)?;
    let config = keys.config()?;
    let key = keys.load(request.param("path"))?.unwrap_or_else(|| Key::new(keys.now()));
    check_and_set(request.fields(), &config, &key)?;
    add(keys, request.param("path"), key, &config, data)
}

pub(super) fn patch(keys: &Keys<'_>, request: &Request) -> Result<Response, EngineError> {
    let (path, patch) = (request.param("path"), given_data(request)?);
    let Some(key) = keys.load(path)? else { return Err(EngineError::NotFound) };
    let config = keys.config()?;
    check_and_set(request.fields(), &config, &key)?;
    let Some(version) = key.versions.get(&key.current) else { return Err(EngineError::NotFound) };
    if !version.is_live(keys.now()) {
        let data = Some(key.shown_version(key.current, version));
        return Ok(Response { data, is_missing: true, ..Response::default() });
    }
    let mut data = keys.data(path, &key, key.current)?;
    merge(&mut data, patch);
    add(keys, path, key, &config, &data)
}

/// The secret sent; null stands for one without fields.
fn given_data(request: &Request) -> Result<&Map, EngineError> {
    match request.fields().object("data")? {
        Some(data) => Ok(data),
        None => Err(EngineError::invalid("no data provided")),
    }
}

fn check_and_set(fields: Fields<'_>, config: &Config, key: &Key) -> Result<(), EngineError> {
    let options = fields.object("options")?;
    match options.filter(|options| options.contains_key("cas")) {
        Some(options) => {
            let seen = Fields::new(options)
                .integer("cas")
                .map_err(|_| EngineError::invalid("error parsing check-and-set parameter"))?;
            // Null stands for 0, as where the contract comes from.
            let seen = u64::try_from(seen.unwrap_or_default()).ok();
            let is_passed_over = seen < Some(key.current) && arca_danger::is(Bug::CasAcceptsOlder);
            if seen != Some(key.current) && !is_passed_over {
                return Err(EngineError::invalid(
                    "check-and-set parameter did not match the current version",
                ));
            }
        }
        None if config.cas_required || key.cas_required => {
            return Err(EngineError::invalid("check-and-set parameter required for this call"));
        }
        None => {}
    }
    Ok(())
}

/// Stages `data` as the next version and whatever that pushes out.
fn add(
    keys: &Keys<'_>,
    path: &str,
    mut key: Key,
    config: &Config,
    data: &Map,
) -> Result<Response, EngineError> {
    let dropped = key.add(keys.now(), config);
    keys.store(path, &mut key)?;
    keys.put_data(path, key.current, data)?;
    for number in dropped {
        keys.delete_data(path, number)?;
    }
    let version = key.versions.get(&key.current).copied().unwrap_or_default();
    Ok(Response { data: Some(key.shown_version(key.current, &version)), ..Response::default() })
}

/// JSON merge patch (RFC 7396): null removes, objects merge, anything else replaces.
fn merge(target: &mut Map, patch: &Map) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                target.remove(name);
            }
            Value::Object(inner) => {
                let slot = target.entry(name.clone()).or_insert(Value::Null);
                if let Value::Object(existing) = slot {
                    merge(existing, inner);
                } else {
                    let mut fresh = Map::new();
                    merge(&mut fresh, inner);
                    *slot = Value::Object(fresh);
                }
            }
            other => {
                target.insert(name.clone(), other.clone());
            }
        }
    }
}

/// Deletes the latest version, if it is there.
pub(super) fn delete_latest(keys: &Keys<'_>, path: &str) -> Result<Response, EngineError> {
    let Some(mut key) = keys.load(path)? else { return Ok(Response::empty()) };
    let now = keys.now();
    if let Some(version) = key.versions.get_mut(&key.current).filter(|version| version.is_live(now)) {
        version.delete(now);
        keys.store(path, &mut key)?;
    }
    Ok(Response::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: &Value) -> Map {
        value.as_object().unwrap().clone()
    }

    #[track_caller]
    fn check_merge(target: &Value, patch: &Value, want: &Value) {
        let mut merged = map(target);
        merge(&mut merged, &map(patch));
        assert_eq!(Value::Object(merged), *want);
    }

    /// The object cases of RFC 7396, appendix A.
    #[test]
    fn merges_as_the_rfc_says() {
        check_merge(&json!({"a": "b"}), &json!({"a": "c"}), &json!({"a": "c"}));
        check_merge(&json!({"a": "b"}), &json!({"b": "c"}), &json!({"a": "b", "b": "c"}));
        check_merge(&json!({"a": "b"}), &json!({"a": null}), &json!({}));
        check_merge(&json!({"a": "b", "b": "c"}), &json!({"a": null}), &json!({"b": "c"}));
        check_merge(&json!({"a": ["b"]}), &json!({"a": "c"}), &json!({"a": "c"}));
        check_merge(&json!({"a": "c"}), &json!({"a": ["b"]}), &json!({"a": ["b"]}));
        check_merge(
            &json!({"a": {"b": "c"}}),
            &json!({"a": {"b": "d", "c": null}}),
            &json!({"a": {"b": "d"}}),
        );
        check_merge(&json!({"a": [{"b": "c"}]}), &json!({"a": [1]}), &json!({"a": [1]}));
        check_merge(&json!({"e": null}), &json!({"a": 1}), &json!({"e": null, "a": 1}));
        check_merge(&json!({}), &json!({"a": {"bb": {"ccc": null}}}), &json!({"a": {"bb": {}}}));
    }

    #[track_caller]
    fn check_shape(levels: u32, want: &Value) {
        let secret =
            json!({"user": "alice", "db": {"host": "h", "auth": {"pw": "x"}}, "none": {}, "l": [{"a": 1}]});
        assert_eq!(Value::Object(without_values(map(&secret), levels)), *want);
    }

    #[test]
    fn shows_names_and_no_values() {
        let all = json!({"user": null, "db": {"host": null, "auth": {"pw": null}}, "none": null, "l": null});
        check_shape(u32::MAX, &all);
        check_shape(1, &json!({"user": null, "db": null, "none": null, "l": null}));
        check_shape(2, &json!({"user": null, "db": {"host": null, "auth": null}, "none": null, "l": null}));
    }
}
