//! Reads a configuration file, HCL or JSON, into [`Config`]. Written for Vault's files: what works there works here,
//! or is named in a warning.

use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_api::client_addr::{Cidr, ForwardedFor};
use arca_api::{ListenerOptions, TlsOptions};
use arca_engine_api::Map;
use serde_json::json;

use super::listener;
use super::section::{ConfigError, Section};
use super::{Config, JoinTarget, ListenerConfig, RaftSettings, Storage, Telemetry};

/// Default lifetime of tokens and leases: 32 days, as in the field.
pub(crate) const LEASE_TTL: Duration = Duration::from_secs(768 * 3600);
const API_PORT: u16 = 8200;

/// Reads the file.
///
/// # Errors
/// With file, line and what was expected.
pub fn load(path: &Path) -> Result<(Config, Vec<String>), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|err| ConfigError {
        file: path.display().to_string(),
        line: 0,
        message: format!("cannot be read: {err}"),
    })?;
    parse(path, &text)
}

/// Reads `text` as the file at `path`; also returns warnings.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &str) -> Result<(Config, Vec<String>), ConfigError> {
    let body = arca_hcl::parse(text).map_err(|err| ConfigError {
        file: path.display().to_string(),
        line: err.line,
        message: err.message,
    })?;
    let top = Section::new(path, "", &body, 1);
    let mut warnings = Vec::new();
    let storage = storage(&top, &mut warnings)?;
    let listeners = listeners(&top, &mut warnings)?;
    let seal = seal(&top)?;
    let config = assemble(&top, storage, listeners, &mut warnings)?;
    warnings.extend(seal);
    top.ignore(&[
        "disable_cache",
        "cache_size",
        "disable_clustering",
        "max_open_files",
        "plugin_directory",
        "enable_response_header_hostname",
        "enable_response_header_raft_node_id",
        "disable_performance_standby",
        "license_path",
        "introspection_endpoint",
        "raw_storage_endpoint",
        "disable_sentinel_trace",
    ]);
    warnings.extend(top.unknown());
    Ok((config, warnings))
}

fn assemble(
    top: &Section<'_>,
    (storage, raft, node_name): (Storage, RaftSettings, Option<String>),
    listeners: Vec<(ListenerConfig, Option<String>)>,
    warnings: &mut Vec<String>,
) -> Result<Config, ConfigError> {
    let first = listeners.first();
    let api_addr = match top.text("api_addr")? {
        Some(addr) => checked_url(top, "api_addr", addr)?,
        None => first.map(|(listener, _)| default_api_addr(listener)).unwrap_or_default(),
    };
    let cluster_listen =
        first.map(|(listener, given)| given.clone().unwrap_or_else(|| next_port(&listener.address)));
    let cluster_listen = cluster_listen.unwrap_or_else(|| format!("127.0.0.1:{}", API_PORT + 1));
    let cluster_addr = match top.text("cluster_addr")? {
        Some(addr) => {
            let bare = addr.trim_start_matches("https://").trim_end_matches('/').to_owned();
            if bare.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return Err(
                    top.error(top.line_of("cluster_addr"), "cluster_addr: expected \"https://HOST:PORT\"")
                );
            }
            bare
        }
        None => next_port(api_addr.trim_start_matches("https://").trim_start_matches("http://")),
    };
    let (default_lease_ttl, max_lease_ttl) = lease_ttls(top)?;
    let telemetry = telemetry(top, warnings)?;
    let log_format = top.text("log_format")?.unwrap_or_default();
    if !matches!(log_format.as_str(), "" | "standard" | "json") {
        return Err(top.error(top.line_of("log_format"), "log_format: expected \"standard\" or \"json\""));
    }
    let node_name = match node_name {
        Some(name) => name,
        None => crate::host::hostname(),
    };
    let listeners: Vec<ListenerConfig> = listeners.into_iter().map(|(listener, _)| listener).collect();
    Ok(Config {
        node_name,
        sanitized: sanitized(&storage, &listeners, &api_addr, &cluster_addr),
        storage,
        listeners,
        api_addr,
        cluster_addr,
        cluster_listen,
        cluster_name: top.text("cluster_name")?,
        default_lease_ttl,
        max_lease_ttl,
        disable_mlock: top.flag("disable_mlock")?.unwrap_or_default(),
        log_level: log_level(top)?,
        is_log_json: log_format == "json",
        log_file: top.text("log_file")?.filter(|path| !path.is_empty()).map(PathBuf::from),
        ui: top.flag("ui")?.unwrap_or_default(),
        pid_file: top.text("pid_file")?.filter(|path| !path.is_empty()).map(PathBuf::from),
        telemetry,
        raft,
        dev: None,
    })
}

