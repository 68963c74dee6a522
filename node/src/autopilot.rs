//! The members' health as the active node sees it, and the removal of those that are dead, if the operators want it.
//!
//! What is known of each member comes from Raft (how far it is, when it last answered) and from asking it (its
//! version). [`to_remove`] decides; nothing else here removes anybody. **Invariant:** no removal leaves fewer voters
//! than `min_quorum`, and none happens while the voters that are left are not a majority of healthy ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arca_engine_api::{Map, UnixMillis};
use arca_kernel::KernelError;
use arca_kernel::autopilot::{AutopilotSettings, go_duration};
use arca_raft_storage::{Member, MemberId, MemberKind, Replica as _, Role};
use arca_rpc::PeerFacts;
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::join::{mark_learner, stays_learner};
use crate::node::VERSION;

/// How often the active node looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Longest wait for a peer's facts.
const ECHO_TIMEOUT: Duration = Duration::from_secs(1);
/// How the names of the gauges here begin.
const GAUGES: &str = "vault.autopilot.";
/// Most peers asked at once.
const ASKED_AT_ONCE: usize = 16;

/// What this node remembers of a member while it is active.
#[derive(Clone, Debug, Default)]
struct Remembered {
    /// On the monotonic clock: when this node first looked, or last heard of it.
    heard: Duration,
    version: String,
    is_healthy: bool,
    stable_since: UnixMillis,
}

/// What is remembered of all of them; empty on a standby.
#[derive(Debug, Default)]
pub(crate) struct Autopilot {
    remembered: parking_lot::Mutex<BTreeMap<MemberId, Remembered>>,
}

/// One member, as seen now.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) member: Member,
    pub(crate) kind: MemberKind,
    /// It is to stay a learner.
    pub(crate) never_votes: bool,
    pub(crate) is_leader: bool,
    /// Since it last answered.
    pub(crate) silence: Duration,
    pub(crate) term: u64,
    pub(crate) index: u64,
    pub(crate) is_healthy: bool,
    pub(crate) stable_since: UnixMillis,
    pub(crate) version: String,
}

impl Seen {
    fn is_voter(&self) -> bool {
        self.kind == MemberKind::Voter
    }
}

/// Whether a member is as it should be, in the eyes of a leader at `(term, index)`.
fn is_healthy(settings: &AutopilotSettings, seen: &Seen, (term, index): (u64, u64)) -> bool {
    seen.is_leader
        || (seen.silence <= settings.contact_max
            && seen.term == term
            && seen.index.saturating_add(settings.lag_max) >= index)
}

/// Failures the cluster survives from here on.
fn failure_tolerance(members: &[Seen]) -> usize {
    let voters = members.iter().filter(|seen| seen.is_voter()).count();
    let healthy = members.iter().filter(|seen| seen.is_voter() && seen.is_healthy).count();
    healthy.saturating_sub(voters / 2 + 1)
}

/// The next member to remove because it is dead, if there is one.
fn to_remove(settings: &AutopilotSettings, members: &[Seen]) -> Option<MemberId> {
    if !settings.cleans_up {
        return None;
    }
    let is_dead = |seen: &&Seen| !seen.is_leader && seen.silence > settings.dead_after;
    if let Some(learner) = members.iter().filter(is_dead).find(|seen| !seen.is_voter()) {
        return Some(learner.member.id);
    }
    let voters = members.iter().filter(|seen| seen.is_voter()).count();
    let healthy = members.iter().filter(|seen| seen.is_voter() && seen.is_healthy).count();
    let left = voters.saturating_sub(1);
    let may_go = u64::try_from(left).unwrap_or(u64::MAX) >= settings.min_quorum && healthy > left / 2;
    members.iter().filter(is_dead).find(|_| may_go).map(|seen| seen.member.id)
}

impl Cluster {
    /// Asks every other member who it is, several at once. Those that do not answer in time are missing.
    pub(crate) async fn ask_peers(&self) -> BTreeMap<MemberId, PeerFacts> {
        let Some(transport) = &self.transport else { return BTreeMap::new() };
        let members = self.replica.membership().members.into_values().map(|(member, _)| member);
        let others = members.filter(|member| member.id != self.me.id);
        let asked = futures::stream::iter(others).map(|member| async move {
            let facts = transport.echo(&member, &self.me.name, ECHO_TIMEOUT).await;
            Some((member.id, facts.ok()?))
        });
        asked.buffer_unordered(ASKED_AT_ONCE).filter_map(|found| async move { found }).collect().await
    }

