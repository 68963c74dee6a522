//! The course of a run: a cluster is made, meets faults under load, is healed, must then be whole and serve, and what
//! its clients saw is checked.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use arca_client::leases::Revocation;
use arca_jepsen::checker::{Budget, Verdict};
use arca_jepsen::dice::Dice;
use arca_jepsen::faults::Class;
use arca_jepsen::history::recorder::Recorder;
use arca_jepsen::history::{End, History};
use arca_jepsen::models::{self, Options};
use arca_jepsen::workload::{self, Worker, Workload};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::chaos::Chaos;
use crate::client::client;
use crate::cluster::{Cluster, Directory, Shared};
use crate::credentials::{self, Credentials, Done, Issuer};
use crate::elsewhere::Elsewhere;
use crate::invariants::{Invariants, Seen, Violation};
use crate::midway::Midway;
use crate::net::Net;
use crate::plan::{Fault, Plan};
use crate::regions;
use crate::trace::Trace;

/// Between two looks at the invariants.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// How long clients go on once nothing is wrong any more.
const CALM: Duration = Duration::from_secs(2);
/// How long it may take until all is healed, until clients have ended, until members are even: longer than a client
/// waits for a lease to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);
/// How long it may take until nothing is left in the system outside of what nobody has: two minutes until what was under
/// way has ended for certain, and the longest pause after failures to undo it, twice.
const REST_PATIENCE: Duration = Duration::from_secs(480);
/// Between two looks meanwhile.
const REST_TICK: Duration = Duration::from_millis(200);
/// Steps of the search for an order of what clients saw.
const STEPS: u64 = 20_000_000;

/// What ended a run.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// A member took damage for what it had stored.
    #[error("damage: {0}")]
    Damage(String),
    /// What clients saw cannot be explained.
    #[error("history: {0}")]
    History(String),
    /// A member did not start again from what is on its disks.
    #[error("restart: {0}")]
    Restart(String),
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// What a run was. The same seed gives the same, in any process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Decides everything.
    pub seed: u64,
    /// Members.
    pub members: usize,
    /// What clients did.
    pub workload: String,
    /// How that ended.
    pub operations: Operations,
    /// How many faults were due.
    pub strikes: u64,
    /// How often each class of them struck.
    pub faults: BTreeMap<String, u64>,
    /// What was done with credentials in the system outside.
    pub credentials: Done,
    /// How often somebody died in the middle of issuing or revoking one, and where.
    pub midway: BTreeMap<String, u64>,
    /// Simulated time, milliseconds.
    pub simulated_ms: u64,
    /// Events of the trace.
    pub events: u64,
    /// Hash over them.
    pub trace: String,
    /// What went wrong, if anything did.
    pub failure: Option<String>,
}

impl Report {
    /// What found it: an invariant, or the kind of failure.
    #[must_use]
    pub fn caught_by(&self) -> Option<&str> {
        self.failure.as_ref().map(|failure| failure.split(':').next().unwrap_or_default())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, members, workload, operations, faults, simulated_ms, events, trace, .. } = self;
        let Operations { ok, refused, failed, unknown } = operations;
        let struck: Vec<String> = faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
        let struck = if struck.is_empty() { "none".to_owned() } else { struck.join(", ") };
        let seconds = simulated_ms / 1_000;
        writeln!(f, "seed {seed}: {members} members, {seconds} s, workload {workload}")?;
        writeln!(f, "  operations: {ok} ok, {refused} refused, {failed} failed, {unknown} unknown")?;
        writeln!(f, "  faults: {struck}")?;
        let Done { issued, not_issued, revoked, not_revoked } = self.credentials;
        if issued + not_issued > 0 {
            write!(f, "  credentials: {issued} issued, {not_issued} not; ")?;
            writeln!(f, "{revoked} revoked, {not_revoked} not")?;
        }
        write!(f, "  trace: {events} events, {trace}")?;
        match &self.failure {
            None => Ok(()),
            Some(failure) => write!(f, "\nFAILED: {failure}"),
        }
    }
}

