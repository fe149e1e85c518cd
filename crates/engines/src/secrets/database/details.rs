//! A connection's settings as they are stored: whatever JSON a client sent, read as the peer's lenient decoder reads it.

use std::time::Duration;

use keepfast_framework::fields::parse_duration;
use serde_json::{Map, Value};

/// The settings of a connection that are the kind's own.
pub(super) type Details = Map<String, Value>;

/// A text; numbers count as their text, anything else as none.
pub(super) fn text(details: &Details, name: &str) -> Option<String> {
    match details.get(name)? {
        Value::String(text) => Some(text.clone()).filter(|t| !t.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A whole number.
///
/// # Errors
/// As the peer's decoder, when it is something else.
pub(super) fn integer(details: &Details, name: &str) -> Result<Option<i64>, String> {
    let wrong = |_| undecodable(name, "int", "strconv.ParseInt");
    text(details, name).map(|t| t.trim().parse().map_err(wrong)).transpose()
}

/// Yes or no; absent is no.
///
/// # Errors
/// As the peer's decoder, when it is something else.
pub(super) fn flag(details: &Details, name: &str) -> Result<bool, String> {
    match details.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::Number(number)) => Ok(number.as_f64() != Some(0.0)),
        Some(Value::String(text)) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(undecodable(name, "bool", "strconv.ParseBool")),
        },
        Some(_) => Err(undecodable(name, "bool", "strconv.ParseBool")),
    }
}

/// A duration that means something only when it is positive.
///
/// # Errors
/// When it is none.
pub(super) fn duration(details: &Details, name: &str) -> Result<Option<Duration>, String> {
    let Some(text) = text(details, name) else { return Ok(None) };
    let seconds = match text.parse::<i64>() {
        Ok(seconds) => seconds,
        Err(_) => parse_duration(&text).map_err(|_| format!("invalid {name}: time: invalid duration {text:?}"))?,
    };
    Ok(u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs))
}

fn undecodable(name: &str, kind: &str, parser: &str) -> String {
    format!(
        "decoding failed due to the following error(s):\n\n'{name}' cannot parse value as '{kind}': {parser}: invalid syntax"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_read_as_leniently_as_the_peer_reads_them() {
        let details = json!({"a": "5", "b": 7, "c": "x", "d": "true", "e": 0, "f": "maybe", "g": "5m", "h": -5});
        let details = details.as_object().unwrap();
        assert_eq!(
            (integer(details, "a"), integer(details, "b"), integer(details, "z")),
            (Ok(Some(5)), Ok(Some(7)), Ok(None))
        );
        assert_eq!(
            integer(details, "c").unwrap_err(),
            "decoding failed due to the following error(s):\n\n'c' cannot parse value as 'int': strconv.ParseInt: invalid syntax"
        );
        assert_eq!((flag(details, "d"), flag(details, "e"), flag(details, "z")), (Ok(true), Ok(false), Ok(false)));
        assert!(flag(details, "f").is_err());
        assert_eq!(duration(details, "g"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(duration(details, "h"), Ok(None));
        assert_eq!(duration(details, "c").unwrap_err(), "invalid c: time: invalid duration \"x\"");
    }
}
