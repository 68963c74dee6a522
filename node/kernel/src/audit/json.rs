//! JSON straight into bytes. Whatever could break a line, a terminal or a reader's eye is escaped.

use std::fmt::Write as _;

/// A JSON text being written.
#[derive(Default)]
pub(super) struct Json {
    text: String,
    needs_comma: bool,
    is_after_key: bool,
}

impl Json {
    pub(super) fn after(prefix: &str) -> Self {
        let mut text = String::with_capacity(1_536);
        text.push_str(prefix);
        Self { text, ..Self::default() }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn begin_value(&mut self) {
        if !self.is_after_key && self.needs_comma {
            self.text.push(',');
        }
        self.is_after_key = false;
        self.needs_comma = true;
    }

    pub(super) fn open(&mut self, bracket: char) {
        self.begin_value();
        self.text.push(bracket);
        self.needs_comma = false;
    }

    pub(super) fn close(&mut self, bracket: char) {
        self.text.push(bracket);
        self.needs_comma = true;
    }

    pub(super) fn key(&mut self, name: &str) {
        self.string(name);
        self.text.push(':');
        self.is_after_key = true;
    }

    /// Opens an object under a key.
    pub(super) fn object(&mut self, name: &str) {
        self.key(name);
        self.open('{');
    }

    pub(super) fn string(&mut self, text: &str) {
        self.begin_value();
        self.text.push('"');
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
            self.text.push_str(text);
        } else {
            text.chars().for_each(|letter| self.escaped(letter));
        }
        self.text.push('"');
    }

    fn escaped(&mut self, letter: char) {
        match letter {
            '"' => self.text.push_str("\\\""),
            '\\' => self.text.push_str("\\\\"),
            '\n' => self.text.push_str("\\n"),
            '\r' => self.text.push_str("\\r"),
            '\t' => self.text.push_str("\\t"),
            // Controls (the 8-bit ones drive terminals too), line separators, and marks that reverse what is shown.
            '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => {
                let _infallible = write!(self.text, "\\u{:04x}", u32::from(letter));
            }
            other => self.text.push(other),
        }
    }

    /// A value that is JSON already: numbers, booleans, null, and texts known to need no escape.
    pub(super) fn plain(&mut self, value: impl std::fmt::Display) {
        self.begin_value();
        let _infallible = write!(self.text, "{value}");
    }

    /// A string under a key, left out when empty.
    pub(super) fn field(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.key(name);
            self.string(text);
        }
    }

    /// A list of strings under a key, left out when empty.
    pub(super) fn list(&mut self, name: &str, texts: &[String]) {
        if !texts.is_empty() {
            self.key(name);
            self.open('[');
            texts.iter().for_each(|text| self.string(text));
            self.close(']');
        }
    }
}
