//! Private keys: made, taken from outside, written for those who may have them, and made ready to sign.
//!
//! **Security:** whatever holds a secret is wiped when dropped, and no `Debug` shows it.

use arca_engine_api::{Ctx, EngineError, Entropy};
use aws_lc_rs::digest::{self, Context};
use zeroize::Zeroizing;

use super::x509::algorithm::Algorithm;
use super::x509::public_key::{Kind, PublicKey};
use crate::crypto::der::{self, Reader};
use crate::crypto::hashes::Hash;
use crate::crypto::rsa_keys::{self, Padding, Salt};
use crate::crypto::{Curve, Modulus, ec, ed25519};

/// Version of what is stored: this byte, then PKCS#8.
const LAYOUT: u8 = 1;

/// A private key.
pub(super) enum PrivateKey {
    /// ECDSA.
    Ec(Curve, ec::Pair),
    /// Seed and public key.
    Ed25519(Zeroizing<Vec<u8>>),
    /// `RSAPrivateKey`.
    Rsa(Zeroizing<Vec<u8>>),
}

/// A kind of key by the two fields users write: `key_type`, and `key_bits` with 0 for the usual size.
pub(super) fn kind_of(key_type: &str, key_bits: i64) -> Result<Kind, EngineError> {
    match (key_type, key_bits) {
        ("rsa", 0 | 2_048) => Ok(Kind::Rsa(2_048)),
        ("rsa", 3_072) => Ok(Kind::Rsa(3_072)),
        ("rsa", 4_096) => Ok(Kind::Rsa(4_096)),
        ("rsa", 8_192) => Ok(Kind::Rsa(8_192)),
        ("rsa", bits) if bits < 2_048 => Err(EngineError::Invalid(format!(
            "RSA keys < 2048 bits are unsafe and not supported: got {bits}"
        ))),
        ("rsa", bits) => Err(EngineError::Invalid(format!("unsupported bit length for RSA key: {bits}"))),
        ("ec", 0 | 256) => Ok(Kind::Ec(Curve::P256)),
        ("ec", 384) => Ok(Kind::Ec(Curve::P384)),
        ("ec", 521) => Ok(Kind::Ec(Curve::P521)),
        ("ec", bits) => Err(EngineError::Invalid(format!("unsupported bit length for EC key: {bits}"))),
        ("ed25519", _) => Ok(Kind::Ed25519),
        _ => Err(EngineError::invalid("unknown key type")),
    }
}

/// A new key. RSA takes long, so this is the one place where engines wait for it.
pub(super) async fn generate(ctx: &Ctx<'_>, kind: Kind) -> Result<PrivateKey, EngineError> {
    match kind {
        Kind::Ec(curve) => Ok(PrivateKey::Ec(curve, ec::Pair::generate(curve, ctx.entropy)?)),
        Kind::Ed25519 => Ok(PrivateKey::Ed25519(ed25519::generate(ctx.entropy)?)),
        Kind::Rsa(bits) => {
            let modulus = match bits {
                2_048 => Modulus::B2048,
                3_072 => Modulus::B3072,
                4_096 => Modulus::B4096,
                _ => {
                    return Err(EngineError::invalid(
                        "RSA keys of more than 4096 bits are signed and imported, not made here",
                    ));
                }
            };
            Ok(PrivateKey::Rsa(ctx.compute(move || rsa_keys::generate(modulus)).await??))
        }
    }
}

impl PrivateKey {
    /// `SubjectPublicKeyInfo`.
    pub(super) fn spki(&self) -> Result<Vec<u8>, EngineError> {
        match self {
            Self::Ec(curve, pair) => Ok(ec::spki(*curve, &pair.point)),
            Self::Ed25519(private) => Ok(ed25519::spki(ed25519::halves(private)?.1)),
            Self::Rsa(private) => {
                let numbers = rsa_keys::Numbers::of(private)
                    .ok_or_else(|| EngineError::Bug("an RSA key is no key".to_owned()))?;
                Ok(rsa_keys::spki(&rsa_keys::public(numbers.n, numbers.e)))
            }
        }
    }

    /// `PrivateKeyInfo`.
    pub(super) fn pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, EngineError> {
        match self {
            Self::Ec(curve, pair) => Ok(ec::pkcs8(*curve, pair)),
            Self::Ed25519(private) => ed25519::pkcs8(private),
            Self::Rsa(private) => Ok(rsa_keys::pkcs8(private)),
        }
    }

    /// The form of its own that others write by default, with its label in PEM.
    pub(super) fn traditional(&self) -> Result<(&'static str, Zeroizing<Vec<u8>>), EngineError> {
        match self {
            Self::Ec(curve, pair) => Ok(("EC PRIVATE KEY", ec::sec1(*curve, pair))),
            Self::Ed25519(private) => Ok(("PRIVATE KEY", ed25519::pkcs8(private)?)),
            Self::Rsa(private) => Ok(("RSA PRIVATE KEY", private.clone())),
        }
    }

