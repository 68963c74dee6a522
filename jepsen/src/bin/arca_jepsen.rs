//! Runs real clusters under real faults: `arca-jepsen run`, and `arca-jepsen smoke` for every change.

#![allow(clippy::disallowed_methods)] // Real processes live in real time.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use arca_harness::{HarnessError, cluster};
use arca_jepsen::conclusion::Conclusion;
use arca_jepsen::faults::Class;
use arca_jepsen::netns::NetNs;
use arca_jepsen::run::{Settings, run};
use arca_jepsen::schedule::Mixing;
use arca_jepsen::workload;
use arca_jepsen::{postgres, promotion};
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
#[command(name = "arca-jepsen", about = "Real arca processes under real faults", after_help = NEEDS)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const NEEDS: &str = "Needs root; /dev/fuse for faults of disks, a C compiler for those of clocks, and PostgreSQL for \
     credentials. The arca binary is the one beside this program, or ARCA_BIN. Exit codes: 0 passed; 1 something is wrong, or \
     a promised fault did not happen; 2 it was not found out, or the run broke off; 3 it cannot run here.";

#[derive(Subcommand)]
enum Command {
    /// Lists the faults.
    Faults,
    /// Loses the region of a primary and promotes the other one, under faults in both and between them; and back again.
    Promotion(Promotion),
    /// Runs a workload on a new cluster, with faults, and checks what clients saw.
    Run(Run),
    /// Two minutes of everything clients do, on three nodes that are killed and cut off: for every change.
    Smoke(Smoke),
}

#[derive(clap::Args)]
struct Promotion {
    /// For how long faults are begun, all parts together; orders, copies and healing come on top
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Faults within the regions, as for run
    #[arg(long, default_value = "kill,pause,partition,one-way", value_name = "LIST")]
    faults: String,
    /// Between the regions, there and back
    #[arg(long, default_value_t = 80, value_name = "MS")]
    round_trip: u64,
    /// How many clients a region has
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(2..=100))]
    clients: u16,
    /// As for run
    #[arg(long)]
    seed: Option<u64>,
    /// As for run
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// How long the histories may be checked
    #[arg(long, default_value_t = 120)]
    check_seconds: u64,
    /// As for run
    #[arg(long)]
    keep_data: bool,
}

#[derive(clap::Args)]
struct Smoke {
    /// As for run
    #[arg(long)]
    seed: Option<u64>,
    /// As for run; by default a new directory among the temporary ones
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
}

impl Smoke {
    fn run(self) -> Run {
        let report = self.report.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("arca-jepsen-smoke-{}", std::process::id()))
        });
        Run {
            seconds: SMOKE_S,
            faults: "kill,partition".to_owned(),
            mixed: false,
            workload: "all".to_owned(),
            nodes: 3,
            clients: 14,
            seed: self.seed,
            report,
            check_seconds: 20,
            keep_data: false,
        }
    }
}

/// Starting, healing and checking included, a smoke run takes less than two minutes.
const SMOKE_S: u64 = 75;

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
    #[arg(long, default_value = "all", value_parser = PossibleValuesParser::new(workloads()))]
    workload: String,
    /// How many nodes: 3 or 5
    #[arg(long, default_value_t = 3, value_parser = node_count)]
    nodes: u8,
    /// How many clients; with "all", each workload gets its share of them
    #[arg(long, default_value_t = 14, value_parser = clap::value_parser!(u16).range(1..=500))]
    clients: u16,
    /// Decides when which fault strikes and what is drawn; taken from the clock and printed if absent
    #[arg(long)]
    seed: Option<u64>,
    /// Where history, faults and logs go; must not hold an earlier run
    #[arg(long, value_name = "DIR")]
    report: PathBuf,
    /// How long the history may be checked; what is left then is unknown, which is no pass
    #[arg(long, default_value_t = 120)]
    check_seconds: u64,
    /// Keep what the nodes stored, even if the run passed
    #[arg(long)]
    keep_data: bool,
}

/// Exit code of a run that did not pass: something is wrong, or a promised fault did not happen.
const FAILED: u8 = 1;
/// Exit code of a run of which it was not found out, or that could not be carried through.
const UNKNOWN: u8 = 2;
/// Exit code where this machine, or this user, cannot run it at all.
const CANNOT_RUN_HERE: u8 = 3;

enum Failure {
    CannotRunHere(String),
    Harness(HarnessError),
}

impl From<HarnessError> for Failure {
    fn from(err: HarnessError) -> Self {
        Self::Harness(err)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Faults => {
            for class in Class::ALL.into_iter().chain(Class::DATABASE) {
                println!("{:<16} {}", class.name(), class.about());
            }
            return ExitCode::SUCCESS;
        }
        Command::Promotion(arguments) => start_promotion(arguments).await,
        Command::Run(arguments) => start(arguments).await,
        Command::Smoke(arguments) => start(arguments.run()).await,
    };
    match done {
        Ok(concluded) if concluded.shortcomings.is_empty() => ExitCode::SUCCESS,
        Ok(concluded) if concluded.is_undecided => ExitCode::from(UNKNOWN),
        Ok(_) => ExitCode::from(FAILED),
        Err(Failure::Harness(err)) => {
            eprintln!("arca-jepsen: {err}");
            ExitCode::from(UNKNOWN)
        }
        Err(Failure::CannotRunHere(why)) => {
            eprintln!("arca-jepsen: cannot run here: {why}");
            ExitCode::from(CANNOT_RUN_HERE)
        }
    }
}

