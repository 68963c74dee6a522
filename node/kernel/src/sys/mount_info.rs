//! A mount as `sys/mounts`, `sys/auth` and `sys/internal/ui` show it, and its settings as requests give them.

use std::time::Duration;

use arca_engine_api::{Engine, EngineKind, Fields, Map};
use serde_json::{Value, json};

use crate::KernelError;
use crate::kernel::Kernel;
use crate::lockout::LockoutTuning;
use crate::mounts::{MountConfig, MountRecord};
use crate::router::{Mount, Serves};

/// Kinds of token an auth method may make.
const TOKEN_TYPES: [&str; 4] = ["batch", "default-batch", "default-service", "service"];

/// What everybody who may see the mount sees.
pub(super) fn shown(kernel: &Kernel, mount: &Mount) -> Map {
    let record = &mount.record;
    let is_builtin = !matches!(mount.serves, Serves::Engine(_))
        || matches!(record.path.as_str(), "cubbyhole/" | "identity/");
    let options = if is_builtin && record.options.is_empty() { Value::Null } else { json!(record.options) };
    let mut info = Map::new();
    let mut put = |name: &str, value: Value| drop(info.insert(name.to_owned(), value));
    put("accessor", record.accessor.as_str().into());
    put("config", shown_config(record).into());
    if !is_builtin {
        put("deprecation_status", "supported".into());
    }
    put("description", record.description.as_str().into());
    put("external_entropy_access", record.external_entropy_access.into());
    put("local", record.is_local.into());
    put("options", options);
    put("plugin_version", record.config.plugin_version.as_str().into());
    put("running_plugin_version", running_version(&kernel.cluster.info().version).into());
    put("running_sha256", "".into());
    put("seal_wrap", record.seal_wrap.into());
    put("type", record.engine.as_str().into());
    put("uuid", record.uuid.as_str().into());
    info
}

/// The server's version, marked as built in, as a semantic version: build metadata follows one plus.
fn running_version(version: &str) -> String {
    let mark = if version.contains('+') { '.' } else { '+' };
    format!("v{version}{mark}builtin")
}

fn shown_config(record: &MountRecord) -> Map {
    let config = &record.config;
    let mut shown = optional_settings(config);
    if let Some(lockout) = shown_lockout(config) {
        shown.insert("user_lockout_config".to_owned(), lockout.into());
    }
    shown.insert("default_lease_ttl".to_owned(), config.default_lease_ttl.into());
    shown.insert("max_lease_ttl".to_owned(), config.max_lease_ttl.into());
    shown.insert("force_no_cache".to_owned(), config.force_no_cache.into());
    if record.kind() == EngineKind::Auth {
        shown.insert("token_type".to_owned(), token_type(config).into());
    }
    shown
}

fn token_type(config: &MountConfig) -> &str {
    if config.token_type.is_empty() { "default-service" } else { &config.token_type }
}

/// Settings that are only shown once they are set.
fn optional_settings(config: &MountConfig) -> Map {
    let mut shown = Map::new();
    let lists = [
        ("allowed_response_headers", &config.allowed_response_headers),
        ("audit_non_hmac_request_keys", &config.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &config.audit_non_hmac_response_keys),
        ("passthrough_request_headers", &config.passthrough_request_headers),
    ];
    for (name, list) in lists {
        if !list.is_empty() {
            shown.insert(name.to_owned(), json!(list));
        }
    }
    if !config.listing_visibility.is_empty() {
        shown.insert("listing_visibility".to_owned(), config.listing_visibility.as_str().into());
    }
    shown
}

/// The settings of the lockout, once one is set.
fn shown_lockout(config: &MountConfig) -> Option<Map> {
    let tuning = &config.user_lockout_config;
    let shown = json!({
        "user_lockout_counter_reset_duration": tuning.counter_reset_s,
        "user_lockout_disable": tuning.is_disabled,
        "user_lockout_duration": tuning.duration_s,
        "user_lockout_threshold": tuning.threshold,
    });
    if *tuning == LockoutTuning::default() { None } else { shown.as_object().cloned() }
}

/// The answer to a read of `…/tune`: lifetimes with the system's applied.
pub(super) fn shown_tune(mount: &Mount) -> Map {
    let record = &mount.record;
    let mut shown = optional_settings(&record.config);
    shown.extend(shown_lockout(&record.config).unwrap_or_default());
    shown.insert("default_lease_ttl".to_owned(), mount.view.default_lease_ttl.as_secs().into());
    shown.insert("max_lease_ttl".to_owned(), mount.view.max_lease_ttl.as_secs().into());
    shown.insert("force_no_cache".to_owned(), record.config.force_no_cache.into());
    shown.insert("description".to_owned(), record.description.as_str().into());
    if !record.options.is_empty() {
        shown.insert("options".to_owned(), json!(record.options));
    }
    if record.kind() == EngineKind::Auth {
        shown.insert("token_type".to_owned(), token_type(&record.config).into());
    }
    shown
}

/// Whether the settings are those of a new mount or changes to one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// At enable.
    New,
    /// At `…/tune`.
    Change,
}

