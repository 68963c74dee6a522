//! The replicated log, the state machine and its snapshots, over seams that the simulation can tear.
//!
//! Everything here is ciphertext: this crate never imports the barrier and holds no code that could open a value.
//! openraft's types stay inside; the rest of Arca sees [`Replica`], [`WriteSet`] and [`Transport`].
//! Read next: [`replica`] for what callers get, [`write_set`] for what is replicated.

pub mod codec;
pub mod command;
pub mod kv;
pub mod log;
pub mod raft;
pub mod replica;
pub mod state;
pub mod testing;
pub mod transport;
pub mod types;
pub mod vfs;
pub mod watch;
pub mod write_set;

pub use kv::{Batch, Kv, KvDraft, KvError, KvHome, KvSnapshot, Visit};
pub use raft::{
    Changed, Changes, ChangesError, OpenError, Position, RaftConfig, RaftParts, RaftReplica, What,
};
pub use replica::{
    ApplyObserver, Change, Committed, Member, MemberId, MemberKind, Membership, Progress, ProposeError,
    ReadView, Replica, ReplicaError, ReplicaStatus, Role, Versioned,
};
pub use transport::{Call, Inbound, Nobody, SnapshotStream, Transport, TransportError};
pub use vfs::{OsVfs, Vfs, VfsFile};
pub use write_set::{Key, Value, Version, Write, WriteSet};
