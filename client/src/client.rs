//! The client: turns a [`Request`] into an answer or a typed error, over one or several servers.
//! It repeats what [`crate::retry`] says may be repeated, moves on when a server cannot be reached, and follows one
//! redirect, never from TLS to plain HTTP. Cloning is cheap; clones share their connections.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use crate::address::Address;
use crate::config::Config;
use crate::error::{ApiError, Error, TransportError, TransportKind};
use crate::request::{Body, PlannedRequest, Request, Response};
use crate::retry::{Backoff, Jitter, Outcome, Verdict};
use crate::secret::Secret;
use crate::token::Token;
use crate::transport::{BoxError, Connect, SendBody, TcpConnect, Transport, classify};

/// Error bodies are cut to this: they are shown to people.
const ERROR_BYTES_MAX: usize = 1 << 20;
const RAW_ERROR_CHARS_MAX: usize = 300;
/// A file may take this many times the limit of a request, as snapshots are large.
const UPLOAD_TIMEOUT_FACTOR: u32 = 60;
const FILE_CHUNK_BYTES: usize = 1 << 16;

/// A client of the Vault HTTP API.
#[derive(Clone)]
pub struct Client {
    core: Arc<Core>,
    config: Arc<Config>,
}

/// What clones share.
struct Core {
    transport: Transport,
    jitter: Jitter,
    /// Index of the address that answered last.
    current: AtomicUsize,
}

