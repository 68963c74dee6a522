//! [`Kv`] in memory, with the crash semantics of the real one: what was not flushed may be lost, from the newest
//! batch backwards. Stands in for RocksDB in the simulation, in tests, and under `storage "inmem"`.
//!
//! Keys hold their versions, oldest first, so that taking a snapshot costs nothing; versions that no snapshot can see
//! are dropped as writes go on.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::{Batch, Kv, KvDraft, KvError, KvHome, KvSnapshot, Visit};

/// Entries copied out at a time by a scan, so that visitors run without the lock.
const PAGE: usize = 64;

type Value = Arc<[u8]>;
type Seq = u64;

/// The store. Clones share it.
#[derive(Clone, Default)]
pub struct ModelKv {
    shared: Arc<RwLock<Inner>>,
}

#[derive(Default)]
struct Inner {
    /// Number of the last batch.
    seq: Seq,
    /// Versions by the batch that made them, ascending. `None` is a delete. Never empty.
    keys: BTreeMap<Vec<u8>, Vec<(Seq, Option<Value>)>>,
    /// Batches that snapshots show, and how many do.
    snapshots: BTreeMap<Seq, usize>,
    /// Keys written, by batch: where older versions may be dropped once no snapshot shows them.
    written: VecDeque<(Seq, Vec<u8>)>,
    /// What a crash cannot take.
    flushed: BTreeMap<Vec<u8>, Value>,
    /// What it can, oldest first.
    unflushed: Vec<Vec<(Vec<u8>, Option<Value>)>>,
    is_full: bool,
}

impl ModelKv {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a crash now would leave: every flushed batch, and as many of the later ones as `seed` says. This store
    /// itself is not changed; whoever still holds it is as dead as the process was.
    #[must_use]
    pub fn crashed(&self, seed: u64) -> Self {
        let inner = self.shared.read();
        let survivors = mix(seed) % (inner.unflushed.len() as u64 + 1);
        let mut flushed = inner.flushed.clone();
        for batch in inner.unflushed.iter().take(usize::try_from(survivors).unwrap_or(usize::MAX)) {
            replay(&mut flushed, batch);
        }
        let keys = flushed.iter().map(|(key, value)| (key.clone(), vec![(0, Some(value.clone()))])).collect();
        Self { shared: Arc::new(RwLock::new(Inner { keys, flushed, ..Inner::default() })) }
    }

    /// Whether writes and flushes answer [`KvError::Full`].
    pub fn set_full(&self, is_full: bool) {
        self.shared.write().is_full = is_full;
    }

    /// How many batches a crash could take.
    #[must_use]
    pub fn unflushed_batches(&self) -> usize {
        self.shared.read().unflushed.len()
    }
}

/// Spreads seeds that differ little.
const fn mix(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn replay(map: &mut BTreeMap<Vec<u8>, Value>, batch: &[(Vec<u8>, Option<Value>)]) {
    for (key, value) in batch {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

impl fmt::Debug for ModelKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelKv").field("keys", &self.shared.read().keys.len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn at(&self, key: &[u8], seq: Seq) -> Option<&Value> {
        version_at(self.keys.get(key)?, seq)
    }

    fn page(&self, start: Bound<&[u8]>, end: Option<&[u8]>, seq: Seq) -> Vec<(Vec<u8>, Value)> {
        if let (Bound::Included(start) | Bound::Excluded(start), Some(end)) = (start, end)
            && start >= end
        {
            return Vec::new();
        }
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        self.keys
            .range::<[u8], _>((start, end))
            .filter_map(|(key, versions)| Some((key.clone(), version_at(versions, seq)?.clone())))
            .take(PAGE)
            .collect()
    }

    fn write(&mut self, batch: Batch) {
        self.seq += 1;
        let seq = self.seq;
        let changes: Vec<_> =
            batch.changes.into_iter().map(|(key, value)| (key, value.map(Value::from))).collect();
        for (key, value) in &changes {
            let versions = self.keys.entry(key.clone()).or_default();
            versions.retain(|(at, _)| *at != seq);
            versions.push((seq, value.clone()));
            self.written.push_back((seq, key.clone()));
        }
        self.unflushed.push(changes);
        self.prune();
    }

    /// Drops the versions that the oldest snapshot, and so every one, sees a later version of.
    fn prune(&mut self) {
        let oldest = self.snapshots.keys().next().copied().unwrap_or(self.seq);
        while let Some((_, key)) = self.written.pop_front_if(|(seq, _)| *seq <= oldest) {
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            let visible = versions.iter().rposition(|(at, _)| *at <= oldest).unwrap_or(0);
            versions.drain(..visible);
            if matches!(versions.as_slice(), [(at, None)] if *at <= oldest) {
                self.keys.remove(&key);
            }
        }
    }
}

fn version_at(versions: &[(Seq, Option<Value>)], seq: Seq) -> Option<&Value> {
    versions.iter().rev().find(|(at, _)| *at <= seq)?.1.as_ref()
}

impl Kv for ModelKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let inner = self.shared.read();
        Ok(inner.at(key, inner.seq).map(|value| value.to_vec()))
    }

    fn snapshot(&self) -> Arc<dyn KvSnapshot> {
        let mut inner = self.shared.write();
        let seq = inner.seq;
        *inner.snapshots.entry(seq).or_default() += 1;
        Arc::new(ModelSnapshot { shared: self.shared.clone(), seq })
    }

    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut inner = self.shared.write();
        if inner.is_full {
            return Err(KvError::Full);
        }
        inner.write(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut inner = self.shared.write();
        if inner.is_full {
            return Err(KvError::Full);
        }
        for batch in std::mem::take(&mut inner.unflushed) {
            replay(&mut inner.flushed, &batch);
        }
        Ok(())
    }
}

