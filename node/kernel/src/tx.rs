//! One request's transaction: a consistent snapshot to read, staged writes, and the versions it relied on.
//!
//! **Invariant:** a transaction becomes at most one Raft entry. Paths and values are plaintext on this side and
//! sealed on the other; nothing outside this file and [`crate::store`] calls the barrier for stored data.
//! Read next: [`crate::store`] for where transactions begin and are committed.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use arca_barrier::{Barrier, Class};
use arca_danger::Bug;
use arca_engine_api::{Decoded, Page, Storage, StorageError, UnixMillis};
use arca_raft_storage::{Key, ReadView, Version, Visit, Write, WriteSet};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::cache::{Opened, PlainCache};
use crate::walk::walk;

/// Largest plaintext of one entry, bytes.
pub const ENTRY_SIZE_MAX: usize = 1 << 20;

/// Room for a record that holds keys, bytes: several times what certificates, keys and 64 addresses take.
const SECRET_RECORD_ROOM: usize = 64 << 10;

/// Plaintext value.
pub type Plain = Zeroizing<Vec<u8>>;

/// Whether a transaction may stage writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A standby, or an operation declared to only read: staging fails with [`StorageError::ReadOnly`].
    ReadOnly,
    /// The active node.
    ReadWrite,
}

type Address = (Class, String);

/// See the module's header. Methods take `&self`: engines share it across awaits.
pub struct Tx {
    barrier: Arc<Barrier>,
    view: Arc<dyn ReadView>,
    opened: Option<Arc<PlainCache>>,
    mode: Mode,
    staged: Mutex<Staged>,
}

#[derive(Default)]
struct Staged {
    reads: BTreeMap<Key, Version>,
    writes: BTreeMap<Address, Option<Plain>>,
    timed: BTreeMap<Key, Option<Plain>>,
}

impl Tx {
    /// Begins a transaction on `view` that opens every value it reads.
    #[must_use]
    pub fn new(barrier: Arc<Barrier>, view: Arc<dyn ReadView>, mode: Mode) -> Self {
        Self { barrier, view, opened: None, mode, staged: Mutex::default() }
    }

    /// The same with values opened before. Whoever keeps them evicts what is applied.
    #[must_use]
    pub fn with_opened(self, opened: Arc<PlainCache>) -> Self {
        Self { opened: Some(opened), ..self }
    }

    /// The same view with nothing staged, and with leave to write.
    #[must_use]
    pub fn writing(&self) -> Self {
        let (barrier, view) = (Arc::clone(&self.barrier), Arc::clone(&self.view));
        Self { opened: self.opened.clone(), ..Self::new(barrier, view, Mode::ReadWrite) }
    }

    /// Whether writes may be staged.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The barrier it seals with.
    #[must_use]
    pub fn barrier(&self) -> &Barrier {
        &self.barrier
    }

