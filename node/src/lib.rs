//! The arca server: configuration, wiring and lifecycle. The binary is a thin shell around this library.
//!
//! Read next: [`server`] for start and stop, [`node`] for what a node is, [`unsealed`] for what runs once it has keys.

mod addresses;
pub mod audit_verify;
mod autopilot;
mod backup;
mod cluster;
#[cfg(test)]
mod cluster_tests;
pub mod config;
pub mod dev;
pub mod disk;
mod host;
mod hygiene;
mod identity;
pub mod dev_certificates;
mod init;
mod join;
pub mod logging;
pub mod node;
pub mod node_file;
pub mod recover;
#[cfg(test)]
mod join_tests;
mod joiner;
pub mod server;
pub mod system;
mod telemetry;
mod unsealed;
mod nonces;
mod notify;
pub mod world;
mod notify;
#[cfg(test)]
mod testing;
