//! Keys that sign whatever a test wants signed.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Curve, Key, Material};

/// A key pair.
pub(in crate::auth) enum Signer {
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// The names of all keys there are.
pub(in crate::auth) const ALL: &[(&str, &[&str])] = &[
    ("rsa", &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
    ("p256", &["ES256"]),
    ("p384", &["ES384"]),
    ("p521", &["ES512"]),
    ("ed25519", &["EdDSA"]),
];

/// The key of that name; always the same one.
pub(in crate::auth) fn signer(name: &str) -> &'static Signer {
    static RSA: LazyLock<Signer> =
        LazyLock::new(|| Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
    static OTHER_RSA: LazyLock<Signer> =
        LazyLock::new(|| Signer::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
    static P256: LazyLock<Signer> =
        LazyLock::new(|| Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()));
    static P384: LazyLock<Signer> =
        LazyLock::new(|| Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap()));
    static P521: LazyLock<Signer> =
        LazyLock::new(|| Signer::Ec(EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap()));
    static ED25519: LazyLock<Signer> = LazyLock::new(|| Signer::Ed25519(Ed25519KeyPair::generate().unwrap()));
    match name {
        "rsa" => &RSA,
        "other-rsa" => &OTHER_RSA,
        "p256" => &P256,
        "p384" => &P384,
        "p521" => &P521,
        "ed25519" => &ED25519,
        _ => panic!("no key {name:?}"),
    }
}

impl Signer {
    /// The public half.
    pub(in crate::auth) fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Ec(pair) => pair.public_key().as_der().unwrap(),
            Self::Ed25519(pair) => pair.public_key().as_der().unwrap(),
            Self::Rsa(pair) => pair.public_key().as_der().unwrap(),
        };
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    /// The public half as a JWK of that name.
    pub(in crate::auth) fn jwk(&self, kid: &str) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match Key::from_pem(&self.pem()).unwrap().material {
            Material::Ec(curve, point) => {
                let name = match curve {
                    Curve::P256 => "P-256",
                    Curve::P384 => "P-384",
                    Curve::P521 => "P-521",
                };
                let (x, y) = point[1..].split_at(curve.len());
                json!({"kty": "EC", "crv": name, "kid": kid, "x": b64(x), "y": b64(y)})
            }
            Material::Ed25519(x) => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": b64(&x)}),
            Material::Rsa(n, e) => json!({"kty": "RSA", "kid": kid, "n": b64(&n), "e": b64(&e)}),
        }
    }

    fn sign(&self, alg: &str, signed: &[u8]) -> Vec<u8> {
        match self {
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), signed).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(signed).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let padding: &dyn aws_lc_rs::signature::RsaEncoding = match alg {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &rand::SystemRandom::new(), signed, &mut signature).unwrap();
                signature
            }
        }
    }

    /// A token, its header and payload as given, truly signed by `alg`.
    pub(in crate::auth) fn token_of(&self, alg: &str, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.sign(alg, signed.as_bytes())))
    }

    /// A token with `more` in its header.
    pub(in crate::auth) fn token(&self, alg: &str, more: &Value, claims: &Value) -> String {
        let mut header = json!({"alg": alg, "typ": "JWT"});
        for (name, value) in more.as_object().into_iter().flatten() {
            header[name] = value.clone();
        }
        self.token_of(alg, &header.to_string(), &claims.to_string())
    }
}

/// A token authenticated by a secret everybody knows.
pub(in crate::auth) fn hmac_token(secret: &[u8], claims: &Value) -> String {
    let header = json!({"alg": "HS256", "typ": "JWT"}).to_string();
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}
