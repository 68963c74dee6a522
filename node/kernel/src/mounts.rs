//! The mount table: one record a mount, no limit to their number.
//!
//! Every change reads and writes the table's revision, so two changes never pass each other; a disabled mount's path
//! is taken until its data is gone. **Invariant:** a mount's storage prefix comes from its random id, never from its
//! path: a new mount at an old path sees nothing of the old one.
//! Read next: [`crate::router`] for lookups, [`crate::removal`] for what follows a disable or a move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arca_barrier::Class;
use arca_engine_api::{EngineKind, EngineType, Entropy, MountView, Page};
use arca_raft_storage::Key;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::KernelError;
use crate::identity::Paths;
use crate::ids;
use crate::lockout::LockoutTuning;
use crate::namespaces::{Namespace, NamespaceTree, REGISTRY};
use crate::replication::filter;
use crate::router::{Mount, Router, Serves};
use crate::store::SealedStore;
use crate::tx::{Mode, Tx};
use crate::watch::{Topic, Watches};

/// Type of the mount at `identity/`.
pub const IDENTITY_TYPE: &str = "identity";
/// Type of the mount at `sys/`.
pub const SYSTEM_TYPE: &str = "system";
/// Type of the mount at `auth/token/`.
pub const TOKEN_TYPE: &str = "token";
/// Longest mount path, bytes.
const PATH_MAX: usize = 512;
/// Accessors tried for a new mount. They have four random bytes: a second try is rare, a third is unheard of.
const ACCESSOR_TRIES_MAX: usize = 16;

/// What a mount is going through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum MountState {
    /// Serves.
    #[default]
    Active,
    /// Serves nobody; leases and data are being removed.
    Disabling,
    /// Serves nobody until its leases are revoked and its path is changed.
    Moving {
        /// Path it goes to.
        to: String,
        /// Id of the move, for its status.
        migration: String,
    },
}

/// What `tune` sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountConfig {
    /// Seconds; zero for the system's.
    pub default_lease_ttl: u64,
    /// Seconds; zero for the system's.
    pub max_lease_ttl: u64,
    /// Kept for clients that set it.
    pub force_no_cache: bool,
    /// Request fields shown in clear in the audit log.
    pub audit_non_hmac_request_keys: Vec<String>,
    /// Response fields shown in clear in the audit log.
    pub audit_non_hmac_response_keys: Vec<String>,
    /// `unauth`, `hidden` or empty.
    pub listing_visibility: String,
    /// Request headers its engine sees.
    pub passthrough_request_headers: Vec<String>,
    /// Response headers its engine may set.
    pub allowed_response_headers: Vec<String>,
    /// Kind of token an auth method makes: `default-service`, `default-batch`, `service` or `batch`.
    pub token_type: String,
    /// Kept for clients that set it.
    pub plugin_version: String,
    /// When failed logins lock a name, for auth methods that count them.
    pub user_lockout_config: LockoutTuning,
}

/// A mount as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// Random, never reused.
    pub uuid: String,
    /// Path in its namespace with a trailing slash; below `auth/` for auth methods.
    pub path: String,
    /// Type.
    pub engine: String,
    /// For people.
    pub description: String,
    /// Public handle.
    pub accessor: String,
    /// Settings of the engine's own.
    pub options: BTreeMap<String, String>,
    /// Settings.
    pub config: MountConfig,
    /// Never shipped to performance secondaries.
    pub is_local: bool,
    /// Kept for clients that set it: everything is sealed anyway.
    pub seal_wrap: bool,
    /// Kept for clients that set it.
    pub external_entropy_access: bool,
    /// What it is going through.
    #[serde(default)]
    pub state: MountState,
}

impl MountRecord {
    /// Secrets engine or auth method.
    #[must_use]
    pub fn kind(&self) -> EngineKind {
        if self.path.starts_with("auth/") { EngineKind::Auth } else { EngineKind::Secrets }
    }

    /// Who receives the record and its data.
    #[must_use]
    pub fn class(&self) -> Class {
        if self.is_local { Class::Local } else { Class::Replicated }
    }

    fn storage_path(&self, namespace_id: &str) -> String {
        format!("{}{}", table_prefix(namespace_id, self.kind()), self.uuid)
    }
}

