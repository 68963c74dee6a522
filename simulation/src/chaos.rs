//! Faults, one after another, as the plan allows them. At most a minority is down or cut off at a time, but for a moment
//! now and then: what a cluster may then still not do is lose what it acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arca_jepsen::dice::Dice;
use arca_raft_storage::testing::Operation;
use arca_raft_storage::{MemberId, Replica as _, Vfs as _};
use tokio::task::JoinHandle;
use tokio::time::Instant;

mod ambush;
mod middle;
mod replace;

use self::ambush::Ambush;
use self::middle::die_midway;
use self::replace::Replacement;
use crate::client::client;
use crate::cluster::Cluster;
use crate::machine::{LOG_DIR, Machine};
use crate::plan::Fault;
use crate::run::Failure;

/// Until a process that did not start is started again.
const START_PAUSE: Duration = Duration::from_millis(500);

/// What is wrong right now, and when the next thing happens.
#[derive(Debug)]
pub struct Chaos {
    seed: u64,
    /// How many faults were due so far, whether they struck or not.
    strikes: u64,
    /// The choices of the newest of them: leaving one out moves those of no other.
    dice: Dice,
    next: Instant,
    /// Machines without power, and when it comes back.
    down: Vec<(MemberId, Instant)>,
    /// Processes that end in order, and how long after it they come back.
    ending: Vec<(MemberId, JoinHandle<()>, Duration)>,
    /// Two that may each be elected by a third.
    ambushed: Option<Ambush>,
    /// A machine whose log is damaged.
    damaged: Option<MemberId>,
    /// A member that another takes the place of.
    replacement: Option<Replacement>,
    /// A disk that has got full, and until when.
    full: Option<(MemberId, Instant)>,
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
        Self {
            seed,
            strikes: 0,
            dice,
            next: Instant::now(),
            down: Vec::new(),
            ending: Vec::new(),
            ambushed: None,
            damaged: None,
            replacement: None,
            full: None,
            healed: None,
            away: BTreeSet::new(),
            done,
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// When a machine cannot be started again.
    pub async fn step(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        self.fell(cluster);
        self.repair(cluster, Instant::now()).await?;
        self.bury(cluster);
        if Instant::now() < self.next {
            return Ok(());
        }
        let plan = &cluster.shared.plan;
        let (shortest, longest) = plan.pause;
        self.strikes += 1;
        self.dice = Dice::for_purpose(self.seed, &format!("strike {}", self.strikes));
        self.next = Instant::now() + self.dice.span(shortest, longest);
        // Few things happen in the middle of another: that is tried more often than other faults.
        let midway = plan.faults.iter().filter(|fault| **fault == Fault::Midway);
        let faults: Vec<Fault> = plan.faults.iter().chain(midway).copied().collect();
        match self.dice.pick(&faults).copied() {
            Some(fault) if !plan.skip.contains(&self.strikes) => self.strike(cluster, fault),
            _ => Ok(()),
        }
    }

    /// How many faults were due.
    #[must_use]
    pub fn strikes(&self) -> u64 {
        self.strikes
    }

    /// Ends everything that is wrong. What takes its time is over when [`Self::is_over`] says so.
    pub fn heal(&mut self, cluster: &mut Cluster) {
        let now = Instant::now();
        self.fell(cluster);
        cluster.shared.midway.end();
        cluster.shared.elsewhere.get_well();
        cluster.shared.net.clear_up();
        self.ambushed = None;
        self.healed = Some(now);
        self.full = self.full.map(|(id, _)| (id, now));
        self.down.iter_mut().for_each(|(_, at)| *at = now);
        for machine in cluster.machines.values() {
            machine.clock.set_right();
        }
    }

    /// After everything was healed: goes on with what takes its time, and starts anew what stopped for good on a fault of
    /// its disk.
    ///
    /// # Errors
    /// When a machine cannot be started again.
    pub async fn revive(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        self.bury(cluster);
        let now = Instant::now();
        self.down.iter_mut().for_each(|(_, at)| *at = now);
        self.repair(cluster, now).await
    }

    /// Whether nothing is wrong any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ambushed.is_none()
            && self.damaged.is_none()
            && self.down.is_empty()
            && self.ending.is_empty()
            && self.replacement.is_none()
    }

    async fn repair(&mut self, cluster: &mut Cluster, now: Instant) -> Result<(), Failure> {
        if self.healed.is_some_and(|at| at <= now) {
            cluster.shared.net.heal();
            cluster.shared.trace.say(format_args!("all links are whole"));
            self.away.clear();
            self.healed = None;
        }
        self.spring(cluster, now);
        if let Some((id, _)) = self.full.filter(|(_, until)| *until <= now) {
            if let Some(machine) = cluster.machines.get(&id) {
                machine.vfs.set_capacity(u64::MAX);
            }
            self.full = None;
        }
        while let Some(at) = self.ending.iter().position(|(_, task, _)| task.is_finished()) {
            let (id, _, pause) = self.ending.swap_remove(at);
            self.down.push((id, now + pause));
        }
        while let Some(at) = self.down.iter().position(|(_, at)| *at <= now) {
            let (id, _) = self.down.swap_remove(at);
            let started = cluster.start(id).await;
            if started.is_err() && self.full.is_some_and(|(full, _)| full == id) {
                self.try_later(cluster, id, now, &started);
            } else if self.damaged == Some(id) {
                self.damaged = None;
                self.give_up(cluster, id, started)?;
            } else {
                started?;
            }
        }
        if let Some(replacement) = self.replacement.take() {
            self.replacement = replacement.step(cluster).await?;
        }
        Ok(())
    }

