//! HMACs, random bytes and hashes.

use arca_engine_api::Operation::Update;
use serde_json::{Map, Value, json};

use super::{HASHES, rig};
use crate::testing::Rig;

fn make(rig: &Rig, name: &str, settings: &Value) {
    rig.call(Update, &format!("keys/{name}"), settings).unwrap();
}

#[track_caller]
fn data(rig: &Rig, path: &str, data: &Value) -> Map<String, Value> {
    rig.call(Update, path, data).unwrap_or_else(|err| panic!("{path} {data}: {err}")).data.unwrap()
}

#[test]
fn hmacs_verify_by_the_version_that_made_them() {
    let rig = rig();
    for (name, settings) in [
        ("a", json!({})),
        ("p", json!({"type": "ecdsa-p256"})),
        ("h", json!({"type": "hmac", "key_size": 40})),
    ] {
        make(&rig, name, &settings);
        for hash in HASHES {
            let made = data(&rig, &format!("hmac/{name}/{hash}"), &json!({"input": "aGk="}));
            let verify = |input: &str, hash: &str| {
                let ask = json!({"input": input, "hmac": made["hmac"]});
                rig.say(Update, &format!("verify/{name}/{hash}"), &ask)
            };
            assert_eq!(verify("aGk=", hash), r#"{"valid":true}"#);
            assert_eq!(verify("aGkh", hash), r#"{"valid":false}"#);
            let other = if hash == "sha1" { "sha2-256" } else { "sha1" };
            assert_eq!(verify("aGk=", other), r#"{"valid":false}"#);
        }
    }
    rig.call(Update, "keys/a/rotate", &json!({})).unwrap();
    let old = data(&rig, "hmac/a", &json!({"input": "aGk=", "key_version": 1}));
    assert!(old["hmac"].as_str().unwrap().starts_with("vault:v1:"));
    rig.call(Update, "keys/a/config", &json!({"min_decryption_version": 2, "min_encryption_version": 2}))
        .unwrap();
    let too_old = "version is too old (disallowed by policy)";
    let said = rig.say(Update, "verify/a", &json!({"input": "aGk=", "hmac": old["hmac"]}));
    assert_eq!(said, format!("error: cannot verify HMAC: {too_old}"));
    let said = rig.say(Update, "hmac/a", &json!({"input": "aGk=", "key_version": 1}));
    assert_eq!(said, format!("error: cannot generate HMAC: {too_old}"));
}

#[test]
fn random_bytes_come_in_every_way_of_asking() {
    let rig = rig();
    for (path, ask, want) in [
        ("random", json!({"bytes": 2}), r#"{"random_bytes":"Bwc="}"#),
        ("random/2", json!({"format": "hex"}), r#"{"random_bytes":"0707"}"#),
        ("random/all/2", json!({"format": "hex"}), r#"{"random_bytes":"0707"}"#),
        ("random/platform", json!({"format": "hex", "bytes": 1}), r#"{"random_bytes":"07"}"#),
    ] {
        assert_eq!(rig.say(Update, path, &ask), want, "{path}");
    }
    let most = data(&rig, "random", &json!({"bytes": 131_072, "format": "hex"}));
    assert_eq!(most["random_bytes"].as_str().unwrap().len(), 262_144);
    let warned = rig.call(Update, "random/seal/1", &json!({})).unwrap();
    assert_eq!(warned.warnings, ["no seal/entropy augmentation available, using platform entropy source"]);
}

#[test]
fn hashes_are_the_known_ones() {
    let rig = rig();
    for (hash, start) in [
        ("sha2-224", "ea09ae9cc6768c50fcee903ed054556e"),
        ("sha2-256", "2cf24dba5fb0a30e26e83b2ac5b9e29e"),
        ("sha2-384", "59e1748777448c69de6b800d7a33bbfb"),
        ("sha2-512", "9b71d224bd62f3785d96d46ad3ea3d73"),
        ("sha3-224", "b87f88c72702fff1748e58b87e9141a4"),
        ("sha3-256", "3338be694f50c5f338814986cdf06864"),
        ("sha3-384", "720aea11019ef06440fbf05d87aa2468"),
        ("sha3-512", "75d527c368f2efe848ecf6b073a36767"),
    ] {
        let made = data(&rig, &format!("hash/{hash}"), &json!({"input": "aGVsbG8="}));
        assert!(made["sum"].as_str().unwrap().starts_with(start), "{hash} {made:?}");
    }
}
