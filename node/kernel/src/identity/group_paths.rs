//! `identity/group` and `identity/group-alias`: groups, and how auth mounts call external ones.

use std::collections::BTreeSet;

use arca_engine_api::{Field, FieldKind, Fields, Map, Operation, Page, Request, Response, Route, RouteTable};
use async_trait::async_trait;
use serde_json::json;

use super::book::{Book, check_name};
use super::fields::{book, check_spelling, metadata, path_or_body, policies};
use super::record::{AliasRecord, GroupKind, GroupRecord};
use super::show::{self, MountNames};
use super::{LIST, ONE, PAGE_FIELDS, WRITE, withheld};
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::tokens::handlers::page;
use crate::{KernelError, ids};

const ID: Field = Field::new("id", FieldKind::String, "Id of a group that is there.");
const NAME: Field = Field::new("name", FieldKind::String, "Name; made up where none is given.");
const TYPE: Field =
    Field::new("type", FieldKind::String, "internal, or external: an auth method says who is in it.");
const POLICIES: Field = Field::new("policies", FieldKind::List, "Policies of its members.");
const METADATA: Field = Field::new("metadata", FieldKind::Map, "Texts, also for templated policies.");
const ENTITIES: Field = Field::new("member_entity_ids", FieldKind::List, "All entities that are members.");
const GROUPS: Field =
    Field::new("member_group_ids", FieldKind::List, "All groups whose members are members too.");

const ALIAS_ID: Field = Field::new("id", FieldKind::String, "Id of a group alias that is there.");
const ALIAS_NAME: Field = Field::new("name", FieldKind::String, "How the mount calls the group.");
const ACCESSOR: Field = Field::new("mount_accessor", FieldKind::String, "Accessor of the mount.");
const CANONICAL: Field =
    Field::new("canonical_id", FieldKind::String, "The external group; a new one where none is given.");

static ROUTES: &[Route] = &[
    Route::new(
        "write",
        "group",
        WRITE,
        &[ID, NAME, TYPE, POLICIES, METADATA, ENTITIES, GROUPS],
        "Makes a group, or writes the one with the id or name given.",
    ),
    Route::new("ids", "group/id", LIST, PAGE_FIELDS, "Ids of groups."),
    Route::new("one", "group/id/{id}", ONE, &[NAME, TYPE, POLICIES, METADATA, ENTITIES, GROUPS], "A group."),
    Route::new("names", "group/name", LIST, PAGE_FIELDS, "Names of groups."),
    Route::new(
        "one",
        "group/name/{name...}",
        ONE,
        &[ID, TYPE, POLICIES, METADATA, ENTITIES, GROUPS],
        "A group, by its name in whatever case.",
    ),
    Route::new(
        "alias-write",
        "group-alias",
        WRITE,
        &[ALIAS_ID, ALIAS_NAME, ACCESSOR, CANONICAL],
        "Gives an external group the name by which a mount calls it, in place of the one it had.",
    ),
    Route::new("alias-ids", "group-alias/id", LIST, PAGE_FIELDS, "Ids of group aliases."),
    Route::new("alias", "group-alias/id/{id}", ONE, &[ALIAS_NAME, ACCESSOR, CANONICAL], "A group alias."),
];

/// These paths.
pub(super) struct GroupPaths(RouteTable);

impl GroupPaths {
    pub(super) fn new() -> Self {
        Self(RouteTable::new(ROUTES))
    }
}

#[async_trait]
impl Builtin for GroupPaths {
    fn routes(&self) -> &RouteTable {
        &self.0
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let response = match (request.route.id, request.operation) {
            ("ids", _) => list(ctx, request),
            ("names", _) => names(ctx, request),
            ("one", Operation::Read) => read(ctx, request),
            ("one", Operation::Delete) => delete(ctx, request),
            ("alias-ids", _) => list_aliases(ctx, request),
            ("alias", Operation::Read) => read_alias(ctx, request),
            ("alias", Operation::Delete) => delete_alias(ctx, request),
            ("alias" | "alias-write", _) => write_alias(ctx, request),
            _ => write(ctx, request),
        };
        response.map(BuiltinAnswer::from)
    }
}

fn list(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, names) = (book(ctx), MountNames::of(ctx)?);
    let keys = book.group_ids(&page(request)?)?;
    let mut infos = Map::new();
    for id in &keys {
        if let Some(group) = book.group(id)? {
            infos.insert(id.clone(), show::group_info(&book, &names, &group)?);
        }
    }
    Ok(super::listed(keys, infos))
}

