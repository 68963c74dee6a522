//! Which connections on the cluster port are other clusters', and what they may do here.
//! **Invariant:** a connection that asks for anything but replication is a member's, and is treated as if this did not
//! exist.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arca_replication::{Follower, PrimarySide};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::ClientHello;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::StartHandshake;
use tokio_util::sync::CancellationToken;

use super::authority::{ReplicationAuthority, follower_of, primary_dns_name};
use super::service::Caller;
use super::tls::{self, ACTIVATE, FOLLOW};
use crate::connections::Connections;
use crate::identity::IdentityError;
use crate::io::VerifiedStream;

/// Longest wait for the handshake of a secondary, which may be far away.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long whoever has no certificate may take to show a token and get an answer.
const ACTIVATION_TIMEOUT: Duration = Duration::from_secs(20);

/// Whose a connection is, for counting: its replication id, and the secondary, or nobody yet.
pub(crate) type Whose = (String, Option<String>);
/// A secondary's connection.
pub(crate) type FollowerStream = VerifiedStream<Caller, Whose>;
/// What they are handed to.
pub(crate) type Accepted = mpsc::Sender<Result<FollowerStream, std::io::Error>>;

/// What this node serves to secondaries of one replication id.
#[derive(Clone)]
pub struct ServedReplication {
    replication_id: String,
    server_name: String,
    follow: Arc<ServerConfig>,
    activate: Arc<ServerConfig>,
    side: Arc<dyn PrimarySide>,
}

impl std::fmt::Debug for ServedReplication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServedReplication({})", self.replication_id)
    }
}

impl ServedReplication {
    /// Serves `side` to secondaries with certificates of `authority`.
    ///
    /// # Errors
    /// When the CA cannot be used.
    pub fn new(
        replication_id: &str,
        authority: &ReplicationAuthority,
        side: Arc<dyn PrimarySide>,
    ) -> Result<Self, IdentityError> {
        let (follow, activate) = tls::server_configs(authority)?;
        Ok(Self {
            replication_id: replication_id.to_owned(),
            server_name: primary_dns_name(replication_id),
            follow: Arc::new(follow),
            activate: Arc::new(activate),
            side,
        })
    }
}

/// What this node serves to other clusters now. Clones are the same door.
#[derive(Clone, Default)]
pub struct ReplicationDoor {
    served: Arc<RwLock<Vec<ServedReplication>>>,
    connections: Connections<Whose>,
}

impl std::fmt::Debug for ReplicationDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.served.read().iter()).finish()
    }
}

/// What a connection's first message asks for.
pub(crate) struct Wanted {
    served: ServedReplication,
    is_activation: bool,
}

impl ReplicationDoor {
    /// Serves these from now on. Connections to anything else end.
    pub fn serve(&self, served: Vec<ServedReplication>) {
        let ids: Vec<String> = served.iter().map(|served| served.replication_id.clone()).collect();
        *self.served.write() = served;
        self.connections.end(|(id, _)| !ids.contains(id));
    }

    /// Ends what is open of a secondary.
    pub fn end(&self, replication_id: &str, secondary_id: &str) {
        self.connections.end(|(id, of)| id == replication_id && of.as_deref() == Some(secondary_id));
    }

    /// What a first message asks for: `None` if it is a member's. One that asks for replication that is not served here is
    /// refused.
    pub(crate) fn wanted(&self, hello: &ClientHello<'_>) -> Result<Option<Wanted>, String> {
        let mut asked = hello.alpn().into_iter().flatten().filter(|name| [FOLLOW, ACTIVATE].contains(name));
        let Some(protocol) = asked.next() else { return Ok(None) };
        let served = self.served.read();
        let found = served.iter().find(|served| hello.server_name() == Some(served.server_name.as_str()));
        let served =
            found.cloned().ok_or_else(|| "it asks for replication that is not served here".to_owned());
        Ok(Some(Wanted { served: served?, is_activation: protocol == ACTIVATE }))
    }

    /// Finishes the handshake.
    pub(crate) async fn greet(
        &self,
        start: StartHandshake<TcpStream>,
        addr: SocketAddr,
        Wanted { served, is_activation }: Wanted,
    ) -> Result<FollowerStream, String> {
        let config = if is_activation { &served.activate } else { &served.follow };
        let handshake = start.into_stream(Arc::clone(config));
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .map_err(|_| "TLS handshake took too long".to_owned())?
            .map_err(|err| err.to_string())?;
        let follower = if is_activation { None } else { Some(verified(&stream, &served.replication_id)?) };
        let whose = (served.replication_id, follower.as_ref().map(|follower| follower.secondary_id.clone()));
        let connection = self.connections.begin(whose);
        if is_activation {
            end_later(connection.ended().clone());
        }
        let caller = Caller { follower, addr, side: served.side };
        Ok(VerifiedStream::new(stream, caller, connection))
    }
}

fn verified(
    stream: &tokio_rustls::server::TlsStream<TcpStream>,
    replication_id: &str,
) -> Result<Follower, String> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let leaf = certificates.first().ok_or_else(|| "no client certificate".to_owned())?;
    follower_of(leaf, replication_id).map_err(|err| err.to_string())
}

/// Ends a connection in a while, unless it has ended by then.
fn end_later(ended: CancellationToken) {
    tokio::spawn(async move {
        let _ = tokio::time::timeout(ACTIVATION_TIMEOUT, ended.cancelled()).await;
        ended.cancel();
    });
}
