//! What holds for keys of every type, over every route.

use arca_engine_api::Operation::{Create, Delete, Read, Update};
use serde_json::json;

use super::{data, make_key, rig};
use crate::secrets::transit::kind::Kind;

#[test]
fn a_derived_signing_key_shows_the_public_key_of_a_context() {
    let rig = rig();
    assert_eq!(
        make_key(&rig, "ed", &json!({"type": "ed25519", "derived": true}))["keys"]["1"]["public_key"],
        ""
    );
    let shown = data(&rig, Read, "keys/ed", &json!({"context": "YQ=="}));
    let signed = data(&rig, Update, "sign/ed", &json!({"context": "YQ==", "input": ""}));
    assert_eq!(shown["keys"]["1"]["public_key"], signed["public_key"]);
    assert_eq!(rig.say(Read, "keys/ed", &json!({"context": "!"})), "error: failed to base64-decode context");
}

/// CVE-2026-55776: an asymmetric key with `derived` took a path that killed the server.
#[test]
fn every_type_with_every_flag_is_made_or_refused() {
    let rig = rig();
    let flags = ["derived", "convergent_encryption", "exportable", "allow_plaintext_backup"];
    for kind in Kind::all() {
        for set in 0..1 << flags.len() {
            let mut settings =
                json!({"type": kind.name(), "key_size": if kind == Kind::Hmac { 32 } else { 0 }});
            for (at, flag) in flags.iter().enumerate() {
                settings[flag] = json!(set >> at & 1 == 1);
            }
            // RSA takes its time: once is enough for what its flags cannot change.
            if matches!(kind, Kind::Rsa(_)) && set & 3 == 0 && set != 0 {
                continue;
            }
            let name = format!("{}-{set}", kind.name());
            let (derived, convergent) = (set & 1 == 1, set & 2 == 2);
            let is_sound =
                (!derived || kind.derives()) && (!convergent || derived && matches!(kind, Kind::Aead(_)));
            let made = rig.call(Update, &format!("keys/{name}"), &settings);
            assert_eq!(made.is_ok(), is_sound, "{settings}");
            for (operation, path) in [
                (Create, "encrypt"),
                (Update, "decrypt"),
                (Update, "rewrap"),
                (Update, "datakey/plaintext"),
                (Update, "hmac"),
                (Update, "sign"),
                (Update, "verify"),
                (Read, "export/signing-key"),
                (Read, "export/encryption-key"),
                (Read, "export/public-key"),
                (Read, "backup"),
            ] {
                if !is_sound && operation == Create {
                    continue;
                }
                for data in [
                    json!({}),
                    json!({"plaintext": "aGk=", "ciphertext": "vault:v1:aGk=", "input": "aGk=", "signature": "vault:v1:aGk="}),
                    json!({"context": "YQ==", "input": "aGk=", "hmac": "vault:v1:aGk=", "associated_data": "YQ==", "plaintext": ""}),
                ] {
                    // An error of ours would say that an assumption broke.
                    let said = rig.say(operation, &format!("{path}/{name}"), &data);
                    assert!(!said.contains("internal error"), "{path}/{name} {data}: {said}");
                }
            }
            assert_eq!(rig.say(Read, "keys/nothing", &json!({})), "none", "the next request is served");
        }
    }
}

/// CVE-2022-25244: reading a configuration returned the key.
#[test]
fn no_read_shows_a_secret() {
    let rig = rig();
    for (name, settings) in [
        ("a", json!({})),
        ("e", json!({"type": "ed25519"})),
        ("h", json!({"type": "hmac", "key_size": 32})),
        ("p", json!({"type": "ecdsa-p256"})),
    ] {
        make_key(&rig, name, &settings);
    }
    // The rig's secrets are sevens.
    let secrets = ["BwcHBwcH", "0707070707"];
    let paths = ["keys/a", "keys/e", "keys/h", "keys/p", "cache-config", "config/keys", "wrapping_key"];
    for path in paths.into_iter().chain(["export/public-key/e", "export/public-key/p"]) {
        let said = rig.say(Read, path, &json!({}));
        assert!(
            !said.starts_with("error") && !secrets.iter().any(|secret| said.contains(secret)),
            "{path}: {said}"
        );
        assert!(!said.contains("PRIVATE"), "{path}: {said}");
    }
    for part in ["encryption-key", "signing-key", "hmac-key"] {
        for name in ["a", "e", "h", "p"] {
            let said = rig.say(Read, &format!("export/{part}/{name}"), &json!({}));
            assert_eq!(said, "error: private key material is not exportable");
        }
    }
}

#[test]
fn a_hidden_key_does_nothing_until_it_is_back() {
    let rig = rig();
    make_key(&rig, "p", &json!({"type": "ecdsa-p256", "exportable": true, "allow_plaintext_backup": true}));
    make_key(&rig, "a", &json!({"exportable": true}));
    for name in ["a", "p"] {
        assert_eq!(data(&rig, Delete, &format!("keys/{name}/soft-delete"), &json!({}))["soft_deleted"], true);
    }
    let again = rig.call(Delete, "keys/a/soft-delete", &json!({})).unwrap();
    assert_eq!(again.warnings, ["key was already marked as soft deleted"]);
    for (operation, path, data) in [
        (Update, "encrypt/a", json!({"plaintext": "aGk="})),
        (Update, "decrypt/a", json!({"ciphertext": "vault:v1:aGk="})),
        (Update, "rewrap/a", json!({"ciphertext": "vault:v1:aGk="})),
        (Update, "datakey/wrapped/a", json!({})),
        (Update, "hmac/a", json!({"input": "aGk="})),
        (Update, "sign/p", json!({"input": "aGk="})),
        (Update, "verify/p", json!({"input": "aGk=", "signature": "vault:v1:aGk="})),
        (Update, "verify/p", json!({"input": "aGk=", "hmac": "vault:v1:aGk="})),
        (Update, "keys/p/rotate", json!({})),
        (Update, "keys/p/csr", json!({})),
        (Read, "export/signing-key/p", json!({})),
        (Read, "backup/p", json!({})),
    ] {
        assert_eq!(rig.say(operation, path, &data), "error: refusing to use soft-deleted key", "{path}");
    }
    data(&rig, Update, "keys/a/soft-delete-restore", &json!({}));
    data(&rig, Update, "encrypt/a", &json!({"plaintext": "aGk="}));
}
