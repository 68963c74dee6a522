//! `X-Vault-Index`: which state a client has seen, so that it never sees an older one.
//!
//! The value is base64 of `v1:<cluster id>:<local index>:<replicated index>:<hex HMAC-SHA256 of what stands before>`.
//! Clients parse, compare and merge it, so its form is fixed. Both indexes are the Raft index here.

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
    /// This cluster's state at an index.
    Index(u64),
    /// Another cluster's state, or nothing we could have said.
    Foreign,
}

impl IndexHeader {
    pub(crate) fn new(cluster_id: &str, key: Zeroizing<Vec<u8>>) -> Self {
        Self { cluster_id: cluster_id.to_owned(), key }
    }

    /// Reads the key; `None` before the cluster is initialized.
    pub(crate) fn load(tx: &Tx, cluster_id: &str) -> Result<Option<Self>, KernelError> {
        Ok(tx.peek(Class::Local, KEY_PATH)?.map(|key| Self::new(cluster_id, key)))
    }

    fn mac(&self, text: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(text.as_bytes());
        Some(mac)
    }

    /// The header for a state.
    pub(crate) fn write(&self, index: u64) -> Option<String> {
        let text = format!("v1:{}:{index}:{index}", self.cluster_id);
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
        if parts.next().ok_or_else(malformed)? != self.cluster_id {
            return Ok(Stated::Foreign);
        }
        let mac = hex::decode(mac).map_err(|_| malformed())?;
        self.mac(stated)
            .ok_or_else(malformed)?
            .verify_slice(&mac)
            .map_err(|_| KernelError::invalid("X-Vault-Index does not verify"))?;
        let indexes: Vec<u64> = parts.map(str::parse).collect::<Result<_, _>>().map_err(|_| malformed())?;
        indexes.into_iter().max().map(Stated::Index).ok_or_else(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_as_written_and_only_so() {
        let header = IndexHeader::new("c1", Zeroizing::new(vec![7; 32]));
        let value = header.write(42).unwrap();
        assert_eq!(header.read(&value).unwrap(), Stated::Index(42));
        let other = IndexHeader::new("c2", Zeroizing::new(vec![7; 32]));
        assert_eq!(other.read(&value).unwrap(), Stated::Foreign);
        let forged = IndexHeader::new("c1", Zeroizing::new(vec![8; 32])).write(43).unwrap();
        for bad in ["", "!", "djE6", forged.as_str()] {
            assert_eq!(header.read(bad).unwrap_err().fault(), arca_engine_api::Fault::Invalid, "{bad}");
        }
    }
}
