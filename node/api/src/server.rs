//! Listeners: TCP, TLS, HTTP/1.1 and 2, and the limits that keep slow, silent or greedy clients from hurting others.
//! **Invariant:** a request that reached the API runs to its end, whatever becomes of its connection: what was committed
//! is also audited, and the caller alone does not learn of it.
//!
//! What clients can make a listener hold is bounded three times over: connections, and streams of each; bodies that are
//! still coming, in number ([`crate::coming`]) and in bytes ([`crate::body_room`]); and requests being served, which
//! are counted only once they are here whole, so that a body that never comes takes nobody's place.
//! Futures on the road of a request are pinned where they are awaited: by value they are moved twice, and they are large.
//! Read next: [`crate::connection`] for a connection's life, [`crate::handler`] for a request's.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::SnapshotStream;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, BodyStream, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body_room::{BodyRoom, Place};
use crate::client_addr::ForwardedFor;
use crate::closed::ClosedPaths;
use crate::coming::ComingBodies;
use crate::connection::{Activity, End, SentBody, Watched};
use crate::finishing::{Finishing, Panicked};
use crate::handler::{Api, RawBody, RawRequest, ResponseBody};
use crate::render;
use crate::response_headers::ResponseHeaders;
use crate::tls::CertificateStore;

/// Most bytes of request line and headers.
const HEAD_SIZE_MAX: u32 = 64 << 10;
/// Most headers.
const HEADERS_MAX: usize = 128;
/// Most requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// Most requests of one HTTP/2 connection that the client took back before they were looked at; one more ends the
/// connection (CVE-2023-44487).
const RESET_STREAMS_MAX: usize = 20;
/// Most streams that this side had to reset because of the client's mistakes; one more ends the connection.
const FAULTY_STREAMS_MAX: usize = 64;
/// How often a silent HTTP/2 client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after accepting failed: out of file descriptors, most likely; connections need a moment to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Settings of one listener.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Largest body, bytes.
    pub request_size_max: usize,
    /// Longest time for one request, body included. Its caller is answered then; what was begun is finished.
    pub request_duration_max: Duration,
    /// Longest wait for a complete request head, for the next byte of a body, and for a TLS handshake.
    pub header_timeout: Duration,
    /// How long a connection may do nothing, and an answer may go unread.
    pub idle_timeout: Duration,
    /// Most connections at once; more wait to be accepted.
    pub connections_max: usize,
    /// Most requests at once; more are refused. Also most bodies that are still coming; one more, and the one that has
    /// been coming for longest is refused.
    pub requests_max: usize,
    /// Most bytes of all request bodies together, small ones not counted; more are refused.
    pub bodies_size_max: usize,
    /// Whose `X-Forwarded-For` counts.
    pub forwarded_for: ForwardedFor,
    /// Standbys behind this listener may answer reads from what they have.
    pub allows_stale: bool,
    /// Paths that are not offered here.
    pub closed: ClosedPaths,
    /// `sys/metrics` needs no token here.
    pub unauthenticated_metrics: bool,
    /// Headers the operator adds to answers.
    pub response_headers: ResponseHeaders,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            request_size_max: 32 << 20,
            request_duration_max: Duration::from_secs(90),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            connections_max: 16_384,
            requests_max: 16_384,
            bodies_size_max: 256 << 20,
            forwarded_for: ForwardedFor::default(),
            allows_stale: false,
            closed: ClosedPaths::default(),
            unauthenticated_metrics: false,
            response_headers: ResponseHeaders::default(),
        }
    }
}

/// One listener, bound.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS, unless disabled.
    pub tls: Option<Arc<CertificateStore>>,
    /// Settings.
    pub options: Arc<ListenerOptions>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?})", self.socket.local_addr())
    }
}

