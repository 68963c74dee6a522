//! YAML as scripts written for Vault's CLI expect it: sorted keys, lists not indented, texts of several lines as blocks.
//! **Invariant:** a text stays a text for readers of YAML 1.1 and 1.2 alike: what either takes for a number, a date, a
//! truth value or nothing stands in quotes. Numbers keep their digits.

use serde::Serialize;
use serde_json::Value;

/// YAML of anything that is JSON.
pub fn text(value: &impl Serialize) -> String {
    let mut out = String::new();
    // Values of this crate always serialize: their keys are strings.
    node(&serde_json::to_value(value).unwrap_or_default(), 0, &mut out);
    out
}

/// Writes a value that begins where a line does.
fn node(value: &Value, level: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, value)) in map.iter().enumerate() {
                indent(if index == 0 { 0 } else { level }, out);
                out.push_str(&scalar(key));
                out.push(':');
                entry(value, level, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for (index, value) in list.iter().enumerate() {
                indent(if index == 0 { 0 } else { level }, out);
                out.push('-');
                item(value, level, out);
            }
        }
        leaf => {
            out.push_str(&inline(leaf, level));
            out.push('\n');
        }
    }
}

/// Writes what stands behind a key.
fn entry(value: &Value, level: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            indent(level + 1, out);
            node(value, level + 1, out);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            indent(level, out);
            node(value, level, out);
        }
        _ => item(value, level, out),
    }
}

/// Writes what stands behind a dash; a map or list begins on the same line.
fn item(value: &Value, level: usize, out: &mut String) {
    out.push(' ');
    node(value, level + 1, out);
}

fn indent(level: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", level));
}

/// A value without parts.
fn inline(value: &Value, level: usize) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => block(text, level).unwrap_or_else(|| scalar(text)),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
    }
}

/// A text of several lines as a block, if no character or space in it would get lost.
fn block(text: &str, level: usize) -> Option<String> {
    let is_kept =
        |line: &str| !line.ends_with([' ', '\t']) && line.chars().all(|c| c == '\t' || is_printable(c));
    let body = text.trim_end_matches('\n');
    if !text.contains('\n')
        || body.is_empty()
        || body.starts_with([' ', '\t', '\n'])
        || !body.split('\n').all(is_kept)
    {
        return None;
    }
    let chomping = match text.len() - body.len() {
        0 => "-",
        1 => "",
        _ => "+",
    };
    let margin = "  ".repeat(level.max(1));
    let mut out = format!("|{chomping}");
    for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
        out.push('\n');
        if !line.is_empty() {
            out.push_str(&margin);
            out.push_str(line);
        }
    }
    Some(out)
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A text on one line: plain if nobody reads it as something else, quoted otherwise.
fn scalar(text: &str) -> String {
    if is_plain(text) && !is_ambiguous(text) {
        return text.to_owned();
    }
    if is_ambiguous(text) || !text.chars().all(is_printable) {
        return double_quoted(text);
    }
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether the grammar takes it as one text without quotes.
fn is_plain(text: &str) -> bool {
    let begins = |c: char| !c.is_whitespace() && !"-?:,[]{}#&*!|>'\"%@`".contains(c);
    text.starts_with(begins)
        // Three dots end a document.
        && !text.starts_with("...")
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && text.chars().all(is_printable)
}

/// Whether a reader would take it for something that is no text.
fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 12] = ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "<<"];
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_start_matches(['+', '-']);
    let is_special = matches!(digits, ".inf" | ".nan" | "=");
    let is_based = ["0x", "0o", "0b"].iter().any(|base| digits.starts_with(base));
    let is_number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b"_.:e+-".contains(&byte))
        // Versions and addresses have more dots than a number.
        && digits.matches('.').count() < 2;
    WORDS.contains(&lower.as_str()) || is_special || is_based || is_number || is_date(digits)
}

/// `2026-01-02`, with or without a time behind it.
fn is_date(text: &str) -> bool {
    let mut parts = text.splitn(3, '-');
    let is_digits = |part: Option<&str>, sizes: &[usize]| {
        part.is_some_and(|part| sizes.contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_digits(parts.next(), &[4])
        && is_digits(parts.next(), &[1, 2])
        && parts.next().is_some_and(|day| day.starts_with(|c: char| c.is_ascii_digit()))
}

fn double_quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(json: &str, want: Expect) {
        want.assert_eq(&text(&serde_json::from_str::<Value>(json).unwrap()));
    }

    #[test]
    fn numbers_texts_and_nothing() {
        check(
            r#"{"n":1,"neg":-2,"f":1.50,"big":12345678901234567890123,"s":"1","none":null,"l":[1,"a"],"e":[],"o":{}}"#,
            expect![[r#"
                big: 12345678901234567890123
                e: []
                f: 1.50
                l:
                - 1
                - a
                "n": 1
                neg: -2
                none: null
                o: {}
                s: "1"
            "#]],
        );
    }

    #[test]
    fn nests_as_vaults_does() {
        check(
            r#"{"a":[{"b":1,"c":[2,[3]]},{"d":{"e":null}}],"f":{"g":["h"]}}"#,
            expect![[r#"
                a:
                - b: 1
                  c:
                  - 2
                  - - 3
                - d:
                    e: null
                f:
                  g:
                  - h
            "#]],
        );
    }

    #[test]
    fn texts_stay_texts() {
        for text in "app 2.7.2 a:b it's a}b 495ec257-f2a8-6590 /v1/a 10.0.0.1 a,b ü 1h".split(' ') {
            assert_eq!(scalar(text), text);
        }
        let numbers =
            "1 +1 .5 1e3 1_000 017 0x1f -0o7 12:30:45 2026-01-01 2026-11-25T22:23:09.185Z .inf -.INF .NaN";
        let words = " ~ null True no ON y";
        for text in numbers.split(' ').chain(words.split(' ')).chain(["a\tb", "\u{1}"]) {
            assert!(scalar(text).starts_with('"'), "{text:?} is {}", scalar(text));
        }
        for text in [" a", "a ", "a: b", "a #b", "*x", "@x", "- a", "[x]", "\"x\"", "#", "a:", "... a"] {
            assert!(scalar(text).starts_with('\''), "{text:?} is {}", scalar(text));
        }
    }

    #[test]
    fn lines_are_blocks() {
        check(
            r#"{"p":"path \"a\" {\n\n  x\n}\n","q":["a\nb","c\n\n"],"r":" a\nb","s":"a \nb"}"#,
            expect![[r#"
                p: |
                  path "a" {

                    x
                  }
                q:
                - |-
                  a
                  b
                - |+
                  c

                r: " a\nb"
                s: "a \nb"
            "#]],
        );
    }

    fn json() -> impl Strategy<Value = Value> {
        let word = prop_oneof![".*", "[-+.:#'\" ~0-9a-fnox_\n]{0,8}", "[a-z]{1,5}(\n[ a-z]{0,4}){1,3}"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            word.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(word.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// What another reader makes of it.
    fn read_back(yaml: &str) -> Result<Value, String> {
        let read: serde_yaml_ng::Value = serde_yaml_ng::from_str(yaml).map_err(|err| err.to_string())?;
        serde_json::to_value(read).map_err(|err| err.to_string())
    }

    proptest! {
        #[test]
        fn another_reader_reads_the_same(value in json()) {
            let yaml = text(&value);
            prop_assert_eq!(read_back(&yaml), Ok(value), "{}", yaml);
        }
    }
}
