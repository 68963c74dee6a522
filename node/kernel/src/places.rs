//! Where a path leads, and the one form of it that everything decides on.
//!
//! **Invariant:** rules, audit, lockout, the handler and the paths of tokens and leases see this form, never the path as it
//! was typed: no spelling of a name passes by a rule on it, or is missed when what it was given is taken back
//! (CVE-2026-89322). A path is carried to the active node and to a primary as it was typed, and brought into its form there
//! by the same rule. Read next: [`RouteTable::one_form`](arca_engine_api::RouteTable::one_form) for the names of engines,
//! [`canonical_path`] for those below `sys/`.

use std::sync::Arc;

use crate::namespaces::Namespace;
use crate::policy::canonical_path;
use crate::router::{Mount, Router, Serves};

/// Folders below which stands another path of the namespace: what was asked for there is taken back or shown.
const NESTING: [&str; 5] = [
    "sys/leases/lookup/",
    "sys/leases/revoke-force/",
    "sys/leases/revoke-prefix/",
    "sys/revoke-force/",
    "sys/revoke-prefix/",
];

/// Where a path leads.
pub(crate) struct Place {
    /// The path in its one form, the namespace in front.
    pub(crate) full_path: String,
    /// The innermost namespace that it lies in.
    pub(crate) namespace: Arc<Namespace>,
    /// The mount that serves it, if there is one.
    pub(crate) mount: Option<Arc<Mount>>,
    /// How much of the path stands before the part below the mount.
    mount_len: usize,
}

impl Place {
    /// Where `path` leads if it is asked for in the namespace `stated`.
    pub(crate) fn find(router: &Router, stated: &Namespace, path: &str) -> Self {
        let mut full_path = format!("{}{path}", stated.path);
        let owner = router.namespaces().owner(&full_path);
        let namespace = owner.map_or_else(|| Arc::new(stated.clone()), Arc::clone);
        let wanted = full_path.get(namespace.path.len()..).and_then(|path| {
            let canonical = canonical_path(path);
            nested_form(router, &namespace, canonical.as_deref().unwrap_or(path)).or(canonical)
        });
        if let Some(wanted) = wanted {
            full_path = format!("{}{wanted}", namespace.path);
        }
        let Some((mount, rest)) = target(router, &namespace, &full_path) else {
            return Self { full_path, namespace, mount: None, mount_len: 0 };
        };
        let (mount, mount_len, form) =
            (Arc::clone(mount), full_path.len() - rest.len(), form_below(mount, rest));
        if let Some(form) = form {
            full_path.truncate(mount_len);
            full_path.push_str(&form);
        }
        Self { full_path, namespace, mount: Some(mount), mount_len }
    }

    /// The path without the namespace.
    pub(crate) fn path(&self) -> &str {
        self.full_path.get(self.namespace.path.len()..).unwrap_or_default()
    }

    /// The mount, and the path below it.
    pub(crate) fn target(&self) -> Option<(&Mount, &str)> {
        let mount = self.mount.as_deref()?;
        Some((mount, self.full_path.get(self.mount_len..).unwrap_or_default()))
    }
}

/// The mount that serves a path of the namespace, and the path below it.
fn target<'a>(
    router: &'a Router,
    namespace: &Namespace,
    full_path: &'a str,
) -> Option<(&'a Arc<Mount>, &'a str)> {
    router.find(full_path).filter(|(mount, _)| mount.namespace.id == namespace.id && mount.is_active())
}

/// The one form of a path below a mount, if it is not in it. An engine that could not be made serves nothing.
fn form_below(mount: &Mount, rest: &str) -> Option<String> {
    match mount.serves {
        Serves::Engine(_) => mount.engine().ok()?.routes().one_form(rest),
        Serves::Identity | Serves::System | Serves::Token | Serves::Unknown => None,
    }
}

/// The one form of a path that has another one in it, if that is not in its own. A slash behind the other means nothing.
fn nested_form(router: &Router, namespace: &Namespace, path: &str) -> Option<String> {
    let inner = NESTING.iter().find_map(|folder| path.strip_prefix(folder))?;
    let bare = inner.trim_end_matches('/');
    let (folder, slashes) = (path.strip_suffix(inner)?, inner.strip_prefix(bare)?);
    let full_path = format!("{}{bare}", namespace.path);
    let (mount, rest) = target(router, namespace, &full_path)?;
    let (before, form) = (bare.strip_suffix(rest)?, form_below(mount, rest)?);
    Some(format!("{folder}{before}{form}{slashes}"))
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
