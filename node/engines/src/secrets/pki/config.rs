//! Settings of a mount: default issuer and key, URLs that go into certificates, and where the cluster is reached.

use std::sync::Arc;

use arca_engine_api::{Ctx, EngineError, Fields, Operation, Response, StorageExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::Call;
use super::issuers;

const ISSUERS: &str = "config/issuers";
const KEYS: &str = "config/keys";
const URLS: &str = "config/urls";
const CLUSTER: &str = "config/cluster";
/// URLs of one kind.
const URLS_MAX: usize = 32;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Issuers {
    default: String,
    default_follows_latest_issuer: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    default: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cluster {
    aia_path: String,
    path: String,
}

/// URLs as an operator wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Urls {
    pub(super) crl_distribution_points: Vec<String>,
    pub(super) delta_crl_distribution_points: Vec<String>,
    pub(super) enable_templating: bool,
    pub(super) issuing_certificates: Vec<String>,
    pub(super) ocsp_servers: Vec<String>,
}

impl Urls {
    pub(super) fn is_empty(&self) -> bool {
        self.crl_distribution_points.is_empty()
            && self.issuing_certificates.is_empty()
            && self.ocsp_servers.is_empty()
    }

    /// Takes over what the fields say; `templating` names the field that allows templates.
    pub(super) fn take(&mut self, fields: Fields<'_>, templating: &str) -> Result<(), EngineError> {
        if let Some(value) = fields.boolean(templating)? {
            self.enable_templating = value;
        }
        for (field, slot) in [
            ("crl_distribution_points", &mut self.crl_distribution_points),
            ("delta_crl_distribution_points", &mut self.delta_crl_distribution_points),
            ("issuing_certificates", &mut self.issuing_certificates),
            ("ocsp_servers", &mut self.ocsp_servers),
        ] {
            if let Some(value) = fields.list(field)? {
                *slot = value;
            }
            if slot.len() > URLS_MAX {
                return Err(EngineError::Invalid(format!("{field} has more than {URLS_MAX} URLs")));
            }
            if let Some(bad) = slot.iter().find(|url| !is_url(url, self.enable_templating)) {
                return Err(EngineError::Invalid(format!(
                    "invalid URL found in Authority Information Access (AIA) parameter {field}: {bad}"
                )));
            }
        }
        Ok(())
    }

    /// The URLs with the templates filled in, for certificates of one issuer. `None` if a value is missing.
    pub(super) fn filled(&self, ctx: &Ctx<'_>, issuer_id: &str) -> Result<Option<Self>, EngineError> {
        if !self.enable_templating {
            return Ok(Some(self.clone()));
        }
        let cluster = ctx.storage.get_shared::<Cluster>(CLUSTER)?.unwrap_or_default();
        let fill = |urls: &Vec<String>| -> Option<Vec<String>> {
            urls.iter()
                .map(|url| {
                    let mut url = url.clone();
                    for (name, value) in [
                        ("{{issuer_id}}", issuer_id),
                        ("{{cluster_path}}", cluster.path.as_str()),
                        ("{{cluster_aia_path}}", cluster.aia_path.as_str()),
                    ] {
                        if url.contains(name) && value.is_empty() {
                            return None;
                        }
                        url = url.replace(name, value);
                    }
                    is_url(&url, false).then_some(url)
                })
                .collect()
        };
        let filled = (
            fill(&self.crl_distribution_points),
            fill(&self.delta_crl_distribution_points),
            fill(&self.issuing_certificates),
            fill(&self.ocsp_servers),
        );
        let (Some(crl), Some(delta), Some(issuing), Some(ocsp)) = filled else { return Ok(None) };
        Ok(Some(Self {
            crl_distribution_points: crl,
            delta_crl_distribution_points: delta,
            enable_templating: false,
            issuing_certificates: issuing,
            ocsp_servers: ocsp,
        }))
    }
}

/// A scheme, a host, and nothing that is not ASCII.
fn is_url(url: &str, may_be_template: bool) -> bool {
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return false;
    }
    if may_be_template && url.contains("{{") {
        return true;
    }
    url.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !rest.is_empty()
            && (!rest.starts_with('/') || matches!(scheme, "ldap" | "file"))
            && !url.contains("{{")
    })
}

/// The id of the default issuer; empty without one.
pub(super) fn default_issuer(ctx: &Ctx<'_>) -> Result<String, EngineError> {
    Ok(ctx.storage.get_shared::<Issuers>(ISSUERS)?.map(|found| found.default.clone()).unwrap_or_default())
}

/// Whether the default is always the issuer made last.
pub(super) fn follows_latest(ctx: &Ctx<'_>) -> Result<bool, EngineError> {
    Ok(ctx.storage.get_shared::<Issuers>(ISSUERS)?.is_some_and(|found| found.default_follows_latest_issuer))
}

pub(super) fn put_default_issuer(ctx: &Ctx<'_>, id: &str) -> Result<(), EngineError> {
    let before = ctx.storage.get_record::<Issuers>(ISSUERS)?.unwrap_or_default();
    Ok(ctx.storage.put_record(ISSUERS, &Issuers { default: id.to_owned(), ..before })?)
}

