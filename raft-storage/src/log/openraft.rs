//! [`SegmentLog`] as openraft wants it: entries and votes to bytes and back, callbacks and streams.
//!
//! The tag of an entry says what its payload is; tags are on disk for ever: never renumber, never reuse. Reads are
//! synchronous: recent entries are in memory, older ones mostly in the page cache, and a chunk is small.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};

use arca_danger::Bug;
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use openraft::entry::EntryPayload;
use openraft::errors::LeaderChanged;
use openraft::storage::{IOFlushed, LeaderBoundedStreamError, LogState, RaftLogStorage};
use openraft::type_config::alias::LeaderIdOf;
use openraft::vote::RaftVote;
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::{Done, EntryId, LogError, Payload, SegmentLog};
use crate::types::{Entry, EntryData, LogId, TypeConfig, Vote};

const TAG_BLANK: u8 = 0;
/// Its payload is a command.
pub(crate) const TAG_NORMAL: u8 = 1;
const TAG_MEMBERSHIP_V1: u8 = 2;

const VOTE_V1: u8 = 1;

/// Payload bytes per step of a stream, and per limited read.
const CHUNK_BYTES: usize = 1 << 20;

type LeaderId = LeaderIdOf<TypeConfig>;
type Bounded = Result<Entry, LeaderBoundedStreamError<TypeConfig>>;

/// The log as a [`RaftLogStorage`], and as any number of readers.
#[derive(Clone, Debug)]
pub struct RaftLog(SegmentLog);

impl RaftLog {
    /// Wraps `log`. Its writer must be running.
    #[must_use]
    pub fn new(log: SegmentLog) -> Self {
        Self(log)
    }

    /// The log itself.
    #[must_use]
    pub fn log(&self) -> &SegmentLog {
        &self.0
    }

    fn vote(&self) -> io::Result<Option<Vote>> {
        self.0.state().vote.map(|vote| decode_vote(&vote)).transpose()
    }

    fn chunk(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.0
            .read(start..end, CHUNK_BYTES)?
            .into_iter()
            .map(|(id, payload)| decode_entry(id, payload))
            .collect()
    }

