//! What a parsed text is: items in the order they were written, each with its line.
//!
//! The tree keeps what was written, duplicates included; what a duplicate means is for the caller to decide
//! ([`Body::duplicate`]). Lookups take exact names.

use crate::ParseError;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A number with a fraction or exponent, or one too large for an integer. Always finite.
    Float(f64),
    /// A whole number.
    Int(i64),
    /// `[…]`.
    List(Vec<Value>),
    /// JSON's `null`.
    Null,
    /// `{…}`.
    Object(Body),
    /// A quoted string or heredoc.
    Text(String),
}

impl Value {
    /// What kind of value it is, for errors.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Float(_) | Self::Int(_) => "a number",
            Self::List(_) => "a list",
            Self::Null => "null",
            Self::Object(_) => "an object",
            Self::Text(_) => "a string",
        }
    }

    /// The string, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The object, if it is one.
    #[must_use]
    pub const fn as_object(&self) -> Option<&Body> {
        if let Self::Object(body) = self { Some(body) } else { None }
    }

    /// The elements, if it is a list.
    #[must_use]
    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::List(items) = self { Some(items) } else { None }
    }
}

/// `key = value`, or `key "label" { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The name. May be the empty string if written so (`"" = 1`).
    pub name: String,
    /// What stands between the name and the block: empty for attributes.
    pub labels: Vec<String>,
    /// The value; an object for blocks.
    pub value: Value,
    /// Line of the name, from 1.
    pub line: usize,
}

/// Items in the order they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    /// The items.
    pub items: Vec<Item>,
}

/// A labelled block, however it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Block<'a> {
    /// As many labels as were asked for.
    pub labels: Vec<&'a str>,
    /// What is inside.
    pub body: &'a Body,
    /// Line where it begins.
    pub line: usize,
}

impl Body {
    /// The last attribute of that name, as HCL reads repeated ones.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&Item> {
        self.items.iter().rev().find(|item| item.name == name && item.labels.is_empty())
    }

    /// The items of that name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Item> {
        self.items.iter().filter(move |item| item.name == name)
    }

    /// The first item whose name is not in `known`.
    #[must_use]
    pub fn unknown(&self, known: &[&str]) -> Option<&Item> {
        self.items.iter().find(|item| !known.contains(&item.name.as_str()))
    }

    /// The first item that repeats an earlier name and labels.
    #[must_use]
    pub fn duplicate(&self) -> Option<&Item> {
        let mut seen = std::collections::BTreeSet::new();
        self.items.iter().find(|item| !seen.insert((&item.name, &item.labels)))
    }

    /// Blocks of that name with `labels` labels each. A label may stand before the brace (`path "a" { }`), or be a
    /// key of an object (`{"path": {"a": { }}}`); a list of objects is a repeated block.
    ///
    /// # Errors
    /// When an item of that name has too many labels, or too few objects inside each other.
    pub fn blocks(&self, name: &str, labels: usize) -> Result<Vec<Block<'_>>, ParseError> {
        let mut found = Vec::new();
        for item in self.items.iter().filter(|item| item.name == name) {
            let given: Vec<_> = item.labels.iter().map(String::as_str).collect();
            if given.len() > labels {
                return Err(ParseError::at_line(
                    item.line,
                    format!("{name} takes {labels} label(s) before {{"),
                ));
            }
            expand(name, item.line, &item.value, given, labels, &mut found)?;
        }
        Ok(found)
    }
}

fn expand<'a>(
    name: &str,
    line: usize,
    value: &'a Value,
    given: Vec<&'a str>,
    labels: usize,
    found: &mut Vec<Block<'a>>,
) -> Result<(), ParseError> {
    match value {
        Value::List(values) => values
            .iter()
            .filter(|value| **value != Value::Null)
            .try_for_each(|value| expand(name, line, value, given.clone(), labels, found)),
        Value::Object(body) if given.len() == labels => {
            found.push(Block { labels: given, body, line });
            Ok(())
        }
        Value::Object(body) => body.items.iter().try_for_each(|item| {
            let mut longer = given.clone();
            longer.push(&item.name);
            longer.extend(item.labels.iter().map(String::as_str));
            if longer.len() > labels {
                return Err(ParseError::at_line(item.line, format!("{name} takes {labels} label(s)")));
            }
            expand(name, item.line, &item.value, longer, labels, found)
        }),
        other => {
            let wanted = if given.len() < labels { "a label and a block" } else { "a block" };
            Err(ParseError::at_line(line, format!("{name} needs {wanted}, found {}", other.kind())))
        }
    }
}
