//! Measures a failover: kills the active node again and again while writers go on through the standbys, and prints how
//! long nothing was acknowledged. Fails when an acknowledged write is lost.

use std::process::ExitCode;

use arca_harness::failover::{kill_active, p50_and_max};
use arca_harness::{Cluster, ClusterOptions, HarnessError, cluster};

const HELP: &str = "usage: arca-failover [KILLS]      (20 when absent)
  The arca binary is the one beside this program, or ARCA_BIN.";

#[tokio::main]
async fn main() -> ExitCode {
    let kills = std::env::args().nth(1).map_or(Ok(20), |text| text.parse::<usize>());
    let Ok(kills) = kills else {
        eprintln!("{HELP}");
        return ExitCode::FAILURE;
    };
    match measure(kills).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("failover: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(kills: usize) -> Result<(), HarnessError> {
    let dir = tempfile::tempdir().map_err(|err| HarnessError::new("making a directory", err))?;
    let mut cluster = Cluster::up(ClusterOptions::new(cluster::find_binary()?, dir.path())).await?;
    let mut done = Vec::new();
    for round in 0..kills {
        let kill = kill_active(&mut cluster, round).await?;
        println!(
            "kill {:>3}: longest gap {:.3} s, {} writes acknowledged, {} repeated, none lost",
            round + 1,
            kill.gap.as_secs_f64(),
            kill.acknowledged,
            kill.failed
        );
        done.push(kill);
    }
    let (middle, max) = p50_and_max(&done);
    let acknowledged: u64 = done.iter().map(|kill| kill.acknowledged).sum();
    println!(
        "{} kills: longest gap p50 {:.3} s, max {:.3} s; {acknowledged} writes acknowledged, none lost",
        done.len(),
        middle.as_secs_f64(),
        max.as_secs_f64()
    );
    Ok(())
}
