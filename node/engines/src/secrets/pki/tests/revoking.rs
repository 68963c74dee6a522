//! Revocation, lists of revoked certificates, and OCSP.

use arca_engine_api::Operation::{Delete, List, Read, Update};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{body, call, der_of, forget_local, read, refused, rig, rig_with_role, write};
use crate::crypto::der::{self, Reader};
use crate::secrets::pki::base64;
use crate::secrets::pki::x509::certificate;
use crate::secrets::pki::x509::public_key::PublicKey;
use crate::testing::Rig;

fn issue(rig: &Rig) -> serde_json::Map<String, Value> {
    write(rig, "issue/r", &json!({"common_name": "x.a.test", "ttl": "100h"}))
}

/// Number and serial numbers of a list, whose signature by the default issuer has to be good.
#[track_caller]
fn list(rig: &Rig, path: &str) -> (u64, Vec<String>) {
    let raw = body(rig, path);
    let (rest, list) = CertificateRevocationList::from_der(&raw).unwrap();
    assert!(rest.is_empty());
    let ca = body(rig, "ca");
    let parsed = certificate::parse(&ca).unwrap();
    let (algorithm, signature) = certificate::signature_of(&raw).unwrap();
    let key = PublicKey::of(parsed.public_key().raw).unwrap();
    assert!(algorithm.verifies(&key, list.tbs_cert_list.as_ref(), signature));
    let number = list.crl_number().map_or(0, |number| number.to_string().parse().unwrap());
    (number, list.iter_revoked_certificates().map(|one| one.raw_serial_as_string()).collect())
}

fn serial(made: &serde_json::Map<String, Value>) -> String {
    made["serial_number"].as_str().unwrap().to_owned()
}

#[test]
fn a_revoked_certificate_is_in_the_list_at_once() {
    let rig = rig_with_role(&json!({}));
    // The time: never a number that a list had before everything was lost.
    assert_eq!(list(&rig, "crl"), (1_800_000_001, vec![]));
    let (one, two) = (issue(&rig), issue(&rig));
    let said = write(&rig, "revoke", &json!({"serial_number": serial(&one)}));
    assert_eq!((&said["state"], &said["revocation_time"]), (&json!("revoked"), &json!(1_800_000_001)));
    // The one before had a delta, too.
    assert_eq!(list(&rig, "crl"), (1_800_000_003, vec![serial(&one)]));
    rig.advance(5);
    // Again: the same moment, nothing new.
    assert_eq!(write(&rig, "revoke", &json!({"serial_number": serial(&one)})), said);
    let again = serial(&one).replace(':', "-").to_uppercase();
    assert_eq!(write(&rig, "revoke", &json!({"serial_number": again})), said);
    write(&rig, "revoke", &json!({"certificate": two["certificate"]}));
    assert_eq!(list(&rig, "crl").1, vec![serial(&one), serial(&two)]);
    assert_eq!(list(&rig, "issuer/default/crl/der").1.len(), 2);
    assert_eq!(
        der::first_pem(&String::from_utf8(body(&rig, "crl/pem")).unwrap()).unwrap().1,
        body(&rig, "crl")
    );
    assert_eq!(read(&rig, &format!("cert/{}", serial(&one)))["revocation_time"], 1_800_000_001);
    for (data, want) in [
        (json!({}), "must be provided"),
        (json!({"serial_number": "01:02"}), "certificate with serial 01:02 not found."),
        (json!({"serial_number": "x"}), "not found"),
        (json!({"serial_number": "1", "certificate": "x"}), "not both"),
        (json!({"certificate": "x"}), "too short"),
    ] {
        let got = refused(&rig, "revoke", &data);
        assert!(got.contains(want), "{got}");
    }
}

