//! Lenient field types of the API: durations as text or number, booleans as text, comma lists, key=value maps.
//!
//! Engines use these types in their requests and strict types internally. The error texts are those of OpenBao.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use keepfast_crypto::secret::SecretString;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as DeError, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::duration::parse_int;
pub use crate::duration::{go_duration, parse_duration};
pub use crate::raw_object::RawObject;
pub use keepfast_go::{Quoted, type_name};

/// A text; numbers and booleans are converted to text.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(pub String);

/// A secret text, such as a password or a secret id. It can be neither printed nor compared with `==`.
#[derive(Clone)]
pub struct SecretText(pub SecretString);

/// An integer, also accepted as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Int(pub i64);

/// A number, also accepted as text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Float(pub f64);

/// A boolean, also accepted as text or number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

/// A duration in whole seconds, as a number of seconds or as Go duration text (`1h30m`, `2d`); never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

/// A duration in whole seconds that may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SignedSeconds(pub i64);

/// A list of texts, also accepted as one comma-separated text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommaList(pub Vec<String>);

/// A list of texts; a single text is a list of one item, and an empty text an empty list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings(pub Vec<String>);

/// A list of integers, also accepted as one comma-separated text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ints(pub Vec<i64>);

/// Texts by name: an object, or `name=value` texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs(pub BTreeMap<String, String>);

/// Any JSON object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(pub serde_json::Map<String, Value>);

impl Seconds {
    /// Converts to a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl SecretText {
    /// The text itself.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<Text> for String {
    fn from(text: Text) -> String {
        text.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn unconvertible(expected: &str, value: &Value) -> String {
    format!("'' expected type '{expected}', got unconvertible type '{}'", type_name(value))
}

/// The text of a number; only `-0` is read as a float.
fn number_text(number: &serde_json::Number) -> String {
    let text = number.to_string();
    if text == "-0.0" { "-0".to_owned() } else { text }
}

fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Bool(b) => Ok(if *b { "1" } else { "0" }.to_owned()),
        Value::Number(n) => Ok(number_text(n)),
        Value::String(s) => Ok(s.clone()),
        Value::Array(_) | Value::Object(_) => Err(unconvertible("string", value)),
    }
}

fn int_of(value: &Value) -> Result<i64, String> {
    let of_text = |text: &str| {
        parse_int(text, 0).map_err(|why| format!("'' cannot parse value as 'int': strconv.ParseInt: {why}"))
    };
    match value {
        Value::Null => Ok(0),
        Value::Bool(b) => Ok(i64::from(*b)),
        Value::Number(n) => of_text(&number_text(n)),
        Value::String(s) if s.is_empty() => Ok(0),
        Value::String(s) => of_text(s),
        Value::Array(_) | Value::Object(_) => Err(unconvertible("int", value)),
    }
}

fn float_of(value: &Value) -> Result<f64, String> {
    const SYNTAX: &str = "'' cannot parse value as 'float64': strconv.ParseFloat: invalid syntax";
    let number = match value {
        Value::Null => 0.0,
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::Number(n) => n.as_f64().ok_or(SYNTAX)?,
        Value::String(s) if s.is_empty() => 0.0,
        Value::String(s) => s.parse().map_err(|_| SYNTAX)?,
        Value::Array(_) | Value::Object(_) => return Err(unconvertible("float64", value)),
    };
    if number.is_finite() { Ok(number) } else { Err(SYNTAX.to_owned()) }
}

/// Parses a boolean text in any of the forms that OpenBao accepts; an empty text is false. `None` for anything else.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        _ => None,
    }
}

fn flag_of(value: &Value) -> Result<bool, String> {
    let of_text = |text: &str| {
        truth(text).ok_or_else(|| "'' cannot parse value as 'bool': strconv.ParseBool: invalid syntax".to_owned())
    };
    match value {
        Value::Null => Ok(false),
        Value::Bool(b) => Ok(*b),
        Value::Number(n) => of_text(&n.to_string()),
        Value::String(s) => of_text(s),
        Value::Array(_) | Value::Object(_) => Err(unconvertible("bool", value)),
    }
}

