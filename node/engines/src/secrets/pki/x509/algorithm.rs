//! Signature algorithms: by name, in DER, and verified. SHA-1 and MD5 are not among them, whoever asks.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    UnparsedPublicKey, VerificationAlgorithm,
};

use super::public_key::{Kind, PublicKey};
use crate::crypto::hashes::Hash;
use crate::crypto::{Curve, der};

/// How something is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// ECDSA over a digest.
    Ecdsa(Hash),
    /// Ed25519, which hashes for itself.
    Ed25519,
    /// RSA with PKCS#1 v1.5.
    Pkcs1(Hash),
    /// RSA with PSS, the salt as long as the digest.
    Pss(Hash),
}

const ALL: [(Algorithm, &str); 10] = [
    (Algorithm::Ecdsa(Hash::Sha256), "ECDSAWithSHA256"),
    (Algorithm::Ecdsa(Hash::Sha384), "ECDSAWithSHA384"),
    (Algorithm::Ecdsa(Hash::Sha512), "ECDSAWithSHA512"),
    (Algorithm::Ed25519, "Ed25519"),
    (Algorithm::Pkcs1(Hash::Sha256), "SHA256WithRSA"),
    (Algorithm::Pkcs1(Hash::Sha384), "SHA384WithRSA"),
    (Algorithm::Pkcs1(Hash::Sha512), "SHA512WithRSA"),
    (Algorithm::Pss(Hash::Sha256), "SHA256WithRSAPSS"),
    (Algorithm::Pss(Hash::Sha384), "SHA384WithRSAPSS"),
    (Algorithm::Pss(Hash::Sha512), "SHA512WithRSAPSS"),
];

const ECDSA_WITH: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
const PKCS1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ED25519_OID: &[u8] = &[0x2b, 0x65, 0x70];
const NIST_HASH: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

fn null() -> Vec<u8> {
    der::write(der::NULL, &[]).to_vec()
}

fn oid(prefix: &[u8], last: u8) -> Vec<u8> {
    der::write(der::OID, &[prefix, &[last]]).to_vec()
}

impl Algorithm {
    /// How a key signs: an ECDSA key with the hash function of its curve's size, RSA as asked, SHA-256 unless said.
    pub(crate) fn of(kind: Kind, signature_bits: i64, is_pss: bool) -> Self {
        let asked = match signature_bits {
            384 => Hash::Sha384,
            512 => Hash::Sha512,
            _ => Hash::Sha256,
        };
        match kind {
            Kind::Ec(Curve::P256) => Self::Ecdsa(Hash::Sha256),
            Kind::Ec(Curve::P384) => Self::Ecdsa(Hash::Sha384),
            Kind::Ec(Curve::P521) => Self::Ecdsa(Hash::Sha512),
            Kind::Ed25519 => Self::Ed25519,
            Kind::Rsa(_) if is_pss => Self::Pss(asked),
            Kind::Rsa(_) => Self::Pkcs1(asked),
        }
    }

