//! What two clusters say to each other beside [`Link`]'s calls, and the primary's side of it: who asks, who is there, and
//! what a node answers whoever was verified. `node/rpc` carries it over gRPC, the simulation over its own network.

use async_trait::async_trait;
use bytes::Bytes;

use crate::link::{Call, Link, LinkError, PayloadStream, Refusal};

/// Who a secondary's certificate says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Follower {
    /// The name that the primary's operator gave it.
    pub secondary_id: String,
    /// Names its activation.
    pub activation: String,
}

/// Why a call is not served here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unserved {
    /// Only the active node can, and this one is not: another one is asked.
    NotActive,
    /// Nobody will.
    Refused(Refusal),
}

impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a secondary's node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Its `node_id`.
    pub node_name: String,
    /// Its cluster address.
    pub cluster_addr: String,
    /// Its API address.
    pub api_addr: String,
    /// Its version.
    pub version: String,
    /// Its cluster.
    pub cluster_id: String,
    /// Its role's epoch.
    pub epoch: u64,
    /// Its wall clock, milliseconds since 1970.
    pub clock_ms: u64,
    /// How long the answer to its last greeting took, milliseconds; zero for the first.
    pub took_ms: u64,
}

/// A node of a primary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GreetingNode {
    /// Its `node_id`.
    pub node_name: String,
    /// Its cluster address.
    pub cluster_addr: String,
    /// Its API address.
    pub api_addr: String,
    /// Whether it leads.
    pub is_active: bool,
}

/// What a primary's node answers to a [`Greeting`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Every node of its cluster.
    pub nodes: Vec<GreetingNode>,
    /// What the cluster is, as its status says.
    pub mode: String,
    /// Its role's epoch.
    pub epoch: u64,
    /// Whether it takes no writes any more, because a newer epoch was heard of.
    pub is_fenced: bool,
    /// Its version.
    pub version: String,
    /// Its cluster.
    pub cluster_id: String,
    /// Its wall clock, milliseconds since 1970.
    pub clock_ms: u64,
    /// Whether it knows a leader.
    pub has_leader: bool,
}

/// The node's side of what secondaries ask.
#[async_trait]
pub trait PrimarySide: Send + Sync {
    /// A token is shown. What it says is checked by nobody before.
    async fn activate(&self, request: Bytes) -> Result<Bytes, Unserved>;
    /// Refuses a secondary whose activation is not the one that counts, or that was revoked. A node that may only not have
    /// heard of it yet is not the one to say so.
    async fn admit(&self, follower: &Follower) -> Result<(), Unserved>;
    /// One question, one answer.
    async fn call(&self, follower: &Follower, call: Call, payload: Bytes) -> Result<Bytes, Unserved>;
    /// One question, a stream of answers.
    async fn stream(
        &self,
        follower: &Follower,
        call: Call,
        payload: Bytes,
    ) -> Result<PayloadStream, Unserved>;
    /// A secondary's node says that it is there.
    fn greet(&self, follower: &Follower, greeting: Greeting) -> Welcome;
}

/// What a secondary cluster asked a standby, on its way to the active node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicated {
    /// Of the primary that was asked.
    pub replication_id: String,
    /// Who asks, and what; `None` for one that shows an activation token.
    pub asked: Option<(Follower, Call)>,
    /// The question.
    pub payload: Bytes,
}

/// A [`Link`] to a primary that also says who is there.
#[async_trait]
pub trait PrimaryLink: Link {
    /// Says who asks, to the node that answers first; one that knows no leader counts if none of the others does.
    ///
    /// # Errors
    /// See [`LinkError`].
    async fn greet(&self, greeting: &Greeting) -> Result<Welcome, LinkError>;

    /// Uses these addresses from now on.
    fn learn(&self, addresses: Vec<String>);
}
