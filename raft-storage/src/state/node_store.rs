//! Node-class values: this member's own, never replicated, durable before a write returns.
//!
//! A handful of small values in one file, rewritten whole and put in place by rename: `"ARCANODE" | format u8 |
//! count | (key, value)… | CRC32C u32`. It goes through [`Vfs`], so that the simulation can tear it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::codec::{self, Malformed, Reader};
use crate::kv::KvError;
use crate::{Vfs, VfsFile};

const MAGIC: &[u8; 8] = b"ARCANODE";
/// Newest format this build knows.
const FORMAT: u8 = 1;
/// Largest file.
const FILE_BYTES_MAX: usize = 4 << 20;
const CHECKSUM_BYTES: usize = 4;

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// The values. Reads are from memory.
pub struct NodeStore {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    state: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    values: Values,
    /// After a failed write what is on disk is unknown.
    is_failed: bool,
}

impl fmt::Debug for NodeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl NodeStore {
    /// Opens the file in `dir`, which is made if need be.
    ///
    /// # Errors
    /// When it is damaged, of a newer format, or the system fails.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self, KvError> {
        let store = Self { vfs, dir: dir.to_owned(), state: Mutex::default() };
        store.vfs.create_dir_all(dir).map_err(|err| store.failed(&err))?;
        let values = match store.vfs.open(&store.path()) {
            Ok(file) => store.parse(&store.read(file.as_ref())?)?,
            Err(err) if err.kind() == io::ErrorKind::NotFound => Values::new(),
            Err(err) => return Err(store.failed(&err)),
        };
        store.state.lock().values = values;
        Ok(store)
    }

    /// The value at `key`.
    ///
    /// # Errors
    /// When an earlier write failed.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        let kept = self.state.lock();
        self.check(&kept)?;
        Ok(kept.values.get(key).cloned())
    }

    /// Stores the value durably before returning.
    ///
    /// # Errors
    /// When the file would become too large, or the system fails; the store is then not used any more.
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError> {
        let mut kept = self.state.lock();
        self.check(&kept)?;
        let mut values = kept.values.clone();
        values.insert(key.to_vec(), value.to_vec());
        let bytes = encode(&values);
        if bytes.len() > FILE_BYTES_MAX {
            let path = self.path();
            return Err(KvError::Io(format!("{} would be over {FILE_BYTES_MAX} bytes", path.display())));
        }
        if let Err(err) = self.replace(&bytes) {
            kept.is_failed = true;
            return Err(self.failed(&err));
        }
        kept.values = values;
        Ok(())
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.dir.join("node.new");
        match self.vfs.remove(&new) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            _ => {}
        }
        let file = self.vfs.create(&new)?;
        file.write_at(bytes, 0)?;
        file.sync_data()?;
        self.vfs.rename(&new, &self.path())?;
        self.vfs.sync_dir(&self.dir)
    }

    fn read(&self, file: &dyn VfsFile) -> Result<Vec<u8>, KvError> {
        let len = file.len().map_err(|err| self.failed(&err))?;
        let len = usize::try_from(len).ok().filter(|len| *len <= FILE_BYTES_MAX);
        let mut bytes = vec![0; len.ok_or_else(|| self.damaged("too long"))?];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, done as u64).map_err(|err| self.failed(&err))? {
                0 => return Err(self.damaged("ends early")),
                read => done += read,
            }
        }
        Ok(bytes)
    }

    fn parse(&self, bytes: &[u8]) -> Result<Values, KvError> {
        let (content, checksum) = bytes
            .split_at_checked(bytes.len().saturating_sub(CHECKSUM_BYTES))
            .ok_or_else(|| self.damaged("ends early"))?;
        if crc32c::crc32c(content).to_be_bytes() != checksum {
            return Err(self.damaged("checksum does not match"));
        }
        let mut reader = Reader::new(content);
        let head = reader.array::<8>().and_then(|magic| Ok((magic, reader.byte()?)));
        match head.map_err(|problem| self.damaged(problem.0))? {
            (magic, _) if magic != *MAGIC => return Err(self.damaged("not a file of node values")),
            (_, found) if found > FORMAT => {
                let what = self.path().display().to_string();
                return Err(KvError::NewerFormat { what, found: found.into(), known: FORMAT.into() });
            }
            _ => {}
        }
        decode(reader).map_err(|problem| self.damaged(problem.0))
    }

    fn check(&self, kept: &Kept) -> Result<(), KvError> {
        if kept.is_failed {
            return Err(KvError::Io(format!("an earlier write of {} failed", self.path().display())));
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.dir.join("node")
    }

    fn damaged(&self, problem: &str) -> KvError {
        KvError::Corrupt(format!("{}: {problem}", self.path().display()))
    }

    fn failed(&self, err: &io::Error) -> KvError {
        if err.kind() == io::ErrorKind::StorageFull {
            return KvError::Full;
        }
        KvError::Io(format!("{}: {err}", self.path().display()))
    }
}

