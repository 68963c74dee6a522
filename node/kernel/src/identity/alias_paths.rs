//! `identity/entity-alias`, and its older names `alias` and `persona`: by which names auth mounts know entities.

use arca_engine_api::{Field, FieldKind, Map, Operation, Request, Response, Route, RouteTable};
use async_trait::async_trait;
use serde_json::json;

use super::book::{Book, check_name};
use super::fields::{book, metadata, path_or_body};
use super::record::{AliasRecord, EntityRecord, Metadata, folded};
use super::show::{self, MountNames};
use super::{LIST, ONE, PAGE_FIELDS, WRITE, withheld};
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};
use crate::replication::{EntityKnown, EntityQuestion};
use crate::router::Mount;
use crate::tokens::handlers::page;

const ID: Field = Field::new("id", FieldKind::String, "Id of an alias that is there.");
const NAME: Field = Field::new("name", FieldKind::String, "How the mount calls somebody.");
const ACCESSOR: Field = Field::new("mount_accessor", FieldKind::String, "Accessor of the mount.");
const CANONICAL: Field =
    Field::new("canonical_id", FieldKind::String, "Its entity; a new one where none is given.");
const ENTITY: Field = Field::new("entity_id", FieldKind::String, "Old name of canonical_id.");
const CUSTOM: Field = Field::new("custom_metadata", FieldKind::Map, "Texts, also for templated policies.");

const ALL: &[Field] = &[ID, NAME, ACCESSOR, CANONICAL, ENTITY, CUSTOM];
const OF_ONE: &[Field] = &[NAME, ACCESSOR, CANONICAL, ENTITY, CUSTOM];
const WRITES: &str = "Makes an alias, or writes the one with the id, or with the mount and name, given.";

static ROUTES: &[Route] = &[
    Route::new("write", "entity-alias", WRITE, ALL, WRITES),
    Route::new("ids", "entity-alias/id", LIST, PAGE_FIELDS, "Ids of aliases."),
    Route::new("one", "entity-alias/id/{id}", ONE, OF_ONE, "An alias."),
    Route::new("write", "alias", WRITE, ALL, WRITES),
    Route::new("ids", "alias/id", LIST, PAGE_FIELDS, "Ids of aliases."),
    Route::new("one", "alias/id/{id}", ONE, OF_ONE, "An alias."),
    Route::new("write", "persona", WRITE, ALL, WRITES),
    Route::new("ids", "persona/id", LIST, PAGE_FIELDS, "Ids of aliases."),
    Route::new("one", "persona/id/{id}", ONE, OF_ONE, "An alias."),
];

/// These paths.
pub(super) struct AliasPaths(RouteTable);

impl AliasPaths {
    pub(super) fn new() -> Self {
        Self(RouteTable::new(ROUTES))
    }
}

#[async_trait]
impl Builtin for AliasPaths {
    fn routes(&self) -> &RouteTable {
        &self.0
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let response = match (request.route.id, request.operation) {
            ("ids", _) => ids(ctx, request),
            ("one", Operation::Read) => read(ctx, request),
            ("one", Operation::Delete) => delete(ctx, request),
            _ => write(ctx, request),
        };
        response.map(BuiltinAnswer::from)
    }
}

fn ids(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, names) = (book(ctx), MountNames::of(ctx)?);
    let keys = book.alias_ids(&page(request)?)?;
    let mut infos = Map::new();
    for id in &keys {
        let Some(entity) = book.entity_by_alias_id(id)? else { continue };
        if let Some(alias) = entity.alias(id) {
            infos.insert(id.clone(), show::alias_info(&names, &entity.id, alias));
        }
    }
    Ok(super::listed(keys, infos))
}

fn read(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, id) = (book(ctx), request.param("id"));
    let entity = book.entity_by_alias_id(id)?;
    let found = entity.as_ref().and_then(|entity| Some((entity, entity.alias(id)?)));
    let (entity, alias) = found.ok_or_else(|| KernelError::NotFound(String::new()))?;
    let data = show::alias(book.namespace_id, &MountNames::of(ctx)?, &entity.id, alias);
    Ok(Response { data: Some(data), ..Response::default() })
}

fn delete(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, id) = (book(ctx), request.param("id"));
    if let Some(mut entity) = book.entity_by_alias_id(id)? {
        withheld::check_aliases(ctx, entity.alias(id))?;
        book.take_alias(&mut entity, id)?;
        book.save_entity(&entity)?;
    }
    Ok(Response::empty())
}

/// What a write says of an alias; empty texts say nothing.
struct Wanted {
    name: String,
    mount_accessor: String,
    canonical_id: String,
    custom_metadata: Option<Metadata>,
}

fn write(ctx: &BuiltinCtx<'_>, request: &Request) -> Result<Response, KernelError> {
    let (book, fields) = (book(ctx), request.fields());
    let text = |name: &str| fields.string(name).map(Option::unwrap_or_default);
    let (canonical_id, entity_id) = (text("canonical_id")?, text("entity_id")?);
    let wanted = Wanted {
        name: text("name")?,
        mount_accessor: text("mount_accessor")?,
        canonical_id: if canonical_id.is_empty() { entity_id } else { canonical_id },
        custom_metadata: metadata(fields, "custom_metadata")?,
    };
    let id = path_or_body(request, "id")?;
    let names = MountNames::of(ctx)?;
    withheld::check_method(ctx, &wanted.mount_accessor)?;
    if !id.is_empty() {
        let entity = book.entity_by_alias_id(&id)?;
        let entity = entity.ok_or_else(|| KernelError::invalid("invalid alias ID provided"))?;
        withheld::check_aliases(ctx, entity.alias(&id))?;
        return update(&book, &names, entity, &id, wanted);
    }
    if wanted.name.is_empty() || wanted.mount_accessor.is_empty() {
        return Err(KernelError::invalid("'id' or 'mount_accessor' and 'name' must be provided"));
    }
    if let Some(entity) = book.entity_by_alias(&wanted.mount_accessor, &wanted.name)?
        && let Some(id) = entity.alias_of(&wanted.mount_accessor).map(|alias| alias.id.clone())
    {
        return update(&book, &names, entity, &id, wanted);
    }
    create(ctx, &book, &names, wanted)
}

