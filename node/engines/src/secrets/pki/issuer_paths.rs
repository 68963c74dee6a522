//! The paths about issuers: lists, settings, certificates.

use std::collections::BTreeMap;

use arca_engine_api::{EngineError, Operation, Response};
use serde_json::{Value, json};

use super::call::Call;
use super::issuers::{self, Issuer, Record};
use super::plan::duration_text;
use super::x509::algorithm::Algorithm;
use super::x509::certificate::colons;
use super::{config, crl, output, revoke, role};

/// Lists the issuers.
pub(super) fn list(call: &Call<'_>) -> Result<Response, EngineError> {
    let (mut ids, mut info) = (Vec::new(), BTreeMap::new());
    let default = config::default_issuer(call.ctx)?;
    for id in call.ctx.storage.list("issuer/", &call.page()?)? {
        if let Some(issuer) = issuers::find(call.ctx, &id)? {
            info.insert(
                id.clone(),
                json!({
                    "is_default": id == default,
                    "issuer_name": issuer.record.name,
                    "key_id": issuer.record.key_id,
                    "serial_number": colons(&issuer.serial),
                }),
            );
            ids.push(id);
        }
    }
    Ok(output::listed(ids, json!(info)))
}

fn shown(call: &Call<'_>, issuer: &Issuer) -> Result<Value, EngineError> {
    let record = &issuer.record;
    let urls = record.urls.clone().unwrap_or_default();
    let data = json!({
        "ca_chain": chain_lines(call, issuer)?,
        "certificate": output::pem_line(&issuer.pem),
        "issuer_id": record.id,
        "issuer_name": record.name,
        "key_id": record.key_id,
        "leaf_not_after_behavior": record.leaf_not_after_behavior,
        "manual_chain": output::ids(&record.manual_chain),
        "revocation_signature_algorithm": record.revocation_signature_algorithm,
        "revoked": record.revoked_at.is_some(),
        "usage": record.usage.join(","),
        "crl_distribution_points": urls.crl_distribution_points,
        "delta_crl_distribution_points": urls.delta_crl_distribution_points,
        "issuing_certificates": urls.issuing_certificates,
        "ocsp_servers": urls.ocsp_servers,
    });
    let mut data = output::object(data);
    if record.urls.is_some() {
        output::put(&mut data, "enable_aia_url_templating", urls.enable_templating);
    }
    if let Some(at) = record.revoked_at {
        output::put(&mut data, "revocation_time", at.0 / 1_000);
        output::put(&mut data, "revocation_time_rfc3339", arca_engine_api::rfc3339::format(at));
    }
    Ok(Value::Object(data))
}

fn chain_lines(call: &Call<'_>, issuer: &Issuer) -> Result<Vec<String>, EngineError> {
    Ok(issuer.chain(call.ctx)?.iter().map(|above| output::pem_line(&above.pem)).collect())
}

/// Reads, writes, patches or deletes an issuer.
pub(super) fn serve(call: &Call<'_>) -> Result<Response, EngineError> {
    let reference = call.request.param("issuer_ref");
    match call.request.operation {
        Operation::Read => {
            let issuer = issuers::required(call.ctx, reference)?;
            Ok(Response::data(shown(call, &issuer)?))
        }
        Operation::Delete => delete(call, reference),
        operation => update(call, reference, operation == Operation::Patch),
    }
}

/// What a write sets that does not say otherwise; a patch keeps what is there.
fn start(record: &Record, is_patch: bool) -> Record {
    let before = record.clone();
    if is_patch {
        return before;
    }
    Record {
        manual_chain: Vec::new(),
        leaf_not_after_behavior: "err".to_owned(),
        usage: issuers::USAGES.map(str::to_owned).to_vec(),
        revocation_signature_algorithm: String::new(),
        urls: None,
        ..before
    }
}