#[test]
fn certificates_of_others_are_not_ours_to_revoke() {
    let (rig, other) = (rig_with_role(&json!({"no_store": true})), rig());
    let made = issue(&rig);
    // Not stored, but ours by its signature.
    write(&rig, "revoke", &json!({"certificate": made["certificate"]}));
    assert_eq!(list(&rig, "crl").1, vec![serial(&made)]);
    // The same names, another key.
    write(
        &other,
        "root/generate/internal",
        &json!({"common_name": "Root", "key_type": "ed25519", "ttl": "700h"}),
    );
    let got = refused(&other, "revoke", &json!({"certificate": made["certificate"]}));
    assert!(got.starts_with("unable to verify signature on presented cert"), "{got}");
    let ca = read(&rig, "cert/ca")["certificate"].clone();
    let got = refused(&rig, "revoke", &json!({"certificate": ca}));
    assert!(got.contains("to its own CRL is not allowed"), "{got}");
}

#[test]
fn who_has_the_key_may_revoke() {
    let rig = rig_with_role(&json!({}));
    let (one, two) = (issue(&rig), issue(&rig));
    let with = |key: &Value| json!({"serial_number": serial(&one), "private_key": key});
    let got = refused(&rig, "revoke-with-key", &with(&two["private_key"]));
    assert_eq!(got, "provided private key does not match certificate's public key");
    refused(&rig, "revoke-with-key", &with(&json!("x")));
    refused(&rig, "revoke-with-key", &json!({"serial_number": serial(&one)}));
    assert_eq!(list(&rig, "crl").1, Vec::<String>::new());
    write(&rig, "revoke-with-key", &with(&one["private_key"]));
    assert_eq!(list(&rig, "crl").1, vec![serial(&one)]);
}

#[test]
fn what_ended_is_not_revoked_unless_wanted() {
    let rig = rig_with_role(&json!({}));
    let made = issue(&rig);
    rig.advance(101 * 3_600);
    let said = rig.say(Update, "revoke", &json!({"serial_number": serial(&made)}));
    assert!(said.starts_with("none warning: certificate with serial"), "{said}");
    write(&rig, "config/crl", &json!({"allow_expired_cert_revocation": true}));
    write(&rig, "revoke", &json!({"serial_number": serial(&made)}));
    assert_eq!(list(&rig, "crl").1, vec![serial(&made)]);
}

#[test]
fn lists_that_make_themselves_and_deltas() {
    let rig = rig_with_role(&json!({}));
    let old = issue(&rig);
    write(&rig, "revoke", &json!({"serial_number": serial(&old)}));
    write(
        &rig,
        "config/crl",
        &json!({"auto_rebuild": true, "enable_delta": true, "delta_rebuild_interval": "10m"}),
    );
    let base = list(&rig, "crl");
    assert_eq!(base.1, vec![serial(&old)]);
    let new = issue(&rig);
    write(&rig, "revoke", &json!({"serial_number": serial(&new)}));
    rig.tick();
    assert_eq!(list(&rig, "crl"), base);
    assert_eq!(list(&rig, "crl/delta").1, Vec::<String>::new());
    rig.advance(601);
    rig.tick();
    assert_eq!(list(&rig, "crl"), base);
    let delta = list(&rig, "crl/delta");
    assert!(delta.0 > base.0 && delta.1 == vec![serial(&new)], "{delta:?}");
    // The delta says which list it goes with.
    let raw = body(&rig, "crl/delta");
    let number = u32::try_from(base.0).unwrap().to_be_bytes();
    let indicator = [&[6, 3, 0x55, 0x1d, 0x1b, 1, 1, 0xff, 4, 6, 2, 4], &number[..]].concat();
    assert!(raw.windows(indicator.len()).any(|part| part == indicator));
    rig.advance(61 * 3_600);
    rig.tick();
    assert_eq!(list(&rig, "crl").1, vec![serial(&old), serial(&new)]);
    assert_eq!(list(&rig, "crl/delta").1, Vec::<String>::new());
    write(&rig, "config/crl", &json!({"disable": true}));
    assert_eq!(list(&rig, "crl").1, Vec::<String>::new());
    call(&rig, Read, "crl/rotate", &json!({}));
    write(&rig, "config/crl", &json!({"disable": false}));
    assert_eq!(list(&rig, "crl").1.len(), 2);
    for bad in [
        json!({"expiry": "x"}),
        json!({"expiry": "1s"}),
        json!({"auto_rebuild_grace_period": "72h"}),
        json!({"delta_rebuild_interval": "72h"}),
        json!({"auto_rebuild": false}),
    ] {
        refused(&rig, "config/crl", &bad);
    }
}