fn lease_ttls(top: &Section<'_>) -> Result<(Duration, Duration), ConfigError> {
    let positive = |span: Option<Duration>| span.filter(|span| !span.is_zero());
    let default = positive(top.duration("default_lease_ttl")?);
    let max = positive(top.duration("max_lease_ttl")?).unwrap_or(LEASE_TTL);
    if default.is_some_and(|default| default > max) {
        let line = top.line_of("default_lease_ttl");
        return Err(top.error(line, "default_lease_ttl: expected a duration of at most max_lease_ttl"));
    }
    Ok((default.unwrap_or(LEASE_TTL.min(max)), max))
}

fn log_level(top: &Section<'_>) -> Result<String, ConfigError> {
    let level = top.text("log_level")?.unwrap_or_default().to_ascii_lowercase();
    match level.as_str() {
        "" | "notice" => Ok("info".to_owned()),
        "err" => Ok("error".to_owned()),
        "warning" => Ok("warn".to_owned()),
        "trace" | "debug" | "info" | "warn" | "error" => Ok(level),
        _ => {
            Err(top.error(top.line_of("log_level"), "log_level: expected trace, debug, info, warn or error"))
        }
    }
}

fn checked_url(top: &Section<'_>, name: &str, addr: String) -> Result<String, ConfigError> {
    let is_url = addr.starts_with("http://") || addr.starts_with("https://");
    if is_url {
        Ok(addr.trim_end_matches('/').to_owned())
    } else {
        Err(top.error(top.line_of(name), format!("{name}: expected a URL such as \"https://HOST:8200\"")))
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

type StorageParts = (Storage, RaftSettings, Option<String>);

fn storage(top: &Section<'_>, warnings: &mut Vec<String>) -> Result<StorageParts, ConfigError> {
    let mut found = top.labelled("storage")?;
    found.extend(top.labelled("backend")?);
    let mut blocks = found.into_iter();
    let Some((kind, section)) = blocks.next() else {
        return Err(
            top.error(1, "a storage block is missing: expected storage \"raft\", \"file\" or \"inmem\"")
        );
    };
    if let Some((_, second)) = blocks.next() {
        return Err(second.error(second.line, "a second storage block: expected one"));
    }
    let needs_path = |section: &Section<'_>| {
        section.text("path")?.filter(|path| !path.is_empty()).map(PathBuf::from).ok_or_else(|| {
            section.error(section.line, format!("storage {kind:?}: expected path, the data directory"))
        })
    };
    let mut raft = RaftSettings::default();
    let mut node_name = None;
    let storage = match kind.as_str() {
        "file" => Storage::File { path: needs_path(&section)? },
        "inmem" | "inmem_ha" => Storage::InMemory,
        "raft" => {
            node_name = section.text("node_id")?.filter(|name| !name.is_empty());
            raft = raft_settings(&section)?;
            let mut retry_join = Vec::new();
            for block in section.plain("retry_join")? {
                retry_join.push(join_target(&block)?);
                warnings.extend(block.unknown());
            }
            Storage::Raft { path: needs_path(&section)?, retry_join }
        }
        other => {
            let message = format!("storage {other:?}: expected \"raft\", \"file\" or \"inmem\"");
            return Err(section.error(section.line, message));
        }
    };
    warnings.extend(section.unknown());
    Ok((storage, raft, node_name))
}

fn raft_settings(section: &Section<'_>) -> Result<RaftSettings, ConfigError> {
    let default = RaftSettings::default();
    let multiplier = section.number("performance_multiplier")?.unwrap_or(1).max(1);
    section.ignore(&[
        "trailing_logs",
        "snapshot_threshold",
        "snapshot_interval",
        "autopilot_reconcile_interval",
        "autopilot_update_interval",
        "raft_wal",
        "raft_log_verifier_enabled",
        "retry_join_as_non_voter",
    ]);
    let multiplier =
        u32::try_from(multiplier).ok().filter(|multiplier| *multiplier <= 10).ok_or_else(|| {
            section
                .error(section.line_of("performance_multiplier"), "performance_multiplier: expected 1 to 10")
        })?;
    Ok(RaftSettings {
        performance_multiplier: multiplier,
        log_retention_bytes: section.number("log_retention_bytes")?.unwrap_or(default.log_retention_bytes),
        low_water_bytes: section.number("low_water_bytes")?.unwrap_or(default.low_water_bytes),
        entry_size_max: section.number("max_entry_size")?.unwrap_or(default.entry_size_max),
    })
}

fn join_target(block: &Section<'_>) -> Result<JoinTarget, ConfigError> {
    let path = |name: &'static str| -> Result<Option<PathBuf>, ConfigError> {
        Ok(block.text(name)?.filter(|path| !path.is_empty()).map(PathBuf::from))
    };
    if block.text("auto_join")?.is_some_and(|text| !text.is_empty()) {
        return Err(block.error(
            block.line_of("auto_join"),
            "auto_join: cloud discovery is not supported, list the nodes",
        ));
    }
    block.ignore(&["auto_join_scheme", "auto_join_port"]);
    let api_addr = block.text("leader_api_addr")?.unwrap_or_default();
    if !api_addr.starts_with("http") {
        let line = block.line_of("leader_api_addr");
        return Err(
            block.error(line, "retry_join leader_api_addr: expected a URL such as \"https://HOST:8200\"")
        );
    }
    Ok(JoinTarget {
        api_addr,
        ca_cert: block.text("leader_ca_cert")?.filter(|pem| !pem.is_empty()),
        ca_cert_file: path("leader_ca_cert_file")?,
        client_cert_file: path("leader_client_cert_file")?,
        client_key_file: path("leader_client_key_file")?,
        tls_server_name: block.text("leader_tls_servername")?.filter(|name| !name.is_empty()),
    })
}