fn update(call: &Call<'_>, reference: &str, is_patch: bool) -> Result<Response, EngineError> {
    let issuer = issuers::required(call.ctx, reference)?;
    let fields = call.fields();
    let mut record = start(&issuer.record, is_patch);
    let name = fields.string("issuer_name")?.or_else(|| (!is_patch).then(String::new));
    if let Some(behavior) = fields.string("leaf_not_after_behavior")? {
        if !matches!(behavior.as_str(), "err" | "truncate" | "permit") {
            return Err(EngineError::invalid(
                "Unknown value for field `leaf_not_after_behavior`. Possible values are `err`, `truncate`, and `permit`.",
            ));
        }
        record.leaf_not_after_behavior = behavior;
    }
    if let Some(usage) = fields.list("usage")? {
        record.usage = usages(&usage)?;
    }
    check_usage(&issuer, &mut record, fields.has("usage"))?;
    if let Some(algorithm) = fields.string("revocation_signature_algorithm")? {
        record.revocation_signature_algorithm = revocation_algorithm(&issuer, &algorithm)?;
    }
    let mut urls = record.urls.clone().unwrap_or_default();
    urls.take(fields, "enable_aia_url_templating")?;
    let is_nothing = urls.is_empty() && urls.delta_crl_distribution_points.is_empty();
    record.urls = Some(urls).filter(|_| !is_nothing);
    if let Some(chain) = fields.list("manual_chain")? {
        record.manual_chain = manual_chain(call, &record.id, &chain)?;
    }
    if let Some(name) = name {
        issuers::rename(call.ctx, &mut record, &name)?;
    }
    issuers::put(call.ctx, &record)?;
    issuers::rebuild_chains(call.ctx)?;
    let issuer = issuers::required(call.ctx, &record.id)?;
    crl::build_missing(call)?;
    let response = Response::data(shown(call, &issuer)?);
    Ok(if cannot_fill(call, &record)? {
        response.with_warning(
            "issuance may fail: unable to template AIA URLs as we lack local cluster address \
             information\n\nConsider setting the cluster-local address if it is not already set.",
        )
    } else {
        response
    })
}

fn cannot_fill(call: &Call<'_>, record: &Record) -> Result<bool, EngineError> {
    match &record.urls {
        Some(urls) => Ok(urls.filled(call.ctx, &record.id)?.is_none()),
        None => Ok(false),
    }
}

fn usages(asked: &[String]) -> Result<Vec<String>, EngineError> {
    if let Some(bad) = asked.iter().find(|usage| !issuers::USAGES.contains(&usage.as_str())) {
        return Err(EngineError::Invalid(format!(
            "Unable to parse specified usages: {bad} is none of {}",
            issuers::USAGES.join(",")
        )));
    }
    // Whoever can be used can be read.
    Ok(issuers::USAGES
        .iter()
        .filter(|usage| **usage == issuers::READ || asked.iter().any(|word| word == *usage))
        .map(|usage| (*usage).to_owned())
        .collect())
}

fn check_usage(issuer: &Issuer, record: &mut Record, is_asked: bool) -> Result<(), EngineError> {
    if record.revoked_at.is_some() && record.usage.iter().any(|usage| usage == issuers::ISSUE) {
        if is_asked {
            return Err(EngineError::invalid(
                "This issuer was revoked; unable to modify its usage to include certificate signing \
                 again. Reissue this certificate (preferably with a new key) and modify that entry \
                 instead.",
            ));
        }
        record.usage.retain(|usage| usage != issuers::ISSUE);
    }
    if !issuer.may_sign_crls && record.usage.iter().any(|usage| usage == issuers::SIGN_CRL) {
        if is_asked {
            return Err(EngineError::invalid(
                "This issuer's underlying certificate lacks the CRLSign KeyUsage value; unable to set \
                 CRLSigningUsage on this issuer as a result.",
            ));
        }
        record.usage.retain(|usage| usage != issuers::SIGN_CRL);
    }
    Ok(())
}

