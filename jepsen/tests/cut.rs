//! The check of a promotion: is what the new reign began with one moment of the old one? By a table of histories that are
//! good or bad for one reason each, and against a checker that tries every order of everything.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

mod support;

use std::collections::BTreeMap;

use arca_jepsen::checker::Budget;
use arca_jepsen::history::{Answer, Call, End, Event, History, Kind, ModelName, Operation};
use arca_jepsen::models::Firsts;
use arca_jepsen::models::cut::{Bounds, Cut, find, missing};
use proptest::prelude::*;
use support::{Dice, World};

/// A history in short: `invoke` as `1+w/x/7` (process 1 begins to write 7 to x), its end as `1=3` (answered version 3), `1=ok`
/// (answered), `1?` (in doubt), `1!` (failed); `1+a/l/7` appends. A moment is marked by `|`: the first two are the bounds.
fn read(text: &str) -> (History, Vec<usize>) {
    let mut events: Vec<Event> = Vec::new();
    let mut moments = Vec::new();
    let mut doing: BTreeMap<u64, Event> = BTreeMap::new();
    for word in text.split_whitespace() {
        if word == "|" {
            moments.push(events.len());
            continue;
        }
        let process = u64::from(word.as_bytes()[0] - b'0');
        let rest = &word[2..];
        let ended = |kind, answer, doing: &mut BTreeMap<u64, Event>| Event {
            kind,
            answer,
            ..doing.remove(&process).unwrap()
        };
        let event = match word.as_bytes()[1] {
            b'+' => {
                let parts: Vec<&str> = rest.split('/').collect();
                let value = parts[2].parse().unwrap();
                let (model, call) = match parts[0] {
                    "a" => (ModelName::List, Call::Append { value }),
                    _ => (ModelName::Register, Call::Write { value }),
                };
                let key = parts[1].to_owned();
                let kind = Kind::Invoke;
                let (index, time) = (0, 0);
                let event = Event { index, time, process, kind, model, key, call, answer: None, error: None };
                doing.insert(process, event.clone());
                event
            }
            b'=' if rest == "ok" => ended(Kind::Ok, Some(Answer::Done), &mut doing),
            b'=' => ended(Kind::Ok, Some(Answer::Version(rest.parse().unwrap())), &mut doing),
            b'?' => ended(Kind::Info, None, &mut doing),
            _ => ended(Kind::Fail, None, &mut doing),
        };
        events.push(event);
    }
    (History::new(events).unwrap(), moments)
}

fn value(version: u64, value: u64) -> Answer {
    Answer::Value { version, value: Some(value) }
}

fn list(values: &[u64]) -> Answer {
    if values.is_empty() { Answer::Absent } else { Answer::List(values.to_vec()) }
}

/// `says` is part of the evidence; empty if there is a cut.
#[track_caller]
fn check(text: &str, firsts: &[(&str, Answer)], says: &str) {
    let (old, moments) = read(text);
    let bounds = Bounds {
        since: moments.first().copied().unwrap_or_default(),
        until: moments.get(1).copied().unwrap_or(old.events().len()),
    };
    let firsts: Firsts = firsts.iter().map(|(key, first)| ((*key).to_owned(), first.clone())).collect();
    let found = find(&old, &firsts, bounds, &mut Budget::steps(1_000_000));
    match &found {
        Cut::At(at) => {
            assert!(says.is_empty() && (bounds.since..=bounds.until).contains(at), "{text}: {at}");
        }
        Cut::None(evidence) => {
            let evidence = evidence.to_string();
            assert!(!says.is_empty() && evidence.contains(says), "{text}: {evidence}");
        }
        Cut::Unknown(reason) => panic!("{text}: {reason}"),
    }
    assert_eq!(says.is_empty(), brute_force(&old, &firsts, bounds), "{text}: the other checker");
}

const X_THEN_Y: &str = "1+w/x/7 1=1 1+w/y/8 1=1";

#[test]
fn a_moment_of_the_old_reign() {
    check(X_THEN_Y, &[("x", value(1, 7)), ("y", value(1, 8))], "");
    check(X_THEN_Y, &[("x", value(1, 7)), ("y", Answer::Absent)], "");
    check(X_THEN_Y, &[("x", Answer::Absent), ("y", Answer::Absent)], "");
    check(X_THEN_Y, &[], "");
}

