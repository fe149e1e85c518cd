//! The conversion of a value to the type that a stanza names, as OpenBao converts.

use std::collections::BTreeMap;

use keepfast_crypto::secret::SecretString;
use serde_json::value::RawValue;

use super::text::{Pieced, quoted, unquoted};
use super::value::ValueType;

/// A JSON text by its kind.
enum Json<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(SecretString),
    List(Vec<&'a RawValue>),
    Map,
}

impl<'a> Json<'a> {
    fn read(json: &'a str) -> Option<Self> {
        Some(match json.as_bytes().first()? {
            b'n' => Json::Null,
            b't' => Json::Bool(true),
            b'f' => Json::Bool(false),
            b'"' => Json::Text(unquoted(json)?),
            b'[' => Json::List(serde_json::from_str(json).ok()?),
            b'{' => serde_json::from_str::<BTreeMap<String, &RawValue>>(json).ok().map(|_| Json::Map)?,
            _ => Json::Number(json),
        })
    }
}

/// The JSON text of a valid JSON text as this type; `None` when it cannot be converted.
pub(super) fn convert(json: &str, to: ValueType) -> Option<SecretString> {
    let json = json.trim();
    let same = || Some(SecretString::new(json.to_owned()));
    match (to, Json::read(json)?) {
        (ValueType::Any, _)
        | (ValueType::Map, Json::Map)
        | (ValueType::String, Json::Text(_))
        | (ValueType::Float, Json::Number(_))
        | (ValueType::Bool, Json::Bool(_)) => same(),
        (ValueType::String, value) => scalar(value).map(|text| quoted(text.expose())),
        (ValueType::Int, value) => integer(value).map(|number| number.to_string().into()),
        (ValueType::Float, Json::Text(text)) => float(text.expose()).map(|number| number.to_string().into()),
        (ValueType::Float, Json::Bool(value)) => Some(u8::from(value).to_string().into()),
        (ValueType::Float, Json::Null) => Some("0".to_owned().into()),
        (ValueType::Bool, value) => truth(value).map(|value| value.to_string().into()),
        (ValueType::Strings, Json::List(items)) => {
            let mut out = Pieced::default();
            out.punctuation("[");
            for (at, item) in items.into_iter().enumerate() {
                out.punctuation(if at > 0 { "," } else { "" });
                out.push(quoted(scalar(Json::read(item.get())?)?.expose()));
            }
            out.punctuation("]");
            Some(out.joined())
        }
        (ValueType::Strings, value) => {
            let mut out = Pieced::default();
            out.punctuation("[");
            out.push(quoted(scalar(value)?.expose()));
            out.punctuation("]");
            Some(out.joined())
        }
        (ValueType::Map | ValueType::Float, _) => None,
    }
}

/// The text of a value that is neither a list nor an object.
fn scalar(value: Json<'_>) -> Option<SecretString> {
    match value {
        Json::Text(text) => Some(text),
        Json::Number(number) => Some(number.to_owned().into()),
        Json::Bool(value) => Some(u8::from(value).to_string().into()),
        Json::Null => Some(SecretString::default()),
        Json::List(_) | Json::Map => None,
    }
}

fn integer(value: Json<'_>) -> Option<i64> {
    match value {
        Json::Bool(value) => Some(i64::from(value)),
        Json::Null => Some(0),
        Json::Text(text) => whole(text.expose()),
        Json::Number(number) => whole(number).or_else(|| {
            let number = float(number)?.trunc();
            // The range of an i64, both bounds of which a float has exactly.
            #[allow(clippy::cast_possible_truncation)]
            (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number).then_some(number as i64)
        }),
        Json::List(_) | Json::Map => None,
    }
}

/// A decimal number, or one with the prefix `0x`.
fn whole(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with(['+', '-']) => i64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// A number that JSON has.
fn float(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn truth(value: Json<'_>) -> Option<bool> {
    match value {
        Json::Bool(value) => Some(value),
        Json::Null => Some(false),
        Json::Number(number) => float(number).map(|number| number != 0.0),
        Json::Text(text) => match text.expose().as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        },
        Json::List(_) | Json::Map => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_converted_as_openbao_converts() {
        let to = |name, json| convert(json, ValueType::named(name).unwrap()).map(|text| text.expose().clone());
        for (name, json, expected) in [
            ("string", "\"x\"", Some("\"x\"")),
            ("string", "5", Some("\"5\"")),
            ("string", "1.5", Some("\"1.5\"")),
            ("string", "true", Some("\"1\"")),
            ("string", "false", Some("\"0\"")),
            ("string", "[\"a\"]", None),
            ("string", "{}", None),
            ("int", "\"42\"", Some("42")),
            ("int", "\"0x1f\"", Some("31")),
            ("int", "1.5", Some("1")),
            ("int", "1e3", Some("1000")),
            ("int", "1e300", None),
            ("int", "true", Some("1")),
            ("int", "\"str\"", None),
            ("int", "[]", None),
            ("float64", "\"42\"", Some("42")),
            ("float64", "\"1.5\"", Some("1.5")),
            ("float64", "\"inf\"", None),
            ("float64", "true", Some("1")),
            ("bool", "\"1\"", Some("true")),
            ("bool", "\"\"", Some("false")),
            ("bool", "\"yes\"", None),
            ("bool", "5", Some("true")),
            ("bool", "0.0", Some("false")),
            ("[]string", "[\"a\", 2, true]", Some("[\"a\",\"2\",\"1\"]")),
            ("[]string", "\"a,b\"", Some("[\"a,b\"]")),
            ("[]string", "5", Some("[\"5\"]")),
            ("[]string", "[[]]", None),
            ("map", "{\"a\": 1}", Some("{\"a\": 1}")),
            ("map", "\"{}\"", None),
            ("map", "[]", None),
            ("any", "[1]", Some("[1]")),
            ("interface{}", "null", Some("null")),
        ] {
            assert_eq!(to(name, json).as_deref(), expected, "{name} {json}");
        }
        assert!(ValueType::named("str").is_none());
    }
}
