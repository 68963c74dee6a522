//! Who is calling: the token behind a request, and what its policies amount to.
//! Read next: [`crate::tokens::store`] for when a token is good, [`crate::policy`] for compiled sets.

use std::sync::Arc;

use arca_engine_api::Caller;

use crate::KernelError;
use crate::admission::Asked;
use crate::identity::{Authority, Resolved, identity_policies};
use crate::kernel::Kernel;
use crate::namespaces::Namespace;
use crate::policy::Acl;
use crate::tokens::TokenEntry;
use crate::tx::Tx;

/// A caller, known.
pub(crate) struct Identified {
    /// The token's record.
    pub(crate) entry: Arc<TokenEntry>,
    /// The caller as engines see it.
    pub(crate) caller: Arc<Caller>,
    /// What its policies amount to.
    pub(crate) acl: Arc<Acl>,
    /// What identity adds.
    pub(crate) resolved: Option<Arc<Resolved>>,
}

impl Identified {
    /// The policies that identity adds.
    pub(crate) fn identity_policies(&self) -> &[String] {
        self.resolved.as_ref().map_or(&[], |resolved| identity_policies(&self.entry, resolved))
    }

    /// Whether the token counts its uses.
    pub(crate) fn is_metered(&self) -> bool {
        self.entry.num_uses > 0
    }
}

impl Kernel {
    /// Finds out who is calling. A token serves its own namespace and those below.
    pub(crate) fn identify(
        &self,
        tx: &Tx,
        asked: &Asked,
        namespace: &Namespace,
    ) -> Result<Identified, KernelError> {
        let entry = match &asked.behalf {
            Some(behalf) => behalf.caller.clone().ok_or(KernelError::Denied)?,
            None => {
                let presented = asked.incoming.token.as_ref().ok_or(KernelError::Denied)?;
                self.tokens.authenticate(tx, presented, asked.incoming.remote_addr, self.clock.now())?
            }
        };
        if !namespace.path.starts_with(&entry.namespace_path) {
            return Err(KernelError::Denied);
        }
        let Authority { caller, acl, resolved } = self.authority(tx, &entry)?;
        Ok(Identified { entry, caller, acl, resolved })
    }
}
