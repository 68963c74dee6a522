//! Names and ids as auth methods take and make them.

use arca_engine_api::{EngineError, Entropy, EntropyError, Fields, Page};

/// Longest name of a user or a role, bytes.
const NAME_MAX: usize = 512;

/// The one form of a user's or a role's name: lower case. None when it is no name: ASCII letters, digits and `_`, with
/// `-` and `.` in between.
///
/// What counts failed logins, what finds the record and what the token says all use this form, so that no spelling of a
/// name passes by what holds for another (CVE-2025-6004).
#[must_use]
pub(super) fn name(text: &str) -> Option<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let ends_well =
        bytes.first().is_some_and(|byte| is_word(*byte)) && bytes.last().is_some_and(|byte| is_word(*byte));
    let is_name = ends_well
        && text.len() <= NAME_MAX
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'-' | b'.'));
    is_name.then(|| text.to_ascii_lowercase())
}

/// A random id in the usual form of a UUID.
pub(super) fn uuid(entropy: &dyn Entropy) -> Result<String, EntropyError> {
    let mut bytes = [0_u8; 16];
    entropy.fill(&mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut rest = hex.as_str();
    let parts = [8, 4, 4, 4, 12].map(|len| {
        let (part, left) = rest.split_at_checked(len).unwrap_or((rest, ""));
        rest = left;
        part
    });
    Ok(parts.join("-"))
}

/// The part of a list that is wanted: `after` and `limit`.
pub(super) fn page(fields: Fields<'_>) -> Result<Page, EngineError> {
    let limit =
        fields.integer("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    Ok(Page { after: fields.string("after")?.filter(|after| !after.is_empty()), limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        assert_eq!(name(text).as_deref(), want, "{text:?}");
    }

    #[test]
    fn a_name_has_one_form() {
        check("Bob", Some("bob"));
        check("a", Some("a"));
        check("a.b-c_d", Some("a.b-c_d"));
        for text in
            ["", " bob", "bob ", "-a", "a-", ".", "..", "a/b", "a b", "a@b", "\u{130}", "b\u{e4}", "a\0"]
        {
            check(text, None);
        }
        check(&"a".repeat(NAME_MAX), Some(&"a".repeat(NAME_MAX)));
        check(&"a".repeat(NAME_MAX + 1), None);
    }
}