#[test]
fn spans_of_lists_are_shown_as_they_were_written() {
    let rig = rig_with_role(&json!({}));
    for (sent, shown) in
        [(json!("1440m"), "1440m"), (json!(3_600), "3600"), (json!("1d"), "1d"), (json!(""), "72h")]
    {
        write(&rig, "config/crl", &json!({ "expiry": sent }));
        assert_eq!(call(&rig, Read, "config/crl", &json!({}))["expiry"], shown, "{sent}");
    }
}

/// CVE-2021-29653: whatever else happens, a revoked certificate that has not ended is in the list.
#[test]
fn cve_2021_29653_what_is_revoked_stays_in_the_list() {
    let rig = rig_with_role(&json!({}));
    let mut want: Vec<String> = Vec::new();
    for _ in 0..5 {
        let made = issue(&rig);
        write(&rig, "revoke", &json!({"serial_number": serial(&made)}));
        want.push(serial(&made));
    }
    let check = |what: &str| {
        let mut got = list(&rig, "crl").1;
        got.sort();
        let mut want = want.clone();
        want.sort();
        assert_eq!(got, want, "{what}");
    };
    check("revoked");
    write(&rig, "tidy", &json!({"tidy_revoked_certs": true, "tidy_cert_store": true, "safety_buffer": "1s"}));
    check("tidied");
    call(&rig, Read, "crl/rotate", &json!({}));
    check("rotated");
    let made = write(&rig, "root/generate/exported", &json!({"common_name": "Other", "key_type": "ec"}));
    assert!(made.contains_key("issuer_id"));
    check("another issuer");
    // The issuer goes and comes back.
    let pem = read(&rig, "cert/ca")["certificate"].clone();
    call(&rig, Delete, "issuer/default", &json!({}));
    let back = write(&rig, "issuers/import/cert", &json!({"pem_bundle": pem}));
    write(&rig, "config/issuers", &json!({"default": back["imported_issuers"][0]}));
    check("imported again");
    rig.advance(60 * 3_600);
    rig.tick();
    check("renewed");
}

#[test]
fn long_lists_lie_in_parts() {
    let rig = rig_with_role(&json!({"key_type": "ed25519"}));
    write(&rig, "config/crl", &json!({"auto_rebuild": true}));
    let pem = read(&rig, "cert/ca")["certificate"].clone();
    let set = {
        let der = der_of(&pem);
        let parsed = certificate::parse(&der).unwrap();
        crate::secrets::pki::issuers::digest(&[parsed.subject().as_raw(), parsed.public_key().raw])
    };
    rig.with_ctx(|ctx| {
        for number in 0..2_000_u32 {
            let serial = [&[1_u8][..], &number.to_be_bytes()].concat();
            crate::secrets::pki::crl::add(ctx, &set, &serial, arca_engine_api::UnixMillis(1_000)).unwrap();
        }
    });
    call(&rig, Read, "crl/rotate", &json!({}));
    assert_eq!(list(&rig, "crl").1.len(), 2_000);
    let parts = rig.stored().iter().filter(|key| key.starts_with("crl-part/")).count();
    assert!(parts >= 2, "{parts}");
}

/// An issuer that the mount's root signed: its serial number and id.
fn intermediate(rig: &Rig) -> (String, String) {
    let made = write(rig, "intermediate/generate/internal", &json!({"common_name": "I", "key_type": "ec"}));
    let asked = json!({"csr": made["csr"], "common_name": "I", "ttl": "600h"});
    let signed = write(rig, "root/sign-intermediate", &asked);
    let inside = write(rig, "intermediate/set-signed", &json!({"certificate": signed["certificate"]}));
    (serial(&signed), inside["imported_issuers"][0].as_str().unwrap().to_owned())
}

