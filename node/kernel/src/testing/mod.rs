//! What kernel tests stand on: a replica in memory with real conflict checks, a clock that moves when told, a
//! seeded generator, a cluster that only takes notes, and an engine simple enough to reason about.
//! **Never** part of a running node.

pub mod cluster;
pub mod engine;
pub mod outward;
pub mod pair;
pub mod replica;
pub mod replication;
pub mod world;

pub use cluster::NotingCluster;
pub use engine::{names_engine, notes_engine};
pub use outward::{Accounts, outward_engine};
pub use pair::Pair;
pub use replica::LocalReplica;
pub use replication::NotingReplication;
pub use world::{SeededEntropy, TestClock};
