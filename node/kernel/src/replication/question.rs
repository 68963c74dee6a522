//! What the kernel of a performance secondary asks its primary's, and what that answers: bytes that the nodes carry and do
//! not read (`docs/formats/secondary-questions.md`).
//!
//! The first byte is the version, the rest is JSON. A field nobody here knows is refused: it may be what forbids
//! something. **Never** logged: questions and answers hold secrets.
//! Read next: [`super::ask`] for who asks, [`super::answer`] for who answers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use arca_engine_api::{Fault, Login, Map, Operation, Raw, TokenKind, UnixMillis};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::KernelError;
use crate::answer::Shape;
use crate::tokens::lifetime::millis;

/// Version of both. Never reuse a number.
const VERSION: u8 = 1;

/// Asked by a performance secondary.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Question {
    /// Who logs in.
    Entity(EntityQuestion),
    /// To run a request that writes what is shared.
    Request(Box<RequestQuestion>),
}

/// Somebody proved at the secondary who it is, and what is shared of its identity is to be brought up to date.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntityQuestion {
    /// Id of the auth mount's namespace.
    pub(crate) namespace_id: String,
    /// Accessor of the auth mount.
    pub(crate) mount_accessor: String,
    /// Whether the mount is the secondary's own: its aliases are not shared, the entity is.
    pub(crate) is_local: bool,
    /// The entity, where the secondary knows it: that of a token to be renewed, or of an alias of a local mount.
    pub(crate) entity_id: String,
    /// Name of the alias; empty where only the groups are asked for.
    pub(crate) alias_name: String,
    /// Metadata of the alias.
    pub(crate) alias_metadata: BTreeMap<String, String>,
    /// Groups the mount says the entity is in.
    pub(crate) group_aliases: Vec<String>,
}

impl fmt::Debug for EntityQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntityQuestion")
            .field("mount_accessor", &self.mount_accessor)
            .field("entity_id", &self.entity_id)
            .finish_non_exhaustive()
    }
}

/// A request to be run at the primary, with who asks as the secondary has found out.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestQuestion {
    /// As at the secondary, so that both audit logs tell of one request.
    pub(crate) id: String,
    /// As `Operation::as_str`; never `create`.
    pub(crate) operation: String,
    /// Path of the namespace.
    pub(crate) namespace: String,
    /// Path below it.
    pub(crate) path: String,
    pub(crate) data: Map,
    /// Those that the mount lets through.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
    pub(crate) remote_addr: Option<IpAddr>,
    pub(crate) remote_port: u16,
    /// DER in hexadecimal.
    pub(crate) client_certificates: Vec<String>,
    /// Policies may ask for a wrapped answer. It is wrapped at the secondary.
    pub(crate) wrap_ttl_ms: Option<u64>,
    /// None where anybody may ask.
    pub(crate) caller: Option<AskingToken>,
}

impl fmt::Debug for RequestQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestQuestion")
            .field("id", &self.id)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A token of the secondary that is good there. Not the token itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskingToken {
    /// Keyed hash, by the secondary's key.
    pub(crate) key: String,
    pub(crate) accessor: String,
    pub(crate) display_name: String,
    /// Of the token itself: what identity adds is found out at the primary.
    pub(crate) policies: Vec<String>,
    pub(crate) no_identity_policies: bool,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) entity_id: String,
    pub(crate) entity_namespace_id: String,
    pub(crate) namespace_id: String,
    pub(crate) namespace_path: String,
    pub(crate) is_batch: bool,
    pub(crate) created: UnixMillis,
    pub(crate) ttl_ms: u64,
}

/// The primary's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Reply {
    /// The request ran, and what it wrote is committed.
    Done(Box<DoneReply>),
    /// The entity is as the login says.
    Entity {
        /// Its id.
        id: String,
        /// Entry that shows it.
        index: u64,
    },
    /// The request writes nothing that is shared, as the state of this entry has it: it is the secondary's own.
    NothingShared {
        /// The entry.
        index: u64,
    },
    /// It was refused, or it failed.
    Refused {
        /// As [`fault_name`] has it.
        fault: String,
        /// What the caller is told.
        messages: Vec<String>,
    },
}

/// What a request answered at the primary. The secondary makes tokens, leases and wrappings of it.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DoneReply {
    /// Entry by which everything is written.
    pub(crate) index: u64,
    pub(crate) data: Option<Map>,
    pub(crate) warnings: Vec<String>,
    pub(crate) accessor: Option<String>,
    pub(crate) raw: Option<RawReply>,
    pub(crate) is_missing: bool,
    pub(crate) status: Option<u16>,
    /// To be shown; no lease is behind it.
    pub(crate) lease_seconds: u64,
    #[serde(with = "ShapeFields")]
    pub(crate) shape: Shape,
    pub(crate) login: Option<LoginReply>,
    /// Of the login; empty where it names nobody.
    pub(crate) entity_id: String,
}

impl fmt::Debug for DoneReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoneReply").field("index", &self.index).finish_non_exhaustive()
    }
}