fn listeners(
    top: &Section<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<(ListenerConfig, Option<String>)>, ConfigError> {
    let mut found = Vec::new();
    for (kind, section) in top.labelled("listener")? {
        if kind != "tcp" {
            return Err(section.error(section.line, format!("listener {kind:?}: expected \"tcp\"")));
        }
        found.push(listener(&section, warnings)?);
        warnings.extend(section.unknown());
    }
    if found.is_empty() {
        return Err(top.error(1, "a listener block is missing: expected listener \"tcp\""));
    }
    Ok(found)
}

fn listener(
    section: &Section<'_>,
    warnings: &mut Vec<String>,
) -> Result<(ListenerConfig, Option<String>), ConfigError> {
    let address = section.text("address")?.unwrap_or_else(|| format!("127.0.0.1:{API_PORT}"));
    let address = if address.contains(':') { address } else { format!("{address}:{API_PORT}") };
    if address.to_socket_addrs().is_err() {
        return Err(
            section.error(section.line_of("address"), "listener address: expected HOST:PORT that resolves")
        );
    }
    let tls = if section.flag("tls_disable")?.unwrap_or_default() {
        None
    } else {
        Some(tls_options(section, warnings)?)
    };
    section.ignore(&[
        "tls_cert_file",
        "tls_key_file",
        "tls_client_ca_file",
        "tls_require_and_verify_client_cert",
        "tls_disable_client_certs",
        "tls_min_version",
        "tls_max_version",
        "tls_cipher_suites",
        "tls_prefer_server_cipher_suites",
        "http_write_timeout",
        "proxy_protocol_behavior",
        "disable_unauthed_rekey_endpoints",
        "disable_unauthed_generate_root_endpoints",
        "max_request_json_memory",
        "max_request_json_strings",
    ]);
    let mut options =
        ListenerOptions { forwarded_for: forwarded_for(section)?, ..ListenerOptions::default() };
    if let Some(size) = section.number("max_request_size")? {
        options.request_size_max = usize::try_from(size).unwrap_or(usize::MAX);
    }
    if let Some(limit) = section.duration("max_request_duration")?.filter(|limit| !limit.is_zero()) {
        options.request_duration_max = limit;
    }
    if let Some(timeout) = section.duration("http_read_header_timeout")?.filter(|timeout| !timeout.is_zero())
    {
        options.header_timeout = timeout;
    }
    if let Some(timeout) = section.duration("http_idle_timeout")?.filter(|timeout| !timeout.is_zero()) {
        options.idle_timeout = timeout;
    }
    section.ignore(&["http_read_timeout"]);
    options.response_headers = listener::response_headers(section, warnings)?;
    options.allows_stale = section.flag("stale_reads")?.unwrap_or_default();
    let mut unauthenticated_metrics = false;
    for telemetry in section.plain("telemetry")? {
        unauthenticated_metrics = telemetry.flag("unauthenticated_metrics_access")?.unwrap_or_default();
        warnings.extend(telemetry.unknown());
    }
    options.unauthenticated_metrics = unauthenticated_metrics;
    let cluster = section.text("cluster_address")?.filter(|address| !address.is_empty());
    Ok((ListenerConfig { address, tls, options, unauthenticated_metrics }, cluster))
}

fn forwarded_for(section: &Section<'_>) -> Result<ForwardedFor, ConfigError> {
    let mut rules = ForwardedFor {
        hop_skips: usize::try_from(section.number("x_forwarded_for_hop_skips")?.unwrap_or_default())
            .unwrap_or_default(),
        // As in the field: once proxies are named, both default to true.
        rejects_absent: section.flag("x_forwarded_for_reject_not_present")?.unwrap_or(true),
        rejects_unauthorized: section.flag("x_forwarded_for_reject_not_authorized")?.unwrap_or(true),
        authorized: Vec::new(),
    };
    if let Some((ranges, line)) = section.list("x_forwarded_for_authorized_addrs")? {
        let parsed: Result<Vec<Cidr>, String> = ranges.iter().map(|range| range.parse()).collect();
        rules.authorized =
            parsed.map_err(|err| section.error(line, format!("x_forwarded_for_authorized_addrs: {err}")))?;
    }
    Ok(rules)
}

fn tls_options(section: &Section<'_>, warnings: &mut Vec<String>) -> Result<TlsOptions, ConfigError> {
    let file = |name: &'static str| -> Result<Option<PathBuf>, ConfigError> {
        Ok(section.text(name)?.filter(|path| !path.is_empty()).map(PathBuf::from))
    };
    let needed = |name: &'static str| {
        file(name)?.ok_or_else(|| {
            section.error(section.line, format!("listener \"tcp\": expected {name}, or tls_disable = true"))
        })
    };
    Ok(TlsOptions {
        cert_file: needed("tls_cert_file")?,
        key_file: needed("tls_key_file")?,
        client_ca_file: file("tls_client_ca_file")?,
        requires_client_cert: section.flag("tls_require_and_verify_client_cert")?.unwrap_or_default(),
        disables_client_certs: section.flag("tls_disable_client_certs")?.unwrap_or_default(),
        is_tls13_only: listener::tls_version(section, "tls_min_version", warnings)? == Some(13),
        is_tls12_only: listener::tls_version(section, "tls_max_version", warnings)? == Some(12),
        cipher_suites: listener::cipher_suites(section, warnings)?,
    })
}

