//! Headers an operator adds to answers: to all of them, to a family of statuses, or to one status.

use std::collections::BTreeMap;

use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// What browsers are told unless the operator says otherwise: to come back by TLS only.
const TLS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");
/// Names that only the server itself sets.
const OWN_PREFIX: &str = "x-vault-";

/// Which answers get a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answers {
    /// All.
    All,
    /// Those of a family: 2 for 200 to 299.
    Family(u16),
    /// Those of one status.
    Status(u16),
}

impl std::str::FromStr for Answers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected \"default\", \"1xx\" to \"5xx\", or a status from 100 to 599";
        let number =
            |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        if text == "default" {
            return Ok(Self::All);
        }
        match text.strip_suffix("xx").map(number) {
            Some(Some(family @ 1..=5)) => Ok(Self::Family(family)),
            Some(_) => Err(EXPECTED),
            None => match number(text) {
                Some(status @ 100..=599) => Ok(Self::Status(status)),
                _ => Err(EXPECTED),
            },
        }
    }
}

/// See the file's header.
#[derive(Clone, Debug)]
pub struct ResponseHeaders(BTreeMap<Answers, HeaderMap>);

impl Default for ResponseHeaders {
    fn default() -> Self {
        let all = HeaderMap::from_iter([(STRICT_TRANSPORT_SECURITY, TLS_ONLY)]);
        Self(BTreeMap::from([(Answers::All, all)]))
    }
}

impl ResponseHeaders {
    /// Whether only the server sets the header of that name.
    #[must_use]
    pub fn is_own(name: &str) -> bool {
        name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX))
    }

    /// Adds one header; its values are joined by `; `.
    ///
    /// # Errors
    /// What was expected, when name or values cannot be sent or the name is the server's own.
    pub fn add(&mut self, answers: Answers, name: &str, values: &[String]) -> Result<(), &'static str> {
        let name = HeaderName::try_from(name).map_err(|_| "expected the name of a header")?;
        if Self::is_own(name.as_str()) {
            return Err("expected a name that does not begin with X-Vault-: those are the server's own");
        }
        let values: Vec<&str> =
            values.iter().map(|value| value.trim()).filter(|value| !value.is_empty()).collect();
        let value = HeaderValue::try_from(values.join("; ")).map_err(|_| "expected text on one line")?;
        self.0.entry(answers).or_default().insert(name, value);
        Ok(())
    }

    /// Sets what is due on an answer of `status`: the more specific wins. What the body is, only the server says.
    pub(crate) fn apply(&self, status: StatusCode, headers: &mut HeaderMap) {
        let status = status.as_u16();
        for answers in [Answers::All, Answers::Family(status / 100), Answers::Status(status)] {
            let Some(added) = self.0.get(&answers) else { continue };
            for (name, value) in added {
                if name != CONTENT_TYPE || !headers.contains_key(CONTENT_TYPE) {
                    headers.insert(name.clone(), value.clone());
                }
            }
        }
    }
}

/// What every page is sent with: no other site frames it to have its buttons pressed, and no address of it, which may hold
/// a code, is told to others. What a page may run, it says itself.
pub(crate) fn guard_page(headers: &mut HeaderMap) {
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("frame-ancestors 'none'; object-src 'none'"),
    );
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<Answers>) {
        assert_eq!(text.parse().ok(), want, "input {text:?}");
    }

    #[test]
    fn reads_whom_a_header_is_for() {
        check("default", Some(Answers::All));
        check("2xx", Some(Answers::Family(2)));
        check("404", Some(Answers::Status(404)));
        for bad in ["", "6xx", "0xx", "xx", "20x", "99", "600", "+200", "+2xx", "all"] {
            check(bad, None);
        }
    }

    fn headers() -> ResponseHeaders {
        let mut headers = ResponseHeaders::default();
        for (answers, name, value) in [
            ("default", "X-Frame-Options", "DENY"),
            ("default", "X-Own", "all"),
            ("default", "Content-Type", "text/html"),
            ("4xx", "X-Own", "family"),
            ("404", "X-Own", "status"),
        ] {
            headers.add(answers.parse().unwrap(), name, &[value.to_owned()]).unwrap();
        }
        headers
    }

    #[track_caller]
    fn applied(status: u16, name: &str, want: Option<&str>) {
        let mut map = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        headers().apply(StatusCode::from_u16(status).unwrap(), &mut map);
        assert_eq!(map.get(name).map(|value| value.to_str().unwrap()), want, "{name} at {status}");
        assert_eq!(map.get_all(name).iter().count(), usize::from(want.is_some()));
    }

    #[test]
    fn the_more_specific_wins() {
        applied(200, "x-own", Some("all"));
        applied(403, "x-own", Some("family"));
        applied(404, "x-own", Some("status"));
        applied(404, "x-frame-options", Some("DENY"));
        applied(200, "content-type", Some("application/json"));
        applied(200, "strict-transport-security", Some("max-age=31536000; includeSubDomains"));
        applied(200, "x-other", None);
    }

    #[test]
    fn joins_values_and_refuses_what_cannot_be_sent() {
        let mut headers = ResponseHeaders::default();
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        headers
            .add(Answers::All, "Strict-Transport-Security", &values(&["max-age=1", " ", "preload "]))
            .unwrap();
        let mut map = HeaderMap::new();
        headers.apply(StatusCode::OK, &mut map);
        assert_eq!(map["strict-transport-security"], "max-age=1; preload");
        for (name, value) in [("X-Vault-Own", "a"), ("a b", "a"), ("", "a"), ("a", "b\nc")] {
            assert!(headers.add(Answers::All, name, &values(&[value])).is_err(), "{name:?}: {value:?}");
        }
    }
}
