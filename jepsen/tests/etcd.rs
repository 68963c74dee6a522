//! Real histories, judged before by another checker: etcd's, from Jepsen (`porcupine/README.md`).
//!
//! Its register has values and no versions, so it is a model of its own, with values that repeat: the hard
//! case.

#![allow(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)] // A test fails by panicking.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use arca_jepsen::checker::{Budget, Model, Op, Span, Verdict, check};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Etcd {
    Cas { from: u64, to: u64 },
    CasRefused { from: u64 },
    Read(Option<u64>),
    Write(u64),
}

struct EtcdModel;

impl Model for EtcdModel {
    type State = Option<u64>;
    type Op = Etcd;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn step(&mut self, state: &Option<u64>, op: &Etcd) -> Option<Option<u64>> {
        match *op {
            Etcd::Cas { from, to } => (*state == Some(from)).then_some(Some(to)),
            Etcd::CasRefused { from } => (*state != Some(from)).then_some(*state),
            Etcd::Read(seen) => (seen == *state).then_some(*state),
            Etcd::Write(value) => Some(Some(value)),
        }
    }

    fn only_looks(&self, op: &Etcd) -> bool {
        matches!(op, Etcd::CasRefused { .. } | Etcd::Read(_))
    }

    fn describe_op(&self, op: &Etcd) -> String {
        format!("{op:?}")
    }

    fn describe_state(&self, state: &Option<u64>) -> String {
        format!("{state:?}")
    }
}

/// Lines are `INFO jepsen.util - PROCESS :TYPE :F VALUE`, and others.
fn parse(text: &str) -> Vec<Op<Etcd>> {
    let (mut ops, mut open) = (Vec::new(), HashMap::new());
    for (at, line) in text.lines().enumerate() {
        let words: Vec<_> = line.split_whitespace().collect();
        let ["INFO", "jepsen.util", "-", process, kind, f, value @ ..] = words.as_slice() else { continue };
        let numbers: Vec<u64> =
            value.iter().filter_map(|word| word.trim_matches(['[', ']']).parse().ok()).collect();
        if *kind == ":invoke" {
            let what = match *f {
                ":read" => Etcd::Read(None),
                ":write" => Etcd::Write(numbers[0]),
                _ => Etcd::Cas { from: numbers[0], to: numbers[1] },
            };
            open.insert(*process, (at, what));
            continue;
        }
        let Some((from, asked)) = open.remove(process) else { continue };
        let (what, to) = match (*kind, asked) {
            (":ok", Etcd::Read(_)) => (Etcd::Read(numbers.first().copied()), Some(at)),
            (":ok", _) => (asked, Some(at)),
            (":fail", Etcd::Cas { from, .. }) => (Etcd::CasRefused { from }, Some(at)),
            (":info", Etcd::Cas { .. } | Etcd::Write(_)) => (asked, None),
            _ => continue,
        };
        ops.push(Op { span: Span { from, to }, what });
    }
    ops.extend(open.into_values().filter_map(|(from, what)| match what {
        Etcd::Read(_) => None,
        what => Some(Op { span: Span { from, to: None }, what }),
    }));
    ops
}

#[track_caller]
fn check_file(number: &str, want: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/porcupine/etcd_{number}.log"));
    let ops = parse(&fs::read_to_string(path).unwrap());
    assert!(ops.len() > 50, "{} operations", ops.len());
    let verdict = check(&mut EtcdModel, &ops, &mut Budget::steps(1_000_000));
    assert_eq!(verdict.name(), want, "{verdict}");
    let other = check(&mut EtcdModel, &ops, &mut Budget::steps(1_000_000).without_dive());
    assert_eq!(other.name(), want, "{other}");
    if let Verdict::Invalid(evidence) = &verdict {
        assert!(!evidence.stuck.is_empty(), "{verdict}");
    }
}

#[test]
fn judges_as_porcupine_does() {
    for number in ["000", "001", "003"] {
        check_file(number, "invalid");
    }
    for number in ["002", "005", "007"] {
        check_file(number, "valid");
    }
}
