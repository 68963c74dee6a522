//! For whom a token is.

use arca_engine_api::Map;
use serde_json::Value;

/// The `aud` claim: one string or a list of them; none when it is something else. Never compared but as whole strings
/// (CVE-2024-5798).
pub(in crate::auth) fn of(claims: &Map) -> Option<Vec<String>> {
    match claims.get("aud") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::String(one)) => Some(vec![one.clone()]),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Some(_) => None,
    }
}

/// Whether one of them is wanted.
pub(in crate::auth) fn meet(audiences: &[String], wanted: &[String]) -> bool {
    audiences.iter().any(|audience| wanted.contains(audience))
}