/// What all connections of a listener share.
pub(crate) struct Shared {
    api: Arc<Api>,
    options: Arc<ListenerOptions>,
    stop: CancellationToken,
    /// Requests being served, with their connection or after it.
    requests: TaskTracker,
    request_slots: Arc<Semaphore>,
    pub(crate) coming: ComingBodies,
    room: BodyRoom,
}

impl Shared {
    pub(crate) fn new(api: Arc<Api>, options: Arc<ListenerOptions>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            api,
            stop,
            requests: TaskTracker::new(),
            request_slots: slots(options.requests_max),
            coming: ComingBodies::new(options.requests_max),
            room: BodyRoom::new(options.bodies_size_max),
            options,
        })
    }
}

fn slots(count: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)))
}

/// A connection's part of every request on it.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    peer: SocketAddr,
    certificates: Arc<[Vec<u8>]>,
    activity: Arc<Activity>,
}

impl Listener {
    /// Serves until `stop`; then finishes what is under way, up to `grace`.
    pub async fn serve(self, api: Arc<Api>, stop: CancellationToken, grace: Duration) {
        let shared = Shared::new(api, self.options, stop);
        let connection_slots = slots(shared.options.connections_max);
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shared.stop.cancelled() => break,
                accepted = accept(&self.socket, &connection_slots) => accepted,
            };
            let Some((slot, stream, peer)) = accepted else { continue };
            let shared = Arc::clone(&shared);
            let acceptor = self.tls.as_ref().map(|store| TlsAcceptor::from(store.current()));
            connections.spawn(async move {
                let _slot = slot;
                if let Err(reason) = Connection::run(shared, stream, peer, acceptor).await {
                    tracing::debug!(%peer, reason, "connection ended early");
                }
            });
        }
        drop(self.socket);
        connections.close();
        shared.requests.close();
        let ended = async {
            connections.wait().await;
            shared.requests.wait().await;
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::warn!("some requests were still under way after the grace period");
        }
    }
}

/// A listener without a socket: serves connections that something else accepted, such as a simulation's.
pub struct Connections(Arc<Shared>);

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connections")
    }
}

impl Connections {
    /// All of them end, each after the request that is under way on it, when `stop` is cancelled.
    #[must_use]
    pub fn new(api: Arc<Api>, options: Arc<ListenerOptions>, stop: CancellationToken) -> Self {
        Self(Shared::new(api, options, stop))
    }

    /// Serves the connection of `peer` until it ends.
    ///
    /// # Errors
    /// When it ended early: why, in words.
    pub async fn serve<S>(&self, stream: S, peer: SocketAddr) -> Result<(), String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        Connection::new(Arc::clone(&self.0), peer, Arc::new([])).speak(stream).await
    }
}

