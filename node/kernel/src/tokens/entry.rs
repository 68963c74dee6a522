//! What is known of a token. Never the token itself.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arca_danger::Bug;
use arca_engine_api::{Caller, Map, UnixMillis};
use serde::{Deserialize, Serialize};

use super::Cidr;
use crate::identity::Joined;
use crate::namespaces::ROOT_ID;
use crate::policy::{RESPONSE_WRAPPING, ROOT};

/// Names a stored token: the namespace it lives in and its key there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenRef {
    /// Id of its namespace.
    pub namespace_id: String,
    /// Keyed hash of the token.
    pub key: String,
}

/// How a token came to be and what it may still become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// Good until its deadline.
    #[default]
    Live,
    /// Gone; its children live on as orphans and are being cut loose.
    RevokedAlone,
    /// Gone with everything below it, which is being taken away.
    RevokedWithTree,
}

/// Stored or self-contained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenType {
    /// Sealed into itself: no record, no renewal, no children.
    Batch,
    /// A record in storage.
    #[default]
    Service,
}

impl TokenType {
    /// As clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Service => "service",
        }
    }
}

/// What a login left behind for renewals.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoginOrigin {
    /// Accessor of the auth mount.
    pub mount_accessor: String,
    /// Path of the auth mount when the login happened, `auth/…/`.
    pub mount_path: String,
    /// Name of the alias that logged in.
    pub alias_name: String,
    /// Metadata of that alias, as of the login.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub alias_metadata: BTreeMap<String, String>,
    /// For the auth method's eyes only.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub internal: Map,
    /// Lifetime the method asked for at login; zero for the mount's default.
    #[serde(with = "super::lifetime::millis")]
    pub ttl: Duration,
    /// Longest lifetime the method allows; zero for the mount's maximum.
    #[serde(with = "super::lifetime::millis")]
    pub max_ttl: Duration,
}

/// A token's record. Stored at `<namespace id>/token/id/<key>`, or sealed into a batch token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Keyed hash of the token: its name in storage, in leases and to engines.
    pub key: String,
    /// Public handle; empty for batch tokens.
    pub accessor: String,
    /// Id of the namespace it was made in.
    pub namespace_id: String,
    /// Path of that namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace_path: String,
    /// The token it dies with; none for an orphan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TokenRef>,
    /// How many ancestors it has.
    #[serde(default)]
    pub depth: u32,
    /// In their one form, sorted.
    pub policies: Vec<String>,
    /// Who this is, for people.
    pub display_name: String,
    /// Metadata shown to its owner.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Path of the request that made it.
    pub path: String,
    /// When it was made.
    pub created: UnixMillis,
    /// When it ends. None only for a root token that never ends.
    pub expires: Option<UnixMillis>,
    /// When it was last renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renewed: Option<UnixMillis>,
    /// Lifetime given at creation.
    #[serde(with = "super::lifetime::millis")]
    pub ttl: Duration,
    /// Lifetime no renewal can pass, as its maker asked; zero for none. Its role may say less.
    #[serde(with = "super::lifetime::millis")]
    pub explicit_max_ttl: Duration,
    /// Each renewal resets the lifetime to this, as its maker asked; zero for not periodic. Its role may say less.
    #[serde(with = "super::lifetime::millis")]
    pub period: Duration,
    /// Uses left; zero for no limit. A token whose last use is taken is no longer live.
    #[serde(default)]
    pub num_uses: u32,
    /// Live or on its way out.
    #[serde(default)]
    pub state: TokenState,
    /// Since when it is on its way out: where it stands in the time index then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<UnixMillis>,
    /// Stored or self-contained.
    #[serde(default)]
    pub kind: TokenType,
    /// The token role it was made through, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub role: String,
    /// Addresses it may be used from; empty for anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bound_cidrs: Vec<Cidr>,
    /// Identity entity, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entity_id: String,
    /// Id of the entity's namespace, where it is not the token's.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entity_namespace_id: String,
    /// Leave out policies by identity.
    #[serde(default)]
    pub no_identity_policies: bool,
    /// Whether it can be renewed.
    #[serde(default)]
    pub is_renewable: bool,
    /// The login it came from; none for tokens made by tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<LoginOrigin>,
    #[serde(skip)]
    pub(crate) seen_by_engines: MadeOnce<Caller>,
    #[serde(skip)]
    pub(crate) joined: Joined,
}

