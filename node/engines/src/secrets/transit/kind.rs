//! What a key can be: its type by name, and what each type can do.

use serde::{Deserialize, Serialize};

pub(super) use crate::crypto::{Curve, Modulus};

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub(super) enum Kind {
    /// Encrypts and decrypts with one secret.
    Aead(Cipher),
    /// ECDSA on a NIST curve.
    Ec(Curve),
    /// Ed25519.
    Ed25519,
    /// Authenticates only.
    Hmac,
    /// RSA: encrypts by OAEP, signs by PSS or PKCS#1 v1.5.
    Rsa(Modulus),
}

/// A cipher that also authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cipher {
    /// AES-128-GCM with 96-bit nonces.
    Aes128Gcm,
    /// AES-256-GCM with 96-bit nonces.
    Aes256Gcm,
    /// ChaCha20-Poly1305 with 96-bit nonces.
    ChaCha20Poly1305,
    /// XChaCha20-Poly1305 with 192-bit nonces.
    XChaCha20Poly1305,
}

/// Every type with its name, and its number in a backup.
const KINDS: &[(Kind, &str, u64)] = &[
    (Kind::Aead(Cipher::Aes256Gcm), "aes256-gcm96", 0),
    (Kind::Ec(Curve::P256), "ecdsa-p256", 1),
    (Kind::Ed25519, "ed25519", 2),
    (Kind::Rsa(Modulus::B2048), "rsa-2048", 3),
    (Kind::Rsa(Modulus::B4096), "rsa-4096", 4),
    (Kind::Aead(Cipher::ChaCha20Poly1305), "chacha20-poly1305", 5),
    (Kind::Ec(Curve::P384), "ecdsa-p384", 6),
    (Kind::Ec(Curve::P521), "ecdsa-p521", 7),
    (Kind::Aead(Cipher::Aes128Gcm), "aes128-gcm96", 8),
    (Kind::Rsa(Modulus::B3072), "rsa-3072", 9),
    (Kind::Hmac, "hmac", 10),
    (Kind::Aead(Cipher::XChaCha20Poly1305), "xchacha20-poly1305", 11),
];

impl Kind {
    /// The type of a key nobody chose one for.
    pub(super) const DEFAULT: Self = Self::Aead(Cipher::Aes256Gcm);

    /// Every type.
    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = Self> {
        KINDS.iter().map(|(kind, ..)| *kind)
    }

    /// The type of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        KINDS.iter().find(|(_, known, _)| *known == name).map(|(kind, ..)| *kind)
    }

    /// The type of that number in a backup.
    pub(super) fn numbered(number: u64) -> Option<Self> {
        KINDS.iter().find(|(.., known)| *known == number).map(|(kind, ..)| *kind)
    }

    /// The name users write.
    pub(super) fn name(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    /// The number in a backup.
    pub(super) fn number(self) -> u64 {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or(0, |(.., number)| *number)
    }

    pub(super) fn encrypts(self) -> bool {
        matches!(self, Self::Aead(_) | Self::Rsa(_))
    }

    pub(super) fn signs(self) -> bool {
        self.is_asymmetric()
    }

    pub(super) fn is_asymmetric(self) -> bool {
        matches!(self, Self::Ec(_) | Self::Ed25519 | Self::Rsa(_))
    }

    pub(super) fn derives(self) -> bool {
        matches!(self, Self::Aead(_) | Self::Ed25519)
    }

    /// Whether what is signed is hashed first. Ed25519 does so itself.
    pub(super) fn hashes_input(self) -> bool {
        matches!(self, Self::Ec(_) | Self::Rsa(_))
    }
}

impl Cipher {
    pub(super) fn key_len(self) -> usize {
        if self == Self::Aes128Gcm { 16 } else { 32 }
    }

    pub(super) fn nonce_len(self) -> usize {
        if self == Self::XChaCha20Poly1305 { 24 } else { 12 }
    }
}

impl From<Kind> for &'static str {
    fn from(kind: Kind) -> Self {
        kind.name()
    }
}

impl TryFrom<String> for Kind {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::named(&name).ok_or("a key type this version does not know")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for kind in Kind::all() {
            assert_eq!((Kind::named(kind.name()), Kind::numbered(kind.number())), (Some(kind), Some(kind)));
        }
        assert_eq!((Kind::named("rsa-1024"), Kind::numbered(12)), (None, None));
    }
}
