//! The paths below `sys/replication`, as data. `{kind}` is `dr` or `performance`.

use arca_engine_api::{Access, Effect, Field, FieldKind, Method, Operation, Route};

use crate::replication::door::TOKEN_FIELD;
use crate::sys::root_keys::{READ, SHARE_FIELDS, UPDATE};

const SHOW: &[Method] = &[Method::new(Operation::Read, "Show.")];
const SHOW_AND_SET: &[Method] =
    &[Method::new(Operation::Read, "Show."), Method::new(Operation::Update, "Set.")];
const DO: &[Method] = &[Method::new(Operation::Update, "Do it.")];
/// Links and lags are the active node's to know.
const SHOW_OF_ACTIVE: &[Method] = &[Method::with_effect(Operation::Read, Effect::AsksActive, "Show.")];
/// Only the active node has looked for it: there is nothing to show without one.
const SHOW_ON_ACTIVE: &[Method] = &[Method::with_effect(Operation::Read, Effect::Writes, "Show.")];
const ANY: &[Method] = &[
    Method::new(Operation::Read, "Show."),
    Method::new(Operation::Update, "Set."),
    Method::new(Operation::Delete, "Delete."),
];
const ATTEMPT: &[Method] = &[
    READ,
    Method::new(Operation::Update, "Begin to make an operation token."),
    Method::new(Operation::Delete, "Give up, and forget the shares given so far."),
];
const ATTEMPT_FIELDS: &[Field] = &[
    Field::new("otp", FieldKind::String, "One-time pad, as long as the token."),
    Field::new("pgp_key", FieldKind::String, "Not supported."),
];

const OPERATION_TOKEN: Field =
    Field::new(TOKEN_FIELD, FieldKind::String, "What allows this on a DR secondary.");
const CLUSTER_ADDR: Field =
    Field::new("primary_cluster_addr", FieldKind::String, "What secondaries are told, as host:port.");
const PRIMARY_API_ADDR: Field =
    Field::new("primary_api_addr", FieldKind::String, "Has no effect: the token says where the primary is.");
const CA_FILE: Field = Field::new("ca_file", FieldKind::String, "Has no effect: the token names the CA.");
const CA_PATH: Field = Field::new("ca_path", FieldKind::String, "Has no effect: the token names the CA.");
const TOKEN: Field = Field::new("token", FieldKind::String, "Made by secondary-token on the primary.");
const ID: Field = Field::new("id", FieldKind::String, "Name of the secondary.");

/// Tuning of another kind of index.
const REINDEX_FIELDS: &[Field] = &[
    Field::new("diff", FieldKind::Bool, "Has no effect: always so."),
    Field::new("force", FieldKind::Bool, "Has no effect."),
    Field::new("skip_flush", FieldKind::Bool, "Has no effect."),
    OPERATION_TOKEN,
];

const fn open(
    id: &'static str,
    pattern: &'static str,
    methods: &'static [Method],
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { access: Access::Unauthenticated, ..Route::new(id, pattern, methods, fields, summary) }
}

const fn sudo(
    id: &'static str,
    pattern: &'static str,
    methods: &'static [Method],
    fields: &'static [Field],
    summary: &'static str,
) -> Route {
    Route { access: Access::Sudo, ..Route::new(id, pattern, methods, fields, summary) }
}

