//! Durations as operators and servers write them: `30s`, `1h30m`, `7d`, or a bare number of seconds.
//! Shared by the environment (`VAULT_CLIENT_TIMEOUT`) and the command line's TTL flags.

use std::time::Duration;

/// Reads `30`, `30s`, `1h30m`, `1.5h`, `250ms` or `7d`. A bare number counts seconds. Negative values are refused.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write it like 30s, 5m, 1h30m or 7d");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let count: f64 = number.parse().map_err(|_| bad())?;
        let seconds = count * unit_seconds(unit).ok_or_else(bad)?;
        let part = Duration::try_from_secs_f64(seconds).map_err(|_| bad())?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
    }
    Ok(total)
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    })
}

/// Writes a duration the way servers of this API read and show it: `1h0m0s`, `5m0s`, `30s`, `1.5s`, `0s`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let nanos = duration.subsec_nanos();
    let tail = if nanos == 0 {
        (seconds % 60).to_string()
    } else {
        let fraction = format!("{}.{nanos:09}", seconds % 60);
        fraction.trim_end_matches('0').to_owned()
    };
    match (hours, minutes) {
        (0, 0) => format!("{tail}s"),
        (0, minutes) => format!("{minutes}m{tail}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{tail}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = parse(text).map_or_else(|_| "error".to_owned(), format);
        assert_eq!(got, want, "input {text:?}");
    }

    #[test]
    fn reads_what_operators_write() {
        check("0", "0s");
        check("60", "1m0s");
        check("30s", "30s");
        check("1h30m", "1h30m0s");
        check("7d", "168h0m0s");
        check("1.5h", "1h30m0s");
        check("250ms", "0.25s");
    }

    #[test]
    fn refuses_what_is_not_a_duration() {
        for text in ["", "abc", "-5s", "5x", "s", "5s3", "1e400h", "1.2.3s"] {
            check(text, "error");
        }
    }
}
