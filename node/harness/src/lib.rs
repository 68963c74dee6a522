//! Real clusters of real processes on free loopback ports, with TLS: for the quick start, the cluster tests and the
//! measurements. It speaks to them as any client would, through the SDK.
//! Read next: [`cluster`].

#![allow(clippy::disallowed_methods)] // Real processes live in real time.

pub mod certificates;
pub mod cluster;
pub mod failover;
pub mod leases;
pub mod load;
mod node;
pub mod raw;
pub mod regions;
pub mod stale;
pub mod trial;

pub use cluster::{Cluster, ClusterOptions, HarnessError, Joining};
pub use node::{Node, free_port};
pub use rustix::process::Signal;
