//! `derive-key`: a key that two hold without having sent it, each with a private ECDSA key here or elsewhere and the
//! other's public key.
//!
//! What both compute is stretched by HKDF with SHA-256, without salt and info, to the length of the new key, so the other
//! side needs nothing else to make the same one.

use arca_engine_api::{Ctx, EngineError, Fields, Request, Response};
use zeroize::Zeroizing;

use super::der::{self, Reader};
use super::key::Key;
use super::keys::Keys;
use super::kind::{Cipher, Curve, Kind};
use super::material::Secret;
use super::{ec, generate, symmetric};

/// Makes a key, or a new version of one that came from outside, out of a base key and another's public key.
pub(super) fn derive_key(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, fields, name) = (Keys::of(ctx), request.fields(), request.param("name"));
    let text = |field| Ok::<_, EngineError>(fields.string(field)?.unwrap_or_default());
    if fields.string("key_derivation_algorithm")?.is_some_and(|algorithm| algorithm != "ecdh") {
        return Err(EngineError::invalid("key derivation algorithm not supported"));
    }
    let peer = text("peer_public_key")?;
    if peer.is_empty() {
        return Err(EngineError::invalid("peer public key not provided"));
    }
    let cipher = cipher(fields.string("derived_key_type")?)?;
    let shared = agreed(&keys, &text("base_key_name")?, fields, &peer)?;
    let secret = symmetric::derive(&shared, &[], cipher.key_len())?;
    let kind = Kind::Aead(cipher);
    let mut key = match keys.load(name)? {
        None => Key { is_imported: true, ..Key::new(kind) },
        Some(key) => {
            key.check_shown()?;
            if key.kind != kind || !key.is_imported || key.is_convergent {
                return Err(EngineError::invalid(
                    "a key of that name exists that is of another type or was not derived or imported",
                ));
            }
            key
        }
    };
    let material = generate::symmetric(Secret::new(secret), Some(generate::hmac_key(keys.entropy)?));
    keys.add_version(name, &mut key, &material)?;
    Ok(Response::empty())
}

fn cipher(name: Option<String>) -> Result<Cipher, EngineError> {
    let kind = name.map_or(Some(Kind::DEFAULT), |name| Kind::named(&name.to_ascii_lowercase()));
    match kind {
        Some(Kind::Aead(cipher)) => Ok(cipher),
        _ => Err(EngineError::invalid("unknown key type")),
    }
}

/// What the base key and the peer's have in common.
fn agreed(
    keys: &Keys<'_>,
    name: &str,
    fields: Fields<'_>,
    peer: &str,
) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let base = keys.require(name, "specified base key not found")?;
    base.check_shown()?;
    let Kind::Ec(curve) = base.kind else {
        return Err(EngineError::Invalid(format!(
            "base key type {} does not support key agreement",
            base.kind.name()
        )));
    };
    let version = match fields.integer("base_key_version")?.unwrap_or_default() {
        0 => base.latest(),
        wanted if wanted < 0 => {
            return Err(EngineError::invalid("requested version of the base key is negative"));
        }
        wanted if wanted > i64::from(base.latest()) => {
            return Err(EngineError::invalid(
                "requested version of the base key is higher than the latest key version",
            ));
        }
        wanted => base.usable(wanted)?,
    };
    let material = keys.material(name, version)?;
    let secret = material
        .secret
        .as_ref()
        .ok_or_else(|| EngineError::invalid("requested version of the base key has no private part"))?;
    let point = point(base.kind, curve, peer)?;
    ec::agree(curve, secret.expose(), &point)?
        .ok_or_else(|| EngineError::invalid("the peer's public key is no point of the curve"))
}

/// The peer's point.
fn point(kind: Kind, curve: Curve, pem: &str) -> Result<Vec<u8>, EngineError> {
    let unparsed = || {
        EngineError::invalid(
            "failed to parse supplied peer public key PEM: data does not contain any valid public keys",
        )
    };
    let (_, spki, _) = der::first_pem(pem).ok_or_else(unparsed)?;
    let mut outer = Reader::new(&spki);
    let mut inner = outer.enter(der::SEQUENCE).filter(|_| outer.is_empty()).ok_or_else(unparsed)?;
    let algorithm = inner.enter(der::SEQUENCE).ok_or_else(unparsed)?;
    let bits = inner.bits().filter(|_| inner.is_empty()).ok_or_else(unparsed)?;
    if ec::curve_of(algorithm) != Some(curve) {
        return Err(EngineError::Invalid(format!(
            "base private key type {} does not match peer public key curve",
            kind.name()
        )));
    }
    ec::point_in(curve, bits).ok_or_else(unparsed)
}
