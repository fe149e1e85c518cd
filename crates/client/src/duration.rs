//! Durations of Vault's clients: `90`, `90s`, `1h30m`, `2d`.

use std::time::Duration;

use keepfast_go::duration::parse_nanos;
pub use keepfast_go::duration::{format, format_short};

/// Parses a duration in Go's syntax; a bare number is seconds, and a number of days ends in `d`. `None` when it is
/// invalid, negative or too long.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    let nanos = u64::try_from(parse_nanos(text).ok()?).ok()?;
    Some(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn parses_seconds_units_and_days() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("1h30m", 5400), ("768h", 2_764_800), ("1.5h", 5400), ("2d", 172_800), (" 0 ", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        for text in ["", "h", "1x", "-5s", "1..2s", "1h x", "1d12h", "99999999999999999999999999999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
