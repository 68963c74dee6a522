//! Decoded objects in memory, never older than what is applied: applying an entry evicts what it changed in the
//! step that publishes the new index.
//!
//! **Invariant:** an object enters only if its key has not been evicted after the view it was read from. A reader
//! that holds an older view may meet a newer object; never the other way round.
//! Read next: [`crate::watch`], which hears of changes and calls [`ObjectCache::evict`].

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arca_barrier::Class;
use arca_engine_api::StorageError;
use parking_lot::Mutex;

use crate::tx::Tx;

const SHARDS: usize = 64;
/// Slots that remember when a key falling into them was last evicted.
const SLOTS: usize = 64;
/// Objects of one generation of a shard. Two generations are kept, so at most 64 × 2 × 512 objects.
const GENERATION_MAX: usize = 512;

type Object = Arc<dyn Any + Send + Sync>;

#[derive(Default)]
struct Shard {
    young: HashMap<Box<[u8]>, Object>,
    old: HashMap<Box<[u8]>, Object>,
    evicted_at: Vec<u64>,
}

impl Shard {
    fn find(&mut self, key: &[u8]) -> Option<Object> {
        if let Some(object) = self.young.get(key) {
            return Some(Arc::clone(object));
        }
        let (key, object) = self.old.remove_entry(key)?;
        self.store(key, Arc::clone(&object));
        Some(object)
    }

    fn store(&mut self, key: Box<[u8]>, object: Object) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, object);
    }
}

/// See the file's header.
pub struct ObjectCache {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

impl Default for ObjectCache {
    fn default() -> Self {
        let shard = || Mutex::new(Shard { evicted_at: vec![0; SLOTS], ..Shard::default() });
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hasher: RandomState::new() }
    }
}

impl ObjectCache {
    fn place(&self, key: &[u8]) -> (Option<&Mutex<Shard>>, usize) {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % (SHARDS * SLOTS) as u64).unwrap_or(0);
        (self.shards.get(index % SHARDS), index / SHARDS)
    }

    /// The object at a physical key.
    #[must_use]
    pub fn find<T: Send + Sync + 'static>(&self, key: &[u8]) -> Option<Arc<T>> {
        let (shard, _) = self.place(key);
        let object = shard?.lock().find(key)?;
        object.downcast().ok()
    }

    /// Keeps an object read from a view that shows `view_index`, unless its key was written since.
    pub fn insert<T: Send + Sync + 'static>(&self, key: &[u8], view_index: u64, object: Arc<T>) {
        let (Some(shard), slot) = self.place(key) else { return };
        let mut shard = shard.lock();
        if shard.evicted_at.get(slot).is_some_and(|evicted| *evicted <= view_index) {
            shard.store(key.into(), object);
        }
    }

    /// The write of entry `index` to `key` is about to become visible.
    pub fn evict(&self, key: &[u8], index: u64) {
        let (Some(shard), slot) = self.place(key) else { return };
        let mut shard = shard.lock();
        shard.young.remove(key);
        shard.old.remove(key);
        if let Some(evicted) = shard.evicted_at.get_mut(slot) {
            *evicted = index.max(*evicted);
        }
    }

    /// The whole state was replaced.
    pub fn evict_everything(&self, index: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.young.clear();
            shard.old.clear();
            shard.evicted_at.fill(index);
        }
    }

    /// The object at `path`, decoded once. What `tx` itself staged is decoded afresh; the read is not guarded.
    ///
    /// # Errors
    /// When the entry cannot be read or `decode` refuses it.
    pub fn read_through<T, E>(
        &self,
        tx: &Tx,
        class: Class,
        path: &str,
        decode: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<Option<Arc<T>>, E>
    where
        T: Send + Sync + 'static,
        E: From<StorageError>,
    {
        if tx.has_staged(class, path) {
            return tx.peek(class, path)?.map(|bytes| decode(&bytes).map(Arc::new)).transpose();
        }
        let key = tx.physical_key(class, path)?;
        if let Some(found) = self.find(&key) {
            return Ok(Some(found));
        }
        let Some(bytes) = tx.peek(class, path)? else { return Ok(None) };
        let object = Arc::new(decode(&bytes)?);
        self.insert(&key, tx.index(), Arc::clone(&object));
        Ok(Some(object))
    }
}

impl fmt::Debug for ObjectCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_older_than_an_eviction_does_not_enter() {
        let cache = ObjectCache::default();
        cache.insert(b"key", 5, Arc::new(1_u32));
        assert_eq!(cache.find::<u32>(b"key").as_deref(), Some(&1));
        cache.evict(b"key", 7);
        assert_eq!(cache.find::<u32>(b"key"), None);
        cache.insert(b"key", 6, Arc::new(1_u32));
        assert_eq!(cache.find::<u32>(b"key"), None, "read before entry 7");
        cache.insert(b"key", 7, Arc::new(2_u32));
        assert_eq!(cache.find::<u32>(b"key").as_deref(), Some(&2));
        cache.evict_everything(9);
        assert_eq!(cache.find::<u32>(b"key"), None);
        cache.insert(b"other", 8, Arc::new(2_u32));
        assert_eq!(cache.find::<u32>(b"other"), None);
    }

    #[test]
    fn it_holds_a_bounded_number_of_objects() {
        let cache = ObjectCache::default();
        for number in 0..200_000_u32 {
            cache.insert(&number.to_be_bytes(), 1, Arc::new(number));
        }
        let held: usize =
            cache.shards.iter().map(|shard| shard.lock().young.len() + shard.lock().old.len()).sum();
        assert!(held <= SHARDS * 2 * GENERATION_MAX, "{held}");
        assert_eq!(cache.find::<u32>(&199_999_u32.to_be_bytes()).as_deref(), Some(&199_999));
    }
}
