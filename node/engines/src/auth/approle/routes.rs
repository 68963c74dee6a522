//! The paths of approle.

use arca_engine_api::{Access, Effect, Field, FieldKind, Method, Operation, Route, RouteTable};

use crate::auth::token_params::{FIELDS_LEN, deprecated, fields};

/// Older spellings that roles are also written with.
pub(super) const OLD_NAMES: &[Field] = &[deprecated::PERIOD, deprecated::POLICIES];

const AFTER: Field = Field::new("after", FieldKind::String, "Only names behind this one.");
const BIND_SECRET_ID: Field =
    Field::new("bind_secret_id", FieldKind::Bool, "Whether a login needs a secret id; true unless said.");
const BOUND_CIDR_LIST: Field =
    Field::new("bound_cidr_list", FieldKind::List, "Old name of secret_id_bound_cidrs, which wins.");
const CIDR_LIST: Field =
    Field::new("cidr_list", FieldKind::List, "Blocks a login with it may come from; within the role's.");
const LIMIT: Field = Field::new("limit", FieldKind::Int, "At most so many names.");
const LOCAL_SECRET_IDS: Field = Field::new(
    "local_secret_ids",
    FieldKind::Bool,
    "Whether secret ids stay in this cluster; only when the role is made.",
);
const METADATA: Field =
    Field::new("metadata", FieldKind::String, "Metadata of its tokens, as JSON or key=value pairs.");
const NUM_USES: Field =
    Field::new("num_uses", FieldKind::Int, "Uses of this secret id; no more than the role gives.");
const ROLE_ID: Field = Field::new("role_id", FieldKind::String, "What logins name the role by.");
const SECRET_ID: Field = Field::new("secret_id", FieldKind::String, "The secret id.");
const SECRET_ID_ACCESSOR: Field =
    Field::new("secret_id_accessor", FieldKind::String, "The handle of a secret id.");
const SECRET_ID_BOUND_CIDRS: Field =
    Field::new("secret_id_bound_cidrs", FieldKind::List, "Blocks that logins may come from.");
const SECRET_ID_NUM_USES: Field =
    Field::new("secret_id_num_uses", FieldKind::Int, "Uses of a new secret id; 0 for no limit.");
const SECRET_ID_TTL: Field =
    Field::new("secret_id_ttl", FieldKind::Duration, "Lifetime of a new secret id; 0 for no end.");
const TOKEN_BOUND_CIDRS: Field =
    Field::new("token_bound_cidrs", FieldKind::List, "Ranges that tokens may be used from.");
const TOKEN_MAX_TTL: Field =
    Field::new("token_max_ttl", FieldKind::Duration, "Longest lifetime over all renewals.");
const TOKEN_NUM_USES: Field =
    Field::new("token_num_uses", FieldKind::Int, "Uses of a token before it ends; 0 for no limit.");
const TOKEN_PERIOD: Field =
    Field::new("token_period", FieldKind::Duration, "Each renewal resets the lifetime to this.");
const TOKEN_POLICIES: Field = Field::new("token_policies", FieldKind::List, "Policies of its tokens.");
const TOKEN_TTL: Field = Field::new("token_ttl", FieldKind::Duration, "Lifetime of a token.");
const TTL: Field =
    Field::new("ttl", FieldKind::Duration, "Lifetime of this secret id; no longer than the role gives.");

const ROLE_FIELDS: [Field; FIELDS_LEN + 9] = fields(&[
    BIND_SECRET_ID,
    BOUND_CIDR_LIST,
    LOCAL_SECRET_IDS,
    ROLE_ID,
    SECRET_ID_BOUND_CIDRS,
    SECRET_ID_NUM_USES,
    SECRET_ID_TTL,
    deprecated::PERIOD,
    deprecated::POLICIES,
]);

const READ: Method = Method::new(Operation::Read, "Read the field.");
const SET: Method = Method::new(Operation::Update, "Set the field.");
const RESET: Method = Method::new(Operation::Delete, "Set the field back to what a new role has.");

/// The fields of a route of one field of a role; the first is its name.
pub(super) fn fields_of(part: &str) -> &'static [Field] {
    ROUTES.iter().find(|route| route.id == part).map_or(&[], |route| route.fields)
}

/// Looking up only reads, so every node serves it.
const LOOKUP: &[Method] = &[Method::with_effect(Operation::Update, Effect::Reads, "Look a secret id up.")];
const DESTROY: &[Method] = &[
    Method::new(Operation::Update, "Destroy a secret id."),
    Method::new(Operation::Delete, "Destroy a secret id."),
];

