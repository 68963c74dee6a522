//! Lists of revoked certificates that others put together, signed by an issuer here: lists of several clusters with one
//! key joined into one, or a list out of nothing but the request.

use std::collections::BTreeMap;
use std::time::Duration;

use arca_engine_api::{EngineError, Response};
use serde_json::{Value, json};

use super::call::Call;
use super::issuers::{self, Issuer};
use super::private_key::Signer;
use super::x509::certificate;
use super::x509::extension::{self, Extension};
use super::x509::public_key::PublicKey;
use super::x509::{oid, time};
use super::{base64, crl, output, store};
use crate::crypto::der::{self, Reader};

/// Lists in one request, and entries in what comes of them.
const LISTS_MAX: usize = 100;
const ENTRIES_MAX: usize = 100_000;

/// What both paths take.
struct Asked {
    is_der: bool,
    number: u64,
    base: Option<u64>,
    holds: Duration,
}

fn asked(call: &Call<'_>) -> Result<Asked, EngineError> {
    let fields = call.fields();
    let is_der = match call.text("format")?.as_str() {
        "" | "pem" => false,
        "der" => true,
        _ => return Err(EngineError::invalid("the \"format\" parameter must be \"pem\" or \"der\"")),
    };
    let number = u64::try_from(fields.integer("crl_number")?.unwrap_or_default())
        .map_err(|_| EngineError::invalid("crl_number parameter must be 0 or greater"))?;
    let base = match fields.integer("delta_crl_base_number")?.unwrap_or(-1) {
        -1 => None,
        base => Some(
            u64::try_from(base)
                .map_err(|_| EngineError::invalid("delta_crl_base_number parameter must be -1 or greater"))?,
        ),
    };
    let holds = fields.duration("next_update")?.unwrap_or(Duration::from_secs(72 * 3_600));
    if holds.is_zero() {
        return Err(EngineError::invalid("next_update parameter must be greater than 0"));
    }
    Ok(Asked { is_der, number, base, holds })
}

/// `issuer/:ref/resign-crls`.
pub(super) fn resign(call: &Call<'_>) -> Result<Response, EngineError> {
    let asked = asked(call)?;
    let (issuer, signer) = issuers::signing(call, call.request.param("issuer_ref"), issuers::SIGN_CRL)?;
    let lists = call.fields().list("crls")?.unwrap_or_default();
    if lists.is_empty() || lists.len() > LISTS_MAX {
        return Err(EngineError::Invalid(format!("crls must have 1 to {LISTS_MAX} lists")));
    }
    let mut entries = BTreeMap::new();
    for (at, text) in lists.iter().enumerate() {
        let bad = |why: &str| EngineError::Invalid(format!("crl {at}: {why}"));
        let (_, raw, _) = der::first_pem(text).ok_or_else(|| bad("no PEM data"))?;
        check_signed(&issuer, &raw).map_err(bad)?;
        for (serial, entry) in entries_of(&raw).ok_or_else(|| bad("could not be parsed"))? {
            entries.entry(serial).or_insert(entry);
        }
    }
    finish(call, &asked, &issuer, &signer, entries.into_values().collect(), Vec::new())
}

fn check_signed(issuer: &Issuer, raw: &[u8]) -> Result<(), &'static str> {
    let (algorithm, signature) =
        certificate::signature_of(raw).ok_or("its signature is of an unknown kind or too weak")?;
    let body = Reader::new(raw)
        .enter(der::SEQUENCE)
        .and_then(|mut list| list.element(der::SEQUENCE))
        .ok_or("could not be parsed")?;
    let key = PublicKey::of(&issuer.spki).map_err(|_| "the issuer has no usable key")?;
    if !algorithm.verifies(&key, body, signature) {
        return Err("it was not signed by the issuer's key");
    }
    Ok(())
}

/// The entries of a list, by serial number.
fn entries_of(raw: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut body = Reader::new(raw).enter(der::SEQUENCE)?.enter(der::SEQUENCE)?;
    body.unsigned();
    body.element(der::SEQUENCE)?;
    body.element(der::SEQUENCE)?;
    for _ in 0..2 {
        // When it was made, and perhaps until when it holds.
        body.element(0x17).or_else(|| body.element(0x18));
    }
    let mut entries = BTreeMap::new();
    let Some(mut list) = body.enter(der::SEQUENCE) else { return Some(entries) };
    while !list.is_empty() {
        let entry = list.element(der::SEQUENCE)?;
        let serial = Reader::new(entry).enter(der::SEQUENCE)?.unsigned()?;
        entries.insert(serial.to_vec(), entry.to_vec());
    }
    Some(entries)
}

