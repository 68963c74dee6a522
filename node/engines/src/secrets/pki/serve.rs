//! What anybody may read: certificates, chains and lists of revoked certificates, as JSON, PEM or DER.

use std::collections::BTreeMap;

use arca_engine_api::{EngineError, Response, rfc3339};
use serde_json::{Value, json};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::call::Call;
use super::crl;
use super::issuers::{self, Issuer};
use super::output;
use super::revoke;
use super::store;
use super::x509::public_key::{Kind, PublicKey};
use super::x509::{certificate, name, oid, time};

const DER: &str = "application/pkix-cert";
const PEM: &str = "application/pem-certificate-chain";
const PEM_FILE: &str = "application/x-pem-file";
const CRL: &str = "application/pkix-crl";

fn default(call: &Call<'_>) -> Result<Option<std::sync::Arc<Issuer>>, EngineError> {
    issuers::resolve(call.ctx, issuers::DEFAULT)
}

/// Nothing, as it is answered where a body of its own is expected.
fn nothing() -> Response {
    output::raw(204, DER, Vec::new())
}

fn list_of(call: &Call<'_>, issuer: &Issuer, kind: crl::Kind) -> Result<Option<Vec<u8>>, EngineError> {
    crl::read(call.ctx, &issuer.set, kind)
}

/// The chain of an issuer in one text.
fn chain_text(call: &Call<'_>, issuer: &Issuer) -> Result<String, EngineError> {
    let chain = issuer.chain(call.ctx)?;
    Ok(chain.iter().map(|above| above.pem.as_str()).collect::<Vec<_>>().join("\n"))
}

/// `ca`, `ca/pem`, `ca_chain`.
pub(super) fn ca(call: &Call<'_>) -> Result<Response, EngineError> {
    let Some(issuer) = default(call)? else { return Ok(nothing()) };
    Ok(match call.request.route.id {
        "ca" => output::raw(200, DER, issuer.record.certificate.clone()),
        "ca-pem" => output::raw(200, PEM, issuer.pem.clone().into_bytes()),
        _ => output::raw(200, DER, chain_text(call, &issuer)?.into_bytes()),
    })
}

/// `crl`, `crl/pem`, `crl/delta`, `crl/delta/pem`.
pub(super) fn list(call: &Call<'_>) -> Result<Response, EngineError> {
    let id = call.request.route.id;
    let kind = if id.starts_with("crl-delta") { crl::Kind::Delta } else { crl::Kind::Complete };
    let list = match default(call)? {
        Some(issuer) => list_of(call, &issuer, kind)?,
        None => None,
    };
    Ok(list.map_or_else(nothing, |list| raw_list(list, id.ends_with("pem"))))
}

fn raw_list(list: Vec<u8>, is_pem: bool) -> Response {
    if is_pem {
        output::raw(200, PEM_FILE, crl::pem(&list).into_bytes())
    } else {
        output::raw(200, CRL, list)
    }
}

/// `cert/ca`, `cert/ca_chain`, `cert/crl`, `cert/delta-crl`, `cert/:serial`.
pub(super) fn json(call: &Call<'_>) -> Result<Response, EngineError> {
    let serial = call.request.param("serial");
    let is_about_issuer = matches!(serial, "ca" | "ca_chain" | "crl" | "delta-crl");
    let mut data = output::not_revoked();
    if is_about_issuer {
        let issuer = issuers::required(call.ctx, issuers::DEFAULT)?;
        let text = match serial {
            "ca" => Some(issuer.pem.clone()),
            "ca_chain" => {
                let chain = chain_text(call, &issuer)?;
                output::put(&mut data, "ca_chain", chain.clone());
                Some(chain)
            }
            "crl" => list_of(call, &issuer, crl::Kind::Complete)?.map(|list| crl::pem(&list)),
            _ => list_of(call, &issuer, crl::Kind::Delta)?.map(|list| crl::pem(&list)),
        };
        output::put(&mut data, "certificate", text.ok_or(EngineError::NotFound)?);
        return Ok(output::answer(data, Vec::new()));
    }
    let digits = store::serial_in(serial).ok_or(EngineError::NotFound)?;
    let der = store::find(call.ctx, &digits)?.ok_or(EngineError::NotFound)?;
    data = revoke::shown(call.ctx, &digits, &der)?;
    output::put(&mut data, "certificate", certificate::pem(&der));
    Ok(output::answer(data, Vec::new()))
}

