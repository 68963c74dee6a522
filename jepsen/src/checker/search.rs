//! The search for an order, never twice from the same place.
//!
//! A place (*configuration*) is which operations have been put in order, and what the object then holds:
//! Lowe's insight is that how one got there does not matter. Wing and Gong's rule says what may come next: an
//! operation that began before any of those still left over had ended.
//!
//! **Twice.** First depth first, which is quick where there is an order. If that takes long, once more in the order of
//! time, all orders side by side: where there is none, this shows at the first end that nothing explains, instead of
//! after all that could have been done before.
//!
//! **How the set is kept.** Operations that ended are numbered by their beginning. By the rule, those left
//! over below the highest one in order are all under way at one moment, so there are never more than
//! processes: the set is the highest number and a short list of holes, not one bit for every operation.
//! Operations without an end are a bit set of their own.
//!
//! **What is left out of the search, and why that is safe.**
//! - An operation that only looks, and fits, comes at once: moving it to the front of any order changes
//!   nothing for the rest. One that merely happens to change nothing here is another matter: later it might.
//! - An operation without an end that would change nothing is not tried: it may as well never have happened.
//! - A configuration is not gone into where another differs from it only in having more operations without an
//!   end left over: what can be done from the one can be done from the other. Those that come too late to do
//!   anything count as used.
//! - Of equal operations without an end only the first left over is tried: they stay possible for ever, so
//!   one is as good as the other.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::evidence::SHOWN_MAX;
use super::{Budget, Evidence, Model, Op, Verdict};

/// Looks for an order of `ops`.
pub fn check<M: Model>(model: &mut M, ops: &[Op<M::Op>], budget: &mut Budget<'_>) -> Verdict {
    Search::new(model, ops).run(budget)
}

/// Which ended operations are in order, and what the object holds.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place<S> {
    /// One above the highest ended operation in order.
    next: u32,
    /// Ended operations below `next` that are not in order, ascending.
    holes: Vec<u32>,
    state: S,
}

/// Operations without an end that are in order, or come too late: one bit each.
type Used = Vec<u64>;

/// An operation to be put next.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Choice {
    Ended(u32),
    Pending(u32),
}

/// A configuration, and how it was first reached.
struct Configuration {
    place: u32,
    used: Used,
    parent: u32,
    choice: Choice,
}

/// How a search ended.
enum Found {
    /// With an order.
    Order,
    /// There is none.
    None,
}

/// Steps of the first search: so many,
const DIVE_STEPS_MIN: usize = 10_000;
/// and so many for each operation.
const DIVE_STEPS_EACH: usize = 20;

/// A configuration being explored.
struct Frame {
    at: u32,
    choices: Vec<Choice>,
    tried: usize,
}

/// An ended operation.
struct Ended<'a, O> {
    from: usize,
    to: usize,
    what: &'a O,
}

/// An operation without an end.
struct Pending<'a, O> {
    from: usize,
    what: &'a O,
    /// The equal one before it.
    twin: Option<u32>,
}

struct Search<'a, M: Model> {
    model: &'a mut M,
    ended: Vec<Ended<'a, M::Op>>,
    pending: Vec<Pending<'a, M::Op>>,
    /// Places seen, and the configurations there, of which none has all that another has left over.
    places: IndexMap<Place<M::State>, Vec<u32>, RandomState>,
    seen: Vec<Configuration>,
    /// The configuration with most ended operations in order, and how many.
    best: (u32, usize),
}

