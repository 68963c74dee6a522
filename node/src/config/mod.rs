//! Settings after checking: every value here is usable as is. [`mod@file`] reads them, [`section`] holds the rules by
//! which a wrong value is reported with its line.

mod file;
#[cfg(test)]
mod file_tests;
mod listener_values;
mod listeners;
mod sanitized;
mod section;
mod storage;
mod user_lockout;

pub use file::{load, parse};
pub use section::ConfigError;

use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_api::{ListenerOptions, TlsOptions};
use arca_engine_api::Map;
use arca_kernel::lockout::LockoutDefaults;

/// Everything the server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// `node_id`: unique among the cluster's members.
    pub node_name: String,
    /// Where data lives.
    pub storage: Storage,
    /// API listeners; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// URL under which clients and peers reach this node's API.
    pub api_addr: String,
    /// `host:port` under which peers reach this node's cluster port.
    pub cluster_addr: String,
    /// `host:port` the cluster port binds.
    pub cluster_listen: String,
    /// Name of the cluster, used at init.
    pub cluster_name: Option<String>,
    /// Default lifetime of tokens and leases.
    pub default_lease_ttl: Duration,
    /// Longest lifetime of tokens and leases.
    pub max_lease_ttl: Duration,
    /// `user_lockout`: when failed logins lock a name, for mounts whose tune does not say.
    pub user_lockout: LockoutDefaults,
    /// Leave memory unlocked.
    pub disable_mlock: bool,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub log_level: String,
    /// Log lines as JSON.
    pub is_log_json: bool,
    /// Log file, in place of standard error.
    pub log_file: Option<PathBuf>,
    /// Serve `/ui/`.
    pub ui: bool,
    /// Written at start, removed at stop.
    pub pid_file: Option<PathBuf>,
    /// Metrics without a token are allowed on some listener.
    pub telemetry: Telemetry,
    /// Bounds of the Raft log's retention and timings.
    pub raft: RaftSettings,
    /// How other clusters are followed, and follow.
    pub replication: ReplicationSettings,
    /// Set by `-dev`.
    pub dev: Option<DevMode>,
}

/// Where data lives.
#[derive(Clone, Debug)]
pub enum Storage {
    /// One node, data in a directory.
    File {
        /// Data directory.
        path: PathBuf,
    },
    /// One node, data in memory: gone with the process.
    InMemory,
    /// A member of a cluster.
    Raft {
        /// Data directory.
        path: PathBuf,
        /// Nodes to join while this one belongs to no cluster.
        retry_join: Vec<JoinTarget>,
        /// Join as a member that never votes.
        joins_as_non_voter: bool,
    },
}

impl Storage {
    /// The data directory, if there is one.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::File { path } | Self::Raft { path, .. } => Some(path),
            Self::InMemory => None,
        }
    }
}

/// A node to join through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinTarget {
    /// URL of its API.
    pub api_addr: String,
    /// PEM of its CA.
    pub ca_cert: Option<String>,
    /// File with that PEM.
    pub ca_cert_file: Option<PathBuf>,
    /// File with a client certificate, PEM.
    pub client_cert_file: Option<PathBuf>,
    /// File with its key, PEM.
    pub client_key_file: Option<PathBuf>,
    /// Name to expect in its certificate.
    pub tls_server_name: Option<String>,
}

/// One API listener.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// `host:port` to bind.
    pub address: String,
    /// TLS, unless disabled.
    pub tls: Option<TlsOptions>,
    /// Limits and rules.
    pub options: ListenerOptions,
    /// `sys/metrics` needs no token here.
    pub unauthenticated_metrics: bool,
    /// The settings as the file has them, for `sys/config/state/sanitized`. None of them is a secret.
    pub as_written: Map,
}

/// Names of levels, for messages.
const LOG_LEVELS: &str = "trace, debug, info, warn or error";

/// A log level by any of the names it has in this family.
///
/// # Errors
/// Says what was expected.
pub fn log_level(text: &str) -> Result<&'static str, String> {
    file::checked_level(text).ok_or_else(|| format!("expected {LOG_LEVELS}, found {text:?}"))
}

/// Metrics.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Leave the host name out of gauge names, as is always done.
    pub disable_hostname: bool,
    /// How long Prometheus figures are kept; zero turns them off.
    pub prometheus_retention: Duration,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { disable_hostname: true, prometheus_retention: Duration::from_secs(24 * 3600) }
    }
}

/// Raft's own settings.
#[derive(Clone, Debug)]
pub struct RaftSettings {
    /// Longer timeouts for slow networks: 1 (default here) to 10.
    pub performance_multiplier: u32,
    /// Bytes of log kept behind the last flush: what a member may miss without needing a snapshot.
    pub log_retention_bytes: u64,
    /// Free bytes below which writes are refused.
    pub low_water_bytes: u64,
    /// Largest write, bytes.
    pub entry_size_max: u64,
}

impl Default for RaftSettings {
    fn default() -> Self {
        Self {
            performance_multiplier: 1,
            log_retention_bytes: 512 << 20,
            low_water_bytes: 256 << 20,
            // What fits into one message between nodes.
            entry_size_max: 7 << 20,
        }
    }
}

/// Replication between clusters.
#[derive(Clone, Copy, Debug)]
pub struct ReplicationSettings {
    /// Most bytes a second that copies and comparisons move; 0 for no limit.
    pub bytes_per_second: u64,
    /// The log is not kept any more for a secondary that has shown no life for so long.
    pub retention_time: Duration,
}

impl Default for ReplicationSettings {
    fn default() -> Self {
        let arca_replication::SourceSettings { retention_time, .. } =
            arca_replication::SourceSettings::default();
        Self { bytes_per_second: 0, retention_time }
    }
}

/// `arca server -dev`.
#[derive(Clone, Debug)]
pub struct DevMode {
    /// Token to create; random when absent.
    pub root_token: Option<String>,
    /// Version of KV to mount at `secret/`, if any.
    pub kv: Option<u8>,
    /// Do not store the token in the CLI's token file.
    pub no_store_token: bool,
    /// Certificate of the CA made for this server, for its clients.
    pub ca_file: Option<PathBuf>,
}
