//! Role, leader and indexes, kept at hand: reading them costs a reference count and a copy.
//!
//! A task follows openraft's figures. Role, term, leader and trouble are published at once; indexes move all the time
//! and are published ten times a second to those who watch, while those who ask get them as they are.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use openraft::{Instant as _, ServerState, TokioInstant};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};

use super::shared::{Metrics, Shared, leader_of};
use crate::watch;
use crate::{MemberId, ReplicaStatus, Role};

/// How long index changes may go unpublished.
const INDEX_PERIOD: Duration = Duration::from_millis(100);

/// The newest status.
#[derive(Debug)]
pub(super) struct StatusCell {
    seen: ArcSwap<Seen>,
    published: watch::Sender<ReplicaStatus>,
    /// When a leader was last heard of.
    heard: Mutex<Option<Instant>>,
    /// Silence after which nobody is said to lead.
    silence: Duration,
}

#[derive(Debug, Default)]
struct Seen {
    status: ReplicaStatus,
    quorum_acked: Option<TokioInstant>,
}

impl StatusCell {
    pub(super) fn new(id: MemberId, silence: Duration) -> Self {
        let status = ReplicaStatus { id, ..ReplicaStatus::default() };
        let published = watch::Sender::new(status.clone());
        let seen = ArcSwap::from_pointee(Seen { status, quorum_acked: None });
        Self { seen, published, heard: Mutex::default(), silence }
    }

    pub(super) fn get(&self, applied_index: u64) -> ReplicaStatus {
        let seen = self.seen.load();
        let mut status = seen.status.clone();
        status.applied_index = status.applied_index.max(applied_index);
        status.quorum_ack_age = seen.quorum_acked.map(|acked| acked.elapsed());
        // Openraft names a leader until another is elected, which takes a quorum.
        let age = match status.role {
            Role::Leader => status.quorum_ack_age,
            _ => self.heard.lock().map(|heard| heard.elapsed()),
        };
        let leads_itself = status.leader.as_ref().is_some_and(|leader| leader.id == status.id);
        let is_alone = status.role == Role::Leader && age.is_none();
        let is_heard = is_alone || age.is_some_and(|age| age <= self.silence);
        if !is_heard || leads_itself != (status.role == Role::Leader) {
            status.leader = None;
        }
        status
    }

    /// A leader has spoken.
    pub(super) fn hear(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    pub(super) fn watch(&self) -> watch::Receiver<ReplicaStatus> {
        self.published.subscribe()
    }

    /// Remembers the first reason to stop for good.
    pub(super) fn fail(&self, reason: &str) {
        self.seen.rcu(|seen| {
            let mut status = seen.status.clone();
            status.role = Role::Stopped;
            status.fatal.get_or_insert_with(|| reason.to_owned());
            Arc::new(Seen { status, quorum_acked: None })
        });
        self.publish();
    }

    pub(super) fn set_disk_full(&self, is_disk_full: bool) {
        self.seen.rcu(|seen| {
            let status = ReplicaStatus { is_disk_full, ..seen.status.clone() };
            Arc::new(Seen { status, quorum_acked: seen.quorum_acked })
        });
        self.publish();
    }

    /// Shut down in order.
    pub(super) fn close(&self) {
        self.seen.rcu(|seen| {
            let status = ReplicaStatus { role: Role::Stopped, leader: None, ..seen.status.clone() };
            Arc::new(Seen { status, quorum_acked: None })
        });
        self.publish();
    }

    pub(super) fn is_failed(&self) -> bool {
        self.seen.load().status.fatal.is_some()
    }

    fn store(&self, seen: Seen) {
        // Once fatal, always fatal.
        self.seen.rcu(|before| {
            if before.status.fatal.is_some() {
                return before.clone();
            }
            Arc::new(Seen { status: seen.status.clone(), quorum_acked: seen.quorum_acked })
        });
    }

    fn publish(&self) {
        self.published.send_replace(self.seen.load().status.clone());
    }
}

fn is_turn(before: &ReplicaStatus, after: &ReplicaStatus) -> bool {
    (before.role, before.term, before.is_disk_full) != (after.role, after.term, after.is_disk_full)
        || before.leader != after.leader
        || before.fatal != after.fatal
}

/// Follows openraft until it ends.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut metrics = shared.raft.metrics();
    let mut was_member = false;
    let mut publish_at = Instant::now();
    loop {
        let seen = {
            let metrics = metrics.borrow_and_update();
            look(&shared, &metrics, &mut was_member)
        };
        let before = shared.status.published.borrow().clone();
        let turn = is_turn(&before, &seen.status);
        let moved = before.applied_index != seen.status.applied_index
            || before.committed_index != seen.status.committed_index;
        if seen.status.fatal.is_some() {
            shared.raft.runtime_config().elect(false);
        }
        shared.status.store(seen);
        if turn || (moved && Instant::now() >= publish_at) {
            shared.status.publish();
            publish_at = Instant::now() + INDEX_PERIOD;
        }
        let changed = if moved && !turn {
            timeout_at(publish_at, metrics.changed()).await.unwrap_or(Ok(()))
        } else {
            metrics.changed().await
        };
        if changed.is_err() {
            return;
        }
    }
}

fn look(shared: &Shared, metrics: &Metrics, was_member: &mut bool) -> Seen {
    let id = shared.me();
    let fatal = match &metrics.running_state {
        Err(_) if shared.gate.is_closed.get() => None,
        Err(fatal) => Some(fatal.to_string()),
        Ok(()) => removal(shared, metrics, was_member),
    };
    let is_removed = fatal.is_some() && metrics.running_state.is_ok();
    let role = match metrics.state {
        _ if fatal.is_some() => Role::Stopped,
        ServerState::Candidate => Role::Candidate,
        ServerState::Follower => Role::Follower,
        ServerState::Leader => Role::Leader,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    };
    let status = ReplicaStatus {
        id,
        role,
        term: metrics.current_term,
        leader: leader_of(metrics),
        committed_index: metrics.local_committed.map_or(0, |log_id| log_id.index),
        applied_index: shared.state.view().meta().index,
        quorum_ack_age: None,
        fatal,
        is_removed,
        is_disk_full: shared.gate.is_disk_full.get(),
    };
    // Who votes alone is a quorum, and hears of nobody.
    let is_alone = metrics.membership_config.voter_ids().nth(1).is_none();
    let acked = metrics.last_quorum_acked.filter(|_| !is_alone);
    Seen { status, quorum_acked: acked.map(openraft::metrics::SerdeInstant::into_inner) }
}

/// Why this is not a member any more, if it was one. A member that is still catching up was not.
fn removal(shared: &Shared, metrics: &Metrics, was_member: &mut bool) -> Option<String> {
    let id = shared.me();
    let is_member = metrics.committed_membership_config.get_node(&id.0).is_some();
    *was_member |= is_member;
    let newest = metrics.membership_config.log_id().map_or(0, |log_id| log_id.index);
    let told = metrics.membership_config.get_node(&id.0).is_some() && shared.gate.is_removed_after(newest);
    (told || (*was_member && !is_member)).then(|| {
        format!("member {id} was removed from the cluster: to join again, start with an empty data directory")
    })
}
