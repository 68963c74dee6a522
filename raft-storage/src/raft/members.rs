//! Who belongs to the cluster and who leads it: operations of an operator, one at a time.
//!
//! Voters change by joint consensus. **Invariants:** an id is the log index of an entry made for nothing else, so it is
//! never given out twice, not even to a member that was removed and comes back; and no membership lies between that
//! entry and the one that adds the member. So whoever is not in a membership behind its id was removed, or never in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{Instant as _, ServerState};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::shared::{Metrics, Shared, stopped};
use crate::command::{Command, Purpose};
use crate::types::{LogId, StoredMembership, TypeConfig};
use crate::{Member, MemberId, MemberKind, Membership, Progress, ReplicaError};

type Changed = Result<ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

/// The id of whoever founds a cluster: the only one that was not reserved.
const FIRST: MemberId = MemberId(1);

/// How often a leader looks whether an earlier one left a change half-way.
const FINISH_PERIOD: Duration = Duration::from_secs(1);

/// The membership in the words of this crate.
pub(super) fn membership_of(stored: &StoredMembership) -> Membership {
    let voters: BTreeSet<u64> = stored.voter_ids().collect();
    let kind = |id: &u64| if voters.contains(id) { MemberKind::Voter } else { MemberKind::Learner };
    let members = stored.nodes().map(|(id, member)| (MemberId(*id), (member.clone(), kind(id)))).collect();
    Membership { index: stored.log_id().map_or(0, |log_id| log_id.index), members }
}

fn refused(reason: impl Into<String>) -> ReplicaError {
    ReplicaError::Membership(reason.into())
}

/// As leader, finishes what was left half-way, by a leader that was lost or by this one while too few members answered. It
/// may be long until somebody asks for the next change: until then the loss of fewer members than a minority could stop
/// the cluster, or its leader is a voter no more, whom no read may trust.
pub(super) async fn finish_changes(shared: Arc<Shared>) {
    let mut ticks = interval(FINISH_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !shared.is_half_way() {
            continue;
        }
        // Whoever holds it is changing members, and finishes that.
        let Ok(_one) = shared.changing.try_lock() else { continue };
        match timeout(shared.config.timings.membership, shared.see_through()).await {
            Ok(Ok(())) => tracing::info!("finished a change of members that was left half-way"),
            Ok(Err(err)) => tracing::warn!(%err, "a change of members is left half-way"),
            Err(_) => tracing::warn!("a change of members is left half-way: too few members answer"),
        }
    }
}

impl Shared {
    pub(super) fn membership(&self) -> Membership {
        self.metrics(|metrics| membership_of(&metrics.membership_config))
    }

    /// How far the others are, as this member knows while it leads.
    pub(super) fn progress(&self) -> BTreeMap<MemberId, Progress> {
        self.metrics(|metrics| {
            let (Some(replication), Some(heartbeat)) = (&metrics.replication, &metrics.heartbeat) else {
                return BTreeMap::new();
            };
            let of = |(id, matched): (&u64, &Option<LogId>)| {
                let acked = heartbeat.get(id).copied().flatten();
                let progress = Progress {
                    term: matched.as_ref().map_or(0, |log_id| log_id.leader_id.term),
                    index: matched.as_ref().map_or(0, |log_id| log_id.index),
                    contact_age: acked.map(|acked| acked.into_inner().elapsed()),
                };
                (MemberId(*id), progress)
            };
            replication.iter().map(of).collect()
        })
    }

    fn kind_of(&self, id: MemberId) -> Option<MemberKind> {
        self.membership().members.get(&id).map(|(_, kind)| *kind)
    }

    fn require_leader(&self) -> Result<(), ReplicaError> {
        let (is_leader, leader) =
            self.metrics(|metrics| (metrics.state == ServerState::Leader, metrics.current_leader));
        match (is_leader, leader) {
            (true, _) => Ok(()),
            (false, Some(leader)) => {
                Err(ReplicaError::NoLeader(format!("member {leader} leads, not this one")))
            }
            (false, None) => Err(ReplicaError::NoLeader("no leader is known".to_owned())),
        }
    }

    pub(super) async fn reserve_member_id(&self) -> Result<MemberId, ReplicaError> {
        let (index, _) = self.command(&Command::Reserve(Purpose::MemberId)).await?;
        Ok(MemberId(index))
    }

    /// Reserves an id and adds a learner of that id, with no other change in between.
    pub(super) async fn admit(self: Arc<Self>, member: Member) -> Result<MemberId, ReplicaError> {
        let _one = self.changing.lock().await;
        self.require_leader()?;
        let id = self.reserve_member_id().await?;
        let node = BTreeMap::from([(id.0, Member { id, ..member })]);
        self.change(ChangeMembers::AddNodes(node), Removed::Stay).await?;
        Ok(id)
    }