    /// The applied index the reads show.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.view.index()
    }

    /// Whether anything was staged.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.changes() > 0
    }

    /// How many changes were staged.
    #[must_use]
    pub fn changes(&self) -> usize {
        let staged = self.staged.lock();
        staged.writes.len() + staged.timed.len()
    }

    /// Whether anything was staged that performance secondaries share with their primary.
    #[must_use]
    pub fn writes_shared(&self) -> bool {
        let staged = self.staged.lock();
        let is_shared = |key: &Key| is_shared(key);
        staged.writes.keys().any(|(class, _)| *class == Class::Replicated)
            || staged.timed.keys().any(is_shared)
    }

    /// Drops what was staged that performance secondaries share with their primary.
    pub(crate) fn keep_local(&self) {
        let mut staged = self.staged.lock();
        staged.writes.retain(|(class, _), _| *class != Class::Replicated);
        staged.timed.retain(|key, _| !is_shared(key));
    }

    /// The value at `path`, own writes included. In a writing transaction the version read is remembered, and a
    /// concurrent change refuses the commit.
    ///
    /// # Errors
    /// When the entry is damaged or the store fails.
    pub fn get(&self, class: Class, path: &str) -> Result<Option<Plain>, StorageError> {
        self.read(class, path, true)
    }

    /// As [`Self::get`], without guarding the commit: for data whose concurrent change does not matter to the
    /// request (a policy, a mount's tune).
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn peek(&self, class: Class, path: &str) -> Result<Option<Plain>, StorageError> {
        self.read(class, path, false)
    }

    /// The physical key of `path`, as caches and observers know it.
    ///
    /// # Errors
    /// When the path is over a limit.
    pub fn physical_key(&self, class: Class, path: &str) -> Result<Key, StorageError> {
        self.barrier.seal_name(class, path).map_err(|err| damaged(path, &err))
    }

    /// The value at `path` with its physical key and version, for caches: without own writes, not guarded.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn peek_versioned(
        &self,
        class: Class,
        path: &str,
    ) -> Result<Option<(Plain, Key, Version)>, StorageError> {
        let key = self.physical_key(class, path)?;
        let found = self.view.get(&key).map_err(|err| StorageError::Failed(err.to_string()))?;
        let Some(found) = found else { return Ok(None) };
        let plain = self.barrier.open_value(&key, &found.value).map_err(|err| damaged(path, &err))?;
        Ok(Some((plain, key, found.version)))
    }

    /// The version of `path`, without opening the value or guarding the commit.
    ///
    /// # Errors
    /// When the store fails.
    pub fn version(&self, class: Class, path: &str) -> Result<Version, StorageError> {
        let key = self.physical_key(class, path)?;
        let found = self.view.get(&key).map_err(|err| StorageError::Failed(err.to_string()))?;
        Ok(found.map_or(Version::ABSENT, |found| found.version))
    }

    /// Refuses the commit unless `key` is at `version` then: for an object known from a cache.
    pub fn guard(&self, key: &Key, version: Version) {
        if self.mode == Mode::ReadWrite {
            self.staged.lock().reads.entry(key.clone()).or_insert(version);
        }
    }

    /// Whether this transaction itself staged a write to `path`.
    #[must_use]
    pub fn has_staged(&self, class: Class, path: &str) -> bool {
        self.mode == Mode::ReadWrite && self.staged.lock().writes.contains_key(&(class, path.to_owned()))
    }

    fn read(&self, class: Class, path: &str, is_guarded: bool) -> Result<Option<Plain>, StorageError> {
        if self.mode == Mode::ReadWrite
            && let Some(own) = self.staged.lock().writes.get(&(class, path.to_owned()))
        {
            return Ok(own.clone());
        }
        Ok(self.stored(class, path, is_guarded)?.map(|opened| opened.value.clone()))
    }

    /// The value at `path` as `decode` makes it of the bytes, guarded as by [`Self::get`]; once for all who read it,
    /// unless this transaction itself staged it.
    ///
    /// # Errors
    /// As [`Self::get`], and what `decode` says.
    pub fn decoded(
        &self,
        class: Class,
        path: &str,
        decode: &dyn Fn(&[u8]) -> Result<Decoded, StorageError>,
    ) -> Result<Option<Decoded>, StorageError> {
        if self.has_staged(class, path) {
            return self.get(class, path)?.map(|bytes| decode(&bytes)).transpose();
        }
        let is_guarded = !arca_danger::is(Bug::DecodedReadUnguarded);
        self.stored(class, path, is_guarded)?.map(|opened| opened.decoded(decode)).transpose()
    }

    /// The value at `path` without own writes.
    fn stored(
        &self,
        class: Class,
        path: &str,
        is_guarded: bool,
    ) -> Result<Option<Arc<Opened>>, StorageError> {
        let key = self.barrier.seal_name(class, path).map_err(|err| damaged(path, &err))?;
        let opened = self.opened(path, &key)?;
        if is_guarded && self.mode == Mode::ReadWrite {
            let version = opened.as_ref().map_or(Version::ABSENT, |opened| opened.version);
            self.staged.lock().reads.entry(key).or_insert(version);
        }
        Ok(opened)
    }

    /// The value at a physical key, opened now or before.
    fn opened(&self, path: &str, key: &Key) -> Result<Option<Arc<Opened>>, StorageError> {
        let index = self.view.index();
        if let Some(known) = self.opened.as_ref().and_then(|opened| opened.find(key, index)) {
            return Ok(known.value());
        }
        let found = self.view.get(key).map_err(|err| StorageError::Failed(err.to_string()))?;
        let Some(found) = found else {
            if let Some(cache) = &self.opened {
                cache.insert_absent(key, index);
            }
            return Ok(None);
        };
        let value = self.barrier.open_value(key, &found.value).map_err(|err| damaged(path, &err))?;
        let opened = Arc::new(Opened::new(found.version, value));
        if let Some(cache) = &self.opened {
            cache.insert(key, index, &opened);
        }
        Ok(Some(opened))
    }

    /// The JSON record at `path`.
    ///
    /// # Errors
    /// As [`Self::get`], and when it does not parse.
    pub fn get_record<T: DeserializeOwned>(
        &self,
        class: Class,
        path: &str,
    ) -> Result<Option<T>, StorageError> {
        self.get(class, path)?.map(|bytes| parse(path, &bytes)).transpose()
    }

    /// Stages a write.
    ///
    /// # Errors
    /// On a read-only transaction, or when the value is over [`ENTRY_SIZE_MAX`].
    pub fn put(&self, class: Class, path: &str, value: Plain) -> Result<(), StorageError> {
        if value.len() > ENTRY_SIZE_MAX {
            return Err(StorageError::TooLarge { what: "value", size: value.len(), limit: ENTRY_SIZE_MAX });
        }
        self.stage(class, path, Some(value))
    }

    /// Stages a JSON record.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_record<T: Serialize>(&self, class: Class, path: &str, record: &T) -> Result<(), StorageError> {
        let bytes = serde_json::to_vec(record).map_err(|err| StorageError::Failed(err.to_string()))?;
        self.put(class, path, Zeroizing::new(bytes))
    }

    /// The same for a record that holds keys: it is made in one buffer that nothing outgrows, so that no copy of them stays
    /// behind in memory.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn put_secret_record<T: Serialize>(
        &self,
        class: Class,
        path: &str,
        record: &T,
    ) -> Result<(), StorageError> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_RECORD_ROOM));
        serde_json::to_writer(&mut *bytes, record).map_err(|err| StorageError::Failed(err.to_string()))?;
        self.put(class, path, bytes)
    }

    /// Stages a removal.
    ///
    /// # Errors
    /// On a read-only transaction.
    pub fn delete(&self, class: Class, path: &str) -> Result<(), StorageError> {
        self.stage(class, path, None)
    }

    fn stage(&self, class: Class, path: &str, value: Option<Plain>) -> Result<(), StorageError> {
        self.writable()?;
        self.staged.lock().writes.insert((class, path.to_owned()), value);
        Ok(())
    }

    fn writable(&self) -> Result<(), StorageError> {
        if self.mode == Mode::ReadOnly { Err(StorageError::ReadOnly) } else { Ok(()) }
    }

    /// Names directly under `prefix` (empty, or ending in `/`), sorted, own writes included.
    ///
    /// # Errors
    /// When a name is damaged or the store fails.
    pub fn list(&self, class: Class, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let mut names = Names::new(page, self.removals(class, prefix));
        let start = self.barrier.seal_name(class, prefix).map_err(|err| damaged(prefix, &err))?;
        let mut failure = None;
        let mut visitor = |key: &[u8], _: &[u8], _: Version| match self.barrier.open_child(&start, key) {
            Ok(child) => {
                names.insert(&child.name);
                child.subtree_end.map_or(Visit::Next, Visit::Seek)
            }
            Err(err) => {
                failure = Some(damaged(prefix, &err));
                Visit::Stop
            }
        };
        walk(self.view.as_ref(), &start, &Barrier::subtree_end(&start), &mut visitor)
            .map_err(|err| StorageError::Failed(err.to_string()))?;
        if let Some(err) = failure {
            return Err(err);
        }
        self.overlay_list(class, prefix, &mut names)?;
        Ok(names.into_page())
    }

    /// How many removals are staged below `prefix`.
    fn removals(&self, class: Class, prefix: &str) -> usize {
        let staged = self.staged.lock();
        let from = (Bound::Included((class, prefix.to_owned())), Bound::Unbounded);
        staged
            .writes
            .range(from)
            .take_while(|((other, path), _)| *other == class && path.starts_with(prefix))
            .filter(|(_, value)| value.is_none())
            .count()
    }

    /// Adds names staged here and takes out names whose last entry is deleted here.
    fn overlay_list(&self, class: Class, prefix: &str, names: &mut Names<'_>) -> Result<(), StorageError> {
        let mut deleted_folders = Vec::new();
        {
            let staged = self.staged.lock();
            let from = (Bound::Included((class, prefix.to_owned())), Bound::Unbounded);
            for ((other, path), value) in staged.writes.range(from) {
                let Some(rest) = path.strip_prefix(prefix).filter(|_| *other == class) else { break };
                let (name, is_folder) = child_name(rest);
                match (value, is_folder) {
                    (Some(_), _) => names.insert(&name),
                    (None, false) => names.remove(&name),
                    (None, true) => deleted_folders.push(name),
                }
            }
        }
        deleted_folders.dedup();
        for folder in deleted_folders {
            if self
                .scan(class, &format!("{prefix}{folder}"), &Page { limit: Some(1), ..Page::default() })?
                .is_empty()
            {
                names.remove(&folder);
            }
        }
        Ok(())
    }

    /// Paths relative to `prefix`, at any depth, sorted, own writes included.
    ///
    /// # Errors
    /// When a name is damaged or the store fails.
    pub fn scan(&self, class: Class, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let start = self.barrier.seal_name(class, prefix).map_err(|err| damaged(prefix, &err))?;
        let mut found = Names::new(page, self.removals(class, prefix));
        let mut failure = None;
        let mut visitor = |key: &[u8], _: &[u8], _: Version| match self.barrier.open_name(key) {
            Ok((_, path)) => {
                if let Some(rest) = path.strip_prefix(prefix) {
                    found.insert(rest);
                }
                Visit::Next
            }
            Err(err) => {
                failure = Some(damaged(prefix, &err));
                Visit::Stop
            }
        };
        walk(self.view.as_ref(), &start, &Barrier::subtree_end(&start), &mut visitor)
            .map_err(|err| StorageError::Failed(err.to_string()))?;
        if let Some(err) = failure {
            return Err(err);
        }
        let staged = self.staged.lock();
        let from = (Bound::Included((class, prefix.to_owned())), Bound::Unbounded);
        for ((other, path), value) in staged.writes.range(from) {
            let Some(rest) = path.strip_prefix(prefix).filter(|_| *other == class) else { break };
            if value.is_some() {
                found.insert(rest);
            } else {
                found.remove(rest);
            }
        }
        drop(staged);
        Ok(found.into_page())
    }

    /// Up to `limit` paths below `prefix`, full and in no useful order, own staged writes left out: for removing a
    /// subtree piece by piece without reading all of it first.
    ///
    /// # Errors
    /// When a name is damaged or the store fails.
    pub fn some_below(&self, class: Class, prefix: &str, limit: usize) -> Result<Vec<String>, StorageError> {
        self.some_below_after(class, prefix, None, limit)
    }

    /// As [`Self::some_below`], going on behind a path that an earlier call answered last.
    ///
    /// # Errors
    /// As [`Self::some_below`].
    pub fn some_below_after(
        &self,
        class: Class,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, StorageError> {
        let folder = self.physical_key(class, prefix)?;
        let end = Barrier::subtree_end(&folder);
        let start = match after {
            None => folder,
            Some(path) => {
                let mut key = self.physical_key(class, path)?;
                key.push(0);
                key
            }
        };
        let mut found = Vec::new();
        let mut failure = None;
        let mut visitor = |key: &[u8], _: &[u8], _: Version| {
            if found.len() >= limit {
                return Visit::Stop;
            }
            match self.barrier.open_name(key) {
                Ok((_, path)) => found.push(path),
                Err(err) => {
                    failure = Some(damaged(prefix, &err));
                    return Visit::Stop;
                }
            }
            Visit::Next
        };
        self.view
            .visit(&start, Some(&end), &mut visitor)
            .map_err(|err| StorageError::Failed(err.to_string()))?;
        failure.map_or(Ok(found), Err)
    }

    /// Stages an entry of a time-ordered index: `path` falls due at `due`. `index` tells indexes apart
    /// ([`arca_barrier::TimedIndex`]). The moment is readable at rest, the path is not.
    ///
    /// # Errors
    /// On a read-only transaction.
    pub fn put_timed(
        &self,
        class: Class,
        index: arca_barrier::TimedIndex,
        due: UnixMillis,
        path: &str,
    ) -> Result<(), StorageError> {
        self.writable()?;
        let key = self.barrier.seal_timed(class, index, due.0, path).map_err(|err| damaged(path, &err))?;
        self.staged.lock().timed.insert(key, Some(Zeroizing::new(Vec::new())));
        Ok(())
    }

    /// Stages the removal of such an entry.
    ///
    /// # Errors
    /// On a read-only transaction.
    pub fn delete_timed(
        &self,
        class: Class,
        index: arca_barrier::TimedIndex,
        due: UnixMillis,
        path: &str,
    ) -> Result<(), StorageError> {
        self.writable()?;
        let key = self.barrier.seal_timed(class, index, due.0, path).map_err(|err| damaged(path, &err))?;
        self.staged.lock().timed.insert(key, None);
        Ok(())
    }

    /// Up to `limit` entries due at or before `until`, soonest first, behind the one an earlier call answered last.
    /// Own staged entries are not included. A damaged entry is passed over, with a line in the log: it holds up
    /// nothing behind it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn due(
        &self,
        class: Class,
        index: arca_barrier::TimedIndex,
        until: UnixMillis,
        after: Option<&(UnixMillis, String)>,
        limit: usize,
    ) -> Result<Vec<(UnixMillis, String)>, StorageError> {
        let (mut start, end) = Barrier::timed_range(class, index, until.0);
        if let Some((due, path)) = after {
            start = self.barrier.seal_timed(class, index, due.0, path).map_err(|err| damaged(path, &err))?;
            start.push(0);
        }
        let mut found = Vec::new();
        let mut failure = None;
        let mut visitor = |key: &[u8], _: &[u8], _: Version| {
            if found.len() >= limit {
                return Visit::Stop;
            }
            match self.barrier.open_timed(key) {
                Ok((due, path)) => found.push((UnixMillis(due), path)),
                Err(err) => failure = Some(damaged("time index", &err)),
            }
            Visit::Next
        };
        self.view
            .visit(&start, Some(&end), &mut visitor)
            .map_err(|err| StorageError::Failed(err.to_string()))?;
        if let Some(err) = failure {
            tracing::error!(error = %err, "an entry of the time index is passed over");
        }
        Ok(found)
    }

    /// Seals what was staged. Empty when nothing was.
    ///
    /// # Errors
    /// When the barrier cannot seal (randomness failed): nothing is stored.
    pub fn into_write_set(self) -> Result<WriteSet, StorageError> {
        let staged = self.staged.into_inner();
        let mut writes = Vec::with_capacity(staged.writes.len() + staged.timed.len());
        for ((class, path), value) in staged.writes {
            let key = self.barrier.seal_name(class, &path).map_err(|err| damaged(&path, &err))?;
            writes.push(seal(&self.barrier, key, value.as_deref(), &path)?);
        }
        for (key, value) in staged.timed {
            writes.push(seal(&self.barrier, key, value.as_deref(), "time index")?);
        }
        Ok(WriteSet { reads: staged.reads.into_iter().collect(), writes })
    }
}

