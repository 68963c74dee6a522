//! Providers that tell groups in ways of their own (`provider_config`).

use arca_engine_api::{Ctx, EngineError, HttpRequest, Map};
use serde_json::Value;

use super::claims::claim;
use super::config::{Config, text};
use super::provider::document;
use super::role::Role;

/// Largest answer of a provider about groups, bytes.
const BODY_MAX: usize = 1 << 20;
/// Microsoft's Graph, in all its clouds.
const GRAPHS: &[&str] = &[
    "dod-graph.microsoft.us",
    "graph.microsoft.com",
    "graph.microsoft.us",
    "microsoftgraph.chinacloudapi.cn",
];
/// What has replaced the graphs that tokens may still name.
const REPLACED: &[(&str, &str)] =
    &[("graph.microsoftazure.us", "graph.microsoft.us"), ("graph.windows.net", "graph.microsoft.com")];

/// How groups are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Custom {
    /// Users in more than 200 groups have the name of a place that tells them (OpenID Connect Core, 5.6.2).
    Azure,
    /// In one text with spaces.
    IbmIsam,
    /// In one text with commas.
    SecureAuth,
}

impl Custom {
    /// What `provider_config` names; none if it is empty.
    ///
    /// # Errors
    /// When it names none there is.
    pub(super) fn of(settings: &Map) -> Result<Option<Self>, EngineError> {
        if settings.is_empty() {
            return Ok(None);
        }
        let refuse = |why: &str| Err(EngineError::Invalid(format!("invalid provider_config: {why}")));
        let Some(name) = settings.get("provider").and_then(Value::as_str) else {
            return refuse("'provider' field not found in provider_config");
        };
        match name {
            "azure" => Ok(Some(Self::Azure)),
            "ibmisam" => Ok(Some(Self::IbmIsam)),
            "secureauth" => Ok(Some(Self::SecureAuth)),
            _ => refuse(
                "that provider is not found in custom providers: azure, ibmisam and secureauth are there",
            ),
        }
    }

    fn split(separator: char, found: Option<&Value>) -> Option<Value> {
        let groups = found?.as_str()?.split(separator);
        Some(Value::from(groups.map(str::trim).collect::<Vec<_>>()))
    }
}

/// The groups of a user, if they are not simply the claim's value. `access_token` is the user's, if there is one.
///
/// # Errors
/// When the provider names no place, or that place does not tell.
pub(super) async fn groups(
    ctx: &Ctx<'_>,
    config: &Config,
    role: &Role,
    claims: &Map,
    access_token: Option<&str>,
) -> Result<Option<Value>, EngineError> {
    let Some(custom) = config.custom()?.filter(|_| !role.groups_claim.is_empty()) else { return Ok(None) };
    let found = claim(claims, &role.groups_claim);
    match custom {
        Custom::Azure if found.is_some() => Ok(None),
        Custom::Azure => {
            let fetched = graph_groups(ctx, config, role, claims, access_token).await;
            fetched.map(Some).map_err(|err| match err {
                EngineError::Invalid(why) => EngineError::Invalid(format!("failed to fetch groups: {why}")),
                err => err,
            })
        }
        Custom::IbmIsam => Ok(Custom::split(' ', found)),
        Custom::SecureAuth => Ok(Custom::split(',', found)),
    }
}

/// Asks Microsoft's Graph with the user's own token. The token of the login names the place; the access token goes to no
/// other host, whatever it names.
async fn graph_groups(
    ctx: &Ctx<'_>,
    config: &Config,
    role: &Role,
    claims: &Map,
    access_token: Option<&str>,
) -> Result<Value, EngineError> {
    let url = graph_url(role, claims).map_err(EngineError::invalid)?;
    let access_token =
        access_token.ok_or_else(|| EngineError::invalid("token unavailable to call Microsoft Graph API"))?;
    let request = HttpRequest {
        headers: vec![
            ("accept", "application/json".into()),
            ("authorization", format!("Bearer {access_token}").into()),
            ("content-type", "application/json".into()),
        ],
        body: br#"{"securityEnabledOnly": false}"#.to_vec(),
        ca_pem: config.oidc_discovery_ca_pem.clone(),
        body_max: BODY_MAX,
        ..HttpRequest::new("POST", url)
    };
    let mut answer = document(&ctx.http.send(request).await?)?;
    match answer.remove("value") {
        Some(groups @ Value::Array(_)) => Ok(groups),
        _ => Err(EngineError::Upstream("Microsoft Graph API answered no list of groups".to_owned())),
    }
}

fn graph_url(role: &Role, claims: &Map) -> Result<String, &'static str> {
    let part = |map: &str| claims.get(map).and_then(Value::as_object);
    // A pointer that names the claim names it below `_claim_names` as well.
    let named = part("_claim_names").and_then(|names| claim(names, &role.groups_claim)?.as_str());
    let named =
        named.ok_or("unable to get claim sources: unable to locate the groups claim in _claim_names")?;
    let source = part("_claim_sources").and_then(|sources| sources.get(named)?.as_object());
    let endpoint = source.map_or("", |source| text(source, "endpoint"));
    let no_place = "unable to get claim sources: the endpoint is not of Microsoft's Graph";
    let (host, path) =
        endpoint.strip_prefix("https://").and_then(|rest| rest.split_once('/')).ok_or(no_place)?;
    if let Some((_, graph)) = REPLACED.iter().find(|(old, _)| *old == host) {
        return Ok(format!("https://{graph}/v1.0/{path}"));
    }
    if GRAPHS.contains(&host) { Ok(endpoint.to_owned()) } else { Err(no_place) }
}
