//! `export`: secrets and public halves in the forms other programs read; `byok-export`: secrets wrapped to an RSA key.

use arca_engine_api::{Ctx, EngineError, Map, Request, Response};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::key::Key;
use super::keys::Keys;
use super::kind::Kind;
use super::material::{Material, Secret};
use super::ring::Ring;
use super::rsa_keys::Oaep;
use super::{der, ec, ed25519, rsa_keys, show, text, wrap};

/// What of a version is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    CertificateChain,
    EncryptionKey,
    HmacKey,
    PublicKey,
    SigningKey,
}

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The one usual for the type.
    Usual,
    /// DER of PKCS#8 or `SubjectPublicKeyInfo`, in base64.
    Der,
    /// The same in PEM.
    Pem,
    /// The bytes themselves, in base64.
    Raw,
}

impl Part {
    fn named(name: &str) -> Option<Self> {
        match name {
            "certificate-chain" => Some(Self::CertificateChain),
            "encryption-key" => Some(Self::EncryptionKey),
            "hmac-key" => Some(Self::HmacKey),
            "public-key" => Some(Self::PublicKey),
            "signing-key" => Some(Self::SigningKey),
            _ => None,
        }
    }

    fn is_public(self) -> bool {
        matches!(self, Self::CertificateChain | Self::PublicKey)
    }

    fn check(self, kind: Kind) -> Result<(), EngineError> {
        let refused = match self {
            Self::EncryptionKey if !kind.encrypts() => "encryption not supported for the key",
            Self::SigningKey if !kind.signs() => "signing not supported for the key",
            Self::CertificateChain if !kind.signs() => {
                "certificate chain not supported for keys that do not support signing"
            }
            Self::PublicKey if !kind.is_asymmetric() => {
                return Err(EngineError::Invalid(format!(
                    "unknown key type {} for export type public-key",
                    kind.name()
                )));
            }
            _ => return Ok(()),
        };
        Err(EngineError::invalid(refused))
    }
}

/// Exports one version, or all that may be used.
pub(super) fn export(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (keys, name) = (Keys::of(ctx), request.param("name"));
    let part =
        Part::named(request.param("type")).ok_or_else(|| EngineError::invalid("invalid export type"))?;
    let form = match request.fields().string("format")?.as_deref() {
        None | Some("") => Form::Usual,
        Some("der") => Form::Der,
        Some("pem") => Form::Pem,
        Some("raw") => Form::Raw,
        Some(_) => return Err(EngineError::invalid("invalid format")),
    };
    let Some(key) = keys.find(name)? else { return Ok(Response::empty()) };
    if !key.is_exportable && !part.is_public() {
        return Err(EngineError::invalid("private key material is not exportable"));
    }
    key.check_shown()?;
    part.check(key.kind)?;
    let mut ring = Ring::new(keys, name, &key);
    let shown = versions(&key, request.param("version"))?.into_iter().map(|version| {
        let text = exported(key.kind, ring.version(version)?, part, form)?;
        Ok((version.to_string(), Value::String(text.to_string())))
    });
    let shown = shown.collect::<Result<Map, EngineError>>()?;
    Ok(Response::data(json!({ "name": name, "type": key.kind.name(), "keys": shown })))
}

/// The versions asked for: all, `latest`, or a number with or without a `v`.
fn versions(key: &Key, wanted: &str) -> Result<Vec<u32>, EngineError> {
    let version = match wanted {
        "" => return Ok(key.usable_versions().map(|(version, _)| version).collect()),
        "latest" => i64::from(key.latest()),
        text => {
            let number = text.strip_prefix('v').unwrap_or(text).parse();
            number.map_err(|_| EngineError::invalid("invalid key version"))?
        }
    };
    if version < i64::from(key.min_decryption) {
        return Err(EngineError::invalid("version for export is below minimum decryption version"));
    }
    let found =
        key.usable(version).map_err(|_| EngineError::invalid("version does not exist or cannot be found"))?;
    Ok(vec![found])
}

fn exported(
    kind: Kind,
    material: &Material,
    part: Part,
    form: Form,
) -> Result<Zeroizing<String>, EngineError> {
    match part {
        Part::CertificateChain if material.certificates.is_empty() => {
            Err(EngineError::invalid("selected key version does not have a certificate chain imported"))
        }
        Part::CertificateChain => Ok(Zeroizing::new(show::certificates(material))),
        Part::HmacKey => raw(material.hmac(), form),
        Part::PublicKey => public(kind, material, form),
        Part::EncryptionKey | Part::SigningKey => match &material.secret {
            // Only the public half was imported.
            None => Ok(Zeroizing::new(String::new())),
            Some(secret) => private(kind, secret, material, form),
        },
    }
}

fn raw(secret: Option<&Secret>, form: Form) -> Result<Zeroizing<String>, EngineError> {
    if matches!(form, Form::Der | Form::Pem) {
        return Err(EngineError::invalid("unknown format for HMAC key; supported values are `` or `raw`"));
    }
    Ok(Zeroizing::new(secret.map_or_else(String::new, |secret| text::encode(secret.expose()))))
}

