//! A history as Jepsen writes it, so that outsiders can check it with tools of their own.
//!
//! One map a line, each with `:type`, `:process`, `:f`, `:value`, `:time` and `:index`, and `:key` and
//! `:model` besides.
//! - *register*, for Knossos' `cas-register`: `:read`, `:write`, and `:cas` with `[from to]`, which are
//!   values, not versions; a delete is a `:write` of nil. Values are never written twice, so the two say the
//!   same. One key at a time: see [`write_key`].
//! - *list*, for Elle's list-append: `:f :txn` and `[[:append "key" 1]]` or `[[:r "key" [1 2]]]`. All keys
//!   together.
//! - The others are as they are recorded, with the key for a value: they are for readers, no published
//!   checker knows them.

use std::io::{self, Write};

use crate::history::{Answer, Call, Event, History, Kind, ModelName};

/// Writes the whole history.
///
/// # Errors
/// When `to` cannot be written.
pub fn write(history: &History, to: impl Write) -> io::Result<()> {
    write_events(history, to, |_| true)
}

/// Writes what concerns one model: lists, for Elle.
///
/// # Errors
/// When `to` cannot be written.
pub fn write_model(history: &History, model: ModelName, to: impl Write) -> io::Result<()> {
    write_events(history, to, |event| event.model == model)
}

/// Writes what concerns one key: a register, for Knossos.
///
/// # Errors
/// When `to` cannot be written.
pub fn write_key(history: &History, key: &str, to: impl Write) -> io::Result<()> {
    write_events(history, to, |event| event.key == key)
}

fn write_events(history: &History, mut to: impl Write, wanted: impl Fn(&Event) -> bool) -> io::Result<()> {
    for event in history.events().iter().filter(|event| wanted(event)) {
        writeln!(to, "{}", line(event))?;
    }
    to.flush()
}

fn line(event: &Event) -> String {
    let (f, value) = match event.model {
        ModelName::Register => register(event),
        ModelName::List => ("txn", list(event)),
        ModelName::Counter
        | ModelName::Credential
        | ModelName::Lease
        | ModelName::Leftover
        | ModelName::Password
        | ModelName::SecretId
        | ModelName::Token
        | ModelName::Wrapping => (event.call.name(), string(&event.key)),
    };
    let error = event.error.as_ref().map_or_else(String::new, |error| format!(", :error {}", string(error)));
    format!(
        "{{:type :{}, :process {}, :f :{f}, :value {value}, :time {}, :index {}, :key {}, :model :{}{error}}}",
        event.kind.name(),
        event.process,
        event.time,
        event.index,
        string(&event.key),
        event.model.name(),
    )
}

fn register(event: &Event) -> (&'static str, String) {
    match event.call {
        Call::Write { value } => ("write", value.to_string()),
        Call::Cas { from, value, .. } => ("cas", format!("[{} {value}]", or_nil(from))),
        Call::Delete => ("write", "nil".to_owned()),
        _ => match event.answer {
            Some(Answer::Value { value, .. }) => ("read", or_nil(value)),
            _ => ("read", "nil".to_owned()),
        },
    }
}

fn list(event: &Event) -> String {
    let key = string(&event.key);
    match (&event.call, &event.answer) {
        (Call::Append { value }, _) => format!("[[:append {key} {value}]]"),
        (_, Some(Answer::List(values))) => {
            let values: Vec<_> = values.iter().map(u64::to_string).collect();
            format!("[[:r {key} [{}]]]", values.join(" "))
        }
        (_, Some(Answer::Absent)) if event.kind == Kind::Ok => format!("[[:r {key} []]]"),
        _ => format!("[[:r {key} nil]]"),
    }
}

fn or_nil(value: Option<u64>) -> String {
    value.map_or_else(|| "nil".to_owned(), |value| value.to_string())
}

/// An EDN string.
fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(model: ModelName, call: Call, kind: Kind, answer: Option<Answer>, want: &Expect) {
        let error = (kind == Kind::Info).then(|| "said \"no\"\n".to_owned());
        let (key, process) = ("r/1".to_owned(), 3);
        let event = Event { index: 7, time: 1_500, process, kind, model, key, call, answer, error };
        want.assert_eq(&line(&event));
    }

    #[test]
    fn registers() {
        use ModelName::Register;
        check(
            Register,
            Call::Read,
            Kind::Invoke,
            None,
            &expect![[
                r#"{:type :invoke, :process 3, :f :read, :value nil, :time 1500, :index 7, :key "r/1", :model :register}"#
            ]],
        );
        let seen = Some(Answer::Value { version: 4, value: Some(9) });
        check(
            Register,
            Call::Read,
            Kind::Ok,
            seen,
            &expect![[
                r#"{:type :ok, :process 3, :f :read, :value 9, :time 1500, :index 7, :key "r/1", :model :register}"#
            ]],
        );
        let cas = Call::Cas { version: 4, from: Some(9), value: 10 };
        check(
            Register,
            cas.clone(),
            Kind::Fail,
            Some(Answer::Refused),
            &expect![[
                r#"{:type :fail, :process 3, :f :cas, :value [9 10], :time 1500, :index 7, :key "r/1", :model :register}"#
            ]],
        );
        check(
            Register,
            cas,
            Kind::Info,
            None,
            &expect![[
                r#"{:type :info, :process 3, :f :cas, :value [9 10], :time 1500, :index 7, :key "r/1", :model :register, :error "said \"no\"\n"}"#
            ]],
        );
        check(
            Register,
            Call::Delete,
            Kind::Ok,
            Some(Answer::Done),
            &expect![[
                r#"{:type :ok, :process 3, :f :write, :value nil, :time 1500, :index 7, :key "r/1", :model :register}"#
            ]],
        );
    }

    #[test]
    fn lists() {
        use ModelName::List;
        check(
            List,
            Call::Append { value: 1 },
            Kind::Invoke,
            None,
            &expect![[
                r#"{:type :invoke, :process 3, :f :txn, :value [[:append "r/1" 1]], :time 1500, :index 7, :key "r/1", :model :list}"#
            ]],
        );
        check(
            List,
            Call::Read,
            Kind::Invoke,
            None,
            &expect![[
                r#"{:type :invoke, :process 3, :f :txn, :value [[:r "r/1" nil]], :time 1500, :index 7, :key "r/1", :model :list}"#
            ]],
        );
        check(
            List,
            Call::Read,
            Kind::Ok,
            Some(Answer::List(vec![1, 2])),
            &expect![[
                r#"{:type :ok, :process 3, :f :txn, :value [[:r "r/1" [1 2]]], :time 1500, :index 7, :key "r/1", :model :list}"#
            ]],
        );
    }

    #[test]
    fn others() {
        check(
            ModelName::Counter,
            Call::Spend,
            Kind::Fail,
            Some(Answer::Refused),
            &expect![[
                r#"{:type :fail, :process 3, :f :spend, :value "r/1", :time 1500, :index 7, :key "r/1", :model :counter}"#
            ]],
        );
    }
}