fn names(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let book = book(ctx);
    let mut names = Vec::new();
    for id in book.group_ids(&Page::default())? {
        names.extend(book.group(&id)?.map(|group| group.name));
    }
    Ok(Response::list(super::paged(names, &page(request)?)))
}

/// The group that the path names, by id or by name.
fn find(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Option<GroupRecord>, KernelError> {
    let book = book(ctx);
    let found = match request.param("id") {
        "" => book.group_by_name(request.param("name"))?,
        id => book.group(id)?,
    };
    if let Some(group) = &found {
        check_spelling(ctx, request, &group.name)?;
    }
    Ok(found)
}

fn read(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let group = find(ctx, request)?.ok_or_else(|| KernelError::NotFound(String::new()))?;
    let data = show::group(&book(ctx), &MountNames::of(ctx)?, &group)?;
    Ok(Response { data: Some(data), ..Response::default() })
}

fn delete(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    if let Some(group) = find(ctx, request)? {
        withheld::check_aliases(ctx, &group.alias)?;
        book(ctx).delete_group(group)?;
    }
    Ok(Response::empty())
}

/// A text that is there and empty names nothing: a script whose variable is unset would make a group at each run.
fn check_said(fields: Fields<'_>) -> Result<(), KernelError> {
    for (name, text) in [("id", "empty group ID"), ("name", "empty group name")] {
        if fields.string(name)?.is_some_and(|said| said.is_empty()) {
            return Err(KernelError::invalid(text));
        }
    }
    Ok(())
}

fn write(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, fields) = (book(ctx), request.fields());
    check_said(fields)?;
    let (id, name) = (path_or_body(request, "id")?, path_or_body(request, "name")?);
    let found = if !id.is_empty() {
        Some(book.group(&id)?.ok_or_else(|| KernelError::invalid("invalid group ID"))?)
    } else if name.is_empty() {
        None
    } else {
        book.group_by_name(&name)?
    };
    if !id.is_empty() && !request.param("name").is_empty() {
        // Rules are on paths: what the path names is what is written.
        let named = book.group_by_name(&name)?;
        if named.is_none_or(|named| named.id != id) {
            return Err(KernelError::invalid("the id is not that of the group named in the path"));
        }
    }
    let is_new = found.is_none();
    let kind = kind(fields)?;
    let mut group = match found {
        Some(group) => {
            check_spelling(ctx, request, &group.name)?;
            group
        }
        None => book.new_group(&name, kind.unwrap_or_default())?,
    };
    if kind.is_some_and(|kind| kind != group.kind) {
        return Err(KernelError::invalid("group type cannot be changed"));
    }
    if !name.is_empty() {
        book.name_group(&mut group, &name)?;
    }
    group.policies = policies(fields)?.unwrap_or(group.policies);
    group.metadata = metadata(fields, "metadata")?.unwrap_or(group.metadata);
    let (joined, left) = write_members(&book, &mut group, fields)?;
    book.save_group(&group)?;
    book.touch(&group.id, |tally| {
        tally.members = (tally.members + joined).saturating_sub(left);
        tally.updated = book.now;
    })?;
    if !is_new {
        return Ok(Response::empty());
    }
    Ok(Response::data(json!({"id": group.id, "name": group.name})))
}

fn kind(fields: Fields<'_>) -> Result<Option<GroupKind>, KernelError> {
    match fields.string("type")?.unwrap_or_default().as_str() {
        "" => Ok(None),
        "external" => Ok(Some(GroupKind::External)),
        "internal" => Ok(Some(GroupKind::Internal)),
        _ => Err(KernelError::invalid("invalid group type")),
    }
}

/// Writes who is a member; answers how many entities joined and left.
fn write_members(
    book: &Book<'_>,
    group: &mut GroupRecord,
    fields: Fields<'_>,
) -> Result<(u64, u64), KernelError> {
    let wanted = |name: &str| -> Result<Option<BTreeSet<String>>, KernelError> {
        Ok(fields.list(name)?.map(|ids| ids.into_iter().collect()))
    };
    let (entities, groups) = (wanted("member_entity_ids")?, wanted("member_group_ids")?);
    let is_external = group.kind == GroupKind::External;
    if is_external && entities.as_ref().is_some_and(|ids| !ids.is_empty()) {
        return Err(KernelError::invalid("member entities can't be set manually for external groups"));
    }
    if is_external && groups.as_ref().is_some_and(|ids| !ids.is_empty()) {
        return Err(KernelError::invalid("member groups can't be set for external groups"));
    }
    if let Some(groups) = groups {
        book.set_member_groups(group, groups)?;
    }
    match entities {
        Some(entities) if !is_external => book.set_members(&group.id, &entities),
        _ => Ok((0, 0)),
    }
}

