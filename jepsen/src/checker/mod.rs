//! Is there an order in which everything that was seen makes sense?
//!
//! The search is that of Wing and Gong (1993) with the memory of Lowe (2017), one key at a time (Horn and
//! Kroening, 2015): keys are independent objects, so a history is linearizable if each key's part is.
//! [`search`] is the algorithm, [`Model`] the object it is about.
//! **Invariant:** `Valid` means that an order was found, `Invalid` that there is none. Everything else, above
//! all a budget that ran out, is `Unknown`, and that is never a pass.

pub mod evidence;
mod search;

pub use evidence::Evidence;
pub use search::check;

use std::fmt;

/// When an operation happened: places in a history, which order it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// It was invoked here.
    pub from: usize,
    /// It had surely happened here. None: it may have happened at any time after `from`, with any result, or
    /// never.
    pub to: Option<usize>,
}

/// An operation, as the search sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op<O> {
    /// When.
    pub span: Span,
    /// What, and what was seen of it.
    pub what: O,
}

/// An object, as far as clients can tell.
pub trait Model {
    /// What it holds. Cloned for every step: keep it small.
    type State: Clone + Eq + std::hash::Hash;
    /// What is done, and what was seen of it. Operations that compare equal must do the same to every state.
    type Op: Eq;

    /// What it holds at first.
    fn initial(&self) -> Self::State;

    /// What it holds after `op`; `None` if `op` cannot have seen what it saw. An operation without a result
    /// may always have done nothing: the search takes care of that.
    fn step(&mut self, state: &Self::State, op: &Self::Op) -> Option<Self::State>;

    /// Whether `op` leaves every state as it is.
    fn only_looks(&self, op: &Self::Op) -> bool;

    /// Whether `op` can do nothing any more once the object holds `state`, whatever else is done. Saying no
    /// is never wrong; saying yes makes the search short.
    fn is_too_late(&self, _state: &Self::State, _op: &Self::Op) -> bool {
        false
    }

    /// `op` in words.
    fn describe_op(&self, op: &Self::Op) -> String;

    /// `state` in words.
    fn describe_state(&self, state: &Self::State) -> String;
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no order that explains it.
    Invalid(Box<Evidence>),
    /// It was not found out. Never a pass.
    Unknown(String),
    /// There is an order that explains it.
    Valid,
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Unknown(_) => "unknown",
            Self::Valid => "valid",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(evidence) => write!(f, "invalid: {evidence}"),
            Self::Unknown(reason) => write!(f, "unknown: {reason}"),
            Self::Valid => f.write_str("valid"),
        }
    }
}

/// How much a check may cost. One budget serves any number of checks.
pub struct Budget<'a> {
    /// Steps left.
    steps: u64,
    /// States of the search kept at once, which is what takes memory.
    configurations_max: usize,
    /// Whether the depth-first search comes first.
    dives: bool,
    is_over: Box<dyn FnMut() -> bool + 'a>,
}

/// Steps between two looks at the clock.
const STEPS_BETWEEN_LOOKS: u64 = 1 << 10;

impl<'a> Budget<'a> {
    /// So many steps, until `is_over` says that time is up.
    pub fn new(steps: u64, is_over: impl FnMut() -> bool + 'a) -> Self {
        Self { steps, configurations_max: 2_000_000, dives: true, is_over: Box::new(is_over) }
    }

    /// So many steps, however long they take.
    #[must_use]
    pub fn steps(steps: u64) -> Self {
        Self::new(steps, || false)
    }

    /// Keeps at most so many states of the search.
    #[must_use]
    pub fn with_configurations_max(mut self, max: usize) -> Self {
        self.configurations_max = max;
        self
    }

    /// Leaves out the depth-first search. The verdict is the same.
    #[must_use]
    pub fn without_dive(mut self) -> Self {
        self.dives = false;
        self
    }

    /// Takes one step; says why there are no more.
    fn step(&mut self, configurations: usize) -> Result<(), String> {
        if configurations > self.configurations_max {
            return Err(format!("more than {} configurations", self.configurations_max));
        }
        if self.steps.is_multiple_of(STEPS_BETWEEN_LOOKS) && (self.is_over)() {
            return Err("out of time".to_owned());
        }
        self.steps = self.steps.checked_sub(1).ok_or("out of steps")?;
        Ok(())
    }
}

impl fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("steps", &self.steps).finish_non_exhaustive()
    }
}
