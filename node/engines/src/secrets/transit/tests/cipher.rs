//! Encrypting, decrypting, rewrapping, data keys.

use arca_engine_api::Operation::{Create, Read, Update};
use serde_json::{Map, Value, json};

use super::rig;
use crate::secrets::transit::text;
use crate::testing::Rig;

fn make(rig: &Rig, name: &str, settings: &Value) {
    rig.call(Update, &format!("keys/{name}"), settings).unwrap();
}

#[track_caller]
fn data(rig: &Rig, path: &str, data: &Value) -> Map<String, Value> {
    rig.call(Update, path, data).unwrap_or_else(|err| panic!("{path}: {err}")).data.unwrap()
}

/// Status and data of an answer that has a status of its own.
fn with_status(rig: &Rig, path: &str, data: &Value) -> (u16, Value, Vec<String>) {
    let response = rig.call(Update, path, data).unwrap();
    let status = response.status.expect("a status of its own");
    (status, Value::Object(response.data.unwrap()), response.warnings)
}

#[test]
fn encrypting_makes_a_key_for_those_who_may_create_one() {
    let rig = rig();
    assert_eq!((rig.exists("encrypt/a"), rig.exists("decrypt/a")), (Some(false), None));
    let said = rig.say(Update, "encrypt/a", &json!({"plaintext": "aGk="}));
    assert_eq!(said, "error: encryption key not found");
    let want = r#"{"ciphertext":"vault:v1:BwcHBwcHBwcHBwcHdLkQPNBZ5ZyPRHjHxG1VgUdT","key_version":1}"#;
    assert_eq!(rig.say(Create, "encrypt/a", &json!({"plaintext": "aGk="})).len(), want.len());
    assert_eq!(rig.exists("encrypt/a"), Some(true));
    rig.call(
        Create,
        "encrypt/b",
        &json!({"plaintext": "aGk=", "context": "YQ==", "convergent_encryption": true}),
    )
    .unwrap();
    let shown = rig.call(Read, "keys/b", &json!({})).unwrap().data.unwrap();
    assert_eq!((&shown["derived"], &shown["convergent_encryption"]), (&json!(true), &json!(true)));
    for (kind, want) in [
        ("xchacha20-poly1305", None),
        ("ecdsa-p256", Some("error: key type ecdsa-p256 not supported for this operation")),
        ("rot13", Some("error: unknown key type")),
    ] {
        let said = rig.say(Create, &format!("encrypt/{kind}"), &json!({"plaintext": "", "type": kind}));
        assert_eq!(want.unwrap_or(&said), said, "{kind}");
    }
}

/// CVE-2023-4680: a caller could choose the nonce of a key that is not convergent.
#[test]
fn nobody_chooses_a_nonce() {
    let rig = rig();
    make(&rig, "plain", &json!({}));
    make(&rig, "derived", &json!({"derived": true}));
    make(&rig, "convergent", &json!({"derived": true, "convergent_encryption": true}));
    for name in ["plain", "derived", "convergent"] {
        let ask = json!({"plaintext": "aGk=", "context": "YQ==", "nonce": "AAAAAAAAAAAAAAAA"});
        let refused = "nonce provided when not allowed";
        let path = format!("encrypt/{name}");
        assert_eq!(rig.say(Update, &path, &ask), format!("error: {refused}"), "{name}");
        let said =
            rig.say(Update, &path, &json!({"batch_input": [{"plaintext": "", "context": "YQ=="}, ask]}));
        assert!(said.ends_with(refused), "{name}: {said}");
        let made = data(&rig, &path, &json!({"plaintext": "aGk=", "context": "YQ==", "nonce": ""}));
        let path = format!("datakey/plaintext/{name}");
        assert_eq!(rig.say(Update, &path, &ask), format!("error: {refused}"), "{name}");
        // What is decrypted brings its own.
        let ask = json!({"ciphertext": made["ciphertext"], "context": "YQ==", "nonce": "AAAAAAAAAAAAAAAA"});
        assert_eq!(data(&rig, &format!("decrypt/{name}"), &ask)["plaintext"], "aGk=");
        data(&rig, &format!("rewrap/{name}"), &ask);
    }
}

