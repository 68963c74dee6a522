//! Where tokens are kept and how a presented one is found.
//!
//! **Invariant:** a token is looked up by a keyed hash, so neither storage nor timing says anything about tokens that
//! exist. Whoever hangs something on a token ([`TokenStore::hold`]) makes its commit depend on that token's record:
//! either the thing is seen by whoever takes the token away, or it is not stored.
//! Read next: [`super::revoke`] for the other end of a token's life.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arca_barrier::{Class, TimedIndex};
use arca_danger::Bug;
use arca_engine_api::{Entropy, StorageError, UnixMillis};
use aws_lc_rs::hmac;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::secret::Presented;
use super::{Cidr, TokenEntry, TokenRef, TokenState, batch};
use crate::KernelError;
use crate::cache::ObjectCache;
use crate::tx::{Plain, Tx};

const SALT_PATH: &str = "root/core/salt";
const SALT_SIZE: usize = 32;
/// Most ancestors of a token.
pub(super) const DEPTH_MAX: u32 = 256;

/// What taking a use left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The token counts no uses.
    Unlimited,
    /// So many are left.
    Left(u32),
    /// This was the last one: the token is revoked in the same transaction.
    Last,
}

/// See the file's header.
pub struct TokenStore {
    cache: Arc<ObjectCache>,
    salt: RwLock<Option<Salt>>,
}

/// A salt lasts as long as the state it is of: a restored backup brings its own.
struct Salt {
    key: Arc<hmac::Key>,
    /// Index of the view it was read from.
    read_at: u64,
}

#[derive(Serialize, Deserialize)]
struct AccessorRecord {
    key: String,
}

pub(crate) fn id_path(namespace_id: &str, key: &str) -> String {
    format!("{namespace_id}/token/id/{key}")
}

pub(super) fn accessor_path(namespace_id: &str, accessor: &str) -> String {
    format!("{namespace_id}/token/accessor/{accessor}")
}

/// Folder of the links to a token's children.
pub(super) fn children_prefix(parent: &TokenRef) -> String {
    format!("{}/token/parent/{}/", parent.namespace_id, parent.key)
}

fn child_path(parent: &TokenRef, child: &TokenRef) -> String {
    format!("{}{}.{}", children_prefix(parent), child.key, child.namespace_id)
}

/// Reads the last segment of [`child_path`].
pub(super) fn parse_child(name: &str) -> Option<TokenRef> {
    let (key, namespace_id) = name.split_once('.')?;
    Some(TokenRef { namespace_id: namespace_id.to_owned(), key: key.to_owned() })
}

/// Folder of tokens by the path that made them.
pub(crate) fn by_path_prefix(namespace_id: &str, path: &str) -> String {
    format!("{namespace_id}/token/path/{path}")
}

impl TokenStore {
    /// A store of tokens that keeps decoded records in `cache`.
    #[must_use]
    pub fn new(cache: Arc<ObjectCache>) -> Self {
        Self { cache, salt: RwLock::new(None) }
    }

    /// Makes what tokens need, once for a cluster: run at init, and harmless later.
    ///
    /// # Errors
    /// When randomness or storage fails.
    pub fn prepare(&self, tx: &Tx, entropy: &dyn Entropy) -> Result<(), KernelError> {
        if tx.get(Class::Local, SALT_PATH)?.is_none() {
            let mut salt: Plain = Zeroizing::new(vec![0; SALT_SIZE]);
            entropy.fill(&mut salt)?;
            tx.put(Class::Local, SALT_PATH, salt)?;
        }
        Ok(())
    }

