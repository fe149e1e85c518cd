//! The settings of a connection as stored JSON, parsed as OpenBao's lenient decoder does.

use std::collections::BTreeMap;
use std::num::IntErrorKind;
use std::time::Duration;

use keepfast_framework::fields::{parse_duration, truth, type_name};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::placeholders::MASK;

/// The settings that depend on the kind of database.
pub(super) type Details = BTreeMap<String, Setting>;

/// A setting. A number keeps its digits (`1e3`, `-0`), as OpenBao stores and returns them.
#[derive(Clone, Serialize)]
#[serde(untagged)]
pub(super) enum Setting {
    /// A number, as the client sent it.
    Number(Box<RawValue>),
    /// Any other value.
    Value(Value),
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(d)?;
        if raw.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Ok(Setting::Number(raw));
        }
        serde_json::from_str(raw.get()).map(Setting::Value).map_err(serde::de::Error::custom)
    }
}

impl Setting {
    /// Parses it as a field of a request. A number that `serde_json` would format differently is parsed from its text.
    ///
    /// # Errors
    /// When the type does not accept the value.
    pub(super) fn read<T: DeserializeOwned>(self) -> serde_json::Result<T> {
        match self {
            Setting::Value(value) => serde_json::from_value(value),
            Setting::Number(raw) if raw.get().parse::<i64>().is_ok_and(|n| n.to_string() == raw.get()) => {
                serde_json::from_str(raw.get())
            }
            Setting::Number(raw) => serde_json::from_value(Value::from(raw.get())),
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Setting::Number(_) => type_name(&Value::from(0)),
            Setting::Value(value) => type_name(value),
        }
    }

    /// The text; numbers and booleans are converted to text.
    fn plain_text(&self) -> Option<String> {
        match self {
            Setting::Number(raw) => Some(raw.get().to_owned()),
            Setting::Value(Value::String(text)) => Some(text.clone()),
            Setting::Value(Value::Bool(yes)) => Some(if *yes { "1" } else { "0" }.to_owned()),
            Setting::Value(_) => None,
        }
    }
}

/// The type of a setting.
#[derive(Clone, Copy, Debug)]
pub(super) enum SettingType {
    /// A text; numbers and booleans are converted to text.
    Text,
    /// A whole number, or its text.
    Integer,
    /// A boolean, its text, or 0 or 1.
    Flag,
    /// A text that OpenBao converts to bytes.
    Bytes,
}

/// Checks the types of settings.
///
/// # Errors
/// All errors in one text, as OpenBao's decoder returns them.
pub(super) fn check(details: &Details, types: &[(&str, SettingType)]) -> Result<(), String> {
    let error = |(name, setting_type): &(&str, SettingType)| {
        details.get(*name).and_then(|value| type_error(name, *setting_type, value))
    };
    let errors: Vec<String> = types.iter().filter_map(error).collect();
    if errors.is_empty() { Ok(()) } else { Err(decoding_error(&errors.join("\n"))) }
}

fn type_error(name: &str, setting_type: SettingType, setting: &Setting) -> Option<String> {
    let expected = match setting_type {
        SettingType::Text => "string",
        SettingType::Integer => "int",
        SettingType::Flag => "bool",
        SettingType::Bytes => "uint8",
    };
    let unconvertible = |at: &str| {
        Some(format!("'{name}{at}' expected type '{expected}', got unconvertible type '{}'", setting.type_name()))
    };
    let not_whole = |text: &str| whole_number(text).err().map(|why| cannot_parse(name, expected, "ParseInt", why));
    let not_true_or_false =
        |text: &str| truth(text).is_none().then(|| cannot_parse(name, expected, "ParseBool", "invalid syntax"));
    match (setting_type, setting) {
        (SettingType::Bytes, Setting::Value(Value::Array(items))) if items.is_empty() => None,
        (SettingType::Bytes, Setting::Value(Value::Object(members))) if members.is_empty() => None,
        (SettingType::Bytes, Setting::Value(Value::Array(_) | Value::Object(_))) => unconvertible("[0]"),
        (_, Setting::Value(Value::Array(_) | Value::Object(_))) => unconvertible(""),
        (SettingType::Text | SettingType::Bytes, _) | (_, Setting::Value(Value::Null | Value::Bool(_))) => None,
        (SettingType::Integer, setting) => not_whole(&setting.plain_text()?),
        (SettingType::Flag, setting) => not_true_or_false(&setting.plain_text()?),
    }
}

