//! Faults, one after another, as the plan allows them. At most a minority is down or cut off at a time: what a cluster
//! may then still not do is lose what it acknowledged.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::time::Duration;

use arca_jepsen::dice::Dice;
use arca_raft_storage::testing::Operation;
use arca_raft_storage::{MemberId, Replica as _};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::plan::Fault;
use crate::run::Failure;

/// What is wrong right now, and when the next thing happens.
#[derive(Debug)]
pub struct Chaos {
    dice: Dice,
    next: Instant,
    /// Machines without power, and when it comes back.
    down: Vec<(MemberId, Instant)>,
    /// When cut links are whole again.
    healed: Option<Instant>,
    /// Members on the wrong side of a cut.
    away: BTreeSet<MemberId>,
    /// What was done, for the report.
    pub done: Vec<(Fault, u64)>,
}

impl Chaos {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let dice = Dice::for_purpose(seed, "chaos");
        let done = Fault::ALL.map(|fault| (fault, 0)).to_vec();
        Self { dice, next: Instant::now(), down: Vec::new(), healed: None, away: BTreeSet::new(), done }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When a machine cannot be started again.
    pub async fn step(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        self.repair(cluster, Instant::now()).await?;
        self.bury(cluster);
        if Instant::now() < self.next {
            return Ok(());
        }
        let plan = &cluster.shared.plan;
        let (shortest, longest) = plan.pause;
        self.next = Instant::now() + self.dice.span(shortest, longest);
        if let Some(fault) = self.dice.pick(&plan.faults).copied() {
            self.strike(cluster, fault).await;
        }
        Ok(())
    }

    /// Ends everything that is wrong.
    ///
    /// # Errors
    /// When a machine cannot be started again.
    pub async fn heal(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        cluster.shared.net.heal();
        cluster.shared.net.clear_up();
        self.away.clear();
        self.healed = None;
        for (id, _) in std::mem::take(&mut self.down) {
            cluster.start(id).await?;
        }
        for machine in cluster.machines.values() {
            machine.clock.set_right();
        }
        Ok(())
    }

    /// After everything was healed: processes that stopped for good on a fault of their disk are started anew.
    ///
    /// # Errors
    /// When a machine cannot be started again.
    pub async fn revive(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        self.bury(cluster);
        for (id, _) in std::mem::take(&mut self.down) {
            cluster.start(id).await?;
        }
        Ok(())
    }

    async fn repair(&mut self, cluster: &mut Cluster, now: Instant) -> Result<(), Failure> {
        if self.healed.is_some_and(|at| at <= now) {
            cluster.shared.net.heal();
            self.away.clear();
            self.healed = None;
        }
        while let Some(at) = self.down.iter().position(|(_, at)| *at <= now) {
            let (id, _) = self.down.swap_remove(at);
            cluster.start(id).await?;
        }
        Ok(())
    }

    /// A process that stopped for good has ended: a node exits then, and is started again.
    fn bury(&mut self, cluster: &mut Cluster) {
        let dead: Vec<MemberId> = cluster
            .machines
            .values()
            .filter(|machine| {
                machine.process.as_ref().is_some_and(|process| process.replica.status().fatal.is_some())
            })
            .map(|machine| machine.id)
            .collect();
        for id in dead {
            self.power_off(cluster, id);
        }
    }

    fn power_off(&mut self, cluster: &mut Cluster, id: MemberId) {
        let Some(machine) = cluster.machines.get_mut(&id) else { return };
        if machine.process.is_none() {
            return;
        }
        cluster.shared.trace.note(format_args!("crash {id}"), &[]);
        machine.crash();
        let back = self.dice.span(Duration::from_millis(20), Duration::from_secs(8));
        self.down.push((id, Instant::now() + back));
    }

