//! Accessors: public handles by which tokens can be looked at, renewed and revoked without being known.

use arca_barrier::Class;
use arca_engine_api::Page;

use super::TokenStore;
use crate::KernelError;
use crate::tx::Tx;

impl TokenStore {
    /// Accessors of a namespace.
    ///
    /// # Errors
    /// When storage fails.
    pub fn accessors(&self, tx: &Tx, namespace_id: &str, page: &Page) -> Result<Vec<String>, KernelError> {
        Ok(tx.list(Class::Local, &super::store::accessor_path(namespace_id, ""), page)?)
    }
}