/// The next connection, once there is a place for it; none after a failure.
async fn accept(
    socket: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, peer)) => Some((slot, stream, peer)),
        Err(err) => {
            tracing::warn!(error = %err, "accepting a connection failed");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

impl Connection {
    async fn run(
        shared: Arc<Shared>,
        stream: TcpStream,
        peer: SocketAddr,
        acceptor: Option<TlsAcceptor>,
    ) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|err| err.to_string())?;
        let Some(acceptor) = acceptor else {
            return Self::new(shared, peer, Arc::new([])).speak(stream).await;
        };
        let handshake = tokio::time::timeout(shared.options.header_timeout, acceptor.accept(stream));
        let stream = tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            stream = handshake => stream,
        };
        let stream =
            stream.map_err(|_| "TLS handshake took too long".to_owned())?.map_err(|err| err.to_string())?;
        let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = presented.iter().map(|certificate| certificate.to_vec()).collect();
        Self::new(shared, peer, certificates).speak(stream).await
    }

    pub(crate) fn new(shared: Arc<Shared>, peer: SocketAddr, certificates: Arc<[Vec<u8>]>) -> Self {
        let activity = Activity::new(shared.options.header_timeout, shared.options.idle_timeout);
        Self { shared, peer, certificates, activity }
    }

    /// Serves one connection until it ends, its time is up, or the listener stops.
    pub(crate) async fn speak<S>(self, stream: S) -> Result<(), String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let builder = protocols();
        let this = Arc::new(self);
        let stream = TokioIo::new(Watched::new(stream, Arc::clone(&this.activity)));
        let exchanging = Arc::clone(&this);
        let service = service_fn(move |request| {
            let this = Arc::clone(&exchanging);
            async move { Ok::<_, std::convert::Infallible>(pin!(this.exchange(request)).await) }
        });
        let mut serving = pin!(builder.serve_connection(stream, service));
        let mut timer = pin!(tokio::time::sleep(this.shared.options.header_timeout));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                biased;
                served = serving.as_mut() => return served.map_err(|err| err.to_string()),
                end = this.activity.end(timer.as_mut()) => match end {
                    End::Close => serving.as_mut().graceful_shutdown(),
                    End::Cut => return Err("nothing came in time".to_owned()),
                },
                () = this.shared.stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn exchange(&self, request: Request<Incoming>) -> Response<SentBody> {
        let serving = self.activity.serving(request.version() == Version::HTTP_2);
        let is_head = request.method() == Method::HEAD;
        let mut response = match pin!(self.served(request)).await {
            Ok(response) => response,
            Err((status, text)) => refused(status, &text),
        };
        let status = response.status();
        self.shared.options.response_headers.apply(status, response.headers_mut());
        if is_head {
            *response.body_mut() = Either::Left(Full::new(Bytes::new()));
        }
        response.map(|body| serving.sending(body))
    }

    /// Serves the request, and waits for it no longer than the listener allows.
    async fn served(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Refused> {
        let shared = &self.shared;
        within_limits(request.headers())?;
        let limit = shared.options.request_duration_max;
        let (request, place) = pin!(self.read(request, limit)).await?;
        let slot = if is_probe(&request) { None } else { Some(self.slot()?) };
        // A streamed restore or backup has no time limit of its own: size, not slowness, makes it long.
        let is_streamed = matches!(request.body, RawBody::Stream(_));
        let api = Arc::clone(&shared.api);
        let request = Finishing::new(&shared.requests, async move {
            let _held = (slot, place);
            pin!(api.respond(request)).await
        });
        let ended = if is_streamed { Ok(request.await) } else { tokio::time::timeout(limit, request).await };
        match ended {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(Panicked)) => {
                tracing::error!("serving a request failed");
                Err((StatusCode::INTERNAL_SERVER_ERROR, "internal error".to_owned()))
            }
            // Not 503, which says that nothing was done: clients would do it again.
            Err(_) => Err((
                StatusCode::INTERNAL_SERVER_ERROR,
                "request took too long: a write may or may not have happened".to_owned(),
            )),
        }
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, Refused> {
        Arc::clone(&self.shared.request_slots).try_acquire_owned().map_err(|_| {
            (StatusCode::SERVICE_UNAVAILABLE, "too many requests are under way, try again".to_owned())
        })
    }

    async fn read(
        &self,
        request: Request<Incoming>,
        limit: Duration,
    ) -> Result<(RawRequest, Place), Refused> {
        let (parts, incoming) = request.into_parts();
        let options = &self.shared.options;
        let remote = options
            .forwarded_for
            .client(self.peer, &parts.headers)
            .map_err(|text| (StatusCode::BAD_REQUEST, text.to_owned()))?;
        let mut place = self.shared.room.place();
        let body = if is_restore(&parts.method, parts.uri.path()) {
            RawBody::Stream(streamed(incoming, options.idle_timeout).into())
        } else if incoming.is_end_stream() {
            RawBody::Bytes(Bytes::new())
        } else {
            let coming = self.shared.coming.begin();
            let reading = collected(incoming, options, &mut place);
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout(limit, reading) => read,
                () = coming.given_up() => return Err((
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many request bodies are under way, try again".to_owned(),
                )),
            };
            let too_slow = |_| (StatusCode::REQUEST_TIMEOUT, "the request body took too long".to_owned());
            RawBody::Bytes(read.map_err(too_slow)??)
        };
        let request = RawRequest {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
            remote,
            client_certificates: Arc::clone(&self.certificates),
            forwarded_from: None,
            allows_stale: options.allows_stale,
            unauthenticated_metrics: options.unauthenticated_metrics,
            closed: options.closed,
        };
        Ok((request, place))
    }
}

