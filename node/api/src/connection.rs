//! One connection over time: silent, slow and stalled clients are found here, so that none keeps a place for ever.
//!
//! A connection is cut when its first request, or any later head of HTTP/1, takes too long, or when an answer is not
//! read; it is closed politely when it has been idle. While a request is being served nothing here ends it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::handler::ResponseBody;

/// How a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Let it finish, take nothing new.
    Close,
    /// At once.
    Cut,
}

/// What happens on one connection.
pub(crate) struct Activity {
    head_timeout: Duration,
    idle_timeout: Duration,
    state: Mutex<State>,
}

struct State {
    /// Requests being served.
    served: usize,
    /// Answers being sent.
    sent: usize,
    /// Whether a request ever came.
    is_used: bool,
    is_http2: bool,
    /// Since when it is being closed.
    closing_since: Option<Instant>,
    /// When bytes of the next request began to come.
    head_since: Option<Instant>,
    /// When a request, or an answer, last began or ended.
    latest: Instant,
    /// When bytes were last taken by the client.
    written: Instant,
}

impl Activity {
    pub(crate) fn new(head_timeout: Duration, idle_timeout: Duration) -> Arc<Self> {
        let now = Instant::now();
        let state = State {
            served: 0,
            sent: 0,
            is_used: false,
            is_http2: false,
            closing_since: None,
            head_since: None,
            latest: now,
            written: now,
        };
        Arc::new(Self { head_timeout, idle_timeout, state: Mutex::new(state) })
    }

    /// When the connection has to end if nothing more happens, and how.
    fn due(&self) -> Option<(Instant, End)> {
        let state = self.state.lock();
        if state.served > 0 {
            None
        } else if state.sent > 0 {
            Some((state.latest.max(state.written) + self.idle_timeout, End::Cut))
        } else if let Some(since) = state.closing_since {
            // What is left of the last answer may still be on its way.
            Some((since.max(state.written) + self.head_timeout, End::Cut))
        } else if !state.is_used {
            Some((state.latest + self.head_timeout, End::Cut))
        } else if let Some(since) = state.head_since.filter(|_| !state.is_http2) {
            Some((since + self.head_timeout, End::Cut))
        } else {
            Some((state.latest + self.idle_timeout, End::Close))
        }
    }

    /// Waits until the connection has to end. Must be polled by the task that serves it, after serving: that is when
    /// what happens here changes.
    pub(crate) async fn end(&self, mut timer: Pin<&mut Sleep>) -> End {
        let end = poll_fn(|cx| {
            loop {
                let Some((at, end)) = self.due() else { return Poll::Pending };
                // A timer that is set too early only looks again; one that is set too late has to be moved.
                if at < timer.deadline() || timer.is_elapsed() {
                    timer.as_mut().reset(at);
                }
                ready!(timer.as_mut().poll(cx));
                if at <= Instant::now() {
                    return Poll::Ready(end);
                }
            }
        })
        .await;
        if end == End::Close {
            self.state.lock().closing_since = Some(Instant::now());
        }
        end
    }

    fn has_read(&self) {
        let mut state = self.state.lock();
        if state.served == 0 && state.sent == 0 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    fn has_written(&self) {
        self.state.lock().written = Instant::now();
    }

    /// A request has come. It is being served until the result is dropped.
    pub(crate) fn serving(self: &Arc<Self>, is_http2: bool) -> Serving {
        let mut state = self.state.lock();
        state.served += 1;
        state.is_used = true;
        state.is_http2 = is_http2;
        state.head_since = None;
        Serving(Arc::clone(self))
    }
}

/// A request being served.
pub(crate) struct Serving(Arc<Activity>);

impl Serving {
    /// From served to being sent.
    pub(crate) fn sending(self, body: ResponseBody) -> SentBody {
        self.0.state.lock().sent += 1;
        SentBody { body, activity: Arc::clone(&self.0) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.served -= 1;
        state.latest = Instant::now();
    }
}

/// A response body that is known to be under way until it is dropped.
pub(crate) struct SentBody {
    body: ResponseBody,
    activity: Arc<Activity>,
}

impl Drop for SentBody {
    fn drop(&mut self) {
        let mut state = self.activity.state.lock();
        state.sent -= 1;
        state.latest = Instant::now();
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = <ResponseBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose traffic is noted.
pub(crate) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.has_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.activity.has_written();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.activity.has_written();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
