//! Namespaces: who owns a path. Only the root namespace exists until records say otherwise.
//!
//! A namespace's id is in every storage path, its path in front of every request path; ids are never reused.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Id of the root namespace.
pub const ROOT_ID: &str = "root";
/// Where namespace records live.
pub const REGISTRY: &str = "core/namespaces/";

/// A namespace. Stored at `core/namespaces/<id>`, except for root, which needs no record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Never changes, never reused.
    pub id: String,
    /// Full path: empty for root, else with a trailing slash.
    pub path: String,
    /// Id of the namespace around it; none for root.
    pub parent: Option<String>,
}

impl Namespace {
    /// The root namespace.
    #[must_use]
    pub fn root() -> Self {
        Self { id: ROOT_ID.to_owned(), path: String::new(), parent: None }
    }

    /// Whether it is the root namespace.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    /// A storage path of this namespace.
    #[must_use]
    pub fn storage_path(&self, rest: &str) -> String {
        format!("{}/{rest}", self.id)
    }
}

/// All namespaces, by path.
#[derive(Clone, Debug)]
pub struct NamespaceTree {
    by_path: BTreeMap<String, Arc<Namespace>>,
}

impl Default for NamespaceTree {
    fn default() -> Self {
        Self::new([])
    }
}

impl NamespaceTree {
    /// The root namespace and the given ones.
    #[must_use]
    pub fn new(others: impl IntoIterator<Item = Namespace>) -> Self {
        let all = std::iter::once(Namespace::root()).chain(others);
        Self { by_path: all.map(|one| (one.path.clone(), Arc::new(one))).collect() }
    }

    /// All of them, by path.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        self.by_path.values()
    }

    /// The namespace at exactly this path.
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Arc<Namespace>> {
        self.by_path.get(path)
    }

    /// The innermost namespace that `path` lies in.
    #[must_use]
    pub fn owner(&self, path: &str) -> Option<&Arc<Namespace>> {
        if self.by_path.len() > 1 {
            let ends = path.rmatch_indices('/').map(|(at, _)| at + 1);
            for end in ends {
                if let Some(found) = path.get(..end).and_then(|prefix| self.by_path.get(prefix)) {
                    return Some(found);
                }
            }
        }
        self.by_path.get("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, want: &str) {
        let named = |id: &str, path: &str| Namespace {
            id: id.to_owned(),
            path: path.to_owned(),
            parent: Some(ROOT_ID.to_owned()),
        };
        let tree = NamespaceTree::new([named("a1", "a/"), named("b2", "a/b/")]);
        assert_eq!(tree.owner(path).map(|one| one.id.as_str()), Some(want), "path {path:?}");
    }

    #[test]
    fn the_innermost_namespace_owns_a_path() {
        check("a/b/secret/x", "b2");
        check("a/b", "a1");
        check("a/c/d", "a1");
        check("ab/c", "root");
        check("", "root");
    }
}
