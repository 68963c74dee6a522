//! Settings of revocation: how long lists and OCSP answers hold, and when lists are made.

use std::sync::Arc;

use arca_engine_api::{Ctx, EngineError, Operation, Response, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::Call;
use super::crl;
use super::issuer_paths::short_duration;

const KEY: &str = "config/crl";

/// The settings as stored. Spans are seconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // They are the API's fields.
pub(super) struct CrlConfig {
    pub(super) allow_expired_cert_revocation: bool,
    pub(super) auto_rebuild: bool,
    pub(super) auto_rebuild_grace_period: u64,
    pub(super) delta_rebuild_interval: u64,
    pub(super) disable: bool,
    pub(super) enable_delta: bool,
    pub(super) expiry: u64,
    pub(super) ocsp_disable: bool,
    pub(super) ocsp_expiry: u64,
}

impl Default for CrlConfig {
    fn default() -> Self {
        Self {
            allow_expired_cert_revocation: false,
            auto_rebuild: false,
            auto_rebuild_grace_period: 12 * 3_600,
            delta_rebuild_interval: 15 * 60,
            disable: false,
            enable_delta: false,
            expiry: 72 * 3_600,
            ocsp_disable: false,
            ocsp_expiry: 12 * 3_600,
        }
    }
}

/// The settings of a mount.
pub(super) fn of(ctx: &Ctx<'_>) -> Result<Arc<CrlConfig>, EngineError> {
    Ok(ctx.storage.get_shared::<CrlConfig>(KEY)?.unwrap_or_default())
}

impl CrlConfig {
    fn check(&self) -> Result<(), EngineError> {
        if self.expiry == 0 {
            return Err(EngineError::invalid("expiry must be at least a second"));
        }
        if self.auto_rebuild && self.auto_rebuild_grace_period >= self.expiry {
            return Err(EngineError::Invalid(format!(
                "CRL auto-rebuilding grace period ({}) must be strictly shorter than CRL expiry ({}) \
                 value when auto-rebuilding of CRLs is enabled",
                short_duration(self.auto_rebuild_grace_period),
                short_duration(self.expiry)
            )));
        }
        if self.enable_delta && self.delta_rebuild_interval >= self.expiry {
            return Err(EngineError::Invalid(format!(
                "CRL delta rebuild window ({}) must be strictly shorter than CRL expiry ({}) value when \
                 delta CRLs are enabled",
                short_duration(self.delta_rebuild_interval),
                short_duration(self.expiry)
            )));
        }
        if self.enable_delta && !self.auto_rebuild {
            return Err(EngineError::invalid(
                "Delta CRLs cannot be enabled when auto rebuilding is disabled as the complete CRL is always regenerated!",
            ));
        }
        Ok(())
    }
}

/// Reads or writes the settings. A write that changes what is in the lists makes them anew.
pub(super) fn serve(call: &Call<'_>) -> Result<Response, EngineError> {
    let before = of(call.ctx)?;
    let mut config = (*before).clone();
    if call.request.operation != Operation::Read {
        let fields = call.fields();
        for (field, slot) in [
            ("allow_expired_cert_revocation", &mut config.allow_expired_cert_revocation),
            ("auto_rebuild", &mut config.auto_rebuild),
            ("disable", &mut config.disable),
            ("enable_delta", &mut config.enable_delta),
            ("ocsp_disable", &mut config.ocsp_disable),
        ] {
            if let Some(value) = fields.boolean(field)? {
                *slot = value;
            }
        }
        for (field, slot) in [
            ("auto_rebuild_grace_period", &mut config.auto_rebuild_grace_period),
            ("delta_rebuild_interval", &mut config.delta_rebuild_interval),
            ("expiry", &mut config.expiry),
            ("ocsp_expiry", &mut config.ocsp_expiry),
        ] {
            if let Some(value) = fields.duration(field)? {
                *slot = value.as_secs();
            }
        }
        config.check()?;
        call.ctx.storage.put_record(KEY, &config)?;
        let is_list_changed = before.disable != config.disable
            || (before.auto_rebuild && !config.auto_rebuild)
            || before.enable_delta != config.enable_delta
            || before.expiry != config.expiry;
        if is_list_changed {
            crl::build_all(call)?;
        }
    }
    Ok(Response::data(json!({
        "allow_expired_cert_revocation": config.allow_expired_cert_revocation,
        "auto_rebuild": config.auto_rebuild,
        "auto_rebuild_grace_period": short_duration(config.auto_rebuild_grace_period),
        "delta_rebuild_interval": short_duration(config.delta_rebuild_interval),
        "disable": config.disable,
        "enable_delta": config.enable_delta,
        "expiry": short_duration(config.expiry),
        "ocsp_disable": config.ocsp_disable,
        "ocsp_expiry": short_duration(config.ocsp_expiry),
    })))
}