/// What is replicated of a revocation is that the issuer is revoked; the lists are each cluster's own.
#[test]
fn a_revoked_issuer_is_on_the_lists_of_every_cluster() {
    let rig = rig_with_role(&json!({}));
    let (serial, id) = intermediate(&rig);
    forget_local(&rig);
    rig.tick();
    let first = list(&rig, "crl");
    assert_eq!(first.1, Vec::<String>::new());
    rig.advance(7);
    write(&rig, &format!("issuer/{id}/revoke"), &json!({}));
    forget_local(&rig);
    let raw = question(&rig, &serial, None);
    assert_eq!(status(&rig, &ask(&rig, &raw).1), 0x80);
    rig.advance(9);
    rig.tick();
    let (number, listed) = list(&rig, "crl");
    assert_eq!(listed, [serial.as_str()]);
    assert!(first.0 < number, "a list that is signed anew after all was lost has no number that was given");
    assert_eq!(status(&rig, &ask(&rig, &raw).1), 0xa1);
    assert_eq!(read(&rig, &format!("cert/{serial}"))["revocation_time"], 1_800_000_008);
    let delta = list(&rig, "crl/delta").0;
    rig.tick();
    assert_eq!((list(&rig, "crl").0, list(&rig, "crl/delta").0), (number, delta), "once");
    // Also if it is deleted before anybody had looked, and where a list is signed by request.
    call(&rig, Delete, &format!("issuer/{id}"), &json!({}));
    forget_local(&rig);
    call(&rig, Read, "crl/rotate", &json!({}));
    assert_eq!(list(&rig, "crl").1, vec![serial.clone()]);
    assert_eq!(status(&rig, &ask(&rig, &raw).1), 0xa1);
    // What ended is tidied away, and does not come again.
    rig.advance(650 * 3_600);
    write(&rig, "tidy", &json!({"tidy_revoked_certs": true, "safety_buffer": "1h"}));
    rig.tick();
    assert_eq!(list(&rig, "crl").1, Vec::<String>::new());
}

/// Lists that make themselves take it up in their time, OCSP with the next tick.
#[test]
fn a_revoked_issuer_of_a_mount_whose_lists_make_themselves() {
    let rig = rig_with_role(&json!({}));
    let (serial, id) = intermediate(&rig);
    write(&rig, "config/crl", &json!({"auto_rebuild": true, "enable_delta": true}));
    write(&rig, &format!("issuer/{id}/revoke"), &json!({}));
    forget_local(&rig);
    rig.tick();
    let raw = question(&rig, &serial, None);
    assert_eq!(status(&rig, &ask(&rig, &raw).1), 0xa1);
    rig.advance(61 * 3_600);
    rig.tick();
    assert_eq!(list(&rig, "crl").1, vec![serial]);
}

#[test]
fn an_issuer_is_revoked_by_the_one_above() {
    let rig = rig_with_role(&json!({}));
    let (serial, id) = intermediate(&rig);
    let shown = write(&rig, &format!("issuer/{id}/revoke"), &json!({}));
    assert_eq!(
        (&shown["revoked"], &shown["usage"]),
        (&json!(true), &json!("crl-signing,ocsp-signing,read-only"))
    );
    assert_eq!(list(&rig, "crl").1, vec![serial]);
    let got = refused(&rig, &format!("issuer/{id}"), &json!({"usage": "issuing-certificates"}));
    assert!(got.contains("This issuer was revoked"), "{got}");
    refused(&rig, &format!("issuer/{id}/issue/r"), &json!({"common_name": "x.a.test"}));
    call(&rig, List, "issuers/", &json!({}));
}

