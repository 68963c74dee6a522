//! A version of a key with what is made of its secrets once, as making it takes as long as using it.

use std::sync::OnceLock;

use arca_engine_api::{EngineError, Entropy};
use zeroize::Zeroizing;

use super::kind::Kind;
use super::material::Material;
use super::rsa_keys::{self, Oaep, Padding};
use super::{ec, ed25519};

/// See the file's header.
pub(super) struct Ready {
    pub(super) material: Material,
    ec_signer: OnceLock<ec::Signer>,
    rsa_signer: OnceLock<rsa_keys::Signer>,
    rsa_decryptor: OnceLock<rsa_keys::Decryptor>,
}

/// What lies there, made if it is not. Two threads may both make it, and one is kept.
fn once<T>(place: &OnceLock<T>, make: impl FnOnce() -> Result<T, EngineError>) -> Result<&T, EngineError> {
    if let Some(made) = place.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(place.get_or_init(|| made))
}

impl Ready {
    pub(super) fn of(material: Material) -> Self {
        Self {
            material,
            ec_signer: OnceLock::new(),
            rsa_signer: OnceLock::new(),
            rsa_decryptor: OnceLock::new(),
        }
    }

    /// Encrypts by RSA.
    pub(super) fn encrypt_rsa(
        &self,
        plaintext: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, EngineError> {
        Oaep::Sha256.encrypt(&self.material.public, plaintext, entropy)?.ok_or_else(|| {
            EngineError::invalid("failed to RSA encrypt the plaintext: message too long for RSA key size")
        })
    }

    /// Decrypts by RSA.
    pub(super) fn decrypt_rsa(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EngineError> {
        let secret = self.material.secret.as_ref().ok_or_else(|| {
            EngineError::invalid("cannot decrypt ciphertext, key version does not have a private counterpart")
        })?;
        once(&self.rsa_decryptor, || rsa_keys::Decryptor::of(secret.expose()))?
            .decrypt(sealed)
            .ok_or_else(|| EngineError::invalid("failed to RSA decrypt the ciphertext: decryption error"))
    }

    /// Signs what was hashed. `padding` is of RSA alone.
    pub(super) fn sign(
        &self,
        kind: Kind,
        padding: impl FnOnce() -> Result<Padding, EngineError>,
        digest: &[u8],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, EngineError> {
        let none = || EngineError::invalid("requested version for signing does not contain a private part");
        let secret = self.material.secret.as_ref().ok_or_else(none)?.expose();
        match kind {
            Kind::Ec(curve) => {
                once(&self.ec_signer, || ec::Signer::of(curve, secret, &self.material.public))?.sign(digest)
            }
            Kind::Ed25519 => ed25519::sign(secret, digest),
            Kind::Rsa(_) => {
                once(&self.rsa_signer, || rsa_keys::Signer::of(secret))?.sign(padding()?, digest, entropy)
            }
            Kind::Aead(_) | Kind::Hmac => Err(none()),
        }
    }
}
