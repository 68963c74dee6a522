//! The types openraft is instantiated with: what an entry carries, what applying it answers, who a member is.
//!
//! An entry's data is opaque bytes here; [`crate::write_set`] says what they mean. None of openraft's type
//! parameters leave this crate.

use std::fmt;

use bytes::Bytes;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::raft::Runtime;
use crate::replica::Member;
use crate::state::Outcome;

openraft::declare_raft_types!(
    /// Arca's instance of openraft.
    pub TypeConfig:
        D = EntryData,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        AsyncRuntime = Runtime,
);

/// Where an entry stands: the leader that proposed it, and its index.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// One log entry.
pub type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// A vote, or the leadership that came of it.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// The members, and the entry that made them so.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;

/// What a normal entry carries: an encoded command. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EntryData(pub Bytes);

impl fmt::Debug for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryData({} bytes)", self.0.len())
    }
}

impl fmt::Display for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for EntryData {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for EntryData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BytesVisitor;

        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = EntryData;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<EntryData, E> {
                Ok(EntryData(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<EntryData, E> {
                Ok(EntryData(bytes.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<EntryData, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(EntryData(bytes.into()))
            }
        }

        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}
