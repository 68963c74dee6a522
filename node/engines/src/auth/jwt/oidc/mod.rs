//! Logins by a visit to an OIDC provider: authorization code with PKCE, ID tokens by post, device codes.
//!
//! **Invariant:** a login that was begun lies in storage, so it does not matter which node it comes back to; it is taken
//! out before the provider is asked for a token, so it ends once. Read next: [`begin`], [`callback`], [`exchange`].

pub(super) mod begin;
pub(super) mod callback;
mod exchange;
mod id_token;
mod page;
pub(super) mod pending;
pub(super) mod places;
pub(super) mod poll;
mod redirect;

use arca_engine_api::{EngineError, Map};
use serde_json::Value;

/// What every refusal of such a login begins with.
const FAILED: &str = "Arca login failed.";

fn failed(why: impl std::fmt::Display) -> EngineError {
    EngineError::Invalid(format!("{FAILED} {why}"))
}

fn no_state() -> EngineError {
    failed("Expired or missing OAuth state.")
}

/// What an intent is for.
pub(super) fn kind(intent: &Map) -> &str {
    intent.get("kind").and_then(Value::as_str).unwrap_or_default()
}
