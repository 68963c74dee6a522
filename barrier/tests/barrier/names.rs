//! Names and time indexes against a model that keeps the paths in plain sight.

use std::collections::{BTreeMap, BTreeSet};

use arca_barrier::{
    Barrier, BarrierError, Class, PATH_SIZE_MAX, SEGMENT_SIZE_MAX, SEGMENTS_MAX, TimedIndex, boot_key,
};
use proptest::prelude::*;

use crate::testing::{SUITES, barrier};

const CLASSES: [Class; 3] = [Class::Replicated, Class::Local, Class::Node];

fn names() -> Barrier {
    barrier(SUITES[0], 7)
}

/// Few names, so that folders are shared and a leaf and a folder often have the same one.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{0,2}|[a-z]{15,17}|é+", 1..5).prop_map(|segments| segments.join("/"))
}

fn folder() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{0,2}", 0..3)
        .prop_map(|segments| segments.iter().map(|segment| format!("{segment}/")).collect())
}

/// What a listing does: seek over each folder's subtree.
fn list(barrier: &Barrier, store: &BTreeMap<Vec<u8>, String>, prefix: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let (mut from, end) = (prefix.to_vec(), Barrier::subtree_end(prefix));
    while let Some((key, _)) = store.range(from.clone()..end.clone()).next() {
        let child = barrier.open_child(prefix, key).unwrap();
        assert_eq!(child.name.ends_with('/'), child.subtree_end.is_some());
        found.push(child.name);
        let after = child.subtree_end.unwrap_or_else(|| [key.as_slice(), &[0]].concat());
        assert!(after > *key, "a listing must move on");
        from = after;
    }
    found
}

/// The same from plain paths.
fn list_model(paths: &BTreeSet<String>, prefix: &str) -> BTreeSet<String> {
    paths
        .iter()
        .filter_map(|path| path.strip_prefix(prefix))
        .map(|rest| rest.split_inclusive('/').next().unwrap_or_default().to_owned())
        .collect()
}

proptest! {
    #[test]
    fn names_round_trip_and_are_stable(path in ".{0,60}", class in 0_usize..3) {
        let (barrier, class) = (names(), CLASSES[class]);
        let key = barrier.seal_name(class, &path).unwrap();
        prop_assert_eq!(&key, &barrier.seal_name(class, &path).unwrap());
        prop_assert_eq!(&key, &names().seal_name(class, &path).unwrap());
        prop_assert_eq!(barrier.open_name(&key).unwrap(), (class, path));
    }

    #[test]
    fn listings_and_scans_agree_with_the_model(
        paths in prop::collection::btree_set(path(), 0..40), prefix in folder(), class in 0_usize..3,
    ) {
        let (barrier, class) = (names(), CLASSES[class]);
        let mut store = BTreeMap::new();
        for path in &paths {
            for class in CLASSES {
                store.insert(barrier.seal_name(class, path).unwrap(), path.clone());
                store.insert(barrier.seal_timed(class, TimedIndex::LeaseDeadline, 5, path).unwrap(), path.clone());
            }
        }
        let start = barrier.seal_name(class, &prefix).unwrap();

        let listed = list(&barrier, &store, &start);
        prop_assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), list_model(&paths, &prefix));
        prop_assert_eq!(listed.len(), list_model(&paths, &prefix).len(), "each name once");

        let scanned: BTreeSet<_> =
            store.range(start.clone()..Barrier::subtree_end(&start)).map(|(_, path)| path.clone()).collect();
        prop_assert_eq!(scanned, paths.iter().filter(|path| path.starts_with(&prefix)).cloned().collect());
        for (key, path) in &store {
            let is_below = key[0] == class as u8 && path.starts_with(&prefix) && key.get(1) != Some(&0xff);
            prop_assert!(!is_below || key.starts_with(&start), "a folder's key is a byte prefix");
        }
    }

    #[test]
    fn time_indexes_find_what_is_due(
        moments in prop::collection::vec(prop_oneof![0..20_u64, any::<u64>(), Just(u64::MAX)], 0..30),
        until in prop_oneof![0..20_u64, any::<u64>(), Just(u64::MAX)],
    ) {
        let barrier = names();
        let mut store = BTreeMap::new();
        for (number, moment) in moments.iter().enumerate() {
            let path = format!("lease/{number}");
            for class in CLASSES {
                let key = barrier.seal_timed(class, TimedIndex::LeaseDeadline, *moment, &path).unwrap();
                prop_assert_eq!(barrier.open_timed(&key).unwrap(), (*moment, path.clone()));
                store.insert(key, *moment);
            }
            store.insert(barrier.seal_name(Class::Local, &path).unwrap(), 0);
        }
        let (start, end) = Barrier::timed_range(Class::Local, TimedIndex::LeaseDeadline, until);
        let found: Vec<_> = store.range(start..end).map(|(_, moment)| *moment).collect();
        let mut want: Vec<_> = moments.iter().copied().filter(|moment| *moment <= until).collect();
        want.sort_unstable();
        prop_assert_eq!(found, want);
    }
}

