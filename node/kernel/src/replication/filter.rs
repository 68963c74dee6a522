//! Path filters: mounts and namespaces that a performance secondary does not get, and the keys that this comes to.
//!
//! **Invariants.** A key passes by what the mount table of the very state says that it is shipped from: below
//! `<namespace>/logical/`, `core/mounts/` and `core/auth/` only what is *listed* passes, so a mount that the table does not
//! know (any more) is withheld. Whatever changes what passes of things that were there before, a filter or the path or the
//! end of a mount, writes the record at [`changed_path`] of that secondary in the same entry: nobody who follows from
//! before that entry is sent anything behind it, but compares states.
//!
//! Filters are of class `Replicated`: a secondary that is promoted, and has everything, goes on to withhold what was withheld.
//! One that has a filter gets its own, and no other: it may not know what others do not get.
//! Read next: `arca_replication::sieve` for how rules are applied, [`crate::mounts`] for the table.

use std::collections::BTreeSet;

use arca_barrier::Class;
use arca_engine_api::Page;
use arca_raft_storage::{Key, Version};
use serde::{Deserialize, Serialize};

use crate::KernelError;
use crate::mounts::{MountRecord, is_built_in};
use crate::namespaces::{Namespace, NamespaceTree, REGISTRY};
use crate::router::Mount;
use crate::sys::migration_path;
use crate::tx::Tx;

/// Most filters of a cluster, and most paths of a filter.
pub const FILTERS_MAX: usize = 1024;
const FOLDER: &str = "root/core/replication/filters/";
const CHANGED_FOLDER: &str = "root/core/replication/filter-changes/";
/// Who has a filter. One record, so that a mount that moves and a filter that is set at the same time refuse one another.
const IDS_PATH: &str = "root/core/replication/filtered";
/// First byte of every key that filters are about.
const GATED: u8 = Class::Replicated.tag();

/// What the paths of a filter stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilterMode {
    /// Nothing else passes.
    Allow,
    /// They do not pass.
    Deny,
}

impl FilterMode {
    /// As requests and answers spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// The filter of one secondary. There may be one before there is the secondary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// What the paths stand for.
    pub mode: FilterMode,
    /// Full paths of mounts and namespaces, `ns1/`, `ns1/secret/`, `auth/userpass/`: with a slash at the end and none in
    /// front. Each stands for what is at it or below.
    pub paths: Vec<String>,
}

/// Where it is written that what passes to a secondary has changed.
fn changed_path(secondary_id: &str) -> String {
    format!("{CHANGED_FOLDER}{secondary_id}")
}

fn path(secondary_id: &str) -> String {
    format!("{FOLDER}{secondary_id}")
}

#[derive(Default, Serialize, Deserialize)]
struct Changes {
    count: u64,
}

fn touch(tx: &Tx, secondary_id: &str) -> Result<(), KernelError> {
    let path = changed_path(secondary_id);
    let Changes { count } = tx.get_record(Class::Replicated, &path)?.unwrap_or_default();
    Ok(tx.put_record(Class::Replicated, &path, &Changes { count: count + 1 })?)
}