impl Client {
    /// A client over TCP.
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::with_connector(config, Arc::new(TcpConnect))
    }

    /// A client over connections of your own making, such as a simulation's.
    pub fn with_connector(config: Config, connect: Arc<dyn Connect>) -> Result<Self, Error> {
        if config.addresses.is_empty() {
            return Err(Error::Config { name: "addresses".into(), reason: "there is none".into() });
        }
        let transport = Transport::new(&config, connect)?;
        let jitter = Jitter::new(config.retry.jitter_seed);
        let core = Core { transport, jitter, current: AtomicUsize::new(0) };
        Ok(Self { core: Arc::new(core), config: Arc::new(config) })
    }

    /// What the client was told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same client with another token, or none.
    pub fn with_token(&self, token: Option<Token>) -> Self {
        self.changed(|config| config.token = token)
    }

    /// The same client in another namespace.
    pub fn with_namespace(&self, namespace: Option<String>) -> Self {
        self.changed(|config| config.namespace = namespace)
    }

    /// The same client, asking for wrapped answers or not.
    pub fn with_wrap_ttl(&self, wrap_ttl: Option<String>) -> Self {
        self.changed(|config| config.wrap_ttl = wrap_ttl)
    }

    /// The same client, really sending what it is asked to.
    pub fn live(&self) -> Self {
        self.changed(|config| config.dry_run = false)
    }

    fn changed(&self, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::clone(&self.config);
        change(&mut config);
        Self { core: self.core.clone(), config: Arc::new(config) }
    }

    /// Reads `path`; `None` if there is nothing.
    pub async fn read(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.read_request(Request::get(path)).await
    }

    /// Reads by a request of your own; `None` if there is nothing. A 404 that says something is an answer.
    pub async fn read_request(&self, request: Request) -> Result<Option<Secret>, Error> {
        match self.run(&request, Want::Whole { also: Some(StatusCode::NOT_FOUND) }).await? {
            Got::Whole(response) if response.status == StatusCode::NOT_FOUND => {
                Ok(response.secret().ok().flatten().filter(Secret::says_something))
            }
            Got::Whole(response) => response.secret(),
            Got::Live(_) => Ok(None),
        }
    }

    /// The names below `path`; `None` if there are none.
    pub async fn list(&self, path: &str) -> Result<Option<Vec<String>>, Error> {
        Ok(self.read_request(Request::list(path)).await?.map(|secret| secret.keys()))
    }

    /// Writes `body` to `path`.
    pub async fn write(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Result<Option<Secret>, Error> {
        self.send(Request::put(path).json(body)?).await?.secret()
    }

    /// Merges `body` into what is at `path`.
    pub async fn patch(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Result<Option<Secret>, Error> {
        self.send(Request::patch(path).json(body)?).await?.secret()
    }

    /// Deletes `path`.
    pub async fn delete(&self, path: &str) -> Result<Option<Secret>, Error> {
        self.send(Request::delete(path)).await?.secret()
    }

    /// Sends a request and takes an envelope for an answer.
    pub async fn send_secret(&self, request: Request) -> Result<Secret, Error> {
        let (method, path) = (request.method.clone(), request.path.clone());
        let empty = || Error::BadResponse { method, path, reason: "it is empty".into() };
        self.send(request).await?.secret()?.ok_or_else(empty)
    }

    /// Sends a request. Statuses from 400 are errors.
    pub async fn send(&self, request: Request) -> Result<Response, Error> {
        match self.run(&request, Want::Whole { also: None }).await? {
            Got::Whole(response) => Ok(response),
            Got::Live(_) => Err(bad_response(&request, "it was not read to its end")),
        }
    }

    /// Sends a request and streams the answer into `out`; answers its length. Nothing is repeated once bytes flow.
    pub async fn download(
        &self,
        request: Request,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, Error> {
        let mut body = match self.run(&request, Want::Stream).await? {
            Got::Live(body) => body,
            Got::Whole(response) => {
                return Err(bad_response(&request, &format!("status {}", response.status)));
            }
        };
        let broken = |reason: String, source: Option<BoxError>| TransportError {
            address: self.address().map(ToString::to_string).unwrap_or_default(),
            kind: TransportKind::Interrupted,
            reason,
            source,
        };
        let mut count = 0;
        // The limit is on silence, not on the whole: a large snapshot takes its time.
        while let Some(frame) = tokio::time::timeout(self.config.timeout, body.frame())
            .await
            .map_err(|_| broken("no more bytes arrived".into(), None))?
        {
            let frame = frame.map_err(|err| broken(classify(&err, false).1, Some(Box::new(err))))?;
            let Ok(data) = frame.into_data() else { continue };
            let failed = |source| Error::File { path: "the output".into(), source };
            out.write_all(&data).await.map_err(failed)?;
            count += data.len() as u64;
        }
        let failed = |source| Error::File { path: "the output".into(), source };
        out.flush().await.map_err(failed)?;
        Ok(count)
    }

    /// The address that requests go to at the moment; `None` only if there are none at all.
    pub fn address(&self) -> Option<&Address> {
        self.config
            .addresses
            .get(self.core.current.load(Ordering::Relaxed) % self.config.addresses.len().max(1))
    }

    fn current_address(&self) -> Result<&Address, Error> {
        self.address()
            .ok_or_else(|| Error::Config { name: "addresses".into(), reason: "there is none".into() })
    }

    fn move_on(&self, from: usize) {
        // Only if nobody else moved on already.
        let _ = self.core.current.compare_exchange(
            from,
            from.wrapping_add(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Attempts until the answer is final.
    async fn run(&self, request: &Request, want: Want) -> Result<Got, Error> {
        let headers = self.headers(request)?;
        if self.config.dry_run {
            return Err(Error::DryRun(Box::new(self.plan(request, headers)?)));
        }
        let policy = &self.config.retry;
        let mut backoff = Backoff::new(policy, &self.core.jitter);
        let mut unreached = 0;
        loop {
            let index = self.core.current.load(Ordering::Relaxed);
            let outcome = self.attempt(self.current_address()?, request, &headers, want).await;
            let (seen, retry_after) = match &outcome {
                Ok(_) => return outcome,
                Err(Error::Api(err)) => (Outcome::Status(err.status), err.retry_after),
                Err(Error::Transport(err)) => (Outcome::Transport(err.kind), None),
                Err(_) => return outcome,
            };
            match policy.verdict(&request.method, seen) {
                Verdict::Final => return outcome,
                Verdict::Again => {}
                Verdict::Elsewhere => self.move_on(index),
                Verdict::NextAddress => {
                    self.move_on(index);
                    unreached += 1;
                    if unreached % self.config.addresses.len() != 0 {
                        continue;
                    }
                }
            }
            match backoff.next(retry_after) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return outcome,
            }
        }
    }

    /// One attempt, and the one redirect it may follow.
    async fn attempt(
        &self,
        at: &Address,
        request: &Request,
        headers: &HeaderMap,
        want: Want,
    ) -> Result<Got, Error> {
        let uri = at.uri(&request.path_and_query())?;
        let once = async {
            match self.exchange(&uri, request, headers, want).await? {
                Exchanged::Done(got) => Ok(got),
                Exchanged::Redirected(location) => {
                    let target = redirect_target(&uri, &location)?;
                    match self.exchange(&target, request, headers, want).await? {
                        Exchanged::Done(got) => Ok(got),
                        Exchanged::Redirected(to) => {
                            Err(refuse(&target, &to, "only one redirect is followed"))
                        }
                    }
                }
            }
        };
        let limit = match request.body {
            Body::File(_) => self.config.timeout.saturating_mul(UPLOAD_TIMEOUT_FACTOR),
            Body::Empty | Body::Bytes(_) => self.config.timeout,
        };
        let late = |_| TransportError {
            address: at.to_string(),
            kind: TransportKind::Timeout,
            reason: format!("{limit:?} passed"),
            source: None,
        };
        tokio::time::timeout(limit, once).await.map_err(late)?
    }

    async fn exchange(
        &self,
        uri: &Uri,
        request: &Request,
        headers: &HeaderMap,
        want: Want,
    ) -> Result<Exchanged, Error> {
        let mut message = http::Request::new(open_body(&request.body).await?);
        *message.method_mut() = request.method.clone();
        *message.uri_mut() = uri.clone();
        *message.headers_mut() = headers.clone();
        let origin = origin(uri);
        let answer = self.core.transport.send(&origin, message).await?;
        let status = answer.status();
        if self.config.follows_redirects && matches!(status.as_u16(), 301 | 302 | 307 | 308) {
            let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            return match location {
                Some(location) => Ok(Exchanged::Redirected(location.to_owned())),
                None => Err(bad_response(request, "a redirect that says not where to")),
            };
        }
        let is_error = status.as_u16() >= 300 && want.also() != Some(status);
        if want == Want::Stream && !is_error {
            return Ok(Exchanged::Done(Got::Live(answer.into_body())));
        }
        let limit = if is_error { ERROR_BYTES_MAX } else { self.config.response_bytes_max };
        let (parts, body) = answer.into_parts();
        let body = collect(body, limit, &origin, &request.path).await?;
        if is_error {
            return Err(api_error(uri, request, parts.status, &parts.headers, &body).into());
        }
        let (method, path) = (request.method.clone(), request.path.clone());
        let response = Response { status: parts.status, headers: parts.headers, body, method, path };
        Ok(Exchanged::Done(Got::Whole(response)))
    }

    fn headers(&self, request: &Request) -> Result<HeaderMap, Error> {
        let mut headers = self.config.headers.clone();
        let bad = |what: &str| Error::BadRequest {
            reason: format!("the {what} holds characters a header cannot carry"),
        };
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(token) =
            self.config.token.as_ref().filter(|token| !token.is_empty() && !request.is_anonymous)
        {
            // The header is the one place a token travels.
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| bad("token"))?;
            value.set_sensitive(true);
            headers.insert("x-vault-token", value);
        }
        if let Some(namespace) = &self.config.namespace {
            headers
                .insert("x-vault-namespace", HeaderValue::from_str(namespace).map_err(|_| bad("namespace"))?);
        }
        if let Some(ttl) = &self.config.wrap_ttl {
            headers.insert("x-vault-wrap-ttl", HeaderValue::from_str(ttl).map_err(|_| bad("wrap TTL"))?);
        }
        if matches!(request.body, Body::Bytes(_)) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &request.headers {
            headers.insert(name.clone(), value.clone());
        }
        Ok(headers)
    }

    fn plan(&self, request: &Request, mut headers: HeaderMap) -> Result<PlannedRequest, Error> {
        let has_token = headers.remove("x-vault-token").is_some();
        let asks_for = |what: &str| request.query.iter().any(|(name, value)| name == what && value == "true");
        Ok(PlannedRequest {
            method: request.method.clone(),
            url: self.current_address()?.uri(&request.path_and_query())?.to_string(),
            path: request.path.clone(),
            headers,
            has_token,
            is_list: asks_for("list"),
            is_scan: asks_for("scan"),
            body: request.body.clone(),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.config).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    /// The whole answer, also for this one status that is otherwise an error.
    Whole { also: Option<StatusCode> },
    /// The body as it comes.
    Stream,
}

impl Want {
    fn also(self) -> Option<StatusCode> {
        match self {
            Self::Whole { also } => also,
            Self::Stream => None,
        }
    }
}

enum Got {
    Whole(Response),
    Live(Incoming),
}

enum Exchanged {
    Done(Got),
    Redirected(String),
}

async fn open_body(body: &Body) -> Result<SendBody, Error> {
    let bytes = match body {
        Body::Empty => Bytes::new(),
        Body::Bytes(bytes) => bytes.clone(),
        Body::File(path) => {
            let failed = |source| Error::File { path: path.clone(), source };
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            let chunks = ReaderStream::with_capacity(file, FILE_CHUNK_BYTES);
            return Ok(StreamBody::new(chunks.map(|read| read.map(Frame::data).map_err(BoxError::from)))
                .boxed_unsync());
        }
    };
    Ok(Full::new(bytes).map_err(|never| match never {}).boxed_unsync())
}

async fn collect(body: Incoming, limit: usize, address: &str, path: &str) -> Result<Bytes, Error> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(err) if err.is::<LengthLimitError>() => Err(Error::TooLarge { path: path.to_owned(), limit }),
        Err(err) => {
            let (kind, reason) = classify(err.as_ref(), false);
            Err(TransportError { address: address.to_owned(), kind, reason, source: Some(err) }.into())
        }
    }
}

fn origin(uri: &Uri) -> String {
    format!(
        "{}://{}",
        uri.scheme_str().unwrap_or("http"),
        uri.authority().map_or("", |authority| authority.as_str())
    )
}

fn redirect_target(from: &Uri, location: &str) -> Result<Uri, Error> {
    let refused = |reason: &str| refuse(from, location, reason);
    let target: Uri = location.parse().map_err(|_| refused("it is not a URL"))?;
    let target = if target.authority().is_some() {
        target
    } else {
        format!("{}{location}", origin(from)).parse().map_err(|_| refused("it is not a URL"))?
    };
    match (from.scheme_str(), target.scheme_str()) {
        (Some("https"), Some("http")) => Err(refused("the token would travel without TLS")),
        (_, Some("http" | "https")) => Ok(target),
        _ => Err(refused("only https:// and http:// are spoken here")),
    }
}

fn refuse(from: &Uri, to: &str, reason: &str) -> Error {
    Error::Redirect { from: origin(from), to: to.to_owned(), reason: reason.to_owned() }
}

fn bad_response(request: &Request, reason: &str) -> Error {
    Error::BadResponse {
        method: request.method.clone(),
        path: request.path.clone(),
        reason: reason.to_owned(),
    }
}

fn api_error(
    uri: &Uri,
    request: &Request,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Box<ApiError> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Said {
        errors: Vec<String>,
        warnings: Option<Vec<String>>,
    }
    let said: Option<Said> = serde_json::from_slice(body).ok();
    let is_json = said.is_some();
    let said = said.unwrap_or_default();
    let raw = String::from_utf8_lossy(body);
    let raw = raw.trim();
    let retry_after =
        headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Box::new(ApiError {
        status,
        method: request.method.clone(),
        url: format!("{}{}", origin(uri), uri.path()),
        errors: said.errors,
        warnings: said.warnings.unwrap_or_default(),
        retry_after: retry_after.map(Duration::from_secs),
        raw: (!is_json && !raw.is_empty()).then(|| raw.chars().take(RAW_ERROR_CHARS_MAX).collect()),
    })
}
