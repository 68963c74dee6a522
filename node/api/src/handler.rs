//! A request's way in and out: form checked, kernel asked, answer rendered; carried to the active node if only that
//! one can serve it.
//! **Invariant:** the path the kernel sees is the canonical one, and every header that must be single is.
//! Futures are pinned where they are awaited, as in [`crate::server`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::fields::parse_duration;
use arca_engine_api::{Clock, Fault, Map, Operation};
use arca_kernel::{Answer, AnswerBody, Body, Incoming, Kernel, KernelError};
use arca_raft_storage::SnapshotStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, LOCATION, ORIGIN, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::closed::ClosedPaths;
use crate::cors::{self, Verdict};
use crate::lifecycle::{self, Endpoint};
use crate::render::{self, Rendered};
use crate::request_ids::RequestIds;
use crate::response_headers;
use crate::status::status_of;
use crate::system::{Carried, CarriedBack, CarryFailure, System};
use crate::{body, path, query};

/// Set on an answer to a forwarded request by a node that is not active: nothing was done, ask another.
pub const NOT_ACTIVE_HEADER: &str = "x-arca-not-active";

/// Names of headers, parsed once: every request is asked for all of them.
mod names {
    use http::HeaderName;

    /// Echoed in the answer as it was sent.
    pub(super) static NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
    pub(super) static TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
    pub(super) static WRAP_TTL: HeaderName = HeaderName::from_static("x-vault-wrap-ttl");
    pub(super) static WRAP_FORMAT: HeaderName = HeaderName::from_static("x-vault-wrap-format");
    pub(super) static INDEX: HeaderName = HeaderName::from_static("x-vault-index");
    pub(super) static INCONSISTENT: HeaderName = HeaderName::from_static("x-vault-inconsistent");
    pub(super) static NO_FORWARDING: HeaderName = HeaderName::from_static("x-vault-no-request-forwarding");
}

/// How long a standby holds a request while a new active node is being found.
const FAILOVER_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a node that was not active a moment ago is asked again.
const NOTICE_PAUSE: Duration = Duration::from_millis(2);

/// How long whoever writes at a fenced primary is asked to wait: nothing changes there before a person acts.
const FENCED_PAUSE_SECONDS: &str = "60";

/// A response body: whole, or streamed (a snapshot).
pub type ResponseBody = Either<Full<Bytes>, StreamBody<FrameStream>>;
/// Frames of a streamed body.
pub type FrameStream = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send>>;

/// A request body: read whole within the limit, or streamed (a snapshot being restored).
pub enum RawBody {
    /// Whole.
    Bytes(Bytes),
    /// As it comes. The lock only makes it shareable.
    Stream(Mutex<SnapshotStream>),
}

/// A request as a listener, or a standby, received it.
pub struct RawRequest {
    /// Method.
    pub method: Method,
    /// Path, undecoded.
    pub path: String,
    /// Query, undecoded, without `?`.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: RawBody,
    /// The client, as the listener's rules decide it.
    pub remote: SocketAddr,
    /// Its DER certificates, leaf first.
    pub client_certificates: Arc<[Vec<u8>]>,
    /// The node that carried it here; it is then never carried on.
    pub forwarded_from: Option<String>,
    /// The listener lets a standby answer from what it has.
    pub allows_stale: bool,
    /// The listener lets anybody read this node's metrics.
    pub unauthenticated_metrics: bool,
    /// What the listener does not offer.
    pub closed: ClosedPaths,
}

/// The API of one node.
pub struct Api {
    /// The node.
    pub system: Arc<dyn System>,
    /// Names for requests.
    pub request_ids: Arc<RequestIds>,
    /// For latencies.
    pub clock: Arc<dyn Clock>,
}

/// A refusal before the kernel is asked.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

/// What is left of a request once its form is understood.
struct Understood {
    operation: Operation,
    path: String,
    fields: Map,
}

