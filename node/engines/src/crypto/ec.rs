//! ECDSA keys: made, taken apart, written as others read them, and used.
//!
//! A private key is its scalar in as many bytes as the field has, a public key its point, uncompressed. A signature is
//! `r` and `s` in as many bytes each; DER is a matter of [`to_der`] and [`from_der`].

use arca_engine_api::{EngineError, Entropy};
use aws_lc_rs::agreement::{
    self, ECDH_P256, ECDH_P384, ECDH_P521, PrivateKey, UnparsedPublicKey as UnparsedAgreementKey,
};
use aws_lc_rs::digest::{Algorithm, Digest, SHA256, SHA384, SHA512};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};
use zeroize::Zeroizing;

use super::Curve;
use super::der::{self, Reader};

/// Scalars drawn before giving up; each is refused with a chance of less than one half.
const DRAWS_MAX: u32 = 128;

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

fn oid(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::P256 => &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        Curve::P384 => &[0x2b, 0x81, 0x04, 0x00, 0x22],
        Curve::P521 => &[0x2b, 0x81, 0x04, 0x00, 0x23],
    }
}

fn named(oid_found: &[u8]) -> Option<Curve> {
    [Curve::P256, Curve::P384, Curve::P521].into_iter().find(|curve| oid(*curve) == oid_found)
}

fn agreement(curve: Curve) -> &'static agreement::Algorithm {
    match curve {
        Curve::P256 => &ECDH_P256,
        Curve::P384 => &ECDH_P384,
        Curve::P521 => &ECDH_P521,
    }
}

fn signing(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

fn verifying(curve: Curve) -> &'static EcdsaVerificationAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED,
    }
}

/// A scalar with its point.
pub(crate) struct Pair {
    pub(crate) scalar: Zeroizing<Vec<u8>>,
    pub(crate) point: Vec<u8>,
}

impl Pair {
    /// The pair of a scalar, if it is one of the curve.
    pub(crate) fn of(curve: Curve, scalar: &[u8]) -> Option<Self> {
        let scalar = der::padded(scalar, curve.field_len())?;
        let key = PrivateKey::from_private_key(agreement(curve), &scalar).ok()?;
        let point = key.compute_public_key().ok()?.as_ref().to_vec();
        Some(Self { scalar, point })
    }

    /// A new one.
    pub(crate) fn generate(curve: Curve, entropy: &dyn Entropy) -> Result<Self, EngineError> {
        let mut scalar = Zeroizing::new(vec![0; curve.field_len()]);
        for _ in 0..DRAWS_MAX {
            entropy.fill(&mut scalar)?;
            // The field of P-521 has one bit in its first byte.
            if let (Curve::P521, Some(first)) = (curve, scalar.first_mut()) {
                *first &= 1;
            }
            if let Some(pair) = Self::of(curve, &scalar) {
                return Ok(pair);
            }
        }
        Err(EngineError::Bug("the random source gives no scalar of the curve".to_owned()))
    }
}

/// What the owner of a scalar and the owner of the scalar behind a point both can compute: the first coordinate of the
/// two multiplied. `None` if the point is none of the curve.
pub(crate) fn agree(
    curve: Curve,
    scalar: &[u8],
    peer: &[u8],
) -> Result<Option<Zeroizing<Vec<u8>>>, EngineError> {
    let algorithm = agreement(curve);
    let key = PrivateKey::from_private_key(algorithm, scalar)
        .map_err(|_| EngineError::Bug("a stored ECDSA key is no key".to_owned()))?;
    let peer = UnparsedAgreementKey::new(algorithm, peer);
    Ok(agreement::agree(&key, peer, (), |shared| Ok(Zeroizing::new(shared.to_vec()))).ok())
}

