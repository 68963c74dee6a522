//! What a seed decides before anything runs: how large the cluster is, which faults it meets, how long and how busy the
//! run is. Each class of faults is on or off, so that some runs meet one alone and some meet all.

use std::time::Duration;

use arca_jepsen::dice::Dice;
use arca_jepsen::workload;
use arca_raft_storage::testing::Weather;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
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
    pub const ALL: [Self; 9] = [
        Self::Clock,
        Self::Crash,
        Self::Disk,
        Self::HandOver,
        Self::Member,
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
    /// If the log is a small one.
    pub log: Option<SmallLog>,
    /// What becomes of messages.
    pub weather: Weather,
    /// How much too fast or slow clocks run, in millionths, at most.
    pub drift_ppm: u64,
}

impl Plan {
    /// What `seed` decides.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::for_purpose(seed, "plan");
        let members = dice.pick(&[3, 3, 3, 5, 5, 7]).copied().unwrap_or(3);
        let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|_| dice.chance(60)).collect();
        let has_clocks = faults.contains(&Fault::Clock);
        let shortest = dice.span(Duration::from_millis(100), Duration::from_secs(2));
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
            log: small_log(&mut dice),
            weather: weather(&mut dice),
            drift_ppm: 200,
        }
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
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_differ_and_each_fault_is_met_by_some_and_not_by_others() {
        let plans: Vec<_> = (0..200).map(Plan::new).collect();
        let sizes: BTreeSet<_> = plans.iter().map(|plan| plan.members).collect();
        assert_eq!(sizes, BTreeSet::from([3, 5, 7]));
        for fault in Fault::ALL {
            let met = plans.iter().filter(|plan| plan.faults.contains(&fault)).count();
            assert!((60..180).contains(&met), "{fault:?}: {met} of 200");
        }
        assert_eq!(format!("{:?}", Plan::new(5)), format!("{:?}", Plan::new(5)));
    }
}