impl Filter {
    /// The filter of a secondary, if it has one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(tx: &Tx, secondary_id: &str) -> Result<Option<Self>, KernelError> {
        Ok(tx.get_record(Class::Replicated, &path(secondary_id))?)
    }

    /// Stages it.
    ///
    /// # Errors
    /// When there are too many, or storage fails.
    pub fn store(&self, tx: &Tx, secondary_id: &str) -> Result<(), KernelError> {
        let Ids { mut ids } = ids(tx)?;
        ids.insert(secondary_id.to_owned());
        if ids.len() > FILTERS_MAX {
            return Err(KernelError::invalid(format!("there are {FILTERS_MAX} filters: remove one first")));
        }
        tx.put_record(Class::Replicated, IDS_PATH, &Ids { ids })?;
        touch(tx, secondary_id)?;
        Ok(tx.put_record(Class::Replicated, &path(secondary_id), self)?)
    }

    /// Stages its removal. Whether there was one.
    ///
    /// # Errors
    /// When storage fails.
    pub fn remove(tx: &Tx, secondary_id: &str) -> Result<bool, KernelError> {
        if Self::load(tx, secondary_id)?.is_none() {
            return Ok(false);
        }
        let Ids { mut ids } = ids(tx)?;
        ids.remove(secondary_id);
        tx.put_record(Class::Replicated, IDS_PATH, &Ids { ids })?;
        touch(tx, secondary_id)?;
        tx.delete(Class::Replicated, &path(secondary_id))?;
        Ok(true)
    }

    fn names(&self, full_path: &str) -> bool {
        self.paths.iter().any(|path| full_path.starts_with(path))
    }

    /// Whether what is mounted at this path of a namespace passes. What every namespace has always does.
    fn passes_mount(&self, namespace: &Namespace, path: &str) -> bool {
        if is_built_in(path) {
            return true;
        }
        let is_named = self.names(&format!("{}{path}", namespace.path));
        is_named == (self.mode == FilterMode::Allow)
    }

    /// Whether what is mounted at this path of a namespace gets to the secondary, namespace and all.
    pub(crate) fn passes(&self, namespace: &Namespace, path: &str) -> bool {
        self.passes_namespace(namespace) && self.passes_mount(namespace, path)
    }

    /// Whether anything of a namespace passes.
    fn passes_namespace(&self, namespace: &Namespace) -> bool {
        match self.mode {
            _ if namespace.is_root() => true,
            FilterMode::Deny => !self.names(&namespace.path),
            // What is allowed inside needs what is around it.
            FilterMode::Allow => {
                let is_around = |path: &String| path.starts_with(&namespace.path);
                self.names(&namespace.path) || self.paths.iter().any(is_around)
            }
        }
    }
}

/// What a secondary is told that asks about an auth method that is kept from it.
pub(crate) const METHOD_KEPT: &str = "this auth method is kept from this cluster by a filter";

/// Whether `mount` is kept from a secondary: then nothing is done in it for that one either.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn withholds(tx: &Tx, secondary_id: &str, mount: &Mount) -> Result<bool, KernelError> {
    withholds_path(tx, secondary_id, &mount.namespace, &mount.record.path)
}

/// Whether what is mounted at this path of a namespace, or would be, is kept from a secondary: it may neither move nor
/// remove it, nor learn whether it is there.
///
/// # Errors
/// When the filter cannot be read.
pub(crate) fn withholds_path(
    tx: &Tx,
    secondary_id: &str,
    namespace: &Namespace,
    path: &str,
) -> Result<bool, KernelError> {
    let filter = Filter::load(tx, secondary_id)?;
    Ok(filter.is_some_and(|filter| !filter.passes(namespace, path)))
}

/// Names of the secondaries that have a filter.
#[derive(Default, Serialize, Deserialize)]
struct Ids {
    ids: BTreeSet<String>,
}

fn ids(tx: &Tx) -> Result<Ids, KernelError> {
    Ok(tx.get_record(Class::Replicated, IDS_PATH)?.unwrap_or_default())
}

/// Whether this cluster has a part of a primary's state only: of filters, a filtered secondary has its own and nothing else,
/// whatever it knows of its primary by now.
///
/// # Errors
/// When the state cannot be read.
pub(crate) fn is_part(tx: &Tx) -> Result<bool, KernelError> {
    let has_list = tx.version(Class::Replicated, IDS_PATH)? != Version::ABSENT;
    Ok(!has_list && !tx.some_below(Class::Replicated, FOLDER, 1)?.is_empty())
}

/// Stages that paths of mounts are not what they were, or that a mount is gone: called wherever that is staged.
pub(crate) fn paths_changed(tx: &Tx) -> Result<(), KernelError> {
    for id in ids(tx)?.ids {
        touch(tx, &id)?;
    }
    Ok(())
}

/// What the rules of a secondary depend on: they are the same as long as this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    filter: Version,
    /// Version of the record at [`changed_path`].
    changed: Version,
    /// Of each namespace its id, its path, and the version of its mount table.
    namespaces: Vec<(String, String, Version)>,
}

impl Stamp {
    /// The last entry that changed what passes of what had been there.
    #[must_use]
    pub const fn changed_at(&self) -> u64 {
        self.changed.0
    }

    /// As the state of this transaction has it.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn read(tx: &Tx, secondary_id: &str) -> Result<Self, KernelError> {
        let filter = tx.version(Class::Replicated, &path(secondary_id))?;
        let changed = tx.version(Class::Replicated, &changed_path(secondary_id))?;
        if filter == Version::ABSENT {
            return Ok(Self { filter, changed, namespaces: Vec::new() });
        }
        let mut namespaces = Vec::new();
        for namespace in namespaces_of(tx)?.iter() {
            let revision = tx.version(Class::Replicated, &namespace.storage_path("core/mounts-revision"))?;
            namespaces.push((namespace.id.clone(), namespace.path.clone(), revision));
        }
        Ok(Self { filter, changed, namespaces })
    }
}

