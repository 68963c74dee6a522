//! `arca-leases`, small: leases are granted, carried over the death of the active node, ended each at its time, and as many
//! revoked by prefix over another death. How late they end is for the tool to measure: a test machine may be slow, but not
//! wrong.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::Path;
use std::time::Duration;

use arca_harness::leases::{Plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn leases_end_in_time_and_by_prefix_over_failovers() {
    let plan = Plan {
        leases: 2_000,
        revoked: 8_000,
        window: Duration::from_secs(5),
        margin: Duration::from_secs(15),
        database_leases: 0,
        ..Plan::default()
    };
    let report = run(&plan, Path::new(env!("CARGO_BIN_EXE_arca")), &|text| println!("{text}")).await.unwrap();
    println!("{report}");
    assert_eq!(report.faults(), Vec::<String>::new());
    assert!(report.expiry.counted >= 1_000, "{} were counted", report.expiry.counted);
}
