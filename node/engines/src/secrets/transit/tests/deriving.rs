//! Keys that two agree on.

use arca_engine_api::Operation::{Read, Update};
use serde_json::{Value, json};

use super::{Sevens, data, make_key, rig};
use crate::crypto::{Curve, der, ec};
use crate::secrets::transit::text;
use crate::testing::Rig;

fn pem(point: &[u8], curve: Curve) -> Value {
    json!(*der::pem("PUBLIC KEY", &ec::spki(curve, point)))
}

fn secret(rig: &Rig, name: &str) -> Value {
    rig.call(Update, &format!("keys/{name}/config"), &json!({"exportable": true})).unwrap();
    data(rig, Read, &format!("export/encryption-key/{name}"), &json!({}))["keys"].clone()
}

#[test]
fn both_sides_derive_one_key() {
    for kind in ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521"] {
        let (left, right) = (rig().with_counting_entropy(), rig());
        // The random sources begin alike.
        make_key(&left, "first", &json!({}));
        let public =
            |rig: &Rig| make_key(rig, "own", &json!({ "type": kind }))["keys"]["1"]["public_key"].clone();
        let (of_left, of_right) = (public(&left), public(&right));
        assert_ne!(of_left, of_right);
        for cipher in ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"] {
            let derive = |rig: &Rig, peer: &Value| {
                let ask =
                    json!({"base_key_name": "own", "peer_public_key": peer, "derived_key_type": cipher});
                assert_eq!(rig.say(Update, &format!("derive-key/{cipher}"), &ask), "none", "{kind} {cipher}");
                secret(rig, cipher)
            };
            assert_eq!(derive(&left, &of_right), derive(&right, &of_left), "{kind} {cipher}");
        }
        // What OpenBao 2.7.2 does with the result: HKDF, of which a shorter key is the beginning of a longer.
        let bytes = |name: &str| text::decode(secret(&left, name)["1"].as_str().unwrap()).unwrap().to_vec();
        assert_eq!(bytes("aes128-gcm96"), bytes("aes256-gcm96")[..16]);
    }
}

/// What OpenBao 2.7.2 derived of these.
#[test]
fn a_key_is_derived_as_openbao_does() {
    let shared = text::decode("v7f36oPbBkPV8uHbVXa0dRscTw7NYJ5N/2Ke2aN9iRg=").unwrap();
    let made = crate::secrets::transit::symmetric::derive(&shared, &[], 32).unwrap();
    assert_eq!(text::encode(&made), "JIfHwRvNTMY/JgfCmCI0YLh18M+F3ZiJEw23R81xXjA=");
}

#[test]
fn a_derived_key_counts_as_imported_and_gets_versions() {
    let rig = rig();
    make_key(&rig, "own", &json!({"type": "ecdsa-p256"}));
    make_key(&rig, "made", &json!({}));
    let peer = pem(&ec::Pair::generate(Curve::P256, &Sevens).unwrap().point, Curve::P256);
    let ask = json!({"base_key_name": "own", "peer_public_key": peer});
    for version in [1, 2] {
        assert_eq!(rig.say(Update, "derive-key/k", &ask), "none");
        let shown = data(&rig, Read, "keys/k", &json!({}));
        assert_eq!((&shown["latest_version"], &shown["imported_key"]), (&json!(version), &json!(true)));
    }
    let made = data(&rig, Update, "encrypt/k", &json!({"plaintext": "aGk="}));
    let back = rig.say(Update, "decrypt/k", &json!({"ciphertext": made["ciphertext"]}));
    assert_eq!(back, r#"{"plaintext":"aGk="}"#);
    for name in ["own", "made"] {
        let said = rig.say(Update, &format!("derive-key/{name}"), &ask);
        assert!(said.starts_with("error: a key of that name exists"), "{said}");
    }
}

#[test]
fn what_cannot_be_agreed_on_is_refused() {
    let rig = rig();
    for kind in ["ecdsa-p256", "ed25519", "aes256-gcm96", "rsa-2048"] {
        make_key(&rig, kind, &json!({ "type": kind }));
    }
    let peer = |curve| pem(&ec::Pair::generate(curve, &Sevens).unwrap().point, curve);
    let own = peer(Curve::P256);
    let mut off = ec::Pair::generate(Curve::P256, &Sevens).unwrap().point;
    off[64] ^= 1;
    let check = |change: Value, want: &str| {
        let mut ask = json!({"base_key_name": "ecdsa-p256", "peer_public_key": own});
        ask.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(rig.say(Update, "derive-key/k", &ask), format!("error: {want}"), "{change}");
    };
    let unparsed =
        "failed to parse supplied peer public key PEM: data does not contain any valid public keys";
    check(json!({"base_key_name": "none"}), "specified base key not found");
    check(json!({"base_key_name": ""}), "specified base key not found");
    for kind in ["ed25519", "aes256-gcm96", "rsa-2048"] {
        check(
            json!({ "base_key_name": kind }),
            &format!("base key type {kind} does not support key agreement"),
        );
    }
    check(json!({"peer_public_key": ""}), "peer public key not provided");
    check(json!({"peer_public_key": "x"}), unparsed);
    check(json!({"peer_public_key": pem(&off, Curve::P256)}), unparsed);
    check(
        json!({"peer_public_key": peer(Curve::P384)}),
        "base private key type ecdsa-p256 does not match peer public key curve",
    );
    check(json!({"key_derivation_algorithm": "x"}), "key derivation algorithm not supported");
    check(json!({"key_derivation_algorithm": ""}), "key derivation algorithm not supported");
    check(json!({"derived_key_type": "ed25519"}), "unknown key type");
    check(json!({"derived_key_type": ""}), "unknown key type");
    check(json!({"base_key_version": -1}), "requested version of the base key is negative");
    check(
        json!({"base_key_version": 2}),
        "requested version of the base key is higher than the latest key version",
    );
    assert!(!rig.stored().iter().any(|key| key == "key/k"));
}
