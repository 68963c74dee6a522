//! Typed access to a request's fields, as lenient as Vault: numbers and booleans may come as strings, lists as
//! comma-separated text, durations as seconds or `1h30m`. Errors name the field and the type, never the value.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::{EngineError, Map};

/// Most items of one list: what a body can hold besides is no list that anybody wrote.
const LIST_ITEMS_MAX: usize = 1 << 16;

/// A view of the request body.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    data: &'a Map,
}

impl<'a> Fields<'a> {
    /// Wraps a body.
    #[must_use]
    pub fn new(data: &'a Map) -> Self {
        Self { data }
    }

    /// Whether the field was sent and is not null.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// The field as sent.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a Value> {
        self.data.get(name).filter(|value| !value.is_null())
    }

    /// A string; numbers and booleans are taken by their text.
    ///
    /// # Errors
    /// When it is a list or an object.
    pub fn string(&self, name: &str) -> Result<Option<String>, EngineError> {
        self.raw(name).map(|value| scalar_text(value).ok_or_else(|| wrong(name, "string"))).transpose()
    }

    /// A string that must be there and not empty.
    ///
    /// # Errors
    /// When it is missing, empty or no string.
    pub fn required_string(&self, name: &str) -> Result<String, EngineError> {
        self.string(name)?
            .filter(|text| !text.is_empty())
            .ok_or_else(|| EngineError::invalid(format!("missing {name}")))
    }

    /// A boolean: `true`, `"true"`, `1`, `"1"`, `"t"` and their opposites.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, EngineError> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        if let Value::Bool(flag) = value {
            return Ok(Some(*flag));
        }
        match scalar_text(value).ok_or_else(|| wrong(name, "boolean"))?.as_str() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(Some(true)),
            "false" | "False" | "FALSE" | "f" | "F" | "0" | "" => Ok(Some(false)),
            _ => Err(wrong(name, "boolean")),
        }
    }

    /// A whole number, also as a string.
    ///
    /// # Errors
    /// When it is not a whole number that fits 64 bits.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, EngineError> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let text = scalar_text(value).ok_or_else(|| wrong(name, "integer"))?;
        text.trim().parse().map(Some).map_err(|_| wrong(name, "integer"))
    }

    /// A lifetime, see [`parse_duration`].
    ///
    /// # Errors
    /// When it is negative, too long, or no duration.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, EngineError> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let wanted = "duration, such as 90m or 24h, of at most 100 years";
        let text = scalar_text(value).ok_or_else(|| wrong(name, wanted))?;
        parse_duration(&text).map(Some).ok_or_else(|| wrong(name, wanted))
    }

    /// A list of strings: a JSON list, or comma-separated text. Blanks around items are dropped, as are empty items.
    ///
    /// # Errors
    /// When an item is not a scalar, or there are more than 65,536.
    pub fn list(&self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let count = match value {
            Value::Array(items) => items.len(),
            Value::String(text) => text.split(',').count(),
            _ => 1,
        };
        if count > LIST_ITEMS_MAX {
            return Err(wrong(name, &format!("list of at most {LIST_ITEMS_MAX} items")));
        }
        let items = match value {
            Value::Array(items) => items.iter().map(scalar_text).collect::<Option<Vec<_>>>(),
            other => scalar_text(other).map(|text| text.split(',').map(str::to_owned).collect()),
        };
        let items = items.ok_or_else(|| wrong(name, "list of strings"))?;
        Ok(Some(items.iter().map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()))
    }

    /// A list of whole numbers.
    ///
    /// # Errors
    /// When an item is not a whole number.
    pub fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, EngineError> {
        let Some(items) = self.list(name)? else { return Ok(None) };
        items
            .iter()
            .map(|item| item.parse().map_err(|_| wrong(name, "list of integers")))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// An object.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&self, name: &str) -> Result<Option<&'a Map>, EngineError> {
        self.raw(name).map(|value| value.as_object().ok_or_else(|| wrong(name, "map"))).transpose()
    }

    /// An object of strings; also a list of `key=value` texts.
    ///
    /// # Errors
    /// When a value is not a scalar.
    pub fn string_map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, EngineError> {
        let pairs = match self.raw(name) {
            None => return Ok(None),
            Some(Value::Object(map)) => {
                map.iter().map(|(key, value)| Some((key.clone(), scalar_text(value)?))).collect::<Option<_>>()
            }
            Some(Value::Array(items)) => items.iter().map(pair).collect(),
            Some(Value::String(text)) if text.is_empty() => Some(BTreeMap::new()),
            Some(other) => pair(other).map(|entry| BTreeMap::from([entry])),
        };
        pairs.map(Some).ok_or_else(|| wrong(name, "map of strings"))
    }
}

