//! Tidying.

use std::time::Duration;

use arca_engine_api::MountView;
use arca_engine_api::Operation::{List, Read, Update};
use futures::FutureExt as _;
use serde_json::{Value, json};

use super::{body, call, make, read, refused, rig_with_role, shared, write};
use crate::testing::Rig;

fn issue(rig: &Rig, ttl: &str) -> String {
    let made = write(rig, "issue/r", &json!({"common_name": "x.a.test", "ttl": ttl}));
    made["serial_number"].as_str().unwrap().to_owned()
}

fn serials(rig: &Rig, folder: &str) -> Vec<Value> {
    call(rig, List, folder, &json!({})).get("keys").and_then(Value::as_array).cloned().unwrap_or_default()
}

#[test]
fn what_ended_long_ago_goes() {
    let rig = rig_with_role(&json!({}));
    let (old, long) = (issue(&rig, "1h"), issue(&rig, "100h"));
    let (old_revoked, long_revoked) = (issue(&rig, "1h"), issue(&rig, "100h"));
    for serial in [&old_revoked, &long_revoked] {
        write(&rig, "revoke", &json!({"serial_number": serial}));
    }
    rig.advance(2 * 3_600);
    let all = json!({"tidy_cert_store": true, "tidy_revoked_certs": true, "safety_buffer": "2h"});
    write(&rig, "tidy", &all);
    assert_eq!(serials(&rig, "certs/").len(), 5);
    write(
        &rig,
        "tidy",
        &json!({"tidy_cert_store": true, "tidy_revoked_certs": true, "safety_buffer": "30m"}),
    );
    let status = read(&rig, "tidy-status");
    assert_eq!(
        (&status["state"], &status["cert_store_deleted_count"], &status["revoked_cert_deleted_count"]),
        (&json!("Finished"), &json!(1), &json!(1))
    );
    let left = serials(&rig, "certs/");
    assert!(!left.contains(&json!(old)) && !left.contains(&json!(old_revoked)), "{left:?}");
    assert!(left.contains(&json!(long)) && left.contains(&json!(long_revoked)), "{left:?}");
    assert_eq!(serials(&rig, "certs/revoked/"), vec![json!(long_revoked)]);
    let crl = read(&rig, "cert/crl")["certificate"].as_str().unwrap().to_owned();
    let raw = crate::crypto::der::first_pem(&crl).unwrap().1;
    let has = |serial: &str| {
        let digits = crate::secrets::pki::store::serial_in(serial).unwrap();
        raw.windows(digits.len()).any(|part| part == digits)
    };
    assert!(has(&long_revoked) && !has(&old_revoked));
}

#[test]
fn a_long_store_is_tidied_step_by_step() {
    let rig = rig_with_role(&json!({}));
    for _ in 0..9 {
        issue(&rig, "1h");
    }
    rig.advance(80 * 3_600);
    write(&rig, "tidy", &json!({"tidy_cert_store": true, "page_size": 4}));
    let status = read(&rig, "tidy-status");
    assert_eq!((&status["state"], &status["cert_store_deleted_count"]), (&json!("Running"), &json!(3)));
    let said = rig.call(Update, "tidy", &json!({"tidy_cert_store": true})).unwrap().raw.unwrap();
    assert!(String::from_utf8(said.body).unwrap().contains("already in progress") && said.status == 202);
    rig.tick();
    rig.tick();
    let status = read(&rig, "tidy-status");
    assert_eq!((&status["state"], &status["cert_store_deleted_count"]), (&json!("Finished"), &json!(9)));
    assert_eq!(serials(&rig, "certs/").len(), 1);
    assert!(rig.say(Update, "tidy-cancel", &json!({})).contains("none is currently running"));
}

#[test]
fn a_run_is_stopped() {
    let rig = rig_with_role(&json!({}));
    for _ in 0..9 {
        issue(&rig, "1h");
    }
    rig.advance(80 * 3_600);
    write(&rig, "tidy", &json!({"tidy_cert_store": true, "page_size": 4}));
    assert_eq!(write(&rig, "tidy-cancel", &json!({}))["state"], "Cancelled");
    rig.tick();
    assert_eq!(serials(&rig, "certs/").len(), 7);
}

/// A step behind a tick, by an engine that knows nothing but what is stored.
fn go_on(rig: &Rig) -> Option<Duration> {
    let engine = make(&MountView::default()).unwrap();
    rig.with_ctx(|ctx| engine.go_on(ctx).now_or_never().unwrap().unwrap())
}

/// A mount with a thousand certificates that ended, and tidying begun.
fn rig_with_much_to_tidy() -> Rig {
    let rig = rig_with_role(&json!({}));
    issue(&rig, "1h");
    let key = rig.stored().into_iter().rfind(|key| key.starts_with("cert/")).unwrap();
    let one = rig.with_ctx(|ctx| ctx.storage.get(&key).unwrap().unwrap());
    for at in 0..1_000 {
        rig.plant(&format!("cert/ff{at:038x}"), &one);
    }
    assert_eq!(go_on(&rig), None);
    rig.advance(800 * 3_600);
    let asked = json!({"tidy_cert_store": true, "page_size": 20, "pause_duration": "7s"});
    write(&rig, "tidy", &asked);
    rig
}

