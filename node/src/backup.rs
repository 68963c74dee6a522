//! Backups: a gzip tar of `meta.json`, `state.bin`, `SHA256SUMS` and `SHA256SUMS.sealed`, as this family of tools
//! expects. `state.bin` is the replica's own checked stream; everything in it is ciphertext.
//!
//! A restore verifies everything before it changes anything: names, sizes and order of the members, both checksums
//! (one of them keyed by the root key, unless forced), then the stream's own.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use arca_barrier::RootKey;
use arca_engine_api::UnixMillis;
use arca_kernel::KernelError;
use arca_raft_storage::{RaftReplica, Replica as _, SnapshotStream};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::StreamExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _, BufWriter};
use tokio_util::io::ReaderStream;
use zeroize::Zeroizing;

/// Chunk sent or fed at once, bytes.
const CHUNK_SIZE: usize = 256 << 10;
/// Largest `meta.json` and checksum files, bytes.
const SMALL_FILE_MAX: u64 = 1 << 20;
/// Room that a restore needs on each member's disk, for each byte: in the log, staged, and twice while a store is built.
const ROOM_PER_BYTE: u64 = 4;
const SEAL_CONTEXT: &str = "arca 2026-11 backup: seal over SHA256SUMS";

fn failed(doing: &str, err: impl std::fmt::Display) -> KernelError {
    KernelError::Replica(arca_raft_storage::ReplicaError::Snapshot(format!("{doing}: {err}")))
}

fn refused(text: impl Into<String>) -> KernelError {
    KernelError::Invalid(format!("the snapshot was refused and nothing was changed: {}", text.into()))
}

fn seal_of(root: &RootKey, sums: &[u8]) -> blake3::Hash {
    // The bare root key goes into a key derivation and nowhere else.
    let key = Zeroizing::new(blake3::derive_key(SEAL_CONTEXT, root.expose()));
    blake3::keyed_hash(&key, sums)
}

/// A temporary file without a name, which nobody else can open: it is gone when dropped, whatever happens.
fn scratch() -> Result<std::fs::File, KernelError> {
    use std::os::unix::fs::PermissionsExt as _;
    let made = tempfile::tempfile().and_then(|file| {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
        Ok(file)
    });
    made.map_err(|err| failed("creating a temporary file", err))
}

/// Writes a stream to a temporary file, on the threads for what blocks: a slow disk holds up nothing else.
async fn collect(mut stream: SnapshotStream) -> Result<(std::fs::File, u64), KernelError> {
    let file = blocking(scratch).await?;
    let mut file = BufWriter::with_capacity(CHUNK_SIZE, tokio::fs::File::from_std(file));
    let mut size = 0_u64;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|err| failed("receiving", err))?;
        size += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        file.write_all(&chunk).await.map_err(|err| failed("writing a temporary file", err))?;
    }
    file.flush().await.map_err(|err| failed("writing a temporary file", err))?;
    let mut file = file.into_inner();
    file.seek(SeekFrom::Start(0)).await.map_err(|err| failed("rewinding", err))?;
    Ok((file.into_std().await, size))
}

/// Chunks of a file, read as they are asked for, on the threads for what blocks.
fn stream_of(file: std::fs::File) -> SnapshotStream {
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_SIZE);
    Box::pin(chunks.map(|chunk| chunk.map_err(|err| err.to_string())))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KernelError> + Send + 'static,
) -> Result<T, KernelError> {
    tokio::task::spawn_blocking(work).await.map_err(|err| failed("packing", err))?
}

/// Makes a backup of the whole replicated state.
pub(crate) async fn export(
    replica: &RaftReplica,
    root: &RootKey,
    cluster_id: &str,
    now: UnixMillis,
) -> Result<SnapshotStream, KernelError> {
    let status = replica.status();
    let (state, size) = collect(replica.export().await?).await?;
    let meta = json!({
        "Version": 1,
        "ID": format!("arca-{}-{}", status.term, status.applied_index),
        "Index": status.applied_index,
        "Term": status.term,
        "ConfigurationIndex": replica.membership().index,
        "Size": size,
        "ClusterID": cluster_id,
        "Created": arca_kernel::rfc3339::format(now),
    });
    let meta = serde_json::to_vec_pretty(&meta).map_err(|err| failed("packing", err))?;
    // The key is used on this thread; the blocking part gets only what it derives.
    let seal_key = Zeroizing::new(blake3::derive_key(SEAL_CONTEXT, root.expose()));
    let packed = blocking(move || pack(&meta, state, size, &seal_key)).await?;
    Ok(stream_of(packed))
}

