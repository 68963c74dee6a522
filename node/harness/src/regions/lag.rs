//! What a DR secondary costs its primary, and how far it is behind: writes as fast as they go, or as many a second as asked
//! for, by turns with the secondary cut off and with it following over a line that takes its time.
//!
//! The primary's nodes and those who write are kept on one processor, and everything else on the others: otherwise what is
//! measured is that the secondary's nodes, which would be other machines, take processors away. Every second round begins with the
//! secondary following: what is stored grows, and later turns are slower.

use std::fmt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::link::Link;
use super::region::Region;
use crate::HarnessError;
use crate::raw::Connection;

type Result<T> = std::result::Result<T, HarnessError>;

/// Between two looks at the primary's status.
const LOOK: Duration = Duration::from_millis(50);
/// The processor of the primary.
const FIRST: &str = "0";
/// A tick of Linux, which it has a hundred of a second.
const TICK_US: f64 = 10_000.0;
/// For the first connections and caches.
const WARM_UP: Duration = Duration::from_secs(3);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Round trip between the regions.
    pub round_trip: Duration,
    /// Of each turn.
    pub seconds: u64,
    /// Turns of each kind.
    pub rounds: usize,
    /// Connections that write at once.
    pub writers: usize,
    /// Writes a second that are tried at the most; as many as go, if none are given.
    pub rate: Option<f64>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { round_trip: Duration::from_millis(80), seconds: 15, rounds: 2, writers: 64, rate: None }
    }
}

/// What it showed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Writes a second, in each turn without the secondary.
    pub alone: Vec<f64>,
    /// The same, with it.
    pub followed: Vec<f64>,
    /// Processor time of the primary's nodes for a write, microseconds, in each turn without the secondary.
    pub alone_us: Vec<f64>,
    /// The same, with it.
    pub followed_us: Vec<f64>,
    /// Seconds that the secondary was behind while it followed, as the primary's status had it, ascending.
    pub lags: Vec<f64>,
    /// Until it had everything again after a turn in which it was cut off: the longest.
    pub caught_up: Duration,
}

impl Report {
    /// The share of its rate that the primary keeps.
    #[must_use]
    pub fn kept(&self) -> f64 {
        mean(&self.followed) / mean(&self.alone)
    }

    /// The lag that is not exceeded in this share of the looks, seconds.
    #[must_use]
    pub fn lag(&self, share: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (self.lags.len().saturating_sub(1) as f64 * share).ceil() as usize;
        self.lags.get(at).copied().unwrap_or(f64::NAN)
    }
}

#[expect(clippy::cast_precision_loss)]
fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len() as f64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rates =
            |rates: &[f64]| rates.iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join(", ");
        let times = |times: &[f64]| format!("{} µs", rates(times));
        let ms = |seconds: f64| format!("{:.0} ms", seconds * 1e3);
        let rows = [
            ("writes a second, secondary cut off", rates(&self.alone)),
            ("writes a second, secondary following", rates(&self.followed)),
            ("rate that the primary keeps", format!("{:.1} %", self.kept() * 100.0)),
            ("primary's processor time a write, cut off", times(&self.alone_us)),
            ("primary's processor time a write, following", times(&self.followed_us)),
            ("lag, acknowledgement and all: median", ms(self.lag(0.5))),
            ("lag: 99 % of the time below", ms(self.lag(0.99))),
            ("lag: largest", ms(self.lag(1.0))),
            ("caught up after a turn cut off", format!("{} ms", self.caught_up.as_millis())),
        ];
        for (name, value) in rows {
            writeln!(f, "| {name:<43} | {value:>16} |")?;
        }
        Ok(())
    }
}

/// Keeps processes on some processors.
fn pin_all(pids: impl IntoIterator<Item = u32>, processors: &str) -> Result<()> {
    pids.into_iter().try_for_each(|pid| pin(&["--all-tasks"], &pid.to_string(), processors))
}

fn pin(options: &[&str], task: &str, processors: &str) -> Result<()> {
    let mut taskset = Command::new("taskset");
    let done = taskset.args(options).args(["--cpu-list", "--pid", processors, task]).output();
    let done = done.map_err(|err| HarnessError::new("taskset", err))?;
    if !done.status.success() {
        return Err(HarnessError(format!("taskset: {}", String::from_utf8_lossy(&done.stderr))));
    }
    Ok(())
}