/// Runs `plan` on a clock of its own. `copy` gets the trace as lines; a run that `tells` prints what is done.
///
/// # Errors
/// When there is no runtime to be had.
pub fn run(plan: Plan, copy: Option<Box<dyn Write + Send>>, tells: bool) -> std::io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    Ok(if plan.has_regions {
        runtime.block_on(regions::simulate(plan, copy, tells))
    } else {
        runtime.block_on(simulate(plan, copy, tells))
    })
}

async fn simulate(plan: Plan, copy: Option<Box<dyn Write + Send>>, tells: bool) -> Report {
    let trace = Trace::new(copy, tells);
    let shared = shared(&plan, &trace, None);
    let began = Instant::now();
    let recorder =
        Recorder::new(Box::new(move || u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)));
    let mut chaos = Chaos::new(plan.seed);
    let outcome = course(&shared, &recorder, &mut chaos).await;
    let history = recorder.history().map_err(|err| Failure::History(err.to_string()));
    if let Ok(history) = &history {
        for event in history.events() {
            trace.note("event", &[], format!("{event:?}").as_bytes());
        }
    }
    let (events, hash) = trace.hash();
    let operations = history.as_ref().map(count).unwrap_or_default();
    let checked = outcome.and_then(|()| check(&history?));
    let struck = chaos.done.iter().filter(|(_, count)| *count > 0);
    Report {
        seed: plan.seed,
        members: plan.members,
        workload: plan.workload.to_owned(),
        operations,
        strikes: chaos.strikes(),
        faults: struck.map(|(fault, count)| (format!("{fault:?}"), *count)).collect(),
        credentials: shared.credentials.done(),
        midway: shared.midway.reached(),
        simulated_ms: u64::try_from(trace.elapsed().as_millis()).unwrap_or(u64::MAX),
        events,
        trace: hash,
        failure: checked.err().map(|failure| failure.to_string()),
    }
}

/// What all parts of a cluster share, in `region` if it is one of several.
pub(crate) fn shared(plan: &Plan, trace: &Trace, region: Option<regions::Region>) -> Arc<Shared> {
    let midway = Midway::default();
    Arc::new(Shared {
        net: Net::new(plan, trace),
        trace: trace.clone(),
        directory: Directory::default(),
        cluster_id: region.as_ref().map_or("simulated", |region| region.name.as_str()).to_owned(),
        elsewhere: Elsewhere::new(plan.seed, plan.is_elsewhere_well, trace, &midway),
        credentials: Credentials::default(),
        midway,
        region,
        plan: plan.clone(),
    })
}

