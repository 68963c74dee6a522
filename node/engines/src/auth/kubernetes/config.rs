//! The mount's settings: where the cluster's API is, whom to trust there, and by whose token it is asked.

use arca_engine_api::{Ctx, EngineError, PodFile, Request, Response, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::auth::jose::Key;

const KEY: &str = "config";

/// The issuer of tokens that lie in secrets, where the settings name none.
const ISSUER: &str = "kubernetes/serviceaccount";

/// Most keys.
const KEYS_MAX: usize = 64;

/// The settings as stored. They hold the reviewer's token.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) disable_iss_validation: bool,
    pub(super) disable_local_ca_jwt: bool,
    pub(super) issuer: String,
    pub(super) kubernetes_ca_cert: String,
    pub(super) kubernetes_host: String,
    pub(super) pem_keys: Vec<String>,
    pub(super) token_reviewer_jwt: String,
}

/// The API and how it is asked.
pub(super) struct Api {
    /// Without a slash at its end.
    pub(super) url: String,
    pub(super) ca_pem: String,
    /// None where the token itself must do.
    pub(super) reviewer: Option<Zeroizing<String>>,
}

impl Config {
    /// The settings, if there are any.
    pub(super) fn load(ctx: &Ctx<'_>) -> Result<Option<Self>, EngineError> {
        Ok(ctx.storage.get_record(KEY)?)
    }

    /// The keys that sign tokens, if they are known here.
    pub(super) fn keys(&self) -> Result<Vec<Key>, EngineError> {
        let key = |pem: &String| {
            let text = "data does not contain any valid public keys";
            Key::from_pem(pem).ok_or_else(|| EngineError::invalid(text))
        };
        self.pem_keys.iter().map(key).collect()
    }

    /// The issuer that tokens must have, if it is looked at. Without one in the settings it is that of tokens in secrets, as
    /// Vault has it: who asks for the check gets one.
    pub(super) fn wanted_issuer(&self) -> Option<&str> {
        let issuer = if self.issuer.is_empty() { ISSUER } else { &self.issuer };
        (!self.disable_iss_validation).then_some(issuer)
    }

    /// The API: what the settings say, and for the rest what the pod has that this node runs in.
    pub(super) async fn api(&self, ctx: &Ctx<'_>) -> Result<Api, EngineError> {
        let is_local = !self.disable_local_ca_jwt;
        let mut ca_pem = self.kubernetes_ca_cert.clone();
        if ca_pem.is_empty() && is_local {
            ca_pem = ctx.pod.read(PodFile::Authority).await?.to_string();
        }
        let reviewer = if !self.token_reviewer_jwt.is_empty() {
            Some(Zeroizing::new(self.token_reviewer_jwt.clone()))
        } else if is_local {
            // Outside a pod there is none, and the token that is reviewed asks for itself.
            ctx.pod.read(PodFile::Token).await.ok()
        } else {
            None
        };
        let reviewer = reviewer.map(|token| Zeroizing::new(token.trim().to_owned()));
        Ok(Api { url: url_of(&self.kubernetes_host), ca_pem, reviewer })
    }

    async fn check(&self, ctx: &Ctx<'_>) -> Result<(), EngineError> {
        if self.kubernetes_host.is_empty() {
            return Err(EngineError::invalid("no host provided"));
        }
        let is_url = self.kubernetes_host.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_url || self.kubernetes_host.contains(['?', '#', '@']) {
            return Err(EngineError::invalid("kubernetes_host is no host and no URL"));
        }
        if self.pem_keys.len() > KEYS_MAX {
            return Err(EngineError::invalid(format!("at most {KEYS_MAX} pem_keys")));
        }
        for pem in &self.pem_keys {
            Key::check_pem(pem).map_err(EngineError::invalid)?;
        }
        if !self.kubernetes_ca_cert.is_empty() && !holds_certificates(&self.kubernetes_ca_cert) {
            return Err(EngineError::invalid("kubernetes_ca_cert holds no certificate in PEM"));
        }
        if self.kubernetes_ca_cert.is_empty() {
            if self.disable_local_ca_jwt {
                let text = "kubernetes_ca_cert must be given when disable_local_ca_jwt is true";
                return Err(EngineError::invalid(text));
            }
            // None was given, so there must be one here.
            let local = ctx.pod.read(PodFile::Authority).await;
            local
                .map_err(|err| EngineError::Invalid(format!("no kubernetes_ca_cert was given, and {err}")))?;
        }
        Ok(())
    }
}

fn url_of(host: &str) -> String {
    let host = host.trim_end_matches('/');
    if host.contains("://") { host.to_owned() } else { format!("https://{host}") }
}

fn holds_certificates(text: &str) -> bool {
    let mut count = 0;
    for pem in Pem::iter_from_buffer(text.as_bytes()) {
        let is_certificate = pem
            .is_ok_and(|pem| pem.label == "CERTIFICATE" && X509Certificate::from_der(&pem.contents).is_ok());
        if !is_certificate {
            return false;
        }
        count += 1;
    }
    count > 0
}

/// The settings, without the reviewer's token.
pub(super) fn read(ctx: &Ctx<'_>) -> Result<Response, EngineError> {
    let Some(config) = Config::load(ctx)? else { return Ok(Response::empty()) };
    Ok(Response::data(json!({
        "disable_iss_validation": config.disable_iss_validation,
        "disable_local_ca_jwt": config.disable_local_ca_jwt,
        "issuer": config.issuer,
        "kubernetes_ca_cert": config.kubernetes_ca_cert,
        "kubernetes_host": config.kubernetes_host,
        "pem_keys": config.pem_keys,
        "token_reviewer_jwt_set": !config.token_reviewer_jwt.is_empty(),
    })))
}

/// New settings in place of the old ones.
pub(super) async fn write(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let fields = request.fields();
    let text = |name| Ok::<_, EngineError>(fields.string(name)?.unwrap_or_default());
    let config = Config {
        disable_iss_validation: fields.boolean("disable_iss_validation")?.unwrap_or(true),
        disable_local_ca_jwt: fields.boolean("disable_local_ca_jwt")?.unwrap_or_default(),
        issuer: text("issuer")?,
        kubernetes_ca_cert: text("kubernetes_ca_cert")?,
        kubernetes_host: text("kubernetes_host")?,
        pem_keys: fields.list("pem_keys")?.unwrap_or_default(),
        token_reviewer_jwt: text("token_reviewer_jwt")?,
    };
    config.check(ctx).await?;
    ctx.storage.put_record(KEY, &config)?;
    Ok(Response::empty())
}
