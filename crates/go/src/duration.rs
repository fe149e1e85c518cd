//! Durations as Vault's API and clients accept them: a number of seconds, Go's syntax (`1h30m`), or days (`2d`).
//!
//! Errors have OpenBao's texts, which quote the input: a duration is not secret.

use std::time::Duration;

const SECOND: i128 = 1_000_000_000;
/// One more than the longest duration of Go in nanoseconds.
const LIMIT: i128 = 1 << 63;
const OVERFLOW: &str = "multiplication of durations resulted in overflow, one operand may be too large";

/// Parses a duration as Vault's API does, in whole seconds.
///
/// # Errors
/// The texts of OpenBao.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    parse_nanos(text).map(|nanos| (nanos / SECOND) as i64)
}

/// Parses a duration as [`parse_duration`] does, in nanoseconds.
///
/// # Errors
/// The texts of OpenBao.
pub fn parse_nanos(text: &str) -> Result<i128, String> {
    if text.is_empty() {
        return Ok(0);
    }
    if let Ok(seconds) = text.parse::<i64>() {
        return bounded(seconds, 1);
    }
    if let Some(days) = text.strip_suffix('d') {
        let days = parse_int(days, 10).map_err(|why| format!("strconv.ParseInt: parsing {}: {why}", go_quote(days)))?;
        return bounded(days, 86_400);
    }
    go_duration(text)
}

/// Converts `count` units of `seconds` to nanoseconds within Go's range.
///
/// # Errors
/// The text of OpenBao when the product overflows.
pub fn bounded(count: i64, seconds: i64) -> Result<i128, String> {
    let nanos = i128::from(count) * i128::from(seconds) * SECOND;
    if (-LIMIT..LIMIT).contains(&nanos) { Ok(nanos) } else { Err(OVERFLOW.to_owned()) }
}

/// Go's `strconv.ParseInt`: base 10, or base 0, which reads the base from the prefix and allows underscores.
///
/// # Errors
/// The texts of Go, without the quoted input.
pub fn parse_int(text: &str, base: u32) -> Result<i64, &'static str> {
    const SYNTAX: &str = "invalid syntax";
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (base, digits) = if base == 0 { base_of(digits).ok_or(SYNTAX)? } else { (base, digits.to_owned()) };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(base)) {
        return Err(SYNTAX);
    }
    let size = digits.chars().try_fold(0_i128, |sum, c| {
        let sum = sum * i128::from(base) + i128::from(c.to_digit(base).unwrap_or(0));
        (sum <= LIMIT).then_some(sum)
    });
    let value = size.map(|size| if negative { -size } else { size });
    value.and_then(|value| i64::try_from(value).ok()).ok_or("value out of range")
}

/// The base of a prefix and the digits after it without their underscores, which must be between digits.
fn base_of(text: &str) -> Option<(u32, String)> {
    let lower = text.to_ascii_lowercase();
    let (base, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    let digits = if base == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    if digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") {
        return None;
    }
    Some((base, digits.replace('_', "")))
}

/// Go's `time.ParseDuration`, in nanoseconds.
///
/// # Errors
/// The texts of Go.
pub fn go_duration(text: &str) -> Result<i128, String> {
    let invalid = || format!("time: invalid duration {}", go_quote(text));
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, tail) = digits_of(rest);
        let (fraction, tail) = tail.strip_prefix('.').map_or(("", tail), digits_of);
        let value =
            whole.bytes().try_fold(0_i128, |sum, b| Some(sum * 10 + i128::from(b - b'0')).filter(|v| *v <= LIMIT));
        let Some(value) = value.filter(|_| !whole.is_empty() || !fraction.is_empty()) else { return Err(invalid()) };
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", go_quote(text)));
        }
        let Some(scale) = scale_of(unit) else {
            return Err(format!("time: unknown unit {} in duration {}", go_quote(unit), go_quote(text)));
        };
        // More digits than nanoseconds can express do not change the value.
        let fraction = &fraction[..fraction.len().min(18)];
        let part: i128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| invalid())? };
        total += value * scale + part * scale / 10_i128.pow(fraction.len() as u32);
        if total > LIMIT {
            return Err(invalid());
        }
        rest = tail;
    }
    if negative {
        return Ok(-total);
    }
    if total == LIMIT { Err(invalid()) } else { Ok(total) }
}

