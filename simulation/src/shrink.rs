//! Makes a failing seed smaller: leaves out faults, clients and weather as long as it still fails in the same way.
//!
//! Faults are left out in the manner of delta debugging (Zeller and Hildebrandt, 2002): in halves, then quarters, and so
//! on. Every fault has dice of its own, so that those which stay are much the same ones.

use std::io;

use crate::plan::Changes;
use crate::processes::{Job, run_one};

/// Most runs for one seed.
const RUNS_MAX: usize = 300;

struct Shrinking {
    seed: u64,
    /// What the failure has to be caught by.
    caught_by: String,
    runs: usize,
}

impl Shrinking {
    /// Whether a run with `changes` still fails in the same way.
    fn fails(&mut self, changes: &Changes) -> io::Result<bool> {
        if self.runs >= RUNS_MAX {
            return Ok(false);
        }
        self.runs += 1;
        let done = run_one(&Job { seed: self.seed, arguments: changes.arguments() })?;
        Ok(done.report.is_ok_and(|report| report.caught_by() == Some(&self.caught_by)))
    }

    /// Leaves out what can be left out of faults 1 to `strikes`: first the last ones, as what came after the damage was
    /// done is not needed; then one part after another, smaller and smaller parts.
    fn fewer_faults(&mut self, mut changes: Changes, strikes: u64) -> io::Result<Changes> {
        let (mut needed, mut enough) = (0, strikes);
        while needed < enough {
            let middle = needed + (enough - needed) / 2;
            match self.fails_without(&changes, middle + 1..=strikes)? {
                Some(fewer) => (changes, enough) = (fewer, middle),
                None => needed = middle + 1,
            }
        }
        println!("  the first {enough} are enough");
        let mut size = enough.div_ceil(2);
        while size > 0 {
            for first in (1..=enough).step_by(usize::try_from(size).unwrap_or(usize::MAX)) {
                if let Some(fewer) = self.fails_without(&changes, first..=enough.min(first + size - 1))? {
                    changes = fewer;
                }
            }
            let left = (1..=strikes).filter(|number| !changes.skip.0.contains(number)).count();
            println!("  {left} are left, tried in parts of {size}");
            size /= 2;
        }
        Ok(changes)
    }

    /// The changes with these faults left out too, if it still fails.
    fn fails_without(
        &mut self,
        changes: &Changes,
        faults: std::ops::RangeInclusive<u64>,
    ) -> io::Result<Option<Changes>> {
        let mut fewer = changes.clone();
        fewer.skip.0.extend(faults);
        // What is left out already makes no difference.
        Ok(if fewer.skip == changes.skip || self.fails(&fewer)? { Some(fewer) } else { None })
    }
}

/// Shrinks what fails with `seed` and `changes`; whether it fails at all.
///
/// # Errors
/// When no process can be started.
pub fn shrink(seed: u64, changes: &Changes) -> io::Result<bool> {
    let first = run_one(&Job { seed, arguments: changes.arguments() })?;
    let Some(report) = first.report.as_ref().ok().filter(|report| report.failure.is_some()) else {
        println!("seed {seed}: {}", first.failure().unwrap_or("does not fail"));
        return Ok(false);
    };
    let caught_by = report.caught_by().unwrap_or_default().to_owned();
    println!("seed {seed} fails: {caught_by}; {} faults were due", report.strikes);
    let mut shrinking = Shrinking { seed, caught_by, runs: 0 };
    let mut changes = changes.clone();
    let simpler: [fn(&mut Changes); 6] = [
        |changes| changes.no_credentials = true,
        |changes| changes.fair_weather = true,
        |changes| changes.whole_log = true,
        |changes| changes.clients = Some(1),
        |changes| changes.clients = changes.clients.or(Some(2)),
        |changes| changes.clients = changes.clients.or(Some(4)),
    ];
    for simplify in simpler {
        let mut tried = changes.clone();
        simplify(&mut tried);
        if tried != changes && shrinking.fails(&tried)? {
            changes = tried;
        }
    }
    let changes = shrinking.fewer_faults(changes, report.strikes)?;
    println!("after {} runs; what is left:", shrinking.runs);
    println!("  arca-simulation replay {seed} {}", changes.arguments().join(" "));
    Ok(true)
}
