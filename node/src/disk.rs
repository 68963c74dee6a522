//! The data directory: whose it is, and the stores in it. The embedded in-memory mode has the same shape.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arca_raft_storage::state::State;
use arca_raft_storage::{KvHome, RaftParts, Transport, Vfs};
use parking_lot::Mutex;

use crate::config::Storage;
use crate::measured_vfs::MeasuredVfs;
use crate::node::NodeError;
use crate::node_file::{NodeFile, NodeRecord};

/// How long the state machine may take to close once everything that uses it was told to stop.
const CLOSING_PATIENCE: Duration = Duration::from_secs(10);
const CLOSING_PAUSE: Duration = Duration::from_millis(5);

/// Where a node keeps what it knows.
pub struct Disk {
    kind: Kind,
    home: Arc<dyn KvHome>,
    vfs: Arc<dyn Vfs>,
    raft_dir: PathBuf,
}

enum Kind {
    /// A directory, whether it belongs to a node that can have peers, and this process's claim to it.
    Directory { file: NodeFile, root: PathBuf, raft: PathBuf, is_clustered: bool, claim: Mutex<Option<File>> },
    /// Nothing outlives the process.
    Memory(Mutex<Option<NodeRecord>>),
}

impl Disk {
    /// The stores `storage` names. Nothing is touched yet.
    #[must_use]
    pub fn new(storage: &Storage) -> Self {
        match storage {
            Storage::InMemory => Self::memory(),
            Storage::File { path } => Self::directory(path, false),
            Storage::Raft { path, .. } => Self::directory(path, true),
        }
    }

    fn directory(path: &Path, is_clustered: bool) -> Self {
        let raft = path.join("raft");
        let options = arca_raft_storage::kv::RocksOptions::default();
        Self {
            home: Arc::new(arca_raft_storage::kv::RocksHome::new(raft.join("state"), options)),
            vfs: Arc::new(MeasuredVfs(arca_raft_storage::OsVfs)),
            raft_dir: raft.clone(),
            kind: Kind::Directory {
                file: NodeFile::new(path),
                root: path.to_owned(),
                raft,
                is_clustered,
                claim: Mutex::default(),
            },
        }
    }

    fn memory() -> Self {
        Self {
            home: Arc::new(arca_raft_storage::kv::ModelHome::new()),
            vfs: Arc::new(arca_raft_storage::testing::ModelVfs::new(0)),
            raft_dir: PathBuf::from("/raft"),
            kind: Kind::Memory(Mutex::new(None)),
        }
    }

    /// `raft`, `file` or `inmem`, as status pages call it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.kind {
            Kind::Directory { is_clustered: true, .. } => "raft",
            Kind::Directory { .. } => "file",
            Kind::Memory(_) => "inmem",
        }
    }

    /// Whether this node can have peers.
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        matches!(self.kind, Kind::Directory { is_clustered: true, .. })
    }

    /// What is known of this node. From now on the directory is this process's alone.
    ///
    /// # Errors
    /// When another process has the directory, or the record is damaged, newer, or missing although data is there.
    pub fn record(&self) -> Result<Option<NodeRecord>, NodeError> {
        match &self.kind {
            Kind::Memory(record) => Ok(record.lock().clone()),
            Kind::Directory { file, root, raft, claim, .. } => {
                fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(root)
                    .map_err(|err| NodeError::failed(&format!("creating {}", root.display()), err))?;
                claim_for_this_process(root, &mut claim.lock())?;
                file.read(raft).map_err(|err| NodeError::Failed(err.to_string()))
            }
        }
    }

    /// Records what this node is; durable when this returns.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write_record(&self, record: &NodeRecord) -> Result<(), NodeError> {
        match &self.kind {
            Kind::Memory(kept) => {
                *kept.lock() = Some(record.clone());
                Ok(())
            }
            Kind::Directory { file, .. } => {
                file.write(record).map_err(|err| NodeError::Failed(err.to_string()))
            }
        }
    }

    /// Throws away what an unfinished init or join left.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn clear(&self) -> Result<(), NodeError> {
        let Kind::Directory { raft, root, .. } = &self.kind else { return Ok(()) };
        let gone = |result: std::io::Result<()>, path: &Path| match result {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                Err(NodeError::failed(&format!("clearing {}", path.display()), err))
            }
            _ => Ok(()),
        };
        gone(fs::remove_dir_all(raft), raft)?;
        let file = root.join("node.json");
        gone(fs::remove_file(&file), &file)
    }

    /// Opens the state machine's store.
    ///
    /// # Errors
    /// When it is damaged or of a newer format.
    pub fn open_state(&self) -> Result<Arc<State>, NodeError> {
        if let Kind::Directory { raft, .. } = &self.kind {
            // With its name on the disk: a member that lost its log in a power loss would vote as if it had none.
            let made = self.vfs.create_dir_all(raft);
            made.map_err(|err| NodeError::failed(&format!("creating {}", raft.display()), err))?;
        }
        State::open(Arc::clone(&self.home))
            .map(Arc::new)
            .map_err(|err| NodeError::failed("opening the state machine", err))
    }

    /// Waits until nobody here uses the state machine any more: who stops it does not see the last of those who read.
    pub(crate) async fn closed(&self) {
        let deadline = tokio::time::Instant::now() + CLOSING_PATIENCE;
        while self.home.is_in_use() {
            if tokio::time::Instant::now() >= deadline {
                tracing::warn!("the state machine is still in use here");
                return;
            }
            tokio::time::sleep(CLOSING_PAUSE).await;
        }
    }

    /// What Raft runs on.
    #[must_use]
    pub fn raft_parts(&self, transport: Arc<dyn Transport>) -> RaftParts {
        RaftParts {
            vfs: Arc::clone(&self.vfs),
            log_dir: self.raft_dir.join("log"),
            node_dir: self.raft_dir.join("node"),
            home: Arc::clone(&self.home),
            transport,
        }
    }
}

/// Locks the directory for as long as this process lives. Two processes would cut off each other's log: each would take
/// what the other is just writing for the torn end that a crash left.
fn claim_for_this_process(root: &Path, claim: &mut Option<File>) -> Result<(), NodeError> {
    if claim.is_some() {
        return Ok(());
    }
    let path = root.join("lock");
    let failed = |err| NodeError::failed(&format!("locking {}", path.display()), err);
    let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = options.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(err)) => return Err(failed(err)),
        Err(TryLockError::WouldBlock) => {
            let text = format!(
                "{} belongs to another process that runs: give each node a path of its own",
                root.display()
            );
            return Err(NodeError::Failed(text));
        }
    }
    *claim = Some(file);
    Ok(())
}
