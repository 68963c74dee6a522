//! What is taken away a piece at a time: the aliases of a mount that is removed, the last members of large groups that
//! were removed.

use crate::KernelError;
use crate::kernel::Kernel;
use crate::router::Mount;

/// Aliases taken away with one commit.
const BATCH: usize = 256;

impl Kernel {
    /// Removes every alias of a mount, so that nothing is left by which another mount's logins could be somebody. The
    /// entities and groups stay.
    pub(crate) async fn forget_aliases(&self, mount: &Mount) -> Result<(), KernelError> {
        let accessor = mount.record.accessor.as_str();
        while !self
            .commit_staged(|tx| {
                let book = self.book(tx, &mount.namespace.id);
                let is_done = book.forget_aliases(accessor, BATCH)?;
                // Groups are shared: at a performance secondary none is an alias of a local mount.
                let has_groups = self.standing().keeps_what_is_shared();
                Ok((!has_groups || book.forget_group_aliases(accessor, BATCH)?) && is_done)
            })
            .await?
        {}
        Ok(())
    }

    /// Takes the members away that removed groups left over.
    pub(crate) async fn forget_members(&self) -> Result<(), KernelError> {
        if !self.standing().keeps_what_is_shared() {
            return Ok(());
        }
        let router = self.mounts.router(&self.store)?;
        for namespace in router.namespaces().iter() {
            let tx = self.read_tx();
            for group_id in self.book(&tx, &namespace.id).leftovers()? {
                while !self
                    .commit_staged(|tx| {
                        let book = self.book(tx, &namespace.id);
                        let is_done = book.forget_members(&group_id)?;
                        if is_done {
                            book.clear_leftover(&group_id)?;
                        }
                        Ok(is_done)
                    })
                    .await?
                {}
            }
        }
        Ok(())
    }
}
