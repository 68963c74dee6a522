//! What keeps the root key while nothing runs: the `Seal` trait, its stored settings, and the seal made of shares.
//!
//! A seal wraps the root key, the root key seals the keyring, the keyring seals the rest. Seals that ask a KMS live
//! in the node crate; this one needs only the shares.

use std::fmt::{self, Debug};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::envelope::{self, Purpose};
use crate::root_key::Secret;
use crate::shamir::{self, Share};
use crate::{BarrierError, Entropy, RootKey};

/// Wraps and unwraps the root key.
#[async_trait]
pub trait Seal: Debug + Send + Sync {
    /// Its name in [`SealConfig::seal_type`].
    fn seal_type(&self) -> &str;

    /// Wraps the root key for storage.
    ///
    /// # Errors
    /// When randomness or what stands behind the seal fails.
    async fn wrap_root_key(&self, root: &RootKey, entropy: &dyn Entropy) -> Result<Vec<u8>, BarrierError>;

    /// Unwraps it. The root key appears in no error, whatever the seal answered.
    ///
    /// # Errors
    /// When the bytes are not of this seal, or what stands behind it fails.
    async fn unwrap_root_key(&self, wrapped: &[u8]) -> Result<RootKey, BarrierError>;
}

/// The settings of a seal, stored as plain JSON: they must be readable while sealed and hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealConfig {
    /// `shamir`, or the name of a KMS seal.
    #[serde(rename = "type")]
    pub seal_type: String,
    /// How many shares there are (of the seal key, or of the recovery key of a KMS seal).
    pub secret_shares: u8,
    /// How many of them are needed.
    pub secret_threshold: u8,
    /// Tells one set of shares from the next; not a secret.
    #[serde(default)]
    pub nonce: String,
    /// Version of this format.
    pub version: u8,
}

impl SealConfig {
    /// The version written today.
    pub const VERSION: u8 = 1;
    /// [`Self::seal_type`] of [`ShamirSeal`].
    pub const SHAMIR: &str = "shamir";

    /// The settings of a seal made of shares.
    ///
    /// # Errors
    /// When the numbers make no sense together.
    pub fn shamir(shares: u8, threshold: u8) -> Result<Self, BarrierError> {
        let config = Self {
            seal_type: Self::SHAMIR.to_owned(),
            secret_shares: shares,
            secret_threshold: threshold,
            nonce: String::new(),
            version: Self::VERSION,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks version and numbers.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn validate(&self) -> Result<(), BarrierError> {
        if self.version != Self::VERSION {
            return Err(BarrierError::UnknownVersion(self.version));
        }
        shamir::check_counts(self.secret_shares, self.secret_threshold)
    }

    /// Reads stored settings and checks them.
    ///
    /// # Errors
    /// When they do not parse or make no sense.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BarrierError> {
        let version = serde_json::from_slice::<Version>(bytes)
            .map_err(|_| BarrierError::Malformed("seal settings are not JSON with a version"))?;
        if version.version != Self::VERSION {
            return Err(BarrierError::UnknownVersion(version.version));
        }
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|_| BarrierError::Malformed("seal settings do not parse"))?;
        config.validate()?;
        Ok(config)
    }

    /// The settings for storage.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, BarrierError> {
        serde_json::to_vec(self).map_err(|_| BarrierError::Malformed("seal settings have no JSON form"))
    }
}

/// Read before the rest, so that a newer version is named as such.
#[derive(Deserialize)]
struct Version {
    version: u8,
}

/// The seal whose key people hold in shares. Exists only where the key was put together.
pub struct ShamirSeal(Secret);

impl ShamirSeal {
    /// A new seal key.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn generate(entropy: &dyn Entropy) -> Result<Self, BarrierError> {
        Ok(Self(Secret::generate(entropy)?))
    }

    /// The seal of a key put together from shares.
    ///
    /// # Errors
    /// When it is not 32 bytes.
    pub fn from_key(key: &[u8]) -> Result<Self, BarrierError> {
        Secret::from_slice(key).map(Self)
    }

    /// Its key in shares.
    ///
    /// # Errors
    /// When the numbers make no sense or randomness fails.
    pub fn split(
        &self,
        shares: u8,
        threshold: u8,
        entropy: &dyn Entropy,
    ) -> Result<Vec<Share>, BarrierError> {
        shamir::split(self.0.expose(), shares, threshold, entropy)
    }

    /// Whether both have the same key; takes the same time either way.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.matches(&other.0)
    }

    /// As [`Seal::wrap_root_key`]; nothing here waits.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn wrap(&self, root: &RootKey, entropy: &dyn Entropy) -> Result<Vec<u8>, BarrierError> {
        // The bare bytes are what is wrapped.
        envelope::seal(&self.0, Purpose::RootKey, root.expose(), entropy)
    }

    /// As [`Seal::unwrap_root_key`]; nothing here waits.
    ///
    /// # Errors
    /// [`BarrierError::Authentication`] when this is not the key that wrapped it.
    pub fn unwrap(&self, wrapped: &[u8]) -> Result<RootKey, BarrierError> {
        RootKey::from_slice(&envelope::open(&self.0, Purpose::RootKey, wrapped)?)
    }
}

#[async_trait]
impl Seal for ShamirSeal {
    fn seal_type(&self) -> &str {
        SealConfig::SHAMIR
    }

    async fn wrap_root_key(&self, root: &RootKey, entropy: &dyn Entropy) -> Result<Vec<u8>, BarrierError> {
        self.wrap(root, entropy)
    }

    async fn unwrap_root_key(&self, wrapped: &[u8]) -> Result<RootKey, BarrierError> {
        self.unwrap(wrapped)
    }
}

impl Debug for ShamirSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShamirSeal(redacted)")
    }
}
