//! A run on one page: what was asked, what went wrong on purpose, whether all of it did, and what the check
//! found.
//!
//! **Invariant:** a run passes only if every key is valid, something was acknowledged, every fault that was
//! promised was seen to begin, to hit something and to end, and there were no other problems. The text and the picture stay small however long the run was.
//! Read next: [`picture`] for the plot.

mod latency;
mod page;
mod picture;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::history::{End, History};
use crate::models::{self, KeyVerdict, Together};

/// Something that was broken on purpose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Its class, for example `kill`: what is promised is told in classes.
    pub class: String,
    /// What exactly, for example which node.
    pub detail: String,
    /// When it began, in the recorder's time ([`crate::history::recorder::Recorder::now`]).
    pub from_ns: u64,
    /// When it ended; none if it never did.
    pub to_ns: Option<u64>,
    /// How often it hit something.
    pub hits: u64,
}

/// All there is to say about a run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// How it is called.
    pub title: &'a str,
    /// What clients did.
    pub history: &'a History,
    /// What was broken.
    pub faults: &'a [Fault],
    /// Classes of faults the run was to show.
    pub promised: &'a [&'a str],
    /// What the check found.
    pub verdicts: &'a [KeyVerdict],
    /// What else went wrong.
    pub problems: &'a [String],
}

