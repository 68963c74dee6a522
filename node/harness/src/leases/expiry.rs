//! How leases end: as the cluster says of all of them, and as a client sees it of some.
//!
//! The cluster's own figure is the histogram `vault.expire.lateness` of the active node: how long after its time each
//! lease's record was gone. A client sees a token refused the moment it ends, whenever its record goes; the lease of a
//! database it sees until the user is removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::database::{FAST, SLOW};
use super::{Plan, Result, ask, call};
use crate::{Cluster, HarnessError};

/// Tokens looked at by a client.
pub(super) const SAMPLES: usize = 200;
/// Before its end a lease must be there. A request takes time, and TTLs count from before its answer.
const BEFORE: Duration = Duration::from_millis(1_500);
/// Between two looks for whether it is gone.
const LOOK: Duration = Duration::from_millis(200);
/// Whoever is still there so long after its end stays out of the count of those who went.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the metrics: windows are of ten seconds.
const POLL: Duration = Duration::from_secs(3);
/// Longest wait for the leases of a database that answers again: a failed one is tried again ever later.
const HEALING: Duration = Duration::from_secs(240);
/// Name of the histogram.
const LATENESS: &str = "vault.expire.lateness";

/// What is looked at.
#[derive(Clone, Debug)]
pub(super) enum Handle {
    Accessor(String),
    Lease(String),
}

/// One lease that a client looks at.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    handle: Handle,
    ends: Instant,
}

impl Sample {
    /// Of the answer that brought a token.
    pub(super) fn of_token(answer: &Value) -> Option<Self> {
        let auth = answer.get("auth")?;
        let seconds = auth.get("lease_duration")?.as_u64()?;
        let handle = Handle::Accessor(auth.get("accessor")?.as_str()?.to_owned());
        Some(Self { handle, ends: Instant::now() + Duration::from_secs(seconds) })
    }

    /// Of the answer that brought a secret.
    pub(super) fn of_secret(answer: &Value) -> Option<Self> {
        let seconds = answer.get("lease_duration")?.as_u64()?;
        let handle = Handle::Lease(answer.get("lease_id")?.as_str()?.to_owned());
        Some(Self { handle, ends: Instant::now() + Duration::from_secs(seconds) })
    }

    async fn is_there(&self, cluster: &Cluster, at: usize) -> Result<bool> {
        let (path, body) = match &self.handle {
            Handle::Accessor(accessor) => ("/v1/auth/token/lookup-accessor", json!({"accessor": accessor})),
            Handle::Lease(id) => ("/v1/sys/leases/lookup", json!({"lease_id": id})),
        };
        match call(cluster, at, "POST", path, &body).await?.0 {
            200 => Ok(true),
            400 | 403 | 404 => Ok(false),
            status => Err(HarnessError(format!("{path}: status {status}"))),
        }
    }

    fn kind(&self) -> &'static str {
        match &self.handle {
            Handle::Accessor(_) => "token",
            Handle::Lease(id) if id.starts_with(SLOW) => SLOW,
            Handle::Lease(_) => FAST,
        }
    }

    /// Whether it ended early, and how late it was gone.
    async fn watch(self, cluster: &Cluster, at: usize) -> Result<(bool, Option<Duration>)> {
        let at = at % cluster.nodes.len().max(1);
        tokio::time::sleep(self.ends.saturating_duration_since(Instant::now() + BEFORE)).await;
        if !self.is_there(cluster, at).await? {
            return Ok((true, None));
        }
        if self.kind() == SLOW {
            return Ok((false, None)); // Its database hangs: it cannot be gone in time.
        }
        tokio::time::sleep(self.ends.saturating_duration_since(Instant::now())).await;
        while self.ends.elapsed() < PATIENCE {
            if !self.is_there(cluster, at).await? {
                return Ok((false, Some(self.ends.elapsed())));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok((false, None))
    }
}

/// What clients saw of some leases.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How many were looked at.
    pub looked_at: usize,
    /// Gone before their time.
    pub early: usize,
    /// How late the others were gone, sorted.
    pub late: Vec<Duration>,
}

/// How leases ended.
#[derive(Clone, Debug, Default)]
pub struct Expiry {
    /// Whose lateness the active node has recorded.
    pub counted: u64,
    /// Lateness in each window of ten seconds: the middle one, the 99th percentile, the largest, milliseconds.
    pub windows: Vec<[f64; 3]>,
    /// By kind of lease.
    pub seen: BTreeMap<&'static str, Seen>,
    /// Service tokens that are left, the root token among them.
    pub accessors_left: usize,
    /// Writes acknowledged meanwhile.
    pub writes: u64,
}