    /// Looks at every member; for the active node.
    pub(crate) async fn look(&self) -> Result<(AutopilotSettings, Vec<Seen>), KernelError> {
        let facts = self.ask_peers().await;
        let node = self.node()?;
        let (now, wall) = (node.clock.monotonic(), node.now());
        let tx = self.unsealed()?.kernel.read_tx();
        let settings = AutopilotSettings::load(&tx)?;
        let (status, progress) = (self.replica.status(), self.replica.progress());
        let members = self.replica.membership().members;
        let mut remembered = self.autopilot.remembered.lock();
        remembered.retain(|id, _| members.contains_key(id));
        let mut all = Vec::new();
        for (id, (member, kind)) in members {
            let is_leader = id == self.me.id;
            let known =
                remembered.entry(id).or_insert_with(|| Remembered { heard: now, ..Remembered::default() });
            let progress = progress.get(&id).copied().unwrap_or_default();
            if let Some(facts) = facts.get(&id) {
                known.heard = now;
                known.version.clone_from(&facts.version);
            }
            if let Some(age) = progress.contact_age {
                known.heard = known.heard.max(now.saturating_sub(age));
            }
            let mut seen = Seen {
                never_votes: stays_learner(&tx, id).unwrap_or_default(),
                member,
                kind,
                is_leader,
                silence: if is_leader { Duration::ZERO } else { now.saturating_sub(known.heard) },
                term: if is_leader { status.term } else { progress.term },
                index: if is_leader { status.applied_index } else { progress.index },
                is_healthy: false,
                stable_since: UnixMillis::default(),
                version: if is_leader { VERSION.to_owned() } else { known.version.clone() },
            };
            seen.is_healthy = is_healthy(&settings, &seen, (status.term, status.applied_index));
            if known.is_healthy != seen.is_healthy || known.stable_since == UnixMillis::default() {
                (known.is_healthy, known.stable_since) = (seen.is_healthy, wall);
            }
            seen.stable_since = known.stable_since;
            all.push(seen);
        }
        Ok((settings, all))
    }

    /// `sys/storage/raft/autopilot/state`.
    pub(crate) async fn state_as_seen(&self) -> Result<Map, KernelError> {
        let (settings, members) = self.look().await?;
        Ok(report(&settings, &members))
    }

    async fn clean_up(&self, settings: &AutopilotSettings, members: &[Seen]) -> Result<(), KernelError> {
        let Some(id) = to_remove(settings, members) else { return Ok(()) };
        let unsealed = self.unsealed()?;
        let refused = |err: &dyn std::fmt::Display| KernelError::Invalid(err.to_string());
        self.replica.remove(id).await.map_err(|err| refused(&err))?;
        mark_learner(&unsealed, id, false).await.map_err(|err| refused(&err))?;
        tracing::warn!(member = %id, "a dead member was removed: to come back it joins anew with an empty data directory");
        Ok(())
    }
}

fn report(settings: &AutopilotSettings, members: &[Seen]) -> Map {
    let server = |seen: &Seen| {
        json!({
            "id": seen.member.name,
            "name": seen.member.name,
            "address": seen.member.cluster_addr,
            "node_status": if seen.silence <= settings.contact_max { "alive" } else { "failed" },
            "node_type": if seen.never_votes { "non-voter" } else { "voter" },
            "status": match (seen.is_leader, seen.kind) {
                (true, _) => "leader",
                (false, MemberKind::Voter) => "voter",
                (false, MemberKind::Learner) => "non-voter",
            },
            "healthy": seen.is_healthy,
            "last_contact": go_duration(seen.silence),
            "last_term": seen.term,
            "last_index": seen.index,
            "stable_since": arca_kernel::rfc3339::format(seen.stable_since),
            "version": seen.version,
        })
    };
    let names = |is_voter: bool| -> Vec<&str> {
        let wanted = members.iter().filter(|seen| seen.is_voter() == is_voter);
        wanted.map(|seen| seen.member.name.as_str()).collect()
    };
    let servers: Map = members.iter().map(|seen| (seen.member.name.clone(), server(seen))).collect();
    let state = json!({
        "healthy": members.iter().all(|seen| seen.is_healthy),
        "failure_tolerance": failure_tolerance(members),
        "optimistic_failure_tolerance": failure_tolerance(members),
        "servers": servers,
        "leader": members.iter().find(|seen| seen.is_leader).map(|seen| seen.member.name.as_str()).unwrap_or_default(),
        "voters": names(true),
        "non_voters": names(false),
    });
    if let Value::Object(map) = state { map } else { Map::new() }
}

/// Looks now and then while this node is active, so that silence is known from its beginning, and cleans up.
pub(crate) async fn run(cluster: Weak<Cluster>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(cluster) = cluster.upgrade() else { return };
        if let Err(err) = look_and_act(&cluster).await {
            tracing::warn!(error = %err, "the members' health could not be seen to");
        }
    }
}