async fn start(arguments: Run) -> Result<Conclusion, Failure> {
    let classes = classes(&arguments.faults)?;
    check_machine(&classes).map_err(Failure::CannotRunHere)?;
    if arguments.workload == workload::CREDENTIALS {
        postgres::installed().map_err(|err| Failure::CannotRunHere(err.0))?;
    }
    let settings = settings(arguments, classes)?;
    println!("seed {}", settings.seed);
    let concluded = unless_stopped(run(&settings)).await?;
    tell(&settings.report, &concluded);
    Ok(concluded)
}

async fn start_promotion(arguments: Promotion) -> Result<Conclusion, Failure> {
    let classes = classes(&arguments.faults)?;
    if classes.iter().any(|class| class.needs_database()) {
        return Err(HarnessError("a promotion has no database to be hit".to_owned()).into());
    }
    check_machine(&classes).map_err(Failure::CannotRunHere)?;
    let settings = promotion::Settings {
        binary: cluster::find_binary()?,
        clients: usize::from(arguments.clients),
        length: Duration::from_secs(arguments.seconds),
        classes,
        round_trip: Duration::from_millis(arguments.round_trip),
        seed: seed(arguments.seed),
        report: report(&arguments.report, "history-old.jsonl")?,
        check_limit: Duration::from_secs(arguments.check_seconds),
        keeps_data: arguments.keep_data,
    };
    println!("seed {}", settings.seed);
    let concluded = unless_stopped(promotion::run(&settings)).await?;
    tell(&settings.report, &concluded);
    Ok(concluded)
}

/// A run, unless it is told to stop.
async fn unless_stopped(
    run: impl Future<Output = Result<Conclusion, HarnessError>>,
) -> Result<Conclusion, Failure> {
    let mut ended = signal(SignalKind::terminate()).map_err(|err| HarnessError::new("signals", err))?;
    let stopped = || Failure::Harness(HarnessError("stopped; everything was removed".to_owned()));
    tokio::select! {
        concluded = run => Ok(concluded?),
        // What was started is dropped with the run.
        _ = ended.recv() => Err(stopped()),
        _ = tokio::signal::ctrl_c() => Err(stopped()),
    }
}

/// Says at once what would fail later, and what to do about it.
/// Three or five: with four, two may be lost and no more than with three.
fn node_count(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(count @ (3 | 5)) => Ok(count),
        _ => Err("it is 3 or 5".to_owned()),
    }
}

fn check_machine(classes: &[Class]) -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it must run as root: it makes network namespaces".to_owned());
    }
    NetNs::make().map_err(|err| format!("network namespaces cannot be made: {err}"))?;
    if classes.iter().any(|class| class.breaks_disks()) {
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
        device.map_err(|err| {
            format!("faults of disks need /dev/fuse, which cannot be opened (modprobe fuse): {err}")
        })?;
    }
    Ok(())
}

/// The names of all workloads.
fn workloads() -> Vec<&'static str> {
    workload::NAMES.into_iter().chain([workload::CREDENTIALS]).collect()
}

fn classes(list: &str) -> Result<Vec<Class>, HarnessError> {
    match list {
        "all" => Ok(Class::ALL.to_vec()),
        "none" => Ok(Vec::new()),
        list => {
            list.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map_err(HarnessError)
        }
    }
}

fn settings(arguments: Run, classes: Vec<Class>) -> Result<Settings, HarnessError> {
    let report = report(&arguments.report, "history.jsonl")?;
    Ok(Settings {
        binary: cluster::find_binary()?,
        nodes: usize::from(arguments.nodes),
        clients: usize::from(arguments.clients),
        length: Duration::from_secs(arguments.seconds),
        workload: workload::find(&arguments.workload, &classes).map_err(HarnessError)?,
        classes,
        mixing: if arguments.mixed { Mixing::Mixed } else { Mixing::Apart },
        seed: seed(arguments.seed),
        report,
        check_limit: Duration::from_secs(arguments.check_seconds),
        keeps_data: arguments.keep_data,
    })
}

/// What was given, or else something that differs from run to run.
fn seed(given: Option<u64>) -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    given.unwrap_or_else(|| u64::from(since.subsec_nanos()) ^ since.as_secs())
}

/// The directory of the report, as an absolute path. It must not hold the `history` of an earlier run.
fn report(path: &Path, history: &str) -> Result<PathBuf, HarnessError> {
    if path.join(history).exists() {
        let text = format!("{} holds an earlier run: name another directory", path.display());
        return Err(HarnessError(text));
    }
    std::fs::create_dir_all(path)
        .and_then(|()| path.canonicalize())
        .map_err(|err| HarnessError::new(&path.display().to_string(), err))
}

fn tell(report: &Path, concluded: &Conclusion) {
    for line in &concluded.summary {
        println!("{line}");
    }
    let passed = concluded.shortcomings.is_empty();
    println!("{}", if passed { "PASSED" } else { "FAILED" });
    for shortcoming in &concluded.shortcomings {
        println!("- {shortcoming}");
    }
    println!("report: {}", report.join("report.md").display());
}
