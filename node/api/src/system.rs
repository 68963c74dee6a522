//! What the API needs of the node itself: the questions and orders that work without an unsealed kernel, and the
//! road to the active node.

use std::sync::Arc;

use arca_kernel::Kernel;
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

/// Body of `sys/init`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct InitRequest {
    /// How many shares to make; 5 when absent.
    pub secret_shares: Option<u8>,
    /// How many of them unseal; 3 when absent.
    pub secret_threshold: Option<u8>,
    /// Not supported: refused when not empty, so that nobody believes shares are encrypted.
    pub pgp_keys: Vec<String>,
    /// As above.
    pub root_token_pgp_key: String,
    /// Only for seals that unseal by themselves.
    pub recovery_shares: Option<u8>,
    /// As above.
    pub recovery_threshold: Option<u8>,
}

/// Answer of `sys/init`. Shown once.
pub struct InitResponse {
    /// Unseal shares.
    pub shares: Vec<Zeroizing<Vec<u8>>>,
    /// Root token.
    pub root_token: Zeroizing<String>,
}

/// Body of `sys/unseal`; names match in any case.
#[derive(Default)]
pub struct UnsealRequest {
    /// One share, hex or base64.
    pub key: Zeroizing<String>,
    /// Forget the shares given so far.
    pub is_reset: bool,
}

/// `sys/seal-status`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SealStatus {
    /// Kind of seal.
    #[serde(rename = "type")]
    pub seal_type: String,
    /// Whether the cluster exists and this node belongs to it.
    pub initialized: bool,
    /// Whether this node is sealed.
    pub sealed: bool,
    /// Shares needed.
    pub t: u8,
    /// Shares made.
    pub n: u8,
    /// Shares given so far.
    pub progress: u8,
    /// Of this unseal attempt, empty when none is under way.
    pub nonce: String,
    /// Version of the API spoken and of this build.
    pub version: String,
    /// RFC 3339.
    pub build_date: String,
    /// Always false: no seal migration is under way.
    pub migration: bool,
    /// Present when unsealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Present when unsealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Whether recovery keys are used.
    pub recovery_seal: bool,
    /// `raft`, `inmem` or `file`.
    pub storage_type: String,
    /// This node was removed from its cluster.
    pub removed_from_cluster: bool,
}

/// `sys/health`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Health {
    /// As in seal-status.
    pub initialized: bool,
    /// As in seal-status.
    pub sealed: bool,
    /// Not the active node.
    pub standby: bool,
    /// Always false: standbys answer 429, as clients of this family expect.
    pub performance_standby: bool,
    /// As the kernel has it; `disabled` while there is none.
    pub replication_performance_mode: String,
    /// As above.
    pub replication_dr_mode: String,
    /// Seconds.
    pub server_time_utc: u64,
    /// As in seal-status.
    pub version: String,
    /// Not an enterprise build: everything is in.
    pub enterprise: bool,
    /// Present when unsealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// Present when unsealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Present on standbys: whether the active node is reachable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ha_connection_healthy: Option<bool>,
    /// This node was removed from its cluster.
    pub removed_from_cluster: bool,
}

/// `sys/leader`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeaderStatus {
    /// Whether the storage can fail over.
    pub ha_enabled: bool,
    /// Whether this node is active.
    pub is_self: bool,
    /// RFC 3339; the zero time when not active.
    pub active_time: String,
    /// API address of the active node.
    pub leader_address: String,
    /// Cluster address of the active node.
    pub leader_cluster_address: String,
    /// Always false, see [`Health::performance_standby`].
    pub performance_standby: bool,
    /// Always zero.
    pub performance_standby_last_remote_wal: u64,
    /// Raft's committed index.
    pub raft_committed_index: u64,
    /// Raft's applied index.
    pub raft_applied_index: u64,
}

/// Body of `sys/storage/raft/join`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JoinRequest {
    /// URL of any node of the cluster.
    pub leader_api_addr: String,
    /// PEM.
    pub leader_ca_cert: String,
    /// PEM.
    pub leader_client_cert: String,
    /// PEM.
    pub leader_client_key: String,
    /// Name to expect in the leader's certificate.
    pub leader_tls_servername: String,
    /// Keep trying in the background.
    pub retry: bool,
    /// Join as a learner for good.
    pub non_voter: bool,
}

/// An order that a node could not carry out.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The caller's mistake: 400.
    #[error("{0}")]
    Invalid(String),
    /// Ours: 500; the text is logged, and shown, as an operator needs it.
    #[error("{0}")]
    Failed(String),
    /// Not initialized: 400 or 501, as the endpoint wants.
    #[error("server is not yet initialized")]
    Uninitialized,
    /// Only the active node can do this.
    #[error("this node is a standby")]
    NeedsActive,
    /// Sealed.
    #[error("arca is sealed")]
    Sealed,
    /// Too many attempts under way: 429.
    #[error("too many join attempts under way, try again later")]
    TooMany,
}

/// A request to carry to the active node.
pub struct Carried {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body.
    pub body: Bytes,
    /// The client.
    pub remote: std::net::SocketAddr,
    /// Its certificates.
    pub client_certificates: Arc<[Vec<u8>]>,
}

/// What the active node answered.
pub struct CarriedBack {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Body.
    pub body: Bytes,
}

/// Why a request was not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarryFailure {
    /// It never left, or never arrived: redirecting the client is safe.
    Undelivered,
    /// It was delivered and no answer came: it may have been carried out.
    OutcomeUnknown,
}

/// The node behind the API.
#[async_trait]
pub trait System: Send + Sync {
    /// The unsealed kernel, if there is one.
    fn kernel(&self) -> Option<Arc<Kernel>>;
    /// Whether this node is the active one.
    fn is_active(&self) -> bool;
    /// Whether this node falls behind the active one and knows it, so that it can answer nothing for the present.
    fn is_behind(&self) -> bool;
    /// `GET sys/seal-status`.
    fn seal_status(&self) -> SealStatus;
    /// `GET sys/health`.
    fn health(&self) -> Health;
    /// `GET sys/leader`.
    fn leader(&self) -> LeaderStatus;
    /// Makes the cluster, with this node as its first member.
    async fn init(&self, request: InitRequest) -> Result<InitResponse, SystemError>;
    /// Takes one share.
    async fn unseal(&self, request: UnsealRequest) -> Result<SealStatus, SystemError>;
    /// Joins an existing cluster; true once joined, or once a retry was started.
    async fn join(&self, request: JoinRequest) -> Result<bool, SystemError>;
    /// First half of a joiner's proof, on the active node.
    async fn join_challenge(&self, request: Value) -> Result<Value, SystemError>;
    /// Second half.
    async fn join_answer(&self, request: Value) -> Result<Value, SystemError>;
    /// The seal as this node has it, for a member that was away. Nothing in it is a secret.
    fn seal_facts(&self) -> Result<Value, SystemError>;
    /// Carries a request to the active node, waiting up to `patience` for one to be found. Gives up early, as
    /// undelivered, when this node becomes active itself.
    async fn carry(
        &self,
        request: Carried,
        patience: std::time::Duration,
    ) -> Result<CarriedBack, CarryFailure>;
    /// This node's metrics, as Prometheus' text or as JSON; `None` when none are collected.
    fn metrics(&self, is_prometheus: bool) -> Option<String>;
    /// API address of the active node, if another node is.
    fn redirect_address(&self) -> Option<String>;
}