/// Whether an entry is the same on performance secondaries and their primary: of class `Replicated`, or of those in front
/// of the classes.
pub(crate) fn is_shared(key: &[u8]) -> bool {
    !matches!(key.first().map(|tag| Class::from_tag(*tag)), Some(Ok(Class::Local | Class::Node)))
}

fn seal(barrier: &Barrier, key: Key, value: Option<&Vec<u8>>, path: &str) -> Result<Write, StorageError> {
    let Some(plain) = value else { return Ok(Write::Delete(key)) };
    let sealed = barrier.seal_value(&key, plain).map_err(|err| damaged(path, &err))?;
    Ok(Write::Put(key, sealed))
}

fn parse<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, StorageError> {
    serde_json::from_slice(bytes).map_err(|err| StorageError::Damaged {
        key: path.to_owned(),
        reason: format!("record, line {}", err.line()),
    })
}

/// What is wrong with the entry at `path`, or with `path` itself: that may be a caller's text, and is not repeated.
fn damaged(path: &str, err: &arca_barrier::BarrierError) -> StorageError {
    use arca_barrier::BarrierError::{PathTooDeep, PathTooLong, SegmentTooLong};
    let too_large = |size, limit| StorageError::TooLarge { what: "name", size, limit };
    match *err {
        PathTooDeep { limit } => return too_large(path.split('/').count(), limit),
        PathTooLong { size, limit } | SegmentTooLong { size, limit } => return too_large(size, limit),
        _ => {}
    }
    StorageError::Damaged { key: path.to_owned(), reason: err.to_string() }
}

