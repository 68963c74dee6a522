//! How long tokens and leases live: pure arithmetic over wishes and limits, in milliseconds.
//!
//! **Invariant:** a result is never zero and never without end. Renewing next to the limit is an error, not a token
//! that lives for ever (CVE-2021-32923).

use std::time::Duration;

use arca_engine_api::UnixMillis;

/// The lifetimes a mount allows, system limits already applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// For what asks for nothing.
    pub default_ttl: Duration,
    /// Over all renewals, for what is not periodic.
    pub max_ttl: Duration,
}

/// What was asked for, and what else bounds it. Zero stands for nothing said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// Wanted lifetime from now.
    pub ttl: Duration,
    /// Lifetime from now where none is wanted, before the mount's default.
    pub fallback_ttl: Duration,
    /// Longest lifetime since creation, if shorter than the mount's.
    pub max_ttl: Duration,
    /// Lifetime that replaces these, from now: each renewal begins it again, so a maximum bounds it and not the age.
    pub period: Duration,
    /// Lifetime since creation that even a period cannot pass.
    pub explicit_max_ttl: Duration,
}

/// A lifetime from now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// At least a second.
    pub ttl: Duration,
    /// Said when less was granted than wanted, or than is usual.
    pub warnings: Vec<String>,
}

/// The limit is reached: nothing that ends in less than a second is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtLimit;

/// Shortest lifetime granted. What clients are shown counts in seconds, and zero would read as "never ends".
pub const TTL_MIN: Duration = Duration::from_secs(1);

/// Decides a lifetime for something made at `created`.
///
/// # Errors
/// When no whole second is left.
pub fn grant(wish: &Wish, limits: Limits, created: UnixMillis, now: UnixMillis) -> Result<Granted, AtLimit> {
    let age = now.since(created);
    let max_ttl = lesser(lesser(wish.max_ttl, limits.max_ttl), wish.explicit_max_ttl);
    let mut granted = Granted { ttl: Duration::ZERO, warnings: Vec::new() };
    if wish.period.is_zero() {
        let wanted = first([wish.ttl, wish.fallback_ttl, limits.default_ttl]);
        granted.cap("TTL", wanted, max_ttl.saturating_sub(age));
    } else {
        granted.cap("period", wish.period, max_ttl);
        if !wish.explicit_max_ttl.is_zero() {
            granted.cap("TTL", granted.ttl, wish.explicit_max_ttl.saturating_sub(age));
        }
    }
    if granted.ttl < TTL_MIN { Err(AtLimit) } else { Ok(granted) }
}

impl Granted {
    /// Grants what is wanted as far as the limit goes. What is less by no whole second is not spoken of.
    fn cap(&mut self, what: &str, wanted: Duration, limit: Duration) {
        self.ttl = wanted.min(limit);
        let shown = Duration::from_secs(seconds(self.ttl));
        if Duration::from_secs(seconds(wanted)) > shown {
            let (wanted, limit) = (go_duration(wanted), go_duration(shown));
            self.warnings.push(format!(
                "{what} of {wanted:?} exceeded the effective max_ttl of {limit:?}; {what} value is capped accordingly"
            ));
        }
    }
}

/// The shorter one; zero stands for none.
#[must_use]
pub fn lesser(left: Duration, right: Duration) -> Duration {
    if left.is_zero() {
        right
    } else if right.is_zero() {
        left
    } else {
        left.min(right)
    }
}

/// The first that says something.
fn first<const N: usize>(spans: [Duration; N]) -> Duration {
    spans.into_iter().find(|span| !span.is_zero()).unwrap_or_default()
}

/// Whole seconds for clients, rounded up: what lives is never shown with zero seconds left.
#[must_use]
pub fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// As Go writes durations, without the units that are zero: `1h30m`, `768h`, `1.5s`.
#[must_use]
pub fn go_duration(span: Duration) -> String {
    let (whole, milli) = (span.as_secs(), span.subsec_millis());
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    let mut text = String::new();
    for (count, unit) in [(hours, "h"), (minutes, "m")] {
        if count > 0 {
            text = format!("{text}{count}{unit}");
        }
    }
    let fraction =
        if milli == 0 { String::new() } else { format!(".{milli:03}").trim_end_matches('0').to_owned() };
    if seconds > 0 || !fraction.is_empty() || text.is_empty() {
        text = format!("{text}{seconds}{fraction}s");
    }
    text
}