/// A request for OCSP about a serial number of the default issuer.
fn question(rig: &Rig, serial: &str, nonce: Option<&[u8]>) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA256, digest};
    let ca = body(rig, "ca");
    let parsed = certificate::parse(&ca).unwrap();
    let key = PublicKey::of(parsed.public_key().raw).unwrap();
    let algorithm = der::write(
        der::SEQUENCE,
        &[&der::write(der::OID, &[&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1]]), &der::write(der::NULL, &[])],
    );
    let serial = crate::secrets::pki::store::serial_in(serial).unwrap();
    let id = der::write(
        der::SEQUENCE,
        &[
            &algorithm,
            &der::write(der::OCTET_STRING, &[digest(&SHA256, parsed.subject().as_raw()).as_ref()]),
            &der::write(der::OCTET_STRING, &[digest(&SHA256, key.key).as_ref()]),
            &der::write_unsigned(&serial),
        ],
    );
    let list = der::write(der::SEQUENCE, &[&der::write(der::SEQUENCE, &[&id])]);
    let nonce = nonce.map(|nonce| {
        let value = der::write(der::OCTET_STRING, &[&der::write(der::OCTET_STRING, &[nonce])]);
        let oid = der::write(der::OID, &[crate::secrets::pki::x509::oid::OCSP_NONCE]);
        let extension = der::write(der::SEQUENCE, &[&oid, &value]);
        der::write(0xa2, &[&der::write(der::SEQUENCE, &[&extension])])
    });
    let nonce = nonce.as_ref().map_or(&[][..], |nonce| nonce.as_slice());
    der::write(der::SEQUENCE, &[&der::write(der::SEQUENCE, &[&list, nonce])]).to_vec()
}

#[track_caller]
fn ask(rig: &Rig, raw: &[u8]) -> (u16, Vec<u8>) {
    let by_post =
        rig.call(Update, "ocsp", &json!({"ocsp_request": base64::encode(raw)})).unwrap().raw.unwrap();
    let by_get = rig.call(Read, &format!("ocsp/{}", base64::encode(raw)), &json!({})).unwrap().raw.unwrap();
    assert_eq!(by_post.status, by_get.status);
    // As RFC 6960 wants it written, and as Base64 for URLs.
    let (escaped, for_urls) = (
        base64::encode(raw).replace('/', "%2F").replace('+', "%2b").replace('=', "%3D"),
        base64::encode(raw).replace('/', "_").replace('+', "-"),
    );
    for text in [escaped, for_urls] {
        let same = rig.call(Read, &format!("ocsp/{text}"), &json!({})).unwrap().raw.unwrap();
        assert_eq!(same.status, by_get.status, "{text}");
    }
    assert_eq!(by_post.content_type, "application/ocsp-response");
    (by_post.status, by_post.body)
}

/// The tag of the status in an answer, whose signature has to be good.
#[track_caller]
fn status(rig: &Rig, answer: &[u8]) -> u8 {
    let mut outer = Reader::new(answer).enter(der::SEQUENCE).unwrap();
    assert_eq!(outer.take(0x0a), Some(&[0][..]));
    let mut bytes = outer.enter(der::EXPLICIT_0).unwrap().enter(der::SEQUENCE).unwrap();
    bytes.take(der::OID).unwrap();
    let basic = bytes.take(der::OCTET_STRING).unwrap();
    let mut inner = Reader::new(basic).enter(der::SEQUENCE).unwrap();
    let data = inner.element(der::SEQUENCE).unwrap();
    let (algorithm, signature) = certificate::signature_of(basic).unwrap();
    let ca = body(rig, "ca");
    let parsed = certificate::parse(&ca).unwrap();
    assert!(algorithm.verifies(&PublicKey::of(parsed.public_key().raw).unwrap(), data, signature));
    let mut fields = Reader::new(data).enter(der::SEQUENCE).unwrap();
    fields.take(0xa2).unwrap();
    fields.take(0x18).unwrap();
    let mut single = fields.enter(der::SEQUENCE).unwrap().enter(der::SEQUENCE).unwrap();
    single.take(der::SEQUENCE).unwrap();
    *[0x80, 0xa1, 0x82].iter().find(|tag| single.take(**tag).is_some()).unwrap()
}

#[test]
fn ocsp_says_good_revoked_or_unknown() {
    let rig = rig_with_role(&json!({}));
    let made = issue(&rig);
    let raw = question(&rig, &serial(&made), None);
    assert_eq!(status(&rig, &ask(&rig, &raw).1), 0x80);
    write(&rig, "revoke", &json!({"serial_number": serial(&made)}));
    let nonce = [9; 32];
    let raw = question(&rig, &serial(&made), Some(&nonce));
    let (code, answer) = ask(&rig, &raw);
    assert_eq!((code, status(&rig, &answer)), (200, 0xa1));
    assert!(answer.windows(32).any(|part| part == nonce));
    // About another authority's certificate.
    let other = rig_with_role(&json!({}));
    write(&other, "root/generate/internal", &json!({"common_name": "Other", "key_type": "ed25519"}));
    let mut foreign = question(&rig, &serial(&made), None);
    let at = foreign.len() - 30;
    foreign[at - 20] ^= 1;
    assert_eq!(status(&rig, &ask(&rig, &foreign).1), 0x82);
}