pub(super) static ROUTES: &[Route] = &[
    open("status", "replication/status", SHOW_OF_ACTIVE, &[], "What this cluster is to others."),
    open("status-of", "replication/{kind}/status", SHOW_OF_ACTIVE, &[], "The same, of one kind."),
    Route::new("recover", "replication/recover", DO, &[], "Goes on after a standstill."),
    sudo(
        "reindex",
        "replication/reindex",
        DO,
        REINDEX_FIELDS,
        "Compares the state with the primary's again.",
    ),
    sudo("reindex-of", "replication/{kind}/reindex", DO, REINDEX_FIELDS, "The same, of one kind."),
    Route::new("merkle-check", "replication/merkle-check", DO, &[], "Hashes over the state."),
    sudo("tail", "replication/{kind}/tail", SHOW_ON_ACTIVE, TAIL_FIELDS, "Writes that were never shipped."),
    Route::new(
        "primary-enable",
        "replication/{kind}/primary/enable",
        DO,
        &[CLUSTER_ADDR],
        "Lets others follow this cluster.",
    ),
    Route::new(
        "primary-config",
        "replication/{kind}/primary/config",
        SHOW_AND_SET,
        &[Field::new(
            "fence_after",
            FieldKind::Duration,
            "Silence of all DR secondaries after which no writes are taken; 0 for none.",
        )],
        "How a primary goes about it.",
    ),
    Route::new("primary-demote", "replication/{kind}/primary/demote", DO, &[], "Makes it a secondary."),
    Route::new("primary-disable", "replication/{kind}/primary/disable", DO, &[], "Lets nobody follow it."),
    sudo(
        "secondary-token",
        "replication/{kind}/primary/secondary-token",
        DO,
        TOKEN_FIELDS,
        "Makes a token for a secondary.",
    ),
    Route::new(
        "revoke-secondary",
        "replication/{kind}/primary/revoke-secondary",
        DO,
        &[ID],
        "Cuts a secondary off.",
    ),
    Route::new(
        "generate-public-key",
        "replication/{kind}/secondary/generate-public-key",
        DO,
        &[OPERATION_TOKEN],
        "A key that a token for this cluster can be encrypted to.",
    ),
    Route::new(
        "secondary-enable",
        "replication/{kind}/secondary/enable",
        DO,
        &[TOKEN, PRIMARY_API_ADDR, CA_FILE, CA_PATH],
        "Makes this cluster a copy of another: what it holds is replaced.",
    ),
    Route::new(
        "secondary-promote",
        "replication/{kind}/secondary/promote",
        DO,
        PROMOTE_FIELDS,
        "Makes it the primary.",
    ),
    Route::new(
        "secondary-disable",
        "replication/{kind}/secondary/disable",
        DO,
        &[OPERATION_TOKEN, Field::new("force", FieldKind::Bool, "Although its primary may be at work.")],
        "Has it follow nobody. It keeps what it holds.",
    ),
    Route::new(
        "update-primary",
        "replication/{kind}/secondary/update-primary",
        DO,
        &[
            OPERATION_TOKEN,
            TOKEN,
            Field::new(
                "update_primary_addrs",
                FieldKind::List,
                "The same primary at other cluster addresses.",
            ),
            PRIMARY_API_ADDR,
            CA_FILE,
            CA_PATH,
        ],
        "Has it follow another primary. Nothing is wiped.",
    ),
    Route::new(
        "secondary-reindex",
        "replication/{kind}/secondary/reindex",
        DO,
        REINDEX_FIELDS,
        "Compares the state with the primary's again.",
    ),
    Route::new(
        "secondary-reindex",
        "replication/{kind}/secondary/recover",
        DO,
        &[OPERATION_TOKEN],
        "Goes on after a standstill.",
    ),
    Route::new(
        "merkle-check",
        "replication/dr/secondary/merkle-check",
        DO,
        &[OPERATION_TOKEN],
        "Hashes over the state, and whether they are the primary's.",
    ),
    open(
        "attempt",
        "replication/dr/secondary/generate-operation-token/attempt",
        ATTEMPT,
        ATTEMPT_FIELDS,
        "The making of an operation token.",
    ),
    open(
        "update",
        "replication/dr/secondary/generate-operation-token/update",
        UPDATE,
        SHARE_FIELDS,
        "Takes a key share.",
    ),
    Route::new(
        "delete-operation-token",
        "replication/dr/secondary/operation-token/delete",
        DO,
        &[OPERATION_TOKEN],
        "Ends the operation token.",
    ),
    sudo(
        "performance-promote",
        "replication/performance/secondary/promote",
        DO,
        PROMOTE_FIELDS,
        "Makes a performance secondary the primary.",
    ),
    Route::new(
        "filter",
        "replication/performance/primary/paths-filter/{id}",
        ANY,
        FILTER_FIELDS,
        "Mounts and namespaces that a performance secondary does not get.",
    ),
    Route::new(
        "dynamic-filter",
        "replication/performance/{side}/dynamic-filter/{id}",
        SHOW,
        &[],
        "What a filter comes to.",
    ),
];

const PROMOTE_FIELDS: &[Field] = &[
    OPERATION_TOKEN,
    CLUSTER_ADDR,
    Field::new("force", FieldKind::Bool, "Although the primary still answers."),
    Field::new("planned", FieldKind::Bool, "Only if the primary was demoted, and all that it wrote is here."),
];

const FILTER_FIELDS: &[Field] = &[
    Field::new("mode", FieldKind::String, "allow: nothing but the paths; deny: everything but them."),
    Field::new("paths", FieldKind::List, "Mounts and namespaces, as ns1/ or auth/userpass/."),
];

const TOKEN_FIELDS: &[Field] = &[
    ID,
    Field::new("ttl", FieldKind::Duration, "How long it may be used; half an hour by default."),
    Field::new("secondary_public_key", FieldKind::String, "Made by generate-public-key on the secondary."),
];

const TAIL_FIELDS: &[Field] = &[
    Field::new("after", FieldKind::String, "Where the page before ended."),
    Field::new("limit", FieldKind::Int, "Most writes to show."),
    OPERATION_TOKEN,
];