fn seconds_of(value: &Value) -> Result<i64, String> {
    match value {
        Value::Null => Ok(0),
        Value::Number(n) => parse_duration(&number_text(n)),
        Value::String(s) => parse_duration(s),
        _ => Err("could not parse duration from input".to_owned()),
    }
}

/// The items of a list, each with its index, or the single item that represents a list.
fn items_of(value: &Value, split: bool) -> Result<Vec<Value>, String> {
    Ok(match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items.clone(),
        Value::Object(map) if map.is_empty() => Vec::new(),
        Value::String(s) if split => {
            if s.is_empty() {
                return Ok(Vec::new());
            }
            s.split(',').map(|item| Value::String(item.trim().to_owned())).collect()
        }
        other => vec![other.clone()],
    })
}

/// The texts of a list. The error texts are those of OpenBao's parser of comma lists, without the quoted value.
fn texts_of(value: &Value) -> Result<Vec<String>, String> {
    let mut faults = Vec::new();
    let mut out = Vec::new();
    for (at, item) in items_of(value, true)?.iter().enumerate() {
        match text_of(item) {
            Ok(text) => out.push(text.trim().to_owned()),
            Err(_) => {
                faults.push(format!("* '[{at}]' expected type 'string', got unconvertible type '{}'", type_name(item)))
            }
        }
    }
    if faults.is_empty() {
        return Ok(out);
    }
    Err(format!("{} error(s) decoding:\n\n{}", faults.len(), faults.join("\n")))
}

/// Reads each item of a list. The error texts are those of OpenBao's parser of plain lists.
fn each_of<T>(items: &[Value], read: impl Fn(&Value) -> Result<T, String>) -> Result<Vec<T>, String> {
    let mut faults = Vec::new();
    let mut out = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        match read(item) {
            Ok(item) => out.push(item),
            Err(why) => faults.push(format!("'[{at}]{}", why.strip_prefix('\'').unwrap_or(&why))),
        }
    }
    if faults.is_empty() {
        return Ok(out);
    }
    Err(format!("decoding failed due to the following error(s):\n\n{}", faults.join("\n")))
}

fn strings_of(value: &Value) -> Result<Vec<String>, String> {
    if value.as_str().is_some_and(str::is_empty) {
        return Ok(Vec::new());
    }
    Ok(each_of(&items_of(value, false)?, text_of)?.iter().map(|text| text.trim().to_owned()).collect())
}

fn ints_of(value: &Value) -> Result<Vec<i64>, String> {
    match value {
        // A blank next to a number is not trimmed, so `1, 2` is refused.
        Value::String(text) if !text.is_empty() => {
            each_of(&text.split(',').map(Value::from).collect::<Vec<_>>(), int_of)
        }
        _ => each_of(&items_of(value, true)?, int_of),
    }
}

/// Placeholder in an error text for the name of the field, which only the deserializer of the request knows.
pub(crate) const FIELD: &str = "\u{0}";

fn pairs_of(value: &Value) -> Result<BTreeMap<String, String>, String> {
    if let Ok(map) = object_of(value.clone())
        && let Ok(pairs) = map.iter().map(|(k, v)| Ok((k.clone(), text_of(v)?))).collect::<Result<_, String>>()
    {
        return Ok(pairs);
    }
    let texts = each_of(&items_of(value, false)?, text_of)?;
    let pair = |(at, text): (usize, &String)| match text.split_once('=') {
        Some((k, v)) => Ok((k.trim().to_owned(), v.trim().to_owned())),
        None => Err(format!("invalid key pair at index {at} in field \"{FIELD}\"")),
    };
    texts.iter().enumerate().map(pair).collect()
}

/// An object, or a list of objects, which are merged as in OpenBao.
// recursion: bounded by serde_json, which reads 128 levels
fn object_of(value: Value) -> Result<serde_json::Map<String, Value>, String> {
    match value {
        Value::Null => Ok(serde_json::Map::new()),
        Value::Object(map) => Ok(map),
        Value::Array(items) => {
            let mut out = serde_json::Map::new();
            for (at, item) in items.into_iter().enumerate() {
                out.extend(
                    object_of(item).map_err(|why| format!("'[{at}]{}", why.strip_prefix('\'').unwrap_or(&why)))?,
                );
            }
            Ok(out)
        }
        other => Err(unconvertible("map[string]interface {}", &other)),
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextVisitor).map(Text)
    }
}

