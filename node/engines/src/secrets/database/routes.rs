//! The paths of databases.

use arca_engine_api::{Effect, Field, FieldKind, Method, Operation, Route};

const fn text(name: &'static str, summary: &'static str) -> Field {
    Field::new(name, FieldKind::String, summary)
}

const fn list(name: &'static str, summary: &'static str) -> Field {
    Field::new(name, FieldKind::List, summary)
}

const fn span(name: &'static str, summary: &'static str) -> Field {
    Field::new(name, FieldKind::Duration, summary)
}

const AFTER: Field = text("after", "Only names behind this one.");
const LIMIT: Field = Field::new("limit", FieldKind::Int, "At most so many names.");
const CREDENTIAL_CONFIG: Field =
    Field::new("credential_config", FieldKind::Map, "How credentials of that type are made.");
const CREDENTIAL_TYPE: Field =
    text("credential_type", "password (default), rsa_private_key or client_certificate.");
const DB_NAME: Field = text("db_name", "The connection.");

pub(super) static ROUTES: &[Route] = &[
    Route::new(
        "config",
        "config/{name}",
        &[
            Method::new(Operation::Read, "Read a connection, without its secrets."),
            Method::new(Operation::Update, "Make or change a connection."),
            Method::new(Operation::Delete, "Delete a connection."),
        ],
        &[
            list("allowed_roles", "Roles that may use it; a name may hold *. None unless said."),
            text("connection_url", "Where the database is, with {{username}} and {{password}}."),
            Field::new(
                "disable_escaping",
                FieldKind::Bool,
                "Username and password go into the URL as they are.",
            ),
            span("max_connection_lifetime", "Age at which a connection is closed; 0 for any."),
            Field::new("max_idle_connections", FieldKind::Int, "Connections kept; all unless said."),
            Field::new("max_open_connections", FieldKind::Int, "Connections at once; 4 unless said."),
            text("password", "Of the user by whom users are made. Never shown."),
            text("password_authentication", "PostgreSQL: scram-sha-256 has passwords hashed here."),
            text("password_policy", "The policy by which passwords are made."),
            text("plugin_name", "The type: postgresql-database-plugin, mysql-database-plugin, …"),
            text("plugin_version", "Without effect."),
            list("root_rotation_statements", "How its own password is changed."),
            text("tls_ca", "Authorities to trust, in PEM."),
            text("tls_certificate_key", "Certificate and key to show, in PEM. Never shown."),
            text("tls_server_name", "Name that the server's certificate must bear."),
            Field::new(
                "tls_skip_verify",
                FieldKind::Bool,
                "MySQL: the server's certificate is not verified.",
            ),
            text("username", "The user by whom users are made."),
            text("username_template", "What names of users look like."),
            Field::new("verify_connection", FieldKind::Bool, "Log in before it is stored; true unless said."),
        ],
        "Connections to databases.",
    ),
    Route::new(
        "configs",
        "config",
        &[Method::new(Operation::List, "List the names of connections.")],
        &[AFTER, LIMIT],
        "Names of connections.",
    ),
    Route::new(
        "creds",
        "creds/{name}",
        &[Method::with_effect(
            Operation::Read,
            Effect::Writes,
            "Make a user that lives as long as its lease.",
        )],
        &[],
        "New users.",
    ),
    Route::new(
        "reset",
        "reset/{name}",
        &[Method::new(Operation::Update, "Close what is open to a database.")],
        &[],
        "Opens connections anew.",
    ),
    Route::new(
        "role",
        "roles/{name}",
        &[
            Method::new(Operation::Read, "Read a role."),
            Method::new(Operation::Update, "Make or change a role."),
            Method::new(Operation::Delete, "Delete a role."),
        ],
        &[
            list("creation_statements", "How a user is made: {{name}}, {{password}}, {{expiration}}."),
            CREDENTIAL_CONFIG,
            CREDENTIAL_TYPE,
            DB_NAME,
            span("default_ttl", "How long a user lives unless renewed."),
            span("max_ttl", "How long at most."),
            list("renew_statements", "How a user's expiration is moved."),
            list("revocation_statements", "How a user is removed."),
            list("rollback_statements", "What to do if a user was made in part."),
        ],
        "What users are made like.",
    ),
    Route::new(
        "roles",
        "roles",
        &[Method::new(Operation::List, "List the names of roles.")],
        &[AFTER, LIMIT],
        "Names of roles.",
    ),
    Route::new(
        "rotate-role",
        "rotate-role/{name}",
        &[Method::new(Operation::Update, "Change a static role's password now.")],
        &[],
        "Changes passwords of static roles.",
    ),
    Route::new(
        "rotate-root",
        "rotate-root/{name}",
        &[Method::new(Operation::Update, "Change a connection's own password, which nobody will know.")],
        &[],
        "Changes passwords of connections.",
    ),
    Route::new(
        "static-creds",
        "static-creds/{name}",
        &[Method::new(Operation::Read, "Read a static role's password.")],
        &[],
        "Passwords of static roles.",
    ),
    Route::new(
        "static-role",
        "static-roles/{name}",
        &[
            Method::new(Operation::Read, "Read a static role."),
            Method::new(Operation::Update, "Make or change a static role."),
            Method::new(Operation::Delete, "Delete a static role; its user stays as it is."),
        ],
        &[
            CREDENTIAL_CONFIG,
            CREDENTIAL_TYPE,
            DB_NAME,
            span("rotation_period", "How long a password is used."),
            text(
                "rotation_schedule",
                "When it is changed: minute, hour, day, month, day of the week, in UTC.",
            ),
            list("rotation_statements", "How it is changed."),
            span("rotation_window", "How long after such a moment it may be changed."),
            text("username", "The user, who is there already."),
        ],
        "Users that are there already.",
    ),
    Route::new(
        "static-roles",
        "static-roles",
        &[Method::new(Operation::List, "List the names of static roles.")],
        &[AFTER, LIMIT],
        "Names of static roles.",
    ),
];
