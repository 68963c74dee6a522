//! Connections between clients and nodes: bytes arrive later, in the order in which they were sent, until one end is gone.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::net::Net;

/// One direction of a connection.
#[derive(Clone, Default)]
struct Lane(Arc<Mutex<OnItsWay>>);

#[derive(Default)]
struct OnItsWay {
    /// What was sent, and when it arrives. Nothing at all is the end.
    parcels: VecDeque<(Instant, Bytes)>,
    /// When what was sent last arrives: nothing overtakes it.
    last: Option<Instant>,
    /// Nobody will read it.
    is_unread: bool,
    /// Nothing is sent after the end.
    has_ended: bool,
    reader: Option<Waker>,
}

impl Lane {
    fn send(&self, net: &Net, bytes: Bytes) -> io::Result<()> {
        let mut lane = self.0.lock();
        if lane.is_unread || lane.has_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        lane.has_ended = bytes.is_empty();
        let due = Instant::now() + net.latency();
        let due = lane.last.map_or(due, |last| due.max(last));
        lane.last = Some(due);
        lane.parcels.push_back((due, bytes));
        if let Some(reader) = lane.reader.take() {
            reader.wake();
        }
        Ok(())
    }
}

/// One end of a connection. Dropped, the other end reads what was sent, and then the end.
pub struct End {
    inward: Lane,
    outward: Lane,
    net: Net,
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("End")
    }
}

/// Both ends of a connection over `net`.
#[must_use]
pub fn pair(net: &Net) -> (End, End) {
    let (there, back) = (Lane::default(), Lane::default());
    let end = |inward: &Lane, outward: &Lane| End {
        inward: inward.clone(),
        outward: outward.clone(),
        net: net.clone(),
        timer: None,
    };
    (end(&back, &there), end(&there, &back))
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut lane = this.inward.0.lock();
            let Some((due, bytes)) = lane.parcels.front_mut() else {
                lane.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if *due <= Instant::now() {
                // The end stays where it is, to be read again and again.
                let count = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes.split_to(count));
                if count > 0 && bytes.is_empty() {
                    lane.parcels.pop_front();
                }
                return Poll::Ready(Ok(()));
            }
            let due = *due;
            drop(lane);
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            timer.as_mut().reset(due);
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !buf.is_empty() {
            self.outward.send(&self.net, Bytes::copy_from_slice(buf))?;
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An end that cannot be sent has been.
        let _ = self.outward.send(&self.net, Bytes::new());
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.outward.send(&self.net, Bytes::new());
        self.inward.0.lock().is_unread = true;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::plan::Plan;
    use crate::trace::Trace;

    fn net() -> Net {
        Net::new(&Plan::new(1), &Trace::new(None, false))
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_later_and_in_order_and_then_the_end() {
        let (mut near, mut far) = pair(&net());
        let began = Instant::now();
        for number in 0..100_u8 {
            near.write_all(&[number]).await.unwrap();
        }
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, (0..100).collect::<Vec<u8>>());
        assert!(began.elapsed() >= std::time::Duration::from_micros(50));
        assert_eq!(far.read(&mut [0]).await.unwrap(), 0, "the end can be read again");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_can_be_sent_to_an_end_that_is_gone() {
        let (mut near, far) = pair(&net());
        drop(far);
        assert_eq!(near.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_way_may_end_before_the_other() {
        let (mut near, mut far) = pair(&net());
        near.shutdown().await.unwrap();
        far.write_all(b"answer").await.unwrap();
        let mut read = [0; 6];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!((&read, far.read(&mut [0]).await.unwrap()), (b"answer", 0));
    }
}
