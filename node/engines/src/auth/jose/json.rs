//! JSON objects of which there is one reading: a name that comes twice is refused, at any depth.
//!
//! Parsers differ in which of two equal names counts, so a token with two `sub` may be one person to who signed it and
//! another to who reads it.

use std::fmt;

use arca_engine_api::Map;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Deepest nesting.
const DEPTH_MAX: usize = 32;

/// The object, if it is one and each name is there once.
pub(in crate::auth) fn object(bytes: &[u8]) -> Option<Map> {
    let text = std::str::from_utf8(bytes).ok()?;
    match value(text, 0)? {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

fn value(text: &str, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    match text.trim_start().as_bytes().first()? {
        b'{' => {
            let Entries(entries) = serde_json::from_str(text).ok()?;
            let mut map = Map::new();
            for (name, text) in entries {
                if map.insert(name, value(text.get(), depth + 1)?).is_some() {
                    return None;
                }
            }
            Some(Value::Object(map))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            items.iter().map(|item| value(item.get(), depth + 1)).collect::<Option<_>>().map(Value::Array)
        }
        _ => serde_json::from_str(text).ok(),
    }
}

/// An object's names and values as they come, equal names too.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        let got = object(text.as_bytes()).map(|map| Value::Object(map).to_string());
        assert_eq!(got.as_deref(), want, "{text}");
    }

    #[test]
    fn an_object_has_one_reading() {
        check(r#" {"a":1, "b":[{"c":null}], "d":1.50} "#, Some(r#"{"a":1,"b":[{"c":null}],"d":1.50}"#));
        check(r#"{"a":1,"a":1}"#, None);
        check(r#"{"a":1,"\u0061":2}"#, None);
        check(r#"{"a":{"b":1,"b":2}}"#, None);
        check(r#"{"a":[{"b":1,"b":2}]}"#, None);
        check(r#"{"a":1,"A":2}"#, Some(r#"{"A":2,"a":1}"#));
        // A name by which the parser tells itself of long numbers is a name like any other.
        let private = r#"{"$serde_json::private::Number":"1"}"#;
        check(private, Some(private));
        for text in
            ["", "1", "[1]", "\"a\"", "{", r#"{"a":1}x"#, r#"{"a":1}{"#, r#"{"a":NaN}"#, "null", "{a:1}"]
        {
            check(text, None);
        }
        let deep = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(object(deep(DEPTH_MAX).as_bytes()).is_some());
        assert!(object(deep(DEPTH_MAX + 1).as_bytes()).is_none());
        assert!(object(&[b'{', b'"', 0xff, b'"', b':', b'1', b'}']).is_none());
    }
}
