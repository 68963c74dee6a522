//! What members say to each other, in bytes: an envelope that names the cluster and both ends, and the calls in it.
//!
//! **Invariant:** a message for another cluster or member, from this very member, or from another member than the one
//! whose connection brought it, is refused before openraft hears of it, so that it touches neither term nor vote. Two
//! nodes with one id, a stale address, or a member that poses as another one, do no harm.
//! Formats: one version byte in front; tags are never renumbered. Everything but entries is postcard.

use bytes::Bytes;
use openraft::entry::EntryPayload;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest};
use openraft::storage::SnapshotMeta;
use openraft::type_config::alias::SnapshotMetaOf;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Malformed, Reader};
use crate::log::{ClusterId, PAYLOAD_MAX};
use crate::types::{Entry, EntryData, LogId, StoredMembership, TypeConfig, Vote};

const V1: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Most entries of one message; a bound for what a count may make a receiver reserve.
const ENTRIES_MAX: usize = 64 << 10;

/// A message that is not for us, or not a message. Says what was expected, never the content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("message of format {0}, which this build does not know")]
    Format(u8),
    #[error("message for member {to}, but this is member {me}: is an address wrong?")]
    NotForMe { to: u64, me: u64 },
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    #[error("message from another cluster")]
    OtherCluster,
    #[error("message from member {from} came over a connection of member {peer}")]
    NotTheSender { from: u64, peer: u64 },
    #[error("message from member {0}, which is this very member: two nodes share one id")]
    SameId(u64),
    #[error("member {from} speaks for member {speaks_for}")]
    SpeaksFor { from: u64, speaks_for: u64 },
}

impl From<Malformed> for WireError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.0)
    }
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Envelope {
    pub(super) cluster: ClusterId,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Envelope {
    /// A message with nothing in it yet.
    pub(super) fn open(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.push(V1);
        out.extend_from_slice(&self.cluster.0);
        codec::put_varint(&mut out, self.from);
        codec::put_varint(&mut out, self.to);
        out
    }

    /// A message that holds `body`.
    pub(super) fn seal<T: Serialize>(&self, body: &T) -> Result<Bytes, postcard::Error> {
        postcard::to_extend(body, self.open()).map(Bytes::from)
    }

    /// Takes the envelope off what came from `peer`: who sent it, and what is in it.
    pub(super) fn take(
        message: &Bytes,
        cluster: ClusterId,
        peer: u64,
        me: u64,
    ) -> Result<(u64, Bytes), WireError> {
        let mut reader = Reader::new(message);
        match reader.byte()? {
            V1 => {}
            format => return Err(WireError::Format(format)),
        }
        if reader.array()? != cluster.0 {
            return Err(WireError::OtherCluster);
        }
        let (from, to) = (reader.varint()?, reader.varint()?);
        if to != me {
            return Err(WireError::NotForMe { to, me });
        }
        if from == me {
            return Err(WireError::SameId(from));
        }
        if from != peer {
            return Err(WireError::NotTheSender { from, peer });
        }
        Ok((from, message.slice(message.len() - reader.remaining()..)))
    }
}

/// Reads a body back.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    let (value, rest) =
        postcard::take_from_bytes(body).map_err(|_| WireError::Malformed("does not parse"))?;
    if rest.is_empty() { Ok(value) } else { Err(WireError::Malformed("bytes follow the end")) }
}

/// A member may speak only for itself.
pub(super) fn check_speaker(from: u64, vote: &Vote) -> Result<(), WireError> {
    let speaks_for = vote.leader_id.node_id;
    if speaks_for == from { Ok(()) } else { Err(WireError::SpeaksFor { from, speaks_for }) }
}

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: Vote,
    prev: Option<LogId>,
    commit: Option<LogId>,
    count: u32,
}

/// AppendEntries: a head, then the entries, whose payloads are copied once and read without a copy.
pub(super) fn put_append(
    mut out: Vec<u8>,
    request: AppendEntriesRequest<TypeConfig>,
) -> Result<Bytes, postcard::Error> {
    let AppendEntriesRequest { vote, prev_log_id, entries, leader_commit } = request;
    let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let bytes = entries.iter().map(|entry| 32 + payload_len(entry)).sum::<usize>();
    out.reserve(96 + bytes);
    out = postcard::to_extend(&AppendHead { vote, prev: prev_log_id, commit: leader_commit, count }, out)?;
    for entry in entries {
        out = postcard::to_extend(&entry.log_id, out)?;
        match entry.payload {
            EntryPayload::Blank => out.push(BLANK),
            EntryPayload::Normal(EntryData(data)) => {
                out.push(NORMAL);
                codec::put_bytes(&mut out, &data);
            }
            EntryPayload::Membership(membership) => {
                out.push(MEMBERSHIP);
                codec::put_bytes(&mut out, &postcard::to_stdvec(&membership)?);
            }
        }
    }
    Ok(out.into())
}

fn payload_len(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(EntryData(data)) => data.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    }
}

