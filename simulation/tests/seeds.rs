//! A few seeds through the program itself, as anybody runs it: they pass, the same one gives the same trace in every
//! process, and wrong orders are refused.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::process::{Command, Output};

fn simulation(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_arca-simulation")).args(arguments).output().unwrap()
}

#[track_caller]
fn check(arguments: &[&str], want: &str) {
    let output = simulation(arguments);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(want), "{said}");
}

#[test]
fn seeds_pass() {
    check(&["many", "--first", "1", "--seeds", "5", "--jobs", "2"], "0 of 5 seeds failed");
}

/// Disks so slow that the leader changes while the cluster is still being made.
#[test]
fn a_leader_may_change_while_the_cluster_is_made() {
    check(&["many", "--first", "692737189", "--seeds", "1"], "0 of 1 seeds failed");
    check(&["many", "--first", "693905137", "--seeds", "1"], "0 of 1 seeds failed");
}

/// A disk that is full when its member is started again, and a bit flipped beside what a power loss tore.
#[test]
fn disks_that_are_full_or_torn_are_no_failures() {
    check(&["many", "--first", "2530", "--seeds", "1"], "0 of 1 seeds failed");
    check(&["many", "--first", "1319", "--seeds", "1"], "0 of 1 seeds failed");
    check(&["many", "--first", "3413", "--seeds", "1"], "0 of 1 seeds failed");
}

#[test]
fn a_seed_gives_the_same_trace_in_every_process() {
    check(&["meta", "--first", "1", "--seeds", "3", "--jobs", "2"], "3 of 3 seeds gave the same trace twice");
}

/// Among them: a leader that is locked out by the copy it took in, and elections at a primary that was demoted.
#[test]
fn seeds_of_two_clusters_pass() {
    check(&["many", "--regions", "--first", "1", "--seeds", "3"], "0 of 3 seeds failed");
    check(&["many", "--regions", "--first", "15", "--seeds", "1"], "0 of 1 seeds failed");
}

#[test]
fn a_seed_of_two_clusters_gives_the_same_trace_in_every_process() {
    check(&["meta", "--regions", "--first", "1", "--seeds", "1"], "1 of 1 seeds gave the same trace twice");
}

#[test]
fn a_trace_can_be_written_and_wrong_orders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace");
    check(&["run", "1", "--trace", path.to_str().unwrap()], "seed 1: ");
    assert!(std::fs::read_to_string(path).unwrap().lines().count() > 1_000);
    let refused = simulation(&["run", "1", "--trace", "/nowhere/at/all"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).starts_with("arca-simulation: "));
    assert_eq!(simulation(&["run", "no number"]).status.code(), Some(2));
    // No seed at all would pass for nothing.
    assert_eq!(simulation(&["many", "--seeds", "0"]).status.code(), Some(2));
    assert_eq!(simulation(&["meta", "--seeds", "0"]).status.code(), Some(2));
}
