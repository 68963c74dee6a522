//! What a fenced primary had taken and its successor never got, read back from its log.
//!
//! Keys are opened to paths so that a person can decide; values stay closed. It is there for as long as the log is: that of
//! a cluster with a secondary is kept up to its largest size.

use arca_barrier::Class;
use arca_engine_api::Map;
use arca_kernel::KernelError;
use arca_kernel::replication::{Kind, RoleRecord};
use arca_raft_storage::{Changes as _, What, Write};
use arca_replication::Sieve;
use serde_json::{Value, json};

use super::records::{TailRecord, tail_path};
use super::{Replicator, sieve};

/// Log read in one go, bytes.
const READ_BYTES: usize = 1 << 20;
/// Entries passed over in one call, so that it ends.
const PASSED_MAX: usize = 1 << 20;

fn object(value: Value) -> Map {
    if let Value::Object(map) = value { map } else { Map::new() }
}

impl Replicator {
    /// Writes of the tail behind `after`, an entry and a position in it as an earlier call answered.
    pub(super) async fn tail_of(
        &self,
        kind: Kind,
        after: Option<String>,
        limit: usize,
    ) -> Result<Map, KernelError> {
        let (role, tail, until) = self.tail_record(kind)?;
        let sieve = sieve(&self.barrier, kind)?;
        let mut rows = Vec::new();
        let (mut index, mut position) = mark(after.as_deref(), tail.after)?;
        let mut next = None;
        let mut passed = 0;
        'log: loop {
            let from = if position > 0 { index.saturating_sub(1) } else { index };
            let changes = self.replica.changes(from, READ_BYTES);
            let changes =
                changes.map_err(|err| KernelError::Invalid(format!("the tail cannot be read: {err}")))?;
            let Some(last) = changes.last().map(|changed| changed.at.index) else { break };
            for changed in changes {
                if changed.at.index > until {
                    break 'log;
                }
                let What::Wrote(writes) = changed.what else {
                    rows.push(json!({ "index": changed.at.index, "operation": "replaced" }));
                    continue;
                };
                let skipped = if changed.at.index == index { position } else { 0 };
                for (at, write) in writes.iter().enumerate().skip(skipped) {
                    let Some(row) = self.row(&sieve, changed.at.index, write) else { continue };
                    if rows.len() >= limit {
                        next = Some(format!("{}.{at}", changed.at.index));
                        break 'log;
                    }
                    rows.push(row);
                }
                passed += 1;
            }
            (index, position) = (last, 0);
            // The log may hold gigabytes that are none of the successor's.
            tokio::task::yield_now().await;
            if passed >= PASSED_MAX {
                next = Some(format!("{index}.0"));
                break;
            }
        }
        Ok(object(json!({
            "after_index": tail.after,
            "until_index": until,
            "epoch": role.epoch,
            "successor_epoch": tail.epoch,
            "writes": rows,
            "next": next,
        })))
    }

    /// The role, what is known of the tail, and its last entry: the one that stored this.
    fn tail_record(&self, kind: Kind) -> Result<(RoleRecord, TailRecord, u64), KernelError> {
        let tx = self.kernel()?.read_tx();
        let (role, path) = (RoleRecord::load(&tx, kind)?, tail_path(kind));
        let Some(tail) = tx.get_record::<TailRecord>(Class::Node, &path)? else {
            return Err(KernelError::NotFound(
                "this cluster has no tail: no newer primary was heard of while it was one".to_owned(),
            ));
        };
        Ok((role, tail, tx.version(Class::Node, &path)?.0))
    }

    fn row(&self, sieve: &Sieve, index: u64, write: &Write) -> Option<Value> {
        let key = write.key();
        if !sieve.passes(key) {
            return None;
        }
        let class = match key.first() {
            Some(0) => "boot",
            Some(1) => "replicated",
            _ => "local",
        };
        let path = match self.barrier.open_name(key) {
            Ok((_, path)) => path,
            Err(_) if class == "boot" => {
                String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned()
            }
            // An entry of a time index: what it points at is a row of its own.
            Err(_) => return None,
        };
        let (operation, size) = match write {
            Write::Put(_, value) => ("put", value.len()),
            Write::Delete(_) => ("delete", 0),
        };
        Some(json!({
            "index": index, "operation": operation, "class": class, "path": path, "sealed_bytes": size,
        }))
    }
}

/// From where to go on: behind an entry, or inside one at a position.
fn mark(after: Option<&str>, first: u64) -> Result<(u64, usize), KernelError> {
    let Some(text) = after else { return Ok((first, 0)) };
    let parsed = text
        .split_once('.')
        .and_then(|(index, position)| Some((index.parse::<u64>().ok()?, position.parse::<usize>().ok()?)));
    let (index, position) =
        parsed.ok_or_else(|| KernelError::invalid("after is none that this answered before"))?;
    Ok((index.max(first), position))
}
