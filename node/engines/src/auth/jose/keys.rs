//! Public keys that sign tokens, and the algorithms that go with each kind.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey;

const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_P384: &str = "1.3.132.0.34";
const OID_P521: &str = "1.3.132.0.35";
const OID_ED25519: &str = "1.3.101.112";

/// A way of signing: all that are taken. There is no `none`, and no HMAC, whose key would be public here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::auth) enum Alg {
    EdDsa,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
    Rs256,
    Rs384,
    Rs512,
}

impl Alg {
    /// By its name in RFC 7518 and 8037, whose case counts.
    pub(in crate::auth) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "EdDSA" => Self::EdDsa,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &RSA_PSS_2048_8192_SHA512,
            Self::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// A curve of the ES algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const fn alg(self) -> Alg {
        match self {
            Self::P256 => Alg::Es256,
            Self::P384 => Alg::Es384,
            Self::P521 => Alg::Es512,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }

    /// Bytes of a coordinate.
    const fn len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// A point, uncompressed.
    Ec(Curve, Vec<u8>),
    Ed25519(Vec<u8>),
    /// Modulus and exponent, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
}

/// A key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::auth) struct Key {
    /// Its name, if it has one.
    pub(in crate::auth) kid: Option<String>,
    /// The only algorithm it is for, if it says so.
    alg: Option<Alg>,
    material: Material,
}

impl Key {
    /// Reads a public key, or the one of a certificate, in PEM.
    pub(in crate::auth) fn from_pem(text: &str) -> Option<Self> {
        let pem = Pem::iter_from_buffer(text.as_bytes()).next()?.ok()?;
        let material = match pem.label.as_str() {
            "PUBLIC KEY" => material_of(&SubjectPublicKeyInfo::from_der(&pem.contents).ok()?.1)?,
            "CERTIFICATE" => material_of(X509Certificate::from_der(&pem.contents).ok()?.1.public_key())?,
            _ => return None,
        };
        Some(Self { kid: None, alg: None, material })
    }

    /// Whether a text is one key in PEM, before it is stored.
    ///
    /// # Errors
    /// What to say where it is none, or where more follows it, which would be passed over.
    pub(in crate::auth) fn check_pem(text: &str) -> Result<(), &'static str> {
        if Self::from_pem(text).is_none() {
            return Err("data does not contain any valid public keys");
        }
        let is_alone = Pem::iter_from_buffer(text.as_bytes()).nth(1).is_none();
        if is_alone { Ok(()) } else { Err("unexpected trailing data after parsed PEM block") }
    }

    /// Reads a key of a JWK set (RFC 7517). None for keys that sign nothing or are of a kind not used here: a set may hold
    /// them beside others.
    pub(in crate::auth) fn from_jwk(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?.trim_end_matches('=')).ok();
        if text("use").is_some_and(|use_for| use_for != "sig") {
            return None;
        }
        let operations = jwk.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|operations| !operations.iter().any(|operation| operation == "verify")) {
            return None;
        }
        let alg = match text("alg") {
            None => None,
            Some(name) => Some(Alg::named(name)?),
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa(shortest(&bytes("n")?), shortest(&bytes("e")?)),
            ("EC", Some("P-256")) => point(Curve::P256, &bytes("x")?, &bytes("y")?)?,
            ("EC", Some("P-384")) => point(Curve::P384, &bytes("x")?, &bytes("y")?)?,
            ("EC", Some("P-521")) => point(Curve::P521, &bytes("x")?, &bytes("y")?)?,
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        Some(Self { kid: text("kid").map(str::to_owned), alg, material })
    }

    /// Whether it is for signatures of that algorithm: the key decides, not the token.
    pub(in crate::auth) fn suits(&self, alg: Alg) -> bool {
        let is_of_kind = match self.material {
            Material::Ec(curve, _) => curve.alg() == alg,
            Material::Ed25519(_) => alg == Alg::EdDsa,
            Material::Rsa(..) => alg.rsa().is_some(),
        };
        is_of_kind && self.alg.is_none_or(|own| own == alg)
    }

    /// Whether it made the signature.
    pub(in crate::auth) fn verifies(&self, alg: Alg, signed: &[u8], signature: &[u8]) -> bool {
        if !self.suits(alg) {
            return false;
        }
        let verified = match &self.material {
            Material::Ec(curve, point) => {
                UnparsedPublicKey::new(curve.verification(), point).verify(signed, signature)
            }
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature),
            Material::Rsa(n, e) => match alg.rsa() {
                Some(parameters) => RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature),
                None => return false,
            },
        };
        verified.is_ok()
    }
}

fn material_of(info: &SubjectPublicKeyInfo<'_>) -> Option<Material> {
    let algorithm = info.algorithm.algorithm.to_id_string();
    let bytes = info.subject_public_key.data.as_ref();
    if algorithm == OID_ED25519 {
        return (bytes.len() == 32).then(|| Material::Ed25519(bytes.to_vec()));
    }
    match info.parsed().ok()? {
        PublicKey::RSA(rsa) => Some(Material::Rsa(shortest(rsa.modulus), shortest(rsa.exponent))),
        PublicKey::EC(_) => {
            let parameters = info.algorithm.parameters.as_ref()?;
            let curve = match parameters.as_oid().ok()?.to_id_string().as_str() {
                OID_P256 => Curve::P256,
                OID_P384 => Curve::P384,
                OID_P521 => Curve::P521,
                _ => return None,
            };
            let (form, rest) = bytes.split_first()?;
            let is_point = *form == 4 && rest.len() == 2 * curve.len();
            is_point.then(|| Material::Ec(curve, bytes.to_vec()))
        }
        _ => None,
    }
}

/// Without leading zeros.
fn shortest(number: &[u8]) -> Vec<u8> {
    number.iter().copied().skip_while(|byte| *byte == 0).collect()
}

/// A point of its coordinates, which some write shorter than they are.
fn point(curve: Curve, x: &[u8], y: &[u8]) -> Option<Material> {
    let mut bytes = vec![4];
    for coordinate in [x, y] {
        let missing = curve.len().checked_sub(coordinate.len())?;
        bytes.extend(std::iter::repeat_n(0, missing));
        bytes.extend_from_slice(coordinate);
    }
    Some(Material::Ec(curve, bytes))
}

#[cfg(test)]
#[path = "testing.rs"]
pub(in crate::auth) mod testing;
