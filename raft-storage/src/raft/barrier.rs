//! Linearizable reads on every member: how far must this member have applied for a read that starts now?
//!
//! On the leader openraft answers, from its lease or after a round of heartbeats; others ask the leader. Callers that
//! wait together share one question. **Invariant:** a caller only joins a question that has not been asked yet, so
//! that the answer covers everything committed before its call.

use std::sync::Arc;
use std::time::Duration;

use arca_danger::Bug;
use openraft::LinearizerOption;
use openraft::errors::RaftError;
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::shared::{Metrics, Shared, leader_of, stopped};
use super::wire::{ReadReply, parse};
use crate::{Call, Member, ReplicaError};

/// Waiting callers; more are held back.
const QUEUE: usize = 64 << 10;
/// Pause before asking again when nobody could answer, unless roles change before.
const RETRY: Duration = Duration::from_millis(20);

type Waiter = oneshot::Sender<Result<u64, String>>;

/// Where callers wait.
#[derive(Debug)]
pub(super) struct ReadBarrier {
    waiters: mpsc::Sender<Waiter>,
    /// Why the last question had no answer.
    trouble: Arc<Mutex<String>>,
}

impl ReadBarrier {
    pub(super) fn new() -> (Self, Asker) {
        let (waiters, rx) = mpsc::channel(QUEUE);
        let trouble = Arc::new(Mutex::new("no leader is known".to_owned()));
        (Self { waiters, trouble: trouble.clone() }, Asker { rx, trouble })
    }

    /// Waits until this member has applied everything committed before the call.
    pub(super) async fn wait(&self, shared: &Shared) -> Result<u64, ReplicaError> {
        let limit = shared.config.timings.read;
        let deadline = Instant::now() + limit;
        if let Some(index) = leased(shared) {
            return shared.await_applied(index, limit).await;
        }
        if arca_danger::is(Bug::FollowerReadsLocally) && !shared.metrics(leads) {
            return Ok(shared.state.view().meta().index);
        }
        let ended = || ReplicaError::Stopped("the read barrier ended".to_owned());
        let asked = async {
            let (tx, rx) = oneshot::channel();
            self.waiters.send(tx).await.map_err(|_| ended())?;
            rx.await.map_err(|_| ended())?.map_err(ReplicaError::Stopped)
        };
        let index = timeout(limit, asked).await;
        let index = index.map_err(|_| ReplicaError::NoLeader(self.trouble.lock().clone()))??;
        let index = index - u64::from(arca_danger::is(Bug::ReadIndexOneShort));
        shared.await_applied(index, deadline.saturating_duration_since(Instant::now())).await
    }
}

/// Asks on behalf of all who wait.
pub(super) struct Asker {
    rx: mpsc::Receiver<Waiter>,
    trouble: Arc<Mutex<String>>,
}

impl Asker {
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        let mut server = shared.raft.server_metrics();
        let mut waiters = Vec::new();
        loop {
            if waiters.is_empty() && self.rx.recv_many(&mut waiters, QUEUE).await == 0 {
                return;
            }
            // Whoever is about to come may share the question, for it is asked only then: many answers ask at once again.
            tokio::task::yield_now().await;
            while let Ok(waiter) = self.rx.try_recv() {
                waiters.push(waiter);
            }
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.is_empty() {
                continue;
            }
            server.borrow_and_update();
            let asked = ask(&shared).await;
            while arca_danger::is(Bug::ReadIndexJoinedLate)
                && let Ok(waiter) = self.rx.try_recv()
            {
                waiters.push(waiter);
            }
            match asked {
                Ok(index) => answer(&mut waiters, &Ok(index)),
                Err(ReplicaError::Stopped(reason)) => answer(&mut waiters, &Err(reason)),
                Err(err) => {
                    *self.trouble.lock() = err.to_string();
                    match timeout(RETRY, server.changed()).await {
                        Ok(Ok(())) | Err(_) => {}
                        // openraft has ended, and what it said last will stay: waiting for news would not wait.
                        Ok(Err(_)) => answer(&mut waiters, &Err("openraft ended".to_owned())),
                    }
                }
            }
        }
    }
}

fn answer(waiters: &mut Vec<Waiter>, result: &Result<u64, String>) {
    for waiter in waiters.drain(..) {
        // Gone meanwhile.
        let _ = waiter.send(result.clone());
    }
}

