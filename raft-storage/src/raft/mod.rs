//! openraft put to work: its network, its state machine, and what Arca makes of both, [`RaftReplica`].
//!
//! Where our settings differ from openraft's defaults, and why:
//!
//! | setting | default | ours | why |
//! |---|---|---|---|
//! | heartbeat | 50 ms | 80 ms | a follower answers after its sync, which may take a while |
//! | election | 150–300 ms | 250–400 ms | a lost leader is replaced after 0.65–0.8 s (lease, then the wait) |
//! | pre-vote | off | on | a member that was cut off does not depose the leader when it is back |
//! | leader restore | on | off | a leader that restarts wins an election again, or does not lead |
//! | quorum-loss probe | off | lease + election + heartbeat | else a leader that reaches only a bridge member blocks a majority that could elect (openraft 2080) |
//! | send before the own sync is over | off | on | measured: a tenth less time per write, a tenth more writes |
//! | log reversion | off | off | a follower that lost its log is damaged; it must not be believed |
//! | snapshot policy | 5,000 entries | never | nothing is built: a snapshot is read from the store when it is sent |
//! | entries kept | 1,000 | by bytes, [`Retention`] | a short stall must not force a snapshot, whose time forces the next one |
//! | snapshot timeout | 200 ms | 1 h | 200 ms never sends a large state, and starts over for ever |
//! | back-off | 200 ms and up | 20 ms and up | a member that is back is served at once |
//!
//! Reads rely on three quarters of the lease, for clocks that differ in pace. A member that restarts neither votes nor
//! campaigns during one lease: openraft forgets the lease it granted before. Read next: [`replica`](RaftReplica).

mod barrier;
mod changes;
mod config;
mod gate;
mod guard;
mod import;
mod inbound;
mod machine;
mod members;
mod network;
mod proposer;
mod recover;
mod replica;
mod runtime;
mod shared;
mod silence;
mod status;
mod upkeep;
mod wire;

#[cfg(test)]
mod tests;

pub use changes::{Changed, Changes, ChangesError, Position, What};
pub use config::{Limits, RaftConfig, Retention, Threads, Timings};
pub use machine::{Builder, Machine, SnapshotData, members_of};
pub use recover::recover_single;
pub use replica::{RaftParts, RaftReplica};
pub use runtime::{Rng, Runtime, Watched};

use crate::MemberId;
use crate::kv::KvError;
use crate::log::LogError;
use crate::state::StateError;

/// Why a member could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting makes no sense.
    #[error("raft settings: {0}")]
    Config(String),
    /// The node-class values.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Log and state do not fit together, or openraft could not start.
    #[error("raft could not start: {0}")]
    Raft(String),
    /// Recovery of a single member was refused.
    #[error("recovery refused: {0}")]
    Recovery(String),
    /// The state machine.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log's writer has no thread.
    #[error("no thread for the log: {0}")]
    Thread(String),
    /// Log and state are not of one member's same life: a directory was lost, or copied from elsewhere.
    #[error("{0}: one of the two was lost or replaced; this member has to be removed and joined anew")]
    Unfit(String),
    /// The files are another member's.
    #[error("the data directory belongs to member {found}, not {expected}")]
    WrongMember {
        /// Whose files they are.
        found: MemberId,
        /// This member.
        expected: MemberId,
    },
}
