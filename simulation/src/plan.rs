//! What a seed decides before anything runs: how large the cluster is, which faults it meets, how long and how busy the
//! run is. Each class of faults is on or off, so that some runs meet one alone and some meet all.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use arca_jepsen::dice::Dice;
use arca_jepsen::workload;
use arca_raft_storage::testing::Weather;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A member loses its leader, and about when it campaigns another one restarts, at once: that one may have promised
    /// the leader something that it does not remember.
    Ambush,
    /// A machine loses its power, and comes back with one bit of its log flipped: it must not start.
    BitFlip,
    /// Wall clocks are set wrong.
    Clock,
    /// A machine loses its power and comes back.
    Crash,
    /// A sync, or a write, fails.
    Disk,
    /// Leadership is handed over.
    HandOver,
    /// A member is put out, and another comes in its place, on an empty disk.
    Member,
    /// The active member loses its power in the middle of issuing a credential, or of revoking one.
    Midway,
    /// Messages between two members are lost, one way.
    OneWay,
    /// A minority is cut off.
    Partition,
    /// A process ends in order, as for an upgrade or a seal, and starts again.
    Restart,
    /// The keyring gets a new term.
    Rotate,
}

impl Fault {
    /// All there are.
    pub const ALL: [Self; 12] = [
        Self::Ambush,
        Self::BitFlip,
        Self::Clock,
        Self::Crash,
        Self::Disk,
        Self::HandOver,
        Self::Member,
        Self::Midway,
        Self::OneWay,
        Self::Partition,
        Self::Restart,
        Self::Rotate,
    ];
}

/// A log so small that members which were away get snapshots.
#[derive(Clone, Copy, Debug)]
pub struct SmallLog {
    /// Of a segment.
    pub segment_bytes: u64,
    /// How much is kept of what is not needed any more.
    pub kept_bytes: u64,
    /// How often the state machine makes durable what it applied.
    pub flush_interval: Duration,
}

/// See the file's header.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything else follows from it.
    pub seed: u64,
    /// Members.
    pub members: usize,
    /// Faults this run meets.
    pub faults: Vec<Fault>,
    /// How long faults happen.
    pub chaos: Duration,
    /// Between two faults: at least, at most.
    pub pause: (Duration, Duration),
    /// What clients do: a workload of `jepsen/`.
    pub workload: &'static str,
    /// Clients.
    pub clients: u64,
    /// The number of the first: what it does of a mixed workload depends on it.
    pub first_client: u64,
    /// A client's pause between two requests, at most.
    pub pace: Duration,
    /// Clients that work with credentials in a system outside, besides the others.
    pub issuers: u64,
    /// Whether that system always does what it is asked, at once.
    pub is_elsewhere_well: bool,
    /// If the log is a small one.
    pub log: Option<SmallLog>,
    /// What becomes of messages.
    pub weather: Weather,
    /// How much too fast or slow clocks run, in millionths, at most.
    pub drift_ppm: u64,
    /// Faults that are left out, counted from 1 in the order in which they are due.
    pub skip: BTreeSet<u64>,
    /// Whether there are two clusters, one a copy of the other that takes over.
    pub has_regions: bool,
}

/// What is other than the seed decides, to find out what of it is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Changes {
    /// Leave these faults out: numbers and ranges, as in 1,4-9.
    #[arg(long, value_name = "LIST", value_parser = numbers, default_value = "")]
    pub skip: Skipped,
    /// Have so many clients.
    #[arg(long)]
    pub clients: Option<u64>,
    /// Have clients do this: a workload of jepsen/.
    #[arg(long, value_parser = workload::NAMES)]
    pub workload: Option<String>,
    /// Have nobody work with credentials in a system outside.
    #[arg(long)]
    pub no_credentials: bool,
    /// Let no message be late or lost by itself.
    #[arg(long)]
    pub fair_weather: bool,
    /// Keep the whole log, so that no member needs a snapshot.
    #[arg(long)]
    pub whole_log: bool,
    /// Have two clusters, one a copy of the other that takes over.
    #[arg(long)]
    pub regions: bool,
}

/// Numbers of faults. Shown as they are written: with ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped(pub BTreeSet<u64>);

