//! Many seeds, and what they were, as a table; and the same seeds twice, which must not differ.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::time::Duration;

use crate::processes::{Done, Job, run_all};
use crate::run::Report;

/// Runs `seeds` seeds from `first` on, each with these further arguments; whether all are good.
///
/// # Errors
/// When no process can be started.
pub fn many(first: u64, seeds: u64, arguments: &[String], jobs: usize) -> io::Result<bool> {
    println!("seeds {first} to {}", first.saturating_add(seeds - 1));
    let job = |seed| Job { seed, arguments: arguments.to_vec() };
    let work: Vec<Job> = (first..first.saturating_add(seeds)).map(job).collect();
    let done = run_all(&work, jobs)?;
    for done in &done {
        if let Some(failure) = done.failure() {
            println!("seed {}: FAILED: {failure}", done.seed);
            println!(
                "  again: arca-simulation replay {0}{1}; with fewer faults: arca-simulation shrink {0}{1}",
                done.seed,
                arguments.iter().map(|argument| format!(" {argument}")).collect::<String>()
            );
        }
    }
    print!("{}", table(&done));
    let simulated = done.iter().filter_map(|done| Some(done.report.as_ref().ok()?.simulated_ms)).sum();
    let (simulated, spent) = (Duration::from_millis(simulated), cpu_of_children());
    let failed = done.iter().filter(|done| done.failure().is_some()).count();
    println!(
        "{failed} of {} seeds failed; {:.0} s simulated in {:.0} s of processor time: {:.0} times as fast",
        done.len(),
        simulated.as_secs_f64(),
        spent.as_secs_f64(),
        simulated.as_secs_f64() / spent.as_secs_f64().max(0.01),
    );
    Ok(failed == 0)
}

/// What the runs met and did.
fn table(done: &[Done]) -> String {
    let reports: Vec<&Report> = done.iter().filter_map(|done| done.report.as_ref().ok()).collect();
    let mut faults: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    let mut workloads: BTreeMap<&str, usize> = BTreeMap::new();
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for report in &reports {
        for (fault, count) in &report.faults {
            let (runs, strikes) = faults.entry(fault).or_default();
            *runs += 1;
            *strikes += count;
        }
        *workloads.entry(&report.workload).or_default() += 1;
        *sizes.entry(report.members).or_default() += 1;
    }
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{:<12} {:>8} {:>8}", "fault", "runs", "strikes");
    for (fault, (runs, strikes)) in faults {
        let _ = writeln!(text, "{fault:<12} {runs:>8} {strikes:>8}");
    }
    let listed = |counts: Vec<String>| counts.join(", ");
    let _ = writeln!(
        text,
        "members: {}",
        listed(sizes.iter().map(|(size, runs)| format!("{size} in {runs}")).collect())
    );
    let _ = writeln!(
        text,
        "workloads: {}",
        listed(workloads.iter().map(|(name, runs)| format!("{name} in {runs}")).collect())
    );
    let sum = |of: fn(&Report) -> u64| reports.iter().map(|report| of(report)).sum::<u64>();
    let _ = writeln!(
        text,
        "operations: {} ok, {} refused, {} failed, {} unknown",
        sum(|report| report.operations.ok),
        sum(|report| report.operations.refused),
        sum(|report| report.operations.failed),
        sum(|report| report.operations.unknown),
    );
    let _ = writeln!(
        text,
        "credentials: {} issued, {} not; {} revoked, {} not",
        sum(|report| report.credentials.issued),
        sum(|report| report.credentials.not_issued),
        sum(|report| report.credentials.revoked),
        sum(|report| report.credentials.not_revoked),
    );
    let mut midway: BTreeMap<&str, u64> = BTreeMap::new();
    for (moment, count) in reports.iter().flat_map(|report| &report.midway) {
        *midway.entry(moment).or_default() += count;
    }
    let midway = midway.iter().map(|(moment, count)| format!("{moment}: {count}")).collect();
    let _ = writeln!(text, "deaths midway: {}", listed(midway));
    text
}

/// Runs each of `seeds` seeds from `first` on twice, with these further arguments; whether all gave the same both times.
///
/// # Errors
/// When no process can be started.
pub fn meta(first: u64, seeds: u64, arguments: &[String], jobs: usize) -> io::Result<bool> {
    let twice = (first..first.saturating_add(seeds)).flat_map(|seed| [seed, seed]);
    let work: Vec<Job> = twice.map(|seed| Job { seed, arguments: arguments.to_vec() }).collect();
    let done = run_all(&work, jobs)?;
    let differing: Vec<u64> = done
        .chunks(2)
        // One that did not come to its end has shown nothing.
        .filter(|pair| !matches!(pair, [Done { report: Ok(one), .. }, Done { report: Ok(other), .. }] if one == other))
        .filter_map(|pair| pair.first().map(|done| done.seed))
        .collect();
    println!("{} of {seeds} seeds gave the same trace twice", work.len() / 2 - differing.len());
    for seed in &differing {
        println!("  seed {seed} differs: write both traces with --trace and compare");
    }
    Ok(differing.is_empty())
}

/// Processor time of all processes that this one has run and waited for.
fn cpu_of_children() -> Duration {
    const TICKS: u64 = 100; // Of /proc, on every Linux there is.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // cutime and cstime: fields 16 and 17 of proc(5), the first after the name being 3.
    let ticks: u64 =
        fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS)
}
