//! Query strings and form bodies as request fields.

use arca_engine_api::Map;
use serde_json::Value;

/// Most fields of a query or form.
const FIELDS_MAX: usize = 1_000;

/// A query string or form body as an object; a repeated key becomes a list.
pub(crate) fn parse(text: &str) -> Result<Map, &'static str> {
    let mut map = Map::new();
    for (count, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if count >= FIELDS_MAX {
            return Err("too many fields");
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) =
            (decode(name).ok_or("bad escape")?, Value::String(decode(value).ok_or("bad escape")?));
        match map.get_mut(&name) {
            None => drop(map.insert(name, value)),
            Some(Value::Array(items)) => items.push(value),
            Some(single) => *single = Value::Array(vec![single.take(), value]),
        }
    }
    Ok(map)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got =
            parse(text).map_or_else(|err| format!("error: {err}"), |map| Value::Object(map).to_string());
        assert_eq!(got, want, "input {text:?}");
    }

    #[test]
    fn reads_fields() {
        check("", "{}");
        check("a=1&b=x%20y&c=p+q", r#"{"a":"1","b":"x y","c":"p q"}"#);
        check("a=1&a=2&a=3", r#"{"a":["1","2","3"]}"#);
        check("flag", r#"{"flag":""}"#);
    }

    #[test]
    fn refuses_garbage() {
        check("a=%zz", "error: bad escape");
        check("a=%ff", "error: bad escape");
        check(&"a=1&".repeat(1_001), "error: too many fields");
    }
}