#[test]
fn something_is_missing_in_the_middle() {
    let says = "something is missing that came before something that is there";
    check(X_THEN_Y, &[("x", Answer::Absent), ("y", value(1, 8))], says);
    // Side by side, either may be missing.
    check("1+w/x/7 2+w/y/8 1=1 2=1", &[("x", Answer::Absent), ("y", value(1, 8))], "");
    check("1+w/x/7 2+w/y/8 1=1 2=1", &[("x", value(1, 7)), ("y", Answer::Absent)], "");
    // Through a third: x before z before y.
    let chain = "1+w/x/7 1=1 2+w/z/9 2=1 3+w/y/8 3=1";
    check(chain, &[("x", Answer::Absent), ("z", value(1, 9)), ("y", value(1, 8))], says);
    check(chain, &[("x", value(1, 7)), ("z", Answer::Absent), ("y", value(1, 8))], says);
    check(chain, &[("x", value(1, 7)), ("z", value(1, 9)), ("y", Answer::Absent)], "");
}

#[test]
fn what_was_in_doubt_may_be_there_or_not() {
    check("1+w/x/7 1? 2+w/y/8 2=1", &[("x", value(1, 7)), ("y", value(1, 8))], "");
    check("1+w/x/7 1? 2+w/y/8 2=1", &[("x", Answer::Absent), ("y", value(1, 8))], "");
    check("1+w/x/7 1? 2+w/y/8 2=1", &[("x", value(1, 7)), ("y", Answer::Absent)], "");
    check("1+w/x/7 1! 2+w/y/8 2=1", &[("x", value(1, 7)), ("y", value(1, 8))], "what it never held");
    // In doubt, but somebody's version shows that it came first.
    check(
        "1+w/x/7 1? 2+w/x/8 2=2 3+w/y/9 3=1",
        &[("x", Answer::Absent), ("y", value(1, 9))],
        "something is missing",
    );
    check("1+w/x/7 1? 2+w/x/8 2=2 3+w/y/9 3=1", &[("x", value(1, 7)), ("y", Answer::Absent)], "");
}

#[test]
fn what_was_never_there() {
    check(X_THEN_Y, &[("x", value(1, 9))], "what it never held");
    check(X_THEN_Y, &[("x", value(2, 7))], "what it never held");
    check("1+w/x/7 1=1 1+w/x/8 1=2", &[("x", value(1, 8))], "what it never held");
    check("1+a/l/1 1=ok 1+a/l/2 1=ok", &[("l", list(&[2]))], "what it never held");
    check("1+a/l/1 1=ok 1+a/l/2 1=ok", &[("l", list(&[2, 1]))], "what it never held");
}

#[test]
fn lists_are_cut_like_registers() {
    let text = "1+a/l/1 1=ok 1+w/x/7 1=1 1+a/l/2 1=ok";
    check(text, &[("l", list(&[1])), ("x", Answer::Absent)], "");
    check(text, &[("l", list(&[1])), ("x", value(1, 7))], "");
    check(text, &[("l", list(&[])), ("x", value(1, 7))], "something is missing");
    check(text, &[("l", list(&[1, 2])), ("x", Answer::Absent)], "something is missing");
    check(text, &[("l", list(&[1, 2])), ("x", value(1, 7))], "");
}

#[test]
fn what_had_to_be_there_is() {
    let since = "1+w/x/7 1=1 | 1+w/y/8 1=1";
    check(since, &[("x", value(1, 7)), ("y", Answer::Absent)], "");
    check(since, &[("x", Answer::Absent), ("y", Answer::Absent)], "what it had to have is missing");
    // It had begun, and not ended.
    check("1+w/x/7 | 1=1 1+w/y/8 1=1", &[("x", Answer::Absent), ("y", Answer::Absent)], "");
    // What is seen of one key decides for the others.
    check("1+w/x/7 1=1 | 1+w/y/8 1=1", &[("y", Answer::Absent)], "");
}

