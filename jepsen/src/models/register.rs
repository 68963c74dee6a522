//! A KV version 2 path: a value and its version, written, read, deleted, and written if the version is still
//! the same.
//!
//! Versions make the search short: a write that was acknowledged says which version it made, so it fits in
//! one place only, and nothing else can have made that version. Done before the search, without a change to
//! its result as long as no value is written twice:
//! - A write without an end whose value was read is given the version it was read at.
//! - A write without an end whose value nobody read writes "something unread": all of those are alike.

use std::collections::{BTreeMap, BTreeSet};

use super::op;
use crate::checker::{Model, Op};
use crate::history::{Answer, Call, End, Operation};

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Content {
    /// There never was anything.
    Absent,
    /// The current version was deleted.
    Deleted,
    /// A value that no read shows.
    Unread,
    /// A value.
    Value(u64),
}

/// A version, 0 for none, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    /// The current version.
    pub version: u64,
    /// What it holds.
    pub content: Content,
}

/// Something done to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RegisterOp {
    /// A checked write.
    Cas {
        /// The version it replaces.
        expected: u64,
        /// What it writes.
        content: Content,
        /// The version it made, if that is known.
        made: Option<u64>,
    },
    /// The current version was deleted.
    Delete,
    /// A checked write found another version than this.
    Mismatch {
        /// The version it was to replace.
        expected: u64,
    },
    /// A read saw this.
    Read(State),
    /// A write.
    Write {
        /// What it writes.
        content: Content,
        /// The version it made, if that is known.
        made: Option<u64>,
    },
}

impl State {
    /// What is there before anybody wrote.
    pub const NOTHING: Self = Self { version: 0, content: Content::Absent };

    /// What a read that was answered so has seen.
    #[must_use]
    pub const fn seen(answer: Option<&Answer>) -> Self {
        match answer {
            Some(Answer::Value { version, value: Some(value) }) => {
                Self { version: *version, content: Content::Value(*value) }
            }
            Some(Answer::Value { version, value: None }) => {
                Self { version: *version, content: Content::Deleted }
            }
            // A history lets nothing else through for this model.
            _ => Self::NOTHING,
        }
    }
}

/// The model: versions that are known to be made by writes that say so.
#[derive(Clone, Debug)]
pub struct Register {
    initial: State,
    claimed: BTreeSet<u64>,
}

impl Model for Register {
    type State = State;
    type Op = RegisterOp;

    fn initial(&self) -> State {
        self.initial
    }

    fn step(&mut self, state: &State, op: &RegisterOp) -> Option<State> {
        let next = |content, made: Option<u64>| {
            let version = state.version + 1;
            let fits = made.map_or_else(|| !self.claimed.contains(&version), |made| made == version);
            fits.then_some(State { version, content })
        };
        match *op {
            RegisterOp::Cas { expected, content, made } => {
                if expected == state.version {
                    next(content, made)
                } else {
                    None
                }
            }
            RegisterOp::Delete => {
                let content = match state.content {
                    Content::Absent => Content::Absent,
                    _ => Content::Deleted,
                };
                Some(State { content, ..*state })
            }
            RegisterOp::Mismatch { expected } => (expected != state.version).then_some(*state),
            RegisterOp::Read(seen) => (seen == *state).then_some(*state),
            RegisterOp::Write { content, made } => next(content, made),
        }
    }

    fn only_looks(&self, op: &RegisterOp) -> bool {
        matches!(op, RegisterOp::Mismatch { .. } | RegisterOp::Read(_))
    }

    fn is_too_late(&self, state: &State, op: &RegisterOp) -> bool {
        let made = |made: &Option<u64>| made.is_some_and(|made| made <= state.version);
        match op {
            RegisterOp::Cas { expected, made: version, .. } => *expected < state.version || made(version),
            RegisterOp::Write { made: version, .. } => made(version),
            RegisterOp::Delete | RegisterOp::Mismatch { .. } | RegisterOp::Read(_) => false,
        }
    }

