//! The paths of KV version 2.

use arca_engine_api::{Effect, Field, FieldKind, Method, Operation, Route};

const AFTER: Field = Field::new("after", FieldKind::String, "Only names behind this one, in a listing.");
const CAS_REQUIRED: Field =
    Field::new("cas_required", FieldKind::Bool, "Whether a write must say which version it replaces.");
const LIMIT: Field = Field::new("limit", FieldKind::Int, "At most so many names, in a listing.");
const MAX_VERSIONS: Field =
    Field::new("max_versions", FieldKind::Int, "Versions to keep of each key; 0 for ten.");
const METADATA_CAS_REQUIRED: Field =
    Field::new("metadata_cas_required", FieldKind::Bool, "Whether changes of settings must be checked.");
const VERSION: Field = Field::new("version", FieldKind::Int, "Which version; the latest unless said.");
const VERSIONS: &[Field] = &[Field::new("versions", FieldKind::List, "Numbers of the versions.")];

pub(super) static ROUTES: &[Route] = &[
    Route::new(
        "config",
        "config",
        &[
            Method::new(Operation::Read, "Read the mount's settings."),
            Method::new(Operation::Update, "Change the mount's settings."),
        ],
        &[
            CAS_REQUIRED,
            Field::new(
                "delete_version_after",
                FieldKind::Duration,
                "Age at which versions delete themselves; negative for never, zero to leave it to the keys.",
            ),
            MAX_VERSIONS,
            METADATA_CAS_REQUIRED,
        ],
        "What holds for every key of the mount.",
    ),
    Route::new(
        "data",
        "data/{path...}",
        &[
            Method::new(Operation::Read, "Read a version of a secret."),
            Method::new(Operation::Update, "Write a new version of a secret."),
            Method::new(Operation::Patch, "Write a new version by a JSON merge patch of the latest."),
            Method::new(Operation::Delete, "Delete the latest version; it can be brought back."),
        ],
        &[
            Field::new("data", FieldKind::Map, "The secret."),
            Field::new("options", FieldKind::Map, "`cas`: the version this write replaces, 0 for none."),
            VERSION,
        ],
        "Versions of secrets.",
    ),
    Route::new(
        "delete",
        "delete/{path...}",
        &[Method::new(Operation::Update, "Delete versions; they can be brought back.")],
        VERSIONS,
        "Deletes versions.",
    ),
    Route::new(
        "destroy",
        "destroy/{path...}",
        &[Method::new(Operation::Update, "Destroy the data of versions for good.")],
        VERSIONS,
        "Destroys versions.",
    ),
    Route::new(
        "detailed-metadata",
        "detailed-metadata/{path...}",
        &[
            Method::new(Operation::List, "List keys and folders, with the keys' metadata."),
            Method::new(Operation::Scan, "List every key below a folder, with metadata."),
        ],
        &[AFTER, LIMIT],
        "Listings with metadata.",
    ),
    Route::new(
        "elsewhere",
        "{path...}",
        &[
            Method::new(Operation::Read, "Says which path to use."),
            Method::with_effect(Operation::Update, Effect::Reads, "Says which path to use."),
            Method::with_effect(Operation::Patch, Effect::Reads, "Says which path to use."),
            Method::with_effect(Operation::Delete, Effect::Reads, "Says which path to use."),
            Method::new(Operation::List, "Says which path to use."),
            Method::new(Operation::Scan, "Says which path to use."),
        ],
        &[],
        "No path of this engine: 404 with a hint.",
    ),
    Route::new(
        "metadata",
        "metadata/{path...}",
        &[
            Method::new(Operation::Read, "Read a key's settings and list its versions."),
            Method::new(Operation::Update, "Change a key's settings."),
            Method::new(Operation::Patch, "Change some of a key's settings."),
            Method::new(Operation::Delete, "Remove a key with all its versions for good."),
            Method::new(Operation::List, "List keys and folders."),
            Method::new(Operation::Scan, "List every key below a folder."),
        ],
        &[
            AFTER,
            CAS_REQUIRED,
            Field::new("custom_metadata", FieldKind::Map, "Notes of your own: at most 64 short texts."),
            Field::new(
                "delete_version_after",
                FieldKind::Duration,
                "Age at which versions delete themselves.",
            ),
            LIMIT,
            MAX_VERSIONS,
            Field::new("metadata_cas", FieldKind::Int, "The version of the settings this change replaces."),
            METADATA_CAS_REQUIRED,
        ],
        "Keys: settings, versions, listings.",
    ),
    Route::new(
        "subkeys",
        "subkeys/{path...}",
        &[Method::new(Operation::Read, "Read which fields a secret has, without their values.")],
        &[Field::new("depth", FieldKind::Int, "How many levels to show; 0 for all."), VERSION],
        "The shape of secrets.",
    ),
    Route::new(
        "undelete",
        "undelete/{path...}",
        &[Method::new(Operation::Update, "Bring deleted versions back.")],
        VERSIONS,
        "Brings versions back.",
    ),
];
