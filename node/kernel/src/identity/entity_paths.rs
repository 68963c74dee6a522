//! `identity/entity`: entities by id and by name, merged and removed in bulk.

use std::collections::BTreeSet;

use arca_engine_api::{Field, FieldKind, Map, Operation, Request, Response, Route, RouteTable};
use async_trait::async_trait;
use serde_json::json;

use super::fields::{book, check_spelling, metadata, path_or_body, policies};
use super::merge::Merge;
use super::record::EntityRecord;
use super::show::{self, MountNames};
use super::{DELETE_MANY_MAX, LIST, ONE, PAGE_FIELDS, WRITE, withheld};
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::tokens::handlers::page;

const ID: Field = Field::new("id", FieldKind::String, "Id of an entity that is there.");
const NAME: Field = Field::new("name", FieldKind::String, "Name; made up where none is given.");
const POLICIES: Field = Field::new("policies", FieldKind::List, "Policies of its tokens, besides their own.");
const METADATA: Field = Field::new("metadata", FieldKind::Map, "Texts, also for templated policies.");
const DISABLED: Field =
    Field::new("disabled", FieldKind::Bool, "Refuse its tokens and logins, until it is enabled again.");

static ROUTES: &[Route] = &[
    Route::new(
        "write",
        "entity",
        WRITE,
        &[ID, NAME, POLICIES, METADATA, DISABLED],
        "Makes an entity, or writes the one with the id or name given.",
    ),
    Route::new("ids", "entity/id", LIST, PAGE_FIELDS, "Ids of entities."),
    Route::new("one", "entity/id/{id}", ONE, &[NAME, POLICIES, METADATA, DISABLED], "An entity."),
    Route::new("names", "entity/name", LIST, PAGE_FIELDS, "Names of entities."),
    Route::new(
        "one",
        "entity/name/{name...}",
        ONE,
        &[ID, POLICIES, METADATA, DISABLED],
        "An entity, by its name in whatever case.",
    ),
    Route::new(
        "batch-delete",
        "entity/batch-delete",
        WRITE,
        &[Field::new("entity_ids", FieldKind::List, "Ids; those of nobody are passed over.")],
        "Removes entities.",
    ),
    Route::new(
        "merge",
        "entity/merge",
        WRITE,
        &[
            Field::new("from_entity_ids", FieldKind::List, "Entities that become part of the other one."),
            Field::new("to_entity_id", FieldKind::String, "The entity that stays."),
            Field::new("force", FieldKind::Bool, "Kept for clients that set it."),
            Field::new(
                "conflicting_alias_ids_to_keep",
                FieldKind::List,
                "Where both have an alias of one mount: the aliases that stay.",
            ),
        ],
        "Makes one entity of several.",
    ),
];

/// These paths.
pub(super) struct EntityPaths(RouteTable);

impl EntityPaths {
    pub(super) fn new() -> Self {
        Self(RouteTable::new(ROUTES))
    }
}

#[async_trait]
impl Builtin for EntityPaths {
    fn routes(&self) -> &RouteTable {
        &self.0
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let response = match (request.route.id, request.operation) {
            ("ids", _) => ids(ctx, request),
            ("names", _) => names(ctx, request),
            ("batch-delete", _) => batch_delete(ctx, request),
            ("merge", _) => merge(ctx, request),
            ("one", Operation::Read) => read(ctx, request),
            ("one", Operation::Delete) => delete(ctx, request),
            _ => write(ctx, request),
        };
        response.map(BuiltinAnswer::from)
    }
}

fn ids(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, names) = (book(ctx), MountNames::of(ctx)?);
    let keys = book.entity_ids(&page(request)?)?;
    let mut infos = Map::new();
    for id in &keys {
        if let Some(entity) = book.entity(id)? {
            infos.insert(id.clone(), show::entity_info(&names, &entity));
        }
    }
    Ok(super::listed(keys, infos))
}

fn names(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let book = book(ctx);
    let mut names = Vec::new();
    for id in book.entity_ids(&arca_engine_api::Page::default())? {
        names.extend(book.entity(&id)?.map(|entity| entity.name));
    }
    Ok(Response::list(super::paged(names, &page(request)?)))
}

