//! [`Kv`] over RocksDB, without its write-ahead log: what it loses in a crash, the replicated log replays.
//!
//! **Invariant:** closing does not flush, so that a clean exit and a crash meet the same rules; whoever wants the
//! data durable calls `flush`. Sized for a small node: a bounded memtable, a small cache, few threads and files.

use std::fmt;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, DataBlockIndexType,
    ErrorKind, FlushOptions, LogLevel, Options, ReadOptions, Snapshot, WriteBatch, WriteOptions,
};
use self_cell::self_cell;

use super::{Batch, Kv, KvError, KvSnapshot, Visit};

/// How much memory a store may take. The defaults suit a node that must idle in 50 MB.
#[derive(Clone, Copy, Debug)]
pub struct RocksOptions {
    /// Cache of blocks, indexes and filters.
    pub cache_bytes: usize,
    /// One memtable; there may be two while one is being flushed. Taken as it fills.
    pub memtable_bytes: usize,
    /// Table files held open.
    pub open_files_max: u16,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self { cache_bytes: 12 << 20, memtable_bytes: 16 << 20, open_files_max: 256 }
    }
}

/// The store.
#[derive(Clone)]
pub struct RocksKv {
    store: Arc<Store>,
}

/// Fields drop in this order: the database closes before its directory may go.
pub(super) struct Store {
    db: DB,
    dir: Directory,
    /// Gone once the database is closed, which takes a moment after its last user has left.
    open: Arc<()>,
}

struct Directory {
    path: PathBuf,
    is_doomed: AtomicBool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.is_doomed.load(Ordering::Acquire)
            && let Err(err) = fs::remove_dir_all(&self.path)
        {
            tracing::warn!(dir = %self.path.display(), %err, "could not remove an abandoned store; the next start does");
        }
    }
}

impl Store {
    /// Lives as long as the database is open.
    pub(super) fn open(&self) -> Weak<()> {
        Arc::downgrade(&self.open)
    }

    /// Removes the directory once the last user is gone.
    pub(super) fn doom(&self, is_doomed: bool) {
        self.dir.is_doomed.store(is_doomed, Ordering::Release);
    }
}

impl RocksKv {
    /// Opens the store in `dir`.
    ///
    /// # Errors
    /// When there is none, it is damaged, in use, or the system fails.
    pub fn open(dir: &Path, options: RocksOptions) -> Result<Self, KvError> {
        if !dir.join("CURRENT").is_file() {
            return Err(KvError::Corrupt(format!("{} is missing", dir.join("CURRENT").display())));
        }
        Self::open_with(dir, &database_options(options)?)
    }

    /// Makes an empty store in `dir`, which must not hold one.
    ///
    /// # Errors
    /// When it does, or the system fails.
    pub fn create(dir: &Path, options: RocksOptions) -> Result<Self, KvError> {
        create_dir(dir)?;
        let mut options = database_options(options)?;
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        Self::open_with(dir, &options)
    }

    fn open_with(dir: &Path, options: &Options) -> Result<Self, KvError> {
        restrict_files(dir)?;
        let db = DB::open(options, dir).map_err(|err| error(dir, &err))?;
        restrict_files(dir)?;
        let dir = Directory { path: dir.to_owned(), is_doomed: AtomicBool::new(false) };
        Ok(Self { store: Arc::new(Store { db, dir, open: Arc::default() }) })
    }

    pub(super) const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn error(&self, err: &rocksdb::Error) -> KvError {
        error(&self.store.dir.path, err)
    }
}

impl fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksKv").field("dir", &self.store.dir.path).finish_non_exhaustive()
    }
}

fn database_options(sizes: RocksOptions) -> Result<Options, KvError> {
    // What has no method of its own. Flushing at close would hide from tests what a crash loses.
    let mut options = Options::default()
        .get_options_from_string("avoid_flush_during_shutdown=true;verify_sst_unique_id_in_manifest=true")
        .map_err(|err| KvError::Io(err.to_string()))?;
    // Values are ciphertext: nothing to gain. Keys share prefixes, which blocks store once anyway.
    options.set_compression_type(DBCompressionType::None);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(sizes.memtable_bytes);
    options.set_max_write_buffer_number(2);
    options.set_arena_block_size(256 << 10);
    options.set_allow_concurrent_memtable_write(false);
    options.set_target_file_size_base(16 << 20);
    options.set_max_bytes_for_level_base(64 << 20);
    options.set_max_open_files(i32::from(sizes.open_files_max));
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_manifest_file_size(4 << 20);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_block_based_table_factory(&table_options(sizes));
    Ok(options)
}