#[test]
fn every_changed_byte_and_every_cut_is_refused() {
    let barrier = names();
    let name = barrier.seal_name(Class::Local, "a/longer segment/b").unwrap();
    let timed = barrier.seal_timed(Class::Local, TimedIndex::LeaseDeadline, 77, "a/b").unwrap();
    let root = barrier.seal_name(Class::Local, "").unwrap();
    for at in 0..name.len() {
        let mut changed = name.clone();
        changed[at] ^= 1;
        assert!(barrier.open_name(&changed).is_err(), "byte {at}");
        assert!(barrier.open_child(&root, &changed).is_err() || at > 34, "byte {at}, first segment");
    }
    for at in 0..timed.len() {
        let mut changed = timed.clone();
        changed[at] ^= 1;
        assert!(barrier.open_timed(&changed).is_err(), "byte {at}");
        assert!(barrier.open_timed(&timed[..at]).is_err(), "cut at {at}");
    }
    let folders =
        ["", "a/", "a/longer segment/"].map(|path| barrier.seal_name(Class::Local, path).unwrap().len());
    for at in 0..name.len() {
        // Cut between segments it is the folder's own key; anywhere else it is nothing.
        assert_eq!(barrier.open_name(&name[..at]).is_ok(), folders.contains(&at), "cut at {at}");
    }
}

#[test]
fn segments_cannot_be_moved_below_another_parent() {
    let barrier = names();
    let (ours, theirs) = (
        barrier.seal_name(Class::Local, "a/secret").unwrap(),
        barrier.seal_name(Class::Local, "b/secret").unwrap(),
    );
    let parent = barrier.seal_name(Class::Local, "a/").unwrap();
    let (head, tail) = (&parent, &theirs[parent.len()..]);
    assert_ne!(&ours[parent.len()..], tail, "equal names below different parents look different");
    let forged = [head.as_slice(), tail].concat();
    assert_eq!(barrier.open_name(&forged), Err(BarrierError::Authentication));
    assert_eq!(barrier.open_child(head, &forged), Err(BarrierError::Authentication));
    let mut other_class = ours;
    other_class[0] = Class::Replicated as u8;
    assert_eq!(barrier.open_name(&other_class), Err(BarrierError::Authentication));
}

#[test]
fn limits_are_reached_and_kept() {
    let barrier = names();
    let check = |path: String, want: Result<(), BarrierError>| {
        let sealed = barrier.seal_name(Class::Node, &path);
        assert_eq!(sealed.clone().map(|_| ()), want);
        if let Ok(key) = sealed {
            assert_eq!(barrier.open_name(&key).unwrap().1, path);
        }
    };
    let (limit, size) = (SEGMENT_SIZE_MAX, SEGMENT_SIZE_MAX + 1);
    check("x".repeat(limit), Ok(()));
    check(format!("{}/", "x".repeat(limit - 1)), Ok(()));
    check("x".repeat(size), Err(BarrierError::SegmentTooLong { size, limit }));
    check(format!("{}/a", "x".repeat(limit)), Err(BarrierError::SegmentTooLong { size, limit }));
    check("a/".repeat(SEGMENTS_MAX), Ok(()));
    check("/".repeat(SEGMENTS_MAX + 1), Err(BarrierError::PathTooDeep { limit: SEGMENTS_MAX }));
    let long = format!("{}/", "x".repeat(1023)).repeat(16);
    check(long.clone(), Ok(()));
    let too_long = BarrierError::PathTooLong { size: PATH_SIZE_MAX + 1, limit: PATH_SIZE_MAX };
    check(format!("{long}a"), Err(too_long.clone()));
    let timed = |path: &str| barrier.seal_timed(Class::Node, TimedIndex::LeaseDeadline, 1, path);
    assert_eq!(barrier.open_timed(&timed(&long).unwrap()).unwrap(), (1, long.clone()));
    assert_eq!(timed(&format!("{long}a")), Err(too_long));
}

#[test]
fn foreign_keys_are_refused() {
    let barrier = names();
    let timed = barrier.seal_timed(Class::Local, TimedIndex::LeaseDeadline, 1, "a").unwrap();
    let name = barrier.seal_name(Class::Local, "a").unwrap();
    assert!(matches!(barrier.open_name(&timed), Err(BarrierError::Malformed(_))));
    assert!(matches!(barrier.open_timed(&name), Err(BarrierError::Malformed(_))));
    assert_eq!(barrier.open_name(&boot_key("keyring")), Err(BarrierError::UnknownClass(0)));
    assert_eq!(barrier.open_name(&[4]), Err(BarrierError::UnknownClass(4)));
    assert_eq!(barrier.open_name(&[]), Err(BarrierError::Truncated));
    let mut unknown = timed;
    unknown[2] = 9;
    assert_eq!(barrier.open_timed(&unknown), Err(BarrierError::UnknownIndex(9)));
    let other = barrier.seal_name(Class::Local, "b/").unwrap();
    assert!(matches!(barrier.open_child(&other, &name), Err(BarrierError::Malformed(_))));
    assert_eq!(crate::testing::barrier(SUITES[0], 8).open_name(&name), Err(BarrierError::Authentication));
}