impl Run<'_> {
    /// Promised classes of which no fault began, hit something and ended.
    #[must_use]
    pub fn missing(&self) -> Vec<&str> {
        let ended = self.faults.iter().filter(|fault| fault.to_ns.is_some() && fault.hits > 0);
        let seen: BTreeSet<&str> = ended.map(|fault| fault.class.as_str()).collect();
        self.promised.iter().copied().filter(|class| !seen.contains(class)).collect()
    }

    /// Why it did not pass; empty if it did.
    #[must_use]
    pub fn shortcomings(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        let together = models::together(self.verdicts);
        if together != Together::Valid {
            reasons.push(format!("the verdict is {}", together.name()));
        }
        if !self.history.operations().iter().any(|operation| operation.end == End::Ok) {
            reasons.push("nothing was acknowledged".to_owned());
        }
        let missing = self.missing();
        if !missing.is_empty() {
            reasons.push(format!("promised, and not seen to begin, hit and end: {}", missing.join(", ")));
        }
        reasons.extend(self.problems.iter().cloned());
        reasons
    }

    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.shortcomings().is_empty()
    }

    /// The page, in Markdown. `picture` is the name of the plot's file, if it lies beside it.
    #[must_use]
    pub fn page(&self, picture: Option<&str>) -> String {
        page::write(self, picture)
    }

    /// The plot: latency over time by outcome, with the faults.
    #[must_use]
    pub fn picture(&self) -> String {
        picture::draw(self)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::checker::{Evidence, Verdict};
    use crate::history::{Answer, Call, Event, Kind, ModelName};

    const MS: u64 = 1_000_000;

    fn history(count: usize) -> History {
        let mut events = Vec::new();
        for number in 0..count {
            let begin = u64::try_from(number).unwrap() * 20 * MS;
            let latency = (u64::try_from(number % 10).unwrap() + 1) * MS;
            let (kind, answer) = match number % 5 {
                3 => (Kind::Fail, None),
                4 => (Kind::Info, None),
                _ => (Kind::Ok, Some(Answer::Version(1))),
            };
            let process = u64::try_from(number).unwrap();
            let (key, call) = ("r/1".to_owned(), Call::Write { value: process });
            let model = ModelName::Register;
            let invoke = Event {
                index: 0,
                time: begin,
                process,
                kind: Kind::Invoke,
                model,
                key,
                call,
                answer: None,
                error: None,
            };
            events.push(invoke.clone());
            events.push(Event { time: begin + latency, kind, answer, ..invoke });
        }
        History::new(events).unwrap()
    }

    fn fault(class: &str, from_ms: u64, to_ms: Option<u64>) -> Fault {
        let (class, detail) = (class.to_owned(), "node <1>".to_owned());
        Fault { class, detail, from_ns: from_ms * MS, to_ns: to_ms.map(|ms| ms * MS), hits: 1 }
    }

    fn found(verdict: Verdict) -> Vec<KeyVerdict> {
        vec![KeyVerdict { key: "r/1".to_owned(), model: ModelName::Register, operations: 10, verdict }]
    }

    #[track_caller]
    fn check(faults: &[Fault], promised: &[&str], verdict: Verdict, want: &[&str]) {
        let (history, verdicts) = (history(10), found(verdict));
        let run =
            Run { title: "test", history: &history, faults, promised, verdicts: &verdicts, problems: &[] };
        assert_eq!(run.shortcomings(), want);
        assert_eq!(run.passed(), want.is_empty());
    }

    #[test]
    fn passes_only_if_all_is_shown() {
        let faults = [fault("kill", 10, Some(20)), fault("pause", 30, None)];
        let unknown = || Verdict::Unknown("out of time".to_owned());
        check(&faults, &["kill"], Verdict::Valid, &[]);
        check(
            &faults,
            &["kill", "pause"],
            Verdict::Valid,
            &["promised, and not seen to begin, hit and end: pause"],
        );
        check(
            &[],
            &["kill", "pause"],
            Verdict::Valid,
            &["promised, and not seen to begin, hit and end: kill, pause"],
        );
        check(&faults, &["kill"], unknown(), &["the verdict is unknown"]);
        check(&faults, &[], Verdict::Invalid(Box::default()), &["the verdict is invalid"]);
        let missed = [Fault { hits: 0, ..fault("kill", 10, Some(20)) }];
        check(&missed, &["kill"], Verdict::Valid, &["promised, and not seen to begin, hit and end: kill"]);
    }

    #[test]
    fn nothing_acknowledged_is_no_pass() {
        let history = History::default();
        let run = Run {
            title: "test",
            history: &history,
            faults: &[],
            promised: &[],
            verdicts: &[],
            problems: &[],
        };
        assert_eq!(run.shortcomings(), ["the verdict is unknown", "nothing was acknowledged"]);
    }

    #[test]
    fn the_page() {
        let history = history(10);
        let verdicts = found(Verdict::Invalid(Box::new(Evidence::of("no order"))));
        let faults = [fault("kill", 10, Some(20)), fault("kill", 40, Some(60)), fault("pause", 30, None)];
        let promised = ["kill", "pause", "partition"];
        let run = Run {
            title: "Kills",
            history: &history,
            faults: &faults,
            promised: &promised,
            verdicts: &verdicts,
            problems: &["node3 did not come back".to_owned()],
        };
        expect![[r#"
            # Kills: FAILED

            - the verdict is invalid
            - promised, and not seen to begin, hit and end: pause, partition
            - node3 did not come back

            10 operations of 10 processes on 1 keys in 0.2 s.

            ![latency over time](plot.svg)

            ## Operations

            | call | ok | refused | failed | unknown | p50 ms | p99 ms | max ms |
            |---|---|---|---|---|---|---|---|
            | register write | 6 | 0 | 2 | 2 | 3.0 | 8.0 | 8.0 |

            Latencies are of what was acknowledged.

            ## Faults

            | class | promised | begun | ended | hit | seconds |
            |---|---|---|---|---|---|
            | kill | yes | 2 | 2 | 2 | 0.0 |
            | partition | yes | 0 | 0 | 0 | 0.0 |
            | pause | yes | 1 | 0 | 1 | 0.0 |

            ## Verdicts

            | model | keys | operations | valid | invalid | unknown |
            |---|---|---|---|---|---|
            | register | 1 | 10 | 0 | 1 | 0 |

            ```text
            register r/1: invalid: no order
            ```
        "#]]
        .assert_eq(&run.page(Some("plot.svg")));
    }

    #[test]
    fn the_picture_stays_small() {
        let history = history(60_000);
        let faults: Vec<_> = (0..5_000).map(|at| fault("kill", at * 200, Some(at * 200 + 100))).collect();
        let run = Run {
            title: "Long & wide",
            history: &history,
            faults: &faults,
            promised: &[],
            verdicts: &[],
            problems: &[],
        };
        let picture = run.picture();
        assert!(picture.len() < 150_000, "{} bytes", picture.len());
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("Long &amp; wide") && !picture.contains("node <1>"));
    }
}
