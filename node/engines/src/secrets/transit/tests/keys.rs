//! Making, reading, changing and removing keys.

use arca_engine_api::Operation::{Delete, List, Read, Update};
use serde_json::json;

use super::{data, make_key, rig};

#[test]
fn a_key_is_shown_as_others_show_it() {
    let rig = rig();
    let want = r#"{"allow_plaintext_backup":false,"auto_rotate_period":0,"deletion_allowed":false,"derived":false,"exportable":false,"imported_key":false,"keys":{"1":1},"latest_version":1,"min_available_version":0,"min_decryption_version":1,"min_encryption_version":0,"name":"a","soft_deleted":false,"supports_decryption":true,"supports_derivation":true,"supports_encryption":true,"supports_signing":false,"type":"aes256-gcm96"}"#;
    assert_eq!(rig.say(Update, "keys/a", &json!({})), want);
    assert_eq!(rig.say(Update, "keys/a", &json!({})), format!("{want} warning: key a already existed"));
    assert_eq!(rig.say(Read, "keys/a", &json!({})), want);
    let shown = make_key(&rig, "e", &json!({"type": "ed25519"}));
    let public = "6kpsY+KcUgq+9VB7Ey7F+ZVHdq6+vnuSQh7qaRRG0iw=";
    let version = json!({"certificate_chain": "", "creation_time": "1970-01-01T00:00:01Z", "name": "ed25519", "public_key": public});
    assert_eq!(shown["keys"]["1"], version);
    let shown = make_key(&rig, "c", &json!({"derived": true, "convergent_encryption": "true"}));
    assert_eq!((&shown["kdf"], &shown["convergent_encryption_version"]), (&json!("hkdf_sha256"), &json!(-1)));
    let shown = make_key(&rig, "h", &json!({"type": "hmac", "key_size": 512}));
    assert_eq!((shown.get("keys"), &shown["key_size"]), (None, &json!(512)));
    assert_eq!(rig.say(Read, "keys/nothing", &json!({})), "none");
    assert_eq!(rig.say(List, "keys", &json!({})), r#"{"keys":["a","c","e","h"]}"#);
    assert_eq!(rig.say(List, "keys", &json!({"after": "a", "limit": "2"})), r#"{"keys":["c","e"]}"#);
}

#[test]
fn flags_that_show_secrets_stay_set() {
    let rig = rig();
    make_key(&rig, "a", &json!({}));
    let set = json!({"exportable": true, "allow_plaintext_backup": true, "deletion_allowed": true});
    data(&rig, Update, "keys/a/config", &set);
    let unset = json!({"exportable": false, "allow_plaintext_backup": false, "deletion_allowed": false});
    let shown = data(&rig, Update, "keys/a/config", &unset);
    let flags = ["exportable", "allow_plaintext_backup", "deletion_allowed"].map(|flag| shown[flag].clone());
    assert_eq!(flags, [json!(true), json!(true), json!(false)]);
}

#[test]
fn a_key_is_deleted_with_all_its_versions_if_it_may_be() {
    let rig = rig();
    make_key(&rig, "a", &json!({}));
    data(&rig, Update, "keys/a/rotate", &json!({}));
    let refused = "error: error deleting policy a: deletion is not allowed for this key";
    assert_eq!(rig.say(Delete, "keys/a", &json!({})), refused);
    data(&rig, Update, "keys/a/config", &json!({"deletion_allowed": true}));
    assert_eq!(rig.say(Delete, "keys/a", &json!({})), "none");
    assert!(rig.stored().is_empty());
}

#[test]
fn keys_are_rotated_by_their_age() {
    let rig = rig();
    make_key(&rig, "hourly", &json!({"auto_rotate_period": "1h"}));
    make_key(&rig, "daily", &json!({"auto_rotate_period": "24h"}));
    make_key(&rig, "never", &json!({}));
    make_key(&rig, "hidden", &json!({"auto_rotate_period": "1h"}));
    data(&rig, Delete, "keys/hidden/soft-delete", &json!({}));
    let latest = || {
        let names = ["hourly", "daily", "never", "hidden"];
        names.map(|name| {
            data(&rig, Read, &format!("keys/{name}"), &json!({}))["latest_version"].as_u64().unwrap()
        })
    };
    rig.tick();
    assert_eq!(latest(), [1, 1, 1, 1]);
    rig.advance(3_601);
    rig.tick();
    assert_eq!(latest(), [2, 1, 1, 1]);
    rig.tick();
    rig.advance(3_599);
    rig.tick();
    assert_eq!(latest(), [2, 1, 1, 1], "not old enough");
    rig.advance(86_400);
    rig.tick();
    assert_eq!(latest(), [3, 2, 1, 1]);
}

#[test]
fn many_old_keys_are_rotated_a_few_at_a_time() {
    let rig = rig();
    for at in 0..20 {
        make_key(&rig, &format!("k{at}"), &json!({"auto_rotate_period": "1h"}));
    }
    rig.advance(4_000);
    let rotated = || rig.stored().iter().filter(|key| key.ends_with("/2")).count();
    for want in [8, 16, 20] {
        rig.tick();
        assert_eq!(rotated(), want);
    }
}
