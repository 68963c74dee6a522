//! The bytes at rest: never change them, add a layout.

use serde_json::{Value, json};

use super::{call, ec_key, read, rig_with_role, write};
use crate::secrets::pki::private_key::PrivateKey;
use crate::testing::Rig;

fn stored(rig: &Rig, prefix: &str) -> Vec<u8> {
    let key = rig.stored().into_iter().find(|key| key.starts_with(prefix)).unwrap();
    rig.with_ctx(|ctx| ctx.storage.get(&key).unwrap().unwrap().to_vec())
}

#[track_caller]
fn names(bytes: &[u8]) -> Vec<String> {
    let value: Value = serde_json::from_slice(bytes).unwrap();
    value.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn records_have_the_fields_they_had() {
    let rig = rig_with_role(&json!({}));
    let made = write(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    write(&rig, "revoke", &json!({"serial_number": made["serial_number"]}));
    write(&rig, "tidy", &json!({"tidy_cert_store": true}));
    let issuer = [
        "certificate",
        "chain",
        "id",
        "key_id",
        "layout",
        "leaf_not_after_behavior",
        "manual_chain",
        "name",
        "revocation_signature_algorithm",
        "revoked_at",
        "urls",
        "usage",
    ];
    assert_eq!(names(&stored(&rig, "issuer/")), issuer);
    assert_eq!(names(&stored(&rig, "key/")), ["id", "layout", "name", "spki"]);
    assert_eq!(
        names(&stored(&rig, "revoked/")),
        ["at", "certificate", "issuer_id", "layout", "not_after", "set"]
    );
    assert_eq!(names(&stored(&rig, "crl/")), ["complete", "delta", "layout", "next_part", "number", "parts"]);
    let run = [
        "after",
        "certificates_deleted",
        "finished_at",
        "is_automatic",
        "layout",
        "phase",
        "revocations_deleted",
        "settings",
        "started_at",
        "state",
        "without_issuer",
    ];
    assert_eq!(names(&stored(&rig, "tidy/run")), run);
    assert_eq!(names(&stored(&rig, "role/")).len(), 52);
    for prefix in ["issuer/", "key/", "role/", "revoked/", "crl/", "tidy/run"] {
        let record: Value = serde_json::from_slice(&stored(&rig, prefix)).unwrap();
        assert_eq!(record["layout"], 1, "{prefix}");
    }
    let part = stored(&rig, "crl-part/");
    let serial = crate::secrets::pki::store::serial_in(made["serial_number"].as_str().unwrap()).unwrap();
    let want = [&[1, 0x30, 0x25, 2, 0x14][..], &serial, b"\x17\x0d270115080001Z"].concat();
    assert_eq!(part, want);
    assert_eq!(stored(&rig, "cert/")[..2], [1, 0x30]);
    assert_eq!(stored(&rig, "key-secret/")[..2], [1, 0x30]);
}

#[test]
fn secrets_are_pkcs8_behind_a_byte() {
    let key = ec_key(5);
    let bytes = key.encode().unwrap();
    assert_eq!(bytes[0], 1);
    assert_eq!(PrivateKey::decode(&bytes).unwrap().spki().unwrap(), key.spki().unwrap());
    let mut other = bytes.to_vec();
    other[0] = 2;
    assert!(PrivateKey::decode(&other).is_none() && PrivateKey::decode(&[]).is_none());
}

/// A revoked issuer is remembered with its certificate. What was written before that is only the moment.
#[test]
fn revoked_issuers_are_remembered_in_two_forms() {
    for is_old in [false, true] {
        let rig = rig_with_role(&json!({}));
        let pem = read(&rig, "cert/ca")["certificate"].clone();
        write(&rig, "issuer/default/revoke", &json!({}));
        let key = rig.stored().into_iter().find(|key| key.starts_with("issuer-revoked/")).unwrap();
        assert_eq!(names(&stored(&rig, "issuer-revoked/")), ["at", "certificate", "layout"]);
        if is_old {
            rig.plant(&key, b"1800000001000");
        }
        call(&rig, arca_engine_api::Operation::Delete, "issuer/default", &json!({}));
        let back = write(&rig, "issuers/import/cert", &json!({"pem_bundle": pem}));
        let shown = read(&rig, &format!("issuer/{}", back["imported_issuers"][0].as_str().unwrap()));
        assert_eq!((&shown["revoked"], &shown["revocation_time"]), (&json!(true), &json!(1_800_000_001)));
        rig.tick();
        rig.plant(&key, br#"{"layout":2,"at":1800000000000,"certificate":""}"#);
        assert!(rig.with_ctx(|ctx| crate::secrets::pki::issuers::revoked(ctx).is_err()));
    }
}

/// What a later version wrote is refused, not guessed at.
#[test]
fn unknown_layouts_and_fields_are_refused() {
    for (prefix, path) in [("role/", "roles/r"), ("issuer/", "issuer/default"), ("key/", "key/default")] {
        for change in [json!({"layout": 2}), json!({"new": 1})] {
            let rig = rig_with_role(&json!({}));
            assert!(!read(&rig, path).is_empty());
            let key = rig.stored().into_iter().find(|key| key.starts_with(prefix)).unwrap();
            let mut record: Value = serde_json::from_slice(&stored(&rig, prefix)).unwrap();
            for (name, value) in change.as_object().unwrap() {
                record[name] = value.clone();
            }
            rig.with_ctx(|ctx| {
                ctx.storage.put(&key, zeroize::Zeroizing::new(record.to_string().into_bytes())).unwrap();
            });
            let said = rig.say(arca_engine_api::Operation::Read, path, &json!({}));
            assert!(said.starts_with("error: "), "{path} {change}: {said}");
        }
    }
}
