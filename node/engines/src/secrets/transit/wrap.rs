//! Keys on their way from one place to another: wrapped by AES with padding (RFC 5649) under a key of the moment, which
//! is encrypted to an RSA key by OAEP and stands before it.

use arca_engine_api::{EngineError, Entropy};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded as _};
use zeroize::Zeroizing;

use super::generate;
use super::rsa_keys::Oaep;

/// Bytes of the key of the moment.
const EPHEMERAL_LEN: usize = 32;

fn bug<T>(_: T) -> EngineError {
    EngineError::Bug("AES key wrap failed".to_owned())
}

/// Wraps a key.
pub(super) fn wrap(
    hash: Oaep,
    public: &[u8],
    secret: &[u8],
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, EngineError> {
    let ephemeral = generate::bytes(entropy, EPHEMERAL_LEN)?;
    let mut wrapped = hash.encrypt(public, &ephemeral, entropy)?.ok_or_else(|| bug(()))?;
    let mut room = vec![0; secret.len() + 16];
    let kek = AesKek::new(&AES_256, &ephemeral).map_err(bug)?;
    wrapped.extend_from_slice(kek.wrap_with_padding(secret, &mut room).map_err(bug)?);
    Ok(wrapped)
}

/// Unwraps a key: `private` is the RSA key, `at` the length of what it encrypts.
pub(super) fn unwrap(
    hash: Oaep,
    private: &[u8],
    at: usize,
    wrapped: &[u8],
    entropy: &dyn Entropy,
) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let (ephemeral, secret) = wrapped
        .split_at_checked(at)
        .filter(|(_, secret)| !secret.is_empty())
        .ok_or_else(|| EngineError::invalid("provided ciphertext is too short"))?;
    let ephemeral = hash.decrypt(private, ephemeral, entropy)?;
    let ephemeral =
        ephemeral.ok_or_else(|| EngineError::invalid("the wrapped AES key cannot be decrypted"))?;
    if ephemeral.len() != EPHEMERAL_LEN {
        return Err(EngineError::invalid("expected ephemeral AES key to be 256-bit"));
    }
    let mut room = Zeroizing::new(vec![0; secret.len()]);
    let kek = AesKek::new(&AES_256, &ephemeral).map_err(bug)?;
    let len = kek
        .unwrap_with_padding(secret, &mut room)
        .map_err(|_| EngineError::invalid("the wrapped key cannot be unwrapped"))?
        .len();
    room.truncate(len);
    Ok(room)
}
