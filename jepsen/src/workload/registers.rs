//! Registers: one KV version 2 path each, read, written, and written if the version is still the one that was read.

use std::sync::atomic::{AtomicU64, Ordering};

use arca_client::Error;
use arca_client::kv::{Cas, Versioned};
use async_trait::async_trait;
use serde_json::json;

use super::{Worker, Workload};
use crate::history::{Answer, Call, ModelName};
use crate::outcome::{Reply, outcome};

/// Registers in use at a time: few, so that workers meet.
const REGISTERS: u64 = 5;
/// Operations on a register before another takes its place: more than this takes a checker long.
const OPERATIONS_MAX: u64 = 300;
/// One worker's values are its own: below this many.
const VALUES_EACH: u64 = 1 << 32;

/// What a worker saw of a register last: key, version, value.
type Seen = (String, u64, Option<u64>);

/// See the module's header.
#[derive(Debug, Default)]
pub struct Registers {
    operations: AtomicU64,
}

impl Registers {
    fn key(&self, worker: &mut Worker<'_>) -> String {
        let operations = self.operations.fetch_add(1, Ordering::Relaxed);
        let generation = operations / (REGISTERS * OPERATIONS_MAX);
        format!("r/{generation}-{}", worker.dice.within(0..REGISTERS))
    }
}

#[async_trait]
impl Workload for Registers {
    fn name(&self) -> &'static str {
        "registers"
    }

    async fn run(&self, mut worker: Worker<'_>) {
        let mut value = worker.number * VALUES_EACH;
        let mut seen: Option<Seen> = None;
        while !worker.is_over() {
            let key = self.key(&mut worker);
            value += 1;
            let went_well = match worker.dice.within(0..10) {
                0..4 => read(&mut worker, key, &mut seen).await,
                4..7 => write(&mut worker, key, value).await,
                _ => match seen.take() {
                    Some(seen) => cas(&mut worker, seen, value).await,
                    None => read(&mut worker, key, &mut seen).await,
                },
            };
            if !went_well {
                worker.pause().await;
            }
        }
    }
}

async fn read(worker: &mut Worker<'_>, key: String, seen: &mut Option<Seen>) -> bool {
    let pending = worker.process.invoke(ModelName::Register, key.as_str(), Call::Read);
    match worker.client.kv2("secret").get(&key).await {
        Ok(found) => {
            let (version, value) =
                found.as_ref().map_or((0, None), |found| (found.metadata.version, stored(found)));
            let answer = if found.is_some() { Answer::Value { version, value } } else { Answer::Absent };
            pending.ok(answer);
            *seen = Some((key, version, value));
            true
        }
        Err(err) => {
            pending.failed(outcome(&Call::Read, &Reply::from(&err)), err.to_string());
            false
        }
    }
}

async fn write(worker: &mut Worker<'_>, key: String, value: u64) -> bool {
    put(worker, key, Call::Write { value }, Cas::Any, value).await
}

async fn cas(worker: &mut Worker<'_>, (key, version, from): Seen, value: u64) -> bool {
    put(worker, key, Call::Cas { version, from, value }, Cas::Version(version), value).await
}

async fn put(worker: &mut Worker<'_>, key: String, call: Call, cas: Cas, value: u64) -> bool {
    let pending = worker.process.invoke(ModelName::Register, key.as_str(), call.clone());
    let written = worker.client.kv2("secret").put_cas(&key, &json!({"value": value}), cas).await;
    match written {
        Ok(written) => {
            pending.ok(Answer::Version(written.version));
            true
        }
        Err(err) => {
            pending.failed(outcome(&call, &Reply::from(&err)), err.to_string());
            // Another version is an answer, not a failure.
            matches!(&err, Error::Api(api) if api.status.as_u16() == 400)
        }
    }
}

fn stored(found: &Versioned) -> Option<u64> {
    found.data.as_ref()?.get("value")?.as_u64()
}
