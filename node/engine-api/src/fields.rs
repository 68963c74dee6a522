//! Typed access to a request's fields, as lenient as Vault: numbers and booleans may come as strings, lists as
//! comma-separated text, durations as seconds or `1h30m`. Errors name the field and the type, never the value.
//!
//! **Null** is the zero value of the type that is asked for: no text, `false`, 0, no items. So a client that sends a
//! setting as nothing clears it; taken as left out, the old policies or addresses would stay without a word. Only a
//! duration of null counts as left out: for most of them zero means "no limit", and nobody asks for that by saying
//! nothing.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use crate::{EngineError, Field, FieldKind, Map};

/// Most items of one list: what a body can hold besides is no list that anybody wrote.
const LIST_ITEMS_MAX: usize = 1 << 16;

/// What null and an empty list come to where an object is asked for.
static NO_ENTRIES: LazyLock<Map> = LazyLock::new(Map::new);

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

    /// Whether the field was sent as null.
    #[must_use]
    pub fn is_null(&self, name: &str) -> bool {
        self.data.get(name).is_some_and(Value::is_null)
    }

    /// Whether the request says anything of the field: null does, except of a duration, see the module's header.
    #[must_use]
    pub fn says(&self, field: &Field) -> bool {
        self.has(field.name) || (self.is_null(field.name) && field.kind != FieldKind::Duration)
    }

    /// The field as sent, unless it is null.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a Value> {
        self.data.get(name).filter(|value| !value.is_null())
    }

    /// A string; numbers are taken by their text, booleans are `1` and `0` as they are to Vault.
    ///
    /// # Errors
    /// When it is a list or an object.
    pub fn string(&self, name: &str) -> Result<Option<String>, EngineError> {
        self.data.get(name).map(|value| scalar_text(value).ok_or_else(|| wrong(name, "string"))).transpose()
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
        let Some(value) = self.data.get(name) else { return Ok(None) };
        if let Value::Bool(flag) = value {
            return Ok(Some(*flag));
        }
        match scalar_text(value).ok_or_else(|| wrong(name, "boolean"))?.as_str() {
            "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(Some(true)),
            "false" | "False" | "FALSE" | "f" | "F" | "0" | "" => Ok(Some(false)),
            _ => Err(wrong(name, "boolean")),
        }
    }

    /// A whole number, also as a string; empty text is 0. Text is decimal, though Vault takes `010` for 8: a leading
    /// zero is a slip far oftener than it is octal.
    ///
    /// # Errors
    /// When it is not a whole number that fits 64 bits.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, EngineError> {
        let Some(value) = self.data.get(name) else { return Ok(None) };
        let text = scalar_text(value).ok_or_else(|| wrong(name, "integer"))?;
        if text.is_empty() {
            return Ok(Some(0));
        }
        text.trim().parse().map(Some).map_err(|_| wrong(name, "integer"))
    }

    /// A lifetime, see [`parse_duration`]; null is as good as not sent.
    ///
    /// # Errors
    /// When it is negative, too long, or no duration. A boolean is none: `true` would be one second.
    pub fn duration(&self, name: &str) -> Result<Option<Duration>, EngineError> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        let wanted = "duration, such as 90m or 24h, of at most 100 years";
        let text = Some(value).filter(|value| !value.is_boolean()).and_then(scalar_text);
        let text = text.ok_or_else(|| wrong(name, wanted))?;
        parse_duration(&text).map(Some).ok_or_else(|| wrong(name, wanted))
    }

    /// A list of strings that grants something: a JSON list, or comma-separated text. Blanks around items are dropped,
    /// as are empty items: Vault keeps them, and then each engine has to see to it that nothing matches the empty name.
    ///
    /// # Errors
    /// When an item is not a scalar, or there are more than 65,536.
    pub fn list(&self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
        let items = self.items(name)?;
        Ok(items.map(|items| items.into_iter().filter(|item| !item.is_empty()).collect()))
    }

    /// A list of strings that restricts something, where no items at all stand for no restriction: as [`Self::list`],
    /// but an empty item is refused. Dropped, `[""]` from a template whose variable is unset would lift the
    /// restriction that it was to set.
    ///
    /// # Errors
    /// As for [`Self::list`], and when an item is empty.
    pub fn bounds(&self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
        let items = self.items(name)?;
        if items.iter().flatten().any(String::is_empty) {
            return Err(wrong(name, "list without empty items"));
        }
        Ok(items)
    }

    fn items(&self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
        let Some(value) = self.data.get(name) else { return Ok(None) };
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
            Value::Object(map) if map.is_empty() => Some(Vec::new()),
            other => scalar_text(other).map(|text| match text.trim() {
                "" => Vec::new(),
                text => text.split(',').map(str::to_owned).collect(),
            }),
        };
        let items = items.ok_or_else(|| wrong(name, "list of strings"))?;
        Ok(Some(items.iter().map(|item| item.trim().to_owned()).collect()))
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

    /// An object; also an empty list, as which some languages write an empty one.
    ///
    /// # Errors
    /// When it is something else.
    pub fn object(&self, name: &str) -> Result<Option<&'a Map>, EngineError> {
        match self.data.get(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(Value::Null) => Ok(Some(&NO_ENTRIES)),
            Some(Value::Array(items)) if items.is_empty() => Ok(Some(&NO_ENTRIES)),
            Some(_) => Err(wrong(name, "map")),
        }
    }

    /// An object of strings; also a list of `key=value` texts. Empty text is an empty one: Vault refuses that, but it
    /// takes it for a list, and a script's unset variable means the same in both.
    ///
    /// # Errors
    /// When a value is not a scalar.
    pub fn string_map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, EngineError> {
        let pairs = match self.data.get(name) {
            None => return Ok(None),
            Some(Value::Null) => Some(BTreeMap::new()),
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
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(u8::from(*flag).to_string()),
        Value::Array(_) | Value::Object(_) => None,
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

    /// What a reader makes of a body whose field `f` is `input`; `refused` for an error.
    #[track_caller]
    fn check(read: impl Fn(Fields<'_>) -> Result<Value, EngineError>, input: &Value, expected: &Value) {
        let body = json!({"f": input});
        let got = read(Fields::new(body.as_object().unwrap())).unwrap_or_else(|_| json!("refused"));
        assert_eq!(got, *expected, "input {input}");
    }

    #[track_caller]
    fn check_string(input: Value, expected: Value) {
        check(|fields| fields.string("f").map(|got| json!(got)), &input, &expected);
    }

    #[track_caller]
    fn check_boolean(input: Value, expected: Value) {
        check(|fields| fields.boolean("f").map(|got| json!(got)), &input, &expected);
    }

    #[track_caller]
    fn check_integer(input: Value, expected: Value) {
        check(|fields| fields.integer("f").map(|got| json!(got)), &input, &expected);
    }

    #[track_caller]
    fn check_seconds(input: Value, expected: Value) {
        check(|fields| fields.duration("f").map(|got| json!(got.map(|it| it.as_secs()))), &input, &expected);
    }

    #[track_caller]
    fn check_lists(input: Value, list: Value, bounds: Value) {
        check(|fields| fields.list("f").map(|got| json!(got)), &input, &list);
        check(|fields| fields.bounds("f").map(|got| json!(got)), &input, &bounds);
    }

    #[track_caller]
    fn check_maps(input: Value, object: Value, string_map: Value) {
        check(|fields| fields.object("f").map(|got| json!(got)), &input, &object);
        check(|fields| fields.string_map("f").map(|got| json!(got)), &input, &string_map);
    }

    #[test]
    fn strings() {
        check_string(json!(null), json!(""));
        check_string(json!(""), json!(""));
        check_string(json!(" a "), json!(" a "));
        check_string(json!(true), json!("1"));
        check_string(json!(false), json!("0"));
        check_string(json!(1.5), json!("1.5"));
        check_string(json!([]), json!("refused"));
        check_string(json!({}), json!("refused"));
    }

    #[test]
    fn booleans() {
        check_boolean(json!(null), json!(false));
        check_boolean(json!(""), json!(false));
        check_boolean(json!(1), json!(true));
        check_boolean(json!("0"), json!(false));
        check_boolean(json!("T"), json!(true));
        check_boolean(json!(5), json!("refused"));
        check_boolean(json!("yes"), json!("refused"));
        check_boolean(json!([]), json!("refused"));
    }

    #[test]
    fn integers() {
        check_integer(json!(null), json!(0));
        check_integer(json!(""), json!(0));
        check_integer(json!(true), json!(1));
        check_integer(json!(false), json!(0));
        check_integer(json!("-1"), json!(-1));
        check_integer(json!("010"), json!(10));
        check_integer(json!(1.5), json!("refused"));
        check_integer(json!("1.5"), json!("refused"));
        check_integer(json!([]), json!("refused"));
    }

    #[test]
    fn durations_of_null_are_left_out() {
        check_seconds(json!(null), json!(null));
        check_seconds(json!(""), json!(0));
        check_seconds(json!("30m"), json!(1_800));
        check_seconds(json!(true), json!("refused"));
        check_seconds(json!(-1), json!("refused"));
        check_seconds(json!([]), json!("refused"));
    }

    #[test]
    fn lists() {
        check_lists(json!(null), json!([]), json!([]));
        check_lists(json!(""), json!([]), json!([]));
        check_lists(json!([]), json!([]), json!([]));
        check_lists(json!({}), json!([]), json!([]));
        check_lists(json!(" a , b "), json!(["a", "b"]), json!(["a", "b"]));
        check_lists(json!([" a ", 1, true]), json!(["a", "1", "1"]), json!(["a", "1", "1"]));
        check_lists(json!([""]), json!([]), json!("refused"));
        check_lists(json!(["a", null]), json!(["a"]), json!("refused"));
        check_lists(json!("a,,b"), json!(["a", "b"]), json!("refused"));
        check_lists(json!(","), json!([]), json!("refused"));
        check_lists(json!([["a"]]), json!("refused"), json!("refused"));
        check_lists(json!({"a": "b"}), json!("refused"), json!("refused"));
    }

    #[test]
    fn maps() {
        check_maps(json!(null), json!({}), json!({}));
        check_maps(json!([]), json!({}), json!({}));
        check_maps(json!({}), json!({}), json!({}));
        check_maps(json!(""), json!("refused"), json!({}));
        check_maps(json!("a=b"), json!("refused"), json!({"a": "b"}));
        check_maps(json!(["a=b"]), json!("refused"), json!({"a": "b"}));
        let mixed = json!({"a": 1, "b": true, "c": null});
        check_maps(mixed.clone(), mixed, json!({"a": "1", "b": "1", "c": ""}));
        check_maps(json!({"a": {"b": 1}}), json!({"a": {"b": 1}}), json!("refused"));
    }

    #[test]
    fn what_is_not_sent_is_none() {
        let body = json!({"n": null});
        let fields = Fields::new(body.as_object().unwrap());
        assert_eq!(fields.string("f").unwrap(), None);
        assert_eq!(fields.boolean("f").unwrap(), None);
        assert_eq!(fields.integer("f").unwrap(), None);
        assert_eq!(fields.duration("f").unwrap(), None);
        assert_eq!(fields.list("f").unwrap(), None);
        assert_eq!(fields.object("f").unwrap(), None);
        assert_eq!(fields.string_map("f").unwrap(), None);
        for (name, kind, says) in
            [("n", FieldKind::List, true), ("n", FieldKind::Duration, false), ("f", FieldKind::List, false)]
        {
            assert_eq!(fields.says(&Field::new(name, kind, "")), says, "{name} as {kind:?}");
        }
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
