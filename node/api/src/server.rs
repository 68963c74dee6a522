//! Listeners: TCP, TLS, HTTP/1.1 and 2, and the limits that keep slow, silent or greedy clients from hurting others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::SnapshotStream;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, BodyStream, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::client_addr::ForwardedFor;
use crate::handler::{Api, RawBody, RawRequest, ResponseBody, served};
use crate::render;

/// Longest wait for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of request line and headers.
const HEAD_SIZE_MAX: usize = 64 << 10;
/// Most headers.
const HEADERS_MAX: usize = 128;

/// Settings of one listener.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Largest body, bytes.
    pub request_size_max: usize,
    /// Longest time for one request, body included.
    pub request_duration_max: Duration,
    /// Longest wait for a complete request head.
    pub header_timeout: Duration,
    /// Most connections at once.
    pub connections_max: usize,
    /// Whose `X-Forwarded-For` counts.
    pub forwarded_for: ForwardedFor,
    /// Standbys behind this listener may answer reads from what they have.
    pub allows_stale: bool,
    /// `sys/metrics` needs no token here.
    pub unauthenticated_metrics: bool,
    /// Extra response headers.
    pub response_headers: Vec<(http::HeaderName, http::HeaderValue)>,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            request_size_max: 32 << 20,
            request_duration_max: Duration::from_secs(90),
            header_timeout: Duration::from_secs(10),
            connections_max: 16_384,
            forwarded_for: ForwardedFor::default(),
            allows_stale: false,
            unauthenticated_metrics: false,
            response_headers: Vec::new(),
        }
    }
}

/// One listener, bound.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// TLS, unless disabled.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Settings.
    pub options: Arc<ListenerOptions>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?})", self.socket.local_addr())
    }
}

/// A connection's part of every request on it.
struct Connection {
    api: Arc<Api>,
    options: Arc<ListenerOptions>,
    peer: SocketAddr,
    certificates: Arc<[Vec<u8>]>,
}

impl Listener {
    /// Serves until `stop`; then finishes what is under way, up to `grace`.
    pub async fn serve(self, api: Arc<Api>, stop: CancellationToken, grace: Duration) {
        let acceptor = self.tls.map(TlsAcceptor::from);
        let graceful = Arc::new(GracefulShutdown::new());
        let slots = Arc::new(Semaphore::new(self.options.connections_max));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(err) => {
                    // Out of file descriptors, most likely: give connections a moment to end.
                    tracing::warn!(error = %err, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let watcher = graceful.watcher();
            let (api, options, acceptor) = (Arc::clone(&api), Arc::clone(&self.options), acceptor.clone());
            tokio::spawn(async move {
                let _slot = slot;
                let connection = Connection { api, options, peer, certificates: Arc::new([]) };
                if let Err(reason) = connection.run(stream, acceptor, watcher).await {
                    tracing::debug!(%peer, reason, "connection ended early");
                }
            });
        }
        if let Ok(graceful) = Arc::try_unwrap(graceful)
            && tokio::time::timeout(grace, graceful.shutdown()).await.is_err()
        {
            tracing::warn!("some requests were still under way after the grace period");
        }
    }
}

impl Connection {
    async fn run(
        mut self,
        stream: TcpStream,
        acceptor: Option<TlsAcceptor>,
        watcher: hyper_util::server::graceful::Watcher,
    ) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|err| err.to_string())?;
        let Some(acceptor) = acceptor else { return self.speak(stream, watcher).await };
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream))
            .await
            .map_err(|_| "TLS handshake took too long".to_owned())?
            .map_err(|err| err.to_string())?;
        let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
        self.certificates = presented.iter().map(|certificate| certificate.to_vec()).collect();
        self.speak(stream, watcher).await
    }

    async fn speak<S>(self, stream: S, watcher: hyper_util::server::graceful::Watcher) -> Result<(), String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.options.header_timeout)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_SIZE_MAX)
            .pipeline_flush(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(256)
            .max_header_list_size(64 << 10)
            .keep_alive_interval(Duration::from_secs(30));
        let this = Arc::new(self);
        let service = service_fn(move |request| {
            let this = Arc::clone(&this);
            async move { this.exchange(request).await }
        });
        let serving = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        watcher.watch(serving).await.map_err(|err| err.to_string())
    }

    async fn exchange(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, std::convert::Infallible> {
        let is_head = request.method() == Method::HEAD;
        let limit = self.options.request_duration_max;
        let mut response = match self.read(request, limit).await {
            // A streamed restore or backup has no time limit of its own: size, not slowness, makes it long.
            Ok(request) if matches!(request.body, RawBody::Stream(_)) => {
                served(Arc::clone(&self.api), request).await?
            }
            Ok(request) => match tokio::time::timeout(limit, served(Arc::clone(&self.api), request)).await {
                Ok(response) => response?,
                Err(_) => refused(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "request took too long: a write may or may not have happened",
                ),
            },
            Err((status, text)) => refused(status, &text),
        };
        for (name, value) in &self.options.response_headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        if is_head {
            *response.body_mut() = Either::Left(Full::new(Bytes::new()));
        }
        Ok(response)
    }

    async fn read(
        &self,
        request: Request<Incoming>,
        limit: Duration,
    ) -> Result<RawRequest, (StatusCode, String)> {
        let (parts, incoming) = request.into_parts();
        let remote = self
            .options
            .forwarded_for
            .client(self.peer, &parts.headers)
            .map_err(|text| (StatusCode::BAD_REQUEST, text.to_owned()))?;
        let body = if is_restore(&parts.method, parts.uri.path()) {
            RawBody::Stream(streamed(incoming).into())
        } else if incoming.is_end_stream() {
            RawBody::Bytes(Bytes::new())
        } else {
            let reading = collected(incoming, self.options.request_size_max);
            let bytes = tokio::time::timeout(limit, reading)
                .await
                .map_err(|_| (StatusCode::REQUEST_TIMEOUT, "the request body took too long".to_owned()))??;
            RawBody::Bytes(bytes)
        };
        Ok(RawRequest {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers: parts.headers,
            body,
            remote,
            client_certificates: Arc::clone(&self.certificates),
            forwarded_from: None,
            allows_stale: self.options.allows_stale,
        })
    }
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

/// Restores carry whole databases: they are streamed and exempt from the size limit.
fn is_restore(method: &Method, path: &str) -> bool {
    matches!(*method, Method::POST | Method::PUT)
        && matches!(path, "/v1/sys/storage/raft/snapshot" | "/v1/sys/storage/raft/snapshot-force")
}

fn streamed(incoming: Incoming) -> SnapshotStream {
    Box::pin(BodyStream::new(incoming).filter_map(|frame| {
        futures::future::ready(match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(err) => Some(Err(err.to_string())),
        })
    }))
}

/// The whole body, or a refusal as soon as it is known to be too large.
async fn collected(incoming: Incoming, size_max: usize) -> Result<Bytes, (StatusCode, String)> {
    let too_large = || (StatusCode::PAYLOAD_TOO_LARGE, format!("request body is over {size_max} bytes"));
    if usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX) > size_max {
        return Err(too_large());
    }
    match Limited::new(incoming, size_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(err) if err.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err((StatusCode::BAD_REQUEST, "the request body broke off".to_owned())),
    }
}