    /// Those who died in the middle of something lose their power: for a moment only, where others are out already.
    fn fell(&mut self, cluster: &mut Cluster) {
        for id in cluster.shared.midway.take_fallen() {
            let back = if self.spare(cluster) > 0 { self.outage() } else { self.dice.millis(20..120) };
            self.power_off(cluster, id, back);
        }
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
            // One that was put out stops for good, and is not started again.
            .filter(|id| {
                !self.replacement.as_ref().is_some_and(|replacement| replacement.is_putting_out(*id))
            })
            .collect();
        for id in dead {
            let back = self.outage();
            self.power_off(cluster, id, back);
        }
    }

    /// A process that does not start on a full disk has ended, and is started again, as an init system does it. Once the disk
    /// has room it has to start.
    fn try_later(
        &mut self,
        cluster: &mut Cluster,
        id: MemberId,
        now: Instant,
        started: &Result<(), Failure>,
    ) {
        if let (Err(failure), Some(machine)) = (started, cluster.machines.get_mut(&id)) {
            cluster.shared.trace.say(format_args!("on a full disk, {failure}"));
            machine.exit();
        }
        self.down.push((id, now + START_PAUSE));
    }

    fn power_off(&mut self, cluster: &mut Cluster, id: MemberId, back: Duration) {
        let Some(machine) = cluster.machines.get_mut(&id) else { return };
        if machine.process.is_none() {
            return;
        }
        cluster.shared.trace.note("crash", &[id.0], &[]);
        cluster.shared.trace.say(format_args!("member {id} has no power"));
        machine.crash();
        self.down.push((id, Instant::now() + back));
    }

    /// How long a machine is without power.
    fn outage(&mut self) -> Duration {
        // Some are back before anybody has noticed.
        let most = if self.dice.chance(30) { Duration::from_millis(200) } else { Duration::from_secs(8) };
        self.dice.span(Duration::from_millis(20), most)
    }

    /// Another comes for a member whose damaged log was refused, as it must be.
    fn give_up(
        &mut self,
        cluster: &Cluster,
        id: MemberId,
        started: Result<(), Failure>,
    ) -> Result<(), Failure> {
        match started {
            Ok(()) => Err(Failure::Damage(format!("member {id} starts from a log with a bit flipped"))),
            Err(refused) => {
                cluster.shared.trace.say(format_args!("{refused}"));
                self.replace(cluster, id);
                Ok(())
            }
        }
    }

    /// Members that may be taken out without taking the majority.
    fn spare(&self, cluster: &Cluster) -> usize {
        let down = self.down.iter().map(|(id, _)| *id);
        let ending = self.ending.iter().map(|(id, ..)| *id);
        let full = self.full.iter().map(|(id, _)| *id);
        let out: BTreeSet<MemberId> =
            down.chain(ending).chain(full).chain(self.away.iter().copied()).collect();
        let minority = (cluster.shared.plan.members - 1) / 2;
        minority.saturating_sub(out.len() + usize::from(self.replacement.is_some()))
    }

    fn strike(&mut self, cluster: &mut Cluster, fault: Fault) -> Result<(), Failure> {
        let running: Vec<MemberId> = cluster
            .machines
            .values()
            .filter(|machine| machine.process.is_some() && !self.away.contains(&machine.id))
            .map(|machine| machine.id)
            .collect();
        let Some(id) = self.dice.pick(&running).copied() else { return Ok(()) };
        let has_spare = self.spare(cluster) > 0;
        let has_struck = match fault {
            Fault::Ambush if has_spare && self.ambushed.is_none() => self.ambush(cluster, &running),
            Fault::BitFlip if has_spare && self.replacement.is_none() && self.damaged.is_none() => {
                self.damage(cluster, id)
            }
            Fault::Clock => self.set_clock(cluster, id),
            Fault::Crash if has_spare => {
                let back = self.outage();
                self.power_off(cluster, id, back);
                true
            }
            Fault::Disk if has_spare => self.fail_disk(cluster, id),
            Fault::HandOver => hand_over(cluster),
            Fault::Member if has_spare && self.replacement.is_none() && self.damaged.is_none() => {
                self.replace(cluster, id)
            }
            Fault::Midway if has_spare => die_midway(cluster, &mut self.dice),
            Fault::OneWay => self.cut_one_way(cluster, id),
            Fault::Partition if has_spare => self.cut_off(cluster, &running),
            Fault::Restart if has_spare => self.restart(cluster, id),
            Fault::Rotate => rotate(cluster, id)?,
            Fault::Ambush
            | Fault::BitFlip
            | Fault::Crash
            | Fault::Disk
            | Fault::Member
            | Fault::Midway
            | Fault::Partition
            | Fault::Restart => false,
        };
        if has_struck {
            cluster.shared.trace.note("fault", &[fault as u64, id.0], &[]);
            cluster.shared.trace.say(format_args!("strike {}: {fault:?}, member {id}", self.strikes));
            self.done.iter_mut().filter(|(class, _)| *class == fault).for_each(|(_, count)| *count += 1);
        }
        Ok(())
    }

