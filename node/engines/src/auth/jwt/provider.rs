//! The system that signs tokens: its keys, and for OIDC where its endpoints are. What it says is kept a while.
//!
//! **Invariant:** a token that no key is good for has the keys fetched again, but not more often than every
//! [`REFRESH_EVERY`], so nobody turns logins into a flood of requests to the provider. Keys that have not been confirmed
//! for [`STALE_AFTER`] are not used: a provider that withdrew a key must not be outlived by its copy. Until then one
//! caller at a time waits for newer ones and the others use what is kept, so that a provider that hangs stops nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, HttpAnswer, HttpRequest, Map};
use futures::lock::MutexGuard;
use serde_json::Value;

use super::config::text;
use crate::auth::jose::{JoseError, Jws, Key, json};

/// Keys older than this are fetched again before they are used, if that works.
const FRESH_FOR: Duration = Duration::from_secs(10 * 60);
/// Keys older than this are not used.
const STALE_AFTER: Duration = Duration::from_secs(60 * 60);
/// Between fetches that unknown keys and failures cause. Counted from the end of one that failed: while it lasted others
/// came to wait, and none of them is to wait for another.
const REFRESH_EVERY: Duration = Duration::from_secs(10);
/// After a failure, when nothing is kept.
const PAUSE: Duration = Duration::from_secs(2);
/// Longest wait for a provider.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest document taken from it, bytes.
const BODY_MAX: usize = 1 << 20;
/// Most logins that wait for a fetch: anybody can bring a token that no key is good for.
pub(super) const WAITING_MAX: usize = 1_024;
/// Most keys of a set.
const KEYS_MAX: usize = 256;

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// An OIDC provider, by its issuer URL.
    Discovery { url: String, ca_pem: String },
    /// A set of keys.
    Jwks { url: String, ca_pem: String },
}

impl Source {
    fn ca_pem(&self) -> &str {
        match self {
            Self::Discovery { ca_pem, .. } | Self::Jwks { ca_pem, .. } => ca_pem,
        }
    }
}

/// What an OIDC provider says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) authorization: String,
    pub(super) device_authorization: String,
    pub(super) jwks: String,
    /// The client may show its secret at the token endpoint in a header, which is the default.
    pub(super) takes_basic: bool,
    pub(super) token: String,
    pub(super) userinfo: String,
}

#[derive(Clone, Debug)]
struct Fetched {
    endpoints: Arc<Endpoints>,
    keys: Arc<[Key]>,
    /// Monotonic time.
    at: Duration,
}

#[derive(Debug, Default)]
struct Kept {
    source: Option<Source>,
    fetched: Option<Fetched>,
    /// When a fetch was last begun that was not the first, monotonic time.
    refreshed: Option<Duration>,
    /// When the last fetch failed, if it did: its end, monotonic time.
    failed: Option<Duration>,
}

/// A cache: forgetting it costs a fetch.
#[derive(Debug, Default)]
pub(super) struct Provider {
    kept: Mutex<Kept>,
    /// Held while fetching, so that many logins wait for one fetch.
    gate: futures::lock::Mutex<()>,
    /// Held once more by each of those that wait.
    waiting: Arc<()>,
}

impl Provider {
    /// Whether the source can be used, asked anew.
    ///
    /// # Errors
    /// What is wrong, in words that begin as others' do.
    pub(super) async fn check(&self, ctx: &Ctx<'_>, source: &Source) -> Result<(), EngineError> {
        match source {
            Source::Discovery { url, ca_pem } => {
                let asked = discover(ctx, url, ca_pem).await;
                asked.map(drop).map_err(|err| because("error checking oidc discovery URL", &err))
            }
            Source::Jwks { url, ca_pem } => {
                let asked = keys_at(ctx, url, ca_pem).await;
                asked.map(drop).map_err(|err| because("error checking jwks URL", &err))
            }
        }
    }

    /// The provider's endpoints.
    pub(super) async fn endpoints(
        &self,
        ctx: &Ctx<'_>,
        source: &Source,
    ) -> Result<Arc<Endpoints>, EngineError> {
        Ok(self.current(ctx, source).await?.endpoints)
    }

