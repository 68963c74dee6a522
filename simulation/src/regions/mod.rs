//! Runs with two clusters: one serves, the other is its copy and takes over, once or twice, by order or by force, while
//! both meet faults and the line between them is cut.
//!
//! What runs on each member is what runs on one of a single cluster, and `arca_replicator` beside it: tokens, copies, streams,
//! comparisons, fences and promotions are the product's. Certificates and connections are simulated ([`around`]).
//! Read next: [`drama`] for what is ordered, [`checks`] and [`ledger`] for what must hold, [`reigns`] for what clients see.

pub mod around;
mod checks;
mod drama;
pub(crate) mod filtered;
mod half;
mod ledger;
mod operator;
mod reigns;
mod road;
pub mod ways;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use arca_jepsen::history::History;
use arca_jepsen::workload;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::checks::Checks;
use self::drama::{Reign, Stage};
use self::filtered::Filtered;
use self::half::{Half, Lines};
use self::ledger::Broken;
use self::reigns::{Cut, joined};
use self::ways::Ways;
use crate::credentials::Done;
use crate::invariants::Violation;
use crate::plan::Plan;
use crate::run::{Failure, Operations, PATIENCE, Report, TICK, check, count};
use crate::trace::Trace;

/// Names of the two clusters.
pub const NAMES: [&str; 2] = ["east", "west"];
/// How long everything an operator orders may take.
const DRAMA_PATIENCE: Duration = Duration::from_secs(900);
/// How long clients go on once nothing is wrong any more.
const CALM: Duration = Duration::from_secs(2);

/// Which of several clusters one is, and the lines to the others.
#[derive(Clone, Debug)]
pub struct Region {
    /// Its name: that of its cluster, and the beginning of its hosts' names.
    pub name: String,
    /// The lines.
    pub ways: Ways,
}

/// Both clusters, and what is known of them.
struct Stand {
    halves: [Half; 2],
    lines: Lines,
    ways: Ways,
    checks: Checks,
    began: Instant,
    is_calm: bool,
    filtered: Option<Filtered>,
}

/// Runs `plan`, as [`crate::run::run`] does.
pub(crate) async fn simulate(plan: Plan, copy: Option<Box<dyn Write + Send>>, tells: bool) -> Report {
    let trace = Trace::new(copy, tells);
    let reigns = Arc::new(Mutex::new(Vec::new()));
    let mut faults = BTreeMap::new();
    let mut strikes = 0;
    let outcome = course(&plan, &trace, &reigns, (&mut faults, &mut strikes)).await;
    let reigns = std::mem::take(&mut *reigns.lock());
    let mut operations = Operations::default();
    for history in reigns.iter().filter_map(|reign: &Reign| reign.recorder.history().ok()) {
        for event in history.events() {
            trace.note("event", &[], format!("{event:?}").as_bytes());
        }
        let Operations { ok, refused, failed, unknown } = count(&history);
        operations.ok += ok;
        operations.refused += refused;
        operations.failed += failed;
        operations.unknown += unknown;
    }
    let (events, hash) = trace.hash();
    Report {
        seed: plan.seed,
        members: plan.members * NAMES.len(),
        workload: plan.workload.to_owned(),
        operations,
        strikes,
        faults,
        credentials: Done::default(),
        midway: BTreeMap::new(),
        simulated_ms: u64::try_from(trace.elapsed().as_millis()).unwrap_or(u64::MAX),
        events,
        trace: hash,
        failure: outcome.err().map(|failure| failure.to_string()),
    }
}

