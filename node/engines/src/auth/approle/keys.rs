//! Where records lie. Role ids and secret ids are nowhere in the clear: their keys are HMACs under a key of the
//! mount's own (a note to Vault 0.7.3 tells of ids that lay unsalted).
//!
//! Everything of a role hangs off its random uid, so a new role of an old name finds nothing of the old one. What is
//! looked through piece by piece lies in 256 folders, so that looking at a piece never means looking at all of it.

use arca_engine_api::{Ctx, EngineError, UnixMillis};
use hmac::{KeyInit as _, Mac as _, SimpleHmac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::role::Role;

const HMAC_KEY: &str = "hmac-key";
const HMAC_KEY_LEN: usize = 32;
/// Below it lies what belongs to this cluster alone.
pub(super) const LOCAL: &str = "local/";
/// Roles by name.
pub(super) const ROLES: &str = "role/";
/// Deleted roles that have secret ids left.
pub(super) const ORPHANS: &str = "orphan/";
/// Roles that have had secret ids of this cluster alone.
pub(super) const OWNERS: &str = "local/owner/";
/// Both places where secret ids may lie.
pub(super) const PREFIXES: [&str; 2] = ["", LOCAL];

/// Gives a new mount its key.
pub(super) fn initialize(ctx: &Ctx<'_>) -> Result<(), EngineError> {
    let mut key = Zeroizing::new(vec![0; HMAC_KEY_LEN]);
    ctx.entropy.fill(&mut key)?;
    Ok(ctx.storage.put(HMAC_KEY, key)?)
}

/// Names things by keyed hashes.
pub(super) struct Keys {
    mac: SimpleHmac<Sha256>,
}

impl Keys {
    pub(super) fn of(ctx: &Ctx<'_>) -> Result<Self, EngineError> {
        let key = ctx.storage.get(HMAC_KEY)?;
        let key = key.ok_or_else(|| EngineError::Bug("the mount has no HMAC key".to_owned()))?;
        let mac = SimpleHmac::new_from_slice(&key)
            .map_err(|_| EngineError::Bug("the mount's HMAC key has a wrong length".to_owned()))?;
        Ok(Self { mac })
    }

    fn hash(&self, kind: &str, parts: [&str; 2]) -> String {
        let mut mac = self.mac.clone();
        for part in [kind, parts[0], parts[1]] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
        mac.finalize().into_bytes().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    /// Where a role id leads to its role.
    pub(super) fn role_id(&self, role_id: &str) -> String {
        format!("role-id/{}", self.hash("role-id", [role_id, ""]))
    }

    /// The keyed hash of a role's secret id.
    pub(super) fn secret(&self, role: &Role, secret_id: &str) -> String {
        self.hash("secret-id", [&role.uid, secret_id])
    }
}

/// Where a role lies.
pub(super) fn role(name: &str) -> String {
    format!("{ROLES}{name}")
}

fn shard(hash: &str) -> &str {
    hash.get(..2).unwrap_or("00")
}

/// The folder of a role's secret ids.
pub(super) fn secrets(prefix: &str, uid: &str) -> String {
    format!("{prefix}secret-id/{uid}/")
}

/// Where a secret id lies, by its keyed hash.
pub(super) fn secret(prefix: &str, uid: &str, hash: &str) -> String {
    format!("{prefix}secret-id/{uid}/{}/{hash}", shard(hash))
}

/// The folder of a role's accessors.
pub(super) fn accessors(prefix: &str, uid: &str) -> String {
    format!("{prefix}accessor/{uid}/")
}

/// Where an accessor leads to its secret id. It lies below its role: no other role's path reaches it (CVE-2023-24999).
pub(super) fn accessor(prefix: &str, uid: &str, accessor: &str) -> String {
    format!("{prefix}accessor/{uid}/{accessor}")
}

/// The folder of secret ids by when they end.
pub(super) fn due(prefix: &str) -> String {
    format!("{prefix}due/")
}

/// A moment's folders: its hour, then its minute since the epoch, in an order that texts sort by.
pub(super) fn hour_and_minute(moment: UnixMillis) -> (String, String) {
    (format!("{:010}/", moment.0 / 3_600_000), format!("{:012}/", moment.0 / 60_000))
}

/// The note that a secret id ends then.
pub(super) fn due_note(prefix: &str, ends: UnixMillis, uid: &str, hash: &str) -> String {
    let (hour, minute) = hour_and_minute(ends);
    format!("{}{hour}{minute}{}/{uid}/{hash}", due(prefix), shard(hash))
}
