//! Columns for people, aligned as Vault's CLI aligns them: four spaces between columns, a rule under each heading.

use serde_json::Value;

/// Lays rows out in columns. The last column is not padded.
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}    "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A table with headings and a rule under each.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut all = vec![
        headings.iter().map(|heading| (*heading).to_owned()).collect(),
        headings.iter().map(|heading| "-".repeat(heading.chars().count())).collect(),
    ];
    all.extend(rows.into_iter().map(|row| row.into_iter().map(shown).collect()));
    columns(&all)
}

/// A table of keys and values.
pub fn pairs(rows: impl IntoIterator<Item = (String, String)>) -> String {
    table(&["Key", "Value"], rows.into_iter().map(|(key, value)| vec![key, value]))
}

/// A line with a title in the middle, as wide as `width` where that is enough.
pub fn heading(title: &str, width: usize) -> String {
    let free = width.saturating_sub(title.len() + 2);
    let half = if free < 2 { 2 } else { free.div_ceil(2) };
    let rule = "=".repeat(half);
    format!("{rule} {title} {rule}")
}

/// A cell as people see it; blanks around it would only shift the columns.
fn shown(cell: String) -> String {
    let cell = cell.trim();
    if cell.is_empty() { "n/a".to_owned() } else { cell.to_owned() }
}

/// A value in the words of Go's `%v`, which Vault's tables use.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// A field in a table: durations in seconds become `1h30m`, the rest is plain.
pub fn field(key: &str, value: &Value) -> String {
    let is_duration =
        ["ttl", "period", "duration"].iter().any(|word| key == *word || key.ends_with(&format!("_{word}")))
            || key == "ttl_max"
            || key == "lease_max";
    match value.as_u64() {
        Some(seconds) if is_duration => short_duration(seconds),
        _ => plain(value),
    }
}

/// Seconds as `768h`, `1h30m`, `59s`, `0s`.
pub fn short_duration(seconds: u64) -> String {
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let full = match (hours, minutes) {
        (0, 0) => return format!("{rest}s"),
        (0, minutes) => format!("{minutes}m{rest}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}s"),
    };
    let full = full.strip_suffix("m0s").map_or(full.clone(), |head| format!("{head}m"));
    full.strip_suffix("h0m").map_or(full.clone(), |head| format!("{head}h"))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(rows: &[(&str, &str)], want: Expect) {
        want.assert_eq(&pairs(rows.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))));
    }

    #[test]
    fn keys_and_values_line_up() {
        check(
            &[("a", "1"), ("a_longer_key", ""), ("ü", "\né ö\n")],
            expect![[r#"
                Key             Value
                ---             -----
                a               1
                a_longer_key    n/a
                ü               é ö
            "#]],
        );
    }

    #[test]
    fn durations_are_short() {
        let shown = [0, 59, 60, 90, 3_600, 5_400, 2_764_799, 2_764_800].map(short_duration);
        assert_eq!(shown, ["0s", "59s", "1m", "1m30s", "1h", "1h30m", "767h59m59s", "768h"]);
    }

    #[test]
    fn only_durations_read_as_such() {
        let fields = [("ttl", "60"), ("creation_ttl", "60"), ("creation_time", "60"), ("subtitle", "60")];
        let shown = fields.map(|(key, text)| field(key, &serde_json::from_str(text).unwrap()));
        assert_eq!(shown, ["1m", "1m", "60", "60"]);
    }

    #[test]
    fn nested_values_are_go_like() {
        let value = serde_json::json!({"b": [1, "x", null], "a": {"c": true}, "d": 1.5});
        assert_eq!(plain(&value), "map[a:map[c:true] b:[1 x <nil>] d:1.5]");
    }

    #[test]
    fn headings_are_centered() {
        assert_eq!(heading("Metadata", 24), "======= Metadata =======");
        assert_eq!(heading("Secret Path", 15), "= Secret Path =");
        assert_eq!(heading("Secret Path", 12), "== Secret Path ==");
        assert_eq!(heading("Version 1", 22), "====== Version 1 ======");
    }
}
