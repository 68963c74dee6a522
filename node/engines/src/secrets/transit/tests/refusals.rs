//! Every refusal in words (`testdata/refusals.txt`): none repeats what was sent, none leaves anything behind.

use arca_engine_api::Operation::{self, Create, Delete, Read, Update};
use serde_json::{Value, json};

use super::rig;
use crate::testing::Rig;

/// A key of each family.
fn mount() -> Rig {
    let rig = rig();
    for (name, data) in [
        ("a", json!({})),
        ("a/rotate", json!({})),
        ("c", json!({"derived": true, "convergent_encryption": true})),
        ("e", json!({"type": "ed25519"})),
        ("ed", json!({"type": "ed25519", "derived": true})),
        ("h", json!({"type": "hmac", "key_size": 32})),
        ("p", json!({"type": "ecdsa-p256", "exportable": true, "allow_plaintext_backup": true})),
        ("ap3", json!({"type": "ecdsa-p384", "exportable": true})),
        ("r", json!({"type": "rsa-2048", "exportable": true})),
    ] {
        rig.call(Update, &format!("keys/{name}"), &data).unwrap();
    }
    rig
}

fn operation(word: &str) -> Operation {
    match word {
        "create" => Create,
        "delete" => Delete,
        "read" => Read,
        "update" => Update,
        other => panic!("{other} is no operation here"),
    }
}

#[test]
fn refusals_are_in_the_words_others_know() {
    let rig = mount();
    let before = rig.stored();
    let cases = include_str!("../testdata/refusals.txt");
    for line in cases.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (ask, want) = line.split_once(" => ").unwrap();
        let [word, path, data] = ask.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(rig.say(operation(word), path, &data), format!("error: {want}"), "{ask}");
    }
    assert_eq!(rig.stored(), before);
}