#[test]
fn nothing_is_there_that_came_when_all_was_over() {
    let until = "| 1+w/x/7 1=1 | 1+w/x/8 1=2";
    check(until, &[("x", value(1, 7))], "");
    check(until, &[("x", value(2, 8))], "when all was over");
    check("| 1+w/x/7 1=1 1+w/x/8 | 1=2", &[("x", value(2, 8))], "");
}

#[test]
fn what_is_not_judged_is_unknown() {
    let (old, _) = read(X_THEN_Y);
    let firsts = Firsts::from([("z".to_owned(), Answer::Absent)]);
    let found = find(&old, &firsts, Bounds::all(&old), &mut Budget::steps(1_000));
    assert!(matches!(found, Cut::Unknown(reason) if reason.contains("nobody did anything with z")));
}

#[test]
fn missing_writes_are_counted() {
    let (old, _) = read("1+w/x/7 1=1 1+w/x/8 1=2 1+a/l/1 1=ok 1+a/l/2 1=ok 1+w/y/9 1=1 1+w/x/6 1?");
    let firsts = [("x", value(1, 7)), ("l", list(&[1])), ("y", Answer::Absent)];
    let firsts: Firsts = firsts.into_iter().map(|(key, first)| (key.to_owned(), first)).collect();
    let calls: Vec<Call> = missing(&old, &firsts).into_iter().map(|operation| operation.call).collect();
    assert_eq!(calls, [Call::Write { value: 8 }, Call::Append { value: 2 }, Call::Write { value: 9 }]);
}

/// Whether some order of everything, with one look at all keys in it, explains all.
fn brute_force(old: &History, firsts: &Firsts, bounds: Bounds) -> bool {
    let operations = old.operations();
    let left: Vec<&Operation> = operations.iter().filter(|operation| operation.end != End::Fail).collect();
    let look = Look { firsts, bounds, is_done: false };
    any_order(&BTreeMap::new(), &left, &look)
}

#[derive(Clone)]
struct Look<'a> {
    firsts: &'a Firsts,
    bounds: Bounds,
    is_done: bool,
}

fn any_order<'a>(worlds: &BTreeMap<&'a str, World>, left: &[&'a Operation], look: &Look<'_>) -> bool {
    if look.is_done && left.iter().all(|operation| operation.end == End::Unknown) {
        return true;
    }
    // Event n stands at n + 1/2, moment n right before it.
    if !look.is_done
        && left.iter().all(|other| other.settled_at().is_none_or(|end| end >= look.bounds.since))
        && shows(worlds, look.firsts)
        && any_order(worlds, left, &Look { is_done: true, ..look.clone() })
    {
        return true;
    }
    (0..left.len()).any(|at| {
        let next = left[at];
        let comes_late = left.iter().any(|other| other.settled_at().is_some_and(|end| end < next.invoked_at));
        // The look has to come first if it was over when this began.
        if comes_late || (!look.is_done && look.bounds.until <= next.invoked_at) {
            return false;
        }
        let mut worlds = worlds.clone();
        let mut rest = left.to_vec();
        rest.remove(at);
        let explained = worlds.entry(&next.key).or_default().explains(next);
        explained && any_order(&worlds, &rest, look)
    })
}

fn shows(worlds: &BTreeMap<&str, World>, firsts: &Firsts) -> bool {
    firsts.iter().all(|(key, first)| {
        let model = if key == "l" { ModelName::List } else { ModelName::Register };
        let mut world = worlds.get(key.as_str()).cloned().unwrap_or_default();
        world.act(model, &Call::Read) == *first
    })
}

/// What was made up: a history, what was really there at some moment of it, and the moments between which it was looked.
struct Made {
    old: History,
    firsts: Firsts,
    bounds: Bounds,
}

const KEYS: [(ModelName, &str); 3] =
    [(ModelName::List, "l"), (ModelName::Register, "x"), (ModelName::Register, "y")];

/// What a process is at.
struct Doing {
    event: Event,
    answer: Option<Answer>,
}

