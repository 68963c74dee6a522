//! Leases: tokens that end by themselves, used before and after their deadline, and looked for until they are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arca_client::token::NewToken;
use async_trait::async_trait;

use super::pool::Pool;
use super::{Held, Promise, Worker, Workload, settle};
use crate::history::{Answer, Call, ModelName};

/// Leases that run at a time.
const LEASES: usize = 12;
/// How long after its deadline a lease is used before it is looked for.
const USED_AFTER: Duration = Duration::from_millis(1_500);
/// Between two operations of a worker: time is what is tested, not speed.
const INTERVAL: Duration = Duration::from_millis(60);
/// When the run is over, leases are looked for so long.
const LAST_LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug)]
struct Entry {
    held: Held,
    accessor: String,
    /// In the recorder's time.
    deadline_ns: u64,
    /// Whether somebody looks for it now.
    is_probed: AtomicBool,
}

/// See the module's header.
#[derive(Debug)]
pub struct Leases {
    pool: Pool<Entry>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { pool: Pool::new(LEASES) }
    }
}

#[async_trait]
impl Workload for Leases {
    fn name(&self) -> &'static str {
        "leases"
    }

    fn promises(&self) -> Vec<Promise> {
        ["create", "probe", "use"].map(|call| (ModelName::Lease, call)).to_vec()
    }

    async fn run(&self, mut worker: Worker) {
        while !worker.is_over() {
            let went_well = match self.pool.pick(&mut worker.dice).filter(|_| self.pool.is_full()) {
                None => self.create(&mut worker).await,
                Some(entry) => self.look_at(&mut worker, &entry).await,
            };
            worker.rest(went_well).await;
            tokio::time::sleep(INTERVAL).await;
        }
        // A lease that nobody saw end has shown nothing: those that still run are waited for.
        let start = tokio::time::Instant::now();
        while !self.pool.is_empty() && start.elapsed() < LAST_LIMIT {
            if let Some(entry) = self.pool.pick(&mut worker.dice) {
                let went_well = self.look_at(&mut worker, &entry).await;
                worker.rest(went_well).await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Leases {
    async fn create(&self, worker: &mut Worker) -> bool {
        let key = format!("e/{}", self.pool.number());
        let seconds = worker.dice.within(2..9);
        let ttl_ms = seconds * 1_000;
        let new = NewToken {
            policies: vec!["default".to_owned()],
            ttl: format!("{seconds}s"),
            ..NewToken::default()
        };
        let call = Call::Create { uses: None, ttl_ms: Some(ttl_ms) };
        let made = worker.make_token(ModelName::Lease, key, call, &new).await;
        let Some((held, accessor)) = made else { return false };
        let deadline_ns = worker.now().saturating_add(ttl_ms.saturating_mul(1_000_000));
        self.pool.add(Entry { held, accessor, deadline_ns, is_probed: AtomicBool::new(false) });
        true
    }

    async fn look_at(&self, worker: &mut Worker, entry: &Arc<Entry>) -> bool {
        let after = Duration::from_nanos(worker.now().saturating_sub(entry.deadline_ns));
        if after < USED_AFTER {
            return worker.use_token(ModelName::Lease, Call::Use, &entry.held).await;
        }
        // One is enough: all that is stored is listed.
        if entry.is_probed.swap(true, Ordering::Relaxed) {
            return true;
        }
        let client = worker.client();
        let pending = worker.process.invoke(ModelName::Lease, entry.held.key.as_str(), Call::Probe);
        let listed = client.list("auth/token/accessors").await;
        let is_there =
            |keys: &Option<Vec<String>>| keys.iter().flatten().any(|accessor| *accessor == entry.accessor);
        let listed =
            settle(
                pending,
                &Call::Probe,
                listed,
                |keys| {
                    if is_there(keys) { Answer::Done } else { Answer::Absent }
                },
            );
        if listed.as_ref().is_ok_and(|keys| !is_there(keys)) {
            self.pool.remove(entry);
        }
        entry.is_probed.store(false, Ordering::Relaxed);
        listed.is_ok()
    }
}
