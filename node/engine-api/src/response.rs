//! What an engine answers. The kernel turns leases and logins into records, the API layer turns the rest into JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Map;

/// An engine's answer. Nothing set at all becomes HTTP 204.
#[derive(Debug, Default)]
pub struct Response {
    /// The `data` object of the envelope.
    pub data: Option<Map>,
    /// Hints for the caller; any warning turns a 204 into a 200.
    pub warnings: Vec<String>,
    /// Public handle of a credential in `data`. Shown beside the wrapping token of an answer that is wrapped, so that the
    /// credential can be ended by who does not see it.
    pub accessor: Option<String>,
    /// The response carries something that must be revoked later.
    pub lease: Option<LeaseGrant>,
    /// The caller proved who it is: the kernel creates a token from this.
    pub login: Option<Login>,
    /// Something to do in the outside world once what was staged is committed. The answer then is what
    /// [`crate::Engine::conclude`] says; of this response the lease and the warnings count. Never stored, so it may hold
    /// secrets.
    pub intent: Option<Map>,
    /// A body that is not the JSON envelope.
    pub raw: Option<Raw>,
    /// Answer 404 although there is data (deleted versions of KV v2).
    pub is_missing: bool,
    /// HTTP status of an answer that is neither a plain success nor an error (partly failed batches).
    pub status: Option<u16>,
    /// `lease_duration` to show without making a lease (KV v1 `ttl`).
    pub lease_duration_hint: Option<Duration>,
}

impl Response {
    /// Nothing to say: 204.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// An answer with data. Anything but an object becomes an empty object.
    #[must_use]
    pub fn data(value: Value) -> Self {
        let data = if let Value::Object(map) = value { map } else { Map::new() };
        Self { data: Some(data), ..Self::default() }
    }

    /// The answer to a list: `keys`, and `key_info` where there is any. An empty list becomes a 404.
    #[must_use]
    pub fn list(keys: Vec<String>) -> Self {
        let mut data = Map::new();
        if !keys.is_empty() {
            data.insert("keys".to_owned(), Value::from(keys));
        }
        Self { data: Some(data), ..Self::default() }
    }

    /// The same answer with one more warning.
    #[must_use]
    pub fn with_warning(mut self, warning: impl Into<String>) -> Self {
        self.warnings.push(warning.into());
        self
    }
}

/// A response body sent as is.
#[derive(Debug)]
pub struct Raw {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// The bytes.
    pub body: Vec<u8>,
}

/// What a lease needs. The kernel caps the TTLs by mount and system, writes the record and shows the id.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// Wanted lifetime; zero means the mount's default.
    pub ttl: Duration,
    /// Longest lifetime over all renewals; zero means the mount's maximum.
    pub max_ttl: Duration,
    /// Whether it can be renewed.
    pub is_renewable: bool,
    /// What the engine needs to revoke or renew. Sealed with the lease, never shown.
    pub internal: Map,
}

/// Which kind of token to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenKind {
    /// Encrypted, self-contained, stored nowhere.
    Batch,
    /// What the mount says.
    #[default]
    Default,
    /// What the mount says, batch if it says nothing.
    DefaultBatch,
    /// What the mount says, service if it says nothing.
    DefaultService,
    /// Stored, renewable, revocable.
    Service,
}

/// A proven identity, from an auth method's login route.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Name of the identity alias on this mount.
    pub alias_name: String,
    /// Metadata of the alias.
    pub alias_metadata: BTreeMap<String, String>,
    /// Prefix-free name for people; the kernel adds the mount.
    pub display_name: String,
    /// Policies of the token, before identity policies.
    pub policies: Vec<String>,
    /// Leave out the `default` policy.
    pub no_default_policy: bool,
    /// Metadata of the token.
    pub metadata: BTreeMap<String, String>,
    /// Groups by which external identity groups are refreshed. A login without any is in none; a renewal without any
    /// says nothing of them, and changes none.
    pub group_aliases: Option<Vec<String>>,
    /// Kept with the token for renewal; never shown.
    pub internal: Map,
    /// Wanted lifetime; zero means the mount's default.
    pub ttl: Duration,
    /// Longest lifetime; zero means the mount's maximum.
    pub max_ttl: Duration,
    /// Lifetime that no renewal can pass; zero for none.
    pub explicit_max_ttl: Duration,
    /// Each renewal resets the TTL to this; zero for not periodic.
    pub period: Duration,
    /// Uses before the token ends; zero for no limit.
    pub num_uses: u32,
    /// Kind of token.
    pub token_kind: TokenKind,
    /// Addresses the token may be used from; empty for anywhere.
    pub bound_cidrs: Vec<String>,
    /// Whether the token can be renewed.
    pub is_renewable: bool,
}
