//! What a token must say of whom it is for a role, and what of it a login keeps.

use std::collections::BTreeMap;

use arca_engine_api::{EngineError, Login, Map};
use serde_json::Value;

use super::role::{ClaimsType, Role};
use crate::auth::names;

/// Most groups of one login.
const GROUPS_MAX: usize = 1_000;

/// A claim by its name, or by a JSON pointer (RFC 6901) if the name begins with `/`. Null is as good as missing.
pub(super) fn claim<'a>(claims: &'a Map, name: &str) -> Option<&'a Value> {
    if !name.starts_with('/') {
        return claims.get(name).filter(|value| !value.is_null());
    }
    let mut parts = name.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&parts.next()?)?;
    parts.try_fold(first, |value, part| below(value, &part)).filter(|value| !value.is_null())
}

fn below<'a>(value: &'a Value, part: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(part),
        Value::Array(items) => {
            let is_number = part == "0" || !part.starts_with(['0', '+']);
            items.get(part.parse::<usize>().ok().filter(|_| is_number)?)
        }
        _ => None,
    }
}

/// Who it is: the alias, its metadata and its groups, as the role reads the claims; the groups by `told`, if the provider
/// tells them otherwise. The rest of the login is the caller's.
///
/// # Errors
/// When a claim is missing, has the wrong type or a value the role does not take.
pub(super) fn identity(
    role_name: &str,
    role: &Role,
    claims: &Map,
    told: Option<&Value>,
) -> Result<Login, EngineError> {
    let alias_name = user(role, claims)?;
    let group_aliases = groups(role, claims, told)?;
    let metadata = metadata(role, claims)?;
    check_bound(role, claims)
        .map_err(|text| EngineError::Invalid(format!("error validating claims: {text}")))?;
    let alias_metadata = metadata.clone();
    let mut metadata = metadata;
    metadata.insert("role".to_owned(), role_name.to_owned());
    let internal = Map::from_iter([("role".to_owned(), Value::from(role_name))]);
    let display_name = alias_name.clone();
    Ok(Login {
        alias_name,
        alias_metadata,
        display_name,
        metadata,
        group_aliases: Some(group_aliases),
        internal,
        ..Login::default()
    })
}

fn user(role: &Role, claims: &Map) -> Result<String, EngineError> {
    let name = &role.user_claim;
    let found = if role.user_claim_json_pointer {
        claim(claims, name)
    } else {
        claims.get(name).filter(|value| !value.is_null())
    };
    let found = found.ok_or_else(|| EngineError::Invalid(format!("claim {name:?} not found in token")))?;
    let text = found
        .as_str()
        .ok_or_else(|| EngineError::Invalid(format!("claim {name:?} could not be converted to string")))?;
    // Nobody is nobody's alias.
    if text.is_empty() {
        return Err(EngineError::Invalid(format!("claim {name:?} is empty")));
    }
    Ok(text.to_owned())
}

fn groups(role: &Role, claims: &Map, told: Option<&Value>) -> Result<Vec<String>, EngineError> {
    let name = &role.groups_claim;
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let found = told.or_else(|| claim(claims, name)).ok_or_else(|| {
        EngineError::Invalid(format!("failed to fetch groups: {name:?} claim not found in token"))
    })?;
    let items = match found {
        Value::Array(items) => items.as_slice(),
        Value::Object(_) => {
            let text = format!("{name:?} claim could not be converted to string list");
            return Err(EngineError::Invalid(text));
        }
        one => std::slice::from_ref(one),
    };
    if items.len() > GROUPS_MAX {
        return Err(EngineError::Invalid(format!("the groups claim has more than {GROUPS_MAX} groups")));
    }
    let mut groups = Vec::new();
    for item in items {
        let text = "a value in groups claim could not be parsed as string";
        let group = item.as_str().ok_or_else(|| EngineError::invalid(text))?;
        if !group.is_empty() && !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    Ok(groups)
}

fn metadata(role: &Role, claims: &Map) -> Result<BTreeMap<String, String>, EngineError> {
    let mut metadata = BTreeMap::new();
    for (name, target) in role.claim_mappings.iter().flatten() {
        let Some(value) = claim(claims, name) else { continue };
        let text = value
            .as_str()
            .ok_or_else(|| EngineError::Invalid(format!("error converting claim '{name}' to string")))?;
        metadata.insert(target.clone(), text.to_owned());
    }
    Ok(metadata)
}

/// Each bound claim is there and one of its values is one of those wanted.
fn check_bound(role: &Role, claims: &Map) -> Result<(), String> {
    for (name, wanted) in role.bound_claims.iter().flatten() {
        let found = claim(claims, name).ok_or_else(|| format!("claim {name:?} is missing"))?;
        if found.is_object() {
            return Err("received claim is not a string, bool, int or list".to_owned());
        }
        let is_wanted = values(found)
            .iter()
            .any(|found| values(wanted).iter().any(|wanted| matches(role.bound_claims_type, wanted, found)));
        if !is_wanted {
            return Err(format!("claim {name:?} does not match any associated bound claim values"));
        }
    }
    Ok(())
}

fn values(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn matches(how: ClaimsType, wanted: &Value, found: &Value) -> bool {
    match (how, wanted, found) {
        (ClaimsType::Glob, Value::String(wanted), Value::String(found)) => names::glob(wanted, found),
        (ClaimsType::Glob, ..) => false,
        (ClaimsType::String, Value::Number(wanted), Value::Number(found)) => {
            // As written, or as equal: 3 is 3.0. Floats alone would take one long number for another.
            wanted == found
                || (wanted.as_i64().is_none() || found.as_i64().is_none())
                    && wanted.as_f64() == found.as_f64()
        }
        (ClaimsType::String, ..) => wanted == found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_found_by_name_or_pointer() {
        let claims =
            serde_json::json!({"a": {"b/c": [1, {"d": "x"}], "": 5}, "/a": "plain", "n": null, "": 7});
        let claims = claims.as_object().unwrap();
        let found = |name: &str| claim(claims, name).map(Value::to_string);
        assert_eq!(found("/a/b~1c/1/d").as_deref(), Some("\"x\""));
        assert_eq!(found("/a/b~1c/0").as_deref(), Some("1"));
        assert_eq!(found("/a/").as_deref(), Some("5"));
        assert_eq!(found("/").as_deref(), Some("7"));
        for name in ["n", "/n", "b", "/a/b", "/a/b~1c/2", "a/b"] {
            assert_eq!(found(name), None, "{name}");
        }
    }
}
