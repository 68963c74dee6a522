//! The tree behind the mount: every operation of the file system, on a backing directory, without FUSE.
//!
//! The backing directory holds what the server sees; [`Undo`] and [`Journal`] know what of it would survive. Nothing here
//! is ever really synced: the power that is lost is not this machine's.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{
    FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, linkat, mkdirat, openat};
use rustix::io::Errno;

use super::names::{Journal, Names, Place};
use super::troubles::{Operation, Troubles};
use super::undo::{Loss, Undo};

/// The number of the root; all others have those of the backing file system.
pub(super) const ROOT: u64 = 1;

/// What a power loss took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Files that were changed since they were synced.
    pub files: u64,
    /// Pages of them.
    pub pages: u64,
    /// Names made, removed or changed.
    pub names: u64,
}

/// A file or directory the kernel knows.
#[derive(Debug)]
struct Node {
    /// Opened by name only; holds the inode, so that its number is not used again.
    file: Arc<File>,
    lookups: u64,
}

/// An open file or directory.
#[derive(Debug)]
pub(super) enum Open {
    Directory(u64, Vec<(OsString, Metadata)>),
    File { id: u64, file: Arc<File>, path: PathBuf },
}

#[derive(Debug)]
struct Inner {
    nodes: HashMap<u64, Node>,
    open: HashMap<u64, Arc<Open>>,
    last_open: u64,
    unsynced: HashMap<u64, Undo>,
    journal: Journal,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Tree {
    base: PathBuf,
    inner: Mutex<Inner>,
    pub(super) troubles: Troubles,
}

type Result<T> = io::Result<T>;

impl Tree {
    /// A tree in `backing`, which is made if it is missing; what is in it is taken as durable.
    pub(super) fn new(backing: &Path, names: Names) -> Result<Self> {
        let (base, grave) = (backing.join("tree"), backing.join("grave"));
        std::fs::create_dir_all(&base)?;
        match std::fs::remove_dir_all(&grave) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => std::fs::create_dir(&grave)?,
        }
        let root = Arc::new(by_name(&base)?);
        let inner = Inner {
            nodes: HashMap::from([(ROOT, Node { file: root, lookups: 1 })]),
            open: HashMap::new(),
            last_open: 0,
            unsynced: HashMap::new(),
            journal: Journal::new(Arc::new(by_name(&grave)?), names),
        };
        Ok(Self { base: base.canonicalize()?, inner: Mutex::new(inner), troubles: Troubles::default() })
    }

    /// Power is lost: what was not synced is gone. Nobody may have files open that they still write to.
    pub(super) fn lose(&self, mut loss: Loss) -> Result<Lost> {
        let mut inner = self.inner.lock();
        let mut lost = Lost::default();
        let mut unsynced: Vec<_> = inner.unsynced.drain().collect();
        // In the order of their numbers, so that the same dice fall the same.
        unsynced.sort_by_key(|(id, _)| *id);
        for (_, undo) in unsynced {
            lost.pages += undo.lose(&mut loss)?;
            lost.files += 1;
        }
        let keeps_names = match &mut loss {
            Loss::All => false,
            Loss::Some(dice) => dice.chance(50),
        };
        if keeps_names {
            inner.journal.keep();
        } else {
            lost.names = inner.journal.lose();
        }
        Ok(lost)
    }