/// Vault 0.10.2: nonces made of the plaintext and the context alone let anybody confirm a guess.
#[test]
fn convergent_nonces_need_a_secret() {
    let rig = rig();
    let ask = json!({"plaintext": "aGVsbG8=", "context": "YQ=="});
    let nonce = |name: &str| {
        let made = data(&rig, &format!("encrypt/{name}"), &ask);
        made["ciphertext"].as_str().unwrap().split(':').nth(2).unwrap()[..16].to_owned()
    };
    let settings = json!({"derived": true, "convergent_encryption": true});
    make(&rig, "one", &settings);
    make(&rig, "same", &settings);
    make(&rig, "other", &json!({"derived": true, "convergent_encryption": true, "type": "aes128-gcm96"}));
    // The rig's random source gives both the same secret; the other has one of another length.
    assert_eq!((nonce("one"), nonce("one")), (nonce("same"), nonce("one")));
    assert_ne!(nonce("one"), nonce("other"));
}

/// One nonce with two sets of associated data gives away the key that authenticates.
#[test]
fn convergent_nonces_depend_on_associated_data() {
    let rig = rig();
    for (kind, nonce_len, want) in [
        ("aes128-gcm96", 12, "ISOslndXYPgUYewZ"),
        ("aes256-gcm96", 12, "3m1a0oWTt/ncCt3P"),
        ("chacha20-poly1305", 12, "3m1a0oWTt/ncCt3P"),
        ("xchacha20-poly1305", 24, "3m1a0oWTt/ncCt3PJ+NVdJPb351Hv4PO"),
    ] {
        make(&rig, kind, &json!({"derived": true, "convergent_encryption": true, "type": kind}));
        let sealed = |plaintext: &str, aad: &str| {
            let ask = json!({"plaintext": plaintext, "context": "YQ==", "associated_data": aad});
            let made = data(&rig, &format!("encrypt/{kind}"), &ask);
            let ask = json!({"ciphertext": made["ciphertext"], "context": "YQ==", "associated_data": aad});
            assert_eq!(data(&rig, &format!("decrypt/{kind}"), &ask)["plaintext"], plaintext);
            made["ciphertext"].as_str().unwrap().to_owned()
        };
        let nonce = |plaintext: &str, aad: &str| {
            let body = text::decode(sealed(plaintext, aad).strip_prefix("vault:v1:").unwrap()).unwrap();
            body[..nonce_len].to_vec()
        };
        assert_eq!(sealed("aGk=", "YQ=="), sealed("aGk=", "YQ=="), "{kind}");
        assert_eq!(text::encode(&nonce("aGk=", "YQ==")), want, "{kind}");
        // Without any, as OpenBao makes it; "a" and "hi" behind the length of "a"; the same bytes cut elsewhere.
        let together = text::encode(b"\0\0\0\0\0\0\0\x01ahi");
        let nonces = [
            nonce("aGk=", ""),
            nonce("aGk=", "YQ=="),
            nonce("aGk=", "Yg=="),
            nonce(&together, ""),
            nonce("aQ==", "YWg="),
        ];
        let different: std::collections::BTreeSet<_> = nonces.iter().collect();
        assert_eq!(different.len(), nonces.len(), "{kind}");
    }
}

