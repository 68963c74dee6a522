//! What can go wrong in an engine, and how it is reduced to what the caller can do about it.

use crate::{EntropyError, StorageError};

/// What the caller can do about a failure. One table in `node/api` maps it to an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller's input is wrong: 400.
    Invalid,
    /// Not allowed: 403.
    Denied,
    /// Nothing there: 404.
    NotFound,
    /// The path exists, the operation does not: 405.
    Unsupported,
    /// State required by `X-Vault-Index` has not arrived here: 412.
    NotYet,
    /// Body or value over a limit: 413.
    TooLarge,
    /// Wrong content type: 415.
    MediaType,
    /// Over a quota, or too many others wait already: 429. Nothing was done.
    RateLimited,
    /// Ours to fix: 500. Details go to the log only.
    Internal,
    /// A system behind us failed: 502.
    Upstream,
    /// Sealed: 503.
    Sealed,
    /// Only the active node can do this; the API layer forwards or redirects. Never shown as such.
    NeedsActive,
    /// No active node known, or quorum lost: 503.
    Unavailable,
    /// This cluster is a disaster-recovery copy and serves nobody: 472.
    DrSecondary,
    /// This cluster was the primary, another is now: it takes no writes, 503.
    Fenced,
    /// The write may or may not have happened (leadership was lost while it was on its way): 500 with that text.
    OutcomeUnknown,
}

/// An engine's failure. Messages never quote a value the caller sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// A login whose caller did not prove who it says it is. The kernel counts these, and locks names that were tried
    /// too often. The text is shown to the caller.
    #[error("{text}")]
    BadLogin {
        /// The same whether the name is known or not.
        text: &'static str,
    },
    /// An assumption of ours broke; the text says which.
    #[error("internal error: {0}")]
    Bug(String),
    /// Too many wait already for what this would have to wait for: a computation, an answer. Nothing was begun.
    #[error("too many requests wait already, try again later")]
    Busy,
    /// The caller may not do this.
    #[error("permission denied")]
    Denied,
    /// Randomness failed; nothing was stored.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The caller may not do this; the text says why and is shown to the caller.
    #[error("{0}")]
    Forbidden(String),
    /// The request is wrong; the text is shown to the caller.
    #[error("{0}")]
    Invalid(String),
    /// What the path names is not there; the text says what and is shown to the caller.
    #[error("{0}")]
    Missing(String),
    /// Nothing at this path.
    #[error("not found")]
    NotFound,
    /// Acting outside failed, and nothing of it was done or ever will be: what was intended need not be undone. Said
    /// by [`crate::Engine::carry_out`] or [`crate::Engine::conclude`], and by nobody who is not certain. The failure
    /// inside is what the caller is told.
    #[error(transparent)]
    NothingDone(Box<EngineError>),
    /// Storage failed or refused.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No such operation on this path.
    #[error("unsupported operation")]
    Unsupported,
    /// A system behind the engine failed; the text is shown to the caller.
    #[error("{0}")]
    Upstream(String),
}

impl EngineError {
    /// What the caller can do about it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Bug(_) | Self::Entropy(_) => Fault::Internal,
            Self::Busy => Fault::RateLimited,
            Self::Denied | Self::Forbidden(_) => Fault::Denied,
            Self::BadLogin { .. } | Self::Invalid(_) => Fault::Invalid,
            Self::Missing(_) | Self::NotFound => Fault::NotFound,
            Self::NothingDone(err) => err.fault(),
            Self::Storage(err) => err.fault(),
            Self::Unsupported => Fault::Unsupported,
            Self::Upstream(_) => Fault::Upstream,
        }
    }

    /// The same failure, with the word that nothing was done.
    #[must_use]
    pub fn with_nothing_done(self) -> Self {
        if matches!(self, Self::NothingDone(_)) { self } else { Self::NothingDone(Box::new(self)) }
    }

    /// The caller's mistake, in words for the caller.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::Invalid(text.into())
    }
}
