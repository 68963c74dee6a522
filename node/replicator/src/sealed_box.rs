//! Bytes that only the holder of a private key can read: how an activation token travels to a secondary that named its
//! public key.
//!
//! X25519 with a key pair of the sender's for each message, HKDF-SHA256 over both public keys, AES-256-GCM. The key made
//! so is used once, so its nonce is zero. It says nothing about who sealed it: what is inside has to.

use arca_engine_api::{Entropy, EntropyError};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use zeroize::Zeroizing;

const KEY_SIZE: usize = 32;
const CONTEXT: &[u8] = b"arca 2026-11 replication: activation token for a public key";

/// It could not be sealed or opened.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BoxError {
    #[error("it is not for this key, or was altered")]
    Closed,
    #[error("the source of randomness failed")]
    Entropy,
    #[error("this is no public key")]
    Key,
}

impl From<EntropyError> for BoxError {
    fn from(_: EntropyError) -> Self {
        Self::Entropy
    }
}

/// A key pair. The private half is for storing behind the barrier, and for [`open`].
pub(crate) fn key_pair(entropy: &dyn Entropy) -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), BoxError> {
    let mut private = Zeroizing::new(vec![0; KEY_SIZE]);
    entropy.fill(&mut private)?;
    let public = public_of(&private_key(&private)?)?;
    Ok((private, public))
}

fn private_key(bytes: &[u8]) -> Result<PrivateKey, BoxError> {
    PrivateKey::from_private_key(&X25519, bytes).map_err(|_| BoxError::Key)
}

fn public_of(key: &PrivateKey) -> Result<Vec<u8>, BoxError> {
    key.compute_public_key().map(|key| key.as_ref().to_vec()).map_err(|_| BoxError::Key)
}

/// The key of one message.
fn shared(own: &PrivateKey, other: &[u8], publics: [&[u8]; 2]) -> Result<LessSafeKey, BoxError> {
    let other = UnparsedPublicKey::new(&X25519, other);
    agree(own, other, BoxError::Key, |secret| {
        let prk = Salt::new(HKDF_SHA256, CONTEXT).extract(secret);
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        prk.expand(&publics, &AES_256_GCM)
            .and_then(|okm| okm.fill(key.as_mut_slice()))
            .map_err(|_| BoxError::Key)?;
        UnboundKey::new(&AES_256_GCM, key.as_slice()).map(LessSafeKey::new).map_err(|_| BoxError::Key)
    })
}

/// Seals `plain` for the holder of `public`.
pub(crate) fn seal(public: &[u8], plain: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, BoxError> {
    let (private, mut sealed) = key_pair(entropy)?;
    let key = shared(&private_key(&private)?, public, [&sealed, public])?;
    let mut body = plain.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut body)
        .map_err(|_| BoxError::Closed)?;
    sealed.append(&mut body);
    Ok(sealed)
}

/// Opens what was sealed for the public half of `private`.
pub(crate) fn open(private: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, BoxError> {
    let (sender, body) = sealed.split_at_checked(KEY_SIZE).ok_or(BoxError::Closed)?;
    let private = private_key(private)?;
    let public = public_of(&private)?;
    let key = shared(&private, sender, [sender, &public]).map_err(|_| BoxError::Closed)?;
    let mut body = Zeroizing::new(body.to_vec());
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let size = key.open_in_place(nonce, Aad::empty(), &mut body).map_err(|_| BoxError::Closed)?.len();
    body.truncate(size);
    Ok(body)
}

#[cfg(test)]
mod tests {
    use arca_kernel::testing::SeededEntropy;

    use super::*;

    #[test]
    fn only_the_right_key_opens_it_and_only_unaltered() {
        let entropy = SeededEntropy::default();
        let (private, public) = key_pair(&entropy).unwrap();
        let (other, _) = key_pair(&entropy).unwrap();
        let sealed = seal(&public, b"token", &entropy).unwrap();
        assert_eq!(open(&private, &sealed).unwrap().as_slice(), b"token");
        assert_eq!(open(&other, &sealed), Err(BoxError::Closed));
        for at in [0, 40, sealed.len() - 1] {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert_eq!(open(&private, &altered), Err(BoxError::Closed), "byte {at}");
        }
        assert_eq!(open(&private, b"short"), Err(BoxError::Closed));
        assert_eq!(seal(b"short", b"token", &entropy), Err(BoxError::Key));
        assert_eq!(seal(&[0; 32], b"token", &entropy), Err(BoxError::Key), "a point of small order");
    }
}
