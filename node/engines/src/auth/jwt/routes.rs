//! The paths of jwt and oidc.

use arca_engine_api::{Access, Effect, Field, FieldKind, Method, Operation, Route, RouteTable};

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

const ROLE: Field = Field::new("role", FieldKind::String, "Name of the role; the mount's default if absent.");
const STATE: Field = Field::new("state", FieldKind::String, "What auth_url gave for this login.");
const CLIENT_NONCE: Field =
    Field::new("client_nonce", FieldKind::String, "A secret of the client that begins and ends a login.");

const CONFIG_FIELDS: &[Field] = &[
    Field::new("bound_issuer", FieldKind::String, "The iss claim that tokens must have; empty for any."),
    Field::new("default_role", FieldKind::String, "Role of logins that name none."),
    Field::new("jwks_ca_pem", FieldKind::String, "Authorities to trust at jwks_url; the system's if empty."),
    Field::new("jwks_url", FieldKind::String, "Where the keys are that sign tokens."),
    Field::new("jwt_supported_algs", FieldKind::List, "Algorithms taken; all, or RS256 for OIDC, if empty."),
    Field::new("jwt_validation_pubkeys", FieldKind::List, "Keys that sign tokens, in PEM."),
    Field::new(
        "namespace_in_state",
        FieldKind::Bool,
        "Carry the namespace in state instead of the redirect URI.",
    ),
    Field::new("oidc_client_id", FieldKind::String, "Client id at the OIDC provider."),
    Field::new("oidc_client_secret", FieldKind::String, "Client secret at the OIDC provider."),
    Field::new("oidc_discovery_ca_pem", FieldKind::String, "Authorities to trust at the OIDC provider."),
    Field::new("oidc_discovery_url", FieldKind::String, "The OIDC provider, without .well-known/…"),
    Field::new("oidc_response_mode", FieldKind::String, "query or form_post."),
    Field::new("oidc_response_types", FieldKind::List, "code, id_token or both."),
    Field::new("override_allowed_server_names", FieldKind::List, "Not supported: must be empty."),
    Field::new(
        "provider_config",
        FieldKind::Map,
        "How one provider tells groups: azure, ibmisam, secureauth.",
    ),
    Field::new("skip_jwks_validation", FieldKind::Bool, "Only warn if the provider cannot be reached now."),
];

/// What a role is written with.
pub(super) const ROLE_FIELDS: [Field; FIELDS_LEN + 28] = fields(&[
    Field::new("allowed_redirect_uris", FieldKind::List, "Where OIDC logins may come back to."),
    Field::new("bound_audiences", FieldKind::List, "The aud claim must hold one of these."),
    Field::new("bound_claims", FieldKind::Map, "Claims and the values they must have, one or one of a list."),
    Field::new("bound_claims_type", FieldKind::String, "string, or glob for values with *."),
    Field::new("bound_subject", FieldKind::String, "The sub claim that tokens must have."),
    Field::new("callback_mode", FieldKind::String, "client, direct or device."),
    Field::new("claim_mappings", FieldKind::Map, "Claims, and the names they get as metadata."),
    Field::new(
        "clock_skew_leeway",
        FieldKind::Duration,
        "How far clocks may differ; 0 for 1 m, -1 for none.",
    ),
    Field::new(
        "expiration_leeway",
        FieldKind::Duration,
        "Life of tokens without exp; 0 for 150 s, -1 for none.",
    ),
    Field::new("groups_claim", FieldKind::String, "The claim that lists external groups."),
    Field::new("max_age", FieldKind::Duration, "How long ago the provider may have seen the user log in."),
    Field::new("not_before_leeway", FieldKind::Duration, "Before exp, for tokens without nbf; 0 for 150 s."),
    Field::new(
        "oauth2_metadata",
        FieldKind::List,
        "access_token, id_token, refresh_token: show in metadata.",
    ),
    Field::new("oidc_disable_confirmation", FieldKind::Bool, "Ask nobody to confirm a direct login."),
    Field::new("oidc_scopes", FieldKind::List, "Scopes to ask for beside openid."),
    Field::new("poll_interval", FieldKind::Int, "Seconds between polls of direct and device logins."),
    Field::new("role_type", FieldKind::String, "jwt or oidc (the default)."),
    Field::new("token_policies_template_claims", FieldKind::Bool, "Not supported: must be false."),
    Field::new("user_claim", FieldKind::String, "The claim that says who it is."),
    Field::new("user_claim_json_pointer", FieldKind::Bool, "user_claim is a JSON pointer."),
    Field::new("verbose_oidc_logging", FieldKind::Bool, "Kept; nothing of a token is ever logged."),
    Field::new("name", FieldKind::String, "Name of the role."),
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
            Method::new(Operation::Read, "Read the settings, without the client secret."),
            Method::new(Operation::Update, "Set how tokens are checked. What is not sent is unset."),
        ],
        CONFIG_FIELDS,
        "How tokens are checked: by keys given here, by keys at a URL, or by an OIDC provider.",
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
        "What a token must say for a login, and what the login gives.",
    ),
    Route {
        access: Access::Unauthenticated,
        ..Route::new(
            "login",
            "login",
            &[Method::new(Operation::Update, "Log in with a signed token.")],
            &[ROLE, Field::new("jwt", FieldKind::String, "The token.")],
            "Logins with a token.",
        )
    },
    Route {
        access: Access::Unauthenticated,
        ..Route::new(
            "auth-url",
            "oidc/auth_url",
            &[Method::new(Operation::Update, "Begin a login at the OIDC provider.")],
            &[
                ROLE,
                CLIENT_NONCE,
                Field::new("redirect_uri", FieldKind::String, "Where the browser comes back to."),
            ],
            "Where to send the browser.",
        )
    },
    Route {
        access: Access::Unauthenticated,
        ..Route::new(
            "callback",
            "oidc/callback",
            &[
                Method::with_effect(Operation::Read, Effect::Writes, "End a login at the OIDC provider."),
                Method::new(Operation::Update, "Take what the provider has the browser post."),
            ],
            &[
                STATE,
                CLIENT_NONCE,
                Field::new("code", FieldKind::String, "The provider's code."),
                Field::new("confirmation", FieldKind::String, "What the page that asks the user sets."),
                Field::new("error", FieldKind::String, "The provider's error."),
                Field::new("error_description", FieldKind::String, "More of it. Never shown."),
                Field::new("error_uri", FieldKind::String, "More of it. Never shown."),
                Field::new("id_token", FieldKind::String, "The provider's token, if asked for directly."),
            ],
            "Where the browser comes back to.",
        )
    },
    Route {
        access: Access::Unauthenticated,
        ..Route::new(
            "poll",
            "oidc/poll",
            &[Method::new(Operation::Update, "Ask whether a direct or device login is through.")],
            &[STATE, CLIENT_NONCE],
            "Logins whose browser comes back to the server, or never.",
        )
    },
];

/// The paths, with the name in which case does not count.
pub(super) fn table() -> RouteTable {
    RouteTable::new(ROUTES).folding(&["name"])
}
