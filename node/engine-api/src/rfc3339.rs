//! Moments as text, the way Go writes them: `2026-11-24T03:53:16.623Z`. UTC out, any offset in.

use crate::UnixMillis;

const DAY_MS: u64 = 86_400_000;

/// UTC, with as many fraction digits as needed and none when there is no fraction.
#[must_use]
pub fn format(moment: UnixMillis) -> String {
    let milli = moment.0 % 1_000;
    let fraction =
        if milli == 0 { String::new() } else { format!(".{milli:03}").trim_end_matches('0').to_owned() };
    format!("{}{fraction}Z", to_the_second(moment))
}

/// UTC, always with nine fraction digits.
#[must_use]
pub fn format_nanos(moment: UnixMillis) -> String {
    format!("{}.{:03}000000Z", to_the_second(moment), moment.0 % 1_000)
}

fn to_the_second(moment: UnixMillis) -> String {
    let (days, rest) = (moment.0 / DAY_MS, moment.0 % DAY_MS);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Reads RFC 3339 text, or whole seconds since the epoch. `None` for anything else and for moments before 1970.
#[must_use]
pub fn parse(text: &str) -> Option<UnixMillis> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<u64>().ok()?.checked_mul(1_000).map(UnixMillis);
    }
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let is_zulu = time.ends_with(['Z', 'z']);
    let (clock, offset_minutes) = if is_zulu {
        (time.get(..time.len().checked_sub(1)?)?, 0)
    } else {
        let at = time.rfind(['+', '-'])?;
        let (clock, zone) = time.split_at_checked(at)?;
        let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
        let minutes = i64::try_from(hours * 60 + minutes).ok().filter(|_| hours < 24 && minutes < 60)?;
        (clock, if zone.starts_with('-') { -minutes } else { minutes })
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let is_real = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    let milli: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let days = days_from_civil(year, month, day).filter(|_| is_real)?;
    let seconds =
        days.checked_mul(86_400)? + i64::try_from(hour * 3_600 + minute * 60 + second.min(59)).ok()?;
    let seconds = u64::try_from(seconds - offset_minutes * 60).ok()?;
    Some(UnixMillis(seconds.checked_mul(1_000)? + milli))
}

fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[u64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(separator);
    for (slot, width) in found.iter_mut().zip(widths) {
        let part =
            parts.next().filter(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))?;
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Years that begin in March make the leap day the last day of a year; eras of 400 years repeat exactly.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<i64> {
    let shifted = if month > 2 { year } else { year.checked_sub(1)? };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i64::try_from(era * 146_097 + day_of_era).ok().map(|days| days - 719_468)
}

fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(text: &str, want: Option<u64>) {
        assert_eq!(parse(text).map(|moment| moment.0), want, "input {text:?}");
    }

    #[track_caller]
    fn check_written(moment: u64, want: &str, want_nanos: &str) {
        let moment = UnixMillis(moment);
        assert_eq!((format(moment).as_str(), format_nanos(moment).as_str()), (want, want_nanos));
    }

    #[test]
    fn writes_two_forms() {
        check_written(0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000Z");
        check_written(951_782_400_120, "2000-02-29T00:00:00.12Z", "2000-02-29T00:00:00.120000000Z");
        check_written(4_294_967_296_001, "2106-02-07T06:28:16.001Z", "2106-02-07T06:28:16.001000000Z");
    }

    #[test]
    fn reads_gos_forms() {
        check("1970-01-01T00:00:00Z", Some(0));
        check("2026-11-24T03:53:16.623943292Z", Some(1_795_492_396_623));
        check("2026-11-24T05:53:16+02:00", Some(1_795_492_396_000));
        check("2000-02-29T00:00:00Z", Some(951_782_400_000));
        check("1795492396", Some(1_795_492_396_000));
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in [
            "",
            "x",
            "2026-11-24",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-24T24:00:00Z",
            "2026-11-24T00:00:00",
            "1969-12-31T23:59:59Z",
            "2026-11-24T00:00:00.Z",
            "2026-11-24T00:00:00+99:00",
            "é026-11-24T00:00:00Z",
            "T",
            "TZ",
            "-1",
        ] {
            check(text, None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(moment in 0_u64..250_000_000_000_000) {
            let text = format(UnixMillis(moment));
            prop_assert_eq!(parse(&text), Some(UnixMillis(moment)), "{}", text);
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[0-9TZ:+.é -]{0,30}") {
            let _outcome = parse(&text);
        }
    }
}
