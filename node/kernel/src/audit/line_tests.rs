//! Lines by example and by property: always one parseable line, never a planted value.

use std::sync::Arc;
use std::time::Duration;

use arca_engine_api::UnixMillis;
use proptest::prelude::*;
use serde_json::json;
use zeroize::Zeroizing;

use super::*;
use crate::policy::AclDecision;

pub(in crate::audit) fn style() -> Style {
    Style {
        salt: Salt::new(b"salt"),
        is_raw: false,
        hashes_accessors: true,
        elides_lists: false,
        prefix: String::new(),
    }
}

pub(in crate::audit) static NO_DATA: std::sync::LazyLock<Map> = std::sync::LazyLock::new(Map::new);
static NO_HEADERS: std::sync::LazyLock<BTreeMap<String, Vec<String>>> =
    std::sync::LazyLock::new(BTreeMap::new);

pub(in crate::audit) fn request<'a>(path: &'a str, data: &'a Map) -> RequestRecord<'a> {
    RequestRecord {
        time: UnixMillis(1_000),
        id: "id-1",
        operation: Operation::Update,
        auth: None,
        mount: None,
        namespace_id: "root",
        namespace_path: "",
        path,
        data,
        headers: &NO_HEADERS,
        remote_addr: None,
        remote_port: 0,
        wrap_ttl: None,
        client_certificate_serial: None,
        forwarded_from: None,
        error: None,
    }
}

fn parsed(line: &str) -> Value {
    assert!(!line.contains('\n') && !line.contains('\r') && !line.contains('\u{1b}'), "{line:?}");
    serde_json::from_str(&format!("{line}}}")).unwrap_or_else(|err| panic!("{err}: {line}"))
}

fn hash(text: &str) -> Value {
    json!(Salt::new(b"salt").hash(text.as_bytes()))
}

#[test]
fn strings_are_hashed_and_the_rest_is_clear() {
    let data = json!({"k": "v", "n": 5, "f": 1.50, "b": true, "z": null, "l": ["q", {"deep": "v"}], "e": "", "clear": "c"});
    let clear = ["clear".to_owned(), "deep".to_owned()];
    let record = RequestRecord {
        mount: Some(MountRecord {
            point: "kv/",
            kind: "kv",
            accessor: "kv_1",
            class: "secret",
            clear_request_keys: &clear,
            clear_response_keys: &[],
        }),
        wrap_ttl: Some(Duration::from_secs(60)),
        remote_addr: Some([127, 0, 0, 1].into()),
        remote_port: 9,
        ..request("kv/x", data.as_object().unwrap())
    };
    let line = parsed(&style().request(&record, &Headers::new()));
    assert_eq!(
        line,
        json!({
            "time": "1970-01-01T00:00:01Z", "type": "request",
            "request": {
                "id": "id-1", "operation": "update", "mount_point": "kv/", "mount_type": "kv",
                "mount_accessor": "kv_1", "mount_class": "secret", "namespace": {"id": "root"}, "path": "kv/x",
                "data": {"k": hash("v"), "n": 5, "f": 1.5, "b": true, "z": null, "l": [hash("q"), {"deep": "v"}], "e": hash(""), "clear": "c"},
                "remote_address": "127.0.0.1", "remote_port": 9, "wrap_ttl": 60
            }
        })
    );
}

#[test]
fn tokens_and_accessors_are_hashed() {
    let decision = AclDecision::default();
    let policies = ["default".to_owned()];
    let auth = AuthRecord {
        client_token: Some("hvs.canary"),
        accessor: "acc",
        policies: &policies,
        policy_results: Some(super::super::entry::PolicyResults { decision: &decision }),
        token_ttl: Duration::from_secs(3_600),
        ..AuthRecord::default()
    };
    let record = RequestRecord { auth: Some(auth), ..request("a", &NO_DATA) };
    let info = WrapInfo {
        token: Arc::new(Zeroizing::new("hvs.canary".to_owned())),
        accessor: "acc".to_owned(),
        ttl: 60,
        creation_time: UnixMillis(0),
        creation_path: "a".to_owned(),
        wrapped_accessor: Some("acc".to_owned()),
    };
    let response = ResponseRecord {
        auth: Some(auth),
        wrap_info: Some(&info),
        ..ResponseRecord::to(&record, UnixMillis(0))
    };
    let line = style().response(&response, &Headers::new());
    assert!(!line.contains("canary") && !line.contains("\"acc\""), "{line}");
    let line = parsed(&line);
    assert_eq!(line["auth"]["client_token"], hash("hvs.canary"));
    assert_eq!(line["auth"]["policy_results"], json!({"allowed": false, "granting_policies": []}));
    assert_eq!(line["request"]["client_token_accessor"], hash("acc"));
    assert_eq!(line["response"]["wrap_info"]["wrapped_accessor"], hash("acc"));
    assert_eq!(line["response"]["auth"]["token_ttl"], 3_600);
    let clear = Style { hashes_accessors: false, ..style() };
    assert_eq!(parsed(&clear.request(&record, &Headers::new()))["auth"]["accessor"], "acc");
}

