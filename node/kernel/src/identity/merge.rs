//! Merging entities: the one that stays takes over the aliases, the groups and the tokens of the others. Policies and
//! metadata of those are not taken over, so nobody gains by a merge what the entity that stays was not given.

use std::collections::BTreeSet;

use arca_barrier::Class;

use super::book::Book;
use super::record::EntityRecord;
use crate::KernelError;

/// What is to be merged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merge {
    /// The entity that stays.
    pub(crate) into: String,
    /// The others.
    pub(crate) from: Vec<String>,
    /// Where both have an alias of one mount: the aliases that stay.
    pub(crate) kept_alias_ids: BTreeSet<String>,
}

impl Book<'_> {
    /// Merges.
    ///
    /// # Errors
    /// When an entity does not exist, or both have an alias of one mount and nobody said which one stays.
    pub(crate) fn merge(&self, merge: &Merge) -> Result<(), KernelError> {
        if merge.into.is_empty() {
            return Err(KernelError::invalid("missing entity id to merge to"));
        }
        if merge.from.is_empty() {
            return Err(KernelError::invalid("missing entity ids to merge from"));
        }
        if merge.from.contains(&merge.into) {
            return Err(KernelError::invalid("to_entity_id should not be present in from_entity_ids"));
        }
        let into = self.entity(&merge.into)?;
        let mut into = into.ok_or_else(|| KernelError::invalid("entity id to merge to is invalid"))?;
        let from: BTreeSet<&str> = merge.from.iter().map(String::as_str).collect();
        for id in from {
            let one = self.entity(id)?;
            let one = one.ok_or_else(|| KernelError::invalid("entity id to merge from is invalid"))?;
            if one.is_disabled && !into.is_disabled {
                return Err(KernelError::invalid(
                    "a disabled entity can't be merged into one that is not: its logins would work again",
                ));
            }
            self.take_over(&mut into, one, &merge.kept_alias_ids)?;
        }
        self.save_entity(&into)
    }

    fn take_over(
        &self,
        into: &mut EntityRecord,
        mut one: EntityRecord,
        kept: &BTreeSet<String>,
    ) -> Result<(), KernelError> {
        self.take_in_all(&one)?;
        for alias in one.aliases.clone() {
            if let Some(own) = into.alias_of(&alias.mount_accessor).cloned() {
                if kept.contains(&own.id) {
                    self.take_alias(&mut one, &alias.id)?;
                    continue;
                }
                if !kept.contains(&alias.id) {
                    return Err(clash(into, &one, &own.id, &alias.id, kept));
                }
                self.take_alias(into, &own.id)?;
            }
            if let Some(mut moved) = self.take_alias(&mut one, &alias.id)? {
                moved.merged_from.push(one.id.clone());
                self.add_alias(into, moved)?;
            }
        }
        for group_id in &one.group_ids {
            self.leave(group_id, &one.id)?;
            if self.group(group_id)?.is_some() {
                self.join(into, group_id)?;
            }
        }
        for id in one.merged_entity_ids.iter().chain([&one.id]) {
            self.point(Class::Replicated, &self.paths().merged(id), &into.id)?;
            into.merged_entity_ids.push(id.clone());
        }
        self.remove_entity_record(&one)
    }
}

fn clash(
    into: &EntityRecord,
    one: &EntityRecord,
    own_alias: &str,
    alias: &str,
    kept: &BTreeSet<String>,
) -> KernelError {
    if kept.is_empty() {
        return KernelError::invalid(format!(
            "toEntity and at least one fromEntity have aliases with the same mount accessor, repeat the merge request \
             with conflicting_alias_ids_to_keep: toEntity ID: {}, fromEntity ID: {}, conflicting toEntity alias ID: \
             {own_alias}, conflicting fromEntity alias ID: {alias}",
            into.id, one.id
        ));
    }
    KernelError::invalid(format!(
        "conflicting mount accessors in following alias IDs and neither were present in \
         conflicting_alias_ids_to_keep: {alias}, {own_alias}"
    ))
}
