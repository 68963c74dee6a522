//! The drill of `deploy/runbooks/dr-promotion.md` and `dr-failback.md`, on loopback: two regions of three nodes with a link
//! between them that takes its time and can be cut. Prints what is missing after a promotion, and how long it took.

use std::process::ExitCode;
use std::time::Duration;

use arca_harness::regions::{drill, lag};
use arca_harness::{HarnessError, cluster};

const HELP: &str = "usage: arca-regions [drill|lag] [OPTION VALUE]…
  drill  loses a region and comes back (the default)
    --round-trip MS   between the regions (80)
    --before SECONDS  of load before the primary's region is cut off (10)
    --alone SECONDS   that the old primary goes on alone (2)
  lag    shows what a secondary costs its primary, and how far it is behind
    --round-trip MS   between the regions (80)
    --seconds N       of each turn (15)
    --rounds N        turns of each kind (2)
    --writers N       at once (64)
    --rate N          writes a second at the most (as many as go)
  Fails when what a secondary is to have is missing, a role does not change in two minutes, or the states differ in the end.
  The arca binary is the one beside this program, or ARCA_BIN.";

enum Plan {
    Drill(drill::Plan),
    Lag(lag::Plan),
}

impl Plan {
    fn of(args: impl Iterator<Item = String>) -> Option<Self> {
        let mut args = args.peekable();
        let is_named = args.peek().is_some_and(|first| !first.starts_with('-'));
        let mut plan = match if is_named { args.next() } else { None }.as_deref() {
            None | Some("drill") => Self::Drill(drill::Plan::default()),
            Some("lag") => Self::Lag(lag::Plan::default()),
            Some(_) => return None,
        };
        while let Some(option) = args.next() {
            let value = args.next()?.parse::<u64>().ok()?;
            plan.set(&option, value)?;
        }
        Some(plan)
    }

    fn set(&mut self, option: &str, value: u64) -> Option<()> {
        let count = usize::try_from(value).ok().filter(|count| *count > 0);
        match (self, option) {
            (Self::Drill(plan), "--round-trip") => plan.round_trip = Duration::from_millis(value),
            (Self::Drill(plan), "--before") => plan.before = Duration::from_secs(value),
            (Self::Drill(plan), "--alone") => plan.alone = Duration::from_secs(value),
            (Self::Lag(plan), "--round-trip") => plan.round_trip = Duration::from_millis(value),
            (Self::Lag(plan), "--seconds") => plan.seconds = value.max(1),
            (Self::Lag(plan), "--rounds") => plan.rounds = count?,
            (Self::Lag(plan), "--writers") => plan.writers = count?,
            (Self::Lag(plan), "--rate") => plan.rate = Some(f64::from(u32::try_from(value).ok()?.max(1))),
            _ => return None,
        }
        Some(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().skip(1).any(|arg| matches!(arg.as_str(), "-h" | "--help")) {
        println!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let Some(plan) = Plan::of(std::env::args().skip(1)) else {
        eprintln!("regions: unknown or incomplete arguments\n{HELP}");
        return ExitCode::FAILURE;
    };
    match run(plan).await {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("regions: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run(plan: Plan) -> Result<String, HarnessError> {
    let dir = tempfile::tempdir().map_err(|err| HarnessError::new("making a directory", err))?;
    let binary = cluster::find_binary()?;
    let done = match plan {
        Plan::Drill(plan) => drill::run(plan, &binary, dir.path()).await.map(|report| report.to_string()),
        Plan::Lag(plan) => lag::run(plan, &binary, dir.path()).await.map(|report| report.to_string()),
    };
    if done.is_err() {
        // What the nodes have logged says more.
        let kept = dir.keep();
        eprintln!("regions: data and logs are left in {}", kept.display());
    }
    done
}
