//! Applying entries: the conflict check, the batch, the observers, the new view.
//!
//! Entries handed over together share one batch of the store, up to a size; a write set sees what the sets before it
//! wrote, whether in an earlier entry or in its own.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use arca_danger::Bug;
use foldhash::fast::FixedState;

use super::meta::{self, Meta};
use super::{Mark, State, StateError, Writer, import, marks};
use crate::command::{Command, CommandError};
use crate::kv::{Batch, KvError};
use crate::write_set::Key;
use crate::{Change, Version, Write, WriteSet};

/// A batch this large is written before the next entry joins it.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// One committed entry.
#[derive(Clone, Copy, Debug)]
pub struct Apply<'a> {
    /// Log index.
    pub index: u64,
    /// Log id, opaque and not empty.
    pub log_id: &'a [u8],
    /// What it carries.
    pub payload: Payload<'a>,
}

/// What an entry carries.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Nothing.
    Blank,
    /// An encoded [`Command`].
    Command(&'a [u8]),
    /// A membership, opaque.
    Membership(&'a [u8]),
}

/// What became of an entry. Every replica decides the same.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Outcome {
    /// A step of an import was done, or refused and why.
    Import(Result<(), String>),
    /// There was nothing to decide.
    Nothing,
    /// One for each write set, in order.
    Sets(Vec<SetOutcome>),
}

/// What became of a write set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SetOutcome {
    /// Written whole.
    Applied,
    /// A version it had read has moved; nothing of it was written.
    Conflict,
}

/// What is applied but not yet written to the store.
#[derive(Default)]
pub(super) struct Pending {
    batch: Batch,
    bytes: usize,
    /// Versions after this batch, for the keys it changes.
    versions: HashMap<Key, Version, FixedState>,
    /// For the observers.
    writes: Vec<(u64, Vec<Write>)>,
}

