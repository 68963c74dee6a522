//! Types of credentials, and how a role wants them made. PostgreSQL and MySQL know passwords only; the other types are
//! for databases to come, and a role that asks for one gets no credentials of these.

use std::collections::BTreeMap;

use arca_engine_api::{Ctx, EngineError, Fields};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::template::Template;

/// What a role hands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CredentialType {
    ClientCertificate,
    #[default]
    Password,
    RsaPrivateKey,
}

impl CredentialType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ClientCertificate => "client_certificate",
            Self::Password => "password",
            Self::RsaPrivateKey => "rsa_private_key",
        }
    }

    fn named(name: &str) -> Result<Self, EngineError> {
        match name {
            "client_certificate" => Ok(Self::ClientCertificate),
            "password" => Ok(Self::Password),
            "rsa_private_key" => Ok(Self::RsaPrivateKey),
            _ => Err(EngineError::invalid(
                "invalid credential_type: there are password, rsa_private_key and client_certificate",
            )),
        }
    }
}

/// A role's `credential_type` and `credential_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Credential {
    #[serde(rename = "type")]
    pub(super) kind: CredentialType,
    config: BTreeMap<String, String>,
}

impl Credential {
    /// Takes what a request says of it.
    pub(super) fn change(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        let kind = fields.string("credential_type")?.filter(|kind| !kind.is_empty());
        let kind = kind.map_or(Ok(self.kind), |kind| CredentialType::named(&kind))?;
        let said = fields.string_map("credential_config")?;
        if kind == self.kind && said.is_none() && kind == CredentialType::Password {
            return Ok(());
        }
        let kept = if kind == self.kind { self.config.clone() } else { BTreeMap::new() };
        let config = checked(kind, said.unwrap_or(kept)).map_err(|err| match err {
            EngineError::Invalid(text) => {
                EngineError::Invalid(format!("credential_config validation failed: {text}"))
            }
            other => other,
        })?;
        *self = Self { kind, config };
        Ok(())
    }

    /// As a role shows it; none when there is nothing to show. Never a key.
    pub(super) fn show(&self) -> Option<Value> {
        let mut shown = serde_json::Map::new();
        for (key, value) in self.config.iter().filter(|(key, _)| key.as_str() != "ca_private_key") {
            let number = if key.ends_with("_bits") { value.parse::<u32>().ok() } else { None };
            shown.insert(key.clone(), number.map_or_else(|| json!(value), |number| json!(number)));
        }
        (!shown.is_empty()).then_some(Value::Object(shown))
    }

    /// A new password, by the role's policy or, without one, by the connection's.
    pub(super) fn password(&self, ctx: &Ctx<'_>, policy: &str) -> Result<Zeroizing<String>, EngineError> {
        ctx.passwords.generate(self.config.get("password_policy").map_or(policy, String::as_str))
    }
}

/// The settings a type knows, with its defaults.
fn checked(
    kind: CredentialType,
    said: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EngineError> {
    let mut config: BTreeMap<String, String> =
        said.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    match kind {
        CredentialType::Password => config.retain(|key, _| key == "password_policy"),
        CredentialType::RsaPrivateKey => {
            config.retain(|key, _| matches!(key.as_str(), "format" | "key_bits"));
            one_of(&mut config, "format", &["pkcs8"])?;
            one_of(&mut config, "key_bits", &["2048", "3072", "4096"])?;
        }
        CredentialType::ClientCertificate => certificate(&mut config)?,
    }
    Ok(config)
}

/// Checks a setting; without one the first of `choices` holds.
fn one_of(
    config: &mut BTreeMap<String, String>,
    key: &str,
    choices: &[&'static str],
) -> Result<(), EngineError> {
    let first = choices.first().copied().unwrap_or_default();
    let value = config.entry(key.to_owned()).or_insert_with(|| first.to_owned());
    if choices.contains(&value.as_str()) {
        Ok(())
    } else {
        Err(EngineError::Invalid(format!("invalid {key}")))
    }
}

fn certificate(config: &mut BTreeMap<String, String>) -> Result<(), EngineError> {
    const KNOWN: &[&str] =
        &["ca_cert", "ca_private_key", "common_name_template", "key_bits", "key_type", "signature_bits"];
    config.retain(|key, _| KNOWN.contains(&key.as_str()));
    match config.get("key_type").map(String::as_str) {
        Some("rsa") => one_of(config, "key_bits", &["2048", "3072", "4096"])?,
        Some("ec") => one_of(config, "key_bits", &["256", "224", "384", "521"])?,
        Some("ed25519") => {}
        _ => return Err(EngineError::invalid("invalid key_type")),
    }
    one_of(config, "signature_bits", &["256", "384", "512"])?;
    for required in ["common_name_template", "ca_cert", "ca_private_key"] {
        if !config.contains_key(required) {
            return Err(EngineError::Invalid(format!("missing required {required}")));
        }
    }
    Template::parse(config.get("common_name_template").map_or("", String::as_str)).map(drop)
}