fn begun(process: u64, number: u64, dice: &mut Dice, worlds: &mut [World]) -> Event {
    let key = usize::try_from(dice.below(3)).unwrap();
    let (model, name) = KEYS[key];
    let value = number;
    let call = match (dice.below(3), model) {
        (0, _) => Call::Read,
        (_, ModelName::List) => Call::Append { value },
        (1, _) => Call::Write { value },
        _ => match worlds[key].act(model, &Call::Read) {
            Answer::Value { version, .. } => Call::Cas { version, from: None, value },
            _ => Call::Cas { version: 0, from: None, value },
        },
    };
    let (key, kind) = (name.to_owned(), Kind::Invoke);
    Event { index: 0, time: 0, process, kind, model, key, call, answer: None, error: None }
}

/// `skew`: in a hundred, how many keys are seen as they were at another moment.
fn made(seed: u64, operations: u64, skew: u64) -> Made {
    let mut dice = Dice(seed);
    let mut worlds = vec![World::default(); KEYS.len()];
    let mut shots = vec![worlds.clone()];
    let mut events: Vec<Event> = Vec::new();
    // For each shot, how many events there were.
    let mut marks = vec![0];
    let mut slots: Vec<Option<Doing>> = vec![None, None, None];
    let (mut number, mut process) = (0, 0);
    while number < operations || slots.iter().any(Option::is_some) {
        let at = usize::try_from(dice.below(3)).unwrap();
        match slots[at].take() {
            None if number < operations => {
                (number, process) = (number + 1, process + 1);
                let event = begun(process, number, &mut dice, &mut worlds);
                events.push(event.clone());
                slots[at] = Some(Doing { event, answer: None });
            }
            None => {}
            Some(mut doing) if doing.answer.is_none() && dice.below(3) > 0 => {
                let key = KEYS.iter().position(|(_, name)| *name == doing.event.key).unwrap();
                doing.answer = Some(worlds[key].act(doing.event.model, &doing.event.call));
                shots.push(worlds.clone());
                marks.push(events.len());
                slots[at] = Some(doing);
            }
            Some(doing) => events.push(ended(doing, &mut dice)),
        }
    }
    let pick = |dice: &mut Dice| usize::try_from(dice.below(u64::try_from(shots.len()).unwrap())).unwrap();
    let shot = pick(&mut dice);
    let old = History::new(events).unwrap();
    let known: Vec<String> = old.operations().into_iter().map(|operation| operation.key).collect();
    let mut firsts = Firsts::new();
    for (key, (model, name)) in KEYS.iter().enumerate() {
        let seen = if dice.below(100) < skew { pick(&mut dice) } else { shot };
        if known.iter().any(|known| known == name) {
            firsts.insert((*name).to_owned(), shots[seen][key].clone().act(*model, &Call::Read));
        }
    }
    let slack = |dice: &mut Dice| usize::try_from(dice.below(6)).unwrap();
    let since = marks[shot].saturating_sub(slack(&mut dice));
    let until = (marks[shot] + slack(&mut dice)).min(old.events().len());
    Made { old, firsts, bounds: Bounds { since, until } }
}

fn ended(doing: Doing, dice: &mut Dice) -> Event {
    let Doing { event, answer } = doing;
    match answer {
        _ if dice.below(5) == 0 => Event { kind: Kind::Info, ..event },
        None => Event { kind: Kind::Fail, ..event },
        Some(Answer::Refused) => Event { kind: Kind::Fail, answer: Some(Answer::Refused), ..event },
        answer => Event { kind: Kind::Ok, answer, ..event },
    }
}

fn is_found(made: &Made) -> bool {
    match find(&made.old, &made.firsts, made.bounds, &mut Budget::steps(1_000_000)) {
        Cut::At(_) => true,
        Cut::None(_) => false,
        Cut::Unknown(reason) => panic!("{reason}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_seen_at_one_moment_is_a_cut(seed: u64, operations in 1_u64..8) {
        let made = made(seed, operations, 0);
        prop_assert!(is_found(&made), "{:?} {:?} {:#?}", made.bounds, made.firsts, made.old);
    }

    #[test]
    fn what_was_seen_at_several_moments_is_judged_alike(seed: u64, operations in 1_u64..7) {
        let made = made(seed, operations, 40);
        let wanted = brute_force(&made.old, &made.firsts, made.bounds);
        prop_assert_eq!(is_found(&made), wanted, "{:?} {:?} {:#?}", made.bounds, made.firsts, made.old);
    }
}
