//! The flags that shape a mount, shared by `secrets` and `auth`, `enable` and `tune`.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_client::duration;
use arca_client::mounts::Tuning;
use clap::Args;
use serde_json::Value;

use crate::error::CliError;
use crate::input;

/// Flags that shape a mount.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Shape {
    /// For humans.
    #[arg(long, value_name = "TEXT")]
    pub(super) description: Option<String>,
    /// TTL of leases that ask for none, such as 1h.
    #[arg(long, value_name = "TTL", value_parser = duration::parse)]
    default_lease_ttl: Option<Duration>,
    /// Longest TTL of a lease.
    #[arg(long, value_name = "TTL", value_parser = duration::parse)]
    max_lease_ttl: Option<Duration>,
    /// Request field that audit logs show; may be given several times.
    #[arg(long, value_name = "NAME")]
    audit_non_hmac_request_keys: Vec<String>,
    /// Response field that audit logs show; may be given several times.
    #[arg(long, value_name = "NAME")]
    audit_non_hmac_response_keys: Vec<String>,
    /// Who sees the mount in listings: unauth or hidden.
    #[arg(long, value_name = "WHO")]
    listing_visibility: Option<String>,
    /// Request header the mount sees; may be given several times.
    #[arg(long, value_name = "NAME")]
    passthrough_request_headers: Vec<String>,
    /// Response header the mount may set; may be given several times.
    #[arg(long, value_name = "NAME")]
    allowed_response_headers: Vec<String>,
    /// Setting of the engine; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Version of the engine, where it has versions (kv: 1 or 2).
    #[arg(long, value_name = "N")]
    version: Option<u32>,
    /// Version of the plugin to run.
    #[arg(long, value_name = "SEMVER")]
    plugin_version: Option<String>,
}

/// Flags that only auth methods have.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct AuthShape {
    /// What tokens the method makes: service, batch, default-service, default-batch.
    #[arg(long, value_name = "TYPE")]
    token_type: Option<String>,
}

/// Flags on when failed logins lock a user out.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Lockout {
    /// Failures that lock a user out.
    #[arg(long, value_name = "N")]
    user_lockout_threshold: Option<u64>,
    /// How long a user stays out.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    user_lockout_duration: Option<Duration>,
    /// When failures are forgotten.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    user_lockout_counter_reset_duration: Option<Duration>,
    /// Lock nobody out.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    user_lockout_disable: Option<bool>,
}

/// A list, if any was given. Servers take one flag with commas and several flags alike.
fn list(items: &[String]) -> Option<Vec<String>> {
    let all: Vec<_> = items.iter().flat_map(|item| item.split(',')).map(str::to_owned).collect();
    (!all.is_empty()).then_some(all)
}

impl Shape {
    /// The settings as the server takes them.
    pub(super) fn tuning(&self) -> Tuning {
        Tuning {
            default_lease_ttl: self.default_lease_ttl.map(duration::format),
            max_lease_ttl: self.max_lease_ttl.map(duration::format),
            audit_non_hmac_request_keys: list(&self.audit_non_hmac_request_keys),
            audit_non_hmac_response_keys: list(&self.audit_non_hmac_response_keys),
            listing_visibility: self.listing_visibility.clone(),
            passthrough_request_headers: list(&self.passthrough_request_headers),
            allowed_response_headers: list(&self.allowed_response_headers),
            plugin_version: self.plugin_version.clone(),
            ..Tuning::default()
        }
    }

    /// The engine's own settings, `-version` among them.
    pub(super) fn options(&self) -> Result<BTreeMap<String, String>, CliError> {
        let mut options: BTreeMap<String, String> = input::pairs("-options", &self.options)?;
        if let Some(version) = self.version {
            options.insert("version".into(), version.to_string());
        }
        Ok(options)
    }
}

impl AuthShape {
    pub(super) fn apply(&self, tuning: &mut Tuning) {
        tuning.token_type.clone_from(&self.token_type);
    }
}

impl Lockout {
    pub(super) fn apply(&self, tuning: &mut Tuning) {
        let mut config: BTreeMap<String, Value> = BTreeMap::new();
        if let Some(count) = self.user_lockout_threshold {
            config.insert("lockout_threshold".into(), count.to_string().into());
        }
        if let Some(out) = self.user_lockout_duration {
            config.insert("lockout_duration".into(), duration::format(out).into());
        }
        if let Some(reset) = self.user_lockout_counter_reset_duration {
            config.insert("lockout_counter_reset_duration".into(), duration::format(reset).into());
        }
        if let Some(disable) = self.user_lockout_disable {
            config.insert("lockout_disable".into(), disable.into());
        }
        tuning.user_lockout_config = (!config.is_empty()).then_some(config);
    }
}
