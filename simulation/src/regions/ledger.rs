//! What a cluster's log says of it, entry by entry, as its members apply it: which state it had when, whom it followed how
//! far, and what it was to the other cluster.
//!
//! Only the log and the keys are looked at, none of the product's own figures. States are compared by sums of hashes over what
//! a DR secondary gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_barrier::{Barrier, Class};
use arca_kernel::replication::{Kind, Mode, RoleRecord};
use arca_kernel::tx::{Mode as TxMode, Tx};
use arca_raft_storage::{
    Changed, Changes as _, ChangesError, Key, ReadView, Replica as _, Version, Visit, What, Write,
};
use arca_replication::codec::Reader;
use arca_replication::{Cursor, cursor_key, load_cursor};

use super::around::own_prefixes;
use crate::invariants::Seen;

/// Log read in one go, bytes.
const READ_BYTES: usize = 4 << 20;
/// Looks between two comparisons of the sum with the state itself, which reads everything.
const EVERY: u64 = 40;
/// First byte of keys that never leave a cluster.
const NODE: u8 = 3;
/// Where it is stored that a copy is still to be made.
const BOOTSTRAP_PATH: &str = "root/core/replication/bootstrap/dr";

/// What happened in an entry.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// The state became the one at `cursor` of the cluster that is followed, by its own word.
    Follows {
        /// Entry here.
        index: u64,
        cursor: Cursor,
        /// Of the state.
        sum: u128,
    },
    /// The role changed.
    Became {
        /// Entry here.
        index: u64,
        before: Box<RoleRecord>,
        now: Box<RoleRecord>,
        /// How far the other cluster had been followed.
        cursor: Option<Cursor>,
        /// Of the state.
        sum: u128,
    },
}

/// Something that must not be, and the invariant it breaks.
pub(super) type Broken = (&'static str, String);

/// A secondary's state is one that its primary had, and it writes nothing of its own.
pub(super) const PREFIX: &str = "a secondary is a prefix of its primary";
/// Of two clusters at most one is the primary of an epoch, and only a primary writes.
pub(super) const ONE_PRIMARY: &str = "one primary per epoch";
/// What the log says that entries changed is what they changed.
pub(super) const TRUE_LOG: &str = "the log tells what changed";

/// See the file's header.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    region: String,
    looks: u64,
    /// The newest entry that was replayed.
    pub(super) at: u64,
    /// Hash of each entry of the state that a DR secondary gets.
    passing: BTreeMap<Key, u128>,
    pub(super) sum: u128,
    /// By entry.
    sums: BTreeMap<u64, u128>,
    pub(super) cursor: Option<Cursor>,
    pub(super) role: Option<RoleRecord>,
    /// The state is of before a copy that is to replace it.
    is_copying: bool,
    /// What was committed at most when: nanoseconds, and the index.
    committed: Vec<(u64, u64)>,
    told: Vec<Told>,
}

/// Names in the state, by the keys of one member.
struct Names {
    own: Vec<Vec<u8>>,
    role: Key,
    cursor: Key,
    barrier: Arc<Barrier>,
}

impl Names {
    fn passes(&self, key: &[u8]) -> bool {
        key.first().is_some_and(|class| *class < NODE) && !self.own.iter().any(|own| key.starts_with(own))
    }

    fn read_role(&self, write: &Write) -> Option<RoleRecord> {
        match write {
            Write::Delete(_) => Some(RoleRecord::default()),
            Write::Put(key, value) => {
                let opened = self.barrier.open_value(key, value).ok()?;
                serde_json::from_slice(&opened).ok()
            }
        }
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes()).update(key).update(value);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    u128::from_be_bytes(sum)
}

fn is_known(cursor: &Cursor) -> bool {
    !cursor.is_unknown()
}

