//! Logins that were begun: where they lie until they come back. Sealed as all that is stored, of this cluster only, for a
//! few minutes, and not more than [`PLACES`] of them.

use std::net::IpAddr;
use std::time::Duration;

use arca_engine_api::{Ctx, EngineError, Entropy, EntropyError, Map, Page, StorageExt as _, UnixMillis};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::super::Jwt;
use super::super::role::CallbackMode;
use super::no_state;
use super::places::PLACES;

/// Where they lie.
pub(in crate::auth::jwt) const PREFIX: &str = "oidc/";
/// How long a login may take.
pub(super) const LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Logins looked at by one round of tidying: more than there ever are.
const SWEPT_MAX: usize = 4 * PLACES;
/// Longest text of a client's that is kept.
const TEXT_MAX: usize = 2_048;

/// What the provider had the browser post.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Posted {
    pub(super) code: String,
    pub(super) id_token: String,
    pub(super) error: String,
    /// Hash of what the browser that posted was given, or had, and must bring back. Who began the login knows its state
    /// and nonce, and still does not come by what somebody else's browser posted for it.
    #[serde(default)]
    pub(super) proof: String,
}

impl Posted {
    /// Whether `brought` shows that it comes from the browser that posted.
    pub(super) fn is_proved_by(&self, brought: &str) -> bool {
        self.proof.as_bytes().ct_eq(hash(brought).as_bytes()).into()
    }
}

/// A login under way.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    /// In the form of its record.
    pub(super) role: String,
    pub(super) mode: CallbackMode,
    pub(super) redirect_uri: String,
    /// What the ID token must repeat.
    pub(super) nonce: String,
    /// What only who began the login can show the provider (RFC 7636).
    pub(super) code_verifier: String,
    /// What only the client that began it knows.
    pub(super) client_nonce: String,
    /// Who began it.
    pub(super) client: Option<IpAddr>,
    pub(super) expires: UnixMillis,
    /// Of a device login.
    pub(super) device_code: String,
    pub(super) posted: Option<Posted>,
    /// What the provider said of the user, once a direct login is through: for the one who polls.
    pub(super) claims: Option<Map>,
    /// Its code is being exchanged.
    pub(super) is_used: bool,
}

/// Unguessable text of `len` random bytes.
pub(super) fn random(entropy: &dyn Entropy, len: usize) -> Result<String, EntropyError> {
    let mut bytes = vec![0; len];
    entropy.fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// SHA-256, in Base64.
pub(super) fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()).as_ref())
}

/// By a hash, so that no listing shows a state that somebody could use.
fn key(state: &str) -> String {
    format!("{PREFIX}{}", hash(state))
}

/// The state as it was made: clients may hand it back with the namespace behind it.
pub(super) fn state_of(text: &str) -> &str {
    text.split_once(",ns=").map_or(text, |(state, _)| state)
}

impl Pending {
    /// The login of that state.
    ///
    /// # Errors
    /// When there is none, or its time is over.
    pub(super) fn find(ctx: &Ctx<'_>, state: &str) -> Result<Self, EngineError> {
        let found = ctx.storage.get_record::<Self>(&key(state))?;
        found.filter(|pending| ctx.clock.now() < pending.expires).ok_or_else(no_state)
    }

    /// Stages it.
    pub(super) fn put(&self, ctx: &Ctx<'_>, state: &str) -> Result<(), EngineError> {
        let texts = [&self.redirect_uri, &self.client_nonce, &self.device_code];
        if texts.iter().any(|text| text.len() > TEXT_MAX) {
            return Err(EngineError::invalid("redirect_uri and client_nonce must be short"));
        }
        Ok(ctx.storage.put_record(&key(state), self)?)
    }

    /// Stages its end.
    pub(super) fn remove(ctx: &Ctx<'_>, state: &str) -> Result<(), EngineError> {
        Ok(ctx.storage.delete(&key(state))?)
    }

    /// Whether that is the client that began it. A login without a nonce is nobody's.
    pub(super) fn is_begun_by(&self, client_nonce: &str) -> bool {
        !client_nonce.is_empty() && self.client_nonce.as_bytes().ct_eq(client_nonce.as_bytes()).into()
    }
}

/// Stages a login that begins, and the end of another one if there are too many.
pub(super) fn begin(jwt: &Jwt, ctx: &Ctx<'_>, pending: &Pending, state: &str) -> Result<(), EngineError> {
    // First the write: a node that cannot write takes no place.
    pending.put(ctx, state)?;
    if let Some(oldest) = jwt.places.take(pending.client, key(state)) {
        ctx.storage.delete(&oldest)?;
    }
    Ok(())
}

/// Takes away what is over or too much, and takes note of the rest.
pub(in crate::auth::jwt) fn sweep(jwt: &Jwt, ctx: &Ctx<'_>) -> Result<(), EngineError> {
    let page = Page { limit: Some(SWEPT_MAX), ..Page::default() };
    let mut live = Vec::new();
    for name in ctx.storage.list(PREFIX, &page)? {
        let at = format!("{PREFIX}{name}");
        let found = ctx.storage.get_record::<Pending>(&at)?;
        match found.filter(|pending| ctx.clock.now() < pending.expires) {
            Some(pending) => live.push((pending.expires, pending.client, at)),
            None => ctx.storage.delete(&at)?,
        }
    }
    live.sort();
    for key in jwt.places.renew(live.into_iter().map(|(_, client, at)| (client, at))) {
        ctx.storage.delete(&key)?;
    }
    Ok(())
}
