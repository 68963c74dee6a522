//! Registers: one KV version 2 path each, read, written, deleted, and written if the version is
//! still the one that was read.

use std::sync::atomic::{AtomicU64, Ordering};

use arca_client::Client;
use arca_client::kv::{Cas, Versioned};
use async_trait::async_trait;
use serde_json::json;

use super::{Promise, VALUES_EACH, Worker, Workload, settle, went_well};
use crate::history::recorder::Process;
use crate::history::{Answer, Call, ModelName};

/// Registers in use at a time: few, so that workers meet.
const REGISTERS: u64 = 5;
/// Operations on a register before another takes its place: more than this takes a checker long.
const OPERATIONS_MAX: u64 = 300;

/// What a worker saw of a register last: key, version, value.
type Seen = (String, u64, Option<u64>);

/// See the module's header.
#[derive(Debug, Default)]
pub struct Registers {
    operations: AtomicU64,
    is_never_deleted: bool,
}

impl Registers {
    /// The same without deletions. Those make no version, so that it is not told what they deleted: that is what a check needs
    /// which asks at which of its moments a register was copied.
    #[must_use]
    pub fn without_deletions() -> Self {
        Self { is_never_deleted: true, ..Self::default() }
    }

    fn key(&self, worker: &mut Worker) -> String {
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

    fn promises(&self) -> Vec<Promise> {
        let calls = ["cas", "delete", "read", "write"].into_iter();
        let calls = calls.filter(|call| *call != "delete" || !self.is_never_deleted);
        calls.map(|call| (ModelName::Register, call)).collect()
    }

    async fn run(&self, mut worker: Worker) {
        let mut value = worker.number * VALUES_EACH;
        let mut seen: Option<Seen> = None;
        while !worker.is_over() {
            let key = self.key(&mut worker);
            value += 1;
            let went_well = match worker.dice.within(0..20) {
                0..8 => read(&mut worker, key, &mut seen).await,
                8..13 => put(&mut worker, key, Call::Write { value }, Cas::Any, value).await,
                13 if !self.is_never_deleted => delete(&mut worker, key).await,
                _ => match seen.take() {
                    Some((key, version, from)) => {
                        let call = Call::Cas { version, from, value };
                        put(&mut worker, key, call, Cas::Version(version), value).await
                    }
                    None => read(&mut worker, key, &mut seen).await,
                },
            };
            worker.rest(went_well).await;
        }
    }
}

async fn read(worker: &mut Worker, key: String, seen: &mut Option<Seen>) -> bool {
    let client = worker.client();
    let Some((version, value)) = read_from(&mut worker.process, &client, &key).await else { return false };
    *seen = Some((key, version, value));
    true
}

/// Reads a register: its version and what that holds, if it was answered.
pub(super) async fn read_from(
    process: &mut Process,
    client: &Client,
    key: &str,
) -> Option<(u64, Option<u64>)> {
    let pending = process.invoke(ModelName::Register, key, Call::Read);
    let found = settle(pending, &Call::Read, client.kv2("secret").get(key).await, |found| match found {
        None => Answer::Absent,
        Some(found) => Answer::Value { version: found.metadata.version, value: stored(found) },
    });
    Some(found.ok()?.map_or((0, None), |found| (found.metadata.version, stored(&found))))
}

async fn put(worker: &mut Worker, key: String, call: Call, cas: Cas, value: u64) -> bool {
    let client = worker.client();
    let pending = worker.process.invoke(ModelName::Register, key.as_str(), call.clone());
    let written = client.kv2("secret").put_cas(&key, &json!({"value": value}), cas).await;
    went_well(&settle(pending, &call, written, |written| Answer::Version(written.version)))
}

async fn delete(worker: &mut Worker, key: String) -> bool {
    let client = worker.client();
    let pending = worker.process.invoke(ModelName::Register, key.as_str(), Call::Delete);
    let deleted = client.kv2("secret").delete(&key).await;
    went_well(&settle(pending, &Call::Delete, deleted, |()| Answer::Done))
}

fn stored(found: &Versioned) -> Option<u64> {
    found.data.as_ref()?.get("value")?.as_u64()
}
