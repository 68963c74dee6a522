//! One block of the configuration, read setting by setting: each getter marks its name as known; what nobody asked for
//! is warned about with its line, a wrong value is an error with file, line and what was expected. Several files make
//! one section: of a repeated setting the last one counts, blocks add up.

use std::cell::RefCell;
use std::path::Path;
use std::time::Duration;

use arca_engine_api::Map;
use arca_engine_api::fields::parse_duration;
use arca_hcl::{Body, Item, Value};
use serde_json::json;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {message}", .line.map_or_else(String::new, |line| format!(":{line}")))]
pub struct ConfigError {
    /// File.
    pub file: String,
    /// Line, from 1; none when it is about the file as a whole.
    pub line: Option<usize>,
    /// What was expected.
    pub message: String,
}

/// A line of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a Path,
    /// From 1.
    pub(crate) line: usize,
}

impl Place<'_> {
    pub(crate) fn error(self, message: impl Into<String>) -> ConfigError {
        ConfigError { file: self.file.display().to_string(), line: Some(self.line), message: message.into() }
    }
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Duration,
    Flag,
    List,
    Number,
    Text,
}

/// See the module's header.
pub(crate) struct Section<'a> {
    name: String,
    parts: Vec<(&'a Path, &'a Body)>,
    /// Where it begins.
    pub(crate) place: Place<'a>,
    known: RefCell<Vec<&'static str>>,
    warnings: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// What all files say at their top level.
    pub(crate) fn top(files: &'a [(&'a Path, Body)]) -> Self {
        let parts: Vec<_> = files.iter().map(|(path, body)| (*path, body)).collect();
        let file = parts.first().map_or(Path::new("-dev"), |(path, _)| path);
        Self {
            name: String::new(),
            parts,
            place: Place { file, line: 1 },
            known: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    fn item(&self, name: &'static str) -> Option<(&'a Value, Place<'a>)> {
        self.known.borrow_mut().push(name);
        self.parts.iter().rev().find_map(|(file, body)| {
            let item = body.attribute(name).filter(|item| item.value != Value::Null)?;
            Some((&item.value, Place { file, line: item.line }))
        })
    }

    fn expected(&self, name: &str, place: Place<'_>, what: &str) -> ConfigError {
        place.error(format!("{}{name}: expected {what}", self.prefix()))
    }

    fn prefix(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!("{} ", self.name) }
    }

    /// A wrong value of the setting `name`, for errors about its meaning.
    pub(crate) fn wrong(&self, name: &str, what: &str) -> ConfigError {
        self.expected(name, self.place_of(name), what)
    }

    /// A string; numbers and booleans are taken by their text.
    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        let Some((value, place)) = self.item(name) else { return Ok(None) };
        scalar(value).map(Some).ok_or_else(|| self.expected(name, place, "a string"))
    }

    /// A string that says something.
    pub(crate) fn filled(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    /// A boolean, also as text.
    pub(crate) fn flag(&self, name: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some((value, place)) = self.item(name) else { return Ok(None) };
        match scalar(value).map(|text| text.to_ascii_lowercase()).as_deref() {
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0" | "") => Ok(Some(false)),
            _ => Err(self.expected(name, place, "true or false")),
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&self, name: &'static str) -> Result<Option<u64>, ConfigError> {
        let Some((value, place)) = self.item(name) else { return Ok(None) };
        let number = scalar(value).and_then(|text| text.trim().parse().ok());
        number.map(Some).ok_or_else(|| self.expected(name, place, "a whole number"))
    }

    /// Seconds, or text such as `"30s"`.
    pub(crate) fn duration(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        let Some((value, place)) = self.item(name) else { return Ok(None) };
        let span = scalar(value).and_then(|text| parse_duration(&text));
        span.map(Some).ok_or_else(|| self.expected(name, place, "a duration such as \"30s\" or \"768h\""))
    }

    /// A list of strings, or comma-separated text.
    pub(crate) fn list(&self, name: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some((value, place)) = self.item(name) else { return Ok(None) };
        let items = match value {
            Value::List(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>(),
            other => scalar(other).map(|text| text.split(',').map(|item| item.trim().to_owned()).collect()),
        };
        items.map(Some).ok_or_else(|| self.expected(name, place, "a list of strings"))
    }

    /// Where a setting is, or the section if it is not there.
    pub(crate) fn place_of(&self, name: &str) -> Place<'a> {
        let found = self
            .parts
            .iter()
            .rev()
            .find_map(|(file, body)| body.attribute(name).map(|item| Place { file, line: item.line }));
        found.unwrap_or(self.place)
    }

    /// Blocks of that name with one label each.
    pub(crate) fn labelled(&self, name: &'static str) -> Result<Vec<(String, Section<'a>)>, ConfigError> {
        self.blocks(name, 1)
    }

    /// Blocks of that name without labels.
    pub(crate) fn plain(&self, name: &'static str) -> Result<Vec<Section<'a>>, ConfigError> {
        Ok(self.blocks(name, 0)?.into_iter().map(|(_, section)| section).collect())
    }

    fn blocks(&self, name: &'static str, labels: usize) -> Result<Vec<(String, Section<'a>)>, ConfigError> {
        self.known.borrow_mut().push(name);
        let mut found = Vec::new();
        for (file, body) in &self.parts {
            let blocks =
                body.blocks(name, labels).map_err(|err| Place { file, line: err.line }.error(err.message))?;
            for block in blocks {
                let label = block.labels.first().copied().unwrap_or_default().to_owned();
                let section = Section {
                    name: if labels == 0 { name.to_owned() } else { format!("{name} {label:?}") },
                    parts: vec![(file, block.body)],
                    place: Place { file, line: block.line },
                    known: RefCell::default(),
                    warnings: RefCell::default(),
                };
                found.push((label, section));
            }
        }
        Ok(found)
    }

    /// Settings of other servers that are checked and do nothing here: each one set is warned about, unless it is
    /// off.
    pub(crate) fn idle(&self, settings: &[(&'static str, Kind)]) -> Result<(), ConfigError> {
        for (name, kind) in settings {
            let is_set = match kind {
                Kind::Duration => self.duration(name)?.is_some(),
                Kind::Flag => self.flag(name)?.unwrap_or_default(),
                Kind::List => self.list(name)?.is_some_and(|list| !list.is_empty()),
                Kind::Number => self.number(name)?.is_some(),
                Kind::Text => self.filled(name)?.is_some(),
            };
            if is_set {
                self.warn(name, "it has no effect in this version");
            }
        }
        Ok(())
    }

    /// Everything in it, whatever its name, with the file it is in.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&'a Path, &'a Item)> {
        self.parts.iter().flat_map(|(file, body)| body.items.iter().map(move |item| (*file, item)))
    }

    /// Something to tell the operator about a setting.
    pub(crate) fn warn(&self, name: &str, what: &str) {
        let Place { file, line } = self.place_of(name);
        let text = format!("{}:{line}: setting {}{name:?}: {what}", file.display(), self.prefix());
        self.warnings.borrow_mut().push(text);
    }

    /// Everything to warn about, also what nobody asked for.
    pub(crate) fn warnings(self) -> Vec<String> {
        let known = self.known.borrow();
        let mut warnings = self.warnings.take();
        for (file, body) in &self.parts {
            for item in body.items.iter().filter(|item| !known.contains(&item.name.as_str())) {
                let (file, prefix) = (file.display(), self.prefix());
                warnings.push(format!(
                    "{file}:{}: unknown or unsupported setting {prefix}{:?}: it has no effect",
                    item.line, item.name
                ));
            }
        }
        warnings
    }

    /// The settings that were asked for so far, as they are written.
    pub(crate) fn as_written(&self) -> Map {
        let known = self.known.borrow();
        let items = self.parts.iter().flat_map(|(_, body)| &body.items);
        let known = items.filter(|item| known.contains(&item.name.as_str()));
        known.filter_map(|item| Some((item.name.clone(), plain_json(&item.value)?))).collect()
    }
}

fn plain_json(value: &Value) -> Option<serde_json::Value> {
    match value {
        Value::Bool(flag) => Some(json!(flag)),
        Value::Int(number) => Some(json!(number)),
        Value::Float(number) => Some(json!(number)),
        Value::Text(text) => Some(json!(text)),
        Value::List(items) => Some(json!(items.iter().filter_map(plain_json).collect::<Vec<_>>())),
        Value::Null | Value::Object(_) => None,
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
