//! What was read and opened, in memory, never older than what is applied: applying an entry evicts what it changed in
//! the step that publishes the new index.
//!
//! **Invariant:** something enters only if its key has not been evicted after the view it was read from. A reader
//! that holds an older view may meet something newer; never the other way round.
//! Read next: [`crate::watch`], which hears of changes and calls [`ObjectCache::evict`] and [`PlainCache::evict`].

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arca_barrier::Class;
use arca_engine_api::{Decoded, StorageError};
use arca_raft_storage::Version;
use foldhash::fast::FixedState;
use parking_lot::Mutex;

use crate::tx::{Plain, Tx};

const SHARDS: usize = 64;
/// Slots that remember when a key falling into them was last evicted.
const SLOTS: usize = 64;
/// Objects of one generation of a shard. Two generations are kept, so at most 64 × 2 × 512 objects.
const OBJECTS_MAX: usize = 512;
/// Bytes of one generation of a shard of opened values: 64 × 2 × 128 KiB, 16 MiB, in all.
const PLAIN_BYTES_MAX: usize = 128 << 10;
/// Largest opened value kept, bytes.
const PLAIN_SIZE_MAX: usize = 4 << 10;
/// What an entry takes beside its key and value, bytes, roughly.
const ENTRY_OVERHEAD: usize = 128;

/// Shards are chosen by another hash than places within one, or a shard's keys would share low bits.
const PLACE_SEED: u64 = 1;

/// The hash has no secret: keys are sealed names, which nobody outside can choose.
struct Shard<V> {
    young: HashMap<Box<[u8]>, (V, usize), FixedState>,
    old: HashMap<Box<[u8]>, (V, usize), FixedState>,
    young_weight: usize,
    evicted_at: Vec<u64>,
}

impl<V: Clone> Shard<V> {
    fn find(&mut self, key: &[u8], weight_max: usize) -> Option<V> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, (value, weight)) = self.old.remove_entry(key)?;
        self.store(key, value.clone(), weight, weight_max);
        Some(value)
    }

    fn store(&mut self, key: Box<[u8]>, value: V, weight: usize, weight_max: usize) {
        if self.young_weight + weight > weight_max {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += weight;
        if let Some((_, replaced)) = self.young.insert(key, (value, weight)) {
            self.young_weight -= replaced;
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((_, weight)) = self.young.remove(key) {
            self.young_weight -= weight;
        }
        self.old.remove(key);
    }
}

/// Values by physical key, in two generations a shard: when the young one has its weight it becomes the old one, and
/// what is not asked for again falls out with it.
struct Generations<V> {
    shards: Vec<Mutex<Shard<V>>>,
    hasher: FixedState,
    weight_max: usize,
}

impl<V: Clone> Generations<V> {
    fn new(weight_max: usize) -> Self {
        let shard = || Shard {
            young: HashMap::default(),
            old: HashMap::default(),
            young_weight: 0,
            evicted_at: vec![0; SLOTS],
        };
        let shards = (0..SHARDS).map(|_| Mutex::new(shard())).collect();
        Self { shards, hasher: FixedState::with_seed(PLACE_SEED), weight_max }
    }

    fn place(&self, key: &[u8]) -> (Option<&Mutex<Shard<V>>>, usize) {
        let hash = self.hasher.hash_one(key);
        let index = usize::try_from(hash % (SHARDS * SLOTS) as u64).unwrap_or(0);
        (self.shards.get(index % SHARDS), index / SHARDS)
    }

    fn find(&self, key: &[u8]) -> Option<V> {
        let (shard, _) = self.place(key);
        shard?.lock().find(key, self.weight_max)
    }

    fn insert(&self, key: &[u8], view_index: u64, value: V, weight: usize) {
        let (Some(shard), slot) = self.place(key) else { return };
        let mut shard = shard.lock();
        if shard.evicted_at.get(slot).is_some_and(|evicted| *evicted <= view_index) {
            shard.store(key.into(), value, weight, self.weight_max);
        }
    }

    fn evict(&self, key: &[u8], index: u64) {
        let (Some(shard), slot) = self.place(key) else { return };
        let mut shard = shard.lock();
        shard.remove(key);
        if let Some(evicted) = shard.evicted_at.get_mut(slot) {
            *evicted = index.max(*evicted);
        }
    }

    fn evict_everything(&self, index: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.young.clear();
            shard.old.clear();
            shard.young_weight = 0;
            shard.evicted_at.fill(index);
        }
    }
}

