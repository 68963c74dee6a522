//! Makes a failing seed smaller: leaves out faults, clients and weather as long as it still fails in the same way.
//!
//! Faults are left out as delta debugging does it (Zeller and Hildebrandt, 2002): in halves, then quarters, and so on. Every
//! fault has dice of its own, so that those which stay are much the same ones.

use std::collections::BTreeSet;
use std::io;

use crate::plan::{Changes, Skipped};
use crate::processes::{Job, run_one};
use crate::run::Report;

/// Most runs for one seed.
const RUNS_MAX: usize = 300;

struct Shrinking {
    seed: u64,
    /// What the failure has to be caught by.
    caught_by: String,
    runs: usize,
}

impl Shrinking {
    /// The report of a run with `changes`, if that still fails in the same way.
    fn fails(&mut self, changes: &Changes) -> io::Result<Option<Report>> {
        if self.runs >= RUNS_MAX {
            return Ok(None);
        }
        self.runs += 1;
        let report = run_one(&Job { seed: self.seed, arguments: changes.arguments() })?.report.ok();
        Ok(report.filter(|report| report.caught_by() == Some(&self.caught_by)))
    }

    /// Leaves out what can be left out of faults 1 to `strikes`.
    fn fewer_faults(&mut self, mut changes: Changes, strikes: u64) -> io::Result<Changes> {
        let mut kept: Vec<u64> = (1..=strikes).filter(|number| !changes.skip.0.contains(number)).collect();
        let mut parts = 2;
        while !kept.is_empty() && self.runs < RUNS_MAX {
            let size = kept.len().div_ceil(parts);
            let mut found = None;
            for start in (0..kept.len()).step_by(size) {
                let fewer: Vec<u64> = kept
                    .iter()
                    .enumerate()
                    .filter(|(at, _)| !(start..start + size).contains(at))
                    .map(|(_, n)| *n)
                    .collect();
                let all: BTreeSet<u64> = (1..=strikes).filter(|number| !fewer.contains(number)).collect();
                let tried = Changes { skip: Skipped(all), ..changes.clone() };
                if self.fails(&tried)?.is_some() {
                    found = Some((fewer, tried));
                    break;
                }
            }
            match found {
                Some((fewer, tried)) => {
                    (kept, changes) = (fewer, tried);
                    parts = parts.saturating_sub(1).max(2);
                    println!("  {} faults are left", kept.len());
                }
                None if size <= 1 => break,
                None => parts = (parts * 2).min(kept.len()),
            }
        }
        Ok(changes)
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
    let simpler: [fn(&mut Changes); 5] = [
        |changes| changes.fair_weather = true,
        |changes| changes.whole_log = true,
        |changes| changes.clients = Some(1),
        |changes| changes.clients = changes.clients.or(Some(2)),
        |changes| changes.clients = changes.clients.or(Some(4)),
    ];
    for simplify in simpler {
        let mut tried = changes.clone();
        simplify(&mut tried);
        if tried != changes && shrinking.fails(&tried)?.is_some() {
            changes = tried;
        }
    }
    let changes = shrinking.fewer_faults(changes, report.strikes)?;
    println!("after {} runs; what is left:", shrinking.runs);
    println!("  arca-simulation replay {seed} {}", changes.arguments().join(" "));
    Ok(true)
}
