//! The paths of userpass.

use arca_engine_api::{Access, Field, FieldKind, Method, Operation, Route, RouteTable};

use crate::auth::token_params::{FIELDS_LEN, deprecated, fields};

/// Older spellings that users are also written with.
pub(super) const OLD_NAMES: &[Field] =
    &[deprecated::BOUND_CIDRS, deprecated::MAX_TTL, deprecated::POLICIES, deprecated::TTL];

const PASSWORD: Field = Field::new("password", FieldKind::String, "The password.");
const PASSWORD_HASH: Field = Field::new(
    "password_hash",
    FieldKind::String,
    "A hash of the password, made elsewhere by bcrypt or Argon2id, instead of it.",
);
const TOKEN_POLICIES: Field = Field::new("token_policies", FieldKind::List, "Policies of its tokens.");

/// What a user is written with.
pub(super) const USER_FIELDS: [Field; FIELDS_LEN + 6] = fields(&[
    PASSWORD,
    PASSWORD_HASH,
    deprecated::BOUND_CIDRS,
    deprecated::MAX_TTL,
    deprecated::POLICIES,
    deprecated::TTL,
]);

static ROUTES: &[Route] = &[
    Route::new(
        "users",
        "users",
        &[Method::new(Operation::List, "Names of users.")],
        &[
            Field::new("after", FieldKind::String, "Only names behind this one."),
            Field::new("limit", FieldKind::Int, "At most so many names."),
        ],
        "The users that may log in.",
    ),
    Route::new(
        "user",
        "users/{username}",
        &[
            Method::new(Operation::Read, "Read a user."),
            Method::new(Operation::Update, "Make a user or change one."),
            Method::new(Operation::Delete, "Remove a user; its tokens cannot be renewed then."),
        ],
        &USER_FIELDS,
        "A user that may log in.",
    ),
    Route::new(
        "password",
        "users/{username}/password",
        &[Method::new(Operation::Update, "Set the password.")],
        &[PASSWORD, PASSWORD_HASH],
        "A user's password.",
    ),
    Route::new(
        "policies",
        "users/{username}/policies",
        &[Method::new(Operation::Update, "Set the policies.")],
        &[deprecated::POLICIES, TOKEN_POLICIES],
        "A user's policies.",
    ),
    Route {
        access: Access::Unauthenticated,
        ..Route::new(
            "login",
            "login/{username}",
            &[Method::new(Operation::Update, "Log in with a password.")],
            &[PASSWORD],
            "Logins.",
        )
    },
];

/// The paths, with the name in which case does not count.
pub(super) fn table() -> RouteTable {
    RouteTable::new(ROUTES).folding(&["username"])
}