async fn course(
    plan: &Plan,
    trace: &Trace,
    reigns: &Arc<Mutex<Vec<Reign>>>,
    (faults, strikes): (&mut BTreeMap<String, u64>, &mut u64),
) -> Result<(), Failure> {
    let ways = Ways::new(plan.seed, trace);
    let [east, west] = NAMES;
    let mut east = Half::make(plan, trace, east, &ways).await?;
    let mut west = Half::make(plan, trace, west, &ways).await?;
    west.cluster.learn_keys(&east.cluster)?;
    east.cluster.learn_keys(&west.cluster)?;
    let stage = Stage::new(plan, trace, [&east, &west], Arc::clone(reigns))?;
    // From here on the tokens that are good are those of the cluster that is copied.
    west.cluster.root_token = east.cluster.root_token.clone();
    let lines = Lines::new(plan.seed);
    let mut stand = Stand {
        halves: [east, west],
        lines,
        ways,
        checks: Checks::default(),
        began: trace.began(),
        is_calm: false,
        filtered: None,
    };
    let outcome = stand.play(plan, stage, reigns).await;
    for half in &stand.halves {
        *strikes += half.chaos.strikes();
        for (fault, count) in half.chaos.done.iter().filter(|(_, count)| *count > 0) {
            *faults.entry(format!("{fault:?}")).or_default() += count;
        }
    }
    for (what, count) in stand.lines.done() {
        *faults.entry(what).or_default() += count;
    }
    outcome
}

impl Stand {
    async fn play(
        &mut self,
        plan: &Plan,
        stage: Stage,
        reigns: &Arc<Mutex<Vec<Reign>>>,
    ) -> Result<(), Failure> {
        let primary = stage.primary();
        let script = tokio::spawn(stage.perform());
        // What an operator ordered has to come to its end then.
        let chaos_end = Instant::now() + plan.chaos * 2;
        let deadline = Instant::now() + DRAMA_PATIENCE;
        while !script.is_finished() {
            if !self.is_calm && Instant::now() >= chaos_end {
                self.calm_down();
            }
            if Instant::now() >= deadline {
                return Err(Failure::Stuck(format!("the operator waits: {}", self.describe())));
            }
            self.tick().await?;
            self.keep_filtered(plan.seed, &primary).await?;
        }
        script.await.map_err(Failure::setup)??;
        let chaos_end = Instant::now() + plan.pause.1;
        while !self.is_calm && Instant::now() < chaos_end {
            self.tick().await?;
        }
        self.calm_down();
        let calm = Instant::now() + CALM;
        self.watch_until("all is healed", |stand| stand.is_over() && Instant::now() >= calm).await?;
        let workers = stop_all(reigns);
        self.watch_until("clients end", |_| workers.iter().all(JoinHandle::is_finished)).await?;
        for worker in workers {
            worker.await.map_err(Failure::setup)?;
        }
        for reign in reigns.lock().iter() {
            if let Some(complaint) = reign.working.complaints.lock().first() {
                return Err(Failure::History(complaint.clone()));
            }
        }
        self.watch_until("both clusters settle", |stand| stand.is_over() && stand.are_equal()).await?;
        self.look_back(reigns).await
    }

    /// A filtered secondary begins to follow as soon as it is known what is withheld.
    async fn keep_filtered(&mut self, seed: u64, primary: &watch::Receiver<usize>) -> Result<(), Failure> {
        if self.filtered.is_some() || self.ways.withheld().is_empty() {
            return Ok(());
        }
        let [east, west] = &self.halves;
        let Ok(barrier) = east.barrier() else { return Ok(()) };
        let hosts = ([east.cluster.hosts(), west.cluster.hosts()], primary.clone());
        self.filtered = Some(Filtered::make(seed, &self.ways, &barrier, hosts).await?);
        Ok(())
    }

    /// One look at everything.
    async fn tick(&mut self) -> Result<(), Failure> {
        for half in &mut self.halves {
            half.step(self.is_calm).await?;
        }
        if !self.is_calm {
            self.lines.step(&self.ways);
        }
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let [east, west] = &mut self.halves;
        let told = [east.look(now)?, west.look(now)?];
        let looked = self.checks.look(now, told, [&east.ledger, &west.ledger], (&self.ways, NAMES));
        looked.map_err(violation)?;
        for half in &self.halves {
            half.has_what_it_acknowledged(&self.ways).map_err(violation)?;
        }
        sleep(TICK).await;
        Ok(())
    }

