//! Granting as fast as the cluster takes it: many connections, each its next request when the last one is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Result;
use super::expiry::Sample;
use crate::raw::{Answer, Connection};
use crate::{Cluster, HarnessError};

/// Times a request is repeated.
const ATTEMPTS: u32 = 50;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines about how far it is.
const NEWS: Duration = Duration::from_secs(20);

/// What to grant.
#[derive(Clone, Copy)]
pub(super) struct Granting {
    /// Where the tokens are made.
    pub(super) path: &'static str,
    pub(super) count: usize,
    pub(super) connections: usize,
}

/// What was granted.
pub(super) struct Granted {
    pub(super) count: usize,
    pub(super) spent: Duration,
    pub(super) samples: Vec<Sample>,
}

impl Granted {
    /// A second.
    pub(super) fn rate(&self) -> f64 {
        self.count as f64 / self.spent.as_secs_f64().max(1e-3)
    }
}

/// Where in the window a lease ends: evenly spread, in no order.
pub(super) fn spread(number: usize, window: Duration) -> Duration {
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    window.mul_f64(mixed as f64 / f64::from(u32::MAX))
}

/// Makes tokens at the active node, each with the lifetime that `ttl` gives its number; every `sample`th is a sample.
pub(super) async fn grant(
    cluster: &Cluster,
    granting: Granting,
    ttl: impl Fn(usize) -> Duration,
    sample: usize,
    say: &dyn Fn(&str),
) -> Result<Granted> {
    let port = cluster.nodes.get(cluster.active().await?).map(|node| node.port).unwrap_or_default();
    let (next, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let workers =
        (0..granting.connections).map(|_| work(port, &cluster.root_token, granting, &ttl, sample, &next));
    let mut all = std::pin::pin!(futures_of(workers));
    loop {
        match tokio::time::timeout(NEWS, all.as_mut()).await {
            Ok(samples) => {
                let samples = samples?;
                return Ok(Granted { count: granting.count, spent: began.elapsed(), samples });
            }
            Err(_) => say(&format!("{} of {} granted", next.load(Ordering::Relaxed), granting.count)),
        }
    }
}

async fn futures_of(
    workers: impl Iterator<Item = impl Future<Output = Result<Vec<Sample>>>>,
) -> Result<Vec<Sample>> {
    let samples = futures::future::try_join_all(workers).await?;
    Ok(samples.into_iter().flatten().collect())
}

async fn work(
    port: u16,
    token: &str,
    granting: Granting,
    ttl: &impl Fn(usize) -> Duration,
    sample: usize,
    next: &AtomicUsize,
) -> Result<Vec<Sample>> {
    let (mut connection, mut samples) = (None, Vec::new());
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= granting.count {
            return Ok(samples);
        }
        let seconds = ttl(number).as_secs().max(1);
        let body = format!("{{\"policies\":[\"default\"],\"ttl\":\"{seconds}s\"}}");
        let answer = insist(&mut connection, port, token, granting.path, &body).await?;
        if number.is_multiple_of(sample) {
            samples.extend(Sample::of_token(&answer.json()));
        }
    }
}

/// Repeats a request until it succeeds.
async fn insist(
    kept: &mut Option<Connection>,
    port: u16,
    token: &str,
    path: &str,
    body: &str,
) -> Result<Answer> {
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let connected = match kept.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(port).await,
        };
        let answered = match connected {
            Ok(mut connection) => {
                let answer = connection.call("POST", path, token, body).await;
                *kept = answer.is_ok().then_some(connection);
                answer
            }
            Err(err) => Err(err),
        };
        match answered {
            Ok(answer) if matches!(answer.status, 200..300) => return Ok(answer),
            Ok(answer) => said = format!("status {}, {}", answer.status, answer.text()),
            Err(err) => said = err.to_string(),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(HarnessError::new(path, said))
}
