//! Durations as Vault's clients write them: `90`, `90s`, `1h30m`, `1h0m0s`.

use std::time::Duration;

/// Nanoseconds of each unit, longest name first so that `ms` is not read as `m`.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// Reads a duration; a bare number is seconds. `None` when it is not one, is negative, or is too long.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let mut rest = text;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let nanos = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(scaled(number, nanos)?)?;
        rest = next;
    }
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, u32::try_from(total % 1_000_000_000).ok()?))
}

/// Writes a duration in full, as Go does: `1h0m0s`, `1m30s`, `0s`, `1.5s`.
pub fn format(duration: Duration) -> String {
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    let mut seconds = (duration.as_secs() % 60).to_string();
    if duration.subsec_nanos() > 0 {
        let fraction = format!("{:09}", duration.subsec_nanos());
        seconds = format!("{seconds}.{}", fraction.trim_end_matches('0'));
    }
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Writes whole seconds for people, leaving out what is zero: `768h`, `1h30m`, `0s`.
// recursion: bounded by one call: the number is not negative then
pub fn for_people(seconds: i64) -> String {
    let Ok(whole) = u64::try_from(seconds) else {
        return format!("-{}", for_people(seconds.saturating_neg().max(0)));
    };
    let parts = [(whole / 3600, 'h'), (whole / 60 % 60, 'm'), (whole % 60, 's')];
    let shown: String = match parts.iter().rposition(|(n, _)| *n > 0) {
        None => return "0s".to_owned(),
        Some(last) => {
            parts[..=last].iter().skip_while(|(n, _)| *n == 0).map(|(n, unit)| format!("{n}{unit}")).collect()
        }
    };
    shown
}

/// `number` (digits with at most one point) times `nanos`.
fn scaled(number: &str, nanos: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(nanos)?;
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().ok()?;
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        total = total.checked_add(digits * nanos / scale)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("1h30m", 5400), ("768h", 2_764_800), ("1.5h", 5400), ("2d", 172_800), (" 0 ", 0)]
        {
            assert_eq!(parse(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        for text in ["", "h", "1x", "-5s", "1..2s", "1h x", "99999999999999999999999999999999h"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn writes_for_people() {
        for (seconds, text) in
            [(0, "0s"), (60, "1m"), (7199, "1h59m59s"), (2_764_800, "768h"), (3601, "1h0m1s"), (-60, "-1m")]
        {
            assert_eq!(for_people(seconds), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in 0_u64..10_000_000_000, nanos in 0_u32..1_000_000_000) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(duration)), Some(duration));
        }
    }
}
