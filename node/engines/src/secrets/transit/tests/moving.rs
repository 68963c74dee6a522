//! Keys on the move: imported, wrapped, backed up.

use arca_engine_api::Operation::{Read, Update};
use serde_json::{Map, Value, json};

use super::{Sevens, kind, rig};
use crate::secrets::transit::key::HMAC_KEY_LEN;
use crate::secrets::transit::kind::Kind;
use crate::secrets::transit::rsa_keys::Oaep;
use crate::secrets::transit::{der, import, text, wrap};
use crate::testing::Rig;

#[track_caller]
fn data(rig: &Rig, path: &str, data: &Value) -> Map<String, Value> {
    let reads = path.starts_with("export/")
        || path.starts_with("backup/")
        || path.starts_with("byok")
        || path == "wrapping_key";
    let operation = if reads { Read } else { Update };
    rig.call(operation, path, data)
        .unwrap_or_else(|err| panic!("{path} {data}: {err}"))
        .data
        .unwrap_or_default()
}

fn make(rig: &Rig, name: &str, settings: &Value) {
    data(rig, &format!("keys/{name}"), settings);
}

/// The mount's own key to wrap to.
fn wrapping_key(rig: &Rig) -> Vec<u8> {
    let pem = data(rig, "wrapping_key", &json!({}));
    let (label, spki, _) = der::first_pem(pem["public_key"].as_str().unwrap()).unwrap();
    assert_eq!(label, "PUBLIC KEY");
    import::public_in(kind("rsa-4096"), &spki).unwrap()
}

fn wrapped(public: &[u8], secret: &[u8]) -> String {
    text::encode(&wrap::wrap(Oaep::Sha256, public, secret, &Sevens).unwrap())
}

fn secret_of(rig: &Rig, name: &str, kind: Kind) -> Vec<u8> {
    let (part, form) = match kind {
        Kind::Aead(_) => ("encryption-key", "raw"),
        Kind::Hmac => ("hmac-key", "raw"),
        _ => ("signing-key", "der"),
    };
    let exported = data(rig, &format!("export/{part}/{name}/latest"), &json!({ "format": form }));
    let only = exported["keys"].as_object().unwrap().values().next().unwrap().as_str().unwrap();
    text::decode(only).unwrap().to_vec()
}

#[test]
fn keys_of_every_type_are_imported() {
    let rig = rig();
    let public = wrapping_key(&rig);
    assert_eq!(wrapping_key(&rig), public, "made once");
    for kind in Kind::all() {
        let name = kind.name();
        let settings =
            json!({"type": name, "exportable": true, "key_size": if kind == Kind::Hmac { 33 } else { 0 }});
        make(&rig, name, &settings);
        let secret = secret_of(&rig, name, kind);
        let imported = format!("i-{name}");
        let ask =
            json!({"type": name.to_uppercase(), "exportable": true, "ciphertext": wrapped(&public, &secret)});
        data(&rig, &format!("keys/{imported}/import"), &ask);
        assert_eq!(secret_of(&rig, &imported, kind), secret, "{name}");
        let shown = rig.call(Read, &format!("keys/{imported}"), &json!({})).unwrap().data.unwrap();
        let of = |shown: &Map<String, Value>| shown.get("keys").map(|keys| keys["1"]["public_key"].clone());
        let made = rig.call(Read, &format!("keys/{name}"), &json!({})).unwrap().data.unwrap();
        assert_eq!((of(&shown), &shown["imported_key"]), (of(&made), &json!(true)), "{name}");
        assert_eq!(shown["imported_key_allow_rotation"], false);
        let said = rig.say(Update, &format!("keys/{imported}/rotate"), &json!({}));
        assert!(said.contains("does not allow rotation within Vault"), "{said}");
        // As a second version, and as a key of any other type: refused, nothing else.
        data(
            &rig,
            &format!("keys/{imported}/import_version"),
            &json!({"ciphertext": wrapped(&public, &secret)}),
        );
        for other in Kind::all().filter(|other| *other != kind) {
            let ask = json!({"type": other.name(), "ciphertext": wrapped(&public, &secret)});
            let said = rig.say(Update, "keys/wrong/import", &ask);
            // Bytes are bytes: as many as the other type takes make a key of it.
            let fits = match other {
                Kind::Aead(cipher) => secret.len() == cipher.key_len(),
                Kind::Hmac => HMAC_KEY_LEN.contains(&secret.len()),
                _ => false,
            };
            let is_refused = said.starts_with("error: ") && !said.contains("internal error");
            assert!(if fits { said == "none" } else { is_refused }, "{name} as {}: {said}", other.name());
            if said == "none" {
                data(&rig, "keys/wrong/config", &json!({"deletion_allowed": true}));
                rig.call(arca_engine_api::Operation::Delete, "keys/wrong", &json!({})).unwrap();
            }
        }
    }
}

