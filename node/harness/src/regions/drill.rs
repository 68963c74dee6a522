//! The drill: a primary's region is cut off under load and its DR secondary promoted; the old primary comes back, is fenced,
//! follows; roles are switched back as planned. Measured: what is missing, and for how long nobody took writes.

use std::path::Path;
use std::time::{Duration, Instant};

use arca_client::{Client, Request};
use serde_json::{Map, Value, json};

use super::far::Far;
use super::link::Link;
use super::region::Region;
use crate::HarnessError;
use crate::load::{Writer, read_number};

type Result<T> = std::result::Result<T, HarnessError>;

/// Writers at once.
const WRITERS: usize = 4;
/// For a writer to get on.
const LIVENESS: Duration = Duration::from_secs(60);
/// Lag that is good enough to go on with, entries.
const CLOSE: u64 = 200;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Round trip between the regions.
    pub round_trip: Duration,
    /// Load before the primary's region is cut off.
    pub before: Duration,
    /// How long the old primary takes writes that nobody else gets.
    pub alone: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            round_trip: Duration::from_millis(80),
            before: Duration::from_secs(10),
            alone: Duration::from_secs(2),
        }
    }
}

/// What it showed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// From the order to copy to the first time nothing was behind.
    pub copied: Duration,
    /// Largest lag seen under load, by the primary's status, entries.
    pub lag_entries: u64,
    /// Writes acknowledged before the cut.
    pub acknowledged: u64,
    /// Writes that the old primary had acknowledged and the new one does not have.
    pub missing: u64,
    /// Of them, acknowledged before the region was cut off.
    pub missing_before_cut: u64,
    /// The lag that the old primary said it had when it was promoted away, entries.
    pub lag_said: u64,
    /// From the order to promote to the first write.
    pub recovered: Duration,
    /// Writes of the old primary that `tail` lists.
    pub tail: u64,
    /// From update-primary to following again.
    pub rejoined: Duration,
    /// What that transferred.
    pub rejoined_bytes: u64,
    /// From the first order of the planned switch to the first write on the other side.
    pub switched: Duration,
    /// Writes acknowledged over the planned switch: none of them may be missing.
    pub switched_acknowledged: u64,
    /// A write that the performance secondary had its primary do, until it was readable at both.
    pub far_write: Duration,
    /// From telling the performance secondary of the promoted DR secondary to having everything of it.
    pub far_came_over: Duration,
}

fn said(what: &str) {
    println!("==> {what}");
}

