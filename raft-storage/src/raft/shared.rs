//! What every part of a member holds: openraft, the state, the log, and how to reach the others.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, ForwardReason, RaftError};
use openraft::metrics::RaftMetrics;
use openraft::{Instant as _, ServerState};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::config::RaftConfig;
use super::gate::Gate;
use super::machine::Machine;
use super::status::StatusCell;
use super::wire::Envelope;
use crate::command::Command;
use crate::log::{ClusterId, SegmentLog};
use crate::state::{NodeStore, Outcome, State};
use crate::types::{EntryData, TypeConfig};
use crate::{Member, MemberId, ProposeError, ReplicaError, Transport};

pub(super) type Raft = openraft::Raft<TypeConfig, Machine>;
pub(super) type Metrics = RaftMetrics<TypeConfig>;

/// Pause before a write is tried again on a leader without a lease.
const LEASE_RETRY: Duration = Duration::from_millis(5);

/// The parts of one member.
pub(super) struct Shared {
    pub(super) config: RaftConfig,
    pub(super) cluster: ClusterId,
    pub(super) raft: Raft,
    pub(super) state: Arc<State>,
    pub(super) node: NodeStore,
    pub(super) log: SegmentLog,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) gate: Arc<Gate>,
    pub(super) status: StatusCell,
    /// One membership change or hand-over at a time.
    pub(super) changing: Mutex<()>,
    /// One snapshot at a time is taken in.
    pub(super) receiving: Mutex<()>,
    /// Entries after this index are kept for those who read changes; all may go at `u64::MAX`.
    pub(super) held: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("id", &self.config.id).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn me(&self) -> MemberId {
        self.config.id
    }

    pub(super) fn envelope(&self, to: MemberId) -> Envelope {
        Envelope { cluster: self.cluster, from: self.me().0, to: to.0 }
    }

    /// A look at openraft's figures. Short: openraft cannot publish new ones meanwhile.
    pub(super) fn metrics<T>(&self, look: impl FnOnce(&Metrics) -> T) -> T {
        look(&self.raft.metrics().borrow_watched())
    }

    /// Waits until openraft's figures satisfy `condition`, no longer than `limit`.
    pub(super) async fn metrics_until<T>(
        &self,
        limit: Duration,
        what: &'static str,
        condition: impl FnMut(&Metrics) -> Option<T>,
    ) -> Result<T, ReplicaError> {
        let found = timeout(limit, self.metrics_when(condition)).await;
        found.map_err(|_| ReplicaError::Timeout(what))?
    }

    /// Waits until openraft's figures satisfy `condition`, however long that takes.
    pub(super) async fn metrics_when<T>(
        &self,
        mut condition: impl FnMut(&Metrics) -> Option<T>,
    ) -> Result<T, ReplicaError> {
        let mut metrics = self.raft.metrics();
        loop {
            let found = {
                let metrics = metrics.borrow_and_update();
                metrics.running_state.as_ref().map_err(stopped)?;
                condition(&metrics)
            };
            if let Some(found) = found {
                return Ok(found);
            }
            metrics.changed().await.map_err(|_| ReplicaError::Stopped("openraft ended".to_owned()))?;
        }
    }

    /// The leader this member knows of, itself included.
    pub(super) fn leader(&self) -> Option<Member> {
        self.metrics(leader_of)
    }

    /// Whether this member believes that it leads while no quorum has answered it for a lease.
    pub(super) fn is_cut_off(&self) -> bool {
        let lease = self.config.timings.lease();
        self.metrics(|metrics| {
            metrics.state == ServerState::Leader
                && metrics.last_quorum_acked.is_some_and(|acked| acked.into_inner().elapsed() > lease)
        })
    }

    /// Waits until `index` is applied here.
    pub(super) async fn await_applied(&self, index: u64, limit: Duration) -> Result<u64, ReplicaError> {
        let now = self.state.view().meta().index;
        if now >= index {
            return Ok(now);
        }
        let mut applied = self.state.applied();
        let waited = timeout(limit, applied.wait_for(|applied| *applied >= index)).await;
        match waited {
            Ok(Ok(applied)) => Ok(*applied),
            Ok(Err(_)) => Err(ReplicaError::Stopped("the state machine ended".to_owned())),
            Err(_) => Err(ReplicaError::Timeout("an index to be applied")),
        }
    }

    /// Puts an encoded command into the log; answers where it was applied and what became of it.
    pub(super) async fn write(&self, command: Vec<u8>) -> Result<(u64, Outcome), ProposeError> {
        let data = EntryData(Bytes::from(command));
        let give_up = Instant::now() + self.config.timings.lease();
        loop {
            match self.raft.client_write(data.clone()).await {
                Ok(response) => return Ok((response.log_id.index, response.data)),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                    // A leader that was just elected has its lease once a quorum has answered its first entry.
                    if forward.reason != ForwardReason::LeaseExpired || Instant::now() >= give_up {
                        return Err(ProposeError::NotLeader { leader: forward.leader_node });
                    }
                    sleep(LEASE_RETRY).await;
                }
                // Appended here, then overwritten or not seen through: another leader may have committed it.
                Err(RaftError::APIError(_) | RaftError::Fatal(_)) => {
                    return Err(ProposeError::OutcomeUnknown);
                }
            }
        }
    }

    /// The same for an operation on the cluster, within the time for those.
    pub(super) async fn command(&self, command: &Command) -> Result<(u64, Outcome), ReplicaError> {
        let bytes = command.encode().map_err(|err| ReplicaError::Snapshot(err.to_string()))?;
        let limit = self.config.timings.membership;
        match timeout(limit, self.write(bytes)).await {
            Ok(result) => result.map_err(|err| self.not_leading(&err)),
            Err(_) => Err(ReplicaError::Timeout("a command to be committed")),
        }
    }

    pub(super) fn not_leading(&self, err: &ProposeError) -> ReplicaError {
        match self.metrics(|metrics| metrics.running_state.clone()) {
            Err(fatal) => stopped(&fatal),
            Ok(()) => ReplicaError::NoLeader(err.to_string()),
        }
    }
}

/// The record of the leader that `metrics` names.
pub(super) fn leader_of(metrics: &Metrics) -> Option<Member> {
    let id = metrics.current_leader?;
    metrics.membership_config.get_node(&id).cloned()
}

pub(super) fn stopped(fatal: &Fatal<TypeConfig>) -> ReplicaError {
    ReplicaError::Stopped(fatal.to_string())
}
