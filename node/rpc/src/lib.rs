//! gRPC between the nodes of one cluster, by mutual TLS under a CA the cluster makes for itself, and between clusters that
//! follow each other ([`replication`]).
//!
//! What it defends against: anybody who reaches the cluster port without a certificate of this cluster's CA, members
//! that were removed, and members that pretend to be another one. Raft payloads are opaque here.
//! Read next: [`identity`] for certificates, [`server`] for what comes in, [`transport`] for what goes out.

mod accept;
mod ca;
mod connections;
mod door;
pub mod forward;
pub mod identity;
mod io;
pub mod replication;
pub mod server;
pub mod tls;
pub mod transport;

#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub(crate) mod proto {
    tonic::include_proto!("arca.node.v1");
}

#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub(crate) mod replication_proto {
    tonic::include_proto!("arca.replication.v1");
}

pub use arca_replication::Replicated;
pub use forward::{ForwardError, ForwardedRequest, ForwardedResponse};
pub use identity::{Authority, IdentityError, NodeIdentity, NodeKey, is_statement_of};
pub use server::{Announced, Gatekeeper, NodeFacts, RpcServer, ServerParts};
pub use transport::{Dial, GrpcTransport, PeerFacts, TcpDial};
