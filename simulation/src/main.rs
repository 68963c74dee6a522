//! `arca-simulation`: runs seeds, one a process, and says which of them fail.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use arca_simulation::many::{many, meta};
use arca_simulation::plan::{Changes, Plan};
use arca_simulation::processes::default_jobs;
use arca_simulation::run::{Report, run};
use arca_simulation::shrink::shrink;
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
    /// Plant this bug.
    #[cfg(feature = "danger_planted")]
    #[arg(long, hide = true, global = true, value_name = "NAME", value_parser = planted)]
    plant: Option<arca_danger::Bug>,
}

#[cfg(feature = "danger_planted")]
fn planted(name: &str) -> Result<arca_danger::Bug, String> {
    arca_danger::Bug::named(name).ok_or_else(|| "there is no such bug".to_owned())
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
        /// Answer in JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        changes: Changes,
    },
    /// Run one seed and tell what is done to the cluster as it is done. With ARCA_LOG=1, or debug, also what its members log.
    Replay {
        /// Which.
        seed: u64,
        /// Write every event of the trace to this file, a line each.
        #[arg(long, value_name = "FILE")]
        trace: Option<PathBuf>,
        #[command(flatten)]
        changes: Changes,
    },
    /// Find out how few faults and clients a failing seed needs to fail.
    Shrink {
        /// Which.
        seed: u64,
        #[command(flatten)]
        changes: Changes,
    },
    /// Plant bugs, one at a time, and say how many seeds it takes to find each, and what finds it.
    #[cfg(feature = "danger_planted")]
    Bugs {
        /// Seeds to try for each bug, from 1 on.
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
        /// How many bugs at once; as many as there are processors if left out.
        #[arg(long)]
        jobs: Option<usize>,
        /// This bug only. May be given more than once.
        #[arg(long, value_name = "NAME", value_parser = planted)]
        only: Vec<arca_danger::Bug>,
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
        #[command(flatten)]
        changes: Changes,
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
        #[command(flatten)]
        changes: Changes,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "danger_planted")]
    arguments.plant.into_iter().for_each(arca_danger::plant);
    match carry_out(arguments.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("arca-simulation: {err}");
            ExitCode::from(2)
        }
    }
}

/// Whether all that was asked for is good.
fn carry_out(order: Order) -> std::io::Result<bool> {
    match order {
        Order::Run { seed, trace, json, changes } => {
            let report = run_here(seed, &changes, trace.as_deref(), false)?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                println!("{report}");
            }
            Ok(report.failure.is_none())
        }
        Order::Replay { seed, trace, changes } => {
            let plan = Plan::new(seed).changed(&changes);
            println!("{plan:#?}");
            let report = run_here(seed, &changes, trace.as_deref(), true)?;
            println!("{report}");
            Ok(report.failure.is_none())
        }
        Order::Shrink { seed, changes } => shrink(seed, &changes),
        #[cfg(feature = "danger_planted")]
        Order::Bugs { seeds, jobs, only } => {
            arca_simulation::bugs::bugs(&only, seeds, jobs.unwrap_or_else(default_jobs))
        }
        Order::Many { seeds, first, jobs, changes } => {
            let (first, jobs) = (first.unwrap_or_else(random), jobs.unwrap_or_else(default_jobs));
            many(first, seeds, &changes.arguments(), jobs)
        }
        Order::Meta { seeds, first, jobs, changes } => {
            meta(first, seeds, &changes.arguments(), jobs.unwrap_or_else(default_jobs))
        }
    }
}

/// A seed that nobody chose, small enough to be typed.
#[allow(clippy::disallowed_methods)] // It is to differ from run to run.
fn random() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_secs().wrapping_mul(1_000) % 1_000_000_000
}

/// Longest time, by this machine's clock, for one seed. Nearly all take less than a second; one whose simulated clock
/// stands still for ever, because something never stops being busy, would take for ever.
const SEED_LIMIT: Duration = Duration::from_secs(120);

/// Ends the process, as a failure of its seed, unless it has ended by then.
fn give_up_in_time() {
    std::thread::spawn(move || {
        std::thread::sleep(SEED_LIMIT);
        println!("not done after {} s", SEED_LIMIT.as_secs());
        std::process::exit(1);
    });
}

fn run_here(seed: u64, changes: &Changes, trace: Option<&Path>, tells: bool) -> std::io::Result<Report> {
    let copy = match trace {
        Some(path) => Some(Box::new(BufWriter::new(File::create(path)?)) as Box<dyn Write + Send>),
        None => None,
    };
    if std::env::var_os("ARCA_LOG").is_some() {
        let is_detailed = std::env::var("ARCA_LOG").is_ok_and(|level| level == "debug");
        let level = if is_detailed {
            tracing_subscriber::filter::LevelFilter::DEBUG
        } else {
            tracing_subscriber::filter::LevelFilter::INFO
        };
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).init();
    }
    give_up_in_time();
    run(Plan::new(seed).changed(changes), copy, tells)
}
