//! Versions of the keys written or asked for lately: what conflict checks ask, without a read of the store.
//!
//! **Invariant:** a version in here is the one the store shows, or will show once the pending batch is written. So a
//! check decides the same with it as without it, however much each replica happens to remember.
//! Read next: [`super::apply`], which asks it and tells it.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::Version;
use crate::write_set::Key;

/// Keys with their overhead in one of the two generations, bytes.
const GENERATION_BYTES_MAX: usize = 2 << 20;
/// What an entry takes beside its key, bytes, roughly.
const ENTRY_OVERHEAD: usize = 64;

/// The hash has no secret: keys are sealed names, which nobody outside can choose.
///
/// Two generations: when the young one is full it becomes the old one, and what is not asked for again falls out
/// with it.
#[derive(Default)]
pub(super) struct Versions {
    young: HashMap<Key, Version, FixedState>,
    old: HashMap<Key, Version, FixedState>,
    young_bytes: usize,
}

impl Versions {
    pub(super) fn find(&mut self, key: &[u8]) -> Option<Version> {
        if let Some(version) = self.young.get(key) {
            return Some(*version);
        }
        let (key, version) = self.old.remove_entry(key)?;
        self.remember(key, version);
        Some(version)
    }

    /// Absence is a version too.
    pub(super) fn remember(&mut self, key: Key, version: Version) {
        if let Some(known) = self.young.get_mut(key.as_slice()) {
            *known = version;
            return;
        }
        if self.young_bytes >= GENERATION_BYTES_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.young_bytes = 0;
        }
        self.young_bytes += key.len() + ENTRY_OVERHEAD;
        self.young.insert(key, version);
    }

    /// The store was replaced or written to by another way.
    pub(super) fn forget_everything(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_found_and_the_size_is_bounded() {
        let mut versions = Versions::default();
        let key = |number: u64| number.to_be_bytes().to_vec();
        versions.remember(key(0), Version(1));
        for number in 1..200_000 {
            versions.remember(key(number), Version(number));
            if number % 1_000 == 0 {
                assert_eq!(versions.find(&key(0)), Some(Version(1)), "asked for again and again");
            }
            let held = versions.young.len() + versions.old.len();
            assert!(held <= 2 * (GENERATION_BYTES_MAX / ENTRY_OVERHEAD), "{held}");
        }
        assert_eq!(versions.find(&key(1)), None);
        versions.remember(key(0), Version::ABSENT);
        assert_eq!(versions.find(&key(0)), Some(Version::ABSENT));
        versions.forget_everything();
        assert_eq!(versions.find(&key(0)), None);
    }

    #[test]
    fn a_version_in_both_generations_is_found_as_the_newer_one() {
        let mut versions = Versions::default();
        versions.remember(b"key".to_vec(), Version(1));
        let mut others = 0_u64..;
        while versions.old.is_empty() {
            versions.remember(others.next().unwrap().to_be_bytes().to_vec(), Version(9));
        }
        assert!(versions.old.contains_key(b"key".as_slice()));
        versions.remember(b"key".to_vec(), Version(2));
        assert_eq!(versions.find(b"key"), Some(Version(2)));
    }
}
