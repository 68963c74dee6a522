//! One member's view of the replicated store: read here, propose on the leader, follow the roles.
//!
//! The kernel holds an `Arc<dyn Replica>` and nothing else of this crate. The real one is [`crate::raft`]; tests
//! and the embedded modes use the same code over the in-memory models.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::kv::{KvError, Visit};
use crate::watch;
use crate::{SnapshotStream, Version, Write, WriteSet};

/// Raft id of a member. Never reused: a node that is removed and comes back gets a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MemberId(pub u64);

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A member as the membership records it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// Raft id.
    pub id: MemberId,
    /// `node_id` from the configuration.
    pub name: String,
    /// `host:port` of its cluster listener.
    pub cluster_addr: String,
    /// URL of its API, for redirects.
    pub api_addr: String,
}

/// Whether a member votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// Receives the log, does not count.
    Learner,
    /// Counts for quorum and may lead.
    Voter,
}

/// The members and the index of the entry that made them so.
#[derive(Clone, Debug, Default)]
pub struct Membership {
    /// Log index of the membership entry.
    pub index: u64,
    /// Every member, with its kind.
    pub members: BTreeMap<MemberId, (Member, MemberKind)>,
}

// `MemberKind` has no natural default; a map entry always states it.
/// What this member is in its cluster right now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Stopped, or not yet started. See [`ReplicaStatus::fatal`].
    #[default]
    Stopped,
    /// Receives the log without voting.
    Learner,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks to become leader.
    Candidate,
    /// Leads.
    Leader,
}

/// Figures for status pages and the lifecycle.
#[derive(Clone, Debug, Default)]
pub struct ReplicaStatus {
    /// This member.
    pub id: MemberId,
    /// Its role.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// The leader it knows, if any.
    pub leader: Option<Member>,
    /// Highest index known committed.
    pub committed_index: u64,
    /// Highest index applied here.
    pub applied_index: u64,
    /// On the leader: time since a quorum last confirmed it.
    pub quorum_ack_age: Option<Duration>,
    /// Why it stopped for good, for example a failed disk write. The process must exit.
    pub fatal: Option<String>,
    /// It stopped because it was removed from its cluster; `fatal` says so in words.
    pub is_removed: bool,
    /// True when the disk has too little room left and writes are refused.
    pub is_disk_full: bool,
}

/// How far a member is, as the leader sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Term of the newest entry it is known to hold.
    pub term: u64,
    /// Index of that entry.
    pub index: u64,
    /// Time since it last answered; `None` when it has not while this leader leads.
    pub contact_age: Option<Duration>,
}

/// A value with the version it was written at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// Sealed value.
    pub value: Vec<u8>,
    /// Log index that wrote it.
    pub version: Version,
}

/// Where a proposal was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Log index.
    pub index: u64,
}

/// Why a proposal was not applied, or may not have been.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProposeError {
    /// A key the request read has changed; nothing was written. Run the request again.
    #[error("a concurrent write changed what this request read")]
    Conflict,
    /// The disk has too little room left; nothing was written.
    #[error("the disk is full: writes are refused")]
    DiskFull,
    /// The set is not one that can be replicated, for example a key is empty; nothing was written.
    #[error("write cannot be replicated: {0}")]
    Invalid(String),
    /// This member does not lead; nothing was written.
    #[error("this node is not the leader")]
    NotLeader {
        /// Who does, if known.
        leader: Option<Member>,
    },
    /// Leadership or the process was lost on the way: it may or may not have been applied.
    #[error("leadership was lost before the write was confirmed: it may or may not have happened")]
    OutcomeUnknown,
    /// The set is over the limit; nothing was written.
    #[error("write of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// Encoded bytes.
        size: usize,
        /// Most allowed.
        limit: usize,
    },
}

/// Everything else that can fail.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The state machine's store failed or found damage.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A membership change was refused.
    #[error("membership change refused: {0}")]
    Membership(String),
    /// No leader is known, or it cannot reach a quorum.
    #[error("no leader with a quorum is reachable: {0}")]
    NoLeader(String),
    /// Did not happen in time.
    #[error("timed out waiting for {0}")]
    Timeout(&'static str),
    /// The replica is stopped.
    #[error("the replica stopped: {0}")]
    Stopped(String),
    /// A snapshot could not be made, sent or installed.
    #[error("snapshot failed: {0}")]
    Snapshot(String),
}

/// Called with key, sealed value and version.
pub type VersionedVisitor<'a> = dyn FnMut(&[u8], &[u8], Version) -> Visit + 'a;

/// A consistent snapshot of the state at one applied index. Cheap to take, synchronous to read.
pub trait ReadView: Send + Sync {
    /// The applied index it shows.
    fn index(&self) -> u64;

    /// The value at `key`.
    ///
    /// # Errors
    /// When the store fails or the entry is damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, KvError>;

    /// Walks keys from `start` (inclusive) to `end` (exclusive; `None` for no end) in byte order. The visitor may
    /// skip ahead ([`Visit::Seek`]), which is how listings pass over whole subtrees.
    ///
    /// # Errors
    /// When the store fails or an entry is damaged.
    fn visit(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut VersionedVisitor<'_>,
    ) -> Result<(), KvError>;
}

