//! `arca-jepsen-check` as it is called: exit codes and what it says.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use arca_jepsen::history::ModelName;
use support::{Plan, make};

#[track_caller]
fn check(file: &Path, arguments: &[&str], code: i32, says: &str) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arca-jepsen-check"));
    let output = command.arg(file).args(arguments).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "{text}");
}

#[test]
fn exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { model: ModelName::Register, processes: 3, operations: 200, unknown: 5, lies: 0 };
    let write = |name: &str, plan: Plan| {
        let path = folder.path().join(name);
        make(plan, 7).write(File::create(&path).unwrap()).unwrap();
        path
    };
    let good = write("good", plan);
    check(&good, &[], 0, "valid: 200 operations on 1 keys");
    check(&write("bad", Plan { lies: 50, ..plan }), &[], 1, "no order explains more than");
    let edn = folder.path().join("edn");
    check(&good, &["--edn", edn.to_str().unwrap(), "--key", "register/1"], 0, "valid");
    assert!(fs::read_to_string(edn).unwrap().starts_with("{:type :invoke, :process "));

    let broken = folder.path().join("broken");
    fs::write(&broken, "{\"index\":0\n").unwrap();
    check(&broken, &[], 2, "broken: line 1: EOF while parsing");
    fs::write(&broken, "").unwrap();
    check(&broken, &[], 2, "unknown: 0 operations on 0 keys");
    check(&folder.path().join("none"), &[], 2, "none: No such file");
}

#[track_caller]
fn run(arguments: &[&str], code: i32, says: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_arca-jepsen")).args(arguments).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "{text}");
}

#[test]
fn runs_that_are_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().to_str().unwrap();
    run(&["faults"], 0, "and everything not synced is lost");
    run(&["faults"], 0, "database-restart the database ends");
    run(
        &["run", "--report", report, "--faults", "kill,fire"],
        2,
        "there is no fault \"fire\"; there are bitflip-log",
    );
    run(&["run", "--report", report, "--workload", "work"], 2, "possible values: all, counters");
    run(&["run", "--report", report, "--nodes", "4"], 2, "it is 3 or 5");
    run(&["promotion", "--report", report, "--clients", "1"], 2, "1 is not in 2..=100");
    run(&["promotion", "--report", report, "--faults", "database-cut"], 2, "has no database to be hit");
}
