//! The hunt for planted bugs: each is planted in runs of one seed after another until a run fails, and what
//! failed it says which check caught it. A check that catches nothing here has not been shown to work.
//!
//! A run that merely gets stuck does not count against a bug that breaks a promise of safety: it may have
//! been stuck for another reason. Every run is a process of its own, so that one that panics or never ends
//! harms no other.

use std::fmt;
use std::io::{self, Write as _};
use std::thread;

use arca_danger::{Breaks, Bug};
use parking_lot::Mutex;

use crate::processes::{Job, run_one};

/// What is said of a run that does not come to its end.
const WITHOUT_PROGRESS: [&str; 2] = ["stuck", "no end"];

/// What came of the hunt for one bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub bug: Bug,
    /// How many seeds were run.
    pub seeds: u64,
    /// What caught it; nothing did if there is nothing.
    pub caught_by: Option<String>,
}

/// All rows, as they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(pub Vec<Row>);

impl Table {
    /// How many bugs were found.
    #[must_use]
    pub fn found(&self) -> usize {
        self.0.iter().filter(|row| row.caught_by.is_some()).count()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| bug | seeds needed | caught by |\n|---|---|---|")?;
        for Row { bug, seeds, caught_by } in &self.0 {
            match caught_by {
                Some(check) => writeln!(f, "| `{}` | {seeds} | {check} |", bug.name())?,
                None => writeln!(f, "| `{}` | more than {seeds} | nothing |", bug.name())?,
            }
        }
        write!(f, "\n{} of {} planted bugs found", self.found(), self.0.len())
    }
}

/// Which check made a run with `bug` in it fail, if one did that counts.
fn caught_by(bug: Bug, failure: &str) -> Option<String> {
    if failure.contains("panicked at") {
        return Some("panic".to_owned());
    }
    let check = failure.split([':', '\n']).next().unwrap_or_default();
    let counts = bug.breaks() == Breaks::Progress || !WITHOUT_PROGRESS.contains(&check);
    counts.then(|| check.to_owned())
}

/// What caught `bug` in a run of `seed`.
fn look(bug: Bug, seed: u64) -> io::Result<Option<String>> {
    let mut arguments = vec!["--plant".to_owned(), bug.name().to_owned()];
    if bug.is_between_clusters() {
        arguments.push("--regions".to_owned());
    }
    Ok(run_one(&Job { seed, arguments })?.failure().and_then(|failure| caught_by(bug, failure)))
}

type Look<'a> = &'a (dyn Fn(Bug, u64) -> io::Result<Option<String>> + Sync);

fn hunt_one(bug: Bug, seeds: u64, look: Look<'_>) -> io::Result<Row> {
    for seed in 1..=seeds {
        if let Some(check) = look(bug, seed)? {
            return Ok(Row { bug, seeds: seed, caught_by: Some(check) });
        }
    }
    Ok(Row { bug, seeds, caught_by: None })
}

/// Hunts each of `bugs` through the seeds from 1 to `seeds`, as many of them at once as there are `jobs`.
fn hunt(bugs: &[Bug], seeds: u64, jobs: usize, look: Look<'_>) -> io::Result<Table> {
    let (queue, rows) = (Mutex::new(bugs.iter()), Mutex::new(Vec::new()));
    let hunter = || -> io::Result<()> {
        loop {
            let next = queue.lock().next().copied();
            let Some(bug) = next else { return Ok(()) };
            let row = hunt_one(bug, seeds, look)?;
            let what = row.caught_by.as_deref().unwrap_or("nothing");
            writeln!(io::stderr(), "{}: {} seeds, {what}", bug.name(), row.seeds)?;
            rows.lock().push(row);
        }
    };
    thread::scope(|scope| {
        let hunters: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(hunter)).collect();
        hunters.into_iter().try_for_each(|hunter| {
            hunter.join().map_err(|_| io::Error::other("a thread that waits for runs panicked"))?
        })
    })?;
    let mut rows = rows.into_inner();
    rows.sort_by_key(|row| row.bug);
    Ok(Table(rows))
}

/// Hunts the bugs in `only`, all if it is empty, each through the seeds from 1 to `seeds`, `jobs` of them at
/// once; shows the table, and answers whether all were found.
///
/// # Errors
/// When no process can be started.
pub fn bugs(only: &[Bug], seeds: u64, jobs: usize) -> io::Result<bool> {
    let bugs = if only.is_empty() { Bug::ALL } else { only };
    let table = hunt(bugs, seeds, jobs, &look)?;
    println!("{table}");
    Ok(table.found() == bugs.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(failure: &str, want_of_safety: Option<&str>, want_of_progress: Option<&str>) {
        assert_eq!(caught_by(Bug::ConflictUnchecked, failure).as_deref(), want_of_safety);
        assert_eq!(caught_by(Bug::HousekeepingOnce, failure).as_deref(), want_of_progress);
    }

    #[test]
    fn the_check_that_failed_is_named() {
        check("history: r/1: invalid", Some("history"), Some("history"));
        let text = "equal state at equal index: 2 differs from another member at index 9";
        check(text, Some("equal state at equal index"), Some("equal state at equal index"));
        let text = "no end: exit status: 101,  thread 'main' panicked at src/x.rs:1:2";
        check(text, Some("panic"), Some("panic"));
    }

    #[test]
    fn getting_stuck_counts_where_progress_is_what_is_broken() {
        check("stuck: no leader", None, Some("stuck"));
        check("no end: exit status: 1, not done after 120 s", None, Some("no end"));
    }

    #[test]
    fn each_is_hunted_until_it_is_found() {
        let found = Row { bug: Bug::VoteBeforeSync, seeds: 4, caught_by: Some("history".to_owned()) };
        let missed = Row { bug: Bug::ReadIndexOneShort, seeds: 5, caught_by: None };
        let caught = |bug, seed| bug == Bug::VoteBeforeSync && seed == 4;
        let look = |bug, seed| Ok(caught(bug, seed).then(|| "history".to_owned()));
        let table = hunt(&[missed.bug, found.bug], 5, 2, &look).unwrap();
        assert_eq!(table.found(), 1);
        assert_eq!(table, Table(vec![found, missed]));
        let want = "| bug | seeds needed | caught by |\n|---|---|---|\n\
                    | `vote-before-sync` | 4 | history |\n\
                    | `read-index-one-short` | more than 5 | nothing |\n\n1 of 2 planted bugs found";
        assert_eq!(table.to_string(), want);
        let broken = |_, _| Err(io::Error::other("no processes left"));
        assert!(hunt(&[Bug::VoteBeforeSync], 5, 2, &broken).is_err());
    }
}
