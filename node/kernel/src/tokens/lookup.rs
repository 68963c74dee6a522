//! What a token looks like to whoever may look at it.

use arca_engine_api::{Map, UnixMillis};
use serde_json::{Value, json};

use super::lifetime::seconds;
use super::{TokenEntry, TokenState};
use crate::rfc3339;

/// The `data` of a lookup. `presented` is the token where the caller showed it, and empty where it named an accessor.
pub(super) fn data(entry: &TokenEntry, presented: &str, now: UnixMillis) -> Map {
    let mut data = Map::new();
    let mut add = |name: &str, value: Value| drop(data.insert(name.to_owned(), value));
    let metadata = if entry.metadata.is_empty() { Value::Null } else { json!(entry.metadata) };
    add("accessor", json!(entry.accessor));
    add("creation_time", json!(entry.created.0 / 1_000));
    add("creation_ttl", json!(seconds(entry.ttl)));
    add("display_name", json!(entry.display_name));
    add("entity_id", json!(entry.entity_id));
    add("expire_time", entry.expires.map_or(Value::Null, |expires| json!(rfc3339::format(expires))));
    add("explicit_max_ttl", json!(seconds(entry.explicit_max_ttl)));
    add("id", json!(presented));
    add("issue_time", json!(rfc3339::format(entry.created)));
    add("meta", metadata);
    // Taking the last use leaves a mark that readers of this field know.
    let uses = if entry.state == TokenState::Live { i64::from(entry.num_uses) } else { -1 };
    add("num_uses", json!(uses));
    add("orphan", json!(entry.is_orphan()));
    add("path", json!(entry.path));
    add("policies", json!(entry.policies));
    add("renewable", json!(entry.is_renewable));
    add("ttl", json!(entry.time_left(now).map_or(0, seconds)));
    add("type", json!(entry.kind.as_str()));
    if let Some(renewed) = entry.last_renewed {
        add("last_renewal", json!(rfc3339::format(renewed)));
        add("last_renewal_time", json!(renewed.0 / 1_000));
    }
    if !entry.period.is_zero() {
        add("period", json!(seconds(entry.period)));
    }
    if !entry.role.is_empty() {
        add("role", json!(entry.role));
    }
    if !entry.bound_cidrs.is_empty() {
        let shown: Vec<String> = entry.bound_cidrs.iter().map(ToString::to_string).collect();
        add("bound_cidrs", json!(shown));
    }
    if !entry.is_in_root_namespace() {
        add("namespace_path", json!(entry.namespace_path));
    }
    data
}