    /// How many files and names would be lost.
    pub(super) fn unsynced(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.unsynced.len(), inner.journal.len())
    }

    pub(super) fn set_names(&self, names: Names) {
        self.inner.lock().journal.set_mode(names);
    }

    /// Everything there is counts as synced.
    pub(super) fn keep(&self) {
        let mut inner = self.inner.lock();
        inner.unsynced.clear();
        inner.journal.keep();
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<(u64, Metadata)> {
        self.inner.lock().lookup(parent, name)
    }

    pub(super) fn forget(&self, id: u64, count: u64) {
        let mut inner = self.inner.lock();
        if let Some(node) = inner.nodes.get_mut(&id) {
            node.lookups = node.lookups.saturating_sub(count);
            if node.lookups == 0 && id != ROOT {
                inner.nodes.remove(&id);
            }
        }
    }

    pub(super) fn metadata(&self, id: u64) -> Result<Metadata> {
        self.inner.lock().node(id)?.metadata()
    }

    pub(super) fn set_mode(&self, id: u64, mode: u32) -> Result<()> {
        let node = self.inner.lock().node(id)?;
        std::fs::set_permissions(again(&node), Permissions::from_mode(mode & 0o7777))
    }

    pub(super) fn set_len(&self, id: u64, len: u64) -> Result<()> {
        let node = self.inner.lock().node(id)?;
        self.troubles.meet(Operation::Write, &self.path(&node))?;
        let mut inner = self.inner.lock();
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(again(&node))?);
        let old = file.metadata()?.len();
        inner.undo(id, &file)?.save(len, old.saturating_sub(len))?;
        self.troubles.overwritten(id, len, u64::MAX);
        file.set_len(len)
    }

    pub(super) fn make_directory(&self, parent: u64, name: &OsStr, mode: u32) -> Result<(u64, Metadata)> {
        self.troubles.meet(Operation::Write, Path::new(name))?;
        let mut inner = self.inner.lock();
        let directory = inner.node(parent)?;
        mkdirat(directory.as_fd(), name, Mode::from_raw_mode(mode))?;
        inner.journal.made(Place::new(&directory, name))?;
        inner.lookup(parent, name)
    }

    /// Makes a file and opens it.
    pub(super) fn create(&self, parent: u64, name: &OsStr, mode: u32) -> Result<(u64, Metadata, u64)> {
        self.troubles.meet(Operation::Write, Path::new(name))?;
        let mut inner = self.inner.lock();
        let directory = inner.node(parent)?;
        // The kernel has looked the name up; if somebody made it since, it is opened as it is.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match openat(directory.as_fd(), name, flags, Mode::from_raw_mode(mode)) {
            Ok(_) => inner.journal.made(Place::new(&directory, name))?,
            Err(Errno::EXIST) => {}
            Err(err) => return Err(err.into()),
        }
        let (id, metadata) = inner.lookup(parent, name)?;
        let handle = inner.open_file(id, |node| self.path(node))?;
        Ok((id, metadata, handle))
    }

    pub(super) fn link(&self, id: u64, parent: u64, name: &OsStr) -> Result<(u64, Metadata)> {
        self.troubles.meet(Operation::Write, Path::new(name))?;
        let mut inner = self.inner.lock();
        let (file, directory) = (inner.node(id)?, inner.node(parent)?);
        linkat(rustix::fs::CWD, again(&file), directory.as_fd(), name, AtFlags::SYMLINK_FOLLOW)?;
        inner.journal.made(Place::new(&directory, name))?;
        inner.lookup(parent, name)
    }

    pub(super) fn remove_file(&self, parent: u64, name: &OsStr) -> Result<()> {
        let mut inner = self.inner.lock();
        let directory = inner.node(parent)?;
        if child(&directory, name)?.metadata()?.is_dir() {
            return Err(Errno::ISDIR.into());
        }
        inner.journal.remove(Place::new(&directory, name))
    }

    pub(super) fn remove_directory(&self, parent: u64, name: &OsStr) -> Result<()> {
        let mut inner = self.inner.lock();
        let directory = inner.node(parent)?;
        if std::fs::read_dir(again(&child(&directory, name)?))?.next().is_some() {
            return Err(Errno::NOTEMPTY.into());
        }
        inner.journal.remove(Place::new(&directory, name))
    }

    /// `replaces`: whether something may be at the new name.
    pub(super) fn rename(&self, from: (u64, &OsStr), to: (u64, &OsStr), replaces: bool) -> Result<()> {
        self.troubles.meet(Operation::Write, Path::new(to.1))?;
        let mut inner = self.inner.lock();
        let (old, new) = (inner.node(from.0)?, inner.node(to.0)?);
        let moved = child(&old, from.1)?.metadata()?;
        let replaced = match child(&new, to.1) {
            Ok(file) => Some(file.metadata()?),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => return Err(err),
        };
        match &replaced {
            Some(_) if !replaces => return Err(Errno::EXIST.into()),
            Some(found) if found.ino() == moved.ino() => return Ok(()),
            Some(found) if found.is_dir() != moved.is_dir() => return Err(Errno::INVAL.into()),
            Some(found)
                if found.is_dir() && std::fs::read_dir(again(&child(&new, to.1)?))?.next().is_some() =>
            {
                return Err(Errno::NOTEMPTY.into());
            }
            _ => {}
        }
        inner.journal.rename(Place::new(&old, from.1), Place::new(&new, to.1), replaced.is_some())
    }

    pub(super) fn open_file(&self, id: u64) -> Result<u64> {
        self.inner.lock().open_file(id, |node| self.path(node))
    }

    pub(super) fn open_directory(&self, id: u64) -> Result<u64> {
        let mut inner = self.inner.lock();
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(again(&*inner.node(id)?))? {
            let entry = entry?;
            entries.push((entry.file_name(), entry.metadata()?));
        }
        Ok(inner.open(Open::Directory(id, entries)))
    }

    pub(super) fn opened(&self, handle: u64) -> Result<Arc<Open>> {
        self.inner.lock().open.get(&handle).cloned().ok_or_else(|| Errno::BADF.into())
    }

    pub(super) fn close(&self, handle: u64) {
        self.inner.lock().open.remove(&handle);
    }

    pub(super) fn read(&self, handle: u64, offset: u64, len: u32) -> Result<Vec<u8>> {
        let open = self.opened(handle)?;
        let Open::File { id, file, path } = &*open else { return Err(Errno::ISDIR.into()) };
        self.troubles.meet(Operation::Read, path)?;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + u64::try_from(filled).unwrap_or_default())? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        self.troubles.distort(*id, path, offset, &mut bytes);
        Ok(bytes)
    }

    pub(super) fn write(&self, handle: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let open = self.opened(handle)?;
        let Open::File { id, file, path } = &*open else { return Err(Errno::ISDIR.into()) };
        self.troubles.meet(Operation::Write, path)?;
        let len = u64::try_from(bytes.len()).unwrap_or_default();
        let mut inner = self.inner.lock();
        inner.undo(*id, file)?.save(offset, len)?;
        file.write_all_at(bytes, offset)?;
        self.troubles.overwritten(*id, offset, len);
        Ok(())
    }

    /// Makes a file at least `len` long.
    pub(super) fn extend(&self, handle: u64, len: u64) -> Result<()> {
        let open = self.opened(handle)?;
        let Open::File { id, file, path } = &*open else { return Err(Errno::ISDIR.into()) };
        self.troubles.meet(Operation::Write, path)?;
        let mut inner = self.inner.lock();
        inner.undo(*id, file)?;
        if file.metadata()?.len() < len { file.set_len(len) } else { Ok(()) }
    }

    /// Syncs a file or a directory.
    pub(super) fn sync(&self, handle: u64) -> Result<()> {
        let open = self.opened(handle)?;
        match &*open {
            Open::Directory(id, _) => {
                let node = self.inner.lock().node(*id)?;
                self.troubles.meet(Operation::Sync, &self.path(&node))?;
                self.inner.lock().journal.directory_synced(node.metadata()?.ino());
            }
            Open::File { id, path, .. } => {
                self.troubles.meet(Operation::Sync, path)?;
                let mut inner = self.inner.lock();
                inner.unsynced.remove(id);
                inner.journal.file_synced();
            }
        }
        Ok(())
    }

    /// Size, free and available space in blocks, and the block's size.
    pub(super) fn space(&self) -> Result<(u64, u64, u64, u64)> {
        let space = rustix::fs::statvfs(&self.base)?;
        let (free, available) =
            if self.troubles.is_full() { (0, 0) } else { (space.f_bfree, space.f_bavail) };
        Ok((space.f_blocks, free, available, space.f_frsize))
    }

    /// Where a file is below the mount.
    fn path(&self, node: &File) -> PathBuf {
        let path = std::fs::read_link(again(node)).unwrap_or_default();
        path.strip_prefix(&self.base).map(Path::to_owned).unwrap_or(path)
    }
}