/// Applies the settings a request gives.
///
/// # Errors
/// When one has the wrong type or value, or the lifetimes do not fit each other.
pub(crate) fn tune_from(
    fields: Fields<'_>,
    kind: EngineKind,
    system_max: Duration,
    tuning: Tuning,
    config: &mut MountConfig,
) -> Result<(), KernelError> {
    set_ttl(fields, "default_lease_ttl", &mut config.default_lease_ttl)?;
    set_ttl(fields, "max_lease_ttl", &mut config.max_lease_ttl)?;
    check_ttls(config, system_max, tuning)?;
    if let Some(flag) = fields.boolean("force_no_cache")? {
        config.force_no_cache = flag;
    }
    let lists = [
        ("allowed_response_headers", &mut config.allowed_response_headers),
        ("audit_non_hmac_request_keys", &mut config.audit_non_hmac_request_keys),
        ("audit_non_hmac_response_keys", &mut config.audit_non_hmac_response_keys),
        ("passthrough_request_headers", &mut config.passthrough_request_headers),
    ];
    for (name, target) in lists {
        if let Some(list) = fields.list(name)? {
            *target = list;
        }
    }
    refuse_token_headers(config)?;
    if let Some(visibility) = fields.string("listing_visibility")? {
        if !matches!(visibility.as_str(), "" | "hidden" | "unauth") {
            return Err(KernelError::invalid("invalid listing_visibility: it must be hidden or unauth"));
        }
        config.listing_visibility = visibility;
    }
    if let Some(wanted) = fields.string("token_type")?.filter(|wanted| !wanted.is_empty()) {
        if kind == EngineKind::Secrets {
            return Err(KernelError::invalid("'token_type' can only be modified on auth mounts"));
        }
        if !TOKEN_TYPES.contains(&wanted.as_str()) {
            return Err(KernelError::invalid("invalid value for 'token_type'"));
        }
        config.token_type = wanted;
    }
    if let Some(version) = fields.string("plugin_version")? {
        config.plugin_version = version;
    }
    if let Some(lockout) = fields.object("user_lockout_config")? {
        tune_lockout(Fields::new(lockout), &mut config.user_lockout_config)?;
    }
    Ok(())
}

fn tune_lockout(fields: Fields<'_>, tuning: &mut LockoutTuning) -> Result<(), KernelError> {
    if let Some(threshold) = fields.integer("lockout_threshold")? {
        tuning.threshold = u64::try_from(threshold)
            .map_err(|_| KernelError::invalid("the lockout threshold cannot be negative"))?;
    }
    let spans = [
        ("lockout_duration", &mut tuning.duration_s),
        ("lockout_counter_reset_duration", &mut tuning.counter_reset_s),
    ];
    for (name, target) in spans {
        if let Some(span) = fields.duration(name)? {
            *target = span.as_secs();
        }
    }
    if let Some(flag) = fields.boolean("lockout_disable")? {
        tuning.is_disabled = flag;
    }
    Ok(())
}

/// # Errors
/// When the lockout of a mount is tuned whose failed logins nobody counts.
pub(crate) fn refuse_lockout(record: &MountRecord, engine: Option<&dyn Engine>) -> Result<(), KernelError> {
    if engine.is_some_and(Engine::locks_names) {
        return Ok(());
    }
    let name = &record.engine;
    let text = format!("tuning of user lockout configuration for auth type {name:?} not allowed");
    Err(KernelError::Invalid(text))
}

fn set_ttl(fields: Fields<'_>, name: &str, target: &mut u64) -> Result<(), KernelError> {
    match fields.raw(name).and_then(Value::as_str) {
        // The Go client sends it for what its caller left alone.
        Some("") => {}
        // Takes a setting back.
        Some("system") => *target = 0,
        _ => {
            if let Some(ttl) = fields.duration(name)? {
                *target = ttl.as_secs();
            }
        }
    }
    Ok(())
}

fn check_ttls(config: &MountConfig, system_max: Duration, tuning: Tuning) -> Result<(), KernelError> {
    let (default, max) = (config.default_lease_ttl, config.max_lease_ttl);
    if max != 0 && default > max {
        return Err(KernelError::invalid(match tuning {
            Tuning::New => "given default lease TTL greater than given max lease TTL".to_owned(),
            Tuning::Change => format!(
                "backend max lease TTL of {max} would be less than backend default lease TTL of {default}"
            ),
        }));
    }
    if max == 0 && default > system_max.as_secs() {
        return Err(KernelError::invalid(format!(
            "given default lease TTL greater than system max lease TTL of {}",
            system_max.as_secs()
        )));
    }
    Ok(())
}

/// A mount never sees the token that came with the request (CVE-2026-4525).
fn refuse_token_headers(config: &MountConfig) -> Result<(), KernelError> {
    let is_token = |name: &String| name.eq_ignore_ascii_case("x-vault-token");
    if config.passthrough_request_headers.iter().any(is_token) {
        return Err(KernelError::invalid("the token header cannot be passed through"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sent: &Value, want: u64) {
        let (mut ttl, body) = (60, Map::from_iter([("default_lease_ttl".to_owned(), sent.clone())]));
        set_ttl(Fields::new(&body), "default_lease_ttl", &mut ttl).unwrap();
        assert_eq!(ttl, want, "{sent}");
    }

    #[test]
    fn a_lifetime_left_alone_stays() {
        check(&json!(""), 60);
        check(&Value::Null, 60);
        check(&json!("system"), 0);
        check(&json!("30m"), 1_800);
        check(&json!(5), 5);
    }

    #[test]
    fn a_version_has_one_plus() {
        assert_eq!(running_version("1.21.0+arca.0.1.0"), "v1.21.0+arca.0.1.0.builtin");
        assert_eq!(running_version("1.21.0"), "v1.21.0+builtin");
    }
}
