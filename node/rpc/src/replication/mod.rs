//! gRPC between clusters: the primary's side and its secondaries', on the cluster port, by mutual TLS under a CA that each
//! primary makes for its secondaries alone.
//!
//! What it defends against: anybody without a certificate of that CA (who may show an activation token, and do nothing
//! else), secondaries that were revoked, and members' connections being taken for secondaries' or the other way round:
//! which of the two a connection is, is said in its first message and decides which CA it is checked against.
//! Read next: [`authority`] for certificates, [`door`] for how connections are told apart, [`service`] for what comes
//! in, [`link`] for what goes out.

pub mod authority;
pub mod door;
pub(crate) mod gate;
pub mod link;
pub(crate) mod service;
pub(crate) mod tls;

pub use arca_replication::{Follower, Greeting, GreetingNode, PrimarySide, Unserved, Welcome};
pub use authority::ReplicationAuthority;
pub use door::{ReplicationDoor, ServedReplication};
pub use link::{GrpcLink, LinkIdentity, activate};
