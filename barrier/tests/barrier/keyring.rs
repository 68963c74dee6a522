//! The keyring: stored and read back, rotated, replaced, and refused when it is not ours.

use std::sync::Arc;

use arca_barrier::{Barrier, BarrierError, Class, Keyring, RootKey, RotationConfig, Suite};

use crate::testing::{Broken, SUITES, Seeded, barrier};

fn reopen(keyring: &Keyring, root: &RootKey) -> Keyring {
    Keyring::open(root, &keyring.seal(root, &Seeded::new(5)).unwrap()).unwrap()
}

#[test]
fn old_values_stay_readable_and_names_never_change() {
    let root = RootKey::generate(&Seeded::new(2)).unwrap();
    let barrier = barrier(Suite::XChaCha20Poly1305, 1);
    let name = barrier.seal_name(Class::Local, "a/b").unwrap();
    let mut sealed = vec![barrier.seal_value(&name, b"term 1").unwrap()];
    for (term, suite) in [(2, Suite::Aes256Gcm), (3, Suite::Aes256Gcm), (4, Suite::XChaCha20Poly1305)] {
        barrier.replace_keyring(barrier.rotated_to(term * 1_000, suite).unwrap()).unwrap();
        sealed.push(barrier.seal_value(&name, format!("term {term}").as_bytes()).unwrap());
        let status = barrier.key_status();
        assert_eq!(
            (u64::from(status.term), status.install_time_ms, status.encryptions),
            (term, term * 1_000, 1)
        );
    }
    let after = Barrier::new(reopen(&barrier.keyring(), &root), Arc::new(Seeded::new(6)));
    for (term, sealed) in (1..).zip(&sealed) {
        for barrier in [&barrier, &after] {
            assert_eq!(
                barrier.open_value(&name, sealed).unwrap().as_slice(),
                format!("term {term}").as_bytes()
            );
        }
    }
    assert_eq!(after.seal_name(Class::Local, "a/b").unwrap(), name);
    assert_eq!(after.key_status(), barrier.key_status());
}

#[test]
fn a_follower_behind_names_the_term_it_lacks() {
    let leader = barrier(SUITES[0], 1);
    let follower = Barrier::new(leader.keyring(), Arc::new(Seeded::new(9)));
    leader.replace_keyring(leader.rotated(2).unwrap()).unwrap();
    let sealed = leader.seal_value(b"key", b"new").unwrap();
    assert_eq!(follower.open_value(b"key", &sealed), Err(BarrierError::UnknownTerm(2)));
    follower.replace_keyring(leader.keyring()).unwrap();
    assert_eq!(follower.open_value(b"key", &sealed).unwrap().as_slice(), b"new");
}

#[test]
fn only_a_later_version_of_the_same_keyring_is_taken() {
    let barrier = barrier(SUITES[0], 1);
    let first = barrier.keyring();
    let (one, other) = (barrier.rotated(2).unwrap(), barrier.rotated(2).unwrap());
    barrier.replace_keyring(one.clone()).unwrap();
    let refused =
        |keyring: Keyring| matches!(barrier.replace_keyring(keyring), Err(BarrierError::ForeignKeyring(_)));
    assert!(refused(other), "two rotations crossed: the second is refused");
    assert!(refused(first), "a term would be lost");
    assert!(refused(crate::testing::barrier(SUITES[0], 2).keyring()), "another cluster");
    barrier.replace_keyring(one).unwrap();
    assert_eq!(barrier.key_status().term, 2);
}

#[test]
fn a_restored_keyring_takes_terms_away_for_good() {
    let barrier = barrier(SUITES[0], 1);
    let first = reopen(&barrier.keyring(), &RootKey::generate(&Seeded::new(2)).unwrap());
    let old = barrier.seal_value(b"key", b"old").unwrap();
    barrier.replace_keyring(barrier.rotated(2).unwrap()).unwrap();
    let lost = barrier.seal_value(b"key", b"lost").unwrap();
    barrier.supersede_keyring(first).unwrap();
    assert_eq!((barrier.key_status().term, barrier.key_status().encryptions), (1, 1), "it goes on counting");
    assert_eq!(barrier.open_value(b"key", &old).unwrap().as_slice(), b"old");
    assert_eq!(barrier.open_value(b"key", &lost), Err(BarrierError::UnknownTerm(2)));
    // The next term has the number of the one that is gone, and another key.
    barrier.replace_keyring(barrier.rotated(3).unwrap()).unwrap();
    assert_eq!(barrier.open_value(b"key", &lost), Err(BarrierError::Authentication));
    let foreign = crate::testing::barrier(SUITES[0], 2).keyring();
    assert!(matches!(barrier.supersede_keyring(foreign), Err(BarrierError::ForeignKeyring(_))));
    assert_eq!(barrier.key_status().term, 2, "nothing changed");
}

