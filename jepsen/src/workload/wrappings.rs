//! Wrapped answers: put away by one client, taken out by whoever is first, and by nobody else.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::json;

use super::pool::Pool;
use super::{Held, LONG, Promise, Worker, Workload, settle};
use crate::history::{Answer, Call, ModelName};

/// Wrapped answers waiting at a time.
const ANSWERS: usize = 2;
/// Tries to take one out.
const TRIES: u64 = 4;

#[derive(Debug)]
struct Entry {
    held: Held,
    tries_left: AtomicU64,
}

/// See the module's header.
#[derive(Debug)]
pub struct Wrappings {
    pool: Pool<Entry>,
}

impl Default for Wrappings {
    fn default() -> Self {
        Self { pool: Pool::new(ANSWERS) }
    }
}

#[async_trait]
impl Workload for Wrappings {
    fn name(&self) -> &'static str {
        "wrappings"
    }

    fn promises(&self) -> Vec<Promise> {
        ["unwrap", "wrap"].map(|call| (ModelName::Wrapping, call)).to_vec()
    }

    async fn run(&self, mut worker: Worker) {
        while !worker.is_over() {
            let went_well = match self.pool.pick(&mut worker.dice).filter(|_| self.pool.is_full()) {
                None => self.wrap(&mut worker).await,
                Some(entry) => {
                    if entry.tries_left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        self.pool.remove(&entry);
                    }
                    unwrap(&mut worker, &entry.held).await
                }
            };
            worker.rest(went_well).await;
        }
    }
}

impl Wrappings {
    async fn wrap(&self, worker: &mut Worker) -> bool {
        let key = format!("w/{}", self.pool.number());
        let client = worker.client().with_wrap_ttl(Some(LONG.to_owned()));
        let pending = worker.process.invoke(ModelName::Wrapping, key.as_str(), Call::Wrap);
        let wrapped = client.write("sys/wrapping/wrap", &json!({"key": key})).await;
        let wrapped = settle(pending, &Call::Wrap, wrapped, |_| Answer::Done);
        let Some(info) = wrapped.ok().flatten().and_then(|secret| secret.wrap_info) else { return false };
        self.pool.add(Entry { held: Held { key, token: info.token }, tries_left: AtomicU64::new(TRIES) });
        true
    }
}

async fn unwrap(worker: &mut Worker, held: &Held) -> bool {
    let client = worker.client().with_token(Some(held.token.clone()));
    let pending = worker.process.invoke(ModelName::Wrapping, held.key.as_str(), Call::Unwrap);
    let taken = client.sys().unwrap(None).await;
    let taken = settle(pending, &Call::Unwrap, taken, |_| Answer::Done);
    if let Ok(taken) = &taken {
        let inside = taken.as_ref().and_then(|secret| secret.field("key")?.as_str());
        if inside != Some(held.key.as_str()) {
            worker.complain(format!("{} was unwrapped, and held {inside:?}", held.key));
        }
    }
    super::went_well(&taken)
}
