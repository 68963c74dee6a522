//! Models of the seams, for tests and the simulation: a disk that loses, tears, reorders, refuses and lies.
//!
//! Everything is deterministic from a seed. Read next: [`ModelVfs`].

mod disk;
mod net;
mod rng;
mod vfs;

pub use disk::CrashPolicy;
pub use net::{Kind, Listener, Meddler, Message, ModelNet, Weather};
pub use vfs::{ModelVfs, Operation};