fn revocation_algorithm(issuer: &Issuer, name: &str) -> Result<String, EngineError> {
    if name.is_empty() {
        return Ok(String::new());
    }
    let algorithm =
        Algorithm::named(name).ok_or_else(|| EngineError::invalid("Unknown signature algorithm value"))?;
    if !algorithm.fits(issuer.kind) {
        return Err(EngineError::invalid(
            "unable to sign with this algorithm: the issuer's key is of another type",
        ));
    }
    Ok(algorithm.name().to_owned())
}

fn manual_chain(call: &Call<'_>, id: &str, references: &[String]) -> Result<Vec<String>, EngineError> {
    let mut chain = Vec::new();
    for (at, reference) in references.iter().enumerate() {
        let found = if at == 0 && reference == "self" { id } else { reference };
        let issuer = issuers::required(call.ctx, found)?;
        if at == 0 && issuer.record.id != id {
            return Err(EngineError::Invalid(format!(
                "expected first cert in chain to be a self-reference, but was: {reference}/{}",
                issuer.record.id
            )));
        }
        if chain.contains(&issuer.record.id) {
            return Err(EngineError::invalid("manual_chain has an issuer twice"));
        }
        chain.push(issuer.record.id.clone());
    }
    Ok(chain)
}

fn delete(call: &Call<'_>, reference: &str) -> Result<Response, EngineError> {
    let Some(issuer) = issuers::resolve(call.ctx, reference)? else { return Ok(Response::empty()) };
    issuers::remove(call.ctx, &issuer)?;
    let was_default = config::default_issuer(call.ctx)? == issuer.record.id;
    if was_default {
        config::put_default_issuer(call.ctx, "")?;
    }
    issuers::rebuild_chains(call.ctx)?;
    let mut response = Response::empty();
    if was_default {
        response = response.with_warning(format!(
            "Deleted issuer {} (via issuer_ref {reference}); this was configured as the default issuer. \
             Operations without an explicit issuer will not work until a new default is configured.",
            issuer.record.id
        ));
    }
    let names = [issuer.record.id.as_str(), &issuer.record.name, issuers::DEFAULT];
    let names: Vec<&str> = names
        .into_iter()
        .filter(|name| !name.is_empty() && (was_default || *name != issuers::DEFAULT))
        .collect();
    let roles = role::referring(call.ctx, &names)?;
    if roles > 0 {
        response = response.with_warning(format!("{roles} roles reference the deleted issuer"));
    }
    Ok(response)
}

/// `issuer/:ref/revoke`: takes from an issuer that it may sign certificates.
pub(super) fn revoke(call: &Call<'_>) -> Result<Response, EngineError> {
    let issuer = issuers::required(call.ctx, call.request.param("issuer_ref"))?;
    let mut warnings = Vec::new();
    if issuer.record.revoked_at.is_none() {
        let record = Record {
            revoked_at: Some(call.now()),
            usage: issuer.record.usage.iter().filter(|usage| *usage != issuers::ISSUE).cloned().collect(),
            ..issuer.record.clone()
        };
        issuers::put(call.ctx, &record)?;
        issuers::remember_revoked(call.ctx, &issuer.record.certificate, call.now())?;
        warnings = revoke::revoke_issuer(call, &issuer)?;
    }
    let issuer = issuers::required(call.ctx, &issuer.record.id)?;
    Ok(Response { warnings, ..Response::data(shown(call, &issuer)?) })
}

/// `issuer/:ref/json`.
pub(super) fn json(call: &Call<'_>) -> Result<Response, EngineError> {
    let issuer = issuers::required(call.ctx, call.request.param("issuer_ref"))?;
    Ok(Response::data(json!({
        "ca_chain": chain_lines(call, &issuer)?,
        "certificate": output::pem_line(&issuer.pem),
        "issuer_id": issuer.record.id,
        "issuer_name": issuer.record.name,
    })))
}

/// A span in a setting, as others write it: `72h`, `15m`, `30s`.
pub(super) fn short_duration(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        whole if whole.is_multiple_of(3_600) => format!("{}h", whole / 3_600),
        whole if whole.is_multiple_of(60) => format!("{}m", whole / 60),
        other => duration_text(other),
    }
}
