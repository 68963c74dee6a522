//! Is what a new reign began with a moment of the old one?
//!
//! A cluster that takes over from another begins with a copy of its state. What the copy may lack is the end of what was
//! done there, and nothing in the middle: if a write is missing, everything that began after it had ended is missing too,
//! whatever its key. So the first look at all keys in the new reign has to be what **one** read of all of them at one moment
//! of the old one could have shown. An operation has its effect at some moment between its beginning and its end, so this can
//! be asked of each key by itself, as long as the moment is the same for all: the key's operations, and a read at that moment
//! of what was seen first, have to have an order. That is what the checks of the models say.
//!
//! For one key the moments that go are all those between a first and a last one, which are searched for by halving. Where
//! deletions are involved that is not so (they make no version, so the same deletion may stand on either side); such histories
//! are refused as unknown rather than judged wrongly.
//!
//! [`Bounds`] say more: the moment is not before one by which the copy was known to have everything, and not after the old
//! reign was over for the copy.

use super::{Firsts, Options, check_key, in_words};
use crate::checker::{Budget, Evidence, Verdict};
use crate::history::{Answer, Call, End, History, ModelName, Operation};

/// Between which moments the cut must lie. Moment *n* is right before event *n* of the old history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Not before this: what had been acknowledged by then is there.
    pub since: usize,
    /// Not after this: what had not begun by then is not there.
    pub until: usize,
}

impl Bounds {
    /// Any moment of `history`.
    #[must_use]
    pub fn all(history: &History) -> Self {
        Self { since: 0, until: history.events().len() }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The new reign began with this moment of the old one: the earliest that goes.
    At(usize),
    /// With none.
    None(Box<Evidence>),
    /// It was not found out. Never a pass.
    Unknown(String),
}

/// Looks for the moment of `old` that shows each of `firsts`. Only registers that are never deleted and lists are judged.
pub fn find(old: &History, firsts: &Firsts, bounds: Bounds, budget: &mut Budget<'_>) -> Cut {
    let keys = match keys(old, firsts) {
        Ok(keys) => keys,
        Err(reason) => return Cut::Unknown(reason),
    };
    match search(&keys, bounds, budget) {
        Ok(at) => Cut::At(at),
        Err(Failed::Unknown(reason)) => Cut::Unknown(reason),
        Err(Failed::Wrong(evidence)) => Cut::None(evidence),
    }
}

enum Failed {
    Unknown(String),
    Wrong(Box<Evidence>),
}

/// One key: what was done in the old reign, and what the new one showed first.
struct Key<'a> {
    name: &'a str,
    model: ModelName,
    operations: Vec<Operation>,
    first: &'a Answer,
}

/// Room between two events for a moment, which is an interval like any other.
const SPREAD: usize = 3;

fn keys<'a>(old: &History, firsts: &'a Firsts) -> Result<Vec<Key<'a>>, String> {
    let mut operations = old.operations();
    for operation in &mut operations {
        operation.invoked_at = (operation.invoked_at + 1) * SPREAD;
        operation.ended_at = operation.ended_at.map(|at| (at + 1) * SPREAD);
    }
    let mut found = Vec::new();
    for (name, first) in firsts {
        let operations: Vec<_> =
            operations.iter().filter(|operation| operation.key == *name).cloned().collect();
        let Some(model) = operations.first().map(|operation| operation.model) else {
            return Err(format!("nobody did anything with {name} in the old reign"));
        };
        let is_judged = matches!(model, ModelName::List | ModelName::Register)
            && operations.iter().all(|operation| operation.call != Call::Delete);
        if !is_judged {
            return Err(format!("{name} is nothing of which a read tells how far it is"));
        }
        found.push(Key { name, model, operations, first });
    }
    Ok(found)
}

