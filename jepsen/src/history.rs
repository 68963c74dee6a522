//! What clients did and saw, in one order: events, their JSON lines, and the operations they add up to.
//!
//! An operation is one `invoke` and at most one end: `ok`, `fail` or `info` (it may or may not have
//! happened). The order of events is the order in which the recorder took them down, and that order, not the
//! clock, is what the checkers go by: an operation that ended before another began came before it.
//! Read next: [`crate::outcome`] for which end an answer makes, [`recorder`] for how events get here.

mod event;
mod operation;
pub mod recorder;

pub use event::{Answer, Call, Event, Kind, ModelName};
pub use operation::{End, Operation};

use std::io::{BufRead, Write};

/// Most events taken from one file: a history that is larger cannot be checked with the memory at hand.
pub const EVENTS_MAX: usize = 20_000_000;

/// Why a text is not a history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// An event that cannot be where it is.
    #[error("event {index} (process {process}): {reason}")]
    Event {
        /// Its place, counted from 0.
        index: usize,
        /// Its process.
        process: u64,
        /// What is wrong.
        reason: String,
    },
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A line that is no event.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// A whole history. **Invariant:** every end has its invocation, each process does one thing at a time and
/// nothing after an `info`, a key belongs to one model, and answers fit their calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Checks that events make a history.
    ///
    /// # Errors
    /// When one of them cannot be where it is.
    pub fn new(mut events: Vec<Event>) -> Result<Self, HistoryError> {
        for (index, event) in events.iter_mut().enumerate() {
            event.index = index;
        }
        operation::pair(&events)?;
        Ok(Self { events })
    }

    /// The events, in order.
    #[must_use]
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The operations, in the order they were invoked.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        // Checked when it was made: pairing the same events again cannot fail.
        operation::pair(&self.events).unwrap_or_default()
    }

    /// Reads JSON lines. Empty lines are passed over; a last line that is cut off is an error like any other.
    ///
    /// # Errors
    /// When a line is no event, or the events make no history.
    pub fn read(from: impl BufRead) -> Result<Self, HistoryError> {
        let mut events = Vec::new();
        for (at, line) in from.lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let bad = |reason: String| HistoryError::Line { line: at + 1, reason };
            if events.len() == EVENTS_MAX {
                return Err(bad(format!("there are more than {EVENTS_MAX} events")));
            }
            let event: Event = serde_json::from_str(&line).map_err(|err| bad(err.to_string()))?;
            if event.index != events.len() {
                return Err(bad(format!("its index is {}, and should be {}", event.index, events.len())));
            }
            events.push(event);
        }
        Self::new(events)
    }

    /// Writes JSON lines.
    ///
    /// # Errors
    /// When `to` cannot be written.
    pub fn write(&self, mut to: impl Write) -> Result<(), HistoryError> {
        for event in &self.events {
            event.write(&mut to)?;
        }
        Ok(to.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const GOOD: &str = r#"{"index":0,"time":10,"process":0,"type":"invoke","model":"register","key":"r/1","call":{"write":{"value":7}}}
{"index":1,"time":12,"process":1,"type":"invoke","model":"register","key":"r/1","call":"read"}
{"index":2,"time":15,"process":0,"type":"ok","model":"register","key":"r/1","call":{"write":{"value":7}},"answer":{"version":1}}
{"index":3,"time":16,"process":1,"type":"ok","model":"register","key":"r/1","call":"read","answer":{"value":{"version":1,"value":7}}}
{"index":4,"time":20,"process":0,"type":"invoke","model":"register","key":"r/1","call":{"cas":{"version":1,"from":7,"value":8}}}
{"index":5,"time":25,"process":0,"type":"info","model":"register","key":"r/1","call":{"cas":{"version":1,"from":7,"value":8}},"error":"timeout"}
{"index":6,"time":26,"process":1,"type":"invoke","model":"list","key":"l/1","call":"read"}
{"index":7,"time":27,"process":1,"type":"ok","model":"list","key":"l/1","call":"read","answer":{"list":[1,2]}}
{"index":8,"time":28,"process":1,"type":"invoke","model":"lease","key":"t/1","call":"use"}
{"index":9,"time":29,"process":1,"type":"fail","model":"lease","key":"t/1","call":"use","answer":"refused"}
"#;

    #[test]
    fn lines_come_back_as_they_were() {
        let history = History::read(GOOD.as_bytes()).unwrap();
        let mut written = Vec::new();
        history.write(&mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), GOOD);
        let ends: Vec<_> = history.operations().iter().map(|operation| operation.end).collect();
        assert_eq!(ends, [End::Ok, End::Ok, End::Unknown, End::Ok, End::Refused]);
    }

    #[track_caller]
    fn check(change: impl Fn(String) -> String, want: &Expect) {
        let err = History::read(change(GOOD.to_owned()).as_bytes()).unwrap_err();
        want.assert_eq(&err.to_string());
    }

    #[test]
    fn refuses_what_is_no_event() {
        check(
            |text| text.replace(r#""process":1,"type":"ok","model":"list""#, r#""process":"one""#),
            &expect![[r#"line 8: invalid type: string "one", expected u64 at line 1 column 36"#]],
        );
        check(
            |text| text[..text.len() - 9].to_owned(),
            &expect!["line 10: EOF while parsing a string at line 1 column 99"],
        );
        check(
            |text| text.replace("\"time\":29,", "\"when\":29,"),
            &expect![
                "line 10: unknown field `when`, expected one of `index`, `time`, `process`, `type`, `model`, `key`, `call`, `answer`, `error` at line 1 column 17"
            ],
        );
        check(
            |text| text.replace("\"index\":4", "\"index\":5"),
            &expect!["line 5: its index is 5, and should be 4"],
        );
    }

    #[test]
    fn refuses_events_that_cannot_be_where_they_are() {
        let with = |line: &'static str| {
            move |text: String| {
                let index = text.lines().count();
                text + &format!("{{\"index\":{index},\"time\":99,{line}}}\n")
            }
        };
        check(
            with(r#""process":1,"type":"ok","model":"list","key":"l/1","call":"read","answer":{"list":[]}"#),
            &expect!["event 10 (process 1): it ends what was not begun"],
        );
        check(
            with(r#""process":0,"type":"invoke","model":"list","key":"l/1","call":"read""#),
            &expect!["event 10 (process 0): this process ended with an info and may not go on"],
        );
        check(
            with(r#""process":9,"type":"invoke","model":"list","key":"r/1","call":"read""#),
            &expect![[r#"event 10 (process 9): key "r/1" belongs to the model register, not list"#]],
        );
        check(
            with(r#""process":9,"type":"invoke","model":"register","key":"r/1","call":"unwrap""#),
            &expect!["event 10 (process 9): the model register has no such call"],
        );
        check(
            |text| text.replace(r#""answer":{"version":1}"#, r#""answer":"done""#),
            &expect!["event 2 (process 0): the answer does not fit the call"],
        );
        check(
            |text| text.replace(r#""type":"fail""#, r#""type":"ok""#),
            &expect!["event 9 (process 1): the answer does not fit the call"],
        );
        check(
            |text| text.replace("\"time\":15", "\"time\":9"),
            &expect!["event 2 (process 0): time goes back"],
        );
        check(
            |text| {
                text.replacen(
                    r#""call":"read","answer":{"list":[1,2]}"#,
                    r#""call":{"append":{"value":1}},"answer":"done""#,
                    1,
                )
            },
            &expect!["event 7 (process 1): it ends another call than was begun"],
        );
    }
}
