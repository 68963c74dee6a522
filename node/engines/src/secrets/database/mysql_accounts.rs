//! What statements of MySQL's say by themselves of the accounts they make: for connections that may not look for whom there
//! is. Only statements that do what they say count: a procedure, a prepared statement or anything else that runs others may
//! have made any account, and so may what is not understood here.

use std::collections::BTreeSet;

use zeroize::Zeroizing;

/// The host of an account that is named without one.
const ANY_HOST: &str = "%";

/// A piece of a statement.
enum Token {
    Quoted(String),
    Sign(char),
    Word(String),
}

impl Token {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Quoted(text) | Self::Word(text) => Some(text),
            Self::Sign(_) => None,
        }
    }
}

/// The hosts for which these statements make the user. None if they do not say so plainly.
pub(super) fn hosts(queries: &[Zeroizing<String>], username: &str) -> Option<Vec<String>> {
    let mut hosts = BTreeSet::new();
    for query in queries {
        let tokens = plain(query)?;
        for (at, token) in tokens.iter().enumerate() {
            let is_behind_at = at.checked_sub(1).is_some_and(|before| is_at_sign(tokens.get(before)));
            if token.text() != Some(username) || is_behind_at {
                continue;
            }
            if is_at_sign(tokens.get(at + 1)) {
                hosts.insert(tokens.get(at + 2)?.text()?.to_owned());
            } else if makes_users(&tokens) || may_make_users(&tokens, at) {
                hosts.insert(ANY_HOST.to_owned());
            }
        }
    }
    (!hosts.is_empty()).then(|| hosts.into_iter().collect())
}

/// Whether these statements, of which the server has said no to the last one, cannot have made the user.
pub(super) fn have_made_nobody(queries: &[Zeroizing<String>], username: &str) -> bool {
    let Some((refused, before)) = queries.split_last() else { return true };
    let is_elsewhere = |query: &str| !query.contains(username) && plain(query).is_some();
    // Of several accounts some may be made, though another one is not.
    let is_one_creation = plain(refused).is_some_and(|tokens| {
        makes_users(&tokens) && !tokens.iter().any(|token| matches!(token, Token::Sign(',')))
    });
    before.iter().all(|query| is_elsewhere(query)) && (is_elsewhere(refused) || is_one_creation)
}

fn is_at_sign(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::Sign('@')))
}

fn words(tokens: &[Token]) -> [String; 2] {
    [0, 1].map(|at| match tokens.get(at) {
        Some(Token::Word(word)) => word.to_ascii_uppercase(),
        _ => String::new(),
    })
}

fn makes_users(tokens: &[Token]) -> bool {
    words(tokens) == ["CREATE", "USER"]
}

/// Whether the name at `at` is one whose user a grant makes if there is none: MariaDB, and MySQL up to 5.7, do so where a
/// password stands behind it. It is of a database if there is a dot.
fn may_make_users(tokens: &[Token], at: usize) -> bool {
    let is_database = matches!(tokens.get(at + 1), Some(Token::Word(word)) if word.starts_with('.'));
    let [first, _] = words(tokens);
    first == "GRANT" && !is_database
}

/// The statement in pieces, if it is one that does what it says.
fn plain(query: &str) -> Option<Vec<Token>> {
    let tokens = tokens(query)?;
    let is_plain = match words(&tokens).each_ref().map(String::as_str) {
        ["ALTER", "DATABASE" | "SCHEMA" | "TABLE" | "USER"]
        | ["CREATE", "DATABASE" | "ROLE" | "SCHEMA" | "TABLE" | "USER"]
        | ["DELETE" | "FLUSH" | "GRANT" | "INSERT" | "REVOKE" | "SELECT" | "UPDATE" | "USE", _] => true,
        // MariaDB's SET STATEMENT runs one.
        ["SET", what] => what != "STATEMENT",
        _ => false,
    };
    is_plain.then_some(tokens)
}

