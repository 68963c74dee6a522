//! HCL 1, as its original Go implementation reads it.
//!
//! Newlines are mere blanks, so several attributes may share a line; a comma after an item is optional. A name is a
//! bare word or a quoted string; a value is never a bare word (but `true` and `false`).

use crate::cursor::Cursor;
use crate::{Body, Item, ParseError, Value};

pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Body, ParseError> {
    let body = items(&mut cursor, Until::End)?;
    Ok(body)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Brace,
    End,
}

fn items(cursor: &mut Cursor<'_>, until: Until) -> Result<Body, ParseError> {
    let mut body = Body::default();
    loop {
        skip_blanks(cursor)?;
        match (cursor.peek(), until) {
            (None, Until::End) => return Ok(body),
            (None, Until::Brace) => return Err(cursor.expected("} at the end of an object")),
            (Some('}'), Until::Brace) => {
                cursor.bump();
                return Ok(body);
            }
            _ => body.items.push(item(cursor)?),
        }
        skip_blanks(cursor)?;
        cursor.take(",");
    }
}

fn item(cursor: &mut Cursor<'_>) -> Result<Item, ParseError> {
    cursor.count_item()?;
    let line = cursor.line();
    let name = key(cursor)?;
    let mut labels = Vec::new();
    loop {
        skip_blanks(cursor)?;
        match cursor.peek() {
            Some('=') if labels.is_empty() => {
                cursor.bump();
                skip_blanks(cursor)?;
                return Ok(Item { name, labels, value: value(cursor)?, line });
            }
            Some('=') => return Err(cursor.error("expected { after a label, found =")),
            Some('{') => return Ok(Item { name, labels, value: value(cursor)?, line }),
            _ => {
                cursor.count_item()?;
                labels.push(key(cursor).map_err(|err| ParseError {
                    message: err.message.replace("a name", "= or { after a name"),
                    ..err
                })?);
            }
        }
    }
}

fn key(cursor: &mut Cursor<'_>) -> Result<String, ParseError> {
    match cursor.peek() {
        Some('"') => string(cursor),
        Some(first) if is_word_start(first) => Ok(word(cursor).to_owned()),
        _ => Err(cursor.expected("a name")),
    }
}

fn is_word_start(letter: char) -> bool {
    letter == '_' || letter.is_alphabetic()
}

fn word<'a>(cursor: &mut Cursor<'a>) -> &'a str {
    cursor.take_while(|letter| is_word_start(letter) || letter.is_numeric() || letter == '-' || letter == '.')
}

fn value(cursor: &mut Cursor<'_>) -> Result<Value, ParseError> {
    match cursor.peek() {
        Some('"') => string(cursor).map(Value::Text),
        Some('<') => heredoc(cursor).map(Value::Text),
        Some('[') => list(cursor).map(Value::List),
        Some('{') => {
            cursor.enter()?;
            cursor.bump();
            let body = items(cursor, Until::Brace)?;
            cursor.leave();
            Ok(Value::Object(body))
        }
        Some(first) if first.is_ascii_digit() || first == '-' || first == '.' => number(cursor),
        Some(first) if is_word_start(first) => {
            let before = cursor.clone();
            match word(cursor) {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(before.error("a bare word is not a value, put it in quotes")),
            }
        }
        _ => Err(cursor.expected("a value")),
    }
}

fn list(cursor: &mut Cursor<'_>) -> Result<Vec<Value>, ParseError> {
    cursor.enter()?;
    cursor.bump();
    let mut values = Vec::new();
    loop {
        skip_blanks(cursor)?;
        if cursor.take("]") {
            cursor.leave();
            return Ok(values);
        }
        cursor.count_item()?;
        values.push(value(cursor)?);
        skip_blanks(cursor)?;
        if !cursor.take(",") && cursor.peek() != Some(']') {
            return Err(cursor.expected("a comma or ] in a list"));
        }
    }
}

fn number(cursor: &mut Cursor<'_>) -> Result<Value, ParseError> {
    let start = cursor.clone();
    let mut previous = ' ';
    let is_hex =
        start.rest().trim_start_matches('-').get(..2).is_some_and(|head| head.eq_ignore_ascii_case("0x"));
    while let Some(next) = cursor.peek() {
        let is_sign =
            matches!(next, '-' | '+') && (previous == ' ' || (!is_hex && matches!(previous, 'e' | 'E')));
        if !(next.is_alphanumeric() || next == '.' || is_sign) {
            break;
        }
        previous = next;
        cursor.bump();
    }
    let text = start.rest().strip_suffix(cursor.rest()).unwrap_or("");
    number_value(text).ok_or_else(|| start.error("this is not a number"))
}