/// Watches until everything that is to end has ended.
pub(super) async fn watch(
    plan: &Plan,
    cluster: &Cluster,
    samples: Vec<Sample>,
    say: &dyn Fn(&str),
) -> Result<Expiry> {
    // Failing over may have taken until after the first ends.
    let from = Instant::now() + BEFORE;
    let samples: Vec<Sample> = samples.into_iter().filter(|sample| sample.ends > from).collect();
    let last = samples.iter().map(|sample| sample.ends).max().unwrap_or_else(Instant::now);
    let watched = async {
        let all = samples.into_iter().enumerate().map(|(number, sample)| async move {
            let kind = sample.kind();
            Ok::<_, HarnessError>((kind, sample.watch(cluster, number).await?))
        });
        futures::future::try_join_all(all).await
    };
    let (seen, mut expiry) = tokio::try_join!(watched, follow(plan, cluster, last, say))?;
    for (kind, (is_early, late)) in seen {
        let of_kind = expiry.seen.entry(kind).or_default();
        of_kind.looked_at += 1;
        of_kind.early += usize::from(is_early);
        of_kind.late.extend(late);
    }
    expiry.seen.values_mut().for_each(|seen| seen.late.sort_unstable());
    let listed = ask(cluster, "LIST", "/v1/auth/token/accessors?limit=1000", &Value::Null).await?;
    expiry.accessors_left = listed.pointer("/data/keys").and_then(Value::as_array).map_or(0, Vec::len);
    Ok(expiry)
}

/// Follows the active node's metrics until as many leases have ended as were granted.
async fn follow(plan: &Plan, cluster: &Cluster, last: Instant, say: &dyn Fn(&str)) -> Result<Expiry> {
    let (mut expiry, mut window, mut told) = (Expiry::default(), String::new(), Instant::now());
    let wanted = (plan.leases + plan.database_leases) as u64;
    let mut quiet = 0;
    // The last window is shown only once it is over.
    while quiet < 8 && last.elapsed() < PATIENCE {
        let shown = ask(cluster, "GET", "/v1/sys/metrics", &Value::Null).await?;
        let (count, quantiles) = totals(cluster).await?;
        let timestamp = shown.get("Timestamp").and_then(Value::as_str).unwrap_or_default();
        let sample = sample_of(&shown).filter(|(count, _)| *count > 0);
        if timestamp != window
            && let Some((_, max)) = sample
        {
            expiry.windows.push([quantiles[0], quantiles[1], max]);
        }
        timestamp.clone_into(&mut window);
        expiry.counted = count;
        quiet = if count >= wanted { quiet + 1 } else { 0 };
        if told.elapsed() >= Duration::from_secs(20) {
            told = Instant::now();
            say(&format!("{count} ended"));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(expiry)
}

/// Count and largest value of the last whole window.
fn sample_of(metrics: &Value) -> Option<(u64, f64)> {
    let samples = metrics.get("Samples")?.as_array()?;
    let found = samples.iter().find(|sample| sample.get("Name").and_then(Value::as_str) == Some(LATENESS))?;
    Some((found.get("Count")?.as_u64()?, found.get("Max")?.as_f64()?))
}

/// How many there were since the node's start, and the quantiles 0.5 and 0.99 of lately.
async fn totals(cluster: &Cluster) -> Result<(u64, [f64; 2])> {
    let at = cluster.active().await?;
    let node = cluster.nodes.get(at).ok_or_else(|| HarnessError(format!("there is no node {at}")))?;
    let failed = |err: std::io::Error| HarnessError::new("metrics", err);
    let mut connection = crate::raw::Connection::open(node.port).await.map_err(failed)?;
    let path = "/v1/sys/metrics?format=prometheus";
    let text = connection.call("GET", path, &cluster.root_token, "").await.map_err(failed)?.text();
    let value = |start: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(start));
        line.and_then(|rest| rest.trim().parse::<f64>().ok()).unwrap_or_default()
    };
    let name = LATENESS.replace('.', "_");
    let quantile = |of: &str| value(&format!("{name}{{quantile=\"{of}\"}} "));
    Ok((value(&format!("{name}_count ")) as u64, [quantile("0.5"), quantile("0.99")]))
}

/// Waits until the database that answers again has no lease left; answers how long that took.
pub(super) async fn wait_for_healed(cluster: &Cluster) -> Result<Duration> {
    let began = Instant::now();
    let path = format!("/v1/sys/leases/lookup/{SLOW}/creds");
    while began.elapsed() < HEALING {
        let (status, _) = call(cluster, cluster.active().await?, "LIST", &path, &Value::Null).await?;
        if status == 404 {
            return Ok(began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Err(HarnessError("leases of the database that answers again are left".to_owned()))
}
