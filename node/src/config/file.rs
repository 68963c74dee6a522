//! Reads configuration files, HCL or JSON, into [`Config`]. Written for Vault's files: what works there works here, or
//! is named in a warning. Read next: [`super::listeners`] and [`super::storage`] for the two large blocks.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_hcl::Body;

use super::section::{ConfigError, Kind, Place, Section};
use super::{Config, ListenerConfig, Storage, Telemetry, listeners, storage};

/// Default lifetime of tokens and leases: 32 days, as in the field.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(768 * 3600);
pub(super) const API_PORT: u16 = 8200;

/// Understood, checked, and without effect.
const IDLE: &[(&str, Kind)] = &[
    ("cache_size", Kind::Number),
    ("cluster_cipher_suites", Kind::Text),
    ("detect_deadlocks", Kind::Text),
    ("disable_cache", Kind::Flag),
    ("disable_clustering", Kind::Flag),
    ("disable_indexing", Kind::Flag),
    ("disable_performance_standby", Kind::Flag),
    ("disable_printable_check", Kind::Flag),
    ("disable_sealwrap", Kind::Flag),
    ("disable_sentinel_trace", Kind::Flag),
    ("enable_response_header_hostname", Kind::Flag),
    ("enable_response_header_raft_node_id", Kind::Flag),
    ("imprecise_lease_role_tracking", Kind::Flag),
    ("introspection_endpoint", Kind::Flag),
    ("license_path", Kind::Text),
    ("log_requests_level", Kind::Text),
    ("log_rotate_bytes", Kind::Number),
    ("log_rotate_duration", Kind::Duration),
    ("log_rotate_max_files", Kind::Number),
    ("max_open_files", Kind::Number),
    ("plugin_directory", Kind::Text),
    ("plugin_file_permissions", Kind::Text),
    ("plugin_file_uid", Kind::Number),
    ("raw_storage_endpoint", Kind::Flag),
];
const IDLE_TELEMETRY: &[(&str, Kind)] = &[
    ("add_lease_metrics_namespace_labels", Kind::Flag),
    ("dogstatsd_addr", Kind::Text),
    ("dogstatsd_tags", Kind::List),
    ("enable_hostname_label", Kind::Flag),
    ("filter_default", Kind::Flag),
    ("lease_metrics_epsilon", Kind::Text),
    ("maximum_gauge_cardinality", Kind::Number),
    ("metrics_prefix", Kind::Text),
    ("num_lease_metrics_buckets", Kind::Number),
    ("prefix_filter", Kind::List),
    ("statsd_address", Kind::Text),
    ("statsite_address", Kind::Text),
    ("usage_gauge_period", Kind::Text),
];

/// Reads files, and the `.hcl` and `.json` files of folders, in the order given. Of a setting that several files hold
/// the last one counts. With `dev`, the address of a dev server, storage and listeners may be missing.
///
/// # Errors
/// With file, line and what was expected.
pub fn load(paths: &[PathBuf], dev: Option<ListenerConfig>) -> Result<(Config, Vec<String>), ConfigError> {
    let mut texts = Vec::new();
    for path in paths {
        for file in files_at(path)? {
            let text = std::fs::read_to_string(&file).map_err(|err| unreadable(&file, err))?;
            texts.push((file, text));
        }
    }
    let texts: Vec<(&Path, &str)> =
        texts.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    parse(&texts, dev)
}

fn unreadable(path: &Path, err: impl std::fmt::Display) -> ConfigError {
    ConfigError { file: path.display().to_string(), line: None, message: format!("cannot be read: {err}") }
}

/// The file itself, or the configuration files of a folder by name.
fn files_at(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|err| unreadable(path, err))? {
        let file = entry.map_err(|err| unreadable(path, err))?.path();
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_config = name.ends_with(".hcl") || name.ends_with(".json");
        // Editors leave theirs behind.
        if is_config && !name.starts_with(['.', '#']) && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() { Err(unreadable(path, "it holds no .hcl or .json file")) } else { Ok(files) }
}