fn search(keys: &[Key<'_>], bounds: Bounds, budget: &mut Budget<'_>) -> Result<usize, Failed> {
    let mut earliest: Option<(usize, &Key<'_>)> = None;
    let mut latest: Option<(usize, &Key<'_>)> = None;
    for key in keys {
        key.goes_at_all(bounds, budget)?;
        let from = key.first_moment(bounds, budget)?;
        let to = key.last_moment(bounds, budget)?;
        if earliest.is_none_or(|(at, _)| from > at) {
            earliest = Some((from, key));
        }
        if latest.is_none_or(|(at, _)| to < at) {
            latest = Some((to, key));
        }
    }
    let (Some((from, late)), Some((to, early))) = (earliest, latest) else { return Ok(bounds.since) };
    if from > to {
        return Err(Failed::Wrong(Box::new(apart(late, from, early, to))));
    }
    // The first goes, unless something here is not what it is said to be above.
    'moments: for at in from..=to {
        for key in keys {
            if !key.goes(at, at, budget)? {
                continue 'moments;
            }
        }
        return Ok(at);
    }
    let text = format!("each key shows a moment between events {from} and {to}, but never the same");
    Err(Failed::Wrong(Box::new(Evidence::of(text))))
}

/// Two keys that show the old reign at different times.
fn apart(late: &Key<'_>, from: usize, early: &Key<'_>, to: usize) -> Evidence {
    let summary = format!(
        "{} began with what it held no sooner than event {from}, and {} with what it held no later than event {to}: \
         something is missing that came before something that is there",
        late.name, early.name
    );
    let mut lines = vec![format!("{}: {}", late.name, shown(late.first))];
    lines.extend(late.around(from));
    lines.push(format!("{}: {}", early.name, shown(early.first)));
    lines.extend(early.around(to));
    Evidence::with(summary, lines)
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::List(values) => {
            format!("{} values, the last of them {:?}, were seen first", values.len(), values.last())
        }
        Answer::Value { version, value } => format!("version {version} with {value:?} was seen first"),
        _ => "nothing was seen first".to_owned(),
    }
}

impl Key<'_> {
    /// Whether a read between two moments could have shown what was seen first.
    fn goes(&self, from: usize, to: usize, budget: &mut Budget<'_>) -> Result<bool, Failed> {
        match self.verdict(from, to, budget) {
            Verdict::Valid => Ok(true),
            Verdict::Invalid(_) => Ok(false),
            Verdict::Unknown(reason) => Err(Failed::Unknown(format!("{}: {reason}", self.name))),
        }
    }

    fn verdict(&self, from: usize, to: usize, budget: &mut Budget<'_>) -> Verdict {
        let read = Operation {
            process: u64::MAX,
            model: self.model,
            key: self.name.to_owned(),
            call: Call::Read,
            answer: Some(self.first.clone()),
            end: End::Ok,
            invoked_at: from * SPREAD + 1,
            ended_at: Some(to * SPREAD + 2),
            invoked_ns: 0,
            ended_ns: None,
        };
        // In the order of their beginnings, as everywhere.
        let mut operations: Vec<&Operation> = self.operations.iter().collect();
        let place = operations.partition_point(|operation| operation.invoked_at < read.invoked_at);
        operations.insert(place, &read);
        check_key(self.model, None, &operations, Options::default(), budget)
    }

    /// Says why, if no moment goes.
    fn goes_at_all(&self, bounds: Bounds, budget: &mut Budget<'_>) -> Result<(), Failed> {
        if self.goes(bounds.since, bounds.until, budget)? {
            return Ok(());
        }
        let text = if self.goes(0, bounds.since, budget)? {
            format!(
                "{} began with what it held before event {} only: what it had to have is missing",
                self.name, bounds.since
            )
        } else if self.goes(bounds.until, usize::MAX / (2 * SPREAD), budget)? {
            format!(
                "{} began with what it held after event {} only, when all was over",
                self.name, bounds.until
            )
        } else {
            format!("{} began with what it never held", self.name)
        };
        let mut lines = vec![shown(self.first)];
        lines.extend(self.around(bounds.since));
        Err(Failed::Wrong(Box::new(Evidence::with(text, lines))))
    }

    /// The first moment by which it was so: once it could be read, a read that may take longer can see it too.
    fn first_moment(&self, bounds: Bounds, budget: &mut Budget<'_>) -> Result<usize, Failed> {
        let (mut low, mut high) = (bounds.since, bounds.until);
        while low < high {
            let middle = low.midpoint(high);
            if self.goes(bounds.since, middle, budget)? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The last moment from which it still was so.
    fn last_moment(&self, bounds: Bounds, budget: &mut Budget<'_>) -> Result<usize, Failed> {
        let (mut low, mut high) = (bounds.since, bounds.until);
        while low < high {
            let middle = low.midpoint(high + 1);
            if self.goes(middle, bounds.until, budget)? {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    /// What was done around a moment, in words; places are those of the old history.
    fn around(&self, moment: usize) -> Vec<String> {
        const NEAR: usize = 2;
        let place = moment * SPREAD;
        let changes = self.operations.iter().filter(|operation| operation.call.has_effect());
        let (before, after): (Vec<_>, Vec<_>) =
            changes.partition(|operation| operation.ended_at.is_some_and(|at| at <= place));
        let before = before.iter().rev().take(NEAR).rev();
        before.chain(after.iter().take(NEAR)).map(|operation| self.line(operation)).collect()
    }

    fn line(&self, operation: &Operation) -> String {
        let back = |at: usize| (at / SPREAD).saturating_sub(1);
        let mut found = operation.clone();
        found.invoked_at = back(found.invoked_at);
        found.ended_at = found.ended_at.map(back);
        let value = match (&found.call, &found.answer) {
            (
                Call::Append { value } | Call::Write { value } | Call::Cas { value, .. },
                Some(Answer::Version(version)),
            ) => {
                format!(" of {value} as version {version}")
            }
            (Call::Append { value } | Call::Write { value } | Call::Cas { value, .. }, _) => {
                format!(" of {value}")
            }
            _ => String::new(),
        };
        format!("{}: {}{value}", self.name, in_words(&found))
    }
}

/// Acknowledged writes of the old reign that are not in what the new one began with, each with the time of its end.
#[must_use]
pub fn missing(old: &History, firsts: &Firsts) -> Vec<Operation> {
    let is_missing = |operation: &Operation| {
        if operation.end != End::Ok || !operation.call.has_effect() {
            return false;
        }
        match (&operation.call, &operation.answer, firsts.get(&operation.key)) {
            (Call::Append { value }, _, Some(Answer::List(values))) => !values.contains(value),
            (_, Some(Answer::Version(made)), Some(Answer::Value { version, .. })) => made > version,
            // Nothing was there, or nobody looked, because it came so late.
            _ => true,
        }
    };
    old.operations().into_iter().filter(is_missing).collect()
}
