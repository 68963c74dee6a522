//! Lists of revoked certificates where issuers, their keys and their rights come and go.

use arca_engine_api::Operation::{Delete, List, Update};
use arca_engine_api::UnixMillis;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{Sevens, body, call, der_of, ec_key, named, read, rig, rig_with_role, write};
use crate::crypto::der;
use crate::secrets::pki::private_key::{PrivateKey, Signer};
use crate::secrets::pki::x509::algorithm::Algorithm;
use crate::secrets::pki::x509::certificate::{self, Draft};
use crate::secrets::pki::x509::{extension, oid};
use crate::testing::Rig;

fn issue(rig: &Rig) -> Value {
    write(rig, "issue/r", &json!({"common_name": "x.a.test", "ttl": "10h"}))["serial_number"].clone()
}

/// Number and serial numbers of a list.
#[track_caller]
fn list(rig: &Rig, path: &str) -> (u64, Vec<Value>) {
    let raw = body(rig, path);
    let (_, list) = CertificateRevocationList::from_der(&raw).unwrap();
    let number = list.crl_number().map_or(0, |number| number.to_string().parse().unwrap());
    (number, list.iter_revoked_certificates().map(|one| json!(one.raw_serial_as_string())).collect())
}

const WITHOUT_LISTS: &str = "issuing-certificates,ocsp-signing";
const ALL: &str = "issuing-certificates,crl-signing,ocsp-signing";

/// The revocation was never published: the list was there, and looked as if it were complete.
#[test]
fn what_was_revoked_while_nobody_signed_is_in_the_next_list() {
    let rig = rig_with_role(&json!({}));
    let (one, two) = (issue(&rig), issue(&rig));
    write(&rig, "revoke", &json!({ "serial_number": one }));
    write(&rig, "issuer/default", &json!({ "usage": WITHOUT_LISTS }));
    let said = rig.say(Update, "revoke", &json!({ "serial_number": two }));
    assert!(said.contains("warning: No issuer may sign the list"), "{said}");
    rig.tick();
    assert_eq!(list(&rig, "crl").1, std::slice::from_ref(&one));
    write(&rig, "issuer/default", &json!({ "usage": ALL }));
    assert_eq!(list(&rig, "crl").1, [one, two]);
}

#[test]
fn a_tick_signs_a_list_that_is_behind() {
    let rig = rig_with_role(&json!({}));
    write(&rig, "config/crl", &json!({"auto_rebuild": true}));
    let one = issue(&rig);
    write(&rig, "revoke", &json!({ "serial_number": one }));
    // Lists that are made by themselves wait for their time.
    rig.tick();
    assert_eq!(list(&rig, "crl").1, Vec::<Value>::new());
    let key = "config/crl";
    let mut config: Value =
        rig.with_ctx(|ctx| serde_json::from_slice(&ctx.storage.get(key).unwrap().unwrap()).unwrap());
    config["auto_rebuild"] = json!(false);
    rig.plant(key, config.to_string().as_bytes());
    rig.tick();
    assert_eq!(list(&rig, "crl").1, [one]);
}

#[test]
fn tidying_leaves_a_list_that_nobody_could_sign_again() {
    let rig = rig_with_role(&json!({}));
    let one = issue(&rig);
    write(&rig, "revoke", &json!({ "serial_number": one }));
    write(&rig, "issuer/default", &json!({ "usage": WITHOUT_LISTS }));
    let before = body(&rig, "crl");
    rig.advance(48 * 3_600);
    write(&rig, "tidy", &json!({"tidy_revoked_certs": true, "revoked_safety_buffer": "1s"}));
    for _ in 0..3 {
        rig.tick();
    }
    assert_eq!(read(&rig, "tidy-status")["state"], "Finished");
    assert_eq!(body(&rig, "crl"), before);
    write(&rig, "issuer/default", &json!({ "usage": ALL }));
    write(&rig, "tidy", &json!({"tidy_revoked_certs": true, "revoked_safety_buffer": "1s"}));
    assert_eq!(list(&rig, "crl").1, Vec::<Value>::new());
}

