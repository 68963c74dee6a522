//! Counters: tokens good for so many uses, spent by everybody at once until they are refused, and a few times more.

use std::sync::atomic::{AtomicU64, Ordering};

use arca_client::token::NewToken;
use async_trait::async_trait;

use super::pool::Pool;
use super::{Held, LONG, Promise, Worker, Workload};
use crate::history::{Call, ModelName};

/// Tokens in use at a time.
const TOKENS: usize = 3;
/// Tries beyond what it is good for.
const TRIES_BEYOND: u64 = 5;

#[derive(Debug)]
struct Entry {
    held: Held,
    tries_left: AtomicU64,
}

/// See the module's header.
#[derive(Debug)]
pub struct Counters {
    pool: Pool<Entry>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { pool: Pool::new(TOKENS) }
    }
}

#[async_trait]
impl Workload for Counters {
    fn name(&self) -> &'static str {
        "counters"
    }

    fn promises(&self) -> Vec<Promise> {
        ["create", "spend"].map(|call| (ModelName::Counter, call)).to_vec()
    }

    async fn run(&self, mut worker: Worker) {
        while !worker.is_over() {
            let went_well = match self.pool.pick(&mut worker.dice).filter(|_| self.pool.is_full()) {
                None => self.create(&mut worker).await,
                Some(entry) => {
                    if entry.tries_left.fetch_sub(1, Ordering::Relaxed) == 1 {
                        self.pool.remove(&entry);
                    }
                    worker.use_token(ModelName::Counter, Call::Spend, &entry.held).await
                }
            };
            worker.rest(went_well).await;
        }
    }
}

impl Counters {
    async fn create(&self, worker: &mut Worker) -> bool {
        let key = format!("c/{}", self.pool.number());
        let uses = worker.dice.within(1..20);
        let new = NewToken {
            policies: vec!["default".to_owned()],
            ttl: LONG.to_owned(),
            num_uses: uses,
            ..NewToken::default()
        };
        let call = Call::Create { uses: Some(uses), ttl_ms: None };
        match worker.make_token(ModelName::Counter, key, call, &new).await {
            Some((held, _)) => {
                self.pool.add(Entry { held, tries_left: AtomicU64::new(uses + TRIES_BEYOND) });
                true
            }
            None => false,
        }
    }
}