impl Api {
    /// Serves one request. Never fails: every failure is an answer.
    pub async fn respond(&self, request: RawRequest) -> Response<ResponseBody> {
        let started = self.clock.monotonic();
        let namespace = request.headers.get(&names::NAMESPACE).cloned();
        let mut response = match self.judged(&request) {
            Ok(Verdict::Unconcerned) => pin!(self.routed(request)).await,
            Ok(Verdict::Serve(headers)) => with_headers(self.routed(request).await, headers),
            Ok(Verdict::Answer(headers)) => {
                with_headers(full(Rendered { status: StatusCode::OK, body: Bytes::new() }), headers)
            }
            Ok(Verdict::Refuse(status, text)) => full(render::errors(status, &[text.to_owned()])),
            Err(err) => failed(&err, ""),
        };
        if let Some(namespace) = namespace {
            response.headers_mut().insert(&names::NAMESPACE, namespace);
        }
        let spent = self.clock.monotonic().saturating_sub(started);
        metrics::histogram!("vault.core.handle_request").record(spent.as_secs_f64() * 1e3);
        response
    }

    /// What the settings say of a page of another origin. They are part of the state: a sealed node has none.
    fn judged(&self, request: &RawRequest) -> Result<Verdict, KernelError> {
        match self.system.kernel() {
            Some(kernel) if request.headers.contains_key(ORIGIN) => {
                Ok(cors::judge(&kernel.cors()?, &request.method, &request.headers))
            }
            _ => Ok(Verdict::Unconcerned),
        }
    }

    async fn routed(&self, request: RawRequest) -> Response<ResponseBody> {
        let Some(raw) = request.path.strip_prefix("/v1/") else { return full(outside(&request)) };
        let path = match path::canonical(raw) {
            Ok(path) => path,
            Err(err) => match self.with_raw_rest(raw, &request) {
                Some(path) => path,
                None => return full(render::errors(StatusCode::BAD_REQUEST, &[err.to_string()])),
            },
        };
        if let Some(refused) = request.closed.refuse(&path) {
            return full(refused);
        }
        let namespace = header(&request.headers, &names::NAMESPACE).and_then(canonical_namespace);
        let is_root = matches!(namespace, Ok(ref name) if name.is_empty());
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        // Boxed, or every request would move the largest of these from hand to hand.
        match Endpoint::find(&path) {
            Some(endpoint) if is_root => Box::pin(self.lifecycle(endpoint, request)).await,
            None if is_root && is_read && path == "sys/metrics" && request.unauthenticated_metrics => {
                self.metrics(&request.query)
            }
            _ => Box::pin(self.through_kernel(path, namespace, request)).await,
        }
    }

    /// The path of a read whose route takes its rest as it was written.
    fn with_raw_rest(&self, raw: &str, request: &RawRequest) -> Option<String> {
        let kernel = self.system.kernel().filter(|_| request.method == Method::GET)?;
        let namespace = header(&request.headers, &names::NAMESPACE).and_then(canonical_namespace).ok()?;
        path::with_raw_rest(raw, |path| kernel.takes_raw_rest(&namespace, path))
    }

    /// This node's own figures, sealed or not.
    fn metrics(&self, query: &str) -> Response<ResponseBody> {
        let refused = |text: &str| full(render::errors(StatusCode::BAD_REQUEST, &[text.to_owned()]));
        let Ok(fields) = query::parse(query) else { return refused("bad escape in the query") };
        let (is_prometheus, content_type) =
            match fields.get("format").and_then(Value::as_str).unwrap_or_default() {
                "prometheus" => (true, "text/plain; version=0.0.4"),
                "" | "json" => (false, "application/json"),
                _ => return refused("metrics format must be \"prometheus\" or empty"),
            };
        let Some(text) = self.system.metrics(is_prometheus) else {
            return refused("telemetry is not enabled");
        };
        let mut response = full(Rendered { status: StatusCode::OK, body: text.into() });
        set_content_type(&mut response, content_type);
        response
    }

