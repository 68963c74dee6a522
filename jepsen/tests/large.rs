//! Long histories: right ones are found right in about one step an operation, wrong ones do not blow up.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

mod support;

use arca_jepsen::checker::{Budget, Verdict};
use arca_jepsen::history::{Answer, Event, History, ModelName};
use arca_jepsen::models::{self, Options};
use support::{Plan, make};

fn plan(model: ModelName, unknown: u64) -> Plan {
    Plan { model, processes: 10, operations: 20_000, unknown, lies: 0 }
}

/// One read in the middle shows what was there long before.
fn with_a_stale_read(history: &History) -> History {
    let mut events: Vec<Event> = history.events().to_vec();
    let middle = events.len() / 2;
    let read = events.iter_mut().skip(middle).find_map(|event| match &mut event.answer {
        Some(Answer::Value { version, value: Some(_) }) => Some(version),
        _ => None,
    });
    *read.unwrap() -= 1_000;
    History::new(events).unwrap()
}

#[track_caller]
fn check(history: &History, steps: u64) -> Verdict {
    let mut budget = Budget::steps(steps);
    models::check(history, Options::default(), &mut budget).remove(0).verdict
}

#[test]
fn right_ones_take_few_steps() {
    assert_eq!(check(&make(plan(ModelName::Register, 0), 1), 200_000), Verdict::Valid);
    assert_eq!(check(&make(plan(ModelName::Register, 2), 2), 1_000_000), Verdict::Valid);
    let lists = Plan { operations: 5_000, ..plan(ModelName::List, 2) };
    assert_eq!(check(&make(lists, 3), 200_000), Verdict::Valid);
}

#[test]
fn wrong_ones_are_found_wrong() {
    for unknown in [0, 2] {
        let verdict = check(&with_a_stale_read(&make(plan(ModelName::Register, unknown), 4)), 5_000_000);
        let Verdict::Invalid(evidence) = verdict else { panic!("{verdict}") };
        let text = evidence.to_string();
        assert!(text.lines().count() < 40 && text.contains("read of version"), "{text}");
    }
}

#[test]
fn a_budget_that_runs_out_is_unknown() {
    let history = make(plan(ModelName::Register, 0), 5);
    let verdict = check(&history, 1_000);
    assert!(matches!(verdict, Verdict::Unknown(_)), "{verdict}");
    let mut time_is_up = Budget::new(u64::MAX, || true);
    let verdicts = models::check(&history, Options::default(), &mut time_is_up);
    assert_eq!(models::together(&verdicts), models::Together::Unknown);
    let mut small = Budget::steps(u64::MAX).with_configurations_max(100);
    let verdicts = models::check(&history, Options::default(), &mut small);
    assert_eq!(models::together(&verdicts), models::Together::Unknown);
}