/// A digest as the curve takes it: its leftmost bits, or all of them behind zeros. The name of the hash function means
/// nothing for ECDSA, so this is the same signature whatever function made the digest.
fn digest_for(curve: Curve, digest: &[u8]) -> Result<Digest, EngineError> {
    let (algorithm, len): (&'static Algorithm, usize) = match curve {
        Curve::P256 => (&SHA256, 32),
        Curve::P384 => (&SHA384, 48),
        Curve::P521 => (&SHA512, 64),
    };
    let taken = match curve {
        Curve::P521 if digest.len() > len => {
            return Err(EngineError::invalid("the prehashed input is longer than 64 bytes"));
        }
        _ => digest.get(..len).unwrap_or(digest),
    };
    let mut whole = vec![0; len - taken.len()];
    whole.extend_from_slice(taken);
    Digest::import_less_safe(&whole, algorithm)
        .map_err(|_| EngineError::Bug("a digest has the wrong length".to_owned()))
}

/// A private key made ready to sign many times.
pub(crate) struct Signer {
    curve: Curve,
    pair: EcdsaKeyPair,
}

impl Signer {
    pub(crate) fn of(curve: Curve, scalar: &[u8], point: &[u8]) -> Result<Self, EngineError> {
        let pair = EcdsaKeyPair::from_private_key_and_public_key(signing(curve), scalar, point)
            .map_err(|_| EngineError::Bug("a stored ECDSA key is no key".to_owned()))?;
        Ok(Self { curve, pair })
    }

    /// Signs a digest.
    pub(crate) fn sign(&self, digest: &[u8]) -> Result<Vec<u8>, EngineError> {
        let digest = digest_for(self.curve, digest)?;
        let signature =
            self.pair.sign_digest(&digest).map_err(|_| EngineError::Bug("ECDSA failed".to_owned()))?;
        Ok(signature.as_ref().to_vec())
    }
}

/// Signs a digest.
pub(crate) fn sign(curve: Curve, scalar: &[u8], point: &[u8], digest: &[u8]) -> Result<Vec<u8>, EngineError> {
    digest_for(curve, digest)?;
    Signer::of(curve, scalar, point)?.sign(digest)
}

/// Whether `signature` is one of the digest.
pub(crate) fn verify(
    curve: Curve,
    point: &[u8],
    digest: &[u8],
    signature: &[u8],
) -> Result<bool, EngineError> {
    let digest = digest_for(curve, digest)?;
    Ok(UnparsedPublicKey::new(verifying(curve), point).verify_digest(&digest, signature).is_ok())
}

/// A signature in DER.
pub(crate) fn to_der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    der::write(der::SEQUENCE, &[&der::write_unsigned(r), &der::write_unsigned(s)]).to_vec()
}

/// A signature out of DER. `None` inside when it is well-formed, but too large to be any signature of the curve.
pub(crate) fn from_der(curve: Curve, bytes: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
    let invalid = || EngineError::invalid("supplied signature is invalid");
    let mut outer = Reader::new(bytes);
    let mut inner = outer.enter(der::SEQUENCE).ok_or_else(invalid)?;
    if !outer.is_empty() {
        return Err(EngineError::invalid("supplied signature contains extra data"));
    }
    let (r, s) = (inner.unsigned().ok_or_else(invalid)?, inner.unsigned().ok_or_else(invalid)?);
    if !inner.is_empty() {
        return Err(invalid());
    }
    Ok(joined(curve, r, s))
}

/// A signature out of two halves of any length.
pub(crate) fn from_halves(curve: Curve, bytes: &[u8]) -> Option<Vec<u8>> {
    let (r, s) = bytes.split_at(bytes.len() / 2);
    joined(curve, r, s)
}

fn joined(curve: Curve, r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let len = curve.field_len();
    Some([der::padded(r, len)?.as_slice(), der::padded(s, len)?.as_slice()].concat())
}

fn algorithm(curve: Curve) -> Zeroizing<Vec<u8>> {
    der::write(
        der::SEQUENCE,
        &[&der::write(der::OID, &[EC_PUBLIC_KEY]), &der::write(der::OID, &[oid(curve)])],
    )
}

