//! Signed JSON web tokens in compact form (RFC 7515, 7519): taken apart, checked by keys, and their times looked at.
//!
//! **Invariant:** what a token says of itself never chooses how it is checked. Its `alg` is one of a fixed list without
//! `none` and without HMACs, and only keys of the kind that goes with it are tried; `jwk`, `jku`, `x5c` and `x5u` are not
//! read; `kid` is compared with names of keys and used for nothing else. Nothing of the payload is looked at before the
//! signature is good. Read next: [`keys`], [`times`].

pub(super) mod audiences;
pub(super) mod json;
pub(super) mod keys;
pub(super) mod times;

use arca_engine_api::Map;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

pub(super) use self::keys::{Alg, Key};

/// Longest token, bytes. Tokens that list a few hundred groups have about ten thousand.
pub(super) const TOKEN_MAX: usize = 128 * 1024;

/// What is wrong with a token, in words that repeat nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JoseError {
    #[error("token signed with unexpected algorithm")]
    Algorithm,
    #[error("illegal base64 data")]
    Base64,
    #[error("critical header parameters are not supported")]
    Critical,
    #[error("the header is no JSON object whose names are there once each")]
    Header,
    #[error("the payload is no JSON object whose names are there once each")]
    Payload,
    #[error("no known key successfully validated the token signature")]
    Signature,
    #[error("compact JWS format must have three parts")]
    ThreeParts,
    #[error("the token is too long")]
    TooLong,
}

/// A token taken apart, its signature not checked yet.
#[derive(Debug)]
pub(super) struct Jws {
    /// How it says it is signed.
    pub(super) alg: Alg,
    /// The key it says it is signed by.
    pub(super) kid: Option<String>,
    signed: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Jws {
    /// Takes a token apart. White space around it does not count: files end in a line break.
    pub(super) fn parse(token: &str) -> Result<Self, JoseError> {
        if token.len() > TOKEN_MAX {
            return Err(JoseError::TooLong);
        }
        let mut parts = token.trim().split('.');
        // Five parts are an encrypted token; there is no key here that opens one.
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JoseError::ThreeParts);
        };
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| JoseError::Base64);
        let fields = json::object(&decode(header)?).ok_or(JoseError::Header)?;
        // An extension that must be understood and is not: RFC 7515, 4.1.11. `b64` is one of them.
        if fields.contains_key("crit") {
            return Err(JoseError::Critical);
        }
        let text = |name: &str| match fields.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(JoseError::Header),
        };
        let alg = text("alg")?.and_then(|name| Alg::named(&name)).ok_or(JoseError::Algorithm)?;
        let (payload, signed) = (decode(payload)?, format!("{header}.{payload}").into_bytes());
        Ok(Self { alg, kid: text("kid")?, signed, payload, signature: decode(signature)? })
    }

    /// Whether a key of the kind, and of the name if the token gives one, goes with it.
    pub(super) fn is_of(&self, key: &Key) -> bool {
        let is_named = self.kid.is_none() || self.kid == key.kid;
        is_named && key.suits(self.alg)
    }

    /// The claims, if one of `keys` signed them; whether names of keys must agree, the caller decides.
    pub(super) fn claims<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) -> Result<Map, JoseError> {
        let is_good = keys.into_iter().any(|key| key.verifies(self.alg, &self.signed, &self.signature));
        if is_good { self.unverified_claims() } else { Err(JoseError::Signature) }
    }

    /// What the token says, whoever made it. Only where another system checks the signature.
    pub(super) fn unverified_claims(&self) -> Result<Map, JoseError> {
        json::object(&self.payload).ok_or(JoseError::Payload)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
