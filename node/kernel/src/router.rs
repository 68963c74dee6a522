//! Where a path leads: an immutable table of namespaces and mounts, replaced as a whole when a mount record changed.
//!
//! **Invariant:** a router shows at least every change that the newest view its reader holds shows; it may show
//! later ones. A writing request guards the version of its mount's record, so a mount that changed meanwhile refuses
//! the commit.
//! Read next: [`crate::mounts`], which builds it and changes the records.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use arca_barrier::Class;
use arca_engine_api::{Engine, EngineType, MountView};
use arca_raft_storage::{Key, Version};

use crate::KernelError;
use crate::mounts::{MountRecord, MountState};
use crate::namespaces::{Namespace, NamespaceTree};

/// What serves a mount.
#[derive(Clone, Copy, Debug)]
pub enum Serves {
    /// An engine.
    Engine(EngineType),
    /// The kernel, `identity/`.
    Identity,
    /// The kernel, `sys/`.
    System,
    /// The kernel, `auth/token/`.
    Token,
    /// A type this build does not know.
    Unknown,
}

/// A mount in memory: its record, where it is, and its engine once somebody asked for it.
pub struct Mount {
    /// As stored.
    pub record: MountRecord,
    /// What its engine may know of it.
    pub view: MountView,
    /// Namespace it belongs to.
    pub namespace: Arc<Namespace>,
    /// Namespace path and mount path.
    pub full_path: Arc<str>,
    /// What serves it.
    pub serves: Serves,
    /// Key and version of its record.
    pub(crate) guard: (Key, Version),
    engine: OnceLock<Result<Arc<dyn Engine>, String>>,
}

impl Mount {
    pub(crate) fn new(
        record: MountRecord,
        view: MountView,
        namespace: Arc<Namespace>,
        serves: Serves,
        guard: (Key, Version),
    ) -> Self {
        let full_path = format!("{}{}", namespace.path, record.path).into();
        Self { record, view, namespace, full_path, serves, guard, engine: OnceLock::new() }
    }

    /// Who receives its data.
    #[must_use]
    pub fn class(&self) -> Class {
        if self.record.is_local { Class::Local } else { Class::Replicated }
    }

    /// Prefix of its data.
    #[must_use]
    pub fn storage_prefix(&self) -> String {
        format!("{}/logical/{}/", self.namespace.id, self.record.uuid)
    }

    /// Whether requests reach it; not while it is being disabled or moved.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.record.state == MountState::Active
    }

    /// Namespace path and the path it is being moved to, if it is.
    fn moves_to(&self) -> Option<String> {
        let MountState::Moving { to, .. } = &self.record.state else { return None };
        Some(format!("{}{to}", self.namespace.path))
    }

    /// Its engine, made on first use.
    ///
    /// # Errors
    /// When it is served by the kernel itself, of an unknown type, or could not be made.
    pub fn engine(&self) -> Result<&Arc<dyn Engine>, KernelError> {
        let Serves::Engine(kind) = &self.serves else {
            return Err(KernelError::Bug(format!("no engine of type {:?}", self.record.engine)));
        };
        let made = self.engine.get_or_init(|| (kind.make)(&self.view).map_err(|err| err.to_string()));
        made.as_ref().map_err(|err| KernelError::Bug(format!("engine {:?}: {err}", self.record.engine)))
    }
}

impl fmt::Debug for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").field("path", &self.full_path).finish_non_exhaustive()
    }
}

/// See the file's header.
#[derive(Clone, Debug, Default)]
pub struct Router {
    built_at: u64,
    namespaces: Arc<NamespaceTree>,
    /// Only asked, never gone through: its order, another one in every process, shows nowhere.
    by_path: HashMap<Arc<str>, Arc<Mount>>,
    /// By namespace id and accessor. Only asked as well.
    by_accessor: HashMap<String, Arc<Mount>>,
    /// In the one order in which everything goes through the mounts, the same every time.
    by_uuid: BTreeMap<Arc<str>, Arc<Mount>>,
    /// Most segments of any mount path.
    depth_max: usize,
}

impl Router {
    pub(crate) fn new(built_at: u64, namespaces: NamespaceTree, mounts: Vec<Arc<Mount>>) -> Self {
        let mut router = Self { built_at, namespaces: Arc::new(namespaces), ..Self::default() };
        for mount in mounts {
            router.insert(mount);
        }
        router
    }

