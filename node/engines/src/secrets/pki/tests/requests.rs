//! Requests for certificates, and what they try.

use std::net::IpAddr;

use arca_engine_api::Operation::Update;
use serde_json::json;

use super::{Sevens, csr, csr_of, der_of, ec_key, named, refused, rig_with_role, shown, write};
use crate::crypto::der;
use crate::secrets::pki::private_key::Signer;
use crate::secrets::pki::x509::algorithm::Algorithm;
use crate::secrets::pki::x509::certificate;
use crate::secrets::pki::x509::extension::{self, Extension};
use crate::secrets::pki::x509::name::Name;
use crate::secrets::pki::x509::oid;
use crate::secrets::pki::x509::san::{OtherName, Sans};

#[test]
fn a_request_is_signed_by_the_roles_rules() {
    let rig = rig_with_role(&json!({"organization": "Ours"}));
    let subject = Name {
        organization: vec!["Theirs".to_owned()],
        common_name: "x.a.test".to_owned(),
        ..Name::default()
    };
    let asked = [extension::basic_constraints(true, None), extension::key_usage(0x60).unwrap()];
    let text = csr_of(&ec_key(5), &subject.encode().unwrap(), &Sans::default(), &asked);
    let said =
        rig.call(Update, "sign/r", &json!({"csr": text, "common_name": "y.a.test", "ttl": "1h"})).unwrap();
    assert!(said.warnings.iter().any(|text| text.contains("Basic Constraints extension that was ignored")));
    assert!(said.warnings.iter().any(|text| text.contains("the common_name field was provided")));
    let made = said.data.unwrap();
    assert!(!made.contains_key("private_key"));
    let der = der_of(&made["certificate"]);
    let text = shown(&der);
    assert!(text.starts_with("O=Ours, CN=x.a.test <- CN=Root"), "{text}");
    assert!(!text.contains("BasicConstraints"), "{text}");
    assert!(!certificate::parse(&der).unwrap().key_usage().unwrap().unwrap().value.key_cert_sign());
}

#[test]
fn names_in_a_request_are_judged_like_any_other() {
    let rig = rig_with_role(&json!({"allow_ip_sans": false}));
    let with = |sans: Sans| json!({"csr": csr_of(&ec_key(5), &named("x.a.test"), &sans, &[])});
    let check = |sans: Sans, want: &str| {
        let got = refused(&rig, "sign/r", &with(sans));
        assert!(got.contains(want), "{got}");
    };
    check(Sans { dns: vec!["x.b.test".to_owned()], ..Sans::default() }, "subject alternate name x.b.test");
    check(Sans { dns: vec!["10.0.0.1".to_owned()], ..Sans::default() }, "subject alternate name 10.0.0.1");
    check(Sans { emails: vec!["u@b.test".to_owned()], ..Sans::default() }, "email address");
    check(Sans { ips: vec![IpAddr::from([10, 0, 0, 1])], ..Sans::default() }, "provided via CSR");
    check(Sans { uris: vec!["spiffe://x".to_owned()], ..Sans::default() }, "provided via CSR");
    let other = OtherName { oid: "1.2.3".to_owned(), value: "v".to_owned() };
    check(Sans { others: vec![other], ..Sans::default() }, "other SAN OID 1.2.3 not allowed");
    // Names of the request are taken instead of fields, or not at all.
    let made =
        write(&rig, "sign/r", &json!({"csr": csr("x.a.test", &["y.a.test"]), "alt_names": "z.a.test"}));
    let text = shown(&der_of(&made["certificate"]));
    assert!(text.contains("DNSName(y.a.test)") && !text.contains("z.a.test"), "{text}");
    write(
        &rig,
        "roles/r",
        &json!({
            "allow_any_name": true, "key_type": "ec", "use_csr_sans": false, "use_csr_common_name": false,
        }),
    );
    let made =
        write(&rig, "sign/r", &json!({"csr": csr("x.b.test", &["y.b.test"]), "common_name": "z.test"}));
    let text = shown(&der_of(&made["certificate"]));
    assert!(text.starts_with("CN=z.test ") && !text.contains("b.test"), "{text}");
}

