//! The course of a run: a cluster is made, meets faults under load, is healed, must then be whole and serve, and what
//! its clients saw is checked.

use std::fmt::{self, Display, Write as _};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use arca_jepsen::checker::{Budget, Verdict};
use arca_jepsen::dice::Dice;
use arca_jepsen::history::recorder::Recorder;
use arca_jepsen::history::{End, History};
use arca_jepsen::models::{self, Options};
use arca_jepsen::outcome::Reply;
use arca_raft_storage::MemberId;
use http::Method;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::chaos::Chaos;
use crate::client::Client;
use crate::cluster::{Cluster, Directory, PATIENCE, Shared};
use crate::invariants::{Invariants, Seen, Violation};
use crate::net::Net;
use crate::plan::{Fault, Plan};
use crate::trace::Trace;
use crate::workload::Worker;

/// Between two looks at the invariants.
const TICK: Duration = Duration::from_millis(20);
/// How long clients go on once nothing is wrong any more.
const CALM: Duration = Duration::from_secs(2);
/// Longest time a client may take for its last request.
const LAST_REQUEST: Duration = Duration::from_secs(60);
/// Steps of the search for an order of what clients saw.
const STEPS: u64 = 20_000_000;

/// What ended a run.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// What clients saw cannot be explained.
    #[error("history: {0}")]
    History(String),
    /// The simulation could not do what it wanted to.
    #[error("setup: {0}")]
    Setup(String),
    /// A healthy cluster did not do what it should.
    #[error("stuck: {0}")]
    Stuck(String),
    /// An invariant did not hold.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl Failure {
    /// An unexpected error.
    pub fn setup(err: impl Display) -> Self {
        Self::Setup(err.to_string())
    }
}

/// How operations ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// Well.
    pub ok: u64,
    /// Refused for a reason that is checked.
    pub refused: u64,
    /// Surely without effect.
    pub failed: u64,
    /// In doubt.
    pub unknown: u64,
}

/// What a run was.
#[derive(Debug)]
pub struct Report {
    /// What the seed decided.
    pub plan: Plan,
    /// What clients did.
    pub operations: Operations,
    /// Faults, and how often each struck.
    pub faults: Vec<(Fault, u64)>,
    /// Simulated time.
    pub simulated: Duration,
    /// Events of the trace.
    pub events: u64,
    /// Hash over them.
    pub hash: String,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operations { ok, refused, failed, unknown } = self.operations;
        let mut faults = String::new();
        for (fault, count) in self.faults.iter().filter(|(_, count)| *count > 0) {
            write!(faults, " {fault:?} {count}")?;
        }
        let members = self.plan.members;
        let seconds = self.simulated.as_secs();
        write!(f, "seed {}: {members} members, {seconds} s; operations ok {ok}, ", self.plan.seed)?;
        write!(f, "refused {refused}, failed {failed}, unknown {unknown}; faults{faults}; ")?;
        write!(f, "trace {} {}", self.events, self.hash.get(..16).unwrap_or_default())?;
        match &self.failure {
            None => Ok(()),
            Some(failure) => write!(f, "\nFAILED: {failure}"),
        }
    }
}

/// Runs `plan` on a clock of its own. `copy` gets the trace as lines.
///
/// # Errors
/// When there is no runtime to be had.
pub fn run(plan: Plan, copy: Option<Box<dyn Write + Send>>) -> std::io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(runtime.block_on(simulate(plan, copy)))
}

async fn simulate(plan: Plan, copy: Option<Box<dyn Write + Send>>) -> Report {
    let trace = Trace::new(copy);
    let began = Instant::now();
    let recorder =
        Recorder::new(Box::new(move || u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)));
    let mut chaos = Chaos::new(plan.seed);
    let outcome = course(&plan, &trace, &recorder, &mut chaos).await;
    let (events, hash) = trace.hash();
    let history = recorder.history().map_err(|err| Failure::History(err.to_string()));
    let operations = history.as_ref().map(count).unwrap_or_default();
    let checked = outcome.and_then(|()| check(&history?));
    let simulated = trace.elapsed();
    Report { plan, operations, faults: chaos.done, simulated, events, hash, failure: checked.err() }
}

