//! What the kernel needs from the node to change and to show the roles of this cluster. The kernel has authorized and
//! audited each call, and carried it to the active node; the node has keys, connections and figures.

use std::fmt::{self, Debug};
use std::time::Duration;

use arca_engine_api::Map;
use async_trait::async_trait;
use bytes::Bytes;
use zeroize::Zeroizing;

use super::record::Kind;
use crate::KernelError;

/// A token for a secondary, to be made.
#[derive(Clone, Debug)]
pub struct SecondaryToken {
    /// The name of the secondary.
    pub id: String,
    /// How long the token may be used.
    pub ttl: Duration,
    /// As made by `generate-public-key` on the secondary; the token can then be read there alone.
    pub public_key: Option<String>,
}

/// A token for a secondary. Good for one use.
pub struct ActivationToken {
    /// To be given to the secondary.
    pub token: Zeroizing<String>,
    /// Names it.
    pub accessor: String,
}

impl Debug for ActivationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActivationToken").field("accessor", &self.accessor).finish_non_exhaustive()
    }
}

/// A primary that a secondary shall follow from now on.
#[derive(Debug)]
pub enum SecondaryUpdate {
    /// The one that made this token.
    Token(Zeroizing<String>),
    /// The same as before, at other cluster addresses.
    Addresses(Vec<String>),
    /// None, until it is told another.
    Forget,
}

/// What a secondary demands of its old primary before it takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// Nothing: it is fenced, with what it had not shipped by then.
    Forced,
    /// That it is not well. If it answers and was demoted, what it wrote last is waited for.
    Ordinary,
    /// That it was demoted, and that everything it wrote is here. Refused if it does not answer: nobody could know.
    Planned,
}

/// Roles of this cluster. Every call but [`Self::status`] is refused with [`KernelError::NeedsActive`] on a standby.
#[async_trait]
pub trait ReplicationPort: Debug + Send + Sync {
    /// The fields of `sys/replication/<kind>/status`, as this node sees them.
    fn status(&self, kind: Kind) -> Result<Map, KernelError>;

    /// Makes this cluster a primary. `cluster_addr` is what secondaries are told, instead of the nodes' own addresses.
    async fn enable_primary(&self, kind: Kind, cluster_addr: String) -> Result<(), KernelError>;

    /// Sets how long a DR primary takes writes without hearing a DR secondary; zero for however long.
    async fn configure_primary(&self, kind: Kind, fence_after: Duration) -> Result<(), KernelError>;

    /// Makes a primary a secondary that knows no primary yet. Nothing is wiped.
    async fn demote_primary(&self, kind: Kind) -> Result<(), KernelError>;

    /// Makes a primary nothing to any other.
    async fn disable_primary(&self, kind: Kind) -> Result<(), KernelError>;

    /// Makes a token for a secondary.
    async fn secondary_token(
        &self,
        kind: Kind,
        wanted: SecondaryToken,
    ) -> Result<ActivationToken, KernelError>;

    /// Cuts a secondary off at once and for good.
    async fn revoke_secondary(&self, kind: Kind, id: &str) -> Result<(), KernelError>;

    /// A public key that an activation token for this cluster can be encrypted to.
    async fn generate_public_key(&self, kind: Kind) -> Result<String, KernelError>;

    /// Makes this cluster a secondary of the one that made the token: everything it holds is replaced, once the copy is
    /// whole. Returns when the copy has begun.
    async fn enable_secondary(&self, kind: Kind, token: Zeroizing<String>) -> Result<(), KernelError>;

    /// Makes a secondary the primary, as far as `promotion` lets it.
    async fn promote_secondary(
        &self,
        kind: Kind,
        cluster_addr: String,
        promotion: Promotion,
    ) -> Result<(), KernelError>;

    /// Makes a secondary nothing to any other. It keeps what it holds. Unless `is_forced`, refused for a copy whose primary did
    /// not say itself that it is none any more.
    async fn disable_secondary(&self, kind: Kind, is_forced: bool) -> Result<(), KernelError>;

    /// Has a secondary follow another primary. Nothing is wiped: the two states are compared.
    async fn update_primary(&self, kind: Kind, update: SecondaryUpdate) -> Result<(), KernelError>;

    /// Has every secondary part of this cluster compare its state with its primary's again.
    async fn reindex(&self, kind: Kind) -> Result<(), KernelError>;

    /// Hashes over the state here, and whether they are those of the primary: the fields of `merkle_corruption_report`.
    async fn merkle_check(&self) -> Result<Map, KernelError>;

    /// What a fenced primary had taken and its successor never got: the writes, oldest first, as far as they are kept.
    async fn tail(&self, kind: Kind, after: Option<String>, limit: usize) -> Result<Map, KernelError>;

    /// As primary, waits until the secondaries of a kind that were heard lately have applied the entry `index`, at most
    /// `patience`: one that is not there is not waited for. Answers how many have it.
    ///
    /// # Errors
    /// When this node is not the active one.
    async fn await_secondaries(
        &self,
        kind: Kind,
        index: u64,
        patience: Duration,
    ) -> Result<usize, KernelError>;

    /// Has the primary answer `question`, which is made and read by kernels alone: it goes to the primary's active node
    /// ([`Kernel::answer_secondary`](crate::Kernel::answer_secondary)) over the link of a performance secondary. Asked on
    /// the active node only. Never sent twice once it may have arrived: it may write.
    ///
    /// # Errors
    /// [`KernelError::NoPrimary`] when it cannot be reached and nothing was done there,
    /// [`arca_raft_storage::ProposeError::OutcomeUnknown`] when the link broke while the answer was waited for. What the
    /// primary's kernel has against the question is in the answer.
    async fn ask_primary(&self, question: Bytes) -> Result<Bytes, KernelError>;

    /// Waits until the primary's entry `index` is applied here, at most `patience`. False if it is not in time. An index that
    /// is none of the primary's log, as it was seen before another cluster became the primary, is not waited for once the
    /// states were compared.
    ///
    /// # Errors
    /// When this cluster is nobody's performance secondary.
    async fn await_primary(&self, index: u64, patience: Duration) -> Result<bool, KernelError>;

    /// The newest entry of the primary that is applied here, for `X-Vault-Index`; none when nothing is known of it.
    fn primary_index(&self) -> Option<u64>;

    /// Whether what the primary writes comes here as it is written. While states are compared it does not, for as long as
    /// that takes.
    fn is_current(&self) -> bool;
}