/// One applied change, as observers see it.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// The state was replaced by a snapshot: forget everything.
    Everything,
    /// This write was applied.
    Write(&'a Write),
}

/// Told of every applied change, in order, before the new applied index is visible to any reader.
/// Runs inside apply: it must be quick, must not block and must not call the replica.
pub trait ApplyObserver: Send + Sync {
    /// `index` is about to be published as applied.
    fn applied(&self, index: u64, change: Change<'_>);

    /// As [`Self::applied`] with [`Change::Everything`], with the state that is about to be seen.
    fn replaced(&self, index: u64, state: &dyn ReadView) {
        let _ = state;
        self.applied(index, Change::Everything);
    }
}

/// One member of the replicated store.
#[async_trait]
pub trait Replica: Debug + Send + Sync {
    /// A snapshot of what is applied here now. Not linearizable by itself: call [`Self::read_barrier`] first.
    fn view(&self) -> Arc<dyn ReadView>;

    /// Waits until this member has applied everything that was committed, anywhere, before the call: a lease check
    /// on the leader, a (batched) ReadIndex on others. Returns an applied index at or after that point.
    ///
    /// # Errors
    /// When no leader with a quorum answers in time.
    async fn read_barrier(&self) -> Result<u64, ReplicaError>;

    /// Waits until `index` is applied here.
    ///
    /// # Errors
    /// On timeout, or when the replica stops.
    async fn await_applied(&self, index: u64, timeout: Duration) -> Result<(), ReplicaError>;

    /// Replicates `set`; returns when it is committed and applied here. Proposals that wait together share an entry.
    ///
    /// # Errors
    /// See [`ProposeError`]: only `OutcomeUnknown` leaves doubt.
    async fn propose(&self, set: WriteSet) -> Result<Committed, ProposeError>;

    /// Role, leader and indexes now.
    fn status(&self) -> ReplicaStatus;

    /// [`ReplicaStatus::is_disk_full`], for those who ask at every request.
    fn is_disk_full(&self) -> bool {
        self.status().is_disk_full
    }

    /// The same, as a stream of changes. Role and leader changes always wake it; indexes may be coalesced.
    fn watch(&self) -> watch::Receiver<ReplicaStatus>;

    /// Adds an observer. Observers cannot be removed; one that is done ignores what it hears.
    fn observe(&self, observer: Arc<dyn ApplyObserver>);

    /// The current membership.
    fn membership(&self) -> Membership;

    /// Leader only: picks an id never used before in this cluster.
    ///
    /// # Errors
    /// When this member does not lead.
    async fn reserve_member_id(&self) -> Result<MemberId, ReplicaError>;

    /// Leader only: picks an id never used before and adds a learner of that id; `member`'s own is ignored.
    ///
    /// # Errors
    /// When refused, or this member does not lead.
    async fn admit(&self, member: Member) -> Result<MemberId, ReplicaError> {
        let id = self.reserve_member_id().await?;
        self.add_learner(Member { id, ..member }).await?;
        Ok(id)
    }

    /// Leader only: adds a learner of a reserved id, or gives a member other addresses, and returns once that is
    /// recorded. Refused when the membership changed since the id was reserved: [`Self::admit`] rules that out.
    ///
    /// # Errors
    /// When refused, or this member does not lead.
    async fn add_learner(&self, member: Member) -> Result<(), ReplicaError>;

    /// Leader only: makes a learner a voter once it has caught up.
    ///
    /// # Errors
    /// When it does not catch up in time, is unknown, or this member does not lead.
    async fn promote(&self, id: MemberId) -> Result<(), ReplicaError>;

    /// Leader only: makes a voter a learner.
    ///
    /// # Errors
    /// When it is the last voter, is unknown, or this member does not lead.
    async fn demote(&self, id: MemberId) -> Result<(), ReplicaError>;

    /// Leader only: removes a member for good. Removing the leader itself hands leadership over first.
    ///
    /// # Errors
    /// When it is the last voter, is unknown, or this member does not lead.
    async fn remove(&self, id: MemberId) -> Result<(), ReplicaError>;

    /// Leader only: hands leadership to `to`, or to the most current voter, and waits until it has it.
    ///
    /// # Errors
    /// When nobody can take over; this member then still leads.
    async fn transfer_leadership(&self, to: Option<MemberId>) -> Result<(), ReplicaError>;

    /// The whole replicated state at one applied index, as a checked stream of chunks for backup.
    ///
    /// # Errors
    /// When the checkpoint cannot be made.
    async fn export(&self) -> Result<SnapshotStream, ReplicaError>;

    /// Leader only: replaces the whole replicated state by what [`Self::export`] wrote, on every member, keeping the
    /// membership. Refused before anything changes if a checksum does not match.
    ///
    /// # Errors
    /// When the stream is damaged or of a newer format, or this member does not lead.
    async fn import(&self, stream: SnapshotStream) -> Result<(), ReplicaError>;

    /// A node-class value: written and synced on this member only, never replicated.
    ///
    /// # Errors
    /// When the store fails.
    fn node_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Stores a node-class value durably before returning.
    ///
    /// # Errors
    /// When the store fails.
    fn node_put(&self, key: &[u8], value: &[u8]) -> Result<(), KvError>;

    /// Stops for good: flushes and closes the files. Hand leadership over first.
    async fn shutdown(&self);
}
