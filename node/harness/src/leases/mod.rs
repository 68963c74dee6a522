//! A great many leases: granted, carried over the death of the active node, ended each at its time while a database
//! hangs, and then as many revoked by prefix. What is measured, and what of it breaks a bound.
//! Read next: [`grant`](mod@grant) for how they are made, [`expiry`] for how their ends are watched,
//! [`revoke`](mod@revoke) for the second half.

pub mod database;
mod expiry;
mod grant;
mod node;
pub mod report;
mod revoke;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::failover::kill_active;
use crate::load::Writer;
use crate::{Cluster, ClusterOptions, HarnessError};

use database::Databases;
pub use expiry::Expiry;
use grant::{Granting, grant};
pub use report::Report;
pub use revoke::{Look, Revocation};

type Result<T> = std::result::Result<T, HarnessError>;

/// Grants by which the rate is estimated.
const WARM_UP: usize = 2_000;
/// The same for one database user, which is made while nothing else is.
const PER_USER: Duration = Duration::from_millis(40);
/// Writers that go on while leases end.
const WRITERS: usize = 4;
/// Lifetime of leases that are to be revoked.
const LONG: Duration = Duration::from_secs(86_400);
/// Where tokens are made that end by themselves.
const EXPIRING: &str = "/v1/auth/token/create";
/// How much longer granting a million takes than the first few would have one believe: tables grow, and are compacted meanwhile.
const SLOWER: f64 = 2.5;
/// Where tokens are made that are revoked.
const REVOKED: &str = "/v1/auth/token/create-orphan";

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Leases that end by themselves.
    pub leases: usize,
    /// Leases that are revoked by prefix.
    pub revoked: usize,
    /// Time over which the ends are spread.
    pub window: Duration,
    /// Between the estimated end of granting and the first lease's end: time to kill a node in.
    pub margin: Duration,
    /// Leases of each of the two databases; none for no database.
    pub database_leases: usize,
    /// Connections that grant.
    pub connections: usize,
    /// Whether the active node is killed while leases are revoked, too.
    pub kills_during_revocation: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            leases: 1_000_000,
            revoked: 1_000_000,
            window: Duration::from_secs(180),
            margin: Duration::from_secs(25),
            database_leases: 200,
            connections: 64,
            kills_during_revocation: true,
        }
    }
}

/// Does all of it, with this `arca`. `say` hears of each step.
///
/// # Errors
/// When the cluster, a database or a request fails. A broken bound is no error: it stands in the report.
pub async fn run(plan: &Plan, binary: &Path, say: &dyn Fn(&str)) -> Result<Report> {
    let dir = tempfile::tempdir().map_err(|err| HarnessError::new("making a directory", err))?;
    let options = ClusterOptions { is_tls: false, ..ClusterOptions::new(binary, dir.path()) };
    let mut cluster = Cluster::up(options).await?;
    let mut report = Report { plan: plan.clone(), ..Report::default() };
    report.memory.push(("at rest", node::memory(&cluster)));
    let databases = match plan.database_leases {
        0 => None,
        _ => Some(Databases::start(&cluster).await?),
    };
    let samples = grant_all(plan, &cluster, databases.as_ref(), &mut report, say).await?;
    report.memory.push(("all granted", node::memory(&cluster)));

    say("killing the active node under four writers");
    let kill = kill_active(&mut cluster, 0).await?;
    report.failover = kill.gap;
    report.memory.push(("failed over", node::memory(&cluster)));
    say(&format!("longest time without a write: {:.3} s", kill.gap.as_secs_f64()));

    if let Some(databases) = &databases {
        say("from now on the second database does not answer");
        databases.slow.hang();
    }
    let writers = start_writers(&cluster)?;
    report.expiry = expiry::watch(plan, &cluster, samples, say).await?;
    for writer in writers {
        report.expiry.writes += writer.finish(&cluster.client(cluster.active().await?)?).await?.acknowledged;
    }
    report.memory.push(("all ended", node::memory(&cluster)));
    if let Some(databases) = &databases {
        databases.slow.heal();
        say("the second database answers again");
    }
    if plan.revoked > 0 {
        let granting = Granting { path: REVOKED, count: plan.revoked, connections: plan.connections };
        let made = grant(&cluster, granting, |_| LONG, usize::MAX, say).await?;
        report.second_grant_rate = made.rate();
        report.memory.push(("granted again", node::memory(&cluster)));
        report.revocation = revoke::watch(plan, &mut cluster, say).await?;
        report.memory.push(("all revoked", node::memory(&cluster)));
    }
    if databases.is_some() {
        report.healed = Some(expiry::wait_for_healed(&cluster).await?);
    }
    report.memory_peak = node::memory_peaks(&cluster);
    Ok(report)
}