/// As Go prints durations: `1h30m0s`, `720h0m0s`, `1.5s`.
#[must_use]
pub fn go_text(span: Duration) -> String {
    let (whole, milli) = (span.as_secs(), span.subsec_millis());
    let (hours, minutes, seconds) = (whole / 3_600, whole / 60 % 60, whole % 60);
    let fraction =
        if milli == 0 { String::new() } else { format!(".{milli:03}").trim_end_matches('0').to_owned() };
    match (hours, minutes) {
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

/// Durations in records: milliseconds.
pub mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes milliseconds.
    ///
    /// # Errors
    /// As the serializer.
    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    /// Reads milliseconds.
    ///
    /// # Errors
    /// As the deserializer.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { default_ttl: Duration::from_secs(3_600), max_ttl: Duration::from_secs(7_200) };

    fn wish(ttl: u64, max_ttl: u64, period: u64, explicit_max_ttl: u64) -> Wish {
        let secs = Duration::from_secs;
        Wish {
            ttl: secs(ttl),
            fallback_ttl: Duration::ZERO,
            max_ttl: secs(max_ttl),
            period: secs(period),
            explicit_max_ttl: secs(explicit_max_ttl),
        }
    }

    #[track_caller]
    fn check(wish: Wish, age_ms: u64, want: Option<u64>) {
        let created = UnixMillis(1_000_000);
        let got = grant(&wish, LIMITS, created, created.after(Duration::from_millis(age_ms)));
        let got = got.ok().map(|granted| u64::try_from(granted.ttl.as_millis()).unwrap());
        assert_eq!(got, want, "{wish:?} at {age_ms}");
    }

    #[test]
    fn the_least_limit_counts() {
        check(wish(0, 0, 0, 0), 0, Some(3_600_000));
        check(wish(600, 0, 0, 0), 0, Some(600_000));
        check(wish(86_400, 0, 0, 0), 0, Some(7_200_000));
        check(wish(86_400, 1_800, 0, 0), 0, Some(1_800_000));
        check(wish(86_400, 0, 0, 60), 0, Some(60_000));
        check(wish(86_400, 0, 0, 86_400), 0, Some(7_200_000));
        check(wish(3_600, 0, 0, 0), 7_000_000, Some(200_000));
    }

    #[track_caller]
    fn check_told(wish: Wish, age_ms: u64, want: &[&str]) {
        let created = UnixMillis(1_000_000);
        let got = grant(&wish, LIMITS, created, created.after(Duration::from_millis(age_ms))).unwrap();
        let want: Vec<String> = want
            .iter()
            .map(|told| {
                let (what, wanted, limit) = match told.split(' ').collect::<Vec<_>>()[..] {
                    [what, wanted, limit] => (what, wanted, limit),
                    _ => panic!("{told}"),
                };
                format!(
                    "{what} of {wanted:?} exceeded the effective max_ttl of {limit:?}; {what} value is capped accordingly"
                )
            })
            .collect();
        assert_eq!(got.warnings, want, "{wish:?} at {age_ms}");
    }

    #[test]
    fn whoever_gets_less_is_told_how_much() {
        check_told(wish(0, 0, 0, 0), 0, &[]);
        check_told(wish(7_200, 0, 0, 0), 0, &[]);
        check_told(wish(7_200, 0, 0, 0), 300, &[]);
        check_told(wish(86_400, 0, 0, 0), 0, &["TTL 24h 2h"]);
        check_told(wish(86_400, 1_800, 0, 60), 0, &["TTL 24h 1m"]);
        check_told(wish(3_600, 1_800, 0, 0), 3_300, &["TTL 1h 29m57s"]);
        // What is usual is wanted by who wants nothing.
        check_told(wish(0, 1_800, 0, 0), 0, &["TTL 1h 30m"]);
        check_told(wish(0, 0, 0, 1_800), 2_000, &["TTL 1h 29m58s"]);
        check_told(wish(0, 0, 86_400, 0), 0, &["period 24h 2h"]);
        check_told(wish(60, 1_800, 3_600, 0), 2_000, &["period 1h 30m"]);
        check_told(wish(0, 1_200, 3_600, 1_800), 2_000, &["period 1h 20m"]);
        check_told(wish(0, 0, 3_600, 1_800), 0, &["period 1h 30m"]);
        check_told(wish(0, 0, 3_600, 1_800), 2_000, &["period 1h 30m", "TTL 30m 29m58s"]);
        check_told(wish(0, 0, 3_600, 7_000), 5_000_000, &["TTL 1h 33m20s"]);
    }

    /// Vault 0.9.2 and 0.8.2 notes: a period outlives the maximum, but not an explicit one. None is longer than either.
    #[test]
    fn vault_0_9_2_a_period_passes_the_maximum() {
        check(wish(86_400, 0, 60, 0), 100_000_000, Some(60_000));
        check(wish(0, 1_800, 3_600, 0), 0, Some(1_800_000));
        check(wish(0, 1_800, 3_600, 0), 100_000_000, Some(1_800_000));
        check(wish(0, 1_200, 3_600, 1_800), 0, Some(1_200_000));
        check(wish(0, 1_200, 3_600, 1_800), 1_000_000, Some(800_000));
        check(wish(0, 2_400, 3_600, 1_800), 0, Some(1_800_000));
        check(wish(0, 0, 60, 90), 80_000, Some(10_000));
        check(wish(0, 0, 60, 90), 90_000, None);
        check(wish(0, 0, 86_400, 0), 0, Some(7_200_000));
    }

    /// CVE-2021-32923: renewing within a second of the limit gave a token without end.
    #[test]
    fn cve_2021_32923_next_to_the_limit_nothing_is_granted() {
        for age_ms in
            [7_199_001, 7_199_100, 7_199_500, 7_199_900, 7_199_999, 7_200_000, 7_200_001, u64::MAX / 2]
        {
            check(wish(0, 0, 0, 0), age_ms, None);
            check(wish(3_600, 0, 0, 0), age_ms, None);
            check(wish(0, 0, 60, 7_200), age_ms, None);
        }
        check(wish(0, 0, 0, 0), 7_199_000, Some(1_000));
    }

    #[test]
    fn what_lives_is_never_shown_as_zero() {
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_millis(3_600_000)), 3_600);
        assert_eq!(seconds(Duration::ZERO), 0);
    }

    #[test]
    fn durations_look_as_go_writes_them() {
        let shown = |ms: u64| go_duration(Duration::from_millis(ms));
        assert_eq!(shown(5_400_000), "1h30m");
        assert_eq!(shown(2_764_800_000), "768h");
        assert_eq!(shown(0), "0s");
        assert_eq!(shown(90_500), "1m30.5s");
        assert_eq!(shown(1_000), "1s");
        let printed = |ms: u64| go_text(Duration::from_millis(ms));
        assert_eq!(printed(2_592_000_000), "720h0m0s");
        assert_eq!(printed(5_400_500), "1h30m0.5s");
        assert_eq!(printed(90_000), "1m30s");
        assert_eq!(printed(1_500), "1.5s");
        assert_eq!(printed(0), "0s");
    }
}
