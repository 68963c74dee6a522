//! What several engines compute with: keys of three families, the hash functions, and enough DER to write them.
//! **Invariant:** nothing here knows an engine, keeps state or stores anything. Read next: [`der`], then [`ec`].

pub(crate) mod der;
pub(crate) mod ec;
pub(crate) mod ed25519;
pub(crate) mod hashes;
pub(crate) mod rsa_keys;

/// A curve of NIST's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

/// The size of an RSA key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modulus {
    /// 2048 bits.
    B2048,
    /// 3072 bits.
    B3072,
    /// 4096 bits.
    B4096,
}

impl Curve {
    /// The name of the curve, as shown with its public keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate and of a private scalar.
    pub(crate) fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl Modulus {
    pub(crate) fn byte_len(self) -> usize {
        match self {
            Self::B2048 => 256,
            Self::B3072 => 384,
            Self::B4096 => 512,
        }
    }
}