/// The id of the default key; empty without one.
pub(super) fn default_key(ctx: &Ctx<'_>) -> Result<String, EngineError> {
    Ok(ctx.storage.get_shared::<Keys>(KEYS)?.map(|found| found.default.clone()).unwrap_or_default())
}

pub(super) fn put_default_key(ctx: &Ctx<'_>, id: &str) -> Result<(), EngineError> {
    Ok(ctx.storage.put_record(KEYS, &Keys { default: id.to_owned() })?)
}

/// The URLs of the mount.
pub(super) fn urls(ctx: &Ctx<'_>) -> Result<Arc<Urls>, EngineError> {
    Ok(ctx.storage.get_shared::<Urls>(URLS)?.unwrap_or_default())
}

/// `config/issuers`, and `root/replace`, which is the same by another name.
pub(super) fn serve_issuers(call: &Call<'_>) -> Result<Response, EngineError> {
    if call.request.operation == Operation::Read {
        return issuers_shown(call.ctx);
    }
    let is_replace = call.request.route.id == "root-replace";
    let mut settings = call.ctx.storage.get_record::<Issuers>(ISSUERS)?.unwrap_or_default();
    let mut reference = call.text("default")?;
    if reference.is_empty() && is_replace {
        "next".clone_into(&mut reference);
    }
    if let Some(value) = call.fields().boolean("default_follows_latest_issuer")? {
        settings.default_follows_latest_issuer = value;
    } else if reference.is_empty() {
        return Err(EngineError::invalid(
            "Invalid issuer specification; must be non-empty and can't be 'default'.",
        ));
    }
    let mut warning = None;
    if !reference.is_empty() {
        if reference == issuers::DEFAULT {
            return Err(EngineError::invalid(
                "Invalid issuer specification; must be non-empty and can't be 'default'.",
            ));
        }
        let issuer = issuers::required(call.ctx, &reference).map_err(unresolved)?;
        settings.default.clone_from(&issuer.record.id);
        if issuer.record.key_id.is_empty() {
            warning = Some(
                "This selected default issuer has no key associated with it. Some operations like \
                 issuing certificates and signing CRLs will be unavailable with the requested default \
                 issuer until a key is imported or the default issuer is changed.",
            );
        }
    }
    call.ctx.storage.put_record(ISSUERS, &settings)?;
    let response = issuers_shown(call.ctx)?;
    Ok(match warning {
        Some(warning) => response.with_warning(warning),
        None => response,
    })
}

fn unresolved(err: EngineError) -> EngineError {
    match err {
        EngineError::Invalid(text) => {
            EngineError::Invalid(format!("Error resolving issuer reference: {text}"))
        }
        other => other,
    }
}

fn issuers_shown(ctx: &Ctx<'_>) -> Result<Response, EngineError> {
    let settings = ctx.storage.get_record::<Issuers>(ISSUERS)?.unwrap_or_default();
    Ok(Response::data(json!({
        "default": settings.default,
        "default_follows_latest_issuer": settings.default_follows_latest_issuer,
    })))
}

/// `config/keys`.
pub(super) fn serve_keys(call: &Call<'_>) -> Result<Response, EngineError> {
    if call.request.operation != Operation::Read {
        let reference = call.text("default")?;
        if reference.is_empty() || reference == issuers::DEFAULT {
            return Err(EngineError::invalid(
                "Invalid key specification; must be non-empty and can't be 'default'.",
            ));
        }
        let key = super::keys::required(call.ctx, &reference).map_err(unresolved)?;
        put_default_key(call.ctx, &key.id)?;
    }
    Ok(Response::data(json!({ "default": default_key(call.ctx)? })))
}

/// `config/urls`.
pub(super) fn serve_urls(call: &Call<'_>) -> Result<Response, EngineError> {
    let mut settings = (*urls(call.ctx)?).clone();
    let mut warning = None;
    if call.request.operation != Operation::Read {
        settings.take(call.fields(), "enable_templating")?;
        call.ctx.storage.put_record(URLS, &settings)?;
        if settings.filled(call.ctx, "id")?.is_none() {
            warning = Some(
                "issuance may fail: unable to template AIA URLs as we lack local cluster address \
                 information\n\nConsider setting the cluster-local address if it is not already set.",
            );
        }
    }
    let response = Response::data(serde_json::to_value(&settings).unwrap_or_default());
    Ok(match warning {
        Some(warning) => response.with_warning(warning),
        None => response,
    })
}

/// `config/cluster`.
pub(super) fn serve_cluster(call: &Call<'_>) -> Result<Response, EngineError> {
    let mut settings = call.ctx.storage.get_record::<Cluster>(CLUSTER)?.unwrap_or_default();
    if call.request.operation != Operation::Read {
        for (field, slot) in [("path", &mut settings.path), ("aia_path", &mut settings.aia_path)] {
            if let Some(value) = call.fields().string(field)? {
                if !value.is_empty() && !is_url(&value, false) {
                    return Err(EngineError::Invalid(format!(
                        "invalid, non-URL {field} given to cluster: {value}"
                    )));
                }
                *slot = value;
            }
        }
        call.ctx.storage.put_record(CLUSTER, &settings)?;
    }
    Ok(Response::data(json!({ "aia_path": settings.aia_path, "path": settings.path })))
}
