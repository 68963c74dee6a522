//! Names and ids as auth methods take and make them.

use arca_engine_api::{EngineError, Entropy, EntropyError, Fields, Page, fold_name};

/// Longest name of a user or a role, bytes.
const NAME_MAX: usize = 512;

/// The one form of a user's or a role's name: lower case. None when it is no name: ASCII letters, digits and `_`, with
/// `-` and `.` in between.
///
/// What counts failed logins, what finds the record and what the token says all use this form, so that no spelling of a
/// name passes by what holds for another (CVE-2025-6004). In a path it is there before rules are asked, since the tables of
/// these methods say that it folds (CVE-2026-89322); here it is for names in bodies, and so that no record is ever looked
/// for by another form, whoever calls.
#[must_use]
pub(super) fn name(text: &str) -> Option<String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let ends_well =
        bytes.first().is_some_and(|byte| is_word(*byte)) && bytes.last().is_some_and(|byte| is_word(*byte));
    let is_name = ends_well
        && text.len() <= NAME_MAX
        && bytes.iter().all(|byte| is_word(*byte) || matches!(byte, b'-' | b'.'));
    is_name.then(|| fold_name(text))
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

/// Whether `text` is what `pattern` says, `*` standing for any text. Takes time in proportion to both lengths at worst.
#[must_use]
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use arca_engine_api::MountView;

    use super::*;

    /// Methods whose names are in one form, [`name`].
    const FOLDING: [&str; 5] = ["approle", "jwt", "kubernetes", "oidc", "userpass"];

    /// CVE-2026-89322: such a method says so of every path with a name in it, so that rules see the form that the handler
    /// acts on; no other engine does, for there names that differ in case are different ones.
    #[test]
    fn cve_2026_89322_paths_fold_where_handlers_do_and_nowhere_else() {
        for kind in crate::all() {
            let engine = (kind.make)(&MountView::default()).unwrap();
            let table = engine.routes();
            for route in table.routes() {
                let spelled = |name: &str| {
                    let segments = route.pattern.split('/');
                    let shown = segments.map(|segment| if segment.starts_with('{') { name } else { segment });
                    shown.collect::<Vec<_>>().join("/")
                };
                let folds = FOLDING.contains(&kind.name) && route.pattern.contains('{');
                let want = folds.then(|| spelled("bob"));
                assert_eq!(table.one_form(&spelled("BoB")), want, "{}: {}", kind.name, route.pattern);
                assert_eq!(table.one_form(&spelled("bob")), None, "{}: {}", kind.name, route.pattern);
            }
        }
    }

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

    #[track_caller]
    fn check_glob(pattern: &str, text: &str, want: bool) {
        assert_eq!(glob(pattern, text), want, "{pattern} {text}");
    }

    #[test]
    fn a_star_is_any_text() {
        check_glob("a*", "abc", true);
        check_glob("a*", "zabc", false);
        check_glob("*", "", true);
        check_glob("a", "a", true);
        check_glob("a", "ab", false);
        check_glob("b*c", "bzzc", true);
        check_glob("b*c", "bc", true);
        check_glob("b*c", "b", false);
        check_glob("ab*ba", "aba", false);
        check_glob("*a*b*", "xaxbx", true);
        check_glob("*a*b*", "xbxax", false);
        check_glob("*.x", "a.x.x", true);
        check_glob("", "", true);
        check_glob("", "a", false);
    }
}