/// Keeps the thread that calls it where the primary is.
fn pin_thread() -> Result<()> {
    let failed = |err| HarnessError::new("finding the thread", err);
    let path = std::fs::read_link("/proc/thread-self").map_err(failed)?;
    let task = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    pin(&[], task, FIRST)
}

fn pids(region: &Region) -> impl Iterator<Item = u32> + '_ {
    region.cluster.nodes.iter().filter_map(crate::Node::pid)
}

/// The lag of the only secondary, as the primary's status has it.
fn lag_seconds(status: &Map<String, Value>) -> Option<f64> {
    let rows = status.get("secondaries")?.as_array()?;
    rows.iter().filter_map(|row| row.get("lag_seconds")?.as_f64()).reduce(f64::min)
}

/// Whether the only secondary has acknowledged everything.
fn has_all(status: &Map<String, Value>) -> bool {
    let rows = status.get("secondaries").and_then(Value::as_array);
    rows.is_some_and(|rows| rows.iter().any(|row| row.get("lag_entries").and_then(Value::as_u64) == Some(0)))
}

/// Runs it, below `dir`.
///
/// # Errors
/// When a write is refused, the secondary does not follow, or its state is another in the end.
pub async fn run(plan: Plan, binary: &Path, dir: &Path) -> Result<Report> {
    let east = Region::up("east", binary, dir).await?;
    let mut west = Region::up("west", binary, dir).await?;
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let is_pinned = processors > 1;
    if is_pinned {
        let others = format!("1-{}", processors - 1);
        pin_all(pids(&east), FIRST)?;
        pin_all(pids(&west).chain([std::process::id()]), &others)?;
    }
    let to_east = Link::open(east.cluster_ports(), plan.round_trip / 2).await?;
    let address = format!("127.0.0.1:{}", to_east.port);
    east.order("primary/enable", &json!({ "primary_cluster_addr": address })).await?;
    let token = east.secondary_token("west").await?;
    west.order("secondary/enable", &json!({ "token": token })).await?;
    let is_whole = |status: &Map<String, Value>| {
        let of = |name: &str| status.get(name);
        of("state").and_then(Value::as_str) == Some("stream-wals")
            && of("lag_entries").and_then(Value::as_u64) == Some(0)
    };
    west.until("the copy", is_whole).await?;
    west.cluster.shares.clone_from(&east.cluster.shares);
    let mut report = Report::default();
    let ground = Ground { region: &east, plan, is_pinned };
    ground.load(WARM_UP).await?;
    let turn = Duration::from_secs(plan.seconds);
    for round in 0..plan.rounds {
        let turns = if round % 2 == 0 { [false, true] } else { [true, false] };
        for is_followed in turns {
            if is_followed {
                let Turn { rate, processor_us, lags } = ground.load(turn).await?;
                report.followed.push(rate);
                report.followed_us.push(processor_us);
                report.lags.extend(lags);
            } else {
                to_east.cut();
                let Turn { rate, processor_us, .. } = ground.load(turn).await?;
                report.alone.push(rate);
                report.alone_us.push(processor_us);
                to_east.mend();
            }
            // By the primary's word: the secondary may not have noticed yet that it was cut off.
            let caught_up = east.until("the secondary to have the rest", has_all).await?;
            if !is_followed {
                report.caught_up = report.caught_up.max(caught_up);
            }
        }
    }
    report.lags.sort_by(f64::total_cmp);
    same(&east, &west).await?;
    Ok(report)
}

/// When each write is due, and how many were made.
struct Pace {
    began: Instant,
    until: Instant,
    /// Between two writes of all writers together.
    gap: Duration,
    turn: AtomicU32,
    written: AtomicU64,
}

impl Pace {
    /// Waits until one more write is due; false when time is up.
    async fn next(&self) -> bool {
        if !self.gap.is_zero() {
            let due = self.began + self.gap * self.turn.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep_until(due.min(self.until).into()).await;
        }
        Instant::now() < self.until
    }
}

/// Where is written, and how.
struct Ground<'a> {
    region: &'a Region,
    plan: Plan,
    /// The primary and the writers share a processor with nothing else.
    is_pinned: bool,
}

