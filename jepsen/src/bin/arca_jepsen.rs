//! Runs real clusters under real faults: `arca-jepsen run`.

#![allow(clippy::disallowed_methods)] // Real processes live in real time.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use arca_harness::{HarnessError, cluster};
use arca_jepsen::faults::Class;
use arca_jepsen::run::{Outcome, Settings, run};
use arca_jepsen::schedule::Mixing;
use arca_jepsen::workload;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "arca-jepsen", about = "Real arca processes under real faults", after_help = NEEDS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const NEEDS: &str = "Needs root; /dev/fuse for faults of disks, and a C compiler for those of clocks. The arca binary is the one beside this program, or ARCA_BIN.";

#[derive(Subcommand)]
enum Command {
    /// Lists the faults.
    Faults,
    /// Runs a workload on a new cluster, with faults, and writes down what happened.
    Run(Run),
}

#[derive(clap::Args)]
struct Run {
    /// For how long faults are begun; healing comes on top
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Faults, separated by commas; "all" for all of them, "none" for none
    #[arg(long, default_value = "kill,partition", value_name = "LIST")]
    faults: String,
    /// Let up to three faults go on at once
    #[arg(long)]
    mixed: bool,
    /// What clients do
    #[arg(long, default_value = "all", value_parser = workload::NAMES)]
    workload: String,
    /// How many nodes: 3 or 5
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=5))]
    nodes: u8,
    /// How many clients; with "all", each workload gets its share of them
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=500))]
    clients: u16,
    /// Decides when which fault strikes and what is drawn; taken from the clock and printed if absent
    #[arg(long)]
    seed: Option<u64>,
    /// Where history, faults and logs go; must not hold an earlier run
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// Keep what the nodes stored, even if all went well
    #[arg(long)]
    keep_data: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Faults => {
            for class in Class::ALL {
                println!("{:<16} {}", class.name(), class.about());
            }
            return ExitCode::SUCCESS;
        }
        Command::Run(arguments) => start(arguments).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(err) => {
            eprintln!("arca-jepsen: {err}");
            ExitCode::from(2)
        }
    }
}

async fn start(arguments: Run) -> Result<bool, HarnessError> {
    let settings = settings(arguments)?;
    check_machine(&settings.classes)?;
    println!("seed {}", settings.seed);
    let mut ended = signal(SignalKind::terminate()).map_err(|err| HarnessError::new("signals", err))?;
    let outcome = tokio::select! {
        outcome = run(&settings) => outcome?,
        // What was started is dropped with the run.
        _ = ended.recv() => return Err(HarnessError("stopped; everything was removed".to_owned())),
        _ = tokio::signal::ctrl_c() => return Err(HarnessError("stopped; everything was removed".to_owned())),
    };
    Ok(tell(&settings, &outcome))
}

/// Says at once what would fail later, and what to do about it.
fn check_machine(classes: &[Class]) -> Result<(), HarnessError> {
    if !rustix::process::geteuid().is_root() {
        return Err(HarnessError("it must run as root: it makes network namespaces".to_owned()));
    }
    if !classes.iter().any(|class| class.breaks_disks()) {
        return Ok(());
    }
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map(drop)
        .map_err(|err| HarnessError::new("/dev/fuse cannot be opened (modprobe fuse)", err))
}

fn settings(arguments: Run) -> Result<Settings, HarnessError> {
    let classes: Vec<Class> = match arguments.faults.as_str() {
        "all" => Class::ALL.to_vec(),
        "none" => Vec::new(),
        list => {
            list.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map_err(HarnessError)?
        }
    };
    if arguments.report.join("history.jsonl").exists() {
        let text = format!("{} holds an earlier run: name another directory", arguments.report.display());
        return Err(HarnessError(text));
    }
    std::fs::create_dir_all(&arguments.report)
        .map_err(|err| HarnessError::new(&arguments.report.display().to_string(), err))?;
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok(Settings {
        binary: cluster::find_binary()?,
        nodes: usize::from(arguments.nodes),
        clients: usize::from(arguments.clients),
        length: Duration::from_secs(arguments.seconds),
        workload: workload::find(&arguments.workload, &classes).map_err(HarnessError)?,
        classes,
        mixing: if arguments.mixed { Mixing::Mixed } else { Mixing::Apart },
        seed: arguments.seed.unwrap_or_else(|| u64::from(since.subsec_nanos()) ^ since.as_secs()),
        report: absolute(&arguments.report)?,
        keeps_data: arguments.keep_data,
    })
}

fn absolute(path: &Path) -> Result<PathBuf, HarnessError> {
    path.canonicalize().map_err(|err| HarnessError::new(&path.display().to_string(), err))
}

/// Prints what came of it. Answers whether all went well.
fn tell(settings: &Settings, outcome: &Outcome) -> bool {
    let counts: Vec<_> = outcome.operations.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    println!("operations: {}", counts.join(", "));
    for class in &settings.classes {
        let strikes: Vec<_> = outcome.incidents.iter().filter(|incident| incident.class == *class).collect();
        let hit = strikes.iter().filter(|incident| incident.hits > 0).count();
        println!("{:<16} {} strikes, {hit} hit something", class.name(), strikes.len());
    }
    for class in &outcome.not_exercised {
        println!("NOT EXERCISED: {class}");
    }
    for problem in &outcome.problems {
        println!("PROBLEM: {problem}");
    }
    println!("history, faults and logs: {}", settings.report.display());
    outcome.not_exercised.is_empty() && outcome.problems.is_empty()
}
