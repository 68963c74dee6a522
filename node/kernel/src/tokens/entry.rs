//! A token as stored, and one just made.

use crate::AnswerAuth;

/// A token as stored.
#[derive(Clone, Debug, Default)]
pub struct TokenEntry {
    /// Keyed hash of the token: its name in storage.
    pub key: String,
}

/// A token just made, for its new owner.
#[derive(Clone, Debug, Default)]
pub struct NewToken {
    /// What the owner is shown.
    pub auth: AnswerAuth,
}
