//! Looking for what leads nowhere. Everything that belongs to a token is written and removed with it, so this finds
//! nothing unless something else went wrong; operators expect to be able to ask.

use arca_barrier::Class;
use arca_engine_api::UnixMillis;

use super::{TokenRef, TokenState, TokenStore};
use crate::KernelError;
use crate::tx::Tx;

impl TokenStore {
    /// Looks at up to `limit` accessors behind the path `after`; answers where to go on, or none at the end. Removes
    /// accessors without a token and revokes tokens whose parent is gone.
    pub(crate) fn tidy_step(
        &self,
        tx: &Tx,
        namespace_id: &str,
        after: Option<&str>,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Option<String>, KernelError> {
        let folder = super::store::accessor_path(namespace_id, "");
        let found = tx.some_below_after(Class::Local, &folder, after, limit)?;
        for path in &found {
            let Some(key) = super::store::key_at(tx, path)? else { continue };
            let wanted = TokenRef { namespace_id: namespace_id.to_owned(), key };
            let Some(entry) = self.load(tx, &wanted)? else {
                tx.delete(Class::Local, path)?;
                continue;
            };
            let parent = entry.parent.as_ref().map(|parent| self.load(tx, parent)).transpose()?;
            if entry.state == TokenState::Live && parent.is_some_and(|found| found.is_none()) {
                self.revoke_tree(tx, &wanted, now)?;
            }
        }
        Ok(found.last().filter(|_| found.len() == limit).cloned())
    }
}
