//! A key as shown: its settings, its versions, their public halves. Never a secret.

use arca_engine_api::{EngineError, Map, Response, UnixMillis, rfc3339};
use serde_json::{Value, json};

use super::der;
use super::ed25519;
use super::key::{Key, Stamp};
use super::keys::Keys;
use super::kind::Kind;
use super::material::Material;
use super::ring::Ring;
use super::{ec, rsa_keys, text};

/// The key; a derived Ed25519 key with the public halves that belong to `context`.
pub(super) fn key(keys: &Keys<'_>, name: &str, key: &Key, context: &[u8]) -> Result<Response, EngineError> {
    let mut data = settings(name, key);
    match key.kind {
        Kind::Aead(_) => {
            let births = key.usable_versions().map(|(version, birth)| (version.to_string(), seconds(birth)));
            data.insert("keys".to_owned(), Value::Object(births.collect()));
        }
        Kind::Hmac => {}
        Kind::Ec(_) | Kind::Ed25519 | Kind::Rsa(_) => {
            let mut ring = Ring::new(*keys, name, key);
            let mut shown = Map::new();
            for (version, birth) in key.usable_versions() {
                shown.insert(version.to_string(), public_version(&mut ring, version, birth, context)?);
            }
            data.insert("keys".to_owned(), Value::Object(shown));
        }
    }
    Ok(Response::data(Value::Object(data)))
}

fn seconds(moment: UnixMillis) -> Value {
    Value::from(moment.0 / 1_000)
}

fn settings(name: &str, key: &Key) -> Map {
    let kind = key.kind;
    let mut data = super::batch::map([
        ("allow_plaintext_backup", Value::from(key.allows_backup)),
        ("auto_rotate_period", Value::from(key.rotate_after_seconds)),
        ("deletion_allowed", Value::from(key.allows_deletion)),
        ("derived", Value::from(key.is_derived)),
        ("exportable", Value::from(key.is_exportable)),
        ("imported_key", Value::from(key.is_imported)),
        ("latest_version", Value::from(key.latest())),
        ("min_available_version", Value::from(key.min_available)),
        ("min_decryption_version", Value::from(key.min_decryption)),
        ("min_encryption_version", Value::from(key.min_encryption)),
        ("name", Value::from(name)),
        ("soft_deleted", Value::from(key.is_hidden)),
        ("supports_decryption", Value::from(kind.encrypts())),
        ("supports_derivation", Value::from(kind.derives())),
        ("supports_encryption", Value::from(kind.encrypts())),
        ("supports_signing", Value::from(kind.signs())),
        ("type", Value::from(kind.name())),
    ]);
    let mut add = |name: &str, value: Value| data.insert(name.to_owned(), value);
    if let Some(len) = key.hmac_len {
        add("key_size", Value::from(len));
    }
    if key.is_imported {
        add("imported_key_allow_rotation", Value::from(key.allows_rotation));
    }
    if let Some(stamp) = key.backed_up {
        add("backup_info", shown_stamp(stamp));
    }
    if let Some(stamp) = key.restored {
        add("restore_info", shown_stamp(stamp));
    }
    if key.is_derived {
        add("kdf", Value::from(key.kdf.name()));
        add("convergent_encryption", Value::from(key.is_convergent));
        if key.is_convergent {
            // Which scheme is a matter of each version; all are of the third.
            add("convergent_encryption_version", Value::from(-1));
        }
    }
    data
}

fn shown_stamp(stamp: Stamp) -> Value {
    json!({ "time": rfc3339::format(stamp.at), "version": stamp.version })
}

fn public_version(
    ring: &mut Ring<'_>,
    version: u32,
    birth: UnixMillis,
    context: &[u8],
) -> Result<Value, EngineError> {
    let key = ring.key();
    let derived = match key.kind {
        Kind::Ed25519 if key.is_derived && context.is_empty() => Some(String::new()),
        Kind::Ed25519 if key.is_derived => {
            let private = ed25519::from_seed(&ring.secret_for(version, context, 32)?)?;
            Some(text::encode(ed25519::halves(&private)?.1))
        }
        _ => None,
    };
    let material = ring.version(version)?;
    Ok(json!({
        "certificate_chain": certificates(material),
        "creation_time": rfc3339::format(birth),
        "name": match key.kind {
            Kind::Ec(curve) => curve.name(),
            other => other.name(),
        },
        "public_key": derived.unwrap_or_else(|| public_text(key.kind, material)),
    }))
}

/// The public half as shown with the key: PEM, or base64 for Ed25519.
pub(super) fn public_text(kind: Kind, material: &Material) -> String {
    if kind == Kind::Ed25519 {
        return text::encode(&material.public);
    }
    public_der(kind, material).map_or_else(String::new, |der| der::pem("PUBLIC KEY", &der).to_string())
}

/// `SubjectPublicKeyInfo` of the public half.
pub(super) fn public_der(kind: Kind, material: &Material) -> Option<Vec<u8>> {
    match kind {
        Kind::Ec(curve) => Some(ec::spki(curve, &material.public)),
        Kind::Ed25519 => Some(ed25519::spki(&material.public)),
        Kind::Rsa(_) => Some(rsa_keys::spki(&material.public)),
        Kind::Aead(_) | Kind::Hmac => None,
    }
}

/// The certificates of a version, in PEM, one after the other.
pub(super) fn certificates(material: &Material) -> String {
    let shown = material.certificates.iter().map(|der| der::pem("CERTIFICATE", der).trim().to_owned());
    shown.collect::<Vec<_>>().join("\n")
}