/// The first name of `rest` with its slash, and whether it is a folder.
fn child_name(rest: &str) -> (String, bool) {
    rest.split_once('/').map_or_else(|| (rest.to_owned(), false), |(head, _)| (format!("{head}/"), true))
}

/// The first names of a listing, no more than its page asks for. Sealed names are stored in another order: all have to
/// be looked at, but not kept.
struct Names<'a> {
    page: &'a Page,
    /// The page, and as many names as may be taken out again.
    most: usize,
    kept: BTreeSet<String>,
}

impl<'a> Names<'a> {
    /// None yet; at most `removals` of them will be removed.
    fn new(page: &'a Page, removals: usize) -> Self {
        let most = page.limit.map_or(usize::MAX, |limit| limit.saturating_add(removals));
        Self { page, most, kept: BTreeSet::new() }
    }

    fn insert(&mut self, name: &str) {
        if self.page.after.as_ref().is_some_and(|after| name <= after.as_str()) {
            return;
        }
        if self.kept.len() < self.most {
            self.kept.insert(name.to_owned());
        } else if self.kept.last().is_some_and(|last| name < last.as_str())
            && self.kept.insert(name.to_owned())
        {
            self.kept.pop_last();
        }
    }

    fn remove(&mut self, name: &str) {
        self.kept.remove(name);
    }

