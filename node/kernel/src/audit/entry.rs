//! What an audit line is made of. Borrowed from the pipeline; nothing here is copied.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use arca_engine_api::{Map, Operation, Raw, UnixMillis};

use crate::answer::WrapInfo;
use crate::policy::AclDecision;

/// What the policies said.
#[derive(Clone, Copy)]
pub struct PolicyResults<'a> {
    /// The decision, with the policies that granted it.
    pub decision: &'a AclDecision,
}

/// A token: the caller's, or a new one in the answer.
#[derive(Clone, Copy, Default)]
pub struct AuthRecord<'a> {
    /// The token itself. Leaves only as an HMAC.
    pub client_token: Option<&'a str>,
    /// Its handle.
    pub accessor: &'a str,
    /// Who this is, for people.
    pub display_name: &'a str,
    /// All policies.
    pub policies: &'a [String],
    /// Policies of the token itself.
    pub token_policies: &'a [String],
    /// Policies by identity.
    pub identity_policies: &'a [String],
    /// What the policies said; absent in answers.
    pub policy_results: Option<PolicyResults<'a>>,
    /// Metadata.
    pub metadata: Option<&'a BTreeMap<String, String>>,
    /// Identity entity.
    pub entity_id: &'a str,
    /// `service` or `batch`.
    pub token_type: &'a str,
    /// Lifetime, zero for none.
    pub token_ttl: Duration,
    /// When it was made.
    pub token_issue_time: Option<UnixMillis>,
    /// Uses left, zero for no limit.
    pub remaining_uses: u32,
}

/// The mount a request went to.
#[derive(Clone, Copy)]
pub struct MountRecord<'a> {
    /// Path with a trailing slash.
    pub point: &'a str,
    /// Type.
    pub kind: &'a str,
    /// Accessor.
    pub accessor: &'a str,
    /// `secret` or `auth`.
    pub class: &'a str,
    /// Fields of requests logged in clear (`audit_non_hmac_request_keys`).
    pub clear_request_keys: &'a [String],
    /// Fields of answers logged in clear (`audit_non_hmac_response_keys`).
    pub clear_response_keys: &'a [String],
}

/// A request, before it runs.
#[derive(Clone, Copy)]
pub struct RequestRecord<'a> {
    /// When.
    pub time: UnixMillis,
    /// Request id.
    pub id: &'a str,
    /// Create and update told apart, as far as known.
    pub operation: Operation,
    /// The caller; absent without a token.
    pub auth: Option<AuthRecord<'a>>,
    /// Where it was routed, if anywhere.
    pub mount: Option<MountRecord<'a>>,
    /// Namespace id.
    pub namespace_id: &'a str,
    /// Namespace path: empty, or with a trailing slash.
    pub namespace_path: &'a str,
    /// Path without the namespace.
    pub path: &'a str,
    /// Fields.
    pub data: &'a Map,
    /// All request headers, lower-case names; only configured ones are logged.
    pub headers: &'a BTreeMap<String, Vec<String>>,
    /// Address of the client.
    pub remote_addr: Option<IpAddr>,
    /// Its port.
    pub remote_port: u16,
    /// Wrapping asked for.
    pub wrap_ttl: Option<Duration>,
    /// Serial number of the client's certificate, as colon-separated hex.
    pub client_certificate_serial: Option<&'a str>,
    /// Node that forwarded the request.
    pub forwarded_from: Option<&'a str>,
    /// Why it will be refused, if it will be. Errors never quote values.
    pub error: Option<&'a str>,
}

/// An answer, before it is given.
#[derive(Clone, Copy)]
pub struct ResponseRecord<'a> {
    /// What was asked.
    pub request: &'a RequestRecord<'a>,
    /// When it was answered.
    pub time: UnixMillis,
    /// A new token.
    pub auth: Option<AuthRecord<'a>>,
    /// A new lease, or empty.
    pub lease_id: &'a str,
    /// Data.
    pub data: Option<&'a Map>,
    /// Warnings.
    pub warnings: &'a [String],
    /// A wrapping token in place of the answer.
    pub wrap_info: Option<&'a WrapInfo>,
    /// A body that is not JSON.
    pub raw: Option<&'a Raw>,
    /// Response headers an engine set.
    pub headers: Option<&'a BTreeMap<String, Vec<String>>>,
    /// Why it failed, if it failed.
    pub error: Option<&'a str>,
}

impl<'a> ResponseRecord<'a> {
    /// An answer with nothing in it.
    #[must_use]
    pub const fn to(request: &'a RequestRecord<'a>, time: UnixMillis) -> Self {
        Self {
            request,
            time,
            auth: None,
            lease_id: "",
            data: None,
            warnings: &[],
            wrap_info: None,
            raw: None,
            headers: None,
            error: None,
        }
    }
}