    fn replace(&mut self, cluster: &Cluster, id: MemberId) -> bool {
        let Some(machine) = cluster.machines.get(&id) else { return false };
        let pause = self.dice.span(Duration::ZERO, Duration::from_secs(4));
        self.replacement = Some(Replacement::begin(cluster, id, machine.host.clone(), pause));
        true
    }

    fn restart(&mut self, cluster: &mut Cluster, id: MemberId) -> bool {
        let Some(ending) = cluster.machines.get_mut(&id).and_then(|machine| machine.stop()) else {
            return false;
        };
        let pause = self.dice.span(Duration::from_millis(20), Duration::from_secs(2));
        self.ending.push((id, ending, pause));
        true
    }

    /// Flips a bit of what was synced, and may have been acknowledged: that has to be refused. What was not may be cut off as
    /// the remains of a write that the power loss tore, whatever is in it.
    fn damage(&mut self, cluster: &mut Cluster, id: MemberId) -> bool {
        let synced = cluster.machines.get(&id).map_or_else(BTreeMap::new, synced_bytes);
        let back = self.outage();
        self.power_off(cluster, id, back);
        let Some(machine) = cluster.machines.get(&id) else { return false };
        let segments = machine.vfs.list(Path::new(LOG_DIR)).unwrap_or_default();
        let Some(path) = self.dice.pick(&segments) else { return false };
        let bytes = synced.get(path).copied().unwrap_or_default();
        if bytes == 0 {
            return false;
        }
        let (offset, bit) = (self.dice.within(0..bytes), self.dice.within(0..8));
        if !machine.vfs.flip_bit(path, offset, u8::try_from(bit).unwrap_or_default()) {
            return false;
        }
        self.damaged = Some(id);
        true
    }

    fn set_clock(&mut self, cluster: &Cluster, id: MemberId) -> bool {
        let Some(machine) = cluster.machines.get(&id) else { return false };
        let by = i64::try_from(self.dice.within(0..120_000)).unwrap_or_default() - 60_000;
        machine.clock.set_by(by);
        true
    }

    fn fail_disk(&mut self, cluster: &Cluster, id: MemberId) -> bool {
        let Some(machine) = cluster.machines.get(&id) else { return false };
        if self.full.is_none() && self.dice.chance(30) {
            // Below what is kept free a node takes no writes; with no room at all it cannot go on.
            let room = if self.dice.chance(50) { self.dice.within(0..1 << 16) } else { 128 << 20 };
            machine.vfs.set_capacity(machine.vfs.used() + room);
            self.full =
                Some((id, Instant::now() + self.dice.span(Duration::from_secs(1), Duration::from_secs(10))));
            return true;
        }
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
        let count = self.dice.within(1..self.spare(cluster) as u64 + 1);
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

/// How much of each segment of a log a power loss leaves for sure.
fn synced_bytes(machine: &Machine) -> BTreeMap<PathBuf, u64> {
    let segments = machine.vfs.list(Path::new(LOG_DIR)).unwrap_or_default();
    let synced = |path: PathBuf| {
        let bytes = machine.vfs.synced(&path)?.len() as u64;
        Some((path, bytes))
    };
    segments.into_iter().filter_map(synced).collect()
}

/// Asks whoever leads to let another do so, without waiting for it.
fn hand_over(cluster: &Cluster) -> bool {
    let Some(leader) = cluster.shared.directory.leader() else { return false };
    tokio::spawn(async move {
        // Whether it succeeds is no matter: that nothing is lost by it is.
        let _ = leader.transfer_leadership(None).await;
    });
    true
}

/// Asks a member for a new term of the keyring, without waiting for it.
fn rotate(cluster: &Cluster, id: MemberId) -> Result<bool, Failure> {
    let Some(machine) = cluster.machines.get(&id) else { return Ok(false) };
    let client = client(&cluster.shared, &machine.host, &cluster.root_token)?;
    let trace = cluster.shared.trace.clone();
    tokio::spawn(async move {
        // Whether it succeeds is no matter, as with a hand-over.
        match client.write("sys/rotate", &serde_json::json!({})).await {
            Ok(_) => trace.say(format_args!("the keyring has a new term")),
            Err(err) => trace.say(format_args!("the keyring could not be rotated: {err}")),
        }
    });
    Ok(true)
}