impl Inner {
    fn node(&self, id: u64) -> Result<Arc<File>> {
        let node = self.nodes.get(&id).ok_or(Errno::STALE)?;
        Ok(node.file.clone())
    }

    fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<(u64, Metadata)> {
        let file = child(&*self.node(parent)?, name)?;
        let metadata = file.metadata()?;
        let id = metadata.ino();
        self.nodes.entry(id).or_insert_with(|| Node { file: Arc::new(file), lookups: 0 }).lookups += 1;
        Ok((id, metadata))
    }

    fn open(&mut self, open: Open) -> u64 {
        self.last_open += 1;
        self.open.insert(self.last_open, Arc::new(open));
        self.last_open
    }

    fn open_file(&mut self, id: u64, path: impl Fn(&File) -> PathBuf) -> Result<u64> {
        let node = self.node(id)?;
        if node.metadata()?.file_type().is_fifo() {
            return Err(Errno::NXIO.into());
        }
        let file = OpenOptions::new().read(true).write(true).open(again(&node))?;
        Ok(self.open(Open::File { id, file: Arc::new(file), path: path(&node) }))
    }

    fn undo(&mut self, id: u64, file: &Arc<File>) -> Result<&mut Undo> {
        use std::collections::hash_map::Entry;
        match self.unsynced.entry(id) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(Undo::new(file.clone())?)),
        }
    }
}

/// Opens by name only, without following a link.
fn by_name(path: &Path) -> Result<File> {
    let flags = i32::try_from((OFlags::PATH | OFlags::NOFOLLOW).bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn child(directory: &File, name: &OsStr) -> Result<File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(directory.as_fd(), name, flags, Mode::empty())?))
}

/// The path by which an open file can be opened again.
fn again(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
