//! HCL 1 and JSON configuration text, with the line of every value: policies and server configuration files.
//!
//! Text that starts with `{` is JSON, anything else is HCL 1 (the language of Vault's own files, not HCL 2). Both
//! give the same tree; [`Body::blocks`] hides whether a label was written as `path "a" {}` or nested in JSON.
//! No error quotes a value: files hold secrets. Arbitrary input never panics and never exceeds [`Limits`].
//! Read next: [`tree`] for what comes out, [`native`] for the grammar.

mod cursor;
mod json;
mod native;
pub mod tree;

use cursor::Cursor;
pub use tree::{Block, Body, Item, Value};

/// The text is not what was expected, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What was expected. Never quotes a value.
    pub message: String,
}

impl ParseError {
    /// An error about something already parsed: the column is not known any more and counts as 1.
    pub fn at_line(line: usize, message: impl Into<String>) -> Self {
        Self { line, column: 1, message: message.into() }
    }
}

/// How much text is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of text.
    pub bytes: usize,
    /// Objects and lists inside each other.
    pub depth: usize,
    /// Items and list elements in all.
    pub items: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 1 << 20, depth: 64, items: 1 << 17 }
    }
}

/// Parses `text` within the default [`Limits`].
///
/// # Errors
/// When it is neither HCL 1 nor JSON, or over a limit.
pub fn parse(text: &str) -> Result<Body, ParseError> {
    parse_within(text, Limits::default())
}

/// Parses `text` within `limits`.
///
/// # Errors
/// As [`parse`].
pub fn parse_within(text: &str, limits: Limits) -> Result<Body, ParseError> {
    if text.len() > limits.bytes {
        return Err(ParseError::at_line(1, format!("the text is over {} bytes long", limits.bytes)));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let cursor = Cursor::new(text, limits);
    if text.trim_start().starts_with('{') { json::parse(cursor) } else { native::parse(cursor) }
}
