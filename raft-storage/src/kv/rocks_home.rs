//! Where a node's RocksDB stores live: one directory each, and a marker file that names the current one.
//!
//! ```text
//! state/live                  one line: format, generation, checksum; replaced by rename
//! state/generation-00000001/  RocksDB
//! ```
//! A store never changes its directory: one that is replaced may still be read by those who hold a snapshot of it,
//! and RocksDB opens its files by name. Layout: `docs/formats/state.md`.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::rocks::{self, Store};
use super::{Kv, KvDraft, KvError, KvHome, RocksKv, RocksOptions};

const MARKER: &str = "live";
const MARKER_NEW: &str = "live.new";
const GENERATION_PREFIX: &str = "generation-";
/// Newest layout this build knows.
const FORMAT: u32 = 1;
/// A marker is one short line.
const MARKER_BYTES_MAX: u64 = 256;

/// The stores of one node, below one directory.
#[derive(Debug)]
pub struct RocksHome {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    options: RocksOptions,
    state: Mutex<HomeState>,
}

#[derive(Debug, Default)]
struct HomeState {
    /// The current store, while somebody uses it.
    current: Weak<Store>,
    /// Lives as long as that store is open.
    open: Weak<()>,
    /// Highest generation ever given out by this object or found.
    generation: u64,
}

impl RocksHome {
    /// A home below `root`; nothing is touched before [`KvHome::open`].
    #[must_use]
    pub fn new(root: PathBuf, options: RocksOptions) -> Self {
        Self { shared: Arc::new(Shared { root, options, state: Mutex::default() }) }
    }
}

impl KvHome for RocksHome {
    fn open(&self) -> Result<Arc<dyn Kv>, KvError> {
        let mut state = self.shared.state.lock();
        rocks::create_dir(&self.shared.root)?;
        let kv = match self.shared.read_marker()? {
            Some(generation) => {
                state.generation = generation;
                RocksKv::open(&self.shared.dir(generation), self.shared.options)?
            }
            None => {
                state.generation = 1;
                self.shared.create_first()?
            }
        };
        // Only now: opening took RocksDB's lock, so that nobody else uses this home.
        for (generation, dir) in self.shared.generations()? {
            if generation != state.generation {
                fs::remove_dir_all(&dir).map_err(|err| rocks::io_error("remove", &dir, &err))?;
            }
        }
        state.current = Arc::downgrade(kv.store());
        state.open = kv.store().open();
        Ok(Arc::new(kv))
    }

    fn is_in_use(&self) -> bool {
        self.shared.state.lock().open.strong_count() > 0
    }

    fn draft(&self) -> Result<Box<dyn KvDraft>, KvError> {
        let mut state = self.shared.state.lock();
        let above = self.shared.generations()?.into_iter().map(|(found, _)| found).max().unwrap_or(0);
        let generation = state.generation.max(above) + 1;
        let rocks = RocksKv::create(&self.shared.dir(generation), self.shared.options)?;
        rocks.store().doom(true);
        state.generation = generation;
        let kv = Arc::new(rocks.clone());
        Ok(Box::new(RocksDraft { shared: self.shared.clone(), generation, rocks, kv }))
    }
}

impl Shared {
    fn dir(&self, generation: u64) -> PathBuf {
        self.root.join(format!("{GENERATION_PREFIX}{generation:08}"))
    }