/// A value opened before, with the version it was written at.
#[derive(Debug)]
pub struct Opened {
    /// Log index that wrote it.
    pub version: Version,
    /// The value. Wiped when the last holder drops it.
    pub value: Plain,
    decoded: OnceLock<Decoded>,
}

impl Opened {
    /// A value as it was written by `version`.
    #[must_use]
    pub fn new(version: Version, value: Plain) -> Self {
        Self { version, value, decoded: OnceLock::new() }
    }

    /// What `decode` makes of the value, once.
    ///
    /// # Errors
    /// What `decode` says; it is asked again then.
    pub fn decoded(
        &self,
        decode: &dyn Fn(&[u8]) -> Result<Decoded, StorageError>,
    ) -> Result<Decoded, StorageError> {
        if let Some(decoded) = self.decoded.get() {
            return Ok(Arc::clone(decoded));
        }
        let decoded = decode(&self.value)?;
        Ok(Arc::clone(self.decoded.get_or_init(|| decoded)))
    }
}

/// What is known of a key.
#[derive(Clone, Debug)]
pub enum Known {
    /// It has no value, since this index at the latest: what came before is not known.
    Absent(u64),
    /// Its value.
    Value(Arc<Opened>),
}

impl Known {
    fn since(&self) -> u64 {
        match self {
            Self::Absent(index) => *index,
            Self::Value(opened) => opened.version.0,
        }
    }

    /// The value, if there is one.
    #[must_use]
    pub fn value(self) -> Option<Arc<Opened>> {
        match self {
            Self::Absent(_) => None,
            Self::Value(opened) => Some(opened),
        }
    }
}

/// Small values, opened, and keys that have none: what is asked for often is neither opened nor looked for each time.
pub struct PlainCache(Generations<Known>);

impl Default for PlainCache {
    fn default() -> Self {
        Self(Generations::new(PLAIN_BYTES_MAX))
    }
}

impl PlainCache {
    /// What a view at `view_index` shows at a physical key, if it is known: what is there now is that view's too when
    /// it has been so since then.
    #[must_use]
    pub fn find(&self, key: &[u8], view_index: u64) -> Option<Known> {
        self.0.find(key).filter(|known| known.since() <= view_index)
    }

    /// Keeps a value read from a view that shows `view_index`, unless its key was written since or it is large.
    pub fn insert(&self, key: &[u8], view_index: u64, opened: &Arc<Opened>) {
        if opened.value.len() <= PLAIN_SIZE_MAX {
            let weight = key.len() + opened.value.len() + ENTRY_OVERHEAD;
            self.0.insert(key, view_index, Known::Value(Arc::clone(opened)), weight);
        }
    }

    /// Remembers that a view that shows `view_index` has no value at a key, unless it was written since.
    pub fn insert_absent(&self, key: &[u8], view_index: u64) {
        self.0.insert(key, view_index, Known::Absent(view_index), key.len() + ENTRY_OVERHEAD);
    }

    /// The write of entry `index` to `key` is about to become visible.
    pub fn evict(&self, key: &[u8], index: u64) {
        self.0.evict(key, index);
    }

    /// The whole state was replaced.
    pub fn evict_everything(&self, index: u64) {
        self.0.evict_everything(index);
    }
}

impl fmt::Debug for PlainCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainCache").finish_non_exhaustive()
    }
}

type Object = Arc<dyn Any + Send + Sync>;

/// Decoded records.
pub struct ObjectCache {
    objects: Generations<Object>,
    replaced_at: AtomicU64,
}

impl Default for ObjectCache {
    fn default() -> Self {
        Self { objects: Generations::new(OBJECTS_MAX), replaced_at: AtomicU64::new(0) }
    }
}