/// CVE-2026-115369: addresses in a request lie in the role's ranges as well.
#[test]
fn cve_2026_115369_addresses_in_requests_lie_in_the_roles_ranges() {
    let rig = rig_with_role(&json!({"allowed_ip_sans_cidr": "10.0.0.0/8,fd00::/8"}));
    let with = |address: &str| {
        let sans = Sans { ips: vec![address.parse().unwrap()], ..Sans::default() };
        json!({"csr": csr_of(&ec_key(5), &named("x.a.test"), &sans, &[])})
    };
    for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
        let shown = address.trim_start_matches("::ffff:");
        let want = format!("the IP address \"{shown}\" is not allowed in this role");
        assert_eq!(refused(&rig, "sign/r", &with(address)), want);
        let asked = json!({"common_name": "x.a.test", "ip_sans": address});
        assert_eq!(refused(&rig, "issue/r", &asked), want);
    }
    write(&rig, "sign/r", &with("10.1.2.3"));
    write(&rig, "sign/r", &with("fd00::1"));
}

#[test]
fn requests_that_are_none() {
    let rig = rig_with_role(&json!({}));
    let check = |text: &str, want: &str| {
        for path in ["sign/r", "sign-verbatim", "root/sign-intermediate"] {
            let got = refused(&rig, path, &json!({"csr": text, "common_name": "x.a.test"}));
            assert!(got.contains(want), "{path}: {got}");
        }
    };
    check("", "\"csr\" is empty");
    check("x", "csr contains no data");
    check(&der::pem("CERTIFICATE", &[0x30, 0]), "no certificate request");
    check(&der::pem("CERTIFICATE REQUEST", &[0x30, 0]), "could not be parsed");
    check(&der::pem("CERTIFICATE REQUEST", &vec![0; 70_000]), "longer than 65536 bytes");
    check(&"x".repeat(200_000), "longer than 65536 bytes");
    let good = der_of(&json!(csr("x.a.test", &["y.a.test"])));
    let trailing = [good.as_slice(), &[0]].concat();
    check(&der::pem("CERTIFICATE REQUEST", &trailing), "could not be parsed");
    // A name changed after signing.
    let at = good.windows(8).position(|part| part == b"x.a.test").unwrap();
    let mut forged = good.clone();
    forged[at] = b'z';
    check(&der::pem("CERTIFICATE REQUEST", &forged), "request signature invalid");
    for cut in [10, good.len() / 2, good.len() - 1] {
        check(&der::pem("CERTIFICATE REQUEST", &good[..cut]), "could not be parsed");
    }
}

#[test]
fn requests_that_say_things_twice() {
    let rig = rig_with_role(&json!({}));
    let sans = Sans { dns: vec!["x.a.test".to_owned()], ..Sans::default() };
    let other = Sans { dns: vec!["x.b.test".to_owned()], ..Sans::default() };
    let second = Extension {
        oid: oid::SUBJECT_ALT_NAME.to_vec(),
        is_critical: false,
        value: other.encode().unwrap().unwrap(),
    };
    let text = csr_of(&ec_key(5), &named("x.a.test"), &sans, &[second]);
    for path in ["sign/r", "sign-verbatim"] {
        refused(&rig, path, &json!({"csr": text}));
    }
    // Two common names: which is judged, and which is read?
    let (one, two) = (named("x.a.test"), named("x.b.test"));
    let both = der::write(der::SEQUENCE, &[&one[2..], &two[2..]]);
    let text = csr_of(&ec_key(5), &both, &Sans::default(), &[]);
    let got = refused(&rig, "sign/r", &json!({"csr": text}));
    assert!(got.contains("common name or serial number twice"), "{got}");
}

