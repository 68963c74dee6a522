//! The unsealed heart of a node: every request runs through [`pipeline`], and nothing else calls an engine.
//!
//! A [`Kernel`] exists only while the node is unsealed. It reads and writes through [`store`] and [`tx`], learns of
//! roles from the node, and reaches the cluster through [`ports`]. It knows neither HTTP nor openraft nor any engine
//! by name.
//! Read next: [`pipeline`] for a request's road, [`tx`] for what a request reads and writes.

pub mod answer;
mod builtin;
pub mod cache;
pub mod error;
pub mod ids;
pub mod incoming;
pub mod kernel;
pub mod mounts;
pub mod namespaces;
pub mod policy;
pub mod ports;
pub mod rfc3339;
pub mod router;
pub mod store;
pub mod testing;
pub mod tokens;
pub mod tx;
pub mod watch;

pub use answer::{Answer, AnswerAuth, AnswerBody, Shape, WrapInfo};
pub use error::KernelError;
pub use incoming::{Body, Incoming};
pub use kernel::{Kernel, KernelConfig, KernelParts};
