//! An in-memory disk with the promises of a real one and no more: unsynced bytes and names may vanish in a crash,
//! a failed sync loses what it should have kept, and every operation can be made to fail, stall or lie.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::disk::{Contents, CrashPolicy};
use super::rng::Dice;
use crate::vfs::{Vfs, VfsFile};

/// A kind of operation that can be counted, failed or stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Create a file or a directory.
    Create,
    /// Open, list, measure or read.
    Read,
    /// Remove a file.
    Remove,
    /// Rename a file.
    Rename,
    /// Cut or extend a file.
    SetLen,
    /// Sync a file.
    Sync,
    /// Sync a directory.
    SyncDir,
    /// Write to a file.
    Write,
}

type FileId = u64;
type Hook = Arc<dyn Fn(Operation, &Path) + Send + Sync>;
type SyncTime = Arc<dyn Fn() -> Duration + Send + Sync>;

#[derive(Clone, Debug)]
enum NameEdit {
    Add(PathBuf, FileId),
    Remove(PathBuf),
    Rename { from: PathBuf, to: PathBuf, id: FileId },
}

impl NameEdit {
    fn apply(&self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Add(path, id) => drop(names.insert(path.clone(), *id)),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename { from, to, id } => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Add(path, _) | Self::Remove(path) | Self::Rename { to: path, .. }) = self;
        path.parent() == Some(dir)
    }
}

struct State {
    files: BTreeMap<FileId, Contents>,
    next_id: FileId,
    names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    pending_names: Vec<NameEdit>,
    dirs: BTreeSet<PathBuf>,
    /// Handles of an older life are dead: a process does not survive its machine.
    life: u64,
    dice: Dice,
    failures: BTreeMap<Operation, Vec<(u64, io::ErrorKind)>>,
    changes: u64,
    power_off_at: Option<u64>,
    is_off: bool,
    is_lying: bool,
    capacity: u64,
    hook: Option<Hook>,
    sync_time: Option<SyncTime>,
    sync_time_min: Duration,
}

/// The model. Clones share the disk.
#[derive(Clone)]
pub struct ModelVfs(Arc<Mutex<State>>);

impl fmt::Debug for ModelVfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ModelVfs")
    }
}

