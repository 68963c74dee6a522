//! Turns answers into text. Pure: every function takes values and gives a string.

pub mod json;
pub mod plan;
pub mod secret;
pub mod table;
pub mod yaml;
