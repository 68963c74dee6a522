//! How long the log is kept for secondaries.
//!
//! Every member keeps its log from what the slowest secondary has acknowledged, as far as the log may grow at all. What
//! was acknowledged is recorded in the state now and then, so that members which no secondary talks to know it too, and
//! after a restart. A secondary that is known but never acknowledged anything needs everything. One that shows no life for
//! very long, counted by each member for itself since it started, needs nothing any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_raft_storage::{Key, KvError, ReadView, Role, Version, Visit, Write, WriteSet};
use tokio::time::{Instant, sleep};

use crate::record::{ACKNOWLEDGED, acknowledged_key, acknowledged_value, read_acknowledged};
use crate::sieve::Kind;
use crate::source::Source;

/// What the state says was acknowledged, by key.
type Records = BTreeMap<Key, (u64, Version)>;

impl Source {
    /// Keeps what is needed, and the records of it. Runs for ever.
    pub async fn keep_log(self: Arc<Self>) {
        let mut recorded_at = Instant::now();
        let mut roles = self.roles.subscribe();
        loop {
            roles.borrow_and_update();
            if let Err(err) = self.keep_once(&mut recorded_at).await {
                // Until it can be told what is needed, everything is.
                self.replica.hold_log(0);
                tracing::warn!(%err, "cannot tell which log the secondaries need");
            }
            tokio::select! {
                biased;
                changed = roles.changed() => if changed.is_err() { return },
                () = sleep(self.settings.retention_check) => {}
            }
        }
    }

    async fn keep_once(&self, recorded_at: &mut Instant) -> Result<(), KvError> {
        let records = load(self.replica.view().as_ref())?;
        self.replica.hold_log(self.needed(&records));
        let status = self.replica.status();
        if status.role != Role::Leader {
            return Ok(());
        }
        let is_late = recorded_at.elapsed() >= self.settings.record_age;
        let set = self.to_record(&records, is_late);
        if is_late {
            *recorded_at = Instant::now();
        }
        if set.writes.is_empty() {
            return Ok(());
        }
        if let Err(err) = self.replica.propose(set).await {
            tracing::debug!(%err, "what secondaries acknowledged will be recorded later");
        }
        Ok(())
    }

    /// Entries after this index are needed by somebody.
    fn needed(&self, records: &Records) -> u64 {
        let roles = self.roles.borrow();
        let mut needed = u64::MAX;
        for kind in Kind::ALL {
            let Some(told) = roles.get(&kind) else {
                // Whoever was known is taken to be.
                let of_kind = acknowledged_key(kind, "");
                let recorded = records.iter().filter(|(key, _)| key.starts_with(&of_kind));
                needed = recorded.map(|(_, (index, _))| *index).fold(needed, u64::min);
                continue;
            };
            for id in told.iter().flat_map(|primary| &primary.secondaries) {
                let needs = self.needs(kind, id, records);
                needed = if self.is_given_up(kind, id, needs) { needed } else { needed.min(needs) };
            }
        }
        needed
    }

    /// Whether a secondary, of which it is known how far it was, has shown no life for too long.
    fn is_given_up(&self, kind: Kind, id: &str, needs: u64) -> bool {
        let mut progress = self.progress.lock();
        let known = progress.entry((kind, id.to_owned())).or_default();
        id.clone_into(&mut known.status.id);
        known.silence(needs) > self.settings.retention_time
    }

    fn needs(&self, kind: Kind, id: &str, records: &Records) -> u64 {
        let recorded = records.get(&acknowledged_key(kind, id)).map(|(index, _)| *index);
        // Acknowledgements come to the active member. There what was said last counts, even if that is less: the secondary
        // may have been put back. Elsewhere it may be long ago that something was said.
        let said = match self.replica.status().role {
            Role::Leader => self.acknowledged(id, kind),
            _ => None,
        };
        said.or(recorded).or_else(|| self.acknowledged(id, kind)).unwrap_or(0)
    }

    /// What to change about the records.
    fn to_record(&self, records: &Records, is_late: bool) -> WriteSet {
        let mut set = WriteSet::default();
        let mut write = |key: Key, version: Version, value: Option<u64>| {
            set.reads.push((key.clone(), version));
            set.writes.push(match value {
                Some(index) => Write::Put(key, acknowledged_value(index)),
                None => Write::Delete(key),
            });
        };
        for (kind, told) in self.roles.borrow().iter() {
            let known: BTreeMap<Key, u64> = told
                .iter()
                .flat_map(|primary| &primary.secondaries)
                .map(|id| (acknowledged_key(*kind, id), self.needs(*kind, id, records)))
                .collect();
            for (key, index) in &known {
                match records.get(key) {
                    None => write(key.clone(), Version::ABSENT, Some(*index)),
                    Some((recorded, version)) => {
                        let moved = index.abs_diff(*recorded);
                        if moved >= self.settings.record_entries || (moved > 0 && is_late) {
                            write(key.clone(), *version, Some(*index));
                        }
                    }
                }
            }
            let of_kind = acknowledged_key(*kind, "");
            for (key, (_, version)) in records {
                if key.starts_with(&of_kind) && !known.contains_key(key) {
                    write(key.clone(), *version, None);
                }
            }
        }
        set
    }
}

fn load(view: &dyn ReadView) -> Result<Records, KvError> {
    let mut records = Records::new();
    let mut outcome = Ok(());
    let end = ACKNOWLEDGED.map(|byte| if byte == b'a' { b'a' + 1 } else { byte });
    view.visit(&ACKNOWLEDGED, Some(&end), &mut |key, value, version| match read_acknowledged(value) {
        Ok(index) => {
            records.insert(key.to_vec(), (index, version));
            Visit::Next
        }
        Err(err) => {
            outcome = Err(err);
            Visit::Stop
        }
    })?;
    outcome.map(|()| records)
}
