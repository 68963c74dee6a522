//! Requests before they are sent and answers after they came: plain data, no I/O.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::Error;
use crate::secret::Secret;

/// What a request carries.
#[derive(Clone, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// Bytes in memory, usually JSON.
    Bytes(Bytes),
    /// A file, streamed and opened anew for each attempt.
    File(PathBuf),
}

/// One request to the API, independent of the server it goes to.
#[derive(Clone)]
pub struct Request {
    /// The method. Lists are `GET` with `list=true`, as proxies do not all know `LIST`.
    pub method: Method,
    /// The path below `/v1/`, not encoded.
    pub path: String,
    /// The query, not encoded.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Body,
    /// Headers of this request alone.
    pub headers: HeaderMap,
    /// Whether the token is left out, as for logins and for unsealing.
    pub is_anonymous: bool,
}

impl Request {
    /// A request without query and body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let path = path.into().trim_start_matches('/').to_owned();
        let headers = HeaderMap::new();
        Self { method, path, query: Vec::new(), body: Body::Empty, headers, is_anonymous: false }
    }

    /// A read.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// A list.
    pub fn list(path: impl Into<String>) -> Self {
        Self::get(path).query("list", "true")
    }

    /// A list of everything below, however deep.
    pub fn scan(path: impl Into<String>) -> Self {
        Self::get(path).query("scan", "true")
    }

    /// A write; the API takes `PUT` and `POST` alike.
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// A write; the API takes `PUT` and `POST` alike.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// A deletion.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// A JSON merge patch.
    pub fn patch(path: impl Into<String>) -> Self {
        Self::new(Method::PATCH, path)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/merge-patch+json"))
    }

    /// Adds a query parameter.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.append(name, value);
        self
    }

    /// Takes `body` as JSON.
    pub fn json(mut self, body: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let bytes = serde_json::to_vec(body).map_err(|err| Error::BadRequest { reason: err.to_string() })?;
        self.body = Body::Bytes(bytes.into());
        Ok(self)
    }

    /// Takes bytes as they are.
    pub fn body(mut self, body: Body) -> Self {
        self.body = body;
        self
    }

    /// Leaves the token out.
    pub fn anonymous(mut self) -> Self {
        self.is_anonymous = true;
        self
    }

    /// The encoded path and query, `/v1/…?…`.
    pub(crate) fn path_and_query(&self) -> String {
        let mut out = String::from("/v1/");
        encode_into(&mut out, &self.path, b"/-._~!$&'()*+,;=:@");
        for (index, (name, value)) in self.query.iter().enumerate() {
            out.push(if index == 0 { '?' } else { '&' });
            encode_into(&mut out, name, b"-._~");
            out.push('=');
            encode_into(&mut out, value, b"-._~");
        }
        out
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} {})", self.method, self.path)
    }
}

fn encode_into(out: &mut String, text: &str, plain: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// A request that would have been sent, from [`crate::Config::dry_run`]. The token is not in it.
pub struct PlannedRequest {
    /// The method.
    pub method: Method,
    /// The full URL.
    pub url: String,
    /// The path below `/v1/`, not encoded.
    pub path: String,
    /// Every header but the token.
    pub headers: HeaderMap,
    /// Whether a token would go along.
    pub has_token: bool,
    /// Whether it asks for a list.
    pub is_list: bool,
    /// Whether it asks for a list of everything below.
    pub is_scan: bool,
    /// The body.
    pub body: Body,
}

impl fmt::Display for PlannedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.url)
    }
}

impl fmt::Debug for PlannedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlannedRequest({self})")
    }
}

/// A successful answer, complete and in memory.
pub struct Response {
    /// The status, below 400.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    pub(crate) method: Method,
    pub(crate) path: String,
}

impl Response {
    /// The body as a bare JSON object, such as `sys/seal-status` answers.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|err| self.bad(&err))
    }

    /// The body as an envelope; `None` if there is no body. A bare object, such as `sys/health` answers, becomes the data.
    pub fn secret(&self) -> Result<Option<Secret>, Error> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let mut secret: Secret = self.json()?;
        if secret.is_blank() {
            let bare: Map<String, Value> = self.json()?;
            let is_envelope = ["request_id", "data", "errors"].iter().any(|name| bare.contains_key(*name));
            secret.data = Some(bare).filter(|bare| !bare.is_empty() && !is_envelope);
        }
        Ok(Some(secret))
    }

    /// The `data` of the envelope, typed.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, Error> {
        #[derive(serde::Deserialize)]
        struct Envelope<T> {
            data: T,
        }
        self.json::<Envelope<T>>().map(|envelope| envelope.data)
    }

    /// Says where the answer stops making sense, and never quotes it: it may hold a secret.
    fn bad(&self, err: &serde_json::Error) -> Error {
        let reason = match err.classify() {
            serde_json::error::Category::Data => {
                format!("JSON of another shape than expected at line {}, column {}", err.line(), err.column())
            }
            _ if self.body.starts_with(b"<") => {
                "HTML where JSON was expected; is there a proxy in between?".to_owned()
            }
            _ => format!("no valid JSON at line {}, column {}", err.line(), err.column()),
        };
        Error::BadResponse { method: self.method.clone(), path: self.path.clone(), reason }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({}, {} bytes)", self.status, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(request: Request, want: &str) {
        assert_eq!(request.path_and_query(), want);
    }

    #[test]
    fn encodes_paths_and_queries() {
        check(Request::get("/secret/data/a"), "/v1/secret/data/a");
        check(Request::get("secret/data/a b/ü?#%"), "/v1/secret/data/a%20b/%C3%BC%3F%23%25");
        check(
            Request::list("secret/metadata").query("after", "a&b=c"),
            "/v1/secret/metadata?list=true&after=a%26b%3Dc",
        );
        check(Request::get("sys/policies/acl/a+b"), "/v1/sys/policies/acl/a+b");
    }

    #[track_caller]
    fn check_data(body: &str, want: Option<&str>) {
        let response = Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from(body.to_owned()),
            method: Method::GET,
            path: "a".to_owned(),
        };
        let data = response.secret().unwrap().and_then(|secret| secret.data);
        assert_eq!(data.map(|data| Value::Object(data).to_string()).as_deref(), want, "{body}");
    }

    #[test]
    fn a_bare_object_becomes_the_data() {
        check_data(r#"{"initialized":true,"sealed":false}"#, Some(r#"{"initialized":true,"sealed":false}"#));
        check_data(r#"{"request_id":"r","data":{"a":1}}"#, Some(r#"{"a":1}"#));
        check_data(r#"{"request_id":"","data":null,"warnings":null}"#, None);
        for body in [r#"{"errors":[]}"#, "{}", " "] {
            check_data(body, None);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_makes_a_valid_uri(path in ".*", value in ".*") {
            let request = Request::get(path).query("q", value);
            let address: crate::Address = "http://h:1".parse().unwrap();
            address.uri(&request.path_and_query()).unwrap();
        }
    }
}
