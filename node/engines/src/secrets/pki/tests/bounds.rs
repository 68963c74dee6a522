//! How long certificates hold.

use arca_engine_api::Operation::{Patch, Update};
use serde_json::{Value, json};

use super::{call, refused, rig_with_role, write};
use crate::testing::Rig;

/// The rig's clock when a test begins.
const NOW: u64 = 1_800_000_001;

#[track_caller]
fn lasts(rig: &Rig, data: Value) -> (u64, u64) {
    let mut data = data;
    data["common_name"] = json!("x.a.test");
    let made = write(rig, "issue/r", &data);
    (made["not_before"].as_u64().unwrap(), made["expiration"].as_u64().unwrap())
}

#[track_caller]
fn check(rig: &Rig, data: Value, want: &str) {
    let mut data = data;
    data["common_name"] = json!("x.a.test");
    let got = refused(rig, "issue/r", &data);
    assert!(got.contains(want), "{data}: {got}");
}

#[test]
fn lifetimes() {
    let rig = rig_with_role(&json!({"max_ttl": "10h"}));
    assert_eq!(lasts(&rig, json!({})), (NOW - 30, NOW + 3_600));
    assert_eq!(lasts(&rig, json!({"ttl": "90"})), (NOW - 30, NOW + 90));
    let long = rig.say(Update, "issue/r", &json!({"common_name": "x.a.test", "ttl": "11h"}));
    assert!(long.contains("TTL \"11h0m0s\" is longer than permitted maxTTL \"10h0m0s\""), "{long}");
    check(&rig, json!({"ttl": "1h", "not_after": "2027-01-16T00:00:00Z"}), "Either ttl or not_after");
    check(&rig, json!({"ttl": "-1h"}), "expected a duration");
    check(&rig, json!({"ttl": "99999999999999999999h"}), "expected a duration");
    check(&rig, json!({"ttl": i64::MAX}), "expected a duration");
    check(&rig, json!({"not_after": "x"}), "not_after is no moment");
    check(&rig, json!({"not_after": "2020-01-01T00:00:00Z"}), "end before it begins");
    check(&rig, json!({"not_before": "2027-01-20T00:00:00Z"}), "end before it begins");
    check(&rig, json!({"not_after": "9999-12-31T23:59:59Z"}), "beyond the expiration of the CA certificate");
}

#[test]
fn bounds_of_both_ends() {
    let rig = rig_with_role(&json!({}));
    let set = |data: Value| call(&rig, Patch, "roles/r", &data);
    let (after, before) = ("2027-01-15T10:00:00Z", "2027-01-15T07:59:55Z");
    assert_eq!(lasts(&rig, json!({"not_after": after, "not_before": before})), (NOW - 6, 1_800_007_200));
    set(json!({"not_after_bound": "forbid", "not_before_bound": "forbid"}));
    check(&rig, json!({"not_after": after}), "not_after_bound is set to forbid");
    check(&rig, json!({"not_before": before}), "not_before_bound is set to forbid");
    set(json!({"not_after_bound": "ttl-limited", "not_before_bound": "duration"}));
    check(&rig, json!({"not_after": after}), "beyond the TTL of 1h0m0s");
    assert_eq!(
        lasts(&rig, json!({"not_after": "2027-01-15T08:30:00Z", "not_before": before})).1,
        1_800_001_800
    );
    check(
        &rig,
        json!({"not_before": "2027-01-15T07:00:00Z"}),
        "older than the allowed not_before_duration of 30s",
    );
    set(json!({"not_after_bound": after}));
    check(&rig, json!({"ttl": "9h"}), "not_after_bound is set to 2027-01-15T10:00:00Z");
    set(json!({"not_after_bound": "permit", "not_after": after, "not_before_duration": "1m"}));
    assert_eq!(lasts(&rig, json!({})), (NOW - 60, 1_800_007_200));
}

#[test]
fn nobody_outlives_the_issuer_unless_it_says_so() {
    let rig = rig_with_role(&json!({"ttl": "760h"}));
    check(&rig, json!({}), "beyond the expiration of the CA certificate");
    let set =
        |behavior: &str| call(&rig, Patch, "issuer/default", &json!({"leaf_not_after_behavior": behavior}));
    set("truncate");
    assert_eq!(lasts(&rig, json!({})).1, NOW + 700 * 3_600);
    set("permit");
    assert_eq!(lasts(&rig, json!({})).1, NOW + 760 * 3_600);
    set("err");
    rig.advance(701 * 3_600);
    check(&rig, json!({"ttl": "1m"}), "beyond the expiration of the CA certificate");
    set("truncate");
    check(&rig, json!({"ttl": "1m"}), "end before it begins");
}
