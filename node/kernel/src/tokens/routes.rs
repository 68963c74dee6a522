//! The paths of `auth/token/`, as data.
//! Read next: [`super::handlers`] for what they do.

use arca_engine_api::{Access, Effect, Field, FieldKind, Method, Operation, Route};

use super::handlers::TokenPaths;
use crate::builtin::Builtin;

/// Every group below `auth/token/`.
pub(crate) fn groups() -> Vec<Box<dyn Builtin>> {
    vec![Box::new(TokenPaths::new())]
}

const TOKEN: Field = Field::new("token", FieldKind::String, "The token.");
const ACCESSOR: Field = Field::new("accessor", FieldKind::String, "Accessor of the token.");
const INCREMENT: Field = Field::new("increment", FieldKind::Duration, "Wanted lifetime from now.");

const CREATE_FIELDS: &[Field] = &[
    Field::new("display_name", FieldKind::String, "Name for people."),
    Field::new("entity_alias", FieldKind::String, "Name of the entity alias to bind to; only with a role."),
    Field::new("explicit_max_ttl", FieldKind::Duration, "Lifetime no renewal can pass."),
    Field::new("id", FieldKind::String, "The token itself; needs sudo."),
    Field::new("lease", FieldKind::Duration, "Old name of ttl."),
    Field::new("meta", FieldKind::Map, "Metadata."),
    Field::new("metadata", FieldKind::Map, "The same."),
    Field::new("no_default_policy", FieldKind::Bool, "Leave out the default policy."),
    Field::new("no_parent", FieldKind::Bool, "Make an orphan; needs sudo."),
    Field::new("num_uses", FieldKind::Int, "How often it can be used; zero for no limit."),
    Field::new("period", FieldKind::Duration, "Each renewal gives this lifetime; needs sudo."),
    Field::new("policies", FieldKind::List, "Policies; the parent's where none are named."),
    Field::new("renewable", FieldKind::Bool, "Whether it can be renewed."),
    Field::new("ttl", FieldKind::Duration, "Lifetime."),
    Field::new("type", FieldKind::String, "service or batch."),
];

const ROLE_FIELDS: &[Field] = &[
    Field::new("allowed_entity_aliases", FieldKind::List, "Entity aliases that may be asked for."),
    Field::new("allowed_policies", FieldKind::List, "Policies its tokens may have."),
    Field::new("allowed_policies_glob", FieldKind::List, "The same, with *."),
    Field::new("bound_cidrs", FieldKind::List, "Old name of token_bound_cidrs."),
    Field::new("disallowed_policies", FieldKind::List, "Policies its tokens may not have."),
    Field::new("disallowed_policies_glob", FieldKind::List, "The same, with *."),
    Field::new("explicit_max_ttl", FieldKind::Duration, "Old name of token_explicit_max_ttl."),
    Field::new("name", FieldKind::String, "Name; the path says it too."),
    Field::new("orphan", FieldKind::Bool, "Its tokens have no parent."),
    Field::new("path_suffix", FieldKind::String, "End of its tokens' path, to revoke them together."),
    Field::new("period", FieldKind::Duration, "Old name of token_period."),
    Field::new("renewable", FieldKind::Bool, "Its tokens can be renewed."),
    Field::new("token_bound_cidrs", FieldKind::List, "Where its tokens may be used from."),
    Field::new("token_explicit_max_ttl", FieldKind::Duration, "Lifetime no renewal of its tokens can pass."),
    Field::new("token_no_default_policy", FieldKind::Bool, "Leave out the default policy."),
    Field::new("token_num_uses", FieldKind::Int, "How often its tokens can be used."),
    Field::new("token_period", FieldKind::Duration, "Period of its tokens."),
    Field::new("token_type", FieldKind::String, "service, batch, default-service or default-batch."),
];

const PAGE_FIELDS: &[Field] = &[
    Field::new("after", FieldKind::String, "Only names after this one."),
    Field::new("limit", FieldKind::Int, "At most so many."),
];

const CREATE: &[Method] = &[Method::new(Operation::Update, "Make a token.")];
const LOOKUP: &[Method] = &[
    Method::new(Operation::Read, "Look at a token: the caller's own where none is named."),
    Method::with_effect(Operation::Update, Effect::Reads, "Look at a token."),
];
const LOOKUP_SELF: &[Method] = &[
    Method::new(Operation::Read, "Look at the caller's own token."),
    Method::with_effect(Operation::Update, Effect::Reads, "The same."),
];
const LOOKUP_ACCESSOR: &[Method] =
    &[Method::with_effect(Operation::Update, Effect::Reads, "Look at a token.")];
const RENEW: &[Method] = &[Method::new(Operation::Update, "Renew a token.")];
const REVOKE: &[Method] = &[Method::new(Operation::Update, "Revoke a token.")];
const TIDY: &[Method] = &[Method::new(Operation::Update, "Look for what leads nowhere.")];
const LIST: &[Method] = &[Method::new(Operation::List, "Names.")];
const ROLE: &[Method] = &[
    Method::new(Operation::Read, "Read a role."),
    Method::new(Operation::Create, "Write a new role."),
    Method::new(Operation::Update, "Write a role."),
    Method::new(Operation::Delete, "Remove a role."),
];

const fn sudo(route: Route) -> Route {
    Route { access: Access::Sudo, ..route }
}

pub(super) static ROUTES: &[Route] = &[
    sudo(Route::new("accessors", "accessors", LIST, PAGE_FIELDS, "Accessors of all tokens.")),
    Route::new("create", "create", CREATE, CREATE_FIELDS, "A child of the caller's token."),
    Route::new("create", "create/{role_name}", CREATE, CREATE_FIELDS, "A token as a role says."),
    Route::new("create-orphan", "create-orphan", CREATE, CREATE_FIELDS, "A token without a parent."),
    Route::new("lookup", "lookup", LOOKUP, &[TOKEN], "What is known of a token."),
    Route::new(
        "lookup-accessor",
        "lookup-accessor",
        LOOKUP_ACCESSOR,
        &[ACCESSOR],
        "What is known of a token.",
    ),
    Route::new("lookup-self", "lookup-self", LOOKUP_SELF, &[TOKEN], "What is known of the caller's token."),
    Route::new("renew", "renew", RENEW, &[TOKEN, INCREMENT], "A later end for a token."),
    Route::new("renew-accessor", "renew-accessor", RENEW, &[ACCESSOR, INCREMENT], "A later end for a token."),
    Route::new("renew-self", "renew-self", RENEW, &[TOKEN, INCREMENT], "A later end for the caller's token."),
    Route::new("revoke", "revoke", REVOKE, &[TOKEN], "The end of a token and its children."),
    Route::new(
        "revoke-accessor",
        "revoke-accessor",
        REVOKE,
        &[ACCESSOR],
        "The end of a token and its children.",
    ),
    sudo(Route::new(
        "revoke-orphan",
        "revoke-orphan",
        REVOKE,
        &[TOKEN],
        "The end of a token; its children become orphans.",
    )),
    Route::new(
        "revoke-self",
        "revoke-self",
        REVOKE,
        &[TOKEN],
        "The end of the caller's token and its children.",
    ),
    Route::new("roles", "roles", LIST, PAGE_FIELDS, "Names of token roles."),
    Route::new("role", "roles/{role_name}", ROLE, ROLE_FIELDS, "What tokens of a role may and must be."),
    Route::new("tidy", "tidy", TIDY, &[], "Looks for accessors and parents that lead nowhere."),
];
