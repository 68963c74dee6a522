//! One request as an engine sees it: already authenticated, routed, authorized and audited.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::{Fields, Map, RouteMatch};

/// What the caller asks for. `Create` and `Update` share HTTP's POST and PUT; the kernel tells them apart with
/// [`crate::Engine::exists`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Write where nothing is yet.
    Create,
    /// Remove.
    Delete,
    /// Describe the path (`?help=1`).
    Help,
    /// Names under a path.
    List,
    /// Merge into what is there.
    Patch,
    /// Fetch.
    Read,
    /// All names below a path, at any depth.
    Scan,
    /// Write over what is there, or act.
    Update,
}

impl Operation {
    /// The word used in policies, audit lines and OpenAPI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Help => "help",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Read => "read",
            Self::Scan => "scan",
            Self::Update => "update",
        }
    }

    /// True when the operation only looks. Such a request may be served by a standby.
    #[must_use]
    pub const fn only_reads(self) -> bool {
        matches!(self, Self::Help | Self::List | Self::Read | Self::Scan)
    }

    /// Whether it writes an entry, so that its path names one and not a folder.
    #[must_use]
    pub const fn writes_entry(self) -> bool {
        matches!(self, Self::Create | Self::Patch | Self::Update)
    }
}

/// Who is calling. Absent on unauthenticated routes.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Stable, non-secret name of the token: its keyed hash. Cubbyholes hang off it.
    pub token_key: String,
    /// Public handle of the token; empty for batch tokens.
    pub accessor: String,
    /// Who this is, for people.
    pub display_name: String,
    /// Identity entity, or empty.
    pub entity_id: String,
    /// Every policy that applies, token and identity ones together, sorted.
    pub policies: Arc<[String]>,
    /// Metadata given at login or token creation.
    pub metadata: Arc<BTreeMap<String, String>>,
    /// True for batch tokens, which own no storage and no cubbyhole.
    pub is_batch: bool,
    /// True when the token holds the `root` policy.
    pub is_root: bool,
}

/// One request. Owned by the pipeline; engines borrow it.
pub struct Request {
    /// Unique per request, also in the audit log and the response.
    pub id: String,
    /// What is asked.
    pub operation: Operation,
    /// Namespace path: empty for root, else with a trailing slash (`team-a/`).
    pub namespace: String,
    /// Path below the mount, without a leading slash. Keeps a trailing slash on lists.
    pub path: String,
    /// The mount the request was routed to, without the namespace, with a trailing slash (`secret/`).
    pub mount_point: String,
    /// The route of the engine's table that matched, with its captured parameters.
    pub route: RouteMatch,
    /// Body, or query string for reads; JSON values as sent.
    pub data: Map,
    /// Headers the mount's tune lets through, lower-case names.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The caller, unless the route takes anybody.
    pub caller: Option<Arc<Caller>>,
    /// The token as presented. Only for engines that hand it on; never log it.
    pub client_token: Option<Arc<Zeroizing<String>>>,
    /// Address of the client (of the first hop when a standby forwarded the request).
    pub remote_addr: Option<IpAddr>,
    /// Its port.
    pub remote_port: u16,
    /// DER certificates the client presented on its TLS connection, leaf first.
    pub client_certificates: Arc<[Vec<u8>]>,
    /// Requested wrapping of the response.
    pub wrap_ttl: Option<Duration>,
}

impl Request {
    /// A captured parameter of the route (`name` in `keys/{name}`); empty when the route has none by that name.
    #[must_use]
    pub fn param(&self, name: &str) -> &str {
        self.route.param(name)
    }

    /// Typed access to [`Self::data`], without ever quoting a value in an error.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields::new(&self.data)
    }
}

impl std::fmt::Debug for Request {
    /// Never shows data, headers or token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("operation", &self.operation)
            .field("mount_point", &self.mount_point)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
