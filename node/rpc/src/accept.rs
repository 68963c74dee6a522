//! Connections to the cluster port, from TCP to verified members and secondaries.
//! **Invariant:** whoever has not shown a certificate of this cluster holds one of a bounded number of places, for a
//! moment, and never keeps anybody from having one: the newest comes in, the oldest goes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::MemberId;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};
use tokio_util::sync::CancellationToken;

use crate::connections::Connections;
use crate::identity::member_of;
use crate::io::{Peer, PeerStream};
use crate::replication::door::{self, ReplicationDoor};

/// Longest wait for a peer's TLS handshake. Peers give up after as long ([`crate::transport`]).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);
/// Handshakes under way at once. They are not counted by where they come from: a whole cluster may share an address,
/// and a handshake of a member takes far less time than it takes to open so many connections.
const HANDSHAKES_MAX: usize = 256;
/// Pause after accepting failed: out of file descriptors, most likely; handshakes need a moment to end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a verified connection is handed to.
pub(crate) type Accepted = mpsc::Sender<Result<PeerStream, std::io::Error>>;

/// Turns connections of a cluster's members into streams of theirs, and those of secondaries into streams of theirs.
pub(crate) struct Acceptor {
    pub(crate) greeter: Greeter,
}

/// What a handshake needs.
#[derive(Clone)]
pub(crate) struct Greeter {
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) cluster_id: String,
    pub(crate) connections: Connections<MemberId>,
    pub(crate) accepted: Accepted,
    pub(crate) replication: ReplicationDoor,
    pub(crate) followers: door::Accepted,
}

impl Acceptor {
    /// Accepts until `stop`. Handshakes that are under way then end with it.
    pub(crate) async fn run(self, listener: TcpListener, stop: CancellationToken) {
        let mut handshakes = Handshakes::default();
        loop {
            let connection = tokio::select! {
                () = stop.cancelled() => return,
                connection = listener.accept() => connection,
            };
            match connection {
                Ok((stream, addr)) => handshakes.begin(self.greet(stream, addr)),
                Err(err) => {
                    tracing::warn!(error = %err, "accepting on the cluster port failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn greet(&self, stream: TcpStream, addr: SocketAddr) -> impl Future<Output = ()> + Send + use<> {
        let greeter = self.greeter.clone();
        async move {
            if let Err(reason) = greeter.greet(stream, addr).await {
                tracing::warn!(%addr, reason, "refused a connection on the cluster port");
            }
        }
    }
}

impl Greeter {
    async fn greet(self, stream: TcpStream, addr: SocketAddr) -> Result<(), String> {
        stream.set_nodelay(true).map_err(|err| err.to_string())?;
        let began = tokio::time::Instant::now();
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let start = in_time(began, hello).await?;
        // The server has stopped if nobody receives; the connection then just closes.
        match self.replication.wanted(&start.client_hello())? {
            Some(wanted) => {
                let stream = self.replication.greet(start, addr, wanted).await?;
                drop(self.followers.send(Ok(stream)).await);
            }
            None => {
                let (stream, peer) = self.member(start, addr, began).await?;
                let connection = self.connections.begin(peer.member);
                drop(self.accepted.send(Ok(PeerStream::new(stream, peer, connection))).await);
            }
        }
        Ok(())
    }

    async fn member(
        &self,
        start: StartHandshake<TcpStream>,
        addr: SocketAddr,
        began: tokio::time::Instant,
    ) -> Result<(TlsStream<TcpStream>, Peer), String> {
        let stream = in_time(began, start.into_stream(Arc::clone(&self.tls))).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let leaf = certificates.first().ok_or_else(|| "no client certificate".to_owned())?;
        let member = member_of(leaf, &self.cluster_id).map_err(|err| err.to_string())?;
        Ok((stream, Peer { member, addr }))
    }
}

/// A part of a handshake that began then.
async fn in_time<T>(
    began: tokio::time::Instant,
    part: impl Future<Output = std::io::Result<T>>,
) -> Result<T, String> {
    tokio::time::timeout_at(began + HANDSHAKE_TIMEOUT, part)
        .await
        .map_err(|_| "TLS handshake took too long".to_owned())?
        .map_err(|err| err.to_string())
}

/// Handshakes under way. Dropping it ends them.
#[derive(Default)]
struct Handshakes {
    tasks: JoinSet<()>,
    /// Oldest first; some are over.
    begun: VecDeque<AbortHandle>,
}

impl Handshakes {
    fn begin(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.begun.len() >= HANDSHAKES_MAX {
            self.begun.retain(|task| !task.is_finished());
        }
        if self.begun.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.begun.pop_front()
        {
            oldest.abort();
        }
        self.begun.push_back(self.tasks.spawn(handshake));
    }
}
