//! The bytes of questions and answers, as they go between clusters of different versions.

use serde_json::json;

use super::*;

fn object(value: serde_json::Value) -> Map {
    value.as_object().unwrap().clone()
}

fn text(bytes: &Bytes) -> String {
    assert_eq!(bytes[0], 1);
    String::from_utf8(bytes[1..].to_vec()).unwrap()
}

#[test]
fn questions_have_these_bytes() {
    let entity = Question::Entity(EntityQuestion {
        namespace_id: "root".to_owned(),
        mount_accessor: "auth_userpass_1".to_owned(),
        is_local: false,
        entity_id: String::new(),
        alias_name: "alice".to_owned(),
        alias_metadata: [("a".to_owned(), "b".to_owned())].into(),
        group_aliases: vec!["dev".to_owned()],
    });
    assert_eq!(
        text(&entity.encode().unwrap()),
        r#"{"entity":{"namespace_id":"root","mount_accessor":"auth_userpass_1","is_local":false,"entity_id":"","alias_name":"alice","alias_metadata":{"a":"b"},"group_aliases":["dev"]}}"#
    );
    let request = Question::Request(Box::new(RequestQuestion {
        id: "r".to_owned(),
        operation: "update".to_owned(),
        namespace: String::new(),
        path: "secret/a".to_owned(),
        data: object(json!({"k": 1})),
        headers: BTreeMap::new(),
        remote_addr: Some([127, 0, 0, 1].into()),
        remote_port: 9,
        client_certificates: vec!["00ff".to_owned()],
        wrap_ttl_ms: Some(5),
        caller: Some(AskingToken {
            key: "k".to_owned(),
            accessor: "acc".to_owned(),
            display_name: "userpass-alice".to_owned(),
            policies: vec!["default".to_owned()],
            namespace_id: "root".to_owned(),
            created: UnixMillis(1),
            ttl_ms: 2,
            ..AskingToken::default()
        }),
    }));
    assert_eq!(
        text(&request.encode().unwrap()),
        r#"{"request":{"id":"r","operation":"update","namespace":"","path":"secret/a","data":{"k":1},"headers":{},"remote_addr":"127.0.0.1","remote_port":9,"client_certificates":["00ff"],"wrap_ttl_ms":5,"caller":{"key":"k","accessor":"acc","display_name":"userpass-alice","policies":["default"],"no_identity_policies":false,"metadata":{},"entity_id":"","entity_namespace_id":"","namespace_id":"root","namespace_path":"","is_batch":false,"created":1,"ttl_ms":2}}}"#
    );
    for question in [entity, request] {
        let bytes = question.encode().unwrap();
        assert_eq!(Question::decode(&bytes).unwrap().encode().unwrap(), bytes);
    }
}

#[test]
fn replies_have_these_bytes() {
    let login = Login {
        alias_name: "alice".to_owned(),
        policies: vec!["p".to_owned()],
        ttl: Duration::from_secs(1),
        is_renewable: true,
        ..Login::default()
    };
    let raw = Raw { status: 200, content_type: "text/plain".to_owned(), body: b"ab".to_vec() };
    let done = Reply::Done(Box::new(DoneReply {
        index: 7,
        data: Some(object(json!({"version": 1}))),
        raw: Some(RawReply::of(&raw)),
        login: Some(login.into()),
        entity_id: "e".to_owned(),
        ..DoneReply::default()
    }));
    assert_eq!(
        text(&done.encode().unwrap()),
        r#"{"done":{"index":7,"data":{"version":1},"warnings":[],"accessor":null,"raw":{"status":200,"content_type":"text/plain","body":"6162"},"is_missing":false,"status":null,"lease_seconds":0,"shape":"envelope","login":{"alias_name":"alice","alias_metadata":{},"display_name":"","policies":["p"],"no_default_policy":false,"metadata":{},"group_aliases":null,"internal":{},"ttl":1000,"max_ttl":0,"explicit_max_ttl":0,"period":0,"num_uses":0,"token_kind":"default","bound_cidrs":[],"is_renewable":true},"entity_id":"e"}}"#
    );
    let entity = Reply::Entity { id: "e".to_owned(), index: 9 };
    assert_eq!(text(&entity.encode().unwrap()), r#"{"entity":{"id":"e","index":9}}"#);
    let nothing = Reply::NothingShared { index: 3 };
    assert_eq!(text(&nothing.encode().unwrap()), r#"{"nothing_shared":{"index":3}}"#);
    let refused = Reply::refused(&KernelError::Denied);
    assert_eq!(
        text(&refused.encode().unwrap()),
        r#"{"refused":{"fault":"denied","messages":["permission denied"]}}"#
    );
    for reply in [done, entity, nothing, refused] {
        let bytes = reply.encode().unwrap();
        assert_eq!(Reply::decode(&bytes).unwrap().encode().unwrap(), bytes);
    }
}

#[test]
fn what_is_not_known_is_refused() {
    for bad in [&b""[..], b"\x02{}", b"\x01", b"\x01{\"entity\":{\"more\":1}}", b"\x01{\"revoke\":{}}"] {
        assert!(Question::decode(bad).is_err());
        assert!(Reply::decode(bad).is_err());
    }
}

#[test]
fn every_fault_has_a_name_and_comes_back() {
    for (fault, name) in FAULTS {
        assert_eq!((fault_of(fault_name(*fault)), fault_name(*fault)), (*fault, *name));
    }
    assert_eq!(fault_of("something new"), Fault::Internal);
    assert!(operation_of("create").is_err() && operation_of("help").is_err());
    assert_eq!(operation_of("update").unwrap(), Operation::Update);
}