/// [`text_of`] without an intermediate value: nearly every request has a text.
struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }
    fn visit_str<E: DeError>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
    fn visit_bool<E: DeError>(self, yes: bool) -> Result<String, E> {
        text_of(&Value::from(yes)).map_err(E::custom)
    }
    fn visit_i64<E: DeError>(self, n: i64) -> Result<String, E> {
        Ok(n.to_string())
    }
    fn visit_u64<E: DeError>(self, n: u64) -> Result<String, E> {
        Ok(n.to_string())
    }
    fn visit_f64<E: DeError>(self, n: f64) -> Result<String, E> {
        text_of(&Value::from(n)).map_err(E::custom)
    }
    fn visit_unit<E: DeError>(self) -> Result<String, E> {
        Ok(String::new())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom(unconvertible("string", &Value::Array(Vec::new()))))
    }
    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom(unconvertible("string", &Value::Object(serde_json::Map::new()))))
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Text::deserialize(d).map(|Text(text)| SecretText(SecretString::new(text)))
    }
}

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        int_of(&Value::deserialize(d)?).map(Int).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        float_of(&Value::deserialize(d)?).map(Float).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        flag_of(&Value::deserialize(d)?).map(Flag).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for SignedSeconds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        seconds_of(&Value::deserialize(d)?).map(SignedSeconds).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let seconds = seconds_of(&Value::deserialize(d)?).map_err(D::Error::custom)?;
        let positive = u64::try_from(seconds);
        positive.map(Seconds).map_err(|_| D::Error::custom(format!("cannot provide negative value '{seconds}'")))
    }
}

impl<'de> Deserialize<'de> for CommaList {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        texts_of(&Value::deserialize(d)?).map(CommaList).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        strings_of(&Value::deserialize(d)?).map(Strings).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Ints {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        ints_of(&Value::deserialize(d)?).map(Ints).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        pairs_of(&Value::deserialize(d)?).map(Pairs).map_err(D::Error::custom)
    }
}

/// For `#[serde(default, deserialize_with = "given")]`: distinguishes a field that is `null` from an absent one.
///
/// # Errors
/// Those of the field's type.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// For `#[serde(default, deserialize_with = "unless_null")]`: `null` is an absent field. The zero value of the type
/// could remove a restriction.
///
/// # Errors
/// Those of the field's type.
pub fn unless_null<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(d: D) -> Result<Option<T>, D::Error> {
    match Value::deserialize(d)? {
        Value::Null => Ok(None),
        value => T::deserialize(value).map(Some).map_err(D::Error::custom),
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        object_of(Value::deserialize(d)?).map(Object).map_err(D::Error::custom)
    }
}

/// The schema of a field type: a JSON type and the format that help shows.
macro_rules! schema {
    ($type:ident, $json:literal, $format:literal $(, $key:literal : $value:tt)*) => {
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $format.into()
            }
            fn inline_schema() -> bool {
                true
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $json, "format": $format $(, $key: $value)* })
            }
        }
    };
}

