//! Answers as JSON, with exactly the keys clients of this family expect.

use std::collections::BTreeMap;

use arca_engine_api::{Map, Operation, rfc3339};
use arca_kernel::{Answer, AnswerAuth, Shape, WrapInfo};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

/// A finished body and its status.
pub(crate) struct Rendered {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

#[derive(Serialize)]
struct Envelope<'a> {
    request_id: &'a str,
    lease_id: &'a str,
    renewable: bool,
    lease_duration: u64,
    data: Option<&'a Map>,
    wrap_info: Option<WrapView<'a>>,
    warnings: Option<&'a [String]>,
    auth: Option<AuthView<'a>>,
    mount_type: &'a str,
}

#[derive(Serialize)]
struct AuthView<'a> {
    client_token: &'a str,
    accessor: &'a str,
    policies: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    token_policies: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    identity_policies: &'a [String],
    metadata: Option<&'a BTreeMap<String, String>>,
    lease_duration: u64,
    renewable: bool,
    entity_id: &'a str,
    token_type: &'a str,
    orphan: bool,
    mfa_requirement: Option<()>,
    num_uses: u32,
}

#[derive(Serialize)]
struct WrapView<'a> {
    token: &'a str,
    accessor: &'a str,
    ttl: u64,
    creation_time: String,
    creation_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapped_accessor: Option<&'a str>,
}

impl<'a> AuthView<'a> {
    fn new(auth: &'a AnswerAuth) -> Self {
        Self {
            client_token: &auth.client_token,
            accessor: &auth.accessor,
            policies: &auth.policies,
            token_policies: &auth.token_policies,
            identity_policies: &auth.identity_policies,
            metadata: (!auth.metadata.is_empty()).then_some(&auth.metadata),
            lease_duration: auth.lease_duration,
            renewable: auth.is_renewable,
            entity_id: &auth.entity_id,
            token_type: auth.token_type,
            orphan: auth.is_orphan,
            mfa_requirement: None,
            num_uses: auth.num_uses,
        }
    }
}

impl<'a> WrapView<'a> {
    fn new(info: &'a WrapInfo) -> Self {
        Self {
            token: &info.token,
            accessor: &info.accessor,
            ttl: info.ttl,
            creation_time: rfc3339::format(info.creation_time),
            creation_path: &info.creation_path,
            wrapped_accessor: info.wrapped_accessor.as_deref(),
        }
    }
}

/// The JSON answer to `operation`; the caller has already dealt with raw and streamed bodies.
pub(crate) fn answer(answer: &Answer, operation: Operation) -> Rendered {
    if answer.shape == Shape::Bare {
        return Rendered { status: StatusCode::OK, body: to_json(&answer.data) };
    }
    // A lease is something to say: a renewal may have nothing else.
    let has_extras = answer.auth.is_some()
        || answer.wrap_info.is_some()
        || !answer.lease_id.is_empty()
        || !answer.warnings.is_empty();
    if !has_extras && says_nothing(answer, operation) {
        return match operation {
            Operation::Read | Operation::List | Operation::Scan | Operation::Help => not_found(),
            _ if answer.is_missing => not_found(),
            _ => Rendered { status: StatusCode::NO_CONTENT, body: Bytes::new() },
        };
    }
    let envelope = Envelope {
        request_id: &answer.request_id,
        lease_id: &answer.lease_id,
        renewable: answer.is_renewable,
        lease_duration: answer.lease_duration,
        data: answer.data.as_ref(),
        wrap_info: answer.wrap_info.as_ref().map(WrapView::new),
        warnings: (!answer.warnings.is_empty()).then_some(answer.warnings.as_slice()),
        auth: answer.auth.as_ref().map(AuthView::new),
        mount_type: &answer.mount_type,
    };
    let plain = if answer.is_missing { StatusCode::NOT_FOUND } else { StatusCode::OK };
    let status = answer.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(plain);
    Rendered { status, body: with_top_level(answer, &envelope) }
}

/// Whether there is nothing to show: no data, or a list without names and without anything else.
fn says_nothing(answer: &Answer, operation: Operation) -> bool {
    let Some(data) = &answer.data else { return true };
    let is_list = matches!(operation, Operation::List | Operation::Scan);
    is_list && data.iter().all(|(name, value)| name == "keys" && value.as_array().is_none_or(Vec::is_empty))
}

fn with_top_level(answer: &Answer, envelope: &Envelope<'_>) -> Bytes {
    let (Shape::EnvelopeAndTop, Some(data)) = (answer.shape, &answer.data) else { return to_json(envelope) };
    let Ok(Value::Object(mut body)) = serde_json::to_value(envelope) else { return to_json(envelope) };
    for (name, value) in data {
        body.entry(name.clone()).or_insert_with(|| value.clone());
    }
    to_json(&body)
}

fn not_found() -> Rendered {
    errors(StatusCode::NOT_FOUND, &[])
}

/// `{"errors": [...]}`.
pub(crate) fn errors(status: StatusCode, messages: &[String]) -> Rendered {
    #[derive(Serialize)]
    struct Errors<'a> {
        errors: &'a [String],
    }
    Rendered { status, body: to_json(&Errors { errors: messages }) }
}

/// Any value as JSON bytes. Our types cannot fail to serialize; should one, the body says so.
pub(crate) fn to_json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .unwrap_or_else(|_| br#"{"errors":["internal error: the answer could not be rendered"]}"#.to_vec())
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn data(value: &Value) -> Option<Map> {
        value.as_object().cloned()
    }

    #[track_caller]
    fn check(given: &Answer, operation: Operation, status: u16, body: &str) {
        let got = answer(given, operation);
        assert_eq!((got.status.as_u16(), String::from_utf8_lossy(&got.body).as_ref()), (status, body));
    }

    #[test]
    fn nothing_to_say_depends_on_the_operation() {
        check(&Answer::default(), Operation::Update, 204, "");
        check(&Answer::default(), Operation::Delete, 204, "");
        let renewed = Answer { lease_id: "l".to_owned(), ..Answer::default() };
        assert_eq!(answer(&renewed, Operation::Update).status, StatusCode::OK);
        check(&Answer::default(), Operation::Read, 404, r#"{"errors":[]}"#);
        let empty = Answer { data: data(&json!({"keys": []})), ..Answer::default() };
        check(&empty, Operation::List, 404, r#"{"errors":[]}"#);
    }

    #[test]
    fn a_warning_makes_it_200() {
        let warned = Answer { warnings: vec!["w".to_owned()], ..Answer::default() };
        let body = r#"{"request_id":"","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"warnings":["w"],"auth":null,"mount_type":""}"#;
        check(&warned, Operation::Update, 200, body);
    }

    #[test]
    fn some_routes_repeat_data_at_the_top() {
        let both =
            Answer { data: data(&json!({"a/": 1})), shape: Shape::EnvelopeAndTop, ..Answer::default() };
        let body: Value = serde_json::from_slice(&answer(&both, Operation::Read).body).unwrap();
        assert_eq!((&body["a/"], &body["data"]["a/"]), (&json!(1), &json!(1)));
    }

    #[test]
    fn a_deleted_version_is_404_with_a_body() {
        let gone = Answer { data: data(&json!({"data": null})), is_missing: true, ..Answer::default() };
        assert_eq!(answer(&gone, Operation::Read).status, StatusCode::NOT_FOUND);
        assert!(!answer(&gone, Operation::Read).body.is_empty());
    }
}