fn answer(entity: &EntityRecord, alias_id: &str) -> Response {
    Response::data(json!({"canonical_id": entity.id, "id": alias_id}))
}

fn create(
    ctx: &BuiltinCtx<'_>,
    book: &Book<'_>,
    names: &MountNames,
    wanted: Wanted,
) -> Result<Response, KernelError> {
    let mount = held_mount(book, names, &wanted.mount_accessor)?;
    let mut alias = book.new_alias(&wanted.name, &wanted.mount_accessor, mount.record.is_local)?;
    alias.custom_metadata = wanted.custom_metadata.unwrap_or_default();
    let mut entity = if wanted.canonical_id.is_empty() {
        new_entity(ctx, book, mount)?
    } else {
        let found = book.entity(&wanted.canonical_id)?;
        found.ok_or_else(|| KernelError::invalid("invalid canonical ID"))?
    };
    if entity.alias_of(&wanted.mount_accessor).is_some() {
        return Err(KernelError::invalid("Alias already exists for requested entity and mount accessor"));
    }
    let id = alias.id.clone();
    book.add_alias(&mut entity, alias)?;
    book.save_entity(&entity)?;
    Ok(answer(&entity, &id))
}

/// A new entity for an alias of a mount. At a performance secondary entities are the primary's to make, and aliases of local
/// mounts are not: so there the primary is asked for the entity first, as at a login.
fn new_entity(ctx: &BuiltinCtx<'_>, book: &Book<'_>, mount: &Mount) -> Result<EntityRecord, KernelError> {
    if !mount.record.is_local || !ctx.kernel.is_performance_secondary() {
        return book.new_entity("");
    }
    match &*ctx.entity.lock() {
        EntityKnown::Is(id) => book.entity_of_token(id)?.ok_or(KernelError::Denied),
        EntityKnown::AsHere | EntityKnown::Failed(_) => {
            Err(KernelError::NeedsEntity(Box::new(EntityQuestion {
                namespace_id: book.namespace_id.to_owned(),
                mount_accessor: mount.record.accessor.clone(),
                is_local: true,
                ..EntityQuestion::default()
            })))
        }
    }
}

/// Writes an alias that is there. It never makes one entity of two: an alias that somebody else has is not taken, and
/// an entity that has an alias of the mount gets no other one (CVE-2021-41802).
fn update(
    book: &Book<'_>,
    names: &MountNames,
    mut entity: EntityRecord,
    alias_id: &str,
    wanted: Wanted,
) -> Result<Response, KernelError> {
    let old = entity.alias(alias_id).cloned();
    let old = old.ok_or_else(|| KernelError::Bug("an alias pointer leads to another entity".to_owned()))?;
    let mut alias = old.clone();
    if !wanted.mount_accessor.is_empty() && wanted.mount_accessor != old.mount_accessor {
        alias.is_local = held_mount(book, names, &wanted.mount_accessor)?.record.is_local;
        alias.mount_accessor = wanted.mount_accessor;
    }
    if !wanted.name.is_empty() {
        check_name(&wanted.name)?;
        alias.name = wanted.name;
    }
    alias.custom_metadata = wanted.custom_metadata.unwrap_or(alias.custom_metadata);
    refuse_taken(book, &old, &alias)?;
    let moves = !wanted.canonical_id.is_empty() && wanted.canonical_id != entity.id;
    if alias == old && !moves {
        // That of a local mount is as it is here: with nothing said, a primary that has no such mount would be asked.
        return Ok(if old.is_local { answer(&entity, alias_id) } else { Response::empty() });
    }
    alias.updated = book.now;
    book.take_alias(&mut entity, alias_id)?;
    if moves {
        if old.is_local {
            return Err(KernelError::invalid("local aliases can't be moved between entities"));
        }
        book.save_entity(&entity)?;
        let found = book.entity(&wanted.canonical_id)?;
        entity = found
            .ok_or_else(|| KernelError::invalid("given 'canonical_id' is not associated with an entity"))?;
    }
    if entity.alias_of(&alias.mount_accessor).is_some() {
        let text = if moves {
            "Alias cannot be updated as the given entity already has an alias for this mount"
        } else {
            "Alias cannot be updated as the entity already has an alias for the given 'mount_accessor'"
        };
        return Err(KernelError::invalid(text));
    }
    book.add_alias(&mut entity, alias)?;
    book.save_entity(&entity)?;
    Ok(answer(&entity, alias_id))
}

/// The mount with an accessor, which must still be there when this commits.
fn held_mount<'n>(book: &Book<'_>, names: &'n MountNames, accessor: &str) -> Result<&'n Mount, KernelError> {
    let mount = names.mount(accessor).ok_or_else(|| KernelError::invalid("invalid mount accessor"))?;
    let (key, version) = &mount.guard;
    book.tx.guard(key, *version);
    Ok(mount)
}

fn refuse_taken(book: &Book<'_>, old: &AliasRecord, new: &AliasRecord) -> Result<(), KernelError> {
    let is_same = old.mount_accessor == new.mount_accessor && folded(&old.name) == folded(&new.name);
    if !is_same && book.entity_by_alias(&new.mount_accessor, &new.name)?.is_some() {
        return Err(KernelError::invalid("alias with combination of mount accessor and name already exists"));
    }
    Ok(())
}
