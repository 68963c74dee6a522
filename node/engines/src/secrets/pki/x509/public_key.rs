//! Public keys: what kind they are, and the id by which certificates name them.

use arca_engine_api::EngineError;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::crypto::der::{self, Reader};
use crate::crypto::{Curve, ec, ed25519, rsa_keys};

/// Bits of an RSA modulus that are taken at all: longer ones cost too much to verify with.
const RSA_BITS_MAX: usize = 8_192;

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// ECDSA on a NIST curve.
    Ec(Curve),
    /// Ed25519.
    Ed25519,
    /// RSA with so many bits.
    Rsa(usize),
}

impl Kind {
    /// The name users write.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ec(_) => "ec",
            Self::Ed25519 => "ed25519",
            Self::Rsa(_) => "rsa",
        }
    }

    /// The size as users write it.
    pub(crate) fn bits(self) -> usize {
        match self {
            Self::Ec(Curve::P256) => 256,
            Self::Ec(Curve::P384) => 384,
            Self::Ec(Curve::P521) => 521,
            Self::Ed25519 => 0,
            Self::Rsa(bits) => bits,
        }
    }
}

/// A public key out of a `SubjectPublicKeyInfo`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicKey<'a> {
    /// What kind it is.
    pub(crate) kind: Kind,
    /// The key itself: a point, 32 bytes, or `RSAPublicKey`.
    pub(crate) key: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// Takes it apart. A point off its curve or a modulus nobody can use is no key.
    pub(crate) fn of(spki: &'a [u8]) -> Result<Self, EngineError> {
        let unknown = || EngineError::invalid("the public key is of an unknown type or malformed");
        let mut outer = Reader::new(spki);
        let mut inner = outer.enter(der::SEQUENCE).filter(|_| outer.is_empty()).ok_or_else(unknown)?;
        let algorithm = inner.enter(der::SEQUENCE).ok_or_else(unknown)?;
        let key = inner.bits().filter(|_| inner.is_empty()).ok_or_else(unknown)?;
        if let Some(curve) = ec::curve_of(algorithm) {
            ec::point_in(curve, key).ok_or_else(unknown)?;
            return Ok(Self { kind: Kind::Ec(curve), key });
        }
        if ed25519::is_named(algorithm) {
            ed25519::public_in(key).ok_or_else(unknown)?;
            return Ok(Self { kind: Kind::Ed25519, key });
        }
        let (modulus, exponent) =
            rsa_keys::public_numbers(key).filter(|_| rsa_keys::is_named(algorithm)).ok_or_else(unknown)?;
        let unused = modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        let bits = (modulus.len() * 8).saturating_sub(unused);
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
        if bits > RSA_BITS_MAX || !is_odd(modulus) || !is_odd(exponent) || exponent == [1] {
            return Err(unknown());
        }
        Ok(Self { kind: Kind::Rsa(bits), key })
    }

    /// The id certificates give it: SHA-1 of the key, by RFC 5280's first method. It names a key and proves nothing.
    pub(crate) fn id(&self) -> Vec<u8> {
        digest(&SHA1_FOR_LEGACY_USE_ONLY, self.key).as_ref().to_vec()
    }
}

/// The id of a key that was made or checked before: checking a point costs as much as signing.
pub(crate) fn id_of(spki: &[u8]) -> Option<Vec<u8>> {
    let mut inner = Reader::new(spki).enter(der::SEQUENCE)?;
    inner.element(der::SEQUENCE)?;
    let key = inner.bits()?;
    Some(digest(&SHA1_FOR_LEGACY_USE_ONLY, key).as_ref().to_vec())
}