/// Revision of a namespace's mount table, one for its shared mounts and one for its local ones; every change writes its own
/// and reads both.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Revision {
    count: u64,
}

fn table_prefix(namespace_id: &str, kind: EngineKind) -> String {
    match kind {
        EngineKind::Auth => format!("{namespace_id}/core/auth/"),
        EngineKind::Secrets => format!("{namespace_id}/core/mounts/"),
    }
}

const KINDS: [EngineKind; 2] = [EngineKind::Auth, EngineKind::Secrets];
const CLASSES: [Class; 2] = [Class::Replicated, Class::Local];

/// What is asked for at enable.
#[derive(Clone, Debug, Default)]
pub struct NewMount {
    /// Path, with or without slash.
    pub path: String,
    /// Type.
    pub engine: String,
    /// For people.
    pub description: String,
    /// Settings of the engine's own.
    pub options: BTreeMap<String, String>,
    /// Settings.
    pub config: MountConfig,
    /// See [`MountRecord::is_local`].
    pub is_local: bool,
    /// See [`MountRecord::seal_wrap`].
    pub seal_wrap: bool,
    /// See [`MountRecord::external_entropy_access`].
    pub external_entropy_access: bool,
}

/// See the file's header.
pub struct Mounts {
    router: ArcSwap<Router>,
    refreshing: Mutex<()>,
    watched: Mutex<BTreeSet<String>>,
    watches: Arc<Watches>,
    engines: Vec<EngineType>,
    default_lease_ttl: Duration,
    max_lease_ttl: Duration,
}

impl Mounts {
    /// An empty table; the first lookup reads it.
    #[must_use]
    pub fn new(
        watches: Arc<Watches>,
        engines: Vec<EngineType>,
        default_lease_ttl: Duration,
        max_lease_ttl: Duration,
    ) -> Self {
        Self {
            router: ArcSwap::default(),
            refreshing: Mutex::default(),
            watched: Mutex::default(),
            watches,
            engines,
            default_lease_ttl,
            max_lease_ttl,
        }
    }

    /// Every type that can be mounted.
    #[must_use]
    pub fn engines(&self) -> &[EngineType] {
        &self.engines
    }