/// Grants everything that is to end by itself, so that it ends within the window.
async fn grant_all(
    plan: &Plan,
    cluster: &Cluster,
    databases: Option<&Databases>,
    report: &mut Report,
    say: &dyn Fn(&str),
) -> Result<Vec<expiry::Sample>> {
    let warm_up = Granting { path: REVOKED, count: WARM_UP, connections: plan.connections };
    let warm = grant(cluster, warm_up, |_| Duration::from_secs(5), usize::MAX, &|_| {}).await?;
    let users = u32::try_from(2 * plan.database_leases).unwrap_or(u32::MAX);
    let tokens = Duration::from_secs_f64(plan.leases as f64 / warm.rate().max(1.0) * SLOWER);
    let estimate = tokens + PER_USER * users + plan.margin;
    say(&format!(
        "{:.0} grants a second: the first lease is to end in {} s",
        warm.rate(),
        estimate.as_secs()
    ));
    let ends_from = Instant::now() + estimate;
    let mut samples = Vec::new();
    if let Some(databases) = databases {
        samples.extend(databases.grant(cluster, plan.database_leases, ends_from, plan.window).await?);
        say(&format!("{} leases of each of two databases", plan.database_leases));
    }
    let granting = Granting { path: EXPIRING, count: plan.leases, connections: plan.connections };
    let ttl =
        |number| (ends_from + grant::spread(number, plan.window)).saturating_duration_since(Instant::now());
    let made = grant(cluster, granting, ttl, (plan.leases / expiry::SAMPLES).max(1), say).await?;
    (report.grant_rate, report.granted) = (made.rate(), made.count);
    let left = ends_from.saturating_duration_since(Instant::now());
    say(&format!(
        "{} granted at {:.0} a second; the first ends in {} s",
        made.count,
        made.rate(),
        left.as_secs()
    ));
    samples.extend(made.samples);
    if left.is_zero() {
        return Err(HarnessError("the first leases ended before the last were granted".to_owned()));
    }
    Ok(samples)
}

fn start_writers(cluster: &Cluster) -> Result<Vec<Writer>> {
    let numbers = 0..WRITERS;
    let started = numbers.map(|number| {
        let mut clients =
            (0..cluster.nodes.len()).map(|at| cluster.client(at)).collect::<Result<Vec<_>>>()?;
        let turn = number % clients.len().max(1);
        clients.rotate_left(turn);
        Ok(Writer::start(&format!("meanwhile{number}"), clients))
    });
    started.collect()
}

/// Sends one request with the root token, as JSON, and answers the JSON it is answered.
async fn call(
    cluster: &Cluster,
    at: usize,
    method: &str,
    path: &str,
    body: &serde_json::Value,
) -> Result<(u16, serde_json::Value)> {
    let node = cluster.nodes.get(at).ok_or_else(|| HarnessError(format!("there is no node {at}")))?;
    let failed = |err: std::io::Error| HarnessError::new(path, err);
    let mut connection = crate::raw::Connection::open(node.port).await.map_err(failed)?;
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let answer = connection.call(method, path, &cluster.root_token, &text).await.map_err(failed)?;
    Ok((answer.status, answer.json()))
}

/// As [`call`], to whichever node is active; anything but success is an error.
async fn ask(
    cluster: &Cluster,
    method: &str,
    path: &str,
    body: &serde_json::Value,
) -> Result<serde_json::Value> {
    let (status, answer) = call(cluster, cluster.active().await?, method, path, body).await?;
    match status {
        200..300 => Ok(answer),
        _ => Err(HarnessError(format!("{method} {path}: status {status}, {}", json!(answer)))),
    }
}
