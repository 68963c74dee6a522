//! When a static role's password is changed: after so long, or at moments of a calendar.

use std::time::Duration;

use arca_engine_api::{EngineError, Fields, UnixMillis};
use chrono::{DateTime, Utc};
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};

/// Shortest period: that of the engine's ticks.
const PERIOD_MIN: Duration = Duration::from_secs(5);
/// Longest period: that of Go's durations, in whole seconds.
const PERIOD_MAX: Duration = Duration::from_secs(9_223_372_036);
/// Shortest window.
const WINDOW_MIN: Duration = Duration::from_secs(3_600);
/// Longest schedule, in bytes.
const SCHEDULE_MAX: usize = 256;

/// When to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Schedule {
    /// So long after the last change.
    Period(Duration),
    /// At moments of the calendar, in UTC.
    Calendar {
        /// Minute, hour, day of the month, month, day of the week.
        cron: String,
        /// How long after such a moment it may begin; zero for any time.
        window: Duration,
    },
}

impl Schedule {
    /// What a request says of it; none when it says nothing.
    pub(super) fn read(fields: Fields<'_>, before: Option<&Self>) -> Result<Option<Self>, EngineError> {
        let period = period(fields)?;
        let cron = fields.string("rotation_schedule")?.filter(|cron| !cron.is_empty());
        let window = fields.duration("rotation_window")?;
        // Clients that send every field send zero for what is not said.
        let period = period.filter(|period| cron.is_none() || !period.is_zero());
        let window = window.filter(|window| period.is_none() || !window.is_zero());
        if window.is_some_and(|window| !window.is_zero() && window < WINDOW_MIN) {
            return Err(EngineError::invalid("rotation_window must be 3600 seconds or more"));
        }
        match (period, cron, window, before) {
            (Some(_), Some(_), ..) => {
                Err(EngineError::invalid("rotation_period and rotation_schedule exclude each other"))
            }
            (Some(_), None, Some(_), _) => {
                Err(EngineError::invalid("rotation_window goes with rotation_schedule only"))
            }
            (Some(period), None, None, _) if period < PERIOD_MIN => {
                Err(EngineError::invalid("rotation_period must be 5 seconds or more"))
            }
            (Some(period), None, None, _) => Ok(Some(Self::Period(period))),
            (None, Some(cron), window, _) => {
                parse(&cron)?;
                Ok(Some(Self::Calendar { cron, window: window.unwrap_or_default() }))
            }
            (None, None, Some(window), Some(Self::Calendar { cron, .. })) => {
                Ok(Some(Self::Calendar { cron: cron.clone(), window }))
            }
            (None, None, Some(_), _) => {
                Err(EngineError::invalid("rotation_window goes with rotation_schedule only"))
            }
            (None, None, None, _) => Ok(None),
        }
    }

    /// The next moment after `now`, the last change having been at `last`.
    pub(super) fn next(&self, last: UnixMillis, now: UnixMillis) -> Result<UnixMillis, EngineError> {
        match self {
            Self::Period(period) => Ok(last.after(*period)),
            Self::Calendar { cron, .. } => {
                let moment = i64::try_from(now.0).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
                let moment =
                    moment.ok_or_else(|| EngineError::Bug("the clock is out of range".to_owned()))?;
                let next = parse(cron)?.find_next_occurrence(&moment, false).map_err(|_| no_moment())?;
                u64::try_from(next.timestamp_millis()).map(UnixMillis).map_err(|_| no_moment())
            }
        }
    }

    /// Whether it is too late for what was due at `scheduled`.
    pub(super) fn is_over(&self, scheduled: UnixMillis, now: UnixMillis) -> bool {
        match self {
            Self::Calendar { window, .. } if !window.is_zero() => now > scheduled.after(*window),
            _ => false,
        }
    }
}

/// The period. Longer ones than lifetimes may be are taken, as others take them for "never".
fn period(fields: Fields<'_>) -> Result<Option<Duration>, EngineError> {
    let text = fields.string("rotation_period").ok().flatten();
    let seconds = text.and_then(|text| text.parse().ok()).filter(|seconds| *seconds <= PERIOD_MAX.as_secs());
    match seconds {
        Some(seconds) => Ok(Some(Duration::from_secs(seconds))),
        None => fields.duration("rotation_period"),
    }
}

