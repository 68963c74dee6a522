//! JSON as scripts written for Vault's CLI expect it: two spaces, a final newline, the envelope's names in order.

use arca_client::{Auth, Secret, WrapInfo};
use serde::Serialize;
use serde_json::{Map, Value};

/// Pretty JSON with its final newline.
pub fn pretty(value: &impl Serialize) -> String {
    // Values of this crate always serialize: their keys are strings.
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

/// The envelope in the order Vault's CLI prints it.
#[derive(Serialize)]
pub struct Envelope<'a> {
    request_id: &'a str,
    lease_id: &'a str,
    lease_duration: u64,
    renewable: bool,
    data: Option<&'a Map<String, Value>>,
    warnings: Option<&'a Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<AuthView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrap_info: Option<WrapView<'a>>,
}

#[derive(Serialize)]
struct AuthView<'a> {
    client_token: &'a str,
    accessor: &'a str,
    policies: &'a Option<Vec<String>>,
    token_policies: &'a Option<Vec<String>>,
    identity_policies: &'a Option<Vec<String>>,
    metadata: &'a Option<std::collections::BTreeMap<String, String>>,
    orphan: bool,
    entity_id: &'a str,
    lease_duration: u64,
    renewable: bool,
    mfa_requirement: &'a Option<arca_client::secret::MfaRequirement>,
}

#[derive(Serialize)]
struct WrapView<'a> {
    token: &'a str,
    accessor: &'a str,
    ttl: u64,
    creation_time: &'a str,
    creation_path: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    wrapped_accessor: &'a str,
}

impl<'a> From<&'a Secret> for Envelope<'a> {
    fn from(secret: &'a Secret) -> Self {
        Self {
            request_id: &secret.request_id,
            lease_id: &secret.lease_id,
            lease_duration: secret.lease_duration,
            renewable: secret.renewable,
            data: secret.data.as_ref(),
            warnings: secret.warnings.as_ref(),
            auth: secret.auth.as_ref().map(AuthView::from),
            wrap_info: secret.wrap_info.as_ref().map(WrapView::from),
        }
    }
}

// Tokens are exposed here because printing them is what the operator asked for.
impl<'a> From<&'a Auth> for AuthView<'a> {
    fn from(auth: &'a Auth) -> Self {
        Self {
            client_token: auth.client_token.expose(),
            accessor: &auth.accessor,
            policies: &auth.policies,
            token_policies: &auth.token_policies,
            identity_policies: &auth.identity_policies,
            metadata: &auth.metadata,
            orphan: auth.orphan,
            entity_id: &auth.entity_id,
            lease_duration: auth.lease_duration,
            renewable: auth.renewable,
            mfa_requirement: &auth.mfa_requirement,
        }
    }
}

impl<'a> From<&'a WrapInfo> for WrapView<'a> {
    fn from(info: &'a WrapInfo) -> Self {
        Self {
            token: info.token.expose(),
            accessor: &info.accessor,
            ttl: info.ttl,
            creation_time: &info.creation_time,
            creation_path: &info.creation_path,
            wrapped_accessor: &info.wrapped_accessor,
        }
    }
}
