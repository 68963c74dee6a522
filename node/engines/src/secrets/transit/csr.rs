//! `csr` and `set-certificate`: certificates for keys that stay where they are.

use arca_engine_api::{Ctx, EngineError, Request, Response};
use serde_json::json;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::der::{self, Reader};
use super::hashes::Hash;
use super::key::Key;
use super::keys::Keys;
use super::kind::{Curve, Kind};
use super::material::Material;
use super::rsa_keys::{self, Padding};
use super::{ec, ed25519, import, show};

/// Most certificates of a version.
const CHAIN_MAX: usize = 32;

/// The key, and the version a request is about: the latest unless said.
fn signer(keys: &Keys<'_>, request: &Request) -> Result<(Key, i64), EngineError> {
    let name = request.param("name");
    let missing = || EngineError::Invalid(format!("key with provided name '{name}' not found"));
    let key = keys.load(name)?.ok_or_else(missing)?;
    if !key.kind.signs() {
        return Err(EngineError::Invalid(format!("key type '{}' does not support signing", key.kind.name())));
    }
    if key.is_derived {
        return Err(EngineError::invalid("operation not supported for keys with derivation enabled"));
    }
    key.check_shown()?;
    let version = request.fields().integer("version")?.unwrap_or_else(|| i64::from(key.latest()));
    Ok((key, version))
}

/// Signs a request for a certificate: with the names of the one given, or an empty one.
pub(super) fn csr(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let (key, version) = signer(&keys, request)?;
    let template = request.fields().string("csr")?.unwrap_or_default();
    let (subject, attributes) = if template.is_empty() {
        (der::write(der::SEQUENCE, &[]).to_vec(), der::write(der::EXPLICIT_0, &[]).to_vec())
    } else {
        let (_, der, _) =
            der::first_pem(&template).ok_or_else(|| EngineError::invalid("could not decode PEM CSR"))?;
        names_of(&der).ok_or_else(|| EngineError::invalid("could not parse the CSR"))?
    };
    let version = key
        .usable(version)
        .and_then(|version| key.version_to_make(i64::from(version), "signing"))
        .map_err(|err| EngineError::Invalid(format!("could not create the csr: {err}")))?;
    let material = keys.material(name, version)?;
    let public = show::public_der(key.kind, &material).unwrap_or_default();
    let info = der::write(der::SEQUENCE, &[&der::write_unsigned(&[0]), &subject, &public, &attributes]);
    let (algorithm, signature) = signed(&keys, key.kind, &material, &info)?;
    let whole = der::write(der::SEQUENCE, &[&info, &algorithm, &der::write_bits(&signature)]);
    let csr = der::pem("CERTIFICATE REQUEST", &whole);
    Ok(Response::data(json!({ "name": name, "type": key.kind.name(), "csr": *csr })))
}

/// Subject and attributes of a request, as they stand there.
fn names_of(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (rest, _) = X509CertificationRequest::from_der(der).ok()?;
    rest.is_empty().then_some(())?;
    let mut info = Reader::new(der).enter(der::SEQUENCE)?.enter(der::SEQUENCE)?;
    info.unsigned()?;
    let subject = info.element(der::SEQUENCE)?.to_vec();
    info.element(der::SEQUENCE)?;
    let attributes = info.element(der::EXPLICIT_0).map_or_else(|| vec![der::EXPLICIT_0, 0], <[u8]>::to_vec);
    Some((subject, attributes))
}

