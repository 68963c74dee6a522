//! Certificates under roles.

use arca_engine_api::Operation::{Delete, List, Patch, Read, Update};
use serde_json::{Value, json};

use super::{body, call, csr, der_of, read, refused, rig, rig_with_role, shown, write};
use crate::secrets::pki::x509::certificate;
use crate::secrets::pki::x509::public_key::PublicKey;
use crate::testing::Rig;

#[test]
fn a_certificate_from_beginning_to_end() {
    let rig = rig_with_role(&json!({"organization": "B,A", "policy_identifiers": "1.2.3"}));
    write(
        &rig,
        "config/urls",
        &json!({"ocsp_servers": "http://x/ocsp", "crl_distribution_points": "http://x/crl"}),
    );
    let made = write(
        &rig,
        "issue/r",
        &json!({"common_name": "x.a.test", "alt_names": "y.a.test, u@z.a.test", "ip_sans": "10.0.0.1,::1"}),
    );
    assert_eq!(made["private_key_type"], "ec");
    assert_eq!(made["expiration"].as_u64().unwrap() - made["not_before"].as_u64().unwrap(), 3_630);
    let der = der_of(&made["certificate"]);
    assert_eq!(
        shown(&der),
        "O=A + O=B, CN=x.a.test <- CN=Root\n\
         ! KeyUsage\n  ExtendedKeyUsage\n  SubjectKeyIdentifier\n  AuthorityKeyIdentifier\n  AuthorityInfoAccess\n  \
         SubjectAlternativeName DNSName(x.a.test) DNSName(y.a.test) RFC822Name(u@z.a.test) IPAddress(0a:00:00:01) \
         IPAddress(00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:01)\n  CertificatePolicies\n  CRLDistributionPoints\n"
    );
    let root = der_of(&made["issuing_ca"]);
    let parsed = certificate::parse(&der).unwrap();
    let key = certificate::parse(&root).unwrap();
    assert!(certificate::is_signed_by(&parsed, &der, &PublicKey::of(key.public_key().raw).unwrap()));
    let serial = made["serial_number"].as_str().unwrap();
    assert_eq!((serial.len(), parsed.raw_serial_as_string().as_str()), (59, serial));
    assert_eq!(read(&rig, &format!("cert/{serial}"))["certificate"], made["certificate"]);
    assert_eq!(body(&rig, &format!("cert/{}/raw", serial.replace(':', "-"))), der);
    let serials = call(&rig, List, "certs/", &json!({}));
    assert!(serials["keys"].as_array().unwrap().contains(&json!(serial)));
    let details = call(&rig, List, "certs/detailed/", &json!({}));
    assert_eq!(details["key_info"][serial]["dns_names"], json!(["x.a.test", "y.a.test"]));
}

#[test]
fn every_format() {
    let rig = rig_with_role(&json!({}));
    let made = |how: Value| {
        let mut data = json!({"common_name": "x.a.test"});
        for (name, value) in how.as_object().unwrap() {
            data[name] = value.clone();
        }
        write(&rig, "issue/r", &data)
    };
    let text = |map: &serde_json::Map<String, Value>, name: &str| map[name].as_str().unwrap().to_owned();
    let pem = made(json!({}));
    assert!(text(&pem, "private_key").starts_with("-----BEGIN EC PRIVATE KEY-----"));
    let pkcs8 = made(json!({"private_key_format": "pkcs8"}));
    assert!(text(&pkcs8, "private_key").starts_with("-----BEGIN PRIVATE KEY-----"));
    let bundle = made(json!({"format": "pem_bundle"}));
    let (certificate, key) = (text(&bundle, "certificate"), text(&bundle, "private_key"));
    assert!(certificate.starts_with(&key));
    assert_eq!(certificate.matches("BEGIN CERTIFICATE").count(), 2);
    let der = made(json!({"format": "der"}));
    assert!(text(&der, "certificate").starts_with("MII") && text(&der, "private_key").starts_with("MHc"));
    let bare = made(json!({"remove_roots_from_chain": true}));
    assert!(!bare.contains_key("ca_chain"));
    for (field, value) in [("format", "x"), ("private_key_format", "x")] {
        refused(&rig, "issue/r", &json!({"common_name": "x.a.test", field: value}));
    }
}

