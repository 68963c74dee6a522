//! Two members that may each be elected, and a third that both of them need: it loses its power in between, for so short a
//! time that nobody else notices, and may have forgotten what it promised the first when the second asks.
//!
//! With more than three members each of the two has as many others on its side as leave neither a majority without
//! the third.

use std::time::Duration;

use arca_raft_storage::{MemberId, Replica as _};
use tokio::time::Instant;

use super::Chaos;
use crate::cluster::Cluster;

/// The syncs of a disk on which a promise is not to become durable before the power goes.
const SLOW_SYNC: Duration = Duration::from_millis(200);

/// What the third member may forget.
#[derive(Clone, Copy, Debug)]
enum Promise {
    /// That it elects nobody during the leader's lease: the other campaigns as it comes back.
    Lease,
    /// The same, and the other campaigns when it does so by itself.
    LeaseByChance,
    /// Its vote for the other: it follows the old leader again, as if that one had no successor.
    Vote,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The sides no longer hear of each other. Nobody is elected before the lease has ended.
    Apart,
    /// The rival has asked for a vote that is not durable yet.
    Asked,
    /// The witness is down for a moment.
    Down,
}

/// See the file's header.
#[derive(Debug)]
pub(super) struct Ambush {
    leader_side: Vec<MemberId>,
    rival_side: Vec<MemberId>,
    rival: MemberId,
    witness: MemberId,
    promise: Promise,
    stage: Stage,
    /// When the next stage is due, at the earliest.
    at: Instant,
}

impl Chaos {
    /// Divides the cluster; what follows, [`Self::spring`] does. Only while nobody else is out.
    pub(super) fn ambush(&mut self, cluster: &Cluster, running: &[MemberId]) -> bool {
        let Some(leader) = cluster.shared.directory.leader().map(|leader| leader.status().id) else {
            return false;
        };
        let side = (cluster.shared.plan.members - 1) / 2;
        let mut others: Vec<MemberId> = running.iter().copied().filter(|id| *id != leader).collect();
        if others.len() < 2 * side || self.spare(cluster) < side {
            return false;
        }
        self.dice.shuffle(&mut others);
        let mut others = others.into_iter();
        let (Some(witness), Some(rival)) = (others.next(), others.next()) else { return false };
        let mut rival_side = vec![rival];
        rival_side.extend(others.by_ref().take(side - 1));
        let mut leader_side = vec![leader];
        leader_side.extend(others);
        let promise = match self.dice.within(0..5) {
            0 | 1 => Promise::Lease,
            2 => Promise::LeaseByChance,
            _ => Promise::Vote,
        };
        cut(cluster, &leader_side, &rival_side);
        // Who has lost its leader campaigns a lease and an election timeout later, and is not elected before the lease ends.
        let wait = match promise {
            Promise::Lease | Promise::LeaseByChance => self.dice.millis(500..1_000),
            Promise::Vote => {
                cut(cluster, &leader_side, &[witness]);
                self.dice.millis(420..640)
            }
        };
        self.away.extend(&rival_side);
        let now = Instant::now();
        self.healed = Some(now + Duration::from_secs(3));
        let (stage, at) = (Stage::Apart, now + wait);
        self.ambushed = Some(Ambush { leader_side, rival_side, rival, witness, promise, stage, at });
        true
    }

    /// Goes on with an ambush, if that is due.
    pub(super) fn spring(&mut self, cluster: &mut Cluster, now: Instant) {
        let Some(mut ambush) = self.ambushed.take_if(|ambush| ambush.at <= now) else { return };
        match (ambush.stage, ambush.promise) {
            (Stage::Apart, Promise::Vote) => {
                if let Some(machine) = cluster.machines.get(&ambush.witness) {
                    machine.vfs.slow_syncs(SLOW_SYNC);
                }
                campaign(cluster, ambush.rival);
                ambush.stage = Stage::Asked;
                ambush.at = now + self.dice.millis(10..60);
            }
            (Stage::Apart, promise) => {
                cut(cluster, &ambush.leader_side, &[ambush.witness]);
                let back = self.dice.millis(20..60);
                self.power_off(cluster, ambush.witness, back);
                if matches!(promise, Promise::LeaseByChance) {
                    return;
                }
                ambush.stage = Stage::Down;
            }
            (Stage::Asked, _) => {
                let back = self.dice.millis(20..60);
                self.power_off(cluster, ambush.witness, back);
                cluster.shared.net.heal();
                cut(cluster, &ambush.rival_side, &ambush.leader_side);
                cut(cluster, &ambush.rival_side, &[ambush.witness]);
                // A leader that hears nobody gives up after another lease and election timeout.
                self.healed = Some(now + self.dice.millis(300..900));
                return;
            }
            (Stage::Down, _) => {
                let is_up =
                    cluster.machines.get(&ambush.witness).is_some_and(|machine| machine.process.is_some());
                if is_up {
                    campaign(cluster, ambush.rival);
                    return;
                }
            }
        }
        self.ambushed = Some(ambush);
    }
}

/// Nothing passes between one side and the other.
fn cut(cluster: &Cluster, one: &[MemberId], other: &[MemberId]) {
    for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
        cluster.shared.net.cut(a, b);
        cluster.shared.net.cut(b, a);
    }
}

fn campaign(cluster: &Cluster, rival: MemberId) {
    let Some(process) = cluster.machines.get(&rival).and_then(|machine| machine.process.as_ref()) else {
        return;
    };
    cluster.shared.trace.say(format_args!("member {rival} campaigns"));
    let replica = process.replica.clone();
    // One that has ended meanwhile does not campaign.
    tokio::spawn(async move { replica.campaign().await.is_ok() });
}