    /// The router, showing at least what any view taken before the call shows.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn router(&self, store: &SealedStore) -> Result<Arc<Router>, KernelError> {
        let current = self.router.load();
        if self.is_current(&current) {
            return Ok(Arc::clone(&current));
        }
        let _guard = self.refreshing.lock();
        let current = self.router.load_full();
        if self.is_current(&current) {
            return Ok(current);
        }
        let next = Arc::new(self.rebuilt(store, &current)?);
        self.watches.forget_mount_changes(next.built_at());
        self.router.store(Arc::clone(&next));
        Ok(next)
    }

    fn is_current(&self, router: &Router) -> bool {
        let built_at = router.built_at();
        built_at != 0
            && built_at >= self.watches.changed_at(Topic::Mounts)
            && built_at >= self.watches.changed_at(Topic::Namespaces)
    }

    fn rebuilt(&self, store: &SealedStore, current: &Router) -> Result<Router, KernelError> {
        let tx = store.begin(Mode::ReadOnly);
        if current.built_at() >= self.watches.changed_at(Topic::Namespaces)
            && current.built_at() != 0
            && let Some(keys) = self.watches.mount_changes(current.built_at(), tx.index())
        {
            return self.patched(store, &tx, current, &keys);
        }
        let namespaces = read_namespaces(&tx)?;
        self.watch_tables(store, &namespaces)?;
        // A view taken after the watches were set: whatever it does not show will be heard of.
        let tx = store.begin(Mode::ReadOnly);
        let mut mounts = Vec::new();
        for namespace in namespaces.iter() {
            for kind in KINDS {
                for class in CLASSES {
                    let prefix = table_prefix(&namespace.id, kind);
                    for uuid in tx.scan(class, &prefix, &Page::default())? {
                        mounts.extend(self.read_mount(&tx, namespace, class, &format!("{prefix}{uuid}"))?);
                    }
                }
            }
        }
        Ok(Router::new(tx.index().max(1), namespaces, mounts))
    }

    /// Watches the tables of namespaces not watched so far.
    fn watch_tables(&self, store: &SealedStore, namespaces: &NamespaceTree) -> Result<(), KernelError> {
        let mut watched = self.watched.lock();
        for namespace in namespaces.iter().filter(|one| !watched.contains(&one.id)).collect::<Vec<_>>() {
            let id = &namespace.id;
            let topics = [
                (format!("{id}/core/auth/"), Topic::Mounts),
                (format!("{id}/core/mounts/"), Topic::Mounts),
                (format!("{id}/core/policy/"), Topic::Policies),
                (format!("{id}/core/audit/"), Topic::Audit),
                (format!("{id}/core/config/"), Topic::Config),
                (Paths(id).groups(), Topic::Identity),
                (Paths(id).all_local_aliases(), Topic::Identity),
            ];
            for (prefix, topic) in topics {
                for class in CLASSES {
                    self.watches.watch(store.barrier().seal_name(class, &prefix)?, topic);
                }
            }
            watched.insert(id.clone());
        }
        Ok(())
    }

    /// Watches what exists from the start. Called once, before anything is read.
    ///
    /// # Errors
    /// When a name cannot be sealed.
    pub(crate) fn watch_root(&self, store: &SealedStore) -> Result<(), KernelError> {
        for class in CLASSES {
            self.watches.watch(store.barrier().seal_name(class, REGISTRY)?, Topic::Namespaces);
        }
        self.watch_tables(store, &NamespaceTree::default())
    }

    /// The current router with single records read again.
    fn patched(
        &self,
        store: &SealedStore,
        tx: &Tx,
        current: &Router,
        keys: &[Key],
    ) -> Result<Router, KernelError> {
        let mut router = current.clone();
        for key in keys {
            let (class, path) = store.barrier().open_name(key)?;
            let Some((namespace_id, uuid)) = path.split_once('/').and_then(|(id, rest)| {
                rest.rsplit_once('/').map(|(_, uuid)| (id.to_owned(), uuid.to_owned()))
            }) else {
                continue;
            };
            let namespace = current.namespaces().iter().find(|one| one.id == namespace_id);
            let Some(namespace) = namespace else { continue };
            match self.read_mount(tx, namespace, class, &path)? {
                Some(mount) => router.insert(mount),
                None => router.remove(&uuid),
            }
        }
        router.set_built_at(tx.index());
        Ok(router)
    }

    fn read_mount(
        &self,
        tx: &Tx,
        namespace: &Arc<Namespace>,
        class: Class,
        path: &str,
    ) -> Result<Option<Arc<Mount>>, KernelError> {
        let Some((bytes, key, version)) = tx.peek_versioned(class, path)? else { return Ok(None) };
        let record: MountRecord = serde_json::from_slice(&bytes).map_err(|err| {
            KernelError::Bug(format!("mount record {path} is damaged, line {}", err.line()))
        })?;
        let serves = self.serves(&record);
        let view = self.view_of(&record);
        Ok(Some(Arc::new(Mount::new(record, view, Arc::clone(namespace), serves, (key, version)))))
    }

    fn serves(&self, record: &MountRecord) -> Serves {
        match (record.kind(), record.engine.as_str()) {
            (EngineKind::Secrets, IDENTITY_TYPE) => Serves::Identity,
            (EngineKind::Secrets, SYSTEM_TYPE) => Serves::System,
            (EngineKind::Auth, TOKEN_TYPE) => Serves::Token,
            (kind, name) => self.engine(kind, name).map_or(Serves::Unknown, Serves::Engine),
        }
    }

    /// A type by name.
    #[must_use]
    pub fn engine(&self, kind: EngineKind, name: &str) -> Option<EngineType> {
        self.engines.iter().find(|one| one.kind == kind && one.name == name).copied()
    }

    /// What an engine may know of its mount, with the system's limits applied.
    #[must_use]
    pub fn view_of(&self, record: &MountRecord) -> MountView {
        let or_system = |seconds: u64, system: Duration| {
            if seconds == 0 { system } else { Duration::from_secs(seconds) }
        };
        let max_lease_ttl = or_system(record.config.max_lease_ttl, self.max_lease_ttl);
        let default_lease_ttl = or_system(record.config.default_lease_ttl, self.default_lease_ttl);
        MountView {
            path: record.path.clone(),
            uuid: record.uuid.clone(),
            accessor: record.accessor.clone(),
            options: record.options.clone(),
            default_lease_ttl: default_lease_ttl.min(max_lease_ttl),
            max_lease_ttl,
            is_local: record.is_local,
        }
    }

    /// Stages a new mount and answers its record.
    ///
    /// # Errors
    /// When the type is unknown, or the path is malformed, protected or in use.
    pub fn enable(
        &self,
        tx: &Tx,
        router: &Router,
        namespace: &Namespace,
        kind: EngineKind,
        mut new: NewMount,
        entropy: &dyn Entropy,
    ) -> Result<MountRecord, KernelError> {
        let path = canonical_path(kind, &new.path)?;
        refuse_wrong_table(kind, &path, "mount")?;
        let (engine, version) = self.resolve_type(kind, &new.engine)?;
        if let Some(version) = version {
            new.options.insert("version".to_owned(), version);
        }
        refuse_protected(&path, "mount")?;
        refuse_taken(router, namespace, &path)?;
        let record = MountRecord {
            uuid: ids::uuid(entropy)?,
            accessor: free_accessor(router, namespace, kind, engine.name, entropy)?,
            path,
            engine: engine.name.to_owned(),
            description: new.description,
            options: new.options,
            config: new.config,
            is_local: new.is_local,
            seal_wrap: new.seal_wrap,
            external_entropy_access: new.external_entropy_access,
            state: MountState::Active,
        };
        self.write(tx, &namespace.id, &record)?;
        Ok(record)
    }

    /// The type named, and the `version` option that a name like `kv-v2` stands for.
    fn resolve_type(
        &self,
        kind: EngineKind,
        name: &str,
    ) -> Result<(EngineType, Option<String>), KernelError> {
        if name.is_empty() {
            return Err(KernelError::invalid("backend type must be specified as a string"));
        }
        if kind == EngineKind::Auth && name == TOKEN_TYPE {
            return Err(KernelError::invalid("token credential backend cannot be instantiated"));
        }
        let versioned = || {
            let (base, version) = name.rsplit_once("-v")?;
            version.parse::<u8>().ok()?;
            Some((self.engine(kind, base)?, Some(version.to_owned())))
        };
        let found = self.engine(kind, name).map(|engine| (engine, None)).or_else(versioned);
        let base = found.as_ref().map_or(name, |(engine, _)| engine.name);
        if kind == EngineKind::Secrets && UNMOUNTABLE.contains(&base) {
            return Err(KernelError::invalid(format!("mount type of {base:?} is not mountable")));
        }
        found.ok_or_else(|| {
            let noun = if kind == EngineKind::Auth { "auth method" } else { "secrets engine" };
            KernelError::invalid(format!("plugin not found in the catalog: unknown {noun} type {name:?}"))
        })
    }

    /// Stages a changed record. Every change of the table goes through here.
    ///
    /// # Errors
    /// When storage fails.
    pub fn write(&self, tx: &Tx, namespace_id: &str, record: &MountRecord) -> Result<(), KernelError> {
        bump(tx, namespace_id, record.class())?;
        let (class, stored_at) = (record.class(), record.storage_path(namespace_id));
        let before: Option<MountRecord> = tx.get_record(class, &stored_at)?;
        if class == Class::Replicated && before.is_some_and(|before| before.path != record.path) {
            filter::paths_changed(tx)?;
        }
        tx.put_record(class, &stored_at, record)?;
        Ok(())
    }

    /// Stages the removal of a record.
    ///
    /// # Errors
    /// When storage fails.
    pub fn remove(&self, tx: &Tx, namespace_id: &str, record: &MountRecord) -> Result<(), KernelError> {
        bump(tx, namespace_id, record.class())?;
        if record.class() == Class::Replicated {
            filter::paths_changed(tx)?;
        }
        tx.delete(record.class(), &record.storage_path(namespace_id))?;
        Ok(())
    }

    /// The record as this transaction sees it, guarded.
    ///
    /// # Errors
    /// When it is gone, or cannot be read.
    pub fn reread(
        &self,
        tx: &Tx,
        namespace_id: &str,
        record: &MountRecord,
    ) -> Result<MountRecord, KernelError> {
        tx.get_record(record.class(), &record.storage_path(namespace_id))?
            .ok_or_else(|| KernelError::invalid("no matching mount"))
    }

    /// Stages the records every namespace starts with: `sys/`, `auth/token/`, and the types that the kernel knows a
    /// fixed place for, as far as this build has them.
    ///
    /// # Errors
    /// When randomness fails.
    pub fn write_built_in(
        &self,
        tx: &Tx,
        namespace_id: &str,
        entropy: &dyn Entropy,
    ) -> Result<(), KernelError> {
        for (path, name, kind, description) in BUILT_IN {
            self.write_one_built_in(tx, namespace_id, (path, name, *kind, description), entropy)?;
        }
        Ok(())
    }

    /// Stages those of [`Self::write_built_in`] that are local, where they are missing.
    ///
    /// # Errors
    /// As [`Self::write_built_in`].
    pub(crate) fn write_missing(
        &self,
        tx: &Tx,
        router: &Router,
        namespace: &Namespace,
        entropy: &dyn Entropy,
    ) -> Result<(), KernelError> {
        for (path, name, kind, description) in BUILT_IN {
            let full_path = format!("{}{path}", namespace.path);
            if is_local_built_in(name) && router.at(&full_path).is_none() {
                self.write_one_built_in(tx, &namespace.id, (path, name, *kind, description), entropy)?;
            }
        }
        Ok(())
    }

    fn write_one_built_in(
        &self,
        tx: &Tx,
        namespace_id: &str,
        (path, name, kind, description): BuiltInMount,
        entropy: &dyn Entropy,
    ) -> Result<(), KernelError> {
        let is_served_here = matches!(name, IDENTITY_TYPE | SYSTEM_TYPE | TOKEN_TYPE);
        if !is_served_here && self.engine(kind, name).is_none() {
            return Ok(());
        }
        let mut config = MountConfig::default();
        let header = match name {
            IDENTITY_TYPE => Some("Authorization"),
            SYSTEM_TYPE => Some("Accept"),
            _ => None,
        };
        config.passthrough_request_headers.extend(header.map(str::to_owned));
        let record = MountRecord {
            uuid: ids::uuid(entropy)?,
            path: path.to_owned(),
            engine: name.to_owned(),
            description: description.to_owned(),
            accessor: accessor(kind, name, entropy)?,
            config,
            is_local: is_local_built_in(name),
            ..MountRecord::default()
        };
        self.write(tx, namespace_id, &record)
    }
}

