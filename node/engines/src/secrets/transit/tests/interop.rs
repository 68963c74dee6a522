//! What OpenBao 2.7.2 made (`testdata/bao.json`): its backups restore, its ciphertexts decrypt, its signatures verify, and
//! what leaves no choice comes out the same.

use arca_engine_api::Operation::{self, Read, Update};
use serde_json::{Map, Value, json};

use super::rig;
use crate::secrets::transit::rsa_keys::{self, Oaep};
use crate::secrets::transit::{import, text, wrap};
use crate::testing::Rig;

fn steps() -> Vec<Map<String, Value>> {
    serde_json::from_str(include_str!("../testdata/bao.json")).unwrap()
}

fn operation(path: &str) -> Operation {
    if path.starts_with("export/") { Read } else { Update }
}

fn restore(rig: &Rig, backup: &Value) {
    assert_eq!(rig.say(Update, "restore", &json!({ "backup": backup })), "none");
}

/// Whether an answer is the one wanted. A convergent ciphertext with associated data has another nonce here, and both are
/// understood.
#[track_caller]
fn check(rig: &Rig, path: &str, step: &Map<String, Value>) {
    let answer = rig.call(operation(path), path, &step["data"]);
    let answer = Value::Object(answer.unwrap_or_else(|err| panic!("{path}: {err}")).data.unwrap());
    let (data, want) = (&step["data"], &step["want"]);
    let Some(name) = path.strip_prefix("encrypt/").filter(|_| data.get("associated_data").is_some()) else {
        assert_eq!(answer, *want, "{path} {data}");
        return;
    };
    assert_ne!(answer["ciphertext"], want["ciphertext"], "{path}");
    for made in [&answer, want] {
        let mut ask = data.clone();
        ask["ciphertext"] = made["ciphertext"].clone();
        let plain = rig.call(Update, &format!("decrypt/{name}"), &ask).unwrap().data.unwrap();
        assert_eq!(plain["plaintext"], data["plaintext"], "{path}");
    }
}

#[test]
fn what_openbao_made_is_understood() {
    let rig = rig();
    for step in steps() {
        if let Some(backup) = step.get("backup") {
            restore(&rig, backup);
        } else if let Some(path) = step.get("path").and_then(Value::as_str) {
            check(&rig, path, &step);
        }
    }
}

#[test]
fn a_restored_key_backs_up_and_restores_again() {
    let (first, second) = (rig(), rig());
    for step in steps() {
        let (Some(name), Some(backup)) = (step.get("restore").and_then(Value::as_str), step.get("backup"))
        else {
            continue;
        };
        restore(&first, backup);
        let again = first.call(Read, &format!("backup/{name}"), &json!({})).unwrap().data.unwrap();
        restore(&second, &again["backup"]);
        let taken = "error: a key of that name already exists";
        assert_eq!(second.say(Update, "restore", &Value::Object(again)), taken, "{name}");
    }
    for step in steps() {
        if let Some(path) = step.get("path").and_then(Value::as_str) {
            check(&second, path, &step);
        }
    }
}

#[test]
fn what_openbao_wrapped_is_unwrapped() {
    let rig = rig();
    for step in steps() {
        if let Some(backup) = step.get("backup") {
            restore(&rig, backup);
        }
    }
    let exported = |part: &str, name: &str, form: &str| {
        let answer = rig.call(Read, &format!("export/{part}/{name}/1"), &json!({ "format": form })).unwrap();
        text::decode(answer.data.unwrap()["keys"]["1"].as_str().unwrap()).unwrap()
    };
    let pkcs8 = exported("encryption-key", "rsa-4096", "der");
    let (_, private) = rsa_keys::private_in(&pkcs8).unwrap();
    let wrapped = steps().into_iter().find_map(|step| step.get("wrapped").cloned()).unwrap();
    for (which, wrapped) in wrapped.as_object().unwrap() {
        let (name, hash) = which.split_once(' ').unwrap();
        let wrapped = text::decode(wrapped.as_str().unwrap()).unwrap();
        let key = wrap::unwrap(Oaep::named(hash).unwrap(), private, 512, &wrapped, &super::Sevens).unwrap();
        let want = match name {
            "hmac" => exported("hmac-key", name, ""),
            "aes128-gcm96-plain" => exported("encryption-key", name, ""),
            _ => exported("signing-key", name, "der"),
        };
        assert_eq!(key, want, "{which}");
        let wrong = if hash == "SHA1" { Oaep::Sha256 } else { Oaep::Sha1 };
        assert!(wrap::unwrap(wrong, private, 512, &wrapped, &super::Sevens).is_err(), "{which}");
        let mut damaged = wrapped.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(wrap::unwrap(Oaep::named(hash).unwrap(), private, 512, &damaged, &super::Sevens).is_err());
    }
    assert!(import::private_half(super::kind("rsa-2048"), &pkcs8).is_err());
}