fn no_moment() -> EngineError {
    EngineError::invalid("rotation_schedule never comes")
}

fn parse(text: &str) -> Result<croner::Cron, EngineError> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let parsed = if text.len() > SCHEDULE_MAX { None } else { parser.parse(text).ok() };
    parsed.ok_or_else(|| {
        EngineError::invalid(
            "could not parse rotation_schedule: it is minute, hour, day of the month, month, day of the week",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arca_engine_api::rfc3339;
    use serde_json::json;

    fn read(body: &serde_json::Value) -> Result<Option<Schedule>, String> {
        Schedule::read(Fields::new(body.as_object().unwrap()), None).map_err(|err| err.to_string())
    }

    #[track_caller]
    fn check_next(cron: &str, now: &str, want: &str) {
        let schedule = read(&json!({ "rotation_schedule": cron })).unwrap().unwrap();
        let next = schedule.next(UnixMillis(0), rfc3339::parse(now).unwrap()).unwrap();
        assert_eq!(rfc3339::format(next), want, "{cron}");
    }

    #[test]
    fn calendars_are_read() {
        check_next("0 0 * * *", "2026-11-26T13:00:00Z", "2026-11-27T00:00:00Z");
        check_next("*/15 * * * *", "2026-11-26T13:00:00Z", "2026-11-26T13:15:00Z");
        check_next("0 0 * * SAT", "2026-11-26T13:00:00Z", "2026-11-28T00:00:00Z");
        check_next("0 0 1 * 6", "2026-11-26T13:00:00Z", "2026-11-28T00:00:00Z");
        check_next("@daily", "2026-11-26T13:00:00Z", "2026-11-27T00:00:00Z");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for body in [
            json!({"rotation_period": 4}),
            json!({"rotation_period": 60, "rotation_schedule": "0 0 * * *"}),
            json!({"rotation_period": 60, "rotation_window": 3600}),
            json!({"rotation_schedule": "0 0 * * *", "rotation_window": 60}),
            json!({"rotation_window": 3600}),
            json!({"rotation_period": 0}),
            json!({"rotation_period": 0, "rotation_window": 3600}),
            json!({"rotation_schedule": "0 0 * *"}),
            json!({"rotation_schedule": "0 0 0 * * *"}),
            json!({"rotation_schedule": "61 0 * * *"}),
            json!({"rotation_schedule": "canary"}),
        ] {
            let refused = read(&body);
            assert!(refused.as_ref().is_err_and(|text| !text.contains("canary")), "{body}: {refused:?}");
        }
        assert_eq!(read(&json!({})), Ok(None));
        let minute = Ok(Some(Schedule::Period(Duration::from_secs(60))));
        for nothing in [json!(0), json!("")] {
            let body = json!({"rotation_period": 60, "rotation_window": nothing, "rotation_schedule": ""});
            assert_eq!(read(&body), minute);
            let body = json!({"rotation_period": nothing, "rotation_schedule": "@daily"});
            assert!(matches!(read(&body), Ok(Some(Schedule::Calendar { .. }))), "{body}");
        }
    }

    #[test]
    fn the_longest_period_of_go_is_taken() {
        let longest = Schedule::Period(PERIOD_MAX);
        assert_eq!(read(&json!({"rotation_period": "9223372036"})), Ok(Some(longest.clone())));
        assert!(read(&json!({"rotation_period": "9223372037"})).is_err());
        assert!(longest.next(UnixMillis(1_795_698_000_000), UnixMillis(0)).is_ok());
    }

    #[test]
    fn a_window_ends() {
        let schedule = Schedule::Calendar { cron: "0 0 * * *".to_owned(), window: WINDOW_MIN };
        assert!(!schedule.is_over(UnixMillis(0), UnixMillis(3_600_000)));
        assert!(schedule.is_over(UnixMillis(0), UnixMillis(3_600_001)));
    }
}