fn number(status: &Map<String, Value>, name: &str) -> u64 {
    status.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn follows(status: &Map<String, Value>) -> bool {
    status.get("state").and_then(Value::as_str) == Some("stream-wals")
}

/// What the primary says about how far its secondary is.
fn lag_of_secondary(status: &Map<String, Value>) -> Result<u64> {
    let rows = status.get("secondaries").and_then(Value::as_array).cloned().unwrap_or_default();
    let lags = rows.iter().filter_map(|row| row.get("lag_entries")?.as_u64());
    lags.min().ok_or_else(|| HarnessError("the primary's status shows no secondary".to_owned()))
}

/// The two regions and what lies between.
struct Drill {
    plan: Plan,
    east: Region,
    west: Region,
    /// How the west reaches the east, and the other way round.
    to_east: Link,
    to_west: Link,
    report: Report,
    /// From before everything, to be good after it.
    kept: Kept,
    /// The region that serves.
    far: Option<Far>,
}

/// What clients had before the primary's region was lost.
#[derive(Default)]
struct Kept {
    token: String,
    lease: String,
}

/// Runs it, below `dir`.
///
/// # Errors
/// When anything is lost that must not be, or does not happen in time.
pub async fn run(plan: Plan, binary: &Path, dir: &Path) -> Result<Report> {
    said("two regions of three nodes, and one of one");
    let east = Region::up("east", binary, dir).await?;
    let west = Region::up("west", binary, dir).await?;
    let half = plan.round_trip / 2;
    let to_east = Link::open(east.cluster_ports(), half).await?;
    let to_west = Link::open(west.cluster_ports(), half).await?;
    let (report, kept) = (Report::default(), Kept::default());
    let mut drill = Drill { plan, east, west, to_east, to_west, report, kept, far: None };
    drill.follow().await?;
    drill.serve_far(binary, dir).await?;
    drill.lose_the_east().await?;
    drill.bring_the_east_back().await?;
    drill.switch_back().await?;
    Ok(drill.report)
}

fn writers(region: &Region, prefix: &str) -> Result<Vec<Writer>> {
    (0..WRITERS).map(|at| Ok(Writer::start(&format!("{prefix}{at}"), region.clients(at)?))).collect()
}

async fn progress(writers: &[Writer], more: u64) -> Result<()> {
    for writer in writers {
        writer.progress(more, LIVENESS).await?;
    }
    Ok(())
}

impl Drill {
    /// The west becomes a DR secondary of the east, under load.
    async fn follow(&mut self) -> Result<()> {
        said("east becomes a primary, west its DR secondary, while clients write to the east");
        let load = writers(&self.east, "first-")?;
        progress(&load, 50).await?;
        self.keep_something().await?;
        let address = format!("127.0.0.1:{}", self.to_east.port);
        self.east.order("primary/enable", &json!({ "primary_cluster_addr": address })).await?;
        let token = self.east.secondary_token("west").await?;
        self.west.order("secondary/enable", &json!({ "token": token })).await?;
        let until =
            self.west.until("the copy", |status| follows(status) && number(status, "lag_entries") < CLOSE);
        self.report.copied = until.await?;
        // Its shares and its root token are the primary's now.
        self.west.cluster.shares = self.east.cluster.shares.clone();
        let until = Instant::now() + self.plan.before;
        while Instant::now() < until {
            let lag = lag_of_secondary(&self.east.status().await?)?;
            self.report.lag_entries = self.report.lag_entries.max(lag);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let reader = self.east.active().await?;
        for writer in load {
            self.report.acknowledged += writer.finish(&reader).await?.acknowledged;
        }
        let refused = self.west.cluster.client(0)?.read("secret/data/first-0").await;
        match refused {
            Err(err) if err.status().is_some_and(|status| status.as_u16() == 472) => Ok(()),
            other => Err(HarnessError(format!("a DR secondary answered: {other:?}"))),
        }
    }

    /// A token and a lease that have to be good on whichever cluster is the primary.
    async fn keep_something(&mut self) -> Result<()> {
        let client = self.east.active().await?;
        let failed = |err: arca_client::Error| HarnessError::new("making a token and a lease", err);
        let made = client.write("auth/token/create", &json!({"policies": ["root"], "ttl": "2h"})).await;
        let auth = made.map_err(failed)?.and_then(|made| made.auth).unwrap_or_default();
        auth.client_token.expose().clone_into(&mut self.kept.token);
        client.write("sys/mounts/pki", &json!({"type": "pki"})).await.map_err(failed)?;
        let root = json!({"common_name": "drill", "key_type": "ec"});
        client.write("pki/root/generate/internal", &root).await.map_err(failed)?;
        let role = json!({"allow_any_name": true, "generate_lease": true, "key_type": "ec", "ttl": "1h"});
        client.write("pki/roles/drill", &role).await.map_err(failed)?;
        let issued = client.write("pki/issue/drill", &json!({"common_name": "drill.example"})).await;
        self.kept.lease = issued.map_err(failed)?.map(|issued| issued.lease_id).unwrap_or_default();
        Ok(())
    }

    async fn check_kept(&self, region: &Region) -> Result<()> {
        let client = region.with_token(&self.kept.token).await?;
        let failed = |err| HarnessError::new(&format!("what was kept, in the {}", region.name), err);
        let seen = client.read("auth/token/lookup-self").await.map_err(failed)?;
        let lease = json!({ "lease_id": self.kept.lease });
        let found = client.write("sys/leases/lookup", &lease).await.map_err(failed)?;
        if seen.is_none() || found.is_none() {
            return Err(HarnessError(format!("the {} has lost a token or a lease", region.name)));
        }
        Ok(())
    }

    /// A third region becomes a performance secondary of the east, which is a primary of both kinds then.
    async fn serve_far(&mut self, binary: &Path, dir: &Path) -> Result<()> {
        said("far becomes a performance secondary of the east, without one of its mounts");
        let address = format!("127.0.0.1:{}", self.to_east.port);
        let far = self.far.insert(Far::follow(&self.east, &address, binary, dir).await?);
        self.report.far_write = far.check(&self.east).await?;
        let caught_up = |status: &Map<String, Value>| follows(status) && number(status, "lag_entries") == 0;
        self.west.until("the west to have that as well", caught_up).await.map(drop)
    }

    /// The performance secondary goes over to the west: everything that it wrote is there, its client goes on.
    async fn bring_far_over(&mut self) -> Result<()> {
        said("far goes over to the west by comparison, its client's token goes on");
        let address = format!("127.0.0.1:{}", self.to_west.port);
        let Some(far) = &mut self.far else { return Ok(()) };
        self.report.far_came_over = far.come_over(&self.west, Some(&address)).await?;
        far.check(&self.west).await.map(drop)
    }

    async fn lose_the_east(&mut self) -> Result<()> {
        said("east is cut off; its clients go on for a while");
        let load = writers(&self.east, "second-")?;
        progress(&load, 100).await?;
        self.to_east.cut();
        self.to_west.cut();
        let at_cut: Vec<u64> = load.iter().map(Writer::acknowledged).collect();
        tokio::time::sleep(self.plan.alone).await;
        said("west is promoted by key shares");
        let token = self.west.operation_token(&self.east.cluster.shares, 3).await?;
        let began = Instant::now();
        let address = format!("127.0.0.1:{}", self.to_west.port);
        let order = json!({"dr_operation_token": token, "primary_cluster_addr": address, "force": true});
        self.west.order("secondary/promote", &order).await?;
        self.west.cluster.root_token = self.east.cluster.root_token.clone();
        self.report.recovered = self.first_write(&self.west, began).await?;
        self.check_kept(&self.west).await?;
        let (old, new) = (self.east.active().await?, self.west.active().await?);
        for (at, writer) in load.into_iter().enumerate() {
            let done = writer.finish(&old).await?.acknowledged;
            let found = read_number(&new, &format!("second-{at}")).await;
            let found =
                found.map_err(|err| HarnessError::new("reading in the west", err))?.unwrap_or_default();
            self.report.missing += done.saturating_sub(found);
            let before = at_cut.get(at).copied().unwrap_or_default();
            self.report.missing_before_cut += before.saturating_sub(found);
        }
        self.report.lag_said = lag_of_secondary(&self.east.status().await?)?;
        for at in 0..WRITERS {
            let whole = read_number(&old, &format!("first-{at}")).await.ok().flatten();
            if whole.is_none() || read_number(&new, &format!("first-{at}")).await.ok().flatten() != whole {
                return Err(HarnessError(format!("LOST: first-{at}, which was shipped long ago")));
            }
        }
        // An entry holds at most one write of each writer, who waits for it.
        if self.report.missing > self.report.lag_said * WRITERS as u64 {
            let (missing, said) = (self.report.missing, self.report.lag_said);
            return Err(HarnessError(format!(
                "LOST: {missing} writes are missing, and the lag was said to be {said}"
            )));
        }
        Ok(())
    }

    /// From `began` to a write that the region has acknowledged.
    async fn first_write(&self, region: &Region, began: Instant) -> Result<Duration> {
        let mut last = String::new();
        while began.elapsed() < LIVENESS {
            let body = json!({"data": {"number": 1}});
            match region.active().await?.write("secret/data/recovered", &body).await {
                Ok(_) => return Ok(began.elapsed()),
                Err(err) => last = err.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err(HarnessError(format!("{} took no write after its promotion: {last}", region.name)))
    }

    async fn bring_the_east_back(&mut self) -> Result<()> {
        said("east is back: it hears that it is over, keeps its tail, follows the west by comparison");
        self.to_east.mend();
        self.to_west.mend();
        self.bring_far_over().await?;
        let fenced =
            |status: &Map<String, Value>| status.get("state").and_then(Value::as_str) == Some("fenced");
        self.east.until("the fence", fenced).await?;
        let client = self.east.active().await?;
        if client.write("secret/data/late", &json!({"data": {"number": 1}})).await.is_ok() {
            return Err(HarnessError("a fenced primary took a write".to_owned()));
        }
        self.report.tail = length_of_tail(&client).await?;
        self.east.order("primary/demote", &json!({})).await?;
        let token = self.west.secondary_token("east").await?;
        let began = Instant::now();
        let order = json!({ "token": token, "dr_operation_token": self.kept.token });
        self.east.order("secondary/update-primary", &order).await?;
        let follows = |status: &Map<String, Value>| follows(status) && number(status, "lag_entries") == 0;
        self.east.until("the east to follow", follows).await?;
        self.report.rejoined = began.elapsed();
        self.report.rejoined_bytes = number(&self.east.status().await?, "sync_bytes");
        Ok(())
    }

    async fn switch_back(&mut self) -> Result<()> {
        said("roles are switched back as planned, while clients write to whichever takes it");
        let both: Vec<_> = self.west.clients(0)?.into_iter().chain(self.east.clients(0)?).collect();
        let load: Vec<Writer> = (0..WRITERS)
            .map(|at| {
                let mut clients = both.clone();
                clients.rotate_left(at % 3);
                Writer::start(&format!("third-{at}"), clients)
            })
            .collect();
        progress(&load, 50).await?;
        let began = Instant::now();
        self.west.order("primary/demote", &json!({})).await?;
        let address = format!("127.0.0.1:{}", self.to_east.port);
        let order = json!({
            "dr_operation_token": self.kept.token, "primary_cluster_addr": address, "planned": true,
        });
        self.east.order("secondary/promote", &order).await?;
        self.report.switched = self.first_write(&self.east, began).await?;
        let token = self.east.secondary_token("west-again").await?;
        let order = json!({ "token": token, "dr_operation_token": self.kept.token });
        self.west.order("secondary/update-primary", &order).await?;
        progress(&load, 50).await?;
        let reader = self.east.active().await?;
        for writer in load {
            self.report.switched_acknowledged += writer.finish(&reader).await?.acknowledged;
        }
        self.check_kept(&self.east).await?;
        let follows = |status: &Map<String, Value>| follows(status) && number(status, "lag_entries") == 0;
        self.west.until("the west to follow again", follows).await?;
        // The east kept its own role of before.
        let Some(far) = &mut self.far else { return Ok(()) };
        far.come_over(&self.east, None).await?;
        far.check(&self.east).await.map(drop)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ms = |time: Duration| format!("{} ms", time.as_millis());
        let rows = [
            ("first copy, under load", ms(self.copied)),
            ("acknowledged before the cut", self.acknowledged.to_string()),
            ("largest lag seen meanwhile", format!("{} entries", self.lag_entries)),
            ("RPO: acknowledged and missing", format!("{} writes", self.missing)),
            ("of them before the cut", format!("{} writes", self.missing_before_cut)),
            ("lag that the old primary showed", format!("{} entries", self.lag_said)),
            ("RTO: promote to the first write", ms(self.recovered)),
            ("tail of the old primary", format!("{} writes", self.tail)),
            ("old primary follows again after", ms(self.rejoined)),
            ("planned switch to the first write", ms(self.switched)),
            ("acknowledged over it, none missing", self.switched_acknowledged.to_string()),
            ("shared write by way of the far region", ms(self.far_write)),
            ("far region follows the new primary after", ms(self.far_came_over)),
        ];
        for (name, value) in rows {
            writeln!(f, "| {name:<40} | {value:>16} |")?;
        }
        Ok(())
    }
}

/// How many writes a fenced primary kept.
async fn length_of_tail(client: &Client) -> Result<u64> {
    let (mut rows, mut after) = (0, String::new());
    loop {
        let request = Request::get("sys/replication/dr/tail").query("limit", "1000").query("after", &after);
        let page = client.read_request(request).await.map_err(|err| HarnessError::new("the tail", err))?;
        let Some(page) = page else { return Ok(rows) };
        rows += page.field("writes").and_then(Value::as_array).map_or(0, Vec::len) as u64;
        match page.field("next").and_then(Value::as_str) {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(rows),
        }
    }
}
