//! The disk under the Raft log, with a watch on the one thing that bounds every write: how long a sync takes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arca_raft_storage::{Vfs, VfsFile};
use tokio::time::Instant;

/// Milliseconds each sync of the log took.
const SYNC: &str = "vault.raft_storage.log_sync";

/// See the module's header.
#[derive(Debug)]
pub(crate) struct MeasuredVfs<V>(pub(crate) V);

#[derive(Debug)]
struct Measured(Arc<dyn VfsFile>);

impl VfsFile for Measured {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let began = Instant::now();
        let outcome = self.0.sync_data();
        metrics::histogram!(SYNC).record(began.elapsed().as_secs_f64() * 1e3);
        outcome
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

impl<V: Vfs> Vfs for MeasuredVfs<V> {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(Measured(self.0.open(path)?)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(Measured(self.0.create(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(dir)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir_all(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        self.0.free_space(dir)
    }
}