    /// The directories found, whether current, abandoned or about to be removed.
    fn generations(&self) -> Result<Vec<(u64, PathBuf)>, KvError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(|err| rocks::io_error("list", &self.root, &err))? {
            let entry = entry.map_err(|err| rocks::io_error("list", &self.root, &err))?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(GENERATION_PREFIX));
            if let Some(generation) = number.and_then(|digits| digits.parse().ok()) {
                found.push((generation, entry.path()));
            }
        }
        Ok(found)
    }

    /// The first start, or one that was cut off before the first marker.
    fn create_first(&self) -> Result<RocksKv, KvError> {
        for (generation, dir) in self.generations()? {
            if generation != 1 || has_tables(&dir)? {
                let marker = self.root.join(MARKER);
                return Err(KvError::Corrupt(format!(
                    "{} is missing, but {} holds data",
                    marker.display(),
                    dir.display()
                )));
            }
            fs::remove_dir_all(&dir).map_err(|err| rocks::io_error("remove", &dir, &err))?;
        }
        let kv = RocksKv::create(&self.dir(1), self.options)?;
        self.write_marker(1)?;
        Ok(kv)
    }

    fn read_marker(&self) -> Result<Option<u64>, KvError> {
        let path = self.root.join(MARKER);
        match fs::metadata(&path) {
            Ok(found) if found.len() > MARKER_BYTES_MAX => {
                return Err(KvError::Corrupt(format!("{} is too long", path.display())));
            }
            Ok(_) => {}
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(rocks::io_error("read", &path, &err)),
        }
        let bytes = fs::read(&path).map_err(|err| rocks::io_error("read", &path, &err))?;
        parse_marker(&bytes).map(Some).map_err(|problem| match problem {
            MarkerError::Damaged => KvError::Corrupt(format!("{} does not parse", path.display())),
            MarkerError::Newer(found) => {
                KvError::NewerFormat { what: path.display().to_string(), found, known: FORMAT }
            }
        })
    }

    fn write_marker(&self, generation: u64) -> Result<(), KvError> {
        // First the name of the store, then what points to it.
        sync_dir(&self.root)?;
        let (path, new) = (self.root.join(MARKER), self.root.join(MARKER_NEW));
        let written =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).and_then(
                |mut file| {
                    file.write_all(marker_line(FORMAT, generation).as_bytes())?;
                    file.sync_all()
                },
            );
        written.map_err(|err| rocks::io_error("write", &new, &err))?;
        fs::rename(&new, &path).map_err(|err| rocks::io_error("rename", &new, &err))?;
        sync_dir(&self.root)
    }
}

fn has_tables(dir: &Path) -> Result<bool, KvError> {
    let entries = fs::read_dir(dir).map_err(|err| rocks::io_error("list", dir, &err))?;
    for entry in entries {
        let entry = entry.map_err(|err| rocks::io_error("list", dir, &err))?;
        if entry.path().extension().is_some_and(|extension| extension == "sst") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sync_dir(dir: &Path) -> Result<(), KvError> {
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|err| rocks::io_error("sync", dir, &err))
}

#[derive(Debug, PartialEq, Eq)]
enum MarkerError {
    Damaged,
    Newer(u32),
}

pub(super) fn marker_line(format: u32, generation: u64) -> String {
    let line = format!("arca-state {format} generation {generation}");
    let checksum = crc32c::crc32c(line.as_bytes());
    format!("{line} crc32c {checksum:08x}\n")
}

/// Every format begins with its number and ends with the checksum of what stands before it.
fn parse_marker(bytes: &[u8]) -> Result<u64, MarkerError> {
    let line = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.strip_suffix('\n'))
        .ok_or(MarkerError::Damaged)?;
    let (content, checksum) = line.split_once(" crc32c ").ok_or(MarkerError::Damaged)?;
    if format!("{:08x}", crc32c::crc32c(content.as_bytes())) != checksum {
        return Err(MarkerError::Damaged);
    }
    let mut words = content.split(' ');
    if words.next() != Some("arca-state") {
        return Err(MarkerError::Damaged);
    }
    let format = words.next().and_then(|word| word.parse().ok()).ok_or(MarkerError::Damaged)?;
    if format > FORMAT {
        return Err(MarkerError::Newer(format));
    }
    match (words.next(), words.next().and_then(|word| word.parse().ok()), words.next()) {
        (Some("generation"), Some(generation), None) => Ok(generation),
        _ => Err(MarkerError::Damaged),
    }
}

/// A store that is removed unless it is promoted.
#[derive(Debug)]
struct RocksDraft {
    shared: Arc<Shared>,
    generation: u64,
    rocks: RocksKv,
    kv: Arc<dyn Kv>,
}

impl KvDraft for RocksDraft {
    fn kv(&self) -> &Arc<dyn Kv> {
        &self.kv
    }

    fn promote(self: Box<Self>) -> Result<Arc<dyn Kv>, KvError> {
        self.kv.flush()?;
        let mut state = self.shared.state.lock();
        // From here on a failure must not remove it: the marker may name it already.
        self.rocks.store().doom(false);
        self.shared.write_marker(self.generation)?;
        if let Some(old) = state.current.upgrade() {
            old.doom(true);
        }
        state.current = Arc::downgrade(self.rocks.store());
        state.open = self.rocks.store().open();
        Ok(self.kv)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<u64, MarkerError>) {
        assert_eq!(parse_marker(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn markers() {
        check(b"arca-state 1 generation 7 crc32c 04cd9d5c\n", Ok(7));
        check(marker_line(2, 7).as_bytes(), Err(MarkerError::Newer(2)));
        check(b"arca-state 1 generation 8 crc32c 04cd9d5c\n", Err(MarkerError::Damaged));
        check(b"", Err(MarkerError::Damaged));
        check(b"\xff\n", Err(MarkerError::Damaged));
    }
}