fn pair(value: &Value) -> Option<(String, String)> {
    value.as_str()?.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
}

fn wrong(name: &str, kind: &str) -> EngineError {
    EngineError::Invalid(format!(
        "field validation failed: error converting input for field {name:?}: expected a {kind}"
    ))
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Longest lifetime taken: 100 years.
const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Reads a lifetime: whole seconds (`"30"`), or numbers with units `ns us ms s m h d` (`"1h30m"`, `"1.5h"`).
/// Negative, over-long and malformed text give `None`; empty text is zero.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() {
        return Some(Duration::ZERO);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs).filter(|span| *span <= DURATION_MAX);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.chars().take_while(|letter| letter.is_alphabetic()).map(char::len_utf8).sum();
        let (unit, tail) = tail.split_at_checked(letters)?;
        let number: f64 = number.parse().ok()?;
        let unit_seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit_seconds).ok()?)?;
        rest = tail;
    }
    Some(total).filter(|span| *span <= DURATION_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check_duration(text: &str, want: Option<u64>) {
        assert_eq!(
            parse_duration(text).map(|span| u64::try_from(span.as_millis()).unwrap()),
            want,
            "input {text:?}"
        );
    }

    #[test]
    fn reads_durations() {
        check_duration("30", Some(30_000));
        check_duration("30s", Some(30_000));
        check_duration("1h30m", Some(5_400_000));
        check_duration("1.5h", Some(5_400_000));
        check_duration("2d", Some(172_800_000));
        check_duration("", Some(0));
    }

    #[test]
    fn refuses_bad_durations() {
        for text in ["-1", "-1s", "1x", "s", "1h2", "99999999999999999999", "1e9h", "1.2.3s", "٣s"] {
            check_duration(text, None);
        }
    }

    #[test]
    fn errors_never_quote_the_value() {
        let body = json!({"n": "canary", "l": {"x": "canary"}, "m": "canary", "d": "canary"});
        let fields = Fields::new(body.as_object().unwrap());
        for text in [
            fields.integer("n").unwrap_err().to_string(),
            fields.list("l").unwrap_err().to_string(),
            fields.object("m").unwrap_err().to_string(),
            fields.duration("d").unwrap_err().to_string(),
            fields.boolean("n").unwrap_err().to_string(),
            fields.boolean("l").unwrap_err().to_string(),
            fields.string("l").unwrap_err().to_string(),
            fields.string_map("m").unwrap_err().to_string(),
        ] {
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn lists_come_in_two_shapes() {
        let body = json!({"a": "x, y,,z", "b": ["x", 1], "c": null});
        let fields = Fields::new(body.as_object().unwrap());
        assert_eq!(fields.list("a").unwrap().unwrap(), ["x", "y", "z"]);
        assert_eq!(fields.list("b").unwrap().unwrap(), ["x", "1"]);
        assert_eq!(fields.list("c").unwrap(), None);
    }

    #[test]
    fn lists_are_not_endless() {
        let of = |count: usize| json!({"a": vec!["x"; count].join(","), "b": vec!["x"; count]});
        let (most, more) = (of(LIST_ITEMS_MAX), of(LIST_ITEMS_MAX + 1));
        for name in ["a", "b"] {
            let list = Fields::new(most.as_object().unwrap()).list(name).unwrap().unwrap();
            assert_eq!(list.len(), LIST_ITEMS_MAX);
            let refused = Fields::new(more.as_object().unwrap()).list(name).unwrap_err().to_string();
            assert!(refused.ends_with("expected a list of at most 65536 items"), "{refused}");
        }
    }
}
