//! Ed25519 keys. A private key is its seed and its public key, 64 bytes, as Go keeps it: derived keys come out of all of
//! them, so what others derive of a key is derived of it here.

use arca_engine_api::{EngineError, Entropy};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::der::{self, Reader};

/// Bytes of a seed, and of a public key.
const LEN: usize = 32;

const OID: &[u8] = &[0x2b, 0x65, 0x70];
/// Mozilla's name for it, found inside elliptic-curve keys.
const NSS_OID: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01];

fn pair(seed: &[u8]) -> Result<Ed25519KeyPair, EngineError> {
    Ed25519KeyPair::from_seed_unchecked(seed)
        .map_err(|_| EngineError::Bug("an Ed25519 seed has the wrong length".to_owned()))
}

/// Seed and public key of a seed.
pub(crate) fn from_seed(seed: &[u8]) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let public = pair(seed)?;
    let mut whole = Zeroizing::new(Vec::with_capacity(2 * LEN));
    whole.extend_from_slice(seed);
    whole.extend_from_slice(public.public_key().as_ref());
    Ok(whole)
}

/// A new key.
pub(crate) fn generate(entropy: &dyn Entropy) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let mut seed = Zeroizing::new(vec![0; LEN]);
    entropy.fill(&mut seed)?;
    from_seed(&seed)
}

/// The halves of a private key.
pub(crate) fn halves(private: &[u8]) -> Result<(&[u8], &[u8]), EngineError> {
    private
        .split_at_checked(LEN)
        .ok_or_else(|| EngineError::Bug("an Ed25519 key has the wrong length".to_owned()))
}

/// Signs.
pub(crate) fn sign(private: &[u8], message: &[u8]) -> Result<Vec<u8>, EngineError> {
    let (seed, _) = halves(private)?;
    Ok(pair(seed)?.sign(message).as_ref().to_vec())
}

/// Whether `signature` is one of the message.
pub(crate) fn verify(public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

fn algorithm() -> Zeroizing<Vec<u8>> {
    der::write(der::SEQUENCE, &[&der::write(der::OID, &[OID])])
}

/// `PrivateKeyInfo`.
pub(crate) fn pkcs8(private: &[u8]) -> Result<Zeroizing<Vec<u8>>, EngineError> {
    let (seed, _) = halves(private)?;
    let inner = der::write(der::OCTET_STRING, &[&der::write(der::OCTET_STRING, &[seed])]);
    Ok(der::write(der::SEQUENCE, &[&der::write_unsigned(&[0]), &algorithm(), &inner]))
}

/// `SubjectPublicKeyInfo`.
pub(crate) fn spki(public: &[u8]) -> Vec<u8> {
    der::write(der::SEQUENCE, &[&algorithm(), &der::write_bits(public)]).to_vec()
}

/// Whether an algorithm is this one.
pub(crate) fn is_named(mut algorithm: Reader<'_>) -> bool {
    algorithm.take(der::OID) == Some(OID)
}

/// Whether an algorithm is an elliptic-curve key of this curve, as some write it.
pub(crate) fn is_named_as_curve(mut algorithm: Reader<'_>) -> bool {
    algorithm.take(der::OID).is_some()
        && algorithm.take(der::OID).is_some_and(|oid| oid == OID || oid == NSS_OID)
}

/// A public key, if it has the length of one.
pub(crate) fn public_in(bytes: &[u8]) -> Option<Vec<u8>> {
    (bytes.len() == LEN).then(|| bytes.to_vec())
}
