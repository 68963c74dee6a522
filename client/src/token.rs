//! Tokens: the newtype that keeps one out of logs, and the `auth/token/*` calls.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::error::Error;
use crate::request::Request;
use crate::secret::Secret;

/// A token that authenticates requests. Shared, not copied; zeroed when the last holder drops it.
#[derive(Clone)]
pub struct Token(Arc<Zeroizing<String>>);

impl Token {
    /// Takes over `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(text.into())))
    }

    /// The bare token. Each call site says why it needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no token in it, as in the answer to a renewal by accessor.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<String>::deserialize(deserializer).map(|text| Self::new(text.unwrap_or_default()))
    }
}

/// What a new token shall be able to do. Fields left out take the server's defaults.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NewToken {
    /// A chosen id, which needs sudo; the ones servers make are better.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bare")]
    pub id: Option<Token>,
    /// Policies; none means those of the caller's token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Metadata shown by lookups and in the audit log.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub meta: std::collections::BTreeMap<String, String>,
    /// How long it lives.
    pub ttl: String,
    /// A bound that no renewal moves.
    pub explicit_max_ttl: String,
    /// Renewals reset the time to live to this, for ever.
    pub period: String,
    /// Without a parent, so that it survives its creator.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_parent: bool,
    /// Without the policy `default`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_default_policy: bool,
    /// A name for humans.
    pub display_name: String,
    /// Requests it is good for; 0 is no limit.
    pub num_uses: u64,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// `service` or `batch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The entity alias of a token role's login.
    pub entity_alias: String,
}

/// A chosen id travels in the request body; nothing else serializes a token.
fn bare<S: serde::Serializer>(token: &Option<Token>, serializer: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(Token::expose).serialize(serializer)
}

/// Calls on `auth/token`, from [`Client::tokens`].
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    client: &'a Client,
}

impl Client {
    /// The token store.
    pub fn tokens(&self) -> Tokens<'_> {
        Tokens { client: self }
    }
}

impl Tokens<'_> {
    /// Makes a token, by a token role if one is named.
    pub async fn create(&self, role: Option<&str>, new: &NewToken) -> Result<Secret, Error> {
        let path = match role {
            Some(role) => format!("auth/token/create/{role}"),
            None => "auth/token/create".to_owned(),
        };
        self.client.send_secret(Request::post(path).json(new)?).await
    }

    /// What the client's own token is.
    pub async fn lookup_self(&self) -> Result<Secret, Error> {
        self.client.send_secret(Request::get("auth/token/lookup-self")).await
    }

    /// What `token` is.
    pub async fn lookup(&self, token: &Token) -> Result<Secret, Error> {
        // The body is where this API takes a token that is not the caller's.
        self.post("auth/token/lookup", json!({"token": token.expose()})).await
    }

    /// What the token behind `accessor` is.
    pub async fn lookup_accessor(&self, accessor: &str) -> Result<Secret, Error> {
        self.post("auth/token/lookup-accessor", json!({"accessor": accessor})).await
    }

    /// Extends the client's own token. An increment of zero asks for the default.
    pub async fn renew_self(&self, increment_s: u64) -> Result<Secret, Error> {
        let body = json!({"increment": increment_s});
        self.client.send_secret(Request::put("auth/token/renew-self").json(&body)?).await
    }

    /// Extends `token`.
    pub async fn renew(&self, token: &Token, increment_s: u64) -> Result<Secret, Error> {
        // As in lookup.
        let body = json!({"token": token.expose(), "increment": increment_s});
        self.client.send_secret(Request::put("auth/token/renew").json(&body)?).await
    }

    /// Extends the token behind `accessor`.
    pub async fn renew_accessor(&self, accessor: &str, increment_s: u64) -> Result<Secret, Error> {
        self.post("auth/token/renew-accessor", json!({"accessor": accessor, "increment": increment_s})).await
    }

    /// Ends the client's own token and all it made.
    pub async fn revoke_self(&self) -> Result<(), Error> {
        self.client.send(Request::put("auth/token/revoke-self")).await.map(drop)
    }

    /// Ends `token` and all it made.
    pub async fn revoke(&self, token: &Token) -> Result<(), Error> {
        // As in lookup.
        let body = json!({"token": token.expose()});
        self.client.send(Request::put("auth/token/revoke").json(&body)?).await.map(drop)
    }

    /// Ends `token` alone; what it made becomes orphaned.
    pub async fn revoke_orphan(&self, token: &Token) -> Result<(), Error> {
        // As in lookup.
        let body = json!({"token": token.expose()});
        self.client.send(Request::put("auth/token/revoke-orphan").json(&body)?).await.map(drop)
    }

    /// Ends the token behind `accessor` and all it made.
    pub async fn revoke_accessor(&self, accessor: &str) -> Result<(), Error> {
        let body = json!({"accessor": accessor});
        self.client.send(Request::post("auth/token/revoke-accessor").json(&body)?).await.map(drop)
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> Result<Secret, Error> {
        self.client.send_secret(Request::post(path).json(&body)?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_it() {
        assert_eq!(format!("{:?}", Token::new("hvs.secret")), "Token(redacted)");
    }
}
