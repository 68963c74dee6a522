//! Whole conversations with a mount.

use arca_engine_api::Operation::{Delete, List, Patch, Read, Scan, Update};
use arca_engine_api::{EngineError, Operation};
use serde_json::{Value, json};

use crate::secrets::kv::make;
use crate::testing::Rig;

fn rig() -> Rig {
    Rig::new(make, "2")
}

#[track_caller]
fn check(rig: &Rig, operation: Operation, path: &str, data: &Value, want: &str) {
    assert_eq!(rig.say(operation, path, data), want, "{operation:?} {path} {data}");
}

fn put(rig: &Rig, path: &str, value: &Value) {
    rig.call(Update, &format!("data/{path}"), &json!({"data": value})).unwrap();
}

/// The data of a version, or null.
fn data(rig: &Rig, path: &str, version: u64) -> Value {
    let answer = rig.call(Read, &format!("data/{path}"), &json!({"version": version.to_string()})).unwrap();
    answer.data.and_then(|mut data| data.remove("data")).unwrap_or_default()
}

#[test]
fn a_write_makes_a_version() {
    let rig = rig();
    check(&rig, Read, "data/a", &json!({}), "none");
    let first = r#"{"created_time":"1970-01-01T00:00:01.000000000Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}"#;
    check(&rig, Update, "data/a", &json!({"data": {"k": "v"}}), first);
    check(&rig, Read, "data/a", &json!({}), &format!(r#"{{"data":{{"k":"v"}},"metadata":{first}}}"#));
    put(&rig, "a", &json!({"k": "w"}));
    assert_eq!(
        (data(&rig, "a", 1), data(&rig, "a", 2), data(&rig, "a", 0)),
        (json!({"k": "v"}), json!({"k": "w"}), json!({"k": "w"}))
    );
    check(&rig, Read, "data/a", &json!({"version": 3}), "none");
    check(&rig, Update, "data/a", &json!({"k": "v"}), "error: no data provided");
    put(&rig, "null", &json!(null));
    assert_eq!(data(&rig, "null", 1), json!({}));
    assert_eq!((rig.exists("data/a"), rig.exists("data/b")), (Some(true), Some(false)));
}

#[test]
fn a_checked_write_replaces_only_what_was_seen() {
    let rig = rig();
    let mismatch = "error: check-and-set parameter did not match the current version";
    let with_cas = |cas: Value| json!({"data": {}, "options": {"cas": cas}});
    check(&rig, Update, "data/a", &with_cas(json!(1)), mismatch);
    assert!(rig.call(Update, "data/a", &with_cas(json!(0))).is_ok());
    check(&rig, Update, "data/a", &with_cas(json!(0)), mismatch);
    check(&rig, Update, "data/a", &with_cas(json!(-1)), mismatch);
    check(&rig, Update, "data/a", &with_cas(json!([1])), "error: error parsing check-and-set parameter");
    assert!(rig.call(Update, "data/a", &with_cas(json!("1"))).is_ok());
    let required = "error: check-and-set parameter required for this call";
    rig.call(Update, "metadata/a", &json!({"cas_required": true})).unwrap();
    check(&rig, Update, "data/a", &json!({"data": {}}), required);
    check(&rig, Patch, "data/a", &json!({"data": {}}), required);
    put(&rig, "b", &json!({}));
    rig.call(Update, "config", &json!({"cas_required": true})).unwrap();
    check(&rig, Update, "data/b", &json!({"data": {}}), required);
    let warned = rig.say(Update, "metadata/b", &json!({"cas_required": false}));
    assert!(warned.starts_with("none warning: \"cas_required\" set to false"), "{warned}");
}

#[test]
fn a_patch_merges_into_the_latest_version() {
    let rig = rig();
    assert!(matches!(rig.call(Patch, "data/a", &json!({"data": {}})), Err(EngineError::NotFound)));
    put(&rig, "a", &serde_json::from_str(r#"{"user": "alice", "db": {"host": "h", "port": 1.50}}"#).unwrap());
    rig.call(Patch, "data/a", &json!({"data": {"user": null, "db": {"host": "i"}}})).unwrap();
    assert_eq!(data(&rig, "a", 2).to_string(), r#"{"db":{"host":"i","port":1.50}}"#);
    rig.call(Delete, "data/a", &Value::Null).unwrap();
    let gone = rig.say(Patch, "data/a", &json!({"data": {}}));
    assert!(gone.starts_with("404 {") && gone.contains(r#""version":2"#), "{gone}");
}

#[test]
fn deleted_versions_come_back_and_destroyed_ones_do_not() {
    let rig = rig();
    put(&rig, "a", &json!({"n": 1}));
    put(&rig, "a", &json!({"n": 2}));
    check(&rig, Delete, "data/a", &json!({}), "none");
    let deleted = rig.say(Read, "data/a", &json!({}));
    assert!(deleted.starts_with(r#"404 {"data":null,"metadata":{"#), "{deleted}");
    assert!(deleted.contains(r#""deletion_time":"1970-01-01T00:00:01.000000000Z""#), "{deleted}");
    check(&rig, Update, "undelete/a", &json!({"versions": [2]}), "none");
    assert_eq!(data(&rig, "a", 2), json!({"n": 2}));
    check(&rig, Update, "delete/a", &json!({"versions": "1,2,9"}), "none");
    assert_eq!((data(&rig, "a", 1), data(&rig, "a", 2)), (Value::Null, Value::Null));
    check(&rig, Update, "destroy/a", &json!({"versions": ["1"]}), "none");
    check(&rig, Update, "undelete/a", &json!({"versions": [1, 2]}), "none");
    assert_eq!((data(&rig, "a", 1), data(&rig, "a", 2)), (Value::Null, json!({"n": 2})));
    assert_eq!(rig.stored(), ["data/a/2", "meta/a"]);
    for path in ["delete/a", "undelete/a", "destroy/a"] {
        check(&rig, Update, path, &json!({}), "error: No version number provided");
        check(&rig, Update, path, &json!({"versions": []}), "error: No version number provided");
    }
    check(&rig, Update, "destroy/unknown", &json!({"versions": [1]}), "none");
}

#[test]
fn versions_delete_themselves() {
    let rig = rig();
    rig.call(Update, "config", &json!({"delete_version_after": "90s"})).unwrap();
    put(&rig, "mount", &json!({"n": 1}));
    rig.call(Update, "metadata/key", &json!({"delete_version_after": "30s"})).unwrap();
    put(&rig, "key", &json!({"n": 1}));
    rig.advance(31);
    assert_eq!((data(&rig, "mount", 1), data(&rig, "key", 1)), (json!({"n": 1}), Value::Null));
    rig.advance(60);
    assert_eq!(data(&rig, "mount", 1), Value::Null);
    let shown = rig.say(Read, "config", &json!({}));
    assert!(shown.contains(r#""delete_version_after":"1m30s""#), "{shown}");
}

#[test]
fn old_versions_are_dropped_with_their_data() {
    let rig = rig();
    rig.call(Update, "metadata/a", &json!({"max_versions": 2})).unwrap();
    for number in 1..=4 {
        put(&rig, "a", &json!({"n": number}));
    }
    assert_eq!(rig.stored(), ["data/a/3", "data/a/4", "meta/a"]);
    check(&rig, Read, "data/a", &json!({"version": 2}), "none");
    check(&rig, Delete, "metadata/a", &json!({}), "none");
    assert!(rig.stored().is_empty());
    check(&rig, Read, "metadata/a", &json!({}), "none");
}

#[test]
fn a_key_carries_settings_and_notes() {
    let rig = rig();
    check(&rig, Update, "metadata/a", &json!({}), "none");
    assert!(rig.stored().is_empty(), "a write of nothing makes nothing");
    let notes = json!({"custom_metadata": {"owner": "ops"}, "max_versions": "3"});
    check(&rig, Update, "metadata/a", &notes, "none");
    let shown = r#"{"cas_required":false,"created_time":"1970-01-01T00:00:01.000000000Z","current_metadata_version":1,"current_version":0,"custom_metadata":{"owner":"ops"},"delete_version_after":"0s","max_versions":3,"metadata_cas_required":false,"oldest_version":0,"updated_time":"1970-01-01T00:00:01.000000000Z","versions":{}}"#;
    check(&rig, Read, "metadata/a", &json!({}), shown);
    check(&rig, Patch, "metadata/a", &json!({"custom_metadata": {"team": "a", "owner": null}}), "none");
    let after = rig.call(Read, "metadata/a", &json!({})).unwrap().data.unwrap();
    assert_eq!((&after["custom_metadata"], &after["max_versions"]), (&json!({"team": "a"}), &json!(3)));
    let stale = "error: metadata check-and-set parameter does not match the current version";
    check(&rig, Patch, "metadata/a", &json!({"max_versions": 4, "metadata_cas": 1}), stale);
    assert!(rig.call(Patch, "metadata/a", &json!({"max_versions": null, "metadata_cas": 2})).is_ok());
    assert!(matches!(rig.call(Patch, "metadata/b", &json!({"max_versions": 1})), Err(EngineError::NotFound)));
    check(&rig, Read, "data/a", &json!({}), "none");
}

#[test]
fn a_key_may_ask_for_checked_changes_of_its_own() {
    let rig = rig();
    let required = "error: metadata check-and-set parameter required for this call";
    check(&rig, Update, "metadata/a", &json!({"metadata_cas_required": true}), "none");
    for operation in [Update, Patch] {
        check(&rig, operation, "metadata/a", &json!({"max_versions": 3}), required);
        check(&rig, operation, "metadata/a", &json!({"metadata_cas_required": false}), required);
    }
    check(&rig, Patch, "metadata/a", &json!({"metadata_cas_required": null}), required);
    check(&rig, Update, "metadata/a", &json!({"max_versions": 3, "metadata_cas": 1}), "none");
    assert!(rig.say(Read, "metadata/a", &json!({})).contains(r#""metadata_cas_required":true"#));
    check(&rig, Patch, "metadata/a", &json!({"metadata_cas_required": null, "metadata_cas": 2}), "none");
    check(&rig, Update, "metadata/a", &json!({"max_versions": 4}), "none");
    rig.call(Update, "config", &json!({"metadata_cas_required": true})).unwrap();
    check(&rig, Update, "metadata/b", &json!({"max_versions": 4}), required);
    let warned = rig.say(Update, "metadata/b", &json!({"metadata_cas_required": false, "metadata_cas": 0}));
    assert!(warned.starts_with("none warning: \"metadata_cas_required\" set to false"), "{warned}");
}

#[test]
fn lists_one_level_or_all() {
    let rig = rig();
    for path in ["a", "a/b", "a/c/d", "e"] {
        put(&rig, path, &json!({}));
    }
    check(&rig, List, "metadata/", &json!({}), r#"{"keys":["a","a/","e"]}"#);
    check(&rig, List, "metadata/a/", &json!({}), r#"{"keys":["b","c/"]}"#);
    check(&rig, Scan, "metadata/", &json!({}), r#"{"keys":["a","a/b","a/c/d","e"]}"#);
    check(&rig, List, "metadata/", &json!({"after": "a", "limit": "1"}), r#"{"keys":["a/"]}"#);
    check(&rig, List, "metadata/nowhere/", &json!({}), "{}");
    for (limit, want) in [("", "3 names"), ("-1", "3 names"), ("2", "2 names"), ("abc", "refused")] {
        let listed = rig.call(List, "metadata/", &json!({"limit": limit}));
        let names = listed.map(|response| response.data.unwrap()["keys"].as_array().unwrap().len());
        assert_eq!(names.map_or_else(|_| "refused".to_owned(), |count| format!("{count} names")), want);
    }
    let detailed = rig.call(List, "detailed-metadata/", &json!({})).unwrap().data.unwrap();
    assert_eq!(detailed["keys"], json!(["a", "a/", "e"]));
    let described: Vec<&String> = detailed["key_info"].as_object().unwrap().keys().collect();
    assert_eq!(described, ["a", "e"]);
}

#[test]
fn shows_the_shape_of_a_secret() {
    let rig = rig();
    put(&rig, "a", &json!({"user": "alice", "db": {"host": "h"}}));
    let shape = rig.call(Read, "subkeys/a", &json!({"depth": 1})).unwrap().data.unwrap();
    assert_eq!(shape["subkeys"], json!({"user": null, "db": null}));
    rig.call(Delete, "data/a", &json!({})).unwrap();
    assert!(rig.say(Read, "subkeys/a", &json!({})).starts_with("404 {"));
}

#[test]
fn says_where_to_go_instead() {
    let rig = rig();
    let lost = rig.say(Read, "a", &json!({}));
    assert!(
        lost.starts_with("404 none warning: Invalid path for a versioned K/V") && lost.contains("'kv get'")
    );
    let root = "404 none warning: Non-listing operations on the root of a K/V v2 mount are not supported.";
    check(&rig, Read, "data", &json!({}), root);
    check(&rig, Read, "data/", &json!({}), root);
    check(&rig, Delete, "data/a/", &json!({}), "error: the path of a secret cannot end with a slash");
}

#[test]
fn what_a_mount_held_before_it_had_versions_is_their_first() {
    let rig = Rig::new(make, "1");
    for path in ["a", "b", "c/d"] {
        assert!(rig.call(Update, path, &json!({"was": path})).is_ok());
    }
    let rig = rig.remade(make, "2");
    rig.advance(100);
    put(&rig, "e", &json!({}));
    assert_eq!(data(&rig, "a", 0), json!({"was": "a"}));
    let shown = rig.call(Read, "metadata/a", &json!({})).unwrap().data.unwrap();
    assert_eq!(shown["versions"]["1"]["created_time"], "1970-01-01T00:00:01.000000000Z");
    check(&rig, List, "metadata/", &json!({}), r#"{"keys":["a","b","c/","e"]}"#);
    check(&rig, Scan, "metadata/", &json!({"limit": 3}), r#"{"keys":["a","b","c/d"]}"#);
    put(&rig, "a", &json!({"is": "a"}));
    assert_eq!((data(&rig, "a", 1), data(&rig, "a", 2)), (json!({"was": "a"}), json!({"is": "a"})));
    rig.call(Update, "destroy/b", &json!({"versions": [1]})).unwrap();
    rig.call(Delete, "metadata/c/d", &json!({})).unwrap();
    assert_eq!(rig.stored(), ["data/a/1", "data/a/2", "data/e/1", "meta/a", "meta/b", "meta/e"]);
}