/// Reads texts as the files at their paths; also returns warnings. `dev` as for [`load`].
///
/// # Errors
/// As [`load`].
pub fn parse(
    texts: &[(&Path, &str)],
    dev: Option<ListenerConfig>,
) -> Result<(Config, Vec<String>), ConfigError> {
    let mut files: Vec<(&Path, Body)> = Vec::new();
    for (path, text) in texts {
        let body =
            arca_hcl::parse(text).map_err(|err| Place { file: path, line: err.line }.error(err.message))?;
        files.push((path, body));
    }
    let top = Section::top(&files);
    let mut warnings = Vec::new();
    let is_dev = dev.is_some();
    let storage = match storage::find(&top, &mut warnings)? {
        Some(found) => found,
        None if is_dev => (Storage::InMemory, super::RaftSettings::default(), None),
        None => {
            let text = "a storage block is missing: expected storage \"raft\", \"file\" or \"inmem\"";
            return Err(top.place.error(text));
        }
    };
    let duration_max = top.duration("default_max_request_duration")?.filter(|limit| !limit.is_zero());
    let mut listeners: Vec<_> = dev.into_iter().map(|listener| (listener, None)).collect();
    listeners.extend(listeners::all(&top, duration_max, &mut warnings)?);
    if listeners.is_empty() {
        return Err(top.place.error("a listener block is missing: expected listener \"tcp\""));
    }
    seal(&top, &mut warnings)?;
    let config = assemble(&top, storage, listeners, &mut warnings)?;
    top.idle(IDLE)?;
    if config.ui {
        top.warn("ui", "this version has no user interface");
    }
    warnings.extend(top.warnings());
    Ok((config, warnings))
}

fn assemble(
    top: &Section<'_>,
    (storage, raft, node_name): storage::Found,
    listeners: Vec<listeners::Found>,
    warnings: &mut Vec<String>,
) -> Result<Config, ConfigError> {
    let first = listeners.first();
    let api_addr = match top.text("api_addr")? {
        Some(addr) => checked_url(top, "api_addr", &addr)?,
        None => first.map(|(listener, _)| default_api_addr(listener)).unwrap_or_default(),
    };
    let cluster_listen =
        first.map(|(listener, given)| given.clone().unwrap_or_else(|| next_port(&listener.address)));
    let cluster_listen = cluster_listen.unwrap_or_else(|| format!("127.0.0.1:{}", API_PORT + 1));
    let cluster_addr = match top.text("cluster_addr")? {
        Some(addr) => {
            let bare = addr.trim_start_matches("https://").trim_end_matches('/').to_owned();
            if bare.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return Err(top.wrong("cluster_addr", "\"https://HOST:PORT\""));
            }
            bare
        }
        None => next_port(api_addr.trim_start_matches("https://").trim_start_matches("http://")),
    };
    let (default_lease_ttl, max_lease_ttl) = lease_ttls(top)?;
    let telemetry = telemetry(top, warnings)?;
    let user_lockout = super::user_lockout::read(top, warnings)?;
    let log_format = top.text("log_format")?.unwrap_or_default();
    if !matches!(log_format.as_str(), "" | "standard" | "json") {
        return Err(top.wrong("log_format", "\"standard\" or \"json\""));
    }
    let log_level = top.text("log_level")?.unwrap_or_default();
    Ok(Config {
        node_name: node_name.unwrap_or_else(crate::host::hostname),
        storage,
        listeners: listeners.into_iter().map(|(listener, _)| listener).collect(),
        api_addr,
        cluster_addr,
        cluster_listen,
        cluster_name: top.filled("cluster_name")?,
        default_lease_ttl,
        max_lease_ttl,
        user_lockout,
        disable_mlock: top.flag("disable_mlock")?.unwrap_or_default(),
        log_level: checked_level(&log_level)
            .ok_or_else(|| top.wrong("log_level", super::LOG_LEVELS))?
            .to_owned(),
        is_log_json: log_format == "json",
        log_file: top.filled("log_file")?.map(PathBuf::from),
        ui: top.flag("ui")?.unwrap_or_default(),
        pid_file: top.filled("pid_file")?.map(PathBuf::from),
        telemetry,
        raft,
        replication: replication(top, warnings)?,
        dev: None,
    })
}