async fn look_and_act(cluster: &Arc<Cluster>) -> Result<(), KernelError> {
    let Ok(unsealed) = cluster.unsealed() else { return Ok(()) };
    if cluster.replica.status().role != Role::Leader || !unsealed.kernel.is_active() {
        // Whoever leads next begins to count anew: silence towards it is not known here.
        cluster.autopilot.remembered.lock().clear();
        crate::telemetry::forget_gauges(GAUGES);
        return Ok(());
    }
    let (settings, members) = cluster.look().await?;
    // Those of members that are gone must not stay.
    crate::telemetry::forget_gauges(GAUGES);
    metrics::gauge!("vault.autopilot.healthy")
        .set(f64::from(u8::from(members.iter().all(|seen| seen.is_healthy))));
    let tolerance = u32::try_from(failure_tolerance(&members)).unwrap_or(u32::MAX);
    metrics::gauge!("vault.autopilot.failure_tolerance").set(f64::from(tolerance));
    for seen in &members {
        let healthy = f64::from(u8::from(seen.is_healthy));
        metrics::gauge!("vault.autopilot.node.healthy", "node_id" => seen.member.name.clone()).set(healthy);
    }
    cluster.clean_up(&settings, &members).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn settings(cleans_up: bool, min_quorum: u64) -> AutopilotSettings {
        AutopilotSettings { cleans_up, min_quorum, dead_after: HOUR, ..AutopilotSettings::default() }
    }

    /// Member `n` of a cluster whose first one leads at term 5 and index 10 000: `v` votes, `l` does not; a capital
    /// one is dead.
    fn members(kinds: &str) -> Vec<Seen> {
        let one = |(at, kind): (usize, char)| {
            let is_dead = kind.is_ascii_uppercase();
            let silence = if is_dead { HOUR * 2 } else { Duration::from_secs(1) };
            let mut seen = Seen {
                member: Member {
                    id: MemberId(at as u64 + 1),
                    name: format!("n{}", at + 1),
                    ..Member::default()
                },
                kind: if kind.eq_ignore_ascii_case(&'v') { MemberKind::Voter } else { MemberKind::Learner },
                never_votes: kind.eq_ignore_ascii_case(&'l'),
                is_leader: at == 0,
                silence,
                term: 5,
                index: 10_000,
                is_healthy: false,
                stable_since: UnixMillis(0),
                version: "1".to_owned(),
            };
            seen.is_healthy = is_healthy(&settings(false, 0), &seen, (5, 10_000));
            seen
        };
        kinds.chars().enumerate().map(one).collect()
    }

    #[test]
    fn the_dead_go_while_enough_are_left() {
        for (cleans_up, min_quorum, kinds, want) in [
            (false, 3, "vvvV", None),
            (true, 3, "vvv", None),
            (true, 3, "vvV", None), // Three voters, and three are wanted.
            (true, 3, "vvvV", Some(4)),
            (true, 3, "vvvVV", Some(4)),
            (true, 4, "vvvVV", Some(4)),
            (true, 5, "vvvVV", None),
            (true, 3, "vvVVV", None), // No majority that lives: nothing could be decided.
            (true, 5, "vvvvl", None),
            (true, 5, "vvvL", Some(4)), // Who does not vote is missed by no quorum.
            (true, 3, "Vvvv", None),    // The leader hears itself.
        ] {
            let found = to_remove(&settings(cleans_up, min_quorum), &members(kinds));
            assert_eq!(found, want.map(MemberId), "{cleans_up} {min_quorum} {kinds}");
        }
    }

    #[test]
    fn cleaning_up_step_by_step_ends_at_the_smallest_quorum() {
        let mut left = members("vvvvvVV");
        while let Some(id) = to_remove(&settings(true, 6), &left) {
            left.retain(|seen| seen.member.id != id);
        }
        assert_eq!(left.len(), 6);
    }

    #[test]
    fn health_follows_the_thresholds() {
        let settings = AutopilotSettings::default();
        let mut seen = members("vv").remove(1);
        let mut check = |silence: u64, term: u64, index: u64, want: bool| {
            (seen.silence, seen.term, seen.index) = (Duration::from_millis(silence), term, index);
            assert_eq!(is_healthy(&settings, &seen, (5, 10_000)), want, "{silence} {term} {index}");
        };
        check(10_000, 5, 9_000, true);
        check(10_001, 5, 10_000, false);
        check(0, 5, 8_999, false);
        check(0, 4, 10_000, false);
    }

    #[test]
    fn the_report_has_the_shape_clients_know() {
        let state = report(&AutopilotSettings::default(), &members("vvVl"));
        assert_eq!(state["healthy"], false);
        assert_eq!(state["failure_tolerance"], 0);
        assert_eq!((&state["leader"], &state["voters"]), (&json!("n1"), &json!(["n1", "n2", "n3"])));
        assert_eq!(state["non_voters"], json!(["n4"]));
        let dead = &state["servers"]["n3"];
        assert_eq!((&dead["node_status"], &dead["status"]), (&json!("failed"), &json!("voter")));
        assert_eq!((&dead["last_contact"], &dead["healthy"]), (&json!("2h0m0s"), &json!(false)));
        let learner = &state["servers"]["n4"];
        assert_eq!((&learner["node_type"], &learner["status"]), (&json!("non-voter"), &json!("non-voter")));
        assert_eq!(failure_tolerance(&members("vvv")), 1);
        assert_eq!(failure_tolerance(&members("vvvvv")), 2);
        assert_eq!(failure_tolerance(&members("vvvvV")), 1);
    }
}
