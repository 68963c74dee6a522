//! The paths of transit. What only computes is served by every node.

use arca_engine_api::{Effect, Field, FieldKind, Method, Operation, Route};

const AFTER: Field = Field::new("after", FieldKind::String, "Only names behind this one.");
const ALGORITHM: Field = Field::new("algorithm", FieldKind::String, "Another name of `hash_algorithm`.");
const ALLOW_PLAINTEXT_BACKUP: Field = Field::new(
    "allow_plaintext_backup",
    FieldKind::Bool,
    "Whether the key may be backed up; cannot be taken back.",
);
const ALLOW_ROTATION: Field =
    Field::new("allow_rotation", FieldKind::Bool, "Whether versions of an imported key may be made here.");
const ASSOCIATED_DATA: Field = Field::new(
    "associated_data",
    FieldKind::String,
    "Base64 of what is authenticated with the plaintext, but not encrypted.",
);
const AUTO_ROTATE_PERIOD: Field = Field::new(
    "auto_rotate_period",
    FieldKind::Duration,
    "Age at which the key is rotated by itself; 0 for never, else an hour at least.",
);
const BACKUP: Field = Field::new("backup", FieldKind::String, "What `backup` answered.");
const BASE_KEY_NAME: Field =
    Field::new("base_key_name", FieldKind::String, "The ECDSA key whose private half is used.");
const BASE_KEY_VERSION: Field =
    Field::new("base_key_version", FieldKind::Int, "Its version; 0 for the latest.");
const BATCH_INPUT: Field =
    Field::new("batch_input", FieldKind::List, "Many requests in one: a list of objects.");
const BITS: Field = Field::new("bits", FieldKind::Int, "Bits of the data key: 128, 256 (default) or 512.");
const BYTES: Field = Field::new("bytes", FieldKind::Int, "How many; 32 by default.");
const CERTIFICATE_CHAIN: Field =
    Field::new("certificate_chain", FieldKind::String, "Certificates in PEM, the key's own first.");
const CIPHERTEXT: Field = Field::new("ciphertext", FieldKind::String, "What `encrypt` answered.");
const CONTEXT: Field = Field::new("context", FieldKind::String, "Base64 of what the key is derived for.");
const CONVERGENT_ENCRYPTION: Field = Field::new(
    "convergent_encryption",
    FieldKind::Bool,
    "Equal plaintexts give equal ciphertexts; for derived keys only.",
);
const CSR: Field = Field::new("csr", FieldKind::String, "A request in PEM whose names are taken.");
const DELETION_ALLOWED: Field =
    Field::new("deletion_allowed", FieldKind::Bool, "Whether the key may be deleted.");
const DERIVED_KEY_TYPE: Field = Field::new(
    "derived_key_type",
    FieldKind::String,
    "Type of the key that is made: aes256-gcm96 (default) or another that encrypts with one secret.",
);
const DERIVED: Field =
    Field::new("derived", FieldKind::Bool, "Each context has a key of its own, derived of this one.");
const DISABLE_UPSERT: Field = Field::new("disable_upsert", FieldKind::Bool, "Encrypting makes no keys.");
const EXPORTABLE: Field =
    Field::new("exportable", FieldKind::Bool, "Whether secrets may be exported; cannot be taken back.");
const FORCE: Field = Field::new("force", FieldKind::Bool, "Replace a key of that name.");
const FORMAT: Field = Field::new("format", FieldKind::String, "How it is written.");
const HASH: Field = Field::new(
    "hash",
    FieldKind::String,
    "OAEP's hash function: SHA1, SHA224, SHA256 (default), SHA384, SHA512.",
);
const HASH_ALGORITHM: Field = Field::new(
    "hash_algorithm",
    FieldKind::String,
    "sha1, sha2-224 to sha2-512, sha3-224 to sha3-512, none; sha2-256 by default.",
);
const HASH_FUNCTION: Field = Field::new(
    "hash_function",
    FieldKind::String,
    "OAEP's hash function: SHA1, SHA224, SHA256 (default), SHA384, SHA512.",
);
const HMAC: Field = Field::new("hmac", FieldKind::String, "The HMAC to verify.");
const INPUT: Field = Field::new("input", FieldKind::String, "Base64 of what it is about.");
const KEY_DERIVATION_ALGORITHM: Field =
    Field::new("key_derivation_algorithm", FieldKind::String, "ecdh (default).");