/// Reads what [`put_append`] wrote.
pub(super) fn parse_append(body: &Bytes) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let (head, rest) =
        postcard::take_from_bytes::<AppendHead>(body).map_err(|_| WireError::Malformed("does not parse"))?;
    let count = usize::try_from(head.count).unwrap_or(usize::MAX);
    if count > ENTRIES_MAX || count > rest.len() {
        return Err(WireError::Malformed("more entries than bytes"));
    }
    let mut rest = rest;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (entry, after) = parse_entry(body, rest)?;
        entries.push(entry);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(WireError::Malformed("bytes follow the end"));
    }
    let AppendHead { vote, prev, commit, .. } = head;
    Ok(AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit })
}

fn parse_entry<'a>(body: &Bytes, rest: &'a [u8]) -> Result<(Entry, &'a [u8]), WireError> {
    let (log_id, rest) =
        postcard::take_from_bytes::<LogId>(rest).map_err(|_| WireError::Malformed("does not parse"))?;
    let mut reader = Reader::new(rest);
    let payload = match reader.byte()? {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(EntryData(body.slice_ref(reader.bytes(PAYLOAD_MAX)?))),
        MEMBERSHIP => EntryPayload::Membership(parse(reader.bytes(PAYLOAD_MAX)?)?),
        _ => return Err(WireError::Malformed("unknown kind of entry")),
    };
    let used = rest.len() - reader.remaining();
    Ok((Entry { log_id, payload }, rest.get(used..).unwrap_or_default()))
}

/// The answer to AppendEntries, apart from openraft's type, whose variants may be reordered by a later version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AppendReply {
    Success,
    PartialSuccess(Option<LogId>),
    Conflict,
    HigherVote(Vote),
}

impl From<AppendEntriesResponse<TypeConfig>> for AppendReply {
    fn from(response: AppendEntriesResponse<TypeConfig>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Success,
            AppendEntriesResponse::PartialSuccess(log_id) => Self::PartialSuccess(log_id),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote),
        }
    }
}

impl From<AppendReply> for AppendEntriesResponse<TypeConfig> {
    fn from(reply: AppendReply) -> Self {
        match reply {
            AppendReply::Success => Self::Success,
            AppendReply::PartialSuccess(log_id) => Self::PartialSuccess(log_id),
            AppendReply::Conflict => Self::Conflict,
            AppendReply::HigherVote(vote) => Self::HigherVote(vote),
        }
    }
}

/// RequestVote and pre-vote.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VoteCall {
    pub(super) vote: Vote,
    pub(super) last_log_id: Option<LogId>,
    pub(super) is_transfer: bool,
}

/// The answer to both.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum VoteReply {
    /// As openraft decided.
    Decided { vote: Vote, is_granted: bool, last_log_id: Option<LogId> },
    /// The caller is not a member any more, by the committed membership at this index.
    Removed { membership_index: u64 },
}

/// The leader asks the receiver to take over.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TransferCall {
    pub(super) from_leader: Vote,
    pub(super) to: u64,
    pub(super) last_log_id: Option<LogId>,
}

impl From<&TransferLeaderRequest<TypeConfig>> for TransferCall {
    fn from(request: &TransferLeaderRequest<TypeConfig>) -> Self {
        Self {
            from_leader: *request.from_leader(),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().copied(),
        }
    }
}

/// The answer to it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum TransferReply {
    Accepted,
    VoteChanged { expected: Vote, actual: Vote },
    LogNotFlushed { expected: Option<LogId>, actual: Option<LogId> },
}

/// The answer to ReadIndex.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ReadReply {
    /// Everything committed before the question lies at or below this index.
    Index(u64),
    /// This member does not lead, or no quorum confirmed that it does.
    NotLeader,
}

/// What precedes a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SnapshotHead {
    pub(super) vote: Vote,
    pub(super) last_log_id: Option<LogId>,
    pub(super) membership: StoredMembership,
}

impl SnapshotHead {
    pub(super) fn meta(&self) -> SnapshotMetaOf<TypeConfig> {
        SnapshotMeta { last_log_id: self.last_log_id, last_membership: self.membership.clone() }
    }
}

/// The answer to a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SnapshotReply {
    pub(super) vote: Vote,
}

