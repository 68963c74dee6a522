//! JSON, read into the same tree, with lines. Strict: no comments, no trailing commas.

use crate::cursor::Cursor;
use crate::{Body, Item, ParseError, Value};

pub(crate) fn parse(mut cursor: Cursor<'_>) -> Result<Body, ParseError> {
    skip_blanks(&mut cursor);
    let body = object(&mut cursor)?;
    skip_blanks(&mut cursor);
    if cursor.peek().is_some() {
        return Err(cursor.expected("nothing after the last }"));
    }
    Ok(body)
}

fn skip_blanks(cursor: &mut Cursor<'_>) {
    cursor.take_while(|letter| matches!(letter, ' ' | '\t' | '\r' | '\n'));
}

fn object(cursor: &mut Cursor<'_>) -> Result<Body, ParseError> {
    cursor.enter()?;
    cursor.bump();
    let mut body = Body::default();
    skip_blanks(cursor);
    if cursor.take("}") {
        cursor.leave();
        return Ok(body);
    }
    loop {
        skip_blanks(cursor);
        cursor.count_item()?;
        let line = cursor.line();
        if cursor.peek() != Some('"') {
            return Err(cursor.expected("a quoted name"));
        }
        let name = string(cursor)?;
        skip_blanks(cursor);
        if !cursor.take(":") {
            return Err(cursor.expected("a colon after a name"));
        }
        body.items.push(Item { name, labels: Vec::new(), value: value(cursor)?, line });
        skip_blanks(cursor);
        if cursor.take("}") {
            cursor.leave();
            return Ok(body);
        }
        if !cursor.take(",") {
            return Err(cursor.expected("a comma or } in an object"));
        }
    }
}

fn value(cursor: &mut Cursor<'_>) -> Result<Value, ParseError> {
    skip_blanks(cursor);
    match cursor.peek() {
        Some('"') => string(cursor).map(Value::Text),
        Some('{') => object(cursor).map(Value::Object),
        Some('[') => list(cursor).map(Value::List),
        Some(first) if first.is_ascii_digit() || first == '-' => number(cursor),
        _ => {
            let start = cursor.clone();
            match cursor.take_while(|letter| letter.is_ascii_alphanumeric()) {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                "null" => Ok(Value::Null),
                _ => Err(start.expected("a value")),
            }
        }
    }
}

fn list(cursor: &mut Cursor<'_>) -> Result<Vec<Value>, ParseError> {
    cursor.enter()?;
    cursor.bump();
    let mut values = Vec::new();
    skip_blanks(cursor);
    if cursor.take("]") {
        cursor.leave();
        return Ok(values);
    }
    loop {
        cursor.count_item()?;
        values.push(value(cursor)?);
        skip_blanks(cursor);
        if cursor.take("]") {
            cursor.leave();
            return Ok(values);
        }
        if !cursor.take(",") {
            return Err(cursor.expected("a comma or ] in a list"));
        }
    }
}

fn number(cursor: &mut Cursor<'_>) -> Result<Value, ParseError> {
    let start = cursor.clone();
    let text = cursor.take_while(|letter| letter.is_alphanumeric() || matches!(letter, '.' | '-' | '+'));
    let bad = || start.error("this is not a number");
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_padded =
        digits.starts_with('0') && digits.chars().nth(1).is_some_and(|second| second.is_ascii_digit());
    if is_padded || !digits.starts_with(|first: char| first.is_ascii_digit()) || digits.ends_with('.') {
        return Err(bad());
    }
    if let Ok(whole) = text.parse() {
        return Ok(Value::Int(whole));
    }
    text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float).ok_or_else(bad)
}

fn string(cursor: &mut Cursor<'_>) -> Result<String, ParseError> {
    let start = cursor.clone();
    cursor.bump();
    let mut text = String::new();
    loop {
        match cursor.peek() {
            None => return Err(start.error("this string does not end")),
            Some('"') => {
                cursor.bump();
                return Ok(text);
            }
            Some('\\') => {
                cursor.bump();
                text.push(escape(cursor)?);
            }
            Some(control) if control < ' ' => return Err(cursor.error("a control character must be escaped")),
            Some(other) => {
                text.push(other);
                cursor.bump();
            }
        }
    }
}

fn escape(cursor: &mut Cursor<'_>) -> Result<char, ParseError> {
    let start = cursor.clone();
    let bad = || start.error("this escape is not one of JSON's");
    let high = match cursor.bump() {
        Some('b') => return Ok('\u{8}'),
        Some('f') => return Ok('\u{c}'),
        Some('n') => return Ok('\n'),
        Some('r') => return Ok('\r'),
        Some('t') => return Ok('\t'),
        Some(same @ ('\\' | '"' | '/')) => return Ok(same),
        Some('u') => cursor.hex(4)?,
        _ => return Err(bad()),
    };
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).ok_or_else(bad);
    }
    if !cursor.take("\\u") {
        return Err(bad());
    }
    let low = cursor.hex(4)?;
    if !(0xdc00..0xe000).contains(&low) {
        return Err(bad());
    }
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)).ok_or_else(bad)
}