async fn course(shared: &Arc<Shared>, recorder: &Recorder, chaos: &mut Chaos) -> Result<(), Failure> {
    let (plan, trace) = (&shared.plan, &shared.trace);
    let mut cluster = Cluster::make(shared).await?;
    let mut invariants = Invariants::new(&shared.elsewhere, &shared.credentials);
    let (stop, stopped) = watch::channel(false);
    let hosts = cluster.hosts();
    let clients = hosts.iter().map(|host| client(shared, host, &cluster.root_token));
    let working = Arc::new(workload::Shared {
        clients: clients.collect::<Result<_, _>>()?,
        recorder: recorder.clone(),
        stop: stopped,
        pace: plan.pace,
        complaints: Mutex::default(),
    });
    mount(&working).await?;
    let mut workers = begin_work(plan, &working)?;
    workers.extend(issue(shared, &working));
    let end = Instant::now() + plan.chaos;
    while Instant::now() < end {
        chaos.step(&mut cluster).await?;
        invariants.look(&shown(&cluster, trace))?;
        shared.midway.wait(TICK).await;
    }
    chaos.heal(&mut cluster);
    let calm = Instant::now() + CALM;
    let is_calm = |chaos: &Chaos, _: &Cluster| chaos.is_over() && Instant::now() >= calm;
    watch_until("all is healed", is_calm, &mut cluster, &mut invariants, chaos).await?;
    // Nobody listens if all workers have ended.
    let _ = stop.send(true);
    let have_ended = |_: &Chaos, _: &Cluster| workers.iter().all(JoinHandle::is_finished);
    watch_until("clients end", have_ended, &mut cluster, &mut invariants, chaos).await?;
    for worker in workers {
        worker.await.map_err(Failure::setup)?;
    }
    if let Some(complaint) = working.complaints.lock().first() {
        return Err(Failure::History(complaint.clone()));
    }
    if plan.issuers > 0 {
        rest(&mut cluster, &mut invariants, chaos).await?;
        give_back(&working, &cluster).await?;
        rest(&mut cluster, &mut invariants, chaos).await?;
    }
    let is_even = |chaos: &Chaos, cluster: &Cluster| chaos.is_over() && cluster.is_even();
    watch_until("the cluster settles", is_even, &mut cluster, &mut invariants, chaos).await?;
    let terms = cluster.machines.values().filter_map(|machine| machine.process.as_ref());
    let terms: Vec<u32> = terms.map(|process| process.barrier.key_status().term).collect();
    trace.say(format_args!("all members are even, and have keyrings of terms {terms:?}"));
    serve_everywhere(&working, recorder, &cluster).await
}

/// What clients do, from now on and until they are told to stop.
pub(crate) fn begin_work(
    plan: &Plan,
    working: &Arc<workload::Shared>,
) -> Result<Vec<JoinHandle<()>>, Failure> {
    let classes: &[Class] = if plan.faults.contains(&Fault::Clock) { &[Class::Clock] } else { &[] };
    let work: Arc<dyn Workload> = Arc::from(workload::find(plan.workload, classes).map_err(Failure::Setup)?);
    let worker = |number: u64| {
        let dice = Dice::for_purpose(plan.seed, &format!("client {number}"));
        let worker = Worker::new(number, working, dice)?;
        let work = Arc::clone(&work);
        Some(tokio::spawn(async move { work.run(worker).await }))
    };
    Ok((plan.first_client..plan.first_client + plan.clients).filter_map(worker).collect())
}

/// What some clients do in the system outside meanwhile.
fn issue(shared: &Shared, working: &Arc<workload::Shared>) -> Vec<JoinHandle<()>> {
    let issuer = |number: u64| {
        let issuer = Issuer {
            clients: working.clients.clone(),
            dice: Dice::for_purpose(shared.plan.seed, &format!("issuer {number}")),
            credentials: shared.credentials.clone(),
            stop: working.stop.clone(),
            pace: shared.plan.pace,
        };
        tokio::spawn(issuer.run())
    };
    (0..shared.plan.issuers).map(issuer).collect()
}

/// Waits until all is as it must be in the end.
async fn rest(cluster: &mut Cluster, invariants: &mut Invariants, chaos: &mut Chaos) -> Result<(), Failure> {
    let deadline = Instant::now() + REST_PATIENCE;
    loop {
        chaos.revive(cluster).await?;
        let trace = cluster.shared.trace.clone();
        let seen = shown(cluster, &trace);
        invariants.look(&seen)?;
        match invariants.rest(&seen) {
            Ok(()) => return Ok(()),
            Err(violation) if Instant::now() >= deadline => return Err(violation.into()),
            Err(_) => sleep(REST_TICK).await,
        }
    }
}

