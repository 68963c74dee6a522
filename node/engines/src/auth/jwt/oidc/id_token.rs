//! What an ID token must say: OpenID Connect Core, 3.1.3.7.

use arca_engine_api::{Map, UnixMillis};

use super::super::config::text;
use crate::auth::jose::{audiences, times};

/// How far clocks may differ, seconds.
const SKEW_S: i64 = 60;

/// Claims of the protocol itself, which only the ID token makes.
pub(super) const PROTOCOL_CLAIMS: &[&str] = &[
    "acr",
    "amr",
    "at_hash",
    "aud",
    "auth_time",
    "azp",
    "c_hash",
    "exp",
    "iat",
    "iss",
    "jti",
    "nbf",
    "nonce",
    "sid",
    "sub",
];

/// What it is held against.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    /// Of the login it must be for; empty where a device code ties it to the login.
    pub(super) nonce: &'a str,
    /// Zero for any.
    pub(super) max_age_s: u64,
    /// Of the role; empty for any.
    pub(super) audiences: &'a [String],
    pub(super) now: UnixMillis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdTokenError {
    #[error("invalid audience")]
    Audience,
    #[error("auth_time is beyond max age")]
    AuthTime,
    #[error("invalid authorized party (azp)")]
    AuthorizedParty,
    #[error("token is expired")]
    Expired,
    #[error("token is issued in the future")]
    Future,
    #[error("invalid issuer")]
    Issuer,
    #[error("missing auth_time claim when max age was requested")]
    NoAuthTime,
    #[error("invalid nonce")]
    Nonce,
    #[error("no subject")]
    Subject,
    #[error(transparent)]
    Times(#[from] times::TimesError),
}

/// Whether the token is from the provider, for this client, of this login and of now.
pub(super) fn check(claims: &Map, expected: &Expected<'_>) -> Result<(), IdTokenError> {
    if text(claims, "iss") != expected.issuer {
        return Err(IdTokenError::Issuer);
    }
    if text(claims, "sub").is_empty() {
        return Err(IdTokenError::Subject);
    }
    let audiences = audiences::of(claims).ok_or(IdTokenError::Audience)?;
    if !audiences.iter().any(|audience| audience == expected.client_id) {
        return Err(IdTokenError::Audience);
    }
    // With other audiences beside it, the token must say it was made for this client.
    let has_party = claims.contains_key("azp");
    if (has_party || audiences.len() > 1) && text(claims, "azp") != expected.client_id {
        return Err(IdTokenError::AuthorizedParty);
    }
    if !expected.audiences.is_empty() && !audiences::meet(&audiences, expected.audiences) {
        return Err(IdTokenError::Audience);
    }
    // Else a token of another login could be slipped in.
    if !expected.nonce.is_empty() && text(claims, "nonce") != expected.nonce {
        return Err(IdTokenError::Nonce);
    }
    check_times(claims, expected)
}

fn check_times(claims: &Map, expected: &Expected<'_>) -> Result<(), IdTokenError> {
    let now_s = i64::try_from(expected.now.0 / 1_000).unwrap_or(i64::MAX);
    if times::date(claims, "exp")? <= now_s {
        return Err(IdTokenError::Expired);
    }
    let late = now_s.saturating_add(SKEW_S);
    if times::date(claims, "nbf")? > late || times::date(claims, "iat")? > late {
        return Err(IdTokenError::Future);
    }
    if expected.max_age_s != 0 {
        let seen_s = times::date(claims, "auth_time")?;
        if seen_s == 0 {
            return Err(IdTokenError::NoAuthTime);
        }
        let age_max_s = i64::try_from(expected.max_age_s).unwrap_or(i64::MAX).saturating_add(SKEW_S);
        if now_s.saturating_sub(seen_s) > age_max_s || seen_s > late {
            return Err(IdTokenError::AuthTime);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn good() -> Map {
        let claims =
            json!({"iss": "https://i", "sub": "s", "aud": "cid", "exp": 2_000, "iat": 1_000, "nonce": "n"});
        claims.as_object().unwrap().clone()
    }

    #[track_caller]
    fn check_with(changes: Value, want: &str) {
        let mut claims = good();
        for (name, value) in changes.as_object().unwrap() {
            if value == "-" {
                claims.remove(name);
            } else {
                claims.insert(name.clone(), value.clone());
            }
        }
        let roles = ["cid".to_owned(), "x".to_owned()];
        let expected = Expected {
            issuer: "https://i",
            client_id: "cid",
            nonce: "n",
            max_age_s: 30,
            audiences: &roles,
            now: UnixMillis(1_000_000),
        };
        claims.entry("auth_time").or_insert_with(|| json!(1_000));
        let got = check(&claims, &expected);
        assert_eq!(got.map_or_else(|err| format!("{err:?}"), |()| "good".to_owned()), want, "{changes}");
    }

    #[test]
    fn an_id_token_is_of_this_provider_client_login_and_hour() {
        for (changes, want) in [
            (json!({}), "good"),
            (json!({"iss": "https://i/"}), "Issuer"),
            (json!({"iss": "-"}), "Issuer"),
            (json!({"sub": ""}), "Subject"),
            (json!({"sub": 3}), "Subject"),
            (json!({"aud": "other"}), "Audience"),
            (json!({"aud": "cid2"}), "Audience"),
            (json!({"aud": "ci"}), "Audience"),
            (json!({"aud": "-"}), "Audience"),
            (json!({"aud": []}), "Audience"),
            (json!({"aud": {"cid": 1}}), "Audience"),
            (json!({"aud": ["cid", "x"]}), "AuthorizedParty"),
            (json!({"aud": ["cid", "x"], "azp": "cid"}), "good"),
            (json!({"azp": "x"}), "AuthorizedParty"),
            (json!({"nonce": "other"}), "Nonce"),
            (json!({"nonce": "-"}), "Nonce"),
            (json!({"exp": "-"}), "Expired"),
            (json!({"exp": 1_000}), "Expired"),
            (json!({"exp": "2000"}), "Times(NotANumber)"),
            (json!({"iat": 1_061}), "Future"),
            (json!({"nbf": 1_061}), "Future"),
            (json!({"auth_time": 0}), "NoAuthTime"),
            (json!({"auth_time": 900}), "AuthTime"),
            (json!({"auth_time": 910}), "good"),
            (json!({"auth_time": 2_000}), "AuthTime"),
        ] {
            check_with(changes, want);
        }
    }
}
