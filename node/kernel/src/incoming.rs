//! A request as it reaches the kernel: HTTP taken off, nothing else decided.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::{Map, Operation};
use arca_raft_storage::SnapshotStream;
use parking_lot::Mutex;
use zeroize::Zeroizing;

/// The body.
pub enum Body {
    /// Nothing, a JSON object, form fields, or the query string of a read or delete.
    Fields(Map),
    /// A snapshot being restored: not parsed, not limited in size. Behind a lock, since a request is shared between
    /// threads and a stream is not; nobody waits for it.
    Stream(Mutex<SnapshotStream>),
}

impl Body {
    /// A streamed body.
    #[must_use]
    pub fn stream(stream: SnapshotStream) -> Self {
        Self::Stream(Mutex::new(stream))
    }
}

/// One request. The API layer canonicalises once: path without `/v1/`, without leading slash, percent-decoded,
/// free of `.`/`..`/empty segments and control bytes; the same form is then used for ACL, audit and storage.
pub struct Incoming {
    /// Unique id, made by the API layer.
    pub id: String,
    /// `Create` is never sent: writes arrive as `Update`, the pipeline tells them apart. Lists have a trailing slash.
    pub operation: Operation,
    /// Namespace from header, canonical: empty, or with a trailing slash.
    pub namespace: String,
    /// Full path below `/v1/`, namespace prefix included if the caller wrote it there.
    pub path: String,
    /// Body or query.
    pub body: Body,
    /// All request headers, lower-case names; the kernel passes on what a mount's tune allows.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Token as presented.
    pub token: Option<Arc<Zeroizing<String>>>,
    /// Address of the client, as the listener's rules decide it.
    pub remote_addr: Option<IpAddr>,
    /// Its port.
    pub remote_port: u16,
    /// DER certificates of the client's TLS connection, leaf first.
    pub client_certificates: Arc<[Vec<u8>]>,
    /// `X-Vault-Wrap-TTL`, not zero.
    pub wrap_ttl: Option<Duration>,
    /// `X-Vault-Wrap-Format: jwt`.
    pub wants_jwt_wrapping: bool,
    /// `X-Vault-Index` states the answer must reflect.
    pub required_index: Vec<String>,
    /// Node that forwarded the request, for audit.
    pub forwarded_from: Option<String>,
    /// `X-Vault-Inconsistent: forward-active-node`: where a state of `required_index` has not arrived, the request is
    /// the active node's instead of an error.
    pub forwards_when_behind: bool,
    /// The listener lets this node answer reads without asking the leader (`stale_reads`).
    pub allows_stale: bool,
}

impl std::fmt::Debug for Incoming {
    /// Never shows body, headers or token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming")
            .field("id", &self.id)
            .field("operation", &self.operation)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
