//! JSON bodies within limits. Depth, number of values and size are checked in one pass over the bytes before anything
//! is built, so that a hostile body costs no more than its length. (CVE-2025-6203, CVE-2025-59043.)

use arca_engine_api::Map;
use serde_json::Value;

/// Deepest nesting.
const DEPTH_MAX: usize = 100;
/// Most values, keys included.
const VALUES_MAX: usize = 100_000;

/// Why a body is refused. Never quotes the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Nested too deep.
    #[error("JSON is nested deeper than {DEPTH_MAX} levels")]
    Deep,
    /// Not JSON.
    #[error("failed to parse JSON input: line {0}, column {1}")]
    Malformed(usize, usize),
    /// JSON, but no object.
    #[error("failed to parse JSON input: expected an object")]
    NotAnObject,
    /// Too many values.
    #[error("JSON holds more than {VALUES_MAX} values")]
    Wide,
}

/// A body as request fields. Blank is an empty object, and so is `null`.
///
/// # Errors
/// See [`BodyError`].
pub fn parse(bytes: &[u8]) -> Result<Map, BodyError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    within_limits(bytes)?;
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(BodyError::NotAnObject),
        Err(err) => Err(BodyError::Malformed(err.line(), err.column())),
    }
}

fn within_limits(bytes: &[u8]) -> Result<(), BodyError> {
    let (mut depth, mut values) = (0_usize, 0_usize);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in bytes {
        if is_text {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => is_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => is_text = true,
            b'{' | b'[' => {
                depth += 1;
                values += 1;
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' | b':' => values += 1,
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(BodyError::Deep);
        }
        if values > VALUES_MAX {
            return Err(BodyError::Wide);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Result<&str, BodyError>) {
        let got = parse(text.as_bytes()).map(|map| Value::Object(map).to_string());
        assert_eq!(got, want.map(str::to_owned), "input of {} bytes", text.len());
    }

    #[test]
    fn reads_objects() {
        check("", Ok("{}"));
        check(" \n", Ok("{}"));
        check("null", Ok("{}"));
        check(
            r#"{"a":"}{\"","n":12345678901234567890123}"#,
            Ok(r#"{"a":"}{\"","n":12345678901234567890123}"#),
        );
    }

    #[test]
    fn refuses_the_rest() {
        check("[]", Err(BodyError::NotAnObject));
        check("{", Err(BodyError::Malformed(1, 1)));
        check(&format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), Err(BodyError::Deep));
        check(&format!(r#"{{"a":[{}1]}}"#, "1,".repeat(1_000_000)), Err(BodyError::Wide));
    }
}
