//! The few `sys/` paths a sealed node answers: init, unseal, seal-status, health, leader, join. None is audited, none
//! needs a token, all are served by the node that was asked, except the joiner's proof.

use std::collections::BTreeMap;

use arca_engine_api::Map;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::render::{Rendered, errors, to_json};
use crate::status::status_of_system;
use crate::system::{Health, InitRequest, InitResponse, System, SystemError, UnsealRequest};
use crate::{body, query};

/// Which of these paths was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Answer,
    Challenge,
    Health,
    Init,
    Join,
    Leader,
    SealStatus,
    Unseal,
}

impl Endpoint {
    pub(crate) fn find(path: &str) -> Option<Self> {
        Some(match path {
            "sys/health" => Self::Health,
            "sys/init" => Self::Init,
            "sys/leader" => Self::Leader,
            "sys/seal-status" => Self::SealStatus,
            "sys/storage/raft/bootstrap/answer" => Self::Answer,
            "sys/storage/raft/bootstrap/challenge" => Self::Challenge,
            "sys/storage/raft/join" => Self::Join,
            "sys/unseal" => Self::Unseal,
            _ => return None,
        })
    }

    /// Whether only the active node can answer it.
    pub(crate) fn needs_active(self) -> bool {
        matches!(self, Self::Answer | Self::Challenge)
    }
}

fn ok(value: &impl serde::Serialize) -> Rendered {
    Rendered { status: StatusCode::OK, body: to_json(value) }
}

fn refused(err: &SystemError) -> Rendered {
    if matches!(err, SystemError::Failed(_)) {
        tracing::error!(error = %err, "a request to the node itself failed");
    }
    errors(status_of_system(err), &[err.to_string()])
}

/// Serves one of them.
pub(crate) async fn serve(
    system: &dyn System,
    endpoint: Endpoint,
    method: &Method,
    raw_query: &str,
    bytes: &Bytes,
) -> Rendered {
    let is_write = matches!(*method, Method::PUT | Method::POST);
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let outcome = match endpoint {
        Endpoint::Health if is_read => return health(&system.health(), raw_query),
        Endpoint::SealStatus if is_read => Ok(ok(&system.seal_status())),
        Endpoint::Leader if is_read => Ok(ok(&system.leader())),
        Endpoint::Init if is_read => Ok(ok(&json!({"initialized": system.seal_status().initialized}))),
        Endpoint::Init if is_write => init(system, bytes).await,
        Endpoint::Unseal if is_write => unseal(system, bytes).await,
        Endpoint::Join if is_write => join(system, bytes).await,
        Endpoint::Challenge if is_write => match parsed(bytes) {
            Ok(request) => system.join_challenge(request).await.map(|data| ok(&with_data(&data))),
            Err(err) => Err(err),
        },
        Endpoint::Answer if is_write => match parsed(bytes) {
            Ok(request) => system.join_answer(request).await.map(|data| ok(&with_data(&data))),
            Err(err) => Err(err),
        },
        _ => return errors(StatusCode::METHOD_NOT_ALLOWED, &["unsupported operation".to_owned()]),
    };
    outcome.unwrap_or_else(|err| refused(&err))
}

fn with_data(data: &Value) -> Value {
    json!({ "data": data })
}

fn fields(bytes: &Bytes) -> Result<Map, SystemError> {
    body::parse(bytes).map_err(|err| SystemError::Invalid(err.to_string()))
}

/// A body whose fields may be null, as the Go client sends the ones it leaves out.
fn parsed<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, SystemError> {
    let mut fields = fields(bytes)?;
    fields.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(fields))
        .map_err(|_| SystemError::Invalid("a field has the wrong type".to_owned()))
}

