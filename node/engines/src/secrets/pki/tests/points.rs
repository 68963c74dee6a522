//! Small things that clients read: where the delta list is, what a role adds to verbatim certificates, what is warned of.

use arca_engine_api::Operation::{Delete, Read, Update};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{body, csr, csr_of, der_of, ec_key, read, refused, rig, rig_with_role, shown, write};
use crate::secrets::pki::x509::name::Name;
use crate::secrets::pki::x509::san::Sans;
use crate::testing::Rig;

const URL: &str = "http://a.test/delta";

/// Whether a list says where the delta is.
fn has_delta_url(rig: &Rig, path: &str) -> bool {
    let raw = body(rig, path);
    CertificateRevocationList::from_der(&raw).unwrap();
    raw.windows(URL.len()).any(|part| part == URL.as_bytes())
}

#[test]
fn a_complete_list_says_where_its_delta_is() {
    let rig = rig_with_role(&json!({}));
    assert!(!has_delta_url(&rig, "crl"));
    write(&rig, "config/urls", &json!({"delta_crl_distribution_points": URL}));
    read(&rig, "crl/rotate");
    assert!(has_delta_url(&rig, "crl"));
    // RFC 5280 forbids it in the delta itself.
    assert!(!has_delta_url(&rig, "crl/delta"));
    // An issuer's own URLs go before the mount's.
    write(&rig, "issuer/default", &json!({"issuing_certificates": "http://a.test/ca"}));
    read(&rig, "crl/rotate");
    assert!(!has_delta_url(&rig, "crl"));
}

#[test]
fn a_url_that_cannot_be_filled_in_stops_no_list() {
    let rig = rig_with_role(&json!({}));
    let made = write(&rig, "issue/r", &json!({"common_name": "x.a.test"}));
    let urls = json!({"delta_crl_distribution_points": "{{cluster_path}}/delta", "enable_templating": true});
    write(&rig, "config/urls", &urls);
    write(&rig, "revoke", &json!({"serial_number": made["serial_number"]}));
    let raw = body(&rig, "crl");
    let (_, list) = CertificateRevocationList::from_der(&raw).unwrap();
    assert_eq!(list.iter_revoked_certificates().count(), 1);
    write(&rig, "config/cluster", &json!({"path": "http://a.test"}));
    read(&rig, "crl/rotate");
    assert!(has_delta_url(&rig, "crl"));
}

#[test]
fn a_list_that_nobody_may_sign_is_told_of() {
    let rig = rig_with_role(&json!({}));
    assert!(!rig.say(Read, "crl/rotate", &json!({})).contains("crl-signing"));
    let made = write(&rig, "issuer/default", &json!({"usage": "read-only,issuing-certificates"}));
    let said = rig.say(Read, "crl/rotate", &json!({}));
    let id = made["issuer_id"].as_str().unwrap();
    assert!(said.contains("crl-signing") && said.contains(id), "{said}");
}

#[test]
fn a_role_says_of_verbatim_certificates_that_they_are_no_authoritys() {
    let rig = rig_with_role(&json!({"basic_constraints_valid_for_non_ca": true}));
    write(&rig, "roles/other", &json!({"key_type": "ec"}));
    let text = csr("x.a.test", &[]);
    let says = |path: &str, asked: Value| {
        let data = json!({"csr": text, "ttl": "1h", "basic_constraints_valid_for_non_ca": asked});
        let data = if asked.is_null() { json!({"csr": text, "ttl": "1h"}) } else { data };
        shown(&der_of(&write(&rig, path, &data)["certificate"])).contains("! BasicConstraints")
    };
    assert!(says("sign-verbatim/r", Value::Null));
    assert!(!says("sign-verbatim/r", json!(false)));
    assert!(!says("sign-verbatim/other", Value::Null));
    assert!(says("sign-verbatim/other", json!(true)));
    assert!(!says("sign-verbatim", Value::Null));
}

