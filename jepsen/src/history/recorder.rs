//! Takes events down from many tasks at once.
//!
//! Time and index are given under one lock, so the order of events is an order in which they could have been
//! seen.
//! **Invariant:** an invocation is taken down before its request is sent, an end after its answer has come: a
//! recorded operation is never shorter than the real one. A task that is dropped in the middle of a call
//! leaves it without an end, which says that it may or may not have happened.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::event::{Answer, Call, Event, Kind, ModelName};
use super::{History, HistoryError};
use crate::outcome::Outcome;

/// Nanoseconds since some moment; never goes back.
pub type Nanoseconds = Box<dyn Fn() -> u64 + Send + Sync>;

/// Where events go. Clones share it.
#[derive(Clone)]
pub struct Recorder(Arc<Shared>);

struct Shared {
    taken: Mutex<Taken>,
    next_process: AtomicU64,
}

struct Taken {
    events: Vec<Event>,
    /// Asked only under the lock, so that time and index agree.
    now: Nanoseconds,
    copy: Option<Box<dyn Write + Send>>,
    failed: Option<std::io::Error>,
}

impl Recorder {
    /// A recorder that keeps events in memory.
    #[must_use]
    pub fn new(now: Nanoseconds) -> Self {
        Self::with(now, None)
    }

    /// A recorder that also writes every event to `copy` at once, for a run that may not come to its end.
    #[must_use]
    pub fn with_copy(now: Nanoseconds, copy: Box<dyn Write + Send>) -> Self {
        Self::with(now, Some(copy))
    }

    fn with(now: Nanoseconds, copy: Option<Box<dyn Write + Send>>) -> Self {
        let taken = Mutex::new(Taken { events: Vec::new(), now, copy, failed: None });
        Self(Arc::new(Shared { taken, next_process: AtomicU64::new(0) }))
    }

    /// A process that nobody was yet.
    #[must_use]
    pub fn process(&self) -> Process {
        let id = self.0.next_process.fetch_add(1, Ordering::Relaxed);
        Process { recorder: self.clone(), id }
    }

    /// The time now, as events have it: for faults, which are marked on the same line of time.
    #[must_use]
    pub fn now(&self) -> u64 {
        (self.0.taken.lock().now)()
    }

    /// What was taken down so far; what is still under way has no end in it.
    ///
    /// # Errors
    /// When the copy could not be written.
    pub fn history(&self) -> Result<History, HistoryError> {
        let mut taken = self.0.taken.lock();
        if let Some(err) = taken.failed.take() {
            return Err(err.into());
        }
        if let Some(copy) = &mut taken.copy {
            copy.flush()?;
        }
        let events = taken.events.clone();
        drop(taken);
        History::new(events)
    }

    fn take(&self, event: impl FnOnce(usize, u64) -> Event) {
        let mut taken = self.0.taken.lock();
        let event = event(taken.events.len(), (taken.now)());
        if let Some(Err(err)) = taken.copy.as_mut().map(|copy| event.write(copy)) {
            // Told when the history is asked for: a full disk must not end the run.
            taken.failed = Some(err);
            taken.copy = None;
        }
        taken.events.push(event);
    }
}

/// One process: it does one thing at a time, and becomes a new one after what ended in doubt.
pub struct Process {
    recorder: Recorder,
    id: u64,
}

impl Process {
    /// Its number now.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Takes an invocation down. Call it before the request is sent.
    pub fn invoke(&mut self, model: ModelName, key: impl Into<String>, call: Call) -> Pending<'_> {
        let event = Event {
            index: 0,
            time: 0,
            process: self.id,
            kind: Kind::Invoke,
            model,
            key: key.into(),
            call,
            answer: None,
            error: None,
        };
        let taken = event.clone();
        self.recorder.take(move |index, time| Event { index, time, ..taken });
        Pending { process: self, event: Some(event) }
    }
}

/// A call under way. Dropped, it is one that may or may not have happened.
#[must_use = "a call that is not ended is one that may or may not have happened"]
pub struct Pending<'a> {
    process: &'a mut Process,
    /// Taken by the end.
    event: Option<Event>,
}

impl Pending<'_> {
    /// It happened.
    pub fn ok(self, answer: Answer) {
        self.end(Kind::Ok, Some(answer), None);
    }

    /// It did not go well; `error` is for people. An outcome of `Ok` without an answer is one nothing is
    /// known of.
    pub fn failed(self, outcome: Outcome, error: impl Into<String>) {
        let error = Some(error.into());
        match outcome {
            Outcome::Fail => self.end(Kind::Fail, None, error),
            Outcome::Refused => self.end(Kind::Fail, Some(Answer::Refused), error),
            Outcome::Ok | Outcome::Unknown => self.end(Kind::Info, None, error),
        }
    }

    fn end(mut self, kind: Kind, answer: Option<Answer>, error: Option<String>) {
        self.settle(kind, answer, error);
    }

    fn settle(&mut self, kind: Kind, answer: Option<Answer>, error: Option<String>) {
        let Some(event) = self.event.take() else { return };
        let recorder = self.process.recorder.clone();
        recorder.take(move |index, time| Event { index, time, kind, answer, error, ..event });
        if kind == Kind::Info {
            self.process.id = recorder.0.next_process.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.settle(Kind::Info, None, Some("abandoned".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::End;
    use super::*;

    fn ticking() -> Nanoseconds {
        let ticks = AtomicU64::new(0);
        Box::new(move || ticks.fetch_add(1, Ordering::Relaxed))
    }

    #[test]
    fn many_threads_make_one_history() {
        let recorder = Recorder::new(ticking());
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let mut process = recorder.process();
                scope.spawn(move || {
                    for round in 0..50 {
                        let value = thread * 1_000 + round;
                        let call = process.invoke(ModelName::List, "l", Call::Append { value });
                        match round % 4 {
                            0 => call.ok(Answer::Done),
                            1 => call.failed(Outcome::Fail, "refused"),
                            2 => call.failed(Outcome::Unknown, "timeout"),
                            _ => drop(call),
                        }
                    }
                });
            }
        });
        let history = recorder.history().unwrap();
        let operations = history.operations();
        assert_eq!(operations.len(), 400);
        let unknown = operations.iter().filter(|operation| operation.end == End::Unknown).count();
        assert_eq!(unknown, 8 * 24); // Rounds 2 and 3 of every four, of 50.
        let mut times: Vec<_> = history.events().iter().map(|event| event.time).collect();
        times.dedup();
        assert_eq!(times.len(), 800);
    }

    #[test]
    fn a_copy_is_written_as_events_come() {
        #[derive(Clone, Default)]
        struct Copy(Arc<Mutex<Vec<u8>>>);
        impl Write for Copy {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let copy = Copy::default();
        let recorder = Recorder::with_copy(ticking(), Box::new(copy.clone()));
        let mut process = recorder.process();
        let call = process.invoke(ModelName::Token, "t", Call::Use);
        assert_eq!(copy.0.lock().iter().filter(|byte| **byte == b'\n').count(), 1);
        call.failed(Outcome::Refused, "403");
        let history = recorder.history().unwrap();
        assert_eq!(History::read(copy.0.lock().as_slice()).unwrap(), history);
    }
}
