//! A JSON object in its original spelling.

use std::collections::BTreeMap;

use keepfast_json::{Kind, Tokens};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::fields::unconvertible;

/// A JSON object in its original spelling, or `null`: nothing is rounded, sorted or rewritten. A list of objects,
/// nested or not, is merged into one object, in which the last of several members with the same name counts; a list
/// that contains only `null` is `null`.
#[derive(Clone, Debug)]
pub struct RawObject(pub Box<RawValue>);

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(d)?;
        match raw.get().as_bytes().first() {
            Some(b'{' | b'n') => Ok(RawObject(raw)),
            Some(b'[') => merged(raw.get()).map_err(D::Error::custom),
            _ => Err(D::Error::custom(refused(raw.get().as_bytes(), &[]))),
        }
    }
}

/// Merges the objects of a list, each value in its original spelling. Takes one pass, regardless of the nesting depth.
fn merged(list: &str) -> Result<RawObject, String> {
    let mut whole: Option<BTreeMap<String, &RawValue>> = None;
    // The current index in each open list.
    let mut place: Vec<usize> = Vec::new();
    let mut tokens = Tokens::new(list.as_bytes());
    while let Some(first) = tokens.peek() {
        if first == b'{' {
            let members: BTreeMap<String, &RawValue> =
                serde_json::from_slice(tokens.skip_value()).map_err(|_| "invalid JSON".to_owned())?;
            whole.get_or_insert_default().extend(members);
            continue;
        }
        let Some(token) = tokens.next() else { break };
        match token.kind {
            Kind::BeginArray => {
                place.push(0);
                if tokens.peek() == Some(b']') {
                    whole.get_or_insert_default();
                }
            }
            Kind::EndArray => drop(place.pop()),
            Kind::Comma => place.iter_mut().last().into_iter().for_each(|place| *place += 1),
            Kind::Word if token.text == b"null" => {}
            _ => return Err(refused(token.text, &place)),
        }
    }
    serde_json::value::to_raw_value(&whole).map(RawObject).map_err(|_| "invalid JSON".to_owned())
}

/// The error text for a value that is no object.
fn refused(value: &[u8], place: &[usize]) -> String {
    let kind = match value.first() {
        Some(b'"') => Value::String(String::new()),
        Some(b't' | b'f') => Value::Bool(true),
        _ => Value::from(0),
    };
    let place: String = place.iter().map(|at| format!("[{at}]")).collect();
    unconvertible("map[string]interface {}", &kind).replacen("''", &format!("'{place}'"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        serde_json::from_str::<RawObject>(text).map(|raw| raw.0.get().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_object_is_kept_as_sent_and_lists_of_objects_are_merged() {
        for (sent, expected) in [
            ("{\"n\": 1.10}", "{\"n\": 1.10}"),
            ("null", "null"),
            ("[{\"n\": 1.10}, null, {}]", "{\"n\":1.10}"),
            ("[]", "{}"),
            ("[[]]", "{}"),
            ("[[[]],[]]", "{}"),
            ("[null]", "null"),
            ("[[null],null]", "null"),
            ("[null,[]]", "{}"),
            ("[[{\"a\": [1, {\"x\": \"]}\"}]}], {\"b\":2}]", "{\"a\":[1, {\"x\": \"]}\"}],\"b\":2}"),
            ("[{\"a\":1},[{\"a\":2}]]", "{\"a\":2}"),
        ] {
            assert_eq!(read(sent).as_deref(), Ok(expected), "{sent}");
        }
        let nested = |levels: usize| format!("{}{{\"a\":1}}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(read(&nested(300)).as_deref(), Ok("{\"a\":1}"));
    }

    #[test]
    fn a_value_that_is_no_object_is_refused_with_its_place() {
        for (sent, place, kind) in [
            ("\"x\"", "", "string"),
            ("1", "", "json.Number"),
            ("true", "", "bool"),
            ("[1]", "[0]", "json.Number"),
            ("[[\"a\",\"b\"]]", "[0][0]", "string"),
            ("[[],{\"a\":1},false]", "[2]", "bool"),
            ("[null,[{},[[-1]]]]", "[1][1][0][0]", "json.Number"),
        ] {
            let expected =
                format!("'{place}' expected type 'map[string]interface {{}}', got unconvertible type '{kind}'");
            assert!(read(sent).is_err_and(|why| why.starts_with(&expected)), "{sent}");
        }
    }
}
