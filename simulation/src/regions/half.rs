//! One of two clusters, with what happens to it and what is known of it; and what happens to the line between them.

use std::sync::Arc;
use std::time::Duration;

use arca_barrier::Barrier;
use arca_jepsen::dice::Dice;
use arca_kernel::replication::{Kind as RoleKind, ReplicationPort as _};
use arca_raft_storage::{MemberId, Replica as _, Role};
use arca_replication::{Kind, load_cursor};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::checks::NOTHING_LOST;
use super::ledger::{Broken, Ledger, Told};
use super::ways::Ways;
use super::{NAMES, Region};
use crate::chaos::Chaos;
use crate::cluster::{Cluster, Shared};
use crate::invariants::Invariants;
use crate::plan::Plan;
use crate::run::{Failure, shared, shown};
use crate::trace::Trace;

/// A member that does not start with the keys of what was copied is tried again for so long: its disk may be full.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// See the file's header.
pub(super) struct Half {
    pub(super) name: String,
    pub(super) shared: Arc<Shared>,
    pub(super) cluster: Cluster,
    pub(super) chaos: Chaos,
    invariants: Invariants,
    pub(super) ledger: Ledger,
    /// Who changes over to the keys of what was copied.
    changing: Vec<(MemberId, JoinHandle<()>, Option<Instant>)>,
}

impl Half {
    pub(super) async fn make(plan: &Plan, trace: &Trace, name: &str, ways: &Ways) -> Result<Self, Failure> {
        let region = Region { name: name.to_owned(), ways: ways.clone() };
        let plan = plan.of_region(name);
        let shared = shared(&plan, trace, Some(region));
        let cluster = Cluster::make(&shared).await?;
        Ok(Self {
            name: name.to_owned(),
            cluster,
            chaos: Chaos::new(plan.seed),
            invariants: Invariants::new(&shared.elsewhere, &shared.credentials),
            ledger: Ledger::new(name),
            changing: Vec::new(),
            shared,
        })
    }

    /// What opens the state of its members.
    pub(super) fn barrier(&self) -> Result<Arc<Barrier>, Failure> {
        let running = self.cluster.machines.values().find_map(|machine| machine.process.as_ref());
        let barrier = running.map(|process| Arc::clone(&process.barrier));
        barrier.ok_or_else(|| Failure::Setup("nobody runs".to_owned()))
    }

    /// What its active member says of replication.
    pub(super) fn said(&self) -> String {
        let running = self.cluster.machines.values().filter_map(|machine| machine.process.as_ref());
        let active = running.filter(|process| process.kernel().is_active());
        let said = active.filter_map(|process| process.replicator.as_ref()?.status(RoleKind::Dr).ok());
        said.map(|status| serde_json::Value::Object(status).to_string()).collect::<Vec<_>>().join(" and ")
    }

    /// Does what is due.
    pub(super) async fn step(&mut self, is_calm: bool) -> Result<(), Failure> {
        if is_calm {
            self.chaos.revive(&mut self.cluster).await?;
        } else {
            self.chaos.step(&mut self.cluster).await?;
        }
        for (id, ending) in self.cluster.change_over() {
            self.shared.trace.say(format_args!("{}: member {id} changes over to other keys", self.name));
            self.changing.push((id, ending, None));
        }
        let ended = |(_, task, _): &(MemberId, JoinHandle<()>, Option<Instant>)| task.is_finished();
        while let Some(at) = self.changing.iter().position(ended) {
            let (id, task, since) = self.changing.swap_remove(at);
            let Err(failure) = self.cluster.start(id).await else { continue };
            let since = since.unwrap_or_else(Instant::now);
            if since.elapsed() > START_PATIENCE {
                return Err(failure);
            }
            if let Some(machine) = self.cluster.machines.get_mut(&id) {
                machine.exit();
            }
            self.changing.push((id, task, Some(since)));
            break;
        }
        Ok(())
    }

    /// Looks at what must hold here, and at what was applied since.
    pub(super) fn look(&mut self, now_ns: u64) -> Result<Vec<Told>, Failure> {
        let seen = shown(&self.cluster, &self.shared.trace);
        self.invariants.look(&seen)?;
        self.ledger.advance(&seen, now_ns).map_err(super::violation)
    }

    /// What was acknowledged to a primary is on whoever is active here: such a member has applied all that was committed.
    pub(super) fn has_what_it_acknowledged(&self, ways: &Ways) -> Result<(), Broken> {
        let running = self.cluster.machines.values().filter_map(|machine| machine.process.as_ref());
        let newest = running.max_by_key(|process| {
            let status = process.replica.status();
            (status.term, status.role == Role::Leader)
        });
        let leader = newest.filter(|process| process.replica.status().role == Role::Leader);
        let Some(leader) = leader.filter(|process| process.kernel().is_active()) else { return Ok(()) };
        let Ok((cursor, _)) = load_cursor(leader.replica.view().as_ref(), Kind::Dr) else { return Ok(()) };
        let said = ways.acknowledged_by(&self.name, cursor.generation).filter(|_| !cursor.is_unknown());
        match said {
            Some(said) if said > cursor.index => {
                let text = format!("{} has entry {}, and acknowledged {said}", self.name, cursor.index);
                Err((NOTHING_LOST, text))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.chaos.is_over() && self.changing.is_empty()
    }
}

/// Cuts of the line between two regions.
pub(super) struct Lines {
    dice: Dice,
    next: Instant,
    healed: Option<Instant>,
    both: u64,
    one_way: u64,
}

impl Lines {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::for_purpose(seed, "cuts between regions");
        let next = Instant::now() + dice.span(Duration::from_secs(1), Duration::from_secs(20));
        Self { dice, next, healed: None, both: 0, one_way: 0 }
    }

    /// Does what is due.
    pub(super) fn step(&mut self, ways: &Ways) {
        let now = Instant::now();
        if self.healed.is_some_and(|at| at <= now) {
            ways.heal();
            self.healed = None;
        }
        if now < self.next {
            return;
        }
        self.next = now + self.dice.span(Duration::from_secs(2), Duration::from_secs(25));
        let longest = if self.dice.chance(70) { Duration::from_secs(2) } else { Duration::from_secs(12) };
        self.healed = Some(now + self.dice.span(Duration::from_millis(50), longest));
        let [east, west] = NAMES;
        match self.dice.within(0..4) {
            0 => ways.cut(east, west),
            1 => ways.cut(west, east),
            _ => {
                ways.cut(east, west);
                ways.cut(west, east);
                self.both += 1;
                return;
            }
        }
        self.one_way += 1;
    }

    pub(super) fn done(&self) -> Vec<(String, u64)> {
        let counted = [("LineCut", self.both), ("LineCutOneWay", self.one_way)];
        let struck = counted.into_iter().filter(|(_, count)| *count > 0);
        struck.map(|(what, count)| (what.to_owned(), count)).collect()
    }
}
