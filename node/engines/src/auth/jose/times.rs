//! From when until when a token is good.

use arca_engine_api::{Map, UnixMillis};
use serde_json::Value;

/// Lifetime of a token that gives none, seconds.
const LIFETIME_S: i64 = 150;
/// How far clocks may differ, seconds.
const SKEW_S: i64 = 60;

/// Seconds; zero for what is usual, negative for none.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::auth) struct Leeways {
    /// Lifetime of a token without an end, from its beginning.
    pub(in crate::auth) expiration_s: i64,
    /// How long before its end a token without a beginning began.
    pub(in crate::auth) not_before_s: i64,
    /// How far clocks may differ.
    pub(in crate::auth) clock_skew_s: i64,
}

/// What is wrong with a token's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::auth) enum TimesError {
    #[error("invalid expiration time (exp) claim: token is expired")]
    Expired,
    #[error("invalid issued at (iat) claim: token issued in the future")]
    Future,
    #[error("no issued at (iat), not before (nbf), or expiration time (exp) claims in token")]
    None,
    #[error("iat, nbf and exp must be numbers")]
    NotANumber,
    #[error("invalid not before (nbf) claim: token not yet valid")]
    NotYet,
}

/// The times of a token; zero for those it does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    issued_s: i64,
    not_before_s: i64,
    expires_s: i64,
}

impl Times {
    fn of(claims: &Map) -> Result<Self, TimesError> {
        let read = |name| date(claims, name);
        Ok(Self { issued_s: read("iat")?, not_before_s: read("nbf")?, expires_s: read("exp")? })
    }

    fn check(self, skew_s: i64, now: UnixMillis) -> Result<(), TimesError> {
        let now_s = i64::try_from(now.0 / 1_000).unwrap_or(i64::MAX);
        let (late, early) = (now_s.saturating_add(skew_s), now_s.saturating_sub(skew_s));
        if late < self.not_before_s {
            Err(TimesError::NotYet)
        } else if self.expires_s != 0 && early > self.expires_s {
            Err(TimesError::Expired)
        } else if late < self.issued_s {
            Err(TimesError::Future)
        } else {
            Ok(())
        }
    }
}

/// A number of seconds since 1970, fractions dropped; zero when it is missing.
pub(in crate::auth) fn date(claims: &Map, name: &str) -> Result<i64, TimesError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(0),
        #[allow(clippy::cast_possible_truncation)] // It saturates: what is beyond all time stays beyond it.
        Some(Value::Number(number)) => number.as_f64().map(|date| date as i64).ok_or(TimesError::NotANumber),
        Some(_) => Err(TimesError::NotANumber),
    }
}

const fn leeway(given_s: i64, usual_s: i64) -> i64 {
    match given_s {
        0 => usual_s,
        ..0 => 0,
        _ => given_s,
    }
}

/// Whether a token is good now. One that gives no time at all never is: it would be good for ever.
pub(in crate::auth) fn check(claims: &Map, leeways: Leeways, now: UnixMillis) -> Result<(), TimesError> {
    let mut times = Times::of(claims)?;
    if times == (Times { issued_s: 0, not_before_s: 0, expires_s: 0 }) {
        return Err(TimesError::None);
    }
    if times.expires_s == 0 {
        let began = times.issued_s.max(times.not_before_s);
        times.expires_s = began.saturating_add(leeway(leeways.expiration_s, LIFETIME_S));
    }
    if times.not_before_s == 0 {
        let usual = times.expires_s.saturating_sub(leeway(leeways.not_before_s, LIFETIME_S));
        times.not_before_s = if times.issued_s == 0 { usual } else { times.issued_s };
    }
    times.check(leeway(leeways.clock_skew_s, SKEW_S), now)
}

/// The same where tokens may lack any of their times, since another system answers for them.
pub(in crate::auth) fn check_given(claims: &Map, now: UnixMillis) -> Result<(), TimesError> {
    Times::of(claims)?.check(SKEW_S, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW_S: i64 = 1_000_000;

    #[track_caller]
    fn check_claims(claims: &Value, leeways: [i64; 3], want: &str) {
        let [expiration_s, not_before_s, clock_skew_s] = leeways;
        let leeways = Leeways { expiration_s, not_before_s, clock_skew_s };
        let now = UnixMillis(u64::try_from(NOW_S).unwrap() * 1_000);
        let got = check(claims.as_object().unwrap(), leeways, now);
        assert_eq!(got.map_or_else(|err| format!("{err:?}"), |()| "good".to_owned()), want, "{claims}");
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        for (claims, want) in [
            (json!({"exp": NOW_S - 60}), "good"),
            (json!({"exp": NOW_S - 61}), "Expired"),
            (json!({"exp": NOW_S + 900, "nbf": NOW_S + 60}), "good"),
            (json!({"exp": NOW_S + 900, "nbf": NOW_S + 61}), "NotYet"),
            (json!({"exp": NOW_S + 900, "nbf": NOW_S, "iat": NOW_S + 60}), "good"),
            (json!({"exp": NOW_S + 900, "nbf": NOW_S, "iat": NOW_S + 61}), "Future"),
        ] {
            check_claims(&claims, [0, 0, 0], want);
        }
        check_claims(&json!({"exp": NOW_S - 1}), [0, 0, -1], "Expired");
        check_claims(&json!({"exp": NOW_S}), [0, 0, -1], "good");
        check_claims(&json!({"exp": NOW_S - 5}), [0, 0, 5], "good");
        check_claims(&json!({"exp": NOW_S - 6}), [0, 0, 5], "Expired");
    }

    #[test]
    fn what_is_missing_follows_from_the_rest() {
        for (claims, leeways, want) in [
            (json!({"iat": NOW_S - 210}), [0, 0, 0], "good"),
            (json!({"iat": NOW_S - 211}), [0, 0, 0], "Expired"),
            (json!({"iat": NOW_S - 900, "nbf": NOW_S - 210}), [0, 0, 0], "good"),
            (json!({"iat": NOW_S - 61}), [-1, 0, 0], "Expired"),
            (json!({"iat": NOW_S - 60}), [-1, 0, 0], "good"),
            (json!({"iat": NOW_S - 1060}), [1000, 0, 0], "good"),
            (json!({"exp": NOW_S + 210}), [0, 0, 0], "good"),
            (json!({"exp": NOW_S + 211}), [0, 0, 0], "NotYet"),
            (json!({"exp": NOW_S + 61}), [0, -1, 0], "NotYet"),
            (json!({"exp": NOW_S + 1060}), [0, 1000, 0], "good"),
        ] {
            check_claims(&claims, leeways, want);
        }
    }

    #[test]
    fn times_are_numbers_and_one_is_there() {
        for (claims, want) in [
            (json!({}), "None"),
            (json!({"exp": 0, "iat": 0}), "None"),
            (json!({"exp": null}), "None"),
            (json!({"exp": NOW_S.to_string()}), "NotANumber"),
            (json!({"exp": [NOW_S]}), "NotANumber"),
            (json!({"exp": -5}), "Expired"),
            (json!({"exp": 1e30, "iat": NOW_S}), "good"),
            (json!({"exp": -1e30, "iat": NOW_S}), "Expired"),
            (json!({"exp": 1e30, "nbf": 1e30}), "NotYet"),
            (json!({"exp": 1_000_000.9}), "good"),
        ] {
            check_claims(&claims, [0, 0, 0], want);
        }
    }
}
