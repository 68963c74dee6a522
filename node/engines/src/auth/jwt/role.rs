//! Roles: what a token must say for a login, and what the login gives.

use std::collections::{BTreeMap, BTreeSet};

use arca_engine_api::{Ctx, EngineError, Fields, Map, Request, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::routes::OLD_NAMES;
use crate::auth::jose::times::Leeways;
use crate::auth::names;
use crate::auth::roles::{self, StoredRole};
use crate::auth::token_params::TokenParams;

/// The name under which tokens carry their role.
const ROLE_METADATA: &str = "role";

/// What a role's logins begin with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RoleType {
    /// A token that the client has.
    Jwt,
    /// A visit to the provider.
    #[default]
    Oidc,
}

/// Where the browser comes back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CallbackMode {
    /// To the client, which then asks here.
    #[default]
    Client,
    /// Nowhere: the provider is asked until the user has agreed (RFC 8628).
    Device,
    /// Here; the client polls.
    Direct,
}

/// How values of bound claims are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ClaimsType {
    /// With `*` for any text.
    Glob,
    /// As they are.
    #[default]
    String,
}

/// A role as stored. Holds no secret, so that one decoded record serves many logins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) allowed_redirect_uris: Option<Vec<String>>,
    pub(super) bound_audiences: Option<Vec<String>>,
    pub(super) bound_claims: Option<Map>,
    pub(super) bound_claims_type: ClaimsType,
    pub(super) bound_subject: String,
    pub(super) callback_mode: CallbackMode,
    pub(super) claim_mappings: Option<BTreeMap<String, String>>,
    pub(super) clock_skew_leeway_s: i64,
    pub(super) expiration_leeway_s: i64,
    pub(super) groups_claim: String,
    pub(super) max_age_s: u64,
    pub(super) not_before_leeway_s: i64,
    pub(super) oauth2_metadata: Option<Vec<String>>,
    pub(super) oidc_disable_confirmation: bool,
    pub(super) oidc_scopes: Option<Vec<String>>,
    pub(super) poll_interval_s: u64,
    pub(super) role_type: RoleType,
    pub(super) token: TokenParams,
    pub(super) user_claim: String,
    pub(super) user_claim_json_pointer: bool,
    pub(super) verbose_oidc_logging: bool,
}

/// The role of that name, whatever its case.
///
/// # Errors
/// When there is none.
pub(super) fn wanted(ctx: &Ctx<'_>, name: &str) -> Result<(String, Role), EngineError> {
    let missing = || EngineError::invalid("role could not be found");
    let name = names::name(name).ok_or_else(missing)?;
    let role = roles::find(ctx, &name)?.ok_or_else(missing)?;
    Ok((name, role))
}

/// Makes a role or changes one.
pub(super) fn write(ctx: &Ctx<'_>, request: &Request) -> Result<Response, EngineError> {
    let (role, response) = roles::write::<Role>(ctx, request)?;
    if role.verbose_oidc_logging {
        let warning = "verbose_oidc_logging has been enabled for this role. Nothing of a token is logged here all the same.";
        return Ok(response.with_warning(warning));
    }
    Ok(response)
}

impl StoredRole for Role {
    fn update(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        self.token.update(fields, OLD_NAMES)?;
        // What a write does not mention stays, but for these four.
        self.oidc_disable_confirmation = fields.boolean("oidc_disable_confirmation")?.unwrap_or_default();
        let types = [("", RoleType::Oidc), ("jwt", RoleType::Jwt), ("oidc", RoleType::Oidc)];
        self.role_type = named(fields, "role_type", &types)?;
        let modes = [
            ("client", CallbackMode::Client),
            ("device", CallbackMode::Device),
            ("direct", CallbackMode::Direct),
        ];
        self.callback_mode = named(fields, "callback_mode", &modes)?;
        let kinds = [("string", ClaimsType::String), ("glob", ClaimsType::Glob)];
        self.bound_claims_type = named(fields, "bound_claims_type", &kinds)?;
        for (name, slot) in [
            ("bound_subject", &mut self.bound_subject),
            ("groups_claim", &mut self.groups_claim),
            ("user_claim", &mut self.user_claim),
        ] {
            if let Some(text) = fields.string(name)? {
                *slot = text;
            }
        }
        for (name, slot) in [
            ("allowed_redirect_uris", &mut self.allowed_redirect_uris),
            ("bound_audiences", &mut self.bound_audiences),
            ("oauth2_metadata", &mut self.oauth2_metadata),
            ("oidc_scopes", &mut self.oidc_scopes),
        ] {
            let list = if name == "bound_audiences" { fields.bounds(name)? } else { fields.list(name)? };
            if let Some(list) = list {
                *slot = Some(list);
            }
        }
        self.update_flags(fields)?;
        self.update_times(fields)?;
        if let Some(claims) = fields.object("bound_claims")? {
            self.bound_claims = Some(claims.clone());
        }
        if let Some(mappings) = fields.string_map("claim_mappings")? {
            self.claim_mappings = Some(mappings);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), EngineError> {
        let refuse = |text: &str| Err(EngineError::invalid(text));
        if self.user_claim.is_empty() {
            return refuse("a user claim must be defined on the role");
        }
        self.check_claims()?;
        let known = ["access_token", "id_token", "refresh_token"];
        let metadata = self.oauth2_metadata.iter().flatten();
        if metadata.into_iter().any(|name| !known.contains(&name.as_str())) {
            return refuse("Unrecognized oauth2 metadata name");
        }
        let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|items| !items.is_empty());
        match self.role_type {
            RoleType::Oidc
                if !has(&self.allowed_redirect_uris) && self.callback_mode != CallbackMode::Device =>
            {
                refuse("'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.")
            }
            RoleType::Jwt if self.has_no_bound() => {
                refuse("must have at least one bound constraint when creating/updating a role")
            }
            _ => Ok(()),
        }
    }

