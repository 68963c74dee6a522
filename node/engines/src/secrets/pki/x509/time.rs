//! Moments as certificates write them, whole seconds only.

use arca_engine_api::{EngineError, UnixMillis, rfc3339};
use serde_json::Value;
use x509_parser::time::ASN1Time;

use crate::crypto::der;

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The end of the year 9999: nothing later can be written.
const LAST: UnixMillis = UnixMillis(253_402_300_799_000);

/// Whole seconds since the epoch.
pub(crate) fn seconds(moment: UnixMillis) -> u64 {
    moment.0 / 1_000
}

/// The moment without its fraction of a second.
pub(crate) fn whole(moment: UnixMillis) -> UnixMillis {
    UnixMillis(seconds(moment) * 1_000)
}

/// The moment a certificate names; before 1970 is 1970.
pub(crate) fn moment(time: &ASN1Time) -> UnixMillis {
    UnixMillis(u64::try_from(time.timestamp()).unwrap_or_default().saturating_mul(1_000))
}

/// `Time`: two digits of the year until 2049, four after, as RFC 5280 wants it.
pub(crate) fn encode(moment: UnixMillis) -> Vec<u8> {
    let digits = digits(moment);
    let year: u32 = digits.get(..4).and_then(|year| year.parse().ok()).unwrap_or_default();
    if year < 2050 {
        der::write(UTC_TIME, &[digits.get(2..).unwrap_or_default().as_bytes()]).to_vec()
    } else {
        der::write(GENERALIZED_TIME, &[digits.as_bytes()]).to_vec()
    }
}

/// `GeneralizedTime`, as OCSP writes all of its moments.
pub(crate) fn generalized(moment: UnixMillis) -> Vec<u8> {
    der::write(GENERALIZED_TIME, &[digits(moment).as_bytes()]).to_vec()
}

/// `YYYYMMDDHHMMSSZ`.
fn digits(moment: UnixMillis) -> String {
    let text = rfc3339::format(whole(moment).min(LAST));
    text.chars().filter(|letter| letter.is_ascii_digit()).chain(['Z']).collect()
}

/// A moment in a caller's field.
pub(crate) fn parse(field: &str, text: &str) -> Result<UnixMillis, EngineError> {
    rfc3339::parse(text)
        .filter(|moment| *moment <= LAST && text.contains('-'))
        .ok_or_else(|| EngineError::Invalid(format!("{field} is no moment in RFC 3339 text")))
}

/// A moment in a caller's object: RFC 3339 text, or seconds since the epoch as a number or its digits.
pub(crate) fn parse_value(field: &str, value: &Value) -> Result<UnixMillis, EngineError> {
    let seconds = match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) if !text.bytes().all(|byte| byte.is_ascii_digit()) => return parse(field, text),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    seconds
        .and_then(|seconds| seconds.checked_mul(1_000))
        .map(UnixMillis)
        .filter(|moment| *moment <= LAST)
        .ok_or_else(|| {
            EngineError::Invalid(format!("{field} is neither RFC 3339 text nor seconds since the epoch"))
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_form_changes_with_2050() {
        assert_eq!(encode(UnixMillis(2_524_607_999_999)), b"\x17\x0d491231235959Z");
        assert_eq!(encode(UnixMillis(2_524_608_000_000)), b"\x18\x0f20500101000000Z");
        assert_eq!(encode(UnixMillis(u64::MAX)), b"\x18\x0f99991231235959Z");
        assert_eq!(generalized(UnixMillis(0)), b"\x18\x0f19700101000000Z");
    }

    #[test]
    fn callers_write_whole_moments() {
        assert_eq!(parse("not_after", "9999-12-31T23:59:59Z").unwrap(), LAST);
        for bad in ["", "1", "tomorrow", "10000-01-01T00:00:00Z"] {
            assert!(parse("not_after", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_in_objects_may_be_numbers() {
        let want = UnixMillis(1_700_000_000_000);
        for good in [json!(1_700_000_000), json!("1700000000"), json!("2023-11-14T22:13:20Z")] {
            assert_eq!(parse_value("at", &good).unwrap(), want, "{good}");
        }
        for bad in [json!(""), json!(-5), json!(1.5), json!("x"), json!(u64::MAX), json!(true), json!([])] {
            assert!(parse_value("at", &bad).is_err(), "{bad}");
        }
    }
}