fn lease_ttls(top: &Section<'_>) -> Result<(Duration, Duration), ConfigError> {
    let positive = |span: Option<Duration>| span.filter(|span| !span.is_zero());
    let default = positive(top.duration("default_lease_ttl")?);
    let max = positive(top.duration("max_lease_ttl")?).unwrap_or(LEASE_TTL);
    if default.is_some_and(|default| default > max) {
        return Err(top.wrong("default_lease_ttl", "a duration of at most max_lease_ttl"));
    }
    Ok((default.unwrap_or(LEASE_TTL.min(max)), max))
}

/// A level by any of its names; empty is `info`.
pub(super) fn checked_level(level: &str) -> Option<&'static str> {
    Some(match level.to_ascii_lowercase().as_str() {
        "" | "info" | "notice" => "info",
        "err" | "error" => "error",
        "warn" | "warning" => "warn",
        "debug" => "debug",
        "trace" => "trace",
        _ => return None,
    })
}

fn checked_url(top: &Section<'_>, name: &str, addr: &str) -> Result<String, ConfigError> {
    let is_url = addr.starts_with("http://") || addr.starts_with("https://");
    if is_url {
        Ok(addr.trim_end_matches('/').to_owned())
    } else {
        Err(top.wrong(name, "a URL such as \"https://HOST:8200\""))
    }
}

fn default_api_addr(listener: &ListenerConfig) -> String {
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let address = listener.address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "127.0.0.1:");
    format!("{scheme}://{address}")
}

/// The same host, one port up: where the cluster port is by convention.
fn next_port(address: &str) -> String {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    let port = port.parse::<u16>().unwrap_or(API_PORT);
    // An ephemeral API port goes with an ephemeral cluster port.
    format!("{host}:{}", if port == 0 { 0 } else { port.saturating_add(1) })
}

fn telemetry(top: &Section<'_>, warnings: &mut Vec<String>) -> Result<Telemetry, ConfigError> {
    let mut telemetry = Telemetry::default();
    for section in top.plain("telemetry")? {
        if let Some(is_disabled) = section.flag("disable_hostname")? {
            telemetry.disable_hostname = is_disabled;
            if !is_disabled {
                section.warn("disable_hostname", "no metric's name holds the host name here");
            }
        }
        if let Some(retention) = section.duration("prometheus_retention_time")? {
            telemetry.prometheus_retention = retention;
        }
        section.idle(IDLE_TELEMETRY)?;
        warnings.extend(section.warnings());
    }
    Ok(telemetry)
}

/// Vault's settings of this block size buffers that are not there here: what is shipped is read from the log.
const IDLE_REPLICATION: &[(&str, Kind)] = &[
    ("allow_forwarding_via_header", Kind::Flag),
    ("allow_forwarding_via_token", Kind::Text),
    ("best_effort_wal_wait_duration", Kind::Duration),
    ("logshipper_buffer_length", Kind::Number),
    ("logshipper_buffer_size", Kind::Text),
];

fn replication(
    top: &Section<'_>,
    warnings: &mut Vec<String>,
) -> Result<super::ReplicationSettings, ConfigError> {
    let mut settings = super::ReplicationSettings::default();
    for section in top.plain("replication")? {
        if let Some(rate) = section.number("catch_up_bytes_per_second")? {
            settings.bytes_per_second = rate;
        }
        if let Some(time) = section.duration("retention_time")? {
            settings.retention_time = time;
        }
        section.idle(IDLE_REPLICATION)?;
        warnings.extend(section.warnings());
    }
    Ok(settings)
}

/// Only the seal made of shares is there yet: any other would leave the operator believing in a protection that is not.
fn seal(top: &Section<'_>, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    for (kind, section) in top.labelled("seal")? {
        if kind != "shamir" {
            let message = format!("seal {kind:?}: expected \"shamir\", the one seal of this version");
            return Err(section.place.error(message));
        }
        warnings.extend(section.warnings());
    }
    Ok(())
}
