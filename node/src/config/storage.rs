//! The `storage` block.

use std::path::PathBuf;

use super::section::{ConfigError, Kind, Section};
use super::{JoinTarget, RaftSettings, Storage};

/// Understood, checked, and without effect.
const IDLE: &[(&str, Kind)] = &[
    ("autopilot_reconcile_interval", Kind::Duration),
    ("autopilot_update_interval", Kind::Duration),
    ("max_mount_and_namespace_table_entry_size", Kind::Number),
    ("raft_log_verifier_enabled", Kind::Flag),
    ("raft_wal", Kind::Flag),
    ("snapshot_interval", Kind::Duration),
    ("snapshot_threshold", Kind::Number),
    ("trailing_logs", Kind::Number),
];
/// Smallest `max_entry_size` that lets the server's own records through.
const ENTRY_SIZE_MIN: u64 = 64 << 10;

/// Storage, Raft's settings, and `node_id` if it is given.
pub(super) type Found = (Storage, RaftSettings, Option<String>);

/// The one storage block; `None` when there is none.
pub(super) fn find(top: &Section<'_>, warnings: &mut Vec<String>) -> Result<Option<Found>, ConfigError> {
    let mut found = top.labelled("storage")?;
    found.extend(top.labelled("backend")?);
    let mut blocks = found.into_iter();
    let Some((kind, section)) = blocks.next() else { return Ok(None) };
    if let Some((_, second)) = blocks.next() {
        return Err(second.place.error("a second storage block: expected one"));
    }
    let needs_path = || {
        section.filled("path")?.map(PathBuf::from).ok_or_else(|| {
            section.place.error(format!("storage {kind:?}: expected path, the data directory"))
        })
    };
    let mut raft = RaftSettings::default();
    let mut node_name = None;
    let storage = match kind.as_str() {
        "file" => Storage::File { path: needs_path()? },
        "inmem" | "inmem_ha" => Storage::InMemory,
        "raft" => {
            node_name = section.filled("node_id")?;
            raft = raft_settings(&section)?;
            let mut retry_join = Vec::new();
            for block in section.plain("retry_join")? {
                retry_join.push(join_target(&block)?);
                warnings.extend(block.warnings());
            }
            let joins_as_non_voter = section.flag("retry_join_as_non_voter")?.unwrap_or_default();
            Storage::Raft { path: needs_path()?, retry_join, joins_as_non_voter }
        }
        other => {
            let message = format!("storage {other:?}: expected \"raft\", \"file\" or \"inmem\"");
            return Err(section.place.error(message));
        }
    };
    warnings.extend(section.warnings());
    Ok(Some((storage, raft, node_name)))
}

fn raft_settings(section: &Section<'_>) -> Result<RaftSettings, ConfigError> {
    const MULTIPLIER: &str = "performance_multiplier";
    const ENTRY_SIZE: &str = "max_entry_size";
    let default = RaftSettings::default();
    section.idle(IDLE)?;
    let multiplier = u32::try_from(section.number(MULTIPLIER)?.unwrap_or(1).max(1)).ok();
    let entry_size = section.number(ENTRY_SIZE)?.unwrap_or(default.entry_size_max);
    if entry_size < ENTRY_SIZE_MIN {
        return Err(section.wrong(ENTRY_SIZE, &format!("a whole number of bytes, at least {ENTRY_SIZE_MIN}")));
    }
    if entry_size > default.entry_size_max {
        let limit = default.entry_size_max;
        section.warn(ENTRY_SIZE, &format!("entries are never larger than {limit} bytes here"));
    }
    Ok(RaftSettings {
        performance_multiplier: multiplier
            .filter(|multiplier| *multiplier <= 10)
            .ok_or_else(|| section.wrong(MULTIPLIER, "1 to 10"))?,
        log_retention_bytes: section.number("log_retention_bytes")?.unwrap_or(default.log_retention_bytes),
        low_water_bytes: section.number("low_water_bytes")?.unwrap_or(default.low_water_bytes),
        entry_size_max: entry_size.min(default.entry_size_max),
    })
}

fn join_target(block: &Section<'_>) -> Result<JoinTarget, ConfigError> {
    let path = |name: &'static str| -> Result<Option<PathBuf>, ConfigError> {
        Ok(block.filled(name)?.map(PathBuf::from))
    };
    if block.filled("auto_join")?.is_some() {
        let text = "auto_join: cloud discovery is not supported, list the nodes";
        return Err(block.place_of("auto_join").error(text));
    }
    block.idle(&[("auto_join_scheme", Kind::Text), ("auto_join_port", Kind::Number)])?;
    let api_addr = block.text("leader_api_addr")?.unwrap_or_default();
    if !api_addr.starts_with("http://") && !api_addr.starts_with("https://") {
        return Err(block.wrong("leader_api_addr", "a URL such as \"https://HOST:8200\""));
    }
    Ok(JoinTarget {
        api_addr,
        ca_cert: block.filled("leader_ca_cert")?,
        ca_cert_file: path("leader_ca_cert_file")?,
        client_cert_file: path("leader_client_cert_file")?,
        client_key_file: path("leader_client_key_file")?,
        tls_server_name: block.filled("leader_tls_servername")?,
    })
}
