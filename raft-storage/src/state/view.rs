//! What readers hold: a snapshot of the store and how far it is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::meta::{self, META_KEYS, Meta, OWN_KEYS};
use super::{Mark, marks};
use crate::kv::{KvError, KvSnapshot, Visit};
use crate::replica::VersionedVisitor;
use crate::{ReadView, Versioned};

/// The state at one applied index.
pub struct View {
    meta: Meta,
    snapshot: Arc<dyn KvSnapshot>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("index", &self.meta.index).finish_non_exhaustive()
    }
}

impl View {
    pub(super) const fn new(meta: Meta, snapshot: Arc<dyn KvSnapshot>) -> Self {
        Self { meta, snapshot }
    }

    /// How far it is.
    #[must_use]
    pub const fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn snapshot(&self) -> &dyn KvSnapshot {
        self.snapshot.as_ref()
    }

    /// The marks of the entries from `first` to `last`, which must all be applied.
    pub(crate) fn marks(&self, first: u64, last: u64) -> Result<BTreeMap<u64, Mark>, KvError> {
        marks::between(self.snapshot.as_ref(), first, last)
    }

    /// BLAKE3 over the applied index, the membership and every entry, staged ones included.
    pub(super) fn hash(&self) -> Result<[u8; 32], KvError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.meta.index.to_be_bytes());
        hasher.update(&(self.meta.membership.len() as u64).to_be_bytes());
        hasher.update(&self.meta.membership);
        self.snapshot.visit(&[], Some(&META_KEYS), &mut |key, value| {
            hasher.update(&(key.len() as u64).to_be_bytes());
            hasher.update(key);
            hasher.update(&(value.len() as u64).to_be_bytes());
            hasher.update(value);
            Visit::Next
        })?;
        Ok(*hasher.finalize().as_bytes())
    }
}

impl ReadView for View {
    fn index(&self) -> u64 {
        self.meta.index
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, KvError> {
        if key >= OWN_KEYS.as_slice() {
            return Ok(None);
        }
        self.snapshot.get(key)?.map(|stored| meta::versioned(key, stored)).transpose()
    }

    fn visit(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut VersionedVisitor<'_>,
    ) -> Result<(), KvError> {
        let end = end.map_or(OWN_KEYS.as_slice(), |end| end.min(OWN_KEYS.as_slice()));
        let mut outcome = Ok(());
        self.snapshot.visit(start, Some(end), &mut |key, stored| match meta::split(key, stored) {
            Ok((version, value)) => visitor(key, value, version),
            Err(err) => {
                outcome = Err(err);
                Visit::Stop
            }
        })?;
        outcome
    }
}