    fn calm_down(&mut self) {
        self.is_calm = true;
        self.ways.heal();
        for half in &mut self.halves {
            half.chaos.heal(&mut half.cluster);
        }
    }

    fn is_over(&self) -> bool {
        self.halves.iter().all(Half::is_over)
    }

    /// Whether both hold the same, and every member of both.
    fn are_equal(&self) -> bool {
        let [east, west] = &self.halves;
        east.cluster.is_even() && west.cluster.is_even() && east.ledger.sum == west.ledger.sum
    }

    fn describe(&self) -> String {
        let shown = self.halves.iter().map(|half| {
            format!(
                "{}: {}; {:?} followed {:?} state {:x}; {}",
                half.name,
                half.cluster.describe(),
                half.ledger.role,
                half.ledger.cursor.map(|cursor| cursor.index),
                half.ledger.sum,
                half.said()
            )
        });
        let north = self.filtered.as_ref().map_or(0, Filtered::entries);
        format!("{}\nnorth: {north} entries", shown.collect::<Vec<_>>().join("\n"))
    }

    async fn watch_until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            self.tick().await?;
            if Instant::now() >= deadline {
                let waited = PATIENCE.as_secs();
                return Err(Failure::Stuck(format!("waited {waited} s until {what}: {}", self.describe())));
            }
        }
        Ok(())
    }

    /// What every reign saw has an explanation, and what all of them saw together; and everything that is left of it is
    /// there now, on every node of the primary.
    async fn look_back(&self, reigns: &Mutex<Vec<Reign>>) -> Result<(), Failure> {
        let taken = std::mem::take(&mut *reigns.lock());
        let outcome = self.look_back_at(&taken).await;
        *reigns.lock() = taken;
        outcome
    }

    async fn look_back_at(&self, reigns: &[Reign]) -> Result<(), Failure> {
        let mut cut: Vec<(History, Cut)> = Vec::new();
        let history_of =
            |reign: &Reign| reign.recorder.history().map_err(|err| Failure::History(err.to_string()));
        for (number, reign) in reigns.iter().enumerate() {
            if number + 1 == reigns.len() {
                let all = joined(&cut, &history_of(reign)?)?;
                match workload::look_everywhere(&reign.working, &all).await {
                    0 => {}
                    count => {
                        let text = format!("{count} reads are not answered: {}", self.describe());
                        return Err(Failure::Stuck(text));
                    }
                }
            }
            let history = history_of(reign)?;
            if number == 0 {
                check(&history)?;
            } else {
                // What a later reign began with is what those before it left.
                let all = joined(&cut, &history)?;
                check(&all).map_err(|failure| match failure {
                    Failure::History(text) => Failure::History(format!("across promotions: {text}")),
                    failure => failure,
                })?;
            }
            let all = Cut { until: u64::MAX, from: u64::MAX };
            let known = if reign.is_handed_over { Some(all) } else { self.cut_of(number, reign.half) };
            let Some(cut_here) = known else { break };
            cut.push((history, cut_here));
        }
        Ok(())
    }

    /// What of a reign the next one has; none if that is not known, or there is none.
    fn cut_of(&self, number: usize, half: usize) -> Option<Cut> {
        let promotion = self.checks.promotions.get(number)?;
        let followed = promotion.followed.filter(|_| promotion.half != half)?;
        let ledger = &self.halves.get(half)?.ledger;
        let until = ledger.still_at(followed.index).min(promotion.not_before);
        Some(Cut { until, from: ledger.behind_at(followed.index) })
    }
}

fn violation((invariant, detail): Broken) -> Failure {
    Failure::Violation(Violation { invariant, detail })
}

/// Tells all clients to stop.
fn stop_all(reigns: &Mutex<Vec<Reign>>) -> Vec<JoinHandle<()>> {
    let mut workers = Vec::new();
    for reign in reigns.lock().iter_mut() {
        // Nobody listens if all workers have ended.
        let _ = reign.stop.send(true);
        workers.append(&mut reign.workers);
    }
    workers
}