    fn into_page(self) -> Vec<String> {
        self.kept.into_iter().take(self.page.limit.unwrap_or(usize::MAX)).collect()
    }
}

/// An engine's window on a transaction: everything below one prefix.
pub struct EngineStorage<'a> {
    tx: &'a Tx,
    prefix: String,
    class: Class,
    local_prefixes: &'static [&'static str],
}

impl<'a> EngineStorage<'a> {
    /// A window below `prefix` (ending in `/`). Keys under `local_prefixes` are of class local.
    #[must_use]
    pub fn new(tx: &'a Tx, prefix: String, class: Class, local_prefixes: &'static [&'static str]) -> Self {
        Self { tx, prefix, class, local_prefixes }
    }

    fn address(&self, key: &str) -> (Class, String) {
        let is_local = self.local_prefixes.iter().any(|local| key.starts_with(local));
        (if is_local { Class::Local } else { self.class }, format!("{}{key}", self.prefix))
    }
}

impl Storage for EngineStorage<'_> {
    fn get(&self, key: &str) -> Result<Option<Plain>, StorageError> {
        let (class, path) = self.address(key);
        self.tx.get(class, &path)
    }

    fn decoded(
        &self,
        key: &str,
        decode: &dyn Fn(&[u8]) -> Result<Decoded, StorageError>,
    ) -> Result<Option<Decoded>, StorageError> {
        let (class, path) = self.address(key);
        self.tx.decoded(class, &path, decode)
    }

