//! The response envelope of the API and what travels in it. `Debug` shows names and never values.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::token::Token;

/// The envelope of every answer that is not a bare system object.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub struct Secret {
    /// The server's id for the request, as in its audit log.
    pub request_id: String,
    /// The lease on what was answered; empty if there is none.
    pub lease_id: String,
    /// Seconds the lease runs.
    pub lease_duration: u64,
    /// Whether the lease can be renewed.
    pub renewable: bool,
    /// The answer itself.
    pub data: Option<Map<String, Value>>,
    /// What the server wants noticed.
    pub warnings: Option<Vec<String>>,
    /// The result of a login or of making or renewing a token.
    pub auth: Option<Auth>,
    /// Where a wrapped answer waits.
    pub wrap_info: Option<WrapInfo>,
}

/// A token and what it may do.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Auth {
    /// The token itself.
    pub client_token: Token,
    /// Its accessor.
    pub accessor: String,
    /// Every policy that holds for it.
    pub policies: Option<Vec<String>>,
    /// The policies attached to it.
    pub token_policies: Option<Vec<String>>,
    /// The policies that come from its entity and groups.
    pub identity_policies: Option<Vec<String>>,
    /// What the auth method knows about it.
    pub metadata: Option<BTreeMap<String, String>>,
    /// Whether it has no parent.
    pub orphan: bool,
    /// The entity it belongs to; may be empty.
    pub entity_id: String,
    /// Seconds it lives; 0 is for ever.
    pub lease_duration: u64,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// `service` or `batch`.
    pub token_type: String,
    /// Requests it is good for; 0 is no limit.
    pub num_uses: u64,
    /// The second factor the server waits for before it hands out a token.
    pub mfa_requirement: Option<MfaRequirement>,
}

/// Second factors that a login still needs.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(default)]
pub struct MfaRequirement {
    /// Quoted by the validation that follows.
    pub mfa_request_id: String,
    /// Every constraint needs one of its methods.
    pub mfa_constraints: BTreeMap<String, MfaConstraint>,
}

/// The methods of which one must be passed.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(default)]
pub struct MfaConstraint {
    /// Any of these will do.
    pub any: Vec<MfaMethod>,
}

/// A second factor.
#[derive(Clone, Debug, Default, Deserialize, serde::Serialize)]
#[serde(default)]
pub struct MfaMethod {
    /// `totp`, `duo`, ….
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of the method's configuration.
    pub id: String,
    /// Whether a passcode is typed.
    pub uses_passcode: bool,
    /// The name of the method's configuration.
    pub name: String,
}

/// A single-use token that holds a wrapped answer.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct WrapInfo {
    /// The token that unwraps it.
    pub token: Token,
    /// Its accessor.
    pub accessor: String,
    /// Seconds it waits.
    pub ttl: u64,
    /// When it was wrapped, RFC 3339.
    pub creation_time: String,
    /// The path whose answer it holds.
    pub creation_path: String,
    /// The accessor of a wrapped token.
    pub wrapped_accessor: String,
}

impl Secret {
    /// The field `name` of the data.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.data.as_ref()?.get(name)
    }

    /// The names in the answer to a list.
    pub fn keys(&self) -> Vec<String> {
        let keys = self.field("keys").and_then(Value::as_array);
        keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Whether nothing of an envelope was in the body.
    pub(crate) fn is_blank(&self) -> bool {
        self.request_id.is_empty()
            && self.lease_id.is_empty()
            && self.lease_duration == 0
            && !self.renewable
            && self.data.is_none()
            && self.warnings.is_none()
            && self.auth.is_none()
            && self.wrap_info.is_none()
    }

    /// Whether a 404 with this body is an answer all the same, as with deleted versions in kv version 2.
    pub(crate) fn says_something(&self) -> bool {
        self.data.as_ref().is_some_and(|data| !data.is_empty())
            || self.warnings.as_ref().is_some_and(|warnings| !warnings.is_empty())
    }
}

impl Default for Token {
    fn default() -> Self {
        Self::new(String::new())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("request_id", &self.request_id)
            .field("lease_duration", &self.lease_duration)
            .field("data", &self.data.as_ref().map(|data| data.keys().collect::<Vec<_>>()))
            .field("warnings", &self.warnings)
            .field("auth", &self.auth.is_some())
            .field("wrap_info", &self.wrap_info.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_and_no_values() {
        let secret: Secret =
            serde_json::from_str(r#"{"data":{"password":"hunter2"},"auth":{"client_token":"hvs.x"}}"#)
                .unwrap();
        let shown = format!("{secret:?} {:?}", secret.auth);
        assert!(shown.contains("password"), "{shown}");
        assert!(!shown.contains("hunter2") && !shown.contains("hvs.x"), "{shown}");
    }

    #[test]
    fn nulls_and_missing_fields_are_empty() {
        let body =
            r#"{"data":null,"warnings":null,"auth":{"client_token":null,"policies":null},"wrap_info":null}"#;
        let secret: Secret = serde_json::from_str(body).unwrap();
        assert!(secret.auth.unwrap().client_token.is_empty());
        assert!(secret.data.is_none());
    }
}
