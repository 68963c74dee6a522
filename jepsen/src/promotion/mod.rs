//! Two clusters and the loss of one: a primary and its DR secondary, three nodes each, with a slow road between them and clients
//! who go over. What clients saw in the first reign is one linearizable history, and so is what they saw from the promotion
//! on, a planned switch back included; and the second begins with one moment of the first ([`crate::models::cut`]), no
//! earlier than the one up to which the secondary said it had everything.
//! Read next: `story.rs` for what is done, `verdict.rs` for what is checked.

mod crew;
mod kept;
mod region;
mod road;
mod sampler;
mod story;
mod verdict;

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arca_harness::HarnessError;

use self::kept::Kept;
use self::region::Region;
use self::road::Road;
use self::story::{Facts, Story};
use crate::cluster::{Cluster, Options};
use crate::conclusion::Conclusion;
use crate::dice::Dice;
use crate::faults::{Class, FaultLog};
use crate::history::recorder::Recorder;
use crate::leftovers;

type Result<T> = std::result::Result<T, HarnessError>;

/// Nodes of each region.
const NODES: usize = 3;
/// What was last heard of the primary may be this old when it is heard: the way it takes, and a busy machine.
const HEARD_LATE: Duration = Duration::from_secs(3);

/// What to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `arca` binary.
    pub binary: PathBuf,
    /// How many clients a region has.
    pub clients: usize,
    /// How long faults are begun, all parts of the story together.
    pub length: Duration,
    /// Which, within the regions.
    pub classes: Vec<Class>,
    /// Between the regions, there and back.
    pub round_trip: Duration,
    /// For all choices.
    pub seed: u64,
    /// Where everything goes: an absolute path.
    pub report: PathBuf,
    /// How long the histories may be checked.
    pub check_limit: Duration,
    /// Whether data directories are kept after a run that passed.
    pub keeps_data: bool,
}

/// Carries a run out, and concludes it.
///
/// # Errors
/// When the harness fails, or a region does not do in time what it has to. What is wrong with what clients saw is in the
/// conclusion.
pub async fn run(settings: &Settings) -> Result<Conclusion> {
    let nodes = settings.report.join("nodes");
    fs::create_dir_all(&nodes).map_err(|err| HarnessError::new("creating the report's directory", err))?;
    let (entry, removed) = leftovers::enter(&nodes)?;
    for what in removed {
        eprintln!("removed what an earlier run left: {what}");
    }
    let entry = Arc::new(entry);
    let mut dice = Dice::for_purpose(settings.seed, "promotion");
    let (mut east, mut west) = (
        region(settings, "east", 0, &nodes, &entry, dice.number())?,
        region(settings, "west", 1, &nodes, &entry, dice.number())?,
    );
    let road = Road::open(&east, &west, settings.round_trip / 2, dice.split())?;
    let (risen, unsealed) = tokio::join!(east.cluster.up(), west.cluster.unsealed());
    risen.and(unsealed)?;
    let start = Instant::now();
    let now = move || nanos(start.elapsed());
    let mut story = Story {
        settings,
        east,
        west,
        road,
        log: FaultLog::new(Arc::new(now), true),
        old: recorder(settings, verdict::OLD, now)?,
        new: recorder(settings, verdict::NEW, now)?,
        dice,
        facts: Facts::default(),
        problems: Vec::new(),
        planned: Vec::new(),
        kept: Kept::default(),
    };
    let played = story.play().await;
    let happened = verdict::happened(story)?;
    verdict::write_faults(settings, &happened)?;
    // Without its end there is nothing to conclude, but what happened is on the disk.
    played?;
    let concluded = verdict::conclude(settings, happened).await?;
    if concluded.shortcomings.is_empty() && !settings.keeps_data {
        remove_data(&nodes);
    }
    Ok(concluded)
}

fn region(
    settings: &Settings,
    name: &'static str,
    site: u8,
    nodes: &Path,
    entry: &Arc<leftovers::Entry>,
    seed: u64,
) -> Result<Region> {
    let options = Options {
        binary: settings.binary.clone(),
        nodes: NODES,
        site,
        dir: nodes.join(name),
        seed,
        can_break_disks: settings.classes.iter().any(|class| class.breaks_disks()),
        can_set_clocks: settings.classes.contains(&Class::Clock),
        extra_config: String::new(),
        extra_storage: String::new(),
    };
    Ok(Region { name, cluster: Cluster::build_within(options, entry)? })
}

/// A recorder whose history is written as it goes; all of a run have the same time.
fn recorder(
    settings: &Settings,
    name: &str,
    now: impl Fn() -> u64 + Send + Sync + 'static,
) -> Result<Recorder> {
    let file = File::create(settings.report.join(format!("{name}.jsonl")));
    let file = file.map_err(|err| HarnessError::new("creating a history", err))?;
    Ok(Recorder::with_copy(Box::new(now), Box::new(BufWriter::new(file))))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds as seconds, for people.
#[allow(clippy::cast_precision_loss)] // Milliseconds are shown.
fn seconds(nanos: u64) -> f64 {
    (nanos / 1_000_000) as f64 / 1_000.0
}

/// Removes what nodes stored; logs and configurations stay.
fn remove_data(nodes: &Path) {
    for region in ["east", "west"] {
        crate::run::remove_data(&nodes.join(region), NODES);
    }
}