static ROUTES: &[Route] = &[
    Route {
        access: Access::Unauthenticated,
        ..Route::new(
            "login",
            "login",
            &[Method::new(Operation::Update, "Log in with a role id and a secret id.")],
            &[ROLE_ID, SECRET_ID],
            "Logins.",
        )
    },
    Route::new(
        "roles",
        "role",
        &[Method::new(Operation::List, "Names of roles.")],
        &[AFTER, LIMIT],
        "The roles that may log in.",
    ),
    Route::new(
        "role",
        "role/{role_name}",
        &[
            Method::new(Operation::Read, "Read a role."),
            Method::new(Operation::Update, "Make a role or change one."),
            Method::new(Operation::Delete, "Remove a role with its secret ids."),
        ],
        &ROLE_FIELDS,
        "A role that may log in.",
    ),
    Route::new(
        "secret-id",
        "role/{role_name}/secret-id",
        &[
            Method::new(Operation::List, "Accessors of the role's secret ids."),
            Method::new(Operation::Update, "Make a secret id."),
        ],
        &[METADATA, CIDR_LIST, TOKEN_BOUND_CIDRS, NUM_USES, TTL, AFTER, LIMIT],
        "Secret ids of a role.",
    ),
    Route::new(
        "custom-secret-id",
        "role/{role_name}/custom-secret-id",
        &[Method::new(Operation::Update, "Register a secret id of one's own choice.")],
        &[SECRET_ID, METADATA, CIDR_LIST, TOKEN_BOUND_CIDRS, NUM_USES, TTL],
        "Secret ids that were made elsewhere.",
    ),
    Route::new(
        "lookup",
        "role/{role_name}/secret-id/lookup",
        LOOKUP,
        &[SECRET_ID],
        "A secret id, by itself.",
    ),
    Route::new(
        "destroy",
        "role/{role_name}/secret-id/destroy",
        DESTROY,
        &[SECRET_ID],
        "The end of a secret id, by itself.",
    ),
    Route::new(
        "lookup-accessor",
        "role/{role_name}/secret-id-accessor/lookup",
        LOOKUP,
        &[SECRET_ID_ACCESSOR],
        "A secret id, by its accessor.",
    ),
    Route::new(
        "destroy-accessor",
        "role/{role_name}/secret-id-accessor/destroy",
        DESTROY,
        &[SECRET_ID_ACCESSOR],
        "The end of a secret id, by its accessor.",
    ),
    Route::new(
        "tidy",
        "tidy/secret-id",
        &[Method::new(Operation::Update, "Take away secret ids that have ended.")],
        &[],
        "Tidying; it also happens by itself.",
    ),
    Route::new(
        "bind-secret-id",
        "role/{role_name}/bind-secret-id",
        &[READ, SET, RESET],
        &[BIND_SECRET_ID],
        "Whether a login needs a secret id.",
    ),
    Route::new(
        "bound-cidr-list",
        "role/{role_name}/bound-cidr-list",
        &[READ, SET, RESET],
        &[BOUND_CIDR_LIST],
        "Old name of secret-id-bound-cidrs.",
    ),
    Route::new(
        "local-secret-ids",
        "role/{role_name}/local-secret-ids",
        &[READ],
        &[LOCAL_SECRET_IDS],
        "Whether secret ids stay in this cluster.",
    ),
    Route::new(
        "period",
        "role/{role_name}/period",
        &[READ, SET, RESET],
        &[TOKEN_PERIOD, deprecated::PERIOD],
        "The period of its tokens.",
    ),
    Route::new(
        "policies",
        "role/{role_name}/policies",
        &[READ, SET, RESET],
        &[TOKEN_POLICIES, deprecated::POLICIES],
        "The policies of its tokens.",
    ),
    Route::new(
        "role-id",
        "role/{role_name}/role-id",
        &[READ, SET],
        &[ROLE_ID],
        "What logins name the role by.",
    ),
    Route::new(
        "secret-id-bound-cidrs",
        "role/{role_name}/secret-id-bound-cidrs",
        &[READ, SET, RESET],
        &[SECRET_ID_BOUND_CIDRS],
        "Where logins may come from.",
    ),
    Route::new(
        "secret-id-num-uses",
        "role/{role_name}/secret-id-num-uses",
        &[READ, SET, RESET],
        &[SECRET_ID_NUM_USES],
        "Uses of a new secret id.",
    ),
    Route::new(
        "secret-id-ttl",
        "role/{role_name}/secret-id-ttl",
        &[READ, SET, RESET],
        &[SECRET_ID_TTL],
        "Lifetime of a new secret id.",
    ),
    Route::new(
        "token-bound-cidrs",
        "role/{role_name}/token-bound-cidrs",
        &[READ, SET, RESET],
        &[TOKEN_BOUND_CIDRS],
        "Where its tokens may be used from.",
    ),
    Route::new(
        "token-max-ttl",
        "role/{role_name}/token-max-ttl",
        &[READ, SET, RESET],
        &[TOKEN_MAX_TTL],
        "Longest lifetime of its tokens.",
    ),
    Route::new(
        "token-num-uses",
        "role/{role_name}/token-num-uses",
        &[READ, SET, RESET],
        &[TOKEN_NUM_USES],
        "Uses of its tokens.",
    ),
    Route::new(
        "token-ttl",
        "role/{role_name}/token-ttl",
        &[READ, SET, RESET],
        &[TOKEN_TTL],
        "Lifetime of its tokens.",
    ),
];

/// The paths, with the name in which case does not count.
pub(super) fn table() -> RouteTable {
    RouteTable::new(ROUTES).folding(&["role_name"])
}
