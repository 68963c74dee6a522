//! One block of the file, read setting by setting: each getter marks its name as known; what nobody asked for is
//! warned about with its line, a wrong value is an error with file, line and what was expected.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use arca_engine_api::fields::parse_duration;
use arca_hcl::{Block, Body, Item, Value};

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ConfigError {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What was expected.
    pub message: String,
}

/// See the module's header.
pub(crate) struct Section<'a> {
    file: &'a Path,
    name: String,
    body: &'a Body,
    /// Line of the block, from 1.
    pub(crate) line: usize,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    pub(crate) fn new(file: &'a Path, name: &str, body: &'a Body, line: usize) -> Self {
        Self { file, name: name.to_owned(), body, line, known: RefCell::default() }
    }

    pub(crate) fn error(&self, line: usize, message: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.display().to_string(), line, message: message.into() }
    }

    fn item(&self, name: &'static str) -> Option<(&'a Value, usize)> {
        self.known.borrow_mut().push(name);
        self.body
            .attribute(name)
            .filter(|item| item.value != Value::Null)
            .map(|item| (&item.value, item.line))
    }

    fn expected(&self, name: &str, line: usize, what: &str) -> ConfigError {
        self.error(line, format!("{}{name}: expected {what}", self.prefix()))
    }

    fn prefix(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!("{} ", self.name) }
    }

    /// A string; numbers and booleans are taken by their text.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let Some((value, line)) = self.item(name) else { return Ok(None) };
        scalar(value).map(Some).ok_or_else(|| self.expected(name, line, "a string"))
    }

    /// A boolean, also as text.
    pub(crate) fn flag(&self, name: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some((value, line)) = self.item(name) else { return Ok(None) };
        match scalar(value).unwrap_or_default().to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Some(true)),
            "false" | "0" | "" => Ok(Some(false)),
            _ => Err(self.expected(name, line, "true or false")),
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&self, name: &'static str) -> Result<Option<u64>, ConfigError> {
        let Some((value, line)) = self.item(name) else { return Ok(None) };
        let number = scalar(value).and_then(|text| text.trim().parse().ok());
        number.map(Some).ok_or_else(|| self.expected(name, line, "a whole number"))
    }

    /// Seconds, or text such as `"30s"`.
    pub(crate) fn duration(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let Some((value, line)) = self.item(name) else { return Ok(None) };
        let span = scalar(value).and_then(|text| parse_duration(&text));
        span.map(Some).ok_or_else(|| self.expected(name, line, "a duration such as \"30s\" or \"768h\""))
    }

    /// A list of strings, or comma-separated text; with the line.
    pub(crate) fn list(&self, name: &'static str) -> Result<Option<(Vec<String>, usize)>, ConfigError> {
        let Some((value, line)) = self.item(name) else { return Ok(None) };
        let items = match value {
            Value::List(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>(),
            other => scalar(other).map(|text| text.split(',').map(|item| item.trim().to_owned()).collect()),
        };
        items.map(|items| Some((items, line))).ok_or_else(|| self.expected(name, line, "a list of strings"))
    }

    /// Line of a setting, for errors about its meaning.
    pub(crate) fn line_of(&self, name: &str) -> usize {
        self.body.attribute(name).map_or(self.line, |item| item.line)
    }

    /// Blocks of that name with one label each.
    pub(crate) fn labelled(&self, name: &'static str) -> Result<Vec<(String, Section<'a>)>, ConfigError> {
        let blocks = self.blocks(name, 1)?;
        let file = self.file;
        Ok(blocks
            .into_iter()
            .map(|block| {
                let label = block.labels.first().copied().unwrap_or_default().to_owned();
                let section = Section::new(file, &format!("{name} {label:?}"), block.body, block.line);
                (label, section)
            })
            .collect())
    }

    /// Blocks of that name without labels.
    pub(crate) fn plain(&self, name: &'static str) -> Result<Vec<Section<'a>>, ConfigError> {
        let file = self.file;
        Ok(self
            .blocks(name, 0)?
            .into_iter()
            .map(|block| Section::new(file, name, block.body, block.line))
            .collect())
    }

    /// A warning about a setting.
    pub(crate) fn warning(&self, name: &str, message: &str) -> String {
        self.warning_at(self.line_of(name), message)
    }

    /// A warning about a line.
    pub(crate) fn warning_at(&self, line: usize, message: &str) -> String {
        format!("{}:{line}: {message}", self.file.display())
    }

    /// Everything in this block, whatever its name.
    pub(crate) fn items(&self) -> &'a [Item] {
        &self.body.items
    }

    fn blocks(&self, name: &'static str, labels: usize) -> Result<Vec<Block<'a>>, ConfigError> {
        self.known.borrow_mut().push(name);
        self.body.blocks(name, labels).map_err(|err| self.error(err.line, err.message))
    }

    /// Settings that are accepted for other servers' files and mean nothing here.
    pub(crate) fn ignore(&self, names: &[&'static str]) {
        self.known.borrow_mut().extend(names);
    }

    /// Warnings about everything nobody asked for.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let known = self.known.borrow();
        let strangers = self.body.items.iter().filter(|item| !known.contains(&item.name.as_str()));
        strangers
            .map(|item| {
                let (file, prefix) = (self.file.display(), self.prefix());
                format!(
                    "{file}:{}: unknown or unsupported setting {prefix}{:?}: it has no effect",
                    item.line, item.name
                )
            })
            .collect()
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Text(text) => Some(text.clone()),
        Value::List(_) | Value::Null | Value::Object(_) => None,
    }
}