/// The entity that the path names, by id or by name.
fn find(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Option<EntityRecord>, KernelError> {
    let book = book(ctx);
    let found = match request.param("id") {
        "" => book.entity_by_name(request.param("name"))?,
        id => book.entity(id)?,
    };
    if let Some(entity) = &found {
        check_spelling(ctx, request, &entity.name)?;
    }
    Ok(found)
}

fn read(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let entity = find(ctx, request)?.ok_or_else(|| KernelError::NotFound(String::new()))?;
    let data = show::entity(&book(ctx), &MountNames::of(ctx)?, &entity)?;
    Ok(Response { data: Some(data), ..Response::default() })
}

fn delete(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    if let Some(entity) = find(ctx, request)? {
        withheld::check_aliases(ctx, &entity.aliases)?;
        book(ctx).delete_entity(&entity)?;
    }
    Ok(Response::empty())
}

fn write(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, fields) = (book(ctx), request.fields());
    let (id, name) = (path_or_body(request, "id")?, path_or_body(request, "name")?);
    let found = if !id.is_empty() {
        Some(book.entity(&id)?.ok_or_else(|| KernelError::invalid("entity not found from id"))?)
    } else if name.is_empty() {
        None
    } else {
        book.entity_by_name(&name)?
    };
    if !id.is_empty() && !request.param("name").is_empty() {
        // Rules are on paths: what the path names is what is written.
        let named = book.entity_by_name(&name)?;
        if named.is_none_or(|named| named.id != id) {
            return Err(KernelError::invalid("the id is not that of the entity named in the path"));
        }
    }
    let is_new = found.is_none();
    let (policies, metadata) = (policies(fields)?, metadata(fields, "metadata")?);
    let mut entity = match found {
        Some(entity) => {
            check_spelling(ctx, request, &entity.name)?;
            entity
        }
        None => book.new_entity(&name)?,
    };
    if !name.is_empty() {
        book.name_entity(&mut entity, &name)?;
    }
    entity.policies = policies.unwrap_or(entity.policies);
    entity.metadata = metadata.unwrap_or(entity.metadata);
    entity.is_disabled = fields.boolean("disabled")?.unwrap_or(entity.is_disabled);
    entity.updated = book.now;
    book.save_entity(&entity)?;
    if !is_new {
        return Ok(Response::empty());
    }
    Ok(Response::data(json!({"aliases": null, "id": entity.id, "name": entity.name})))
}

/// Each id is looked up among the records of the request's namespace and nowhere else (CVE-2026-14886).
fn batch_delete(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let ids = request.fields().list("entity_ids")?.unwrap_or_default();
    if ids.is_empty() {
        return Err(KernelError::invalid("missing entity ids to delete"));
    }
    if ids.len() > DELETE_MANY_MAX {
        return Err(KernelError::invalid(format!(
            "at most {DELETE_MANY_MAX} entities can be removed at once"
        )));
    }
    let book = book(ctx);
    for id in ids.into_iter().collect::<BTreeSet<_>>() {
        if let Some(entity) = book.entity(&id)? {
            withheld::check_aliases(ctx, &entity.aliases)?;
            book.delete_entity(&entity)?;
        }
    }
    Ok(Response::empty())
}

fn merge(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let fields = request.fields();
    let merge = Merge {
        into: fields.string("to_entity_id")?.unwrap_or_default(),
        from: fields.list("from_entity_ids")?.unwrap_or_default(),
        kept_alias_ids: fields
            .list("conflicting_alias_ids_to_keep")?
            .unwrap_or_default()
            .into_iter()
            .collect(),
    };
    if merge.from.len() > DELETE_MANY_MAX {
        return Err(KernelError::invalid(format!(
            "at most {DELETE_MANY_MAX} entities can be merged at once"
        )));
    }
    let book = book(ctx);
    for id in merge.from.iter().chain([&merge.into]) {
        if let Some(entity) = book.entity(id)? {
            withheld::check_aliases(ctx, &entity.aliases)?;
        }
    }
    book.merge(&merge)?;
    Ok(Response::empty())
}