schema!(Text, "string", "text");
schema!(SecretText, "string", "text", "writeOnly": true);
schema!(Int, "integer", "int64");
schema!(Float, "number", "float");
schema!(Flag, "boolean", "bool");
schema!(Seconds, "integer", "seconds");
schema!(SignedSeconds, "integer", "seconds");
schema!(CommaList, "array", "comma-list", "items": { "type": "string" });
schema!(Strings, "array", "list", "items": { "type": "string" });
schema!(Ints, "array", "int-list", "items": { "type": "integer" });
schema!(Pairs, "object", "key-value", "additionalProperties": { "type": "string" });
schema!(RawObject, "object", "map", "additionalProperties": true);
schema!(Object, "object", "map", "additionalProperties": true);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|e| e.to_string())
    }

    #[test]
    fn durations_are_read_as_by_openbao() {
        for (given, expected) in [
            (json!(60), Ok(60)),
            (json!("60"), Ok(60)),
            (json!("1.5h"), Ok(5400)),
            (json!("1h30m"), Ok(5400)),
            (json!("1d"), Ok(86_400)),
            (json!("500ms"), Ok(0)),
            (json!(""), Ok(0)),
            (json!(null), Ok(0)),
            (json!("abc"), Err("time: invalid duration \"abc\"")),
            (json!(1.5), Err("time: missing unit in duration \"1.5\"")),
            (json!(true), Err("could not parse duration from input")),
            (json!(-60), Err("cannot provide negative value '-60'")),
            (json!("1x"), Err("time: unknown unit \"x\" in duration \"1x\"")),
        ] {
            assert_eq!(read::<Seconds>(given.clone()).map(|s| s.0), expected.map_err(str::to_owned), "{given}");
        }
    }

    #[test]
    fn lists_booleans_and_pairs_take_every_form_that_clients_send() {
        assert_eq!(read::<CommaList>(json!("a, b,c")).unwrap().0, ["a", "b", "c"]);
        assert_eq!(read::<CommaList>(json!(["a,b", 1, true, null])).unwrap().0, ["a,b", "1", "1", ""]);
        assert_eq!(read::<CommaList>(json!("[\"a\",\"b\"]")).unwrap().0, ["[\"a\"", "\"b\"]"]);
        assert_eq!(read::<CommaList>(json!(" ")).unwrap().0, [""]);
        assert_eq!(
            read::<CommaList>(json!(["a", ["b", null], {"c": 1}])).unwrap_err(),
            "2 error(s) decoding:\n\n* '[1]' expected type 'string', got unconvertible type '[]interface {}'\n* '[2]' expected type 'string', got unconvertible type 'map[string]interface {}'"
        );
        assert!(read::<CommaList>(json!("")).unwrap().0.is_empty());
        assert_eq!(read::<Strings>(json!("a,b")).unwrap().0, ["a,b"]);
        assert_eq!(read::<Strings>(json!("")).unwrap().0, [""; 0]);
        assert_eq!(read::<Strings>(json!(" ")).unwrap().0, [""]);
        assert_eq!(read::<Ints>(json!("1,2")).unwrap().0, [1, 2]);
        assert_eq!(read::<Ints>(json!("1,")).unwrap().0, [1, 0]);
        assert!(read::<Ints>(json!("1, 2")).unwrap_err().contains("'[1]' cannot parse value as 'int'"));
        assert!(read::<Ints>(json!("")).unwrap().0.is_empty() && read::<Ints>(json!(" ")).is_err());
        assert!(read::<Ints>(json!(["1", "a"])).unwrap_err().contains("'[1]' cannot parse value as 'int'"));
        assert!(read::<Flag>(json!("T")).unwrap().0 && !read::<Flag>(json!(0)).unwrap().0);
        assert!(read::<Flag>(json!("abc")).is_err() && read::<Flag>(json!(2)).is_err());
        assert_eq!(read::<Pairs>(json!([{"a": "b"}, null])).unwrap().0["a"], "b");
        assert_eq!(read::<Pairs>(json!("a=1,b=2")).unwrap().0["a"], "1,b=2");
        assert!(read::<Pairs>(json!("")).unwrap_err().contains("invalid key pair at index 0"));
        assert_eq!(read::<Pairs>(json!({"a": 1})).unwrap().0["a"], "1");
        assert_eq!(read::<Int>(json!("7")).unwrap().0, 7);
        for (given, expected) in
            [(json!("a"), "a"), (json!(true), "1"), (json!(-3), "-3"), (json!(1.5), "1.5"), (json!(null), "")]
        {
            assert_eq!(read::<Text>(given).unwrap().0, expected);
        }
        for (given, kind) in [(json!({}), "map[string]interface {}"), (json!([1]), "[]interface {}")] {
            assert_eq!(
                read::<Text>(given).unwrap_err(),
                format!("'' expected type 'string', got unconvertible type '{kind}'")
            );
        }
    }
}