    fn describe_op(&self, op: &RegisterOp) -> String {
        let made = |made: Option<u64>| made.map_or_else(String::new, |made| format!(" as version {made}"));
        match *op {
            RegisterOp::Cas { expected, content, made: version } => {
                format!("cas of version {expected} to {}{}", words(content), made(version))
            }
            RegisterOp::Delete => "delete".to_owned(),
            RegisterOp::Mismatch { expected } => format!("cas refused: not version {expected}"),
            RegisterOp::Read(seen) => format!("read of {}", self.describe_state(&seen)),
            RegisterOp::Write { content, made: version } => {
                format!("write of {}{}", words(content), made(version))
            }
        }
    }

    fn describe_state(&self, state: &State) -> String {
        format!("version {}: {}", state.version, words(state.content))
    }
}

fn words(content: Content) -> String {
    match content {
        Content::Absent => "nothing".to_owned(),
        Content::Deleted => "nothing (deleted)".to_owned(),
        Content::Unread => "something unread".to_owned(),
        Content::Value(value) => value.to_string(),
    }
}

/// What reads show, gathered before the search.
#[derive(Default)]
struct Seen {
    /// Versions at which a value was read.
    versions: BTreeMap<u64, BTreeSet<u64>>,
    /// Values that more than one operation writes.
    repeated: BTreeSet<u64>,
}

impl Seen {
    fn of(operations: &[&Operation]) -> Self {
        let (mut seen, mut written) = (Self::default(), BTreeSet::new());
        for operation in operations.iter().filter(|operation| operation.end != End::Fail) {
            if let Some(Answer::Value { version, value: Some(value) }) = operation.answer {
                seen.versions.entry(value).or_default().insert(version);
            }
            if let Call::Write { value } | Call::Cas { value, .. } = operation.call
                && !written.insert(value)
            {
                seen.repeated.insert(value);
            }
        }
        seen
    }

    /// What a write without an end writes, and as which version if reads tell.
    fn pending(&self, value: u64) -> (Content, Option<u64>) {
        match self.versions.get(&value) {
            None => (Content::Unread, None),
            Some(_) if self.repeated.contains(&value) => (Content::Value(value), None),
            Some(versions) => (Content::Value(value), versions.first().copied()),
        }
    }
}

/// What the search needs, of a path that nobody wrote before.
#[must_use]
pub fn prepare(operations: &[&Operation]) -> (Register, Vec<Op<RegisterOp>>) {
    prepare_from(State::NOTHING, operations)
}

/// What the search needs, of a path that holds `initial` before the first of `operations`.
#[must_use]
pub fn prepare_from(initial: State, operations: &[&Operation]) -> (Register, Vec<Op<RegisterOp>>) {
    let seen = Seen::of(operations);
    // A read without an end says nothing.
    let says_something =
        |operation: &&&Operation| operation.end != End::Unknown || operation.call.has_effect();
    let ops: Vec<_> = operations
        .iter()
        .filter(says_something)
        .filter_map(|operation| op(operation, |operation| what(operation, &seen)))
        .collect();
    let claimed = ops.iter().filter_map(|op| match op.what {
        RegisterOp::Cas { made, .. } | RegisterOp::Write { made, .. } => made,
        _ => None,
    });
    (Register { initial, claimed: claimed.collect() }, ops)
}

fn what(operation: &Operation, seen: &Seen) -> RegisterOp {
    let made = match operation.answer {
        Some(Answer::Version(version)) => Some(version),
        _ => None,
    };
    let written = |value| {
        if operation.end == End::Unknown { seen.pending(value) } else { (Content::Value(value), made) }
    };
    match operation.call {
        Call::Cas { version: expected, .. } if operation.end == End::Refused => {
            RegisterOp::Mismatch { expected }
        }
        Call::Cas { version: expected, value, .. } => {
            let (content, made) = written(value);
            RegisterOp::Cas { expected, content, made }
        }
        Call::Write { value } => {
            let (content, made) = written(value);
            RegisterOp::Write { content, made }
        }
        Call::Delete => RegisterOp::Delete,
        // A history lets nothing else through for this model.
        _ => RegisterOp::Read(State::seen(operation.answer.as_ref())),
    }
}