    fn salt(&self, tx: &Tx) -> Result<Arc<hmac::Key>, KernelError> {
        let replaced_at = self.cache.replaced_at();
        if let Some(salt) = self.salt.read().as_ref().filter(|salt| salt.read_at >= replaced_at) {
            return Ok(Arc::clone(&salt.key));
        }
        let salt = tx.peek(Class::Local, SALT_PATH)?.filter(|salt| salt.len() == SALT_SIZE);
        let salt = salt.ok_or_else(|| KernelError::Bug("the token salt is missing".to_owned()))?;
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &salt));
        if !tx.has_staged(Class::Local, SALT_PATH) {
            *self.salt.write() = Some(Salt { key: Arc::clone(&key), read_at: tx.index() });
        }
        Ok(key)
    }

    /// The keyed hash of a token in its one spelling.
    pub(super) fn key_of(&self, tx: &Tx, token: &str) -> Result<String, KernelError> {
        let hash = hmac::sign(&*self.salt(tx)?, token.as_bytes());
        // Into an array: an iterator of characters takes as long as the hash.
        let mut text = [0; 64];
        hex::encode_to_slice(hash, &mut text).map_err(|err| KernelError::Bug(err.to_string()))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The token somebody presents, if it is good and may be used from `remote`.
    ///
    /// # Errors
    /// [`KernelError::Denied`], whatever is wrong with it; others when storage fails.
    pub fn authenticate(
        &self,
        tx: &Tx,
        presented: &str,
        remote: Option<IpAddr>,
        now: UnixMillis,
    ) -> Result<Arc<TokenEntry>, KernelError> {
        let entry = self.find(tx, presented, now)?.ok_or(KernelError::Denied)?;
        if Cidr::any_contains(&entry.bound_cidrs, remote) { Ok(entry) } else { Err(KernelError::Denied) }
    }

    /// The good token behind a text, wherever it may be used from.
    ///
    /// # Errors
    /// When storage fails.
    pub fn find(
        &self,
        tx: &Tx,
        presented: &str,
        now: UnixMillis,
    ) -> Result<Option<Arc<TokenEntry>>, KernelError> {
        match Presented::parse(presented) {
            None => Ok(None),
            Some(Presented::Batch(body)) => {
                let Some(mut entry) = batch::open(tx.barrier(), body) else { return Ok(None) };
                entry.key = self.key_of(tx, body)?;
                let is_good = entry.is_good(now) && self.has_good_ancestors(tx, &entry, now)?;
                Ok(is_good.then(|| Arc::new(entry)))
            }
            Some(Presented::Service(token, namespace_id)) => {
                let key = self.key_of(tx, &token)?;
                self.find_key(tx, &TokenRef { namespace_id: namespace_id.to_owned(), key }, now)
            }
        }
    }

    /// The good token with this key.
    ///
    /// # Errors
    /// When storage fails.
    pub fn find_key(
        &self,
        tx: &Tx,
        wanted: &TokenRef,
        now: UnixMillis,
    ) -> Result<Option<Arc<TokenEntry>>, KernelError> {
        let Some(entry) = self.cached(tx, wanted)? else { return Ok(None) };
        let is_good = entry.is_good(now) && self.has_good_ancestors(tx, &entry, now)?;
        Ok(is_good.then_some(entry))
    }

    /// The good token with this accessor, in this namespace and no other (CVE-2026-40264).
    ///
    /// # Errors
    /// When storage fails.
    pub fn find_accessor(
        &self,
        tx: &Tx,
        namespace_id: &str,
        accessor: &str,
        now: UnixMillis,
    ) -> Result<Option<Arc<TokenEntry>>, KernelError> {
        if accessor.is_empty() || accessor.contains('/') {
            return Ok(None);
        }
        let Some(key) = key_at(tx, &accessor_path(namespace_id, accessor))? else { return Ok(None) };
        let wanted = TokenRef { namespace_id: namespace_id.to_owned(), key };
        self.find_key(tx, &wanted, now)
    }

    fn cached(&self, tx: &Tx, wanted: &TokenRef) -> Result<Option<Arc<TokenEntry>>, KernelError> {
        let path = id_path(&wanted.namespace_id, &wanted.key);
        self.cache.read_through(tx, Class::Local, &path, |bytes| decode(&path, bytes))
    }

    /// Whether every ancestor that would take it along still stands.
    fn has_good_ancestors(&self, tx: &Tx, entry: &TokenEntry, now: UnixMillis) -> Result<bool, KernelError> {
        let mut next = entry.parent.clone();
        for _ in 0..=DEPTH_MAX {
            let Some(wanted) = next else { return Ok(true) };
            let Some(parent) = self.cached(tx, &wanted)? else { return Ok(false) };
            match parent.state {
                // Its children are orphans already, only their records do not say so yet.
                TokenState::RevokedAlone => return Ok(true),
                TokenState::RevokedWithTree => return Ok(false),
                TokenState::Live if parent.has_ended(now) => return Ok(false),
                TokenState::Live => next = parent.parent.clone(),
            }
        }
        Ok(false)
    }

    /// Makes the commit depend on a token that something is about to hang on.
    ///
    /// # Errors
    /// [`KernelError::Denied`] when the token is gone.
    pub fn hold(&self, tx: &Tx, wanted: &TokenRef) -> Result<(), KernelError> {
        if tx.has_staged(Class::Local, &id_path(&wanted.namespace_id, &wanted.key)) {
            return Ok(()); // This request changes the record itself, which makes the commit depend on it.
        }
        match self.load(tx, wanted)? {
            Some(entry) if entry.state == TokenState::Live => Ok(()),
            _ => Err(KernelError::Denied),
        }
    }

    /// The record, whatever state it is in, guarding the commit.
    pub(crate) fn load(&self, tx: &Tx, wanted: &TokenRef) -> Result<Option<TokenEntry>, KernelError> {
        Ok(tx.get_record(Class::Local, &id_path(&wanted.namespace_id, &wanted.key))?)
    }

    /// Stages the record.
    pub(super) fn save(&self, tx: &Tx, entry: &TokenEntry) -> Result<(), KernelError> {
        Ok(tx.put_record(Class::Local, &id_path(&entry.namespace_id, &entry.key), entry)?)
    }

    /// Stages a new service token: its record and everything that leads to it.
    pub(super) fn insert(&self, tx: &Tx, entry: &TokenEntry) -> Result<(), KernelError> {
        let namespace_id = &entry.namespace_id;
        self.save(tx, entry)?;
        let record = AccessorRecord { key: entry.key.clone() };
        tx.put_record(Class::Local, &accessor_path(namespace_id, &entry.accessor), &record)?;
        if entry.has_lease() {
            tx.put(Class::Local, &by_path_prefix(namespace_id, &entry.lease_id()), Plain::default())?;
        }
        if let Some(parent) = &entry.parent {
            tx.put(Class::Local, &child_path(parent, &entry.reference()), Plain::default())?;
        }
        queue(tx, entry)
    }

    /// Stages the removal of everything that leads to a token, and of the record.
    pub(super) fn remove(&self, tx: &Tx, entry: &TokenEntry) -> Result<(), KernelError> {
        let namespace_id = &entry.namespace_id;
        unqueue(tx, entry)?;
        if let Some(parent) = &entry.parent {
            tx.delete(Class::Local, &child_path(parent, &entry.reference()))?;
        }
        tx.delete(Class::Local, &by_path_prefix(namespace_id, &entry.lease_id()))?;
        tx.delete(Class::Local, &accessor_path(namespace_id, &entry.accessor))?;
        tx.delete(Class::Local, &id_path(namespace_id, &entry.key))?;
        Ok(())
    }

    /// Takes one use of a token that counts them, in the request's own transaction: of parallel requests with one
    /// use left, one commits. After the last one the token is revoked with everything the request hung on it.
    ///
    /// # Errors
    /// [`KernelError::Denied`] when no use is left.
    pub fn use_once(&self, tx: &Tx, entry: &TokenEntry, now: UnixMillis) -> Result<Use, KernelError> {
        if entry.num_uses == 0 || entry.is_batch() {
            return Ok(Use::Unlimited);
        }
        let is_unguarded = arca_danger::is(Bug::UseTakenUnguarded);
        let stored = if is_unguarded { Some(entry.clone()) } else { self.load(tx, &entry.reference())? };
        let stored = stored.filter(|stored| stored.state == TokenState::Live);
        let mut stored = stored.ok_or(KernelError::Denied)?;
        if stored.num_uses > 1 {
            stored.num_uses -= 1;
            self.save(tx, &stored)?;
            return Ok(Use::Left(stored.num_uses));
        }
        self.mark(tx, stored, TokenState::RevokedWithTree, now)?;
        Ok(Use::Last)
    }
}

