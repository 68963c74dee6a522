//! The two AEAD suites behind one trait, with their key schedules prepared once per key term.
//!
//! Values say which suite sealed them, so both can stand side by side. Nonces are random: 24 bytes for XChaCha20,
//! which has no bound worth counting, 12 for AES-GCM, which may seal 2^32 messages under one key and no more.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};

use crate::BarrierError;
use crate::root_key::Secret;

/// Size of the authentication tag, the same in every suite, bytes.
pub(crate) const TAG_SIZE: usize = 16;

/// Largest nonce of any suite, bytes.
pub(crate) const NONCE_SIZE_MAX: usize = 24;

/// How values are sealed. The bytes are on disk for ever: never renumber, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Suite {
    /// XChaCha20-Poly1305 with random 192-bit nonces.
    XChaCha20Poly1305 = 1,
    /// AES-256-GCM with random 96-bit nonces.
    Aes256Gcm = 2,
}

impl Suite {
    /// Its byte in stored formats.
    #[must_use]
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The suite of a stored byte.
    ///
    /// # Errors
    /// On an unknown byte.
    pub const fn from_tag(tag: u8) -> Result<Self, BarrierError> {
        match tag {
            1 => Ok(Self::XChaCha20Poly1305),
            2 => Ok(Self::Aes256Gcm),
            unknown => Err(BarrierError::UnknownSuite(unknown)),
        }
    }

    /// Size of its nonce, bytes.
    #[must_use]
    pub const fn nonce_size(self) -> usize {
        match self {
            Self::XChaCha20Poly1305 => 24,
            Self::Aes256Gcm => 12,
        }
    }

    /// How many messages one key may seal: the chance that two random nonces meet stays below 2^-32 (NIST
    /// SP 800-38D, 8.3). `None` when no store lives long enough to matter.
    #[must_use]
    pub const fn messages_max(self) -> Option<u64> {
        match self {
            Self::XChaCha20Poly1305 => None,
            Self::Aes256Gcm => Some(1 << 32),
        }
    }

    pub(crate) fn prepare(self, key: &Secret) -> Result<Box<dyn Aead>, BarrierError> {
        match self {
            Self::XChaCha20Poly1305 => Ok(Box::new(XChaCha(XChaCha20Poly1305::new(key.expose().into())))),
            Self::Aes256Gcm => {
                let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| BarrierError::Cipher)?;
                Ok(Box::new(Gcm(LessSafeKey::new(key))))
            }
        }
    }
}

/// A cipher with its key in place. `nonce` is [`Suite::nonce_size`] long; the caller never repeats one.
pub(crate) trait Aead: Send + Sync {
    /// Encrypts `body` in place and gives the tag.
    fn seal(&self, nonce: &[u8], aad: &[u8], body: &mut [u8]) -> Result<[u8; TAG_SIZE], BarrierError>;

    /// Decrypts `body` in place. On failure its content is not plaintext and must not be used.
    fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_SIZE],
    ) -> Result<(), BarrierError>;
}

struct XChaCha(XChaCha20Poly1305);

impl Aead for XChaCha {
    fn seal(&self, nonce: &[u8], aad: &[u8], body: &mut [u8]) -> Result<[u8; TAG_SIZE], BarrierError> {
        let nonce = <&XNonce>::try_from(nonce).map_err(|_| BarrierError::Cipher)?;
        self.0
            .encrypt_inout_detached(nonce, aad, InOutBuf::from(body))
            .map(Into::into)
            .map_err(|_| BarrierError::Cipher)
    }

    fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_SIZE],
    ) -> Result<(), BarrierError> {
        let nonce = <&XNonce>::try_from(nonce).map_err(|_| BarrierError::Cipher)?;
        self.0
            .decrypt_inout_detached(nonce, aad, InOutBuf::from(body), &Tag::from(*tag))
            .map_err(|_| BarrierError::Authentication)
    }
}

struct Gcm(LessSafeKey);

impl Aead for Gcm {
    fn seal(&self, nonce: &[u8], aad: &[u8], body: &mut [u8]) -> Result<[u8; TAG_SIZE], BarrierError> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BarrierError::Cipher)?;
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), body)
            .map_err(|_| BarrierError::Cipher)?;
        tag.as_ref().try_into().map_err(|_| BarrierError::Cipher)
    }

    fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_SIZE],
    ) -> Result<(), BarrierError> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BarrierError::Cipher)?;
        self.0
            .open_in_place_separate_tag(nonce, Aad::from(aad), tag, body)
            .map(|_| ())
            .map_err(|_| BarrierError::Authentication)
    }
}
