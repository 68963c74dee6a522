//! Who works on what is due: one lane for all tokens, one for each mount with leases, one for each job, side by side.
//!
//! What is due is read from the store's time index a stretch at a time and handed to the lanes that are free; nothing
//! waits for a lane that is not. So an engine that does not answer keeps nobody else's leases waiting, and memory
//! holds a stretch for each busy lane, however much is due. **Invariant:** what a lane does not finish stays in the
//! index, so nothing is forgotten, and is passed over for a while, so nothing waits behind it.
//! Read next: [`super::worker`] for how one lease or token ends, [`super::jobs`] for work on many.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arca_barrier::{Class, TimedIndex};
use arca_engine_api::UnixMillis;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::FIRST_IN_LINE;
use super::jobs::Step;
use super::worker::Undone;
use crate::KernelError;
use crate::kernel::Kernel;
use crate::router::Router;
use crate::tokens::{Reaped, TokenRef};
use crate::tx::Mode;

/// Entries read in one go.
const PAGE_MAX: usize = 1_024;
/// Pages read before the lanes get what was found.
const STRETCH_PAGES: usize = 4;
/// Entries one mount's lane takes at once.
const MOUNT_LANE_MAX: usize = 2_048;
/// Lanes at once.
const LANES_MAX: usize = 1_024;
/// Tokens handled in one transaction, unless they bring more changes than [`CHANGES_MAX`].
const TOGETHER_MAX: usize = 64;
/// Changes after which a transaction takes no further token.
const CHANGES_MAX: usize = 2_048;
/// Transactions of the token lane on their way at once: Raft puts them into one entry.
const COMMITS_AT_ONCE: usize = 8;
/// Steps of one token taken in a row: to mark it, to take it away, and some more if much hangs on it.
const STEPS_IN_A_ROW: usize = 4;
/// Times a step that conflicts is repeated at once.
pub(super) const REPEATS_MAX: usize = 3;
/// Leases of one mount undone at the same time: engines may wait for systems behind them.
const AT_ONCE: usize = 16;
/// Leases of one mount on their way to be undone or committed at the same time.
const LEASES_IN_FLIGHT: usize = 128;
/// Leases of one mount that may collide with others before the rest is undone in common transactions.
const COLLISIONS_MAX: usize = 4;
/// Leases undone in one transaction.
const UNDONE_TOGETHER_MAX: usize = 32;
/// Steps of a job between two looks at how much it has left to be undone.
const JOB_STEPS: usize = 8;
/// Wait of a job that is ahead of those who undo what it ended.
const JOB_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at the index while lanes are busy.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// So many times as long as reading took, at least.
const READING_SHARE: u32 = 4;
/// What failed is passed over for so long, at least.
const FAILED_REST: Duration = Duration::from_secs(2);

/// Something due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Job { namespace_id: String, id: String },
    Lease { namespace_id: String, id: String },
    Token(TokenRef),
}

impl Due {
    pub(super) fn parse(path: &str) -> Option<Self> {
        let (namespace_id, rest) = path.split_once('/')?;
        let namespace_id = namespace_id.to_owned();
        if let Some(key) = rest.strip_prefix("token/id/") {
            return Some(Self::Token(TokenRef { namespace_id, key: key.to_owned() }));
        }
        if let Some(id) = rest.strip_prefix("lease/id/") {
            return Some(Self::Lease { namespace_id, id: id.to_owned() });
        }
        rest.strip_prefix("lease/job/").map(|id| Self::Job { namespace_id, id: id.to_owned() })
    }
}

/// An entry of the time index.
pub(super) struct Entry {
    pub(super) at: UnixMillis,
    pub(super) path: String,
    pub(super) due: Due,
}

/// Which of the things due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    All,
    Leases,
    /// And jobs.
    Tokens,
}

impl Kind {
    fn takes(self, due: &Due) -> bool {
        let is_lease = matches!(due, Due::Lease { .. });
        self == Self::All || is_lease == (self == Self::Leases)
    }
}

