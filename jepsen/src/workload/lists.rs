//! Lists: one KV version 2 path each, which values are appended to: the list is read, and written with one value more if
//! nobody was faster.

use std::sync::atomic::{AtomicU64, Ordering};

use arca_client::kv::{Cas, Versioned};
use arca_client::{Client, Error};
use async_trait::async_trait;
use serde_json::json;

use super::{Promise, VALUES_EACH, Worker, Workload, settle};
use crate::history::recorder::Process;
use crate::history::{Answer, Call, ModelName};
use crate::outcome::{Reply, outcome};

/// Lists in use at a time: few, so that workers meet.
const LISTS: u64 = 3;
/// Operations on a list before another takes its place: a read shows all of it, so long ones cost much.
const OPERATIONS_MAX: u64 = 200;
/// How often an append that others were faster than is tried.
const ATTEMPTS_MAX: usize = 8;

/// See the module's header.
#[derive(Debug, Default)]
pub struct Lists {
    operations: AtomicU64,
}

#[async_trait]
impl Workload for Lists {
    fn name(&self) -> &'static str {
        "lists"
    }

    fn promises(&self) -> Vec<Promise> {
        vec![(ModelName::List, "append"), (ModelName::List, "read")]
    }

    async fn run(&self, mut worker: Worker) {
        let mut value = worker.number * VALUES_EACH;
        while !worker.is_over() {
            let operations = self.operations.fetch_add(1, Ordering::Relaxed);
            let key = format!("l/{}-{}", operations / (LISTS * OPERATIONS_MAX), worker.dice.within(0..LISTS));
            let client = worker.client();
            value += 1;
            let went_well = if worker.dice.chance(50) {
                let call = Call::Append { value };
                let pending = worker.process.invoke(ModelName::List, key.as_str(), call.clone());
                settle(pending, &call, append(&client, &key, &call, value).await, |()| Answer::Done).is_ok()
            } else {
                read_from(&mut worker.process, &client, &key).await
            };
            worker.rest(went_well).await;
        }
    }
}

/// Reads a list; whether it was answered.
pub(super) async fn read_from(process: &mut Process, client: &Client, key: &str) -> bool {
    let pending = process.invoke(ModelName::List, key, Call::Read);
    let found = client.kv2("secret").get(key).await;
    settle(pending, &Call::Read, found, |found| match found {
        None => Answer::Absent,
        Some(found) => Answer::List(values(found)),
    })
    .is_ok()
}

/// Tries until it is in, or something else is in the way than others who were faster.
async fn append(client: &Client, key: &str, call: &Call, value: u64) -> Result<(), Error> {
    let kv = client.kv2("secret");
    let mut attempts = 0;
    loop {
        attempts += 1;
        // A read that fails has sent nothing that could take effect.
        let found = kv.get(key).await.map_err(unsent)?;
        let mut list = found.as_ref().map(values).unwrap_or_default();
        list.push(value);
        let version = found.map_or(0, |found| found.metadata.version);
        match kv.put_cas(key, &json!({"list": list}), Cas::Version(version)).await {
            Ok(_) => return Ok(()),
            Err(err) if is_beaten(call, &err) && attempts < ATTEMPTS_MAX => {}
            Err(err) => return Err(err),
        }
    }
}

/// Whether the only reason it surely did not happen is that the version was another.
fn is_beaten(call: &Call, err: &Error) -> bool {
    let cas = Call::Cas { version: 0, from: None, value: 0 };
    let reply = Reply::from(err);
    outcome(call, &reply) == crate::outcome::Outcome::Fail
        && outcome(&cas, &reply) == crate::outcome::Outcome::Refused
}

/// The same failure, as one of a request that was not sent.
fn unsent(err: Error) -> Error {
    Error::BadRequest { reason: format!("the read before it failed: {err}") }
}

fn values(found: &Versioned) -> Vec<u64> {
    let list = found.data.as_ref().and_then(|data| data.get("list")?.as_array());
    list.into_iter().flatten().filter_map(serde_json::Value::as_u64).collect()
}
