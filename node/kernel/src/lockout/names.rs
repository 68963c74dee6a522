//! The names of one mount that were tried and failed: counts in memory, and how many tries are under way.
//!
//! Names that are locked and names that are not lie in tables of their own, each of fixed size, in which the name tried
//! longest ago makes room. What made room is counted on in [`coarse`](super::coarse), so nothing that others try makes a name be
//! forgotten early. **Invariant:** nothing here depends on whether there is somebody by a name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arca_engine_api::UnixMillis;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::coarse::Coarse;
use super::{Key, Rules, Tried, Watched};

/// Names in a table.
pub(super) const NAMES_MAX: usize = 16_384;
/// Locks of a mount written within the time that a lock lasts: strangers may lock as many names as they like, and fill no disk.
const WRITTEN_MAX: u64 = 4_096;

/// Whether a try was begun.
pub(super) enum Begun {
    /// The name is locked.
    Locked,
    /// As many are under way as may fail yet. Ends when one of them does.
    NotYet(OwnedNotified),
    Yes,
}

/// See the file's header.
#[derive(Default)]
pub(super) struct Names {
    locked: Kept,
    open: Kept,
    /// What had to make room in either; none as long as there was room.
    coarse: Option<Coarse>,
    /// Locks written since that time.
    written: (UnixMillis, u64),
    /// Names that are being tried right now.
    under_way: BTreeMap<Key, UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    count: u64,
    ended: Arc<Notify>,
}

#[derive(Default)]
struct Kept {
    tried: BTreeMap<Key, Tried>,
    by_age: BTreeSet<(UnixMillis, Key)>,
}

impl Kept {
    /// Whether it was there.
    fn remove(&mut self, key: &Key) -> bool {
        let tried = self.tried.remove(key);
        tried.is_some_and(|tried| self.by_age.remove(&(tried.last, *key)))
    }

    /// Answers who made room.
    fn insert(&mut self, key: Key, tried: Tried) -> Option<(Key, Tried)> {
        let mut oldest = None;
        if self.tried.len() >= NAMES_MAX
            && let Some((_, key)) = self.by_age.pop_first()
        {
            oldest = self.tried.remove(&key).map(|tried| (key, tried));
        }
        self.tried.insert(key, tried);
        self.by_age.insert((tried.last, key));
        oldest
    }
}

impl Names {
    /// What is counted in memory.
    pub(super) fn find(&self, key: &Key) -> Option<Tried> {
        self.locked.tried.get(key).or_else(|| self.open.tried.get(key)).copied()
    }

    /// What counts of a name: the table's word, or the most that is remembered otherwise.
    fn tried(&self, watched: &Watched) -> Option<Tried> {
        let others = || {
            let coarse = self.coarse.as_ref().and_then(|coarse| coarse.find(&watched.key));
            watched.stored.into_iter().chain(coarse).max_by_key(|tried| (tried.count, tried.last))
        };
        self.find(&watched.key).or_else(others)
    }

    pub(super) fn is_locked(&self, watched: &Watched, now: UnixMillis) -> bool {
        self.tried(watched).is_some_and(|tried| tried.is_locked(watched.rules, now))
    }

    /// Begins a try, unless the name is locked or as many are under way as may fail yet; one may always be.
    pub(super) fn begin(&mut self, watched: &Watched, now: UnixMillis) -> Begun {
        if self.is_locked(watched, now) {
            return Begun::Locked;
        }
        let failed = self.tried(watched).map_or(0, |tried| tried.counting(watched.rules, now));
        let under_way = self.under_way.entry(watched.key).or_default();
        if under_way.count > 0 && under_way.count >= watched.rules.threshold.saturating_sub(failed) {
            return Begun::NotYet(Arc::clone(&under_way.ended).notified_owned());
        }
        under_way.count += 1;
        Begun::Yes
    }

    /// Ends a try that was begun.
    pub(super) fn end(&mut self, key: &Key) {
        let Some(under_way) = self.under_way.get_mut(key) else { return };
        under_way.count = under_way.count.saturating_sub(1);
        under_way.ended.notify_waiters();
        if under_way.count == 0 {
            self.under_way.remove(key);
        }
    }

    /// Counts a failure and answers what is counted now; none if the name was locked meanwhile.
    pub(super) fn fail(&mut self, watched: &Watched, now: UnixMillis) -> Option<Tried> {
        if self.is_locked(watched, now) {
            return None;
        }
        let tried = Tried::after_one_more(self.tried(watched), watched.rules, now);
        self.insert(watched.key, tried, watched.rules);
        Some(tried)
    }

    pub(super) fn insert(&mut self, key: Key, tried: Tried, rules: Rules) {
        self.locked.remove(&key);
        self.open.remove(&key);
        let kept = if tried.count >= rules.threshold { &mut self.locked } else { &mut self.open };
        if let Some((key, tried)) = kept.insert(key, tried) {
            self.coarse.get_or_insert_with(|| Coarse::new(tried.last)).take(&key, tried, rules);
        }
    }

    /// Forgets the failures of a name. Whether there were any.
    pub(super) fn forgive(&mut self, key: &Key, rules: Rules, now: UnixMillis) -> bool {
        let was_kept = self.locked.remove(key) | self.open.remove(key);
        let is_shared = self.coarse.as_ref().is_some_and(|coarse| coarse.find(key).is_some());
        if is_shared {
            // Cells are others' as well: the table has the last word.
            self.insert(*key, Tried { count: 0, last: now }, rules);
        }
        was_kept || is_shared
    }

    /// Whether one more lock is to be written.
    pub(super) fn writes_one_more(&mut self, rules: Rules, now: UnixMillis) -> bool {
        let (since, count) = &mut self.written;
        if now.since(*since) > rules.duration {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= WRITTEN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_holds_so_many_names_and_no_more() {
        let mut names = Kept::default();
        let tried = |at: u64| Tried { count: 1, last: UnixMillis(at) };
        let key = |at: u64| *blake3::hash(&at.to_le_bytes()).as_bytes();
        for at in 0..NAMES_MAX as u64 + 10 {
            let oldest = names.insert(key(at), tried(at));
            let want = at.checked_sub(NAMES_MAX as u64).map(|oldest| (key(oldest), tried(oldest)));
            assert_eq!(oldest, want);
            names.remove(&key(at));
            assert_eq!(names.insert(key(at), tried(at)), None);
        }
        assert_eq!((names.tried.len(), names.by_age.len()), (NAMES_MAX, NAMES_MAX));
    }
}