    /// The name users write.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Ec(..) => "ec",
            Self::Ed25519(_) => "ed25519",
            Self::Rsa(_) => "rsa",
        }
    }

    /// Out of a PEM block that holds a key. `None` if the label names none.
    pub(super) fn in_pem(label: &str, block: &[u8]) -> Option<Result<Self, EngineError>> {
        let found = match label {
            "PRIVATE KEY" => Self::in_pkcs8(block),
            "EC PRIVATE KEY" => ec::curve_in(block).and_then(|curve| Self::in_sec1(curve, block)),
            "RSA PRIVATE KEY" => Self::in_pkcs1(block),
            "ENCRYPTED PRIVATE KEY" => {
                return Some(Err(EngineError::invalid("the private key is encrypted; decrypt it first")));
            }
            _ => return None,
        };
        Some(found.ok_or_else(|| EngineError::invalid("the private key is malformed or of an unknown type")))
    }

    fn in_sec1(curve: Curve, bytes: &[u8]) -> Option<Self> {
        Some(Self::Ec(curve, ec::Pair::of(curve, ec::scalar_in(bytes)?)?))
    }

    fn in_pkcs1(bytes: &[u8]) -> Option<Self> {
        rsa_keys::Numbers::of(bytes)?;
        rsa_keys::is_sound(bytes).then(|| Self::Rsa(Zeroizing::new(bytes.to_vec())))
    }

    fn in_pkcs8(bytes: &[u8]) -> Option<Self> {
        let (algorithm, inner) = rsa_keys::private_in(bytes)?;
        if let Some(curve) = ec::curve_of(algorithm) {
            return Self::in_sec1(curve, inner);
        }
        if ed25519::is_named(algorithm) {
            let seed = Reader::new(inner).take(der::OCTET_STRING).filter(|seed| seed.len() == 32)?;
            return ed25519::from_seed(seed).ok().map(Self::Ed25519);
        }
        if rsa_keys::is_named(algorithm) { Self::in_pkcs1(inner) } else { None }
    }

    /// As stored.
    pub(super) fn encode(&self) -> Result<Zeroizing<Vec<u8>>, EngineError> {
        let pkcs8 = self.pkcs8()?;
        let mut out = Zeroizing::new(Vec::with_capacity(pkcs8.len() + 1));
        out.push(LAYOUT);
        out.extend_from_slice(&pkcs8);
        Ok(out)
    }

    /// Reads what is stored. The caller names the entry if it is damaged.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&LAYOUT, pkcs8) = bytes.split_first()? else { return None };
        Self::in_pkcs8(pkcs8)
    }
}

enum Prepared {
    Ec(ec::Signer),
    Ed25519(Zeroizing<Vec<u8>>),
    Rsa(Box<rsa_keys::Signer>),
}

/// A private key made ready to sign many times, with its public half.
pub(super) struct Signer {
    prepared: Prepared,
    kind: Kind,
    spki: Vec<u8>,
}

impl Signer {
    pub(super) fn of(key: &PrivateKey) -> Result<Self, EngineError> {
        let prepared = match key {
            PrivateKey::Ec(curve, pair) => Prepared::Ec(ec::Signer::of(*curve, &pair.scalar, &pair.point)?),
            PrivateKey::Ed25519(private) => Prepared::Ed25519(private.clone()),
            PrivateKey::Rsa(private) => Prepared::Rsa(Box::new(rsa_keys::Signer::of(private)?)),
        };
        let spki = key.spki()?;
        Ok(Self { prepared, kind: PublicKey::of(&spki)?.kind, spki })
    }

    /// `SubjectPublicKeyInfo`.
    pub(super) fn spki(&self) -> &[u8] {
        &self.spki
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Signs a message that comes in parts, without ever holding all of it but for Ed25519, which needs it twice.
    pub(super) fn sign_parts<'a>(
        &self,
        algorithm: Algorithm,
        parts: impl Iterator<Item = Result<Zeroizing<Vec<u8>>, EngineError>> + 'a,
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, EngineError> {
        let hash = match algorithm {
            Algorithm::Ed25519 => {
                let mut whole = Vec::new();
                for part in parts {
                    whole.extend_from_slice(&part?);
                }
                return self.sign_whole(&whole);
            }
            Algorithm::Ecdsa(hash) | Algorithm::Pkcs1(hash) | Algorithm::Pss(hash) => hash,
        };
        let mut context = Context::new(match hash {
            Hash::Sha384 => &digest::SHA384,
            Hash::Sha512 => &digest::SHA512,
            _ => &digest::SHA256,
        });
        for part in parts {
            context.update(&part?);
        }
        self.sign_digest(algorithm, context.finish().as_ref(), entropy)
    }

    /// Signs a message.
    pub(super) fn sign(
        &self,
        algorithm: Algorithm,
        message: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, EngineError> {
        match algorithm {
            Algorithm::Ed25519 => self.sign_whole(message),
            Algorithm::Ecdsa(hash) | Algorithm::Pkcs1(hash) | Algorithm::Pss(hash) => {
                self.sign_digest(algorithm, &hash.digest(message), entropy)
            }
        }
    }

    fn sign_whole(&self, message: &[u8]) -> Result<Vec<u8>, EngineError> {
        match &self.prepared {
            Prepared::Ed25519(private) => ed25519::sign(private, message),
            Prepared::Ec(_) | Prepared::Rsa(_) => Err(mismatch()),
        }
    }

    fn sign_digest(
        &self,
        algorithm: Algorithm,
        digest: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, EngineError> {
        match (&self.prepared, algorithm) {
            (Prepared::Ec(signer), Algorithm::Ecdsa(_)) => Ok(ec::to_der(&signer.sign(digest)?)),
            (Prepared::Rsa(signer), Algorithm::Pkcs1(hash)) => {
                signer.sign(Padding::Pkcs1(Some(hash)), digest, entropy)
            }
            (Prepared::Rsa(signer), Algorithm::Pss(hash)) => {
                signer.sign(Padding::Pss(hash, Salt::Digest), digest, entropy)
            }
            _ => Err(mismatch()),
        }
    }
}

fn mismatch() -> EngineError {
    EngineError::Bug("a key was asked for a signature of another kind".to_owned())
}
