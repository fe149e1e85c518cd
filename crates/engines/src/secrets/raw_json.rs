//! JSON objects handled as the text that was sent: a number keeps all its digits, whatever its size.

use std::collections::BTreeMap;

use keepfast_framework::fields::RawObject;
use keepfast_framework::{Error, Result};
use keepfast_json::{Piece, Pieces};
use serde_json::value::{RawValue, to_raw_value};

/// Objects within objects deeper than this are refused where they must be taken apart.
const MAX_DEPTH: usize = 256;

/// The members of an object, the last of duplicates; `None` when it is no object.
fn members(value: &RawValue) -> Result<Option<BTreeMap<String, &RawValue>>> {
    if !value.get().starts_with('{') {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(value.get())?))
}

fn too_deep() -> Error {
    Error::invalid(format!("the data has more than {MAX_DEPTH} levels"))
}

/// Whether an object has no members; `null` has none.
pub(crate) fn is_empty(object: &RawObject) -> bool {
    matches!(
        object.0.get().bytes().filter(|b| !b.is_ascii_whitespace()).take(2).collect::<Vec<u8>>().as_slice(),
        b"{}" | b"nu"
    )
}

/// Refuses an object that is valid as a text but that few can read: an escape such as `\ud800` alone is no character.
///
/// # Errors
/// 400 for such a text.
pub(crate) fn check_text(object: &RawObject) -> Result<()> {
    if escapes_are_characters(object.0.get().as_bytes()) {
        Ok(())
    } else {
        Err(Error::invalid("failed to decode JSON input: an escape stands for half a character"))
    }
}

/// Whether each `\u` escape of valid JSON is a character, or half of one with the other half behind it. A backslash
/// stands only in strings, so the whole text is read as the inside of one.
fn escapes_are_characters(json: &[u8]) -> bool {
    let mut is_high = false;
    for piece in Pieces::new(json) {
        let is_low = matches!(piece, Piece::Unit(0xdc00..0xe000));
        if is_high != is_low {
            return false;
        }
        is_high = matches!(piece, Piece::Unit(0xd800..0xdc00));
    }
    !is_high
}

/// A JSON merge patch (RFC 7396) of `target`: members that are `null` are removed, objects merged, all else replaced.
///
/// # Errors
/// 400 when the objects are nested too deeply.
pub(crate) fn merge_patch(target: &RawValue, patch: &RawValue) -> Result<Box<RawValue>> {
    merge(Some(target), patch, 0)
}

// recursion: bounded by MAX_DEPTH
fn merge(target: Option<&RawValue>, patch: &RawValue, depth: usize) -> Result<Box<RawValue>> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    let Some(patch_members) = members(patch)? else {
        return Ok(patch.to_owned());
    };
    let kept = match target {
        Some(target) => members(target)?.unwrap_or_default(),
        None => BTreeMap::new(),
    };
    let mut merged: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    for (name, value) in &kept {
        if !patch_members.contains_key(name) {
            merged.insert(name, (*value).to_owned());
        }
    }
    for (name, value) in &patch_members {
        if value.get() != "null" {
            merged.insert(name, merge(kept.get(name).copied(), value, depth + 1)?);
        }
    }
    Ok(to_raw_value(&merged)?)
}

/// The names of an object's members without their values: a member that is an object with members is shown likewise down
/// to `depth` levels (0 for all), anything else as `null`.
///
/// # Errors
/// 400 when the objects are nested too deeply.
pub(crate) fn skeleton(value: &RawValue, depth: usize) -> Result<Box<RawValue>> {
    outline(value, depth, 1)
}

// recursion: bounded by MAX_DEPTH
fn outline(value: &RawValue, depth: usize, level: usize) -> Result<Box<RawValue>> {
    if level > MAX_DEPTH {
        return Err(too_deep());
    }
    let mut shown: BTreeMap<String, Option<Box<RawValue>>> = BTreeMap::new();
    for (name, member) in members(value)?.unwrap_or_default() {
        let inner = members(member)?.is_some_and(|inner| !inner.is_empty()) && (depth == 0 || level < depth);
        shown.insert(name, if inner { Some(outline(member, depth, level + 1)?) } else { None });
    }
    Ok(to_raw_value(&shown)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn patches_as_rfc_7396_says_and_rounds_no_number() {
        // Appendix A of RFC 7396, as far as the target is an object (members come out sorted).
        for (target, patch, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"a":1,"e":null}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            ("null", r#"{"a":1}"#, r#"{"a":1}"#),
            (
                r#"{"n":123456789012345678901234567890}"#,
                r#"{"m":1.10}"#,
                r#"{"m":1.10,"n":123456789012345678901234567890}"#,
            ),
        ] {
            assert_eq!(merge_patch(&raw(target), &raw(patch)).unwrap().get(), expected, "{target} with {patch}");
        }
    }

    #[test]
    fn a_skeleton_shows_names_and_no_values() {
        let data = raw(r#"{"a":1,"b":{"c":{"d":1,"e":{}},"f":[1,{"g":1}]},"n":null,"o":{}}"#);
        for (depth, expected) in [
            (0, r#"{"a":null,"b":{"c":{"d":null,"e":null},"f":null},"n":null,"o":null}"#),
            (1, r#"{"a":null,"b":null,"n":null,"o":null}"#),
            (2, r#"{"a":null,"b":{"c":null,"f":null},"n":null,"o":null}"#),
        ] {
            assert_eq!(skeleton(&data, depth).unwrap().get(), expected);
        }
    }

    #[test]
    fn what_is_nested_without_end_is_refused_and_does_not_exhaust_the_stack() {
        let deep = raw(&format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)));
        assert_eq!(merge_patch(&raw("{}"), &deep).unwrap_err().status().0, 400);
        assert_eq!(skeleton(&deep, 0).unwrap_err().status().0, 400);
    }

    #[test]
    fn texts_that_stand_for_no_character_are_refused() {
        for fine in [r#"{"a":"\ud83d\ude00","b":1e999}"#, r#"{"a":"\\ud83d \n\u00e9"}"#, "{}"] {
            assert!(check_text(&RawObject(raw(fine))).is_ok(), "{fine}");
        }
        for half in [
            r#"{"a":["\ud83d"]}"#,
            r#"{"\ude00":1}"#,
            r#"{"a":"\ud83d \ude00"}"#,
            r#"{"a":"\ud83d\ud83d"}"#,
            r#"{"a":"\ud83d\n"}"#,
        ] {
            assert!(check_text(&RawObject(raw(half))).is_err(), "{half}");
        }
    }

    #[test]
    fn empty_objects_are_recognised() {
        for (text, empty) in
            [("{}", true), ("{ \n}", true), ("null", true), ("{\"a\":1}", false), ("{ \"}\":1}", false)]
        {
            assert_eq!(is_empty(&RawObject(raw(text))), empty, "{text}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    /// RFC 7396, section 2, word for word, on parsed values.
    fn by_the_book(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = match target {
            Value::Object(target) => target,
            _ => serde_json::Map::new(),
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                let merged = by_the_book(target.remove(name).unwrap_or(Value::Null), value);
                target.insert(name.clone(), merged);
            }
        }
        Value::Object(target)
    }

    proptest! {
        #[test]
        fn patches_text_as_parsed_values_would_be_patched(target in any_json(), patch in any_json()) {
            let merged = merge_patch(&raw(&target.to_string()), &raw(&patch.to_string())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(merged.get()).unwrap(), by_the_book(target, &patch));
        }
    }
}