impl State {
    /// Applies `entries`, which follow what is applied, and makes their results visible together.
    ///
    /// # Errors
    /// When an entry cannot be understood or the store fails. The node must then stop; the next start applies again
    /// from what was durable.
    pub fn apply_many(&self, entries: &[Apply<'_>]) -> Result<Vec<Outcome>, StateError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let mut writer = self.writer.lock();
        writer.check()?;
        let result = self.apply_all(&mut writer, entries);
        writer.guard(result)
    }

    /// Applies one entry.
    ///
    /// # Errors
    /// As [`Self::apply_many`].
    pub fn apply(&self, entry: Apply<'_>) -> Result<Outcome, StateError> {
        let outcomes = self.apply_many(&[entry])?;
        Ok(outcomes.into_iter().next().unwrap_or(Outcome::Nothing))
    }

    fn apply_all(&self, writer: &mut Writer, entries: &[Apply<'_>]) -> Result<Vec<Outcome>, StateError> {
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut pending = Pending::default();
        for entry in entries {
            outcomes.push(self.apply_one(writer, &mut pending, entry)?);
            if pending.bytes >= BATCH_BYTES_MAX {
                self.write(writer, &mut pending)?;
            }
        }
        self.write(writer, &mut pending)?;
        self.publish(writer);
        Ok(outcomes)
    }

    fn apply_one(
        &self,
        writer: &mut Writer,
        pending: &mut Pending,
        entry: &Apply<'_>,
    ) -> Result<Outcome, StateError> {
        let (index, applied) = (entry.index, writer.meta.index);
        if !writer.meta.is_empty() && index != applied + 1 {
            return Err(StateError::OutOfOrder { index, applied });
        }
        let command = match entry.payload {
            Payload::Command(bytes) => {
                Some(Command::decode(bytes).map_err(|source| StateError::Command { index, source })?)
            }
            Payload::Blank | Payload::Membership(_) => None,
        };
        if command.as_ref().is_some_and(Command::is_import) {
            // It looks at what is staged in the store: everything before it must be there, and nothing of it yet.
            self.write(writer, pending)?;
        }
        writer.meta.index = index;
        writer.meta.log_id = entry.log_id.to_vec();
        if let Payload::Membership(bytes) = entry.payload {
            writer.meta.membership = bytes.to_vec();
            writer.meta.write_membership(&mut pending.batch);
        }
        marks::prune(writer.kv.as_ref(), index, &mut pending.batch)?;
        match command {
            Some(command) => self.apply_command(writer, pending, command),
            None => Ok(Outcome::Nothing),
        }
    }

    fn apply_command(
        &self,
        writer: &mut Writer,
        pending: &mut Pending,
        command: Command,
    ) -> Result<Outcome, StateError> {
        match command {
            Command::Batch(sets) => {
                let index = writer.meta.index;
                if index == Version::ABSENT.0 {
                    let source =
                        CommandError::Malformed("index zero, which means an absent key, cannot write");
                    return Err(StateError::Command { index, source });
                }
                let outcomes =
                    sets.into_iter().map(|set| pending.add(writer, set)).collect::<Result<Vec<_>, _>>()?;
                if let Some(mark) = Mark::of(&outcomes) {
                    mark.write(index, &mut pending.batch);
                }
                Ok(Outcome::Sets(outcomes))
            }
            Command::Reserve(_) => Ok(Outcome::Nothing),
            import => self.apply_import(writer, pending, import),
        }
    }

    fn apply_import(
        &self,
        writer: &mut Writer,
        pending: &mut Pending,
        command: Command,
    ) -> Result<Outcome, StateError> {
        let step = import::step(writer.kv.as_ref(), self.home.as_ref(), &writer.meta, command)?;
        pending.bytes += change_bytes(&step.changes);
        pending.batch.changes.extend(step.changes.changes);
        writer.versions.forget_everything();
        if let Some(draft) = step.promote {
            let kv = draft.promote()?;
            let meta = writer.meta.clone();
            self.replace(writer, kv, meta);
        }
        Ok(Outcome::Import(step.outcome))
    }

    /// Writes what is pending with the applied log id, and tells the observers.
    fn write(&self, writer: &mut Writer, pending: &mut Pending) -> Result<(), KvError> {
        if writer.meta.is_empty() {
            return Ok(());
        }
        let Pending { mut batch, mut versions, writes, .. } = std::mem::take(pending);
        if arca_danger::is(Bug::AppliedIndexBeforeData) {
            let mut alone = Batch::default();
            writer.meta.write_applied(&mut alone);
            writer.kv.write(alone)?;
        }
        if arca_danger::is(Bug::VersionsNotRemembered) {
            versions.clear();
        }
        writer.meta.write_applied(&mut batch);
        let bytes = change_bytes(&batch);
        writer.kv.write(batch)?;
        for (key, version) in versions {
            writer.versions.remember(key, version);
        }
        self.unflushed_bytes.fetch_add(bytes as u64, Ordering::AcqRel);
        let observers = self.observers.read();
        for (index, write) in
            writes.iter().flat_map(|(index, set)| set.iter().map(move |write| (*index, write)))
        {
            for observer in observers.iter() {
                observer.applied(index, Change::Write(write));
            }
        }
        Ok(())
    }
}

fn change_bytes(batch: &Batch) -> usize {
    batch.changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

impl Pending {
    fn add(&mut self, writer: &mut Writer, set: WriteSet) -> Result<SetOutcome, KvError> {
        for (key, read) in &set.reads {
            let found = self.version(writer, key)?;
            let is_passed_over = arca_danger::is(Bug::ConflictUnchecked)
                || (found == Version::ABSENT && arca_danger::is(Bug::ConflictIgnoresDeletes));
            if found != *read && !is_passed_over {
                return Ok(SetOutcome::Conflict);
            }
        }
        let Meta { index, .. } = writer.meta;
        for write in &set.writes {
            let (version, value) = match write {
                Write::Put(_, value) => (Version(index), Some(meta::stored(Version(index), value))),
                Write::Delete(_) => (Version::ABSENT, None),
            };
            self.bytes += write.key().len() + value.as_ref().map_or(0, Vec::len);
            self.versions.insert(write.key().to_vec(), version);
            self.batch.changes.push((write.key().to_vec(), value));
        }
        self.writes.push((index, set.writes));
        Ok(SetOutcome::Applied)
    }

    fn version(&self, writer: &mut Writer, key: &[u8]) -> Result<Version, KvError> {
        if let Some(version) = self.versions.get(key)
            && !arca_danger::is(Bug::ConflictIgnoresPending)
        {
            return Ok(*version);
        }
        if let Some(version) = writer.versions.find(key) {
            return Ok(version);
        }
        let version = meta::version_in(writer.kv.as_ref(), key)?;
        writer.versions.remember(key.to_vec(), version);
        Ok(version)
    }
}
