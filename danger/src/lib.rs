//! Faults that can be planted in the product on purpose, so that the simulation can show that it finds each
//! of them.
//!
//! Where the right code stands, a branch asks [`is`]. Without the feature `danger_planted` that is a constant
//! `false`, and nothing of the branch is left in what is built; the server refuses to be built with it. With
//! it, at most one fault is planted in a process, once, before anything runs.
//! **Invariant:** no build that serves anybody has [`PLANTED`]. Read next: `simulation/README.md`, "Planted
//! bugs".

mod bug;
mod planted;

pub use bug::{Breaks, Bug};
#[cfg(feature = "danger_planted")]
pub use planted::plant;
pub use planted::{PLANTED, is};
