//! The checker against others: one that tries every order, and an independent implementation of the same
//! algorithm.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

mod support;

use arca_jepsen::checker::{self, Budget, Op, Span, Verdict};
use arca_jepsen::history::{Answer, Event, History, ModelName};
use arca_jepsen::models::{self, Options};
use proptest::prelude::*;
use support::{Plan, brute_force, make};
use todc_utils::Action;
use todc_utils::WGLChecker;
use todc_utils::specifications::Specification;

/// By both searches.
fn is_valid(history: &History) -> bool {
    let by = |mut budget: Budget<'_>| {
        let verdicts = models::check(history, Options::default(), &mut budget);
        match &verdicts[0].verdict {
            Verdict::Valid => true,
            Verdict::Invalid(_) => false,
            Verdict::Unknown(reason) => panic!("{reason}"),
        }
    };
    let is_valid = by(Budget::steps(1_000_000));
    assert_eq!(by(Budget::steps(1_000_000).without_dive()), is_valid, "{history:#?}");
    is_valid
}

const MODELS: &[ModelName] = &[
    ModelName::Counter,
    ModelName::List,
    ModelName::Password,
    ModelName::Register,
    ModelName::Token,
    ModelName::Wrapping,
];

fn plans(lies: u64) -> impl Strategy<Value = Plan> {
    (0..MODELS.len(), 1_u64..5, 1_u64..8, prop_oneof![Just(0), Just(30), Just(60)]).prop_map(
        move |(model, processes, operations, unknown)| Plan {
            model: MODELS[model],
            processes,
            operations,
            unknown,
            lies,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_made_in_an_order_has_one(plan in plans(0), seed: u64) {
        let history = make(plan, seed);
        prop_assert!(brute_force(&history.operations()), "the maker is wrong: {history:#?}");
        prop_assert!(is_valid(&history), "{history:#?}");
    }

    #[test]
    fn what_was_made_up_is_judged_alike(plan in plans(40), seed: u64) {
        let history = make(plan, seed);
        prop_assert_eq!(is_valid(&history), brute_force(&history.operations()), "{:#?}", history);
    }

    #[test]
    fn one_changed_answer_is_judged_alike(plan in plans(0), seed: u64, at: prop::sample::Index) {
        let history = make(plan, seed);
        let Some(changed) = mutate(&history, at) else { return Ok(()) };
        prop_assert_eq!(is_valid(&changed), brute_force(&changed.operations()), "{:#?}", changed);
    }
}

/// Changes one number in one answer.
fn mutate(history: &History, at: prop::sample::Index) -> Option<History> {
    let mut events: Vec<Event> = history.events().to_vec();
    let answers: Vec<_> = (0..events.len()).filter(|at| events[*at].answer.is_some()).collect();
    let event = &mut events[*answers.get(at.index(answers.len().max(1)))?];
    event.answer = Some(match event.answer.clone()? {
        Answer::Version(version) => Answer::Version(version + 1),
        Answer::Value { version, value } => Answer::Value { version, value: value.map(|value| value + 1) },
        Answer::List(mut list) => {
            if list.pop().is_none() {
                list.push(1);
            }
            Answer::List(list)
        }
        _ => return None,
    });
    History::new(events).ok()
}

/// Values of a plain register, without versions: harder to check than ours, as little is said of where things
/// belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plain {
    Read(u64),
    Write(u64),
}

/// For ours.
struct PlainModel;

impl checker::Model for PlainModel {
    type State = u64;
    type Op = Plain;

    fn initial(&self) -> u64 {
        0
    }

    fn step(&mut self, state: &u64, op: &Plain) -> Option<u64> {
        match op {
            Plain::Read(seen) => (seen == state).then_some(*state),
            Plain::Write(value) => Some(*value),
        }
    }

    fn only_looks(&self, op: &Plain) -> bool {
        matches!(op, Plain::Read(_))
    }

    fn describe_op(&self, op: &Plain) -> String {
        format!("{op:?}")
    }

    fn describe_state(&self, state: &u64) -> String {
        state.to_string()
    }
}

/// For theirs.
impl Specification for PlainModel {
    type State = u64;
    type Operation = Plain;

    fn init() -> u64 {
        0
    }

    fn apply(op: &Plain, state: &u64) -> (bool, u64) {
        match op {
            Plain::Read(seen) => (seen == state, *state),
            Plain::Write(value) => (true, *value),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Each number is a process, which begins or ends something in turn.
    #[test]
    fn agrees_with_another_wing_and_gong(
        moves in prop::collection::vec((0_usize..5, any::<bool>(), 0_u64..3), 2..60),
    ) {
        let mut open: [Option<(Plain, usize)>; 5] = [None; 5];
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for (process, is_read, value) in moves {
            let now = theirs.len();
            match open[process].take() {
                Some((what, from)) => {
                    theirs.push((process, Action::Response(what)));
                    ours.push(Op { span: Span { from, to: Some(now) }, what });
                }
                None => {
                    let what = if is_read { Plain::Read(value) } else { Plain::Write(value) };
                    open[process] = Some((what, now));
                    theirs.push((process, Action::Call(what)));
                }
            }
        }
        for (process, slot) in open.iter_mut().enumerate() {
            if let Some((what, from)) = slot.take() {
                let to = Some(theirs.len());
                theirs.push((process, Action::Response(what)));
                ours.push(Op { span: Span { from, to }, what });
            }
        }
        let verdict = checker::check(&mut PlainModel, &ours, &mut Budget::steps(10_000_000));
        let expected = WGLChecker::<PlainModel>::is_linearizable(todc_utils::History::from_actions(theirs));
        prop_assert_eq!(verdict == Verdict::Valid, expected, "{:?}", ours);
        let mut budget = Budget::steps(10_000_000).without_dive();
        let verdict = checker::check(&mut PlainModel, &ours, &mut budget);
        prop_assert_eq!(verdict == Verdict::Valid, expected, "{:?}", ours);
    }
}
