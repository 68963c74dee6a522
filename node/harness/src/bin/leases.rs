//! Grants a great many leases, kills the active node, watches each end at its time while a database hangs, then grants as
//! many again and revokes them by prefix. Fails when a bound is broken: no write for more than two seconds, a lease that
//! ends more than five seconds late, or early, or not at all.

#![allow(clippy::disallowed_methods)] // It measures real time.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use arca_harness::HarnessError;
use arca_harness::cluster::find_binary;
use arca_harness::leases::{Plan, Report, run};

const HELP: &str = "usage: arca-leases [OPTION VALUE]…
  --leases N        leases that end by themselves (1000000)
  --revoke N        leases that are revoked by prefix (1000000)
  --window SECONDS  time over which the ends are spread (180)
  --database N      leases of each of two databases, for which PostgreSQL is started; 0 does without (200)
  --connections N   connections that grant (64)
  --kill-while-revoking yes|no      whether the active node dies then, too (yes)
  --bounds yes|no   whether a broken bound of time is a failure (yes)
  The arca binary is the one beside this program, or ARCA_BIN.";

fn parse(args: impl Iterator<Item = String>) -> Option<(Plan, bool)> {
    let (mut plan, mut is_bound) = (Plan::default(), true);
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let value = args.next()?;
        let yes = || match value.as_str() {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        match name.as_str() {
            "--bounds" => is_bound = yes()?,
            "--connections" => plan.connections = value.parse().ok().filter(|count| *count > 0)?,
            "--database" => plan.database_leases = value.parse().ok()?,
            "--kill-while-revoking" => plan.kills_during_revocation = yes()?,
            "--leases" => plan.leases = value.parse().ok()?,
            "--revoke" => plan.revoked = value.parse().ok()?,
            "--window" => plan.window = Duration::from_secs(value.parse().ok()?),
            _ => return None,
        }
    }
    Some((plan, is_bound))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some((plan, is_bound)) = parse(std::env::args().skip(1)) else {
        eprintln!("{HELP}");
        return ExitCode::FAILURE;
    };
    let began = Instant::now();
    let say = move |text: &str| println!("{:>6.1} s  {text}", began.elapsed().as_secs_f64());
    let report = match measure(&plan, &say).await {
        Ok(report) => report,
        Err(err) => {
            eprintln!("leases: {err}");
            return ExitCode::FAILURE;
        }
    };
    println!("{report}");
    let mut broken = report.faults();
    for bound in report.broken_bounds() {
        println!("over its bound: {bound}");
        broken.extend(is_bound.then_some(bound));
    }
    println!("{} s in all", began.elapsed().as_secs());
    for fault in report.faults() {
        println!("WRONG: {fault}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn measure(plan: &Plan, say: &dyn Fn(&str)) -> Result<Report, HarnessError> {
    run(plan, &find_binary()?, say).await
}