#[test]
fn contexts_and_associated_data_must_be_the_same() {
    let rig = rig();
    make(&rig, "k", &json!({"derived": true, "type": "chacha20-poly1305"}));
    let made =
        data(&rig, "encrypt/k", &json!({"plaintext": "aGk=", "context": "YQ==", "associated_data": "Yg=="}));
    let ciphertext = &made["ciphertext"];
    let check = |context: &str, aad: &str, want: &str| {
        let ask = json!({"ciphertext": ciphertext, "context": context, "associated_data": aad});
        assert_eq!(rig.say(Update, "decrypt/k", &ask), want, "{context} {aad}");
    };
    check("YQ==", "Yg==", r#"{"plaintext":"aGk="}"#);
    let forged = "error: cipher: message authentication failed";
    check("Yg==", "Yg==", forged);
    check("YQ==", "YQ==", forged);
    check("YQ==", "", forged);
    check("YQ==", "!", "error: unable to decode associated_data as base64");
    check("!", "Yg==", "error: illegal base64 data at input byte 0");
    let again = data(
        &rig,
        "rewrap/k",
        &json!({"ciphertext": ciphertext, "context": "YQ==", "associated_data": "Yg=="}),
    );
    let ask = json!({"ciphertext": again["ciphertext"], "context": "YQ==", "associated_data": "Yg=="});
    assert_eq!(rig.say(Update, "decrypt/k", &ask), r#"{"plaintext":"aGk="}"#);
}

#[test]
fn rewrapping_moves_to_the_latest_version() {
    let rig = rig();
    make(&rig, "k", &json!({}));
    let old = data(&rig, "encrypt/k", &json!({"plaintext": "aGk="}));
    rig.call(Update, "keys/k/rotate", &json!({})).unwrap();
    let new = data(&rig, "rewrap/k", &json!({"ciphertext": old["ciphertext"]}));
    assert!(new["key_version"] == 2 && new["ciphertext"].as_str().unwrap().starts_with("vault:v2:"));
    let back = data(&rig, "rewrap/k", &json!({"ciphertext": new["ciphertext"], "key_version": 1}));
    assert_eq!(back["key_version"], 1);
    let list = json!({"batch_input": [{"ciphertext": old["ciphertext"], "reference": "one"}, {"ciphertext": "x"}, {}]});
    let many = data(&rig, "rewrap/k", &list);
    assert_eq!(many["batch_results"][0]["reference"], "one");
    assert_eq!(many["batch_results"][1], json!({"error": "invalid ciphertext: no prefix", "reference": ""}));
    assert_eq!(many["batch_results"][2], json!({"error": "missing ciphertext to decrypt", "reference": ""}));
}

#[test]
fn items_fail_one_by_one() {
    let rig = rig();
    make(&rig, "k", &json!({}));
    let list = |more: Value| {
        let mut ask = json!({"batch_input": [{"plaintext": "aGk=", "reference": 7}, {"plaintext": "!"}, {"plaintext": "", "key_version": 9}]});
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask
    };
    let (status, data, warnings) = with_status(&rig, "encrypt/k", &list(json!({})));
    let results = &data["batch_results"];
    assert_eq!((status, warnings), (400, Vec::new()));
    assert!(results[0]["ciphertext"].is_string() && results[0]["reference"] == "7");
    assert_eq!(results[1], json!({"error": "illegal base64 data at input byte 0", "reference": ""}));
    assert_eq!(results[2]["error"], "requested version for encryption is higher than the latest key version");
    assert_eq!(with_status(&rig, "encrypt/k", &list(json!({"partial_failure_response_code": 207}))).0, 207);
    for code in [json!(0), json!(-1), json!(99), json!(999), json!(1_u64 << 40)] {
        let ask = list(json!({"partial_failure_response_code": code}));
        let (status, _, warnings) = with_status(&rig, "encrypt/k", &ask);
        let warning =
            "invalid HTTP response code override from partial_failure_response_code, reverting to 400";
        assert_eq!((status, warnings), (400, vec![warning.to_owned()]), "{code}");
    }
    let all_bad = json!({"batch_input": [{"ciphertext": ""}], "partial_failure_response_code": 200});
    let (status, data, _) = with_status(&rig, "decrypt/k", &all_bad);
    let want = json!({"error": "missing ciphertext to decrypt", "plaintext": "", "reference": ""});
    assert_eq!((status, &data["batch_results"][0]), (400, &want));
}

#[test]
fn ten_thousand_items_are_served_and_too_many_refused() {
    let rig = rig();
    make(&rig, "k", &json!({}));
    let items = |count: usize, item: Value| json!({ "batch_input": vec![item; count] });
    let made = data(&rig, "encrypt/k", &items(10_000, json!({"plaintext": "aGk="})));
    let back = data(&rig, "decrypt/k", &json!({ "batch_input": made["batch_results"] }));
    let plaintexts = back["batch_results"].as_array().unwrap();
    assert_eq!(plaintexts.len(), 10_000);
    assert!(plaintexts.iter().all(|item| item["plaintext"] == "aGk="));
    let said = rig.say(Update, "encrypt/k", &items(100_001, json!({"plaintext": ""})));
    assert_eq!(said, "error: batch_input has 100001 items, at most 100000 are taken");
}

#[test]
fn every_byte_of_a_ciphertext_counts() {
    let rig = rig();
    for kind in ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"] {
        make(&rig, kind, &json!({ "type": kind }));
        let made = data(&rig, &format!("encrypt/{kind}"), &json!({"plaintext": "aGk="}));
        let body = made["ciphertext"].as_str().unwrap().strip_prefix("vault:v1:").unwrap();
        let sealed = crate::secrets::transit::text::decode(body).unwrap();
        for at in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[at] ^= 1;
            let ciphertext = format!("vault:v1:{}", crate::secrets::transit::text::encode(&damaged));
            let said = rig.say(Update, &format!("decrypt/{kind}"), &json!({ "ciphertext": ciphertext }));
            assert_eq!(said, "error: cipher: message authentication failed", "{kind} {at}");
        }
        for len in 0..sealed.len() {
            let ciphertext = format!("vault:v1:{}", crate::secrets::transit::text::encode(&sealed[..len]));
            let said = rig.say(Update, &format!("decrypt/{kind}"), &json!({ "ciphertext": ciphertext }));
            assert!(said.starts_with("error: "), "{kind} {len}: {said}");
        }
    }
}

