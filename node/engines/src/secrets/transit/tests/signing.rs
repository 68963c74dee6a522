//! Signing, verifying, HMACs, random bytes and hashes.

use arca_engine_api::Operation::Update;
use serde_json::{Map, Value, json};

use super::{HASHES, rig};
use crate::secrets::transit::text;
use crate::testing::Rig;

fn make(rig: &Rig, name: &str, settings: &Value) {
    rig.call(Update, &format!("keys/{name}"), settings).unwrap();
}

#[track_caller]
fn data(rig: &Rig, path: &str, data: &Value) -> Map<String, Value> {
    rig.call(Update, path, data).unwrap_or_else(|err| panic!("{path} {data}: {err}")).data.unwrap()
}

fn merged(left: &Value, right: &Value) -> Value {
    let mut whole = left.as_object().unwrap().clone();
    whole.extend(right.as_object().unwrap().clone());
    Value::Object(whole)
}

/// Signs as `how` says, and verifies by the same and by other inputs.
#[track_caller]
fn check(rig: &Rig, name: &str, how: &Value) {
    let ask = merged(how, &json!({"input": "aGVsbG8="}));
    let made = data(rig, &format!("sign/{name}"), &ask);
    let verify = |change: Value| {
        let ask = merged(&merged(&ask, &json!({"signature": made["signature"]})), &change);
        rig.say(Update, &format!("verify/{name}"), &ask)
    };
    assert_eq!(verify(json!({})), r#"{"valid":true}"#, "{name} {how}");
    assert_eq!(verify(json!({"input": "aGVsbG9v"})), r#"{"valid":false}"#, "{name} {how}");
    let signature = made["signature"].as_str().unwrap();
    let cut = signature.len() - 8;
    let changed: String = signature
        .char_indices()
        .map(|(at, c)| if at == cut { if c == 'A' { 'B' } else { 'A' } } else { c })
        .collect();
    assert_ne!(verify(json!({ "signature": changed })), r#"{"valid":true}"#, "{name} {how}");
}

#[test]
fn ecdsa_signs_by_every_hash_in_both_forms() {
    let rig = rig();
    for name in ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521"] {
        make(&rig, name, &json!({ "type": name }));
        for hash in HASHES {
            for form in ["asn1", "jws"] {
                check(&rig, name, &json!({"hash_algorithm": hash, "marshaling_algorithm": form}));
            }
        }
    }
}

#[test]
fn rsa_signs_by_every_hash_and_padding() {
    let rig = rig();
    make(&rig, "r", &json!({"type": "rsa-2048"}));
    for hash in HASHES {
        check(&rig, &format!("r/{hash}"), &json!({"signature_algorithm": "pkcs1v15"}));
        for salt in [json!("auto"), json!("hash"), json!(1), json!("20")] {
            check(&rig, &format!("r/{hash}"), &json!({"signature_algorithm": "pss", "salt_length": salt}));
        }
    }
}

#[test]
fn a_salt_is_found_unless_its_length_is_said() {
    let rig = rig();
    make(&rig, "r", &json!({"type": "rsa-2048"}));
    let made = data(&rig, "sign/r", &json!({"input": "", "salt_length": 17}));
    let verify = |salt: Value| {
        rig.say(
            Update,
            "verify/r",
            &json!({"input": "", "signature": made["signature"], "salt_length": salt}),
        )
    };
    assert_eq!(verify(json!("auto")), r#"{"valid":true}"#);
    assert_eq!(verify(json!(17)), r#"{"valid":true}"#);
    assert_eq!(verify(json!(18)), r#"{"valid":false}"#);
    assert_eq!(verify(json!("hash")), r#"{"valid":false}"#);
    // 2048 bits have room for 222 bytes of salt beside SHA-256.
    assert_eq!(verify(json!(222)), r#"{"valid":false}"#);
    assert_eq!(verify(json!(223)), "error: requested salt length 223 is invalid");
    data(&rig, "sign/r", &json!({"input": "", "salt_length": 222}));
    for salt in [json!("223"), json!(i64::MAX)] {
        let said = rig.say(Update, "sign/r", &json!({"input": "", "salt_length": salt}));
        assert!(said.starts_with("error: requested salt length"), "{said}");
    }
}

#[test]
fn digests_are_signed_as_they_are() {
    let rig = rig();
    make(&rig, "r", &json!({"type": "rsa-2048"}));
    make(&rig, "p", &json!({"type": "ecdsa-p256"}));
    let digest = text::encode(&crate::secrets::transit::hashes::Hash::Sha256.digest(b"hello"));
    for name in ["r", "p"] {
        let made = data(&rig, &format!("sign/{name}"), &json!({"input": digest, "prehashed": true}));
        let ask = json!({"input": "aGVsbG8=", "signature": made["signature"]});
        assert_eq!(rig.say(Update, &format!("verify/{name}"), &ask), r#"{"valid":true}"#);
    }
    let bare = json!({"input": "aGVsbG8=", "hash_algorithm": "none", "prehashed": true, "signature_algorithm": "pkcs1v15"});
    let made = data(&rig, "sign/r", &bare);
    let ask = merged(&bare, &json!({"signature": made["signature"]}));
    assert_eq!(rig.say(Update, "verify/r", &ask), r#"{"valid":true}"#);
}

#[test]
fn a_context_has_a_signing_key_of_its_own() {
    let rig = rig();
    make(&rig, "ed", &json!({"type": "ed25519", "derived": true}));
    let by = |context: &str| data(&rig, "sign/ed", &json!({"input": "aGk=", "context": context}));
    assert_ne!(by("YQ==")["public_key"], by("Yg==")["public_key"]);
    let verify = |context: &str| {
        let ask = json!({"input": "aGk=", "context": context, "signature": by("YQ==")["signature"]});
        rig.say(Update, "verify/ed", &ask)
    };
    assert_eq!(
        (verify("YQ=="), verify("Yg==")),
        (r#"{"valid":true}"#.to_owned(), r#"{"valid":false}"#.to_owned())
    );
    assert_eq!(verify("!"), "error: failed to base64-decode context");
    let said =
        rig.say(Update, "sign/ed", &json!({"input": "aGk=", "context": "YQ==", "signature_context": "Yg=="}));
    assert_eq!(said, "error: signature_context is not supported");
    let list = json!({"batch_input": [{"input": "aGk=", "context": "YQ=="}, {"input": "aGk="}, {}]});
    let results = data(&rig, "sign/ed", &list)["batch_results"].clone();
    assert_eq!(results[0]["publickey"], by("YQ==")["public_key"]);
    assert!(
        results[1]["error"].as_str().unwrap().starts_with("missing 'context'")
            && results[1]["key_version"] == 0
    );
    assert_eq!(results[2], json!({"error": "missing input", "key_version": 0, "reference": ""}));
}

#[test]
fn signatures_that_are_none_are_refused_or_invalid() {
    let rig = rig();
    for (name, kind) in [("p", "ecdsa-p256"), ("e", "ed25519"), ("r", "rsa-2048")] {
        make(&rig, name, &json!({ "type": kind }));
        for form in ["asn1", "jws"] {
            for bytes in [0, 1, 31, 63, 64, 65, 132, 256, 257, 4_000] {
                for byte in [0, 1, 0x30, 0xff] {
                    let body = vec![byte; bytes];
                    let body = if form == "jws" { text::encode_url(&body) } else { text::encode(&body) };
                    let ask = json!({"input": "", "signature": format!("vault:v1:{body}"), "marshaling_algorithm": form});
                    let said = rig.say(Update, &format!("verify/{name}"), &ask);
                    let is_refused =
                        said == r#"{"valid":false}"# || said.starts_with("error: supplied signature");
                    assert!(is_refused, "{name} {form} {bytes} {byte}: {said}");
                }
            }
        }
    }
}

#[test]
fn ten_thousand_signatures_are_made_and_more_refused() {
    let rig = rig();
    make(&rig, "e", &json!({"type": "ed25519"}));
    let items = |count: usize| json!({ "batch_input": vec![json!({"input": ""}); count] });
    let made = data(&rig, "sign/e", &items(10_000));
    assert_eq!(made["batch_results"].as_array().unwrap().len(), 10_000);
    for path in ["sign/e", "verify/e"] {
        let said = rig.say(Update, path, &items(10_001));
        let want = "error: batch_input has 10001 items, at most 10000 are taken";
        let no_signature = "error: no batch_input elements have 'signature' or 'hmac'";
        assert_eq!(said, if path == "sign/e" { want } else { no_signature });
    }
}

#[test]
fn signatures_that_take_long_are_made_aside() {
    let rig = rig();
    for (kind, count, want) in [
        ("rsa-2048", 40, 3),
        ("rsa-2048", 1, 1),
        ("ecdsa-p521", 40, 3),
        ("ecdsa-p384", 1, 1),
        ("ecdsa-p256", 40, 3),
        ("ecdsa-p256", 1, 0),
        ("ed25519", 1, 0),
    ] {
        make(&rig, kind, &json!({ "type": kind }));
        let before = rig.computed();
        let items = json!({ "batch_input": vec![json!({"input": "aGk="}); count] });
        let made = data(&rig, &format!("sign/{kind}"), &items);
        assert_eq!(rig.computed() - before, want, "{kind} {count}");
        let before = rig.computed();
        let asked: Vec<Value> = made["batch_results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| json!({"input": "aGk=", "signature": item["signature"]}))
            .collect();
        let verified = data(&rig, &format!("verify/{kind}"), &json!({ "batch_input": asked }));
        assert_eq!(rig.computed() - before, want, "{kind} {count}");
        assert!(verified["batch_results"].as_array().unwrap().iter().all(|item| item["valid"] == true));
    }
}

#[test]
fn long_rsa_keys_take_fewer_items() {
    let rig = rig();
    make(&rig, "r", &json!({"type": "rsa-4096"}));
    let said = rig.say(Update, "sign/r", &json!({ "batch_input": vec![json!({"input": ""}); 2_001] }));
    assert_eq!(said, "error: batch_input has 2001 items, at most 2000 are taken");
}

#[test]
fn of_a_signature_and_an_hmac_the_signature_counts() {
    let rig = rig();
    make(&rig, "e", &json!({"type": "ed25519"}));
    let made = data(&rig, "sign/e", &json!({"input": "aGk="}));
    let both = |input: &str| json!({"input": input, "signature": made["signature"], "hmac": "x"});
    assert_eq!(rig.say(Update, "verify/e", &both("aGk=")), r#"{"valid":true}"#);
    assert_eq!(rig.say(Update, "verify/e", &both("")), r#"{"valid":false}"#);
    let many = data(&rig, "verify/e", &json!({"batch_input": [both("aGk=")]}));
    assert_eq!(many["batch_results"][0]["valid"], true);
}
