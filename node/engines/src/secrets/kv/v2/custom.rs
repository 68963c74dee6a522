//! Custom metadata: the caller's own notes on a key, few and short.

use std::collections::BTreeMap;

use arca_engine_api::{EngineError, Map};
use serde_json::Value;

const ENTRIES_MAX: usize = 64;
const NAME_LEN_MAX: usize = 128;
const VALUE_LEN_MAX: usize = 512;

/// The notes `patch` leaves of `old`: each entry replaces one, null removes it.
pub(super) fn patched(
    old: Option<&BTreeMap<String, String>>,
    patch: &Map,
) -> Result<BTreeMap<String, String>, EngineError> {
    let mut notes = old.cloned().unwrap_or_default();
    for (name, value) in patch {
        if value.is_null() {
            notes.remove(name);
        } else {
            notes.insert(name.clone(), text_of(name, value)?);
        }
    }
    checked(notes)
}

/// The notes that replace all there were.
pub(super) fn replaced(new: &Map) -> Result<BTreeMap<String, String>, EngineError> {
    let text = |(name, value): (&String, &Value)| Ok((name.clone(), text_of(name, value)?));
    checked(new.iter().map(text).collect::<Result<_, EngineError>>()?)
}

fn text_of(name: &str, value: &Value) -> Result<String, EngineError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        // As the reference servers convert them.
        Value::Bool(flag) => Ok(u8::from(*flag).to_string()),
        Value::Null => Ok(String::new()),
        Value::Array(_) | Value::Object(_) => {
            Err(refused(&format!("value for key {name:?} is not a string")))
        }
    }
}

fn checked(notes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, EngineError> {
    if notes.len() > ENTRIES_MAX {
        let count = notes.len();
        return Err(refused(&format!("payload must contain at most {ENTRIES_MAX} keys, provided {count}")));
    }
    for (name, value) in &notes {
        let (name_len, value_len) = (name.len(), value.len());
        if name_len == 0 || name_len > NAME_LEN_MAX {
            let rule = format!("must be 0 < len(key) <= {NAME_LEN_MAX}");
            return Err(refused(&format!("length of key {name:?} is {name_len} but {rule}")));
        }
        if value_len == 0 || value_len > VALUE_LEN_MAX {
            let rule = format!("must be 0 < len(value) <= {VALUE_LEN_MAX}");
            return Err(refused(&format!("length of value for key {name:?} is {value_len} but {rule}")));
        }
        if name.chars().any(char::is_control) || value.chars().any(char::is_control) {
            return Err(refused(&format!("key {name:?} or its value contains unprintable characters")));
        }
    }
    Ok(notes)
}

fn refused(why: &str) -> EngineError {
    EngineError::invalid(format!("custom_metadata validation failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(new: &Value, want: &str) {
        let got = replaced(new.as_object().unwrap());
        assert_eq!(got.map_or_else(|err| err.to_string(), |notes| format!("{notes:?}")), want);
    }

    #[test]
    fn takes_short_printable_notes() {
        check(&json!({"a": "b", "n": 7, "t": true}), r#"{"a": "b", "n": "7", "t": "1"}"#);
        let prefix = "custom_metadata validation failed:";
        check(&json!({"a": ["b"]}), &format!("{prefix} value for key \"a\" is not a string"));
        let rule = "must be 0 < len(value) <= 512";
        check(&json!({"a": ""}), &format!("{prefix} length of value for key \"a\" is 0 but {rule}"));
        let rule = "must be 0 < len(key) <= 128";
        check(&json!({"": "b"}), &format!("{prefix} length of key \"\" is 0 but {rule}"));
        let unprintable = "or its value contains unprintable characters";
        check(&json!({"a": "b\u{7}"}), &format!("{prefix} key \"a\" {unprintable}"));
    }

    #[test]
    fn takes_64_notes_and_no_more() {
        let notes = |count: usize| (0..count).map(|at| (at.to_string(), json!("x"))).collect::<Map>();
        assert!(replaced(&notes(64)).is_ok() && replaced(&notes(65)).is_err());
        let full = replaced(&notes(64)).unwrap();
        assert!(patched(Some(&full), json!({"more": "x"}).as_object().unwrap()).is_err());
        let swap = json!({"more": "x", "0": null});
        assert_eq!(patched(Some(&full), swap.as_object().unwrap()).unwrap().len(), 64);
    }
}