/// Where something due is worked on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// By path of its record.
    Job(String),
    /// By id; empty for leases of a mount that is gone.
    Mount(String),
    Tokens,
}

impl Lane {
    fn room(&self) -> usize {
        if matches!(self, Self::Mount(_)) { MOUNT_LANE_MAX } else { usize::MAX }
    }
}

/// What is gone through, and what that has taught so far.
struct Round {
    kind: Kind,
    /// Only entries whose path begins so.
    below: String,
    /// Paths of entries that failed.
    failed: Mutex<BTreeSet<String>>,
}

/// The entry read last; none at the start of the index.
type Cursor = Option<(UnixMillis, String)>;

impl Round {
    fn new(kind: Kind, below: &str) -> Self {
        Self { kind, below: below.to_owned(), failed: Mutex::default() }
    }

    fn takes(&self, path: &str) -> bool {
        path.starts_with(&self.below) && !self.failed.lock().contains(path)
    }

    /// One step of progress, or none: what failed stays in the index. Only losing the lead ends the round.
    fn counted(&self, path: &str, result: Result<(), KernelError>) -> Result<usize, KernelError> {
        match result {
            Ok(()) => return Ok(1),
            Err(KernelError::NeedsActive) => return Err(KernelError::NeedsActive),
            Err(err) if err.is_conflict() => {}
            Err(err) => tracing::warn!(error = %err, "something due could not be handled, will try again"),
        }
        self.failed.lock().insert(path.to_owned());
        Ok(0)
    }
}

impl Kernel {
    /// Handles what is due until nothing is that can be handled now; answers how many steps were committed. Looks at
    /// the index again and again meanwhile: a lane that is long busy keeps no other from what fell due since.
    pub(crate) async fn expire_due(&self) -> Result<usize, KernelError> {
        let (round, mut cursor, mut total) = (Round::new(Kind::All, ""), None, 0);
        let (mut busy, mut running) = (BTreeSet::new(), FuturesUnordered::new());
        let (mut tried_all_at, mut reading) = (Instant::now(), Duration::ZERO);
        loop {
            let began = Instant::now();
            let found = self.read_stretch(&round, &mut cursor, &busy).await?;
            reading += began.elapsed();
            if found.is_empty() && cursor.is_some() {
                continue;
            }
            if found.is_empty() && running.is_empty() {
                return Ok(total);
            }
            for (lane, entries) in found {
                busy.insert(lane.clone());
                let round = &round;
                running.push(async move { (self.run_lane(&lane, entries, round).await, lane) });
            }
            // Where a great many have to wait, reading past them is not to take much of the time.
            let pause = LOOK_PAUSE.max(reading * READING_SHARE);
            tokio::select! {
                biased;
                Some((result, lane)) = running.next() => {
                    busy.remove(&lane);
                    total += result?;
                }
                () = sleep(pause) => {}
            }
            if cursor.is_none() {
                reading = Duration::ZERO;
            }
            if tried_all_at.elapsed() >= FAILED_REST {
                tried_all_at = Instant::now();
                round.failed.lock().clear();
            }
        }
    }

    /// Handles the tokens and jobs that are due, and waits for it; answers how many steps were committed.
    pub(crate) async fn expire_tokens(&self) -> Result<usize, KernelError> {
        self.expire(Kind::Tokens, "").await
    }

    /// Handles the leases that are due, and waits for it; answers how many steps were committed.
    #[cfg(test)]
    pub(crate) async fn expire_leases(&self) -> Result<usize, KernelError> {
        self.expire(Kind::Leases, "").await
    }

    /// The same for leases whose record stands below a path.
    pub(super) async fn expire_leases_below(&self, path: &str) -> Result<usize, KernelError> {
        self.expire(Kind::Leases, path).await
    }