/// Whether this member believes that it leads.
/// Whether this member leads and may say so. One that has put itself out, or is a voter no more, still brings the change to
/// the others; but openraft then hands leadership over by itself, whatever lease there is.
fn leads(metrics: &Metrics) -> bool {
    let voters = metrics.membership_config.get_joint_config();
    metrics.state == ServerState::Leader && voters.iter().any(|voters| voters.contains(&metrics.id))
}

async fn ask(shared: &Shared) -> Result<u64, ReplicaError> {
    let (is_leader, leader) = shared.metrics(|metrics| (leads(metrics), leader_of(metrics)));
    if is_leader && let Some(index) = confirm(shared).await? {
        return Ok(index);
    }
    match leader {
        Some(leader) if leader.id != shared.me() => ask_leader(shared, &leader).await,
        Some(_) => Err(ReplicaError::NoLeader("no quorum confirms this leader".to_owned())),
        None => Err(ReplicaError::NoLeader("no leader is known".to_owned())),
    }
}

async fn ask_leader(shared: &Shared, leader: &Member) -> Result<u64, ReplicaError> {
    let no_leader = |reason: String| ReplicaError::NoLeader(format!("member {}: {reason}", leader.id));
    let question = shared.envelope(leader.id).open().into();
    let limit = shared.config.timings.election_max * 2;
    let reply = shared.transport.call(leader, Call::ReadIndex, question, limit).await;
    let reply = reply.map_err(|err| no_leader(err.to_string()))?;
    match parse(&reply).map_err(|err| no_leader(err.to_string()))? {
        ReadReply::Index(index) => Ok(index),
        ReadReply::NotLeader => Err(no_leader("does not lead, or has no quorum".to_owned())),
    }
}

/// As leader within its lease: the index that a read which starts now must see. Whatever was acknowledged in this term
/// was applied here first, what was committed in earlier terms lies below this term's first entry, and what others may
/// show before it is applied here is what they were told is committed.
///
/// The lease is openraft's, read from its figures instead of asked of its task: while a quorum's answer is younger
/// than the lease, no other member is elected, unless this one hands leadership over; then the lease no longer counts.
pub(super) fn leased(shared: &Shared) -> Option<u64> {
    let lease = shared.config.timings.lease_for_reads();
    // Taken first: the figures must be at least as new as what is shown.
    let applied = shared.state.view().meta().index;
    let is_leased = shared.metrics(|metrics| {
        let acked = metrics.last_quorum_acked.map(|acked| acked.into_inner().elapsed());
        let is_young = |age| age < lease || arca_danger::is(Bug::LeaseNeverEnds);
        let applied_term = metrics.last_applied.map(|id| id.committed_leader_id().term);
        leads(metrics)
            && acked.is_some_and(is_young)
            && (applied_term == Some(metrics.current_term) || arca_danger::is(Bug::NewLeaderReadsEarly))
            && (!shared.gate.is_handed_over(metrics.current_term)
                || arca_danger::is(Bug::LeaseOutlivesHandOver))
    });
    let told = if arca_danger::is(Bug::ToldCommitIgnored) { 0 } else { shared.gate.told_commit() };
    is_leased.then(|| applied.max(told))
}

/// As leader: the index that a read which starts now must see. `None` when this member does not lead, or no quorum
/// says so in time.
///
/// openraft answers with the later of its commit and the first entry of its term, so a new leader whose commit is
/// still unknown to it is covered.
pub(super) async fn confirm(shared: &Shared) -> Result<Option<u64>, ReplicaError> {
    if let Some(index) = leased(shared) {
        return Ok(Some(index));
    }
    if !shared.metrics(leads) {
        return Ok(None);
    }
    if arca_danger::is(Bug::ReadIndexUnconfirmed) && shared.metrics(leads) {
        return Ok(Some(shared.state.view().meta().index));
    }
    let timings = &shared.config.timings;
    let option =
        LinearizerOption::new(Some(timings.lease_for_reads()), true).with_wait_timeout(timings.election_max);
    match shared.raft.get_read_linearizer(option).await {
        Ok(linearizer) => Ok(Some(linearizer.read_log_id().index())),
        Err(RaftError::APIError(_)) => Ok(None),
        Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
    }
}
