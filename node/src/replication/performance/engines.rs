//! Engines at a performance secondary: who logs in there by what is shared, and whose a certificate is that it issues.

use std::collections::BTreeSet;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use http::Method;
use serde_json::{Value, json};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;

use super::PERFORMANCE;
use crate::replication::tests::Region;

/// The text at some path below `data`.
#[track_caller]
fn text(said: &Value, field: &str) -> String {
    said["data"][field].as_str().unwrap_or_else(|| panic!("no {field}: {said}")).to_owned()
}

/// An app that logs in by a role.
struct App {
    role_id: String,
    secret_id: String,
}

impl App {
    /// With a secret id that is made in a region.
    async fn of(role: &str, made_at: &Region) -> Self {
        let (_, said) = made_at.read(&format!("auth/approle/role/{role}/role-id"), &made_at.token).await;
        let made = made_at.write(&format!("auth/approle/role/{role}/secret-id"), json!({})).await;
        Self { role_id: text(&said, "role_id"), secret_id: text(&made, "secret_id") }
    }

    async fn log_in(&self, region: &Region) -> (u16, Value) {
        let body = json!({ "role_id": self.role_id, "secret_id": self.secret_id });
        region.rig.ask(Method::POST, "auth/approle/login", "", &body).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_id_of_one_use_is_good_once_wherever_it_is_used() {
    let east = Region::sharing().await;
    let far = Region::far_of(&east).await;
    far.write("sys/auth/approle", json!({ "type": "approle" })).await;
    for (role, is_local) in [("web", false), ("here", true)] {
        let role_of =
            json!({ "token_policies": "all", "secret_id_num_uses": 1, "local_secret_ids": is_local });
        far.write(&format!("auth/approle/role/{role}"), role_of).await;
    }
    far.caught_up_with(PERFORMANCE, &east).await;

    let app = App::of("web", &far).await;
    far.caught_up_with(PERFORMANCE, &east).await;
    let (status, said) = app.log_in(&far).await;
    assert_eq!(status, 200, "{said}");
    let token = said["auth"]["client_token"].as_str().unwrap();
    Region::holds(&far.read("kv/before", token).await, "1");
    assert_eq!(east.read("kv/before", token).await.0, 403, "the token is of the cluster that was asked");
    for region in [&far, &east] {
        let (status, said) = app.log_in(region).await;
        assert_eq!(status, 400, "{said}");
    }

    // Used at the primary it is not good here, whether that has arrived or not.
    let app = App::of("web", &east).await;
    far.caught_up_with(PERFORMANCE, &east).await;
    assert_eq!(app.log_in(&east).await.0, 200);
    let (status, said) = app.log_in(&far).await;
    assert_eq!(status, 400, "{said}");

    // What is of one cluster means nothing to the other, and is counted here.
    let app = App::of("here", &far).await;
    assert_eq!(app.log_in(&east).await.0, 400);
    let (status, said) = app.log_in(&far).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(app.log_in(&far).await.0, 400);
    for region in [&east, &far] {
        region.rig.node.shutdown().await;
    }
}

/// Bytes in PEM.
#[track_caller]
fn der(pem: &Value) -> Vec<u8> {
    let pem = pem.as_str().unwrap_or_else(|| panic!("no PEM: {pem}"));
    parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

#[track_caller]
fn is_signed_by(certificate: &[u8], issuer: &[u8]) -> bool {
    let parsed = X509Certificate::from_der(certificate).unwrap().1;
    let issuer = X509Certificate::from_der(issuer).unwrap().1;
    let key =
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, issuer.public_key().subject_public_key.data.as_ref());
    key.verify(parsed.tbs_certificate.as_ref(), parsed.signature_value.data.as_ref()).is_ok()
}

/// Serial numbers on a region's list of the default issuer.
async fn revoked(region: &Region) -> BTreeSet<String> {
    let list = der(&region.read("pki/crl/pem", "").await.1);
    let parsed = CertificateRevocationList::from_der(&list).unwrap().1;
    parsed.iter_revoked_certificates().map(|one| one.raw_serial_as_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_of_the_cluster_that_issues_them_and_authorities_of_all() {
    let east = Region::sharing().await;
    let far = Region::far_of(&east).await;
    far.write("sys/mounts/pki", json!({ "type": "pki" })).await;
    let root = json!({ "common_name": "Root", "key_type": "ec", "ttl": "700h" });
    let made = far.write("pki/root/generate/internal", root).await;
    let role =
        json!({ "allowed_domains": "a.test", "allow_subdomains": true, "key_type": "ec", "ttl": "1h" });
    far.write("pki/roles/r", role).await;
    far.caught_up_with(PERFORMANCE, &east).await;
    let root = der(&made["data"]["certificate"]);
    for region in [&east, &far] {
        assert_eq!(der(&region.read("pki/ca/pem", "").await.1), root);
    }

    // A leaf of here is here, and so is its end.
    let leaf = far.write("pki/issue/r", json!({ "common_name": "x.a.test" })).await;
    let serial = text(&leaf, "serial_number");
    assert!(is_signed_by(&der(&leaf["data"]["certificate"]), &root));
    assert_eq!(far.read(&format!("pki/cert/{serial}"), "").await.0, 200);
    assert_eq!(east.read(&format!("pki/cert/{serial}"), "").await.0, 404);
    far.write("pki/revoke", json!({ "serial_number": serial })).await;
    assert_eq!(revoked(&far).await, BTreeSet::from([serial.clone()]));
    assert_eq!(revoked(&east).await, BTreeSet::new());

    // The end of an issuer is everybody's.
    let asked = json!({ "common_name": "Below", "key_type": "ec" });
    let request = far.write("pki/intermediate/generate/internal", asked).await;
    let asked = json!({ "csr": request["data"]["csr"], "common_name": "Below", "ttl": "600h" });
    let signed = far.write("pki/root/sign-intermediate", asked).await;
    let certificate = json!({ "certificate": signed["data"]["certificate"] });
    let imported = far.write("pki/intermediate/set-signed", certificate).await;
    let id = imported["data"]["imported_issuers"][0].as_str().unwrap();
    far.write(&format!("pki/issuer/{id}/revoke"), json!({})).await;
    far.caught_up_with(PERFORMANCE, &east).await;
    Region::is_fine(&far.read("pki/crl/rotate", &far.token).await);
    let below = text(&signed, "serial_number");
    assert_eq!(revoked(&east).await, BTreeSet::from([below.clone()]));
    assert_eq!(revoked(&far).await, BTreeSet::from([serial, below]));
    for region in [&east, &far] {
        region.rig.node.shutdown().await;
    }
}