impl TokenStore {
    /// Takes a wrapping token whole: its one use, and the token. Nothing can hang on such a token, since its policy
    /// lets it do nothing that would, so no second step is needed.
    ///
    /// # Errors
    /// [`KernelError::Denied`] when it is gone, or wraps nothing.
    pub(crate) fn take_wrapping(&self, tx: &Tx, entry: &TokenEntry) -> Result<(), KernelError> {
        let stored = self.load(tx, &entry.reference())?;
        let stored = stored.filter(|stored| stored.state == TokenState::Live && stored.is_wrapping());
        self.remove(tx, &stored.ok_or(KernelError::Denied)?)
    }
}

impl fmt::Debug for TokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenStore").finish_non_exhaustive()
    }
}

/// Stages where the token stands in the time index.
pub(super) fn queue(tx: &Tx, entry: &TokenEntry) -> Result<(), KernelError> {
    if let Some(due) = entry.due() {
        let path = id_path(&entry.namespace_id, &entry.key);
        tx.put_timed(Class::Local, TimedIndex::LeaseDeadline, due, &path)?;
    }
    Ok(())
}

/// Stages that it stands there no more.
pub(super) fn unqueue(tx: &Tx, entry: &TokenEntry) -> Result<(), KernelError> {
    if let Some(due) = entry.due() {
        let path = id_path(&entry.namespace_id, &entry.key);
        tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, due, &path)?;
    }
    Ok(())
}

/// The key an accessor's record names.
pub(super) fn key_at(tx: &Tx, path: &str) -> Result<Option<String>, KernelError> {
    let Some(bytes) = tx.peek(Class::Local, path)? else { return Ok(None) };
    decode::<AccessorRecord>(path, &bytes).map(|record| Some(record.key))
}

fn decode<T: serde::de::DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, KernelError> {
    serde_json::from_slice(bytes).map_err(|err| {
        let reason = format!("record, line {}", err.line());
        KernelError::Storage(StorageError::Damaged { key: path.to_owned(), reason })
    })
}
