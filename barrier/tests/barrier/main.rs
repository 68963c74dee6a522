//! The barrier as its users see it: formats, round trips, and everything that must be refused.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod golden;
mod keyring;
mod names;
mod parsers;
mod shamir;
mod testing;
mod unseal;
mod values;
