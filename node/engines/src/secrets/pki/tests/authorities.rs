//! Issuers and keys: made, imported, signed by one another, changed and removed.

use arca_engine_api::Operation::{Delete, List, Patch, Read, Update};
use serde_json::{Value, json};

use super::{
    body, call, csr, csr_of, der_of, ec_key, named, read, refused, rig, rig_with_role, shown, write,
};
use crate::crypto::der;
use crate::secrets::pki::x509::certificate::{self, colons};
use crate::secrets::pki::x509::extension::{self, Extension};
use crate::secrets::pki::x509::oid;
use crate::secrets::pki::x509::public_key::PublicKey;
use crate::secrets::pki::x509::san::Sans;
use crate::testing::Rig;

#[track_caller]
fn check_signed(child: &Value, parent: &Value) {
    let (child, parent) = (der_of(child), der_of(parent));
    let (parsed, above) = (certificate::parse(&child).unwrap(), certificate::parse(&parent).unwrap());
    assert_eq!(parsed.issuer().as_raw(), above.subject().as_raw());
    assert!(certificate::is_signed_by(&parsed, &child, &PublicKey::of(above.public_key().raw).unwrap()));
}

fn root(rig: &Rig, settings: &Value) -> serde_json::Map<String, Value> {
    let mut asked = json!({"common_name": "Root", "key_type": "ec", "ttl": "700h"});
    for (name, value) in settings.as_object().unwrap() {
        asked[name] = value.clone();
    }
    write(rig, "root/generate/internal", &asked)
}

/// An intermediate in `below`, signed by the default issuer of `above`.
fn intermediate(above: &Rig, below: &Rig, how: &Value) -> serde_json::Map<String, Value> {
    let made =
        write(below, "intermediate/generate/internal", &json!({"common_name": "Inter", "key_type": "ec"}));
    let mut asked = json!({"csr": made["csr"], "common_name": "Inter", "ttl": "600h"});
    for (name, value) in how.as_object().unwrap() {
        asked[name] = value.clone();
    }
    let signed = write(above, "root/sign-intermediate", &asked);
    let chain: Vec<&str> =
        signed["ca_chain"].as_array().unwrap().iter().map(|pem| pem.as_str().unwrap()).collect();
    write(below, "intermediate/set-signed", &json!({"certificate": chain.join("\n")}));
    signed
}

