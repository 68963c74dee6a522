//! A place in the text: looks at characters one at a time, counts lines, items and depth.

use crate::{Limits, ParseError};

/// A place in the text. Copies are cheap and independent.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
    depth: usize,
    items: usize,
    limits: Limits,
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(text: &'a str, limits: Limits) -> Self {
        Self { rest: text, line: 1, column: 1, depth: 0, items: 0, limits }
    }

    pub(crate) const fn line(&self) -> usize {
        self.line
    }

    pub(crate) const fn rest(&self) -> &'a str {
        self.rest
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    pub(crate) fn starts_with(&self, text: &str) -> bool {
        self.rest.starts_with(text)
    }

    pub(crate) fn bump(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        if next == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(next)
    }

    /// Passes `text` if it comes next.
    pub(crate) fn take(&mut self, text: &str) -> bool {
        let is_next = self.starts_with(text);
        if is_next {
            for _ in text.chars() {
                self.bump();
            }
        }
        is_next
    }

    /// Passes characters while `wanted`, and gives them back.
    pub(crate) fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let before = self.rest;
        while self.peek().is_some_and(&wanted) {
            self.bump();
        }
        before.strip_suffix(self.rest).unwrap_or("")
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError { line: self.line, column: self.column, message: message.into() }
    }

    /// What comes next, without quoting it.
    pub(crate) fn found(&self) -> &'static str {
        match self.peek() {
            None => "the end of the text",
            Some('{') => "{",
            Some('}') => "}",
            Some('[') => "[",
            Some(']') => "]",
            Some('=') => "=",
            Some(',') => "a comma",
            Some(':') => "a colon",
            Some('"') => "a string",
            Some(other) if other.is_ascii_digit() => "a number",
            Some(other) if other.is_alphabetic() || other == '_' => "a bare word",
            Some(_) => "an unexpected character",
        }
    }

    pub(crate) fn expected(&self, what: &str) -> ParseError {
        self.error(format!("expected {what}, found {}", self.found()))
    }

    /// Counts an item or element.
    pub(crate) fn count_item(&mut self) -> Result<(), ParseError> {
        self.items += 1;
        if self.items > self.limits.items {
            return Err(self.error(format!("more than {} items", self.limits.items)));
        }
        Ok(())
    }

    /// Counts an object or list being entered.
    pub(crate) fn enter(&mut self) -> Result<(), ParseError> {
        self.depth += 1;
        if self.depth > self.limits.depth {
            return Err(self.error(format!("more than {} levels deep", self.limits.depth)));
        }
        Ok(())
    }

    pub(crate) const fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    /// Exactly `count` hex digits as a number.
    pub(crate) fn hex(&mut self, count: usize) -> Result<u32, ParseError> {
        let mut code = 0;
        for _ in 0..count {
            let digit = self.peek().and_then(|digit| digit.to_digit(16));
            let digit = digit.ok_or_else(|| self.error(format!("expected {count} hex digits")))?;
            code = code * 16 + digit;
            self.bump();
        }
        Ok(code)
    }
}