fn digits_of(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn scale_of(unit: &str) -> Option<i128> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => SECOND,
        "m" => 60 * SECOND,
        "h" => 3_600 * SECOND,
        _ => return None,
    })
}

/// Formats a duration like Go's `Duration.String`, except below a second: `1h0m0s`, `1m30s`, `0s`, `1.5s`.
#[must_use]
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

/// Formats whole seconds without leading and trailing zero units: `768h`, `1h30m`, `1h0m1s`, `0s`.
#[must_use]
pub fn format_short(seconds: i64) -> String {
    let whole = seconds.unsigned_abs();
    let parts = [(whole / 3600, 'h'), (whole / 60 % 60, 'm'), (whole % 60, 's')];
    let Some(last) = parts.iter().rposition(|(count, _)| *count > 0) else { return "0s".to_owned() };
    let sign = if seconds < 0 { "-" } else { "" };
    let shown = parts[..=last].iter().skip_while(|(count, _)| *count == 0);
    shown.fold(sign.to_owned(), |text, (count, unit)| format!("{text}{count}{unit}"))
}

/// Quotes a text like Go's `time` package: bytes that are not printable ASCII are escaped one by one.
fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..0x80 => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_texts_of_openbao() {
        for (text, expected) in [
            ("90", Ok(90)),
            ("-1", Ok(-1)),
            ("1.5h", Ok(5400)),
            ("2d", Ok(172_800)),
            ("1d1h", Err("time: unknown unit \"d\" in duration \"1d1h\"")),
            ("10.0.0.0/8", Err("time: missing unit in duration \"10.0.0.0/8\"")),
            ("9223372036854775808", Err("time: missing unit in duration \"9223372036854775808\"")),
            ("92233720368547758080", Err("time: invalid duration \"92233720368547758080\"")),
            ("99999999999", Err(OVERFLOW)),
            ("a=b,c=d", Err("strconv.ParseInt: parsing \"a=b,c=\": invalid syntax")),
            ("é", Err("time: invalid duration \"\\xc3\\xa9\"")),
            ("a\nb", Err("time: invalid duration \"a\\x0ab\"")),
        ] {
            assert_eq!(parse_duration(text), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn a_prefix_selects_the_base_of_a_number() {
        for (text, base, expected) in [
            ("0x10", 0, Ok(16)),
            ("010", 0, Ok(8)),
            ("010", 10, Ok(10)),
            ("1_000", 0, Ok(1000)),
            ("1_000", 10, Err("invalid syntax")),
            ("1__0", 0, Err("invalid syntax")),
            ("08", 0, Err("invalid syntax")),
            ("+5", 0, Ok(5)),
            ("-9223372036854775808", 0, Ok(i64::MIN)),
            ("9223372036854775808", 0, Err("value out of range")),
            ("", 0, Err("invalid syntax")),
            (" 1", 0, Err("invalid syntax")),
        ] {
            assert_eq!(parse_int(text, base), expected, "{text}");
        }
    }

    #[test]
    fn short_format_omits_leading_and_trailing_zero_units() {
        for (seconds, text) in
            [(0, "0s"), (60, "1m"), (7199, "1h59m59s"), (2_764_800, "768h"), (3601, "1h0m1s"), (-60, "-1m")]
        {
            assert_eq!(format_short(seconds), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn formatted_durations_parse_back(seconds in 0_u64..9_000_000_000, nanos in 0_u32..1_000_000_000) {
            let written = format(Duration::new(seconds, nanos));
            proptest::prop_assert_eq!(parse_nanos(&written), Ok(i128::from(seconds) * SECOND + i128::from(nanos)));
        }
    }
}
