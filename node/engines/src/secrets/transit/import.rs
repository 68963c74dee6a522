//! Keys that come from outside: `wrapping_key`, `keys/:name/import`, `keys/:name/import_version`.

use arca_engine_api::{Ctx, EngineError, Fields, Request, Response};
use serde_json::json;
use zeroize::Zeroizing;

use super::der::{self, Reader};
use super::key::{HMAC_KEY_LEN, Kdf, Key};
use super::keys::Keys;
use super::kind::{Curve, Kind, Modulus};
use super::material::{Material, Secret};
use super::rsa_keys::Oaep;
use super::{ec, ed25519, generate, keys, manage, rsa_keys, text, wrap};

/// Bytes of what the wrapping key encrypts.
const WRAPPED_LEN: usize = 512;

/// Shows the public key to wrap keys to.
pub(super) async fn wrapping_key(ctx: &Ctx<'_>) -> Result<Response, EngineError> {
    let material = keys::wrapping_key(ctx).await?;
    let pem = der::pem("PUBLIC KEY", &rsa_keys::spki(&material.public));
    Ok(Response::data(json!({ "public_key": *pem })))
}

/// What a request brings.
enum Brought {
    /// A private or symmetric key, unwrapped.
    Private(Zeroizing<Vec<u8>>),
    /// A public key in PEM.
    Public(String),
}

fn brought(keys: &Keys<'_>, fields: Fields<'_>, kind: Kind) -> Result<Brought, EngineError> {
    let Some(ciphertext) = fields.string("ciphertext")?.filter(|text| !text.is_empty()) else {
        if !kind.is_asymmetric() {
            return Err(EngineError::invalid("provided type does not support public_key import"));
        }
        return Ok(Brought::Public(fields.string("public_key")?.unwrap_or_default()));
    };
    let hash = fields.string("hash_function")?;
    let hash = Oaep::named(hash.as_deref().unwrap_or("SHA256"))
        .ok_or_else(|| EngineError::invalid("unknown hash function"))?;
    let wrapped = text::decode(&ciphertext)?;
    if wrapped.len() <= WRAPPED_LEN {
        return Err(EngineError::invalid("provided ciphertext is too short"));
    }
    let wrapping = keys
        .find_wrapping_key()?
        .ok_or_else(|| EngineError::invalid("nothing can be wrapped yet: fetch the wrapping key first"))?
        .secret
        .ok_or_else(|| EngineError::Bug("the wrapping key is public".to_owned()))?;
    wrap::unwrap(hash, wrapping.expose(), WRAPPED_LEN, &wrapped, keys.entropy).map(Brought::Private)
}

/// Makes a key of what is brought.
pub(super) fn import(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, fields, name) = (Keys::of(ctx), request.fields(), request.param("name"));
    if fields.boolean("convergent_encryption")?.unwrap_or_default() {
        return Err(EngineError::invalid("import cannot be used on keys with convergent encryption enabled"));
    }
    let flag = |name| Ok::<_, EngineError>(fields.boolean(name)?.unwrap_or_default());
    let kind = match fields.string("type")?.as_deref() {
        None => Kind::DEFAULT,
        Some(kind) => {
            Kind::named(&kind.to_ascii_lowercase()).ok_or_else(|| EngineError::invalid("unknown key type"))?
        }
    };
    let mut key = Key {
        is_derived: flag("derived")?,
        kdf: Kdf::of_imported(kind),
        is_exportable: flag("exportable")?,
        allows_backup: flag("allow_plaintext_backup")?,
        rotate_after_seconds: manage::rotate_after(fields)?.unwrap_or_default(),
        is_imported: true,
        allows_rotation: flag("allow_rotation")?,
        ..Key::new(kind)
    };
    if key.rotate_after_seconds > 0 && !key.allows_rotation {
        return Err(EngineError::invalid("allow_rotation must be set to true if auto-rotation is enabled"));
    }
    if keys.find(name)?.is_some() {
        return Err(EngineError::invalid(
            "the import path cannot be used with an existing key; use import-version to rotate an existing imported \
             key",
        ));
    }
    let material = material(&keys, &mut key, &brought(&keys, fields, kind)?)?;
    key.check_flags()?;
    keys.add_version(name, &mut key, &material)?;
    Ok(Response::empty())
}

