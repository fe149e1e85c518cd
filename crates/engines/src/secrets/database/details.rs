//! A connection's settings as they are stored: whatever JSON a client sent, read as the peer's lenient decoder reads it.

use std::num::IntErrorKind;
use std::time::Duration;

use keepfast_framework::fields::{parse_duration, truth, type_name};
use serde_json::{Map, Value};

use super::placeholders::MASK;

/// The settings of a connection that are the kind's own.
pub(super) type Details = Map<String, Value>;

/// What a setting is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A text; numbers and truths count as theirs.
    Text,
    /// A whole number, also given as text.
    Integer,
    /// A truth, also given as text or as 0 or 1.
    Flag,
    /// A text that the peer takes for bytes.
    Bytes,
}

/// Whether settings have their forms.
///
/// # Errors
/// As the peer's decoder, all faults in one text.
pub(super) fn check(details: &Details, forms: &[(&str, Form)]) -> Result<(), String> {
    let fault = |(name, form): &(&str, Form)| details.get(*name).and_then(|value| fault_of(name, *form, value));
    let faults: Vec<String> = forms.iter().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(undecodable(&faults.join("\n"))) }
}

fn fault_of(name: &str, form: Form, value: &Value) -> Option<String> {
    let expected = match form {
        Form::Text => "string",
        Form::Integer => "int",
        Form::Flag => "bool",
        Form::Bytes => "uint8",
    };
    let unconvertible = |at: &str| {
        Some(format!("'{name}{at}' expected type '{expected}', got unconvertible type '{}'", type_name(value)))
    };
    match (form, value) {
        (Form::Bytes, Value::Array(items)) if items.is_empty() => None,
        (Form::Bytes, Value::Object(members)) if members.is_empty() => None,
        (Form::Bytes, Value::Array(_) | Value::Object(_)) => unconvertible("[0]"),
        (_, Value::Array(_) | Value::Object(_)) => unconvertible(""),
        (Form::Text | Form::Bytes, _) | (_, Value::Null | Value::Bool(_)) => None,
        (Form::Integer, value) => {
            whole_number(&plain_text(value)?).err().map(|why| cannot(name, expected, "ParseInt", why))
        }
        (Form::Flag, value) => {
            truth(&plain_text(value)?).is_none().then(|| cannot(name, expected, "ParseBool", "invalid syntax"))
        }
    }
}

fn cannot(name: &str, kind: &str, parser: &str, why: &str) -> String {
    format!("'{name}' cannot parse value as '{kind}': strconv.{parser}: {why}")
}

fn undecodable(faults: &str) -> String {
    format!("decoding failed due to the following error(s):\n\n{faults}")
}

fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(if *yes { "1" } else { "0" }.to_owned()),
        _ => None,
    }
}

fn whole_number(text: &str) -> Result<i64, &'static str> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    })
}

/// A text; numbers and truths count as theirs, anything else as none.
pub(super) fn text(details: &Details, name: &str) -> Option<String> {
    plain_text(details.get(name)?).filter(|text| !text.is_empty())
}

/// Refuses what is given and no text.
///
/// # Errors
/// As the peer, which does not convert these.
pub(super) fn only_text(details: &Details, name: &str) -> Result<(), String> {
    match details.get(name) {
        None | Some(Value::String(_)) => Ok(()),
        Some(other) => Err(format!("invalid value at {name}: is a {}", type_name(other))),
    }
}

/// A whole number.
///
/// # Errors
/// As [`check`].
pub(super) fn integer(details: &Details, name: &str) -> Result<Option<i64>, String> {
    check(details, &[(name, Form::Integer)])?;
    Ok(text(details, name).and_then(|text| whole_number(&text).ok()))
}

/// Yes or no; absent is no.
///
/// # Errors
/// As [`check`].
pub(super) fn flag(details: &Details, name: &str) -> Result<bool, String> {
    check(details, &[(name, Form::Flag)])?;
    Ok(text(details, name).and_then(|text| truth(&text)).unwrap_or(false))
}

