//! `identity/lookup`: an entity or a group by one of the things that name it.

use arca_engine_api::{
    Effect, Field, FieldKind, Fields, Method, Operation, Request, Response, Route, RouteTable,
};
use async_trait::async_trait;

use super::fields::book;
use super::show::{self, MountNames};
use crate::KernelError;
use crate::builtin::{Builtin, BuiltinAnswer, BuiltinCtx};

const ASK: &[Method] = &[Method::with_effect(Operation::Update, Effect::Reads, "Ask.")];
const FIELDS: &[Field] = &[
    Field::new("id", FieldKind::String, "Its id."),
    Field::new("name", FieldKind::String, "Its name."),
    Field::new("alias_id", FieldKind::String, "Id of its alias."),
    Field::new("alias_name", FieldKind::String, "Name of its alias; with alias_mount_accessor."),
    Field::new("alias_mount_accessor", FieldKind::String, "Accessor of its alias's mount; with alias_name."),
];

static ROUTES: &[Route] = &[
    Route::new("entity", "lookup/entity", ASK, FIELDS, "The entity that something names."),
    Route::new("group", "lookup/group", ASK, FIELDS, "The group that something names."),
];

/// These paths.
pub(super) struct LookupPaths(RouteTable);

impl LookupPaths {
    pub(super) fn new() -> Self {
        Self(RouteTable::new(ROUTES))
    }
}

/// What something is asked for by.
enum By {
    Alias { mount_accessor: String, name: String },
    AliasId(String),
    Id(String),
    Name(String),
}

impl By {
    fn parse(fields: Fields<'_>) -> Result<Self, KernelError> {
        let text = |name: &str| Ok::<_, KernelError>(fields.string(name)?.filter(|text| !text.is_empty()));
        let alias = match (text("alias_mount_accessor")?, text("alias_name")?) {
            (Some(mount_accessor), Some(name)) => Some(Self::Alias { mount_accessor, name }),
            (None, None) => None,
            _ => {
                let text = "both 'alias_name' and 'alias_mount_accessor' needs to be set";
                return Err(KernelError::invalid(text));
            }
        };
        let given = [
            text("id")?.map(Self::Id),
            text("name")?.map(Self::Name),
            text("alias_id")?.map(Self::AliasId),
            alias,
        ];
        let mut given = given.into_iter().flatten();
        match (given.next(), given.next()) {
            (None, _) => Err(KernelError::invalid("query parameter not supplied")),
            (Some(by), None) => Ok(by),
            (Some(_), Some(_)) => Err(KernelError::invalid(
                "query parameter conflict; please supply distinct set of query parameters",
            )),
        }
    }
}

#[async_trait]
impl Builtin for LookupPaths {
    fn routes(&self) -> &RouteTable {
        &self.0
    }

    async fn handle(&self, ctx: &BuiltinCtx<'_>, request: &Request) -> Result<BuiltinAnswer, KernelError> {
        let (book, by) = (book(ctx), By::parse(request.fields())?);
        let data = if request.route.id == "entity" {
            let found = match &by {
                By::Alias { mount_accessor, name } => book.entity_by_alias(mount_accessor, name)?,
                By::AliasId(id) => book.entity_by_alias_id(id)?,
                By::Id(id) => book.entity(id)?,
                By::Name(name) => book.entity_by_name(name)?,
            };
            found.map(|entity| show::entity(&book, &MountNames::of(ctx)?, &entity)).transpose()?
        } else {
            let found = match &by {
                By::Alias { mount_accessor, name } => book.group_by_alias(mount_accessor, name)?,
                By::AliasId(id) => book.group_by_alias_id(id)?,
                By::Id(id) => book.group(id)?,
                By::Name(name) => book.group_by_name(name)?,
            };
            found.map(|group| show::group(&book, &MountNames::of(ctx)?, &group)).transpose()?
        };
        Ok(Response { data, ..Response::default() }.into())
    }
}
