//! The mount's settings: how tokens are checked.

use arca_engine_api::{Ctx, EngineError, Fields, Map, Request, Response, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Jwt;
use super::custom::Custom;
use super::provider::Source;
use crate::auth::jose::{Alg, Key};

const KEY: &str = "config";
/// Keys given in PEM.
const PUBKEYS_MAX: usize = 64;

/// The settings as stored. They hold the client secret.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) bound_issuer: String,
    pub(super) default_role: String,
    pub(super) jwks_ca_pem: String,
    pub(super) jwks_url: String,
    pub(super) jwt_supported_algs: Vec<String>,
    pub(super) jwt_validation_pubkeys: Vec<String>,
    pub(super) namespace_in_state: bool,
    pub(super) oidc_client_id: String,
    pub(super) oidc_client_secret: String,
    pub(super) oidc_discovery_ca_pem: String,
    pub(super) oidc_discovery_url: String,
    pub(super) oidc_response_mode: String,
    pub(super) oidc_response_types: Vec<String>,
    #[serde(default)]
    pub(super) provider_config: Map,
    pub(super) skip_jwks_validation: bool,
}

impl Config {
    /// The settings, if there are any.
    pub(super) fn load(ctx: &Ctx<'_>) -> Result<Option<Self>, EngineError> {
        Ok(ctx.storage.get_record(KEY)?)
    }

    /// Where keys are to be fetched; none if they are in the settings.
    pub(super) fn source(&self) -> Option<Source> {
        if !self.oidc_discovery_url.is_empty() {
            let (url, ca_pem) = (self.oidc_discovery_url.clone(), self.oidc_discovery_ca_pem.clone());
            Some(Source::Discovery { url, ca_pem })
        } else if !self.jwks_url.is_empty() {
            Some(Source::Jwks { url: self.jwks_url.clone(), ca_pem: self.jwks_ca_pem.clone() })
        } else {
            None
        }
    }

    /// The keys in the settings.
    pub(super) fn pubkeys(&self) -> Result<Vec<Key>, EngineError> {
        self.jwt_validation_pubkeys.iter().map(|pem| public_key(pem)).collect()
    }

    /// Whether browsers can be sent to a provider.
    pub(super) fn is_oidc(&self) -> bool {
        !self.oidc_discovery_url.is_empty() && !self.oidc_client_id.is_empty()
    }

    /// How the provider tells groups, if in a way of its own.
    pub(super) fn custom(&self) -> Result<Option<Custom>, EngineError> {
        Custom::of(&self.provider_config)
    }

    /// Whether tokens presented for a login may be signed so.
    pub(super) fn takes(&self, alg: Alg) -> bool {
        self.jwt_supported_algs.is_empty() || self.names(alg)
    }

    /// Whether the provider's own tokens may be signed so.
    pub(super) fn takes_from_provider(&self, alg: Alg) -> bool {
        if self.jwt_supported_algs.is_empty() { alg == Alg::Rs256 } else { self.names(alg) }
    }

    fn names(&self, alg: Alg) -> bool {
        self.jwt_supported_algs.iter().any(|name| Alg::named(name) == Some(alg))
    }

    /// The provider posts what it has to say, instead of leaving it in the URL.
    pub(super) fn is_posted(&self) -> bool {
        self.oidc_response_mode == "form_post"
    }

    fn of(fields: Fields<'_>, old: Option<&Self>) -> Result<Self, EngineError> {
        let text = |name| Ok::<_, EngineError>(fields.string(name)?.unwrap_or_default());
        let list = |name| Ok::<_, EngineError>(fields.list(name)?.unwrap_or_default());
        let old_in_state = old.is_none_or(|old| old.namespace_in_state);
        Ok(Self {
            bound_issuer: text("bound_issuer")?,
            default_role: text("default_role")?.to_lowercase(),
            jwks_ca_pem: text("jwks_ca_pem")?,
            jwks_url: text("jwks_url")?,
            jwt_supported_algs: list("jwt_supported_algs")?,
            jwt_validation_pubkeys: list("jwt_validation_pubkeys")?,
            namespace_in_state: fields.boolean("namespace_in_state")?.unwrap_or(old_in_state),
            oidc_client_id: text("oidc_client_id")?,
            oidc_client_secret: text("oidc_client_secret")?,
            oidc_discovery_ca_pem: text("oidc_discovery_ca_pem")?,
            oidc_discovery_url: text("oidc_discovery_url")?,
            oidc_response_mode: text("oidc_response_mode")?,
            oidc_response_types: list("oidc_response_types")?,
            provider_config: fields.object("provider_config")?.cloned().unwrap_or_default(),
            skip_jwks_validation: fields.boolean("skip_jwks_validation")?.unwrap_or_default(),
        })
    }