#[test]
fn a_chain_of_two_mounts() {
    let (above, below) = (rig(), rig());
    let top = root(&above, &json!({}));
    assert_eq!(
        shown(&der_of(&top["certificate"])),
        "CN=Root <- CN=Root\n! KeyUsage\n! BasicConstraints\n  SubjectKeyIdentifier\n  AuthorityKeyIdentifier\n  SubjectAlternativeName DNSName(Root)\n"
    );
    let signed = intermediate(&above, &below, &json!({}));
    check_signed(&signed["certificate"], &top["certificate"]);
    write(&below, "roles/r", &json!({"allow_any_name": true, "key_type": "ec"}));
    let leaf = write(&below, "issue/r", &json!({"common_name": "x.test"}));
    check_signed(&leaf["certificate"], &signed["certificate"]);
    assert_eq!(leaf["ca_chain"], json!([signed["certificate"], top["certificate"]]));
    assert_eq!(leaf["issuing_ca"], signed["certificate"]);
    let chain = String::from_utf8(body(&below, "ca_chain")).unwrap();
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    // The root came without its key: it is listed, and signs nothing.
    let listed = call(&below, List, "issuers/", &json!({}));
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2);
    assert_eq!(call(&below, List, "keys/", &json!({}))["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn lengths_of_paths() {
    let (above, below) = (rig(), rig());
    root(&above, &json!({"max_path_length": 1}));
    intermediate(&above, &below, &json!({}));
    let text = csr("Deep", &[]);
    let got = refused(&below, "root/sign-intermediate", &json!({"csr": text, "common_name": "Deep"}));
    assert!(got.contains("max path length of zero"), "{got}");
    for len in [5, -1] {
        let asked = json!({"csr": text, "common_name": "Deep", "max_path_length": len});
        let said = above.call(Update, "root/sign-intermediate", &asked).unwrap();
        let der = der_of(&said.data.unwrap()["certificate"]);
        let parsed = certificate::parse(&der).unwrap();
        let constraints = parsed.basic_constraints().unwrap().unwrap().value;
        assert_eq!(constraints.path_len_constraint, Some(0));
        assert!(said.warnings.iter().any(|text| text.contains("beyond what the issuer allows")), "{len}");
    }
    refused(&above, "root/generate/internal", &json!({"key_type": "ec", "max_path_length": 256}));
    let said = above.say(
        Update,
        "root/generate/internal",
        &json!({"common_name": "Z", "key_type": "ec", "max_path_length": 0}),
    );
    assert!(said.contains("Max path length of the certificate is zero"), "{said}");
}

#[test]
fn intermediates_by_the_values_of_the_request() {
    let rig = rig_with_role(&json!({}));
    let sans = Sans { dns: vec!["ca.test".to_owned()], ..Sans::default() };
    let asked = [extension::basic_constraints(false, None), extension::key_usage(1).unwrap()];
    let text = csr_of(&ec_key(6), &named("Theirs"), &sans, &asked);
    let how =
        json!({"csr": text, "use_csr_values": true, "permitted_dns_domains": "a.test", "skid": "01:02:03"});
    let made = write(&rig, "issuer/default/sign-intermediate", &how);
    let der = der_of(&made["certificate"]);
    let text = shown(&der);
    assert!(text.starts_with("CN=Theirs <- CN=Root") && text.contains("! NameConstraints"), "{text}");
    let parsed = certificate::parse(&der).unwrap();
    assert!(parsed.is_ca() && parsed.key_usage().unwrap().unwrap().value.key_cert_sign());
    assert!(der.windows(5).any(|part| part == [4, 3, 1, 2, 3]));
    refused(&rig, "root/sign-intermediate", &json!({"csr": csr("x", &[]), "skid": "xyz"}));
}

/// An extension of a certificate.
fn extension_of(der: &[u8], oid: &[u8]) -> Option<Extension> {
    let parsed = certificate::parse(der).unwrap();
    let found = parsed.extensions().iter().find(|extension| extension.oid.as_bytes() == oid)?;
    Some(Extension { oid: oid.to_vec(), is_critical: found.critical, value: found.value.to_vec() })
}

fn permitted(domain: &str) -> Extension {
    extension::permitted_dns(&[domain.to_owned()]).unwrap().unwrap()
}

/// Who is to be signed would say itself where it may sign, and what for.
#[test]
fn a_csr_overrides_nothing_that_the_request_says() {
    let rig = rig_with_role(&json!({}));
    let purposes = |name: &str| extension::extended_key_usage(&[extension::purpose(name).unwrap()]).unwrap();
    let asked = [Extension { is_critical: false, ..permitted("evil.example") }, purposes("codesigning")];
    let text = csr_of(&ec_key(6), &named("Theirs"), &Sans::default(), &asked);
    let [theirs, their_purposes] = asked;
    let check = |path: &str, how: &Value, names: &Extension, what_for: &Extension| {
        let mut how = how.clone();
        how["csr"] = json!(text);
        let der = der_of(&write(&rig, path, &how)["certificate"]);
        assert_eq!(extension_of(&der, oid::NAME_CONSTRAINTS).as_ref(), Some(names), "{path} {how}");
        assert_eq!(extension_of(&der, oid::EXTENDED_KEY_USAGE).as_ref(), Some(what_for), "{path} {how}");
    };
    let (sign, taken) = ("root/sign-intermediate", json!({"use_csr_values": true}));
    check(sign, &taken, &theirs, &their_purposes);
    let ours = json!({"use_csr_values": true, "permitted_dns_domains": "a.test"});
    check(sign, &ours, &permitted("a.test"), &their_purposes);
    let ours = json!({"use_csr_values": true, "ext_key_usage": "ServerAuth"});
    check(sign, &ours, &theirs, &purposes("serverauth"));
    let ours = json!({"use_csr_values": true, "ext_key_usage_oids": "1.3.6.1.5.5.7.3.9"});
    check(sign, &ours, &theirs, &purposes("ocspsigning"));
    check("sign-verbatim", &json!({}), &theirs, &their_purposes);
    check("sign-verbatim", &json!({"ext_key_usage": "ClientAuth"}), &theirs, &purposes("clientauth"));
}

#[test]
fn roots_follow_one_another() {
    let rig = rig();
    root(&rig, &json!({"issuer_name": "first"}));
    let next = write(&rig, "root/rotate/internal", &json!({"common_name": "Root", "key_type": "ec"}));
    assert_eq!(next["issuer_name"], "next");
    assert_ne!(read(&rig, "config/issuers")["default"], next["issuer_id"]);
    assert_eq!(write(&rig, "root/replace", &json!({}))["default"], next["issuer_id"]);
    write(&rig, "config/issuers", &json!({"default": "first", "default_follows_latest_issuer": true}));
    let third =
        write(&rig, "issuers/generate/root/internal", &json!({"common_name": "R3", "key_type": "ed25519"}));
    assert_eq!(read(&rig, "config/issuers")["default"], third["issuer_id"]);
    for bad in ["default", "", "none"] {
        refused(&rig, "config/issuers", &json!({"default": bad}));
    }
    refused(&rig, "root/generate/internal", &json!({"issuer_name": "first", "key_type": "ec"}));
    refused(&rig, "root/generate/internal", &json!({"issuer_name": "default", "key_type": "ec"}));
    refused(&rig, "root/generate/internal", &json!({"issuer_name": "a/b", "key_type": "ec"}));
    refused(&rig, "root/generate/kms", &json!({"key_type": "ec"}));
}

#[test]
fn a_key_of_old_signs_a_new_root() {
    let rig = rig();
    let first = root(&rig, &json!({"key_name": "k"}));
    let again = write(&rig, "root/generate/existing", &json!({"common_name": "Root", "key_ref": "k"}));
    assert_eq!(again["key_id"], first["key_id"]);
    assert_ne!(again["issuer_id"], first["issuer_id"]);
    let asked = write(&rig, "intermediate/cross-sign", &json!({"common_name": "Root", "key_ref": "k"}));
    assert_eq!(asked["key_id"], first["key_id"]);
    refused(&rig, "root/generate/existing", &json!({"key_ref": "none"}));
}

#[test]
fn a_new_root_is_trusted_by_way_of_the_old() {
    let rig = rig();
    let old = root(&rig, &json!({"issuer_name": "old", "common_name": "Old"}));
    let new = root(&rig, &json!({"issuer_name": "new", "common_name": "New"}));
    let crossed = write(&rig, "issuer/old/sign-self-issued", &json!({"certificate": new["certificate"]}));
    check_signed(&crossed["certificate"], &old["certificate"]);
    let der = der_of(&crossed["certificate"]);
    assert!(certificate::parse(&der).unwrap().is_ca());
    // Whose certificate it is chose its serial number, perhaps that of another of ours; it would be revoked with that.
    let again = write(&rig, "issuer/old/sign-self-issued", &json!({"certificate": new["certificate"]}));
    let serial = |pem: &Value| colons(&certificate::serial(&certificate::parse(&der_of(pem)).unwrap()));
    let serials = [&new, &crossed, &again].map(|made| serial(&made["certificate"]));
    assert!(serials[0] != serials[1] && serials[0] != serials[2] && serials[1] != serials[2], "{serials:?}");
    for made in [&crossed, &again] {
        let serial = serial(&made["certificate"]);
        assert_eq!(read(&rig, &format!("cert/{serial}"))["certificate"], made["certificate"]);
    }
    write(&rig, "revoke", &json!({"serial_number": serials[1]}));
    assert_ne!(read(&rig, &format!("cert/{}", serials[1]))["revocation_time"], 0);
    assert_eq!(read(&rig, &format!("cert/{}", serials[2]))["revocation_time"], 0);
    let leaf = csr("x.test", &[]);
    let leaf = write(&rig, "sign-verbatim", &json!({"csr": leaf, "ttl": "1h"}));
    refused(&rig, "root/sign-self-issued", &json!({"certificate": leaf["certificate"]}));
    let asked = json!({"csr": csr("I", &[]), "common_name": "I"});
    let inter = write(&rig, "root/sign-intermediate", &asked);
    let got = refused(&rig, "root/sign-self-issued", &json!({"certificate": inter["certificate"]}));
    assert_eq!(got, "given certificate is not self-issued");
}

#[test]
fn bundles_come_in_and_only_once() {
    let (there, here) = (rig(), rig());
    let made = write(
        &there,
        "root/generate/exported",
        &json!({"common_name": "Out", "key_type": "ec", "ttl": "99h"}),
    );
    let (certificate, key) = (made["certificate"].as_str().unwrap(), made["private_key"].as_str().unwrap());
    // The certificate before its key: the key is found for it later.
    let first = write(&here, "issuers/import/cert", &json!({"pem_bundle": certificate}));
    let id = first["imported_issuers"][0].as_str().unwrap().to_owned();
    assert_eq!(first["mapping"][&id], "");
    let got = refused(&here, "issuers/import/cert", &json!({"pem_bundle": format!("{key}\n{certificate}")}));
    assert!(got.contains("not allowed by the path"), "{got}");
    let second =
        write(&here, "issuers/import/bundle", &json!({"pem_bundle": format!("{key}\n{certificate}")}));
    assert_eq!(second["existing_issuers"], json!([id]));
    assert_eq!(second["mapping"][&id], second["imported_keys"][0]);
    let third = write(&here, "config/ca", &json!({"pem_bundle": format!("note\n{key}\n{certificate}\n")}));
    assert_eq!(
        (third["existing_keys"].clone(), &third["imported_keys"]),
        (second["imported_keys"].clone(), &Value::Null)
    );
    write(&here, "roles/r", &json!({"allow_any_name": true, "key_type": "ec", "ttl": "1h"}));
    write(&here, "issue/r", &json!({"common_name": "x.test"}));
    let key_alone = write(&rig(), "keys/import", &json!({"pem_bundle": key, "key_name": "k"}));
    assert_eq!((&key_alone["key_name"], &key_alone["key_type"]), (&json!("k"), &json!("ec")));
}

#[test]
fn bundles_that_are_none() {
    let rig = rig_with_role(&json!({}));
    let leaf = write(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    let check = |text: &str, want: &str| {
        let got = refused(&rig, "issuers/import/bundle", &json!({"pem_bundle": text}));
        assert!(got.contains(want), "{got}");
    };
    check(leaf["certificate"].as_str().unwrap(), "it is no CA certificate");
    check("x", "too short");
    check(&"x".repeat(100), "invalid PEM data");
    check(&der::pem("CERTIFICATE", &[0x30; 60]), "could not be parsed");
    check(&der::pem("PRIVATE KEY", &[0x30; 60]), "malformed or of an unknown type");
    check(&der::pem("ENCRYPTED PRIVATE KEY", &[0x30; 60]), "is encrypted");
    check(&der::pem("PUBLIC KEY", &[0x30; 60]), "neither certificate nor key");
    refused(&rig, "issuers/import/bundle", &json!({}));
    refused(&rig, "issuers/import/bundle", &json!({"pem_bundle": "x", "certificate": "x"}));
}

#[test]
fn issuers_are_changed() {
    let rig = rig_with_role(&json!({}));
    let id = read(&rig, "config/issuers")["default"].as_str().unwrap().to_owned();
    write(&rig, &format!("issuer/{id}"), &json!({"issuer_name": "main", "usage": "read-only,crl-signing"}));
    let got = refused(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    assert!(got.contains("lacks the usage issuing-certificates"), "{got}");
    call(&rig, Patch, "issuer/main", &json!({"usage": "issuing-certificates", "ocsp_servers": "http://o/"}));
    let shown = read(&rig, "issuer/main");
    assert_eq!(
        (&shown["usage"], &shown["issuer_name"]),
        (&json!("issuing-certificates,read-only"), &json!("main"))
    );
    assert_eq!(shown["ocsp_servers"], json!(["http://o/"]));
    write(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    for bad in [
        json!({"usage": "x"}),
        json!({"leaf_not_after_behavior": "x"}),
        json!({"revocation_signature_algorithm": "x"}),
        json!({"revocation_signature_algorithm": "SHA256WithRSA"}),
        json!({"manual_chain": "none"}),
        json!({"ocsp_servers": "x"}),
        json!({"issuer_name": "default"}),
    ] {
        refused(&rig, "issuer/main", &bad);
    }
    call(&rig, Delete, "issuer/main", &json!({}));
    assert!(rig.say(Read, "issuer/main", &json!({})).contains("unable to find PKI issuer"));
    let got = refused(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    assert!(got.contains("no default issuer currently configured"), "{got}");
}

#[test]
fn templates_in_urls() {
    let rig = rig_with_role(&json!({}));
    let urls = json!({"issuing_certificates": "{{cluster_aia_path}}/issuer/{{issuer_id}}/der", "enable_templating": true});
    assert!(rig.say(Update, "config/urls", &urls).contains("issuance may fail"));
    let got = refused(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    assert!(got.contains("unable to template"), "{got}");
    write(&rig, "config/cluster", &json!({"path": "https://p/v1/pki", "aia_path": "http://a/v1/pki"}));
    let made = write(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    let id = read(&rig, "config/issuers")["default"].as_str().unwrap().to_owned();
    let want = format!("http://a/v1/pki/issuer/{id}/der");
    let der = der_of(&made["certificate"]);
    assert!(der.windows(want.len()).any(|part| part == want.as_bytes()));
    refused(&rig, "config/urls", &json!({"enable_templating": false, "ocsp_servers": "{{issuer_id}}"}));
    refused(&rig, "config/cluster", &json!({"path": "x"}));
}

#[test]
fn keys_are_named_kept_and_removed() {
    let rig = rig();
    let made = write(&rig, "keys/generate/exported", &json!({"key_type": "ed25519", "key_name": "k"}));
    assert!(made["private_key"].as_str().unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    refused(&rig, "keys/generate/internal", &json!({"key_type": "ec", "key_name": "k"}));
    write(&rig, "key/k", &json!({"key_name": "l"}));
    assert!(rig.say(Read, "key/k", &json!({})).contains("unable to find PKI key"));
    assert_eq!(read(&rig, "key/l")["key_type"], "ed25519");
    write(&rig, "root/generate/existing", &json!({"common_name": "R", "key_ref": "l"}));
    assert!(rig.say(Delete, "key/l", &json!({})).contains("Key in Use by Issuer"));
    call(&rig, Delete, "issuer/default", &json!({}));
    assert!(rig.say(Delete, "key/l", &json!({})).contains("configured as the default key"));
    assert!(!rig.stored().iter().any(|key| key.starts_with("key")), "{:?}", rig.stored());
    write(&rig, "root/generate/internal", &json!({"common_name": "R", "key_type": "ec"}));
    assert!(rig.say(Delete, "root", &json!({})).contains("deletes all keys and issuers"));
    assert!(
        !rig.stored().iter().any(|key| key.starts_with("key") || key.starts_with("issuer")),
        "{:?}",
        rig.stored()
    );
}

/// A signer made ready before its key was removed signs nothing more.
#[test]
fn a_removed_key_signs_nothing() {
    let rig = rig_with_role(&json!({}));
    write(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    let pem = read(&rig, "cert/ca")["certificate"].clone();
    call(&rig, Delete, "root", &json!({}));
    write(&rig, "issuers/import/cert", &json!({"pem_bundle": pem}));
    let got = refused(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    assert!(got.contains("unable to fetch corresponding key"), "{got}");
}