impl Ledger {
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.to_owned(), ..Self::default() }
    }

    /// The sum of the state at `index`: none if it is not known, which it may be once it is.
    pub(super) fn sum_at(&self, index: u64) -> Option<u128> {
        self.sums.get(&index).copied()
    }

    /// The last moment at which nothing behind `index` was committed.
    pub(super) fn still_at(&self, index: u64) -> u64 {
        let before = self.committed.partition_point(|(_, committed)| *committed <= index);
        before.checked_sub(1).and_then(|at| self.committed.get(at)).map_or(0, |(ns, _)| *ns)
    }

    /// The first moment at which something behind `index` was committed: never, if that is not so.
    pub(super) fn behind_at(&self, index: u64) -> u64 {
        let first = self.committed.partition_point(|(_, committed)| *committed <= index);
        self.committed.get(first).map_or(u64::MAX, |(ns, _)| *ns)
    }

    /// Replays what was applied since, at the moment `now_ns`.
    pub(super) fn advance(&mut self, members: &[Seen], now_ns: u64) -> Result<Vec<Told>, Broken> {
        let committed =
            members.iter().map(|seen| seen.status.committed_index.max(seen.status.applied_index)).max();
        let newest = self.committed.last().map_or(0, |(_, index)| *index);
        self.committed.push((now_ns, committed.unwrap_or_default().max(newest)));
        let usable = members.iter().filter(|seen| !seen.is_locked_out);
        let Some(seen) =
            usable.max_by_key(|seen| (seen.status.applied_index, std::cmp::Reverse(seen.status.id)))
        else {
            return Ok(Vec::new());
        };
        let unreadable = |err: &dyn std::fmt::Display| (TRUE_LOG, format!("{}: {err}", self.region));
        let names = names(&seen.barrier).map_err(|err| unreadable(&err))?;
        // What is applied becomes visible a moment later.
        while self.at < seen.replica.view().index() {
            let changes = seen.replica.changes(self.at, READ_BYTES);
            let is_gone = match changes {
                Ok(changes) => !self.replay_all(changes, &names)?,
                Err(ChangesError::Gone { .. }) => true,
                Err(err) => return Err((TRUE_LOG, format!("{}: {err}", self.region))),
            };
            if is_gone {
                self.read_anew(&seen.replica.view(), &names);
            }
        }
        if self.role.is_none() || self.at == seen.replica.view().index() {
            self.reread_role(seen, &names);
        }
        self.looks += 1;
        if self.looks.is_multiple_of(EVERY) {
            self.compare(seen.replica.view().as_ref(), &names)?;
        }
        Ok(std::mem::take(&mut self.told))
    }

    /// Whether nothing replaced the state.
    fn replay_all(&mut self, changes: Vec<Changed>, names: &Names) -> Result<bool, Broken> {
        for Changed { at, what } in changes {
            match what {
                What::Replaced => return Ok(false),
                What::Wrote(writes) => self.replay(at.index, &writes, names)?,
            }
        }
        Ok(true)
    }

    fn replay(&mut self, index: u64, writes: &[Write], names: &Names) -> Result<(), Broken> {
        let moves = writes.iter().any(|write| write.key() == names.cursor && matches!(write, Write::Put(..)));
        for write in writes {
            let key = write.key();
            if key == names.role {
                self.become_what(index, names.read_role(write));
            } else if key == names.cursor {
                self.move_cursor(index, write)?;
            } else if names.passes(key) {
                self.may_write(index, moves)?;
                self.write(write);
            }
        }
        self.at = index;
        self.sums.insert(index, self.sum);
        let known = self.cursor.filter(is_known).filter(|_| moves && !self.is_copying);
        self.told.extend(known.map(|cursor| Told::Follows { index, cursor, sum: self.sum }));
        Ok(())
    }

    fn write(&mut self, write: &Write) {
        let (key, next) = match write {
            Write::Put(key, value) => (key, Some(hash(key, value))),
            Write::Delete(key) => (key, None),
        };
        let before = match next {
            Some(next) => self.passing.insert(key.clone(), next),
            None => self.passing.remove(key),
        };
        self.sum = self.sum.wrapping_sub(before.unwrap_or_default()).wrapping_add(next.unwrap_or_default());
    }

    /// **Invariant:** only a primary that nobody has replaced writes, and a secondary what it is sent.
    fn may_write(&self, index: u64, moves: bool) -> Result<(), Broken> {
        let Some(role) = &self.role else { return Ok(()) };
        let region = &self.region;
        match (role.mode, &role.fence) {
            (Mode::Primary, Some(fence)) => Err((
                ONE_PRIMARY,
                format!("{region} wrote entry {index} behind its fence, of epoch {}", fence.epoch),
            )),
            (Mode::Secondary, _) => {
                let is_compared = self.cursor.is_some_and(|cursor| cursor.is_unknown());
                if moves || is_compared {
                    return Ok(());
                }
                let text = format!("{region} wrote entry {index} as a secondary, and not what it was sent");
                Err((PREFIX, text))
            }
            _ => Ok(()),
        }
    }

    fn become_what(&mut self, index: u64, now: Option<RoleRecord>) {
        let before = std::mem::replace(&mut self.role, now);
        let (Some(before), Some(now)) = (before, self.role.clone()) else { return };
        if (before.mode, now.mode) == (Mode::Disabled, Mode::Secondary) {
            self.is_copying = true;
        }
        if now.mode == Mode::Disabled {
            self.is_copying = false;
        }
        if before != now {
            let (before, now) = (Box::new(before), Box::new(now));
            self.told.push(Told::Became { index, before, now, cursor: self.cursor, sum: self.sum });
        }
    }

    fn move_cursor(&mut self, index: u64, write: &Write) -> Result<(), Broken> {
        self.cursor = match write {
            Write::Delete(_) => None,
            Write::Put(_, value) => {
                let cursor = Cursor::read(&mut Reader::new(value.clone().into()));
                Some(cursor.map_err(|err| (PREFIX, format!("{}: entry {index}: {err}", self.region)))?)
            }
        };
        let mode = self.role.as_ref().map(|role| role.mode);
        if self.cursor.is_some() && mode.is_some_and(|mode| mode != Mode::Secondary) {
            let text = format!("{} followed in entry {index}, and is no secondary", self.region);
            return Err((PREFIX, text));
        }
        Ok(())
    }

    /// The state was replaced, or the log went on without us.
    fn read_anew(&mut self, view: &Arc<dyn ReadView>, names: &Names) {
        let (passing, sum) = read(view.as_ref(), names);
        (self.passing, self.sum, self.at) = (passing, sum, view.index());
        self.sums.insert(self.at, sum);
        let cursor = load_cursor(view.as_ref(), arca_replication::Kind::Dr).ok();
        self.cursor = cursor.filter(|(_, version)| *version != Version::ABSENT).map(|(cursor, _)| cursor);
        // As it is then read from the state.
        self.role = None;
        // The cursor of a copy is stored before the copy takes the place of the state.
        let tx = Tx::new(Arc::clone(&names.barrier), Arc::clone(view), TxMode::ReadOnly);
        self.is_copying = tx.get(Class::Node, BOOTSTRAP_PATH).is_ok_and(|found| found.is_some());
        if let Some(cursor) = self.cursor.filter(is_known).filter(|_| !self.is_copying) {
            self.told.push(Told::Follows { index: self.at, cursor, sum });
        }
    }

    fn reread_role(&mut self, seen: &Seen, names: &Names) {
        let tx = Tx::new(Arc::clone(&names.barrier), seen.replica.view(), TxMode::ReadOnly);
        self.role = RoleRecord::load(&tx, Kind::Dr).ok();
        if tx.get(Class::Node, BOOTSTRAP_PATH).is_ok_and(|found| found.is_some()) {
            self.is_copying = true;
        }
    }

    fn compare(&self, view: &dyn ReadView, names: &Names) -> Result<(), Broken> {
        if view.index() != self.at || read(view, names).1 == self.sum {
            return Ok(());
        }
        Err((TRUE_LOG, format!("{}'s state at entry {} is not what its log says", self.region, self.at)))
    }
}

fn names(barrier: &Arc<Barrier>) -> Result<Names, crate::run::Failure> {
    let role = barrier.seal_name(Class::Node, Kind::Dr.path()).map_err(crate::run::Failure::setup)?;
    let cursor = cursor_key(arca_replication::Kind::Dr);
    Ok(Names { own: own_prefixes(barrier)?, role, cursor, barrier: Arc::clone(barrier) })
}

fn read(view: &dyn ReadView, names: &Names) -> (BTreeMap<Key, u128>, u128) {
    let (mut passing, mut sum) = (BTreeMap::new(), 0_u128);
    // A view of a simulated store can be read.
    let _ = view.visit(&[], Some(&[NODE]), &mut |key, value, _| {
        if names.passes(key) {
            let hash = hash(key, value);
            sum = sum.wrapping_add(hash);
            passing.insert(key.to_vec(), hash);
        }
        Visit::Next
    });
    (passing, sum)
}
