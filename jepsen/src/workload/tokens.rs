//! Tokens: made, used by everybody, revoked by somebody, and used on, which must never go well again.

use std::sync::atomic::{AtomicU64, Ordering};

use arca_client::token::NewToken;
use async_trait::async_trait;

use super::pool::Pool;
use super::{Held, LONG, Promise, Worker, Workload, settle};
use crate::history::{Answer, Call, ModelName};

/// Tokens in use at a time.
const TOKENS: usize = 6;
/// Uses of a token after its revocation was first asked for; then another takes its place.
const USES_AFTER: u64 = 12;

#[derive(Debug)]
struct Entry {
    held: Held,
    /// Uses since its revocation was first asked for, plus one; 0 before.
    after: AtomicU64,
}

/// See the module's header.
#[derive(Debug)]
pub struct Tokens {
    pool: Pool<Entry>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { pool: Pool::new(TOKENS) }
    }
}

#[async_trait]
impl Workload for Tokens {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn promises(&self) -> Vec<Promise> {
        ["create", "revoke", "use"].map(|call| (ModelName::Token, call)).to_vec()
    }

    async fn run(&self, mut worker: Worker) {
        while !worker.is_over() {
            let went_well = match self.pool.pick(&mut worker.dice).filter(|_| self.pool.is_full()) {
                None => self.create(&mut worker).await,
                Some(entry) if worker.dice.chance(10) => revoke(&mut worker, &entry).await,
                Some(entry) => {
                    if entry.after.load(Ordering::Relaxed) > 0
                        && entry.after.fetch_add(1, Ordering::Relaxed) > USES_AFTER
                    {
                        self.pool.remove(&entry);
                    }
                    worker.use_token(ModelName::Token, Call::Use, &entry.held).await
                }
            };
            worker.rest(went_well).await;
        }
    }
}

impl Tokens {
    async fn create(&self, worker: &mut Worker) -> bool {
        let key = format!("t/{}", self.pool.number());
        let new =
            NewToken { policies: vec!["default".to_owned()], ttl: LONG.to_owned(), ..NewToken::default() };
        let call = Call::Create { uses: None, ttl_ms: None };
        match worker.make_token(ModelName::Token, key, call, &new).await {
            Some((held, _)) => {
                self.pool.add(Entry { held, after: AtomicU64::new(0) });
                true
            }
            None => false,
        }
    }
}

async fn revoke(worker: &mut Worker, entry: &Entry) -> bool {
    let client = worker.client();
    entry.after.fetch_max(1, Ordering::Relaxed);
    let pending = worker.process.invoke(ModelName::Token, entry.held.key.as_str(), Call::Revoke);
    let revoked = client.tokens().revoke(&entry.held.token).await;
    settle(pending, &Call::Revoke, revoked, |()| Answer::Done).is_ok()
}