const KEY_SIZE: Field = Field::new("key_size", FieldKind::Int, "Bytes of an HMAC key, from 32 to 512.");
const KEY_VERSION: Field = Field::new("key_version", FieldKind::Int, "Which version; 0 for the latest.");
const LIMIT: Field = Field::new("limit", FieldKind::Int, "At most so many names.");
const MARSHALING_ALGORITHM: Field =
    Field::new("marshaling_algorithm", FieldKind::String, "asn1 (default) or jws.");
const MIN_AVAILABLE_VERSION: Field =
    Field::new("min_available_version", FieldKind::Int, "Older versions are removed for good.");
const MIN_DECRYPTION_VERSION: Field =
    Field::new("min_decryption_version", FieldKind::Int, "The oldest version that decrypts and verifies.");
const MIN_ENCRYPTION_VERSION: Field = Field::new(
    "min_encryption_version",
    FieldKind::Int,
    "The oldest version that encrypts and signs; 0 for any.",
);
const NONCE: Field = Field::new("nonce", FieldKind::String, "Refused: no caller chooses a nonce.");
const PARTIAL_FAILURE_RESPONSE_CODE: Field = Field::new(
    "partial_failure_response_code",
    FieldKind::Int,
    "Status if some items failed and others did not; 400 unless said.",
);
const PEER_PUBLIC_KEY: Field =
    Field::new("peer_public_key", FieldKind::String, "The other's public key in PEM, of the same curve.");
const PLAINTEXT: Field = Field::new("plaintext", FieldKind::String, "Base64 of what is encrypted.");
const PREHASHED: Field = Field::new("prehashed", FieldKind::Bool, "The input is a digest.");
const PUBLIC_KEY: Field = Field::new("public_key", FieldKind::String, "A public key in PEM.");
const REFERENCE: Field = Field::new("reference", FieldKind::String, "A name for the answer of an item.");
const SALT_LENGTH: Field =
    Field::new("salt_length", FieldKind::String, "Salt of PSS: auto (default), hash, or a number of bytes.");
const SIGNATURE: Field = Field::new("signature", FieldKind::String, "The signature to verify.");
const SIGNATURE_ALGORITHM: Field =
    Field::new("signature_algorithm", FieldKind::String, "For RSA: pss (default) or pkcs1v15.");
const SIGNATURE_CONTEXT: Field = Field::new("signature_context", FieldKind::String, "Refused.");
const SIZE: Field = Field::new("size", FieldKind::Int, "Noted, without effect.");
const SOURCE: Field = Field::new("source", FieldKind::String, "platform; every other source is the same.");
const TYPE: Field = Field::new("type", FieldKind::String, "The type of the key; aes256-gcm96 by default.");
const VERSION: Field = Field::new("version", FieldKind::Int, "Which version; the latest unless said.");