/// HTTP/1.1 and 2 with their limits. Heads and idleness are timed by [`crate::connection`], for both alike.
fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A client that has said all it has to say is still answered.
        .half_close(true)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_SIZE_MAX as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_SIZE_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(FAULTY_STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A request refused before the API saw it.
type Refused = (StatusCode, String);

/// HTTP/1 counts headers while parsing; HTTP/2 counts only their bytes.
fn within_limits(headers: &HeaderMap) -> Result<(), Refused> {
    if headers.len() > HEADERS_MAX {
        let text = format!("more than {HEADERS_MAX} headers");
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, text));
    }
    Ok(())
}

fn refused(status: StatusCode, text: &str) -> Response<ResponseBody> {
    let rendered = render::errors(status, &[text.to_owned()]);
    let mut response = Response::new(Either::Left(Full::new(rendered.body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// Whether it only asks how the node is: that is answered at once from what is at hand, however busy the node is.
fn is_probe(request: &RawRequest) -> bool {
    matches!(request.method, Method::GET | Method::HEAD)
        && matches!(request.path.as_str(), "/v1/sys/health" | "/v1/sys/seal-status")
}

/// Restores carry whole databases: they are streamed and exempt from the size limit.
fn is_restore(method: &Method, path: &str) -> bool {
    matches!(*method, Method::POST | Method::PUT)
        && matches!(path, "/v1/sys/storage/raft/snapshot" | "/v1/sys/storage/raft/snapshot-force")
}

/// The body as it comes. A client that sends nothing for so long has gone away.
fn streamed(incoming: Incoming, patience: Duration) -> SnapshotStream {
    let frames = futures::stream::unfold(Some(BodyStream::new(incoming)), move |frames| async move {
        let mut frames = frames?;
        match tokio::time::timeout(patience, frames.next()).await {
            Ok(Some(Ok(frame))) => Some((frame.into_data().ok().map(Ok), Some(frames))),
            Ok(Some(Err(err))) => Some((Some(Err(err.to_string())), None)),
            Ok(None) => None,
            Err(_) => Some((Some(Err("the request body stopped coming".to_owned())), None)),
        }
    });
    Box::pin(frames.filter_map(futures::future::ready))
}

/// The whole body, or a refusal as soon as it is known to be too large, to find no room, or not to come.
async fn collected(
    mut incoming: Incoming,
    options: &ListenerOptions,
    place: &mut Place,
) -> Result<Bytes, Refused> {
    let (size_max, patience) = (options.request_size_max, options.header_timeout);
    let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, format!("request body is over {size_max} bytes"));
    if usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX) > size_max {
        return Err(too_large());
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    let mut due = Instant::now() + patience;
    loop {
        let frame = tokio::time::timeout_at(due, incoming.frame())
            .await
            .map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the request body stopped coming".to_owned()))?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the request body broke off".to_owned()))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.is_empty() {
            continue;
        }
        due = Instant::now() + patience;
        let size = first.len() + rest.len() + data.len();
        if size > size_max {
            return Err(too_large());
        }
        place.grow(size).map_err(|_| {
            let text = "too many large request bodies at once, try again";
            (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
        })?;
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            // The first part is moved once a second one comes, so that most bodies are never copied.
            rest.extend_from_slice(&std::mem::take(&mut first));
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}
