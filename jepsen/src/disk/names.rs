//! Names that are not durable yet: what was made, removed and renamed since its directory was synced, in order, and how
//! to take it back. What was removed waits in a directory beside the tree, the grave, until its removal is durable.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, renameat, unlinkat};

/// When a name is durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// Once its directory is synced, and only then: all that POSIX promises.
    #[default]
    Strict,
    /// Once anything is synced after it, as journals of common file systems make it.
    Journaled,
}

/// A name in a directory, whatever the directory is called by now.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) directory: Arc<File>,
    pub(super) name: OsString,
}

impl Place {
    pub(super) fn new(directory: &Arc<File>, name: &OsStr) -> Self {
        Self { directory: directory.clone(), name: name.to_owned() }
    }

    fn directory_id(&self) -> io::Result<u64> {
        Ok(self.directory.metadata()?.ino())
    }

    pub(super) fn rename(&self, to: &Self) -> io::Result<()> {
        Ok(renameat(self.directory.as_fd(), &self.name, to.directory.as_fd(), &to.name)?)
    }

    /// Removes whatever has this name.
    fn clear(&self) {
        let path = PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(&self.name);
        if unlinkat(self.directory.as_fd(), &self.name, AtFlags::empty()).is_err() {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

#[derive(Debug)]
enum Change {
    Made(Place),
    /// From, and where it is in the grave.
    Removed(Place, Place),
    /// From, to, and where in the grave that is which was at `to`.
    Renamed(Place, Place, Option<Place>),
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Journal {
    mode: Names,
    grave: Arc<File>,
    buried: u64,
    /// What is not durable, and the directory whose sync makes it so.
    changes: Vec<(u64, Change)>,
}

impl Journal {
    pub(super) fn new(grave: Arc<File>, mode: Names) -> Self {
        Self { mode, grave, buried: 0, changes: Vec::new() }
    }

    /// Changes not durable yet.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn set_mode(&mut self, mode: Names) {
        self.mode = mode;
    }

    pub(super) fn made(&mut self, place: Place) -> io::Result<()> {
        self.changes.push((place.directory_id()?, Change::Made(place)));
        Ok(())
    }

    /// Removes a name.
    pub(super) fn remove(&mut self, place: Place) -> io::Result<()> {
        let grave = self.bury(&place)?;
        self.changes.push((place.directory_id()?, Change::Removed(place, grave)));
        Ok(())
    }

    /// Renames; what was at `to` is removed, if `replaces`.
    pub(super) fn rename(&mut self, from: Place, to: Place, replaces: bool) -> io::Result<()> {
        let replaced = if replaces { Some(self.bury(&to)?) } else { None };
        if let Err(err) = from.rename(&to) {
            if let Some(grave) = &replaced {
                grave.rename(&to)?;
            }
            return Err(err);
        }
        // A journal writes both directories at once; the new name is what callers sync for.
        self.changes.push((to.directory_id()?, Change::Renamed(from, to, replaced)));
        Ok(())
    }

    fn bury(&mut self, place: &Place) -> io::Result<Place> {
        self.buried += 1;
        let grave = Place::new(&self.grave, OsStr::new(&self.buried.to_string()));
        place.rename(&grave)?;
        Ok(grave)
    }

    /// A file was synced.
    pub(super) fn file_synced(&mut self) {
        if self.mode == Names::Journaled {
            self.settle(|_| true);
        }
    }

    /// A directory was synced.
    pub(super) fn directory_synced(&mut self, id: u64) {
        let all = self.mode == Names::Journaled;
        self.settle(|directory| all || directory == id);
    }

    fn settle(&mut self, is_durable: impl Fn(u64) -> bool) {
        self.changes.retain(|(directory, change)| {
            if !is_durable(*directory) {
                return true;
            }
            if let Change::Removed(_, grave) | Change::Renamed(_, _, Some(grave)) = change {
                grave.clear();
            }
            false
        });
    }

    /// Takes back everything that is not durable, last first. Answers how much that was.
    pub(super) fn lose(&mut self) -> u64 {
        let mut lost = 0;
        for (_, change) in std::mem::take(&mut self.changes).into_iter().rev() {
            lost += 1;
            // What fails here belongs to a directory that is gone itself.
            match change {
                Change::Made(place) => place.clear(),
                Change::Removed(place, grave) => drop(grave.rename(&place)),
                Change::Renamed(from, to, replaced) => {
                    let _ = to.rename(&from);
                    if let Some(grave) = replaced {
                        let _ = grave.rename(&to);
                    }
                }
            }
        }
        lost
    }

    /// Makes everything durable.
    pub(super) fn keep(&mut self) {
        self.settle(|_| true);
    }
}
