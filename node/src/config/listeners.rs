//! `listener "tcp"` blocks.

use std::net::ToSocketAddrs as _;
use std::path::PathBuf;
use std::time::Duration;

use arca_api::client_addr::{Cidr, ForwardedFor};
use arca_api::{ClosedPaths, ListenerOptions, TlsOptions};

use super::ListenerConfig;
use super::file::API_PORT;
use super::listener_values;
use super::section::{ConfigError, Kind, Section};

/// Understood, checked, and without effect.
const IDLE: &[(&str, Kind)] = &[
    ("http_read_timeout", Kind::Duration),
    ("http_write_timeout", Kind::Duration),
    ("max_request_json_memory", Kind::Number),
    ("max_request_json_strings", Kind::Number),
    ("proxy_protocol_authorized_addrs", Kind::List),
    ("proxy_protocol_behavior", Kind::Text),
    ("tls_prefer_server_cipher_suites", Kind::Flag),
];

/// A listener with its `cluster_address`, if it names one.
pub(super) type Found = (ListenerConfig, Option<String>);

/// All of them. `duration_max` bounds the requests of those that say nothing of it.
pub(super) fn all(
    top: &Section<'_>,
    duration_max: Option<Duration>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Found>, ConfigError> {
    let mut found = Vec::new();
    for (kind, section) in top.labelled("listener")? {
        if kind != "tcp" {
            return Err(section.place.error(format!("listener {kind:?}: expected \"tcp\"")));
        }
        found.push(one(&section, duration_max, warnings)?);
        warnings.extend(section.warnings());
    }
    Ok(found)
}

fn one(
    section: &Section<'_>,
    duration_max: Option<Duration>,
    warnings: &mut Vec<String>,
) -> Result<Found, ConfigError> {
    let address = section.text("address")?.unwrap_or_else(|| format!("127.0.0.1:{API_PORT}"));
    let address = if address.contains(':') { address } else { format!("{address}:{API_PORT}") };
    if address.to_socket_addrs().is_err() {
        return Err(section.wrong("address", "HOST:PORT that resolves"));
    }
    let is_plain = section.flag("tls_disable")?.unwrap_or_default();
    // Checked in any case: what is wrong now would be wrong the day TLS is turned on.
    let tls = tls_options(section, is_plain)?;
    section.idle(IDLE)?;
    let mut options =
        ListenerOptions { forwarded_for: forwarded_for(section)?, ..ListenerOptions::default() };
    if let Some(size) = section.number("max_request_size")? {
        options.request_size_max = usize::try_from(size).unwrap_or(usize::MAX);
    }
    let positive = |span: Option<Duration>| span.filter(|span| !span.is_zero());
    if let Some(limit) = positive(section.duration("max_request_duration")?).or(duration_max) {
        options.request_duration_max = limit;
    }
    if let Some(timeout) = positive(section.duration("http_read_header_timeout")?) {
        options.header_timeout = timeout;
    }
    if let Some(timeout) = positive(section.duration("http_idle_timeout")?) {
        options.idle_timeout = timeout;
    }
    options.response_headers = listener_values::response_headers(section, warnings)?;
    options.closed = ClosedPaths {
        generate_root: section.flag("disable_unauthed_generate_root_endpoints")?.unwrap_or(true),
        rekey: section.flag("disable_unauthed_rekey_endpoints")?.unwrap_or(true),
    };
    options.allows_stale = section.flag("stale_reads")?.unwrap_or_default();
    let mut unauthenticated_metrics = false;
    for telemetry in section.plain("telemetry")? {
        unauthenticated_metrics = telemetry.flag("unauthenticated_metrics_access")?.unwrap_or_default();
        warnings.extend(telemetry.warnings());
    }
    options.unauthenticated_metrics = unauthenticated_metrics;
    let cluster = section.filled("cluster_address")?;
    let as_written = section.as_written();
    Ok((ListenerConfig { address, tls, options, unauthenticated_metrics, as_written }, cluster))
}

fn forwarded_for(section: &Section<'_>) -> Result<ForwardedFor, ConfigError> {
    const AUTHORIZED: &str = "x_forwarded_for_authorized_addrs";
    let mut rules = ForwardedFor {
        hop_skips: usize::try_from(section.number("x_forwarded_for_hop_skips")?.unwrap_or_default())
            .unwrap_or_default(),
        // As in the field: once proxies are named, both default to true.
        rejects_absent: section.flag("x_forwarded_for_reject_not_present")?.unwrap_or(true),
        rejects_unauthorized: section.flag("x_forwarded_for_reject_not_authorized")?.unwrap_or(true),
        authorized: Vec::new(),
    };
    if let Some(ranges) = section.list(AUTHORIZED)? {
        let parsed: Result<Vec<Cidr>, String> = ranges.iter().map(|range| range.parse()).collect();
        rules.authorized =
            parsed.map_err(|_| section.wrong(AUTHORIZED, "addresses or ranges such as \"10.0.0.0/8\""))?;
    }
    Ok(rules)
}

fn tls_options(section: &Section<'_>, is_plain: bool) -> Result<Option<TlsOptions>, ConfigError> {
    let file = |name: &'static str| -> Result<Option<PathBuf>, ConfigError> {
        Ok(section.filled(name)?.map(PathBuf::from))
    };
    let (cert, key) = (file("tls_cert_file")?, file("tls_key_file")?);
    let options = TlsOptions {
        cert_file: cert.clone().unwrap_or_default(),
        key_file: key.clone().unwrap_or_default(),
        client_ca_file: file("tls_client_ca_file")?,
        requires_client_cert: section.flag("tls_require_and_verify_client_cert")?.unwrap_or_default(),
        disables_client_certs: section.flag("tls_disable_client_certs")?.unwrap_or_default(),
        is_tls13_only: listener_values::tls_version(section, "tls_min_version")? == Some(13),
        is_tls12_only: listener_values::tls_version(section, "tls_max_version")? == Some(12),
        cipher_suites: listener_values::cipher_suites(section)?,
    };
    let missing =
        [("tls_cert_file", cert), ("tls_key_file", key)].into_iter().find(|(_, path)| path.is_none());
    match missing {
        _ if is_plain => Ok(None),
        Some((name, _)) => {
            let text = format!("listener \"tcp\": expected {name}, or tls_disable = true");
            Err(section.place.error(text))
        }
        None => Ok(Some(options)),
    }
}