/// Made of an entry's other fields when first asked for. A copy of the entry may be changed, so it makes its own; and
/// whether it was made says nothing about the entry.
pub(crate) struct MadeOnce<T>(OnceLock<Arc<T>>);

impl<T> Default for MadeOnce<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Clone for MadeOnce<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> PartialEq for MadeOnce<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> std::fmt::Debug for MadeOnce<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MadeOnce")
    }
}

impl TokenEntry {
    /// Its holder as engines see them. The entry is not changed any more once this was asked.
    pub(crate) fn caller(&self) -> Arc<Caller> {
        let make = || {
            Arc::new(Caller {
                token_key: self.key.clone(),
                accessor: self.accessor.clone(),
                display_name: self.display_name.clone(),
                entity_id: self.entity_id.clone(),
                policies: self.policies.as_slice().into(),
                metadata: Arc::new(self.metadata.clone()),
                is_batch: self.is_batch(),
                is_root: self.is_root(),
            })
        };
        Arc::clone(self.seen_by_engines.0.get_or_init(make))
    }

    /// Names it.
    #[must_use]
    pub fn reference(&self) -> TokenRef {
        TokenRef { namespace_id: self.namespace_id.clone(), key: self.key.clone() }
    }

    /// Id of the namespace its entity belongs to.
    #[must_use]
    pub fn entity_namespace(&self) -> &str {
        if self.entity_namespace_id.is_empty() { &self.namespace_id } else { &self.entity_namespace_id }
    }

    /// Whether it holds the `root` policy.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.policies.iter().any(|policy| policy == ROOT)
    }

    /// Whether it is sealed into itself.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.kind == TokenType::Batch
    }

    /// Whether it wraps an answer.
    #[must_use]
    pub fn is_wrapping(&self) -> bool {
        matches!(self.policies.as_slice(), [only] if only == RESPONSE_WRAPPING)
    }

    /// Whether a lease leads to it. None does to a root token of init or of the holders of the key shares: no request
    /// made it, so no prefix of paths takes it away.
    #[must_use]
    pub(crate) fn has_lease(&self) -> bool {
        !(self.is_root() && self.path == ROOT_PATH)
    }

    /// Whether it has no parent.
    #[must_use]
    pub fn is_orphan(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether it belongs to the root namespace.
    #[must_use]
    pub fn is_in_root_namespace(&self) -> bool {
        self.namespace_id == ROOT_ID
    }

    /// Whether its deadline is behind. A token without a deadline that is not root counts as ended: whatever took
    /// its deadline away, it must not live for ever.
    #[must_use]
    pub fn has_ended(&self, now: UnixMillis) -> bool {
        self.expires.map_or_else(|| !self.is_root(), |expires| expires <= now)
    }

    /// Whether it may be used, as far as its own record says.
    #[must_use]
    pub fn is_good(&self, now: UnixMillis) -> bool {
        self.state == TokenState::Live && (!self.has_ended(now) || arca_danger::is(Bug::TokenExpiryIgnored))
    }

    /// Where it stands in the time index: nowhere for a live token that never ends.
    #[must_use]
    pub(super) fn due(&self) -> Option<UnixMillis> {
        self.queued.or(self.expires)
    }

    /// The lifetime it was given when it was made or last renewed; none if it has no end.
    #[must_use]
    pub fn granted(&self) -> Option<Duration> {
        self.expires.map(|expires| expires.since(self.last_renewed.unwrap_or(self.created)))
    }

    /// Time left: none for a token that never ends.
    #[must_use]
    pub fn time_left(&self, now: UnixMillis) -> Option<Duration> {
        self.expires.map(|expires| expires.since(now))
    }

    /// Id of its lease: the path that made it and its key.
    #[must_use]
    pub fn lease_id(&self) -> String {
        lease_id(&self.path, &self.key, &self.namespace_id)
    }
}

/// Path of root tokens that no request made.
pub(super) const ROOT_PATH: &str = "auth/token/root";

/// Marks the last segment of a token's lease id.
pub(crate) const LEASE_MARK: char = 'h';

pub(super) fn lease_id(path: &str, key: &str, namespace_id: &str) -> String {
    let suffix = super::secret::namespace_suffix(namespace_id);
    format!("{path}/{LEASE_MARK}{key}{suffix}")
}
