//! A log on the model disk, driven by scripts, beside a reference that cannot be wrong.

mod crash;
mod damage;
mod faults;
mod suite;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::testing::ModelVfs;

pub(super) const DIR: &str = "/data/log";
pub(super) const CLUSTER: ClusterId = ClusterId([0xab; 16]);

/// Small segments and batches and no cache, so that a short script rolls, queues, purges and reads files.
pub(super) fn options() -> Options {
    Options { segment_bytes: 1500, recent_bytes: 0, batch_bytes: 900, ..Options::new(DIR, CLUSTER) }
}

pub(super) fn open(vfs: &ModelVfs) -> Result<(SegmentLog, Writer), LogError> {
    SegmentLog::open(Arc::new(vfs.clone()), options())
}

pub(super) fn segment(number: u32) -> PathBuf {
    scan::segment_path(Path::new(DIR), number)
}

pub(super) fn ignore() -> Done {
    Box::new(|_| {})
}

/// Writes until nothing waits.
pub(super) fn drain(log: &SegmentLog, writer: &mut Writer) {
    while log.pending_age().is_some() {
        writer.flush();
    }
}

/// One call of a script. Numbers are taken modulo what makes sense at that point.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Append(Vec<u16>),
    Commit,
    Flush,
    Purge(u8),
    Truncate(u8),
    Vote(u8),
}

pub(super) fn script(len: usize) -> impl Strategy<Value = Vec<Op>> {
    let sizes = prop::collection::vec(prop_oneof![4 => 0..200_u16, 1 => 500..1500_u16], 1..5);
    let op = prop_oneof![
        5 => sizes.prop_map(Op::Append),
        1 => Just(Op::Commit),
        4 => Just(Op::Flush),
        1 => any::<u8>().prop_map(Op::Purge),
        1 => any::<u8>().prop_map(Op::Truncate),
        1 => any::<u8>().prop_map(Op::Vote),
    ];
    prop::collection::vec(op, len)
}

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reference {
    pub(super) entries: BTreeMap<u64, (EntryId, Payload)>,
    pub(super) purged: Option<EntryId>,
    pub(super) vote: Option<Bytes>,
}

impl Reference {
    fn last(&self) -> Option<EntryId> {
        self.entries.values().next_back().map(|(id, _)| *id).or(self.purged)
    }

    /// What an opened log holds, read through its files.
    pub(super) fn read(log: &SegmentLog) -> Result<Self, LogError> {
        let state = log.state();
        let mut entries = BTreeMap::new();
        let mut next = state.first.unwrap_or(0);
        while let Some((last, _)) = {
            let chunk = log.read(next..u64::MAX, 700)?;
            let last = chunk.last().cloned();
            entries.extend(chunk.into_iter().map(|(id, payload)| (id.index, (id, payload))));
            last
        } {
            next = last.index + 1;
        }
        let read = Self { entries, purged: state.purged, vote: state.vote };
        assert_eq!(read.last(), state.last);
        assert_eq!(read.entries.keys().next().copied(), state.first);
        Ok(read)
    }
}

/// Runs scripts, keeps every state the log went through, and which of them were acknowledged.
pub(super) struct Driver {
    pub(super) log: SegmentLog,
    pub(super) writer: Writer,
    pub(super) states: Vec<Reference>,
    pub(super) committed: Vec<Option<EntryId>>,
    /// States up to this one must survive anything.
    pub(super) acknowledged: Arc<Mutex<usize>>,
    term: u64,
    bytes: u8,
}

impl Driver {
    pub(super) fn new((log, writer): (SegmentLog, Writer), start: Reference) -> Self {
        let committed = vec![log.state().committed];
        let states = vec![start];
        Self { log, writer, states, committed, acknowledged: Arc::default(), term: 1, bytes: 0 }
    }

    fn done(&self) -> Done {
        let (acknowledged, state) = (Arc::clone(&self.acknowledged), self.states.len());
        Box::new(move |result| {
            if result.is_ok() {
                let mut last = acknowledged.lock();
                assert!(*last < state, "acknowledged out of order");
                *last = state;
            }
        })
    }

    /// Does one call; an error means the log stopped.
    pub(super) fn run(&mut self, op: &Op) -> Result<(), LogError> {
        let mut state = self.states.last().cloned().unwrap_or_default();
        match op {
            Op::Append(sizes) => {
                let first = state.last().map_or(1, |id| id.index + 1);
                let entries: Vec<_> =
                    (first..).zip(sizes).map(|(index, size)| self.entry(index, *size)).collect();
                state.entries.extend(entries.iter().map(|entry| (entry.0.index, entry.clone())));
                self.log.append(entries, self.done())?;
            }
            Op::Commit => {
                self.committed.push(state.last());
                return self.log.save_committed(state.last());
            }
            Op::Flush => {
                self.writer.flush();
                return self.log.fatal().map_or(Ok(()), |why| Err(LogError::Fatal(why.into())));
            }
            Op::Purge(part) => {
                let held: Vec<_> = state.entries.values().map(|(id, _)| *id).collect();
                let Some(id) = held.get(usize::from(*part) * held.len() / 256).copied() else {
                    return Ok(());
                };
                state.entries.retain(|index, _| *index > id.index);
                state.purged = Some(id);
                self.log.purge(id)?;
            }
            Op::Truncate(part) => {
                let kept = state.entries.len() * usize::from(*part) / 256;
                let last = state.entries.keys().nth(kept).map(|index| index - 1);
                // As in Raft, what is committed stays.
                let committed = self.committed.last().copied().flatten().map_or(0, |id| id.index);
                let Some(last) = last.filter(|last| *last >= committed) else { return Ok(()) };
                state.entries.retain(|index, _| *index <= last);
                self.term += 1;
                self.log.truncate_after(Some(last))?;
            }
            Op::Vote(vote) => {
                let vote = Bytes::from(vec![*vote; 18]);
                state.vote = Some(vote.clone());
                self.log.save_vote(vote, self.done())?;
            }
        }
        self.states.push(state);
        Ok(())
    }

    fn entry(&mut self, index: u64, size: u16) -> (EntryId, Payload) {
        // Never zero, as ciphertext hardly is for a sector.
        self.bytes = self.bytes % 250 + 1;
        let bytes = Bytes::from(vec![self.bytes; usize::from(size)]);
        (EntryId { term: self.term, leader: 1, index }, Payload { tag: self.bytes, bytes })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_what_is_read(ops in script(60), segment_bytes in 200..5000_u64) {
        let vfs = ModelVfs::new(1);
        let open = || SegmentLog::open(Arc::new(vfs.clone()), Options { segment_bytes, ..options() });
        let mut driver = Driver::new(open().unwrap(), Reference::default());
        for op in &ops {
            driver.run(op).unwrap();
            // Readable at once, written or not.
            prop_assert_eq!(&Reference::read(&driver.log).unwrap(), driver.states.last().unwrap());
        }
        driver.log.close(ignore());
        drain(&driver.log, &mut driver.writer);
        let expected = driver.states.last().cloned().unwrap();
        prop_assert_eq!(driver.log.state().committed, *driver.committed.last().unwrap());
        drop(driver);
        let (log, _writer) = open().unwrap();
        prop_assert_eq!(Reference::read(&log).unwrap(), expected);
    }
}
