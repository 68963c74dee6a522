//! Histories made up, and a checker that shares nothing with the one under test.

#![allow(dead_code, unreachable_pub)] // Each test binary uses a part of it.
#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // A test fails by panicking.

use arca_jepsen::history::{Answer, Call, End, Event, History, Kind, ModelName, Operation};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

/// An object of any model, done as plainly as possible.
#[derive(Clone, Debug, Default)]
pub struct World {
    version: u64,
    value: Option<u64>,
    list: Vec<u64>,
    is_revoked: bool,
    taken: u64,
    /// How often a counter may be used.
    pub uses: u64,
}

impl World {
    /// Does a call; answers what a server would.
    pub fn act(&mut self, model: ModelName, call: &Call) -> Answer {
        match call {
            Call::Read if model == ModelName::List => {
                if self.list.is_empty() {
                    Answer::Absent
                } else {
                    Answer::List(self.list.clone())
                }
            }
            Call::Read if self.version == 0 => Answer::Absent,
            Call::Read => Answer::Value { version: self.version, value: self.value },
            Call::Write { value } if model == ModelName::Password => {
                self.value = Some(*value);
                Answer::Done
            }
            Call::Login { password: Some(tried) } if self.value == Some(*tried) => Answer::Done,
            Call::Write { value } => self.put(*value),
            Call::Cas { version, value, .. } if *version == self.version => self.put(*value),
            Call::Delete => {
                self.value = None;
                Answer::Done
            }
            Call::Append { value } => {
                self.list.push(*value);
                Answer::Done
            }
            Call::Revoke => {
                self.is_revoked = true;
                Answer::Done
            }
            Call::Use if !self.is_revoked => Answer::Done,
            Call::Spend | Call::Unwrap if self.taken < self.uses => {
                self.taken += 1;
                Answer::Done
            }
            Call::Create { .. } | Call::Wrap | Call::Probe => Answer::Done,
            // Of users of a database no history is made here.
            Call::Remaining | Call::Renew { .. } | Call::RevokeNow => Answer::Refused,
            Call::Cas { .. } | Call::Login { .. } | Call::Use | Call::Spend | Call::Unwrap => Answer::Refused,
        }
    }

    fn put(&mut self, value: u64) -> Answer {
        self.version += 1;
        self.value = Some(value);
        Answer::Version(self.version)
    }

    /// Whether `operation` could have seen what it saw, done now.
    pub fn explains(&mut self, operation: &Operation) -> bool {
        let answer = self.act(operation.model, &operation.call);
        match operation.end {
            End::Ok => {
                let empty =
                    |answer: &Answer| *answer == Answer::Absent || *answer == Answer::List(Vec::new());
                operation
                    .answer
                    .as_ref()
                    .is_some_and(|seen| *seen == answer || (empty(seen) && empty(&answer)))
            }
            End::Refused => answer == Answer::Refused,
            End::Fail | End::Unknown => true,
        }
    }
}

/// Whether some order explains `operations`: all of them are tried, without any memory.
pub fn brute_force(operations: &[Operation]) -> bool {
    let uses = operations.iter().find_map(|operation| match operation.call {
        Call::Create { uses, .. } => uses,
        Call::Wrap => Some(1),
        _ => None,
    });
    let left: Vec<_> = operations.iter().filter(|operation| operation.end != End::Fail).collect();
    any_order(&World { uses: uses.unwrap_or_default(), ..World::default() }, &left)
}

fn any_order(world: &World, left: &[&Operation]) -> bool {
    if left.iter().all(|operation| operation.end == End::Unknown) {
        return true;
    }
    (0..left.len()).any(|at| {
        let next = left[at];
        let comes_late = left.iter().any(|other| other.settled_at().is_some_and(|end| end < next.invoked_at));
        if comes_late {
            return false;
        }
        let mut world = world.clone();
        let rest: Vec<_> =
            left.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, op)| *op).collect();
        world.explains(next) && any_order(&world, &rest)
    })
}

/// What to make up.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub model: ModelName,
    pub processes: u64,
    pub operations: u64,
    /// In a hundred, how many end in doubt.
    pub unknown: u64,
    /// In a hundred, how many answers are made up out of nothing.
    pub lies: u64,
}

/// What a process is at.
struct Doing {
    process: u64,
    call: Call,
    /// Its answer, once it was done.
    answer: Option<Answer>,
}