    /// The name users write.
    pub(crate) fn name(self) -> &'static str {
        ALL.iter().find(|(algorithm, _)| *algorithm == self).map_or("", |(_, name)| name)
    }

    /// By the name users write, in any case.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(algorithm, _)| *algorithm)
    }

    /// Whether a key of that kind can sign so.
    pub(crate) fn fits(self, kind: Kind) -> bool {
        matches!(
            (self, kind),
            (Self::Ecdsa(_), Kind::Ec(_))
                | (Self::Ed25519, Kind::Ed25519)
                | (Self::Pkcs1(_) | Self::Pss(_), Kind::Rsa(_))
        )
    }

    /// `AlgorithmIdentifier`.
    pub(crate) fn encode(self) -> Vec<u8> {
        let last = |hash, [sha256, sha384, sha512]: [u8; 3]| match hash {
            Hash::Sha384 => sha384,
            Hash::Sha512 => sha512,
            _ => sha256,
        };
        let parts = match self {
            Self::Ecdsa(hash) => vec![oid(ECDSA_WITH, last(hash, [2, 3, 4]))],
            Self::Ed25519 => vec![der::write(der::OID, &[ED25519_OID]).to_vec()],
            Self::Pkcs1(hash) => vec![oid(PKCS1, last(hash, [11, 12, 13])), null()],
            Self::Pss(hash) => {
                let digest = der::write(der::SEQUENCE, &[&oid(NIST_HASH, last(hash, [1, 2, 3])), &null()]);
                let masks = der::write(der::SEQUENCE, &[&oid(PKCS1, 8), &digest]);
                let salt = u8::try_from(hash.len()).unwrap_or_default();
                let parameters = der::write(
                    der::SEQUENCE,
                    &[
                        &der::write(der::EXPLICIT_0, &[&digest]),
                        &der::write(der::EXPLICIT_1, &[&masks]),
                        &der::write(0xa2, &[&der::write_unsigned(&[salt])]),
                    ],
                );
                vec![oid(PKCS1, 10), parameters.to_vec()]
            }
        };
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        der::write(der::SEQUENCE, &parts).to_vec()
    }

    /// The algorithm of an `AlgorithmIdentifier`, if it is written exactly as here.
    pub(crate) fn decode(encoded: &[u8]) -> Option<Self> {
        ALL.iter().map(|(algorithm, _)| *algorithm).find(|algorithm| algorithm.encode() == encoded)
    }

    /// Whether `signature` is one of the message by the key.
    pub(crate) fn verifies(self, key: &PublicKey<'_>, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match (self, key.kind) {
            (Self::Ecdsa(Hash::Sha256), Kind::Ec(Curve::P256)) => &ECDSA_P256_SHA256_ASN1,
            (Self::Ecdsa(Hash::Sha384), Kind::Ec(Curve::P256)) => &ECDSA_P256_SHA384_ASN1,
            (Self::Ecdsa(Hash::Sha512), Kind::Ec(Curve::P256)) => &ECDSA_P256_SHA512_ASN1,
            (Self::Ecdsa(Hash::Sha256), Kind::Ec(Curve::P384)) => &ECDSA_P384_SHA256_ASN1,
            (Self::Ecdsa(Hash::Sha384), Kind::Ec(Curve::P384)) => &ECDSA_P384_SHA384_ASN1,
            (Self::Ecdsa(Hash::Sha512), Kind::Ec(Curve::P384)) => &ECDSA_P384_SHA512_ASN1,
            (Self::Ecdsa(Hash::Sha256), Kind::Ec(Curve::P521)) => &ECDSA_P521_SHA256_ASN1,
            (Self::Ecdsa(Hash::Sha384), Kind::Ec(Curve::P521)) => &ECDSA_P521_SHA384_ASN1,
            (Self::Ecdsa(Hash::Sha512), Kind::Ec(Curve::P521)) => &ECDSA_P521_SHA512_ASN1,
            (Self::Ed25519, Kind::Ed25519) => &ED25519,
            (Self::Pkcs1(Hash::Sha256), Kind::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA256,
            (Self::Pkcs1(Hash::Sha384), Kind::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA384,
            (Self::Pkcs1(Hash::Sha512), Kind::Rsa(_)) => &RSA_PKCS1_2048_8192_SHA512,
            (Self::Pss(Hash::Sha256), Kind::Rsa(_)) => &RSA_PSS_2048_8192_SHA256,
            (Self::Pss(Hash::Sha384), Kind::Rsa(_)) => &RSA_PSS_2048_8192_SHA384,
            (Self::Pss(Hash::Sha512), Kind::Rsa(_)) => &RSA_PSS_2048_8192_SHA512,
            _ => return false,
        };
        UnparsedPublicKey::new(algorithm, key.key).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_encodings_lead_back() {
        for (algorithm, name) in ALL {
            assert_eq!(Algorithm::named(&name.to_lowercase()), Some(algorithm));
            assert_eq!(Algorithm::decode(&algorithm.encode()), Some(algorithm));
            assert_eq!(algorithm.name(), name);
        }
        // SHA-1 with RSA.
        let weak = der::write(der::SEQUENCE, &[&oid(PKCS1, 5), &null()]);
        assert_eq!((Algorithm::decode(&weak), Algorithm::named("SHA1WithRSA")), (None, None));
    }
}