fn number_value(text: &str) -> Option<Value> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let radix = |digits: &str, radix| {
        let is_plain = digits.chars().all(|digit| digit.is_ascii_alphanumeric());
        is_plain.then(|| i64::from_str_radix(&format!("{sign}{digits}"), radix).ok())?.map(Value::Int)
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return radix(hex, 16);
    }
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if digits.bytes().all(|digit| digit.is_ascii_digit()) {
        let is_octal = digits.len() > 1 && digits.starts_with('0');
        return radix(digits, if is_octal { 8 } else { 10 });
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float)
}

fn string(cursor: &mut Cursor<'_>) -> Result<String, ParseError> {
    let start = cursor.clone();
    cursor.bump();
    let mut text = String::new();
    loop {
        match cursor.peek() {
            None | Some('\n') => return Err(start.error("this string does not end on its line")),
            Some('"') => {
                cursor.bump();
                return Ok(text);
            }
            Some('\\') => {
                cursor.bump();
                text.push(escape(cursor)?);
            }
            Some('$') if cursor.starts_with("${") => interpolation(&start, cursor, &mut text)?,
            Some(other) => {
                text.push(other);
                cursor.bump();
            }
        }
    }
}

/// `${…}` is kept as it stands; quotes inside it do not end the string.
fn interpolation(start: &Cursor<'_>, cursor: &mut Cursor<'_>, text: &mut String) -> Result<(), ParseError> {
    let mut depth = 0_usize;
    loop {
        let next = cursor.bump().ok_or_else(|| start.error("this string holds a ${ without its }"))?;
        text.push(next);
        match next {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return Ok(());
        }
    }
}

fn escape(cursor: &mut Cursor<'_>) -> Result<char, ParseError> {
    let start = cursor.clone();
    let bad = || start.error("this escape is not one of HCL's");
    let code = match cursor.bump() {
        Some('a') => return Ok('\u{7}'),
        Some('b') => return Ok('\u{8}'),
        Some('f') => return Ok('\u{c}'),
        Some('n') => return Ok('\n'),
        Some('r') => return Ok('\r'),
        Some('t') => return Ok('\t'),
        Some('v') => return Ok('\u{b}'),
        Some(same @ ('\\' | '"')) => return Ok(same),
        // A byte above 127 would not be a character; Go would make invalid UTF-8 of it.
        Some('x') => cursor.hex(2)?,
        Some('u') => cursor.hex(4)?,
        Some('U') => cursor.hex(8)?,
        Some(first @ '0'..='7') => {
            let mut code = first.to_digit(8).unwrap_or(0);
            for _ in 0..2 {
                code = code * 8 + cursor.bump().and_then(|digit| digit.to_digit(8)).ok_or_else(bad)?;
            }
            code
        }
        _ => return Err(bad()),
    };
    let is_byte = !matches!(start.peek(), Some('u' | 'U'));
    char::from_u32(code).filter(|_| !is_byte || code < 128).ok_or_else(bad)
}

fn heredoc(cursor: &mut Cursor<'_>) -> Result<String, ParseError> {
    let start = cursor.clone();
    if !cursor.take("<<") {
        return Err(cursor.expected("a value"));
    }
    let is_indented = cursor.take("-");
    let marker = cursor.take_while(|letter| letter.is_alphanumeric() || letter == '_');
    cursor.take("\r");
    if marker.is_empty() || !cursor.take("\n") {
        return Err(start.error("expected a word and the end of the line after <<"));
    }
    let mut lines = Vec::new();
    loop {
        if cursor.peek().is_none() {
            return Err(start.error("this heredoc has no end marker on a line of its own"));
        }
        let line = cursor.take_while(|letter| letter != '\n');
        if line.trim() == marker {
            let indent =
                line.split_at_checked(line.len() - line.trim_start().len()).map_or("", |(head, _)| head);
            return Ok(heredoc_text(&lines, if is_indented { indent } else { "" }));
        }
        lines.push(line);
        cursor.bump();
    }
}

/// Takes the end marker's indentation off each line, unless some line has less.
fn heredoc_text(lines: &[&str], indent: &str) -> String {
    let indent = if lines.iter().all(|line| line.starts_with(indent)) { indent } else { "" };
    lines.iter().flat_map(|line| [line.strip_prefix(indent).unwrap_or(line), "\n"]).collect()
}

fn skip_blanks(cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
    loop {
        cursor.take_while(|letter| matches!(letter, ' ' | '\t' | '\r' | '\n'));
        if cursor.starts_with("#") || cursor.starts_with("//") {
            cursor.take_while(|letter| letter != '\n');
        } else if cursor.starts_with("/*") {
            let start = cursor.clone();
            cursor.take("/*");
            while !cursor.take("*/") {
                cursor.bump().ok_or_else(|| start.error("this comment does not end"))?;
            }
        } else {
            return Ok(());
        }
    }
}