#[test]
fn counts_survive_storage_and_replacement() {
    let root = RootKey::generate(&Seeded::new(2)).unwrap();
    let barrier = barrier(SUITES[1], 1);
    let stored = reopen(&barrier.keyring(), &root);
    for _ in 0..3 {
        barrier.seal_value(b"key", b"value").unwrap();
    }
    barrier.replace_keyring(stored).unwrap();
    assert_eq!(barrier.key_status().encryptions, 3, "an older count does not win");
    let ahead = reopen(&barrier.keyring(), &root);
    let restarted = Barrier::new(ahead, Arc::new(Seeded::new(3)));
    assert_eq!(restarted.key_status().encryptions, 3);
    restarted.seal_value(b"key", b"value").unwrap();
    barrier.replace_keyring(reopen(&restarted.keyring(), &root)).unwrap();
    assert_eq!(barrier.key_status().encryptions, 4, "a newer count does");
}

#[test]
fn rotation_settings_have_ranges_and_are_stored() {
    let root = RootKey::generate(&Seeded::new(2)).unwrap();
    let barrier = barrier(SUITES[0], 1);
    let day_ms = RotationConfig::INTERVAL_MS_MIN;
    let check = |max_operations: u64, interval_ms: u64, is_ok: bool| {
        let config = RotationConfig { max_operations, interval_ms, enabled: true };
        let changed = barrier.with_rotation_config(config);
        assert_eq!(changed.is_ok(), is_ok, "{config:?}");
        if let Ok(keyring) = changed {
            assert_eq!(reopen(&keyring, &root).rotation_config(), config);
            barrier.replace_keyring(keyring).unwrap();
            assert_eq!(barrier.rotation_config(), config);
        }
    };
    check(999_999, 0, false);
    check(3_865_470_567, 0, false);
    check(1_000_000, day_ms - 1, false);
    check(3_865_470_566, 0, true);
    check(1_000_000, day_ms, true);
    assert!(!barrier.needs_rotation());
    assert!(!barrier.needs_rotation_at(1_000 + day_ms - 1));
    assert!(barrier.needs_rotation_at(1_000 + day_ms));
    let off = RotationConfig { enabled: false, ..barrier.rotation_config() };
    barrier.replace_keyring(barrier.with_rotation_config(off).unwrap()).unwrap();
    assert!(!barrier.needs_rotation_at(u64::MAX));
}

#[test]
fn a_stored_keyring_opens_whole_and_under_its_root_key_only() {
    let (root, other) =
        (RootKey::generate(&Seeded::new(1)).unwrap(), RootKey::generate(&Seeded::new(2)).unwrap());
    assert!(!root.matches(&other) && root.matches(&RootKey::from_slice(root.expose()).unwrap()));
    let keyring = barrier(SUITES[0], 1).keyring();
    let sealed = keyring.seal(&root, &Seeded::new(3)).unwrap();
    assert!(matches!(Keyring::open(&other, &sealed), Err(BarrierError::Authentication)));
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(Keyring::open(&root, &changed).is_err(), "byte {at}");
        assert!(Keyring::open(&root, &sealed[..at]).is_err(), "cut at {at}");
    }
    let check = |at: usize, want: &BarrierError| {
        let mut changed = sealed.clone();
        changed[at] = 9;
        assert_eq!(Keyring::open(&root, &changed).err().as_ref(), Some(want));
    };
    check(0, &BarrierError::UnknownVersion(9));
    check(1, &BarrierError::UnknownSuite(9));
    assert!(matches!(keyring.seal(&root, &Broken), Err(BarrierError::Entropy(_))));
}

#[test]
fn debug_shows_no_key() {
    let root = RootKey::from_slice(&[0xab; 32]).unwrap();
    assert_eq!(format!("{root:?}"), "RootKey(redacted)");
    let shown = format!("{:?}", barrier(SUITES[0], 1));
    assert!(shown.starts_with("Barrier") && !shown.contains("key:") && shown.len() < 200, "{shown}");
}
