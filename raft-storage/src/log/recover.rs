//! Opens a log directory: checks every segment, replays it into memory, drops what a crash cut short, and makes sure
//! that what it found is on the disk and not only in the page cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arca_danger::Bug;
use bytes::Bytes;

use super::format::{BatchWriter, HEADER_BYTES, Hash, Header, Kind, Place, Record};
use super::memory::{Memory, Slot};
use super::scan::{Contents, Expected, Scanned, Scanner, segment_number, segment_path};
use super::{EntryId, LogError, Options};
use crate::vfs::{Vfs, VfsFile};

/// A segment file as the log keeps track of it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) bytes: u64,
    /// Lowest and highest entry index ever written to it, truncated ones too.
    pub(super) indexes: Option<(u64, u64)>,
    pub(super) seal: Option<Hash>,
}

impl Segment {
    pub(super) fn note(&mut self, index: u64) {
        let (first, last) = self.indexes.unwrap_or((index, index));
        self.indexes = Some((first.min(index), last.max(index)));
    }
}

/// Where the next batch goes.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) number: u32,
    pub(super) file: Arc<dyn VfsFile>,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) batch: u64,
    pub(super) hasher: blake3::Hasher,
    pub(super) seal: Option<Hash>,
}

pub(super) struct Recovered {
    pub(super) memory: Memory,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) active: Active,
}

/// Opens or creates the log in `options.dir`.
pub(super) fn recover(vfs: &dyn Vfs, options: &Options) -> Result<Recovered, LogError> {
    let dir = options.dir.as_path();
    vfs.create_dir_all(dir).map_err(LogError::io("create", dir))?;
    if let Some(parent) = dir.parent() {
        vfs.sync_dir(parent).map_err(LogError::io("sync", parent))?;
    }
    let numbers = segment_numbers(vfs, dir)?;
    let mut memory = Memory::new(options.recent_bytes);
    let mut segments = BTreeMap::new();
    let Some(last) = numbers.last() else {
        let active = Opening::default().create_segment(vfs, options, 1, [0; 32], 1)?;
        segments.insert(1, active.segment());
        return Ok(Recovered { memory, segments, active });
    };
    let (mut previous, mut batch) = (None, None);
    let mut newest = None;
    for number in &numbers {
        let path = segment_path(dir, *number);
        let file = vfs.open(&path).map_err(LogError::io("open", &path))?;
        let is_last = number == last;
        let expected = Expected { cluster: options.cluster, number: *number, previous, batch, is_last };
        let mut segment =
            Segment { number: *number, path, file: Arc::clone(&file), bytes: 0, indexes: None, seal: None };
        let path = segment.path.clone();
        let contents = Scanner::new(&path, file, expected)?.run(&mut |batch| {
            batch.into_iter().try_for_each(|record| replay(&mut memory, &mut segment, record))
        })?;
        segment.bytes = contents.end;
        segment.seal = contents.sealed;
        (previous, batch) = (contents.sealed, Some(contents.last_batch));
        newest = Some((segment.clone(), contents));
        segments.insert(*number, segment);
    }
    check_front(&memory, numbers.first().copied(), dir)?;
    let (segment, contents) = newest.ok_or_else(|| missing(dir, 1))?;
    let active = make_durable(vfs, dir, segment, contents)?;
    Ok(Recovered { memory, segments, active })
}