fn pack(
    meta: &[u8],
    mut state: std::fs::File,
    size: u64,
    seal_key: &[u8; 32],
) -> Result<std::fs::File, KernelError> {
    let trouble = |err: std::io::Error| failed("packing", err);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_SIZE];
    loop {
        let got = state.read(&mut chunk).map_err(trouble)?;
        let Some(read) = chunk.get(..got).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
    }
    state.seek(SeekFrom::Start(0)).map_err(trouble)?;
    let sums = format!(
        "{}  meta.json\n{}  state.bin\n",
        hex::encode(Sha256::digest(meta)),
        hex::encode(hash.finalize())
    );
    let sealed = blake3::keyed_hash(seal_key, sums.as_bytes()).to_hex().to_string();
    let mut archive = tar::Builder::new(GzEncoder::new(scratch()?, Compression::fast()));
    append(&mut archive, "meta.json", meta, meta.len() as u64).map_err(trouble)?;
    append(&mut archive, "state.bin", state, size).map_err(trouble)?;
    append(&mut archive, "SHA256SUMS", sums.as_bytes(), sums.len() as u64).map_err(trouble)?;
    append(&mut archive, "SHA256SUMS.sealed", sealed.as_bytes(), sealed.len() as u64).map_err(trouble)?;
    let mut file = archive.into_inner().and_then(GzEncoder::finish).map_err(trouble)?;
    file.seek(SeekFrom::Start(0)).map_err(trouble)?;
    Ok(file)
}

fn append<W: std::io::Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    content: impl std::io::Read,
    size: u64,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_cksum();
    archive.append_data(&mut header, name, content)
}

/// What an archive held, checked.
struct Unpacked {
    meta: Value,
    state: std::fs::File,
    sums: Vec<u8>,
    sealed: Vec<u8>,
}

/// A backup that was verified whole and may be restored.
pub(crate) struct Verified {
    /// The id of the cluster that it says it is of.
    pub(crate) origin: String,
    state: std::fs::File,
}

/// Verifies a backup. Nothing has changed yet.
pub(crate) async fn verify(
    root: &RootKey,
    cluster_id: &str,
    stream: SnapshotStream,
    is_forced: bool,
) -> Result<Verified, KernelError> {
    let (packed, _) = collect(stream).await?;
    let unpacked = blocking(move || unpack(packed)).await?;
    let origin = unpacked.meta.get("ClusterID").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_ours = origin == cluster_id;
    let sealed = blake3::Hash::from_hex(unpacked.sealed.trim_ascii());
    let is_sealed = sealed.is_ok_and(|sealed| seal_of(root, &unpacked.sums) == sealed);
    if !(is_forced || is_ours && is_sealed) {
        return Err(refused(
            "it was made under other keys. To restore it all the same, force it; the cluster then has the unseal keys \
             and tokens of the time and cluster of the snapshot",
        ));
    }
    Ok(Verified { origin, state: unpacked.state })
}

impl Verified {
    /// Refuses it unless every member has room for it. Who does not say is taken to have: it may be away, and takes the
    /// backup in when it is back and has room.
    pub(crate) fn check_room(&self, rooms: &[(String, Option<u64>)]) -> Result<(), KernelError> {
        let size = self.state.metadata().map_err(|err| failed("measuring", err))?.len();
        let needed = size.saturating_mul(ROOM_PER_BYTE);
        match rooms.iter().find(|(_, room)| room.is_some_and(|room| room < needed)) {
            None => Ok(()),
            Some((name, _)) => Err(refused(format!(
                "restoring its {size} bytes takes {needed} on the disk of every member, and {name} has less to spare"
            ))),
        }
    }

    /// Restores it.
    pub(crate) async fn import(self, replica: &RaftReplica) -> Result<(), KernelError> {
        tracing::warn!(cluster_id = self.origin, "restoring a backup of the named cluster");
        Ok(replica.import(stream_of(self.state)).await?)
    }
}