/// Makes a version of what is brought, or completes one that has only its public half.
pub(super) fn import_version(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, fields, name) = (Keys::of(ctx), request.fields(), request.param("name"));
    let mut key = keys
        .load(name)?
        .ok_or_else(|| EngineError::invalid("no key found; to import a new key, use the import/ endpoint"))?;
    if !key.is_imported {
        return Err(EngineError::invalid(
            "the import_version endpoint can only be used with an imported key",
        ));
    }
    if key.is_convergent {
        return Err(EngineError::invalid(
            "import_version cannot be used on keys with convergent encryption enabled",
        ));
    }
    key.check_shown()?;
    let brought = brought(&keys, fields, key.kind)?;
    if let Some(wanted) = fields.integer("version")? {
        let version = key.usable(wanted)?;
        let known = keys.material(name, version)?;
        check_completes(&key, &known, &brought)?;
        let given = material(&keys, &mut key, &brought)?;
        keys.put_material(name, version, &completed(known, given)?)?;
        return Ok(Response::empty());
    }
    let given = material(&keys, &mut key, &brought)?;
    let latest = keys.material(name, key.latest())?;
    if latest.secret.is_none() && given.secret.is_some() && latest.public == given.public {
        keys.put_material(name, key.latest(), &completed(latest, given)?)?;
        return Ok(Response::empty());
    }
    keys.add_version(name, &mut key, &given)?;
    Ok(Response::empty())
}

fn check_completes(key: &Key, known: &Material, brought: &Brought) -> Result<(), EngineError> {
    let refused = if !key.kind.is_asymmetric() {
        "provided type does not support importing key versions"
    } else if known.secret.is_some() {
        "private key imported, key version cannot be updated"
    } else if matches!(brought, Brought::Public(_)) {
        "cannot add a public key to a key version that already has a public key set"
    } else {
        return Ok(());
    };
    Err(EngineError::invalid(refused))
}

/// The version with its private half.
fn completed(known: Material, given: Material) -> Result<Material, EngineError> {
    if known.public != given.public {
        return Err(EngineError::invalid("cannot import key, key pair does not match"));
    }
    Ok(Material { secret: given.secret, ..known })
}

/// A version of what is brought, if it is a key of that type.
fn material(keys: &Keys<'_>, key: &mut Key, brought: &Brought) -> Result<Material, EngineError> {
    let (secret, public) = match (key.kind, brought) {
        (Kind::Hmac, Brought::Private(bytes)) => {
            if !HMAC_KEY_LEN.contains(&bytes.len()) {
                return Err(wrong_len(key.kind, bytes.len()));
            }
            key.hmac_len = u16::try_from(bytes.len()).ok();
            return Ok(generate::symmetric(Secret::new(bytes.clone()), None));
        }
        (Kind::Aead(cipher), Brought::Private(bytes)) => {
            if bytes.len() != cipher.key_len() {
                return Err(wrong_len(key.kind, bytes.len()));
            }
            (Some(bytes.clone()), Vec::new())
        }
        (_, Brought::Private(bytes)) => {
            let (secret, public) = private_half(key.kind, bytes)?;
            (Some(secret), public)
        }
        (Kind::Ed25519, Brought::Public(_)) if key.is_derived => {
            return Err(EngineError::invalid("unable to import only public key for derived Ed25519 key"));
        }
        (_, Brought::Public(pem)) => (None, public_half(key.kind, pem)?),
    };
    let hmac_key = Some(generate::hmac_key(keys.entropy)?);
    Ok(Material { secret: secret.map(Secret::new), hmac_key, public, certificates: Vec::new() })
}

fn wrong_len(kind: Kind, len: usize) -> EngineError {
    EngineError::Invalid(format!("invalid key size {len} bytes for key type {}", kind.name()))
}

fn mismatch(kind: Kind) -> EngineError {
    EngineError::Invalid(format!("error importing key: invalid key type: expected {}", kind.name()))
}