    /// Whether the settings fit each other.
    fn check(&self) -> Result<(), EngineError> {
        let refuse = |text: &str| Err(EngineError::invalid(text));
        let sources = [
            !self.jwt_validation_pubkeys.is_empty(),
            !self.jwks_url.is_empty(),
            !self.oidc_discovery_url.is_empty(),
        ];
        if sources.into_iter().filter(|is_there| *is_there).count() != 1 {
            return refuse(
                "exactly one of 'jwt_validation_pubkeys', 'jwks_url' or 'oidc_discovery_url' must be set",
            );
        }
        if self.oidc_client_id.is_empty() != self.oidc_client_secret.is_empty() {
            return refuse("both 'oidc_client_id' and 'oidc_client_secret' must be set for OIDC");
        }
        if !self.oidc_client_id.is_empty() && self.oidc_discovery_url.is_empty() {
            return refuse("'oidc_discovery_url' must be set for OIDC");
        }
        if self.oidc_discovery_url.contains(".well-known") {
            return refuse("'oidc_discovery_url' contains '.well-known' component");
        }
        if self.jwt_validation_pubkeys.len() > PUBKEYS_MAX {
            return Err(EngineError::invalid(format!("at most {PUBKEYS_MAX} jwt_validation_pubkeys")));
        }
        for pem in &self.jwt_validation_pubkeys {
            let wrong = |why| EngineError::Invalid(format!("error parsing public key: {why}"));
            Key::check_pem(pem).map_err(wrong)?;
        }
        if self.jwt_supported_algs.iter().any(|name| Alg::named(name).is_none()) {
            return refuse("invalid jwt_supported_algs: unsupported signing algorithm");
        }
        self.custom()?;
        self.check_responses()
    }

    fn check_responses(&self) -> Result<(), EngineError> {
        if !matches!(self.oidc_response_mode.as_str(), "" | "query" | "form_post") {
            return Err(EngineError::invalid("invalid response_mode: 'query' and 'form_post' are allowed"));
        }
        let mut kinds: Vec<&str> = self.oidc_response_types.iter().map(String::as_str).collect();
        kinds.sort_unstable();
        if !matches!(kinds.as_slice(), [] | ["code"] | ["id_token"] | ["code", "id_token"]) {
            return Err(EngineError::invalid("invalid response_types. 'code' and 'id_token' are allowed"));
        }
        // Tokens in a query end up in logs and histories.
        if kinds.contains(&"id_token") && !self.is_posted() {
            let text = "query response_mode may not be used with an id_token response_type";
            return Err(EngineError::invalid(text));
        }
        Ok(())
    }

    fn show(&self, status: &str) -> Value {
        json!({
            "bound_issuer": self.bound_issuer,
            "default_role": self.default_role,
            "jwks_ca_pem": self.jwks_ca_pem,
            "jwks_url": self.jwks_url,
            "jwt_supported_algs": self.jwt_supported_algs,
            "jwt_validation_pubkeys": self.jwt_validation_pubkeys,
            "namespace_in_state": self.namespace_in_state,
            "oidc_client_id": self.oidc_client_id,
            "oidc_discovery_ca_pem": self.oidc_discovery_ca_pem,
            "oidc_discovery_url": self.oidc_discovery_url,
            "oidc_response_mode": self.oidc_response_mode,
            "oidc_response_types": self.oidc_response_types,
            "override_allowed_server_names": [],
            "provider_config": self.provider_config,
            "status": status,
        })
    }
}

fn public_key(pem: &str) -> Result<Key, EngineError> {
    let text = "error parsing public key: data does not contain any valid public keys";
    Key::from_pem(pem).ok_or_else(|| EngineError::invalid(text))
}

fn check_unsupported(fields: Fields<'_>) -> Result<(), EngineError> {
    if fields.list("override_allowed_server_names")?.is_some_and(|names| !names.is_empty()) {
        return Err(EngineError::invalid("override_allowed_server_names is not supported"));
    }
    Ok(())
}

/// Settings, with whether the provider they name can be used.
pub(super) async fn read(jwt: &Jwt, ctx: &Ctx<'_>) -> Result<Response, EngineError> {
    let Some(config) = Config::load(ctx)? else { return Ok(Response::empty()) };
    // Whoever skipped the check when writing asks for it here.
    if let Some(source) = config.source().filter(|_| config.skip_jwks_validation)
        && let Err(err) = jwt.provider.check(ctx, &source).await
    {
        return Ok(Response::data(config.show("invalid")).with_warning(err.to_string()));
    }
    Ok(Response::data(config.show("valid")))
}

/// New settings in place of the old ones.
pub(super) async fn write(jwt: &Jwt, ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    check_unsupported(request.fields())?;
    let old = Config::load(ctx)?;
    let config = Config::of(request.fields(), old.as_ref())?;
    config.check()?;
    let mut response = Response::empty();
    if let Some(source) = config.source()
        && let Err(err) = jwt.provider.check(ctx, &source).await
    {
        if !config.skip_jwks_validation {
            return Err(EngineError::invalid(err.to_string()));
        }
        response = response.with_warning(err.to_string());
    }
    ctx.storage.put_record(KEY, &config)?;
    Ok(response)
}

/// A field of a map as text, empty when absent.
pub(super) fn text<'a>(map: &'a Map, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}