    async fn lifecycle(&self, endpoint: Endpoint, request: RawRequest) -> Response<ResponseBody> {
        if endpoint.needs_active() && !self.system.is_active() && self.system.kernel().is_some() {
            let carried = self.carry(&request, FAILOVER_PATIENCE).await;
            return carried.unwrap_or_else(|| self.redirect(&request));
        }
        let RawBody::Bytes(bytes) = &request.body else {
            return full(render::errors(StatusCode::BAD_REQUEST, &["unexpected body".to_owned()]));
        };
        let rendered =
            lifecycle::serve(self.system.as_ref(), endpoint, &request.method, &request.query, bytes).await;
        full(rendered)
    }

    async fn through_kernel(
        &self,
        path: String,
        namespace: Result<String, Refusal>,
        mut request: RawRequest,
    ) -> Response<ResponseBody> {
        let Some(kernel) = self.system.kernel() else {
            // A node that seals or stops may still be taken for the active one.
            if request.forwarded_from.is_some() {
                return not_active();
            }
            return full(render::errors(StatusCode::SERVICE_UNAVAILABLE, &["Vault is sealed".to_owned()]));
        };
        if request.headers.contains_key(&names::NO_FORWARDING) && !self.system.is_active() {
            return self.redirect(&request);
        }
        let namespace = match namespace {
            Ok(namespace) => namespace,
            Err(Refusal(status, text)) => return full(render::errors(status, &[text])),
        };
        let deadline = self.clock.monotonic() + FAILOVER_PATIENCE;
        loop {
            let is_restore = matches!(request.body, RawBody::Stream(_));
            if (request.allows_stale || !self.system.is_behind())
                && let Some(response) = pin!(self.here(&kernel, &path, &namespace, &mut request)).await
            {
                return response;
            }
            if is_restore {
                return self.redirect(&request);
            }
            let patience = deadline.saturating_sub(self.clock.monotonic());
            match self.carry(&request, patience).await {
                Some(response) => return response,
                None if self.clock.monotonic() >= deadline => return self.redirect(&request),
                // Leadership has come to this node on the way: serve it here. Or it has just gone, and the node has
                // yet to notice: it needs a moment for that.
                None => tokio::time::sleep(NOTICE_PAUSE).await,
            }
        }
    }

    /// Serves the request on this node. `None`: only the active node can, and nothing was done here.
    async fn here(
        &self,
        kernel: &Kernel,
        path: &str,
        namespace: &str,
        request: &mut RawRequest,
    ) -> Option<Response<ResponseBody>> {
        let incoming = match self.incoming(path.to_owned(), namespace.to_owned(), request) {
            Ok(incoming) => incoming,
            Err(Refusal(status, text)) => return Some(full(render::errors(status, &[text]))),
        };
        let (operation, request_id) = (incoming.operation, incoming.id.clone());
        match pin!(kernel.handle(incoming)).await {
            Ok(answer) => Some(finished(answer, operation)),
            Err(err) if err.fault() == Fault::NeedsActive => None,
            Err(err) if err.fault() == Fault::Sealed && request.forwarded_from.is_some() => None,
            Err(err) => Some(failed(&err, &request_id)),
        }
    }