    /// The claims of a token, if a key of the source signed it.
    ///
    /// # Errors
    /// Whether the provider failed or the token is bad.
    pub(super) async fn claims(&self, ctx: &Ctx<'_>, source: &Source, jws: &Jws) -> Result<Map, Failure> {
        let known = self.current(ctx, source).await?;
        let claims = |keys: &[Key]| jws.claims(keys.iter().filter(|key| jws.is_of(key)));
        let answer = claims(&known.keys);
        if answer != Err(JoseError::Signature) {
            return Ok(answer?);
        }
        // The provider may have new keys: of another name, of the same, or of none.
        match self.newer(ctx, source, known.at).await {
            Ok(Some(newer)) => Ok(claims(&newer.keys)?),
            Err(err) if !known.keys.iter().any(|key| jws.is_of(key)) => Err(err.into()),
            Ok(None) | Err(_) => Ok(answer?),
        }
    }

    fn kept(&self, source: &Source) -> std::sync::MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.source.as_ref() != Some(source) {
            *kept = Kept { source: Some(source.clone()), ..Kept::default() };
        }
        kept
    }

    /// What is kept and not stale.
    fn usable(&self, source: &Source, now: Duration) -> Option<Fetched> {
        self.kept(source).fetched.clone().filter(|fetched| now.saturating_sub(fetched.at) < STALE_AFTER)
    }

    async fn current(&self, ctx: &Ctx<'_>, source: &Source) -> Result<Fetched, EngineError> {
        let is_fresh = |fetched: &Fetched| ctx.clock.monotonic().saturating_sub(fetched.at) < FRESH_FOR;
        let kept = self.usable(source, ctx.clock.monotonic());
        let _gate = match kept {
            Some(fetched) if is_fresh(&fetched) => return Ok(fetched),
            Some(fetched) => match self.gate.try_lock() {
                Some(gate) => gate,
                // Somebody asks already.
                None => return Ok(fetched),
            },
            None => self.turn().await?,
        };
        let now = ctx.clock.monotonic();
        let old = self.usable(source, now);
        if let Some(fetched) = &old {
            if is_fresh(fetched) || !self.may_refresh(source, now) {
                return Ok(fetched.clone());
            }
        } else if self.kept(source).failed.is_some_and(|failed| now.saturating_sub(failed) < PAUSE) {
            return Err(EngineError::Upstream("the provider failed a moment ago".to_owned()));
        }
        let fetched = self.fetch(ctx, source).await;
        fetched.or_else(|err| old.ok_or(err))
    }

    /// What the provider says now, if that is not what was known; none if it was asked a moment ago.
    async fn newer(
        &self,
        ctx: &Ctx<'_>,
        source: &Source,
        known_at: Duration,
    ) -> Result<Option<Fetched>, EngineError> {
        let _gate = self.turn().await?;
        let now = ctx.clock.monotonic();
        if let Some(fetched) = self.usable(source, now).filter(|fetched| fetched.at > known_at) {
            return Ok(Some(fetched));
        }
        if !self.may_refresh(source, now) {
            return Ok(None);
        }
        self.fetch(ctx, source).await.map(Some)
    }

    /// Waits until nobody else fetches.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, EngineError> {
        let place = Arc::clone(&self.waiting);
        // One is the provider's own.
        if Arc::strong_count(&place) > WAITING_MAX + 1 {
            return Err(EngineError::Busy);
        }
        Ok(self.gate.lock().await)
    }

    fn may_refresh(&self, source: &Source, now: Duration) -> bool {
        let mut kept = self.kept(source);
        let mut last = [kept.refreshed, kept.failed].into_iter().flatten();
        let is_due = last.all(|at| now.saturating_sub(at) >= REFRESH_EVERY);
        if is_due {
            kept.refreshed = Some(now);
        }
        is_due
    }

    async fn fetch(&self, ctx: &Ctx<'_>, source: &Source) -> Result<Fetched, EngineError> {
        let fetched = fetch(ctx, source).await;
        // Somebody may have changed the settings meanwhile; then this lands where the next change of them clears it.
        let mut kept = self.kept(source);
        match &fetched {
            Ok(fetched) => {
                kept.fetched = Some(fetched.clone());
                kept.failed = None;
            }
            Err(_) => kept.failed = Some(ctx.clock.monotonic()),
        }
        fetched
    }
}

