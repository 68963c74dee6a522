//! One event, and its JSON.
//!
//! Enums are tagged from outside: serde's other forms lose large numbers with the JSON features this
//! workspace builds with. **Invariant:** the names here are a file format. Add, but never rename.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// What a process asks for. Which calls a key takes is its model's matter ([`ModelName::has`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// Add to the end of a list: a read, and a write checked against the version that was read.
    Append {
        /// Never appended to the same key twice.
        value: u64,
    },
    /// Write if the current version is still this one.
    Cas {
        /// The version to be replaced; 0 for none.
        version: u64,
        /// What the caller saw as that version; none if nothing was there.
        from: Option<u64>,
        /// What to write.
        value: u64,
    },
    /// Make a token, a secret id, or a user of a database.
    Create {
        /// How often it may be used, if that is limited.
        uses: Option<u64>,
        /// How long it lives, if that is what is tested.
        ttl_ms: Option<u64>,
    },
    /// Delete the current version.
    Delete,
    /// Log in.
    Login {
        /// With which of the passwords there were; none with a secret id or a user of a database, which is the key itself.
        password: Option<u64>,
    },
    /// Is it still in the list of what is stored?
    Probe,
    /// Read what is there.
    Read,
    /// What there is at the end, of a kind of which nothing may be left.
    Remaining,
    /// Have a lease end later.
    Renew {
        /// How long it is to live from now on.
        ttl_ms: u64,
    },
    /// Revoke the token or the lease, or destroy the secret id.
    Revoke,
    /// Revoke the lease, and wait until what it granted is gone.
    RevokeNow,
    /// Use a token that counts its uses.
    Spend,
    /// Take out what was wrapped.
    Unwrap,
    /// Use a token that does not count.
    Use,
    /// Put something away, to be taken out once.
    Wrap,
    /// Write, whatever is there.
    Write {
        /// What to write.
        value: u64,
    },
}

impl Call {
    /// Whether it may change what is stored.
    #[must_use]
    pub const fn has_effect(&self) -> bool {
        !matches!(self, Self::Probe | Self::Read | Self::Remaining | Self::Use)
    }

    /// Its name, as in the files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Append { .. } => "append",
            Self::Cas { .. } => "cas",
            Self::Create { .. } => "create",
            Self::Delete => "delete",
            Self::Login { .. } => "login",
            Self::Probe => "probe",
            Self::Read => "read",
            Self::Remaining => "remaining",
            Self::Renew { .. } => "renew",
            Self::Revoke => "revoke",
            Self::RevokeNow => "revoke_now",
            Self::Spend => "spend",
            Self::Unwrap => "unwrap",
            Self::Use => "use",
            Self::Wrap => "wrap",
            Self::Write { .. } => "write",
        }
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// Nothing is there.
    Absent,
    /// It was done.
    Done,
    /// The whole list.
    List(Vec<u64>),
    /// The names of what there is.
    Names(Vec<String>),
    /// It was not done, for a reason that is a fact about the state.
    Refused,
    /// What is there.
    Value {
        /// The current version.
        version: u64,
        /// What it holds; none if it was deleted.
        value: Option<u64>,
    },
    /// The version that was written.
    Version(u64),
}

/// Which part of a call an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It surely did not happen.
    Fail,
    /// It may or may not have happened.
    Info,
    /// It begins.
    Invoke,
    /// It happened.
    Ok,
}

impl Kind {
    /// Its name, as in the files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Info => "info",
            Self::Invoke => "invoke",
            Self::Ok => "ok",
        }
    }
}

/// What a key stands for, and so who checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelName {
    /// A token that counts its uses.
    Counter,
    /// A user of a real database, made for a lease.
    Credential,
    /// A token that ends by itself.
    Lease,
    /// A kind of thing of which nothing may be left at the end.
    Leftover,
    /// A list that grows.
    List,
    /// A user with a password that changes.
    Password,
    /// A KV version 2 path.
    Register,
    /// A secret id that logins are made with: good for so many, or until it is destroyed.
    SecretId,
    /// A token that lives until it is revoked.
    Token,
    /// A wrapped answer.
    Wrapping,
}

impl ModelName {
    /// Its name, as in the files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Credential => "credential",
            Self::Lease => "lease",
            Self::Leftover => "leftover",
            Self::List => "list",
            Self::Password => "password",
            Self::Register => "register",
            Self::SecretId => "secret_id",
            Self::Token => "token",
            Self::Wrapping => "wrapping",
        }
    }

    /// Whether a key of this model takes such a call.
    #[must_use]
    pub const fn has(self, call: &Call) -> bool {
        match self {
            Self::Counter => matches!(call, Call::Create { uses: Some(_), ttl_ms: None } | Call::Spend),
            Self::Credential => matches!(
                call,
                Call::Create { uses: None, ttl_ms: Some(_) }
                    | Call::Login { password: None }
                    | Call::Renew { .. }
                    | Call::Revoke
                    | Call::RevokeNow
            ),
            Self::Lease => {
                matches!(call, Call::Create { uses: None, ttl_ms: Some(_) } | Call::Probe | Call::Use)
            }
            Self::Leftover => matches!(call, Call::Remaining),
            Self::List => matches!(call, Call::Append { .. } | Call::Read),
            Self::Register => {
                matches!(call, Call::Cas { .. } | Call::Delete | Call::Read | Call::Write { .. })
            }
            Self::Password => matches!(call, Call::Login { password: Some(_) } | Call::Write { .. }),
            Self::SecretId => matches!(
                call,
                Call::Create { ttl_ms: None, .. } | Call::Login { password: None } | Call::Revoke
            ),
            Self::Token => {
                matches!(call, Call::Create { uses: None, ttl_ms: None } | Call::Revoke | Call::Use)
            }
            Self::Wrapping => matches!(call, Call::Unwrap | Call::Wrap),
        }
    }

    /// Whether this is what such a call of a key of this model may be answered. A failure without an answer
    /// always is.
    #[must_use]
    pub const fn fits(self, call: &Call, kind: Kind, answer: Option<&Answer>) -> bool {
        match (kind, answer) {
            (Kind::Invoke | Kind::Info | Kind::Fail, None) => true,
            (Kind::Fail, Some(Answer::Refused)) => {
                matches!(call, Call::Cas { .. } | Call::Login { .. } | Call::Spend | Call::Unwrap | Call::Use)
            }
            (Kind::Ok, Some(answer)) => match (self, call) {
                (Self::Password, Call::Write { .. }) => matches!(answer, Answer::Done),
                (Self::List, Call::Read) => matches!(answer, Answer::Absent | Answer::List(_)),
                (_, Call::Read) => matches!(answer, Answer::Absent | Answer::Value { .. }),
                (_, Call::Cas { .. } | Call::Write { .. }) => matches!(answer, Answer::Version(_)),
                (_, Call::Probe) => matches!(answer, Answer::Absent | Answer::Done),
                (_, Call::Remaining) => matches!(answer, Answer::Names(_)),
                _ => matches!(answer, Answer::Done),
            },
            _ => false,
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Its place in the history.
    pub index: usize,
    /// Nanoseconds since the recorder started, by a clock that no fault touches.
    pub time: u64,
    /// Who. A process does one thing at a time.
    pub process: u64,
    /// Which part of the call.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What the key stands for.
    pub model: ModelName,
    /// What it is about.
    pub key: String,
    /// What is asked for.
    pub call: Call,
    /// What came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// Why it failed, in words for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Event {
    /// Writes its line.
    pub(super) fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *to, self)?;
        to.write_all(b"\n")
    }
}