#[test]
fn ocsp_refuses_what_is_no_request() {
    let rig = rig_with_role(&json!({}));
    let made = issue(&rig);
    let good = question(&rig, &serial(&made), None);
    let malformed = vec![0x30, 3, 0x0a, 1, 1];
    for raw in [&good[..good.len() - 1], &[good.as_slice(), &[0]].concat(), &[0x30, 0], &vec![0x30; 3_000]] {
        assert_eq!(ask(&rig, raw), (400, malformed.clone()));
    }
    for at in 0..good.len() {
        let mut other = good.clone();
        other[at] ^= 0x81;
        let (code, _) = ask(&rig, &other);
        assert!(matches!(code, 200 | 400), "{at}: {code}");
    }
    for nonce in [&[][..], &[1; 129]] {
        assert_eq!(ask(&rig, &question(&rig, &serial(&made), Some(nonce))).0, 400);
    }
    write(&rig, "config/crl", &json!({"ocsp_disable": true}));
    assert_eq!(ask(&rig, &good), (401, vec![0x30, 3, 0x0a, 1, 6]));
    write(&rig, "config/crl", &json!({"ocsp_disable": false}));
    call(&rig, Delete, "root", &json!({}));
    assert_eq!(ask(&rig, &good).0, 401);
}

#[test]
fn lists_that_others_put_together() {
    let rig = rig_with_role(&json!({}));
    let (one, two) = (issue(&rig), issue(&rig));
    write(&rig, "revoke", &json!({"serial_number": serial(&one)}));
    let first = read(&rig, "cert/crl")["certificate"].clone();
    let asked = json!({
        "crl_number": 7, "revoked_certs": [{"serial_number": serial(&two), "revocation_time": "2027-01-15T08:00:00Z"}],
        "extensions": [{"id": "1.2.3", "value": "BQA="}],
    });
    let second = write(&rig, "issuer/default/sign-revocation-list", &asked)["crl"].clone();
    let joined =
        write(&rig, "issuer/default/resign-crls", &json!({"crls": [first, second, first], "crl_number": 9}));
    let raw = der_of(&joined["crl"]);
    let (_, list) = CertificateRevocationList::from_der(&raw).unwrap();
    let serials: Vec<String> =
        list.iter_revoked_certificates().map(|one| one.raw_serial_as_string()).collect();
    assert_eq!(
        (serials, list.crl_number().unwrap().to_string()),
        (vec![serial(&one), serial(&two)], "9".to_owned())
    );
    let other = rig_with_role(&json!({"ttl": "2h"}));
    write(
        &other,
        "root/generate/internal",
        &json!({"common_name": "Other", "key_type": "ed25519", "issuer_name": "o"}),
    );
    let got = refused(&other, "issuer/o/resign-crls", &json!({"crls": [first]}));
    assert_eq!(got, "crl 0: it was not signed by the issuer's key");
    for bad in [
        json!({"crl_number": -1}),
        json!({"delta_crl_base_number": -2}),
        json!({"next_update": 0}),
        json!({"format": "x"}),
        json!({"revoked_certs": [{}]}),
        json!({"revoked_certs": [{"serial_number": "1"}]}),
        json!({"revoked_certs": [
            {"serial_number": "1", "revocation_time": "2027-01-15T08:00:00Z"},
            {"serial_number": "01", "revocation_time": "2027-01-15T08:00:00Z"},
        ]}),
        json!({"extensions": [{"id": "2.5.29.20", "value": "AgEB"}]}),
    ] {
        refused(&rig, "issuer/default/sign-revocation-list", &bad);
    }
    refused(&rig, "issuer/default/resign-crls", &json!({"crls": []}));
    refused(&rig, "issuer/default/resign-crls", &json!({"crls": ["x"]}));
}