    pub(crate) fn insert(&mut self, mount: Arc<Mount>) {
        self.remove(&mount.record.uuid);
        self.depth_max = self.depth_max.max(depth(&mount.full_path));
        // Where a primary makes a mount at the path of a local one of its secondary, the local one goes on there.
        let is_hidden = !mount.record.is_local
            && self.by_path.get(&mount.full_path).is_some_and(|other| other.record.is_local);
        if !is_hidden {
            self.by_path.insert(Arc::clone(&mount.full_path), Arc::clone(&mount));
        }
        self.by_accessor
            .insert(accessor_key(&mount.namespace.id, &mount.record.accessor), Arc::clone(&mount));
        self.by_uuid.insert(mount.record.uuid.as_str().into(), mount);
    }

    pub(crate) fn remove(&mut self, uuid: &str) {
        let Some(old) = self.by_uuid.remove(uuid) else { return };
        if self.by_path.get(&old.full_path).is_some_and(|mount| mount.record.uuid == uuid) {
            self.by_path.remove(&old.full_path);
            if old.record.is_local
                && let Some(hidden) = self.by_uuid.values().find(|mount| mount.full_path == old.full_path)
            {
                self.by_path.insert(Arc::clone(&hidden.full_path), Arc::clone(hidden));
            }
        }
        let accessor = accessor_key(&old.namespace.id, &old.record.accessor);
        if self.by_accessor.get(&accessor).is_some_and(|mount| mount.record.uuid == uuid) {
            self.by_accessor.remove(&accessor);
        }
    }

    pub(crate) fn set_built_at(&mut self, index: u64) {
        self.built_at = index;
    }

    /// The applied index it was built from.
    #[must_use]
    pub fn built_at(&self) -> u64 {
        self.built_at
    }

    /// All namespaces.
    #[must_use]
    pub fn namespaces(&self) -> &Arc<NamespaceTree> {
        &self.namespaces
    }

    /// The mount that `path` (namespace in front) lies in, and the path below it. A mount's own path without the
    /// final slash leads to it as well.
    #[must_use]
    pub fn find<'p>(&self, path: &'p str) -> Option<(&Arc<Mount>, &'p str)> {
        let mut found = None;
        for (at, _) in path.match_indices('/').take(self.depth_max) {
            let (prefix, rest) = path.split_at_checked(at + 1)?;
            if let Some(mount) = self.by_path.get(prefix) {
                found = Some((mount, rest));
            }
        }
        if found.is_none() && !path.ends_with('/') {
            let mount = self.by_path.get(format!("{path}/").as_str())?;
            return Some((mount, ""));
        }
        found
    }

    /// The mount at exactly this full path, with its slash.
    #[must_use]
    pub fn at(&self, full_path: &str) -> Option<&Arc<Mount>> {
        self.by_path.get(full_path)
    }

    /// The mount with this id.
    #[must_use]
    pub fn by_uuid(&self, uuid: &str) -> Option<&Arc<Mount>> {
        self.by_uuid.get(uuid)
    }

    /// The mount of a namespace with this accessor.
    #[must_use]
    pub fn by_accessor(&self, namespace_id: &str, accessor: &str) -> Option<&Arc<Mount>> {
        self.by_accessor.get(&accessor_key(namespace_id, accessor))
    }

    /// All mounts of a namespace, by their ids.
    pub fn mounts_of<'a>(&'a self, namespace_id: &'a str) -> impl Iterator<Item = &'a Arc<Mount>> {
        self.by_uuid.values().filter(move |mount| mount.namespace.id == namespace_id)
    }

    /// All mounts, by their ids.
    pub fn mounts(&self) -> impl Iterator<Item = &Arc<Mount>> {
        self.by_uuid.values()
    }

    /// A mount other than `except` whose path is inside `full_path`, or around it, or will be once it is moved.
    #[must_use]
    pub fn overlapping(&self, full_path: &str, except: Option<&str>) -> Option<&Arc<Mount>> {
        let overlaps = |other: &str| other.starts_with(full_path) || full_path.starts_with(other);
        self.by_uuid.values().filter(|mount| Some(mount.record.uuid.as_str()) != except).find(|mount| {
            overlaps(&mount.full_path) || mount.moves_to().is_some_and(|target| overlaps(&target))
        })
    }
}

/// Ids and accessors hold no slash.
fn accessor_key(namespace_id: &str, accessor: &str) -> String {
    format!("{namespace_id}/{accessor}")
}

fn depth(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}