    async fn expire(&self, kind: Kind, below: &str) -> Result<usize, KernelError> {
        let (round, mut cursor, mut total) = (Round::new(kind, below), None, 0);
        loop {
            let mut progress = 0;
            loop {
                let found = self.read_stretch(&round, &mut cursor, &BTreeSet::new()).await?;
                let lanes = found.into_iter().map(|(lane, entries)| {
                    let round = &round;
                    async move { self.run_lane(&lane, entries, round).await }
                });
                let mut running: FuturesUnordered<_> = lanes.collect();
                while let Some(result) = running.next().await {
                    progress += result?;
                }
                if cursor.is_none() {
                    break;
                }
            }
            if progress == 0 {
                return Ok(total);
            }
            total += progress;
        }
    }

    /// What the next stretch of the index holds for lanes that are not busy. The cursor is back at the start once
    /// everything due has been read.
    async fn read_stretch(
        &self,
        round: &Round,
        cursor: &mut Cursor,
        busy: &BTreeSet<Lane>,
    ) -> Result<BTreeMap<Lane, Vec<Entry>>, KernelError> {
        let (now, tx) = (self.due_by(), self.store.begin(Mode::ReadOnly));
        let mut found = BTreeMap::new();
        for _ in 0..STRETCH_PAGES {
            let page = tx.due(Class::Local, TimedIndex::LeaseDeadline, now, cursor.as_ref(), PAGE_MAX)?;
            let is_last = page.len() < PAGE_MAX;
            *cursor = page.last().filter(|_| !is_last).cloned();
            self.hand_out(page, round, busy, &mut found)?;
            if is_last {
                break;
            }
            // Others go on between two pages.
            tokio::task::yield_now().await;
        }
        Ok(found)
    }

    fn hand_out(
        &self,
        page: Vec<(UnixMillis, String)>,
        round: &Round,
        busy: &BTreeSet<Lane>,
        found: &mut BTreeMap<Lane, Vec<Entry>>,
    ) -> Result<(), KernelError> {
        let router = self.mounts.router(&self.store)?;
        for (at, path) in page.into_iter().filter(|(_, path)| round.takes(path)) {
            let Some(due) = Due::parse(&path) else {
                tracing::error!("the time index holds an entry of an unknown kind");
                continue;
            };
            if !round.kind.takes(&due) {
                continue;
            }
            let lane = lane_of(&router, &path, &due);
            let has_room = found.contains_key(&lane) || found.len() + busy.len() < LANES_MAX;
            if busy.contains(&lane) || !has_room {
                continue;
            }
            let room = lane.room();
            let entries = found.entry(lane).or_default();
            if entries.len() < room {
                entries.push(Entry { at, path, due });
            }
        }
        Ok(())
    }

    async fn run_lane(&self, lane: &Lane, entries: Vec<Entry>, round: &Round) -> Result<usize, KernelError> {
        match lane {
            Lane::Job(_) => self.run_jobs(&entries, round).await,
            Lane::Mount(_) => self.undo_all(entries, round).await,
            Lane::Tokens => self.reap_all(entries, round).await,
        }
    }

    async fn reap_all(&self, entries: Vec<Entry>, round: &Round) -> Result<usize, KernelError> {
        let (now, mut progress, mut rest) = (self.due_by(), 0, entries.into_iter());
        let chunks = std::iter::from_fn(move || {
            let together: Vec<Entry> = rest.by_ref().take(TOGETHER_MAX).collect();
            (!together.is_empty()).then_some(together)
        });
        let mut reaped = futures::stream::iter(chunks)
            .map(|together| async move { self.reap_together(&together, round, now).await })
            .buffer_unordered(COMMITS_AT_ONCE);
        while let Some(result) = reaped.next().await {
            progress += result?;
        }
        Ok(progress)
    }