impl ModelVfs {
    /// An empty disk. All its choices follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            next_id: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            dirs: BTreeSet::new(),
            life: 0,
            dice: Dice::new(seed),
            failures: BTreeMap::new(),
            changes: 0,
            power_off_at: None,
            is_off: false,
            is_lying: false,
            capacity: 1 << 40,
            hook: None,
            sync_time: None,
            sync_time_min: Duration::ZERO,
        })))
    }

    /// Cuts the power and turns it on again: what was not synced meets `policy`, open handles die, and every
    /// planned fault is cleared. Directories themselves always survive.
    pub fn crash(&self, policy: CrashPolicy) {
        let state = &mut *self.0.lock();
        let pending = std::mem::take(&mut state.pending_names);
        let kept = match policy {
            CrashPolicy::LosePending => 0,
            CrashPolicy::KeepPending | CrashPolicy::Reorder { .. } => pending.len(),
            CrashPolicy::KeepPrefix | CrashPolicy::Torn { .. } => state.dice.up_to(pending.len()),
        };
        for edit in pending.iter().take(kept) {
            let is_kept = !matches!(policy, CrashPolicy::Reorder { .. }) || state.dice.coin();
            if is_kept {
                edit.apply(&mut state.durable_names);
            }
        }
        state.names.clone_from(&state.durable_names);
        let alive: BTreeSet<FileId> = state.names.values().copied().collect();
        state.files.retain(|id, _| alive.contains(id));
        for contents in state.files.values_mut() {
            contents.crash(policy, &mut state.dice);
        }
        state.life += 1;
        state.is_off = false;
        state.power_off_at = None;
        state.is_lying = false;
        state.sync_time_min = Duration::ZERO;
        state.failures.clear();
    }

    /// Restarts the process, not the machine: open handles die, but everything written is still readable.
    pub fn restart(&self) {
        let mut state = self.0.lock();
        state.life += 1;
        state.failures.clear();
    }

    /// How many changing operations (all but reads) were started so far.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// Cuts the power in the middle of the changing operation with this number (from [`Self::changes`], the first is
    /// 1). It and everything after it fails until [`Self::crash`].
    pub fn power_off_at(&self, change: u64) {
        self.0.lock().power_off_at = Some(change);
    }

    /// Whether the planned power loss has happened.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.lock().is_off
    }

    /// Makes the `nth` operation of that kind from now (the first is 1) fail once. A failed write leaves a part, a
    /// failed sync loses what it should have made durable.
    pub fn fail_nth(&self, operation: Operation, nth: u64, error: io::ErrorKind) {
        self.0.lock().failures.entry(operation).or_default().push((nth.max(1), error));
    }

    /// From now on syncs answer that all is well and do nothing; or no longer.
    pub fn lie_on_sync(&self, is_lying: bool) {
        self.0.lock().is_lying = is_lying;
    }

    /// Sets the size of the disk. Writes past it fail as on a full one.
    pub fn set_capacity(&self, bytes: u64) {
        self.0.lock().capacity = bytes;
    }

    /// How many bytes the files take.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.lock().used()
    }

    /// Flips one bit of a stored file. False if the file is missing or shorter.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let state = &mut *self.0.lock();
        let contents = state.names.get(path).and_then(|id| state.files.get_mut(id));
        contents.is_some_and(|contents| contents.flip(usize_of(offset), bit))
    }

    /// Called before every operation, outside of any lock: it may block (a stall) or count.
    pub fn set_hook(&self, hook: impl Fn(Operation, &Path) + Send + Sync + 'static) {
        self.0.lock().hook = Some(Arc::new(hook));
    }

    /// Asked before each sync of the log how long that takes. Without it, they take no time: nothing can then happen
    /// between a write and its sync.
    pub fn set_sync_time(&self, sync_time: impl Fn() -> Duration + Send + Sync + 'static) {
        self.0.lock().sync_time = Some(Arc::new(sync_time));
    }

    /// Until the next crash each sync of the log takes so long at least.
    pub fn slow_syncs(&self, least: Duration) {
        self.0.lock().sync_time_min = least;
    }

    /// The readable content of a file, for comparing.
    #[must_use]
    pub fn contents(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let id = state.names.get(path)?;
        state.files.get(id).map(|contents| contents.seen().to_vec())
    }

    /// What of a file a power loss leaves for sure, whatever becomes of its name.
    #[must_use]
    pub fn synced(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let id = state.names.get(path)?;
        state.files.get(id).map(|contents| contents.durable().to_vec())
    }

    /// Puts a durable file there, as if copied in from elsewhere.
    pub fn plant(&self, path: &Path, content: &[u8]) {
        let state = &mut *self.0.lock();
        let id = state.add_file();
        if let Some(contents) = state.files.get_mut(&id) {
            contents.write(0, content);
            contents.sync();
        }
        state.names.insert(path.to_owned(), id);
        state.durable_names.insert(path.to_owned(), id);
    }

    fn begin(&self, operation: Operation, path: &Path) -> io::Result<MutexGuard<'_, State>> {
        let hook = self.0.lock().hook.clone();
        if let Some(hook) = hook {
            hook(operation, path);
        }
        let state = self.0.lock();
        if state.is_off { Err(power_lost()) } else { Ok(state) }
    }

    fn file(&self, id: FileId, life: u64, path: &Path) -> Arc<dyn VfsFile> {
        Arc::new(ModelFile { vfs: self.clone(), id, life, path: path.to_owned() })
    }
}

impl State {
    fn add_file(&mut self) -> FileId {
        let id = self.next_id;
        self.next_id += 1;
        self.files.insert(id, Contents::default());
        id
    }

    /// Counts a change and says how it ends: `None` well, else the error it returns after taking effect in part.
    fn verdict(&mut self, operation: Operation) -> Option<io::Error> {
        self.changes += 1;
        if self.power_off_at == Some(self.changes) {
            self.is_off = true;
            return Some(power_lost());
        }
        let planned = self.failures.get_mut(&operation)?;
        planned.iter_mut().for_each(|(left, _)| *left -= 1);
        let due = planned.iter().position(|(left, _)| *left == 0)?;
        let (_, kind) = planned.swap_remove(due);
        Some(io::Error::new(kind, "injected"))
    }

    fn edit_names(&mut self, operation: Operation, edit: NameEdit) -> io::Result<()> {
        let verdict = self.verdict(operation);
        if verdict.is_none() || self.is_off {
            edit.apply(&mut self.names);
            self.pending_names.push(edit);
        }
        verdict.map_or(Ok(()), Err)
    }

    fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|id| self.files.get(id));
        named.map(|contents| contents.seen().len() as u64).sum()
    }
}

