//! Data on the command line: `key=value`, `key=@file`, `key=-` for standard input, and a whole JSON object as `-`
//! or `@file`. A key given twice becomes a list.

use std::io::Read;

use serde_json::{Map, Value};

use crate::error::CliError;

/// Nobody types more than this into a secret.
const INPUT_BYTES_MAX: u64 = 32 << 20;

/// Reads arguments into an object.
pub fn parse(args: &[String], stdin: &mut dyn Read) -> Result<Map<String, Value>, CliError> {
    let mut reader = Inputs { stdin, is_stdin_used: false };
    let mut data = Map::new();
    for arg in args {
        reader.argument(arg, &mut data)?;
    }
    Ok(data)
}

/// Reads `key=value` pairs whose values stand as they are, for flags such as `-metadata`.
pub fn pairs<T: FromIterator<(String, String)>>(flag: &str, args: &[String]) -> Result<T, CliError> {
    let split = |arg: &String| {
        let bad = || CliError::Usage(format!("{flag} {arg:?} is not of the form key=value"));
        arg.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(bad)
    };
    args.iter().map(split).collect()
}

/// Reads a value that may be `@file` or `-`.
pub fn value(arg: &str, stdin: &mut dyn Read) -> Result<String, CliError> {
    Inputs { stdin, is_stdin_used: false }.value(arg)
}

struct Inputs<'a> {
    stdin: &'a mut dyn Read,
    is_stdin_used: bool,
}

impl Inputs<'_> {
    fn argument(&mut self, arg: &str, data: &mut Map<String, Value>) -> Result<(), CliError> {
        if arg == "-" {
            let text = self.stdin()?;
            return merge(&text, "standard input", data);
        }
        if let Some(path) = arg.strip_prefix('@') {
            return merge(&file(path)?, path, data);
        }
        let missing =
            || CliError::Usage(format!("{arg:?} is not data; write key=value, @file.json, or - for stdin"));
        let (key, value) = arg.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(missing)?;
        let value = Value::String(self.value(value)?);
        match data.get_mut(key) {
            None => drop(data.insert(key.to_owned(), value)),
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
        Ok(())
    }

    fn value(&mut self, value: &str) -> Result<String, CliError> {
        if value == "-" {
            return self.stdin();
        }
        if let Some(path) = value.strip_prefix('@') {
            return file(path);
        }
        // A value that really begins with an @ is written \@.
        Ok(value.strip_prefix('\\').filter(|rest| rest.starts_with('@')).unwrap_or(value).to_owned())
    }

    fn stdin(&mut self) -> Result<String, CliError> {
        if std::mem::replace(&mut self.is_stdin_used, true) {
            return Err(CliError::Usage("standard input can be read once only; - is given twice".into()));
        }
        let mut text = String::new();
        let read = self.stdin.take(INPUT_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|err| CliError::Usage(format!("cannot read standard input: {err}")))?;
        Ok(text)
    }
}

fn file(path: &str) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|source| CliError::File { path: path.into(), source })
}

/// Takes a JSON object in. The message says where it breaks, never what stands there.
fn merge(text: &str, from: &str, data: &mut Map<String, Value>) -> Result<(), CliError> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|err| {
        let (line, column) = (err.line(), err.column());
        CliError::Usage(format!("{from} is not a JSON object (line {line}, column {column})"))
    })?;
    data.extend(object);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(args: &[&str], stdin: &str, want: &str) {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let got = parse(&args, &mut stdin.as_bytes());
        let got = got.map_or_else(|err| format!("error: {err}"), |data| Value::Object(data).to_string());
        assert_eq!(got, want, "input {args:?}");
    }

    #[test]
    fn pairs_files_and_stdin() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"n\": 1.50, \"a\": null}").unwrap();
        let path = file.path().to_str().unwrap();
        check(&["a=1", "b=x=y", "c="], "", r#"{"a":"1","b":"x=y","c":""}"#);
        check(&["a=-"], "line\n", r#"{"a":"line\n"}"#);
        check(&["-", "b=2"], r#"{"a":{"x":[true]}}"#, r#"{"a":{"x":[true]},"b":"2"}"#);
        check(&[&format!("@{path}")], "", r#"{"a":null,"n":1.50}"#);
        check(&[&format!("k=@{path}")], "", r#"{"k":"{\"n\": 1.50, \"a\": null}"}"#);
        check(&["a=\\@home", "b=\\x"], "", r#"{"a":"@home","b":"\\x"}"#);
        check(&["p=a", "p=b", "p=c"], "", r#"{"p":["a","b","c"]}"#);
    }

    #[test]
    fn mistakes_are_named_and_never_quoted() {
        check(&["bad"], "", r#"error: "bad" is not data; write key=value, @file.json, or - for stdin"#);
        check(&["=x"], "", r#"error: "=x" is not data; write key=value, @file.json, or - for stdin"#);
        check(&["-"], "{\"pw\": hunter2}", "error: standard input is not a JSON object (line 1, column 8)");
        check(&["-"], "[1]", "error: standard input is not a JSON object (line 1, column 0)");
        check(&["a=-", "b=-"], "x", "error: standard input can be read once only; - is given twice");
        check(&["a=@/no/such"], "", "error: /no/such: No such file or directory (os error 2)");
    }
}
