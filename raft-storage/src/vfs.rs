//! The seam under the log: files whose writes are durable only once synced, names durable only once their directory
//! is. `OsVfs` is the real one; the model loses, tears and refuses what a real disk may.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

mod os;

pub use os::OsVfs;

/// An open file. Offsets are explicit; there is no cursor.
pub trait VfsFile: Debug + Send + Sync {
    /// Reads up to `buf.len()` bytes at `offset`; fewer only at the end of the file.
    ///
    /// # Errors
    /// As the system reports.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// As the system reports; part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the content (and the length) durable. After an error the content is unknown: never retry.
    ///
    /// # Errors
    /// As the system reports.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// As the system reports.
    fn len(&self) -> io::Result<u64>;

    /// Whether it is empty.
    ///
    /// # Errors
    /// As the system reports.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Cuts or extends with zeros.
    ///
    /// # Errors
    /// As the system reports.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// A directory tree.
pub trait Vfs: Debug + Send + Sync {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// As the system reports.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Creates a file, mode 0600; fails if it exists.
    ///
    /// # Errors
    /// As the system reports.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>>;

    /// Renames, replacing the target.
    ///
    /// # Errors
    /// As the system reports.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system reports.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, sorted.
    ///
    /// # Errors
    /// As the system reports.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Creates a directory and its parents, mode 0700. Their names are durable when this returns.
    ///
    /// # Errors
    /// As the system reports.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the system reports.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes still free for this tree.
    ///
    /// # Errors
    /// As the system reports.
    fn free_space(&self, dir: &Path) -> io::Result<u64>;

    /// How long the next sync is to take, for a model whose syncs block nobody. A real one takes its time by itself.
    fn sync_time(&self) -> Duration {
        Duration::ZERO
    }
}