fn telemetry(top: &Section<'_>, warnings: &mut Vec<String>) -> Result<Telemetry, ConfigError> {
    let mut telemetry =
        Telemetry { prometheus_retention: Duration::from_secs(24 * 3600), disable_hostname: false };
    for section in top.plain("telemetry")? {
        telemetry.disable_hostname = section.flag("disable_hostname")?.unwrap_or_default();
        if let Some(retention) = section.duration("prometheus_retention_time")? {
            telemetry.prometheus_retention = retention;
        }
        section.ignore(&[
            "usage_gauge_period",
            "maximum_gauge_cardinality",
            "enable_hostname_label",
            "metrics_prefix",
            "lease_metrics_epsilon",
            "num_lease_metrics_buckets",
            "add_lease_metrics_namespace_labels",
        ]);
        warnings.extend(section.unknown());
    }
    Ok(telemetry)
}

/// Only the seal made of shares is there yet: any other would leave the operator believing in a protection that is not.
fn seal(top: &Section<'_>) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    for (kind, section) in top.labelled("seal")? {
        if kind != "shamir" {
            let message = format!("seal {kind:?}: expected \"shamir\", the one seal of this version");
            return Err(section.error(section.line, message));
        }
        warnings.extend(section.unknown());
    }
    Ok(warnings)
}

