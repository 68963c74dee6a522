//! How the two clusters talk: opaque bytes over whatever carries them. `node/rpc` does it with gRPC under mutual TLS, the
//! simulation with its own network.

use std::fmt::Debug;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use crate::codec::{Malformed, Reader, put_varint};
use crate::cursor::Epoch;

/// Which call a payload belongs to. Tags are on the wire: never renumber, never reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Call {
    /// A stream of segments behind a cursor.
    Follow = 1,
    /// A cursor up to which everything is durable.
    Acknowledge = 2,
    /// A stream with the whole state.
    Copy = 3,
    /// A question about differences between two states.
    Compare = 4,
    /// A newer epoch, and who is primary in it.
    Announce = 5,
    /// What the kernel of a performance secondary has its primary do: opaque here, done once or not at all. A link delivers
    /// it once: where it may have been delivered it is not sent again.
    Ask = 6,
    /// A secondary is there, and asks how far the active node is: also what a node that was greeted tells that one.
    Present = 7,
}

impl Call {
    /// The call with this wire tag.
    #[must_use]
    pub const fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(Self::Follow),
            2 => Some(Self::Acknowledge),
            3 => Some(Self::Copy),
            4 => Some(Self::Compare),
            5 => Some(Self::Announce),
            6 => Some(Self::Ask),
            7 => Some(Self::Present),
            _ => None,
        }
    }
}

/// The other side will not. What the secondary does about it depends on which it is, so it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The log no longer goes back to the cursor: the states have to be compared.
    #[error("the log no longer goes back that far")]
    Gone,
    /// The cursor is of a history that this cluster does not have.
    #[error("{0}")]
    Forked(String),
    /// The state was replaced by a backup behind the cursor.
    #[error("the primary's state was replaced by a backup")]
    Replaced,
    /// There is a newer epoch than the asker's, or than the one asked.
    #[error("epoch {} is over", .0.0)]
    Fenced(Epoch),
    /// This cluster is not a primary of that kind, or not any more.
    #[error("this cluster is no primary")]
    NotPrimary,
    /// The secondary was revoked.
    #[error("this secondary was revoked")]
    Revoked,
    /// It cannot right now; ask again.
    #[error("{0}")]
    Busy(String),
    /// The message makes no sense to it.
    #[error("{0}")]
    Malformed(String),
    /// It was handed on, and nobody knows what became of it: only of [`Call::Ask`].
    #[error("{0}")]
    Unanswered(String),
}

/// Longest text of a refusal, bytes.
const TEXT_MAX: usize = 4096;

impl Refusal {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let with = |tag: u8, text: &str| [&[tag], text.as_bytes()].concat();
        match self {
            Self::Gone => vec![1],
            Self::Forked(text) => with(2, text),
            Self::Replaced => vec![3],
            Self::Fenced(epoch) => {
                let mut out = vec![4];
                put_varint(&mut out, epoch.0);
                out
            }
            Self::NotPrimary => vec![5],
            Self::Revoked => vec![6],
            Self::Busy(text) => with(7, text),
            Self::Malformed(text) => with(8, text),
            Self::Unanswered(text) => with(9, text),
        }
    }

    /// What was sent.
    ///
    /// # Errors
    /// When it is none that this version knows.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let tag = reader.byte()?;
        let mut text = || {
            let mut bytes = Vec::new();
            while let (false, true) = (reader.is_empty(), bytes.len() < TEXT_MAX) {
                bytes.push(reader.byte()?);
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(match tag {
            1 => Self::Gone,
            2 => Self::Forked(text()?),
            3 => Self::Replaced,
            4 => Self::Fenced(Epoch(reader.varint()?)),
            5 => Self::NotPrimary,
            6 => Self::Revoked,
            7 => Self::Busy(text()?),
            8 => Self::Malformed(text()?),
            9 => Self::Unanswered(text()?),
            _ => return Err(Malformed("an unknown refusal")),
        })
    }
}

/// Largest question of a [`Call::Ask`], bytes: a request of the largest size, and what is said about its caller.
pub const ASK_BYTES_MAX: usize = 33 << 20;

/// A call did not get an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The other side answered that it will not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No connection, or it broke. Of a [`Call::Ask`]: nothing was delivered.
    #[error("the other cluster is unreachable: {0}")]
    Unreachable(String),
}

/// Messages, in order, until the connection breaks or the other side ends it.
pub type PayloadStream = Pin<Box<dyn Stream<Item = Result<Bytes, LinkError>> + Send>>;

/// Calls to the cluster that is followed: to whichever of its nodes answers.
#[async_trait]
pub trait Link: Debug + Send + Sync {
    /// One question, one answer.
    ///
    /// # Errors
    /// See [`LinkError`].
    async fn call(&self, call: Call, payload: Bytes) -> Result<Bytes, LinkError>;

    /// One question, a stream of answers. What is sent ahead of the reader is bounded.
    ///
    /// # Errors
    /// See [`LinkError`].
    async fn stream(&self, call: Call, payload: Bytes) -> Result<PayloadStream, LinkError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_come_back() {
        for refusal in [
            Refusal::Gone,
            Refusal::Forked("why".to_owned()),
            Refusal::Replaced,
            Refusal::Fenced(Epoch(300)),
            Refusal::NotPrimary,
            Refusal::Revoked,
            Refusal::Busy(String::new()),
            Refusal::Malformed("ä".to_owned()),
            Refusal::Unanswered("who knows".to_owned()),
        ] {
            assert_eq!(Refusal::decode(refusal.encode().into()), Ok(refusal));
        }
        assert!(Refusal::decode(Bytes::from_static(&[99])).is_err());
        assert!(Refusal::decode(Bytes::new()).is_err());
    }
}
