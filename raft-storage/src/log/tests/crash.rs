//! The power goes at every write, sync, rename, removal and creation of a script, also while recovering, and whatever
//! the disk made of it, the log opens, keeps what it acknowledged and invents nothing.

use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::testing::CrashPolicy;

const POLICIES: [CrashPolicy; 6] = [
    CrashPolicy::LosePending,
    CrashPolicy::KeepPending,
    CrashPolicy::KeepPrefix,
    CrashPolicy::Torn { block: 1 },
    CrashPolicy::Torn { block: 512 },
    CrashPolicy::Reorder { block: 512 },
];

fn fixed_script(seed: u8) -> Vec<Op> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut ops = script(50).new_tree(&mut runner).unwrap().current();
    ops.push(Op::Flush);
    ops
}

/// Runs until the script ends or the power goes.
fn run(vfs: &ModelVfs, ops: &[Op]) -> Option<Driver> {
    let mut driver = Driver::new(open(vfs).ok()?, Reference::default());
    for op in ops {
        if driver.run(op).is_err() {
            assert!(vfs.is_off(), "nothing else may fail here");
            break;
        }
    }
    Some(driver)
}

/// Opens after a crash, and again if the power goes during that too.
fn reopen(vfs: &ModelVfs, policy: CrashPolicy, case: &str) -> (SegmentLog, Writer) {
    for _ in 0..10 {
        match open(vfs) {
            Ok(opened) => return opened,
            Err(_) if vfs.is_off() => vfs.crash(policy),
            Err(error) => panic!("{case}: {error}"),
        }
    }
    panic!("{case}: the power never stays");
}

fn check_survivor(driver: &Driver, log: &SegmentLog, case: &str) -> Reference {
    let found = Reference::read(log).unwrap_or_else(|error| panic!("{case}: {error}"));
    let acknowledged = *driver.acknowledged.lock();
    let possible = &driver.states[acknowledged..];
    assert!(
        possible.contains(&found),
        "{case}: found {found:?}\nwhich is none of the {} states from the acknowledged {:?}",
        possible.len(),
        possible.first()
    );
    if let Some(committed) = log.state().committed {
        assert!(driver.committed.contains(&Some(committed)), "{case}: {committed:?} was never committed");
        let last = log.state().last;
        assert!(
            last.is_some_and(|last| committed.index <= last.index),
            "{case}: {committed:?} is beyond {last:?}"
        );
    }
    found
}

fn check(seed: u8) {
    let ops = fixed_script(seed);
    let calm = ModelVfs::new(u64::from(seed));
    run(&calm, &ops).unwrap();
    let points = calm.changes();
    assert!(points > 30, "the script does something: {points}");
    for point in 1..=points {
        for policy in POLICIES {
            let case = format!("seed {seed}, crash at {point}, {policy:?}");
            let vfs = ModelVfs::new(u64::from(seed) << 32 | point);
            vfs.power_off_at(point);
            let driver = run(&vfs, &ops);
            vfs.crash(policy);
            // Once more, somewhere in the recovery.
            vfs.power_off_at(vfs.changes() + 1 + point % 9);
            let opened = reopen(&vfs, policy, &case);
            vfs.power_off_at(u64::MAX);
            let Some(driver) = driver.filter(|_| !vfs.is_off()) else { continue };
            let found = check_survivor(&driver, &opened.0, &case);
            check_it_goes_on(&vfs, opened, found, &case);
        }
    }
}

/// What recovery showed is on the disk, and the log takes more.
fn check_it_goes_on(vfs: &ModelVfs, opened: (SegmentLog, Writer), found: Reference, case: &str) {
    let mut next = Driver::new(opened, found);
    for op in [Op::Append(vec![40, 900]), Op::Vote(1), Op::Flush, Op::Append(vec![700]), Op::Flush] {
        next.run(&op).unwrap_or_else(|error| panic!("{case}: {error}"));
    }
    vfs.crash(CrashPolicy::LosePending);
    let (log, _writer) = open(vfs).unwrap_or_else(|error| panic!("{case}, second crash: {error}"));
    assert_eq!(Some(&Reference::read(&log).unwrap()), next.states.last(), "{case}, second crash");
}

#[test]
fn survives_a_crash_at_every_point_1() {
    (1..=3).for_each(check);
}

#[test]
fn survives_a_crash_at_every_point_2() {
    (4..=6).for_each(check);
}