    fn list(&self, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let (class, path) = self.address(prefix);
        self.tx.list(class, &path, page)
    }

    fn scan(&self, prefix: &str, page: &Page) -> Result<Vec<String>, StorageError> {
        let (class, path) = self.address(prefix);
        self.tx.scan(class, &path, page)
    }

    fn put(&self, key: &str, value: Plain) -> Result<(), StorageError> {
        let (class, path) = self.address(key);
        self.tx.put(class, &path, value)
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        let (class, path) = self.address(key);
        self.tx.delete(class, &path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in a scattered order.
    fn scattered(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(move |at| format!("{:05}", at * 7_919 % count))
    }

    fn check(after: Option<&str>, limit: Option<usize>, removed: &[&str]) {
        const COUNT: usize = 20_000;
        let page = Page { after: after.map(str::to_owned), limit };
        let mut names = Names::new(&page, removed.len());
        let mut largest = 0;
        for name in scattered(COUNT) {
            names.insert(&name);
            largest = largest.max(names.kept.len());
        }
        for name in removed {
            names.remove(name);
        }
        names.insert("00003+");
        let mut want: BTreeSet<String> = scattered(COUNT).chain(["00003+".to_owned()]).collect();
        want.retain(|name| !removed.contains(&name.as_str()));
        let want: Vec<String> = want
            .into_iter()
            .filter(|name| after.is_none_or(|after| name.as_str() > after))
            .take(limit.unwrap_or(COUNT * 2))
            .collect();
        assert_eq!(names.into_page(), want, "after {after:?}, limit {limit:?}, without {removed:?}");
        if let Some(limit) = limit {
            assert!(largest <= limit + removed.len(), "{largest} kept for {limit}");
        }
    }

    #[test]
    fn a_page_keeps_no_more_than_it_shows() {
        for after in [None, Some("00002"), Some("19998"), Some("99999")] {
            for limit in [Some(0), Some(1), Some(2), Some(5), Some(100), None] {
                check(after, limit, &[]);
                check(after, limit, &["00000", "00003", "19999", "nowhere"]);
            }
        }
    }
}