fn numbers(text: &str) -> Result<Skipped, String> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("{text:?} is no number"));
    let mut all = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(number(first)?..=number(last)?);
    }
    Ok(Skipped(all))
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut separator = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while let Some(next) = rest.next_if_eq(&(last + 1)) {
                last = next;
            }
            write!(f, "{separator}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            separator = ",";
        }
        Ok(())
    }
}

impl Changes {
    /// The same as arguments of a command line.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if !self.skip.0.is_empty() {
            add("--skip", self.skip.to_string());
        }
        if let Some(clients) = self.clients {
            add("--clients", clients.to_string());
        }
        if let Some(workload) = &self.workload {
            add("--workload", workload.clone());
        }
        let flags = [
            ("--no-credentials", self.no_credentials),
            ("--fair-weather", self.fair_weather),
            ("--whole-log", self.whole_log),
            ("--regions", self.regions),
        ];
        arguments.extend(flags.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| name.to_owned()));
        arguments
    }
}

impl Plan {
    /// What `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::for_purpose(seed, "plan");
        let members = dice.pick(&[3, 3, 3, 5, 5, 7]).copied().unwrap_or(3);
        let others = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Midway);
        let mut faults: Vec<Fault> = others.filter(|_| dice.chance(60)).collect();
        let has_clocks = faults.contains(&Fault::Clock);
        let shortest = dice.span(Duration::from_millis(100), Duration::from_secs(2));
        let outside = Outside::new(seed, has_clocks);
        faults.extend(outside.has_midway.then_some(Fault::Midway));
        let span = |low, high| (Duration::from_secs(low), Duration::from_secs(high));
        let (low, high) = span(20, 90);
        Self {
            seed,
            members,
            faults,
            chaos: dice.span(low, high),
            pause: (shortest, shortest * 4),
            workload: workload(&mut dice, has_clocks),
            clients: dice.within(2..9),
            first_client: dice.within(0..30),
            pace: dice.span(Duration::from_millis(20), Duration::from_millis(400)),
            issuers: outside.issuers,
            is_elsewhere_well: outside.is_well,
            log: small_log(&mut dice),
            weather: weather(&mut dice),
            drift_ppm: 200,
            skip: BTreeSet::new(),
            has_regions: false,
        }
    }

    /// What the seed decides of a run with two clusters, by dice of their own. Credentials outside are for single ones;
    /// so are leases, which a secondary does not end, and rotations, which are not refused by role where they are committed.
    #[must_use]
    pub fn with_regions(self) -> Self {
        let mut dice = Dice::for_purpose(self.seed, "plan of regions");
        let left_out = [Fault::Midway, Fault::Rotate];
        let others = Fault::ALL.into_iter().filter(|fault| !left_out.contains(fault));
        let faults: Vec<Fault> = others.filter(|_| dice.chance(45)).collect();
        let shortest = dice.span(Duration::from_millis(500), Duration::from_secs(4));
        let workload = *dice.pick(&["all", "registers", "registers", "lists"]).unwrap_or(&"all");
        Self {
            members: 3,
            faults,
            chaos: dice.span(Duration::from_secs(20), Duration::from_secs(60)),
            pause: (shortest, shortest * 4),
            workload,
            clients: dice.within(2..6),
            pace: dice.span(Duration::from_millis(40), Duration::from_millis(400)),
            issuers: 0,
            is_elsewhere_well: true,
            log: small_log(&mut dice),
            has_regions: true,
            ..self
        }
    }

    /// What it is for one of two clusters: the same, by other dice.
    #[must_use]
    pub fn of_region(&self, name: &str) -> Self {
        let mut dice = Dice::for_purpose(self.seed, &format!("region {name}"));
        let mut plan = self.clone();
        plan.seed = dice.number();
        plan.faults.retain(|_| dice.chance(80));
        plan
    }

    /// The same with `changes`.
    #[must_use]
    pub fn changed(mut self, changes: &Changes) -> Self {
        if changes.regions {
            self = self.with_regions();
        }
        self.skip.extend(&changes.skip.0);
        self.clients = changes.clients.unwrap_or(self.clients);
        if let Some(workload) = &changes.workload {
            self.workload =
                workload::NAMES.into_iter().find(|name| name == workload).unwrap_or(self.workload);
        }
        if changes.no_credentials {
            self.issuers = 0;
            self.faults.retain(|fault| *fault != Fault::Midway);
        }
        if changes.fair_weather {
            self.weather = Weather::fair();
        }
        if changes.whole_log {
            self.log = None;
        }
        self
    }
}

