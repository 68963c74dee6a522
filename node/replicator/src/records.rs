//! What is stored about secondaries and their activation, all of class `Node`: it never leaves this cluster.

use arca_barrier::Class;
use arca_engine_api::UnixMillis;
use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, UpstreamRecord};
use arca_kernel::tx::Tx;
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// Longest name of a secondary, bytes: it goes into a certificate.
const ID_MAX: usize = 64;
/// Most secondaries, and most tokens that wait, of a kind.
pub(crate) const SECONDARIES_MAX: usize = 1024;

fn folder(kind: Kind, what: &str) -> String {
    format!("root/core/replication/{what}/{}/", kind.name())
}

/// Where the private half of the public key for tokens is.
pub(crate) fn token_key_path(kind: Kind) -> String {
    format!("root/core/replication/token-key/{}", kind.name())
}

/// Where it is stored what is to be copied, for as long as that has not happened.
pub(crate) fn bootstrap_path(kind: Kind) -> String {
    format!("root/core/replication/bootstrap/{}", kind.name())
}

/// Where the newest order to become a secondary is stored, until it is carried out.
pub(crate) fn order_path(kind: Kind) -> String {
    format!("root/core/replication/order/{}", kind.name())
}

/// Where it is stored who has to be told of the newest promotion.
pub(crate) fn announcement_path(kind: Kind) -> String {
    format!("root/core/replication/announcement/{}", kind.name())
}

/// Where it is stored from where on a successor never got what was written here.
pub(crate) fn tail_path(kind: Kind) -> String {
    format!("root/core/replication/tail/{}", kind.name())
}

/// Where keys are listed that go when every member has changed over.
pub(crate) const LEFTOVERS_PATH: &str = "root/core/replication/leftovers";

/// Refuses names that cannot be in paths and certificates.
pub(crate) fn check_id(id: &str) -> Result<(), KernelError> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
    if id.is_empty() || id.len() > ID_MAX || !id.chars().all(is_fine) {
        return Err(KernelError::Invalid(format!(
            "id must be 1 to {ID_MAX} characters: letters, digits, '.', '_', '-' and ':'"
        )));
    }
    Ok(())
}

/// A token that may be used, or was.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) secondary_id: String,
    /// Random, hexadecimal.
    pub(super) key: String,
    /// HMAC-SHA256 of the secret, hexadecimal.
    pub(super) mac: String,
    pub(crate) expires_at: u64,
    /// When it was; 0 if it was not. Kept for a while, so that whoever comes second is told.
    #[serde(default)]
    pub(crate) used_at: u64,
}

impl TokenRecord {
    pub(crate) fn new(secondary_id: &str, key: [u8; 32], secret: &[u8], expires_at: UnixMillis) -> Self {
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), secret);
        Self {
            secondary_id: secondary_id.to_owned(),
            key: hex::encode(key),
            mac: hex::encode(mac),
            expires_at: expires_at.0,
            used_at: 0,
        }
    }

    /// Whether `secret` is this token's. Takes as long whatever they have in common.
    pub(crate) fn is_of(&self, secret: &[u8]) -> bool {
        let (Ok(key), Ok(mac)) = (hex::decode(&self.key), hex::decode(&self.mac)) else { return false };
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), secret, &mac).is_ok()
    }

    pub(crate) fn path(kind: Kind, accessor: &str) -> String {
        format!("{}{accessor}", folder(kind, "tokens"))
    }

    pub(crate) fn folder(kind: Kind) -> String {
        folder(kind, "tokens")
    }
}

/// A secondary, as its primary knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecondaryRecord {
    /// The activation that counts.
    pub(crate) activation: String,
    /// Its cluster.
    pub(crate) cluster_id: String,
    /// When it was activated, milliseconds since 1970.
    pub(crate) activated_at: u64,
    /// Version it ran then.
    #[serde(default)]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) is_revoked: bool,
}

impl SecondaryRecord {
    pub(crate) fn path(kind: Kind, id: &str) -> String {
        format!("{}{id}", folder(kind, "secondaries"))
    }

    pub(crate) fn folder(kind: Kind) -> String {
        folder(kind, "secondaries")
    }

    pub(crate) fn load(tx: &Tx, kind: Kind, id: &str) -> Result<Option<Self>, KernelError> {
        Ok(tx.get_record(Class::Node, &Self::path(kind, id))?)
    }
}

/// A copy that is still to be made, under the keys of before. Gone with them when it was.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct BootstrapRecord {
    pub(crate) upstream: UpstreamRecord,
    /// The root key of the state that is copied, hexadecimal.
    pub(crate) root_key: String,
}

impl Drop for BootstrapRecord {
    fn drop(&mut self) {
        self.root_key.zeroize();
        self.upstream.key.zeroize();
    }
}

/// That this cluster is the primary now, for the one that was it before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AnnouncementRecord {
    pub(crate) epoch: u64,
    /// Up to where this cluster had followed: an encoded cursor, hexadecimal.
    pub(crate) cursor: String,
}

/// What a successor never got of this cluster's entries: those behind one that it had, up to the one that stores this with the
/// fence. What was in flight then was acknowledged, and is in front of it in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TailRecord {
    /// The last entry that it had.
    pub(crate) after: u64,
    /// The successor's epoch.
    pub(crate) epoch: u64,
    /// Whether the successor said so itself; else it is the last that was acknowledged here, and it may have more.
    #[serde(default)]
    pub(crate) is_certain: bool,
}

/// Raw keys that are of no use any more, hexadecimal, and since which entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftoversRecord {
    pub(crate) keys: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_secret() {
        let record = TokenRecord::new("west", [3; 32], b"secret", UnixMillis(9));
        assert!(record.is_of(b"secret") && !record.is_of(b"secre") && !record.is_of(b""));
        assert!(!serde_json::to_string(&record).unwrap().contains(&hex::encode("secret")));
    }

    #[test]
    fn names_of_secondaries_are_plain() {
        for (id, is_fine) in
            [("west", true), ("eu-1.b:2_x", true), ("", false), ("a/b", false), ("ä", false), ("a b", false)]
        {
            assert_eq!(check_id(id).is_ok(), is_fine, "{id}");
        }
        assert!(check_id(&"x".repeat(65)).is_err());
    }
}
