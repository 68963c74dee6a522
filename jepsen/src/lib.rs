//! Real `arca` processes meet real faults, and what their clients saw is checked.
//!
//! This half is what needs no cluster. `SEMANTICS.md` says what an answer means, and [`outcome`] is that
//! table as a function. [`history`] records what clients did, [`edn`] writes the same for other checkers.
//! [`models`] say what is right, [`checker`] searches for an explanation where one has to be searched for,
//! and [`report`] puts a run on a page. **Invariant:** a verdict of `unknown` is never a pass.

pub mod checker;
pub mod edn;
pub mod history;
pub mod models;
pub mod outcome;
pub mod report;