impl Vfs for ModelVfs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let state = self.begin(Operation::Read, path)?;
        let id = *state.names.get(path).ok_or_else(|| missing(path))?;
        Ok(self.file(id, state.life, path))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.begin(Operation::Create, path)?;
        if !path.parent().is_some_and(|dir| state.dirs.contains(dir)) {
            return Err(missing(path));
        }
        if state.names.contains_key(path) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string()));
        }
        let id = state.add_file();
        state.edit_names(Operation::Create, NameEdit::Add(path.to_owned(), id))?;
        Ok(self.file(id, state.life, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Rename, from)?;
        let id = *state.names.get(from).ok_or_else(|| missing(from))?;
        let edit = NameEdit::Rename { from: from.to_owned(), to: to.to_owned(), id };
        state.edit_names(Operation::Rename, edit)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Remove, path)?;
        if !state.names.contains_key(path) {
            return Err(missing(path));
        }
        state.edit_names(Operation::Remove, NameEdit::Remove(path.to_owned()))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.begin(Operation::Read, dir)?;
        if !state.dirs.contains(dir) {
            return Err(missing(dir));
        }
        let files = state.names.keys().filter(|path| path.parent() == Some(dir));
        let dirs = state.dirs.iter().filter(|path| path.parent() == Some(dir));
        let all: BTreeSet<PathBuf> = files.chain(dirs).cloned().collect();
        Ok(all.into_iter().collect())
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::Create, dir)?;
        state.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.begin(Operation::SyncDir, dir)?;
        if let Some(error) = state.verdict(Operation::SyncDir) {
            return Err(error);
        }
        if !state.is_lying {
            let pending = std::mem::take(&mut state.pending_names);
            let (synced, rest): (Vec<_>, Vec<_>) = pending.into_iter().partition(|edit| edit.is_in(dir));
            state.pending_names = rest;
            synced.iter().for_each(|edit| edit.apply(&mut state.durable_names));
        }
        Ok(())
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        let state = self.begin(Operation::Read, dir)?;
        Ok(state.capacity.saturating_sub(state.used()))
    }

    fn sync_time(&self) -> Duration {
        let (sync_time, least) = {
            let state = self.0.lock();
            (state.sync_time.clone(), state.sync_time_min)
        };
        sync_time.map_or(Duration::ZERO, |sync_time| sync_time()).max(least)
    }
}

struct ModelFile {
    vfs: ModelVfs,
    id: FileId,
    life: u64,
    path: PathBuf,
}

impl fmt::Debug for ModelFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelFile({})", self.path.display())
    }
}

impl ModelFile {
    fn begin(&self, operation: Operation) -> io::Result<MutexGuard<'_, State>> {
        let state = self.vfs.begin(operation, &self.path)?;
        if state.life == self.life { Ok(state) } else { Err(power_lost()) }
    }
}