    /// HTTP taken off. Takes a streamed body out of `request`, leaves the rest for carrying on.
    fn incoming(
        &self,
        path: String,
        namespace: String,
        request: &mut RawRequest,
    ) -> Result<Incoming, Refusal> {
        let headers = &request.headers;
        let is_streamed = matches!(request.body, RawBody::Stream(_));
        let understood = if is_streamed {
            Understood { operation: Operation::Update, path, fields: Map::new() }
        } else {
            understand(path, request)?
        };
        let token = token(headers)?;
        let wrap_ttl = wrap_ttl(headers)?;
        let wants_jwt_wrapping = header(headers, &names::WRAP_FORMAT)?.eq_ignore_ascii_case("jwt");
        let required_index = texts(headers, &names::INDEX);
        let passed = passed_headers(headers);
        let id = self.request_ids.next();
        let body = if is_streamed {
            match std::mem::replace(&mut request.body, RawBody::Bytes(Bytes::new())) {
                RawBody::Stream(stream) => Body::stream(stream.into_inner()),
                RawBody::Bytes(_) => Body::Fields(Map::new()),
            }
        } else {
            Body::Fields(understood.fields)
        };
        Ok(Incoming {
            id,
            operation: understood.operation,
            namespace,
            path: understood.path,
            body,
            headers: passed,
            token,
            remote_addr: Some(request.remote.ip()),
            remote_port: request.remote.port(),
            client_certificates: Arc::clone(&request.client_certificates),
            wrap_ttl,
            wants_jwt_wrapping,
            required_index,
            forwarded_from: request.forwarded_from.clone(),
            forwards_when_behind: forwards_when_behind(headers),
            allows_stale: request.allows_stale,
        })
    }

    /// Carries the request to the active node, waiting up to `patience` for there to be one. `None`: it was not
    /// delivered to anybody, and the caller may serve it, redirect it or give up.
    async fn carry(&self, request: &RawRequest, patience: Duration) -> Option<Response<ResponseBody>> {
        if request.forwarded_from.is_some() {
            return Some(not_active());
        }
        let RawBody::Bytes(body) = &request.body else { return None };
        let target = if request.query.is_empty() {
            request.path.clone()
        } else {
            format!("{}?{}", request.path, request.query)
        };
        let carried = Carried {
            method: request.method.to_string(),
            target,
            headers: request.headers.clone(),
            body: body.clone(),
            remote: request.remote,
            client_certificates: Arc::clone(&request.client_certificates),
        };
        match self.system.carry(carried, patience).await {
            Ok(back) => Some(carried_back(back)),
            Err(CarryFailure::Undelivered) => None,
            Err(CarryFailure::OutcomeUnknown) if arca_danger::is(arca_danger::Bug::ForwardedTwice) => None,
            Err(CarryFailure::OutcomeUnknown) => {
                let text = "the active node did not answer: a write may or may not have happened".to_owned();
                Some(full(render::errors(StatusCode::INTERNAL_SERVER_ERROR, &[text])))
            }
        }
    }

    /// 307 to the active node, or 503 when none is known.
    fn redirect(&self, request: &RawRequest) -> Response<ResponseBody> {
        let target = self.system.redirect_address().and_then(|base| {
            let question = if request.query.is_empty() { "" } else { "?" };
            let location =
                format!("{}{}{question}{}", base.trim_end_matches('/'), request.path, request.query);
            HeaderValue::try_from(location).ok()
        });
        let Some(location) = target else {
            let text = "no active node is known at the moment, try again".to_owned();
            return full(render::errors(StatusCode::SERVICE_UNAVAILABLE, &[text]));
        };
        let mut response = full(Rendered { status: StatusCode::TEMPORARY_REDIRECT, body: Bytes::new() });
        response.headers_mut().insert(LOCATION, location);
        response
    }
}

/// Replaces what the active node may have said of the same.
fn with_headers(mut response: Response<ResponseBody>, headers: HeaderMap) -> Response<ResponseBody> {
    response.headers_mut().extend(headers);
    response
}

/// The sender believes we are active and we are not: it asks again once it has heard who is.
fn not_active() -> Response<ResponseBody> {
    let text = "the active node has just changed, try again".to_owned();
    let mut response = full(render::errors(StatusCode::SERVICE_UNAVAILABLE, &[text]));
    response.headers_mut().insert(NOT_ACTIVE_HEADER, HeaderValue::from_static("1"));
    response
}