/// What is decided of credentials in a system outside, by dice of their own.
struct Outside {
    has_midway: bool,
    issuers: u64,
    is_well: bool,
}

impl Outside {
    /// As with leases, nobody can say what is right while clocks are set wrong: what was begun by one clock is undone by
    /// another, and may not have ended.
    fn new(seed: u64, has_clocks: bool) -> Self {
        let mut dice = Dice::for_purpose(seed, "plan of credentials");
        let (has_midway, has_issuers) = (dice.chance(90) && !has_clocks, dice.chance(50) && !has_clocks);
        let issuers = dice.within(1..4);
        let issuers = if has_midway || has_issuers { issuers } else { 0 };
        Self { has_midway, issuers, is_well: dice.chance(40) }
    }
}

/// Everything at once in half of the runs. Leases cannot be judged alone while clocks are set wrong.
fn workload(dice: &mut Dice, has_clocks: bool) -> &'static str {
    let chosen = if dice.chance(50) { None } else { dice.pick(&workload::NAMES).copied() };
    chosen.filter(|name| !(has_clocks && *name == "leases")).unwrap_or("all")
}

fn small_log(dice: &mut Dice) -> Option<SmallLog> {
    dice.chance(50).then(|| SmallLog {
        segment_bytes: dice.within(4..64) << 10,
        kept_bytes: dice.within(0..128) << 10,
        flush_interval: dice.span(Duration::from_millis(500), Duration::from_secs(10)),
    })
}

/// Fair in half of the runs; in others messages are late, or lost, now and then.
fn weather(dice: &mut Dice) -> Weather {
    if dice.chance(50) {
        return Weather::fair();
    }
    let ppm = |dice: &mut Dice, most| u32::try_from(dice.within(0..most)).unwrap_or_default();
    Weather {
        jitter: dice.span(Duration::ZERO, Duration::from_millis(20)),
        spikes_ppm: ppm(dice, 20_000),
        spike: dice.span(Duration::from_millis(5), Duration::from_millis(800)),
        losses_ppm: ppm(dice, 20_000),
        ..Weather::fair()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_faults_are_read_and_shown() {
        let check = |text: &str, shown: &str| assert_eq!(numbers(text).unwrap().to_string(), shown);
        check("", "");
        check("3", "3");
        check("1,2,3,7", "1-3,7");
        check("4-6, 5-9", "4-9");
        assert!(numbers("x").is_err() && numbers("1-").is_err());
    }

    #[test]
    fn changes_are_arguments() {
        let changes = Changes {
            skip: numbers("1-3").unwrap(),
            clients: Some(2),
            workload: Some("tokens".to_owned()),
            no_credentials: true,
            fair_weather: true,
            whole_log: true,
            regions: true,
        };
        let line = changes.arguments().join(" ");
        let want =
            "--skip 1-3 --clients 2 --workload tokens --no-credentials --fair-weather --whole-log --regions";
        assert_eq!(line, want);
        let plan = Plan::new(3).changed(&changes);
        assert_eq!((plan.clients, plan.workload, plan.skip.len()), (2, "tokens", 3));
        assert_eq!(plan.weather, Weather::fair());
    }

    #[test]
    fn seeds_differ_and_each_fault_is_met_by_some_and_not_by_others() {
        let plans: Vec<_> = (0..200).map(Plan::new).collect();
        let sizes: BTreeSet<_> = plans.iter().map(|plan| plan.members).collect();
        assert_eq!(sizes, BTreeSet::from([3, 5, 7]));
        for fault in Fault::ALL {
            let met = plans.iter().filter(|plan| plan.faults.contains(&fault)).count();
            assert!((50..180).contains(&met), "{fault:?}: {met} of 200");
        }
        assert_eq!(format!("{:?}", Plan::new(5)), format!("{:?}", Plan::new(5)));
    }
}
