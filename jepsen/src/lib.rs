//! Real `arca` processes meet real faults, and what their clients saw is checked.
//!
//! `SEMANTICS.md` says what an answer means, and [`outcome`] is that table as a function. [`history`] records
//! what clients did, [`edn`] writes the same for other checkers. [`models`] say what is right, [`checker`]
//! searches for an explanation where one has to be searched for, and [`report`] puts a run on a page.
//! **Invariant:** a verdict of `unknown` is never a pass.
//!
//! Each node runs in a network namespace of its own ([`netns`]), reaches the others through proxies that this
//! process runs ([`proxy`]), and keeps its data on a file system that can lose, refuse and change it
//! ([`disk`]).
//! A real database beside them is in [`postgres`].
//! Two such clusters, and what a promotion of one of them costs, are in [`promotion`].
//! Read next: [`cluster`], then [`faults`].

#![allow(clippy::disallowed_methods)] // Real processes live in real time.

pub mod checker;
pub mod clock;
pub mod cluster;
pub mod conclusion;
pub mod dice;
pub mod disk;
pub mod edn;
pub mod faults;
pub mod history;
pub mod leftovers;
pub mod models;
pub mod netns;
pub mod node;
pub mod outcome;
pub mod postgres;
pub mod process;
pub mod promotion;
pub mod proxy;
pub mod report;
pub mod run;
pub mod schedule;
pub mod workload;
