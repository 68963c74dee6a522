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
pub mod dev_certificates;
pub mod disk;
mod figures;
mod generate_root;
mod host;
mod hygiene;
mod identity;
mod init;
mod join;
#[cfg(test)]
mod join_tests;
mod joiner;
pub mod logging;
mod measured_vfs;
pub mod node;
pub mod node_file;
mod nonces;
mod notify;
mod outside;
pub mod recover;
mod rekey;
mod replication;
mod root_attempt;
mod root_keys;
pub mod server;
mod superseded;
pub mod system;
mod telemetry;
#[cfg(test)]
mod testing;
mod unsealed;
pub mod world;