fn no_raw(kind: Kind, form: Form) -> Result<(), EngineError> {
    let name = if matches!(kind, Kind::Ec(_)) { "ec" } else { "rsa" };
    if form == Form::Raw && kind != Kind::Ed25519 {
        return Err(EngineError::Invalid(format!(
            "unknown key format for {name} key; supported values are ``, `der`, or `pem`"
        )));
    }
    Ok(())
}

fn public(kind: Kind, material: &Material, form: Form) -> Result<Zeroizing<String>, EngineError> {
    no_raw(kind, form)?;
    let der = show::public_der(kind, material).unwrap_or_default();
    Ok(match form {
        Form::Der => Zeroizing::new(text::encode(&der)),
        Form::Usual | Form::Raw if kind == Kind::Ed25519 => Zeroizing::new(text::encode(&material.public)),
        _ => pem(kind, "PUBLIC KEY", &der),
    })
}

fn private(
    kind: Kind,
    secret: &Secret,
    material: &Material,
    form: Form,
) -> Result<Zeroizing<String>, EngineError> {
    if matches!(kind, Kind::Aead(_) | Kind::Hmac) {
        return raw(Some(secret), form);
    }
    no_raw(kind, form)?;
    Ok(match (kind, form) {
        (Kind::Ed25519, Form::Usual | Form::Raw) => Zeroizing::new(text::encode(secret.expose())),
        (Kind::Ec(curve), Form::Usual) => {
            let pair = ec_pair(secret, material);
            pem(kind, "EC PRIVATE KEY", &ec::sec1(curve, &pair))
        }
        (Kind::Rsa(_), Form::Usual) => pem(kind, "RSA PRIVATE KEY", secret.expose()),
        (_, Form::Der) => Zeroizing::new(text::encode(&pkcs8(kind, secret, material)?)),
        _ => pem(kind, "PRIVATE KEY", &pkcs8(kind, secret, material)?),
    })
}

fn ec_pair(secret: &Secret, material: &Material) -> ec::Pair {
    ec::Pair { scalar: Zeroizing::new(secret.expose().to_vec()), point: material.public.clone() }
}

/// PKCS#8 of a private key; the bytes of a symmetric one.
fn pkcs8(kind: Kind, secret: &Secret, material: &Material) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    match kind {
        Kind::Ec(curve) => Ok(ec::pkcs8(curve, &ec_pair(secret, material))),
        Kind::Ed25519 => ed25519::pkcs8(secret.expose()),
        Kind::Rsa(_) => Ok(rsa_keys::pkcs8(secret.expose())),
        Kind::Aead(_) | Kind::Hmac => Ok(Zeroizing::new(secret.expose().to_vec())),
    }
}

/// PEM; RSA's ends in a line end, the others' do not: this is how the API has it.
fn pem(kind: Kind, label: &str, der: &[u8]) -> Zeroizing<String> {
    let whole = der::pem(label, der);
    if matches!(kind, Kind::Rsa(_)) { whole } else { Zeroizing::new(whole.trim_end().to_owned()) }
}

/// Exports a key wrapped to another, as importing takes it.
pub(super) fn byok(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let keys = Keys::of(ctx);
    let (target_name, name) = (request.param("destination"), request.param("source"));
    let target = keys.require(target_name, "no such destination key to export to")?;
    let hidden =
        |which: &str| EngineError::Invalid(format!("for {which} key: refusing to use soft-deleted key"));
    target.check_shown().map_err(|_| hidden("destination"))?;
    let key = keys.require(name, "no such source key for export")?;
    if !key.is_exportable {
        return Err(EngineError::invalid("key is not exportable"));
    }
    key.check_shown().map_err(|_| hidden("source"))?;
    let hash = request.fields().string("hash")?;
    let hash = Oaep::named(hash.as_deref().unwrap_or("SHA256"))
        .ok_or_else(|| EngineError::invalid("unknown hash function"))?;
    if !target.kind.signs() {
        return Err(EngineError::Invalid(format!(
            "key wrapping (requiring message signing) is not supported for key type {}",
            target.kind.name()
        )));
    }
    if !matches!(target.kind, Kind::Rsa(_)) {
        return Err(EngineError::invalid("unsupported key type in use; must be a rsa key"));
    }
    let wrapping = keys.material(target_name, target.version_to_make(0, "key wrapping")?)?.public;
    let mut ring = Ring::new(keys, name, &key);
    let wrapped = versions(&key, request.param("version"))?.into_iter().map(|version| {
        let material = ring.version(version)?;
        let secret = material.secret.as_ref();
        let secret = secret.ok_or_else(|| EngineError::invalid("the key version has no private part"))?;
        let wrapped = wrap::wrap(hash, &wrapping, &pkcs8(key.kind, secret, material)?, keys.entropy)?;
        Ok((version.to_string(), Value::String(text::encode(&wrapped))))
    });
    let wrapped = wrapped.collect::<Result<Map, EngineError>>()?;
    Ok(Response::data(json!({ "name": name, "type": key.kind.name(), "keys": wrapped })))
}
