//! The paths of `auth/token/`, as data.
//! Read next: [`super::handlers`] for what they do.

use arca_engine_api::{Access, Effect, Field, FieldKind, Method, Operation, Route};

use super::handlers::TokenPaths;
use crate::builtin::Builtin;

/// Every group below `auth/token/`.
pub(crate) fn groups() -> Vec<Box<dyn Builtin>> {
    vec![Box::new(TokenPaths::new())]
}

const fn field(name: &'static str, kind: FieldKind, summary: &'static str) -> Field {
    Field { name, kind, summary }
}

const TOKEN: Field = field("token", FieldKind::String, "The token.");
const ACCESSOR: Field = field("accessor", FieldKind::String, "Accessor of the token.");
const INCREMENT: Field = field("increment", FieldKind::Duration, "Wanted lifetime from now.");

const CREATE_FIELDS: &[Field] = &[
    field("display_name", FieldKind::String, "Name for people."),
    field("entity_alias", FieldKind::String, "Name of the entity alias to bind to; only with a role."),
    field("explicit_max_ttl", FieldKind::Duration, "Lifetime no renewal can pass."),
    field("id", FieldKind::String, "The token itself; needs sudo."),
    field("lease", FieldKind::Duration, "Old name of ttl."),
    field("meta", FieldKind::Map, "Metadata."),
    field("metadata", FieldKind::Map, "The same."),
    field("no_default_policy", FieldKind::Bool, "Leave out the default policy."),
    field("no_parent", FieldKind::Bool, "Make an orphan; needs sudo."),
    field("num_uses", FieldKind::Int, "How often it can be used; zero for no limit."),
    field("period", FieldKind::Duration, "Each renewal gives this lifetime; needs sudo."),
    field("policies", FieldKind::List, "Policies; the parent's where none are named."),
    field("renewable", FieldKind::Bool, "Whether it can be renewed."),
    field("ttl", FieldKind::Duration, "Lifetime."),
    field("type", FieldKind::String, "service or batch."),
];

const ROLE_FIELDS: &[Field] = &[
    field("allowed_entity_aliases", FieldKind::List, "Entity aliases that may be asked for."),
    field("allowed_policies", FieldKind::List, "Policies its tokens may have."),
    field("allowed_policies_glob", FieldKind::List, "The same, with *."),
    field("bound_cidrs", FieldKind::List, "Old name of token_bound_cidrs."),
    field("disallowed_policies", FieldKind::List, "Policies its tokens may not have."),
    field("disallowed_policies_glob", FieldKind::List, "The same, with *."),
    field("explicit_max_ttl", FieldKind::Duration, "Old name of token_explicit_max_ttl."),
    field("name", FieldKind::String, "Name; the path says it too."),
    field("orphan", FieldKind::Bool, "Its tokens have no parent."),
    field("path_suffix", FieldKind::String, "End of its tokens' path, to revoke them together."),
    field("period", FieldKind::Duration, "Old name of token_period."),
    field("renewable", FieldKind::Bool, "Its tokens can be renewed."),
    field("token_bound_cidrs", FieldKind::List, "Where its tokens may be used from."),
    field("token_explicit_max_ttl", FieldKind::Duration, "Lifetime no renewal of its tokens can pass."),
    field("token_no_default_policy", FieldKind::Bool, "Leave out the default policy."),
    field("token_num_uses", FieldKind::Int, "How often its tokens can be used."),
    field("token_period", FieldKind::Duration, "Period of its tokens."),
    field("token_type", FieldKind::String, "service, batch, default-service or default-batch."),
];

const PAGE_FIELDS: &[Field] = &[
    field("after", FieldKind::String, "Only names after this one."),
    field("limit", FieldKind::Int, "At most so many."),
];

const CREATE: &[Method] = &[Method::new(Operation::Update, "Make a token.")];
const LOOKUP: &[Method] = &[
    Method::new(Operation::Read, "Look at the caller's own token."),
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

const fn route(
    id: &'static str,
    pattern: &'static str,
    methods: &'static [Method],
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { id, pattern, access: Access::Token, methods, fields, takes_any_field: false, summary }
}

const fn sudo(route: Route) -> Route {
    Route { access: Access::Sudo, ..route }
}

pub(super) static ROUTES: &[Route] = &[
    sudo(route("accessors", "accessors", LIST, PAGE_FIELDS, "Accessors of all tokens.")),
    route("create", "create", CREATE, CREATE_FIELDS, "A child of the caller's token."),
    route("create", "create/{role}", CREATE, CREATE_FIELDS, "A token as a role says."),
    route("create-orphan", "create-orphan", CREATE, CREATE_FIELDS, "A token without a parent."),
    route("lookup", "lookup", LOOKUP, &[TOKEN], "What is known of a token."),
    route("lookup-accessor", "lookup-accessor", LOOKUP_ACCESSOR, &[ACCESSOR], "What is known of a token."),
    route("lookup-self", "lookup-self", LOOKUP_SELF, &[TOKEN], "What is known of the caller's token."),
    route("renew", "renew", RENEW, &[TOKEN, INCREMENT], "A later end for a token."),
    route("renew-accessor", "renew-accessor", RENEW, &[ACCESSOR, INCREMENT], "A later end for a token."),
    route("renew-self", "renew-self", RENEW, &[TOKEN, INCREMENT], "A later end for the caller's token."),
    route("revoke", "revoke", REVOKE, &[TOKEN], "The end of a token and its children."),
    route("revoke-accessor", "revoke-accessor", REVOKE, &[ACCESSOR], "The end of a token and its children."),
    sudo(route(
        "revoke-orphan",
        "revoke-orphan",
        REVOKE,
        &[TOKEN],
        "The end of a token; its children become orphans.",
    )),
    route("revoke-self", "revoke-self", REVOKE, &[TOKEN], "The end of the caller's token and its children."),
    route("roles", "roles", LIST, PAGE_FIELDS, "Names of token roles."),
    route("role", "roles/{name}", ROLE, ROLE_FIELDS, "What tokens of a role may and must be."),
    route("tidy", "tidy", TIDY, &[], "Looks for accessors and parents that lead nowhere."),
];
