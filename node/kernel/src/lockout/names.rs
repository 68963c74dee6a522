//! The names of one mount that were tried and failed: counts in memory, and how many tries are under way.
//!
//! Names that are locked and names that are not lie in tables of their own, each of fixed size, in which the name tried
//! longest ago makes room. So a lock is pushed out by nothing less than as many other locks, and a count by as many other
//! names. **Invariant:** a name somebody has and a name nobody has are pushed out alike: what is stored of the first counts
//! no more then, or the difference would tell them apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arca_engine_api::UnixMillis;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::{Key, Rules, Tried, Watched};

/// Names in a table.
pub(super) const NAMES_MAX: usize = 16_384;

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
    /// When the name that was pushed out last had been tried.
    forgotten_until: Option<UnixMillis>,
}

impl Kept {
    /// Whether it was there.
    fn remove(&mut self, key: &Key) -> bool {
        let tried = self.tried.remove(key);
        tried.is_some_and(|tried| self.by_age.remove(&(tried.last, *key)))
    }

    fn insert(&mut self, key: Key, tried: Tried) {
        while self.tried.len() >= NAMES_MAX
            && let Some((last, oldest)) = self.by_age.pop_first()
        {
            self.tried.remove(&oldest);
            self.forgotten_until = self.forgotten_until.max(Some(last));
        }
        self.tried.insert(key, tried);
        self.by_age.insert((tried.last, key));
    }
}

impl Names {
    /// What is counted in memory.
    pub(super) fn find(&self, key: &Key) -> Option<Tried> {
        self.locked.tried.get(key).or_else(|| self.open.tried.get(key)).copied()
    }

    /// Whether what is stored of a name counts: not if the name was pushed out since, or would have been.
    pub(super) fn remembers(&self, stored: Tried, rules: Rules) -> bool {
        let kept = if stored.count >= rules.threshold { &self.locked } else { &self.open };
        kept.forgotten_until.is_none_or(|until| stored.last > until)
    }

    fn tried(&self, watched: &Watched) -> Option<Tried> {
        let stored = watched.stored.filter(|stored| self.remembers(*stored, watched.rules));
        self.find(&watched.key).or(stored)
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
        self.remove(&key);
        let kept = if tried.count >= rules.threshold { &mut self.locked } else { &mut self.open };
        kept.insert(key, tried);
    }

    /// Forgets a name. Whether it was counted.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        self.locked.remove(key) | self.open.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_names_are_counted_and_no_more() {
        let mut names = Kept::default();
        let tried = |at: u64| Tried { count: 1, last: UnixMillis(at) };
        let key = |at: u64| *blake3::hash(&at.to_le_bytes()).as_bytes();
        for at in 0..NAMES_MAX as u64 + 10 {
            names.insert(key(at), tried(at));
            names.remove(&key(at));
            names.insert(key(at), tried(at));
        }
        assert_eq!((names.tried.len(), names.by_age.len()), (NAMES_MAX, NAMES_MAX));
        assert!(!names.tried.contains_key(&key(9)) && names.tried.contains_key(&key(10)));
        assert_eq!(names.forgotten_until, Some(UnixMillis(9)));
    }
}
