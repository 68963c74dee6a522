//! Encryption with one secret: the nonce, then what the cipher makes.
//!
//! **Invariant:** no caller chooses a nonce. It is random, or, for convergent keys, made of everything that is
//! authenticated under a key that only this mount has, so equal plaintexts show, and nothing else does. One nonce for
//! two messages that differ in anything, associated data included, would give away what authenticates them all.

use arca_engine_api::{EngineError, Entropy};
use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::hashes::Hash;
use super::kind::Cipher;

/// Bytes of each key that convergent nonces are made under.
const NONCE_KEY_LEN: usize = 32;
/// Bytes of both: for plaintexts alone, as others have it, and for those with associated data.
pub(super) const CONVERGENT_KEYS_LEN: usize = 2 * NONCE_KEY_LEN;

/// Where a nonce comes from.
pub(super) enum NonceOf<'a> {
    /// From what is encrypted and authenticated, under one of these keys.
    Content(&'a [u8]),
    /// From the random source.
    Random(&'a dyn Entropy),
}

fn broken<T>(_: T) -> EngineError {
    EngineError::Bug("a cipher refused its key or nonce".to_owned())
}

fn algorithm(cipher: Cipher) -> Option<&'static Algorithm> {
    match cipher {
        Cipher::Aes128Gcm => Some(&AES_128_GCM),
        Cipher::Aes256Gcm => Some(&AES_256_GCM),
        Cipher::ChaCha20Poly1305 => Some(&CHACHA20_POLY1305),
        Cipher::XChaCha20Poly1305 => None,
    }
}

/// What a convergent nonce is the start of. Associated data has a key of its own, so that no plaintext without any can
/// be made to collide with the two put together.
fn content_mac(keys: &[u8], plaintext: &[u8], aad: &[u8]) -> Result<Vec<u8>, EngineError> {
    let (alone, together) = keys
        .split_at_checked(NONCE_KEY_LEN)
        .filter(|(_, other)| !other.is_empty())
        .ok_or_else(|| broken(()))?;
    if aad.is_empty() {
        return Ok(Hash::Sha256.hmac(alone, plaintext));
    }
    let len = u64::try_from(aad.len()).map_err(broken)?.to_be_bytes();
    Ok(Hash::Sha256.hmac(together, &Zeroizing::new([&len, aad, plaintext].concat())))
}

/// Encrypts.
pub(super) fn seal(
    cipher: Cipher,
    key: &[u8],
    nonce_of: &NonceOf<'_>,
    plaintext: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, EngineError> {
    let len = cipher.nonce_len();
    let nonce = match nonce_of {
        NonceOf::Content(keys) => {
            let mut nonce = content_mac(keys, plaintext, aad)?;
            nonce.truncate(len);
            nonce
        }
        NonceOf::Random(entropy) => {
            let mut nonce = vec![0; len];
            entropy.fill(&mut nonce)?;
            nonce
        }
    };
    let Some(algorithm) = algorithm(cipher) else {
        let cipher = XChaCha20Poly1305::new_from_slice(key).map_err(broken)?;
        let x_nonce = XNonce::try_from(nonce.as_slice()).map_err(broken)?;
        let sealed = cipher.encrypt(&x_nonce, Payload { msg: plaintext, aad }).map_err(broken)?;
        return Ok([nonce, sealed].concat());
    };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(broken)?);
    let unique = Nonce::try_assume_unique_for_key(&nonce).map_err(broken)?;
    // Encrypted where it is answered from: the plaintext is in no other buffer.
    let mut out = Vec::with_capacity(len + plaintext.len() + algorithm.tag_len());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(plaintext);
    let body = out.get_mut(len..).ok_or_else(|| broken(()))?;
    let tag = key.seal_in_place_separate_tag(unique, Aad::from(aad), body).map_err(broken)?;
    out.extend_from_slice(tag.as_ref());
    Ok(out)
}

/// Decrypts what [`seal`] made.
pub(super) fn open(
    cipher: Cipher,
    key: &[u8],
    sealed: &[u8],
    aad: &[u8],
) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let forged = || EngineError::invalid("cipher: message authentication failed");
    let (nonce, body) = sealed
        .split_at_checked(cipher.nonce_len())
        .ok_or_else(|| EngineError::invalid("invalid ciphertext length"))?;
    let Some(algorithm) = algorithm(cipher) else {
        let cipher = XChaCha20Poly1305::new_from_slice(key).map_err(broken)?;
        let nonce = XNonce::try_from(nonce).map_err(broken)?;
        return cipher.decrypt(&nonce, Payload { msg: body, aad }).map(Zeroizing::new).map_err(|_| forged());
    };
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).map_err(broken)?);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(broken)?;
    let mut plain = Zeroizing::new(body.to_vec());
    let len = key.open_in_place(nonce, Aad::from(aad), &mut plain).map_err(|_| forged())?.len();
    plain.truncate(len);
    Ok(plain)
}

/// A length to derive.
struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// A key for `context` alone, of `len` bytes: HKDF with SHA-256, no salt.
pub(super) fn derive(secret: &[u8], context: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let mut out = Zeroizing::new(vec![0; len]);
    hkdf::Salt::none(hkdf::HKDF_SHA256)
        .extract(secret)
        .expand(&[context], Len(len))
        .and_then(|derived| derived.fill(&mut out))
        .map_err(|_| EngineError::Bug("a key could not be derived".to_owned()))?;
    Ok(out)
}

/// A key for `context` alone, of `len` bytes, 32 at most: the first block of HMAC-SHA-256 in counter mode, NIST SP 800-108 section
/// 4.1, with the counter before the context and 256 bits as the length asked for. The counter begins at zero, where the
/// standard begins at one, as it did in Vault.
pub(super) fn derive_by_counter(
    secret: &[u8],
    context: &[u8],
    len: usize,
) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let input = [&0_u32.to_be_bytes(), context, &256_u32.to_be_bytes()].concat();
    let block = Zeroizing::new(Hash::Sha256.hmac(secret, &input));
    let key =
        block.get(..len).ok_or_else(|| EngineError::Bug("too long a key was to be derived".to_owned()))?;
    Ok(Zeroizing::new(key.to_vec()))
}