#[test]
fn authorities_have_no_user_ids() {
    let rig = rig_with_role(&json!({}));
    let subject = Name { common_name: "Sub".to_owned(), user_ids: vec!["u".to_owned()], ..Name::default() };
    let text = csr_of(&ec_key(6), &subject.encode().unwrap(), &Sans::default(), &[]);
    let subject_of = |how: &Value| {
        let made = write(&rig, "root/sign-intermediate", how);
        shown(&der_of(&made["certificate"])).lines().next().unwrap().to_owned()
    };
    let asked = json!({"csr": text, "common_name": "Sub", "user_ids": "v"});
    assert_eq!(subject_of(&asked), "CN=Sub <- CN=Root");
    // A subject that is taken as it is stays as it is.
    let as_it_is = subject_of(&json!({"csr": text, "use_csr_values": true}));
    assert!(as_it_is.contains("uid=u"), "{as_it_is}");
}

#[test]
fn moments_of_revocation_may_be_numbers() {
    let rig = rig_with_role(&json!({}));
    for at in [json!(1_700_000_000), json!("1700000000"), json!("2023-11-14T22:13:20Z")] {
        let asked = json!({"revoked_certs": [{"serial_number": "11:22", "revocation_time": at}]});
        let made = write(&rig, "issuer/default/sign-revocation-list", &asked);
        let raw = der_of(&made["crl"]);
        let (_, list) = CertificateRevocationList::from_der(&raw).unwrap();
        let moments: Vec<i64> =
            list.iter_revoked_certificates().map(|one| one.revocation_date.timestamp()).collect();
        assert_eq!(moments, [1_700_000_000], "{at}");
    }
    for bad in [json!(-5), json!(1.5), json!(""), json!(null), json!("x")] {
        let asked = json!({"revoked_certs": [{"serial_number": "11:22", "revocation_time": bad}]});
        refused(&rig, "issuer/default/sign-revocation-list", &asked);
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let rig = rig();
    write(&rig, "keys/generate/internal", &json!({"key_type": "ec", "key_name": "k"}));
    for path in ["root/generate/existing", "intermediate/generate/existing", "intermediate/cross-sign"] {
        for field in [json!({"key_type": "rsa"}), json!({"key_bits": 2048})] {
            let mut asked = json!({"common_name": "R", "key_ref": "k"});
            asked.as_object_mut().unwrap().extend(field.as_object().unwrap().clone());
            assert!(refused(&rig, path, &asked).contains("key_type and key_bits"));
        }
    }
    refused(&rig, "roles/r", &json!({"cn_validations": "email,email"}));
    let publish = json!({"publish_stored_certificate_count_metrics": true});
    assert!(refused(&rig, "config/auto-tidy", &publish).contains("needs maintain_stored_certificate_counts"));
    assert_eq!(read(&rig, "config/auto-tidy")["publish_stored_certificate_count_metrics"], false);
}

#[test]
fn what_has_not_been_is_null() {
    let status = read(&rig(), "tidy-status");
    assert_eq!(status.get("last_auto_tidy_finished"), Some(&Value::Null));
}

#[test]
fn a_name_that_goes_is_told_of() {
    let rig = rig();
    let made = write(&rig, "keys/generate/internal", &json!({"key_type": "ec", "key_name": "k"}));
    let said = rig.say(Update, "key/k", &json!({}));
    assert!(
        said.contains("has no name any more") && said.contains(made["key_id"].as_str().unwrap()),
        "{said}"
    );
}

#[test]
fn roles_of_an_issuer_that_goes_are_told_of() {
    let rig = rig_with_role(&json!({}));
    let other = json!({"common_name": "Other", "key_type": "ec", "issuer_name": "other"});
    write(&rig, "root/generate/internal", &other);
    for (role, issuer) in [("one", "other"), ("two", "other"), ("three", "nobody")] {
        write(&rig, &format!("roles/{role}"), &json!({"key_type": "ec", "issuer_ref": issuer}));
    }
    let said = rig.say(Delete, "issuer/other", &json!({}));
    assert!(said.contains("2 roles reference the deleted issuer") && !said.contains("default"), "{said}");
    let said = rig.say(Delete, "issuer/default", &json!({}));
    assert!(said.contains("1 roles reference the deleted issuer"), "{said}");
}
