//! Moments and spans as KV shows them: RFC 3339 in UTC with nanoseconds' place, and Go's way of writing durations.

use std::time::Duration;

use arca_engine_api::UnixMillis;

/// RFC 3339, with nine digits of fraction; empty for no moment.
pub(super) fn moment(at: Option<UnixMillis>) -> String {
    let Some(at) = at else { return String::new() };
    let (days, millis) = (at.0 / 86_400_000, at.0 % 86_400_000);
    // Civil date from day count: H. Hinnant, "chrono-compatible low-level date algorithms".
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}000000Z", millis % 1_000)
}

/// `768h0m0s`, as Go writes whole seconds.
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}h{minutes}m{rest}s")
    } else if minutes > 0 {
        format!("{minutes}m{rest}s")
    } else {
        format!("{rest}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_moments_and_spans() {
        assert_eq!(moment(Some(UnixMillis(951_782_400_123))), "2000-02-29T00:00:00.123000000Z");
        assert_eq!(moment(None), "");
        assert_eq!(span(Duration::ZERO), "0s");
        assert_eq!(span(Duration::from_secs(90)), "1m30s");
        assert_eq!(span(Duration::from_secs(768 * 3_600)), "768h0m0s");
    }
}