/// `issuer/:ref/sign-revocation-list`.
pub(super) fn sign(call: &Call<'_>) -> Result<Response, EngineError> {
    let asked = asked(call)?;
    let (issuer, signer) = issuers::signing(call, call.request.param("issuer_ref"), issuers::SIGN_CRL)?;
    let mut entries = BTreeMap::new();
    for one in objects(call.fields().raw("revoked_certs"), "revoked_certs")? {
        let (serial, entry) = entry(&one)?;
        if entries.insert(serial, entry).is_some() {
            return Err(EngineError::invalid("revoked_certs has a serial number twice"));
        }
    }
    let extensions = extensions(call.fields().raw("extensions"), "extensions")?;
    finish(call, &asked, &issuer, &signer, entries.into_values().collect(), extensions)
}

fn objects(value: Option<&Value>, field: &str) -> Result<Vec<arca_engine_api::Map>, EngineError> {
    let bad = || EngineError::Invalid(format!("{field} is no list of objects"));
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.as_array().ok_or_else(bad)?;
    list.iter().map(|one| one.as_object().cloned().ok_or_else(bad)).collect()
}

fn entry(one: &arca_engine_api::Map) -> Result<(Vec<u8>, Vec<u8>), EngineError> {
    let text = |name: &str| one.get(name).and_then(Value::as_str);
    let serial = text("serial_number")
        .and_then(store::serial_in)
        .ok_or_else(|| EngineError::invalid("revoked_certs has an entry without a serial_number"))?;
    let at = match one.get("revocation_time") {
        None | Some(Value::Null) => {
            return Err(EngineError::invalid("revoked_certs has an entry without a revocation_time"));
        }
        Some(at) => time::parse_value("revocation_time", at)?,
    };
    let extensions = extensions(one.get("extensions"), "extensions of revoked_certs")?;
    let extensions = if extensions.is_empty() { Vec::new() } else { extension::encode(&extensions) };
    let entry = der::write(der::SEQUENCE, &[&der::write_unsigned(&serial), &time::encode(at), &extensions]);
    Ok((serial, entry.to_vec()))
}

fn extensions(value: Option<&Value>, field: &str) -> Result<Vec<Extension>, EngineError> {
    objects(value, field)?
        .iter()
        .map(|one| {
            let text = |name: &str| one.get(name).and_then(Value::as_str).unwrap_or_default();
            let bad = |what: &str| EngineError::Invalid(format!("{field} has {what}"));
            Ok(Extension {
                oid: oid::parse(text("id")).ok_or_else(|| bad("an id that is no object identifier"))?,
                is_critical: one.get("critical").and_then(Value::as_bool).unwrap_or_default(),
                value: base64::decode(text("value")).ok_or_else(|| bad("a value that is no Base64"))?,
            })
        })
        .collect()
}

fn finish(
    call: &Call<'_>,
    asked: &Asked,
    issuer: &Issuer,
    signer: &Signer,
    entries: Vec<Vec<u8>>,
    others: Vec<Extension>,
) -> Result<Response, EngineError> {
    if entries.len() > ENTRIES_MAX {
        return Err(EngineError::Invalid(format!("the list would have more than {ENTRIES_MAX} entries")));
    }
    let mut extensions = crl::extensions(issuer, asked.number, asked.base);
    for other in others {
        if extensions.iter().any(|known| known.oid == other.oid) {
            return Err(EngineError::invalid("extensions has one twice, or one that is set by the path"));
        }
        extensions.push(other);
    }
    let algorithm = issuer.revocation_algorithm();
    let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
    let revoked = der::write(der::SEQUENCE, &entries);
    let body = der::write(
        der::SEQUENCE,
        &[
            &der::write_unsigned(&[1]),
            &algorithm.encode(),
            &issuer.subject,
            &time::encode(call.now()),
            &time::encode(call.now().after(asked.holds)),
            if entries.is_empty() { &[] } else { &revoked },
            &der::write(der::EXPLICIT_0, &[&extension::encode(&extensions)]),
        ],
    );
    let signature = signer.sign(algorithm, &body, call.ctx.entropy)?;
    let list = certificate::signed(&body, algorithm, &signature);
    let text = if asked.is_der { base64::encode(&list) } else { output::pem_line(&crl::pem(&list)) };
    Ok(Response::data(json!({ "crl": text })))
}
