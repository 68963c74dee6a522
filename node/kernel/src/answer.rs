//! What the kernel answers. `node/api` renders it; the shape decides where `data` goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arca_engine_api::{Map, Raw, UnixMillis};
use arca_raft_storage::SnapshotStream;
use parking_lot::Mutex;
use zeroize::Zeroizing;

/// Where `data` appears in the JSON body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// The object itself is the body, without an envelope.
    Bare,
    /// In the envelope's `data`.
    #[default]
    Envelope,
    /// In the envelope's `data` and again at top level (vault-compatible `sys` routes).
    EnvelopeAndTop,
}

/// The body.
#[derive(Default)]
pub enum AnswerBody {
    /// JSON from the other fields; 204 if there is nothing to say.
    #[default]
    Json,
    /// Bytes as they are.
    Raw(Raw),
    /// A stream as it comes, with its content type. The lock only makes it shareable.
    Stream(String, Mutex<SnapshotStream>),
}

/// A token as shown to its new owner.
#[derive(Clone, Debug, Default)]
pub struct AnswerAuth {
    /// The token. Shown once.
    pub client_token: Arc<Zeroizing<String>>,
    /// Its handle, empty for batch tokens.
    pub accessor: String,
    /// All policies.
    pub policies: Vec<String>,
    /// Policies of the token itself.
    pub token_policies: Vec<String>,
    /// Policies by identity.
    pub identity_policies: Vec<String>,
    /// Metadata.
    pub metadata: BTreeMap<String, String>,
    /// Seconds.
    pub lease_duration: u64,
    /// Whether it can be renewed.
    pub is_renewable: bool,
    /// Identity entity.
    pub entity_id: String,
    /// `service` or `batch`.
    pub token_type: &'static str,
    /// No parent.
    pub is_orphan: bool,
    /// Uses left at creation, zero for no limit.
    pub num_uses: u32,
}

/// A wrapping token in place of the answer.
#[derive(Clone, Debug)]
pub struct WrapInfo {
    /// The token, or the JWT. Shown once.
    pub token: Arc<Zeroizing<String>>,
    /// Its handle.
    pub accessor: String,
    /// Seconds.
    pub ttl: u64,
    /// When it was made.
    pub creation_time: UnixMillis,
    /// Path of the wrapped request.
    pub creation_path: String,
    /// Accessor of a token inside.
    pub wrapped_accessor: Option<String>,
}

/// A finished answer.
#[derive(Default)]
pub struct Answer {
    /// Request id.
    pub request_id: String,
    /// Lease, or empty.
    pub lease_id: String,
    /// Whether the lease can be renewed.
    pub is_renewable: bool,
    /// Seconds.
    pub lease_duration: u64,
    /// Data.
    pub data: Option<Map>,
    /// Warnings.
    pub warnings: Vec<String>,
    /// Handle of a credential in the data; shown only with a wrapping token.
    pub accessor: Option<String>,
    /// New token.
    pub auth: Option<AnswerAuth>,
    /// Wrapping.
    pub wrap_info: Option<WrapInfo>,
    /// Type of the mount that answered.
    pub mount_type: String,
    /// Where data goes.
    pub shape: Shape,
    /// Answer 404 although there is a body.
    pub is_missing: bool,
    /// HTTP status of an answer that is neither a plain success nor an error.
    pub status: Option<u16>,
    /// Not JSON after all.
    pub body: AnswerBody,
    /// Value of `X-Vault-Index`, on writes.
    pub index: Option<String>,
    /// Response headers the mount's tune allows.
    pub headers: BTreeMap<String, Vec<String>>,
}
