//! How members talk: opaque bytes over whatever carries them. `node/rpc` implements [`Transport`] with gRPC and hands
//! what arrives to [`Inbound`]; the simulation does both with turmoil.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use crate::{Member, MemberId};

/// Which call a payload belongs to. Tags are on the wire: never renumber, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Call {
    /// AppendEntries.
    Append = 1,
    /// RequestVote.
    Vote = 2,
    /// Pre-vote.
    PreVote = 3,
    /// The leader asks the receiver to take over.
    TransferLeader = 4,
    /// A follower asks the leader for a read index.
    ReadIndex = 5,
}

impl Call {
    /// The call with this wire tag.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Append),
            2 => Some(Self::Vote),
            3 => Some(Self::PreVote),
            4 => Some(Self::TransferLeader),
            5 => Some(Self::ReadIndex),
            _ => None,
        }
    }
}

/// A call did not get an answer. Whether the other side acted on it is unknown, except for `Unreachable`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The other side refused or could not parse it.
    #[error("peer answered: {0}")]
    Refused(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// No connection could be made.
    #[error("peer is unreachable: {0}")]
    Unreachable(String),
}

/// A snapshot on its way: checked, self-describing chunks, in order. Chunks are at most 1 MiB.
pub type SnapshotStream = Pin<Box<dyn Stream<Item = Result<Bytes, String>> + Send>>;

/// Outgoing calls. Connections are kept, re-made with back-off, and verified to reach that very member.
#[async_trait]
pub trait Transport: Debug + Send + Sync {
    /// One request, one answer.
    ///
    /// # Errors
    /// See [`TransportError`].
    async fn call(
        &self,
        to: &Member,
        call: Call,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, TransportError>;

    /// Sends a snapshot; the answer comes when it is installed. `header` is small and sent first.
    ///
    /// # Errors
    /// See [`TransportError`].
    async fn send_snapshot(
        &self,
        to: &Member,
        header: Bytes,
        chunks: SnapshotStream,
        timeout: Duration,
    ) -> Result<Bytes, TransportError>;
}

/// Incoming calls. `peer` is the member at the other end as whatever carries the call has verified it; what a message
/// says of its sender must agree.
#[async_trait]
pub trait Inbound: Debug + Send + Sync {
    /// Serves one call.
    ///
    /// # Errors
    /// A text for the caller's log.
    async fn serve(&self, peer: MemberId, call: Call, payload: Bytes) -> Result<Bytes, String>;

    /// Whether `peer` was a member, or might have been, and is none any more. It is still answered when it calls for
    /// votes, by which it learns of it; nothing else of it needs to be taken.
    fn is_removed(&self, peer: MemberId) -> bool;

    /// Receives and installs a snapshot.
    ///
    /// # Errors
    /// A text for the caller's log.
    async fn receive_snapshot(
        &self,
        peer: MemberId,
        header: Bytes,
        chunks: SnapshotStream,
    ) -> Result<Bytes, String>;
}

/// Reaches nobody: for a member that stays alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

#[async_trait]
impl Transport for Nobody {
    async fn call(
        &self,
        to: &Member,
        _call: Call,
        _payload: Bytes,
        _timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        Err(TransportError::Unreachable(format!("this node stays alone; member {} is out of reach", to.id)))
    }

    async fn send_snapshot(
        &self,
        to: &Member,
        _header: Bytes,
        _chunks: SnapshotStream,
        _timeout: Duration,
    ) -> Result<Bytes, TransportError> {
        Err(TransportError::Unreachable(format!("this node stays alone; member {} is out of reach", to.id)))
    }
}
