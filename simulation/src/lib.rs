//! Whole clusters from one seed: members with simulated network, disks and clocks, clients that remember what they
//! saw, faults, and invariants that are checked all the time.
//!
//! Everything runs in one thread, on a clock that stands still while anything is to do, and every choice is drawn from
//! the seed: the same seed gives the same run, to the last message ([`trace`]).
//! Read next: [`run`] for the course of a run, [`cluster`] for what is simulated, [`invariants`] for what must hold.

pub mod bugs;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod credentials;
pub mod disk;
pub mod elsewhere;
pub mod invariants;
pub mod machine;
pub mod many;
pub mod midway;
pub mod net;
pub mod operator;
pub mod pipe;
pub mod plan;
pub mod processes;
pub mod regions;
pub mod run;
pub mod shrink;
pub mod system;
pub mod trace;
pub mod world;