    /// One chunk, if `leader` leads before and after it is read.
    fn chunk_of_leader(
        &self,
        leader: &LeaderId,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, LeaderBoundedStreamError<TypeConfig>> {
        self.require_leader(leader)?;
        let entries = self.chunk(start, end)?;
        self.require_leader(leader)?;
        Ok(entries)
    }

    fn require_leader(&self, leader: &LeaderId) -> Result<(), LeaderBoundedStreamError<TypeConfig>> {
        let vote = self.vote()?;
        let leads = vote.as_ref().is_some_and(|vote| vote.leader_id() == leader && vote.is_committed());
        if leads { Ok(()) } else { Err(LeaderChanged::new(*leader, vote).into()) }
    }
}

/// Entries from `start` to `end`, read in steps by `read`; ends after the first error or the last entry there is.
fn chunks<E: Send + 'static>(
    start: u64,
    end: u64,
    read: impl Fn(u64, u64) -> Result<Vec<Entry>, E> + Send + 'static,
) -> BoxStream<'static, Result<Entry, E>> {
    let steps = stream::unfold((Some(start), read), move |(next, read)| async move {
        let start = next.filter(|start| *start < end)?;
        let (items, next) = match read(start, end) {
            Ok(entries) => {
                let next = entries.last().map(|entry| entry.log_id.index + 1);
                (entries.into_iter().map(Ok).collect::<Vec<_>>(), next)
            }
            Err(error) => (vec![Err(error)], None),
        };
        Some((stream::iter(items), (next, read)))
    });
    steps.flatten().boxed()
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn leader_bounded_stream<RB>(
        &mut self,
        leader: LeaderId,
        range: RB,
    ) -> impl Stream<Item = Bounded> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        chunks(start, end, move |start, end| log.chunk_of_leader(&leader, start, end))
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let log = self.clone();
        chunks(start, end, move |start, end| log.chunk(start, end))
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut start, end) = bounds(&range);
        let mut entries = Vec::new();
        while start < end {
            let chunk = self.chunk(start, end)?;
            let Some(last) = chunk.last() else { break };
            start = last.log_id.index + 1;
            entries.extend(chunk);
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.vote()
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.chunk(start, end)
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> io::Result<Vec<LogId>> {
        let end = range.end().index + 1;
        Ok(self.0.run_ends(range.start().index, end).into_iter().map(log_id).collect())
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.0.state();
        Ok(LogState { last_purged_log_id: state.purged.map(log_id), last_log_id: state.last.map(log_id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (done, durable) = durable();
        self.0.save_vote(encode_vote(vote), done)?;
        if arca_danger::is(Bug::VoteBeforeSync) {
            return Ok(());
        }
        durable.await.unwrap_or(Err(LogError::Closed)).map_err(io::Error::from)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        Ok(self.0.save_committed(committed.map(|id| entry_id(&id)))?)
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let state = self.0.state();
        // The mark may outlive the entries it was made for: only what is here can be applied again.
        let known = state.committed.filter(|id| state.last.is_some_and(|last| id.index <= last.index));
        Ok(known.or(state.committed.and(state.last)).map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(encode_entry).collect::<io::Result<Vec<_>>>()?;
        self.0.room().await;
        let done: Done = if arca_danger::is(Bug::AcknowledgeBeforeSync) {
            callback.io_completed(Ok(()));
            Box::new(drop)
        } else {
            Box::new(|result| callback.io_completed(result.map_err(io::Error::from)))
        };
        Ok(self.0.append(entries, done)?)
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        Ok(self.0.truncate_after(last_log_id.map(|id| id.index))?)
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        Ok(self.0.purge(entry_id(&log_id))?)
    }
}

fn durable() -> (Done, oneshot::Receiver<Result<(), LogError>>) {
    let (tx, rx) = oneshot::channel();
    // Nobody waits any more if the receiver is gone.
    (Box::new(move |result| drop(tx.send(result))), rx)
}

fn entry_id(id: &LogId) -> EntryId {
    EntryId { term: id.leader_id.term, leader: id.leader_id.node_id, index: id.index }
}

pub(crate) fn log_id(id: EntryId) -> LogId {
    LogId::new(LeaderId { term: id.term, node_id: id.leader }, id.index)
}

fn encode_entry(entry: Entry) -> io::Result<(EntryId, Payload)> {
    let id = entry_id(&entry.log_id);
    let (tag, bytes) = match entry.payload {
        EntryPayload::Blank => (TAG_BLANK, Bytes::new()),
        EntryPayload::Normal(EntryData(bytes)) => (TAG_NORMAL, bytes),
        EntryPayload::Membership(membership) => {
            let bytes = postcard::to_stdvec(&membership).map_err(io::Error::other)?;
            (TAG_MEMBERSHIP_V1, bytes.into())
        }
    };
    Ok((id, Payload { tag, bytes }))
}

fn decode_entry(id: EntryId, payload: Payload) -> io::Result<Entry> {
    let log_id = log_id(id);
    let unreadable =
        |what: String| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {log_id}: {what}"));
    let payload = match payload.tag {
        TAG_BLANK => EntryPayload::Blank,
        TAG_NORMAL => EntryPayload::Normal(EntryData(payload.bytes)),
        TAG_MEMBERSHIP_V1 => EntryPayload::Membership(
            postcard::from_bytes(&payload.bytes).map_err(|error| unreadable(error.to_string()))?,
        ),
        unknown => return Err(unreadable(format!("unknown payload tag {unknown}: run a newer Arca"))),
    };
    Ok(Entry { log_id, payload })
}

fn encode_vote(vote: &Vote) -> Bytes {
    let mut bytes = vec![VOTE_V1];
    bytes.extend_from_slice(&vote.leader_id().term.to_le_bytes());
    bytes.extend_from_slice(&vote.leader_id().node_id.to_le_bytes());
    bytes.push(u8::from(vote.is_committed()));
    bytes.into()
}

fn decode_vote(bytes: &[u8]) -> io::Result<Vote> {
    let parse = || {
        let (version, rest) = bytes.split_first()?;
        let (term, rest) = rest.split_first_chunk::<8>()?;
        let (node_id, rest) = rest.split_first_chunk::<8>()?;
        let is_committed = match rest {
            [0] => false,
            [1] => true,
            _ => return None,
        };
        let leader = LeaderId { term: u64::from_le_bytes(*term), node_id: u64::from_le_bytes(*node_id) };
        (*version == VOTE_V1).then(|| Vote::from_leader_id(leader, is_committed))
    };
    parse()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the stored vote is of an unknown format"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::replica::{Member, MemberId};

    fn check(payload: EntryPayload<EntryData, u64, Member>, want: &[u8]) {
        let entry = Entry { log_id: log_id(EntryId { term: 3, leader: 2, index: 9 }), payload };
        let (id, encoded) = encode_entry(entry.clone()).unwrap();
        assert_eq!([&[encoded.tag], &encoded.bytes[..]].concat(), want);
        assert_eq!(decode_entry(id, encoded).unwrap(), entry);
    }

    #[test]
    fn golden_payloads() {
        check(EntryPayload::Blank, &[TAG_BLANK]);
        check(EntryPayload::Normal(EntryData(Bytes::from_static(b"abc"))), b"\x01abc");
        let member =
            Member { id: MemberId(7), name: "n".into(), cluster_addr: "c:1".into(), api_addr: "a".into() };
        let membership =
            openraft::Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, member)])).unwrap();
        check(EntryPayload::Membership(membership), b"\x02\x01\x01\x07\x01\x07\x07\x01n\x03c:1\x01a");
    }

    #[test]
    fn golden_vote() {
        let vote = Vote::from_leader_id(LeaderId { term: 5, node_id: 3 }, true);
        let bytes = encode_vote(&vote);
        assert_eq!(&bytes[..], b"\x01\x05\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01");
        assert_eq!(decode_vote(&bytes).unwrap(), vote);
        assert!(decode_vote(&bytes[..17]).is_err());
        assert!(decode_vote(&[2; 18]).is_err());
    }

    #[test]
    fn a_newer_payload_is_refused() {
        let error = decode_entry(EntryId::default(), Payload { tag: 9, bytes: Bytes::new() }).unwrap_err();
        assert!(error.to_string().contains("unknown payload tag 9"), "{error}");
    }
}
