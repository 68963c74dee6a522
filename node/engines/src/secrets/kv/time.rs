//! Moments and spans as KV shows them: RFC 3339 in UTC with nanoseconds' place, and Go's way of writing durations.

use std::time::Duration;

use arca_engine_api::{UnixMillis, rfc3339};

/// RFC 3339, with nine digits of fraction; empty for no moment.
pub(super) fn moment(at: Option<UnixMillis>) -> String {
    at.map_or_else(String::new, rfc3339::format_nanos)
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
