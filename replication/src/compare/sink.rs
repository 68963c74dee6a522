//! The side that makes its state equal to another.
//!
//! In this order: begin a session; store an unknown cursor; take over the keys that open the rest, in one set; hash the own
//! state; go down where sums differ; for the leaves that do, say what is here, take over what is sent, delete what is not
//! there; see that the sums are now the same; store the cursor. Nothing is touched that does not pass the sieve, whatever
//! the other side answers.
//! **Memory:** sums (8 MiB), the nodes of one level that differ (16 MiB at most), a table (8 MiB), and one answer.

use std::fmt;
use std::sync::Arc;

use arca_danger::Bug;
use arca_raft_storage::{Key, KvError, ProposeError, ReadView, Replica, ReplicaError};

use super::apply::Writer;
use super::message::{LeafPairs, NODES_MAX, PART_PAIRS, Purpose, TABLE_PAIRS_MAX, Then};
use super::session::Session;
use super::trie::{self, Leaves, Sums, Total, Trie};
use super::{OwnRecords, own_keys};
use crate::codec::Malformed;
use crate::copy::Entry;
use crate::cursor::Cursor;
use crate::link::{Link, LinkError};
use crate::pace::Pace;
use crate::pinned::slice;
use crate::progress::{Progress, Stage};
use crate::sieve::Sieve;

/// A comparison whose sums do not agree at the end is done again, with other hashes, so many times.
const TRIES: usize = 3;
/// Bytes read here between two questions, so that both sides read at the same time.
const READ_BYTES: usize = 64 << 20;
/// Most answers that hold nothing: each means that the other side has read 64 MiB.
const EMPTY_MAX: usize = 1 << 16;
/// Leaves in a part of a table.
const PART_LEAVES: usize = 64 << 10;
/// Class of the entries that are there before anything can be opened.
const BOOT_CLASS: u8 = 0;

