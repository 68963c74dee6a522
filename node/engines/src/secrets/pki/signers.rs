//! Private keys made ready to sign, kept for as long as they are asked for.
//!
//! **Security:** a key is used only if the request's own view of storage still has its record, with the same public half;
//! what was deleted signs nothing more. The number kept is bounded, and dropping a signer wipes its secret.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arca_engine_api::{Ctx, EngineError, StorageError};

use super::keys::{self, Key};
use super::private_key::{PrivateKey, Signer};

/// Keys kept.
const KEPT_MAX: usize = 16;

/// The keys of one mount. A cache: forgetting it costs one decryption a key.
#[derive(Default)]
pub(super) struct Signers(Mutex<Vec<(String, Arc<Signer>)>>);

impl Signers {
    /// The key of that record, ready to sign.
    pub(super) fn of(&self, ctx: &Ctx<'_>, key: &Key) -> Result<Arc<Signer>, EngineError> {
        if let Some(signer) = self.find(key) {
            return Ok(signer);
        }
        // Read and made ready without the lock: others sign meanwhile. Two may do it at once, and one is kept.
        let signer = Arc::new(Signer::of(&load(ctx, &key.id)?)?);
        if signer.spki() != key.spki.as_slice() {
            return Err(EngineError::Bug("a stored key does not go with its record".to_owned()));
        }
        let mut kept = self.lock();
        kept.retain(|(id, _)| *id != key.id);
        if kept.len() >= KEPT_MAX {
            kept.remove(0);
        }
        kept.push((key.id.clone(), Arc::clone(&signer)));
        Ok(signer)
    }

    /// A key that is ready, which makes it the last to be forgotten.
    fn find(&self, key: &Key) -> Option<Arc<Signer>> {
        let mut kept = self.lock();
        let at = kept.iter().position(|(id, signer)| *id == key.id && signer.spki() == key.spki)?;
        let found = kept.remove(at);
        let signer = Arc::clone(&found.1);
        kept.push(found);
        Some(signer)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Arc<Signer>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a key that is deleted.
    pub(super) fn forget(&self, id: &str) {
        self.lock().retain(|(kept, _)| kept != id);
    }
}

/// The secret half of a key.
pub(super) fn load(ctx: &Ctx<'_>, id: &str) -> Result<PrivateKey, EngineError> {
    let key = keys::secret_key(id);
    let bytes = ctx.storage.get(&key)?.ok_or_else(|| EngineError::Bug("a key has no secret".to_owned()))?;
    PrivateKey::decode(&bytes).ok_or_else(|| {
        StorageError::Damaged { key, reason: "an unknown layout or no private key".to_owned() }.into()
    })
}
