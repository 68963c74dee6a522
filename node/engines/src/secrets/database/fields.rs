//! Fields as the requests of this engine have them, and names.

use arca_engine_api::{EngineError, Fields, Page, Request};
use serde_json::Value;

/// Longest name of a connection or role.
const NAME_MAX: usize = 255;

/// A list of statements: a JSON list, or one text, which is one statement whatever it holds.
pub(super) fn statements(fields: Fields<'_>, name: &str) -> Result<Option<Vec<String>>, EngineError> {
    match fields.raw(name) {
        Some(Value::String(text)) if text.is_empty() => Ok(Some(Vec::new())),
        Some(Value::String(text)) => Ok(Some(vec![text.clone()])),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>();
            texts.map(Some).ok_or_else(|| wrong(name))
        }
        Some(_) => Err(wrong(name)),
        None if fields.is_null(name) => Ok(Some(Vec::new())),
        None => Ok(None),
    }
}

fn wrong(name: &str) -> EngineError {
    EngineError::Invalid(format!(
        "field validation failed: error converting input for field {name:?}: expected a list of strings"
    ))
}

/// Whether a connection or a role may have that name.
pub(super) fn check_name(name: &str) -> Result<(), EngineError> {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let is_good = name.len() <= NAME_MAX
        && name.starts_with(is_word)
        && name.ends_with(is_word)
        && name.chars().all(|letter| is_word(letter) || matches!(letter, '-' | '.'));
    if is_good {
        return Ok(());
    }
    Err(EngineError::invalid(
        "a name is made of letters, digits, '_', '-' and '.', and neither begins nor ends with '-' or '.'",
    ))
}

/// `after` and `limit` of a listing. A limit that is empty or not above zero stands for none.
pub(super) fn page(request: &Request) -> Result<Page, EngineError> {
    let fields = request.fields();
    let is_said = fields.string("limit")?.is_some_and(|text| !text.is_empty());
    let limit = if is_said { fields.integer("limit")? } else { None };
    Ok(Page {
        after: fields.string("after")?.filter(|after| !after.is_empty()),
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0),
    })
}

/// Whether `text` is what `pattern` describes, in which `*` stands for anything.
pub(super) fn is_glob_match(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some((_, tail)) = rest.split_once(piece) else { return false };
        rest = tail;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, want) in [
            ("*", "x", true),
            ("r*", "role", true),
            ("r*", "a", false),
            ("*e", "role", true),
            ("r*l*", "role", true),
            ("r*x*", "role", false),
            ("role", "role", true),
            ("role", "roles", false),
            ("a*a", "a", false),
            ("", "x", false),
        ] {
            assert_eq!(is_glob_match(pattern, text), want, "{pattern:?} {text:?}");
        }
    }
}