#[test]
fn every_kind_of_key() {
    let rig = rig_with_role(&json!({"key_type": "any"}));
    for (kind, bits) in [("ec", 256), ("ec", 384), ("ec", 521), ("ed25519", 0), ("rsa", 2048)] {
        let asked = json!({"common_name": "x.a.test", "key_type": kind, "key_bits": bits});
        let made = write(&rig, "issue/r", &asked);
        let der = der_of(&made["certificate"]);
        let parsed = certificate::parse(&der).unwrap();
        let key = PublicKey::of(parsed.public_key().raw).unwrap();
        assert_eq!((key.kind.name(), key.kind.bits()), (kind, bits));
    }
    let text = refused(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    assert!(text.contains("only signing"), "{text}");
    for (kind, bits) in [("rsa", 1024), ("rsa", 2049), ("ec", 224), ("dsa", 0), ("rsa", 8192)] {
        refused(&rig, "issue/r", &json!({"common_name": "x.a.test", "key_type": kind, "key_bits": bits}));
    }
}

#[track_caller]
fn check(rig: &Rig, data: &Value, want: &str) {
    assert_eq!(refused(rig, "issue/r", data), want, "{data}");
}

#[test]
fn what_a_role_does_not_allow() {
    let rig = rig_with_role(&json!({}));
    let n = "x.a.test";
    check(&rig, &json!({"common_name": "x.b.test"}), "common name x.b.test not allowed by this role");
    check(&rig, &json!({"common_name": "a.test"}), "common name a.test not allowed by this role");
    check(&rig, &json!({"common_name": "10.0.0.1"}), "common name 10.0.0.1 not allowed by this role");
    check(
        &rig,
        &json!({"common_name": n, "alt_names": "y.b.test"}),
        "subject alternate name y.b.test not allowed by this role",
    );
    check(
        &rig,
        &json!({"common_name": n, "alt_names": "10.0.0.1"}),
        "subject alternate name 10.0.0.1 not allowed by this role",
    );
    check(
        &rig,
        &json!({"common_name": n, "alt_names": "u@b.test"}),
        "email address u@b.test not allowed by this role",
    );
    check(
        &rig,
        &json!({"common_name": n, "ip_sans": "999.1.1.1"}),
        "the value \"999.1.1.1\" is not a valid IP address",
    );
    check(
        &rig,
        &json!({"common_name": n, "uri_sans": "spiffe://x/y"}),
        "URI Subject Alternative Names are not allowed in this role, but were provided via the API",
    );
    check(
        &rig,
        &json!({"common_name": n, "other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:x@y"}),
        "other SAN OID 1.3.6.1.4.1.311.20.2.3 not allowed by this role",
    );
    check(&rig, &json!({"common_name": n, "serial_number": "7"}), "serial_number 7 not allowed by this role");
    check(&rig, &json!({"common_name": n, "user_ids": "u"}), "user_id u is not allowed by this role");
    let missing = refused(&rig, "issue/r", &json!({}));
    assert!(missing.starts_with("the common_name field is required"), "{missing}");
    assert_eq!(refused(&rig, "issue/none", &json!({"common_name": n})), "unknown role: none");
    for odd in ["x.a.test\0.b.test", "x\n.a.test", "x.ä.a.test", "x.a.test, y", " x.a.test"] {
        refused(&rig, "issue/r", &json!({"common_name": odd}));
    }
}

#[test]
fn what_a_role_allows_besides() {
    let rig = rig_with_role(&json!({
        "allowed_uri_sans": "spiffe://x/*", "allowed_other_sans": "1.3.6.1.4.1.311.20.2.3;utf8:*@a.test",
        "allowed_serial_numbers": "s-*", "allowed_user_ids": "u*", "require_cn": false,
    }));
    let asked = json!({
        "uri_sans": "spiffe://x/y", "other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:u@a.test", "serial_number": "s-1",
        "user_ids": "u1,u2", "alt_names": "x.a.test",
    });
    let made = write(&rig, "issue/r", &asked);
    let text = shown(&der_of(&made["certificate"]));
    assert!(text.starts_with("serialNumber=s-1, uid=u1, uid=u2 <- CN=Root"), "{text}");
    assert!(text.contains("OtherName") && text.contains("URI(spiffe://x/y)"), "{text}");
    let nameless = write(&rig, "issue/r", &json!({"alt_names": "x.a.test"}));
    // Without a subject the alternative names have to be understood.
    assert!(shown(&der_of(&nameless["certificate"])).contains("! SubjectAlternativeName"));
    refused(&rig, "issue/r", &json!({"other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:u@b.test"}));
    refused(&rig, "issue/r", &json!({"uri_sans": "spiffe://y/y"}));
}

/// CVE-2022-25243: no wildcard where neither subdomains nor patterns are allowed.
#[test]
fn cve_2022_25243_no_wildcard_without_subdomains() {
    for settings in [json!({}), json!({"allow_bare_domains": true}), json!({"enforce_hostnames": false})] {
        let rig = rig_with_role(&settings);
        write(&rig, "roles/r", &{
            let mut role = json!({"allowed_domains": "d.test", "key_type": "ec"});
            for (name, value) in settings.as_object().unwrap() {
                role[name] = value.clone();
            }
            role
        });
        for name in ["*.d.test", "a.*.d.test", "*d.test", "x*.d.test"] {
            refused(&rig, "issue/r", &json!({"common_name": name}));
            refused(&rig, "sign/r", &json!({"csr": csr(name, &[])}));
            refused(&rig, "sign/r", &json!({"csr": csr("d.test", &[name])}));
        }
    }
}

/// CVE-2026-89322: names that differ in case or spacing are different roles, or none.
#[test]
fn cve_2026_89322_role_names_are_taken_letter_for_letter() {
    let rig = rig_with_role(&json!({}));
    write(&rig, "roles/admin", &json!({"allow_any_name": true, "key_type": "ec"}));
    for other in ["ADMIN", "Admin"] {
        assert_eq!(
            refused(&rig, &format!("issue/{other}"), &json!({"common_name": "x.a.test"})),
            format!("unknown role: {other}")
        );
        write(&rig, &format!("roles/{other}"), &json!({"key_type": "ed25519"}));
    }
    assert_eq!(read(&rig, "roles/admin")["key_type"], "ec");
    for none in ["admin ", " admin", "ad min", "admin\u{200b}"] {
        refused(&rig, &format!("roles/{none}"), &json!({}));
    }
    assert_eq!(call(&rig, List, "roles/", &json!({}))["keys"], json!(["ADMIN", "Admin", "admin", "r"]));
}

#[test]
fn roles_are_kept_changed_and_refused() {
    let rig = rig();
    let made =
        rig.say(Update, "roles/r", &json!({"key_type": "ec", "generate_lease": true, "no_store": true}));
    assert!(made.contains("\"key_bits\":256") && made.contains("no_store=true takes priority"), "{made}");
    assert!(made.contains("no default issuing certificate"), "{made}");
    call(&rig, Patch, "roles/r", &json!({"ttl": "2h", "allowed_domains": ["a.test", "b.test"]}));
    let role = read(&rig, "roles/r");
    assert_eq!((&role["ttl"], &role["key_type"]), (&json!(7200), &json!("ec")));
    assert_eq!(role["allowed_domains"], json!(["a.test", "b.test"]));
    assert_eq!(role["cn_validations"], json!(["email", "hostname"]));
    call(&rig, Patch, "roles/r", &json!({"key_type": "rsa"}));
    assert_eq!(read(&rig, "roles/r")["key_bits"], 2048);
    for bad in [
        json!({"key_type": "x"}),
        json!({"key_type": "ec", "key_bits": 123}),
        json!({"key_bits": 1024}),
        json!({"ttl": "10h", "max_ttl": "1h"}),
        json!({"ttl": "1000000h"}),
        json!({"ttl": "-1h"}),
        json!({"cn_validations": "x"}),
        json!({"cn_validations": "disabled,email"}),
        json!({"ext_key_usage_oids": "x"}),
        json!({"policy_identifiers": "x"}),
        json!({"allowed_other_sans": "x"}),
        json!({"allowed_ip_sans_cidr": "10.0.0.0/99"}),
        json!({"signature_bits": 1}),
        json!({"not_after": "tomorrow"}),
        json!({"not_after_bound": "x"}),
        json!({"not_before_bound": "x"}),
        json!({"organization": "a\u{0}b"}),
    ] {
        refused(&rig, "roles/r", &bad);
    }
    call(&rig, Delete, "roles/r", &json!({}));
    assert_eq!(rig.say(Read, "roles/r", &json!({})), "error: not found");
}

#[test]
fn leases_end_with_the_certificate_revoked() {
    let rig = rig_with_role(&json!({"generate_lease": true}));
    let made = rig.call(Update, "issue/r", &json!({"common_name": "x.a.test"})).unwrap();
    let lease = made.lease.unwrap();
    assert_eq!((lease.ttl.as_secs(), lease.is_renewable), (3_600, false));
    let serial = made.data.unwrap()["serial_number"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(rig.end_lease(&lease.internal), "");
    }
    assert_ne!(read(&rig, &format!("cert/{serial}"))["revocation_time"], 0);
    assert_eq!(call(&rig, List, "certs/revoked/", &json!({}))["keys"], json!([serial]));
    // One that ended by itself, and one that is gone.
    let late = rig.call(Update, "issue/r", &json!({"common_name": "x.a.test"})).unwrap().lease.unwrap();
    rig.advance(3_700);
    assert_eq!(rig.end_lease(&late.internal), "");
    let gone = json!({"serial_number": "01:02"});
    assert_eq!(rig.end_lease(gone.as_object().unwrap()), "");
    assert_eq!(call(&rig, List, "certs/revoked/", &json!({}))["keys"], json!([serial]));
}

#[test]
fn what_is_not_stored_is_not_there() {
    let rig = rig_with_role(&json!({"no_store": true, "generate_lease": true}));
    let before = rig.stored();
    let made = rig.call(Update, "issue/r", &json!({"common_name": "x.a.test"})).unwrap();
    assert!(made.lease.is_none());
    assert_eq!(rig.stored(), before);
}

#[test]
fn nothing_shows_a_private_key() {
    let rig = rig_with_role(&json!({}));
    let made = write(
        &rig,
        "root/generate/exported",
        &json!({"common_name": "R", "key_type": "ec", "key_name": "k"}),
    );
    let key = made["private_key"].as_str().unwrap();
    let line = key.lines().nth(1).unwrap();
    for path in ["key/k", "issuer/default", "issuer/default/json", "config/keys", "cert/ca", "tidy-status"] {
        assert!(!rig.say(Read, path, &json!({})).contains(line), "{path}");
    }
    for path in ["keys/", "issuers/", "certs/", "certs/detailed/"] {
        assert!(!rig.say(List, path, &json!({})).contains(line), "{path}");
    }
}