    pub(super) async fn add_learner(self: Arc<Self>, member: Member) -> Result<(), ReplicaError> {
        let _one = self.changing.lock().await;
        self.require_leader()?;
        if member.id.0 == 0 || member.id.0 > self.state.view().meta().index {
            return Err(refused(format!("member id {} was never reserved in this cluster", member.id)));
        }
        let membership = self.membership();
        let known = membership.members.get(&member.id);
        if member.id == FIRST && known.is_none() {
            return Err(refused("the first member was removed, and its id is never used again"));
        }
        if known.is_none() && member.id.0 <= membership.index {
            let id = member.id;
            return Err(refused(format!(
                "member id {id} is older than the newest membership: reserve another"
            )));
        }
        let node = BTreeMap::from([(member.id.0, member.clone())]);
        match known {
            Some((known, _)) if *known == member => Ok(()),
            // Another address or name. A message that reaches the wrong member is refused there.
            Some(_) => self.change(ChangeMembers::SetNodes(node), Removed::Stay).await,
            None => self.change(ChangeMembers::AddNodes(node), Removed::Stay).await,
        }
    }

    pub(super) async fn promote(self: Arc<Self>, id: MemberId) -> Result<(), ReplicaError> {
        self.require_leader()?;
        let limit = self.config.timings.promote;
        // Before its turn: a learner that does not catch up must not keep other changes and a hand-over waiting.
        let readiness = |metrics: &Metrics| self.readiness(metrics, id);
        self.metrics_until(limit, "the learner to catch up", readiness).await??;
        let _one = self.changing.lock().await;
        self.require_leader()?;
        match self.kind_of(id) {
            None => return Err(refused(format!("member {id} is unknown"))),
            // It counts for both majorities of a change that was left half-way, but is not yet enough without the other.
            Some(MemberKind::Voter) => return self.finish_change().await,
            Some(MemberKind::Learner) => {}
        }
        if self.metrics(readiness).is_none() {
            return Err(refused(format!("member {id} has fallen behind again")));
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id.0])), Removed::Stay).await
    }

    /// Whether the learner `id` has caught up, once that is known, or why there is no waiting for it any more.
    fn readiness(&self, metrics: &Metrics, id: MemberId) -> Option<Result<(), ReplicaError>> {
        if metrics.state != ServerState::Leader {
            return Some(Err(ReplicaError::NoLeader("leadership was lost".to_owned())));
        }
        let membership = &metrics.membership_config;
        if membership.get_node(&id.0).is_none() {
            return Some(Err(refused(format!("member {id} is unknown"))));
        }
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&id.0).copied().flatten());
        let last = metrics.last_log_index.unwrap_or(0);
        let has_caught_up =
            matched.is_some_and(|matched| matched.index + self.config.limits.promote_lag >= last);
        let is_voter = membership.voter_ids().any(|voter| voter == id.0);
        (has_caught_up || is_voter).then_some(Ok(()))
    }

    pub(super) async fn demote(self: Arc<Self>, id: MemberId) -> Result<(), ReplicaError> {
        self.drop_voter(id, Removed::Stay).await
    }

    pub(super) async fn remove(self: Arc<Self>, id: MemberId) -> Result<(), ReplicaError> {
        if self.kind_of(id) != Some(MemberKind::Learner) {
            return self.drop_voter(id, Removed::Go).await;
        }
        let _one = self.changing.lock().await;
        self.require_leader()?;
        self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0])), Removed::Go).await
    }

    /// A leader that drops itself still sees the change through; then another takes over, before this returns.
    async fn drop_voter(self: Arc<Self>, id: MemberId, removed: Removed) -> Result<(), ReplicaError> {
        let _one = self.changing.lock().await;
        self.require_leader()?;
        match self.kind_of(id) {
            None => return Err(refused(format!("member {id} is unknown"))),
            Some(MemberKind::Learner) => return self.finish_change().await,
            Some(MemberKind::Voter) => {}
        }
        let voters =
            self.membership().members.values().filter(|(_, kind)| *kind == MemberKind::Voter).count();
        if voters <= 1 {
            return Err(refused(format!("member {id} is the last voter")));
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id.0])), removed).await?;
        if id == self.me() { self.hand_over(None).await } else { Ok(()) }
    }

    /// Sees one change through, in a task of its own: a caller that goes away must not leave it half done.
    async fn change(
        self: &Arc<Self>,
        change: ChangeMembers<u64, Member>,
        removed: Removed,
    ) -> Result<(), ReplicaError> {
        let shared = self.clone();
        let retain = removed == Removed::Stay;
        let work = tokio::spawn(async move {
            shared.finish_change().await?;
            shared.settle(shared.raft.change_membership(change, retain).await).await
        });
        match timeout(self.config.timings.membership, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(err)) => Err(ReplicaError::Stopped(err.to_string())),
            Err(_) => Err(ReplicaError::Timeout("a membership change to be committed")),
        }
    }

    /// A leader that was lost half-way through a change leaves a joint membership behind, which takes the majorities of both:
    /// this goes on to the new one alone. Who was to be put out stays as a learner.
    async fn finish_change(&self) -> Result<(), ReplicaError> {
        if !self.is_joint() {
            return Ok(());
        }
        let nothing = ChangeMembers::AddVoterIds(BTreeSet::new());
        self.settle(self.raft.change_membership(nothing, true).await).await
    }

    /// Whether this member leads and a change is not through: two majorities are needed, or the leader has put itself out.
    fn is_half_way(&self) -> bool {
        self.require_leader().is_ok()
            && (self.is_joint() || self.kind_of(self.me()) != Some(MemberKind::Voter))
    }

    /// Finishes a change, and hands leadership over if it took this member's vote.
    async fn see_through(&self) -> Result<(), ReplicaError> {
        self.finish_change().await?;
        if self.kind_of(self.me()) == Some(MemberKind::Voter) { Ok(()) } else { self.hand_over(None).await }
    }

    fn is_joint(&self) -> bool {
        self.metrics(|metrics| metrics.membership_config.get_joint_config().len() > 1)
    }

    /// A change is answered by the state machine, perhaps before the metrics tell of it: whoever asks next shall
    /// find it there.
    async fn settle(&self, changed: Changed) -> Result<(), ReplicaError> {
        match changed {
            Ok(done) => {
                let index = done.log_id.index;
                let is_shown = |metrics: &Metrics| {
                    let shown = metrics.membership_config.log_id().map_or(0, |log_id| log_id.index);
                    (shown >= index).then_some(())
                };
                let limit = self.config.timings.membership;
                self.metrics_until(limit, "a membership change to be shown", is_shown).await
            }
            Err(RaftError::APIError(
                err @ (ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_)),
            )) => Err(ReplicaError::NoLeader(err.to_string())),
            Err(RaftError::APIError(err)) => Err(refused(err.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    /// Hands leadership over, if this member has it.
    pub(super) async fn transfer(&self, to: Option<MemberId>) -> Result<(), ReplicaError> {
        let _one = self.changing.lock().await;
        self.require_leader()?;
        if to == Some(self.me()) { Ok(()) } else { self.hand_over(to).await }
    }

    async fn hand_over(&self, to: Option<MemberId>) -> Result<(), ReplicaError> {
        let me = self.me().0;
        let to = self.metrics(|metrics| match to {
            Some(to) if metrics.membership_config.voter_ids().any(|id| id == to.0) => Ok(to.0),
            Some(to) => Err(refused(format!("member {to} is not a voter"))),
            None => self.successor(metrics).ok_or_else(|| refused("no other voter answers")),
        })?;
        let limit = self.config.timings.transfer;
        let is_close = |metrics: &Metrics| {
            let matched = metrics.replication.as_ref()?.get(&to).copied().flatten()?;
            (matched.index + self.config.limits.promote_lag >= metrics.last_log_index.unwrap_or(0))
                .then_some(())
        };
        self.metrics_until(limit, "the next leader to catch up", is_close).await?;
        self.gate.hand_over(self.metrics(|metrics| metrics.current_term));
        self.raft.trigger().transfer_leader(to).await.map_err(|fatal| stopped(&fatal))?;
        // One that was removed does not hear from its successor; it is enough that it does not lead any more.
        let is_over = |metrics: &Metrics| {
            let is_member = metrics.membership_config.get_node(&me).is_some();
            let is_led = metrics.current_leader.is_some_and(|leader| leader != me) || !is_member;
            (metrics.state != ServerState::Leader && is_led).then_some(())
        };
        self.metrics_until(limit, "another member to take over", is_over).await
    }

    /// The voter with the most log, among those that answered within a lease.
    fn successor(&self, metrics: &Metrics) -> Option<u64> {
        let (replication, heartbeat) = (metrics.replication.as_ref()?, metrics.heartbeat.as_ref()?);
        let lease = self.config.timings.lease();
        let answers = |id: &u64| {
            let acked = heartbeat.get(id).copied().flatten();
            acked.is_some_and(|acked| acked.into_inner().elapsed() <= lease)
        };
        let others = metrics.membership_config.voter_ids().filter(|id| *id != self.me().0);
        others.filter(answers).max_by_key(|id| replication.get(id).copied().flatten())
    }
}

/// What becomes of a voter that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removed {
    /// It is forgotten.
    Go,
    /// It stays as a learner.
    Stay,
}