    /// Several tokens in one transaction; one by one if that does not work out.
    async fn reap_together(
        &self,
        entries: &[Entry],
        round: &Round,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        let (mut left, mut progress): (Vec<&Entry>, _) = (entries.iter().collect(), 0);
        for _ in 0..STEPS_IN_A_ROW {
            if left.is_empty() {
                return Ok(progress);
            }
            match self.reap_entries(&left, now).await {
                Ok(more) => left = more,
                Err(KernelError::NeedsActive) => return Err(KernelError::NeedsActive),
                Err(_) => return Ok(progress + self.reap_one_by_one(&left, round, now).await?),
            }
            progress += 1;
        }
        Ok(progress) // There is much more to some: it is left to the next look.
    }

    async fn reap_one_by_one(
        &self,
        entries: &[&Entry],
        round: &Round,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        let mut progress = 0;
        for entry in entries {
            let mut result = self.reap_entries(std::slice::from_ref(entry), now).await;
            for _ in 0..REPEATS_MAX {
                if !result.as_ref().is_err_and(KernelError::is_conflict) {
                    break;
                }
                result = self.reap_entries(std::slice::from_ref(entry), now).await;
            }
            progress += round.counted(&entry.path, result.map(drop))?;
        }
        Ok(progress)
    }

    /// One step of each token, in one transaction; answers those that are not done with.
    async fn reap_entries<'e>(
        &self,
        entries: &[&'e Entry],
        now: UnixMillis,
    ) -> Result<Vec<&'e Entry>, KernelError> {
        let tx = self.store.begin(Mode::ReadWrite);
        let (mut drawers, mut more, mut gone) = (BTreeMap::new(), Vec::new(), Vec::new());
        for entry in entries {
            let Due::Token(wanted) = &entry.due else { continue };
            if tx.changes() >= CHANGES_MAX {
                more.push(*entry);
                continue;
            }
            let drawers = match drawers.entry(wanted.namespace_id.as_str()) {
                std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(self.drawers(&wanted.namespace_id)?)
                }
            };
            match self.tokens.reap(&tx, &self.leases, wanted, drawers, now)? {
                Reaped::More => {
                    more.push(*entry);
                    continue;
                }
                Reaped::Done => gone.push(entry.at),
                Reaped::Alive => {}
            }
            tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, entry.at, &entry.path)?;
        }
        self.store.commit(tx).await?;
        self.note_lateness(&gone);
        Ok(more)
    }

    /// Undoes leases of one mount, many at the same time. Those that get in each other's way, as where an engine keeps one record
    /// about all of them, are undone several in one transaction. Once the engine fails to answer in time, the rest is left to
    /// the next look.
    async fn undo_all(&self, entries: Vec<Entry>, round: &Round) -> Result<usize, KernelError> {
        let (now, engine, mut progress) = (self.due_by(), Semaphore::new(AT_ONCE), 0);
        let collided = Mutex::new(Vec::new());
        let mut undone = futures::stream::iter(entries)
            .map(|entry| {
                let (engine, collided) = (&engine, &collided);
                async move {
                    if collided.lock().len() < COLLISIONS_MAX {
                        let result = self.undo_due(&entry, engine, now).await;
                        if !result.as_ref().is_err_and(KernelError::is_conflict) {
                            return settled(&entry, result, engine, round);
                        }
                    }
                    collided.lock().push(entry);
                    Ok(0)
                }
            })
            .buffer_unordered(LEASES_IN_FLIGHT);
        while let Some(result) = undone.next().await {
            progress += result?;
        }
        drop(undone);
        for together in collided.into_inner().chunks(UNDONE_TOGETHER_MAX) {
            progress += self.undo_together(together, &engine, round, now).await?;
        }
        Ok(progress)
    }

    /// Several leases of one mount in one transaction; one by one if that does not work out.
    async fn undo_together(
        &self,
        entries: &[Entry],
        engine: &Semaphore,
        round: &Round,
        now: UnixMillis,
    ) -> Result<usize, KernelError> {
        for _ in 0..=REPEATS_MAX {
            if engine.is_closed() {
                return Ok(0);
            }
            match self.undo_entries(entries, now).await {
                Ok(Undone::Done) => return Ok(entries.len()),
                Ok(Undone::Late | Undone::NotTried) => engine.close(),
                Err(KernelError::NeedsActive) => return Err(KernelError::NeedsActive),
                Err(err) if err.is_conflict() => {}
                Err(_) => break,
            }
        }
        let mut progress = 0;
        for entry in entries {
            let result = self.undo_due(entry, engine, now).await;
            progress += settled(entry, result, engine, round)?;
        }
        Ok(progress)
    }

    async fn run_jobs(&self, entries: &[Entry], round: &Round) -> Result<usize, KernelError> {
        let mut progress = 0;
        for entry in entries {
            progress += self.run_job(entry, round).await?;
        }
        Ok(progress)
    }

    /// Some steps of a job, unless too much of what it ended is still to be undone: what ends by itself meanwhile is
    /// not to wait behind a million others.
    async fn run_job(&self, entry: &Entry, round: &Round) -> Result<usize, KernelError> {
        let Due::Job { namespace_id, id } = &entry.due else { return Ok(0) };
        let is_ahead = self.leases.is_ahead(&self.store.begin(Mode::ReadOnly), namespace_id, id);
        match is_ahead {
            Ok(false) => {}
            Ok(true) => {
                sleep(JOB_PAUSE).await;
                return Ok(0);
            }
            Err(err) => return round.counted(&entry.path, Err(err)),
        }
        for done in 0..JOB_STEPS {
            match self.step_job(entry, namespace_id, id).await {
                Ok(Step::More) => {}
                Ok(Step::Done) => return Ok(done + 1),
                Err(err) => return Ok(done + round.counted(&entry.path, Err(err))?),
            }
        }
        Ok(JOB_STEPS)
    }

    async fn step_job(&self, entry: &Entry, namespace_id: &str, id: &str) -> Result<Step, KernelError> {
        let tx = self.store.begin(Mode::ReadWrite);
        let step = self.leases.go_on(&tx, &self.tokens, namespace_id, id, self.due_by())?;
        if step == Step::Done {
            tx.delete_timed(Class::Local, TimedIndex::LeaseDeadline, entry.at, &entry.path)?;
        }
        self.store.commit(tx).await?;
        Ok(step)
    }

    /// For what ended by itself: how long after its time it was gone.
    pub(super) fn note_lateness(&self, due: &[UnixMillis]) {
        let (now, lateness) = (self.clock.now(), metrics::histogram!("vault.expire.lateness"));
        for at in due.iter().filter(|at| **at != FIRST_IN_LINE) {
            lateness.record(now.since(*at).as_secs_f64() * 1e3);
        }
    }
}