#[test]
fn a_public_half_waits_for_its_private_half() {
    let rig = rig();
    let wrapping = wrapping_key(&rig);
    for name in ["ecdsa-p256", "ed25519", "rsa-2048"] {
        make(&rig, name, &json!({"type": name, "exportable": true}));
        let public =
            data(&rig, &format!("export/public-key/{name}"), &json!({"format": "pem"}))["keys"]["1"].clone();
        let path = format!("keys/p-{name}/import");
        data(&rig, &path, &json!({"type": name, "public_key": public, "exportable": true}));
        let signed = data(&rig, &format!("sign/{name}"), &json!({"input": "aGk="}));
        let ask = json!({"input": "aGk=", "signature": signed["signature"]});
        assert_eq!(rig.say(Update, &format!("verify/p-{name}"), &ask), r#"{"valid":true}"#);
        let said = rig.say(Update, &format!("sign/p-{name}"), &json!({"input": "aGk="}));
        assert_eq!(said, "error: requested version for signing does not contain a private part");
        let exported = data(&rig, &format!("export/signing-key/p-{name}"), &json!({}));
        assert_eq!(exported["keys"], json!({"1": ""}));
        let path = format!("keys/p-{name}/import_version");
        let said = rig.say(Update, &path, &json!({"public_key": public, "version": 1}));
        assert_eq!(said, "error: cannot add a public key to a key version that already has a public key set");
        let private = wrapped(&wrapping, &secret_of(&rig, name, kind(name)));
        data(&rig, &path, &json!({ "ciphertext": private }));
        assert_eq!(
            rig.call(Read, &format!("keys/p-{name}"), &json!({})).unwrap().data.unwrap()["latest_version"],
            1
        );
        let signed = data(&rig, &format!("sign/p-{name}"), &json!({"input": "aGk="}));
        let ask = json!({"input": "aGk=", "signature": signed["signature"]});
        assert_eq!(rig.say(Update, &format!("verify/{name}"), &ask), r#"{"valid":true}"#);
        let said = rig.say(Update, &path, &json!({"ciphertext": private, "version": 1}));
        assert_eq!(said, "error: private key imported, key version cannot be updated");
        let said = rig.say(Update, &path, &json!({"ciphertext": private, "version": 9}));
        assert_eq!(said, "error: no such key version");
    }
    make(&rig, "r", &json!({"type": "rsa-2048", "exportable": true}));
    let public = data(&rig, "export/public-key/r", &json!({}))["keys"]["1"].clone();
    data(&rig, "keys/only/import", &json!({"type": "rsa-2048", "public_key": public}));
    let ciphertext = data(&rig, "encrypt/only", &json!({"plaintext": "aGk="}))["ciphertext"].clone();
    let want = r#"{"plaintext":"aGk="}"#;
    assert_eq!(rig.say(Update, "decrypt/r", &json!({ "ciphertext": ciphertext })), want);
    let said = rig.say(Update, "decrypt/only", &json!({ "ciphertext": ciphertext }));
    assert_eq!(said, "error: cannot decrypt ciphertext, key version does not have a private counterpart");
}

/// What OpenBao 2.7.2 encrypted by keys of the bytes 0, 1, 2, …, imported with `derived`.
#[test]
fn imported_keys_are_derived_as_openbao_does() {
    let rig = rig();
    let wrapping = wrapping_key(&rig);
    let bytes: Vec<u8> = (0..32).collect();
    for (kind, made) in [
        ("aes128-gcm96", "vault:v1:Yx/aSV7hZ5iVNn83EHqbzIBdBZy7GXu0QDBsXL3qz9jH7t5nhx64LRKXTb/GpHg="),
        ("aes256-gcm96", "vault:v1:zYBKdsrejn6VzKwDA00zpVyCiDQ1TnDBQa1tEiIM8dGeFdC2+8Dx6e5IZbv7LVs="),
        ("chacha20-poly1305", "vault:v1:Wu5CxpCqhDg9nv+C8A8Upgl0I+NCWvq3SvJ37X3HjhCeOus7k3Hev4xsZ84xnPY="),
        (
            "xchacha20-poly1305",
            "vault:v1:NT7/Q+C/qTOzVEvy1cgb81uVMxzDCM9W1S6EvrIfanyxDqwHuUuBVHRuNDJQxszh8RwJPqi5Vwo5+Qk=",
        ),
    ] {
        let key = &bytes[..if kind == "aes128-gcm96" { 16 } else { 32 }];
        let ask = json!({"type": kind, "ciphertext": wrapped(&wrapping, key), "derived": true});
        data(&rig, &format!("keys/{kind}/import"), &ask);
        let shown = rig.call(Read, &format!("keys/{kind}"), &json!({})).unwrap().data.unwrap();
        assert_eq!(shown["kdf"], "hmac-sha256-counter");
        let plain =
            data(&rig, &format!("decrypt/{kind}"), &json!({"ciphertext": made, "context": "Y29udGV4dA=="}));
        assert_eq!(
            text::decode(plain["plaintext"].as_str().unwrap()).unwrap().as_slice(),
            b"the quick brown fox"
        );
    }
}

#[test]
fn imports_that_make_no_sense_are_refused() {
    let rig = rig();
    let wrapping = wrapping_key(&rig);
    let key = wrapped(&wrapping, &[1; 32]);
    make(&rig, "made", &json!({}));
    for (path, ask, want) in [
        (
            "keys/made/import",
            json!({ "ciphertext": key }),
            "the import path cannot be used with an existing key; use import-version to rotate an existing imported key",
        ),
        (
            "keys/made/import_version",
            json!({ "ciphertext": key }),
            "the import_version endpoint can only be used with an imported key",
        ),
        (
            "keys/i/import",
            json!({"ciphertext": key, "type": "aes128-gcm96"}),
            "invalid key size 32 bytes for key type aes128-gcm96",
        ),
        (
            "keys/i/import",
            json!({"ciphertext": key, "convergent_encryption": true}),
            "import cannot be used on keys with convergent encryption enabled",
        ),
        (
            "keys/i/import",
            json!({"ciphertext": key, "auto_rotate_period": "1h"}),
            "allow_rotation must be set to true if auto-rotation is enabled",
        ),
        (
            "keys/i/import",
            json!({"ciphertext": key, "auto_rotate_period": 5, "allow_rotation": true}),
            "auto rotate period must be 0 to disable or at least an hour",
        ),
        (
            "keys/i/import",
            json!({"ciphertext": key, "hash_function": "SHA512"}),
            "the wrapped AES key cannot be decrypted",
        ),
        (
            "keys/i/import",
            json!({"ciphertext": key, "type": "ed25519"}),
            "error importing key: error parsing asymmetric key",
        ),
        (
            "keys/i/import",
            json!({"ciphertext": key, "type": "hmac", "derived": true}),
            "key derivation and convergent encryption not supported for keys of type hmac",
        ),
        (
            "keys/-/import",
            json!({ "ciphertext": key }),
            "the name of a key is made of letters, digits, '_', '-' and '.', and neither begins nor ends with '-' or '.'",
        ),
        ("keys/i/import", json!({"ciphertext": "!"}), "illegal base64 data at input byte 0"),
        ("keys/i/import", json!({"ciphertext": "aGk="}), "provided ciphertext is too short"),
        ("keys/i/import", json!({}), "provided type does not support public_key import"),
        (
            "keys/i/import",
            json!({"type": "rsa-2048"}),
            "error importing key: error parsing public key: not in PEM format",
        ),
    ] {
        assert_eq!(rig.say(Update, path, &ask), format!("error: {want}"), "{path} {ask}");
    }
}

#[test]
fn wrapped_exports_are_imported() {
    let (from, to) = (rig(), rig());
    let wrapping = data(&to, "wrapping_key", &json!({}))["public_key"].clone();
    data(&from, "keys/to/import", &json!({"type": "rsa-4096", "public_key": wrapping}));
    for name in ["aes256-gcm96", "ecdsa-p521", "ed25519"] {
        make(&from, name, &json!({"type": name, "exportable": true}));
        data(&from, &format!("keys/{name}/rotate"), &json!({}));
        let exported = data(&from, &format!("byok-export/to/{name}"), &json!({"hash": "sha384"}));
        assert_eq!(exported["keys"].as_object().unwrap().len(), 2);
        for (version, wrapped) in exported["keys"].as_object().unwrap() {
            let ask =
                json!({"type": name, "ciphertext": wrapped, "hash_function": "SHA384", "exportable": true});
            data(&to, &format!("keys/{name}-{version}/import"), &ask);
            let imported = secret_of(&to, &format!("{name}-{version}"), kind(name));
            assert_eq!(imported, secret_of(&from, name, kind(name)));
        }
    }
}

#[test]
fn a_backup_brings_back_what_was_there() {
    let rig = rig();
    let settings = json!({"exportable": true, "allow_plaintext_backup": true, "auto_rotate_period": "48h"});
    make(&rig, "a", &settings);
    data(&rig, "keys/a/rotate", &json!({}));
    let backup = data(&rig, "backup/a", &json!({}))["backup"].clone();
    let shown = rig.call(Read, "keys/a", &json!({})).unwrap().data.unwrap();
    assert_eq!(shown["backup_info"], json!({"time": "1970-01-01T00:00:01Z", "version": 2}));
    data(&rig, "restore/b", &json!({ "backup": backup }));
    let mut restored = rig.call(Read, "keys/b", &json!({})).unwrap().data.unwrap();
    assert_eq!(restored.remove("restore_info"), shown.get("backup_info").cloned());
    restored.insert("name".to_owned(), json!("a"));
    assert_eq!(restored, shown);
    let said = rig.say(Update, "restore/a", &json!({ "backup": backup }));
    assert_eq!(said, "error: a key of that name already exists");
    // What came after the backup is gone once it is forced.
    data(&rig, "keys/a/rotate", &json!({}));
    data(&rig, "restore", &json!({"backup": backup, "force": true}));
    assert_eq!(rig.stored(), ["key/a", "key/b", "version/a/1", "version/a/2", "version/b/1", "version/b/2"]);
}

#[test]
fn damaged_backups_are_refused_whole() {
    let rig = rig();
    make(&rig, "a", &json!({"exportable": true, "allow_plaintext_backup": true}));
    make(&rig, "p", &json!({"type": "ecdsa-p256", "exportable": true, "allow_plaintext_backup": true}));
    let json_of = |name: &str| {
        let backup = data(&rig, &format!("backup/{name}"), &json!({}));
        String::from_utf8(text::decode(backup["backup"].as_str().unwrap()).unwrap().to_vec()).unwrap()
    };
    let (a, p) = (json_of("a"), json_of("p"));
    let digit = |name: &str| {
        let at = p.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
        (p[at..=at + 9].to_owned(), "1234567890")
    };
    let before = rig.stored();
    let check = |text: &str, from: &str, to: &str, want: &str| {
        assert!(text.contains(from), "{from}");
        let changed = text::encode(text.replace(from, to).as_bytes());
        let said = rig.say(Update, "restore/new", &json!({ "backup": changed }));
        assert_eq!(said, format!("error: the backup cannot be restored: {want}"), "{from} {to}");
    };
    let no_key = "a version is no key of its type";
    check(&a, "\"type\":0", "\"type\":99", "its key type is unknown");
    check(&a, "\"type\":0", "\"type\":8", no_key);
    check(&a, "\"type\":0", "\"type\":1", no_key);
    check(&a, "\"type\":0", "\"type\":3", no_key);
    check(&a, "\"latest_version\":1", "\"latest_version\":4294967295", "a version is missing");
    check(&a, "\"latest_version\":1", "\"latest_version\":0", "its minimum versions contradict each other");
    check(
        &a,
        "\"min_decryption_version\":1",
        "\"min_decryption_version\":2",
        "its minimum versions contradict each other",
    );
    let out_of_use = "its key derivation is out of use";
    let derived = a.replace(r#""derived":false"#, r#""derived":true"#);
    check(&derived, r#""kdf":0"#, r#""kdf":2"#, out_of_use);
    let (not_convergent, convergent) =
        (r#""convergent_encryption":false"#, r#""convergent_encryption":true"#);
    check(&derived, not_convergent, convergent, out_of_use);
    check(&a, "\"key\":\"BwcH", "\"key\":\"!wcH", "a key is no base64");
    check(&a, "\"policy\"", "\"other\"", "it is no backup of a key");
    for name in ["ec_x", "ec_y", "ec_d"] {
        let (from, to) = digit(name);
        check(&p, &from, to, no_key);
    }
    for name in ["../a", "-", "a b", &"é".repeat(3)] {
        let said = rig.say(
            Update,
            &format!("restore/{}", name.replace('/', "")),
            &json!({ "backup": text::encode(a.as_bytes()) }),
        );
        assert!(said.starts_with("error: the name of a key is made of"), "{name}: {said}");
    }
    assert_eq!(rig.stored(), before);
}

/// Vault 0.10.2: earlier schemes made nonces of what anybody can guess. Their keys are refused.
#[test]
fn convergent_keys_of_earlier_schemes_are_refused() {
    let rig = rig();
    let settings = json!({
        "derived": true, "convergent_encryption": true, "exportable": true, "allow_plaintext_backup": true,
    });
    make(&rig, "one", &settings);
    let backup = data(&rig, "backup/one", &json!({}));
    let json = text::decode(backup["backup"].as_str().unwrap()).unwrap();
    let json = String::from_utf8(json.to_vec()).unwrap();
    for scheme in [0, 1, 2, 4] {
        let old = json.replace("\"convergent_version\":3", &format!("\"convergent_version\":{scheme}"));
        let said = rig.say(Update, "restore/old", &json!({ "backup": text::encode(old.as_bytes()) }));
        assert_eq!(
            said,
            "error: the backup cannot be restored: its scheme of convergent encryption is out of use"
        );
    }
}