fn carried_back(back: CarriedBack) -> Response<ResponseBody> {
    let mut response = Response::new(Either::Left(Full::new(back.body)));
    *response.status_mut() = StatusCode::from_u16(back.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in back.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// Paths outside `/v1/`.
fn outside(request: &RawRequest) -> Rendered {
    if request.path.starts_with("/v1")
        || !matches!(request.method, Method::GET | Method::HEAD)
        || request.path != "/"
    {
        return render::errors(StatusCode::NOT_FOUND, &[]);
    }
    let body = Bytes::from_static(b"{\"arca\":\"the API is below /v1/\"}");
    Rendered { status: StatusCode::OK, body }
}

fn understand(mut path: String, request: &RawRequest) -> Result<Understood, Refusal> {
    let RawBody::Bytes(bytes) = &request.body else { return Err(Refusal::bad("unexpected body")) };
    let mut fields = query::parse(&request.query).map_err(Refusal::bad)?;
    let mut flag =
        |name: &str| fields.remove(name).is_some_and(|value| !matches!(value.as_str(), Some("false" | "0")));
    let (is_list, is_scan, is_help) = (flag("list"), flag("scan"), flag("help"));
    if is_list && is_scan {
        return Err(Refusal::bad("list and scan cannot be asked for together"));
    }
    let operation = match request.method.as_str() {
        "GET" | "HEAD" if is_help => Operation::Help,
        "HELP" => Operation::Help,
        "GET" | "HEAD" if is_list => Operation::List,
        "GET" | "HEAD" if is_scan => Operation::Scan,
        "GET" | "HEAD" => Operation::Read,
        "LIST" => Operation::List,
        "SCAN" => Operation::Scan,
        "DELETE" => Operation::Delete,
        "PUT" | "POST" => Operation::Update,
        "PATCH" => Operation::Patch,
        _ => return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "unsupported method".to_owned())),
    };
    if matches!(operation, Operation::List | Operation::Scan) && !path.ends_with('/') {
        path.push('/');
    }
    match operation {
        Operation::Update => fields = body_fields(request, bytes)?,
        Operation::Patch => {
            let kind = content_type(&request.headers)?;
            if kind != "application/merge-patch+json" {
                let text = "PATCH needs the content type application/merge-patch+json".to_owned();
                return Err(Refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
            }
            fields = body::parse(bytes).map_err(|err| Refusal::bad(err.to_string()))?;
        }
        _ => {}
    }
    Ok(Understood { operation, path, fields })
}

/// The media type, lower-case, without parameters.
fn content_type(headers: &HeaderMap) -> Result<String, Refusal> {
    let value = header(headers, &CONTENT_TYPE)?;
    Ok(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// JSON whatever the content type says, unless it says form and the body does not look like JSON. An OCSP request is
/// bytes by its standard; engines get it as Base64 in a field.
fn body_fields(request: &RawRequest, bytes: &Bytes) -> Result<Map, Refusal> {
    let kind = content_type(&request.headers)?;
    if kind == "application/ocsp-request" {
        return Ok(Map::from_iter([("ocsp_request".to_owned(), STANDARD.encode(bytes).into())]));
    }
    let is_form = kind == "application/x-www-form-urlencoded";
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if is_form && !matches!(first, None | Some(b'{' | b'[')) {
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::bad("form body is not UTF-8"))?;
        return query::parse(text).map_err(Refusal::bad);
    }
    body::parse(bytes).map_err(|err| Refusal::bad(err.to_string()))
}

/// A header that may be sent once; empty when absent.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok("") };
    if values.next().is_some() {
        return Err(Refusal::bad(format!("header {name} is sent twice")));
    }
    value.to_str().map_err(|_| Refusal::bad(format!("header {name} is not text")))
}

fn texts(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}

/// The token: its own header wins over a bearer.
fn token(headers: &HeaderMap) -> Result<Option<Arc<Zeroizing<String>>>, Refusal> {
    let own = header(headers, &names::TOKEN)?.trim();
    let bearer = header(headers, &AUTHORIZATION)?;
    let text = if own.is_empty() {
        let is_bearer = bearer.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer "));
        bearer.get(7..).filter(|_| is_bearer).unwrap_or_default().trim()
    } else {
        own
    };
    if text.len() > 8 << 10 {
        return Err(Refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "token is over 8 KiB".to_owned()));
    }
    Ok((!text.is_empty()).then(|| Arc::new(Zeroizing::new(text.to_owned()))))
}

