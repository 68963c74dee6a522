//! Values: they open where they were sealed, and nowhere else.

use std::sync::Arc;

use arca_barrier::{Barrier, BarrierError, Keyring};
use proptest::prelude::*;

use crate::testing::{Broken, SUITES, Seeded, barrier};

#[test]
fn every_changed_byte_and_every_cut_is_refused() {
    for suite in SUITES {
        let barrier = barrier(suite, 1);
        let sealed = barrier.seal_value(b"key", b"a secret").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << bit;
                assert!(barrier.open_value(b"key", &changed).is_err(), "{suite:?} byte {at} bit {bit}");
            }
            assert!(barrier.open_value(b"key", &sealed[..at]).is_err(), "{suite:?} cut at {at}");
        }
        let longer = [sealed.as_slice(), &[0]].concat();
        assert_eq!(barrier.open_value(b"key", &longer), Err(BarrierError::Authentication));
    }
}

#[test]
fn says_what_it_does_not_know() {
    let barrier = barrier(SUITES[0], 1);
    let sealed = barrier.seal_value(b"key", b"a secret").unwrap();
    let check = |at: usize, byte: u8, want: BarrierError| {
        let mut changed = sealed.clone();
        changed[at] = byte;
        assert_eq!(barrier.open_value(b"key", &changed), Err(want));
    };
    check(0, 2, BarrierError::UnknownVersion(2));
    check(4, 9, BarrierError::UnknownTerm(9));
    check(5, 9, BarrierError::UnknownSuite(9));
    check(5, 2, BarrierError::Authentication);
    assert_eq!(barrier.open_value(b"key", &[]), Err(BarrierError::Truncated));
}

#[test]
fn nothing_is_sealed_when_randomness_fails() {
    for suite in SUITES {
        let keyring = Keyring::generate(&Seeded::new(1), 0, suite).unwrap();
        let barrier = Barrier::new(keyring, Arc::new(Broken));
        assert!(matches!(barrier.seal_value(b"key", b"a secret"), Err(BarrierError::Entropy(_))));
        assert_eq!(barrier.key_status().encryptions, 0);
        assert!(matches!(barrier.rotated(0), Err(BarrierError::Entropy(_))));
    }
    assert!(matches!(Keyring::generate(&Broken, 0, SUITES[0]), Err(BarrierError::Entropy(_))));
}

proptest! {
    #[test]
    fn round_trips(key: Vec<u8>, plain: Vec<u8>, seed: u64) {
        for suite in SUITES {
            let barrier = barrier(suite, seed);
            let sealed = barrier.seal_value(&key, &plain).unwrap();
            let opened = barrier.open_value(&key, &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), plain.as_slice());
            prop_assert_ne!(sealed, barrier.seal_value(&key, &plain).unwrap());
        }
    }

    #[test]
    fn moved_to_another_key_or_cluster_it_does_not_open(
        key: Vec<u8>, other: Vec<u8>, plain: Vec<u8>, seed in 1_u64..,
    ) {
        prop_assume!(key != other);
        for suite in SUITES {
            let barrier = barrier(suite, seed);
            let sealed = barrier.seal_value(&key, &plain).unwrap();
            prop_assert_eq!(barrier.open_value(&other, &sealed), Err(BarrierError::Authentication));
            let foreign = crate::testing::barrier(suite, seed - 1);
            prop_assert_eq!(foreign.open_value(&key, &sealed), Err(BarrierError::Authentication));
        }
    }
}