/// Path, type, kind and description of a mount at a fixed place.
type BuiltInMount = (&'static str, &'static str, EngineKind, &'static str);

const BUILT_IN: &[BuiltInMount] = &[
    ("sys/", SYSTEM_TYPE, EngineKind::Secrets, "system endpoints used for control, policy and debugging"),
    ("auth/token/", TOKEN_TYPE, EngineKind::Auth, "token based credentials"),
    ("cubbyhole/", "cubbyhole", EngineKind::Secrets, "per-token private secret storage"),
    ("identity/", IDENTITY_TYPE, EngineKind::Secrets, "identity store"),
];

fn is_local_built_in(name: &str) -> bool {
    name == "cubbyhole"
}

pub(crate) fn read_namespaces(tx: &Tx) -> Result<NamespaceTree, KernelError> {
    let mut found = Vec::new();
    for id in tx.scan(Class::Replicated, REGISTRY, &Page::default())? {
        let path = format!("{REGISTRY}{id}");
        let Some(bytes) = tx.peek(Class::Replicated, &path)? else { continue };
        let record: Namespace = serde_json::from_slice(&bytes)
            .map_err(|err| KernelError::Bug(format!("{path} is damaged, line {}", err.line())))?;
        found.push(record);
    }
    Ok(NamespaceTree::new(found))
}

fn bump(tx: &Tx, namespace_id: &str, class: Class) -> Result<(), KernelError> {
    let path = format!("{namespace_id}/core/mounts-revision");
    for one in CLASSES {
        let mut revision: Revision = tx.get_record(one, &path)?.unwrap_or_default();
        if one == class {
            revision.count += 1;
            tx.put_record(one, &path, &revision)?;
        }
    }
    Ok(())
}

fn accessor(kind: EngineKind, engine: &str, entropy: &dyn Entropy) -> Result<String, KernelError> {
    let prefix = if kind == EngineKind::Auth { "auth_" } else { "" };
    Ok(format!("{prefix}{engine}_{}", ids::hex(entropy, 4)?))
}

/// An accessor that no other mount of the namespace has: aliases are told apart by it, so two mounts that shared one
/// would share who logs in.
fn free_accessor(
    router: &Router,
    namespace: &Namespace,
    kind: EngineKind,
    engine: &str,
    entropy: &dyn Entropy,
) -> Result<String, KernelError> {
    for _ in 0..ACCESSOR_TRIES_MAX {
        let accessor = accessor(kind, engine, entropy)?;
        if router.by_accessor(&namespace.id, &accessor).is_none() {
            return Ok(accessor);
        }
    }
    Err(KernelError::Bug("every accessor tried is taken".to_owned()))
}

/// A mount path in its one form: below `auth/` for auth methods, with a trailing slash.
///
/// # Errors
/// When it is empty, too long, or has a segment that no request path could carry.
pub fn canonical_path(kind: EngineKind, path: &str) -> Result<String, KernelError> {
    let trimmed = path.trim_matches('/');
    let is_plain = |segment: &str| {
        let is_padded = segment.trim() != segment;
        !matches!(segment, "" | "." | "..") && !is_padded && !segment.chars().any(char::is_control)
    };
    if trimmed.is_empty() || trimmed.len() > PATH_MAX || !trimmed.split('/').all(is_plain) {
        return Err(KernelError::invalid("invalid mount path"));
    }
    let prefix = if kind == EngineKind::Auth { "auth/" } else { "" };
    Ok(format!("{prefix}{trimmed}/"))
}

/// Paths the kernel keeps for itself.
const PROTECTED: &[&str] = &["audit/", "auth/", "cubbyhole/", "identity/", "sys/"];

/// Types of the kernel's own mounts: there is one of each, at its fixed place.
const UNMOUNTABLE: &[&str] = &["cubbyhole", IDENTITY_TYPE, SYSTEM_TYPE, TOKEN_TYPE];

/// Mounts of the kernel's own: only what the audit log shows of them can be changed.
pub(crate) const UNTUNABLE: &[&str] = &["cubbyhole/", "identity/", "sys/"];

/// Whether what is mounted there is what every namespace has.
pub(crate) fn is_built_in(path: &str) -> bool {
    refuse_protected(path, "").is_err()
}

/// # Errors
/// When the path is one of the fixed ones, or inside one.
pub(crate) fn refuse_protected(path: &str, verb: &str) -> Result<(), KernelError> {
    let is_token = path.starts_with("auth/token/");
    let protected = PROTECTED.iter().find(|protected| match **protected {
        "auth/" => path == "auth/",
        other => path.starts_with(other),
    });
    match protected {
        Some(name) => Err(KernelError::invalid(format!("cannot {verb} \"{name}\""))),
        None if is_token => Err(KernelError::invalid(format!("cannot {verb} \"auth/token/\""))),
        None => Ok(()),
    }
}

/// # Errors
/// When an auth method is named as if it were a secrets engine: `sys/auth` needs sudo, `sys/mounts` does not.
pub(crate) fn refuse_wrong_table(kind: EngineKind, path: &str, verb: &str) -> Result<(), KernelError> {
    if kind == EngineKind::Secrets && path.starts_with("auth/") {
        return Err(KernelError::invalid(format!("cannot {verb} {path:?}")));
    }
    Ok(())
}

/// # Errors
/// When another mount is at `path`, around it or inside it, or on its way there.
fn refuse_taken(router: &Router, namespace: &Namespace, path: &str) -> Result<(), KernelError> {
    let full_path = format!("{}{path}", namespace.path);
    match router.overlapping(&full_path, None) {
        Some(mount) => Err(KernelError::invalid(format!("path is already in use at {}", mount.record.path))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;
