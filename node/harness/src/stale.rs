//! Write through one node, read through another: what was acknowledged must be there, on every node, at once.
//! Many workers, each with its own key and one kept connection a node; half of them on KV version 1, half on version 2.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::Value;

use crate::raw::{Answer, Connection};

/// Where and how much.
#[derive(Clone, Debug)]
pub struct Plan {
    /// API ports, plain HTTP.
    pub ports: Vec<u16>,
    /// A token that may write below `kv1/` and `secret/`.
    pub token: String,
    /// Workers at once.
    pub workers: usize,
    /// Pairs in all.
    pub pairs: u64,
}

/// How far the workers have come, and what they found.
#[derive(Debug, Default)]
pub struct Progress {
    /// Write-then-read pairs completed.
    pub pairs: AtomicU64,
    /// Requests that failed: refused, cut off, answered with an error.
    pub failed: AtomicU64,
    /// Reads that did not show what had been acknowledged.
    pub stale: AtomicU64,
    /// Set to end the run early.
    pub stop: AtomicBool,
    /// The first stale reads, in words.
    pub examples: std::sync::Mutex<Vec<String>>,
}

impl Progress {
    fn note_stale(&self, text: String) {
        self.stale.fetch_add(1, Ordering::Relaxed);
        if let Ok(mut examples) = self.examples.lock()
            && examples.len() < 10
        {
            examples.push(text);
        }
    }
}

/// Runs until all pairs are done, or told to stop.
pub async fn run(plan: Plan, progress: Arc<Progress>) {
    let plan = Arc::new(plan);
    let workers: Vec<_> = (0..plan.workers)
        .map(|id| {
            let (plan, progress) = (Arc::clone(&plan), Arc::clone(&progress));
            let connections = plan.ports.iter().map(|_| None).collect();
            let dice = Dice(u64::try_from(id).unwrap_or_default() + 1);
            tokio::spawn(Worker { id, plan, progress, connections, dice }.work())
        })
        .collect();
    for worker in workers {
        // A worker that panicked is a bug of this program, and shows as missing pairs.
        let _ = worker.await;
    }
}

/// SplitMix64: which node is next need not be a secret, but the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).unwrap_or_default() % limit.max(1)
    }
}

struct Worker {
    id: usize,
    plan: Arc<Plan>,
    progress: Arc<Progress>,
    connections: Vec<Option<Connection>>,
    dice: Dice,
}

impl Worker {
    async fn work(mut self) {
        let (is_v2, id) = (self.id.is_multiple_of(2), self.id);
        let path = if is_v2 { format!("/v1/secret/data/stale/{id}") } else { format!("/v1/kv1/stale/{id}") };
        let mut number = 0_u64;
        while !self.progress.stop.load(Ordering::Relaxed)
            && self.progress.pairs.load(Ordering::Relaxed) < self.plan.pairs
        {
            number += 1;
            let body = if is_v2 {
                format!("{{\"data\":{{\"n\":{number}}}}}")
            } else {
                format!("{{\"n\":{number}}}")
            };
            let writer = self.dice.below(self.plan.ports.len());
            if !self
                .call(writer, "PUT", &path, &body)
                .await
                .is_some_and(|answer| matches!(answer.status, 200 | 204))
            {
                self.failed().await;
                continue;
            }
            let found = loop {
                let reader =
                    (writer + 1 + self.dice.below(self.plan.ports.len() - 1)) % self.plan.ports.len();
                match self.call(reader, "GET", &path, "").await {
                    Some(answer) if answer.status == 200 => {
                        break number_in(&answer.json(), is_v2).map(|found| (found, reader));
                    }
                    Some(answer) if answer.status == 404 => break Some((0, reader)),
                    _ if self.progress.stop.load(Ordering::Relaxed) => return,
                    _ => self.failed().await,
                }
            };
            self.progress.pairs.fetch_add(1, Ordering::Relaxed);
            // Nobody else writes here, so neither less nor more will do.
            match found {
                Some((found, _)) if found == number => {}
                found => self
                    .progress
                    .note_stale(format!("{path}: {number} acknowledged by node {writer}, found {found:?}")),
            }
        }
    }

    async fn failed(&self) {
        self.progress.failed.fetch_add(1, Ordering::Relaxed);
        // A refused connection answers at once: do not spin.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }

    async fn call(&mut self, node: usize, method: &str, path: &str, body: &str) -> Option<Answer> {
        let port = *self.plan.ports.get(node)?;
        let slot = self.connections.get_mut(node)?;
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => Connection::open(port).await.ok()?,
        };
        let answer = connection.call(method, path, &self.plan.token, body).await.ok()?;
        *slot = Some(connection);
        Some(answer)
    }
}

fn number_in(answer: &Value, is_v2: bool) -> Option<u64> {
    let data = answer.get("data")?;
    let data = if is_v2 { data.get("data")? } else { data };
    data.get("n")?.as_u64()
}
