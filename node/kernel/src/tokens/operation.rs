//! The token for what only a DR secondary does, made out of a quorum of key shares there: promotion, another primary.
//!
//! It is no token of the token store, which is a copy of the primary's and not written here. One record of class `Node`
//! holds a keyed hash of it; there is one at a time, and a promotion or [`Kernel::forget_operation_token`] ends it.
//! **Never** stored or logged: the token.

use std::sync::Arc;

use arca_barrier::Class;
use arca_engine_api::StorageError;
use arca_raft_storage::Version;
use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::secret::{ROOT_BODY_LEN, new_service_token};
use crate::KernelError;
use crate::kernel::Kernel;
use crate::namespaces::ROOT_ID;
use crate::tx::Tx;

const PATH: &str = "root/core/replication/operation-token";
const KEY_SIZE: usize = 32;

#[derive(Serialize, Deserialize)]
struct Record {
    /// Random, hexadecimal.
    key: String,
    /// HMAC-SHA256 of the token, hexadecimal.
    mac: String,
}

impl Kernel {
    /// Makes and commits an operation token, for operators who have shown that they hold the key shares. It takes the
    /// place of the one before.
    ///
    /// # Errors
    /// When this cluster is no DR secondary, or randomness, storage or the commit fails.
    pub async fn make_operation_token(&self) -> Result<Arc<Zeroizing<String>>, KernelError> {
        self.standing().check_is_dr_secondary()?;
        let entropy = self.entropy.as_ref();
        let token = new_service_token(entropy, ROOT_BODY_LEN, ROOT_ID)?;
        let mut key = Zeroizing::new([0; KEY_SIZE]);
        entropy.fill(key.as_mut_slice())?;
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()), token.as_bytes());
        let record = Record { key: hex::encode(key.as_slice()), mac: hex::encode(mac) };
        self.commit_with(|tx| tx.put_record(Class::Node, PATH, &record)).await?;
        Ok(Arc::new(token))
    }

    /// Ends the operation token, if there is one.
    ///
    /// # Errors
    /// When it cannot be committed.
    pub async fn forget_operation_token(&self) -> Result<(), KernelError> {
        self.commit_with(|tx| match tx.version(Class::Node, PATH)? {
            Version::ABSENT => Ok(()),
            version => {
                tx.guard(&tx.physical_key(Class::Node, PATH)?, version);
                tx.delete(Class::Node, PATH)
            }
        })
        .await
    }
}

/// Whether a text is the operation token of today. Takes as long whatever the text has in common with it.
pub(crate) fn is_operation_token(tx: &Tx, presented: &str) -> Result<bool, KernelError> {
    let record = match tx.get_record::<Record>(Class::Node, PATH) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(false),
        // One that was sealed under keys that are gone is no token any more, and must not keep other tokens out.
        Err(err @ StorageError::Damaged { .. }) => {
            tracing::warn!(error = %err, "the operation token cannot be read: make a new one");
            return Ok(false);
        }
        Err(err) => return Err(err.into()),
    };
    let decoded = |text: &str| hex::decode(text).map_err(|_| KernelError::Bug(format!("{PATH} is damaged")));
    let (key, mac) = (Zeroizing::new(decoded(&record.key)?), decoded(&record.mac)?);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    Ok(hmac::verify(&key, presented.as_bytes(), &mac).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::{Kind, Mode, RoleRecord};
    use crate::tokens::rig::Rig;

    /// GHSA-34fc-gh42-pj53: a token compared byte by byte, so that the time told how much of a guess was right. Here keyed
    /// hashes are compared, in constant time: what a guess has in common with the token is nowhere to be seen.
    #[tokio::test]
    async fn a_guess_that_is_nearly_right_is_as_wrong_as_any() {
        let rig = Rig::active().await;
        let role = RoleRecord { mode: Mode::Secondary, ..RoleRecord::default() };
        rig.commit(|tx| role.store(tx, Kind::Dr)).await.unwrap();
        assert!(!is_operation_token(&rig.view(), "").unwrap(), "there is none");
        let token = rig.kernel.make_operation_token().await.unwrap();
        let is_it = |text: &str| is_operation_token(&rig.view(), text).unwrap();
        assert!(is_it(&token));
        for at in 0..token.len() {
            let mut near = token.as_bytes().to_vec();
            near[at] ^= 1;
            assert!(!is_it(&String::from_utf8(near).unwrap()) && !is_it(&token[..at]), "{at}");
        }
        assert!(!is_it(&format!("{}x", token.as_str())));
        let stored = rig.view().get(Class::Node, PATH).unwrap().unwrap();
        assert!(!String::from_utf8(stored.to_vec()).unwrap().contains(token.as_str()));
    }
}