impl ObjectCache {
    /// The object at a physical key.
    #[must_use]
    pub fn find<T: Send + Sync + 'static>(&self, key: &[u8]) -> Option<Arc<T>> {
        self.objects.find(key)?.downcast().ok()
    }

    /// Keeps an object read from a view that shows `view_index`, unless its key was written since.
    pub fn insert<T: Send + Sync + 'static>(&self, key: &[u8], view_index: u64, object: Arc<T>) {
        self.objects.insert(key, view_index, object, 1);
    }

    /// The write of entry `index` to `key` is about to become visible.
    pub fn evict(&self, key: &[u8], index: u64) {
        self.objects.evict(key, index);
    }

    /// The whole state was replaced.
    pub fn evict_everything(&self, index: u64) {
        self.replaced_at.fetch_max(index, Ordering::AcqRel);
        self.objects.evict_everything(index);
    }

    /// The index at which the whole state was replaced last; zero for never. What was read before is of no use.
    #[must_use]
    pub fn replaced_at(&self) -> u64 {
        self.replaced_at.load(Ordering::Acquire)
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
        let held: usize = cache
            .objects
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock();
                shard.young.len() + shard.old.len()
            })
            .sum();
        assert!(held <= SHARDS * 2 * OBJECTS_MAX, "{held}");
        assert_eq!(cache.find::<u32>(&199_999_u32.to_be_bytes()).as_deref(), Some(&199_999));
    }

    #[test]
    fn a_view_meets_no_value_written_after_it() {
        let cache = PlainCache::default();
        let value = |text: &str| Plain::new(text.as_bytes().to_vec());
        let written = |version, text| Arc::new(Opened::new(Version(version), value(text)));
        cache.insert(b"key", 9, &written(5, "five"));
        assert!(cache.find(b"key", 4).is_none(), "a view from before entry 5");
        let found = |index| cache.find(b"key", index)?.value().map(|opened| opened.value.clone());
        assert_eq!(found(5), Some(value("five")));
        cache.evict(b"key", 10);
        cache.insert(b"key", 9, &written(5, "five"));
        assert!(cache.find(b"key", 9).is_none(), "read before entry 10");
        cache.insert(b"key", 10, &written(10, "ten"));
        assert!(cache.find(b"key", 9).is_none());
        assert_eq!(found(12), Some(value("ten")));
    }

    #[test]
    fn what_is_not_there_is_there_as_soon_as_it_is_written() {
        let cache = PlainCache::default();
        let is_absent =
            |index| cache.find(b"key", index).is_some_and(|known| matches!(known, Known::Absent(_)));
        cache.insert_absent(b"key", 6);
        assert!(!is_absent(5), "it may have been deleted by entry 6");
        assert!(is_absent(6) && is_absent(8));
        cache.evict(b"key", 9);
        assert!(cache.find(b"key", 9).is_none());
        cache.insert_absent(b"key", 8);
        assert!(cache.find(b"key", 9).is_none(), "read before entry 9");
        cache.insert(b"key", 9, &Arc::new(Opened::new(Version(9), Plain::new(vec![1]))));
        cache.insert_absent(b"key", 8);
        assert!(cache.find(b"key", 9).is_some_and(|known| known.value().is_some()));
        cache.evict(b"key", 10);
        cache.insert_absent(b"key", 10);
        assert!(is_absent(10) && cache.find(b"key", 9).is_none());
    }

    #[test]
    fn a_value_is_decoded_once() {
        let opened = Opened::new(Version(1), Plain::new(b"text".to_vec()));
        let refused = opened.decoded(&|_| Err(StorageError::Failed("at first".to_owned())));
        assert!(refused.is_err());
        let decode = |bytes: &[u8]| Ok(Arc::new(bytes.len()) as Decoded);
        assert_eq!(*opened.decoded(&decode).unwrap().downcast::<usize>().unwrap(), 4);
        let again = opened.decoded(&|_| Err(StorageError::Failed("a second time".to_owned())));
        assert_eq!(*again.unwrap().downcast::<usize>().unwrap(), 4);
    }

    #[test]
    fn it_holds_a_bounded_number_of_bytes() {
        let cache = PlainCache::default();
        let value = |size| Arc::new(Opened::new(Version(1), Plain::new(vec![7; size])));
        for number in 0..40_000_u32 {
            cache.insert(&number.to_be_bytes(), 1, &value(2_000));
        }
        let weigh = |map: &HashMap<Box<[u8]>, (Known, usize), FixedState>| {
            map.values().map(|(_, weight)| weight).sum()
        };
        let weights: Vec<(usize, usize, usize)> = cache
            .0
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock();
                (weigh(&shard.young), weigh(&shard.old), shard.young_weight)
            })
            .collect();
        assert!(
            weights
                .iter()
                .all(|(young, old, counted)| young == counted && young.max(old) <= &PLAIN_BYTES_MAX)
        );
        for number in 0..400_000_u32 {
            cache.insert_absent(&number.to_be_bytes(), 1);
        }
        let held: usize = cache.0.shards.iter().map(|shard| shard.lock().young.len()).sum();
        assert!(held <= SHARDS * PLAIN_BYTES_MAX / ENTRY_OVERHEAD, "{held}");
        cache.insert(b"large", 1, &value(PLAIN_SIZE_MAX + 1));
        assert!(cache.find(b"large", 1).is_none());
    }
}
