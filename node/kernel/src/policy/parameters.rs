//! `allowed_parameters`, `denied_parameters`, `required_parameters`: which fields a write may carry.
//!
//! Names are compared without regard to case, values deeply; texts may begin or end with `*`. A scalar is compared by
//! its text as well, because handlers take `"60"` and `60` for the same. Where products differ on list values, both
//! readings count: a denied element or a denied whole list denies, an allowed whole or all elements allow. Text that a handler
//! reads as a list counts as that list, so that commas, blanks and case lead around no rule.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use arca_engine_api::{Field, FieldKind, Fields, Map};
use serde_json::Value;

/// Field names, lower-case, to values; an empty list stands for any value.
pub type ValueLists = BTreeMap<String, Vec<Value>>;

/// Rules about the fields of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// If not empty, the only fields there may be; `*` for any other.
    pub allowed: ValueLists,
    /// Fields or values there may not be; `*` for any at all.
    pub denied: ValueLists,
    /// Fields there must be.
    pub required: BTreeSet<String>,
}

impl Parameters {
    /// Whether `data` keeps to the rules. `fields` are what the route knows.
    #[must_use]
    pub fn allow(&self, data: &Map, fields: &[Field]) -> bool {
        if self.required.iter().any(|name| !data.contains_key(name)) {
            return false;
        }
        data.is_empty()
            || (!self.denied.contains_key("*")
                && data
                    .iter()
                    .all(|(name, value)| self.allow_one(name, &Seen::of(data, name, value, fields))))
    }

    fn allow_one(&self, name: &str, value: &Seen<'_>) -> bool {
        let name = name.to_lowercase();
        if self.denied.get(&name).is_some_and(|denied| denied.is_empty() || value.is_any_of(denied)) {
            return false;
        }
        if self.allowed.is_empty() {
            return true;
        }
        let allowed = self.allowed.get(&name).or_else(|| self.allowed.get("*"));
        allowed.is_some_and(|allowed| allowed.is_empty() || value.is_all_of(allowed))
    }

    /// Adds another policy's rules for the same pattern: lists are joined, "any value" wins.
    pub fn merge(&mut self, other: &Self) {
        merge_lists(&mut self.allowed, &other.allowed);
        merge_lists(&mut self.denied, &other.denied);
        self.required.extend(other.required.iter().cloned());
    }
}

fn merge_lists(own: &mut ValueLists, other: &ValueLists) {
    for (name, values) in other {
        match own.get_mut(name) {
            None => drop(own.insert(name.clone(), values.clone())),
            Some(mine) if mine.is_empty() || values.is_empty() => mine.clear(),
            Some(mine) => mine.extend(values.iter().cloned()),
        }
    }
}

/// A value as rules see it: as it was sent, and as the items that a handler makes of it.
struct Seen<'a> {
    whole: &'a Value,
    items: Cow<'a, [Value]>,
    /// The handler reads a list, so that text is split at its commas.
    is_list: bool,
}

impl<'a> Seen<'a> {
    fn of(data: &'a Map, name: &str, whole: &'a Value, fields: &[Field]) -> Self {
        let is_list = fields.iter().any(|field| field.name == name && field.kind == FieldKind::List);
        let list = if is_list { Fields::new(data).list(name).ok().flatten() } else { None };
        let items = match list {
            // Some handlers split the items of a JSON list as well.
            Some(items) => {
                items.iter().flat_map(|item| item.split(',')).map(|item| Value::from(item.trim())).collect()
            }
            None => Cow::Borrowed(elements(whole)),
        };
        Self { whole, items, is_list }
    }

    /// Whether anything in it is denied. Handlers read names of policies whatever their case, so items of lists count in any.
    fn is_any_of(&self, denied: &[Value]) -> bool {
        contains(denied, self.whole)
            || self.items.iter().any(|item| contains(denied, item))
            || self.is_list && self.items.iter().any(|item| contains(&folded(denied), &folded_one(item)))
    }

    /// Whether everything in it is allowed. A glob is held against each item: it would take what stands behind a comma as well.
    fn is_all_of(&self, allowed: &[Value]) -> bool {
        let is_whole = match self.whole {
            Value::String(_) if self.is_list => allowed.contains(self.whole),
            whole => contains(allowed, whole),
        };
        is_whole || (!self.items.is_empty() && self.items.iter().all(|item| contains(allowed, item)))
    }
}

fn folded(list: &[Value]) -> Vec<Value> {
    list.iter().map(folded_one).collect()
}

fn folded_one(value: &Value) -> Value {
    value.as_str().map_or_else(|| value.clone(), |text| Value::from(text.to_lowercase()))
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn contains(list: &[Value], value: &Value) -> bool {
    list.iter().any(|wanted| matches(wanted, value))
}

fn matches(wanted: &Value, value: &Value) -> bool {
    match (wanted, value) {
        (Value::Array(wanted), Value::Array(values)) => {
            wanted.len() == values.len()
                && wanted.iter().zip(values).all(|(wanted, value)| same(wanted, value))
        }
        (Value::Object(_), Value::Object(_)) => same(wanted, value),
        (Value::Number(_), Value::Number(_)) => same(wanted, value),
        _ => match (scalar_text(wanted), scalar_text(value)) {
            (Some(wanted), Some(value)) => glob(&wanted, &value),
            _ => wanted == value,
        },
    }
}

/// Deep equality; numbers by value, not by how they were written.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left == right,
            _ => left.as_f64().is_some() && left.as_f64() == right.as_f64(),
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(_) | Value::Null | Value::Object(_) => None,
    }
}

