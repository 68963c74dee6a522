//! What a seed decides before anything runs: how large the cluster is, which faults it meets, how long and how busy the
//! run is. Each class of faults is on or off, so that some runs meet one alone and some meet all.

use std::time::Duration;

use arca_jepsen::dice::Dice;
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
    /// Messages between two members are lost, one way.
    OneWay,
    /// A minority is cut off.
    Partition,
}

impl Fault {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Clock, Self::Crash, Self::Disk, Self::HandOver, Self::OneWay, Self::Partition];
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
    /// Clients.
    pub clients: usize,
    /// Paths they work on.
    pub keys: u64,
    /// A client's pause between two requests, at most.
    pub think: Duration,
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
        let faults = Fault::ALL.into_iter().filter(|_| dice.chance(60)).collect();
        let shortest = dice.span(Duration::from_millis(100), Duration::from_secs(2));
        let span = |low, high| (Duration::from_secs(low), Duration::from_secs(high));
        let (low, high) = span(20, 90);
        Self {
            seed,
            members,
            faults,
            chaos: dice.span(low, high),
            pause: (shortest, shortest * 4),
            clients: usize::try_from(dice.within(2..9)).unwrap_or(2),
            keys: dice.within(1..5),
            think: dice.span(Duration::from_millis(20), Duration::from_millis(400)),
            weather: weather(&mut dice),
            drift_ppm: 200,
        }
    }
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
