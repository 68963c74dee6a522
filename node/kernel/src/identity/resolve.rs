//! What identity adds to a token: whether its entity may act at all, the policies of the entity and its groups, and
//! what templates can say of it. Asked for at every request, so it is kept until something it was made of changes.
//!
//! **Invariant:** what is kept is used only while the entity's record is the very one it was made of (applying an entry
//! that changes it evicts it from the object cache), and no group and no alias of a local mount changed after the view
//! it was made from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arca_barrier::Class;
use arca_engine_api::StorageError;
use arca_raft_storage::Key;
use parking_lot::RwLock;
use serde::de::DeserializeOwned;

use super::record::{AliasRecord, EntityRecord, GroupRecord, LocalAliases, Paths, Pointer, is_id};
use crate::KernelError;
use crate::cache::ObjectCache;
use crate::policy::{AliasView, GroupView, Identity, IdentityView, ROOT};
use crate::tx::Tx;

/// Entities kept. Beyond that all are dropped: the next requests work theirs out again.
const KEPT_MAX: usize = 10_000;

/// What identity says of an entity.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Id of the entity, after merges.
    pub(crate) id: String,
    /// Its tokens are refused.
    pub(crate) is_disabled: bool,
    /// Policies of the entity and of its groups, sorted.
    pub(crate) policies: Arc<[String]>,
    /// For templates.
    pub(crate) identity: Identity,
    /// What it was made of, and the physical key of that record.
    entity: Arc<EntityRecord>,
    key: Key,
    built_at: u64,
}

/// See the file's header.
pub(crate) struct Resolver {
    cache: Arc<ObjectCache>,
    /// By namespace and by the entity id that tokens carry. Only asked and emptied: its order shows nowhere.
    kept: RwLock<HashMap<String, HashMap<String, Arc<Resolved>>>>,
}

fn decode<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, KernelError> {
    serde_json::from_slice(bytes).map_err(|err| {
        let reason = format!("record, line {}", err.line());
        KernelError::Storage(StorageError::Damaged { key: path.to_owned(), reason })
    })
}

/// The groups that members of `direct` are in, in this order: those themselves, then those above them, each once.
/// Harmless where a circle got in.
pub(super) fn with_parents<G: AsRef<GroupRecord>>(
    direct: &BTreeSet<String>,
    mut load: impl FnMut(&str) -> Result<Option<G>, KernelError>,
) -> Result<(Vec<G>, Vec<G>), KernelError> {
    let (mut own, mut inherited) = (Vec::new(), Vec::new());
    for id in direct {
        own.extend(load(id)?.filter(|group| group.as_ref().counts()));
    }
    let mut seen: BTreeSet<String> = direct.clone();
    let mut open: Vec<String> =
        own.iter().flat_map(|group: &G| group.as_ref().parent_ids.iter().cloned()).collect();
    while let Some(id) = open.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let Some(group) = load(&id)? else { continue };
        open.extend(group.as_ref().parent_ids.iter().cloned());
        inherited.push(group);
    }
    inherited.sort_unstable_by(|left, right| left.as_ref().id.cmp(&right.as_ref().id));
    Ok((own, inherited))
}

impl Resolver {
    /// A resolver over a cache of records.
    pub(crate) fn new(cache: Arc<ObjectCache>) -> Self {
        Self { cache, kept: RwLock::default() }
    }