fn table_options(sizes: RocksOptions) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(sizes.cache_bytes));
    // In the cache, so that one number bounds them all.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // In parts: whole, the index of one file is most of a megabyte, and a few dozen files push each other out of the
    // cache, so that most reads bring in one. That took a quarter of the time in which many leases end.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(4 << 10);
    table.set_pin_top_level_index_and_filter(true);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(6);
    // Sealed names are spread, so a block brings little more than its one entry: small ones fit more hot keys in the
    // cache. Hot reads gain about a quarter over 8 KiB blocks; cold ones showed no difference beyond noise.
    table.set_block_size(4 << 10);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    table
}

/// RocksDB tells a full disk from other failures, and names the damaged file, only in its message.
pub(super) fn error(dir: &Path, err: &rocksdb::Error) -> KvError {
    let message: &str = err.as_ref();
    if message.contains("No space left on device") || message.contains("space limit reached") {
        return KvError::Full;
    }
    let is_missing = message.contains("No such file or directory");
    let place = dir.display().to_string();
    let text = if message.contains(&place) { message.to_owned() } else { format!("{message} (in {place})") };
    match err.kind() {
        ErrorKind::Corruption => KvError::Corrupt(text),
        ErrorKind::IOError if is_missing => KvError::Corrupt(text),
        _ => KvError::Io(text),
    }
}

pub(super) fn io_error(what: &str, path: &Path, err: &std::io::Error) -> KvError {
    if err.kind() == std::io::ErrorKind::StorageFull {
        return KvError::Full;
    }
    KvError::Io(format!("{what} {}: {err}", path.display()))
}

/// A directory that only we may enter, whatever the umask.
pub(super) fn create_dir(dir: &Path) -> Result<(), KvError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)))
        .map_err(|err| io_error("create", dir, &err))
}

/// RocksDB makes files as the umask lets it. The directory keeps others out; this is for copies made of it.
fn restrict_files(dir: &Path) -> Result<(), KvError> {
    for entry in fs::read_dir(dir).map_err(|err| io_error("list", dir, &err))? {
        let entry = entry.map_err(|err| io_error("list", dir, &err))?;
        let restricted = entry.metadata().and_then(|found| {
            if found.is_file() && found.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o600))?;
            }
            Ok(())
        });
        match restricted {
            Ok(()) => {}
            // A compaction took it.
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {}
            Err(err) => return Err(io_error("restrict", &entry.path(), &err)),
        }
    }
    Ok(())
}

impl Kv for RocksKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.store.db.get(key).map_err(|err| self.error(&err))
    }

    fn snapshot(&self) -> Arc<dyn KvSnapshot> {
        Arc::new(RocksSnapshot { cell: Pinned::new(self.store.clone(), |store| store.db.snapshot()) })
    }

    fn write(&self, batch: Batch) -> Result<(), KvError> {
        let mut raw = WriteBatch::default();
        for (key, value) in batch.changes {
            match value {
                Some(value) => raw.put(key, value),
                None => raw.delete(key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.store.db.write_opt(raw, &options).map_err(|err| self.error(&err))
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.store.db.flush_opt(&options).map_err(|err| self.error(&err))?;
        restrict_files(&self.store.dir.path)
    }
}

self_cell!(
    /// A snapshot together with the store it borrows from.
    struct Pinned {
        owner: Arc<Store>,
        #[covariant]
        dependent: Snapshot,
    }
);

struct RocksSnapshot {
    cell: Pinned,
}

impl RocksSnapshot {
    fn error(&self, err: &rocksdb::Error) -> KvError {
        error(&self.cell.borrow_owner().dir.path, err)
    }
}

impl KvSnapshot for RocksSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.cell.borrow_dependent().get(key).map_err(|err| self.error(&err))
    }

    fn visit(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit,
    ) -> Result<(), KvError> {
        if end.is_some_and(|end| start >= end) {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut entries = self.cell.borrow_dependent().raw_iterator_opt(options);
        entries.seek(start);
        walk(&mut entries, visitor);
        entries.status().map_err(|err| self.error(&err))
    }
}

fn walk(entries: &mut DBRawIterator<'_>, visitor: &mut dyn FnMut(&[u8], &[u8]) -> Visit) {
    while let Some((key, value)) = entries.item() {
        match visitor(key, value) {
            Visit::Next => entries.next(),
            Visit::Seek(target) if target.as_slice() > key => entries.seek(target),
            Visit::Seek(_) => entries.next(),
            Visit::Stop => return,
        }
    }
}