/// None if there is a comment, which may be one that the server runs, or an escape, which means what the session says.
fn tokens(query: &str) -> Option<Vec<Token>> {
    let mut letters = query.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' | '#' => return None,
            '-' if letters.peek() == Some(&'-') => return None,
            '/' if letters.peek() == Some(&'*') => return None,
            '\'' | '"' | '`' => tokens.push(Token::Quoted(quoted(letter, &mut letters)?)),
            letter if letter.is_whitespace() => {}
            letter if is_word(letter) => {
                let mut word = letter.to_string();
                while let Some(next) = letters.next_if(|next| is_word(*next)) {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
            sign => tokens.push(Token::Sign(sign)),
        }
    }
    Some(tokens)
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || matches!(letter, '_' | '$' | '.')
}

fn quoted(mark: char, letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut text = String::new();
    loop {
        match letters.next()? {
            '\\' => return None,
            letter if letter == mark && letters.next_if_eq(&mark).is_none() => return Some(text),
            letter => text.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queries(texts: &[&str]) -> Vec<Zeroizing<String>> {
        texts.iter().map(|text| Zeroizing::new((*text).to_owned())).collect()
    }

    #[test]
    fn hosts_are_what_plain_statements_say() {
        let check = |texts: &[&str], want: &[&str]| {
            let found = hosts(&queries(texts), "u-1").unwrap_or_default();
            assert_eq!(found, want, "{texts:?}");
        };
        check(&["CREATE USER 'u-1'@'%' IDENTIFIED BY 'x'", "GRANT SELECT ON *.* TO 'u-1'@'%'"], &["%"]);
        check(&["create user `u-1` @ \"10.0.0.1\""], &["10.0.0.1"]);
        check(&["CREATE USER IF NOT EXISTS 'u-1'@localhost, 'u-1'@'::1'"], &["::1", "localhost"]);
        check(&["CREATE USER 'u-1' IDENTIFIED BY 'a''b'"], &["%"]);
        check(&["CREATE DATABASE `u-1`", "GRANT ALL ON `u-1`.* TO 'u-1'@'h'"], &["h"]);
        check(&["SET @a = 1", "CREATE USER 'x'@'u-1', 'u-1'@'h'"], &["h"]);
        let grant = "GRANT SELECT ON app.* TO 'u-1' IDENTIFIED BY 'x'";
        check(&["CREATE USER 'u-1'@'localhost' IDENTIFIED BY 'x'", grant], &["%", "localhost"]);
        // What may have made others, or is not understood.
        check(&["CREATE USER 'u-1'@'h'", "CALL more()"], &[]);
        check(&["CREATE USER 'u-1'@'h'", "SET STATEMENT a=1 FOR CREATE USER 'u-1'@'i'"], &[]);
        check(&["/*!50000 CREATE USER 'u-1'@'h' */"], &[]);
        check(&["CREATE USER 'u-1'@'h' -- x"], &[]);
        check(&["CREATE USER 'u-1'@'h' COMMENT 'a\\'b'"], &[]);
        check(&["CREATE USER 'u-1'@'h' COMMENT 'a"], &[]);
        check(&["CREATE OR REPLACE USER 'u-1'@'h'"], &[]);
        check(&["CREATE USER 'u-1'@"], &[]);
        check(&["CREATE USER 'other'@'h'"], &[]);
        check(&[], &[]);
    }

    #[test]
    fn a_refusal_leaves_nobody_only_where_nothing_else_can_have_made_the_user() {
        for (texts, want) in [
            (&["CREATE USER 'u-1'@'h' IDENTIFIED BY 'x'"][..], true),
            (&["SET @a = 1", "CREATE USER 'u-1'@'h'"], true),
            (&["CREATE USER 'other'@'h'", "CREATE USER 'u-1'@'h'"], true),
            (&["CREATE DATABASE x"], true),
            (&["CREATE USER 'u-1'@'h', 'other'@'h'"], false),
            (&["CREATE USER 'u-1'@'h'", "GRANT SELECT ON x.* TO 'u-1'@'h'"], false),
            (&["CREATE USER 'u-1'@'h'", "CREATE USER 'u-1'@'i'"], false),
            (&["SET @name = 'u-1'", "CREATE USER 'u-1'@'h'"], false),
            (&["GRANT SELECT ON x.* TO 'u-1'@'h' IDENTIFIED BY 'x'"], false),
            (&["CALL mk()"], false),
            (&["CALL mk()", "CREATE USER 'u-1'@'h'"], false),
        ] {
            assert_eq!(have_made_nobody(&queries(texts), "u-1"), want, "{texts:?}");
        }
    }
}
