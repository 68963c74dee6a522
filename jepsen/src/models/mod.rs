//! What is right, by kind of key, and the check of a whole history.
//!
//! Registers, lists and passwords are searched for an order ([`crate::checker`]). The others change at most a few times
//! in their life, so whether there is an order can be told from intervals alone: [`token`], [`counter`]
//! (wrapped answers are counters of one), [`credential`] and [`lease`] say how, and are exact. The tests hold those that
//! have an order against the search.
//! **Invariant:** every key of a history is checked, and nothing is passed over in silence.

pub mod counter;
pub mod credential;
pub mod cut;
pub mod lease;
pub mod leftover;
pub mod list;
pub mod password;
pub mod register;
pub mod token;

use std::collections::BTreeMap;

use crate::checker::{self, Budget, Op, Span, Verdict};
use crate::history::{Answer, Call, End, History, ModelName, Operation};

/// What a check needs to know of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How far a lease may be off its deadline, either way: clocks that disagree, and the time a check takes.
    pub lease_slack_ms: u64,
    /// How long after its deadline a lease may still be stored.
    pub revoke_slack_ms: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { lease_slack_ms: 1_000, revoke_slack_ms: 30_000 }
    }
}

/// What was found out about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVerdict {
    /// The key.
    pub key: String,
    /// What it stands for.
    pub model: ModelName,
    /// Operations on it.
    pub operations: usize,
    /// What was found.
    pub verdict: Verdict,
}

/// What keys held before a history begins, as a read would show it; nothing where nothing is said.
pub type Firsts = BTreeMap<String, Answer>;

/// Checks every key; the verdicts come in the order of keys.
pub fn check(history: &History, options: Options, budget: &mut Budget<'_>) -> Vec<KeyVerdict> {
    check_from(&Firsts::new(), history, options, budget)
}

/// Checks every key of a history in which registers and lists begin as `firsts` says. Somebody has to have read that in it.
pub fn check_from(
    firsts: &Firsts,
    history: &History,
    options: Options,
    budget: &mut Budget<'_>,
) -> Vec<KeyVerdict> {
    let operations = history.operations();
    let mut keys: BTreeMap<&str, (ModelName, Vec<&Operation>)> = BTreeMap::new();
    for operation in &operations {
        keys.entry(&operation.key).or_insert((operation.model, Vec::new())).1.push(operation);
    }
    keys.into_iter()
        .map(|(key, (model, operations))| KeyVerdict {
            key: key.to_owned(),
            model,
            operations: operations.len(),
            verdict: check_key(model, firsts.get(key), &operations, options, budget),
        })
        .collect()
}

/// Checks one key that begins as `first` says, if it is a register or a list.
pub(crate) fn check_key(
    model: ModelName,
    first: Option<&Answer>,
    operations: &[&Operation],
    options: Options,
    budget: &mut Budget<'_>,
) -> Verdict {
    match model {
        ModelName::Counter | ModelName::Wrapping => counter::check(operations),
        ModelName::Credential => credential::check(operations, options),
        ModelName::Lease => lease::check(operations, options),
        ModelName::Leftover => leftover::check(operations),
        ModelName::List => {
            let initial = match first {
                Some(Answer::List(values)) => values.as_slice(),
                _ => &[],
            };
            let (mut model, ops) = list::prepare_from(initial, operations);
            checker::check(&mut model, &ops, budget)
        }
        ModelName::Password => {
            let (mut model, ops) = password::prepare(operations);
            checker::check(&mut model, &ops, budget)
        }
        ModelName::SecretId => match operations.first().map(|found| &found.call) {
            Some(Call::Create { uses: Some(_), .. }) => counter::check(operations),
            Some(Call::Create { uses: None, .. }) => token::check(operations),
            _ => Verdict::Unknown("nobody made it".to_owned()),
        },
        ModelName::Register => {
            let (mut model, ops) = register::prepare_from(register::State::seen(first), operations);
            checker::check(&mut model, &ops, budget)
        }
        ModelName::Token => token::check(operations),
    }
}

/// The verdict on all keys: invalid if one is, else unknown if one is, or if there is none at all.
#[must_use]
pub fn together<'a>(verdicts: impl IntoIterator<Item = &'a KeyVerdict>) -> Together {
    verdicts
        .into_iter()
        .map(|found| match found.verdict {
            Verdict::Invalid(_) => Together::Invalid,
            Verdict::Unknown(_) => Together::Unknown,
            Verdict::Valid => Together::Valid,
        })
        .min()
        .unwrap_or(Together::Unknown)
}

/// The verdict on all keys, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Together {
    /// At least one is wrong.
    Invalid,
    /// None is wrong, but not all were found to be right.
    Unknown,
    /// All are right.
    Valid,
}

impl Together {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
            Self::Valid => "valid",
        }
    }
}

/// What the search sees of an operation; `None` if it did not happen and says nothing.
fn op<O>(operation: &Operation, what: impl FnOnce(&Operation) -> O) -> Option<Op<O>> {
    if operation.end == End::Fail {
        return None;
    }
    let span = Span { from: operation.invoked_at, to: operation.settled_at() };
    Some(Op { span, what: what(operation) })
}

/// An operation in words, for evidence.
pub(crate) fn in_words(operation: &Operation) -> String {
    let end = match operation.end {
        End::Fail => "failed",
        End::Ok => "ok",
        End::Refused => "refused",
        End::Unknown => "?",
    };
    let to = operation.ended_at.map_or_else(|| "?".to_owned(), |at| at.to_string());
    format!("[{}..{to}] process {} {}: {end}", operation.invoked_at, operation.process, operation.call.name())
}
