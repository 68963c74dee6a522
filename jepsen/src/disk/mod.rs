//! A disk that can fail: a FUSE file system over a directory, one for each node.
//!
//! It keeps apart what was synced and what was not, and loses the latter on command; it answers errors, runs full, stalls
//! and flips bits. What it says was synced is durable in its own sense only: it survives [`Disk::lose_power`], and this
//! machine's real disk is not waited for.
//! Read next: [`tree`](self) in `tree.rs` for the operations, `undo.rs` and `names.rs` for what is lost.

mod fs;
mod names;
mod tree;
mod troubles;
mod undo;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fuser::{BackgroundSession, Config, MountOption, Session};

pub use self::names::Names;
pub use self::tree::Lost;
pub use self::troubles::{Effect, Files, Hits, Operation, Trouble};
pub use self::undo::Loss;
use crate::dice::Dice;

/// Operations served at once; one that stalls holds one of them.
const THREADS: usize = 4;

/// See the module's header. It is unmounted when it is dropped; whoever uses it must be gone by then.
/// A plain one is a directory as any other, and takes no harm.
#[derive(Debug)]
pub struct Disk {
    /// None for a plain one.
    tree: Option<Arc<tree::Tree>>,
    mount: PathBuf,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Mounts `backing` at `mount`; both are made if they are missing. Needs root and `/dev/fuse`.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount(backing: &Path, mount: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(backing)?;
        std::fs::create_dir_all(mount)?;
        let tree = Arc::new(tree::Tree::new(backing, Names::default())?);
        let mut config = Config::default();
        let name = MountOption::FSName("arca-jepsen".to_owned());
        config.mount_options = vec![name, MountOption::RW, MountOption::NoSuid, MountOption::NoDev];
        config.n_threads = Some(THREADS);
        let session = Session::new(fs::Mounted(tree.clone()), mount, &config)?.spawn()?;
        Ok(Self { tree: Some(tree), mount: mount.to_owned(), session: Some(session) })
    }

    /// A plain one, which is made if it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn plain(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self { tree: None, mount: path.to_owned(), session: None })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Takes what was not synced. Its user must have been killed before.
    ///
    /// # Errors
    /// When the backing directory fails, or the disk is a plain one.
    pub fn lose_power(&self, loss: Loss) -> io::Result<Lost> {
        let tree = self.tree.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        tree.lose(loss)
    }

    /// How many files and names a power loss would change now.
    #[must_use]
    pub fn unsynced(&self) -> (usize, usize) {
        self.tree.as_ref().map_or((0, 0), |tree| tree.unsynced())
    }

    /// When names are durable, from now on.
    pub fn set_names(&self, names: Names) {
        if let Some(tree) = &self.tree {
            tree.set_names(names);
        }
    }

    /// Begins a trouble.
    pub fn trouble(&self, trouble: Trouble) {
        if let Some(tree) = &self.tree {
            tree.troubles.add(trouble);
        }
    }

    /// Flips a bit of what is next read of `files`: that bit reads wrong from then on, until it is overwritten.
    pub fn flip_bit(&self, files: Files, dice: Dice) {
        if let Some(tree) = &self.tree {
            tree.troubles.flip(files, dice);
        }
    }

    /// Ends all troubles, and lets go on what they held up.
    pub fn heal(&self) {
        if let Some(tree) = &self.tree {
            tree.troubles.heal();
        }
    }

    /// How often troubles have hit so far.
    #[must_use]
    pub fn hits(&self) -> Hits {
        self.tree.as_ref().map(|tree| tree.troubles.hits()).unwrap_or_default()
    }

    /// Removes everything on it, durably.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn wipe(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.mount)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        if let Some(tree) = &self.tree {
            tree.keep();
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.heal();
        if let Some(session) = self.session.take() {
            // A mount in use would be waited for: it is taken out of the tree, and ends with its last user.
            let _ = nix::mount::umount2(&self.mount, nix::mount::MntFlags::MNT_DETACH);
            drop(session);
        }
    }
}
