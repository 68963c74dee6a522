//! Operations: an invocation and its end, put together.

use std::collections::BTreeMap;

use super::HistoryError;
use super::event::{Answer, Call, Event, Kind, ModelName};

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// It surely did not happen.
    Fail,
    /// It happened.
    Ok,
    /// It surely did not happen, and why not is a fact about the state.
    Refused,
    /// It may or may not have happened, or the history ends before it did.
    Unknown,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who.
    pub process: u64,
    /// What the key stands for.
    pub model: ModelName,
    /// What it is about.
    pub key: String,
    /// What was asked for.
    pub call: Call,
    /// What came back.
    pub answer: Option<Answer>,
    /// How it ended.
    pub end: End,
    /// Index of its invocation.
    pub invoked_at: usize,
    /// Index of its end; none if the history ends before.
    pub ended_at: Option<usize>,
    /// When it was invoked, in nanoseconds.
    pub invoked_ns: u64,
    /// When it ended, in nanoseconds.
    pub ended_ns: Option<u64>,
}

impl Operation {
    /// Index of the moment by which it has surely happened, or surely been refused; none if there is no such
    /// moment.
    #[must_use]
    pub const fn settled_at(&self) -> Option<usize> {
        match self.end {
            End::Unknown => None,
            End::Fail | End::Ok | End::Refused => self.ended_at,
        }
    }
}

/// Puts events together, in the order of invocations.
pub(super) fn pair(events: &[Event]) -> Result<Vec<Operation>, HistoryError> {
    let mut pairing = Pairing::default();
    for (index, event) in events.iter().enumerate() {
        pairing.take(index, event).map_err(|reason| HistoryError::Event {
            index,
            process: event.process,
            reason,
        })?;
    }
    Ok(pairing.operations)
}

/// What a process is doing.
enum Doing {
    /// It crashed.
    Gone,
    Nothing,
    /// Index of the operation.
    Something(usize),
}

#[derive(Default)]
struct Pairing<'a> {
    operations: Vec<Operation>,
    processes: BTreeMap<u64, Doing>,
    models: BTreeMap<&'a str, ModelName>,
    time: u64,
}

impl<'a> Pairing<'a> {
    fn take(&mut self, index: usize, event: &'a Event) -> Result<(), String> {
        if event.time < self.time {
            return Err("time goes back".to_owned());
        }
        self.time = event.time;
        let model = *self.models.entry(&event.key).or_insert(event.model);
        if model != event.model {
            let (key, have, want) = (&event.key, event.model.name(), model.name());
            return Err(format!("key {key:?} belongs to the model {want}, not {have}"));
        }
        if !model.has(&event.call) {
            return Err(format!("the model {} has no such call", model.name()));
        }
        if !model.fits(&event.call, event.kind, event.answer.as_ref()) {
            return Err("the answer does not fit the call".to_owned());
        }
        let doing = self.processes.entry(event.process).or_insert(Doing::Nothing);
        match (event.kind, &doing) {
            (Kind::Invoke, Doing::Nothing) => {
                *doing = Doing::Something(self.operations.len());
                self.operations.push(begun(index, event));
                Ok(())
            }
            (Kind::Invoke, Doing::Something(_)) => Err("this process has not ended what it does".to_owned()),
            (Kind::Invoke, Doing::Gone) => {
                Err("this process ended with an info and may not go on".to_owned())
            }
            (_, Doing::Gone | Doing::Nothing) => Err("it ends what was not begun".to_owned()),
            (_, Doing::Something(at)) => {
                let Some(operation) = self.operations.get_mut(*at) else {
                    return Err("it ends what was not begun".to_owned());
                };
                *doing = if event.kind == Kind::Info { Doing::Gone } else { Doing::Nothing };
                end(operation, index, event)
            }
        }
    }
}

fn begun(index: usize, event: &Event) -> Operation {
    Operation {
        process: event.process,
        model: event.model,
        key: event.key.clone(),
        call: event.call.clone(),
        answer: None,
        end: End::Unknown,
        invoked_at: index,
        ended_at: None,
        invoked_ns: event.time,
        ended_ns: None,
    }
}

fn end(operation: &mut Operation, index: usize, event: &Event) -> Result<(), String> {
    if operation.key != event.key || operation.call != event.call {
        return Err("it ends another call than was begun".to_owned());
    }
    operation.end = match (event.kind, &event.answer) {
        (Kind::Ok, _) => End::Ok,
        (Kind::Fail, Some(Answer::Refused)) => End::Refused,
        (Kind::Fail, _) => End::Fail,
        (Kind::Info | Kind::Invoke, _) => End::Unknown,
    };
    operation.answer.clone_from(&event.answer);
    operation.ended_at = Some(index);
    operation.ended_ns = Some(event.time);
    Ok(())
}
