//! `X-Vault-Index`: which state a client has seen, so that it never sees an older one.
//!
//! The value is base64 of `v1:<cluster id>:<local index>:<replicated index>:<hex HMAC-SHA256 of what stands before>`.
//! Clients parse, compare and merge it, so its form is fixed. The local index is the Raft index of the cluster. So is the
//! replicated one, but on a performance secondary: there it is its primary's. The key is shared, so that a cluster can tell
//! what its primary or another secondary of that has said: of that, a secondary waits for the replicated index. A primary
//! has everything that it ever said to anybody.

use arca_barrier::Class;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::KernelError;
use crate::tx::Tx;

/// Where the key is stored.
pub(crate) const KEY_PATH: &str = "root/core/index-header-key";

/// Makes and reads the header for one cluster.
pub(crate) struct IndexHeader {
    cluster_id: String,
    key: Zeroizing<Vec<u8>>,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stated {
    /// This cluster's state.
    Ours {
        /// Its index.
        local: u64,
        /// Index of the primary.
        shared: u64,
    },
    /// The state of another cluster that shares ours, or shares it with us.
    Others {
        /// Index of the primary.
        shared: u64,
    },
    /// Another cluster's state, or nothing we could have said.
    Foreign,
}

impl IndexHeader {
    pub(crate) fn new(cluster_id: &str, key: Zeroizing<Vec<u8>>) -> Self {
        Self { cluster_id: cluster_id.to_owned(), key }
    }

    /// Reads the key; `None` before the cluster is initialized.
    pub(crate) fn load(tx: &Tx, cluster_id: &str) -> Result<Option<Self>, KernelError> {
        Ok(tx.peek(Class::Replicated, KEY_PATH)?.map(|key| Self::new(cluster_id, key)))
    }

    fn mac(&self, text: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    }

    /// The header for a state: of this cluster at `local`, which shows the primary's at `shared`.
    pub(crate) fn write(&self, local: u64, shared: u64) -> Option<String> {
        let text = format!("v1:{}:{local}:{shared}", self.cluster_id);
        let mac = hex::encode(self.mac(&text)?.finalize().into_bytes());
        Some(STANDARD.encode(format!("{text}:{mac}")))
    }

    /// What a header says.
    ///
    /// # Errors
    /// When it is none, or was changed.
    pub(crate) fn read(&self, value: &str) -> Result<Stated, KernelError> {
        let malformed = || KernelError::invalid("X-Vault-Index is malformed");
        let bytes = STANDARD.decode(value.trim()).map_err(|_| malformed())?;
        let text = String::from_utf8(bytes).map_err(|_| malformed())?;
        let (stated, mac) = text.rsplit_once(':').ok_or_else(malformed)?;
        let mut parts = stated.split(':');
        if parts.next() != Some("v1") {
            return Err(malformed());
        }
        let is_ours = parts.next().ok_or_else(malformed)? == self.cluster_id;
        let verified = hex::decode(mac)
            .ok()
            .is_some_and(|mac| self.mac(stated).is_some_and(|expected| expected.verify_slice(&mac).is_ok()));
        match (verified, is_ours) {
            (true, _) => {}
            (false, true) => return Err(KernelError::invalid("X-Vault-Index does not verify")),
            (false, false) => return Ok(Stated::Foreign),
        }
        let mut index = || parts.next().and_then(|text| text.parse().ok()).ok_or_else(malformed);
        let (local, shared) = (index()?, index()?);
        Ok(if is_ours { Stated::Ours { local, shared } } else { Stated::Others { shared } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_written_and_only_so() {
        let header = IndexHeader::new("c1", Zeroizing::new(vec![7; 32]));
        let value = header.write(42, 40).unwrap();
        assert_eq!(header.read(&value).unwrap(), Stated::Ours { local: 42, shared: 40 });
        let other = IndexHeader::new("c2", Zeroizing::new(vec![7; 32]));
        assert_eq!(other.read(&value).unwrap(), Stated::Others { shared: 40 });
        let foreign = IndexHeader::new("c2", Zeroizing::new(vec![8; 32]));
        assert_eq!(foreign.read(&value).unwrap(), Stated::Foreign);
        let forged = IndexHeader::new("c1", Zeroizing::new(vec![8; 32])).write(43, 43).unwrap();
        for bad in ["", "!", "djE6", forged.as_str()] {
            assert_eq!(header.read(bad).unwrap_err().fault(), arca_engine_api::Fault::Invalid, "{bad}");
        }
    }
}