/// The lane something is worked on in. A lease's mount is told by its id, which begins with the path of its request:
/// reading the record would cost more than all else, for leases that have to wait.
fn lane_of(router: &Router, path: &str, due: &Due) -> Lane {
    match due {
        Due::Token(_) => Lane::Tokens,
        Due::Job { .. } => Lane::Job(path.to_owned()),
        Due::Lease { namespace_id, id } => {
            let mut namespaces = router.namespaces().iter();
            let namespace = namespaces.find(|namespace| namespace.id == *namespace_id);
            let full_path = format!("{}{id}", namespace.map_or("", |namespace| &namespace.path));
            let mount = router.find(&full_path).map(|(mount, _)| mount.record.uuid.clone());
            Lane::Mount(mount.unwrap_or_default())
        }
    }
}

/// One step of progress, or none. An engine that did not answer in time is asked no more.
fn settled(
    entry: &Entry,
    undone: Result<Undone, KernelError>,
    engine: &Semaphore,
    round: &Round,
) -> Result<usize, KernelError> {
    match undone {
        Ok(Undone::Late) => {
            engine.close();
            Ok(0)
        }
        Ok(Undone::NotTried) => Ok(0),
        Ok(Undone::Done) => round.counted(&entry.path, Ok(())),
        Err(err) => round.counted(&entry.path, Err(err)),
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
