//! Folders sealed lately, so that the mount prefixes used all day are not sealed again for each key.
//!
//! Two generations: when the young one is full it becomes the old one, and what is not asked for again falls out
//! with it. The paths in here are plaintext, so they are wiped when dropped.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::names::Siv;

/// Most folders in one generation.
const FOLDERS_MAX: usize = 2048;
/// Longer paths are not kept, bytes.
const PATH_SIZE_MAX: usize = 512;

/// A sealed folder.
#[derive(Clone)]
pub(crate) struct Folder {
    /// Its physical key.
    pub(crate) key: Arc<[u8]>,
    /// The synthetic IV of its last segment, to which children are bound.
    pub(crate) siv: Siv,
}

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

/// The cache of one class.
#[derive(Default)]
pub(crate) struct Folders {
    young: HashMap<Path, Folder>,
    old: HashMap<Path, Folder>,
}

impl Folders {
    pub(crate) fn find(&mut self, path: &str) -> Option<Folder> {
        if let Some(folder) = self.young.get(path) {
            return Some(folder.clone());
        }
        let (path, folder) = self.old.remove_entry(path)?;
        self.insert(path, folder.clone());
        Some(folder)
    }

    pub(crate) fn remember(&mut self, path: &str, folder: &Folder) {
        if path.len() <= PATH_SIZE_MAX {
            self.insert(Path(Zeroizing::new(path.to_owned())), folder.clone());
        }
    }

    fn insert(&mut self, path: Path, folder: Folder) {
        if self.young.len() >= FOLDERS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(path, folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_asked_for_and_stays_bounded() {
        let mut folders = Folders::default();
        let folder = Folder { key: [1, 2].into(), siv: [7; 16] };
        folders.remember("hot/", &folder);
        for number in 0..10 * FOLDERS_MAX {
            folders.remember(&format!("cold/{number}/"), &folder);
            assert!(folders.find("hot/").is_some(), "after {number}");
            assert!(folders.young.len() + folders.old.len() <= 2 * FOLDERS_MAX);
        }
        assert!(folders.find("cold/0/").is_none());
        folders.remember(&"x".repeat(PATH_SIZE_MAX + 1), &folder);
        assert!(folders.find(&"x".repeat(PATH_SIZE_MAX + 1)).is_none());
    }
}