/// The segments present, which must be consecutive. Removes files that never got their final name.
fn segment_numbers(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<u32>, LogError> {
    let mut numbers = Vec::new();
    for path in vfs.list(dir).map_err(LogError::io("list", dir))? {
        if path.extension().is_some_and(|extension| extension == "tmp") {
            vfs.remove(&path).map_err(LogError::io("remove", &path))?;
        } else if let Some(number) = segment_number(&path) {
            numbers.push(number);
        } else {
            return Err(LogError::NotASegment { file: path });
        }
    }
    numbers.sort_unstable();
    for (number, next) in numbers.iter().zip(numbers.iter().skip(1)) {
        if number + 1 != *next {
            return Err(missing(dir, number + 1));
        }
    }
    Ok(numbers)
}

fn missing(dir: &Path, number: u32) -> LogError {
    LogError::MissingSegment { file: segment_path(dir, number) }
}

/// Segments go only once all they held was purged, so what is left must start no later than the purge point.
fn check_front(memory: &Memory, first: Option<u32>, dir: &Path) -> Result<(), LogError> {
    let Some(first) = first.filter(|number| *number > 1) else { return Ok(()) };
    let purged_end = memory.purged.map_or(0, |id| id.index + 1);
    let is_whole = memory.purged.is_some() && memory.first_index().is_none_or(|index| index <= purged_end);
    if is_whole { Ok(()) } else { Err(missing(dir, first - 1)) }
}

fn replay(memory: &mut Memory, segment: &mut Segment, record: Scanned) -> Result<(), LogError> {
    let frame = record.frame;
    let corrupt = |what| LogError::Corrupt {
        file: segment.path.clone(),
        offset: record.offset,
        record: record.number,
        what,
    };
    match (frame.kind, frame.id) {
        (Kind::Entry, Some(id)) => {
            let follows = memory.first_index().is_none() || memory.next_index() == Some(id.index);
            let offset = u32::try_from(record.offset).ok().filter(|_| follows);
            let offset = offset.ok_or_else(|| corrupt("the entry does not follow the one before it"))?;
            memory.push_slot(id, Slot { segment: segment.number, offset });
            segment.note(id.index);
        }
        (Kind::Vote, _) if memory.vote.is_some() && arca_danger::is(Bug::OldVoteAfterRestart) => {}
        (Kind::Vote, _) => memory.vote = Some(Bytes::from(record.payload)),
        (Kind::Committed, id) => memory.committed = id,
        (Kind::Truncate, id) => memory.truncate_after(id.map(|id| id.index)),
        (Kind::Purge, Some(id)) => drop(memory.purge(id)),
        (Kind::Seal, _) => {}
        (Kind::Entry | Kind::Purge, None) => return Err(corrupt("the record names no entry")),
    }
    Ok(())
}

/// Cuts the torn tail, writes the last batch again, and syncs.
///
/// The last batch may be in the page cache only: the process died before its sync, or the sync failed and the kernel
/// now takes the pages for clean. What this member reads it will vouch for, so it must not vanish later.
fn make_durable(vfs: &dyn Vfs, dir: &Path, segment: Segment, contents: Contents) -> Result<Active, LogError> {
    let Segment { number, path, file, .. } = segment;
    let again = usize::try_from(contents.end - contents.last_batch_at).unwrap_or(0);
    let mut bytes = vec![0; again];
    let read = file.read_at(&mut bytes, contents.last_batch_at).map_err(LogError::io("read", &path))?;
    bytes.truncate(read);
    if contents.torn_bytes > 0 {
        tracing::warn!(
            file = %path.display(), offset = contents.end, bytes = contents.torn_bytes,
            "dropped the end of the log that a crash cut short; none of it was acknowledged"
        );
        file.set_len(contents.end).map_err(LogError::io("cut", &path))?;
    }
    file.write_at(&bytes, contents.last_batch_at).map_err(LogError::io("write", &path))?;
    file.sync_data().map_err(LogError::io("sync", &path))?;
    vfs.sync_dir(dir).map_err(LogError::io("sync", dir))?;
    Ok(Active {
        number,
        file,
        path,
        offset: contents.end,
        batch: contents.last_batch + 1,
        hasher: contents.hasher,
        seal: contents.sealed,
    })
}

impl Active {
    pub(super) fn segment(&self) -> Segment {
        Segment {
            number: self.number,
            path: self.path.clone(),
            file: Arc::clone(&self.file),
            bytes: self.offset,
            indexes: None,
            seal: None,
        }
    }
}

/// The state a segment repeats at its start, so that older ones can go: what the records before it said.
#[derive(Clone, Debug, Default)]
pub(super) struct Opening {
    pub(super) vote: Option<Bytes>,
    pub(super) purged: Option<EntryId>,
    pub(super) committed: Option<EntryId>,
}

impl Opening {
    pub(super) fn of(memory: &Memory) -> Self {
        Self { vote: memory.vote.clone(), purged: memory.purged, committed: memory.committed }
    }

    /// Makes a segment. It gets its name only once its first batch is on the disk.
    pub(super) fn create_segment(
        &self,
        vfs: &dyn Vfs,
        options: &Options,
        number: u32,
        previous: Hash,
        batch: u64,
    ) -> Result<Active, LogError> {
        let path = segment_path(&options.dir, number);
        let temporary = path.with_extension("tmp");
        let mut bytes = Header { number, cluster: options.cluster, previous }.encode();
        let start = Place { segment: number, offset: HEADER_BYTES as u64 };
        let mut records = BatchWriter::new(start, batch, Vec::new());
        if let Some(vote) = self.vote.clone() {
            records.push(Record::vote(vote));
        }
        if let Some(purged) = self.purged {
            records.push(Record::bare(Kind::Purge, Some(purged)));
        }
        records.push(Record::bare(Kind::Committed, self.committed));
        bytes.extend_from_slice(&records.finish());

        let file = vfs.create(&temporary).map_err(LogError::io("create", &temporary))?;
        file.write_at(&bytes, 0).map_err(LogError::io("write", &temporary))?;
        file.sync_data().map_err(LogError::io("sync", &temporary))?;
        vfs.rename(&temporary, &path).map_err(LogError::io("rename", &temporary))?;
        vfs.sync_dir(&options.dir).map_err(LogError::io("sync", &options.dir))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes);
        Ok(Active { number, file, path, offset: bytes.len() as u64, batch: batch + 1, hasher, seal: None })
    }
}
