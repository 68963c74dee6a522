//! What is asked of the provider once the browser is back: the ID token for a code, and more about the user.

use arca_engine_api::{Ctx, EngineError, HttpAnswer, HttpRequest, Map};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::config::{Config, text};
use super::super::provider::{Endpoints, document};
use super::super::role::Role;
use super::super::{Jwt, custom};
use super::failed;
use super::id_token::{self, Expected};
use super::pending::Pending;
use crate::auth::jose::{Jws, json as strict_json};

/// What URLs and forms hold as it is.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Largest answer, bytes.
const BODY_MAX: usize = 1 << 20;
/// Errors of RFC 6749, RFC 8628 and OpenID Connect Core. Nothing else a provider or a browser says is repeated.
const ERRORS: &[&str] = &[
    "access_denied",
    "account_selection_required",
    "authorization_pending",
    "consent_required",
    "expired_token",
    "interaction_required",
    "invalid_client",
    "invalid_grant",
    "invalid_request",
    "invalid_scope",
    "login_required",
    "server_error",
    "slow_down",
    "temporarily_unavailable",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
];

/// An error's name if it is one of the standards', else a word for all others.
pub(super) fn error_name(said: &str) -> &'static str {
    ERRORS.iter().find(|known| **known == said).copied().unwrap_or("the provider refused")
}

/// `a=b&c=d`, escaped.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join("&")
}

/// Posts a form to the provider.
pub(super) async fn post(
    ctx: &Ctx<'_>,
    url: &str,
    config: &Config,
    fields: &[(&str, &str)],
    authorization: Option<Zeroizing<String>>,
) -> Result<HttpAnswer, EngineError> {
    let mut headers = vec![
        ("accept", "application/json".into()),
        ("content-type", "application/x-www-form-urlencoded".into()),
    ];
    headers.extend(authorization.map(|value| ("authorization", value.as_str().into())));
    let request = HttpRequest {
        headers,
        body: form(fields).into_bytes(),
        ca_pem: config.oidc_discovery_ca_pem.clone(),
        body_max: BODY_MAX,
        ..HttpRequest::new("POST", url)
    };
    ctx.http.send(request).await
}

/// A provider and a login at it.
#[derive(Clone, Copy)]
pub(super) struct Visit<'a> {
    pub(super) jwt: &'a Jwt,
    pub(super) ctx: &'a Ctx<'a>,
    pub(super) config: &'a Config,
    pub(super) endpoints: &'a Endpoints,
    pub(super) role: &'a Role,
    pub(super) pending: &'a Pending,
}