/// A zero byte ends a name early for some who read it.
#[test]
fn names_with_zero_bytes_are_refused() {
    let rig = rig_with_role(&json!({"allow_any_name": true, "enforce_hostnames": false}));
    let raw = |value: &[u8]| {
        let attribute = der::write(
            der::SEQUENCE,
            &[&der::write(der::OID, &[oid::COMMON_NAME]), &der::write(0x0c, &[value])],
        );
        der::write(der::SEQUENCE, &[&der::write(0x31, &[&attribute])]).to_vec()
    };
    let text = csr_of(&ec_key(5), &raw(b"x.a.test\0.b.test"), &Sans::default(), &[]);
    refused(&rig, "sign/r", &json!({"csr": text}));
    let host = der::write(der::SEQUENCE, &[&der::write(0x82, &[b"x.a.test\0.b.test"])]);
    let names = Extension { oid: oid::SUBJECT_ALT_NAME.to_vec(), is_critical: false, value: host.to_vec() };
    let text = csr_of(&ec_key(5), &named("x.a.test"), &Sans::default(), &[names]);
    for path in ["sign/r", "sign-verbatim"] {
        let got = refused(&rig, path, &json!({"csr": text}));
        assert!(got.contains("printable ASCII"), "{got}");
    }
}

#[test]
fn keys_of_the_wrong_kind() {
    let rig = rig_with_role(&json!({"key_type": "rsa"}));
    let text = csr("x.a.test", &[]);
    assert_eq!(refused(&rig, "sign/r", &json!({"csr": text})), "role requires keys of type rsa");
    write(&rig, "roles/r", &json!({"allow_any_name": true, "key_type": "ec", "key_bits": 384}));
    let got = refused(&rig, "sign/r", &json!({"csr": text}));
    assert_eq!(got, "role requires a minimum of a 384-bit key, but CSR's key is 256 bits");
    // A signature by an algorithm of another kind of key.
    let signer = Signer::of(&ec_key(5)).unwrap();
    let info = crate::secrets::pki::x509::request::info(&named("x.a.test"), signer.spki(), &[]);
    let signature = signer.sign(Algorithm::of(signer.kind(), 0, false), &info, &Sevens).unwrap();
    let raw = certificate::signed(&info, Algorithm::Ed25519, &signature);
    let got = refused(&rig, "sign/r", &json!({"csr": *der::pem("CERTIFICATE REQUEST", &raw)}));
    assert_eq!(got, "request signature invalid");
}

#[test]
fn verbatim_takes_what_is_asked_for_but_no_authority() {
    let rig = rig_with_role(&json!({}));
    let subject = Name {
        organization: vec!["Theirs".to_owned()],
        common_name: "any.test".to_owned(),
        ..Name::default()
    };
    let asked = [
        extension::basic_constraints(true, None),
        extension::subject_key_id(&[1; 20]),
        extension::key_usage(1).unwrap(),
        extension::authority_key_id(&[2; 20]).unwrap(),
    ];
    let sans = Sans { ips: vec![IpAddr::from([192, 0, 2, 1])], ..Sans::default() };
    let text = csr_of(&ec_key(5), &subject.encode().unwrap(), &sans, &asked);
    for path in ["sign-verbatim", "sign-verbatim/r", "issuer/default/sign-verbatim"] {
        let made = write(&rig, path, &json!({"csr": text, "ttl": "1h"}));
        let der = der_of(&made["certificate"]);
        let text = shown(&der);
        assert!(text.starts_with("O=Theirs, CN=any.test <- CN=Root"), "{text}");
        assert!(text.contains("IPAddress(c0:00:02:01)") && !text.contains("BasicConstraints"), "{text}");
        let parsed = certificate::parse(&der).unwrap();
        let usage = parsed.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_encipherment() && !usage.key_cert_sign());
        assert!(!der.windows(20).any(|part| part == [1; 20] || part == [2; 20]));
    }
    assert_eq!(refused(&rig, "sign-verbatim/none", &json!({"csr": text})), "unknown role: none");
}

#[test]
fn whatever_bit_is_changed_the_request_is_refused() {
    let rig = rig_with_role(&json!({}));
    let good = der_of(&json!(csr("x.a.test", &["y.a.test"])));
    for at in 0..good.len() {
        for bit in [0, 7] {
            let mut other = good.clone();
            other[at] ^= 1 << bit;
            refused(&rig, "sign/r", &json!({"csr": *der::pem("CERTIFICATE REQUEST", &other)}));
        }
    }
}