impl From<SnapshotReply> for SnapshotResponse<TypeConfig> {
    fn from(reply: SnapshotReply) -> Self {
        Self::new(reply.vote)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::Membership;
    use openraft::impls::leader_id_adv::LeaderId;
    use openraft::vote::RaftLeaderId as _;
    use proptest::prelude::*;

    use super::*;
    use crate::{Member, MemberId};

    const CLUSTER: ClusterId = ClusterId([0xcc; 16]);

    fn log_id(term: u64, index: u64) -> LogId {
        LogId::new(LeaderId::new(term, 2), index)
    }

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let member =
            Member { id: MemberId(7), name: "n".into(), cluster_addr: "c:1".into(), api_addr: "a".into() };
        let membership = Membership::new(vec![BTreeSet::from([7])], BTreeMap::from([(7, member)])).unwrap();
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(EntryData(Bytes::from_static(b"abc"))),
            EntryPayload::Membership(membership),
        ];
        let entries = (300..)
            .zip(payloads)
            .map(|(index, payload)| Entry { log_id: log_id(3, index), payload })
            .collect();
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 2),
            prev_log_id: Some(log_id(1, 299)),
            entries,
            leader_commit: None,
        }
    }

    /// Members of two builds talk: the lines never change.
    #[test]
    fn golden_append() {
        let envelope = Envelope { cluster: CLUSTER, from: 2, to: 300 };
        let head = [&[1][..], &[0xcc; 16], &[2, 0xac, 2]].concat();
        let body = b"\x03\x02\x01\x01\x01\x02\xab\x02\x00\x03\
            \x03\x02\xac\x02\x00\
            \x03\x02\xad\x02\x01\x03abc\
            \x03\x02\xae\x02\x02\x0e\x01\x01\x07\x01\x07\x07\x01n\x03c:1\x01a";
        let message = put_append(envelope.open(), request()).unwrap();
        assert_eq!(message, [&head[..], body].concat());
        let (from, taken) = Envelope::take(&message, CLUSTER, 2, 300).unwrap();
        assert_eq!((from, &taken[..]), (2, &body[..]));
        let parsed = parse_append(&taken).unwrap();
        assert_eq!(parsed.entries, request().entries);
        assert_eq!(
            (parsed.vote, parsed.prev_log_id, parsed.leader_commit),
            (request().vote, request().prev_log_id, None)
        );
    }

    #[track_caller]
    fn golden<T: Serialize + DeserializeOwned + std::fmt::Debug>(value: T, bytes: &[u8]) {
        assert_eq!(postcard::to_stdvec(&value).unwrap(), bytes, "{value:?}");
        assert_eq!(format!("{:?}", parse::<T>(bytes).unwrap()), format!("{value:?}"));
    }

    #[test]
    fn golden_calls_and_answers() {
        let (vote, last) = (Vote::new(5, 3), Some(log_id(4, 9)));
        golden(VoteCall { vote, last_log_id: last, is_transfer: true }, &[5, 3, 0, 1, 4, 2, 9, 1]);
        golden(VoteReply::Decided { vote, is_granted: true, last_log_id: None }, &[0, 5, 3, 0, 1, 0]);
        golden(VoteReply::Removed { membership_index: 300 }, &[1, 0xac, 2]);
        golden(AppendReply::Success, &[0]);
        golden(AppendReply::PartialSuccess(last), &[1, 1, 4, 2, 9]);
        golden(AppendReply::Conflict, &[2]);
        golden(AppendReply::HigherVote(vote), &[3, 5, 3, 0]);
        golden(TransferCall { from_leader: vote, to: 4, last_log_id: None }, &[5, 3, 0, 4, 0]);
        golden(TransferReply::Accepted, &[0]);
        golden(TransferReply::VoteChanged { expected: vote, actual: vote }, &[1, 5, 3, 0, 5, 3, 0]);
        golden(TransferReply::LogNotFlushed { expected: last, actual: None }, &[2, 1, 4, 2, 9, 0]);
        golden(ReadReply::Index(300), &[0, 0xac, 2]);
        golden(ReadReply::NotLeader, &[1]);
        golden(SnapshotReply { vote }, &[5, 3, 0]);
        let membership = StoredMembership::default();
        golden(SnapshotHead { vote, last_log_id: last, membership }, &[5, 3, 0, 1, 4, 2, 9, 0, 0, 0]);
    }

    #[track_caller]
    fn refuses(message: &[u8], me: u64, expected: &WireError) {
        let got = Envelope::take(&Bytes::copy_from_slice(message), CLUSTER, 2, me);
        assert_eq!(got.as_ref(), Err(expected), "{message:02x?}");
    }

    #[test]
    fn refuses_what_is_for_others() {
        let message = Envelope { cluster: CLUSTER, from: 2, to: 3 }.open();
        refuses(&message, 4, &WireError::NotForMe { to: 3, me: 4 });
        refuses(&Envelope { cluster: CLUSTER, from: 3, to: 3 }.open(), 3, &WireError::SameId(3));
        refuses(
            &Envelope { cluster: ClusterId([1; 16]), from: 2, to: 3 }.open(),
            3,
            &WireError::OtherCluster,
        );
        refuses(
            &Envelope { cluster: CLUSTER, from: 5, to: 3 }.open(),
            3,
            &WireError::NotTheSender { from: 5, peer: 2 },
        );
        refuses(&[9], 3, &WireError::Format(9));
        refuses(&[1, 2], 3, &WireError::Malformed("ends early"));
        let vote = Vote::new(5, 3);
        assert_eq!(check_speaker(2, &vote), Err(WireError::SpeaksFor { from: 2, speaks_for: 3 }));
        assert_eq!(check_speaker(3, &vote), Ok(()));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = Envelope::take(&bytes, CLUSTER, 2, 1);
            let _ = parse_append(&bytes);
            let _ = parse::<VoteCall>(&bytes);
            let _ = parse::<SnapshotHead>(&bytes);
        }

        #[test]
        fn damage_never_panics(at in any::<prop::sample::Index>(), xor in 1u8..) {
            let mut bytes = put_append(vec![], request()).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            let _ = parse_append(&bytes.into());
        }
    }
}