impl VfsFile for ModelFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.begin(Operation::Read)?;
        if let Some(planned) = state.failures.get_mut(&Operation::Read)
            && let Some(due) = planned.iter().position(|(left, _)| *left <= 1)
        {
            let (_, kind) = planned.swap_remove(due);
            return Err(io::Error::new(kind, "injected"));
        }
        let contents = state.files.get(&self.id).ok_or_else(power_lost)?;
        let source = contents.seen().get(usize_of(offset)..).unwrap_or_default();
        let count = source.len().min(buf.len());
        buf.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let state = &mut *self.begin(Operation::Write)?;
        let verdict = state.verdict(Operation::Write);
        let is_off = state.is_off;
        let free = state.capacity.saturating_sub(state.used());
        let seen = state.files.get(&self.id).ok_or_else(power_lost)?.seen().len() as u64;
        let room = free.saturating_add(seen).saturating_sub(offset);
        let (part, error) = match verdict {
            None if bytes.len() as u64 <= room => (bytes.len(), None),
            None => {
                (usize_of(room), Some(io::Error::new(io::ErrorKind::StorageFull, "the model disk is full")))
            }
            // Cut off in the middle: all of it may still be on its way, the crash decides.
            Some(error) if is_off => (bytes.len(), Some(error)),
            Some(error) => (state.dice.up_to(bytes.len()), Some(error)),
        };
        if let Some(contents) = state.files.get_mut(&self.id) {
            contents.write(usize_of(offset), bytes.get(..part).unwrap_or(bytes));
        }
        error.map_or(Ok(()), Err)
    }

    fn sync_data(&self) -> io::Result<()> {
        let state = &mut *self.begin(Operation::Sync)?;
        let verdict = state.verdict(Operation::Sync);
        let contents = state.files.get_mut(&self.id).ok_or_else(power_lost)?;
        match verdict {
            None if state.is_lying => Ok(()),
            None => {
                contents.sync();
                Ok(())
            }
            Some(error) if state.is_off => Err(error),
            Some(error) => {
                contents.forget_pending();
                Err(error)
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.begin(Operation::Read)?;
        state.files.get(&self.id).map(|contents| contents.seen().len() as u64).ok_or_else(power_lost)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.begin(Operation::SetLen)?;
        let verdict = state.verdict(Operation::SetLen);
        if (verdict.is_none() || state.is_off)
            && let Some(contents) = state.files.get_mut(&self.id)
        {
            contents.set_len(usize_of(len));
        }
        verdict.map_or(Ok(()), Err)
    }
}

fn power_lost() -> io::Error {
    io::Error::other("the power is off")
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

fn usize_of(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(vfs: &ModelVfs, durable: &[u8], pending: &[u8]) -> Arc<dyn VfsFile> {
        vfs.create_dir_all(Path::new("/d")).unwrap();
        let file = vfs.create(Path::new("/d/f")).unwrap();
        file.write_at(durable, 0).unwrap();
        file.sync_data().unwrap();
        vfs.sync_dir(Path::new("/d")).unwrap();
        file.write_at(pending, durable.len() as u64).unwrap();
        file
    }

    fn check(policy: CrashPolicy, is_possible: impl Fn(&[u8]) -> bool) {
        for seed in 0..64 {
            let vfs = ModelVfs::new(seed);
            let file = file_with(&vfs, b"durable-", &[7; 1024]);
            vfs.crash(policy);
            assert!(file.len().is_err(), "handles die with the machine");
            let after = vfs.contents(Path::new("/d/f")).unwrap();
            assert!(is_possible(&after), "{policy:?} seed {seed}: {} bytes", after.len());
        }
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_treats_the_rest_by_policy() {
        check(CrashPolicy::LosePending, |after| after == b"durable-");
        check(CrashPolicy::KeepPending, |after| after.len() == 1032);
        check(CrashPolicy::KeepPrefix, |after| after.len() == 8 || after.len() == 1032);
        check(CrashPolicy::Torn { block: 1 }, |after| after.starts_with(b"durable-"));
        check(CrashPolicy::Torn { block: 512 }, |after| [8, 512, 1024, 1032].contains(&after.len()));
        check(CrashPolicy::Reorder { block: 512 }, |after| {
            after.starts_with(b"durable-") && [8, 512, 1024, 1032].contains(&after.len())
        });
    }

    #[test]
    fn names_last_only_once_their_directory_is_synced() {
        let vfs = ModelVfs::new(1);
        let file = file_with(&vfs, b"x", b"");
        vfs.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
        assert_eq!(file.len().unwrap(), 1);
        vfs.crash(CrashPolicy::LosePending);
        assert_eq!(vfs.list(Path::new("/d")).unwrap(), [Path::new("/d/f")]);
        vfs.remove(Path::new("/d/f")).unwrap();
        vfs.sync_dir(Path::new("/d")).unwrap();
        vfs.crash(CrashPolicy::LosePending);
        assert!(vfs.list(Path::new("/d")).unwrap().is_empty());
    }

    #[test]
    fn a_failed_sync_loses_the_pages_for_good() {
        let vfs = ModelVfs::new(1);
        let file = file_with(&vfs, b"a", b"b");
        vfs.fail_nth(Operation::Sync, 1, io::ErrorKind::Other);
        assert!(file.sync_data().is_err());
        file.sync_data().unwrap();
        assert_eq!(vfs.contents(Path::new("/d/f")).unwrap(), b"ab", "still in the page cache");
        vfs.crash(CrashPolicy::KeepPending);
        assert_eq!(vfs.contents(Path::new("/d/f")).unwrap(), b"a");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_refuses() {
        let vfs = ModelVfs::new(1);
        let file = file_with(&vfs, b"1234", b"");
        vfs.set_capacity(6);
        let error = file.write_at(b"abcd", 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(vfs.contents(Path::new("/d/f")).unwrap(), b"1234ab");
        assert_eq!(vfs.free_space(Path::new("/d")).unwrap(), 0);
    }
}
