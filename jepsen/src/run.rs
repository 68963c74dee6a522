//! One run: a cluster, a workload, faults by a plan, healing, and a conclusion.

use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_harness::HarnessError;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cluster::{Cluster, Options};
use crate::conclusion::{Conclusion, Happened, conclude};
use crate::dice::Dice;
use crate::faults::{Class, FaultLog};
use crate::history::recorder::Recorder;
use crate::postgres::Postgres;
use crate::schedule::{Mixing, Planned, carry_out, plan};
use crate::workload::{PACE, Shared, Worker, Workload, look_everywhere};

/// After the last fault was healed, every node serves again within this.
const HEAL_LIMIT: Duration = Duration::from_secs(90);

/// Nodes keep no more of the log than this, so that those who were away or are new get snapshots.
const LOG_BYTES: u64 = 4 << 20;

type Result<T> = std::result::Result<T, HarnessError>;

/// What to run.
pub struct Settings {
    /// The `arca` binary.
    pub binary: PathBuf,
    /// How many nodes.
    pub nodes: usize,
    /// How many clients.
    pub clients: usize,
    /// How long faults are begun.
    pub length: Duration,
    /// Which.
    pub classes: Vec<Class>,
    /// Whether they wait for each other.
    pub mixing: Mixing,
    /// What clients do.
    pub workload: Box<dyn Workload>,
    /// For all choices.
    pub seed: u64,
    /// Where everything goes: an absolute path.
    pub report: PathBuf,
    /// How long the history may be checked.
    pub check_limit: Duration,
    /// Whether data directories are kept after a run that passed.
    pub keeps_data: bool,
}

/// Carries a run out, and concludes it.
///
/// # Errors
/// When the harness fails. What the cluster does wrong is in the conclusion.
pub async fn run(settings: &Settings) -> Result<Conclusion> {
    let at = |what: &str, err: &dyn std::fmt::Display| HarnessError::new(what, err);
    let nodes_dir = settings.report.join("nodes");
    fs::create_dir_all(&nodes_dir).map_err(|err| at("creating the report's directory", &err))?;
    let planned = plan(settings.seed, &settings.classes, settings.length, settings.mixing);
    let options = Options {
        binary: settings.binary.clone(),
        nodes: settings.nodes,
        site: 0,
        dir: nodes_dir,
        seed: settings.seed,
        can_break_disks: settings.classes.iter().any(|class| class.breaks_disks()),
        can_set_clocks: settings.classes.contains(&Class::Clock),
        extra_config: String::new(),
        extra_storage: format!("  log_retention_bytes = {LOG_BYTES}\n"),
    };
    let (mut cluster, removed) = Cluster::build(options)?;
    for what in removed {
        eprintln!("removed what an earlier run left: {what}");
    }
    cluster.up().await?;
    set_up(settings, &mut cluster).await?;
    let start = Instant::now();
    let now = move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let history = fs::File::create(settings.report.join("history.jsonl"));
    let history = history.map_err(|err| at("creating the history", &err))?;
    let recorder = Recorder::with_copy(Box::new(now), Box::new(BufWriter::new(history)));
    let log = FaultLog::new(Arc::new(now), true);
    let mut problems = work(settings, &cluster, &planned, &recorder, &log).await?;
    // It is not needed any more, and the check has the machine to itself.
    drop(cluster);
    let incidents = log.incidents();
    problems.extend(incidents.iter().filter_map(|incident| {
        incident.problem.as_ref().map(|problem| format!("{}: {problem}", incident.class))
    }));
    let history = recorder.history().map_err(|err| at("writing the history", &err))?;
    let concluded = conclude(settings, Happened { history, planned, incidents, problems }).await?;
    if concluded.shortcomings.is_empty() && !settings.keeps_data {
        remove_data(&settings.report.join("nodes"), settings.nodes);
    }
    Ok(concluded)
}

/// Prepares what the workload needs besides the mounts of all.
async fn set_up(settings: &Settings, cluster: &mut Cluster) -> Result<()> {
    if settings.workload.needs_database() {
        let database = Postgres::start(&settings.report.join("postgresql.log")).await?;
        cluster.put_beside(Arc::new(database))?;
    }
    settings.workload.set_up(&cluster.client(0)?, cluster.database.as_ref()).await
}

/// Workers and faults side by side; then healing, while workers go on. Answers what did not heal.
async fn work(
    settings: &Settings,
    cluster: &Cluster,
    planned: &[Planned],
    recorder: &Recorder,
    log: &FaultLog,
) -> Result<Vec<String>> {
    let (stop, stopped) = watch::channel(false);
    let clients = (0..settings.nodes).map(|at| cluster.client(at)).collect::<Result<Vec<_>>>()?;
    let shared = Arc::new(Shared {
        clients,
        recorder: recorder.clone(),
        stop: stopped,
        pace: PACE,
        complaints: Mutex::default(),
    });
    let mut dice = Dice::new(settings.seed).split();
    let workers = (0_u64..)
        .take(settings.clients)
        .filter_map(|number| Worker::new(number, &shared, dice.split()))
        .map(|worker| settings.workload.run(worker));
    let workers = futures::future::join_all(workers);
    let faults = async {
        carry_out(cluster, planned, settings.length, settings.mixing, log).await;
        let left = settings.length.saturating_sub(Duration::from_nanos(recorder.now()));
        tokio::time::sleep(left).await;
        let problems = heal(cluster).await;
        let _ = stop.send(true);
        problems
    };
    let (_, mut problems) = tokio::join!(workers, faults);
    let history = recorder.history().map_err(|err| HarnessError::new("writing the history", err))?;
    match look_everywhere(&shared, &history).await {
        0 => {}
        count => problems.push(format!("after all faults were healed, {count} reads were not answered")),
    }
    let dice = Dice::for_purpose(settings.seed, "winding up");
    if let Some(done) = settings.workload.wind_up(&shared, dice).await {
        eprintln!("{done}");
    }
    problems.append(&mut shared.complaints.lock());
    Ok(problems)
}

/// Ends every fault, brings every node back, and waits until all of them serve.
async fn heal(cluster: &Cluster) -> Vec<String> {
    cluster.network.heal();
    let mut problems = Vec::new();
    if let Some(database) = &cluster.database {
        database.resume();
        if let Err(err) = database.run().await {
            problems.push(err.0);
        }
    }
    for (at, node) in cluster.nodes.iter().enumerate() {
        node.disk.heal();
        let _ = node.clock.set_offset_millis(0);
        if let Err(err) = cluster.restart(at, HEAL_LIMIT).await {
            problems.push(err.0);
        }
    }
    if let Err(err) = cluster.wait_until_whole(HEAL_LIMIT).await {
        problems.push(format!("after all faults were healed: {err}"));
    }
    problems
}

/// Removes what nodes stored; logs and configurations stay.
pub(crate) fn remove_data(nodes: &Path, count: usize) {
    for number in 1..=count {
        for name in ["backing", "disk"] {
            let _ = fs::remove_dir_all(nodes.join(format!("node{number}")).join(name));
        }
    }
}
