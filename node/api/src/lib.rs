//! HTTP taken off requests and put on answers: listeners, TLS, limits, paths, status codes.
//!
//! Nothing is decided here but form. The kernel decides; while it is sealed, [`system`] answers the few questions a
//! sealed node may. Canonicalisation happens once, in [`path`], and everything behind it sees only that form.
//! Read next: [`handler`] for a request's way in and out, [`status`] for the one table of status codes.

pub mod body;
mod body_room;
pub mod client_addr;
mod closed;
mod coming;
mod connection;
mod cors;
mod finishing;
pub mod handler;
#[cfg(test)]
mod handler_tests;
mod health;
mod lifecycle;
mod path;
mod query;
mod render;
pub mod request_ids;
pub mod response_headers;
pub mod server;
#[cfg(test)]
mod server_tests;
mod status;
pub mod system;
#[cfg(test)]
mod testing;
pub mod tls;
#[cfg(test)]
mod tls_tests;

pub use closed::ClosedPaths;
pub use handler::{Api, RawBody, RawRequest};
pub use request_ids::RequestIds;
pub use server::{Listener, ListenerOptions};
pub use system::{
    Health, InitRequest, InitResponse, JoinRequest, LeaderStatus, SealStatus, System, SystemError,
    UnsealRequest,
};
pub use tls::{CertificateStore, TlsError, TlsOptions};
