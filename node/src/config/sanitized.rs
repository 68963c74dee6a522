//! The configuration as `sys/config/state/sanitized` shows it: in Vault's shape, without anything secret.

use std::time::Duration;

use arca_engine_api::Map;
use serde_json::{Value, json};

use super::{Config, Storage};

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

impl Config {
    /// `sys/config/state/sanitized`. Settings that do nothing here show what is done.
    #[must_use]
    pub fn sanitized(&self) -> Map {
        let text = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
        };
        let cluster_addr = if self.cluster_addr.is_empty() {
            String::new()
        } else {
            format!("https://{}", self.cluster_addr)
        };
        let listeners: Vec<Value> = self
            .listeners
            .iter()
            .map(|listener| {
                let mut config = listener.as_written.clone();
                config.insert("address".to_owned(), json!(listener.address));
                config.insert("tls_disable".to_owned(), json!(listener.tls.is_none()));
                json!({ "type": "tcp", "config": config })
            })
            .collect();
        let value = json!({
            "api_addr": self.api_addr,
            "cache_size": 0,
            "cluster_addr": cluster_addr,
            "cluster_cipher_suites": "",
            "cluster_name": self.cluster_name.clone().unwrap_or_default(),
            "default_lease_ttl": self.default_lease_ttl.as_secs(),
            "default_max_request_duration": 0,
            "disable_cache": false,
            "disable_clustering": !matches!(self.storage, Storage::Raft { .. }),
            "disable_indexing": false,
            "disable_mlock": self.disable_mlock,
            "disable_performance_standby": false,
            "disable_printable_check": false,
            "disable_sealwrap": false,
            "disable_sentinel_trace": false,
            "enable_response_header_hostname": false,
            "enable_response_header_raft_node_id": false,
            "enable_ui": false,
            "introspection_endpoint": false,
            "listeners": listeners,
            "log_file": text(&self.log_file),
            "log_format": if self.is_log_json { "json" } else { "standard" },
            "log_level": self.log_level,
            "max_lease_ttl": self.max_lease_ttl.as_secs(),
            "pid_file": text(&self.pid_file),
            "plugin_directory": "",
            "raw_storage_endpoint": false,
            "replication": {
                "catch_up_bytes_per_second": self.replication.bytes_per_second,
                "retention_time": self.replication.retention_time.as_secs(),
            },
            "seals": [{ "type": "shamir", "disabled": false }],
            "storage": self.sanitized_storage(&cluster_addr),
            "telemetry": {
                "disable_hostname": self.telemetry.disable_hostname,
                "prometheus_retention_time": nanoseconds(self.telemetry.prometheus_retention),
            },
        });
        if let Value::Object(map) = value { map } else { Map::new() }
    }

    fn sanitized_storage(&self, cluster_addr: &str) -> Value {
        let kind = match self.storage {
            Storage::File { .. } => "file",
            Storage::InMemory => "inmem",
            Storage::Raft { .. } => "raft",
        };
        let mut storage = json!({
            "type": kind,
            "redirect_addr": self.api_addr,
            "cluster_addr": cluster_addr,
            "disable_clustering": kind != "raft",
        });
        if let (Storage::Raft { retry_join, .. }, Some(storage)) = (&self.storage, storage.as_object_mut()) {
            let raft = json!({
                "node_id": self.node_name,
                "max_entry_size": self.raft.entry_size_max.to_string(),
                "performance_multiplier": self.raft.performance_multiplier,
                "retry_join": retry_join.iter().map(|target| &target.api_addr).collect::<Vec<_>>(),
            });
            storage.insert("raft".to_owned(), raft);
        }
        storage
    }
}