/// What a turn showed.
struct Turn {
    /// Writes a second.
    rate: f64,
    /// Processor time of the primary's nodes for a write, microseconds.
    processor_us: f64,
    /// What its status said of the lag, looked at in turns of both kinds, as a look costs it something.
    lags: Vec<f64>,
}

impl Ground<'_> {
    /// Writes for `turn`.
    async fn load(&self, turn: Duration) -> Result<Turn> {
        let (plan, cluster) = (self.plan, &self.region.cluster);
        let node = cluster.nodes.get(cluster.active().await?);
        let port = node.ok_or_else(|| HarnessError("no such node".to_owned()))?.port;
        let (began, spent_before) = (Instant::now(), processor_ticks(self.region)?);
        let mut lags = Vec::new();
        let pace = Arc::new(Pace {
            began,
            until: began + turn,
            gap: plan.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(rate.recip())),
            turn: AtomicU32::new(0),
            written: AtomicU64::new(0),
        });
        let (ended, ends) = tokio::sync::oneshot::channel();
        let (token, its, is_pinned) = (cluster.root_token.clone(), Arc::clone(&pace), self.is_pinned);
        std::thread::spawn(move || {
            let pinned = if is_pinned { pin_thread() } else { Ok(()) };
            // Nobody waits any more if a look at the status failed.
            let _ = ended.send(pinned.and_then(|()| write_all(port, &token, plan.writers, &its)));
        });
        while Instant::now() < pace.until {
            tokio::time::sleep(LOOK).await;
            lags.extend(lag_seconds(&self.region.status().await?));
        }
        let elapsed: Duration = ends.await.map_err(|err| HarnessError::new("the writers", err))??;
        let spent = processor_ticks(self.region)? - spent_before;
        #[expect(clippy::cast_precision_loss)]
        let (written, spent) = (pace.written.load(Ordering::Relaxed) as f64, spent as f64);
        Ok(Turn { rate: written / elapsed.as_secs_f64(), processor_us: spent * TICK_US / written, lags })
    }
}

/// Processor time that a region's nodes have taken so far, in the system's ticks (`proc_pid_stat(5)`).
fn processor_ticks(region: &Region) -> Result<u64> {
    let of_one = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let stat = stat.map_err(|err| HarnessError::new("reading a node's times", err))?;
        // Behind the name, which may hold anything: the state is the first field, times of user and system are 12 and 13.
        let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>());
        let field = |at: usize| fields.as_ref()?.get(at)?.parse::<u64>().ok();
        field(11)
            .zip(field(12))
            .map(|(user, system)| user + system)
            .ok_or_else(|| HarnessError("a node's times cannot be read".to_owned()))
    };
    pids(region).map(of_one).sum()
}

/// Runs all writers; answers how long they took.
fn write_all(port: u16, token: &str, writers: usize, pace: &Pace) -> Result<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|err| HarnessError::new("making a runtime", err))?;
    let writing = (0..writers).map(|at| write_until(port, token, at, pace));
    runtime.block_on(futures::future::try_join_all(writing))?;
    Ok(pace.began.elapsed())
}

async fn write_until(port: u16, token: &str, at: usize, pace: &Pace) -> Result<()> {
    let failed = |err| HarnessError::new("writing", err);
    let mut connection = Connection::open(port).await.map_err(failed)?;
    let path = format!("/v1/secret/data/lag-{at}");
    let mut number = 0;
    while pace.next().await {
        number += 1;
        let body = json!({"data": {"number": number, "filler": "x".repeat(100)}}).to_string();
        let answer = connection.call("POST", &path, token, &body).await.map_err(failed)?;
        if answer.status != 200 {
            return Err(HarnessError(format!("a write was answered {}: {}", answer.status, answer.text())));
        }
        pace.written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Both hold the same.
async fn same(east: &Region, west: &Region) -> Result<()> {
    let token = west.operation_token(&east.cluster.shares, 3).await?;
    let asked = json!({ "dr_operation_token": token });
    let said = west.order("secondary/merkle-check", &asked).await?;
    let report =
        said.as_ref().and_then(|said| said.field("merkle_corruption_report")).cloned().unwrap_or_default();
    match report.get("verdict").and_then(Value::as_str) {
        Some("same") => Ok(()),
        _ => Err(HarnessError(format!("the states are not the same: {report}"))),
    }
}
