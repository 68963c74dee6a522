//! `node.json` in the data directory: which cluster and member this node is, readable while sealed.
//!
//! It holds nothing that unseals: public facts, and ciphertext under the root key. The seal's settings and the
//! wrapped keys in it are the copies a joiner was given; once the replicated state holds them, that copy counts.
//! Format: `docs/formats/node-file.md`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use arca_raft_storage::MemberId;
use serde::{Deserialize, Serialize};

/// Version written today.
const VERSION: u32 = 1;
const NAME: &str = "node.json";

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NodeFileError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// Damaged: the checksum is wrong or it does not parse.
    #[error(
        "{path} is damaged: {reason}. Restore it from a backup, or remove this node from its cluster and join it anew with an empty data directory"
    )]
    Damaged {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The node was given another name.
    #[error(
        "the data directory belongs to the node named {recorded:?}, but node_id is {configured:?}: a member keeps its name. Set node_id back, or point this node at another data directory"
    )]
    OtherName {
        /// `node_id` the record was made with.
        recorded: String,
        /// `node_id` of the configuration.
        configured: String,
    },
    /// Written by a newer build.
    #[error(
        "{path} has format {found}, this build knows up to {VERSION}: run the newer version that wrote it"
    )]
    Newer {
        /// File.
        path: PathBuf,
        /// Version found.
        found: u32,
    },
    /// Data without the file that says whose it is.
    #[error(
        "{path} is missing, but {data} holds data: this directory belongs to a cluster. Restore the file from a backup, or empty the directory to start anew"
    )]
    Missing {
        /// File.
        path: PathBuf,
        /// The directory found.
        data: PathBuf,
    },
}

/// How far this node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Init or join has begun; nothing was acknowledged, and what lies here may be thrown away.
    Beginning,
    /// A member.
    Member,
    /// Was a member and was removed: its data is kept, but it never joins again under this identity.
    Removed,
}

/// Contents of the file. Byte fields are hex.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord {
    /// Format version.
    pub version: u32,
    /// Stage.
    pub stage: Stage,
    /// The cluster.
    pub cluster_id: String,
    /// Raft id in it.
    pub member: MemberId,
    /// `node_id` it was made with.
    pub node_name: String,
    /// CA certificate, DER.
    pub ca: String,
    /// Own certificate, DER.
    pub certificate: String,
    /// Own key, sealed by the barrier.
    pub sealed_key: String,
    /// `boot/seal-config` as given at join.
    pub seal_config: String,
    /// `boot/root-key` as given at join.
    pub root_key: String,
    /// `boot/keyring` as given at join.
    pub keyring: String,
}

impl NodeRecord {
    /// The version new records carry.
    pub const VERSION: u32 = VERSION;

    /// Checks that the configured `node_id` is the one this record was made with: members know each other by it.
    ///
    /// # Errors
    /// [`NodeFileError::OtherName`].
    pub fn check_name(&self, configured: &str) -> Result<(), NodeFileError> {
        if self.node_name == configured {
            return Ok(());
        }
        let (recorded, configured) = (self.node_name.clone(), configured.to_owned());
        Err(NodeFileError::OtherName { recorded, configured })
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    /// BLAKE3 of `record`'s text, hex.
    checksum: String,
    record: String,
}

/// The file of one data directory.
#[derive(Clone, Debug)]
pub struct NodeFile {
    dir: PathBuf,
}

impl NodeFile {
    /// The file in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(NAME)
    }

    fn io(&self, source: io::Error) -> NodeFileError {
        NodeFileError::Io { path: self.path(), source }
    }

    fn damaged(&self, reason: impl Into<String>) -> NodeFileError {
        NodeFileError::Damaged { path: self.path(), reason: reason.into() }
    }

    /// What the file says; `None` in an empty directory.
    ///
    /// # Errors
    /// When it is damaged or newer, or missing although `data` exists.
    pub fn read(&self, data: &Path) -> Result<Option<NodeRecord>, NodeFileError> {
        let text = match fs::read_to_string(self.path()) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound && !data.exists() => return Ok(None),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                return Err(NodeFileError::Missing { path: self.path(), data: data.to_owned() });
            }
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                return Err(self.damaged("it is not text"));
            }
            Err(err) => return Err(self.io(err)),
        };
        let stored: Stored =
            serde_json::from_str(&text).map_err(|err| self.damaged(format!("line {}", err.line())))?;
        if blake3::hash(stored.record.as_bytes()).to_hex().as_str() != stored.checksum {
            return Err(self.damaged("its checksum is wrong"));
        }
        let version = serde_json::from_str::<serde_json::Value>(&stored.record)
            .ok()
            .and_then(|record| record.get("version")?.as_u64())
            .and_then(|version| u32::try_from(version).ok())
            .ok_or_else(|| self.damaged("it has no version"))?;
        if version > VERSION {
            return Err(NodeFileError::Newer { path: self.path(), found: version });
        }
        serde_json::from_str(&stored.record)
            .map(Some)
            .map_err(|err| self.damaged(format!("record, column {}", err.column())))
    }

    /// Replaces the file; durable when this returns.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, record: &NodeRecord) -> Result<(), NodeFileError> {
        let record = serde_json::to_string(record).map_err(|err| self.damaged(err.to_string()))?;
        let checksum = blake3::hash(record.as_bytes()).to_hex().to_string();
        let text = serde_json::to_vec_pretty(&Stored { checksum, record })
            .map_err(|err| self.damaged(err.to_string()))?;
        self.replace(&text).map_err(|err| self.io(err))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join("node.json.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path())?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NodeRecord {
        NodeRecord {
            version: VERSION,
            stage: Stage::Member,
            cluster_id: "c".to_owned(),
            member: MemberId(3),
            node_name: "n3".to_owned(),
            ca: "00".to_owned(),
            certificate: "01".to_owned(),
            sealed_key: "02".to_owned(),
            seal_config: String::new(),
            root_key: String::new(),
            keyring: String::new(),
        }
    }

    #[test]
    fn comes_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = NodeFile::new(dir.path());
        assert!(file.read(&dir.path().join("raft")).unwrap().is_none());
        file.write(&record()).unwrap();
        let found = file.read(&dir.path().join("raft")).unwrap().unwrap();
        assert_eq!((found.member, found.stage), (MemberId(3), Stage::Member));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = NodeFile::new(dir.path());
        file.write(&record()).unwrap();
        let good = fs::read(dir.path().join(NAME)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(dir.path().join(NAME), &bad).unwrap();
            if let Ok(Some(found)) = file.read(dir.path()) {
                // White space between the fields may change; the record may not.
                assert_eq!(found.member, MemberId(3), "byte {at}");
                assert_eq!(serde_json::to_string(&found).unwrap(), serde_json::to_string(&record()).unwrap());
            }
        }
    }

    #[test]
    fn data_without_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("raft");
        fs::create_dir(&data).unwrap();
        let err = NodeFile::new(dir.path()).read(&data).unwrap_err();
        assert!(matches!(err, NodeFileError::Missing { .. }), "{err}");
    }

    #[test]
    fn a_record_keeps_its_node_s_name() {
        record().check_name("n3").unwrap();
        let err = record().check_name("n4").unwrap_err().to_string();
        assert!(err.contains("\"n3\"") && err.contains("\"n4\""), "{err}");
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = NodeFile::new(dir.path());
        file.write(&NodeRecord { version: VERSION + 1, ..record() }).unwrap();
        assert!(matches!(file.read(dir.path()), Err(NodeFileError::Newer { found: 2, .. })));
    }
}