#[test]
fn a_run_goes_on_behind_a_tick_until_it_is_over() {
    let rig = rig_with_much_to_tidy();
    rig.tick();
    let mut steps = 2;
    while let Some(pause) = go_on(&rig) {
        steps += 1;
        assert_eq!(pause, Duration::from_secs(7));
        let status = read(&rig, "tidy-status");
        assert_eq!(status["state"], "Running");
        assert_eq!(status["cert_store_deleted_count"], steps * 20);
    }
    assert_eq!(steps, 50);
    let status = read(&rig, "tidy-status");
    // The root's and the one that was issued, too.
    assert_eq!((&status["state"], &status["cert_store_deleted_count"]), (&json!("Finished"), &json!(1_002)));
    assert_eq!((serials(&rig, "certs/").len(), go_on(&rig)), (0, None));
}

#[test]
fn a_run_is_stopped_between_two_steps() {
    let rig = rig_with_much_to_tidy();
    assert!(go_on(&rig).is_some());
    assert_eq!(write(&rig, "tidy-cancel", &json!({}))["state"], "Cancelled");
    assert_eq!(go_on(&rig), None);
    let status = read(&rig, "tidy-status");
    assert_eq!((&status["state"], &status["cert_store_deleted_count"]), (&json!("Cancelled"), &json!(40)));
}

#[test]
fn tidying_by_itself() {
    let rig = rig_with_role(&json!({}));
    assert_eq!(read(&rig, "config/auto-tidy")["enabled"], false);
    let got = refused(&rig, "config/auto-tidy", &json!({"enabled": true}));
    assert!(got.contains("no tidy operations were requested"), "{got}");
    for bad in [json!({"safety_buffer": 0}), json!({"interval_duration": 0}), json!({"page_size": 0})] {
        refused(&rig, "config/auto-tidy", &bad);
    }
    let settings =
        json!({"enabled": true, "tidy_cert_store": true, "interval_duration": "1h", "safety_buffer": "1h"});
    write(&rig, "config/auto-tidy", &settings);
    issue(&rig, "1h");
    rig.tick();
    assert_eq!(read(&rig, "tidy-status")["cert_store_deleted_count"], 0);
    rig.advance(3 * 3_600);
    rig.tick();
    assert_eq!(read(&rig, "tidy-status")["cert_store_deleted_count"], 1);
    rig.tick();
    assert_eq!(read(&rig, "tidy-status")["cert_store_deleted_count"], 1);
}

/// A mount with an issuer that ended, beside its root.
fn rig_with_an_old_issuer() -> Rig {
    let rig = rig_with_role(&json!({}));
    write(&rig, "root/generate/internal", &json!({"common_name": "Short", "key_type": "ec", "ttl": "1h"}));
    rig.advance(10 * 3_600);
    rig
}

fn lists(rig: &Rig) -> usize {
    rig.stored().iter().filter(|key| key.starts_with("crl/")).count()
}

#[test]
fn issuers_that_ended_go() {
    let rig = rig_with_an_old_issuer();
    write(&rig, "tidy", &json!({"tidy_expired_issuers": true, "issuer_safety_buffer": "1h"}));
    rig.tick();
    assert_eq!((serials(&rig, "issuers/").len(), lists(&rig)), (1, 2));
    rig.tick();
    assert_eq!(lists(&rig), 1);
    let said = rig.call(Update, "tidy", &json!({})).unwrap().raw.unwrap();
    assert!(String::from_utf8(said.body).unwrap().contains("no tidy operations were set"));
    assert_eq!(call(&rig, Read, "tidy-status", &json!({}))["state"], "Finished");
}

/// A performance secondary keeps what is local of a tick, and runs a request only if nothing of it is shared.
#[test]
fn of_a_shared_mount_each_cluster_tidies_its_own() {
    let rig = rig_with_an_old_issuer();
    let (old, before) = (issue(&rig, "1h"), shared(&rig));
    rig.advance(10 * 3_600);
    let all = json!({
        "tidy_cert_store": true, "tidy_revoked_certs": true, "safety_buffer": "1h",
        "tidy_expired_issuers": true, "issuer_safety_buffer": "1h",
    });
    write(&rig, "tidy", &all);
    assert_eq!(shared(&rig), before, "the request runs where it was made");
    assert!(!serials(&rig, "certs/").contains(&json!(old)));
    let crl = body(&rig, "crl");
    for state in ["Running", "Finished"] {
        rig.tick();
        assert_eq!(read(&rig, "tidy-status")["state"], state);
        for (key, value) in &before {
            rig.plant(key, value);
        }
    }
    assert_eq!((serials(&rig, "issuers/").len(), lists(&rig)), (2, 2));
    assert_eq!(body(&rig, "crl"), crl);
}