impl Visit<'_> {
    /// What the provider says of the user, for a code.
    pub(super) async fn by_code(self, code: &str) -> Result<Map, EngineError> {
        let fields = [
            ("code", code),
            ("code_verifier", self.pending.code_verifier.as_str()),
            ("grant_type", "authorization_code"),
            ("redirect_uri", self.pending.redirect_uri.as_str()),
        ];
        let escape = |text: &str| utf8_percent_encode(text, ESCAPED).to_string();
        let (id, secret) = (&self.config.oidc_client_id, &self.config.oidc_client_secret);
        let pair = Zeroizing::new(format!("{}:{}", escape(id), escape(secret)));
        let mut answer = if self.endpoints.takes_basic {
            let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            post(self.ctx, &self.endpoints.token, self.config, &fields, Some(basic)).await?
        } else {
            let own = [("client_id", id.as_str()), ("client_secret", secret.as_str())];
            let fields = [fields.as_slice(), own.as_slice()].concat();
            post(self.ctx, &self.endpoints.token, self.config, &fields, None).await?
        };
        self.tokens(&mut answer).await
    }

    /// The same for a device code; the error is a bare name while the user has not answered.
    pub(super) async fn by_device_code(self) -> Result<Map, EngineError> {
        let fields = [
            ("client_id", self.config.oidc_client_id.as_str()),
            ("client_secret", &self.config.oidc_client_secret),
            ("device_code", &self.pending.device_code),
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ];
        let mut answer = post(self.ctx, &self.endpoints.token, self.config, &fields, None).await?;
        self.tokens(&mut answer).await
    }

    async fn tokens(self, answer: &mut HttpAnswer) -> Result<Map, EngineError> {
        if answer.status != 200 {
            let said = strict_json::object(&answer.body).unwrap_or_default();
            return Err(match error_name(text(&said, "error")) {
                waiting @ ("authorization_pending" | "slow_down") => EngineError::invalid(waiting),
                error => failed(format!("Error exchanging oidc code: {error}.")),
            });
        }
        let tokens = document(answer)?;
        let id_token = text(&tokens, "id_token");
        if id_token.is_empty() {
            return Err(failed("Error exchanging oidc code: the provider gave no id_token."));
        }
        let mut claims = self.claims(id_token).await?;
        let access_token = text(&tokens, "access_token");
        if !access_token.is_empty() && !self.endpoints.userinfo.is_empty() {
            self.add_user_info(&mut claims, access_token).await;
        }
        let wanted = self.role.oauth2_metadata.iter().flatten();
        let metadata: Map = wanted
            .filter_map(|name| Some((format!("oauth2_{name}"), tokens.get(name)?.clone())))
            .filter(|(_, value)| value.is_string())
            .collect();
        self.outcome(claims, metadata, Some(access_token).filter(|token| !token.is_empty())).await
    }

    /// The same for an ID token that came by post.
    pub(super) async fn by_id_token(self, id_token: &str) -> Result<Map, EngineError> {
        let claims = self.claims(id_token).await?;
        self.outcome(claims, Map::new(), None).await
    }

    /// What counts of all that was said.
    async fn outcome(
        self,
        claims: Map,
        metadata: Map,
        access_token: Option<&str>,
    ) -> Result<Map, EngineError> {
        let groups = custom::groups(self.ctx, self.config, self.role, &claims, access_token).await;
        let groups = groups.map_err(|err| match err {
            EngineError::Invalid(text) => failed(text),
            err => err,
        })?;
        Ok(Map::from_iter([
            ("claims".to_owned(), Value::Object(claims)),
            ("groups".to_owned(), groups.unwrap_or_default()),
            ("metadata".to_owned(), Value::Object(metadata)),
        ]))
    }

    async fn claims(self, id_token: &str) -> Result<Map, EngineError> {
        const WHERE: &str = "Arca login failed. Error exchanging oidc code: id_token failed verification";
        let refuse = |why: &dyn std::fmt::Display| EngineError::Invalid(format!("{WHERE}: {why}"));
        let jws = Jws::parse(id_token).map_err(|err| refuse(&err))?;
        if !self.config.takes_from_provider(jws.alg) {
            return Err(refuse(&"token signed with unexpected algorithm"));
        }
        let source = self.config.source();
        let source = source.ok_or_else(|| EngineError::Bug("OIDC without a provider".to_owned()))?;
        let claims = self.jwt.provider.claims(self.ctx, &source, &jws).await.map_err(|err| err.at(WHERE))?;
        let expected = Expected {
            issuer: &self.config.oidc_discovery_url,
            client_id: &self.config.oidc_client_id,
            nonce: &self.pending.nonce,
            max_age_s: self.role.max_age_s,
            audiences: self.role.bound_audiences.as_deref().unwrap_or_default(),
            now: self.ctx.clock.now(),
        };
        id_token::check(&claims, &expected).map_err(|err| refuse(&err))?;
        Ok(claims)
    }

    /// More about the user, where the provider tells it. Without it the login goes on: the ID token has said who it is.
    async fn add_user_info(self, claims: &mut Map, access_token: &str) {
        let request = HttpRequest {
            headers: vec![
                ("accept", "application/json".into()),
                ("authorization", format!("Bearer {access_token}").into()),
            ],
            ca_pem: self.config.oidc_discovery_ca_pem.clone(),
            body_max: BODY_MAX,
            ..HttpRequest::new("GET", &self.endpoints.userinfo)
        };
        let Ok(answer) = self.ctx.http.send(request).await else { return };
        let Ok(info) = document(&answer) else { return };
        // OpenID Connect Core, 5.3.2: it may be about somebody else, and then says nothing.
        if info.get("sub") != claims.get("sub") {
            return;
        }
        let more = info.into_iter().filter(|(name, _)| !id_token::PROTOCOL_CLAIMS.contains(&name.as_str()));
        claims.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(form(&[("a b", "c&d=e/f"), ("~", "\u{e4}-._")]), "a%20b=c%26d%3De%2Ff&~=%C3%A4-._");
    }

    #[test]
    fn only_errors_of_the_standards_are_repeated() {
        assert_eq!(error_name("access_denied"), "access_denied");
        assert_eq!(error_name("<script>"), "the provider refused");
    }
}
