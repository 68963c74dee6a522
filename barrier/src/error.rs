//! What can go wrong at the barrier. No message quotes a key, a share, a name or a value.

use crate::EntropyError;

/// Why something could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    /// The bytes were changed, moved to another place, or sealed under another key.
    #[error("sealed bytes do not authenticate")]
    Authentication,
    /// A suite refused its input: too large, or a key of the wrong size.
    #[error("the cipher refused its input")]
    Cipher,
    /// Randomness failed; nothing was sealed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
    /// The keyring offered is not a later version of the one in use.
    #[error("keyring does not continue the one in use: {0}")]
    ForeignKeyring(&'static str),
    /// A setting is out of its range; the text says which and what it may be.
    #[error("{0}")]
    InvalidConfig(&'static str),
    /// The term's key reached the number of messages its suite may seal: rotate first.
    #[error("key term {term} is used up and must be rotated")]
    KeyExhausted {
        /// The term.
        term: u32,
    },
    /// The bytes break the format's rules; the text says which.
    #[error("malformed sealed bytes: {0}")]
    Malformed(&'static str),
    /// A path has too many segments.
    #[error("path has more than {limit} segments")]
    PathTooDeep {
        /// The limit.
        limit: usize,
    },
    /// A path is over its limit.
    #[error("path of {size} bytes is over the limit of {limit}")]
    PathTooLong {
        /// Its size, bytes.
        size: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The key that would be needed is not here.
    #[error("sealed")]
    Sealed,
    /// What stands behind a seal (a KMS, a token) failed or refused; the text is for the operator.
    #[error("seal {seal}: {reason}")]
    SealBackend {
        /// The seal's type.
        seal: &'static str,
        /// What it said. Never holds key material.
        reason: String,
    },
    /// One segment of a path is over its limit.
    #[error("path segment of {size} bytes is over the limit of {limit}")]
    SegmentTooLong {
        /// Its size, bytes.
        size: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// Another share with the same number was given before.
    #[error("a different share with the same number was already provided")]
    ShareConflict,
    /// A share is neither hexadecimal nor base64, or has number zero.
    #[error("key share is malformed")]
    ShareMalformed,
    /// A share has the wrong size.
    #[error("key share has {size} bytes, want {want}")]
    ShareSize {
        /// Its size, bytes.
        size: usize,
        /// The right size, bytes.
        want: usize,
    },
    /// The shares do not give the key. Which of them is wrong is not known, and would not be said.
    #[error("key shares do not give the key; start again")]
    SharesWrong,
    /// Bytes are missing at the end.
    #[error("sealed bytes are truncated")]
    Truncated,
    /// A class byte from a newer version.
    #[error("unknown class {0}")]
    UnknownClass(u8),
    /// A time index tag from a newer version.
    #[error("unknown time index {0}")]
    UnknownIndex(u8),
    /// A suite tag from a newer version.
    #[error("unknown cipher suite {0}")]
    UnknownSuite(u8),
    /// The keyring here has no such term: it is older than the bytes, or the bytes are foreign.
    #[error("unknown key term {0}")]
    UnknownTerm(u32),
    /// A format version from a newer version.
    #[error("unknown format version {0}")]
    UnknownVersion(u8),
}
