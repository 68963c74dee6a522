//! The kernel's failures. None of them knows HTTP: [`KernelError::fault`] says what the caller can do, `node/api`
//! picks the status.

use std::time::Duration;

use arca_barrier::BarrierError;
use arca_engine_api::{EngineError, EntropyError, Fault, StorageError};
use arca_raft_storage::{Key, ProposeError, ReplicaError};

use crate::replication::standing::{alone_text, fenced_text};
use crate::replication::{EntityQuestion, Fence, Kind};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// This primary hears no DR secondary, and is configured to take no writes then.
    #[error("{}", alone_text(*.limit))]
    Alone {
        /// The silence after which it is so.
        limit: Duration,
    },
    /// No audit device took the entry, so the request may not go on.
    #[error("no audit device of this node could write the entry, so the request may not go on: see its log")]
    AuditFailed,
    /// The barrier refused.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
    /// An assumption of ours broke; the text says which.
    #[error("internal error: {0}")]
    Bug(String),
    /// A concurrent write got in between: nothing was written, run the request again.
    #[error("a concurrent write got in between")]
    Conflict {
        /// A key that was changed, if it can be told.
        changed: Option<Key>,
    },
    /// Lost the optimistic race too often.
    #[error("too many concurrent writes to the same path, try again")]
    Contention,
    /// Not allowed. Deliberately says no more.
    #[error("permission denied")]
    Denied,
    /// This cluster is a copy that waits; it serves nobody. In the words of this family.
    #[error("path disabled in replication DR secondary mode")]
    DrSecondary,
    /// From an engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Randomness failed; nothing was stored.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// This cluster was the primary and is not any more: it takes no writes.
    #[error("{}", fenced_text(*.kind, .fence))]
    Fenced {
        /// Of which kind.
        kind: Kind,
        /// What it heard.
        fence: Box<Fence>,
    },
    /// The request is wrong; the text is shown to the caller.
    #[error("{0}")]
    Invalid(String),
    /// Wrong content type for PATCH.
    #[error("PATCH needs the content type application/merge-patch+json")]
    MediaType,
    /// Only the active node can do this. The API layer forwards; clients never see it.
    #[error("this node is a standby")]
    NeedsActive,
    /// Nothing was found to do here, where a primary's state may be newer: it is asked; clients never see it.
    #[error("the primary may know better")]
    Doubtful,
    /// A login has to be known to the primary first, which is asked for that; clients never see it.
    #[error("the primary has not been asked for the identity of a login")]
    NeedsEntity(Box<EntityQuestion>),
    /// What is shared is written at the primary, and this cluster is a performance secondary: nothing was written.
    #[error("this cluster is a performance secondary: do this at its primary")]
    NeedsPrimary,
    /// The primary of this performance secondary cannot be reached; nothing was done there.
    #[error(
        "the primary cannot be reached ({reason}): what is shared cannot be written now, reads go on here"
    )]
    NoPrimary {
        /// What was tried, for people.
        reason: String,
    },
    /// The state named by `X-Vault-Index` has not arrived here.
    #[error("required index state not present")]
    NotYet,
    /// Nothing there; the text, if any, is shown.
    #[error("{0}")]
    NotFound(String),
    /// Not allowed, in the words the kv commands of this family look for.
    #[error(
        "preflight capability check returned 403, please ensure client's policies grant access to path {path:?}"
    )]
    Preflight {
        /// As asked for.
        path: String,
    },
    /// What a secondary asked for writes nothing that is shared, and is to be done there. Clients never see it.
    #[error("this writes nothing that performance secondaries share: it is done there")]
    NothingShared,
    /// Replication of the write failed.
    #[error(transparent)]
    Propose(ProposeError),
    /// Reading the replicated state failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The node is sealed, or sealing.
    #[error("arca is sealed")]
    Sealed,
    /// Storage failed or refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// As the primary of this performance secondary refused, or failed.
    #[error("{}", messages.join("; "))]
    ToldByPrimary {
        /// What the caller can do about it.
        fault: Fault,
        /// As the primary would have told the caller.
        messages: Vec<String>,
    },
    /// Called more often than is allowed without a token.
    #[error("too many requests, try again later")]
    TooMany,
    /// No such operation on this path.
    #[error("unsupported operation")]
    Unsupported,
}

