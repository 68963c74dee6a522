//! Hears of every applied change and notes which topics it touches, so that what is derived from many records (the
//! router, compiled policies, audit devices) is rebuilt when, and only when, one of them changed.
//!
//! It runs inside apply: it compares sealed keys with sealed prefixes, opens nothing and never blocks.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arca_danger::Bug;
use arca_raft_storage::{ApplyObserver, Change, Key, Write};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::cache::ObjectCache;

/// Something rebuilt from many records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Topic {
    /// Audit devices.
    Audit,
    /// Settings below `<ns>/core/config/`.
    Config,
    /// Groups, and aliases of local mounts.
    Identity,
    /// The mount table.
    Mounts,
    /// The namespace registry.
    Namespaces,
    /// Policies.
    Policies,
}

const TOPICS: usize = 6;
/// Mount records remembered one by one; beyond that the table is read whole.
const LOG_MAX: usize = 4096;

/// Mount records changed since the router was built.
#[derive(Debug, Default)]
struct MountLog {
    changes: Vec<(u64, Key)>,
    /// Up to this index single changes are not known.
    incomplete_until: u64,
}

/// See the file's header.
#[derive(Default)]
pub struct Watches {
    /// No prefix starts with another.
    prefixes: RwLock<BTreeMap<Vec<u8>, Topic>>,
    changed: [AtomicU64; TOPICS],
    replaced: AtomicU64,
    mounts: Mutex<MountLog>,
    mounts_changed: Arc<Notify>,
}

impl Watches {
    /// Watches every key below a sealed prefix from now on. Take the view to build from afterwards.
    pub fn watch(&self, prefix: Vec<u8>, topic: Topic) {
        self.prefixes.write().insert(prefix, topic);
    }

    /// The applied index of the last change; zero for none heard of.
    #[must_use]
    pub fn changed_at(&self, topic: Topic) -> u64 {
        self.changed.get(topic as usize).map_or(0, |changed| changed.load(Ordering::Acquire))
    }

    /// The applied index at which the whole state was replaced last; zero for never.
    #[must_use]
    pub fn replaced_at(&self) -> u64 {
        self.replaced.load(Ordering::Acquire)
    }

    /// Wakes one waiter, at once or when it next waits, after the mount table has changed.
    #[must_use]
    pub fn mounts_changed(&self) -> Arc<Notify> {
        Arc::clone(&self.mounts_changed)
    }

    /// Keys of mount records changed in `(after, until]`; `None` when the table must be read whole.
    #[must_use]
    pub fn mount_changes(&self, after: u64, until: u64) -> Option<Vec<Key>> {
        let log = self.mounts.lock();
        if log.incomplete_until > after {
            return None;
        }
        let mut keys: Vec<Key> = log
            .changes
            .iter()
            .filter(|(index, _)| *index > after && *index <= until)
            .map(|(_, key)| key.clone())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        Some(keys)
    }

    /// A router built at `until` is in place: earlier changes need not be remembered.
    pub fn forget_mount_changes(&self, until: u64) {
        let mut log = self.mounts.lock();
        log.changes.retain(|(index, _)| *index > until);
        log.incomplete_until = log.incomplete_until.max(until);
    }

    fn note(&self, index: u64, topic: Topic) {
        if let Some(changed) = self.changed.get(topic as usize) {
            changed.fetch_max(index, Ordering::AcqRel);
        }
        if topic == Topic::Mounts {
            self.mounts_changed.notify_one();
        }
    }

    fn write(&self, index: u64, write: &Write) {
        let key = write.key();
        let range = (Bound::Unbounded, Bound::Included(key));
        let topic = self
            .prefixes
            .read()
            .range::<[u8], _>(range)
            .next_back()
            .filter(|(prefix, _)| key.starts_with(prefix))
            .map(|(_, topic)| *topic);
        let Some(topic) = topic else { return };
        if topic == Topic::Mounts {
            let mut log = self.mounts.lock();
            if log.changes.len() >= LOG_MAX {
                log.changes.clear();
                log.incomplete_until = index;
            } else {
                log.changes.push((index, key.to_vec()));
            }
        }
        self.note(index, topic);
    }

    fn everything(&self, index: u64) {
        let mut log = self.mounts.lock();
        log.changes.clear();
        log.incomplete_until = index;
        drop(log);
        self.replaced.fetch_max(index, Ordering::AcqRel);
        for changed in &self.changed {
            changed.fetch_max(index, Ordering::AcqRel);
        }
        self.mounts_changed.notify_one();
    }
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").field("changed", &self.changed).finish_non_exhaustive()
    }
}

/// The kernel's ear at the replica. It holds nothing alive: after the kernel is gone it ignores what it hears.
pub struct Observer {
    cache: Weak<ObjectCache>,
    watches: Weak<Watches>,
}

impl Observer {
    /// An observer that tells both.
    #[must_use]
    pub fn new(cache: &Arc<ObjectCache>, watches: &Arc<Watches>) -> Self {
        Self { cache: Arc::downgrade(cache), watches: Arc::downgrade(watches) }
    }
}

impl ApplyObserver for Observer {
    fn applied(&self, index: u64, change: Change<'_>) {
        let (Some(cache), Some(watches)) = (self.cache.upgrade(), self.watches.upgrade()) else { return };
        match change {
            Change::Everything => {
                cache.evict_everything(index);
                watches.everything(index);
            }
            Change::Write(write) => {
                if !arca_danger::is(Bug::RevokedTokenCached) {
                    cache.evict(write.key(), index);
                }
                watches.write(index, write);
            }
        }
    }
}