fn wrap_ttl(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let text = header(headers, &names::WRAP_TTL)?;
    let ttl = parse_duration(text).ok_or_else(|| Refusal::bad("X-Vault-Wrap-TTL is not a duration"))?;
    Ok((!ttl.is_zero()).then_some(ttl))
}

/// Whether a node that is behind the state the caller has seen shall pass the request on instead of refusing it.
#[must_use]
pub(crate) fn forwards_when_behind(headers: &HeaderMap) -> bool {
    let wishes = headers.get_all(&names::INCONSISTENT).iter();
    wishes.map(|value| value.as_bytes().trim_ascii()).any(|wish| wish == b"forward-active-node")
}

/// Empty for the root namespace, else with a trailing slash.
fn canonical_namespace(raw: &str) -> Result<String, Refusal> {
    let trimmed = raw.trim().trim_matches('/');
    if trimmed.is_empty() || trimmed == "root" {
        return Ok(String::new());
    }
    let name = path::canonical(trimmed).map_err(|err| Refusal::bad(format!("namespace: {err}")))?;
    Ok(format!("{name}/"))
}

/// Headers a mount may see or audit may record. Never the token, whatever header carried it.
fn passed_headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    const KEPT_BACK: &[&str] = &[
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "host",
        "transfer-encoding",
        "x-vault-request",
        "x-vault-token",
    ];
    let mut passed = BTreeMap::new();
    for (name, value) in headers {
        if KEPT_BACK.contains(&name.as_str()) {
            continue;
        }
        let values: &mut Vec<String> = passed.entry(name.as_str().to_owned()).or_default();
        values.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    passed
}

fn full(rendered: Rendered) -> Response<ResponseBody> {
    let has_body = !rendered.body.is_empty();
    let mut response = Response::new(Either::Left(Full::new(rendered.body)));
    *response.status_mut() = rendered.status;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if rendered.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, LIST, POST, PUT, PATCH, DELETE"));
    }
    response
}

fn finished(mut answer: Box<Answer>, operation: Operation) -> Response<ResponseBody> {
    let mut response = match std::mem::take(&mut answer.body) {
        AnswerBody::Json => full(render::answer(&answer, operation)),
        AnswerBody::Raw(raw) => {
            let status = StatusCode::from_u16(raw.status).unwrap_or(StatusCode::OK);
            let mut response = full(Rendered { status, body: raw.body.into() });
            set_content_type(&mut response, &raw.content_type);
            if raw.content_type.starts_with("text/html") {
                response_headers::guard_page(response.headers_mut());
            }
            response
        }
        AnswerBody::Stream(content_type, stream) => {
            let frames =
                stream.into_inner().map(|chunk| chunk.map(Frame::data).map_err(std::io::Error::other));
            let frames: FrameStream = Box::pin(frames);
            let mut response = Response::new(Either::Right(StreamBody::new(frames)));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            set_content_type(&mut response, &content_type);
            response
        }
    };
    if let Some(index) = answer.index.as_deref().and_then(|index| HeaderValue::from_str(index).ok()) {
        response.headers_mut().insert("x-vault-index", index);
    }
    for (name, values) in &answer.headers {
        for value in values {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
                response.headers_mut().append(name, value);
            }
        }
    }
    response
}

fn set_content_type(response: &mut Response<ResponseBody>, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
}

fn failed(err: &KernelError, request_id: &str) -> Response<ResponseBody> {
    if matches!(err.fault(), Fault::Internal | Fault::OutcomeUnknown) {
        tracing::error!(request_id, error = %err, "request failed");
    }
    let mut response = full(render::errors(status_of(err.fault()), &err.public_messages()));
    if err.fault() == Fault::Fenced {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(FENCED_PAUSE_SECONDS));
    }
    response
}