fn private_key(curve: Option<Curve>, pair: &Pair) -> Zeroizing<Vec<u8>> {
    let named = curve.map(|curve| der::write(der::EXPLICIT_0, &[&der::write(der::OID, &[oid(curve)])]));
    let point = der::write(der::EXPLICIT_1, &[&der::write_bits(&pair.point)]);
    let scalar = der::write(der::OCTET_STRING, &[&pair.scalar]);
    let named = named.as_ref().map_or(&[][..], |named| named.as_slice());
    der::write(der::SEQUENCE, &[&der::write_unsigned(&[1]), &scalar, named, &point])
}

/// `ECPrivateKey` of SEC 1.
pub(crate) fn sec1(curve: Curve, pair: &Pair) -> Zeroizing<Vec<u8>> {
    private_key(Some(curve), pair)
}

/// `PrivateKeyInfo`.
pub(crate) fn pkcs8(curve: Curve, pair: &Pair) -> Zeroizing<Vec<u8>> {
    let inner = der::write(der::OCTET_STRING, &[&private_key(None, pair)]);
    der::write(der::SEQUENCE, &[&der::write_unsigned(&[0]), &algorithm(curve), &inner])
}

/// `SubjectPublicKeyInfo`.
pub(crate) fn spki(curve: Curve, point: &[u8]) -> Vec<u8> {
    der::write(der::SEQUENCE, &[&algorithm(curve), &der::write_bits(point)]).to_vec()
}

/// The curve an algorithm names, if it is that of an ECDSA key.
pub(crate) fn curve_of(algorithm: Reader<'_>) -> Option<Curve> {
    let mut algorithm = algorithm;
    (algorithm.take(der::OID)? == EC_PUBLIC_KEY).then_some(())?;
    named(algorithm.take(der::OID)?)
}

/// The curve an `ECPrivateKey` names in itself.
pub(crate) fn curve_in(private_key: &[u8]) -> Option<Curve> {
    let mut inner = Reader::new(private_key).enter(der::SEQUENCE)?;
    inner.unsigned()?;
    inner.take(der::OCTET_STRING)?;
    named(inner.enter(der::EXPLICIT_0)?.take(der::OID)?)
}

/// The scalar in an `ECPrivateKey`.
pub(crate) fn scalar_in(private_key: &[u8]) -> Option<&[u8]> {
    let mut inner = Reader::new(private_key).enter(der::SEQUENCE)?;
    (inner.unsigned()? == [1]).then_some(())?;
    inner.take(der::OCTET_STRING)
}

/// The point, if it is one of the curve, uncompressed.
pub(crate) fn point_in(curve: Curve, bytes: &[u8]) -> Option<Vec<u8>> {
    let is_uncompressed = bytes.first() == Some(&4) && bytes.len() == 2 * curve.field_len() + 1;
    (is_uncompressed && UnparsedPublicKey::new(verifying(curve), bytes).parse().is_ok())
        .then(|| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_any_length_are_taken() {
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            let pair = Pair::of(curve, &[3]).unwrap();
            for len in [0, 20, 28, 32, 48, 64] {
                let digest = vec![0xab; len];
                let made = sign(curve, &pair.scalar, &pair.point, &digest).unwrap();
                assert_eq!(made.len(), 2 * curve.field_len());
                assert!(verify(curve, &pair.point, &digest, &made).unwrap(), "{curve:?} {len}");
                assert!(!verify(curve, &pair.point, &[0xac; 20], &made).unwrap(), "{curve:?} {len}");
                assert_eq!(from_der(curve, &to_der(&made)).unwrap().unwrap(), made);
            }
        }
        assert!(sign(Curve::P521, &[], &[], &[1; 65]).is_err());
    }

    #[test]
    fn scalars_and_points_off_the_curve_are_refused() {
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            let len = curve.field_len();
            assert!(Pair::of(curve, &[0]).is_none() && Pair::of(curve, &vec![0xff; len]).is_none());
            assert!(Pair::of(curve, &vec![1; len + 1]).is_none());
            let mut point = Pair::of(curve, &[3]).unwrap().point;
            assert!(point_in(curve, &point).is_some());
            *point.last_mut().unwrap() ^= 1;
            assert!(point_in(curve, &point).is_none() && point_in(curve, &[]).is_none());
        }
    }
}