async fn init(system: &dyn System, bytes: &Bytes) -> Result<Rendered, SystemError> {
    let request: InitRequest = parsed(bytes)?;
    if !request.pgp_keys.is_empty() || !request.root_token_pgp_key.is_empty() {
        return Err(SystemError::Invalid(
            "PGP encryption of keys is not supported: nothing was initialized".to_owned(),
        ));
    }
    let made: InitResponse = system.init(request).await?;
    let hex: Vec<String> = made.shares.iter().map(|share| hex(share)).collect();
    let base64: Vec<String> = made.shares.iter().map(|share| STANDARD.encode(share.as_slice())).collect();
    Ok(ok(&json!({ "keys": hex, "keys_base64": base64, "root_token": made.root_token.as_str() })))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names match in any case here, as with the field's standard server.
async fn unseal(system: &dyn System, bytes: &Bytes) -> Result<Rendered, SystemError> {
    let lower: BTreeMap<String, Value> =
        fields(bytes)?.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let flag = |name| lower.get(name).and_then(Value::as_bool).unwrap_or_default();
    if flag("migrate") {
        return Err(SystemError::Invalid("no seal migration is under way".to_owned()));
    }
    let key = match lower.get("key") {
        None | Some(Value::Null) => Zeroizing::default(),
        Some(Value::String(key)) => Zeroizing::new(key.clone()),
        Some(_) => return Err(SystemError::Invalid("'key' must be a string".to_owned())),
    };
    if key.is_empty() && !flag("reset") {
        return Err(SystemError::Invalid(
            "'key' must be specified in the request body as JSON, or 'reset' set to true".to_owned(),
        ));
    }
    Ok(ok(&system.unseal(UnsealRequest { key, is_reset: flag("reset") }).await?))
}

async fn join(system: &dyn System, bytes: &Bytes) -> Result<Rendered, SystemError> {
    Ok(ok(&json!({ "joined": system.join(parsed(bytes)?).await? })))
}

/// The status tells a load balancer what the node is; the query may choose other numbers.
fn health(health: &Health, raw_query: &str) -> Rendered {
    let Ok(query) = query::parse(raw_query) else {
        return errors(StatusCode::BAD_REQUEST, &["bad status code override".to_owned()]);
    };
    let code = |name: &str, default: u16| match query.get(name).and_then(Value::as_str) {
        None => Ok(default),
        Some(text) => text
            .parse::<u16>()
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok())
            .map(|code| code.as_u16())
            .ok_or(()),
    };
    let flag = |name: &str| query.get(name).and_then(Value::as_str).is_some_and(|text| text != "false");
    let wanted = if !health.initialized {
        code("uninitcode", 501)
    } else if health.removed_from_cluster {
        code("removedcode", 530)
    } else if health.sealed {
        code("sealedcode", 503)
    } else if health.standby && health.ha_connection_healthy == Some(false) {
        code("haunhealthycode", 474)
    } else if health.standby && !(flag("standbyok") || flag("perfstandbyok")) {
        code("standbycode", 429)
    } else {
        code("activecode", 200)
    };
    match wanted.map(StatusCode::from_u16) {
        Ok(Ok(status)) => Rendered { status, body: to_json(health) },
        _ => errors(StatusCode::BAD_REQUEST, &["bad status code override".to_owned()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(state: &str, query: &str, want: u16) {
        let given = Health {
            initialized: state != "new",
            sealed: state == "sealed",
            standby: state == "standby" || state == "lost",
            ha_connection_healthy: (state == "lost").then_some(false),
            removed_from_cluster: state == "removed",
            ..Health::default()
        };
        assert_eq!(health(&given, query).status.as_u16(), want, "{state} with {query:?}");
    }

    #[test]
    fn health_has_a_code_for_every_state() {
        check("active", "", 200);
        check("standby", "", 429);
        check("lost", "", 474);
        check("sealed", "", 503);
        check("new", "", 501);
        check("removed", "", 530);
    }

    #[test]
    fn health_codes_can_be_chosen() {
        check("standby", "standbyok=true", 200);
        check("standby", "perfstandbyok", 200);
        check("standby", "standbyok=false", 429);
        check("standby", "standbycode=299", 299);
        check("sealed", "sealedcode=200&uninitcode=201", 200);
        check("new", "sealedcode=200&uninitcode=201", 201);
        check("active", "activecode=abc", 400);
        check("active", "activecode=99", 400);
    }
}