fn list_aliases(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, names) = (book(ctx), MountNames::of(ctx)?);
    let keys = book.group_alias_ids(&page(request)?)?;
    let mut infos = Map::new();
    for id in &keys {
        let Some(group) = book.group_by_alias_id(id)? else { continue };
        if let Some(alias) = &group.alias {
            infos.insert(id.clone(), show::alias_info(&names, &group.id, alias));
        }
    }
    Ok(super::listed(keys, infos))
}

fn read_alias(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let book = book(ctx);
    let group = book.group_by_alias_id(request.param("id"))?;
    let found = group.as_ref().and_then(|group| Some((group, group.alias.as_ref()?)));
    let (group, alias) = found.ok_or_else(|| KernelError::NotFound(String::new()))?;
    let data = show::alias(book.namespace_id, &MountNames::of(ctx)?, &group.id, alias);
    Ok(Response { data: Some(data), ..Response::default() })
}

fn delete_alias(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let book = book(ctx);
    if let Some(mut group) = book.group_by_alias_id(request.param("id"))? {
        withheld::check_aliases(ctx, &group.alias)?;
        book.clear_group_alias(&mut group)?;
        save_with_alias(&book, &group)?;
    }
    Ok(Response::empty())
}

fn save_with_alias(book: &Book<'_>, group: &GroupRecord) -> Result<(), KernelError> {
    book.save_group(group)?;
    book.touch(&group.id, |tally| tally.updated = book.now)
}

fn write_alias(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, fields) = (book(ctx), request.fields());
    let text = |name: &str| fields.string(name).map(Option::unwrap_or_default);
    let id = path_or_body(request, "id")?;
    let mut holder = if id.is_empty() { None } else { book.group_by_alias_id(&id)? };
    if !id.is_empty() && holder.is_none() {
        return Err(KernelError::invalid("invalid group alias ID"));
    }
    let old = holder.as_ref().and_then(|group| group.alias.clone());
    withheld::check_aliases(ctx, &old)?;
    let (mut name, mut accessor) = (text("name")?, text("mount_accessor")?);
    if let Some(old) = &old {
        name = if name.is_empty() { old.name.clone() } else { name };
        accessor = if accessor.is_empty() { old.mount_accessor.clone() } else { accessor };
    }
    check_alias(ctx, &name, &accessor)?;
    let canonical_id = text("canonical_id")?;
    let mut group = match holder.take() {
        Some(group) if canonical_id.is_empty() || canonical_id == group.id => group,
        other => {
            if let Some(mut other) = other {
                book.clear_group_alias(&mut other)?;
                save_with_alias(&book, &other)?;
            }
            group_for_alias(&book, &canonical_id)?
        }
    };
    // Its own alias so far is lost to the new one.
    withheld::check_aliases(ctx, &group.alias)?;
    let alias = AliasRecord {
        id: if id.is_empty() { ids::uuid(book.entropy)? } else { id },
        name,
        mount_accessor: accessor,
        created: old.map_or(book.now, |old| old.created),
        updated: book.now,
        ..AliasRecord::default()
    };
    let answer = Response::data(json!({"canonical_id": group.id, "id": alias.id}));
    book.set_group_alias(&mut group, alias)?;
    save_with_alias(&book, &group)?;
    Ok(answer)
}

fn check_alias(ctx: &BuiltinCtx<'_>, name: &str, accessor: &str) -> Result<(), KernelError> {
    if name.is_empty() {
        return Err(KernelError::invalid("missing alias name"));
    }
    if accessor.is_empty() {
        return Err(KernelError::invalid("missing mount_accessor"));
    }
    check_name(name)?;
    let names = MountNames::of(ctx)?;
    withheld::check_method(ctx, accessor)?;
    let mount = names.mount(accessor).ok_or_else(|| KernelError::invalid("invalid mount accessor"))?;
    let (key, version) = &mount.guard;
    ctx.tx.guard(key, *version); // It must still be there when this commits.
    if mount.record.is_local {
        return Err(KernelError::invalid("the mount is local: its groups are not known to other clusters"));
    }
    Ok(())
}

fn group_for_alias(book: &Book<'_>, canonical_id: &str) -> Result<GroupRecord, KernelError> {
    if canonical_id.is_empty() {
        return book.new_group("", GroupKind::External);
    }
    let group = book.group(canonical_id)?;
    let group = group.ok_or_else(|| KernelError::invalid("invalid group ID given in 'canonical_id'"))?;
    if group.kind == GroupKind::Internal {
        return Err(KernelError::invalid("alias can't be set on an internal group"));
    }
    Ok(group)
}
