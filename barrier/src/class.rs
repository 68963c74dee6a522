//! Who receives an entry: the first byte of every physical key.

use crate::BarrierError;

/// Who receives an entry. The bytes are on disk for ever: never renumber, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// Every secondary, performance and DR: mounts, policies, identity, secrets of mounts that are not local.
    Replicated = 1,
    /// This cluster and its DR copies: tokens, leases, local mounts and the local paths of others.
    Local = 2,
    /// This cluster alone, never shipped: its identity, replication cursors, autopilot.
    Node = 3,
}

impl Class {
    /// The first byte of keys in this class.
    #[must_use]
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The class of a physical key, from its first byte.
    ///
    /// # Errors
    /// On an unknown byte. Zero is no class: it begins the plain keys of [`boot_key`].
    pub const fn from_tag(tag: u8) -> Result<Self, BarrierError> {
        match tag {
            1 => Ok(Self::Replicated),
            2 => Ok(Self::Local),
            3 => Ok(Self::Node),
            unknown => Err(BarrierError::UnknownClass(unknown)),
        }
    }
}

/// First byte of keys that must be found while sealed.
const BOOT: u8 = 0;

/// The physical key of an entry that must be readable while sealed: its name is plain.
/// In use: `seal-config`, `root-key`, `keyring`, `ca`.
#[must_use]
pub fn boot_key(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(BOOT);
    key.extend_from_slice(name.as_bytes());
    key
}
