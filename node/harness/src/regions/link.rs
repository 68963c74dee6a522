//! The road from one region to another: a port here that leads to the cluster ports of the nodes there, each byte half a
//! round trip later. It can be cut: then nothing passes, and nobody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::HarnessError;

/// Read at once.
const CHUNK: usize = 64 << 10;
/// Chunks under way in one direction of a connection.
const UNDER_WAY: usize = 256;
/// Pause after no node there took a connection.
const RETRY: Duration = Duration::from_millis(50);

/// See the file's header. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Link {
    /// Where it begins, on loopback.
    pub port: u16,
    is_cut: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Leads to one of `ports`, in turn; each way takes `delay`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn open(ports: Vec<u16>, delay: Duration) -> Result<Self, HarnessError> {
        let failed = |err| HarnessError::new("opening a link", err);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let (is_cut, seen) = watch::channel(false);
        let road = Road { ports, next: Arc::default(), delay, is_cut: seen };
        Ok(Self { port, is_cut, task: tokio::spawn(road.serve(listener)) })
    }

    /// Nothing passes any more; what was under way is lost.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// New connections pass again.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

#[derive(Clone)]
struct Road {
    ports: Vec<u16>,
    next: Arc<AtomicUsize>,
    delay: Duration,
    is_cut: watch::Receiver<bool>,
}

impl Road {
    async fn serve(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok((stream, _)) => drop(connections.spawn(self.clone().carry(stream))),
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    /// Carries one connection until either side ends it. Once the road is cut it is held, silent, until it is whole again.
    async fn carry(mut self, mut near: TcpStream) {
        let mut seen = self.is_cut.clone();
        let mut far = None;
        let carried = async {
            tokio::time::sleep(self.delay * 2).await;
            far = self.reach().await;
            let Some(far) = &mut far else { return };
            if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
                return;
            }
            let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
            tokio::join!(pass(near_read, far_write, self.delay), pass(far_read, near_write, self.delay));
        };
        let is_cut = async {
            // The sender lives as long as the link.
            let _ = seen.wait_for(|is_cut| *is_cut).await;
        };
        tokio::select! {
            biased;
            () = is_cut => {}
            () = carried => return,
        }
        // Both ends stay open meanwhile: closing them would tell.
        let _ = self.is_cut.wait_for(|is_cut| !*is_cut).await;
    }

    async fn reach(&self) -> Option<TcpStream> {
        for _ in 0..self.ports.len() {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.ports.len();
            let port = self.ports.get(turn)?;
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", *port)).await {
                return Some(stream);
            }
        }
        None
    }
}

/// Bytes of one direction, each `delay` later.
async fn pass(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, delay: Duration) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let reading = async move {
        loop {
            let mut chunk = vec![0; CHUNK];
            let Ok(count @ 1..) = from.read(&mut chunk).await else { return };
            chunk.truncate(count);
            if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk)) = receiver.recv().await {
            tokio::time::sleep_until(at.into()).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        // The other side hears that nothing more comes, if it is still there.
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        port
    }

    #[tokio::test]
    async fn what_passes_comes_back_and_a_cut_is_silent() {
        let link = Link::open(vec![echo().await], Duration::from_millis(5)).await.unwrap();
        let mut near = TcpStream::connect(("127.0.0.1", link.port)).await.unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (mut read, mut write) = near.split();
        let mut back = vec![0; sent.len()];
        let (written, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
        written.unwrap();
        got.unwrap();
        assert_eq!(back, sent);
        link.cut();
        near.write_all(b"lost").await.unwrap();
        let mut byte = [0];
        let silent = tokio::time::timeout(Duration::from_millis(50), near.read(&mut byte)).await;
        assert!(silent.is_err(), "nobody is told");
        link.mend();
        assert!(!matches!(near.read(&mut byte).await, Ok(1..)), "what was under way is lost");
        let mut again = TcpStream::connect(("127.0.0.1", link.port)).await.unwrap();
        again.write_all(b"x").await.unwrap();
        again.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"x");
    }
}
