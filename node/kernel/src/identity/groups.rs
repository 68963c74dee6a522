//! Groups in a [`Book`]: who is in them, what they are in, how auth methods call them.
//!
//! Both ends of a membership are written in one transaction: an entity's record names its groups, an entry of the group
//! names the entity; a group's record names its parents and its member groups. **Invariant:** no group is below itself.
//! Every group walked to find out is guarded, so two writes that together would close a circle do not both commit.

use std::collections::BTreeSet;

use arca_barrier::Class;
use arca_engine_api::Page;

use super::book::{Book, check_name};
use super::record::{AliasRecord, EntityRecord, GroupKind, GroupRecord, Tally, folded, is_id};
use crate::tx::Plain;
use crate::{KernelError, ids};

/// Members that one request adds and removes, at most: what it writes goes into one Raft entry.
pub(crate) const MEMBERS_CHANGED_MAX: usize = 2_048;

impl Book<'_> {
    /// The group with an id.
    pub(crate) fn group(&self, id: &str) -> Result<Option<GroupRecord>, KernelError> {
        if !is_id(id) {
            return Ok(None);
        }
        self.get(Class::Replicated, &self.paths().group(id))
    }

    fn group_at(&self, pointer: &str) -> Result<Option<GroupRecord>, KernelError> {
        match self.pointer(Class::Replicated, pointer)? {
            Some(id) => self.group(&id),
            None => Ok(None),
        }
    }

    /// The group with a name, whatever the case.
    pub(crate) fn group_by_name(&self, name: &str) -> Result<Option<GroupRecord>, KernelError> {
        self.group_at(&self.paths().group_name(name))
    }

    /// The group with an alias.
    pub(crate) fn group_by_alias_id(&self, alias_id: &str) -> Result<Option<GroupRecord>, KernelError> {
        if !is_id(alias_id) {
            return Ok(None);
        }
        self.group_at(&self.paths().group_alias_id(alias_id))
    }

    /// The group that a mount calls so.
    pub(crate) fn group_by_alias(
        &self,
        mount_accessor: &str,
        name: &str,
    ) -> Result<Option<GroupRecord>, KernelError> {
        if mount_accessor.is_empty() || mount_accessor.contains('/') {
            return Ok(None);
        }
        self.group_at(&self.paths().group_alias_name(mount_accessor, name))
    }

    /// Ids of groups.
    pub(crate) fn group_ids(&self, page: &Page) -> Result<Vec<String>, KernelError> {
        Ok(self.tx.list(Class::Replicated, &self.paths().groups(), page)?)
    }

    /// Ids of group aliases.
    pub(crate) fn group_alias_ids(&self, page: &Page) -> Result<Vec<String>, KernelError> {
        Ok(self.tx.list(Class::Replicated, &self.paths().group_alias_ids(), page)?)
    }

    /// Ids of the entities in a group.
    pub(crate) fn members(&self, group_id: &str, page: &Page) -> Result<Vec<String>, KernelError> {
        Ok(self.tx.list(Class::Replicated, &self.paths().members(group_id), page)?)
    }

    /// A group's tally.
    pub(crate) fn tally(&self, group_id: &str) -> Result<Tally, KernelError> {
        Ok(self.get(Class::Replicated, &self.paths().tally(group_id))?.unwrap_or_default())
    }

    /// Counts a change of a group.
    pub(super) fn touch(&self, group_id: &str, change: impl FnOnce(&mut Tally)) -> Result<(), KernelError> {
        let mut tally = self.tally(group_id)?;
        tally.modify_index += 1;
        change(&mut tally);
        self.put(Class::Replicated, &self.paths().tally(group_id), &tally)
    }

    /// A new group, not yet saved; under a made-up name if none is given.
    pub(crate) fn new_group(&self, name: &str, kind: GroupKind) -> Result<GroupRecord, KernelError> {
        let name = if name.is_empty() { self.made_up_name("group")? } else { name.to_owned() };
        let mut group =
            GroupRecord { id: ids::uuid(self.entropy)?, kind, created: self.now, ..GroupRecord::default() };
        self.name_group(&mut group, &name)?;
        Ok(group)
    }

    /// Stages a group's record, as far as it changed.
    pub(crate) fn save_group(&self, group: &GroupRecord) -> Result<(), KernelError> {
        self.put(Class::Replicated, &self.paths().group(&group.id), group)
    }

    /// Gives a group a name. The caller saves it.
    ///
    /// # Errors
    /// When the name cannot be one, or is another group's.
    pub(crate) fn name_group(&self, group: &mut GroupRecord, name: &str) -> Result<(), KernelError> {
        check_name(name)?;
        if folded(name) != folded(&group.name) || group.name.is_empty() {
            let path = self.paths().group_name(name);
            if self.pointer(Class::Replicated, &path)?.is_some() {
                return Err(KernelError::invalid("group name is already in use"));
            }
            if !group.name.is_empty() {
                self.tx.delete(Class::Replicated, &self.paths().group_name(&group.name))?;
            }
            self.point(Class::Replicated, &path, &group.id)?;
        }
        name.clone_into(&mut group.name);
        Ok(())
    }

    /// Makes an entity a member. The caller saves the entity and counts the change.
    fn add_member(&self, entity: &mut EntityRecord, group_id: &str) -> Result<(), KernelError> {
        entity.group_ids.insert(group_id.to_owned());
        Ok(self.tx.put(Class::Replicated, &self.paths().member(group_id, &entity.id), Plain::default())?)
    }

    fn remove_member(&self, entity: &mut EntityRecord, group_id: &str) -> Result<(), KernelError> {
        entity.group_ids.remove(group_id);
        Ok(self.tx.delete(Class::Replicated, &self.paths().member(group_id, &entity.id))?)
    }

    /// Puts an entity into a group. The caller saves the entity.
    pub(super) fn join(&self, entity: &mut EntityRecord, group_id: &str) -> Result<(), KernelError> {
        if entity.group_ids.contains(group_id) {
            return Ok(());
        }
        self.add_member(entity, group_id)?;
        self.touch(group_id, |tally| tally.members += 1)
    }

    /// Takes an entity out of a group, on the group's side.
    pub(super) fn leave(&self, group_id: &str, entity_id: &str) -> Result<(), KernelError> {
        self.tx.delete(Class::Replicated, &self.paths().member(group_id, entity_id))?;
        if self.group(group_id)?.is_none() {
            return Ok(()); // It is being removed, a piece at a time.
        }
        self.touch(group_id, |tally| tally.members = tally.members.saturating_sub(1))
    }

    /// Makes exactly these entities a group's members; answers how many joined and left. The caller counts the change.
    ///
    /// # Errors
    /// When one does not exist, or the change is too large for one request.
    pub(crate) fn set_members(
        &self,
        group_id: &str,
        wanted: &BTreeSet<String>,
    ) -> Result<(u64, u64), KernelError> {
        let current: BTreeSet<String> = self.members(group_id, &Page::default())?.into_iter().collect();
        let (joining, leaving) = (wanted.difference(&current), current.difference(wanted));
        let (joins, leaves) = (joining.clone().count(), leaving.clone().count());
        if joins + leaves > MEMBERS_CHANGED_MAX {
            return Err(KernelError::invalid(format!(
                "one request adds and removes at most {MEMBERS_CHANGED_MAX} members"
            )));
        }
        for id in joining {
            let entity = self.entity(id)?;
            let mut entity = entity.ok_or_else(|| unknown("entity", id))?;
            self.add_member(&mut entity, group_id)?;
            self.save_entity(&entity)?;
        }
        for id in leaving {
            if let Some(mut entity) = self.entity(id)? {
                self.remove_member(&mut entity, group_id)?;
                self.save_entity(&entity)?;
            }
        }
        Ok((joins as u64, leaves as u64))
    }

    /// Makes exactly these groups the members of a group. The caller saves the group and counts the change.
    ///
    /// # Errors
    /// When one does not exist, or the group would be below itself.
    pub(crate) fn set_member_groups(
        &self,
        group: &mut GroupRecord,
        wanted: BTreeSet<String>,
    ) -> Result<(), KernelError> {
        if wanted.len() > MEMBERS_CHANGED_MAX {
            return Err(KernelError::invalid(format!(
                "a group has at most {MEMBERS_CHANGED_MAX} groups as members"
            )));
        }
        if wanted.contains(&group.id) {
            return Err(KernelError::invalid("a member group ID is same as the ID of the group"));
        }
        for id in wanted.difference(&group.member_group_ids) {
            let mut member = self.group(id)?.ok_or_else(|| unknown("member group", id))?;
            if self.is_above(&member, &group.id)? {
                return Err(KernelError::invalid("cyclic relationship detected for a member group ID"));
            }
            member.parent_ids.insert(group.id.clone());
            self.save_group(&member)?;
            self.touch(id, |_| {})?;
        }
        for id in group.member_group_ids.difference(&wanted) {
            self.lose_parent(id, &group.id)?;
        }
        group.member_group_ids = wanted;
        Ok(())
    }

    fn lose_parent(&self, id: &str, parent_id: &str) -> Result<(), KernelError> {
        let Some(mut member) = self.group(id)? else { return Ok(()) };
        member.parent_ids.remove(parent_id);
        self.save_group(&member)?;
        self.touch(id, |_| {})
    }

    /// Whether `wanted` is somewhere below `group`.
    fn is_above(&self, group: &GroupRecord, wanted: &str) -> Result<bool, KernelError> {
        let mut seen: BTreeSet<String> = group.member_group_ids.clone();
        let mut open: Vec<String> = seen.iter().cloned().collect();
        while let Some(id) = open.pop() {
            if id == wanted {
                return Ok(true);
            }
            let Some(below) = self.group(&id)? else { continue };
            open.extend(below.member_group_ids.into_iter().filter(|id| seen.insert(id.clone())));
        }
        Ok(false)
    }

    /// Gives an external group its alias; the one it had is no more. The caller saves the group.
    ///
    /// # Errors
    /// When the mount calls another group so.
    pub(crate) fn set_group_alias(
        &self,
        group: &mut GroupRecord,
        alias: AliasRecord,
    ) -> Result<(), KernelError> {
        let holder = self.group_by_alias(&alias.mount_accessor, &alias.name)?;
        let is_own = |held: &AliasRecord| held.id == alias.id;
        if holder.is_some_and(|holder| !holder.alias.as_ref().is_some_and(is_own)) {
            return Err(KernelError::invalid("combination of mount and group alias name is already in use"));
        }
        self.clear_group_alias(group)?;
        let paths = self.paths();
        self.point(Class::Replicated, &paths.group_alias_id(&alias.id), &group.id)?;
        self.point(
            Class::Replicated,
            &paths.group_alias_name(&alias.mount_accessor, &alias.name),
            &group.id,
        )?;
        group.alias = Some(alias);
        Ok(())
    }

    /// Takes a group's alias away. The caller saves the group.
    pub(crate) fn clear_group_alias(&self, group: &mut GroupRecord) -> Result<(), KernelError> {
        let Some(alias) = group.alias.take() else { return Ok(()) };
        let paths = self.paths();
        self.tx.delete(Class::Replicated, &paths.group_alias_id(&alias.id))?;
        Ok(self.tx.delete(Class::Replicated, &paths.group_alias_name(&alias.mount_accessor, &alias.name))?)
    }

    /// Removes a group. Of a very large one some members are left over, which mean nothing any more; housekeeping
    /// takes them away.
    pub(crate) fn delete_group(&self, mut group: GroupRecord) -> Result<(), KernelError> {
        self.clear_group_alias(&mut group)?;
        for id in &group.member_group_ids {
            self.lose_parent(id, &group.id)?;
        }
        for id in &group.parent_ids {
            let Some(mut parent) = self.group(id)? else { continue };
            parent.member_group_ids.remove(&group.id);
            self.save_group(&parent)?;
        }
        self.tx.delete(Class::Replicated, &self.paths().group_name(&group.name))?;
        self.tx.delete(Class::Replicated, &self.paths().group(&group.id))?;
        // Whoever joins at the same time has written the tally.
        self.tally(&group.id)?;
        self.tx.delete(Class::Replicated, &self.paths().tally(&group.id))?;
        if !self.forget_members(&group.id)? {
            self.tx.put(Class::Replicated, &self.paths().leftover(&group.id), Plain::default())?;
        }
        Ok(())
    }

    /// Takes members of a group that is gone away, as many as one request may; true when none are left.
    pub(crate) fn forget_members(&self, group_id: &str) -> Result<bool, KernelError> {
        let page = Page { limit: Some(MEMBERS_CHANGED_MAX + 1), ..Page::default() };
        let members = self.members(group_id, &page)?;
        for id in members.iter().take(MEMBERS_CHANGED_MAX) {
            match self.entity(id)? {
                Some(mut entity) => {
                    self.remove_member(&mut entity, group_id)?;
                    self.save_entity(&entity)?;
                }
                None => self.tx.delete(Class::Replicated, &self.paths().member(group_id, id))?,
            }
        }
        Ok(members.len() <= MEMBERS_CHANGED_MAX)
    }

    /// Groups that are gone and have members left over.
    pub(crate) fn leftovers(&self) -> Result<Vec<String>, KernelError> {
        Ok(self.tx.list(Class::Replicated, &self.paths().leftovers(), &Page::default())?)
    }

    /// Every member of such a group is forgotten.
    pub(crate) fn clear_leftover(&self, group_id: &str) -> Result<(), KernelError> {
        Ok(self.tx.delete(Class::Replicated, &self.paths().leftover(group_id))?)
    }

    /// Takes away up to `limit` group aliases of a mount; true when there were none. The groups stay.
    pub(crate) fn forget_group_aliases(
        &self,
        mount_accessor: &str,
        limit: usize,
    ) -> Result<bool, KernelError> {
        let folder = self.paths().group_aliases_of_mount(mount_accessor);
        let found = self.tx.some_below(Class::Replicated, &folder, limit)?;
        for path in &found {
            if let Some(mut group) = self.group_at(path)? {
                self.clear_group_alias(&mut group)?;
                self.save_group(&group)?;
                self.touch(&group.id, |_| {})?;
            }
            self.tx.delete(Class::Replicated, path)?;
        }
        Ok(found.is_empty())
    }
}

/// What a caller named and is not there. One of several, so it is said which; no more of it than an id has.
fn unknown(what: &str, id: &str) -> KernelError {
    let id: String = id.chars().take(64).collect();
    KernelError::invalid(format!("invalid {what} ID {id:?}"))
}