#[test]
fn data_keys_are_what_decrypts() {
    let rig = rig();
    make(&rig, "k", &json!({}));
    for (bits, len) in [(json!(256), 32), (json!(128), 16), (json!("256"), 32), (json!(512), 64)] {
        let made = data(&rig, "datakey/plaintext/k", &json!({ "bits": bits }));
        let secret = made["plaintext"].as_str().unwrap();
        assert_eq!(crate::secrets::transit::text::decode(secret).unwrap().len(), len);
        let back = data(&rig, "decrypt/k", &json!({"ciphertext": made["ciphertext"]}));
        assert_eq!(back["plaintext"], secret);
        let wrapped = data(&rig, "datakey/wrapped/k", &json!({ "bits": bits }));
        assert_eq!((wrapped.get("plaintext"), &wrapped["key_version"]), (None, &json!(1)));
    }
}

#[test]
fn minimum_versions_are_kept_and_trimming_is_for_good() {
    let rig = rig();
    make(&rig, "a", &json!({}));
    for _ in 0..3 {
        data(&rig, "keys/a/rotate", &json!({}));
    }
    let by = |version: u32| data(&rig, "encrypt/a", &json!({"plaintext": "aGk=", "key_version": version}));
    let (first, third) = (by(1)["ciphertext"].clone(), by(3)["ciphertext"].clone());
    let shown = data(&rig, "keys/a/config", &json!({"min_decryption_version": 3}));
    assert_eq!(shown["keys"], json!({"3": 1, "4": 1}));
    let too_old = "error: ciphertext or signature version is disallowed by policy (too old)";
    assert_eq!(rig.say(Update, "decrypt/a", &json!({"ciphertext": first})), too_old);
    assert_eq!(rig.say(Update, "decrypt/a", &json!({"ciphertext": third})), r#"{"plaintext":"aGk="}"#);
    let said = rig.say(Update, "encrypt/a", &json!({"plaintext": "aGk=", "key_version": 2}));
    assert_eq!(said, "error: no such key version");
    // Taken back, old versions decrypt again: nothing was removed.
    data(&rig, "keys/a/config", &json!({"min_decryption_version": 1}));
    assert_eq!(rig.say(Update, "decrypt/a", &json!({"ciphertext": first})), r#"{"plaintext":"aGk="}"#);
    data(&rig, "keys/a/config", &json!({"min_decryption_version": 3, "min_encryption_version": 3}));
    for (version, why) in [
        (0, "should be positive"),
        (4, "cannot be greater than minmum encryption version"),
        (1_i64 << 40, "cannot be greater than minmum encryption version"),
        (-1, "cannot be decremented"),
    ] {
        let said = rig.say(Update, "keys/a/trim", &json!({"min_available_version": version}));
        assert_eq!(said, format!("error: minimum available version {why}"), "{version}");
    }
    data(&rig, "keys/a/trim", &json!({"min_available_version": 3}));
    assert_eq!(rig.stored(), ["key/a", "version/a/3", "version/a/4"]);
    let said = rig.say(Update, "keys/a/trim", &json!({"min_available_version": 2}));
    assert_eq!(said, "error: minimum available version cannot be decremented");
    let said =
        rig.say(Update, "keys/a/config", &json!({"min_decryption_version": 2, "min_encryption_version": 3}));
    assert_eq!(said, "error: min decryption version should not be less then min available version");
    let said = rig.say(Update, "keys/a/config", &json!({"min_encryption_version": 0}));
    assert_eq!(said, "error: min encryption version should not be less than min available version");
}

#[test]
fn a_key_is_made_only_if_something_is_encrypted_by_it() {
    let rig = rig();
    let items = |texts: [&str; 2]| json!({ "batch_input": texts.map(|text| json!({ "plaintext": text })) });
    let response = rig.call(Create, "encrypt/k", &items(["!", "!!"])).unwrap();
    assert_eq!((response.status, rig.stored()), (Some(400), Vec::new()));
    let response = rig.call(Create, "encrypt/k", &items(["!", "aGk="])).unwrap();
    let results = &response.data.unwrap()["batch_results"];
    assert_eq!(
        (response.status, rig.stored()),
        (Some(400), vec!["key/k".to_owned(), "version/k/1".to_owned()])
    );
    let back = rig.say(Update, "decrypt/k", &json!({"ciphertext": results[1]["ciphertext"]}));
    assert_eq!(back, r#"{"plaintext":"aGk="}"#);
}

#[test]
fn rsa_is_computed_aside_some_items_at_a_time() {
    let rig = rig();
    make(&rig, "r", &json!({"type": "rsa-2048"}));
    let count = |path: &str, asked: &Value| {
        let before = rig.computed();
        let made = data(&rig, path, asked);
        (rig.computed() - before, made["batch_results"].clone())
    };
    let (count_encrypt, made) =
        count("encrypt/r", &json!({ "batch_input": vec![json!({"plaintext": "aGk="}); 40] }));
    let (count_decrypt, plain) = count("decrypt/r", &json!({ "batch_input": made }));
    let (count_rewrap, _) = count("rewrap/r", &json!({ "batch_input": made }));
    assert_eq!((count_encrypt, count_decrypt, count_rewrap), (3, 3, 3));
    assert!(plain.as_array().unwrap().iter().all(|item| item["plaintext"] == "aGk="));
}

#[test]
fn settings_of_the_mount_are_kept() {
    let rig = rig();
    assert_eq!(rig.say(Read, "config/keys", &json!({})), r#"{"disable_upsert":false}"#);
    assert_eq!(
        rig.say(Update, "config/keys", &json!({"disable_upsert": true})),
        r#"{"disable_upsert":true}"#
    );
    let said = rig.say(Create, "encrypt/new", &json!({"plaintext": "aGk="}));
    assert_eq!(said, "error: encryption key not found");
    assert_eq!(rig.say(Read, "cache-config", &json!({})), r#"{"size":0}"#);
    assert_eq!(rig.say(Update, "cache-config", &json!({"size": "50"})), r#"{"size":50}"#);
    assert_eq!(rig.say(Read, "cache-config", &json!({})), r#"{"size":50}"#);
}