    /// What identity says of the entity a token names; none when there is no such entity any more. `changed_at` is
    /// the applied index of the last change to a group or to an alias of a local mount.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) fn of_token(
        &self,
        tx: &Tx,
        namespace_id: &str,
        entity_id: &str,
        changed_at: u64,
    ) -> Result<Option<Arc<Resolved>>, KernelError> {
        let known = self.kept.read().get(namespace_id).and_then(|kept| kept.get(entity_id)).cloned();
        if let Some(known) = known
            && self.is_current(&known, changed_at)
        {
            return Ok(Some(known));
        }
        let Some(resolved) = self.resolve(tx, namespace_id, entity_id)?.map(Arc::new) else {
            return Ok(None);
        };
        let mut kept = self.kept.write();
        if kept.values().map(HashMap::len).sum::<usize>() >= KEPT_MAX {
            kept.clear();
        }
        let of_namespace = kept.entry(namespace_id.to_owned()).or_default();
        of_namespace.insert(entity_id.to_owned(), Arc::clone(&resolved));
        Ok(Some(resolved))
    }

    /// Whether what was said of an entity still holds. If its record fell out of the cache for want of room, it is
    /// worked out again.
    pub(crate) fn is_current(&self, resolved: &Resolved, changed_at: u64) -> bool {
        let is_same = |entity: Arc<EntityRecord>| Arc::ptr_eq(&entity, &resolved.entity);
        resolved.built_at >= changed_at && self.cache.find(&resolved.key).is_some_and(is_same)
    }

    fn entity(&self, tx: &Tx, paths: Paths<'_>, id: &str) -> Result<Option<Arc<EntityRecord>>, KernelError> {
        let path = paths.entity(id);
        self.cache.read_through(tx, Class::Replicated, &path, |bytes| decode(&path, bytes))
    }

    fn group(&self, tx: &Tx, paths: Paths<'_>, id: &str) -> Result<Option<Arc<GroupRecord>>, KernelError> {
        let path = paths.group(id);
        self.cache.read_through(tx, Class::Replicated, &path, |bytes| decode(&path, bytes))
    }

    /// As [`Self::of_token`], worked out from what `tx` sees, its own writes included.
    ///
    /// # Errors
    /// When storage fails.
    pub(crate) fn resolve(
        &self,
        tx: &Tx,
        namespace_id: &str,
        entity_id: &str,
    ) -> Result<Option<Resolved>, KernelError> {
        let paths = Paths(namespace_id);
        if !is_id(entity_id) {
            return Ok(None);
        }
        let found = match self.entity(tx, paths, entity_id)? {
            None => match peek::<Pointer>(tx, Class::Replicated, &paths.merged(entity_id))? {
                Some(into) => self.entity(tx, paths, &into.id)?,
                None => None,
            },
            found => found,
        };
        let Some(entity) = found else { return Ok(None) };
        let mut local = Vec::new();
        // The first that was merged into it counts more than others, its own most: see `Book::entity`.
        for id in entity.merged_entity_ids.iter().rev().chain([&entity.id]) {
            let found = peek::<LocalAliases>(tx, Class::Local, &paths.local_aliases(id))?;
            local.extend(found.unwrap_or_default().aliases);
        }
        let (own, inherited) = with_parents(&entity.group_ids, |id| self.group(tx, paths, id))?;
        let groups = || own.iter().chain(&inherited);
        let mut policies: Vec<String> =
            entity.policies.iter().chain(groups().flat_map(|group| &group.policies)).cloned().collect();
        // No write stores root here; should one ever, it grants nothing (CVE-2024-9180).
        policies.retain(|name| name != ROOT);
        policies.sort_unstable();
        policies.dedup();
        let mut shown: Vec<GroupView> = groups().map(|group| group_view(group)).collect();
        shown.sort_unstable_by(|left, right| left.id.cmp(&right.id));
        let aliases = entity.aliases.iter().chain(&local);
        let view = IdentityView {
            id: entity.id.clone(),
            name: entity.name.clone(),
            metadata: entity.metadata.clone(),
            aliases: aliases.map(alias_view).collect::<BTreeMap<_, _>>(),
            groups: shown,
        };
        Ok(Some(Resolved {
            id: entity.id.clone(),
            is_disabled: entity.is_disabled,
            policies: policies.into(),
            identity: Identity::new(view),
            key: tx.physical_key(Class::Replicated, &paths.entity(&entity.id))?,
            entity,
            built_at: tx.index(),
        }))
    }
}

fn peek<T: DeserializeOwned>(tx: &Tx, class: Class, path: &str) -> Result<Option<T>, KernelError> {
    tx.peek(class, path)?.map(|bytes| decode(path, &bytes)).transpose()
}

fn group_view(group: &GroupRecord) -> GroupView {
    GroupView { id: group.id.clone(), name: group.name.clone(), metadata: group.metadata.clone() }
}

/// By the mount's accessor: an entity has one alias of a mount, so this is the one it logs in by (CVE-2021-43998).
fn alias_view(alias: &AliasRecord) -> (String, AliasView) {
    let view = AliasView {
        id: alias.id.clone(),
        name: alias.name.clone(),
        metadata: alias.metadata.clone(),
        custom_metadata: alias.custom_metadata.clone(),
    };
    (alias.mount_accessor.clone(), view)
}
