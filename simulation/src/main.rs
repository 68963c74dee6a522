//! `arca-simulation`: runs seeds, one a process, and says which of them fail.

#![allow(clippy::disallowed_methods)] // How long a run takes on this machine is measured in real time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use arca_simulation::plan::Plan;
use arca_simulation::run::run;
use clap::{Parser, Subcommand};

/// A run is little but small allocations.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs whole clusters from one seed each: simulated network, disks and clocks, faults, and checks.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Order,
}

#[derive(Subcommand)]
enum Order {
    /// Run one seed and say what came of it. The same seed always gives the same run.
    Run {
        /// Which.
        seed: u64,
        /// Write every event of the trace to this file, a line each.
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
    },
    /// Run many seeds, each in a process of its own.
    Many {
        /// How many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first; chosen at random, and shown, if left out.
        #[arg(long)]
        first: Option<u64>,
        /// How many at once; as many as there are processors if left out.
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Run seeds twice each, in fresh processes, and compare their traces: they must not differ.
    Meta {
        /// How many.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// The first.
        #[arg(long, default_value_t = 1)]
        first: u64,
        /// How many at once; as many as there are processors if left out.
        #[arg(long)]
        jobs: Option<usize>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Order::Run { seed, trace } => run_one(seed, trace),
        Order::Many { seeds, first, jobs } => many(first.unwrap_or_else(random), seeds, jobs),
        Order::Meta { seeds, first, jobs } => meta(first, seeds, jobs),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("arca-simulation: {err}");
            ExitCode::from(2)
        }
    }
}

/// A seed that nobody chose.
fn random() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Small enough to be typed.
    now.as_secs().wrapping_mul(1_000) % 1_000_000_000
}

/// Longest time, by this machine's clock, for one seed. Nearly all take less than a second; one whose simulated clock
/// stands still for ever, because something never stops being busy, would take for ever.
const SEED_LIMIT: Duration = Duration::from_secs(120);

/// Ends the process, as a failure of its seed, unless it has ended by then.
fn give_up_in_time(seed: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(SEED_LIMIT);
        println!("seed {seed}: FAILED: no end after {} s", SEED_LIMIT.as_secs());
        std::process::exit(1);
    });
}

fn run_one(seed: u64, trace: Option<PathBuf>) -> std::io::Result<bool> {
    let copy = match trace {
        Some(path) => Some(Box::new(BufWriter::new(File::create(path)?)) as Box<dyn Write + Send>),
        None => None,
    };
    if std::env::var_os("ARCA_LOG").is_some() {
        tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    }
    give_up_in_time(seed);
    let report = run(Plan::new(seed), copy)?;
    println!("{report}");
    Ok(report.failure.is_none())
}

/// What a process said of its seed.
struct Said {
    seed: u64,
    is_good: bool,
    text: String,
}

/// Runs `rounds` processes for each seed, `jobs` at once.
fn in_processes(
    seeds: impl Iterator<Item = u64> + Send,
    total: u64,
    jobs: Option<usize>,
) -> std::io::Result<Vec<Said>> {
    let jobs =
        jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let program = std::env::current_exe()?;
    let queue = std::sync::Mutex::new(seeds);
    let said = std::sync::Mutex::new(Vec::new());
    let shows_progress = std::io::stderr().is_terminal();
    let failed = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().ok().and_then(|mut queue| queue.next());
                    let Some(seed) = next else { return };
                    let output = Command::new(&program)
                        .args(["run", &seed.to_string()])
                        .stderr(Stdio::piped())
                        .stdout(Stdio::piped())
                        .output();
                    match output {
                        Ok(output) => {
                            let mut text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
                            if !output.status.success() {
                                text.push_str(String::from_utf8_lossy(&output.stderr).trim_end());
                            }
                            let is_good = output.status.success();
                            let Ok(mut said) = said.lock() else { return };
                            said.push(Said { seed, is_good, text });
                            if shows_progress {
                                eprint!("\r{} of {total}", said.len());
                            }
                        }
                        Err(err) => {
                            if let Ok(mut failed) = failed.lock() {
                                *failed = Some(err);
                            }
                            return;
                        }
                    }
                }
            });
        }
    });
    if shows_progress {
        eprintln!();
    }
    if let Some(err) = failed.into_inner().unwrap_or_default() {
        return Err(err);
    }
    let mut said = said.into_inner().unwrap_or_default();
    said.sort_by_key(|said| said.seed);
    Ok(said)
}

fn many(first: u64, seeds: u64, jobs: Option<usize>) -> std::io::Result<bool> {
    println!("seeds {first} to {}", first + seeds.saturating_sub(1));
    let began = Instant::now();
    let said = in_processes(first..first + seeds, seeds, jobs)?;
    let bad: Vec<&Said> = said.iter().filter(|said| !said.is_good).collect();
    for said in &bad {
        println!("{}\n  again: arca-simulation run {}", said.text, said.seed);
    }
    let simulated: u64 = said.iter().filter_map(|said| number_before(&said.text, " s;")).sum();
    let operations: u64 = said.iter().filter_map(|said| number_before(&said.text, ", refused")).sum();
    let spent = cpu_of_children().max(Duration::from_millis(10));
    println!(
        "{} of {} seeds failed; {} s simulated in {:.0} s of processor time ({:.0} times), {:.0} s in all; \
         {operations} operations acknowledged",
        bad.len(),
        said.len(),
        simulated,
        spent.as_secs_f64(),
        f64::from(u32::try_from(simulated).unwrap_or(u32::MAX)) / spent.as_secs_f64(),
        began.elapsed().as_secs_f64(),
    );
    Ok(bad.is_empty())
}

/// The number that stands before `mark`.
fn number_before(text: &str, mark: &str) -> Option<u64> {
    let (before, _) = text.split_once(mark)?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Processor time of all processes that this one has run and waited for.
fn cpu_of_children() -> Duration {
    const TICKS: u64 = 100; // Of /proc, on every Linux there is.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    // cutime and cstime: fields 16 and 17 of proc(5), the first after the name being 3.
    let ticks: u64 =
        fields.split_whitespace().skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1_000 / TICKS)
}

fn meta(first: u64, seeds: u64, jobs: Option<usize>) -> std::io::Result<bool> {
    let twice = (first..first + seeds).flat_map(|seed| [seed, seed]);
    let mut texts: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for said in in_processes(twice, seeds * 2, jobs)? {
        texts.entry(said.seed).or_default().push(said.text);
    }
    let differing: Vec<u64> = texts
        .iter()
        // A process that did not come to its end has shown nothing.
        .filter(|(_, said)| !matches!(said.as_slice(), [a, b] if a == b && a.contains("; trace ")))
        .map(|(seed, _)| *seed)
        .collect();
    println!("{} of {seeds} seeds gave the same trace twice", texts.len() - differing.len());
    for seed in &differing {
        println!("  seed {seed} differs: write both traces with --trace and compare");
    }
    Ok(differing.is_empty())
}