#[test]
fn cve_2025_62513_raw_bodies_are_hashed() {
    let record = request("a", &NO_DATA);
    let raw = Raw { status: 200, content_type: "text/plain".to_owned(), body: b"canary".to_vec() };
    let line = style().response(
        &ResponseRecord { raw: Some(&raw), ..ResponseRecord::to(&record, UnixMillis(0)) },
        &Headers::new(),
    );
    assert!(!line.contains("canary"), "{line}");
    assert_eq!(parsed(&line)["response"]["data"]["http_raw_body"], hash("canary"));
}

/// CVE-2026-46358, CVE-2024-2877: configured headers are logged, and hashed where asked.
#[test]
fn headers_follow_their_rules() {
    let found = BTreeMap::from([
        ("x-a".to_owned(), vec!["1".to_owned(), "2".to_owned()]),
        ("x-b".to_owned(), vec!["3".to_owned()]),
        ("x-c".to_owned(), vec!["canary".to_owned()]),
    ]);
    let rules = Headers::from([
        ("x-a".to_owned(), HeaderRule { hmac: true }),
        ("x-b".to_owned(), HeaderRule { hmac: false }),
        ("x-z".to_owned(), HeaderRule { hmac: false }),
    ]);
    let record = RequestRecord { headers: &found, ..request("a", &NO_DATA) };
    let line = parsed(&style().request(&record, &rules));
    assert_eq!(line["request"]["headers"], json!({"x-a": [hash("1"), hash("2")], "x-b": ["3"]}));
}

#[test]
fn lists_may_be_elided() {
    let record = RequestRecord { operation: Operation::List, ..request("a/", &NO_DATA) };
    let data = json!({"keys": ["a", "b"], "key_info": {"a": {}}, "x": "y"});
    let response = ResponseRecord { data: data.as_object(), ..ResponseRecord::to(&record, UnixMillis(0)) };
    let style = Style { elides_lists: true, ..style() };
    let line = parsed(&style.response(&response, &Headers::new()));
    assert_eq!(line["response"]["data"], json!({"keys": 2, "key_info": 1, "x": hash("y")}));
}

/// CVE-2024-0831: one device logging raw changes nothing for another.
#[test]
fn cve_2024_0831_raw_is_a_matter_of_each_device() {
    let data = json!({"k": "canary"});
    let record = request("a", data.as_object().unwrap());
    let raw = Style { is_raw: true, ..style() };
    assert!(raw.request(&record, &Headers::new()).contains("canary"));
    assert!(!style().request(&record, &Headers::new()).contains("canary"));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(Value::Null),
        Just(json!("canary")),
        any::<String>().prop_map(|text| json!(format!("canary{text}"))),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z\\n\"]{0,5}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// CVE-2025-62705 and log injection: whatever the fields and texts, one line, parseable, without the value.
    #[test]
    fn cve_2025_62705_no_value_of_any_type_is_clear(
        value in any_value(),
        path in any::<String>(),
        name in "(.|\n|\r|\u{1b}){0,10}",
    ) {
        let data = Map::from_iter([("key".to_owned(), value)]);
        let record = RequestRecord { error: Some(&name), ..request(&path, &data) };
        let response = ResponseRecord { data: Some(&data), lease_id: &name, ..ResponseRecord::to(&record, UnixMillis(0)) };
        for line in [style().request(&record, &Headers::new()), style().response(&response, &Headers::new())] {
            let back = parsed(&line);
            prop_assert!(!line.contains("canary"), "{}", line);
            prop_assert_eq!(back["request"]["path"].as_str().unwrap_or_default(), path.as_str());
        }
    }
}
