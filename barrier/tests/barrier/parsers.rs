//! Arbitrary bytes into every parser: an error or a value, never a panic, and never a forgery.

use arca_barrier::{Class, Keyring, RootKey, SealConfig, ShamirSeal, Share, TimedIndex, combine};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::testing::{SUITES, barrier};

/// Noise, and noise behind a beginning that looks right.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![
        Just(vec![]),
        Just(vec![1]),
        Just(vec![1, 0, 32]),
        Just(vec![2, 0xff, 1]),
        Just(vec![1, 0, 0, 0, 1, 1]),
        Just(vec![1, 0, 0, 0, 1, 2]),
        Just(vec![1, 1]),
        Just(vec![1, 2]),
    ];
    (head, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(head, tail)| [head, tail].concat())
}

proptest! {
    #[test]
    fn noise_is_refused(bytes in bytes(), more in bytes(), text in ".{0,80}") {
        let barrier = barrier(SUITES[0], 1);
        prop_assert!(barrier.open_value(b"key", &bytes).is_err());
        prop_assert!(barrier.open_name(&bytes).is_err() || bytes.len() == 1);
        prop_assert!(barrier.open_timed(&bytes).is_err());
        let joined = [bytes.as_slice(), &more].concat();
        prop_assert!(barrier.open_child(&bytes, &joined).is_err() || more.is_empty());
        let root = RootKey::from_slice(&[1; 32]).unwrap();
        prop_assert!(Keyring::open(&root, &bytes).is_err());
        prop_assert!(ShamirSeal::from_key(&[1; 32]).unwrap().unwrap(&bytes).is_err());
        prop_assert!(SealConfig::from_json(&bytes).is_err());
        let _ = Share::parse(&text);
        let shares = [bytes, more].map(|bytes| Share::from_bytes(Zeroizing::new(bytes)));
        let _ = combine(&shares);
    }

    /// Splices of real keys: what opens is a path that was sealed, or a folder above one.
    #[test]
    fn splices_of_real_keys_forge_nothing(from in 0_usize..120, to in 0_usize..120, at in 0_usize..120) {
        let barrier = barrier(SUITES[0], 1);
        let paths = ["a/b/c", "a/b/d", "b/c", "a"];
        let keys = paths.map(|path| barrier.seal_name(Class::Local, path).unwrap());
        for one in &keys {
            for other in &keys {
                let piece = other.get(from.min(to)..from.max(to).min(other.len())).unwrap_or_default();
                let spliced = [&one[..at.min(one.len())], piece].concat();
                if let Ok((class, path)) = barrier.open_name(&spliced) {
                    prop_assert!(class == Class::Local && paths.iter().any(|known| known.starts_with(&path)));
                }
            }
        }
        let timed = barrier.seal_timed(Class::Local, TimedIndex::LeaseDeadline, 9, "a/b/c").unwrap();
        let cut = [&timed[..at.min(timed.len())], keys[0].get(from..).unwrap_or_default()].concat();
        prop_assert!(barrier.open_timed(&cut).is_err() || cut == timed);
    }
}
