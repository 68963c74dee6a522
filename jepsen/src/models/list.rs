//! A list that grows: appends, and reads of the whole.
//!
//! A list only grows, so whatever it holds before the longest read is the beginning of what that read shows,
//! and what it holds afterwards no other read shows. A state is therefore only how much of the longest read
//! is there, or that there is more; this loses nothing and leaves the search almost no choice. An append
//! without an end whose value no read shows is left out: reads that come after it would show it, so it is as
//! if it came after all of them.

use std::collections::BTreeSet;

use super::op;
use crate::checker::evidence::SHOWN_MAX;
use crate::checker::{Model, Op};
use crate::history::{Answer, Call, End, Operation};

/// What a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// All of the longest read, and more.
    Beyond,
    /// So many of the longest read.
    First(usize),
}

/// Something done to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListOp {
    /// A value was appended.
    Append(u64),
    /// This was read.
    Read(Vec<u64>),
    /// So many of the longest read were read.
    ReadFirst(usize),
}

/// The model: the longest read.
#[derive(Clone, Debug, Default)]
pub struct List {
    longest: Vec<u64>,
    /// How much of it was there before the first operation.
    initial: usize,
}

impl Model for List {
    type State = State;
    type Op = ListOp;

    fn initial(&self) -> State {
        State::First(self.initial)
    }

    fn step(&mut self, state: &State, op: &ListOp) -> Option<State> {
        match (state, op) {
            (State::Beyond, ListOp::Append(_)) => Some(State::Beyond),
            (State::First(count), ListOp::Append(value)) => match self.longest.get(*count) {
                None => Some(State::Beyond),
                Some(next) => (next == value).then_some(State::First(count + 1)),
            },
            (State::First(count), ListOp::ReadFirst(seen)) => (count == seen).then_some(*state),
            (State::Beyond, ListOp::ReadFirst(_)) | (_, ListOp::Read(_)) => None,
        }
    }

    fn only_looks(&self, op: &ListOp) -> bool {
        !matches!(op, ListOp::Append(_))
    }

    fn describe_op(&self, op: &ListOp) -> String {
        match op {
            ListOp::Append(value) => format!("append of {value}"),
            ListOp::Read(values) => format!("read of {}", words(values)),
            ListOp::ReadFirst(count) => {
                format!("read of {}", words(self.longest.get(..*count).unwrap_or_default()))
            }
        }
    }

    fn describe_state(&self, state: &State) -> String {
        match state {
            State::Beyond => format!("{} and more", words(&self.longest)),
            State::First(count) => words(self.longest.get(..*count).unwrap_or_default()),
        }
    }
}

/// The end of a list.
fn words(values: &[u64]) -> String {
    let left_out = values.len().saturating_sub(SHOWN_MAX);
    let shown: Vec<_> = values.iter().skip(left_out).map(u64::to_string).collect();
    let dots = if left_out == 0 { String::new() } else { format!("({left_out} more) … ") };
    format!("[{dots}{}]", shown.join(" "))
}

/// What the search needs, of a list that is empty before the first of `operations`.
#[must_use]
pub fn prepare(operations: &[&Operation]) -> (List, Vec<Op<ListOp>>) {
    prepare_from(&[], operations)
}

/// What the search needs, of a list that holds `initial` before the first of `operations`. Some operation has to have read
/// that, or the search finds nothing.
#[must_use]
pub fn prepare_from(initial: &[u64], operations: &[&Operation]) -> (List, Vec<Op<ListOp>>) {
    let lists = || {
        operations.iter().filter_map(|operation| match &operation.answer {
            Some(Answer::List(values)) => Some(values),
            _ => None,
        })
    };
    let seen: BTreeSet<u64> = lists().flatten().copied().collect();
    let longest = lists().max_by_key(|values| values.len()).cloned().unwrap_or_default();
    let mut ops = Vec::new();
    for operation in operations {
        let what = match (&operation.call, &operation.answer) {
            (Call::Append { value }, _) => {
                if operation.end == End::Unknown && !seen.contains(value) {
                    continue;
                }
                ListOp::Append(*value)
            }
            (_, Some(Answer::List(values))) if longest.starts_with(values) => ListOp::ReadFirst(values.len()),
            (_, Some(Answer::List(values))) => ListOp::Read(values.clone()),
            (_, Some(_)) => ListOp::ReadFirst(0),
            (_, None) => continue,
        };
        ops.extend(op(operation, |_| what));
    }
    // If the longest read does not begin with it, the read of it fits nowhere, and that is what is found.
    let initial = if longest.starts_with(initial) { initial.len() } else { 0 };
    (List { longest, initial }, ops)
}
