//! What clients saw while one cluster was the primary, and after it the other.
//!
//! Each reign by itself has an explanation, whatever became of what was written in it. Across a promotion, what was
//! acknowledged before the entry up to which the new primary had followed the old one is there. What the old one did later may
//! be lost: of that, what had an effect may or may not have happened, and what only looked says nothing.

use std::collections::BTreeMap;

use arca_jepsen::history::{Event, History, Kind, ModelName};

use crate::run::Failure;

/// Where processes of a history that is put together are counted from.
const FRESH: u64 = 1 << 40;

/// Which part of a reign the next one has, nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// What was answered until then it has.
    pub(super) until: u64,
    /// What was asked later than that it has not.
    pub(super) from: u64,
}

/// Puts histories of one clock together, all but the last as far as those who came later have it.
///
/// # Errors
/// When what comes out is no history.
pub(super) fn joined(reigns: &[(History, Cut)], last: &History) -> Result<History, Failure> {
    let mut fresh = FRESH;
    let mut events: Vec<Event> = Vec::new();
    for (history, cut) in reigns {
        events.extend(renamed(shortened(history, *cut), &mut fresh));
    }
    events.extend(renamed(last.events().to_vec(), &mut fresh));
    // Tokens and the like are each reign's own, and are named anew in each.
    events.retain(|event| matches!(event.model, ModelName::List | ModelName::Register));
    // Stable: of one moment, what is of an older reign comes first.
    events.sort_by_key(|event| event.time);
    History::new(events).map_err(|err| Failure::History(err.to_string()))
}

/// Every process gets a number of its own. One goes on under another after what it does not know the end of.
fn renamed(events: Vec<Event>, fresh: &mut u64) -> Vec<Event> {
    let mut names: BTreeMap<u64, u64> = BTreeMap::new();
    let mut next = || {
        *fresh += 1;
        *fresh
    };
    let rename = |mut event: Event| {
        let process = event.process;
        if event.kind == Kind::Invoke {
            names.insert(process, next());
        }
        event.process = names.get(&process).copied().unwrap_or(process);
        event
    };
    events.into_iter().map(rename).collect()
}

/// Without what was asked behind the cut, and what was answered behind it: calls that change nothing are left out, of others
/// the end is.
fn shortened(history: &History, Cut { until, from }: Cut) -> Vec<Event> {
    let events = history.events();
    // Position of a call's invocation, by process; and what is left out.
    let (mut begun, mut out) = (BTreeMap::new(), vec![false; events.len()]);
    for (at, event) in events.iter().enumerate() {
        if event.kind == Kind::Invoke {
            begun.insert(event.process, at);
            if event.time > from || event.time > until && !event.call.has_effect() {
                mark(&mut out, at);
            }
        } else if event.time > until {
            mark(&mut out, at);
            if !event.call.has_effect()
                && let Some(begin) = begun.get(&event.process)
            {
                mark(&mut out, *begin);
            }
        }
    }
    let kept = events.iter().zip(out).filter(|(_, out)| !out);
    kept.map(|(event, _)| event.clone()).collect()
}

fn mark(out: &mut [bool], at: usize) {
    if let Some(out) = out.get_mut(at) {
        *out = true;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use arca_jepsen::history::End;

    use super::*;

    fn history(lines: &[(u64, u64, &str)]) -> History {
        let text: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(index, (time, process, rest))| {
                format!(
                    "{{\"index\":{index},\"time\":{time},\"process\":{process},\"model\":\"register\",\"key\":\"r\",{rest}}}"
                )
            })
            .collect();
        History::read(text.join("\n").as_bytes()).unwrap()
    }

    const WRITE: &str = r#""type":"invoke","call":{"write":{"value":7}}"#;
    const WROTE: &str = r#""type":"ok","call":{"write":{"value":7}},"answer":{"version":1}"#;
    const READ: &str = r#""type":"invoke","call":"read""#;
    const NOTHING: &str = r#""type":"ok","call":"read","answer":"absent""#;

    #[test]
    fn what_was_answered_in_time_stays_and_what_came_later_may_be_lost() {
        let first = history(&[
            (10, 0, WRITE),
            (20, 0, WROTE),
            (30, 0, WRITE),
            (31, 1, READ),
            (45, 0, WROTE),
            (46, 1, NOTHING),
            (50, 0, WRITE),
            (55, 0, WROTE),
        ]);
        let second = history(&[(60, 0, READ), (70, 0, NOTHING)]);
        let ends = |until| {
            let cut = Cut { until, from: until + 5 };
            let joined = joined(&[(first.clone(), cut)], &second).unwrap();
            joined.operations().iter().map(|operation| operation.end).collect::<Vec<_>>()
        };
        assert_eq!(ends(40), [End::Ok, End::Unknown, End::Ok]);
        assert_eq!(ends(45), [End::Ok, End::Ok, End::Unknown, End::Ok]);
        assert_eq!(ends(100).len(), 5);
        assert!(ends(100).iter().all(|end| *end == End::Ok));
    }
}