#[test]
fn revocations_that_find_their_issuer_are_signed_once() {
    let rig = rig_with_role(&json!({}));
    let serials = [issue(&rig), issue(&rig), issue(&rig)];
    let (number, _) = list(&rig, "crl");
    let root = read(&rig, "cert/ca")["certificate"].clone();
    call(&rig, Delete, "issuer/default", &json!({}));
    for serial in &serials {
        let said = rig.say(Update, "revoke", &json!({ "serial_number": serial }));
        assert!(said.contains("No issuer of this mount signed"), "{said}");
    }
    write(&rig, "issuers/import/cert", &json!({ "pem_bundle": root }));
    write(&rig, "tidy", &json!({"tidy_revoked_cert_issuer_associations": true}));
    for _ in 0..3 {
        rig.tick();
    }
    let (now, mut listed) = list(&rig, "crl");
    // Ordered by serial number in storage, whatever order they came in.
    listed.sort_by_key(Value::to_string);
    let mut want = serials.to_vec();
    want.sort_by_key(Value::to_string);
    assert_eq!(listed, want);
    // One complete list and its delta.
    assert_eq!(now, number + 2);
    assert!(!rig.stored().iter().any(|key| key.starts_with("revoked-orphan/") || key.ends_with("/none")));
}

/// The complete list that a delta counts for, by its number.
fn base(rig: &Rig) -> u64 {
    let raw = body(rig, "crl/delta");
    let (_, delta) = CertificateRevocationList::from_der(&raw).unwrap();
    let of_base = |one: &&x509_parser::extensions::X509Extension<'_>| {
        one.critical && one.oid.as_bytes() == oid::DELTA_CRL_INDICATOR
    };
    let found = delta.extensions().iter().find(of_base).unwrap();
    let digits = der::Reader::new(found.value).unsigned().unwrap().to_vec();
    digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A verifier that knows a list keeps it when another of the same number comes, and a delta counts for whatever list has
/// the number that it names.
#[test]
fn a_restored_snapshot_gives_no_number_again() {
    let rig = rig_with_role(&json!({}));
    let (one, two) = (issue(&rig), issue(&rig));
    let value = |key: &String| rig.with_ctx(|ctx| ctx.storage.get(key).unwrap().unwrap().to_vec());
    let snapshot: Vec<_> = rig.stored().iter().map(|key| (key.clone(), value(key))).collect();
    write(&rig, "revoke", &json!({ "serial_number": one }));
    let before = [list(&rig, "crl").0, list(&rig, "crl/delta").0];
    assert_eq!((base(&rig), before[0] < before[1]), (before[0], true));
    rig.advance(60);
    for key in rig.stored() {
        rig.with_ctx(|ctx| ctx.storage.delete(&key).unwrap());
    }
    for (key, value) in &snapshot {
        rig.plant(key, value);
    }
    write(&rig, "revoke", &json!({ "serial_number": two }));
    assert_eq!(list(&rig, "crl").1, [two]);
    let after = [list(&rig, "crl").0, list(&rig, "crl/delta").0];
    assert!(before[1] < after[0] && after[0] < after[1], "{before:?} {after:?}");
    assert_eq!(base(&rig), after[0]);
}

#[test]
fn a_revoked_issuer_comes_back_revoked() {
    let rig = rig_with_role(&json!({}));
    let root = read(&rig, "cert/ca")["certificate"].clone();
    let id = read(&rig, "config/issuers")["default"].as_str().unwrap().to_owned();
    write(&rig, &format!("issuer/{id}/revoke"), &json!({}));
    call(&rig, Delete, &format!("issuer/{id}"), &json!({}));
    let made = write(&rig, "issuers/import/cert", &json!({ "pem_bundle": root }));
    let id = made["imported_issuers"][0].as_str().unwrap();
    let shown = read(&rig, &format!("issuer/{id}"));
    assert_eq!(shown["revoked"], true);
    assert_eq!(shown["usage"], "crl-signing,ocsp-signing,read-only");
}