impl From<ProposeError> for KernelError {
    fn from(err: ProposeError) -> Self {
        match err {
            ProposeError::NotLeader { .. } => Self::NeedsActive,
            other => Self::Propose(other),
        }
    }
}

impl KernelError {
    /// The caller's mistake, in words for the caller. Never quote a value the caller sent.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }

    /// Whether a concurrent write got in between: nothing was written, run the request again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Propose(ProposeError::Conflict))
    }

    /// Whether the work is another's to do: of this cluster's active node, or of another cluster. What is repeated in the
    /// background leaves it to them and looks again later.
    #[must_use]
    pub fn is_for_another(&self) -> bool {
        matches!(
            self,
            Self::Alone { .. }
                | Self::NeedsActive
                | Self::NeedsPrimary
                | Self::DrSecondary
                | Self::Fenced { .. }
        )
    }

    /// What the caller can do about it; the rest stays in the log.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::AuditFailed
            | Self::Barrier(_)
            | Self::Bug(_)
            | Self::Conflict { .. }
            | Self::Contention
            | Self::Entropy(_) => Fault::Internal,
            Self::Denied | Self::Preflight { .. } => Fault::Denied,
            Self::DrSecondary => Fault::DrSecondary,
            Self::Engine(err) => err.fault(),
            Self::Alone { .. } | Self::Fenced { .. } => Fault::Fenced,
            Self::Invalid(_) => Fault::Invalid,
            Self::MediaType => Fault::MediaType,
            Self::NeedsEntity(_) => Fault::Internal,
            Self::Doubtful | Self::NeedsPrimary | Self::NothingShared => Fault::Invalid,
            Self::NoPrimary { .. } => Fault::Unavailable,
            Self::NeedsActive => Fault::NeedsActive,
            Self::NotFound(_) => Fault::NotFound,
            Self::NotYet => Fault::NotYet,
            Self::Propose(err) => match err {
                ProposeError::Conflict | ProposeError::Invalid(_) => Fault::Internal,
                ProposeError::DiskFull => Fault::Unavailable,
                ProposeError::NotLeader { .. } => Fault::NeedsActive,
                ProposeError::OutcomeUnknown => Fault::OutcomeUnknown,
                ProposeError::TooLarge { .. } => Fault::TooLarge,
            },
            Self::Replica(err) => match err {
                ReplicaError::NoLeader(_) | ReplicaError::Timeout(_) | ReplicaError::Stopped(_) => {
                    Fault::Unavailable
                }
                ReplicaError::Membership(_) => Fault::Invalid,
                ReplicaError::Kv(_) | ReplicaError::Snapshot(_) => Fault::Internal,
            },
            Self::Sealed => Fault::Sealed,
            Self::Storage(err) => err.fault(),
            Self::ToldByPrimary { fault, .. } => *fault,
            Self::TooMany => Fault::RateLimited,
            Self::Unsupported => Fault::Unsupported,
        }
    }

    /// What the audit log is told: as [`Self::public_messages`], in one line.
    #[must_use]
    pub fn public_text(&self) -> String {
        self.public_messages().join("; ")
    }

    /// The lines of `errors` in the response body. Internal faults say only that they are internal.
    #[must_use]
    pub fn public_messages(&self) -> Vec<String> {
        if let Self::ToldByPrimary { messages, .. } = self {
            return messages.clone();
        }
        match self.fault() {
            Fault::Internal if !matches!(self, Self::AuditFailed | Self::Contention) => {
                vec!["internal error".to_owned()]
            }
            Fault::NotFound if self.to_string().is_empty() => Vec::new(),
            _ => vec![self.to_string()],
        }
    }
}
