//! What happened in a run, line by line, to compare two runs: every message sent, every sync, everything applied.

use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::testing::{ModelNet, ModelVfs, Operation};
use crate::{ApplyObserver, Change, MemberId, Write};

/// Where the lines go. The clock begins with it.
pub(super) struct Trace {
    started: Instant,
    text: Mutex<String>,
}

impl Trace {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { started: Instant::now(), text: Mutex::default() })
    }

    /// Adds a line with the time in front.
    pub(super) fn note(&self, line: &str) {
        let nanos = self.started.elapsed().as_nanos();
        writeln!(self.text.lock(), "{nanos} {line}").unwrap();
    }

    pub(super) fn text(&self) -> String {
        self.text.lock().clone()
    }

    pub(super) fn follow_net(self: &Arc<Self>, net: &ModelNet) {
        let trace = self.clone();
        net.listen(Arc::new(move |message| {
            let (way, delay) = (if message.is_answer { "answers" } else { "sends" }, message.delay);
            let (from, to, kind) = (message.from, message.to, message.kind);
            let digest = digest(&[message.payload]);
            trace.note(&format!("{from} {way} {to} {kind:?} {digest}, takes {delay:?}"));
        }));
    }

    pub(super) fn follow_disk(self: &Arc<Self>, id: MemberId, vfs: &ModelVfs) {
        let trace = self.clone();
        vfs.set_hook(move |operation, path| {
            if matches!(operation, Operation::Sync | Operation::SyncDir) {
                trace.note(&format!("{id} syncs {}", path.display()));
            }
        });
    }

    /// What follows what `id` applies.
    pub(super) fn applier(self: &Arc<Self>, id: MemberId) -> Arc<dyn ApplyObserver> {
        Arc::new(Applied { trace: self.clone(), id })
    }
}

struct Applied {
    trace: Arc<Trace>,
    id: MemberId,
}

impl ApplyObserver for Applied {
    fn applied(&self, index: u64, change: Change<'_>) {
        let what = match change {
            Change::Everything => "a snapshot".to_owned(),
            Change::Write(Write::Put(key, value)) => digest(&[key, value]),
            Change::Write(write) => digest(&[format!("{write:?}").as_bytes()]),
        };
        self.trace.note(&format!("{} applies {index} {what}", self.id));
    }
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}