struct ModelSnapshot {
    shared: Arc<RwLock<Inner>>,
    seq: Seq,
}

impl Drop for ModelSnapshot {
    fn drop(&mut self) {
        let mut inner = self.shared.write();
        if let Some(count) = inner.snapshots.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                inner.snapshots.remove(&self.seq);
            }
        }
    }
}

impl KvSnapshot for ModelSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.shared.read().at(key, self.seq).map(|value| value.to_vec()))
    }

    fn visit(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), KvError> {
        let mut from = Bound::Included(start.to_vec());
        loop {
            let page = self.shared.read().page(from.as_ref().map(Vec::as_slice), end, self.seq);
            let Some((last, _)) = page.last() else { return Ok(()) };
            let mut next = Bound::Excluded(last.clone());
            let mut skip_to: Option<Vec<u8>> = None;
            for (key, value) in &page {
                if skip_to.as_ref().is_some_and(|target| key < target) {
                    continue;
                }
                match visitor(key, value) {
                    Visit::Next => {}
                    Visit::Seek(target) => skip_to = Some(target),
                    Visit::Stop => return Ok(()),
                }
            }
            if let Some(target) = skip_to.filter(|target| target > last) {
                next = Bound::Included(target);
            }
            from = next;
        }
    }
}

type WriteTime = Box<dyn Fn() -> Duration + Send + Sync>;

/// The stores of one simulated node: they outlive its crashes.
#[derive(Default)]
pub struct ModelHome {
    current: Arc<Mutex<ModelKv>>,
    write_time: Option<WriteTime>,
}

impl fmt::Debug for ModelHome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelHome").field("current", &self.current).finish_non_exhaustive()
    }
}

impl ModelHome {
    /// A home whose store is empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, asked before each batch of entries how long that takes. Without it, they take no time.
    #[must_use]
    pub fn with_write_time(self, write_time: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { write_time: Some(Box::new(write_time)), ..self }
    }

    /// The current store, for looking and for injecting faults.
    #[must_use]
    pub fn current(&self) -> ModelKv {
        self.current.lock().clone()
    }

    /// Loses what a crash may lose. Open again afterwards; what was open before is detached.
    pub fn crash(&self, seed: u64) {
        let mut current = self.current.lock();
        *current = current.crashed(seed);
    }
}

impl KvHome for ModelHome {
    fn open(&self) -> Result<Arc<dyn Kv>, KvError> {
        Ok(Arc::new(self.current()))
    }

    fn draft(&self) -> Result<Box<dyn KvDraft>, KvError> {
        let model = ModelKv::new();
        let kv = Arc::new(model.clone());
        Ok(Box::new(ModelDraft { current: self.current.clone(), model, kv }))
    }

    fn write_time(&self) -> Duration {
        self.write_time.as_ref().map_or(Duration::ZERO, |write_time| write_time())
    }
}

#[derive(Debug)]
struct ModelDraft {
    current: Arc<Mutex<ModelKv>>,
    model: ModelKv,
    kv: Arc<dyn Kv>,
}

impl KvDraft for ModelDraft {
    fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    fn promote(self: Box<Self>) -> Result<Arc<dyn Kv>, KvError> {
        self.kv.flush()?;
        *self.current.lock() = self.model;
        Ok(self.kv)
    }
}
