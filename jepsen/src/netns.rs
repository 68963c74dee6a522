//! Network namespaces: a network of its own for each node, in which only loopback exists.
//!
//! Nothing leads from one namespace to another but sockets that this process opens in both, which is what the proxies
//! do. A namespace has no name and no address outside: it is gone with the last process and descriptor that hold it, so
//! nothing of it is ever left behind.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A network namespace whose loopback is up: all of 127.0.0.0/8 is its own.
#[derive(Clone, Debug)]
pub struct NetNs {
    /// `None` is the namespace this process is in.
    file: Option<Arc<File>>,
}

impl NetNs {
    /// The one this process is in.
    #[must_use]
    pub fn host() -> Self {
        Self { file: None }
    }

    /// Makes one. Needs root.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn make() -> io::Result<Self> {
        let file = in_a_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            raise_loopback()?;
            File::open("/proc/thread-self/ns/net")
        })?;
        Ok(Self { file: Some(Arc::new(file)) })
    }

    /// Runs `work` inside, on a thread of its own. Sockets it opens and processes it starts stay there.
    ///
    /// # Errors
    /// Those of `work`, or when the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        match &self.file {
            None => work(),
            Some(file) => in_a_thread(|| {
                enter(file.as_fd())?;
                work()
            }),
        }
    }

    /// Listens inside.
    ///
    /// # Errors
    /// When the address is taken, or the namespace cannot be entered.
    pub fn listen(&self, at: SocketAddr) -> io::Result<TcpListener> {
        let listener = self.run(|| std::net::TcpListener::bind(at))?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    }

    /// Connects inside.
    ///
    /// # Errors
    /// When nobody listens there, or the namespace cannot be entered.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let inside = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            inside.run(|| Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?))
        });
        let socket = opened.await.map_err(io::Error::other)??;
        let stream = TcpSocket::from_std_stream(std::net::TcpStream::from(socket)).connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// A thread changes its namespaces for itself alone, and keeps them until it ends: so each entry has its own.
fn in_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|_| Err(io::Error::other("a thread in a namespace panicked")))
    })
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// Sets loopback (always interface 1) up, as `ip link set lo up` does.
fn raise_loopback() -> io::Result<()> {
    const MESSAGE_BYTES: u32 = 32;
    const NEW_LINK: u16 = 16;
    const IS_REQUEST: u16 = 1;
    const LOOPBACK: i32 = 1;
    const IS_UP: u32 = 1;
    let mut message = Vec::new();
    // The header: length, kind, flags, sequence number, sender.
    message.extend(MESSAGE_BYTES.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(IS_REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // The link: family and padding, type, index, flags, which of the flags are meant.
    message.extend([0; 4]);
    message.extend(LOOPBACK.to_ne_bytes());
    message.extend(IS_UP.to_ne_bytes());
    message.extend(IS_UP.to_ne_bytes());
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?; // None: the first of netlink's protocols, which is routing.
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}