/// `*` stands for anything at the beginning and at the end; alone it is a mere star, as in Vault.
fn glob(pattern: &str, text: &str) -> bool {
    if pattern.len() < 2 {
        return pattern == text;
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(tail), Some(_)) => text.contains(tail.strip_suffix('*').unwrap_or(tail)),
        (Some(tail), None) => text.ends_with(tail),
        (None, Some(head)) => text.starts_with(head),
        (None, None) => pattern == text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lists(value: &Value) -> ValueLists {
        let map = value.as_object().cloned().unwrap_or_default();
        map.into_iter().map(|(name, values)| (name, values.as_array().cloned().unwrap())).collect()
    }

    /// `rules` is `{allowed, denied, required}`.
    #[track_caller]
    fn check(rules: Value, data: Value, want: bool) {
        let parameters = Parameters {
            allowed: lists(&rules["allowed"]),
            denied: lists(&rules["denied"]),
            required: rules["required"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|v| v.as_str().unwrap().to_owned())
                .collect(),
        };
        let fields = [Field::new("list", FieldKind::List, "A list.")];
        assert_eq!(parameters.allow(data.as_object().unwrap(), &fields), want, "rules {rules} data {data}");
    }

    #[test]
    fn allowed_is_a_whitelist_unless_it_holds_a_star() {
        let rules = json!({"allowed": {"a": ["x", "pre*"], "b": []}});
        check(rules.clone(), json!({"a": "x"}), true);
        check(rules.clone(), json!({"A": "prefix"}), true);
        check(rules.clone(), json!({"a": "y"}), false);
        check(rules.clone(), json!({"b": {"any": 1}}), true);
        check(rules.clone(), json!({"c": 1}), false);
        check(rules, json!({}), true);
        check(json!({"allowed": {"a": ["x"], "*": []}}), json!({"c": 1, "a": "x"}), true);
        check(json!({"allowed": {"a": ["x"], "*": []}}), json!({"a": "y"}), false);
        check(json!({"allowed": {"*": ["x"]}}), json!({"c": "y"}), false);
    }

    #[test]
    fn denied_beats_allowed() {
        check(json!({"denied": {"a": ["x"]}, "allowed": {"a": []}}), json!({"a": "x"}), false);
        check(json!({"denied": {"a": ["x"]}}), json!({"a": "y"}), true);
        check(json!({"denied": {"a": []}}), json!({"a": null}), false);
        check(json!({"denied": {"*": []}}), json!({"z": 1}), false);
        check(json!({"denied": {"*": []}}), json!({}), true);
        check(json!({"denied": {"a": ["*x*"]}}), json!({"A": "axb"}), false);
    }

    #[test]
    fn list_values_count_whole_and_by_element() {
        check(json!({"allowed": {"a": ["x", "y"]}}), json!({"a": ["x", "y"]}), true);
        check(json!({"allowed": {"a": ["x", "y"]}}), json!({"a": ["x", "z"]}), false);
        check(json!({"allowed": {"a": [["x", "z"]]}}), json!({"a": ["x", "z"]}), true);
        check(json!({"allowed": {"a": ["x"]}}), json!({"a": []}), false);
        check(json!({"denied": {"a": ["root"]}}), json!({"a": ["default", "root"]}), false);
        check(json!({"denied": {"a": [["x", "z"]]}}), json!({"a": ["x", "z"]}), false);
    }

    #[test]
    fn text_that_is_read_as_a_list_is_one() {
        for sent in
            [json!("x,admin"), json!("x, admin"), json!(["x,admin"]), json!([" ADMIN"]), json!("Admin")]
        {
            check(json!({"denied": {"list": ["admin"]}}), json!({ "list": sent }), false);
        }
        check(json!({"denied": {"text": ["admin"]}}), json!({"text": "x,admin"}), true);
        let rules = json!({"allowed": {"list": ["dev-*", "a,b"]}});
        check(rules.clone(), json!({"list": "dev-a,dev-b"}), true);
        check(rules.clone(), json!({"list": "dev-a,admin"}), false);
        check(rules.clone(), json!({"list": "a,b"}), true);
        check(rules, json!({"list": "dev-a, x"}), false);
        check(json!({"allowed": {"text": ["dev-*"]}}), json!({"text": "dev-a, the first"}), true);
    }

    /// A handler takes 60 and "60" for the same, so the rule does too.
    #[test]
    fn scalars_compare_by_what_a_handler_reads() {
        check(json!({"denied": {"ttl": [60]}}), json!({"ttl": "60"}), false);
        check(json!({"denied": {"ttl": ["60"]}}), json!({"ttl": 60}), false);
        check(json!({"denied": {"ttl": [60]}}), json!({"ttl": 60.0}), false);
        check(json!({"allowed": {"on": [true]}}), json!({"on": "true"}), true);
        check(json!({"allowed": {"on": [{"k": 1}]}}), json!({"on": {"k": 1}}), true);
        check(json!({"allowed": {"on": ["*"]}}), json!({"on": "x"}), false);
    }

    #[test]
    fn required_must_be_there() {
        check(json!({"required": ["a"]}), json!({"a": null}), true);
        check(json!({"required": ["a"]}), json!({"b": 1}), false);
        check(json!({"required": ["a"]}), json!({}), false);
    }

    #[test]
    fn merging_joins_lists_and_any_value_wins() {
        let mut own = Parameters { allowed: lists(&json!({"a": [1], "b": []})), ..Parameters::default() };
        own.merge(&Parameters {
            allowed: lists(&json!({"a": [2], "b": [3], "c": [4]})),
            ..Parameters::default()
        });
        assert_eq!(own.allowed, lists(&json!({"a": [1, 2], "b": [], "c": [4]})));
    }
}
