//! `arca-jepsen-check`: reads a history and says what it shows.

#![allow(clippy::disallowed_methods)] // A budget is real time.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use arca_jepsen::checker::{Budget, Verdict};
use arca_jepsen::edn;
use arca_jepsen::history::History;
use arca_jepsen::models::{self, Options, Together};
use clap::Parser;

/// Exit code for a history that is wrong.
const INVALID: u8 = 1;
/// Exit code for a history of which it was not found out, for a bad file and for bad arguments.
const UNKNOWN: u8 = 2;
/// Keys whose evidence is shown.
const SHOWN_MAX: usize = 5;

/// Checks a recorded history. Exit codes: 0 valid, 1 invalid, 2 unknown (also a file that cannot be read).
#[derive(Parser)]
#[command(name = "arca-jepsen-check", version)]
struct Arguments {
    /// The history: JSON lines.
    file: PathBuf,
    /// Time for the whole check; when it is up, the verdict on what is left is unknown.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How far a lease may be off its deadline.
    #[arg(long, default_value_t = Options::default().lease_slack_ms)]
    lease_slack_ms: u64,
    /// How long after its deadline a lease may still be stored.
    #[arg(long, default_value_t = Options::default().revoke_slack_ms)]
    revoke_slack_ms: u64,
    /// Also write the history as Jepsen EDN.
    #[arg(long, value_name = "FILE")]
    edn: Option<PathBuf>,
    /// Only this key goes into the EDN: what Knossos takes.
    #[arg(long, requires = "edn")]
    key: Option<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(Together::Valid) => ExitCode::SUCCESS,
        Ok(Together::Invalid) => ExitCode::from(INVALID),
        Ok(Together::Unknown) => ExitCode::from(UNKNOWN),
        Err(text) => {
            eprintln!("arca-jepsen-check: {text}");
            ExitCode::from(UNKNOWN)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Together, String> {
    let named = |err: &dyn std::fmt::Display| format!("{}: {err}", arguments.file.display());
    let file = File::open(&arguments.file).map_err(|err| named(&err))?;
    let history = History::read(BufReader::new(file)).map_err(|err| named(&err))?;
    if let Some(path) = &arguments.edn {
        let failed = |err: std::io::Error| format!("{}: {err}", path.display());
        let out = BufWriter::new(File::create(path).map_err(failed)?);
        match &arguments.key {
            Some(key) => edn::write_key(&history, key, out),
            None => edn::write(&history, out),
        }
        .map_err(failed)?;
    }
    let started = Instant::now();
    let limit = Duration::from_secs(arguments.seconds);
    let mut budget = Budget::new(u64::MAX, move || started.elapsed() > limit);
    let options =
        Options { lease_slack_ms: arguments.lease_slack_ms, revoke_slack_ms: arguments.revoke_slack_ms };
    let verdicts = models::check(&history, options, &mut budget);
    let mut bad: Vec<_> = verdicts.iter().filter(|found| found.verdict != Verdict::Valid).collect();
    bad.sort_by_key(|found| matches!(found.verdict, Verdict::Unknown(_)));
    for found in bad.iter().take(SHOWN_MAX) {
        println!("{} {}: {}", found.model.name(), found.key, found.verdict);
    }
    if bad.len() > SHOWN_MAX {
        println!("and {} more keys that are not valid", bad.len() - SHOWN_MAX);
    }
    let (together, operations) = (models::together(&verdicts), history.operations().len());
    println!(
        "{}: {operations} operations on {} keys, checked in {:.2} s",
        together.name(),
        verdicts.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(together)
}
