//! JSON objects as the text that the client sent, so numbers keep all their digits.

use std::collections::BTreeMap;

use keepfast_framework::fields::RawObject;
use keepfast_framework::{Error, Result};
use keepfast_json::{Piece, Pieces};
use serde_json::value::{RawValue, to_raw_value};

/// The maximum depth of nested objects in a merge patch or a skeleton.
const MAX_DEPTH: usize = 256;

/// The members of an object, the last of duplicates; `None` for any other value.
fn members(value: &RawValue) -> Result<Option<BTreeMap<String, &RawValue>>> {
    if !value.get().starts_with('{') {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(value.get())?))
}

fn too_deep() -> Error {
    Error::invalid(format!("the data has more than {MAX_DEPTH} levels"))
}

/// Whether an object has no members; true for `null`.
pub(crate) fn is_empty(object: &RawObject) -> bool {
    matches!(
        object.0.get().bytes().filter(|b| !b.is_ascii_whitespace()).take(2).collect::<Vec<u8>>().as_slice(),
        b"{}" | b"nu"
    )
}

/// Refuses an object with an escape of an unpaired surrogate, such as `\ud800`: many readers cannot decode it.
///
/// # Errors
/// 400 for such an escape.
pub(crate) fn check_text(object: &RawObject) -> Result<()> {
    if escapes_are_characters(object.0.get().as_bytes()) {
        Ok(())
    } else {
        Err(Error::invalid("failed to decode JSON input: an escape is an unpaired surrogate"))
    }
}

/// Whether each `\u` escape of valid JSON is a character or a complete surrogate pair. A backslash occurs only within
/// strings, so the check need not tell where strings begin and end.
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

/// Applies a JSON merge patch (RFC 7396) to `target`: removes members that are `null`, merges objects, replaces all
/// else.
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

/// The member names of an object without the values: a non-empty object is shown as its own names down to `depth`
/// levels (0 for all levels), any other value as `null`.
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
    fn patches_follow_rfc_7396_and_keep_all_digits_of_numbers() {
        // Appendix A of RFC 7396 for targets that are objects (members come out sorted).
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
    fn deep_nesting_is_refused_without_exhausting_the_stack() {
        let deep = raw(&format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)));
        assert_eq!(merge_patch(&raw("{}"), &deep).unwrap_err().status().0, 400);
        assert_eq!(skeleton(&deep, 0).unwrap_err().status().0, 400);
    }

    #[test]
    fn unpaired_surrogate_escapes_are_refused() {
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
    fn reference_patch(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = match target {
            Value::Object(target) => target,
            _ => serde_json::Map::new(),
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                let merged = reference_patch(target.remove(name).unwrap_or(Value::Null), value);
                target.insert(name.clone(), merged);
            }
        }
        Value::Object(target)
    }

    proptest! {
        #[test]
        fn a_patch_of_text_equals_a_patch_of_parsed_values(target in any_json(), patch in any_json()) {
            let merged = merge_patch(&raw(&target.to_string()), &raw(&patch.to_string())).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(merged.get()).unwrap(), reference_patch(target, &patch));
        }
    }
}
