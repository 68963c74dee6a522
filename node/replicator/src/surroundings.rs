//! What the replicator needs of the node around it: the way to other members, to other clusters, and certificates.
//!
//! A node has gRPC under mutual TLS behind it, and keys that nobody chose; the simulation a network of its own and keys
//! that follow from its seed. Time and randomness are seams of their own ([`crate::ReplicatorParts`]).

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use arca_kernel::KernelError;
use arca_kernel::replication::UpstreamRecord;
use arca_raft_storage::Member;
#[cfg(doc)]
use arca_replication::Refusal;
use arca_replication::{Follower, LinkError, PrimaryLink, PrimarySide, Replicated, Unserved};
use async_trait::async_trait;
use bytes::Bytes;
use zeroize::Zeroizing;

/// The CA of a primary for its secondaries.
#[derive(Clone)]
pub struct Authority {
    /// Of the primary and all that follow it.
    pub replication_id: String,
    /// Its certificate, DER. Public.
    pub certificate: Vec<u8>,
    /// Its key, PKCS#8. Never leaves the cluster, and is stored behind the barrier alone.
    pub key: Zeroizing<Vec<u8>>,
}

impl Debug for Authority {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.replication_id)
    }
}

/// A key that a secondary made, for a certificate to come.
pub struct NewKey {
    /// PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
    /// Asks a CA for a certificate.
    pub signing_request: Vec<u8>,
}

impl Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey")
    }
}

/// Where a token can be shown, and to whom alone.
#[derive(Clone, Copy, Debug)]
pub struct TokenDoor<'a> {
    /// Of the primary and all that follow it.
    pub replication_id: &'a str,
    /// Certificate of its CA, DER.
    pub ca: &'a [u8],
    /// Cluster addresses of its nodes.
    pub addresses: &'a [String],
}

/// What this node serves to secondaries of one primary.
pub struct Served {
    /// Whose certificates count.
    pub authority: Authority,
    /// What answers.
    pub side: Arc<dyn PrimarySide>,
}

impl Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Served({})", self.authority.replication_id)
    }
}

/// See the file's header.
#[async_trait]
pub trait Surroundings: Debug + Send + Sync {
    /// Has `leader` answer what a secondary asked this member. [`Unserved::NotActive`] if it cannot be reached within
    /// `limit`: it may have answered all the same. What is asked to be done is then [`Refusal::Unanswered`].
    async fn carry(&self, leader: &Member, question: Replicated, limit: Duration) -> Result<Bytes, Unserved>;

    /// The newest entry applied at a member, if it answers.
    async fn applied_at(&self, member: &Member) -> Option<u64>;

    /// Serves these to other clusters from now on, and ends what is open of others.
    ///
    /// # Errors
    /// A text, when a CA cannot be used. What was served before goes on then.
    fn serve(&self, served: Vec<Served>) -> Result<(), String>;

    /// Ends what is open of a secondary.
    fn end(&self, replication_id: &str, secondary_id: &str);

    /// The way to the primary of `replication_id`, for who `upstream` says that this secondary is.
    ///
    /// # Errors
    /// When the record cannot be used.
    fn link(
        &self,
        replication_id: &str,
        upstream: &UpstreamRecord,
    ) -> Result<Arc<dyn PrimaryLink>, KernelError>;

    /// Shows an activation token.
    ///
    /// # Errors
    /// See [`LinkError`].
    async fn activate(&self, door: TokenDoor<'_>, request: Bytes) -> Result<Bytes, LinkError>;

    /// A new CA.
    ///
    /// # Errors
    /// When it cannot be made.
    fn new_authority(&self, replication_id: &str) -> Result<Authority, KernelError>;

    /// Signs the key of `signing_request` for a secondary. Names in the request are ignored: the CA decides who is who.
    ///
    /// # Errors
    /// A text, when the request is malformed or its signature is wrong.
    fn issue(
        &self,
        authority: &Authority,
        signing_request: &[u8],
        follower: &Follower,
    ) -> Result<Vec<u8>, String>;

    /// A new key of this secondary's own.
    ///
    /// # Errors
    /// When it cannot be made.
    fn new_key(&self) -> Result<NewKey, KernelError>;
}
