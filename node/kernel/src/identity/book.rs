//! A namespace's identities as one transaction sees them: entities and aliases, each change with all its pointers.
//!
//! **Invariant:** a record and what leads to it change in one transaction. Everything read here guards the commit, and
//! whoever adds something to a record writes that record, so of two changes that do not know of each other only one
//! commits.
//! Read next: [`mod@super::groups`] for groups, [`super::merge`] for merging, [`super::login`] for what a login does.

use arca_barrier::Class;
use arca_engine_api::{Entropy, Page, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::record::{
    AliasRecord, CLASSES, EntityRecord, LocalAliases, Paths, Pointer, class_of, folded, is_id,
};
use crate::tx::Tx;
use crate::{KernelError, ids};

/// Longest name of an entity, a group or an alias, bytes. Some auth methods know people by a URI.
const NAME_MAX: usize = 2_048;

/// See the file's header.
#[derive(Clone, Copy)]
pub(crate) struct Book<'a> {
    /// Where it reads and writes.
    pub(crate) tx: &'a Tx,
    /// Whose records.
    pub(crate) namespace_id: &'a str,
    /// Of new ids.
    pub(crate) entropy: &'a dyn Entropy,
    /// When.
    pub(crate) now: UnixMillis,
}

/// # Errors
/// When a name is empty, too long, or holds what no path could carry.
pub(crate) fn check_name(name: &str) -> Result<(), KernelError> {
    if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
        return Err(KernelError::invalid(format!(
            "a name has 1 to {NAME_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}

impl Book<'_> {
    pub(super) fn paths(&self) -> Paths<'_> {
        Paths(self.namespace_id)
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        class: Class,
        path: &str,
    ) -> Result<Option<T>, KernelError> {
        Ok(self.tx.get_record(class, path)?)
    }

    /// Stages a record unless it is there already.
    pub(super) fn put<T: Serialize>(&self, class: Class, path: &str, record: &T) -> Result<(), KernelError> {
        let bytes = serde_json::to_vec(record).map_err(|err| KernelError::Bug(err.to_string()))?;
        if self.tx.get(class, path)?.is_some_and(|old| *old == bytes) {
            return Ok(());
        }
        Ok(self.tx.put(class, path, Zeroizing::new(bytes))?)
    }

    pub(super) fn point(&self, class: Class, path: &str, id: &str) -> Result<(), KernelError> {
        self.put(class, path, &Pointer { id: id.to_owned() })
    }

    pub(super) fn pointer(&self, class: Class, path: &str) -> Result<Option<String>, KernelError> {
        Ok(self.get::<Pointer>(class, path)?.map(|pointer| pointer.id))
    }

    /// Where a pointer of either class leads.
    fn either(&self, path: &str) -> Result<Option<String>, KernelError> {
        for class in CLASSES {
            if let Some(id) = self.pointer(class, path)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// A new name for something of a kind (`entity`, `group`).
    pub(super) fn made_up_name(&self, kind: &str) -> Result<String, KernelError> {
        Ok(format!("{kind}_{}.{}", ids::hex(self.entropy, 4)?, self.namespace_id))
    }

    /// The entity with an id. One that was merged into another is no more.
    pub(crate) fn entity(&self, id: &str) -> Result<Option<EntityRecord>, KernelError> {
        if !is_id(id) {
            return Ok(None);
        }
        let found = self.get::<EntityRecord>(Class::Replicated, &self.paths().entity(id))?;
        let Some(mut entity) = found else { return Ok(None) };
        entity.aliases.extend(self.local_aliases(&entity)?);
        Ok(Some(entity))
    }

    /// An entity's aliases of local mounts, those of entities that were merged into it among them: whoever merged them, the
    /// primary of this cluster, does not see them. Of two of one mount the first counts.
    fn local_aliases(&self, entity: &EntityRecord) -> Result<Vec<AliasRecord>, KernelError> {
        let own = self.get::<LocalAliases>(Class::Local, &self.paths().local_aliases(&entity.id))?;
        let mut found = own.unwrap_or_default().aliases;
        for merged in &entity.merged_entity_ids {
            for mut alias in self.left_behind(merged)? {
                if found.iter().all(|known| known.mount_accessor != alias.mount_accessor) {
                    alias.merged_from.push(merged.clone());
                    found.push(alias);
                }
            }
        }
        found.iter_mut().for_each(|alias| alias.is_local = true);
        Ok(found)
    }

    /// The aliases of local mounts that an entity had when it was merged away elsewhere.
    fn left_behind(&self, merged: &str) -> Result<Vec<AliasRecord>, KernelError> {
        let path = self.paths().local_aliases(merged);
        // Nobody gives one to an entity that is gone, so that there is none guards nothing.
        if self.tx.peek(Class::Local, &path)?.is_none() {
            return Ok(Vec::new());
        }
        Ok(self.get::<LocalAliases>(Class::Local, &path)?.unwrap_or_default().aliases)
    }

    /// The entity that a token or an alias of a local mount names: the one it was made for, or the one that was merged
    /// into.
    pub(crate) fn entity_of_token(&self, id: &str) -> Result<Option<EntityRecord>, KernelError> {
        match self.entity(id)? {
            None if is_id(id) => match self.pointer(Class::Replicated, &self.paths().merged(id))? {
                Some(into) => self.entity(&into),
                None => Ok(None),
            },
            found => Ok(found),
        }
    }

    /// The entity with a name, whatever the case.
    pub(crate) fn entity_by_name(&self, name: &str) -> Result<Option<EntityRecord>, KernelError> {
        match self.pointer(Class::Replicated, &self.paths().entity_name(name))? {
            Some(id) => self.entity(&id),
            None => Ok(None),
        }
    }

    /// The entity that has an alias.
    pub(crate) fn entity_by_alias_id(&self, alias_id: &str) -> Result<Option<EntityRecord>, KernelError> {
        if !is_id(alias_id) {
            return Ok(None);
        }
        match self.either(&self.paths().alias_id(alias_id))? {
            Some(id) => self.entity_of_token(&id),
            None => Ok(None),
        }
    }

    /// The entity that has an alias of this name on a mount.
    pub(crate) fn entity_by_alias(
        &self,
        mount_accessor: &str,
        name: &str,
    ) -> Result<Option<EntityRecord>, KernelError> {
        if mount_accessor.is_empty() || mount_accessor.contains('/') {
            return Ok(None);
        }
        match self.either(&self.paths().alias_name(mount_accessor, name))? {
            Some(id) => self.entity_of_token(&id),
            None => Ok(None),
        }
    }

    /// Ids of entities.
    pub(crate) fn entity_ids(&self, page: &Page) -> Result<Vec<String>, KernelError> {
        Ok(self.tx.list(Class::Replicated, &self.paths().entities(), page)?)
    }

    /// Ids of aliases, those of local mounts among them.
    pub(crate) fn alias_ids(&self, page: &Page) -> Result<Vec<String>, KernelError> {
        let mut found = Vec::new();
        for class in CLASSES {
            found.extend(self.tx.list(class, &self.paths().alias_ids(), page)?);
        }
        found.sort_unstable();
        found.truncate(page.limit.unwrap_or(usize::MAX));
        Ok(found)
    }

    /// A new entity, saved; under a made-up name if none is given.
    pub(crate) fn new_entity(&self, name: &str) -> Result<EntityRecord, KernelError> {
        let name = if name.is_empty() { self.made_up_name("entity")? } else { name.to_owned() };
        let mut entity = EntityRecord {
            id: ids::uuid(self.entropy)?,
            created: self.now,
            updated: self.now,
            ..EntityRecord::default()
        };
        self.name_entity(&mut entity, &name)?;
        self.save_entity(&entity)?;
        Ok(entity)
    }

    /// Stages an entity's record, as far as it changed.
    pub(crate) fn save_entity(&self, entity: &EntityRecord) -> Result<(), KernelError> {
        let mut stored = entity.clone();
        stored.aliases.retain(|alias| !alias.is_local);
        self.put(Class::Replicated, &self.paths().entity(&entity.id), &stored)?;
        self.save_local_aliases(entity)
    }

    /// Stages an entity's aliases of local mounts, as far as they changed.
    pub(super) fn save_local_aliases(&self, entity: &EntityRecord) -> Result<(), KernelError> {
        let aliases: Vec<_> = entity.aliases.iter().filter(|alias| alias.is_local).cloned().collect();
        let path = self.paths().local_aliases(&entity.id);
        if !aliases.is_empty() {
            self.put(Class::Local, &path, &LocalAliases { aliases })?;
        } else if self.tx.get(Class::Local, &path)?.is_some() {
            self.tx.delete(Class::Local, &path)?;
        }
        self.take_in_all(entity)
    }

    pub(super) fn take_in_all(&self, entity: &EntityRecord) -> Result<(), KernelError> {
        entity.merged_entity_ids.iter().try_for_each(|merged| self.take_in(merged, entity))
    }

    /// Stages the end of what a merged entity left behind: the aliases that `entity` has now lead to it. The name of one that
    /// it does not have, having another of that mount, goes on leading to it, so that nobody becomes somebody new by that.
    fn take_in(&self, merged: &str, entity: &EntityRecord) -> Result<(), KernelError> {
        let left = self.left_behind(merged)?;
        if left.is_empty() {
            return Ok(());
        }
        let paths = self.paths();
        for alias in left {
            if let Some(alias) = entity.alias(&alias.id) {
                let class = class_of(alias.is_local);
                self.point(class, &paths.alias_id(&alias.id), &entity.id)?;
                self.point(class, &paths.alias_name(&alias.mount_accessor, &alias.name), &entity.id)?;
            } else {
                self.tx.delete(Class::Local, &paths.alias_id(&alias.id))?;
            }
        }
        Ok(self.tx.delete(Class::Local, &paths.local_aliases(merged))?)
    }

    /// Gives an entity a name. The caller saves it.
    ///
    /// # Errors
    /// When the name cannot be one, or is another entity's.
    pub(crate) fn name_entity(&self, entity: &mut EntityRecord, name: &str) -> Result<(), KernelError> {
        check_name(name)?;
        if folded(name) != folded(&entity.name) || entity.name.is_empty() {
            let path = self.paths().entity_name(name);
            if self.pointer(Class::Replicated, &path)?.is_some() {
                return Err(KernelError::invalid("entity name is already in use"));
            }
            if !entity.name.is_empty() {
                self.tx.delete(Class::Replicated, &self.paths().entity_name(&entity.name))?;
            }
            self.point(Class::Replicated, &path, &entity.id)?;
        }
        name.clone_into(&mut entity.name);
        Ok(())
    }

    /// Removes an entity with everything that leads to it.
    pub(crate) fn delete_entity(&self, entity: &EntityRecord) -> Result<(), KernelError> {
        self.take_in_all(entity)?;
        for alias in &entity.aliases {
            self.remove_alias_pointers(alias)?;
        }
        for group_id in &entity.group_ids {
            self.leave(group_id, &entity.id)?;
        }
        for merged in &entity.merged_entity_ids {
            self.tx.delete(Class::Replicated, &self.paths().merged(merged))?;
        }
        self.remove_entity_record(entity)
    }

    /// Removes an entity's own record and name, and nothing that hangs on it.
    pub(super) fn remove_entity_record(&self, entity: &EntityRecord) -> Result<(), KernelError> {
        self.tx.delete(Class::Replicated, &self.paths().entity_name(&entity.name))?;
        self.tx.delete(Class::Replicated, &self.paths().entity(&entity.id))?;
        Ok(self.tx.delete(Class::Local, &self.paths().local_aliases(&entity.id))?)
    }

    /// A new alias of a mount, not yet anybody's.
    pub(crate) fn new_alias(
        &self,
        name: &str,
        mount_accessor: &str,
        is_local: bool,
    ) -> Result<AliasRecord, KernelError> {
        check_name(name)?;
        Ok(AliasRecord {
            id: ids::uuid(self.entropy)?,
            name: name.to_owned(),
            mount_accessor: mount_accessor.to_owned(),
            created: self.now,
            updated: self.now,
            is_local,
            ..AliasRecord::default()
        })
    }

    /// Gives an alias to an entity, which must have none of that mount. The caller saves the entity.
    pub(crate) fn add_alias(&self, entity: &mut EntityRecord, alias: AliasRecord) -> Result<(), KernelError> {
        let class = class_of(alias.is_local);
        let paths = self.paths();
        self.point(class, &paths.alias_id(&alias.id), &entity.id)?;
        self.point(class, &paths.alias_name(&alias.mount_accessor, &alias.name), &entity.id)?;
        entity.aliases.push(alias);
        Ok(())
    }

    /// Takes an alias from an entity. The caller saves the entity.
    pub(crate) fn take_alias(
        &self,
        entity: &mut EntityRecord,
        alias_id: &str,
    ) -> Result<Option<AliasRecord>, KernelError> {
        let Some(at) = entity.aliases.iter().position(|alias| alias.id == alias_id) else { return Ok(None) };
        let alias = entity.aliases.remove(at);
        self.remove_alias_pointers(&alias)?;
        Ok(Some(alias))
    }

    fn remove_alias_pointers(&self, alias: &AliasRecord) -> Result<(), KernelError> {
        let class = class_of(alias.is_local);
        self.tx.delete(class, &self.paths().alias_id(&alias.id))?;
        Ok(self.tx.delete(class, &self.paths().alias_name(&alias.mount_accessor, &alias.name))?)
    }

    /// Takes away up to `limit` aliases of a mount; true when there were none.
    pub(crate) fn forget_aliases(&self, mount_accessor: &str, limit: usize) -> Result<bool, KernelError> {
        let folder = self.paths().aliases_of_mount(mount_accessor);
        let mut is_done = true;
        for class in CLASSES {
            for path in self.tx.some_below(class, &folder, limit)? {
                is_done = false;
                if let Some(id) = self.pointer(class, &path)?
                    && let Some(mut entity) = self.entity_of_token(&id)?
                    && let Some(alias) = entity.alias_of(mount_accessor).map(|alias| alias.id.clone())
                {
                    self.take_alias(&mut entity, &alias)?;
                    self.save_entity(&entity)?;
                }
                self.tx.delete(class, &path)?;
            }
        }
        Ok(is_done)
    }
}
