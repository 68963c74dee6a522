//! Pages of other origins: a browser asks before it lets one call, and shows it only answers that name its origin.

use arca_kernel::CorsConfig;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

/// Methods a page may use.
const METHODS: &[&str] = &["DELETE", "GET", "LIST", "OPTIONS", "PATCH", "POST", "PUT", "SCAN"];
/// Seconds a browser may remember the answer to its question.
const MAX_AGE: HeaderValue = HeaderValue::from_static("300");

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No page of another origin is involved, or the settings say nothing about them.
    Unconcerned,
    /// Serve it; the answer gets these headers.
    Serve(HeaderMap),
    /// The browser's question, answered by these headers.
    Answer(HeaderMap),
    /// Not served.
    Refuse(StatusCode, &'static str),
}

/// Applies the settings to a request.
pub(crate) fn judge(config: &CorsConfig, method: &Method, headers: &HeaderMap) -> Verdict {
    let Some(origin) = headers.get(ORIGIN).filter(|_| config.is_enabled) else {
        return Verdict::Unconcerned;
    };
    if !config.allowed_origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
    {
        return Verdict::Refuse(StatusCode::FORBIDDEN, "origin not allowed");
    }
    let mut answer = HeaderMap::new();
    answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    answer.insert(VARY, HeaderValue::from_static("Origin"));
    if method != Method::OPTIONS {
        return Verdict::Serve(answer);
    }
    let wanted = headers.get(ACCESS_CONTROL_REQUEST_METHOD).map(HeaderValue::as_bytes).unwrap_or_default();
    if !METHODS.iter().any(|allowed| allowed.as_bytes() == wanted) {
        return Verdict::Refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
    }
    for (name, values) in [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS.join(",")),
        (ACCESS_CONTROL_ALLOW_HEADERS, config.allowed_headers.join(",")),
    ] {
        if let Ok(value) = HeaderValue::try_from(values) {
            answer.insert(name, value);
        }
    }
    answer.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    Verdict::Answer(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(origins: &[&str], method: &str, headers: &[(&'static str, &'static str)]) -> String {
        let config = CorsConfig {
            is_enabled: !origins.is_empty(),
            allowed_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            allowed_headers: vec!["Content-Type".to_owned(), "X-Own".to_owned()],
        };
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let verdict = judge(&config, &Method::from_bytes(method.as_bytes()).unwrap(), &headers.collect());
        let shown = |headers: &HeaderMap| {
            let mut lines: Vec<_> =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            lines.sort();
            lines.join("; ")
        };
        match verdict {
            Verdict::Unconcerned => "unconcerned".to_owned(),
            Verdict::Serve(headers) => format!("serve, {}", shown(&headers)),
            Verdict::Answer(headers) => format!("answer, {}", shown(&headers)),
            Verdict::Refuse(status, text) => format!("{} {text}", status.as_u16()),
        }
    }

    #[test]
    fn nothing_changes_without_an_origin_or_without_settings() {
        assert_eq!(ask(&["http://a"], "GET", &[]), "unconcerned");
        assert_eq!(ask(&[], "GET", &[("origin", "http://a")]), "unconcerned");
        assert_eq!(ask(&[], "OPTIONS", &[("origin", "http://a")]), "unconcerned");
    }

    #[test]
    fn an_allowed_origin_is_served_and_named() {
        let want = "serve, access-control-allow-origin: http://a; vary: Origin";
        assert_eq!(ask(&["http://a", "http://b"], "GET", &[("origin", "http://a")]), want);
        assert_eq!(ask(&["*"], "PUT", &[("origin", "http://a")]), want);
    }

    #[test]
    fn any_other_origin_is_refused() {
        for (allowed, origin) in [
            ("http://a", "http://evil"),
            ("http://a", "http://A"),
            ("http://*.a", "http://b.a"),
            ("http://a", "null"),
        ] {
            assert_eq!(ask(&[allowed], "GET", &[("origin", origin)]), "403 origin not allowed");
            assert_eq!(ask(&[allowed], "OPTIONS", &[("origin", origin)]), "403 origin not allowed");
        }
    }

    #[test]
    fn a_question_is_answered() {
        let ask_for = |method| {
            ask(
                &["http://a"],
                "OPTIONS",
                &[("origin", "http://a"), ("access-control-request-method", method)],
            )
        };
        let want = "answer, access-control-allow-headers: Content-Type,X-Own; \
                    access-control-allow-methods: DELETE,GET,LIST,OPTIONS,PATCH,POST,PUT,SCAN; \
                    access-control-allow-origin: http://a; access-control-max-age: 300; vary: Origin";
        assert_eq!(ask_for("LIST"), want);
        assert_eq!(ask_for("TRACE"), "405 method not allowed");
        assert_eq!(ask(&["http://a"], "OPTIONS", &[("origin", "http://a")]), "405 method not allowed");
    }
}