/// Why a comparison did not come to its end. Do it again, unless the other side refused for good.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The sums still differ after everything was taken over.
    #[error("the states still differ after a comparison")]
    Differs,
    /// The state here cannot be read.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The other side did not answer, or refused. [`crate::Refusal::Gone`]: the session is over.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The other side answered what makes no sense.
    #[error("the other side answered what makes no sense: {0}")]
    Malformed(#[from] Malformed),
    /// The other side's keys are not to be taken over.
    #[error("{0}")]
    Keys(String),
    /// What differs could not be written. [`ProposeError::Conflict`]: somebody else compares or follows.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The state here could not be brought up to date.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// A secondary's comparison of its own state with its primary's.
pub struct Comparison {
    /// To the primary.
    pub link: Arc<dyn Link>,
    /// The active member here.
    pub replica: Arc<dyn Replica>,
    /// What the primary has a say in.
    pub sieve: Sieve,
    /// How fast it may go.
    pub pace: Arc<Pace>,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// What has to be written together with the primary's keys, if anything has.
    pub own: Option<Arc<dyn OwnRecords>>,
}

impl fmt::Debug for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Comparison").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// The own state, as it was when the comparison began, and what became of it.
struct Own {
    view: Arc<dyn ReadView>,
    total: Total,
    trie: Trie,
    /// The other side's.
    wanted: Total,
    /// Entries that were sent.
    taken: u64,
}

impl Comparison {
    /// Makes the state here that of the primary at one position, and stores the cursor of it, which it answers.
    ///
    /// # Errors
    /// See [`CompareError`]. What was written by then is as the primary has it, and the stored cursor is unknown.
    pub async fn run(&self) -> Result<Cursor, CompareError> {
        let mut tries = 1;
        loop {
            let result = self.once().await;
            self.progress.end();
            match result {
                Err(CompareError::Differs) if tries < TRIES => {
                    tracing::warn!(tries, "the states still differ after a comparison, which begins anew");
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    async fn once(&self) -> Result<Cursor, CompareError> {
        let session = Session::begin(self.link.as_ref(), &self.pace, Purpose::Differences).await?;
        let mut writer = Writer::claim(self.replica.as_ref(), self.sieve.kind, session.position).await?;
        self.take_keys(&session, &mut writer).await?;
        let mut own = self.read(&session).await?;
        if own.wanted.entries == 0 {
            // Every cluster holds its keys. To believe it would be to delete everything here.
            return Err(Malformed("the other side says that it holds nothing").into());
        }
        let differing = self.descend(&session, &own).await?;
        let average = own.wanted.bytes / own.wanted.entries.max(1);
        let entries = differing.len() as u64;
        self.progress.begin(Stage::Sync, entries, entries.saturating_mul(average));
        self.take_over(&session, &mut writer, &mut own, &differing).await?;
        if own.total != own.wanted {
            return Err(CompareError::Differs);
        }
        let mut position = session.position;
        if arca_danger::is(Bug::ComparisonTooNew) {
            position.index += 1;
        }
        let cursor = position.cursor();
        writer.finish(&cursor).await?;
        session.end().await;
        Ok(cursor)
    }

    /// Takes over the entries that open the rest.
    async fn take_keys(&self, session: &Session<'_>, writer: &mut Writer<'_>) -> Result<(), CompareError> {
        let hashes = &session.hashes;
        let view = self.replica.view();
        let own = own_keys(view.as_ref(), &self.sieve)?;
        let pairs = own.iter().map(|(key, value)| (hashes.key(key), trie::mark(hashes.entry(key, value))));
        let entries = session.keys(pairs.collect()).await?;
        let is_key = |key: &[u8]| {
            self.sieve.passes(key)
                && (key.first() == Some(&BOOT_CLASS) || self.sieve.always.iter().any(|always| always == key))
        };
        if !entries.iter().all(|(key, _)| is_key(key)) {
            return Err(Malformed("a key that is none").into());
        }
        let along = match &self.own {
            Some(own) if !entries.is_empty() => own.along_with(view.as_ref(), &entries),
            _ => Ok(Vec::new()),
        };
        writer.put_together(entries, along.map_err(CompareError::Keys)?).await
    }

    /// Hashes the own state, while the other side hashes its own.
    async fn read(&self, session: &Session<'_>) -> Result<Own, CompareError> {
        self.progress.begin(Stage::Diff, 0, 0);
        let view = self.replica.view();
        let (mut sums, mut shape, mut next) = (Sums::new(), None, Some(Vec::new()));
        let mut asked = 0;
        while next.is_some() || shape.is_none() {
            asked += 1;
            if shape.is_none() {
                if asked > EMPTY_MAX {
                    return Err(Malformed("a state without end").into());
                }
                shape = session.shape().await?;
                if let Some((_, total)) = shape {
                    self.progress.expect(total.entries, total.bytes);
                }
            } else {
                // Keeps the session.
                session.shape().await?;
            }
            let mut read = 0;
            while let Some(start) = next.take_if(|_| read < READ_BYTES) {
                let before = sums.total;
                let slice = slice(view.as_ref(), &self.sieve, &start, &mut |key, value| {
                    sums.add(&session.hashes, key, value);
                    true
                })?;
                read += slice.read;
                next = slice.next;
                self.progress.add(sums.total.entries - before.entries, sums.total.bytes - before.bytes);
                tokio::task::yield_now().await;
            }
        }
        let (depth, wanted) = shape.unwrap_or_default();
        Ok(Own { view, total: sums.total, trie: sums.finish(depth), wanted, taken: 0 })
    }

    /// The leaves whose sums differ, ascending.
    async fn descend(&self, session: &Session<'_>, own: &Own) -> Result<Vec<u32>, CompareError> {
        let (depth, mut level) = (own.trie.depth, 0);
        let mut differing = vec![(0, own.wanted.sum as u64)];
        differing.retain(|(node, sum)| own.trie.node(0, *node) != *sum);
        while level < depth {
            let step = trie::step(level, depth);
            let first_children = (1_usize << step) - 1;
            let mut below = Vec::new();
            for nodes in differing.chunks(NODES_MAX) {
                let asked = nodes.iter().map(|(node, _)| *node).collect();
                let sums = session.children(level, asked, first_children).await?;
                for ((node, sum), children) in nodes.iter().zip(sums.chunks(first_children)) {
                    let last = children.iter().fold(*sum, |rest, child| rest.wrapping_sub(*child));
                    let children = (node << step..).zip(children.iter().copied().chain([last]));
                    below.extend(children.filter(|(node, sum)| own.trie.node(level + step, *node) != *sum));
                }
            }
            differing = below;
            level += step;
        }
        Ok(differing.into_iter().map(|(leaf, _)| leaf).collect())
    }

    /// Makes these leaves equal, as many at a time as a table holds.
    async fn take_over(
        &self,
        session: &Session<'_>,
        writer: &mut Writer<'_>,
        own: &mut Own,
        differing: &[u32],
    ) -> Result<(), CompareError> {
        let in_leaf = own.total.entries >> own.trie.depth;
        let most = TABLE_PAIRS_MAX / usize::try_from(2 * in_leaf + 2).unwrap_or(usize::MAX);
        let (mut rest, mut most) = (differing, most.max(1));
        while !rest.is_empty() {
            let (some, others) = rest.split_at(rest.len().min(most));
            let leaves = Leaves::new(own.trie.depth, some.iter().copied());
            match self.table(session, own, &leaves).await? {
                Some(table) => {
                    send_table(session, own.trie.depth, some, &table).await?;
                    self.take_leaves(session, writer, own, &leaves, &table).await?;
                    rest = others;
                }
                None if most > 1 => most /= 2,
                None => return Err(Malformed("a leaf with too many entries").into()),
            }
        }
        Ok(())
    }

    /// Ids and marks of what is here in `leaves`, ascending; `None` when it is too much.
    async fn table(
        &self,
        session: &Session<'_>,
        own: &Own,
        leaves: &Leaves,
    ) -> Result<Option<Vec<(u64, u64)>>, CompareError> {
        let hashes = &session.hashes;
        let mut table = Vec::new();
        let mut scan = Scan::default();
        while scan.goes_on() {
            scan.slice(self, session, own, &mut |key, value| {
                let hash = hashes.key(key);
                if leaves.holds(hash) {
                    table.push((trie::id(hash, own.trie.depth), trie::mark(hashes.entry(key, value))));
                }
                table.len() <= TABLE_PAIRS_MAX
            })
            .await?;
            if table.len() > TABLE_PAIRS_MAX {
                return Ok(None);
            }
        }
        table.sort_unstable();
        Ok(Some(table))
    }

    /// Takes over what differs in `leaves`.
    async fn take_leaves(
        &self,
        session: &Session<'_>,
        writer: &mut Writer<'_>,
        own: &mut Own,
        leaves: &Leaves,
        table: &[(u64, u64)],
    ) -> Result<(), CompareError> {
        let (mut from, mut empty) = (Vec::new(), 0);
        let removed = loop {
            let (entries, then) = session.differences(&from).await?;
            empty += usize::from(entries.is_empty());
            if empty > EMPTY_MAX {
                return Err(Malformed("an answer without end").into());
            }
            for entry in entries {
                from = self.take_entry(session, writer, own, leaves, (&from, entry)).await?;
            }
            match then {
                Then::From(next) if next.as_ref() >= from.as_slice() && !next.is_empty() => {
                    from = next.into()
                }
                Then::From(_) => return Err(Malformed("an answer that leads back").into()),
                Then::Removed(removed) => break removed,
            }
        };
        let ids = removed.into_iter().map(|number| {
            let pair = usize::try_from(number).ok().and_then(|number| table.get(number));
            pair.copied().ok_or(Malformed("something is gone that never was"))
        });
        let removed = ids.collect::<Result<Vec<_>, _>>()?;
        self.delete(session, writer, own, &removed).await
    }

    /// Answers the key to go on from.
    async fn take_entry(
        &self,
        session: &Session<'_>,
        writer: &mut Writer<'_>,
        own: &mut Own,
        leaves: &Leaves,
        (from, (key, value)): (&[u8], Entry),
    ) -> Result<Vec<u8>, CompareError> {
        if key.as_ref() < from {
            return Err(Malformed("entries that do not ascend").into());
        }
        if !self.sieve.passes(&key) || !leaves.holds(session.hashes.key(&key)) {
            return Err(Malformed("an entry that was not asked for").into());
        }
        own.taken += 1;
        if own.taken > own.wanted.entries {
            return Err(Malformed("more entries than were told").into());
        }
        if let Some(old) = own.view.get(&key)? {
            own.total.remove(key.len() + old.value.len(), session.hashes.entry(&key, &old.value));
        }
        own.total.add(key.len() + value.len(), session.hashes.entry(&key, &value));
        self.progress.add(1, (key.len() + value.len()) as u64);
        let next = [&key[..], &[0]].concat();
        writer.put(key.into(), value.into()).await?;
        Ok(next)
    }

    /// Deletes the entries of these ids and marks.
    async fn delete(
        &self,
        session: &Session<'_>,
        writer: &mut Writer<'_>,
        own: &mut Own,
        removed: &[(u64, u64)],
    ) -> Result<(), CompareError> {
        if removed.is_empty() {
            return Ok(());
        }
        let hashes = &session.hashes;
        let mut scan = Scan::default();
        while scan.goes_on() {
            let mut found: Vec<(Key, usize, u128)> = Vec::new();
            scan.slice(self, session, own, &mut |key, value| {
                let id = trie::id(hashes.key(key), own.trie.depth);
                if removed.binary_search_by_key(&id, |pair| pair.0).is_ok() {
                    let entry = hashes.entry(key, value);
                    if removed.binary_search(&(id, trie::mark(entry))).is_ok() {
                        found.push((key.to_vec(), key.len() + value.len(), entry));
                    }
                }
                true
            })
            .await?;
            for (key, size, entry) in found {
                own.total.remove(size, entry);
                self.progress.add(1, size as u64);
                if arca_danger::is(Bug::ComparisonForgetsDeletes) {
                    continue;
                }
                writer.delete(key).await?;
            }
        }
        Ok(())
    }
}

/// Says what is here in `leaves`.
async fn send_table(
    session: &Session<'_>,
    depth: u32,
    leaves: &[u32],
    table: &[(u64, u64)],
) -> Result<(), CompareError> {
    let (mut part, mut pairs, mut send, mut rest) = (0, 0, Vec::new(), table);
    for leaf in leaves {
        let count = rest.iter().take_while(|(id, _)| trie::leaf(*id, depth) == *leaf).count();
        let (own, others) = rest.split_at(count);
        send.push(LeafPairs { leaf: *leaf, pairs: own.to_vec() });
        (rest, pairs) = (others, pairs + count);
        if pairs >= PART_PAIRS || send.len() >= PART_LEAVES {
            session.table(part, depth, std::mem::take(&mut send)).await?;
            (part, pairs) = (part + 1, 0);
        }
    }
    if part == 0 || !send.is_empty() {
        session.table(part, depth, send).await?;
    }
    Ok(())
}

/// A walk over the own state in slices, which keeps the session meanwhile.
#[derive(Default)]
struct Scan {
    start: Vec<u8>,
    read: usize,
    is_done: bool,
}

/// Bytes read here until the other side hears that the comparison is still under way.
const KEEP_BYTES: usize = 1 << 30;

impl Scan {
    const fn goes_on(&self) -> bool {
        !self.is_done
    }

    async fn slice(
        &mut self,
        comparison: &Comparison,
        session: &Session<'_>,
        own: &Own,
        take: &mut (dyn FnMut(&[u8], &[u8]) -> bool + Send),
    ) -> Result<(), CompareError> {
        let slice = slice(own.view.as_ref(), &comparison.sieve, &self.start, take)?;
        match slice.next {
            Some(next) => self.start = next,
            None => self.is_done = true,
        }
        self.read += slice.read;
        if self.read >= KEEP_BYTES {
            self.read = 0;
            session.shape().await?;
        }
        tokio::task::yield_now().await;
        Ok(())
    }
}
