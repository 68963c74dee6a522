//! Settings of revocation: how long lists and OCSP answers hold, and when lists are made.

use std::fmt;
use std::sync::Arc;

use arca_engine_api::fields::parse_duration;
use arca_engine_api::{Ctx, EngineError, Fields, Operation, Response, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::Call;
use super::crl;
use super::issuer_paths::short_duration;

const KEY: &str = "config/crl";

/// A span of whole seconds, with the text it was written as: whoever reads a setting finds what they wrote, so that what keeps
/// settings in step sees no difference where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StoredSpan", into = "String")]
pub(super) struct Span {
    text: String,
    seconds: u64,
}

/// What a record has of a span: its text, or only the seconds in records from before texts were kept.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredSpan {
    Seconds(u64),
    Text(String),
}

impl Span {
    fn of_seconds(seconds: u64) -> Self {
        Self { text: short_duration(seconds), seconds }
    }

    /// What a request says, if it says it. Empty text stands for what a new mount has.
    fn sent(fields: Fields<'_>, name: &str, default: &Self) -> Result<Option<Self>, EngineError> {
        let (Some(span), Some(text)) = (fields.duration(name)?, fields.string(name)?) else {
            return Ok(None);
        };
        Ok(Some(if text.is_empty() { default.clone() } else { Self { text, seconds: span.as_secs() } }))
    }

    pub(super) fn as_secs(&self) -> u64 {
        self.seconds
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.text
    }
}

impl TryFrom<StoredSpan> for Span {
    type Error = &'static str;

    fn try_from(stored: StoredSpan) -> Result<Self, Self::Error> {
        match stored {
            StoredSpan::Seconds(seconds) => Ok(Self::of_seconds(seconds)),
            StoredSpan::Text(text) => {
                let seconds = parse_duration(&text).ok_or("no duration")?.as_secs();
                Ok(Self { text, seconds })
            }
        }
    }
}

/// The settings as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(clippy::struct_excessive_bools)] // They are the API's fields.
pub(super) struct CrlConfig {
    pub(super) allow_expired_cert_revocation: bool,
    pub(super) auto_rebuild: bool,
    pub(super) auto_rebuild_grace_period: Span,
    pub(super) delta_rebuild_interval: Span,
    pub(super) disable: bool,
    pub(super) enable_delta: bool,
    pub(super) expiry: Span,
    pub(super) ocsp_disable: bool,
    pub(super) ocsp_expiry: Span,
}

impl Default for CrlConfig {
    fn default() -> Self {
        Self {
            allow_expired_cert_revocation: false,
            auto_rebuild: false,
            auto_rebuild_grace_period: Span::of_seconds(12 * 3_600),
            delta_rebuild_interval: Span::of_seconds(15 * 60),
            disable: false,
            enable_delta: false,
            expiry: Span::of_seconds(72 * 3_600),
            ocsp_disable: false,
            ocsp_expiry: Span::of_seconds(12 * 3_600),
        }
    }
}

/// The settings of a mount.
pub(super) fn of(ctx: &Ctx<'_>) -> Result<Arc<CrlConfig>, EngineError> {
    Ok(ctx.storage.get_shared::<CrlConfig>(KEY)?.unwrap_or_default())
}

impl CrlConfig {
    fn check(&self) -> Result<(), EngineError> {
        let expiry = self.expiry.as_secs();
        if expiry == 0 {
            return Err(EngineError::invalid("expiry must be at least a second"));
        }
        if self.auto_rebuild && self.auto_rebuild_grace_period.as_secs() >= expiry {
            return Err(EngineError::Invalid(format!(
                "CRL auto-rebuilding grace period ({}) must be strictly shorter than CRL expiry ({}) \
                 value when auto-rebuilding of CRLs is enabled",
                self.auto_rebuild_grace_period, self.expiry
            )));
        }
        if self.enable_delta && self.delta_rebuild_interval.as_secs() >= expiry {
            return Err(EngineError::Invalid(format!(
                "CRL delta rebuild window ({}) must be strictly shorter than CRL expiry ({}) value when \
                 delta CRLs are enabled",
                self.delta_rebuild_interval, self.expiry
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
        let unset = CrlConfig::default();
        for (field, slot, unset) in [
            (
                "auto_rebuild_grace_period",
                &mut config.auto_rebuild_grace_period,
                &unset.auto_rebuild_grace_period,
            ),
            ("delta_rebuild_interval", &mut config.delta_rebuild_interval, &unset.delta_rebuild_interval),
            ("expiry", &mut config.expiry, &unset.expiry),
            ("ocsp_expiry", &mut config.ocsp_expiry, &unset.ocsp_expiry),
        ] {
            if let Some(span) = Span::sent(fields, field, unset)? {
                *slot = span;
            }
        }
        config.check()?;
        call.ctx.storage.put_record(KEY, &config)?;
        let is_list_changed = before.disable != config.disable
            || (before.auto_rebuild && !config.auto_rebuild)
            || before.enable_delta != config.enable_delta
            || before.expiry.as_secs() != config.expiry.as_secs();
        if is_list_changed {
            crl::build_all(call)?;
        }
    }
    Ok(Response::data(json!({
        "allow_expired_cert_revocation": config.allow_expired_cert_revocation,
        "auto_rebuild": config.auto_rebuild,
        "auto_rebuild_grace_period": config.auto_rebuild_grace_period.to_string(),
        "delta_rebuild_interval": config.delta_rebuild_interval.to_string(),
        "disable": config.disable,
        "enable_delta": config.enable_delta,
        "expiry": config.expiry.to_string(),
        "ocsp_disable": config.ocsp_disable,
        "ocsp_expiry": config.ocsp_expiry.to_string(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_stored_as_they_were_written_and_read_from_before() {
        let written = r#""1440m""#;
        let span: Span = serde_json::from_str(written).unwrap();
        assert_eq!((span.as_secs(), serde_json::to_string(&span).unwrap().as_str()), (86_400, written));
        let before: CrlConfig = serde_json::from_str(r#"{"expiry":86400,"ocsp_expiry":0}"#).unwrap();
        assert_eq!((before.expiry.to_string(), before.ocsp_expiry.to_string()), ("24h".into(), "0s".into()));
        assert!(serde_json::from_str::<Span>(r#""soon""#).is_err());
    }
}
