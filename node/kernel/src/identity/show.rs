//! Identities as clients see them.

use std::sync::Arc;

use arca_engine_api::Map;
use serde_json::{Value, json};

use super::book::Book;
use super::record::{AliasRecord, EntityRecord, GroupRecord, Metadata};
use super::resolve::with_parents;
use crate::builtin::BuiltinCtx;
use crate::router::{Mount, Router};
use crate::{KernelError, rfc3339};

/// Mounts of a namespace by accessor.
pub(super) struct MountNames {
    router: Arc<Router>,
    namespace_id: String,
}

impl MountNames {
    /// Those of the request's namespace.
    pub(super) fn of(ctx: &BuiltinCtx<'_>) -> Result<Self, KernelError> {
        let router = ctx.kernel.mounts.router(&ctx.kernel.store)?;
        Ok(Self { router, namespace_id: ctx.namespace.id.clone() })
    }

    /// The mount with an accessor, if requests reach it.
    pub(super) fn mount(&self, accessor: &str) -> Option<&Mount> {
        let found = self.router.by_accessor(&self.namespace_id, accessor);
        found.map(AsRef::as_ref).filter(|mount: &&Mount| mount.is_active())
    }

    /// Path and type; empty for a mount that is gone.
    fn path_and_type(&self, accessor: &str) -> (&str, &str) {
        self.mount(accessor).map_or(("", ""), |mount| (&mount.record.path, &mount.record.engine))
    }
}

/// `null` where there is nothing.
fn or_null<T: serde::Serialize>(is_empty: bool, value: &T) -> Value {
    if is_empty { Value::Null } else { json!(value) }
}

fn shown_metadata(metadata: &Metadata) -> Value {
    or_null(metadata.is_empty(), metadata)
}

fn object(value: Value) -> Map {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// What an alias is within its entity or group.
fn alias_within(names: &MountNames, owner_id: &str, alias: &AliasRecord) -> Map {
    let (path, kind) = names.path_and_type(&alias.mount_accessor);
    object(json!({
        "canonical_id": owner_id,
        "creation_time": rfc3339::format(alias.created),
        "id": alias.id,
        "last_update_time": rfc3339::format(alias.updated),
        "merged_from_canonical_ids": or_null(alias.merged_from.is_empty(), &alias.merged_from),
        "metadata": shown_metadata(&alias.metadata),
        "mount_accessor": alias.mount_accessor,
        "mount_path": path,
        "mount_type": kind,
        "name": alias.name,
    }))
}

fn entity_alias_within(names: &MountNames, owner_id: &str, alias: &AliasRecord) -> Map {
    let mut data = alias_within(names, owner_id, alias);
    data.insert("custom_metadata".to_owned(), shown_metadata(&alias.custom_metadata));
    data.insert("local".to_owned(), alias.is_local.into());
    data
}

/// An alias by itself.
pub(super) fn alias(namespace_id: &str, names: &MountNames, owner_id: &str, alias: &AliasRecord) -> Map {
    let mut data = entity_alias_within(names, owner_id, alias);
    data.insert("namespace_id".to_owned(), namespace_id.into());
    data
}

/// An alias in a list of aliases.
pub(super) fn alias_info(names: &MountNames, owner_id: &str, alias: &AliasRecord) -> Value {
    let (path, kind) = names.path_and_type(&alias.mount_accessor);
    json!({
        "canonical_id": owner_id,
        "custom_metadata": shown_metadata(&alias.custom_metadata),
        "local": alias.is_local,
        "metadata": shown_metadata(&alias.metadata),
        "mount_accessor": alias.mount_accessor,
        "mount_path": path,
        "mount_type": kind,
        "name": alias.name,
    })
}

/// An alias of what is in a list.
fn alias_named(names: &MountNames, alias: &AliasRecord) -> Value {
    let (path, kind) = names.path_and_type(&alias.mount_accessor);
    json!({
        "id": alias.id,
        "mount_accessor": alias.mount_accessor,
        "mount_path": path,
        "mount_type": kind,
        "name": alias.name,
    })
}

/// An entity in a list of entities.
pub(super) fn entity_info(names: &MountNames, entity: &EntityRecord) -> Value {
    let aliases = entity.aliases.iter().map(|alias| alias_named(names, alias));
    let mut info = object(json!({"name": entity.name}));
    if !entity.aliases.is_empty() {
        info.insert("aliases".to_owned(), aliases.collect());
    }
    Value::Object(info)
}

/// An entity.
pub(super) fn entity(book: &Book<'_>, names: &MountNames, entity: &EntityRecord) -> Result<Map, KernelError> {
    let (own, inherited) = with_parents(&entity.group_ids, |id| Ok(book.group(id)?.map(Arc::new)))?;
    let ids = |groups: &[Arc<GroupRecord>]| groups.iter().map(|group| group.id.clone()).collect::<Vec<_>>();
    let (own, inherited) = (ids(&own), ids(&inherited));
    let all = [own.as_slice(), inherited.as_slice()].concat();
    let aliases: Vec<Map> =
        entity.aliases.iter().map(|alias| entity_alias_within(names, &entity.id, alias)).collect();
    let merged = &entity.merged_entity_ids;
    Ok(object(json!({
        "aliases": aliases,
        "creation_time": rfc3339::format(entity.created),
        "direct_group_ids": own,
        "disabled": entity.is_disabled,
        "group_ids": all,
        "id": entity.id,
        "inherited_group_ids": inherited,
        "last_update_time": rfc3339::format(entity.updated),
        "merged_entity_ids": or_null(merged.is_empty(), merged),
        "metadata": shown_metadata(&entity.metadata),
        "name": entity.name,
        "namespace_id": book.namespace_id,
        "policies": entity.policies,
    })))
}

/// A group.
pub(super) fn group(book: &Book<'_>, names: &MountNames, group: &GroupRecord) -> Result<Map, KernelError> {
    let tally = book.tally(&group.id)?;
    let members = book.members(&group.id, &arca_engine_api::Page::default())?;
    let alias = group.alias.as_ref().map_or_else(Map::new, |alias| alias_within(names, &group.id, alias));
    Ok(object(json!({
        "alias": alias,
        "creation_time": rfc3339::format(group.created),
        "id": group.id,
        "last_update_time": rfc3339::format(tally.updated),
        "member_entity_ids": or_null(members.is_empty(), &members),
        "member_group_ids": or_null(group.member_group_ids.is_empty(), &group.member_group_ids),
        "metadata": shown_metadata(&group.metadata),
        "modify_index": tally.modify_index,
        "name": group.name,
        "namespace_id": book.namespace_id,
        "parent_group_ids": or_null(group.parent_ids.is_empty(), &group.parent_ids),
        "policies": or_null(group.policies.is_empty(), &group.policies),
        "type": group.kind.as_str(),
    })))
}

/// A group in a list of groups.
pub(super) fn group_info(
    book: &Book<'_>,
    names: &MountNames,
    group: &GroupRecord,
) -> Result<Value, KernelError> {
    let mut info = object(json!({
        "name": group.name,
        "num_member_entities": book.tally(&group.id)?.members,
        "num_parent_groups": group.parent_ids.len(),
    }));
    if let Some(alias) = &group.alias {
        info.insert("alias".to_owned(), alias_named(names, alias));
    }
    Ok(Value::Object(info))
}
