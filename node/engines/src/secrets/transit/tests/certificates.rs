//! Requests for certificates, and the certificates that come of them.

use arca_engine_api::Operation::{Read, Update};
use serde_json::{Map, Value, json};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

use super::rig;
use crate::secrets::transit::{der, text};
use crate::testing::Rig;

#[track_caller]
fn data(rig: &Rig, path: &str, data: &Value) -> Map<String, Value> {
    let operation = if path.starts_with("export/") { Read } else { Update };
    rig.call(operation, path, data)
        .unwrap_or_else(|err| panic!("{path} {data}: {err}"))
        .data
        .unwrap_or_default()
}

fn make(rig: &Rig, name: &str, settings: &Value) {
    data(rig, &format!("keys/{name}"), settings);
}

/// A request for a certificate with names, and a certificate, both of other keys.
const TEMPLATE: &str = include_str!("../testdata/template.csr.pem");

#[test]
fn requests_for_certificates_take_the_names_of_a_template() {
    let rig = rig();
    for name in ["ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-2048"] {
        make(&rig, name, &json!({ "type": name }));
        let public =
            data(&rig, &format!("export/public-key/{name}"), &json!({"format": "der"}))["keys"]["1"].clone();
        for (template, subject, attributes) in [("", "", 0), (TEMPLATE, "C=DE, O=Example, CN=example.org", 1)]
        {
            let made = data(&rig, &format!("keys/{name}/csr"), &json!({ "csr": template }));
            let (label, der, _) = der::first_pem(made["csr"].as_str().unwrap()).unwrap();
            assert_eq!(label, "CERTIFICATE REQUEST");
            let (rest, csr) = X509CertificationRequest::from_der(&der).unwrap();
            let info = &csr.certification_request_info;
            assert!(rest.is_empty());
            assert_eq!(text::encode(info.subject_pki.raw), public, "{name}");
            assert_eq!(
                (info.subject.to_string().as_str(), info.iter_attributes().count()),
                (subject, attributes)
            );
        }
    }
}

#[test]
fn requests_for_certificates_are_signed_by_versions_that_may_sign() {
    let rig = rig();
    make(&rig, "k", &json!({"type": "ecdsa-p256"}));
    data(&rig, "keys/k/rotate", &json!({}));
    data(&rig, "keys/k/config", &json!({"min_encryption_version": 2}));
    let said = rig.say(Update, "keys/k/csr", &json!({"version": 1}));
    let why = "requested version for signing is less than the minimum encryption key version";
    assert_eq!(said, format!("error: could not create the csr: {why}"));
    data(&rig, "keys/k/csr", &json!({"version": 2}));
}

#[test]
fn certificates_are_kept_if_they_are_the_keys_own() {
    let rig = rig();
    let said = |path: &str, chain: &str| rig.say(Update, path, &json!({ "certificate_chain": chain }));
    // Made with OpenSSL for the key that the rig's random source gives, for another, and for an authority.
    let (leaf, another, authority) = (
        include_str!("../testdata/leaf.crt.pem"),
        include_str!("../testdata/another.crt.pem"),
        include_str!("../testdata/authority.crt.pem"),
    );
    make(&rig, "k", &json!({"type": "ecdsa-p256"}));
    let path = "keys/k/set-certificate";
    let refused = |why: &str| format!("error: failed to persist certificate chain: {why}");
    assert_eq!(
        said(path, authority),
        refused("certificate in the first element is not a valid leaf certificate")
    );
    let twice = format!("{leaf}{leaf}");
    assert_eq!(said(path, &twice), refused("certificate in the last element is not a valid CA certificate"));
    let inside = format!("{leaf}{leaf}{authority}");
    let only_one = "could not validate if there is only one leaf certificate in the provided chain";
    assert_eq!(said(path, &inside), refused(only_one));
    let other = "leaf certificate public key does not match the selected key version";
    assert_eq!(said(path, another), refused(other));
    make(&rig, "e", &json!({"type": "ed25519"}));
    let algorithm = "provided leaf certificate public key algorithm does not match the transit key type";
    assert_eq!(said("keys/e/set-certificate", leaf), refused(algorithm));
    let none = data(&rig, "keys/k/csr", &json!({}));
    assert!(none["csr"].is_string());
    let whole = format!("{leaf}{authority}");
    assert!(said(path, &whole).contains("certificate_chain"));
    let shown = rig.call(Read, "keys/k", &json!({})).unwrap().data.unwrap();
    assert_eq!(shown["keys"]["1"]["certificate_chain"], whole.trim());
    let exported = data(&rig, "export/certificate-chain/k/1", &json!({}));
    assert_eq!(exported["keys"]["1"], whole.trim());
    assert_eq!(
        said(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"),
        "error: could not parse a certificate in the certificate chain"
    );
}