fn cannot_parse(name: &str, kind: &str, parser: &str, why: &str) -> String {
    format!("'{name}' cannot parse value as '{kind}': strconv.{parser}: {why}")
}

fn decoding_error(errors: &str) -> String {
    format!("decoding failed due to the following error(s):\n\n{errors}")
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

/// The text of a setting; numbers and booleans are converted, any other value is `None`.
pub(super) fn text(details: &Details, name: &str) -> Option<String> {
    details.get(name)?.plain_text().filter(|text| !text.is_empty())
}

/// Refuses a setting that is not a text.
///
/// # Errors
/// As in OpenBao, which does not convert these.
pub(super) fn only_text(details: &Details, name: &str) -> Result<(), String> {
    match details.get(name) {
        None | Some(Setting::Value(Value::String(_))) => Ok(()),
        Some(other) => Err(format!("invalid value at {name}: is a {}", other.type_name())),
    }
}

/// A whole number.
///
/// # Errors
/// As [`check`].
pub(super) fn integer(details: &Details, name: &str) -> Result<Option<i64>, String> {
    check(details, &[(name, SettingType::Integer)])?;
    Ok(text(details, name).and_then(|text| whole_number(&text).ok()))
}

/// A boolean; an absent one is false.
///
/// # Errors
/// As [`check`].
pub(super) fn flag(details: &Details, name: &str) -> Result<bool, String> {
    check(details, &[(name, SettingType::Flag)])?;
    Ok(text(details, name).and_then(|text| truth(&text)).unwrap_or(false))
}

/// A duration; `None` unless it is positive.
///
/// # Errors
/// When it is not a duration.
pub(super) fn duration(details: &Details, name: &str) -> Result<Option<Duration>, String> {
    let invalid = |why: &str| format!("invalid {name}: {why}");
    if let Some(Setting::Value(Value::Bool(_) | Value::Array(_) | Value::Object(_))) = details.get(name) {
        return Err(invalid("could not parse duration from input"));
    }
    let Some(text) = text(details, name) else { return Ok(None) };
    let seconds = parse_duration(&text).map_err(|why| invalid(&why))?;
    Ok(u64::try_from(seconds).ok().filter(|s| *s > 0).map(Duration::from_secs))
}

/// The settings in responses: those that a kind declares public, and the connection string as `masked` rebuilds it.
///
/// Omits settings that are not texts, numbers or booleans, and those with PEM other than certificates.
pub(super) fn response(details: Details, public: &[&str], masked: impl Fn(&str) -> Option<String>) -> Details {
    let show = |(name, setting): (String, Setting)| {
        if !public.contains(&name.as_str()) {
            return None;
        }
        let setting = match setting {
            Setting::Value(Value::Array(_) | Value::Object(_)) => return None,
            Setting::Value(Value::String(url)) if name == "connection_url" => {
                Setting::Value(masked(&url).unwrap_or_else(|| MASK.to_owned()).into())
            }
            Setting::Value(Value::String(pem)) if has_secret_pem(&pem) => return None,
            setting => setting,
        };
        Some((name, setting))
    };
    details.into_iter().filter_map(show).collect()
}

/// Whether a text has PEM other than certificates.
pub(super) fn has_secret_pem(text: &str) -> bool {
    let label = |begin: &str| begin.split("-----").next().is_some_and(|label| label.trim().ends_with("CERTIFICATE"));
    text.split("-----BEGIN").skip(1).any(|begin| !label(begin))
}

/// The settings in a JSON object.
#[cfg(test)]
pub(super) fn of_json(json: &Value) -> Details {
    serde_json::from_str(&json.to_string()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_parsed_as_leniently_as_in_openbao() {
        let details = json!({"a": "5", "b": 7, "c": "x", "d": "true", "e": 0, "f": "maybe", "g": "5m", "h": -5});
        let details = &of_json(&details);
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
        let wrong =
            of_json(&json!({"a": [1], "b": {}, "c": " 5", "d": "9223372036854775808", "e": 2, "f": [], "g": ["x"]}));
        let types = [
            ("a", SettingType::Text),
            ("b", SettingType::Integer),
            ("c", SettingType::Integer),
            ("d", SettingType::Integer),
            ("e", SettingType::Flag),
        ];
        let errors = check(&wrong, &types).unwrap_err();
        let errors: Vec<&str> = errors.lines().skip(2).collect();
        assert_eq!(
            errors,
            [
                "'a' expected type 'string', got unconvertible type '[]interface {}'",
                "'b' expected type 'int', got unconvertible type 'map[string]interface {}'",
                "'c' cannot parse value as 'int': strconv.ParseInt: invalid syntax",
                "'d' cannot parse value as 'int': strconv.ParseInt: value out of range",
                "'e' cannot parse value as 'bool': strconv.ParseBool: invalid syntax",
            ]
        );
        assert_eq!(check(&wrong, &[("f", SettingType::Bytes)]), Ok(()));
        assert!(check(&wrong, &[("g", SettingType::Bytes)]).unwrap_err().contains("'g[0]' expected type 'uint8'"));
        assert_eq!(only_text(details, "b").unwrap_err(), "invalid value at b: is a json.Number");
        assert_eq!(duration(details, "g"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(duration(details, "h"), Ok(None));
        assert_eq!(duration(details, "c").unwrap_err(), "invalid c: time: invalid duration \"x\"");
        let wrong = of_json(&json!({"a": true, "b": "1.5", "c": 99_999_999_999_i64}));
        let error_text = |name: &str| duration(&wrong, name).unwrap_err();
        assert_eq!(error_text("a"), "invalid a: could not parse duration from input");
        assert_eq!(error_text("b"), "invalid b: time: missing unit in duration \"1.5\"");
        assert!(error_text("c").starts_with("invalid c: multiplication of durations resulted in overflow"));
        let wrong: Details = serde_json::from_str("{\"a\":1e3,\"b\":-0.0,\"c\":12345678901234567890}").unwrap();
        let error_text = |name: &str| duration(&wrong, name).unwrap_err();
        assert_eq!(error_text("a"), "invalid a: time: unknown unit \"e\" in duration \"1e3\"");
        assert_eq!(error_text("b"), "invalid b: time: missing unit in duration \"-0.0\"");
        assert_eq!(error_text("c"), "invalid c: time: invalid duration \"12345678901234567890\"");
    }

    #[test]
    fn sec_kf08_only_public_settings_are_in_responses() {
        let key = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\ngeheim";
        let given =
            json!({"a": 1, "b": "geheim", "c": ["geheim"], "ca": key, "cb": &key[..30], "connection_url": "geheim"});
        let public = ["a", "c", "ca", "cb", "connection_url"];
        let given = of_json(&given);
        let read = |url: Option<&str>| json!(response(given.clone(), &public, |_| url.map(str::to_owned)));
        assert_eq!(read(Some("x")), json!({"a": 1, "cb": &key[..30], "connection_url": "x"}));
        assert_eq!(read(None)["connection_url"], "xxxxx");
    }

    #[test]
    fn a_number_keeps_its_digits() {
        for number in ["1e3", "1.50", "-0", "-0.0", "100000000000000000000000", "9007199254740993", "5"] {
            let details: Details = serde_json::from_str(&format!("{{\"a\":{number}}}")).unwrap();
            assert_eq!(text(&details, "a").as_deref(), Some(number));
            let stored = serde_json::to_string(&details).unwrap();
            let again: Details = serde_json::from_str(&stored).unwrap();
            let response = serde_json::to_string(&response(again, &["a"], |_| None)).unwrap();
            assert_eq!(response, format!("{{\"a\":{number}}}"));
            assert_eq!(details["a"].clone().read::<keepfast_framework::fields::Text>().unwrap().0, number);
        }
        let details: Details = serde_json::from_str("{\"a\":-0,\"b\":1e3}").unwrap();
        assert_eq!(integer(&details, "a"), Ok(Some(0)));
        assert!(
            integer(&details, "b")
                .unwrap_err()
                .ends_with("'b' cannot parse value as 'int': strconv.ParseInt: invalid syntax")
        );
    }
}
