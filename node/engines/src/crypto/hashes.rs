//! Hash functions by the names the API knows, and HMAC with any of them.

use aws_lc_rs::{digest, hmac as aws_hmac};
use hmac::{KeyInit as _, Mac as _, SimpleHmac};
use subtle::ConstantTimeEq as _;

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
}

/// What is compiled for a hash function, with its type in RustCrypto's crates as `$digest`.
macro_rules! with_digest {
    ($hash:expr, $digest:ident => $body:expr) => {
        match $hash {
            $crate::crypto::hashes::Hash::Sha1 => {
                type $digest = sha1::Sha1;
                $body
            }
            $crate::crypto::hashes::Hash::Sha224 => {
                type $digest = sha2::Sha224;
                $body
            }
            $crate::crypto::hashes::Hash::Sha256 => {
                type $digest = sha2::Sha256;
                $body
            }
            $crate::crypto::hashes::Hash::Sha384 => {
                type $digest = sha2::Sha384;
                $body
            }
            $crate::crypto::hashes::Hash::Sha512 => {
                type $digest = sha2::Sha512;
                $body
            }
            $crate::crypto::hashes::Hash::Sha3_224 => {
                type $digest = sha3::Sha3_224;
                $body
            }
            $crate::crypto::hashes::Hash::Sha3_256 => {
                type $digest = sha3::Sha3_256;
                $body
            }
            $crate::crypto::hashes::Hash::Sha3_384 => {
                type $digest = sha3::Sha3_384;
                $body
            }
            $crate::crypto::hashes::Hash::Sha3_512 => {
                type $digest = sha3::Sha3_512;
                $body
            }
        }
    };
}
pub(crate) use with_digest;

impl Hash {
    /// By the name used when signing and authenticating.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "sha1" => Some(Self::Sha1),
            "sha2-224" => Some(Self::Sha224),
            "sha2-256" => Some(Self::Sha256),
            "sha2-384" => Some(Self::Sha384),
            "sha2-512" => Some(Self::Sha512),
            "sha3-224" => Some(Self::Sha3_224),
            "sha3-256" => Some(Self::Sha3_256),
            "sha3-384" => Some(Self::Sha3_384),
            "sha3-512" => Some(Self::Sha3_512),
            _ => None,
        }
    }

    /// Bytes of a digest.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha224 | Self::Sha3_224 => 28,
            Self::Sha256 | Self::Sha3_256 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Sha3_512 => 64,
        }
    }

    /// The digest of `data`.
    pub(crate) fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => &digest::SHA224,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
            Self::Sha3_256 => &digest::SHA3_256,
            Self::Sha3_384 => &digest::SHA3_384,
            Self::Sha3_512 => &digest::SHA3_512,
            Self::Sha3_224 => return <sha3::Sha3_224 as sha3::Digest>::digest(data).to_vec(),
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    /// The HMAC of `data`.
    pub(crate) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => aws_hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha224 => aws_hmac::HMAC_SHA224,
            Self::Sha256 => aws_hmac::HMAC_SHA256,
            Self::Sha384 => aws_hmac::HMAC_SHA384,
            Self::Sha512 => aws_hmac::HMAC_SHA512,
            Self::Sha3_224 | Self::Sha3_256 | Self::Sha3_384 | Self::Sha3_512 => {
                return self.slow_hmac(key, data);
            }
        };
        aws_hmac::sign(&aws_hmac::Key::new(algorithm, key), data).as_ref().to_vec()
    }

    /// By RustCrypto, for the functions that AWS-LC has no HMAC with.
    fn slow_hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        with_digest!(self, D => {
            // A key of any length will do.
            let mac = SimpleHmac::<D>::new_from_slice(key).map(|mac| mac.chain_update(data).finalize());
            mac.map_or_else(|_| Vec::new(), |tag| tag.into_bytes().to_vec())
        })
    }

    /// Whether `tag` is the HMAC of `data`, in time that does not depend on where it differs.
    pub(crate) fn verifies(self, key: &[u8], data: &[u8], tag: &[u8]) -> bool {
        let made = self.hmac(key, data);
        !made.is_empty() && bool::from(made.ct_eq(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Hash; 9] = [
        Hash::Sha1,
        Hash::Sha224,
        Hash::Sha256,
        Hash::Sha384,
        Hash::Sha512,
        Hash::Sha3_224,
        Hash::Sha3_256,
        Hash::Sha3_384,
        Hash::Sha3_512,
    ];

    #[test]
    fn both_libraries_agree() {
        for hash in ALL {
            for key in [&b""[..], b"key", &[7; 200]] {
                assert_eq!(hash.hmac(key, b"data"), hash.slow_hmac(key, b"data"), "{hash:?}");
            }
            assert_eq!(hash.digest(b"data").len(), hash.len(), "{hash:?}");
            let made = hash.hmac(b"key", b"data");
            assert!(hash.verifies(b"key", b"data", &made) && !hash.verifies(b"key", b"date", &made));
            assert!(!hash.verifies(b"key", b"data", b""), "{hash:?}");
        }
    }
}
