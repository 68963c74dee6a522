//! The unsealed heart of a node: every request runs through [`pipeline`], and nothing else hands one to an engine.
//!
//! A [`Kernel`] exists only while the node is unsealed. It reads and writes through [`store`] and [`tx`], learns of
//! roles from the node, and reaches the cluster through [`ports`]. It knows neither HTTP nor openraft nor any engine
//! by name.
//! Read next: [`pipeline`] for a request's road, [`tx`] for what a request reads and writes.

mod admission;
pub mod answer;
pub mod audit;
pub mod autopilot;
mod builtin;
pub mod cache;
mod calling;
mod certificates;
mod contention;
pub mod error;
mod grants;
mod help;
mod housekeeping;
mod identify;
mod identity;
pub mod ids;
mod in_flight;
pub mod incoming;
mod index_header;
mod initial;
mod intents;
pub mod kernel;
pub mod key_keeper;
pub mod leases;
pub mod lockout;
pub mod mounts;
pub mod namespaces;
mod openapi;
pub mod password_policy;
pub mod pipeline;
mod places;
pub mod policy;
pub mod ports;
mod recording;
mod removal;
pub mod replication;
pub mod root_keys;
pub mod router;
pub mod store;
mod sys;
pub mod testing;
mod ticks;
pub mod tokens;
pub mod tx;
mod walk;
pub mod watch;
mod wrapping;

pub use answer::{Answer, AnswerAuth, AnswerBody, Shape, WrapInfo};
pub use arca_engine_api::rfc3339;
pub use error::KernelError;
pub use incoming::{Body, Incoming};
pub use initial::{NewCluster, cluster_name, initial_state};
pub use kernel::{Kernel, KernelConfig, KernelParts, Outside};
pub use sys::CorsConfig;