pub(super) static ROUTES: &[Route] = &[
    Route::new(
        "backup",
        "backup/{name}",
        &[Method::with_effect(
            Operation::Read,
            Effect::Writes,
            "Back a key up, with its secrets in the clear.",
        )],
        &[],
        "Backups.",
    ),
    Route::new(
        "byok-export",
        "byok-export/{destination}/{source}/{version?}",
        &[Method::new(Operation::Read, "Export a key, wrapped to another.")],
        &[HASH],
        "Exports for import elsewhere.",
    ),
    Route::new(
        "cache-config",
        "cache-config",
        &[
            Method::new(Operation::Read, "Read the size of the cache."),
            Method::new(Operation::Update, "Note the size of the cache."),
        ],
        &[SIZE],
        "Kept for those who set it; what is cached follows the state by itself.",
    ),
    Route::new(
        "config-keys",
        "config/keys",
        &[
            Method::new(Operation::Read, "Read the settings of all keys."),
            Method::new(Operation::Update, "Change the settings of all keys."),
        ],
        &[DISABLE_UPSERT],
        "What holds for every key.",
    ),
    Route::new(
        "datakey",
        "datakey/{plaintext}/{name}",
        &[Method::with_effect(
            Operation::Update,
            Effect::Reads,
            "Make a data key: encrypted, and with `plaintext` bare as well.",
        )],
        &[ASSOCIATED_DATA, BITS, CONTEXT, KEY_VERSION, NONCE],
        "Data keys.",
    ),
    Route::new(
        "decrypt",
        "decrypt/{name}",
        &[Method::with_effect(Operation::Update, Effect::Reads, "Decrypt.")],
        &[ASSOCIATED_DATA, BATCH_INPUT, CIPHERTEXT, CONTEXT, PARTIAL_FAILURE_RESPONSE_CODE, REFERENCE],
        "Decrypts one thing or many.",
    ),
    Route::new(
        "derive-key",
        "derive-key/{name}",
        &[Method::new(
            Operation::Update,
            "Make a key out of an ECDSA key here and the public key of another; a new version if it exists.",
        )],
        &[BASE_KEY_NAME, BASE_KEY_VERSION, DERIVED_KEY_TYPE, KEY_DERIVATION_ALGORITHM, PEER_PUBLIC_KEY],
        "Keys that two hold without having sent them. Who may use it may use every base key.",
    ),
    Route::new(
        "encrypt",
        "encrypt/{name}",
        &[Method::with_effect(
            Operation::Update,
            Effect::Reads,
            "Encrypt; by a new key if there is none and the caller may create one.",
        )],
        &[
            ASSOCIATED_DATA,
            BATCH_INPUT,
            CONTEXT,
            CONVERGENT_ENCRYPTION,
            KEY_VERSION,
            NONCE,
            PARTIAL_FAILURE_RESPONSE_CODE,
            PLAINTEXT,
            REFERENCE,
            TYPE,
        ],
        "Encrypts one thing or many.",
    ),
    Route::new(
        "export",
        "export/{type}/{name}/{version?}",
        &[Method::new(Operation::Read, "Export what a key is made of.")],
        &[FORMAT],
        "`encryption-key`, `signing-key`, `hmac-key`, `public-key` or `certificate-chain` of exportable keys.",
    ),
    Route::new(
        "hash",
        "hash/{algorithm?}",
        &[Method::with_effect(Operation::Update, Effect::Reads, "Hash.")],
        &[ALGORITHM, FORMAT, INPUT],
        "Hashes, without a key.",
    ),
    Route::new(
        "hmac",
        "hmac/{name}/{algorithm?}",
        &[Method::with_effect(Operation::Update, Effect::Reads, "Make an HMAC.")],
        &[ALGORITHM, BATCH_INPUT, INPUT, KEY_VERSION, REFERENCE],
        "HMACs of one thing or many.",
    ),
    Route::new(
        "key",
        "keys/{name}",
        &[
            Method::new(Operation::Read, "Read a key: settings, versions, public halves."),
            Method::new(Operation::Update, "Make a key."),
            Method::new(Operation::Delete, "Delete a key."),
        ],
        &[
            ALLOW_PLAINTEXT_BACKUP,
            AUTO_ROTATE_PERIOD,
            CONTEXT,
            CONVERGENT_ENCRYPTION,
            DERIVED,
            EXPORTABLE,
            KEY_SIZE,
            TYPE,
        ],
        "Keys.",
    ),
    Route::new(
        "key-config",
        "keys/{name}/config",
        &[Method::new(Operation::Update, "Change the settings of a key.")],
        &[
            ALLOW_PLAINTEXT_BACKUP,
            AUTO_ROTATE_PERIOD,
            DELETION_ALLOWED,
            EXPORTABLE,
            MIN_DECRYPTION_VERSION,
            MIN_ENCRYPTION_VERSION,
        ],
        "Settings of a key.",
    ),
    Route::new(
        "key-csr",
        "keys/{name}/csr",
        &[Method::with_effect(Operation::Update, Effect::Reads, "Sign a request for a certificate.")],
        &[CSR, VERSION],
        "Requests for certificates.",
    ),
    Route::new(
        "key-import",
        "keys/{name}/import",
        &[Method::new(Operation::Update, "Make a key of one from outside.")],
        &[
            ALLOW_PLAINTEXT_BACKUP,
            ALLOW_ROTATION,
            AUTO_ROTATE_PERIOD,
            CIPHERTEXT,
            CONTEXT,
            CONVERGENT_ENCRYPTION,
            DERIVED,
            EXPORTABLE,
            HASH_FUNCTION,
            PUBLIC_KEY,
            TYPE,
        ],
        "Imports.",
    ),
    Route::new(
        "key-import-version",
        "keys/{name}/import_version",
        &[Method::new(Operation::Update, "Make a version of a key from outside, or complete one.")],
        &[CIPHERTEXT, HASH_FUNCTION, PUBLIC_KEY, TYPE, VERSION],
        "Imports of versions.",
    ),
    Route::new(
        "key-rotate",
        "keys/{name}/rotate",
        &[Method::new(Operation::Update, "Make a new version.")],
        &[],
        "Rotates a key.",
    ),
    Route::new(
        "key-set-certificate",
        "keys/{name}/set-certificate",
        &[Method::new(Operation::Update, "Keep certificates with a version.")],
        &[CERTIFICATE_CHAIN, VERSION],
        "Certificates.",
    ),
    Route::new(
        "key-soft-delete",
        "keys/{name}/soft-delete",
        &[Method::new(Operation::Delete, "Refuse the key until it is brought back.")],
        &[],
        "Deletes a key for the time being.",
    ),
    Route::new(
        "key-soft-delete-restore",
        "keys/{name}/soft-delete-restore",
        &[Method::new(Operation::Update, "Bring a key back.")],
        &[],
        "Brings a key back.",
    ),
    Route::new(
        "key-trim",
        "keys/{name}/trim",
        &[Method::new(Operation::Update, "Remove the oldest versions for good.")],
        &[MIN_AVAILABLE_VERSION],
        "Removes versions.",
    ),
    Route::new(
        "keys",
        "keys",
        &[Method::new(Operation::List, "List the names of keys.")],
        &[AFTER, LIMIT],
        "Names of keys.",
    ),
    Route::new(
        "random",
        "random/{source?}",
        &[Method::with_effect(Operation::Update, Effect::Reads, "Random bytes.")],
        &[BYTES, FORMAT, SOURCE],
        "Random bytes; the segment is a source or a count.",
    ),
    Route::new(
        "random",
        "random/{source}/{bytes}",
        &[Method::with_effect(Operation::Update, Effect::Reads, "Random bytes.")],
        &[BYTES, FORMAT, SOURCE],
        "Random bytes of a source.",
    ),
    Route::new(
        "restore",
        "restore/{name?}",
        &[Method::new(Operation::Update, "Restore a key.")],
        &[BACKUP, FORCE],
        "Restores backups.",
    ),
    Route::new(
        "rewrap",
        "rewrap/{name}",
        &[Method::with_effect(
            Operation::Update,
            Effect::Reads,
            "Decrypt, and encrypt by the latest version.",
        )],
        &[ASSOCIATED_DATA, BATCH_INPUT, CIPHERTEXT, CONTEXT, KEY_VERSION, REFERENCE],
        "Encrypts again.",
    ),
    Route::new(
        "sign",
        "sign/{name}/{algorithm?}",
        &[Method::with_effect(Operation::Update, Effect::Reads, "Sign.")],
        &[
            ALGORITHM,
            BATCH_INPUT,
            CONTEXT,
            HASH_ALGORITHM,
            INPUT,
            KEY_VERSION,
            MARSHALING_ALGORITHM,
            PREHASHED,
            REFERENCE,
            SALT_LENGTH,
            SIGNATURE_ALGORITHM,
            SIGNATURE_CONTEXT,
        ],
        "Signs one thing or many.",
    ),
    Route::new(
        "verify",
        "verify/{name}/{algorithm?}",
        &[Method::with_effect(Operation::Update, Effect::Reads, "Verify a signature or an HMAC.")],
        &[
            ALGORITHM,
            BATCH_INPUT,
            CONTEXT,
            HASH_ALGORITHM,
            HMAC,
            INPUT,
            KEY_VERSION,
            MARSHALING_ALGORITHM,
            PREHASHED,
            REFERENCE,
            SALT_LENGTH,
            SIGNATURE,
            SIGNATURE_ALGORITHM,
            SIGNATURE_CONTEXT,
        ],
        "Verifies one thing or many.",
    ),
    Route::new(
        "wrapping-key",
        "wrapping_key",
        &[Method::new(Operation::Read, "Read the public key to wrap keys to.")],
        &[],
        "Where imports begin.",
    ),
];