fn unpack(packed: std::fs::File) -> Result<Unpacked, KernelError> {
    let trouble = |err: std::io::Error| refused(format!("it is no readable gzip tar ({})", err.kind()));
    let mut archive = tar::Archive::new(GzDecoder::new(packed));
    let (mut meta, mut state, mut sums, mut sealed) = (None, None, None, None);
    for entry in archive.entries().map_err(trouble)? {
        let mut entry = entry.map_err(trouble)?;
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(refused("it holds something that is not a plain file"));
        }
        let name = entry.path_bytes().into_owned();
        let slot = match name.as_slice() {
            b"state.bin" if state.is_none() => {
                state = Some(unpack_state(&mut entry)?);
                continue;
            }
            b"meta.json" => &mut meta,
            b"SHA256SUMS" => &mut sums,
            b"SHA256SUMS.sealed" => &mut sealed,
            _ => return Err(refused("it holds an unexpected or repeated file")),
        };
        let mut bytes = Vec::new();
        (&mut entry).take(SMALL_FILE_MAX + 1).read_to_end(&mut bytes).map_err(trouble)?;
        if slot.is_some() || bytes.len() as u64 > SMALL_FILE_MAX {
            return Err(refused("it holds a repeated or oversized file"));
        }
        *slot = Some(bytes);
    }
    let (Some(meta), Some((state, state_sum)), Some(sums)) = (meta, state, sums) else {
        return Err(refused("a file is missing: it needs meta.json, state.bin and SHA256SUMS"));
    };
    let expected = format!("{}  meta.json\n{state_sum}  state.bin\n", hex::encode(Sha256::digest(&meta)));
    if sums != expected.as_bytes() {
        return Err(refused("its checksums do not match: it is damaged or was edited"));
    }
    let meta = serde_json::from_slice(&meta).map_err(|_| refused("meta.json does not parse"))?;
    Ok(Unpacked { meta, state, sums, sealed: sealed.unwrap_or_default() })
}

fn unpack_state(entry: &mut impl std::io::Read) -> Result<(std::fs::File, String), KernelError> {
    let mut file = scratch()?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_SIZE];
    loop {
        let got = entry.read(&mut chunk).map_err(|err| refused(format!("it breaks off ({})", err.kind())))?;
        let Some(read) = chunk.get(..got).filter(|read| !read.is_empty()) else { break };
        hash.update(read);
        file.write_all(read).map_err(|err| failed("writing a temporary file", err))?;
    }
    file.seek(SeekFrom::Start(0)).map_err(|err| failed("rewinding", err))?;
    Ok((file, hex::encode(hash.finalize())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn a_stream_comes_back_from_a_file_that_only_its_owner_can_read() {
        let chunks = (0..200_u32).map(|number| Ok(Bytes::from(vec![number.to_le_bytes()[0]; 5_000])));
        let (file, size) = collect(Box::pin(futures::stream::iter(chunks))).await.unwrap();
        let found = file.metadata().unwrap();
        assert_eq!((size, found.len()), (1_000_000, 1_000_000));
        assert_eq!((found.mode() & 0o777, found.nlink()), (0o600, 0), "private and without a name");
        let mut back = stream_of(file);
        let mut at = 0_usize;
        while let Some(chunk) = back.next().await {
            let chunk = chunk.unwrap();
            assert!(chunk.len() <= CHUNK_SIZE);
            for byte in chunk {
                assert_eq!(usize::from(byte), at / 5_000, "byte {at}");
                at += 1;
            }
        }
        assert_eq!(at, 1_000_000);
    }

    #[test]
    fn a_backup_needs_room_on_every_disk_that_is_known() {
        let state = scratch().unwrap();
        state.set_len(1_000).unwrap();
        let backup = Verified { origin: String::new(), state };
        let check = |rooms: &[Option<u64>]| {
            let names = ["n1", "n2", "n3"].map(str::to_owned).into_iter();
            let rooms: Vec<_> = names.zip(rooms.iter().copied()).collect();
            backup.check_room(&rooms).map_err(|err| err.to_string())
        };
        assert_eq!(check(&[Some(4_000), None, Some(4_000)]), Ok(()));
        let err = check(&[Some(4_000), None, Some(3_999)]).unwrap_err();
        assert!(err.contains("takes 4000") && err.contains("n3 has less"), "{err}");
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_an_error() {
        let chunks = [Ok(Bytes::from_static(b"a")), Err("gone".to_owned())];
        let err = collect(Box::pin(futures::stream::iter(chunks))).await.unwrap_err();
        assert!(err.to_string().contains("gone"), "{err}");
    }
}