fn sanitized(storage: &Storage, listeners: &[ListenerConfig], api_addr: &str, cluster_addr: &str) -> Map {
    let kind = match storage {
        Storage::File { .. } => "file",
        Storage::InMemory => "inmem",
        Storage::Raft { .. } => "raft",
    };
    let listeners: Vec<_> = listeners
        .iter()
        .map(|listener| json!({"type": "tcp", "config": {"address": listener.address, "tls_disable": listener.tls.is_none()}}))
        .collect();
    let value = json!({
        "api_addr": api_addr,
        "cluster_addr": format!("https://{cluster_addr}"),
        "listeners": listeners,
        "storage": {"type": kind, "cluster_addr": format!("https://{cluster_addr}"), "redirect_addr": api_addr},
        "seals": [{"type": "shamir", "disabled": false}],
    });
    if let serde_json::Value::Object(map) = value { map } else { Map::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
storage "raft" {
  path = "data" node_id = "n1"
  retry_join { leader_api_addr = "https://127.0.0.1:8210" }
  retry_join { leader_api_addr = "https://127.0.0.1:8220" leader_tls_servername = "x" }
}
listener "tcp" { address = "127.0.0.1:8200" tls_disable = "true" }
listener "tcp" { address = "127.0.0.1:8300" tls_cert_file = "c.pem" tls_key_file = "k.pem" }
default_lease_ttl = "1h"
cluster_addr = "https://127.0.0.1:9000"
disable_mlock = true
"#;

    fn read(text: &str) -> Result<(Config, Vec<String>), ConfigError> {
        parse(Path::new("arca.hcl"), text)
    }

    #[track_caller]
    fn check_error(text: &str, want: &str) {
        let got = read(text).map_or_else(|err| err.to_string(), |_| "accepted".to_owned());
        assert_eq!(got, want, "input {text:?}");
    }

    #[test]
    fn reads_a_whole_file() {
        let (config, warnings) = read(GOOD).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert_eq!((config.node_name.as_str(), config.api_addr.as_str()), ("n1", "http://127.0.0.1:8200"));
        assert_eq!(
            (config.cluster_addr.as_str(), config.cluster_listen.as_str()),
            ("127.0.0.1:9000", "127.0.0.1:8201")
        );
        assert_eq!(config.listeners.len(), 2);
        assert!(config.listeners[0].tls.is_none() && config.listeners[1].tls.is_some());
        let Storage::Raft { retry_join, .. } = &config.storage else { panic!("not raft") };
        assert_eq!(retry_join.len(), 2);
        assert_eq!(config.default_lease_ttl, Duration::from_secs(3600));
    }

    #[test]
    fn reads_json_in_both_shapes() {
        let objects = r#"{"storage": {"inmem": {}}, "listener": {"tcp": {"address": "127.0.0.1:0", "tls_disable": 1}}}"#;
        let lists = r#"{"storage": [{"inmem": {}}], "listener": [{"tcp": {"address": "127.0.0.1:0", "tls_disable": "1"}}]}"#;
        for text in [objects, lists] {
            let (config, _) = read(text).unwrap();
            assert!(matches!(config.storage, Storage::InMemory), "{text}");
            assert_eq!(config.cluster_listen, "127.0.0.1:0");
        }
    }

    #[test]
    fn warns_of_unknown_settings_with_their_line() {
        let (_, warnings) = read(&format!("{GOOD}\nnonsense = 1\n")).unwrap();
        assert_eq!(warnings, [r#"arca.hcl:13: unknown or unsupported setting "nonsense": it has no effect"#]);
    }

    #[test]
    fn says_where_and_what_was_expected() {
        let listener = "listener \"tcp\" { tls_disable = true }\n";
        check_error(
            listener,
            "arca.hcl:1: a storage block is missing: expected storage \"raft\", \"file\" or \"inmem\"",
        );
        check_error(
            "storage \"inmem\" {}\n",
            "arca.hcl:1: a listener block is missing: expected listener \"tcp\"",
        );
        check_error(
            &format!("storage \"consul\" {{}}\n{listener}"),
            "arca.hcl:1: storage \"consul\": expected \"raft\", \"file\" or \"inmem\"",
        );
        check_error(
            &format!("{listener}storage \"raft\" {{}}\n"),
            "arca.hcl:2: storage \"raft\": expected path, the data directory",
        );
        check_error(
            &format!("storage \"inmem\" {{}}\n{listener}max_lease_ttl = \"soon\"\n"),
            "arca.hcl:3: max_lease_ttl: expected a duration such as \"30s\" or \"768h\"",
        );
        check_error(
            "storage \"inmem\" {}\nlistener \"tcp\" {\n  tls_disable = \"maybe\"\n}\n",
            "arca.hcl:3: listener \"tcp\" tls_disable: expected true or false",
        );
        check_error(
            &format!("storage \"inmem\" {{}}\n{listener}seal \"awskms\" {{}}\n"),
            "arca.hcl:3: seal \"awskms\": expected \"shamir\", the one seal of this version",
        );
        check_error(
            "storage \"inmem\" {}\nlistener \"tcp\" { address = \"127.0.0.1:1\" }\n",
            "arca.hcl:2: listener \"tcp\": expected tls_cert_file, or tls_disable = true",
        );
    }
}