/// A certificate that `by` signs.
fn signed(by: &PrivateKey, issuer: &str, key: &PrivateKey, subject: &str, serial: u8) -> Vec<u8> {
    let (signer, own) = (Signer::of(by).unwrap(), Signer::of(key).unwrap());
    let (issuer, subject) = (named(issuer), named(subject));
    let draft = Draft {
        serial: vec![serial],
        issuer: &issuer,
        subject: &subject,
        not_before: UnixMillis(1_700_000_000_000),
        not_after: UnixMillis(1_900_000_000_000),
        spki: own.spki(),
        extensions: vec![extension::basic_constraints(true, None)],
    };
    let algorithm = Algorithm::of(signer.kind(), 0, false);
    let body = draft.encode(algorithm).unwrap();
    let signature = signer.sign(algorithm, &body, &Sevens).unwrap();
    certificate::signed(&body, algorithm, &signature)
}

fn pem(der: &[u8]) -> String {
    certificate::pem(der)
}

fn key_pem(key: &PrivateKey) -> String {
    der::pem("PRIVATE KEY", &key.encode().unwrap()[1..]).to_string()
}

/// Imports an authority with its key, and answers its id.
fn import(rig: &Rig, certificate: &[u8], key: &PrivateKey) -> String {
    let bundle = format!("{}\n{}", pem(certificate), key_pem(key));
    let made = write(rig, "issuers/import/bundle", &json!({ "pem_bundle": bundle }));
    made["imported_issuers"][0].as_str().unwrap().to_owned()
}

#[test]
fn authorities_that_counted_from_one_revoke_each_their_own() {
    let rig = rig();
    let (a, b, leaf) = (ec_key(7), ec_key(8), ec_key(9));
    let root_a = signed(&a, "A", &a, "A", 1);
    let id_a = import(&rig, &root_a, &a);
    let id_b = import(&rig, &signed(&b, "B", &b, "B", 1), &b);
    let (leaf_a, leaf_b) = (signed(&a, "A", &leaf, "x", 1), signed(&b, "B", &leaf, "y", 1));
    write(&rig, "revoke", &json!({"certificate": pem(&leaf_a)}));
    assert_eq!(list(&rig, &format!("issuer/{id_a}/crl/der")).1, ["01"]);
    assert_eq!(list(&rig, &format!("issuer/{id_b}/crl/der")).1, Vec::<Value>::new());
    write(&rig, "revoke", &json!({"certificate": pem(&leaf_b)}));
    assert_eq!(list(&rig, &format!("issuer/{id_b}/crl/der")).1, ["01"]);
    assert_eq!(call(&rig, List, "certs/revoked/", &json!({}))["keys"], json!(["01"]));
    let shown = read(&rig, "cert/01");
    assert_eq!(der_of(&shown["certificate"]), leaf_a);
    assert_eq!(shown["issuer_id"], json!(id_a));
    // An authority itself is still no matter of its own list.
    let said = rig.say(Update, "revoke", &json!({"certificate": pem(&root_a)}));
    assert!(said.contains("to its own CRL is not allowed"), "{said}");
}

/// One of the same name whose key an older key signed was taken for a root.
#[test]
fn who_did_not_sign_itself_is_no_root() {
    let rig = rig();
    let (old, new) = (ec_key(7), ec_key(8));
    let id_old = import(&rig, &signed(&old, "A", &old, "A", 1), &old);
    let id_new = import(&rig, &signed(&old, "A", &new, "A", 2), &new);
    let chain = |id: &str| read(&rig, &format!("issuer/{id}"))["ca_chain"].as_array().unwrap().len();
    assert_eq!((chain(&id_old), chain(&id_new)), (1, 2));
}

#[test]
fn one_certificate_that_cannot_be_read_hides_no_other() {
    let rig = rig_with_role(&json!({}));
    let serial = issue(&rig);
    rig.plant("cert/ff", &[1, 2, 3]);
    let shown = call(&rig, List, "certs/detailed/", &json!({}));
    assert!(shown["keys"].as_array().unwrap().contains(&json!("ff")), "{shown:?}");
    assert_eq!(shown["key_info"]["ff"], json!({}));
    assert_eq!(shown["key_info"][serial.as_str().unwrap()]["common_name"], "x.a.test");
}
