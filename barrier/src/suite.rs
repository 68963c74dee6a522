//! The two AEAD suites behind one trait, with their key schedules prepared once per key term.
//!
//! Values say which suite sealed them, so both can stand side by side. Nonces are random: 24 bytes for XChaCha20,
//! which has no bound worth counting, 12 for AES-GCM, which may seal 2^32 messages under one key and no more.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use chacha20::{R20, hchacha};
use zeroize::Zeroize;

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
            Self::XChaCha20Poly1305 => Ok(Box::new(XChaCha(Secret::from_slice(key.expose())?))),
            Self::Aes256Gcm => Ok(Box::new(Gcm(schedule(&AES_256_GCM, key.expose())?))),
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

/// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, 2.3): HChaCha20 makes a key for each message from the first 16
/// bytes of the nonce, and ChaCha20-Poly1305 takes the other 8. AWS-LC has only the latter, several times faster
/// than the pure Rust one on small values.
struct XChaCha(Secret);

impl XChaCha {
    fn message_key(&self, nonce: &[u8]) -> Result<(LessSafeKey, Nonce), BarrierError> {
        let (head, tail) = nonce.split_first_chunk::<16>().ok_or(BarrierError::Cipher)?;
        let mut short = [0; 12];
        *short.last_chunk_mut::<8>().ok_or(BarrierError::Cipher)? =
            tail.try_into().map_err(|_| BarrierError::Cipher)?;
        let mut key = hchacha::<R20>(self.0.expose().into(), head.into());
        let schedule = schedule(&CHACHA20_POLY1305, &key);
        key.zeroize();
        Ok((schedule?, Nonce::assume_unique_for_key(short)))
    }
}

impl Aead for XChaCha {
    fn seal(&self, nonce: &[u8], aad: &[u8], body: &mut [u8]) -> Result<[u8; TAG_SIZE], BarrierError> {
        let (key, nonce) = self.message_key(nonce)?;
        seal(&key, nonce, aad, body)
    }

    fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_SIZE],
    ) -> Result<(), BarrierError> {
        let (key, nonce) = self.message_key(nonce)?;
        open(&key, nonce, aad, body, tag)
    }
}

struct Gcm(LessSafeKey);

impl Aead for Gcm {
    fn seal(&self, nonce: &[u8], aad: &[u8], body: &mut [u8]) -> Result<[u8; TAG_SIZE], BarrierError> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BarrierError::Cipher)?;
        seal(&self.0, nonce, aad, body)
    }

    fn open(
        &self,
        nonce: &[u8],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_SIZE],
    ) -> Result<(), BarrierError> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BarrierError::Cipher)?;
        open(&self.0, nonce, aad, body, tag)
    }
}

fn schedule(algorithm: &'static Algorithm, key: &[u8]) -> Result<LessSafeKey, BarrierError> {
    UnboundKey::new(algorithm, key).map(LessSafeKey::new).map_err(|_| BarrierError::Cipher)
}

fn seal(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    body: &mut [u8],
) -> Result<[u8; TAG_SIZE], BarrierError> {
    let tag =
        key.seal_in_place_separate_tag(nonce, Aad::from(aad), body).map_err(|_| BarrierError::Cipher)?;
    tag.as_ref().try_into().map_err(|_| BarrierError::Cipher)
}

fn open(
    key: &LessSafeKey,
    nonce: Nonce,
    aad: &[u8],
    body: &mut [u8],
    tag: &[u8],
) -> Result<(), BarrierError> {
    key.open_in_place_separate_tag(nonce, Aad::from(aad), tag, body)
        .map(|_| ())
        .map_err(|_| BarrierError::Authentication)
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::aead::{Aead as _, KeyInit, Payload};
    use chacha20poly1305::{XChaCha20Poly1305, XNonce};

    use super::*;

    /// Ours is put together from two libraries; another one must give the same bytes.
    #[test]
    fn xchacha_is_what_others_call_by_that_name() {
        for size in [0, 1, 15, 16, 17, 63, 64, 65, 255, 1024, 5000] {
            let fill = |seed: usize, len: usize| -> Vec<u8> {
                (0..len).map(|at| u8::try_from((at * 31 + seed * 7 + size) % 256).expect("byte")).collect()
            };
            let (key, nonce, aad, plain) = (fill(1, 32), fill(2, 24), fill(3, size / 3), fill(4, size));
            let theirs = XChaCha20Poly1305::new_from_slice(&key)
                .expect("key")
                .encrypt(
                    &XNonce::try_from(nonce.as_slice()).expect("nonce"),
                    Payload { msg: &plain, aad: &aad },
                )
                .expect("sealed");
            let secret = Secret::from_slice(&key).expect("key");
            let ours = Suite::XChaCha20Poly1305.prepare(&secret).expect("cipher");
            let mut body = plain.clone();
            let tag = ours.seal(&nonce, &aad, &mut body).expect("sealed");
            assert_eq!([body.as_slice(), &tag].concat(), theirs, "size {size}");
            ours.open(&nonce, &aad, &mut body, &tag).expect("opened");
            assert_eq!(body, plain, "size {size}");
        }
    }
}