fn namespaces_of(tx: &Tx) -> Result<NamespaceTree, KernelError> {
    crate::mounts::read_namespaces(tx)
}

/// Prefixes of keys and whether what is below them passes to this secondary; the longest one that a key has decides.
///
/// # Errors
/// When the state cannot be read.
pub fn rules(tx: &Tx, secondary_id: &str) -> Result<Vec<(Key, bool)>, KernelError> {
    let key = |path: &str| tx.physical_key(Class::Replicated, path);
    // Who gets everything gets the filters too: should it be promoted, it goes on to withhold.
    let Some(filter) = Filter::load(tx, secondary_id)? else { return Ok(Vec::new()) };
    // Whoever gets something withheld need not know what others do not get.
    let mut rules: Vec<(Key, bool)> = Vec::new();
    for others in [FOLDER, CHANGED_FOLDER, IDS_PATH] {
        rules.push((key(others)?, false));
    }
    rules.push((key(&path(secondary_id))?, true));
    // What nobody knows does not pass.
    rules.extend([(vec![GATED], false), (key("core/")?, true), (key(REGISTRY)?, false)]);
    // Moves name the paths of mounts.
    rules.push((key(&migration_path(""))?, false));
    for namespace in namespaces_of(tx)?.iter().filter(|namespace| filter.passes_namespace(namespace)) {
        rules.push((key(&namespace.storage_path(""))?, true));
        if !namespace.is_root() {
            rules.push((key(&format!("{REGISTRY}{}", namespace.id))?, true));
        }
        rules.push((key(&namespace.storage_path("logical/"))?, false));
        for table in ["core/mounts/", "core/auth/"] {
            let folder = namespace.storage_path(table);
            rules.push((key(&folder)?, false));
            for uuid in tx.scan(Class::Replicated, &folder, &Page::default())? {
                let record_path = format!("{folder}{uuid}");
                let record: Option<MountRecord> = tx.get_record(Class::Replicated, &record_path)?;
                if record.is_some_and(|mount| filter.passes_mount(namespace, &mount.path)) {
                    rules.push((key(&record_path)?, true));
                    rules.push((key(&namespace.storage_path(&format!("logical/{uuid}/")))?, true));
                }
            }
        }
    }
    Ok(rules)
}

/// Full paths of what a secondary does not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Withheld {
    /// Mounts of namespaces that it does get.
    pub mounts: Vec<String>,
    /// Namespaces.
    pub namespaces: Vec<String>,
}

/// What `filter` withholds as things are.
///
/// # Errors
/// When the state cannot be read.
pub fn withheld(tx: &Tx, filter: &Filter) -> Result<Withheld, KernelError> {
    let mut withheld = Withheld::default();
    for namespace in namespaces_of(tx)?.iter() {
        if !filter.passes_namespace(namespace) {
            withheld.namespaces.push(namespace.path.clone());
            continue;
        }
        for table in ["core/mounts/", "core/auth/"] {
            let folder = namespace.storage_path(table);
            for uuid in tx.scan(Class::Replicated, &folder, &Page::default())? {
                let record: Option<MountRecord> =
                    tx.get_record(Class::Replicated, &format!("{folder}{uuid}"))?;
                let mount = record.filter(|mount| !filter.passes_mount(namespace, &mount.path));
                withheld.mounts.extend(mount.map(|mount| format!("{}{}", namespace.path, mount.path)));
            }
        }
    }
    withheld.mounts.sort();
    Ok(withheld)
}

/// A path of a filter in its one form.
///
/// # Errors
/// When it names nothing that could be withheld.
pub fn canonical(path: &str) -> Result<String, KernelError> {
    let (kind, rest) = match path.trim_matches('/').strip_prefix("auth/") {
        Some(rest) => (arca_engine_api::EngineKind::Auth, rest),
        None => (arca_engine_api::EngineKind::Secrets, path),
    };
    let canonical = crate::mounts::canonical_path(kind, rest)?;
    crate::mounts::refuse_protected(&canonical, "filter")?;
    Ok(canonical)
}