    /// Members that may be taken out without taking the majority.
    fn spare(&self, cluster: &Cluster) -> usize {
        let out: BTreeSet<MemberId> =
            self.down.iter().map(|(id, _)| *id).chain(self.away.iter().copied()).collect();
        (cluster.machines.len() - 1) / 2 - out.len().min((cluster.machines.len() - 1) / 2)
    }

    async fn strike(&mut self, cluster: &mut Cluster, fault: Fault) {
        let running: Vec<MemberId> = cluster
            .machines
            .values()
            .filter(|machine| machine.process.is_some() && !self.away.contains(&machine.id))
            .map(|machine| machine.id)
            .collect();
        let Some(id) = self.dice.pick(&running).copied() else { return };
        let has_struck = match fault {
            Fault::Clock => self.set_clock(cluster, id),
            Fault::Crash if self.spare(cluster) > 0 => {
                self.power_off(cluster, id);
                true
            }
            Fault::Disk if self.spare(cluster) > 0 => self.fail_disk(cluster, id),
            Fault::HandOver => hand_over(cluster).await,
            Fault::OneWay => self.cut_one_way(cluster, id),
            Fault::Partition => self.cut_off(cluster, &running),
            Fault::Crash | Fault::Disk => false,
        };
        if has_struck {
            cluster.shared.trace.note(format_args!("fault {fault:?} {id}"), &[]);
            self.done.iter_mut().filter(|(class, _)| *class == fault).for_each(|(_, count)| *count += 1);
        }
    }

    fn set_clock(&mut self, cluster: &Cluster, id: MemberId) -> bool {
        let Some(machine) = cluster.machines.get(&id) else { return false };
        let by = i64::try_from(self.dice.within(0..120_000)).unwrap_or_default() - 60_000;
        machine.clock.set_by(by);
        true
    }

    fn fail_disk(&mut self, cluster: &Cluster, id: MemberId) -> bool {
        let Some(machine) = cluster.machines.get(&id) else { return false };
        let operation = if self.dice.chance(50) { Operation::Sync } else { Operation::Write };
        let kind = if self.dice.chance(50) { ErrorKind::StorageFull } else { ErrorKind::Other };
        machine.vfs.fail_nth(operation, self.dice.within(1..6), kind);
        true
    }

    fn cut_one_way(&mut self, cluster: &Cluster, from: MemberId) -> bool {
        let others: Vec<MemberId> = cluster.machines.keys().copied().filter(|id| *id != from).collect();
        let Some(to) = self.dice.pick(&others).copied() else { return false };
        cluster.shared.net.cut(from, to);
        self.heal_later();
        true
    }

    fn cut_off(&mut self, cluster: &Cluster, running: &[MemberId]) -> bool {
        let most = self.spare(cluster);
        if most == 0 {
            return false;
        }
        let count = self.dice.within(1..most as u64 + 1);
        for _ in 0..count {
            if let Some(id) = self.dice.pick(running).copied() {
                self.away.insert(id);
            }
        }
        for id in &self.away {
            for other in cluster.machines.keys().filter(|other| !self.away.contains(other)) {
                cluster.shared.net.cut(*id, *other);
                cluster.shared.net.cut(*other, *id);
            }
        }
        self.heal_later();
        true
    }

    fn heal_later(&mut self) {
        let at = Instant::now() + self.dice.span(Duration::from_millis(100), Duration::from_secs(10));
        self.healed = Some(self.healed.map_or(at, |healed| healed.max(at)));
    }
}

/// Asks whoever leads to let another do so, without waiting for it.
async fn hand_over(cluster: &Cluster) -> bool {
    let leaders = cluster.statuses().into_iter();
    let mut leaders = leaders.filter(|(_, status)| status.role == arca_raft_storage::Role::Leader);
    let Some((leader, _)) = leaders.next() else { return false };
    tokio::spawn(async move {
        // Whether it succeeds is no matter: that nothing is lost by it is.
        let _ = leader.transfer_leadership(None).await;
    });
    true
}