/// The private half in PKCS#8, and its public half.
pub(super) fn private_half(kind: Kind, pkcs8: &[u8]) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), EngineError> {
    let unparsed = || EngineError::invalid("error importing key: error parsing asymmetric key");
    let (algorithm, inner) = rsa_keys::private_in(pkcs8).ok_or_else(unparsed)?;
    match kind {
        Kind::Ec(curve) => {
            let found = ec::curve_of(algorithm).ok_or_else(|| mismatch(kind))?;
            same_curve(curve, found)?;
            let pair =
                ec::scalar_in(inner).and_then(|scalar| ec::Pair::of(curve, scalar)).ok_or_else(unparsed)?;
            Ok((pair.scalar, pair.point))
        }
        Kind::Ed25519 => {
            let seed = if ed25519::is_named(algorithm) {
                Reader::new(inner).take(der::OCTET_STRING)
            } else if ed25519::is_named_as_curve(algorithm) {
                ec::scalar_in(inner)
            } else {
                return Err(mismatch(kind));
            };
            let private = ed25519::from_seed(seed.filter(|seed| seed.len() == 32).ok_or_else(unparsed)?)?;
            let public = ed25519::halves(&private)?.1.to_vec();
            Ok((private, public))
        }
        Kind::Rsa(modulus) => {
            if !rsa_keys::is_named(algorithm) {
                return Err(mismatch(kind));
            }
            let numbers = rsa_keys::Numbers::of(inner).ok_or_else(unparsed)?;
            same_size(modulus, numbers.n)?;
            if !rsa_keys::is_sound(inner) {
                return Err(unparsed());
            }
            Ok((Zeroizing::new(inner.to_vec()), rsa_keys::public(numbers.n, numbers.e)))
        }
        Kind::Aead(_) | Kind::Hmac => Err(mismatch(kind)),
    }
}

fn same_curve(wanted: Curve, found: Curve) -> Result<(), EngineError> {
    if wanted == found {
        return Ok(());
    }
    let (wanted, found) = (wanted.name(), found.name());
    Err(EngineError::Invalid(format!("error importing key: invalid curve: expected {wanted}, got {found}")))
}

fn same_size(modulus: Modulus, n: &[u8]) -> Result<(), EngineError> {
    let (wanted, found) = (modulus.byte_len(), n.len());
    if wanted == found {
        return Ok(());
    }
    Err(EngineError::Invalid(format!(
        "error importing key: invalid key size: expected {wanted} bytes, got {found} bytes"
    )))
}

/// The public half in PEM.
fn public_half(kind: Kind, pem: &str) -> Result<Vec<u8>, EngineError> {
    let (_, der, _) = der::first_pem(pem).ok_or_else(|| {
        EngineError::invalid("error importing key: error parsing public key: not in PEM format")
    })?;
    public_in(kind, &der)
}

/// The public half in a `SubjectPublicKeyInfo`.
pub(super) fn public_in(kind: Kind, spki: &[u8]) -> Result<Vec<u8>, EngineError> {
    let unparsed = || EngineError::invalid("error importing key: error parsing public key");
    let mut outer = Reader::new(spki);
    let mut inner = outer.enter(der::SEQUENCE).filter(|_| outer.is_empty()).ok_or_else(unparsed)?;
    let algorithm = inner.enter(der::SEQUENCE).ok_or_else(unparsed)?;
    let bits = inner.bits().ok_or_else(unparsed)?;
    match kind {
        Kind::Ec(curve) => {
            same_curve(curve, ec::curve_of(algorithm).ok_or_else(|| mismatch(kind))?)?;
            ec::point_in(curve, bits).ok_or_else(unparsed)
        }
        Kind::Ed25519 if ed25519::is_named(algorithm) => ed25519::public_in(bits).ok_or_else(unparsed),
        Kind::Rsa(modulus) if rsa_keys::is_named(algorithm) => {
            same_size(modulus, rsa_keys::public_numbers(bits).ok_or_else(unparsed)?.0)?;
            rsa_keys::is_sound_public(bits).then(|| bits.to_vec()).ok_or_else(unparsed)
        }
        _ => Err(mismatch(kind)),
    }
}