async fn course(plan: &Plan, trace: &Trace, recorder: &Recorder, chaos: &mut Chaos) -> Result<(), Failure> {
    let shared = Arc::new(Shared {
        net: Net::new(plan, trace),
        trace: trace.clone(),
        directory: Directory::default(),
        cluster_id: "simulated".to_owned(),
        plan: plan.clone(),
    });
    let mut cluster = Cluster::make(&shared).await?;
    let mut invariants = Invariants::default();
    mount(&cluster).await?;
    let stop = CancellationToken::new();
    let members: Vec<MemberId> = cluster.machines.keys().copied().collect();
    let worker = |number: u64| {
        let client = Client::new(&shared, &cluster.root_token, number);
        let dice = Dice::for_purpose(plan.seed, &format!("client {number}"));
        Worker::new(client, number, dice, members.clone(), recorder).busy(plan.keys, plan.think)
    };
    let workers: Vec<_> =
        (1..=plan.clients as u64).map(|number| tokio::spawn(worker(number).run(stop.clone()))).collect();
    let mut last = worker(0);
    let end = Instant::now() + plan.chaos;
    while Instant::now() < end {
        chaos.step(&mut cluster).await?;
        invariants.look(&shown(&cluster, trace))?;
        sleep(TICK).await;
    }
    chaos.heal(&mut cluster).await?;
    let calm = Instant::now() + CALM;
    while Instant::now() < calm {
        chaos.revive(&mut cluster).await?;
        invariants.look(&shown(&cluster, trace))?;
        sleep(TICK).await;
    }
    stop.cancel();
    for worker in workers {
        let ended = timeout(LAST_REQUEST, worker).await;
        ended
            .map_err(|_| Failure::Stuck("a client's last request does not end".to_owned()))?
            .map_err(Failure::setup)?;
    }
    settle(&mut cluster, &mut invariants, chaos, trace).await?;
    serve_everywhere(&mut last, plan, &members, &cluster).await
}

/// All members that run, as the trace shows them too.
fn shown(cluster: &Cluster, trace: &Trace) -> Vec<Seen> {
    let seen = cluster.seen();
    for Seen { status, .. } in &seen {
        let (id, role, term) = (status.id, status.role, status.term);
        let (committed, applied) = (status.committed_index, status.applied_index);
        trace.note(format_args!("member {id} {role:?} {term} {committed} {applied}"), &[]);
    }
    seen
}

/// Waits until all members are even.
async fn settle(
    cluster: &mut Cluster,
    invariants: &mut Invariants,
    chaos: &mut Chaos,
    trace: &Trace,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !cluster.is_even() {
        chaos.revive(cluster).await?;
        invariants.look(&shown(cluster, trace))?;
        if Instant::now() >= deadline {
            return Err(Failure::Stuck(format!("the cluster does not settle: {}", cluster.describe())));
        }
        sleep(TICK).await;
    }
    Ok(())
}

/// Every member has to answer for every path now: what was acknowledged and is not there is found by the checker.
async fn serve_everywhere(
    worker: &mut Worker,
    plan: &Plan,
    members: &[MemberId],
    cluster: &Cluster,
) -> Result<(), Failure> {
    for member in members {
        for key in 0..plan.keys {
            if !worker.read(*member, key).await {
                let text = format!("{member} does not answer after all is healed: {}", cluster.describe());
                return Err(Failure::Stuck(text));
            }
        }
    }
    Ok(())
}

async fn mount(cluster: &Cluster) -> Result<(), Failure> {
    let client = Client::new(&cluster.shared, &cluster.root_token, 0);
    let body = json!({"type": "kv", "options": {"version": "2"}});
    let first = cluster.machines.keys().next().copied().unwrap_or_default();
    match client.ask(first, Method::POST, "sys/mounts/secret", &body).await {
        (Reply::Answered { status: 204, .. }, _) => Ok(()),
        (reply, _) => Err(Failure::Setup(format!("mounting: {reply:?}"))),
    }
}

fn count(history: &History) -> Operations {
    let mut counted = Operations::default();
    for operation in history.operations() {
        let slot = match operation.end {
            End::Ok => &mut counted.ok,
            End::Refused => &mut counted.refused,
            End::Fail => &mut counted.failed,
            End::Unknown => &mut counted.unknown,
        };
        *slot += 1;
    }
    counted
}

fn check(history: &History) -> Result<(), Failure> {
    for found in models::check(history, Options::default(), &mut Budget::steps(STEPS)) {
        match found.verdict {
            Verdict::Valid => {}
            verdict => return Err(Failure::History(format!("{}: {verdict}", found.key))),
        }
    }
    Ok(())
}
