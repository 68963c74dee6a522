//! The role of this cluster, one record a kind. Class `Node`: it never leaves the cluster, no backup holds it, and a copy of
//! another cluster's state leaves it as it is.

use std::fmt;
use std::time::Duration;

use arca_barrier::Class;
use serde::{Deserialize, Serialize};

use crate::KernelError;
use crate::tx::Tx;

/// What a secondary is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A complete copy that waits.
    Dr,
    /// Serves reads and logins close to its users.
    Performance,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dr, Self::Performance];

    /// As paths and answers spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Performance => "performance",
        }
    }

    /// Where its record is stored.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Dr => "root/core/replication/dr",
            Self::Performance => "root/core/replication/performance",
        }
    }
}

/// What the cluster is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing to any other.
    #[default]
    Disabled,
    /// Others may follow it.
    Primary,
    /// It follows another.
    Secondary,
}

impl Mode {
    /// As answers spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }
}

/// How a secondary reaches the cluster that it follows, and proves who it is.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRecord {
    /// The name that the primary knows it by.
    pub secondary_id: String,
    /// Cluster addresses of the primary's nodes, `host:port`; the newest list that the primary sent, and [`Self::given`].
    pub addresses: Vec<String>,
    /// Those that an operator, or the activation token, gave: tried as well, whatever the primary sends.
    #[serde(default)]
    pub given: Vec<String>,
    /// Certificate (DER) of the primary's CA for its secondaries, hexadecimal.
    pub ca: String,
    /// Own certificate (DER), hexadecimal.
    pub certificate: String,
    /// Its key (PKCS#8), hexadecimal.
    pub key: String,
}

impl fmt::Debug for UpstreamRecord {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamRecord")
            .field("secondary_id", &self.secondary_id)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// Why a primary takes no writes any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The newer epoch that it heard of.
    pub epoch: u64,
    /// Cluster addresses of the primary in that epoch, as far as it said.
    pub primary_addresses: Vec<String>,
    /// Milliseconds since 1970.
    pub heard_at: u64,
}

/// The role of this cluster in replication of one kind.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// What it is.
    pub mode: Mode,
    /// Random id of the primary and all that follow it; shown as `cluster_id`. Survives promotions.
    pub replication_id: String,
    /// Raised by every change of roles.
    pub epoch: u64,
    /// As given when it became a primary: the address that secondaries are told, if not those of the nodes.
    pub primary_cluster_addr: String,
    /// As primary: certificate (DER) and key (PKCS#8) of the CA for its secondaries, hexadecimal.
    pub authority: Option<(String, String)>,
    /// As secondary, if it knows a primary. Kept at a promotion, to tell the old primary that it is over.
    pub upstream: Option<UpstreamRecord>,
    /// As primary: why it takes no writes any more. As one that was demoted and knows no primary: who took over from it.
    pub fence: Option<Fence>,
    /// As DR primary: seconds without a word from a DR secondary after which it takes no writes; zero for never.
    #[serde(default)]
    pub fence_after_s: u64,
}

impl fmt::Debug for RoleRecord {
    /// Never shows a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleRecord")
            .field("mode", &self.mode)
            .field("replication_id", &self.replication_id)
            .field("epoch", &self.epoch)
            .field("upstream", &self.upstream)
            .field("fence", &self.fence)
            .field("fence_after_s", &self.fence_after_s)
            .finish_non_exhaustive()
    }
}

impl RoleRecord {
    /// How long a DR primary takes writes without hearing a DR secondary, if that has an end.
    #[must_use]
    pub fn fence_after(&self) -> Option<Duration> {
        let is_bounded = self.mode == Mode::Primary && self.fence_after_s > 0;
        is_bounded.then(|| Duration::from_secs(self.fence_after_s))
    }

    /// As it is stored; a disabled one if nothing is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load(tx: &Tx, kind: Kind) -> Result<Self, KernelError> {
        Ok(tx.get_record(Class::Node, kind.path())?.unwrap_or_default())
    }

    /// Stages it.
    ///
    /// # Errors
    /// When it cannot be sealed.
    pub fn store(&self, tx: &Tx, kind: Kind) -> Result<(), KernelError> {
        Ok(tx.put_secret_record(Class::Node, kind.path(), self)?)
    }
}
