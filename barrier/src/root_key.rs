//! Keys of 32 bytes: the root key, and the private ones this crate keeps.
//!
//! They are boxed, so that moving one leaves no copy behind, wiped on drop, and printed by nothing.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{BarrierError, Entropy, EntropyError};

/// Size of every symmetric key here, bytes.
pub(crate) const KEY_SIZE: usize = 32;

/// A secret key. Private to the crate: each use wraps it in a type of its own or a private field.
pub(crate) struct Secret(Box<Zeroizing<[u8; KEY_SIZE]>>);

impl Secret {
    /// Filled in place: no stack copy to forget.
    pub(crate) fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut key = Self::zeroed();
        entropy.fill(key.0.as_mut_slice())?;
        Ok(key)
    }

    pub(crate) fn from_slice(bytes: &[u8]) -> Result<Self, BarrierError> {
        if bytes.len() != KEY_SIZE {
            return Err(BarrierError::Malformed("key is not 32 bytes"));
        }
        let mut key = Self::zeroed();
        key.0.copy_from_slice(bytes);
        Ok(key)
    }

    fn zeroed() -> Self {
        Self(Box::new(Zeroizing::new([0; KEY_SIZE])))
    }

    pub(crate) fn expose(&self) -> &[u8; KEY_SIZE] {
        &self.0
    }

    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

/// The key that seals the keyring. Boxed, so moving it leaves no copy behind.
pub struct RootKey(Secret);

impl RootKey {
    /// A new one.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        Secret::generate(entropy).map(Self)
    }

    /// Takes over 32 bytes; the caller wipes its own copy.
    ///
    /// # Errors
    /// When there are not 32 of them.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, BarrierError> {
        Secret::from_slice(bytes).map(Self)
    }

    /// Each call site says in a comment why it needs the bare bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_SIZE] {
        self.0.expose()
    }

    /// Whether both are the same key; takes the same time either way.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.matches(&other.0)
    }

    pub(crate) const fn secret(&self) -> &Secret {
        &self.0
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(redacted)")
    }
}
