//! What a login does to identities, in the transaction that makes its token: finds the entity of its alias or makes
//! one, notes what the auth method said, and brings the entity's external groups up to date.

use std::collections::BTreeSet;

use super::book::Book;
use super::record::{AliasRecord, EntityRecord, GroupKind, Metadata, folded};
use crate::KernelError;

/// Who somebody is on an auth mount.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AliasOf<'a> {
    /// Accessor of the mount.
    pub(crate) mount_accessor: &'a str,
    /// Whether the mount is of this cluster only.
    pub(crate) is_local: bool,
    /// Name.
    pub(crate) name: &'a str,
}

impl Book<'_> {
    /// The entity of an alias, made with the alias if there is none. The caller saves it.
    ///
    /// # Errors
    /// [`KernelError::Denied`] when the entity is disabled.
    pub(crate) fn find_or_make(&self, alias: AliasOf<'_>) -> Result<EntityRecord, KernelError> {
        let mut entity = match self.entity_by_alias(alias.mount_accessor, alias.name)? {
            Some(entity) if entity.is_disabled => return Err(KernelError::Denied),
            Some(entity) if entity.alias_of(alias.mount_accessor).is_some() => return Ok(entity),
            // Of a local mount: the alias was left out in a merge for another one of the mount, which is gone.
            Some(entity) => entity,
            None => self.new_entity("")?,
        };
        let new = self.new_alias(alias.name, alias.mount_accessor, alias.is_local)?;
        self.add_alias(&mut entity, new)?;
        Ok(entity)
    }

    /// The entity that logs in.
    ///
    /// # Errors
    /// As [`Self::find_or_make`].
    pub(crate) fn log_in(
        &self,
        alias: AliasOf<'_>,
        metadata: &Metadata,
        group_aliases: &[String],
    ) -> Result<EntityRecord, KernelError> {
        let mut entity = self.find_or_make(alias)?;
        self.note_metadata(&mut entity, alias, metadata);
        self.refresh_groups(&mut entity, alias.mount_accessor, group_aliases)?;
        self.save_entity(&entity)?;
        Ok(entity)
    }

    /// The entity that logs in where the primary has brought up to date what is shared of it: what is left is the alias of
    /// a local mount.
    ///
    /// # Errors
    /// [`KernelError::Denied`] when the entity is gone or disabled meanwhile.
    pub(crate) fn log_in_as(
        &self,
        id: &str,
        alias: AliasOf<'_>,
        metadata: &Metadata,
    ) -> Result<EntityRecord, KernelError> {
        let found = self.entity_of_token(id)?.filter(|entity| !entity.is_disabled);
        let mut entity = found.ok_or(KernelError::Denied)?;
        if alias.is_local {
            if entity.alias_of(alias.mount_accessor).is_none() {
                let new = self.new_alias(alias.name, alias.mount_accessor, true)?;
                self.add_alias(&mut entity, new)?;
            }
            self.note_metadata(&mut entity, alias, metadata);
            self.save_local_aliases(&entity)?;
        }
        Ok(entity)
    }

    /// Of the alias that logged in, and of no other by this name (CVE-2022-40186).
    fn note_metadata(&self, entity: &mut EntityRecord, alias: AliasOf<'_>, metadata: &Metadata) {
        let is_it = |own: &&mut AliasRecord| {
            own.mount_accessor == alias.mount_accessor && folded(&own.name) == folded(alias.name)
        };
        let own = entity.aliases.iter_mut().find(is_it);
        if let Some(own) = own.filter(|own| own.metadata != *metadata) {
            own.metadata.clone_from(metadata);
            own.updated = self.now;
        }
    }

    /// Puts an entity into the groups that a mount says it is in, and takes it out of the others of that mount
    /// (CVE-2020-10660). The caller saves the entity.
    pub(crate) fn refresh_groups(
        &self,
        entity: &mut EntityRecord,
        mount_accessor: &str,
        group_aliases: &[String],
    ) -> Result<(), KernelError> {
        let mut wanted = BTreeSet::new();
        for name in group_aliases {
            let group = self.group_by_alias(mount_accessor, name)?;
            wanted.extend(group.filter(|group| group.kind == GroupKind::External).map(|group| group.id));
        }
        for id in entity.group_ids.clone() {
            let stays = match self.group(&id)? {
                None => false,
                Some(group) if group.kind == GroupKind::Internal => true,
                Some(group) => group
                    .alias
                    .is_some_and(|alias| alias.mount_accessor != mount_accessor || wanted.contains(&id)),
            };
            if !stays {
                self.leave(&id, &entity.id)?;
                entity.group_ids.remove(&id);
            }
        }
        for id in wanted {
            self.join(entity, &id)?;
        }
        Ok(())
    }
}
