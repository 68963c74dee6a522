//! When which fault strikes, for how long, and with which dice: all from the seed, before the run begins.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::faults::{Class, FaultLog, Scene, Struck};

/// How many faults may go on at once when they are mixed.
const MIXED_MAX: usize = 3;

/// One strike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When, from the start of the run.
    pub at: Duration,
    /// What.
    pub class: Class,
    /// How long it is held.
    pub hold: Duration,
    /// For its own choices.
    pub seed: u64,
}

/// Whether faults wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixing {
    /// One after the other, with a pause between.
    Apart,
    /// Up to three at once.
    Mixed,
}

/// The strikes of a run of `length`: every class in turn, in an order that is shuffled anew each time, so that each is
/// struck about as often as the others.
#[must_use]
pub fn plan(seed: u64, classes: &[Class], length: Duration, mixing: Mixing) -> Vec<Planned> {
    let mut dice = Dice::new(seed);
    let mut planned = Vec::new();
    let mut at = dice.millis(1_000..3_000);
    while at < length && !classes.is_empty() {
        let mut turn = classes.to_vec();
        dice.shuffle(&mut turn);
        for class in turn {
            let hold = dice.millis(2_000..10_000);
            planned.push(Planned { at, class, hold, seed: dice.number() });
            let pause = dice.millis(1_000..4_000);
            at += match mixing {
                Mixing::Apart => hold + pause,
                Mixing::Mixed => pause,
            };
        }
    }
    planned.retain(|strike| strike.at < length);
    planned
}

/// Carries a plan out until it is over or `length` has passed; what has begun by then is finished and healed. Strikes that
/// come late because others took their time are not made up for.
pub async fn carry_out(
    cluster: &Cluster,
    planned: &[Planned],
    length: Duration,
    mixing: Mixing,
    log: &FaultLog,
) {
    let start = tokio::time::Instant::now();
    let lanes = match mixing {
        Mixing::Apart => 1,
        Mixing::Mixed => MIXED_MAX,
    };
    let next = parking_lot::Mutex::new(planned.iter());
    let lane = || async {
        loop {
            let strike = next.lock().next();
            let Some(strike) = strike else { return };
            tokio::time::sleep_until(start + strike.at).await;
            if start.elapsed() >= length {
                return;
            }
            one(cluster, strike, log).await;
        }
    };
    futures::future::join_all((0..lanes).map(|_| lane())).await;
}

async fn one(cluster: &Cluster, strike: &Planned, log: &FaultLog) {
    let stage = log.begin(strike.class);
    let scene = Scene { cluster, hold: strike.hold, stage: stage.clone() };
    match strike.class.fault().strike(&scene, &mut Dice::new(strike.seed)).await {
        Ok(Struck::Done(hits)) => stage.healed(hits),
        Ok(Struck::Skipped) => stage.skipped(),
        Err(err) => stage.failed(err.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_plans_the_same() {
        let plan = |seed| plan(seed, &Class::ALL, Duration::from_secs(600), Mixing::Mixed);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn every_class_has_its_turn() {
        let planned = plan(9, &Class::ALL, Duration::from_secs(600), Mixing::Apart);
        for class in Class::ALL {
            let strikes = planned.iter().filter(|strike| strike.class == class).count();
            assert!((3..=6).contains(&strikes), "{class}: {strikes}");
        }
        for pair in planned.windows(2) {
            assert!(pair[0].at + pair[0].hold < pair[1].at);
        }
    }

    #[test]
    fn without_classes_nothing_is_planned() {
        assert_eq!(plan(1, &[], Duration::from_secs(600), Mixing::Apart), []);
    }
}
