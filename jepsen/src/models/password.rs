//! A user's password: whoever logs in has to bring the one that was set last.
//!
//! Nothing shows which password is set but logins: one that was let through says that it was its own, one that was
//! refused that it was another. Done before the search, without a change to its result: passwords without an end that no
//! login was tried with are all alike.

use std::collections::BTreeSet;

use super::op;
use crate::checker::{Model, Op};
use crate::history::{Call, End, Operation};

/// What is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Set {
    /// There is no user yet.
    Nothing,
    /// A password that nobody tries.
    Untried,
    /// A password.
    Value(u64),
}

/// Something done with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PasswordOp {
    /// A login with it was let through.
    Accepted(u64),
    /// A login with it was refused.
    Refused(u64),
    /// It was set.
    Write(Set),
}

/// The model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Password;

impl Model for Password {
    type State = Set;
    type Op = PasswordOp;

    fn initial(&self) -> Set {
        Set::Nothing
    }

    fn step(&mut self, state: &Set, op: &PasswordOp) -> Option<Set> {
        match *op {
            PasswordOp::Accepted(value) => (*state == Set::Value(value)).then_some(*state),
            PasswordOp::Refused(value) => (*state != Set::Value(value)).then_some(*state),
            PasswordOp::Write(set) => Some(set),
        }
    }

    fn only_looks(&self, op: &PasswordOp) -> bool {
        !matches!(op, PasswordOp::Write(_))
    }

    fn describe_op(&self, op: &PasswordOp) -> String {
        match op {
            PasswordOp::Accepted(value) => format!("login with password {value}"),
            PasswordOp::Refused(value) => format!("login with password {value} refused"),
            PasswordOp::Write(set) => format!("password set to {}", words(*set)),
        }
    }

    fn describe_state(&self, state: &Set) -> String {
        format!("password {}", words(*state))
    }
}

fn words(set: Set) -> String {
    match set {
        Set::Nothing => "none".to_owned(),
        Set::Untried => "one nobody tried".to_owned(),
        Set::Value(value) => value.to_string(),
    }
}

/// What the search needs.
#[must_use]
pub fn prepare(operations: &[&Operation]) -> (Password, Vec<Op<PasswordOp>>) {
    let tried: BTreeSet<u64> = operations
        .iter()
        .filter_map(|operation| match operation.call {
            Call::Login { password } => password,
            _ => None,
        })
        .collect();
    let mut ops = Vec::new();
    for operation in operations {
        let what = match (&operation.call, operation.end) {
            (Call::Login { password: Some(value) }, End::Ok) => PasswordOp::Accepted(*value),
            (Call::Login { password: Some(value) }, End::Refused) => PasswordOp::Refused(*value),
            (Call::Write { value }, _) if tried.contains(value) => PasswordOp::Write(Set::Value(*value)),
            (Call::Write { .. }, _) => PasswordOp::Write(Set::Untried),
            // A login without an end changes nothing of the password, and says nothing.
            _ => continue,
        };
        ops.extend(op(operation, |_| what));
    }
    (Password, ops)
}
