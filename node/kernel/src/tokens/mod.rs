//! Tokens: who a caller is.

pub mod entry;

pub use entry::{NewToken, TokenEntry};