/// Revokes every credential there is.
async fn give_back(working: &workload::Shared, cluster: &Cluster) -> Result<(), Failure> {
    let Some(client) = working.clients.first() else { return Ok(()) };
    let credentials = &cluster.shared.credentials;
    let leases = credentials.give_all_back();
    let deadline = Instant::now() + PATIENCE;
    while let Err(err) = client.sys().revoke_leases("out", Revocation::Queued).await {
        if Instant::now() >= deadline {
            return Err(Failure::Stuck(format!("nothing can be revoked: {err}")));
        }
        sleep(CALM).await;
    }
    leases.iter().for_each(|lease_id| credentials.gave_back(lease_id, false, true));
    Ok(())
}

/// All members that run, as the trace shows them too.
pub(crate) fn shown(cluster: &Cluster, trace: &Trace) -> Vec<Seen> {
    let seen = cluster.seen();
    for Seen { status, .. } in &seen {
        let (committed, applied) = (status.committed_index, status.applied_index);
        trace.note("member", &[status.id.0, status.role as u64, status.term, committed, applied], &[]);
    }
    seen
}

/// Looks at the invariants until `is_so`, which has to be within a time.
async fn watch_until(
    what: &str,
    is_so: impl Fn(&Chaos, &Cluster) -> bool,
    cluster: &mut Cluster,
    invariants: &mut Invariants,
    chaos: &mut Chaos,
) -> Result<(), Failure> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so(chaos, cluster) {
        chaos.revive(cluster).await?;
        let trace = cluster.shared.trace.clone();
        invariants.look(&shown(cluster, &trace))?;
        if Instant::now() >= deadline {
            let waited = PATIENCE.as_secs();
            return Err(Failure::Stuck(format!("waited {waited} s until {what}: {}", cluster.describe())));
        }
        sleep(TICK).await;
    }
    Ok(())
}

/// Every node has to answer for every path now: what was acknowledged and is not there is found by the checker.
async fn serve_everywhere(
    working: &workload::Shared,
    recorder: &Recorder,
    cluster: &Cluster,
) -> Result<(), Failure> {
    let history = recorder.history().map_err(|err| Failure::History(err.to_string()))?;
    match workload::look_everywhere(working, &history).await {
        0 => Ok(()),
        count => {
            let text = format!("after all is healed, {count} reads are not answered: {}", cluster.describe());
            Err(Failure::Stuck(text))
        }
    }
}

/// Mounts what clients work on. The leader may be another one in the middle of it.
pub(crate) async fn mount(working: &workload::Shared) -> Result<(), Failure> {
    let Some(client) = working.clients.first() else { return Err(Failure::Setup("no nodes".to_owned())) };
    let deadline = Instant::now() + PATIENCE;
    for (path, body) in workload::mounts().into_iter().chain(credentials::mounts()) {
        loop {
            match client.write(path, &body).await {
                Ok(_) => break,
                Err(_) if client.read(path).await.is_ok_and(|found| found.is_some()) => break,
                Err(err) if Instant::now() >= deadline => return Err(Failure::setup(err)),
                Err(_) => sleep(CALM).await,
            }
        }
    }
    Ok(())
}

pub(crate) fn count(history: &History) -> Operations {
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

/// The longest time in which nobody was answered. Links cut one way may leave no leader a quorum: nothing is revoked then.
fn outage_ms(history: &History) -> u64 {
    let operations = history.operations();
    let mut answers: Vec<u64> =
        operations.iter().filter(|found| found.end == End::Ok).filter_map(|found| found.ended_ns).collect();
    answers.sort_unstable();
    let longest = answers.windows(2).map(|pair| pair.iter().rev().copied().reduce(u64::saturating_sub));
    longest.flatten().max().unwrap_or_default() / 1_000_000
}

pub(crate) fn check(history: &History) -> Result<(), Failure> {
    let usual = Options::default();
    let options = Options { revoke_slack_ms: usual.revoke_slack_ms + outage_ms(history), ..usual };
    for found in models::check(history, options, &mut Budget::steps(STEPS)) {
        match found.verdict {
            Verdict::Valid => {}
            verdict => return Err(Failure::History(format!("{}: {verdict}", found.key))),
        }
    }
    Ok(())
}
