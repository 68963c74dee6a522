//! The drill of `deploy/runbooks/dr-promotion.md` and `dr-failback.md`, on loopback: two regions of three nodes with a link
//! between them that takes its time and can be cut. Prints what is missing after a promotion, and how long it took.

use std::process::ExitCode;
use std::time::Duration;

use arca_harness::regions::drill::{self, Plan};
use arca_harness::{HarnessError, cluster};

const HELP: &str = "usage: arca-regions [OPTION VALUE]…
  --round-trip MS   between the regions (80)
  --before SECONDS  of load before the primary's region is cut off (10)
  --alone SECONDS   that the old primary goes on alone (2)
  The arca binary is the one beside this program, or ARCA_BIN.";

fn plan() -> Option<Plan> {
    let mut plan = Plan::default();
    let mut args = std::env::args().skip(1);
    while let Some(option) = args.next() {
        let value = args.next()?.parse::<u64>().ok()?;
        match option.as_str() {
            "--round-trip" => plan.round_trip = Duration::from_millis(value),
            "--before" => plan.before = Duration::from_secs(value),
            "--alone" => plan.alone = Duration::from_secs(value),
            _ => return None,
        }
    }
    Some(plan)
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(plan) = plan() else {
        eprintln!("{HELP}");
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

async fn run(plan: Plan) -> Result<drill::Report, HarnessError> {
    let dir = tempfile::tempdir().map_err(|err| HarnessError::new("making a directory", err))?;
    let done = drill::run(plan, &cluster::find_binary()?, dir.path()).await;
    if done.is_err() {
        // What the nodes have logged says more.
        let kept = dir.keep();
        eprintln!("regions: data and logs are left in {}", kept.display());
    }
    done
}