    fn token(&self) -> &TokenParams {
        &self.token
    }

    fn show(&self) -> Value {
        let mut data = json!({
            "allowed_redirect_uris": self.allowed_redirect_uris,
            "bound_audiences": self.bound_audiences,
            "bound_claims": self.bound_claims,
            "bound_claims_type": self.bound_claims_type,
            "bound_subject": self.bound_subject,
            "callback_mode": self.callback_mode,
            "claim_mappings": self.claim_mappings,
            "clock_skew_leeway": self.clock_skew_leeway_s,
            "expiration_leeway": self.expiration_leeway_s,
            "groups_claim": self.groups_claim,
            "max_age": self.max_age_s,
            "not_before_leeway": self.not_before_leeway_s,
            "oauth2_metadata": self.oauth2_metadata,
            "oidc_disable_confirmation": self.oidc_disable_confirmation,
            "oidc_scopes": self.oidc_scopes,
            "role_type": self.role_type,
            "token_policies_template_claims": false,
            "user_claim": self.user_claim,
            "user_claim_json_pointer": self.user_claim_json_pointer,
            "verbose_oidc_logging": self.verbose_oidc_logging,
        });
        if let Some(data) = data.as_object_mut() {
            if self.poll_interval_s != 0 {
                data.insert("poll_interval".to_owned(), json!(self.poll_interval_s));
            }
            self.token.show(data);
        }
        data
    }
}

impl Role {
    fn update_flags(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        for (name, slot) in [
            ("user_claim_json_pointer", &mut self.user_claim_json_pointer),
            ("verbose_oidc_logging", &mut self.verbose_oidc_logging),
        ] {
            if let Some(flag) = fields.boolean(name)? {
                *slot = flag;
            }
        }
        if fields.boolean("token_policies_template_claims")?.unwrap_or_default() {
            return Err(EngineError::invalid("token_policies_template_claims is not supported"));
        }
        Ok(())
    }

    fn update_times(&mut self, fields: Fields<'_>) -> Result<(), EngineError> {
        for (name, slot) in [
            ("clock_skew_leeway", &mut self.clock_skew_leeway_s),
            ("expiration_leeway", &mut self.expiration_leeway_s),
            ("not_before_leeway", &mut self.not_before_leeway_s),
        ] {
            if let Some(leeway_s) = leeway(fields, name)? {
                *slot = leeway_s;
            }
        }
        if let Some(age) = fields.duration("max_age")? {
            self.max_age_s = age.as_secs();
        }
        if let Some(seconds) = fields.integer("poll_interval")? {
            let text = "poll_interval cannot be negative";
            self.poll_interval_s = u64::try_from(seconds).map_err(|_| EngineError::invalid(text))?;
        }
        Ok(())
    }

    /// Whether any token of the provider would do.
    fn has_no_bound(&self) -> bool {
        self.bound_audiences.as_ref().is_none_or(Vec::is_empty)
            && self.bound_claims.as_ref().is_none_or(Map::is_empty)
            && self.bound_subject.is_empty()
            && self.token.bound_cidrs.is_empty()
    }

    fn check_claims(&self) -> Result<(), EngineError> {
        let mut targets = BTreeSet::new();
        for target in self.claim_mappings.iter().flatten().map(|(_, target)| target) {
            // Whoever may choose a claim's value must not choose the role a token shows.
            if target == ROLE_METADATA || target.starts_with("oauth2_") {
                return Err(EngineError::Invalid(format!(
                    "metadata key {target:?} is reserved and may not be a mapping destination"
                )));
            }
            if !targets.insert(target) {
                return Err(EngineError::Invalid(format!(
                    "multiple keys are mapped to metadata key {target:?}"
                )));
            }
        }
        let values = self.bound_claims.iter().flatten().map(|(_, value)| value);
        for value in
            values.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice))
        {
            if self.bound_claims_type == ClaimsType::Glob && !value.is_string() {
                return Err(EngineError::invalid("claim is not a string"));
            }
            if value.is_object() || value.is_array() || value.is_null() {
                return Err(EngineError::invalid("bound claim is not a string, bool, int or list"));
            }
        }
        Ok(())
    }

    /// How far its tokens may be off.
    pub(super) fn leeways(&self) -> Leeways {
        Leeways {
            expiration_s: self.expiration_leeway_s,
            not_before_s: self.not_before_leeway_s,
            clock_skew_s: self.clock_skew_leeway_s,
        }
    }
}

/// One of a few words; what is usual when it is missing.
fn named<T: Copy + Default>(fields: Fields<'_>, name: &str, words: &[(&str, T)]) -> Result<T, EngineError> {
    let Some(word) = fields.string(name)? else { return Ok(T::default()) };
    let found = words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
    found.ok_or_else(|| EngineError::Invalid(format!("invalid '{name}'")))
}

/// Seconds, where anything negative stands for none and is shown as it was given.
fn leeway(fields: Fields<'_>, name: &str) -> Result<Option<i64>, EngineError> {
    let sent = fields.string(name)?.unwrap_or_default();
    if let Some(rest) = sent.trim().strip_prefix('-')
        && let Some(span) = arca_engine_api::fields::parse_duration(rest).filter(|span| !span.is_zero())
    {
        return Ok(Some(-i64::try_from(span.as_secs()).unwrap_or(i64::MAX).max(1)));
    }
    let span = fields.duration(name)?;
    Ok(span.map(|span| i64::try_from(span.as_secs()).unwrap_or(i64::MAX)))
}
