//! A key with its versions, each read when it is first needed: what a request encrypts and decrypts with.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_engine_api::EngineError;
use zeroize::Zeroizing;

use super::key::{Kdf, Key};
use super::keys::Keys;
use super::kind::{Cipher, Kind};
use super::material::{Material, Secret};
use super::ready::Ready;
use super::symmetric::{self, CONVERGENT_KEYS_LEN, NonceOf};
use super::text;

const NO_CONTEXT: &str = "missing 'context' for key derivation; the key was created using a derived key, which means \
                          additional, per-request information must be included in order to perform operations with \
                          the key";

/// See the file's header.
pub(super) struct Ring<'a> {
    keys: Keys<'a>,
    name: &'a str,
    key: &'a Key,
    versions: BTreeMap<u32, Arc<Ready>>,
}

/// What a cipher needs of a version.
struct CipherKeys {
    both: Zeroizing<Vec<u8>>,
    at: usize,
}

impl CipherKeys {
    fn encryption(&self) -> &[u8] {
        self.both.get(..self.at).unwrap_or_default()
    }

    fn nonce(&self) -> &[u8] {
        self.both.get(self.at..).unwrap_or_default()
    }
}

impl<'a> Ring<'a> {
    pub(super) fn new(keys: Keys<'a>, name: &'a str, key: &'a Key) -> Self {
        Self { keys, name, key, versions: BTreeMap::new() }
    }

    pub(super) fn key(&self) -> &'a Key {
        self.key
    }

    /// The same with a version that is not stored yet.
    pub(super) fn with_version(mut self, version: u32, ready: Arc<Ready>) -> Self {
        self.versions.insert(version, ready);
        self
    }

    /// A version made ready.
    pub(super) fn ready(&mut self, version: u32) -> Result<&Arc<Ready>, EngineError> {
        use std::collections::btree_map::Entry;
        match self.versions.entry(version) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let material = self.keys.material(self.name, version)?;
                Ok(place.insert(Arc::new(Ready::of(material))))
            }
        }
    }

    /// The secrets of a version.
    pub(super) fn version(&mut self, version: u32) -> Result<&Material, EngineError> {
        Ok(&self.ready(version)?.material)
    }

    /// A version's own secret, if it has one.
    pub(super) fn secret(&mut self, version: u32) -> Result<Option<&Secret>, EngineError> {
        Ok(self.version(version)?.secret.as_ref())
    }

    /// Encrypts by the wanted version (0 for the latest), and says by which it was.
    pub(super) fn encrypt(
        &mut self,
        wanted: i64,
        context: &[u8],
        plaintext: &[u8],
        aad: &[u8],
    ) -> Result<(String, u32), EngineError> {
        let key = self.key;
        let version = self.version_to_encrypt(wanted)?;
        let entropy = self.keys.entropy;
        let sealed = match key.kind {
            Kind::Aead(cipher) => {
                let secrets = self.cipher_keys(cipher, version, context)?;
                let nonce = if key.is_convergent {
                    NonceOf::Content(secrets.nonce())
                } else {
                    NonceOf::Random(entropy)
                };
                symmetric::seal(cipher, secrets.encryption(), &nonce, plaintext, aad)?
            }
            _ => self.ready(version)?.encrypt_rsa(plaintext, entropy)?,
        };
        Ok((text::versioned(version, &text::encode(&sealed)), version))
    }

    /// The version to encrypt by, 0 for the latest.
    pub(super) fn version_to_encrypt(&self, wanted: i64) -> Result<u32, EngineError> {
        let key = self.key;
        key.check_shown()?;
        if !key.kind.encrypts() {
            return Err(EngineError::Invalid(format!(
                "message encryption not supported for key type {}",
                key.kind.name()
            )));
        }
        key.version_to_make(wanted, "encryption")
    }

    /// Decrypts.
    pub(super) fn decrypt(
        &mut self,
        context: &[u8],
        ciphertext: &str,
        aad: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, EngineError> {
        let (version, sealed) = self.sealed(ciphertext)?;
        let Kind::Aead(cipher) = self.key.kind else { return self.ready(version)?.decrypt_rsa(&sealed) };
        let secrets = self.cipher_keys(cipher, version, context)?;
        symmetric::open(cipher, secrets.encryption(), &sealed, aad)
    }

    /// The version that decrypts a ciphertext, and what it is to decrypt.
    pub(super) fn sealed(&self, ciphertext: &str) -> Result<(u32, Zeroizing<Vec<u8>>), EngineError> {
        let key = self.key;
        key.check_shown()?;
        if !key.kind.encrypts() {
            return Err(EngineError::Invalid(format!(
                "message decryption not supported for key type {}",
                key.kind.name()
            )));
        }
        let (found, body) = text::split_version(ciphertext).map_err(|why| why.of("ciphertext"))?;
        // Zero stands for one: keys once were counted from zero.
        let version = key.version_of(if found == 0 { 1 } else { found }, "ciphertext")?;
        let sealed = text::decode(body)
            .map_err(|_| EngineError::invalid("invalid ciphertext: could not decode base64"))?;
        Ok((version, sealed))
    }

    fn cipher_keys(
        &mut self,
        cipher: Cipher,
        version: u32,
        context: &[u8],
    ) -> Result<CipherKeys, EngineError> {
        let at = cipher.key_len();
        let len = if self.key.is_convergent { at + CONVERGENT_KEYS_LEN } else { at };
        Ok(CipherKeys { both: self.secret_for(version, context, len)?, at })
    }

    /// The version's secret, or what of it is for this context, in `len` bytes.
    pub(super) fn secret_for(
        &mut self,
        version: u32,
        context: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, EngineError> {
        let (is_derived, kdf) = (self.key.is_derived, self.key.kdf);
        if is_derived && context.is_empty() {
            return Err(EngineError::invalid(NO_CONTEXT));
        }
        let secret = self.secret(version)?.ok_or_else(|| EngineError::invalid("no such key version"))?;
        if is_derived {
            return match kdf {
                Kdf::Hkdf => symmetric::derive(secret.expose(), context, len),
                Kdf::Counter => symmetric::derive_by_counter(secret.expose(), context, len),
            };
        }
        Ok(Zeroizing::new(secret.expose().to_vec()))
    }
}