/// A duration that means something only when it is positive.
///
/// # Errors
/// When it is none.
pub(super) fn duration(details: &Details, name: &str) -> Result<Option<Duration>, String> {
    let invalid = |why: &str| format!("invalid {name}: {why}");
    if let Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) = details.get(name) {
        return Err(invalid("could not parse duration from input"));
    }
    let Some(text) = text(details, name) else { return Ok(None) };
    let seconds = match text.parse::<i64>() {
        Ok(seconds) => seconds,
        Err(_) if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            return Err(invalid(&format!("time: missing unit in duration {text:?}")));
        }
        Err(_) => parse_duration(&text).map_err(|_| invalid(&format!("time: invalid duration {text:?}")))?,
    };
    if seconds.checked_mul(1_000_000_000).is_none() {
        return Err(invalid("multiplication of durations resulted in overflow, one operand may be too large"));
    }
    Ok(u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs))
}

/// The settings for answers: those that a kind declares public, the connection string as `masked` rebuilds it.
///
/// A setting that is no text, number or truth is left out, and so is one with PEM of anything but certificates.
pub(super) fn shown(details: Details, public: &[&str], masked: impl Fn(&str) -> Option<String>) -> Details {
    let show = |(name, value): (String, Value)| {
        if !public.contains(&name.as_str()) || matches!(value, Value::Array(_) | Value::Object(_)) {
            return None;
        }
        let value = match value {
            Value::String(url) if name == "connection_url" => masked(&url).unwrap_or_else(|| MASK.to_owned()).into(),
            Value::String(pem) if has_other_pem(&pem) => return None,
            value => value,
        };
        Some((name, value))
    };
    details.into_iter().filter_map(show).collect()
}

/// Whether a text has PEM of anything but certificates.
pub(super) fn has_other_pem(text: &str) -> bool {
    let label = |begin: &str| begin.split("-----").next().is_some_and(|label| label.trim().ends_with("CERTIFICATE"));
    text.split("-----BEGIN").skip(1).any(|begin| !label(begin))
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
        let wrong = json!({"a": [1], "b": {}, "c": " 5", "d": "9223372036854775808", "e": 2, "f": [], "g": ["x"]});
        let forms =
            [("a", Form::Text), ("b", Form::Integer), ("c", Form::Integer), ("d", Form::Integer), ("e", Form::Flag)];
        let faults = check(wrong.as_object().unwrap(), &forms).unwrap_err();
        let faults: Vec<&str> = faults.lines().skip(2).collect();
        assert_eq!(
            faults,
            [
                "'a' expected type 'string', got unconvertible type '[]interface {}'",
                "'b' expected type 'int', got unconvertible type 'map[string]interface {}'",
                "'c' cannot parse value as 'int': strconv.ParseInt: invalid syntax",
                "'d' cannot parse value as 'int': strconv.ParseInt: value out of range",
                "'e' cannot parse value as 'bool': strconv.ParseBool: invalid syntax",
            ]
        );
        assert_eq!(check(wrong.as_object().unwrap(), &[("f", Form::Bytes)]), Ok(()));
        assert!(
            check(wrong.as_object().unwrap(), &[("g", Form::Bytes)])
                .unwrap_err()
                .contains("'g[0]' expected type 'uint8'")
        );
        assert_eq!(only_text(details, "b").unwrap_err(), "invalid value at b: is a json.Number");
        assert_eq!(duration(details, "g"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(duration(details, "h"), Ok(None));
        assert_eq!(duration(details, "c").unwrap_err(), "invalid c: time: invalid duration \"x\"");
        let wrong = json!({"a": true, "b": "1.5", "c": 99_999_999_999_i64});
        let told = |name: &str| duration(wrong.as_object().unwrap(), name).unwrap_err();
        assert_eq!(told("a"), "invalid a: could not parse duration from input");
        assert_eq!(told("b"), "invalid b: time: missing unit in duration \"1.5\"");
        assert!(told("c").starts_with("invalid c: multiplication of durations resulted in overflow"));
    }

    #[test]
    fn sec_kf08_only_public_settings_are_shown() {
        let key = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\ngeheim";
        let given =
            json!({"a": 1, "b": "geheim", "c": ["geheim"], "ca": key, "cb": &key[..30], "connection_url": "geheim"});
        let public = ["a", "c", "ca", "cb", "connection_url"];
        let given = given.as_object().unwrap();
        let read = |url: Option<&str>| Value::Object(shown(given.clone(), &public, |_| url.map(str::to_owned)));
        assert_eq!(read(Some("x")), json!({"a": 1, "cb": &key[..30], "connection_url": "x"}));
        assert_eq!(read(None)["connection_url"], "xxxxx");
    }
}
