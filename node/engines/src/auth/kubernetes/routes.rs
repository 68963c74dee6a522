//! The paths of kubernetes.

use arca_engine_api::{Access, Field, FieldKind, Method, Operation, Route, RouteTable};

use crate::auth::token_params::{FIELDS_LEN, deprecated, fields};

/// Older spellings that roles are also written with.
pub(super) const OLD_NAMES: &[Field] = &[
    deprecated::BOUND_CIDRS,
    deprecated::MAX_TTL,
    deprecated::NUM_USES,
    deprecated::PERIOD,
    deprecated::POLICIES,
    deprecated::TTL,
];

/// What a role is written with.
pub(super) const ROLE_FIELDS: [Field; FIELDS_LEN + 11] = fields(&[
    Field::new("alias_name_source", FieldKind::String, "serviceaccount_uid (safest) or serviceaccount_name."),
    Field::new("audience", FieldKind::String, "The audience that tokens must be for."),
    Field::new(
        "bound_service_account_names",
        FieldKind::List,
        "Accounts that may log in; * in them for any text.",
    ),
    Field::new(
        "bound_service_account_namespaces",
        FieldKind::List,
        "Their namespaces; * in them for any text.",
    ),
    Field::new(
        "bound_service_account_namespace_selector",
        FieldKind::String,
        "Labels of further namespaces: a label selector in JSON or YAML.",
    ),
    deprecated::BOUND_CIDRS,
    deprecated::MAX_TTL,
    deprecated::NUM_USES,
    deprecated::PERIOD,
    deprecated::POLICIES,
    deprecated::TTL,
]);

static ROUTES: &[Route] = &[
    Route::new(
        "config",
        "config",
        &[
            Method::new(Operation::Read, "Read the settings, without the reviewer's token."),
            Method::new(Operation::Update, "Set how the cluster is asked. What is not sent is unset."),
        ],
        &[
            Field::new("disable_iss_validation", FieldKind::Bool, "Do not look at the issuer (the default)."),
            Field::new("disable_local_ca_jwt", FieldKind::Bool, "Use nothing of the pod this node runs in."),
            Field::new("issuer", FieldKind::String, "The issuer that tokens must have."),
            Field::new("kubernetes_ca_cert", FieldKind::String, "Authorities to trust at the API, in PEM."),
            Field::new("kubernetes_host", FieldKind::String, "The API: a URL, or host and port."),
            Field::new("pem_keys", FieldKind::List, "Keys that sign tokens, in PEM: checked beforehand."),
            Field::new("token_reviewer_jwt", FieldKind::String, "The token by which the API is asked."),
        ],
        "How the cluster is asked about tokens.",
    ),
    Route::new(
        "roles",
        "role",
        &[Method::new(Operation::List, "Names of roles.")],
        &[
            Field::new("after", FieldKind::String, "Only names behind this one."),
            Field::new("limit", FieldKind::Int, "At most so many names."),
        ],
        "The roles there are.",
    ),
    Route::new(
        "role",
        "role/{name}",
        &[
            Method::new(Operation::Read, "Read a role."),
            Method::new(Operation::Update, "Make a role or change one."),
            Method::new(Operation::Delete, "Remove a role; its tokens cannot be renewed then."),
        ],
        &ROLE_FIELDS,
        "Which service accounts may log in, and what they get.",
    ),
    Route {
        access: Access::Unauthenticated,
        ..Route::new(
            "login",
            "login",
            &[Method::new(Operation::Update, "Log in with a service account's token.")],
            &[
                Field::new("jwt", FieldKind::String, "The token."),
                Field::new("role", FieldKind::String, "Name of the role."),
            ],
            "Logins.",
        )
    },
];

/// The paths, with the name in which case does not count.
pub(super) fn table() -> RouteTable {
    RouteTable::new(ROUTES).folding(&["name"])
}
