//! What faults did, and when: for the report, and for the check that every promised fault was exercised.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The time of the run, in nanoseconds: the same that events of the history have.
pub type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// One strike of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Its class, and before it the place if there are several: `kill`, `east kill`.
    pub class: String,
    /// When it began.
    pub begun: u64,
    /// When everything was healed; none while it goes on, and if it failed.
    pub healed: Option<u64>,
    /// What was done, each with its time.
    pub steps: Vec<(u64, String)>,
    /// How often something was hit.
    pub hits: u64,
    /// Whether there was nothing to do it to.
    pub is_skipped: bool,
    /// What did not go as it should.
    pub problem: Option<String>,
}

/// All strikes of a run.
#[derive(Clone)]
pub struct FaultLog {
    now: Now,
    incidents: Arc<Mutex<Vec<Incident>>>,
    is_loud: bool,
    place: String,
}

impl FaultLog {
    /// An empty one. A loud one says each step on standard error.
    #[must_use]
    pub fn new(now: Now, is_loud: bool) -> Self {
        Self { now, incidents: Arc::default(), is_loud, place: String::new() }
    }

    /// The same log, for what is done at one place of several.
    #[must_use]
    pub fn at(&self, place: &str) -> Self {
        Self { place: format!("{place} "), ..self.clone() }
    }

    /// Begins an incident.
    #[must_use]
    pub fn begin(&self, class: impl std::fmt::Display) -> Stage {
        let class = format!("{}{class}", self.place);
        let mut incidents = self.incidents.lock();
        incidents.push(Incident {
            class: class.clone(),
            begun: (self.now)(),
            healed: None,
            steps: Vec::new(),
            hits: 0,
            is_skipped: false,
            problem: None,
        });
        Stage { log: self.clone(), class, at: incidents.len() - 1 }
    }

    /// All incidents, in the order they began.
    #[must_use]
    pub fn incidents(&self) -> Vec<Incident> {
        self.incidents.lock().clone()
    }

    /// How often each class was exercised: done, healed, and seen to hit something.
    #[must_use]
    pub fn exercised(&self) -> BTreeMap<String, u64> {
        let mut exercised = BTreeMap::new();
        for incident in self.incidents.lock().iter() {
            if incident.hits > 0 && incident.healed.is_some() {
                *exercised.entry(incident.class.clone()).or_default() += 1;
            }
        }
        exercised
    }
}

/// One incident, while it goes on.
#[derive(Clone)]
pub struct Stage {
    log: FaultLog,
    class: String,
    at: usize,
}

impl Stage {
    /// Says what was done just now.
    pub fn say(&self, step: impl Into<String>) {
        let (step, now) = (step.into(), (self.log.now)());
        if self.log.is_loud {
            eprintln!("{:>9.3} s  {:<16} {step}", seconds(now), self.class);
        }
        self.change(|incident| incident.steps.push((now, step)));
    }

    /// It is over, and healed.
    pub fn healed(&self, hits: u64) {
        let now = (self.log.now)();
        self.say(format!("healed; hit {hits} times"));
        self.change(|incident| (incident.healed, incident.hits) = (Some(now), hits));
    }

    /// There was nothing to do it to.
    pub fn skipped(&self) {
        self.say("skipped: no node to take");
        self.change(|incident| incident.is_skipped = true);
    }

    /// It went wrong.
    pub fn failed(&self, problem: impl Into<String>) {
        let problem = problem.into();
        self.say(format!("PROBLEM: {problem}"));
        self.change(|incident| incident.problem = Some(problem));
    }

    fn change(&self, change: impl FnOnce(&mut Incident)) {
        if let Some(incident) = self.log.incidents.lock().get_mut(self.at) {
            change(incident);
        }
    }
}

/// Nanoseconds as seconds, for people.
#[allow(clippy::cast_precision_loss)] // Milliseconds are shown.
fn seconds(nanos: u64) -> f64 {
    (nanos / 1_000_000) as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::Class;
    use super::*;

    #[test]
    fn only_what_hit_and_was_healed_is_exercised() {
        let ticks = AtomicU64::new(0);
        let log = FaultLog::new(Arc::new(move || ticks.fetch_add(1, Ordering::Relaxed)), false);
        let stage = log.begin(Class::Kill);
        stage.say("killed node1");
        assert!(log.exercised().is_empty());
        stage.healed(1);
        log.begin(Class::Pause).skipped();
        log.begin(Class::Loss).healed(0);
        log.begin(Class::Clock).failed("it did not come back");
        assert_eq!(log.exercised(), BTreeMap::from([("kill".to_owned(), 1)]));
        let incidents = log.incidents();
        let first = incidents.first().unwrap();
        assert_eq!((first.begun, first.healed), (0, Some(2)));
        assert_eq!(first.steps, [(1, "killed node1".to_owned()), (3, "healed; hit 1 times".to_owned())]);
    }

    #[test]
    fn places_are_told_apart() {
        let log = FaultLog::new(Arc::new(|| 0), false);
        log.at("east").begin(Class::Kill).healed(1);
        log.at("west").begin("cut").healed(0);
        assert_eq!(log.exercised(), BTreeMap::from([("east kill".to_owned(), 1)]));
        assert_eq!(log.incidents().last().unwrap().class, "west cut");
    }
}
