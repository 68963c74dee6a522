//! A byte stream of either kind, and who is at its other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use arca_raft_storage::MemberId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::connections::Connection;

/// A stream both halves of which can be boxed.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The verified other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) member: MemberId,
    pub(crate) addr: SocketAddr,
}

/// A member's.
pub(crate) type PeerStream = VerifiedStream<Peer, MemberId>;

/// An accepted, verified connection. It breaks when a newer one takes its place.
pub(crate) struct VerifiedStream<P, K: Ord> {
    inner: Box<dyn Duplex>,
    peer: P,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _connection: Connection<K>,
}

impl<P, K: Ord> VerifiedStream<P, K> {
    pub(crate) fn new(inner: impl Duplex + 'static, peer: P, connection: Connection<K>) -> Self {
        let ended = Box::pin(connection.ended().clone().cancelled_owned());
        Self { inner: Box::new(inner), peer, ended, _connection: connection }
    }
}

impl<P: Clone + Send + Sync + 'static, K: Ord> Connected for VerifiedStream<P, K> {
    type ConnectInfo = P;

    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

impl<P: Unpin, K: Ord + Unpin> AsyncRead for VerifiedStream<P, K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<P: Unpin, K: Ord + Unpin> AsyncWrite for VerifiedStream<P, K> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
