//! Bytes in and out: the [`Connect`] seam, TLS on top of it, and the names of what can fail.
//! The real connector is [`TcpConnect`]; a simulation passes its own and everything above stays the same.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::config::Config;
use crate::error::{Error, TransportError, TransportKind};
use crate::tls;

/// A connection, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// The future of a connection.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Opens connections. TLS, if any, is spoken on top by the client.
pub trait Connect: Send + Sync + 'static {
    /// Connects to `host` (a name or an address without brackets) at `port`.
    fn connect(&self, host: &str, port: u16) -> Connecting;
}

/// Connects over TCP with the system's name resolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpConnect;

impl Connect for TcpConnect {
    fn connect(&self, host: &str, port: u16) -> Connecting {
        let host = host.to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

pub(crate) type BoxError = Box<dyn StdError + Send + Sync>;
pub(crate) type SendBody = UnsyncBoxBody<Bytes, BoxError>;

/// A pool of connections to any number of servers.
#[derive(Clone)]
pub(crate) struct Transport {
    http: hyper_util::client::legacy::Client<HttpsConnector<Dialer>, SendBody>,
}

impl Transport {
    pub(crate) fn new(config: &Config, connect: Arc<dyn Connect>) -> Result<Self, Error> {
        // Without TLS anywhere the system's certificate store is not read: that costs more than a request.
        let speaks_tls = config.addresses.iter().any(|address| address.is_tls());
        let tls = tls::client_config(&config.tls, speaks_tls)?;
        let mut builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        if let Some(name) = &config.tls.server_name {
            let bad = |_| Error::Config {
                name: "TLS server name".into(),
                reason: format!("{name:?} is no host name"),
            };
            let name = ServerName::try_from(name.clone()).map_err(bad)?;
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let dialer = Dialer { connect, timeout: config.connect_timeout };
        let connector = builder.enable_http1().enable_http2().wrap_connector(dialer);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            // A request that found its pooled connection closed before a byte of it was written goes to another one.
            // Whatever was written is for `retry` to judge.
            .retry_canceled_requests(true)
            .build(connector);
        Ok(Self { http })
    }

    pub(crate) async fn send(
        &self,
        address: &str,
        request: http::Request<SendBody>,
    ) -> Result<http::Response<Incoming>, TransportError> {
        self.http.request(request).await.map_err(|err| explain(address, err))
    }
}

fn explain(address: &str, err: hyper_util::client::legacy::Error) -> TransportError {
    let is_connect = err.is_connect();
    let (kind, reason) = classify(&err, is_connect);
    TransportError { address: address.to_owned(), kind, reason, source: Some(Box::new(err)) }
}

/// Walks the causes of a failure. `io::Error` hides what it wraps from `source`, so it is opened by hand.
pub(crate) fn classify(err: &(dyn StdError + 'static), is_connect: bool) -> (TransportKind, String) {
    let mut reason = err.to_string();
    let mut kind = if is_connect { TransportKind::Connect } else { TransportKind::Interrupted };
    let mut next: Option<&(dyn StdError + 'static)> = Some(err);
    while let Some(cause) = next {
        reason = cause.to_string();
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return (tls_kind(tls), reason);
        }
        if cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            kind = TransportKind::NotHttp;
        }
        next = match cause.downcast_ref::<io::Error>() {
            Some(io) if io.kind() == io::ErrorKind::TimedOut && !is_connect => {
                return (TransportKind::Timeout, reason);
            }
            Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => cause.source(),
        };
    }
    (kind, reason)
}

fn tls_kind(err: &rustls::Error) -> TransportKind {
    use rustls::{CertificateError as Cert, Error as Tls};
    match err {
        Tls::InvalidCertificate(Cert::UnknownIssuer) => TransportKind::CertificateAuthority,
        Tls::InvalidCertificate(Cert::NotValidForName | Cert::NotValidForNameContext { .. }) => {
            TransportKind::CertificateName
        }
        Tls::InvalidCertificate(_) => TransportKind::CertificateOther,
        Tls::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
            TransportKind::HttpServerAskedForTls
        }
        _ => TransportKind::Tls,
    }
}

/// Adapts a [`Connect`] to what hyper asks of a connector.
#[derive(Clone)]
pub(crate) struct Dialer {
    connect: Arc<dyn Connect>,
    timeout: Duration,
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Dialed>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Dialed>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let connecting = self.connect.connect(host, port);
        let timeout = self.timeout;
        Box::pin(async move {
            let late =
                |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {timeout:?}"));
            let stream = tokio::time::timeout(timeout, connecting).await.map_err(late)??;
            Ok(TokioIo::new(Dialed(stream)))
        })
    }
}

/// A connection that was dialed.
pub(crate) struct Dialed(Box<dyn Stream>);

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
