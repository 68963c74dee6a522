//! What was lately sealed for a path, so that mount prefixes and names used all day are not sealed again each time.
//!
//! Two generations: when the young one is full it becomes the old one, and what is not asked for again falls out
//! with it. The paths in here are plaintext, so they are wiped when dropped.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

use zeroize::Zeroizing;

/// Most paths in one generation.
const PATHS_MAX: usize = 8192;
/// Longer paths are not kept, bytes.
const PATH_SIZE_MAX: usize = 512;

struct Path(Zeroizing<String>);

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Path {}

/// See the file's header.
///
/// The hash is seeded by chance, and stays so in a simulation: callers choose the paths, and must not be able to make
/// them collide. What follows from the seed shows nowhere, for the maps are only asked, counted and emptied.
pub(crate) struct Recent<V> {
    young: HashMap<Path, V>,
    old: HashMap<Path, V>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<V: Clone> Recent<V> {
    pub(crate) fn find(&mut self, path: &str) -> Option<V> {
        if let Some(sealed) = self.young.get(path) {
            return Some(sealed.clone());
        }
        let (path, sealed) = self.old.remove_entry(path)?;
        self.insert(path, sealed.clone());
        Some(sealed)
    }

    pub(crate) fn remember(&mut self, path: &str, sealed: V) {
        if path.len() <= PATH_SIZE_MAX {
            self.insert(Path(Zeroizing::new(path.to_owned())), sealed);
        }
    }

    fn insert(&mut self, path: Path, sealed: V) {
        if self.young.len() >= PATHS_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(path, sealed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_asked_for_and_stays_bounded() {
        let mut recent = Recent::default();
        recent.remember("hot/", 7);
        for number in 0..10 * PATHS_MAX {
            recent.remember(&format!("cold/{number}/"), number);
            assert_eq!(recent.find("hot/"), Some(7), "after {number}");
            assert!(recent.young.len() + recent.old.len() <= 2 * PATHS_MAX);
        }
        assert!(recent.find("cold/0/").is_none());
        recent.remember(&"x".repeat(PATH_SIZE_MAX + 1), 1);
        assert!(recent.find(&"x".repeat(PATH_SIZE_MAX + 1)).is_none());
    }
}