/// Makes a history up: linearizable, unless there are lies in it.
pub fn make(plan: Plan, seed: u64) -> History {
    let mut dice = Dice(seed);
    let mut maker = Maker {
        plan,
        world: World { uses: 1 + dice.below(3), ..World::default() },
        events: Vec::new(),
        dice,
    };
    maker.begin();
    let mut slots: Vec<Option<Doing>> = (0..plan.processes).map(|_| None).collect();
    let (mut next_process, mut begun) = (plan.processes, 0);
    let mut ids: Vec<u64> = (0..plan.processes).collect();
    while begun < plan.operations || slots.iter().any(Option::is_some) {
        let at = usize::try_from(maker.dice.below(plan.processes)).unwrap();
        match slots[at].take() {
            None if begun < plan.operations => {
                begun += 1;
                let call = maker.call(begun);
                maker.push(ids[at], Kind::Invoke, &call, None);
                slots[at] = Some(Doing { process: ids[at], call, answer: None });
            }
            None => {}
            Some(mut doing) if doing.answer.is_none() && maker.dice.below(2) == 0 => {
                doing.answer = Some(maker.world.act(plan.model, &doing.call));
                slots[at] = Some(doing);
            }
            Some(doing) if maker.end(&doing) => {}
            Some(_) => {
                ids[at] = next_process;
                next_process += 1;
            }
        }
    }
    History::new(maker.events).unwrap()
}

struct Maker {
    plan: Plan,
    world: World,
    events: Vec<Event>,
    dice: Dice,
}

impl Maker {
    fn begin(&mut self) {
        let call = match self.plan.model {
            ModelName::Counter => Call::Create { uses: Some(self.world.uses), ttl_ms: None },
            ModelName::Token => Call::Create { uses: None, ttl_ms: None },
            ModelName::Wrapping => {
                self.world.uses = 1;
                Call::Wrap
            }
            _ => return,
        };
        self.push(1_000_000, Kind::Invoke, &call, None);
        self.push(1_000_000, Kind::Ok, &call, Some(Answer::Done));
    }

    fn call(&mut self, number: u64) -> Call {
        match self.plan.model {
            ModelName::Register => match self.dice.below(8) {
                0..=2 => Call::Read,
                3 | 4 => Call::Write { value: number },
                5 => Call::Delete,
                _ => {
                    let version = self.world.version.saturating_sub(self.dice.below(4) / 3);
                    Call::Cas { version, from: None, value: number }
                }
            },
            ModelName::List => {
                if self.dice.below(2) == 0 {
                    Call::Read
                } else {
                    Call::Append { value: number }
                }
            }
            ModelName::Token => {
                if self.dice.below(5) == 0 {
                    Call::Revoke
                } else {
                    Call::Use
                }
            }
            ModelName::Password => match self.dice.below(3) {
                0 => Call::Write { value: self.dice.below(3) },
                _ => Call::Login { password: Some(self.dice.below(3)) },
            },
            ModelName::Counter | ModelName::SecretId => Call::Spend,
            ModelName::Wrapping => Call::Unwrap,
            ModelName::Credential | ModelName::Lease | ModelName::Leftover => Call::Use,
        }
    }

    /// Ends a call; false if the process is gone.
    fn end(&mut self, doing: &Doing) -> bool {
        let (process, call, answer) = (doing.process, &doing.call, doing.answer.clone());
        if self.dice.below(100) < self.plan.unknown {
            self.push(process, Kind::Info, call, None);
            return false;
        }
        if answer.is_none() && self.dice.below(10) == 0 {
            self.push(process, Kind::Fail, call, None);
            return true;
        }
        let mut answer = answer.unwrap_or_else(|| self.world.act(self.plan.model, call));
        if self.dice.below(100) < self.plan.lies {
            answer = self.lie(call, answer);
        }
        let kind = if answer == Answer::Refused { Kind::Fail } else { Kind::Ok };
        self.push(process, kind, call, Some(answer));
        true
    }

    fn lie(&mut self, call: &Call, truth: Answer) -> Answer {
        let some = |dice: &mut Dice| dice.below(4);
        match (call, truth) {
            (Call::Read, _) if self.plan.model == ModelName::List => {
                let mut list = self.world.list.clone();
                match some(&mut self.dice) {
                    0 => list.push(some(&mut self.dice)),
                    1 => list.reverse(),
                    2 => list.clear(),
                    _ => {
                        list.pop();
                    }
                }
                Answer::List(list)
            }
            (Call::Read, _) => {
                let version = 1 + some(&mut self.dice);
                Answer::Value { version, value: Some(1 + some(&mut self.dice)) }
            }
            (Call::Write { .. }, truth) if self.plan.model == ModelName::Password => truth,
            (Call::Cas { .. }, Answer::Version(_)) => Answer::Refused,
            (Call::Cas { .. } | Call::Write { .. }, _) => Answer::Version(1 + some(&mut self.dice)),
            (Call::Login { .. } | Call::Use | Call::Spend | Call::Unwrap, Answer::Refused) => Answer::Done,
            (Call::Login { .. } | Call::Use | Call::Spend | Call::Unwrap, _) => Answer::Refused,
            (_, truth) => truth,
        }
    }

    fn push(&mut self, process: u64, kind: Kind, call: &Call, answer: Option<Answer>) {
        let time = u64::try_from(self.events.len()).unwrap() * 1_000_000;
        let (model, key, call) = (self.plan.model, format!("{}/1", self.plan.model.name()), call.clone());
        self.events.push(Event { index: 0, time, process, kind, model, key, call, answer, error: None });
    }
}