/// A body as it is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawReply {
    status: u16,
    content_type: String,
    /// Hexadecimal.
    body: String,
}

impl RawReply {
    pub(crate) fn of(raw: &Raw) -> Self {
        let Raw { status, content_type, body } = raw;
        Self { status: *status, content_type: content_type.clone(), body: hex::encode(body) }
    }

    pub(crate) fn to_raw(&self) -> Result<Raw, KernelError> {
        let body = hex::decode(&self.body).map_err(|_| malformed())?;
        Ok(Raw { status: self.status, content_type: self.content_type.clone(), body })
    }
}

/// Where data goes, on the wire.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Shape", rename_all = "snake_case")]
enum ShapeFields {
    Bare,
    Envelope,
    EnvelopeAndTop,
}

/// A proven identity.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct LoginReply(#[serde(with = "LoginFields")] Login);

/// The fields of [`Login`] on the wire. One that is added there and not here does not compile.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Login", deny_unknown_fields)]
struct LoginFields {
    alias_name: String,
    alias_metadata: BTreeMap<String, String>,
    display_name: String,
    policies: Vec<String>,
    no_default_policy: bool,
    metadata: BTreeMap<String, String>,
    group_aliases: Option<Vec<String>>,
    internal: Map,
    #[serde(with = "millis")]
    ttl: Duration,
    #[serde(with = "millis")]
    max_ttl: Duration,
    #[serde(with = "millis")]
    explicit_max_ttl: Duration,
    #[serde(with = "millis")]
    period: Duration,
    num_uses: u32,
    token_kind: TokenKind,
    bound_cidrs: Vec<String>,
    is_renewable: bool,
}

impl From<Login> for LoginReply {
    fn from(login: Login) -> Self {
        Self(login)
    }
}

impl From<LoginReply> for Login {
    fn from(reply: LoginReply) -> Self {
        reply.0
    }
}

fn malformed() -> KernelError {
    KernelError::Bug("what the other cluster says cannot be read".to_owned())
}

fn encode<T: Serialize>(said: &T) -> Result<Bytes, KernelError> {
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, said).map_err(|err| KernelError::Bug(err.to_string()))?;
    Ok(bytes.into())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, KernelError> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json).map_err(|_| malformed()),
        Some((version, _)) => {
            let text = format!(
                "the other cluster speaks version {version} of the secondaries' language, this one {VERSION}"
            );
            Err(KernelError::invalid(text))
        }
        None => Err(malformed()),
    }
}

impl Question {
    pub(crate) fn encode(&self) -> Result<Bytes, KernelError> {
        encode(self)
    }

    /// # Errors
    /// When the version is another, or it cannot be read.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, KernelError> {
        decode(bytes)
    }
}

impl Reply {
    pub(crate) fn encode(&self) -> Result<Bytes, KernelError> {
        encode(self)
    }

    /// # Errors
    /// When the version is another, or it cannot be read.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, KernelError> {
        decode(bytes)
    }

    /// A failure, as the caller is told of it.
    pub(crate) fn refused(err: &KernelError) -> Self {
        Self::Refused { fault: fault_name(err.fault()).to_owned(), messages: err.public_messages() }
    }
}

const FAULTS: &[(Fault, &str)] = &[
    (Fault::Denied, "denied"),
    (Fault::DrSecondary, "dr_secondary"),
    (Fault::Fenced, "fenced"),
    (Fault::Internal, "internal"),
    (Fault::Invalid, "invalid"),
    (Fault::MediaType, "media_type"),
    (Fault::NotFound, "not_found"),
    (Fault::NotYet, "not_yet"),
    (Fault::OutcomeUnknown, "outcome_unknown"),
    (Fault::RateLimited, "rate_limited"),
    (Fault::Sealed, "sealed"),
    (Fault::TooLarge, "too_large"),
    (Fault::Unavailable, "unavailable"),
    (Fault::Unsupported, "unsupported"),
    (Fault::Upstream, "upstream"),
];

/// A fault on its way. A primary that is not active answers nothing, so that has no name.
fn fault_name(fault: Fault) -> &'static str {
    FAULTS.iter().find(|(known, _)| *known == fault).map_or("internal", |(_, name)| name)
}

/// The fault of a name; one that nobody here knows is the primary's to explain.
pub(crate) fn fault_of(name: &str) -> Fault {
    FAULTS.iter().find(|(_, known)| *known == name).map_or(Fault::Internal, |(fault, _)| *fault)
}

/// An operation by its name.
///
/// # Errors
/// When it is none that a secondary may ask for.
pub(crate) fn operation_of(name: &str) -> Result<Operation, KernelError> {
    let all = [Operation::Delete, Operation::List, Operation::Patch, Operation::Read, Operation::Scan];
    let found = all.into_iter().chain([Operation::Update]).find(|operation| operation.as_str() == name);
    found.ok_or_else(malformed)
}

#[cfg(test)]
#[path = "question_tests.rs"]
mod tests;
