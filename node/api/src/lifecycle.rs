//! The few `sys/` paths a sealed node answers: init, unseal, seal-status, health, leader, join. None is audited, none
//! needs a token, all are served by the node that was asked, except the joiner's proof.

use arca_engine_api::Map;
use arca_kernel::replication::Kind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::body;
use crate::health::health;
use crate::render::{Rendered, errors, to_json};
use crate::status::status_of_system;
use crate::system::{Health, InitRequest, InitResponse, System, SystemError, UnsealRequest};

/// Which of these paths was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Answer,
    Challenge,
    Health,
    Init,
    Join,
    Leader,
    SealFacts,
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
            "sys/storage/raft/bootstrap/seal" => Self::SealFacts,
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
        Endpoint::Health if is_read => return health(&current_health(system), raw_query),
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
        Endpoint::SealFacts if is_write => system.seal_facts().map(|data| ok(&with_data(&data))),
        Endpoint::Answer if is_write => match parsed(bytes) {
            Ok(request) => system.join_answer(request).await.map(|data| ok(&with_data(&data))),
            Err(err) => Err(err),
        },
        _ => return errors(StatusCode::METHOD_NOT_ALLOWED, &["unsupported operation".to_owned()]),
    };
    outcome.unwrap_or_else(|err| refused(&err))
}

/// The roles are the state's to say, so an unsealed kernel knows them best.
fn current_health(system: &dyn System) -> Health {
    let mut health = system.health();
    if let Some(kernel) = system.kernel() {
        let standing = kernel.standing();
        health.replication_dr_mode = standing.role(Kind::Dr).mode.name().to_owned();
        health.replication_performance_mode = standing.role(Kind::Performance).mode.name().to_owned();
    }
    health
}

fn with_data(data: &Value) -> Value {
    json!({ "data": data })
}

/// The body's fields. Names match in any case and `null` means absent, as clients of this family expect: their own
/// decoders take bodies so, and some send every field they know.
fn fields(bytes: &Bytes) -> Result<Map, SystemError> {
    let sent = body::parse(bytes).map_err(|err| SystemError::Invalid(err.to_string()))?;
    let given = sent.into_iter().filter(|(_, value)| !value.is_null());
    Ok(given.map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
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

async fn unseal(system: &dyn System, bytes: &Bytes) -> Result<Rendered, SystemError> {
    let mut given = fields(bytes)?;
    let is_reset = flag(&given, "reset")?;
    if flag(&given, "migrate")? {
        return Err(SystemError::Invalid("no seal migration is under way".to_owned()));
    }
    let key = match given.remove("key") {
        None => Zeroizing::default(),
        Some(Value::String(key)) => Zeroizing::new(key),
        Some(_) => return Err(SystemError::Invalid("'key' must be a string".to_owned())),
    };
    if key.is_empty() && !is_reset {
        return Err(SystemError::Invalid(
            "'key' must be specified in the request body as JSON, or 'reset' set to true".to_owned(),
        ));
    }
    Ok(ok(&system.unseal(UnsealRequest { key, is_reset }).await?))
}

fn flag(given: &Map, name: &str) -> Result<bool, SystemError> {
    match given.get(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(SystemError::Invalid(format!("'{name}' must be true or false"))),
    }
}

async fn join(system: &dyn System, bytes: &Bytes) -> Result<Rendered, SystemError> {
    Ok(ok(&json!({ "joined": system.join(parsed(bytes)?).await? })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeSystem;

    /// What the node was asked for, or the refusal.
    async fn asked(path: &str, body: &str) -> String {
        let system = FakeSystem::default();
        let endpoint = Endpoint::find(path).unwrap();
        let bytes = Bytes::from(body.to_owned());
        let answer = serve(&system, endpoint, &Method::PUT, "", &bytes).await;
        match system.take_notes().pop() {
            Some(note) => note,
            None => format!("{} {}", answer.status.as_u16(), String::from_utf8_lossy(&answer.body)),
        }
    }

    #[tokio::test]
    async fn null_is_absent() {
        // As the Go client, and as hvac, send it.
        let go = r#"{"secret_shares":5,"secret_threshold":3,"pgp_keys":null,"recovery_pgp_keys":null,"root_token_pgp_key":""}"#;
        assert_eq!(asked("sys/init", go).await, "init Some(3) of Some(5)");
        let hvac =
            r#"{"secret_shares":5,"secret_threshold":3,"root_token_pgp_key":null,"recovery_shares":null}"#;
        assert_eq!(asked("sys/init", hvac).await, "init Some(3) of Some(5)");
        assert_eq!(asked("sys/init", r#"{"secret_shares":null}"#).await, "init None of None");
        assert_eq!(asked("sys/unseal", r#"{"key":"k","reset":null}"#).await, "unseal \"k\", reset false");
        let join = r#"{"leader_api_addr":"https://a","retry":null,"leader_ca_cert":null,"non_voter":null}"#;
        assert_eq!(asked("sys/storage/raft/join", join).await, "join \"https://a\", retry false");
    }

    #[tokio::test]
    async fn names_match_in_any_case() {
        assert_eq!(asked("sys/init", r#"{"Secret_Shares":1}"#).await, "init None of Some(1)");
        assert_eq!(asked("sys/unseal", r#"{"KEY":"k"}"#).await, "unseal \"k\", reset false");
        assert_eq!(asked("sys/unseal", r#"{"Reset":true}"#).await, "unseal \"\", reset true");
        let join = r#"{"Leader_API_Addr":"https://a","Retry":true}"#;
        assert_eq!(asked("sys/storage/raft/join", join).await, "join \"https://a\", retry true");
    }

    #[tokio::test]
    async fn a_wrong_type_is_refused() {
        for (path, body) in [
            ("sys/init", r#"{"secret_shares":"5"}"#),
            ("sys/init", r#"{"pgp_keys":"k"}"#),
            ("sys/init", r#"{"pgp_keys":["k"]}"#),
            ("sys/unseal", r#"{"reset":"true"}"#),
            ("sys/unseal", r#"{"key":5}"#),
            ("sys/unseal", r#"{"key":null}"#),
            ("sys/storage/raft/join", r#"{"retry":"yes"}"#),
        ] {
            let got = asked(path, body).await;
            assert!(got.starts_with("400 {\"errors\":["), "{path} {body}: {got}");
        }
    }
}