/// Numbers are kept small: a configuration holds many.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn large(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a mut M, ops: &'a [Op<M::Op>]) -> Self {
        let mut ops: Vec<_> = ops.iter().collect();
        ops.sort_by_key(|op| op.span.from);
        let (mut ended, mut pending) = (Vec::new(), Vec::<Pending<'a, M::Op>>::new());
        for op in ops {
            match op.span.to {
                Some(to) => ended.push(Ended { from: op.span.from, to, what: &op.what }),
                None => {
                    let twin = pending.iter().rposition(|other| *other.what == op.what).map(small);
                    pending.push(Pending { from: op.span.from, what: &op.what, twin });
                }
            }
        }
        Self { model, ended, pending, places: IndexMap::default(), seen: Vec::new(), best: (0, 0) }
    }

    fn run(mut self, budget: &mut Budget<'_>) -> Verdict {
        let patience = DIVE_STEPS_MIN + DIVE_STEPS_EACH * (self.ended.len() + self.pending.len());
        let verdict = match self.dive(if budget.dives { patience } else { 0 }, budget) {
            Ok(None) => self.sweep(budget),
            Ok(Some(verdict)) => Ok(verdict),
            Err(reason) => Err(reason),
        };
        match verdict {
            Ok(Found::Order) => Verdict::Valid,
            Ok(Found::None) => Verdict::Invalid(Box::new(self.evidence())),
            Err(reason) => Verdict::Unknown(format!("{reason} after {} configurations", self.seen.len())),
        }
    }

    fn begin(&mut self) -> Option<u32> {
        self.places.clear();
        self.seen.clear();
        self.best = (0, 0);
        let first = Place { next: 0, holes: Vec::new(), state: self.model.initial() };
        self.enter(first, vec![0; self.pending.len().div_ceil(64)], 0, Choice::Ended(0))
    }

    /// Depth first, for so many steps.
    fn dive(&mut self, patience: usize, budget: &mut Budget<'_>) -> Result<Option<Found>, String> {
        let mut stack = Vec::new();
        let mut entered = self.begin();
        for _ in 0..patience {
            if let Some(at) = entered.take() {
                match self.choices(at) {
                    None => return Ok(Some(Found::Order)),
                    Some((choices, _)) => stack.push(Frame { at, choices, tried: 0 }),
                }
            }
            let Some(frame) = stack.last_mut() else { return Ok(Some(Found::None)) };
            let Some(choice) = frame.choices.get(frame.tried).copied() else {
                stack.pop();
                continue;
            };
            frame.tried += 1;
            let parent = frame.at;
            budget.step(self.seen.len())?;
            let Some((place, used)) = self.put(parent, choice) else { continue };
            if self.only_looks(choice) {
                frame.tried = frame.choices.len(); // Whatever else is possible here is possible afterwards.
            }
            entered = self.enter(place, used, parent, choice);
        }
        Ok(None)
    }

    /// In the order of time: all that leads past one end before anything that leads past the next.
    fn sweep(&mut self, budget: &mut Budget<'_>) -> Result<Found, String> {
        let mut queue = BinaryHeap::new();
        let mut entered: Vec<u32> = self.begin().into_iter().collect();
        loop {
            for at in entered.drain(..) {
                let Some((choices, horizon)) = self.choices(at) else { return Ok(Found::Order) };
                queue.push(Reverse((horizon, self.used_count(at), at, choices)));
            }
            let Some(Reverse((_, _, parent, choices))) = queue.pop() else { return Ok(Found::None) };
            for choice in choices {
                budget.step(self.seen.len())?;
                let Some((place, used)) = self.put(parent, choice) else { continue };
                entered.extend(self.enter(place, used, parent, choice));
                if self.only_looks(choice) {
                    break;
                }
            }
        }
    }

    fn used_count(&self, at: u32) -> u32 {
        self.seen.get(large(at)).map_or(0, |found| found.used.iter().map(|word| word.count_ones()).sum())
    }

    /// Takes a configuration down; `None` if there is nothing new in it.
    fn enter(&mut self, place: Place<M::State>, mut used: Used, parent: u32, choice: Choice) -> Option<u32> {
        for (at, op) in self.pending.iter().enumerate() {
            if self.model.is_too_late(&place.state, op.what) {
                mark(&mut used, small(at));
            }
        }
        let count = large(place.next) - place.holes.len();
        let entry = self.places.entry(place);
        let number = small(entry.index());
        let here = entry.or_default();
        let is_old = here
            .iter()
            .filter_map(|at| self.seen.get(large(*at)))
            .any(|other| other.used.iter().zip(&used).all(|(other, used)| other & !used == 0));
        if is_old {
            return None;
        }
        let at = small(self.seen.len());
        here.push(at);
        self.seen.push(Configuration { place: number, used, parent, choice });
        if count > self.best.1 {
            self.best = (at, count);
        }
        Some(at)
    }

    fn at(&self, at: u32) -> Option<(&Configuration, &Place<M::State>)> {
        let configuration = self.seen.get(large(at))?;
        Some((configuration, self.places.get_index(large(configuration.place))?.0))
    }

    /// What may come next, and before which end; `None` if everything that ended is in order.
    fn choices(&self, at: u32) -> Option<(Vec<Choice>, usize)> {
        let (configuration, place) = self.at(at)?;
        let (ended, horizon) = self.left_over(place);
        if ended.is_empty() {
            return None;
        }
        let mut choices: Vec<_> = ended.into_iter().map(Choice::Ended).collect();
        let used = &configuration.used;
        for (at, op) in self.pending.iter().enumerate() {
            if op.from >= horizon {
                break;
            }
            let is_twin_left = op.twin.is_some_and(|twin| !has(used, twin));
            if !has(used, small(at)) && !is_twin_left {
                choices.push(Choice::Pending(small(at)));
            }
        }
        Some((choices, horizon))
    }

    /// Ended operations that may come next, those that ended first in front; and the end of the first.
    fn left_over(&self, from: &Place<M::State>) -> (Vec<u32>, usize) {
        let mut horizon = usize::MAX;
        let mut found = Vec::new();
        let later = from.next..small(self.ended.len());
        for at in from.holes.iter().copied().chain(later) {
            let Some(op) = self.ended.get(large(at)) else { break };
            if op.from >= horizon {
                break;
            }
            horizon = horizon.min(op.to);
            found.push((op.to, op.from, at));
        }
        found.retain(|(_, began, _)| *began < horizon);
        found.sort_unstable();
        (found.into_iter().map(|(_, _, at)| at).collect(), horizon)
    }

    fn only_looks(&self, choice: Choice) -> bool {
        match choice {
            Choice::Ended(at) => self.ended.get(large(at)).is_some_and(|op| self.model.only_looks(op.what)),
            Choice::Pending(_) => false,
        }
    }

    /// Where `choice` leads; `None` if it does not fit.
    fn put(&mut self, parent: u32, choice: Choice) -> Option<(Place<M::State>, Used)> {
        let configuration = self.seen.get(large(parent))?;
        let (from, _) = self.places.get_index(large(configuration.place))?;
        let mut used = configuration.used.clone();
        match choice {
            Choice::Ended(at) => {
                let state = self.model.step(&from.state, self.ended.get(large(at))?.what)?;
                let mut place = Place { next: from.next, holes: from.holes.clone(), state };
                if at >= place.next {
                    place.holes.extend(place.next..at);
                    place.next = at + 1;
                } else {
                    place.holes.retain(|hole| *hole != at);
                }
                Some((place, used))
            }
            Choice::Pending(at) => {
                let state = self.model.step(&from.state, self.pending.get(large(at))?.what)?;
                if state == from.state {
                    return None;
                }
                mark(&mut used, at);
                Some((Place { next: from.next, holes: from.holes.clone(), state }, used))
            }
        }
    }

    fn evidence(&self) -> Evidence {
        let Some((_, best)) = self.at(self.best.0) else { return Evidence::default() };
        let mut order = Vec::new();
        let mut at = self.best.0;
        while at != 0 {
            let Some(configuration) = self.seen.get(large(at)) else { break };
            order.push(configuration.choice);
            at = configuration.parent;
        }
        let prefix: Vec<_> =
            order.iter().take(SHOWN_MAX).rev().map(|choice| self.describe(*choice)).collect();
        let (stuck, _) = self.left_over(best);
        let lines: Vec<_> = stuck.iter().map(|at| self.describe(Choice::Ended(*at))).collect();
        let (count, all) = (self.best.1, self.ended.len());
        Evidence {
            earlier: order.len() - prefix.len(),
            prefix,
            state: self.model.describe_state(&best.state),
            ..Evidence::with(
                format!("no order explains more than {count} of {all} operations that ended"),
                lines,
            )
        }
    }

    fn describe(&self, choice: Choice) -> String {
        match choice {
            Choice::Ended(at) => self.ended.get(large(at)).map_or_else(String::new, |op| {
                format!("[{}..{}] {}", op.from, op.to, self.model.describe_op(op.what))
            }),
            Choice::Pending(at) => self.pending.get(large(at)).map_or_else(String::new, |op| {
                format!("[{}..?] {}", op.from, self.model.describe_op(op.what))
            }),
        }
    }
}

fn has(bits: &[u64], at: u32) -> bool {
    bits.get(large(at / 64)).is_some_and(|word| word & (1 << (at % 64)) != 0)
}

fn mark(bits: &mut [u64], at: u32) {
    if let Some(word) = bits.get_mut(large(at / 64)) {
        *word |= 1 << (at % 64);
    }
}
