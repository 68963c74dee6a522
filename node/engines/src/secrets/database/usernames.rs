//! Names that may go into a statement.
//!
//! A name that is made here is made of what callers bring along (display names, names of roles). Statements quote it, and
//! [`super::statements`] escapes it by the quotes it stands in; besides, no such name leaves here with a character that
//! ends a quotation, begins an escape or a variable, or is none to look at. The name of a user who is there already is the
//! operator's, and whatever the database allows.

use arca_engine_api::{Ctx, EngineError, Request};

use super::adapter::Kind;
use super::template::{Facts, Template};

/// Who asks, as templates see it.
pub(super) fn generate(
    ctx: &Ctx<'_>,
    request: &Request,
    kind: &Kind,
    template: &str,
    role_name: &str,
) -> Result<String, EngineError> {
    let facts = Facts {
        display_name: request.caller.as_deref().map_or("", |caller| &caller.display_name),
        role_name,
        now: ctx.clock.now(),
        entropy: ctx.entropy,
    };
    let template = Template::parse(if template.is_empty() { kind.username_template } else { template })?;
    let username = template.render(&facts)?;
    check_made(&username, kind.username_max)?;
    Ok(username)
}

/// Whether there may be a user of that name.
///
/// # Errors
/// When it is empty, longer than the database takes, or could not be filled into a statement.
pub(super) fn check(username: &str, length_max: usize) -> Result<(), EngineError> {
    if username.is_empty() {
        return Err(EngineError::invalid("the username is empty"));
    }
    if username.len() > length_max {
        return Err(EngineError::Invalid(format!(
            "the username has more than {length_max} characters, which is all this database takes"
        )));
    }
    if username.chars().any(char::is_control) {
        return Err(EngineError::invalid("the username holds a control character"));
    }
    Ok(())
}

/// Whether a user may be made with that name.
fn check_made(username: &str, length_max: usize) -> Result<(), EngineError> {
    check(username, length_max)?;
    if !username.chars().all(is_safe) {
        return Err(EngineError::invalid(
            "the username may hold letters (a-z, A-Z), digits, blanks and - _ . @ : + = ~ # | / only",
        ));
    }
    Ok(())
}

fn is_safe(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || " -_.@:+=~#|/".contains(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_a_safe_alphabet() {
        for good in ["v-token-r1-x-1", "jane.doe@example.org", "auth0|12", "ns:sa", "a b"] {
            assert!(check_made(good, 63).is_ok(), "{good}");
        }
        for bad in
            ["", "a\"b", "a'b", "a`b", "a\\b", "a;b", "a$b", "a\nb", "a\0b", "é", "a{b", "a%b", "\u{202e}x"]
        {
            assert!(check_made(bad, 63).is_err(), "{bad:?}");
        }
        assert!(check(&"x".repeat(64), 63).is_err());
    }

    #[test]
    fn users_who_are_there_have_any_name() {
        for good in ["svc$app", "é1", "a'b", "a\"b", "a\\b", "a`b", "a;b", "a%b", "v-token-r1"] {
            assert!(check(good, 63).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "a\0b", "a\u{85}b"] {
            assert!(check(bad, 63).is_err(), "{bad:?}");
        }
    }
}
