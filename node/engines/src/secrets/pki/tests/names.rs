//! Whose names, how many, and in which form.

use serde_json::{Value, json};

use super::{csr, csr_of, der_of, ec_key, named, refused, rig_with_role, shown, write};
use crate::secrets::pki::x509::extension;
use crate::secrets::pki::x509::san::Sans;

/// A long list took seconds to be found too long: each name was compared with all others first.
#[test]
fn names_are_counted_before_anything_is_done_with_them() {
    let rig = rig_with_role(&json!({
        "allowed_uri_sans": "*", "allowed_other_sans": "*", "allowed_user_ids": "*",
    }));
    for (field, item) in [
        ("alt_names", "y.a.test"),
        ("ip_sans", "10.0.0.1"),
        ("uri_sans", "a:b"),
        ("other_sans", "1.2.3;UTF8:x"),
        ("user_ids", "u"),
    ] {
        let many = |count: usize| json!({"common_name": "x.a.test", field: vec![item; count].join(",")});
        let got = refused(&rig, "issue/r", &many(1_001));
        assert_eq!(got, format!("{field} has more than 1000 items"));
        assert!(refused(&rig, "issue/r", &many(100_000)).contains("at most 65536 items"), "{field}");
    }
    let most = json!({"common_name": "x.a.test", "alt_names": vec!["y.a.test"; 999].join(",")});
    write(&rig, "issue/r", &most);
}

#[test]
fn an_issuer_in_the_body_does_not_replace_the_roles() {
    let rig = rig_with_role(&json!({}));
    let other = json!({"common_name": "Other", "key_type": "ec", "ttl": "700h", "issuer_name": "other"});
    write(&rig, "root/generate/internal", &other);
    let check = |path: &str, asked: Value, want: &str| {
        let mut data = json!({"csr": csr("x.test", &[]), "ttl": "1h"});
        data.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
        let text = shown(&der_of(&write(&rig, path, &data)["certificate"]));
        assert!(text.contains(&format!("<- CN={want}\n")), "{path} {asked}: {text}");
    };
    let in_body = json!({"issuer_ref": "other"});
    check("sign-verbatim", json!({}), "Root");
    check("sign-verbatim", in_body.clone(), "Other");
    check("sign-verbatim/r", in_body.clone(), "Root");
    check("sign-verbatim", json!({"role": "r", "issuer_ref": "other"}), "Root");
    check("issuer/other/sign-verbatim/r", json!({}), "Other");
    check("issuer/default/sign-verbatim", in_body, "Root");
}

#[test]
fn an_address_is_written_as_it_is_judged() {
    let rig = rig_with_role(&json!({"allowed_ip_sans_cidr": "10.0.0.0/8"}));
    let sans = Sans { ips: vec!["::ffff:10.1.2.3".parse().unwrap()], ..Sans::default() };
    let text = csr_of(&ec_key(5), &named("x.a.test"), &sans, &[]);
    for (path, asked) in [
        ("issue/r", json!({"common_name": "x.a.test", "ip_sans": "::ffff:10.1.2.3,10.1.2.3"})),
        ("sign/r", json!({ "csr": text })),
    ] {
        let text = shown(&der_of(&write(&rig, path, &asked)["certificate"]));
        assert!(text.contains("IPAddress(0a:01:02:03)") && !text.contains("ff:ff"), "{path}: {text}");
        assert_eq!(text.matches("IPAddress").count(), 1, "{path}: {text}");
    }
}

#[test]
fn a_common_name_is_no_alternative_name_of_a_verbatim_request() {
    let rig = rig_with_role(&json!({}));
    let plain = csr_of(&ec_key(5), &named("x.test"), &Sans::default(), &[]);
    let with_usage =
        csr_of(&ec_key(5), &named("x.test"), &Sans::default(), &[extension::key_usage(1).unwrap()]);
    let with_name = csr("x.test", &["y.test"]);
    let check = |text: &str, want: &str| {
        for path in ["sign-verbatim", "sign-verbatim/r", "root/sign-intermediate"] {
            let asked = json!({"csr": text, "ttl": "1h", "use_csr_values": true});
            let made = write(&rig, path, &asked);
            let text = shown(&der_of(&made["certificate"]));
            let names = text.lines().find(|line| line.contains("SubjectAlternativeName")).unwrap_or_default();
            assert_eq!(names.trim(), want, "{path}");
        }
    };
    check(&plain, "");
    check(&with_usage, "");
    check(&with_name, "SubjectAlternativeName DNSName(y.test)");
}

#[test]
fn a_star_inside_a_label_is_no_alternative_name() {
    let rig = rig_with_role(&json!({}));
    write(&rig, "issue/r", &json!({"common_name": "x.a.test", "alt_names": "*.a.test"}));
    let got = refused(&rig, "issue/r", &json!({"common_name": "x.a.test", "alt_names": "x*.a.test"}));
    assert_eq!(got, "subject alternate name x*.a.test not allowed by this role");
}

/// Less than a second was a lifetime of none: the certificate had ended when it was made.
#[test]
fn a_lifetime_of_no_whole_second_is_none() {
    let rig = rig_with_role(&json!({}));
    let made = write(&rig, "issue/r", &json!({"common_name": "x.a.test", "ttl": "0.2s"}));
    assert_eq!(made["expiration"].as_u64().unwrap() - made["not_before"].as_u64().unwrap(), 3_630);
}