fn signed(
    keys: &Keys<'_>,
    kind: Kind,
    material: &Material,
    info: &[u8],
) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), EngineError> {
    let none = || {
        EngineError::invalid("could not create the csr: private key not imported for key version selected")
    };
    let secret = material.secret.as_ref().ok_or_else(none)?.expose();
    let ecdsa = |last| [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, last].to_vec();
    let (oid, signature) = match kind {
        Kind::Ec(curve) => {
            let (hash, last) = match curve {
                Curve::P256 => (Hash::Sha256, 2),
                Curve::P384 => (Hash::Sha384, 3),
                Curve::P521 => (Hash::Sha512, 4),
            };
            let signature = ec::sign(curve, secret, &material.public, &hash.digest(info))?;
            (ecdsa(last), ec::to_der(&signature))
        }
        Kind::Ed25519 => (vec![0x2b, 0x65, 0x70], ed25519::sign(secret, info)?),
        Kind::Rsa(_) => {
            let digest = Hash::Sha256.digest(info);
            let padding = Padding::Pkcs1(Some(Hash::Sha256));
            let signature = rsa_keys::Signer::of(secret)?.sign(padding, &digest, keys.entropy)?;
            (vec![0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], signature)
        }
        Kind::Aead(_) | Kind::Hmac => return Err(none()),
    };
    let null = der::write(der::NULL, &[]);
    let parameters = if matches!(kind, Kind::Rsa(_)) { null.as_slice() } else { &[] };
    Ok((der::write(der::SEQUENCE, &[&der::write(der::OID, &[&oid]), parameters]), signature))
}

/// Keeps certificates with a version.
pub(super) fn set_certificate(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let (key, version) = signer(&keys, request)?;
    let chain_text = request.fields().string("certificate_chain")?.unwrap_or_default();
    let chain = chain(&chain_text)?;
    let refused = |why: &str| EngineError::Invalid(format!("failed to persist certificate chain: {why}"));
    check_chain(&chain).map_err(refused)?;
    let version = key.usable(version).map_err(|err| refused(&err.to_string()))?;
    let material = keys.material(name, version)?;
    let public = chain.first().and_then(|leaf| public_of(leaf)).unwrap_or_default();
    let public = import::public_in(key.kind, &public).map_err(|_| {
        refused("provided leaf certificate public key algorithm does not match the transit key type")
    })?;
    if public != material.public {
        return Err(refused("leaf certificate public key does not match the selected key version"));
    }
    keys.put_material(name, version, &Material { certificates: chain, ..material })?;
    Ok(Response::data(json!({
        "name": name,
        "type": key.kind.name(),
        "certificate_chain": chain_text,
    })))
}

/// The certificates in a text, in DER.
fn chain(text: &str) -> Result<Vec<Vec<u8>>, EngineError> {
    let mut rest = text.trim();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (label, der, behind) = der::first_pem(rest)
            .ok_or_else(|| EngineError::invalid("could not decode a PEM block in the certificate chain"))?;
        rest = behind.trim();
        if !matches!(label, "CERTIFICATE" | "X509 CERTIFICATE") {
            continue;
        }
        if parsed(&der).is_none() {
            return Err(EngineError::invalid("could not parse a certificate in the certificate chain"));
        }
        if found.len() == CHAIN_MAX {
            return Err(EngineError::Invalid(format!(
                "the certificate chain has more than {CHAIN_MAX} certificates"
            )));
        }
        found.push(der);
    }
    if found.is_empty() {
        return Err(EngineError::invalid(
            "provided certificate chain did not contain any valid PEM encoded certificate",
        ));
    }
    Ok(found)
}

fn parsed(der: &[u8]) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(der)
        .ok()
        .filter(|(rest, _)| rest.is_empty())
        .map(|(_, certificate)| certificate)
}

fn is_authority(der: &[u8]) -> bool {
    parsed(der).is_some_and(|certificate| certificate.is_ca())
}

fn public_of(der: &[u8]) -> Option<Vec<u8>> {
    Some(parsed(der)?.public_key().raw.to_vec())
}

/// The first is the key's own, all others are authorities'.
fn check_chain(chain: &[Vec<u8>]) -> Result<(), &'static str> {
    let [leaf, others @ ..] = chain else {
        return Err("expected at least one certificate in the certificate chain");
    };
    if is_authority(leaf) {
        return Err("certificate in the first element is not a valid leaf certificate");
    }
    if others.last().is_some_and(|last| !is_authority(last)) {
        return Err("certificate in the last element is not a valid CA certificate");
    }
    if others.iter().any(|other| !is_authority(other)) {
        return Err("could not validate if there is only one leaf certificate in the provided chain");
    }
    Ok(())
}