async fn fetch(ctx: &Ctx<'_>, source: &Source) -> Result<Fetched, EngineError> {
    let at = ctx.clock.monotonic();
    let ca_pem = source.ca_pem();
    let endpoints = match source {
        Source::Discovery { url, .. } => discover(ctx, url, ca_pem).await?,
        Source::Jwks { url, .. } => Endpoints { jwks: url.clone(), ..Endpoints::default() },
    };
    let keys = keys_at(ctx, &endpoints.jwks, ca_pem).await?;
    Ok(Fetched { endpoints: Arc::new(endpoints), keys: keys.into(), at })
}

/// Why there are no claims.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The provider failed.
    #[error(transparent)]
    Provider(#[from] EngineError),
    /// The token is bad.
    #[error(transparent)]
    Token(#[from] JoseError),
}

impl Failure {
    /// With where it happened; the fault stays the one it is.
    pub(super) fn at(self, place: &str) -> EngineError {
        match self {
            Self::Provider(EngineError::Upstream(text)) => EngineError::Upstream(format!("{place}: {text}")),
            Self::Provider(err) => err,
            Self::Token(err) => EngineError::Invalid(format!("{place}: {err}")),
        }
    }
}

fn because(what: &str, err: &EngineError) -> EngineError {
    EngineError::Invalid(format!("{what}: {err}"))
}

async fn fetch_json(ctx: &Ctx<'_>, url: &str, ca_pem: &str) -> Result<Map, EngineError> {
    let request = HttpRequest {
        headers: vec![("accept", "application/json".into())],
        ca_pem: ca_pem.to_owned(),
        patience: PATIENCE,
        body_max: BODY_MAX,
        ..HttpRequest::new("GET", url)
    };
    let answer = ctx.http.send(request).await?;
    document(&answer)
}

/// The JSON object of an answer of status 200.
pub(super) fn document(answer: &HttpAnswer) -> Result<Map, EngineError> {
    if answer.status != 200 {
        return Err(EngineError::Upstream(format!("the provider answered {}", answer.status)));
    }
    json::object(&answer.body)
        .ok_or_else(|| EngineError::Upstream("the provider answered no JSON object".to_owned()))
}

async fn keys_at(ctx: &Ctx<'_>, url: &str, ca_pem: &str) -> Result<Vec<Key>, EngineError> {
    let set = fetch_json(ctx, url, ca_pem).await?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys =
        keys.ok_or_else(|| EngineError::Upstream("the provider answered no set of keys".to_owned()))?;
    if keys.len() > KEYS_MAX {
        return Err(EngineError::Upstream("the provider has too many keys".to_owned()));
    }
    Ok(keys.iter().filter_map(Key::from_jwk).collect())
}

/// OpenID Connect Discovery 1.0. Whoever answers must say it is the issuer that was asked, letter by letter: else one
/// provider could pass for another.
async fn discover(ctx: &Ctx<'_>, url: &str, ca_pem: &str) -> Result<Endpoints, EngineError> {
    let at = format!("{}/.well-known/openid-configuration", url.trim_end_matches('/'));
    let said = fetch_json(ctx, &at, ca_pem).await?;
    if text(&said, "issuer") != url {
        let why = "issuer did not match the issuer returned by provider";
        return Err(EngineError::Upstream(why.to_owned()));
    }
    let endpoint = |name: &str| text(&said, name).to_owned();
    let methods = said.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
    let takes_basic =
        methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
    Ok(Endpoints {
        authorization: endpoint("authorization_endpoint"),
        device_authorization: endpoint("device_authorization_endpoint"),
        jwks: endpoint("jwks_uri"),
        takes_basic,
        token: endpoint("token_endpoint"),
        userinfo: endpoint("userinfo_endpoint"),
    })
}
