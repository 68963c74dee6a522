//! The service account a token says it is of.

use arca_engine_api::Map;
use serde_json::Value;

/// What is between the prefix and the names of claims in tokens that lie in secrets.
const PREFIX: &str = "kubernetes.io/serviceaccount/";

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) namespace: String,
    /// Of the secret a token lies in; tokens of pods lie in none.
    pub(super) secret_name: String,
    pub(super) uid: String,
}

impl Account {
    /// As the claims have it: the newer form (projected into pods) if it is there, else the older one. Never a mixture.
    pub(super) fn of(claims: &Map) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(projected) = claims.get("kubernetes.io").and_then(Value::as_object) {
            let account = projected.get("serviceaccount");
            return Self {
                name: text(account.and_then(|account| account.get("name"))),
                namespace: text(projected.get("namespace")),
                secret_name: String::new(),
                uid: text(account.and_then(|account| account.get("uid"))),
            };
        }
        let read = |name: &str| text(claims.get(&format!("{PREFIX}{name}")));
        Self {
            name: read("service-account.name"),
            namespace: read("namespace"),
            secret_name: read("secret.name"),
            uid: read("service-account.uid"),
        }
    }

    /// The user the cluster knows it as.
    pub(super) fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// Whether name and namespace could be those of an account: DNS names, so nothing of a path or of a list.
    pub(super) fn is_sound(&self) -> bool {
        let is_name = |text: &str| {
            let is_letter =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
            (1..=253).contains(&text.len()) && text.bytes().all(is_letter) && text.trim_matches('.') == text
        };
        is_name(&self.name) && is_name(&self.namespace) && !self.uid.is_empty()
    }
}
