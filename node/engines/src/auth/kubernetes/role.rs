//! Roles: which service accounts may log in, and what they get.

use arca_engine_api::{EngineError, Fields};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::account::Account;
use super::routes::OLD_NAMES;
use super::selector::Selector;
use crate::auth::names;
use crate::auth::roles::StoredRole;
use crate::auth::token_params::TokenParams;

/// Whose alias a login is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AliasSource {
    /// Whoever has that name: an account made anew is the same one.
    #[serde(rename = "serviceaccount_name")]
    Name,
    /// The account itself: one made anew is another.
    #[default]
    #[serde(rename = "serviceaccount_uid")]
    Uid,
}

/// A role as stored. Holds no secret, so that one decoded record serves many logins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) alias_name_source: AliasSource,
    pub(super) audience: String,
    pub(super) bound_service_account_names: Vec<String>,
    pub(super) bound_service_account_namespaces: Option<Vec<String>>,
    /// As given.
    pub(super) bound_service_account_namespace_selector: String,
    pub(super) token: TokenParams,
}

impl StoredRole for Role {
    fn update(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        self.token.update(fields, OLD_NAMES)?;
        if let Some(list) = fields.list("bound_service_account_names")? {
            self.bound_service_account_names = list;
        }
        if let Some(list) = fields.list("bound_service_account_namespaces")? {
            self.bound_service_account_namespaces = Some(list);
        }
        if let Some(text) = fields.string("audience")? {
            self.audience = text;
        }
        // What a write does not mention stays, but for this: whoever writes the namespaces anew means these alone.
        let selector = fields.string("bound_service_account_namespace_selector")?;
        self.bound_service_account_namespace_selector = selector.unwrap_or_default();
        if let Some(source) = fields.string("alias_name_source")? {
            self.alias_name_source = match source.as_str() {
                "serviceaccount_uid" => AliasSource::Uid,
                "serviceaccount_name" => AliasSource::Name,
                _ => {
                    return Err(EngineError::invalid(
                        "invalid alias_name_source, must be one of: serviceaccount_uid, serviceaccount_name",
                    ));
                }
            };
        }
        Ok(())
    }

    fn check(&self) -> Result<(), EngineError> {
        let refuse = |text: &str| Err(EngineError::invalid(text));
        let namespaces = self.bound_service_account_namespaces.as_deref().unwrap_or_default();
        if self.bound_service_account_names.is_empty() {
            return refuse("\"bound_service_account_names\" can not be empty");
        }
        if namespaces.is_empty() && self.bound_service_account_namespace_selector.is_empty() {
            return refuse(
                "\"bound_service_account_namespaces\" can not be empty if \"bound_service_account_namespace_selector\" is not set",
            );
        }
        let is_mixed = |list: &[String]| list.len() > 1 && list.iter().any(|item| item == "*");
        if is_mixed(&self.bound_service_account_names) || is_mixed(namespaces) {
            return refuse("can not mix \"*\" with values");
        }
        if !self.bound_service_account_namespace_selector.is_empty() {
            Selector::parse(&self.bound_service_account_namespace_selector)?;
        }
        Ok(())
    }

    fn token(&self) -> &TokenParams {
        &self.token
    }

    fn show(&self) -> Value {
        let mut data = json!({
            "alias_name_source": self.alias_name_source,
            "bound_service_account_names": self.bound_service_account_names,
            "bound_service_account_namespace_selector": self.bound_service_account_namespace_selector,
            "bound_service_account_namespaces": self.bound_service_account_namespaces,
        });
        if let Some(data) = data.as_object_mut() {
            if !self.audience.is_empty() {
                data.insert("audience".to_owned(), json!(self.audience));
            }
            self.token.show(data);
        }
        data
    }
}

impl Role {
    /// Whether accounts of that name may log in.
    pub(super) fn takes_name(&self, name: &str) -> bool {
        self.bound_service_account_names.iter().any(|pattern| names::glob(pattern, name))
    }

    /// Whether accounts of that namespace may log in, whatever its labels.
    pub(super) fn takes_namespace(&self, namespace: &str) -> bool {
        let patterns = self.bound_service_account_namespaces.iter().flatten();
        patterns.into_iter().any(|pattern| names::glob(pattern, namespace))
    }

    /// Which labels else its namespace may have.
    pub(super) fn selector(&self) -> Result<Option<Selector>, EngineError> {
        let text = &self.bound_service_account_namespace_selector;
        (!text.is_empty()).then(|| Selector::parse(text)).transpose()
    }

    /// Whose alias a login of the account is.
    pub(super) fn alias_of(&self, account: &Account) -> String {
        match self.alias_name_source {
            AliasSource::Name => format!("{}/{}", account.namespace, account.name),
            AliasSource::Uid => account.uid.clone(),
        }
    }
}