/// `cert/:serial/raw` and `/raw/pem`.
pub(super) fn raw(call: &Call<'_>) -> Result<Response, EngineError> {
    let is_pem = call.request.route.id == "cert-raw-pem";
    let serial = call.request.param("serial");
    let der = match serial {
        "ca" => default(call)?.map(|issuer| issuer.record.certificate.clone()),
        "crl" | "delta-crl" => {
            let kind = if serial == "crl" { crl::Kind::Complete } else { crl::Kind::Delta };
            let list = match default(call)? {
                Some(issuer) => list_of(call, &issuer, kind)?,
                None => None,
            };
            return Ok(list.map_or_else(nothing, |list| raw_list(list, is_pem)));
        }
        _ => match store::serial_in(serial) {
            Some(digits) => store::find(call.ctx, &digits)?,
            None => None,
        },
    };
    Ok(match der {
        None => nothing(),
        Some(der) if is_pem => output::raw(200, PEM, certificate::pem(&der).into_bytes()),
        Some(der) => output::raw(200, DER, der),
    })
}

/// `issuer/:ref/pem`, `/der`, `/crl…`.
pub(super) fn issuer(call: &Call<'_>) -> Result<Response, EngineError> {
    let issuer = issuers::required(call.ctx, call.request.param("issuer_ref"))?;
    let id = call.request.route.id;
    match id {
        "issuer-der" => return Ok(output::raw(200, DER, issuer.record.certificate.clone())),
        "issuer-pem" => {
            return Ok(output::raw(200, PEM, output::pem_line(&issuer.pem).into_bytes()));
        }
        _ => {}
    }
    let kind = if id.starts_with("issuer-crl-delta") { crl::Kind::Delta } else { crl::Kind::Complete };
    let list = list_of(call, &issuer, kind)?.unwrap_or_default();
    Ok(match id {
        "issuer-crl" | "issuer-crl-delta" => {
            let text = if list.is_empty() { String::new() } else { output::pem_line(&crl::pem(&list)) };
            Response::data(json!({ "crl": text }))
        }
        _ if list.is_empty() => nothing(),
        _ => raw_list(list, id.ends_with("pem")),
    })
}

/// Certificates that are shown in detail at once, if the request does not say how many.
const DETAILED: usize = 2_000;

/// `certs/detailed`. Certificates of others may be of any kind: of each is shown what can be read.
pub(super) fn detailed(call: &Call<'_>) -> Result<Response, EngineError> {
    let (mut keys, mut info) = (Vec::new(), BTreeMap::new());
    let mut page = revoke::page(call)?;
    let limit = *page.limit.get_or_insert(DETAILED);
    let is_bounded_here = call.page()?.limit.is_none();
    let serials = call.ctx.storage.list(store::CERTIFICATES, &page)?;
    for hex in &serials {
        let digits = super::names::from_hex(hex).unwrap_or_default();
        let Some(der) = store::find(call.ctx, &digits)? else { continue };
        let key = store::shown(hex);
        info.insert(
            key.clone(),
            certificate::parse(&der).map_or_else(|_| json!({}), |parsed| details(&parsed)),
        );
        keys.push(key);
    }
    let last = keys.last().cloned().unwrap_or_default();
    let response = output::listed(keys, json!(info));
    Ok(if is_bounded_here && serials.len() >= limit {
        response.with_warning(format!(
            "At most {DETAILED} certificates are shown in detail at once; go on with after={last}."
        ))
    } else {
        response
    })
}

fn details(parsed: &X509Certificate<'_>) -> Value {
    let body = &parsed.tbs_certificate;
    let kind = PublicKey::of(body.subject_pki.raw).map(|key| key.kind).ok();
    let mut hosts = Vec::new();
    for extension in body.iter_extensions() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
            hosts.extend(names.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(host) => Some((*host).to_owned()),
                _ => None,
            }));
        }
    }
    let common_names = name::values(&body.subject, oid::COMMON_NAME).unwrap_or_default();
    let moment = |at| rfc3339::format(time::moment(at));
    json!({
        "common_name": common_names.first().cloned().unwrap_or_default(),
        "dns_names": output::ids(&hosts),
        "issuer": body.issuer.to_string().replace(", ", ","),
        "key_bits": kind.map_or(0, Kind::bits),
        "key_type": kind.map_or("unknown", Kind::name),
        "not_after": moment(&body.validity.not_after),
        "not_before": moment(&body.validity.not_before),
    })
}