fn encode(values: &Values) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(FORMAT);
    codec::put_varint(&mut out, values.len() as u64);
    for (key, value) in values {
        codec::put_bytes(&mut out, key);
        codec::put_bytes(&mut out, value);
    }
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_be_bytes());
    out
}

fn decode(mut reader: Reader<'_>) -> Result<Values, Malformed> {
    let mut values = Values::new();
    for _ in 0..reader.count(2)? {
        let key = reader.bytes(FILE_BYTES_MAX)?.to_vec();
        values.insert(key, reader.bytes(FILE_BYTES_MAX)?.to_vec());
    }
    reader.finish()?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CrashPolicy, ModelVfs, Operation};

    const POLICIES: [CrashPolicy; 5] = [
        CrashPolicy::KeepPending,
        CrashPolicy::KeepPrefix,
        CrashPolicy::LosePending,
        CrashPolicy::Reorder { block: 512 },
        CrashPolicy::Torn { block: 1 },
    ];

    fn open(vfs: &ModelVfs) -> Result<NodeStore, KvError> {
        NodeStore::open(Arc::new(vfs.clone()), Path::new("data"))
    }

    /// The power goes off at every operation of a write, in every way: the old value is there or the new one, and a
    /// write that returned is there.
    #[test]
    fn a_write_is_whole_and_durable_whatever_it_is_cut_off_at() {
        for (turn, policy) in (0..).zip(POLICIES.iter().cycle().take(50)) {
            for at in 1..20 {
                let vfs = ModelVfs::new(turn);
                let store = open(&vfs).unwrap();
                store.put(b"other", b"kept").unwrap();
                store.put(b"key", b"old").unwrap();
                vfs.power_off_at(vfs.changes() + at);
                let written = store.put(b"key", b"new");
                vfs.crash(*policy);
                let store = open(&vfs).unwrap();
                let found = store.get(b"key").unwrap().unwrap();
                assert!(
                    found == b"new" || (found == b"old" && written.is_err()),
                    "{policy:?} at {at}: {found:?}"
                );
                assert_eq!(store.get(b"other").unwrap().unwrap(), b"kept");
                // And it goes on from there.
                store.put(b"key", b"newer").unwrap();
                vfs.crash(CrashPolicy::LosePending);
                assert_eq!(open(&vfs).unwrap().get(b"key").unwrap().unwrap(), b"newer");
            }
        }
    }

    #[test]
    fn a_failed_write_is_not_forgotten() {
        let vfs = ModelVfs::new(1);
        let store = open(&vfs).unwrap();
        vfs.fail_nth(Operation::Sync, 1, io::ErrorKind::StorageFull);
        assert!(matches!(store.put(b"key", b"value"), Err(KvError::Full)));
        assert!(store.put(b"key", b"value").is_err());
        assert!(store.get(b"key").is_err());
    }

    #[test]
    fn a_flipped_bit_is_named() {
        let vfs = ModelVfs::new(1);
        open(&vfs).unwrap().put(b"key", b"value").unwrap();
        let path = Path::new("data/node");
        let size = vfs.contents(path).unwrap().len() as u64;
        for at in 0..size {
            assert!(vfs.flip_bit(path, at, 0));
            let expected = "state machine store is damaged: data/node: checksum does not match";
            assert_eq!(open(&vfs).unwrap_err().to_string(), expected, "byte {at}");
            assert!(vfs.flip_bit(path, at, 0));
        }
        assert_eq!(open(&vfs).unwrap().get(b"key").unwrap().unwrap(), b"value");
    }

    /// These bytes are on disks: they never change.
    #[test]
    fn golden_bytes() {
        let values = Values::from([(b"a".to_vec(), vec![7, 8]), (b"b".to_vec(), vec![])]);
        let mut expected = b"ARCANODE\x01\x02\x01a\x02\x07\x08\x01b\x00".to_vec();
        expected.extend_from_slice(&[0x96, 0x52, 0x9b, 0x9e]);
        assert_eq!(encode(&values), expected);
        let vfs = ModelVfs::new(1);
        let mut newer = b"ARCANODE\x02".to_vec();
        newer.extend_from_slice(&crc32c::crc32c(&newer).to_be_bytes());
        vfs.plant(Path::new("data/node"), &newer);
        let expected =
            "data/node has format 2, this build knows up to 1: run the newer version that wrote it";
        assert_eq!(open(&vfs).unwrap_err().to_string(), expected);
    }
}
