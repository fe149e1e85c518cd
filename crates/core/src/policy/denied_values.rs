//! Compares denied values as handlers read them: the readings of a value by every field type, and whether two values
//! share one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use keepfast_framework::duration::parse_int;
use keepfast_framework::fields::parse_duration;
use keepfast_framework::token_params::parse_cidr;
use serde_json::{Map, Value};

use super::parameters::{equal, glob, is_glob, same_float};

/// The role of a parameter in the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// A parameter that the route declares: its handler folds case and reads numbers, durations, networks and lists.
    Declared,
    /// Data that the route stores unchanged, or does not read.
    Data,
}

/// The maximum nesting of lists and objects, those in texts included. serde_json reads fewer levels from one text.
const LEVELS: usize = 128;
/// The maximum nesting of texts with JSON or base64.
const TEXTS: usize = 16;

/// The depth of a value inside the parameter.
#[derive(Clone, Copy, Debug, Default)]
struct Depth {
    levels: usize,
    texts: usize,
}

impl Depth {
    /// The depth of an element; `None` beyond [`LEVELS`].
    fn element(self) -> Option<Self> {
        (self.levels < LEVELS).then_some(Depth { levels: self.levels + 1, ..self })
    }

    /// The depth of the JSON or base64 content of a text; `None` beyond [`TEXTS`] or [`LEVELS`].
    fn held(self) -> Option<Self> {
        (self.texts < TEXTS).then_some(Depth { texts: self.texts + 1, ..self })?.element()
    }
}

/// The most parts of a value that are compared with a denied one: elements, and parts of texts with commas.
pub(super) const WORDS: usize = 10_000;

/// Whether a value has more than [`WORDS`] parts.
pub(super) fn has_too_many_words(value: &Value) -> bool {
    let (mut open, mut words) = (vec![value], 0);
    while let Some(value) = open.pop() {
        words += match value {
            Value::String(text) => 1 + text.bytes().filter(|byte| *byte == b',').count(),
            _ => 1,
        };
        if words > WORDS {
            return true;
        }
        match value {
            Value::Array(list) => open.extend(list),
            Value::Object(object) => open.extend(object.values()),
            _ => {}
        }
    }
    false
}

/// Whether a handler could read the request's value, or a part of it, as the denied one. A value that nests deeper than
/// [`LEVELS`] or [`TEXTS`] counts as denied: no handler reads so deep, and its content is not known.
pub(crate) fn reaches(denied: &Value, given: &Value, scope: Scope) -> bool {
    reaches_at(denied, given, scope, Depth::default())
}

/// As [`reaches`], for an element of a list or object.
// recursion: bounded by LEVELS, which `Depth` counts through texts that hold JSON or base64 too
fn reaches_element(denied: &Value, given: &Value, scope: Scope, depth: Depth) -> bool {
    depth.element().is_none_or(|depth| reaches_at(denied, given, scope, depth))
}

// recursion: bounded by LEVELS, which `Depth` counts through texts that hold JSON or base64 too
fn reaches_at(denied: &Value, given: &Value, scope: Scope, depth: Depth) -> bool {
    if equal(denied, given) {
        return true;
    }
    match denied {
        Value::Array(list) => reaches_list(list, given, scope, depth),
        Value::Object(map) if scope == Scope::Declared => reaches_map(map, given, depth),
        _ => reaches_scalar(denied, given, scope, depth),
    }
}

// recursion: bounded by LEVELS, which `Depth` counts through texts that hold JSON or base64 too
fn reaches_scalar(denied: &Value, given: &Value, scope: Scope, depth: Depth) -> bool {
    match given {
        Value::Array(list) => list.iter().any(|element| reaches_element(denied, element, scope, depth)),
        Value::Object(object) => {
            object.values().any(|value| reaches_element(denied, value, scope, depth))
                || scope == Scope::Declared && names_pair(denied, object, depth)
        }
        Value::String(text) => reaches_text(denied, text, scope, depth),
        Value::Null => reaches_word(denied, "", scope),
        // A handler may read the source text of the number, which is not known here.
        Value::Number(number) if number.is_f64() && denied.as_str().is_some_and(is_glob) => true,
        scalar => reaches_word(denied, &scalar.to_string(), scope),
    }
}

/// A text may be a list with commas; in a declared parameter also a `name=value` pair, or JSON.
// recursion: bounded by LEVELS, which `Depth` counts through texts that hold JSON or base64 too
fn reaches_text(denied: &Value, text: &str, scope: Scope, depth: Depth) -> bool {
    if reaches_word(denied, text, scope) || text.split(',').any(|part| reaches_word(denied, part, scope)) {
        return true;
    }
    if scope == Scope::Data {
        return false;
    }
    let pairs = text.split(',').filter_map(|part| part.split_once('='));
    // Base64 ends in `=`, which is not a pair with an empty value.
    let mut pairs = text.split_once('=').into_iter().chain(pairs).filter(|(_, value)| !value.trim().is_empty());
    pairs.any(|(_, value)| reaches_word(denied, value, scope))
        || json_of(text).is_some_and(|held| depth.held().is_none_or(|depth| reaches_at(denied, &held, scope, depth)))
        || base64_of(text)
            .is_some_and(|held| depth.held().is_none_or(|depth| reaches_text(denied, &held, scope, depth)))
}

/// The list or object in the JSON of a text, as fields such as `metadata` read it.
fn json_of(text: &str) -> Option<Value> {
    let text = text.trim();
    text.starts_with(['{', '[']).then(|| serde_json::from_str(text).ok())?
}

/// The text in base64, as `metadata` and `policy` read it.
fn base64_of(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok().filter(|text| !text.is_empty())
}

/// Whether a handler could read a single value as the denied scalar.
fn reaches_word(denied: &Value, word: &str, scope: Scope) -> bool {
    let word = word.trim();
    let spelled = match denied {
        Value::String(pattern) if pattern == "*" => return true,
        Value::String(spelled) => spelled.clone(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Null => String::new(),
        Value::Array(_) | Value::Object(_) => return false,
    };
    if is_glob(&spelled) && glob(&spelled, word) || spelled == word {
        return true;
    }
    let (ours, theirs) = (Reading::of(&spelled), Reading::of(word));
    match scope {
        Scope::Declared => {
            is_glob(&ours.text) && glob(&ours.text, &theirs.text) || ours.text == theirs.text || ours.agrees(&theirs)
        }
        Scope::Data if denied.is_boolean() => ours.truth == theirs.truth,
        Scope::Data => ours.is_same_quantity(&theirs),
    }
}

/// Compares with a denied list: the same elements in order, or for a declared parameter in any order and number.
// recursion: bounded by LEVELS, which `Depth` counts through texts that hold JSON or base64 too
fn reaches_list(denied: &[Value], given: &Value, scope: Scope, depth: Depth) -> bool {
    let Some(given) = as_list(given, scope) else { return false };
    match scope {
        Scope::Data => {
            given.len() == denied.len()
                && denied.iter().zip(&given).all(|(denied, given)| reaches_element(denied, given, scope, depth))
        }
        Scope::Declared => {
            let is_name = |value: &&Value| !matches!(value, Value::String(text) if text.trim().is_empty());
            let is_same = |denied: &Value, given: &Value| reaches_element(denied, given, scope, depth);
            given.iter().filter(is_name).all(|given| denied.iter().any(|denied| is_same(denied, given)))
                && denied.iter().filter(is_name).all(|denied| given.iter().any(|given| is_same(denied, given)))
        }
    }
}

/// Compares with a denied object: the same names with the same values, in any spelling of the pairs.
// recursion: bounded by LEVELS, which `Depth` counts through texts that hold JSON or base64 too
fn reaches_map(denied: &Map<String, Value>, given: &Value, depth: Depth) -> bool {
    let is_same = |denied: &Value, given: &Value| reaches_element(denied, given, Scope::Declared, depth);
    as_map(given).is_some_and(|given| {
        given.len() == denied.len()
            && denied.iter().all(|(name, denied)| given.get(name).is_some_and(|given| is_same(denied, given)))
    })
}

/// Whether an object has the pair of a denied `name=value` text.
// recursion: bounded by LEVELS, which `Depth` counts through texts that hold JSON or base64 too
fn names_pair(denied: &Value, given: &Map<String, Value>, depth: Depth) -> bool {
    let Some((name, value)) = denied.as_str().and_then(|text| text.split_once('=')) else { return false };
    let value = Value::from(value.trim());
    given.get(name.trim()).is_some_and(|given| reaches_element(&value, given, Scope::Declared, depth))
}

/// The list that a handler could read from a value.
fn as_list(given: &Value, scope: Scope) -> Option<Vec<Value>> {
    match given {
        Value::Array(list) => Some(list.clone()),
        Value::String(text) if text.is_empty() => Some(Vec::new()),
        Value::String(text) => Some(text.split(',').map(|part| Value::from(part.trim())).collect()),
        Value::Null => (scope == Scope::Declared).then(Vec::new),
        Value::Object(map) => (scope == Scope::Declared && map.is_empty()).then(Vec::new),
        scalar => Some(vec![scalar.clone()]),
    }
}

/// The pairs that a handler could read from a value.
fn as_map(given: &Value) -> Option<Map<String, Value>> {
    let mut pairs = Map::new();
    let mut left = vec![given];
    while let Some(value) = left.pop() {
        match value {
            Value::Null => {}
            Value::Object(map) => pairs.extend(map.clone()),
            // The last value of a name has precedence.
            Value::Array(items) => left.extend(items.iter().rev()),
            Value::String(text) => match json_of(text) {
                Some(Value::Object(map)) => pairs.extend(map),
                _ => {
                    let (name, value) = text.split_once('=')?;
                    pairs.insert(name.trim().into(), value.trim().into());
                }
            },
            Value::Bool(_) | Value::Number(_) => return None,
        }
    }
    Some(pairs)
}

/// The readings of a text by each type of field; none where the type refuses it.
struct Reading {
    /// Trimmed and in lower case.
    text: String,
    /// With a base prefix and underscores, as Go reads numbers.
    integer: Option<i64>,
    number: Option<f64>,
    seconds: Option<i64>,
    truth: Option<bool>,
    /// Without host bits.
    network: Option<IpNet>,
}

impl Reading {
    fn of(text: &str) -> Self {
        let text = text.trim();
        let empty = text.is_empty();
        Reading {
            text: text.to_lowercase(),
            integer: if empty { Some(0) } else { parse_int(text, 0).ok() },
            number: if empty { Some(0.0) } else { text.parse().ok() },
            seconds: parse_duration(text).ok(),
            truth: truth(text),
            network: parse_cidr(text).map(|network| network.trunc()),
        }
    }

    /// Whether any field type reads both as the same value.
    fn agrees(&self, other: &Self) -> bool {
        let is_same = |a: Option<i64>, b: Option<i64>| a.is_some() && a == b;
        is_same(self.integer, other.integer)
            || self.is_same_quantity(other)
            || self.truth.is_some() && self.truth == other.truth
            || self.network.is_some() && self.network == other.network
    }

    /// Whether both are the same number or the same duration.
    fn is_same_quantity(&self, other: &Self) -> bool {
        match (self.number, other.number) {
            (Some(a), Some(b)) if same_float(a, b) => true,
            _ => self.seconds.is_some() && self.seconds == other.seconds,
        }
    }
}

/// The texts of booleans, in any case.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "" | "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn denied(denied: Value, given: &Value) -> bool {
        reaches(&denied, given, Scope::Declared)
    }

    #[test]
    fn sec_kf07_a_declared_parameter_is_compared_as_its_field_reads_it() {
        for (value, spellings) in [
            (json!("adm"), vec![json!("ADM"), json!(["Adm"]), json!("x1,aDm"), json!(" adm "), json!({"k": "ADM"})]),
            (json!("Adm"), vec![json!("adm"), json!("a,adm")]),
            (json!("ad*"), vec![json!("ADMIN"), json!(["x", "Ad"])]),
            (json!("k"), vec![json!("\u{212a}")]),
            (
                json!(16),
                vec![json!("0x10"), json!("0o20"), json!("020"), json!("1_6"), json!("0b1_0000"), json!("+16")],
            ),
            (json!("16"), vec![json!("0X10"), json!(16), json!(16.0), json!(["0x10"])]),
            (json!(1), vec![json!(true), json!("t"), json!("TRUE"), json!("0x1")]),
            (json!("true"), vec![json!(1), json!("1"), json!("T"), json!(true)]),
            (json!(0), vec![json!(null), json!(""), json!(false), json!("0x0"), json!("500ms"), json!("0s")]),
            (json!("1m"), vec![json!(60), json!("60s"), json!("60"), json!("0.5m30s"), json!("60999ms")]),
            (json!("0.0.0.0/0"), vec![json!("1.2.3.4/0"), json!(["10.0.0.0/8", "9.9.9.9/0"])]),
            (json!("10.0.0.1"), vec![json!("10.0.0.1/32")]),
            (json!("2001:db8::1"), vec![json!("2001:DB8:0:0::1/128")]),
            (json!(["a", "b"]), vec![json!("b, a"), json!(["B", "a", "a", ""])]),
            (json!([]), vec![json!(""), json!(null), json!({}), json!([""])]),
            (json!({"a": "1m"}), vec![json!("a=60"), json!(["a = 60s"]), json!([{"a": 60}]), json!("{\"a\":\"60\"}")]),
            (json!("a=b"), vec![json!({"a": "B"}), json!(["A=b"])]),
            (
                json!("secret"),
                vec![json!("{\"k\":[\"Secret\"]}"), json!("k=SECRET"), json!("a=b,k=secret"), json!("c2VjcmV0")],
            ),
            // A handler reads the source text of `1e3` and `99999999999999999999`.
            (json!("1e3"), vec![json!(1e3)]),
            (json!("1e*"), vec![json!(1e3), json!([1e3])]),
            (json!("99999999999999999999"), vec![json!(1e20)]),
            (json!("9999*"), vec![json!(1e20)]),
        ] {
            for given in &spellings {
                assert!(denied(value.clone(), given), "{value} covers {given}");
            }
        }
    }

    #[test]
    fn other_values_and_stored_data_are_not_denied() {
        for (value, given) in [
            (json!("adm"), json!(["admin", "xadm"])),
            (json!(16), json!(["0x11", "16h", 17, null])),
            (json!("1m"), json!(["61", "1h", "m"])),
            (json!("10.0.0.0/8"), json!(["10.0.0.0/9", "11.0.0.0/8"])),
            (json!(["a", "b"]), json!(["a"])),
            (json!(["a", "b"]), json!("a,b,c")),
            (json!({"a": "b"}), json!({"a": "b", "c": "d"})),
            (json!(""), json!("YWI=")),
        ] {
            assert!(!denied(value.clone(), &given), "{value} and {given}");
        }
        for (value, given) in [("adm", "ADM"), ("16", "0x10"), ("a", "{\"k\":\"a\"}"), ("0.0.0.0/0", "1.2.3.4/0")] {
            assert!(!reaches(&json!(value), &json!(given), Scope::Data), "{value} and {given}");
        }
    }

    /// A text that nests a list in texts `levels` deep.
    fn held(text: &str, levels: usize) -> String {
        format!("{}{}{}", "[".repeat(levels), json!(text), "]".repeat(levels))
    }

    #[test]
    fn sec_kf02_texts_in_texts_cost_a_bounded_stack() {
        // One string of a request may have 1 MiB.
        let deep = (0..24).fold("x".to_owned(), |text, _| STANDARD.encode(held(&text, 120)));
        let run = move || {
            let given = json!(deep);
            [json!("adm"), json!(["adm"]), json!({"a": "adm"}), json!("a=b")].map(|value| denied(value, &given))
        };
        // A worker thread of the server has a stack of 2 MiB.
        let small = std::thread::Builder::new().stack_size(512 * 1024).spawn(run).unwrap();
        assert_eq!(small.join().unwrap(), [true, true, false, true], "deeper than any handler reads");
    }

    #[test]
    fn sec_kf04_a_value_of_very_many_words_is_counted_not_compared() {
        assert!(!has_too_many_words(&json!(vec!["x,x"; WORDS / 2 - 1])));
        assert!(has_too_many_words(&json!(vec!["x,x"; WORDS / 2])));
        assert!(has_too_many_words(&json!({ "a": ",".repeat(WORDS) })));
    }

    #[test]
    fn sec_kf07_texts_are_read_to_their_limits_and_denied_beyond() {
        let texts = |count: usize| (1..count).fold(held("ADM", 1), |text, _| STANDARD.encode(text));
        assert!(denied(json!("adm"), &json!(texts(16))));
        assert!(!denied(json!("other"), &json!(texts(16))), "16 texts are read");
        assert!(denied(json!("other"), &json!(texts(17))), "17 are denied");
        let levels = |count: usize| json!([held("x", count - 2)]);
        assert!(!denied(json!("other"), &levels(LEVELS - 1)), "127 levels are read");
        let two = json!(held(&held("x", 100), 100));
        assert!(denied(json!("other"), &two), "200 are denied");
        assert!(!reaches(&json!("other"), &two, Scope::Data), "data is not read as JSON");
    }

    proptest! {
        #[test]
        fn sec_kf07_every_spelling_of_a_number_is_denied(n in 0_i64..1 << 32) {
            for text in [
                format!("{n:#x}"), format!("{n:#b}"), format!("0o{n:o}"), format!("0{n:o}"), format!("+{n}"),
                format!("{n}"), format!("{n}s"), format!("{}ms", n * 1000), format!("0X_{n:X}"),
            ] {
                prop_assert!(denied(json!(n), &json!(text)), "{} for {}", text, n);
                prop_assert!(denied(json!(n.to_string()), &json!([text])), "{} for {}", text, n);
            }
        }

        #[test]
        fn sec_kf07_every_case_of_a_name_is_denied(name in "[a-z][a-z0-9_.-]{0,12}", upper in prop::collection::vec(any::<bool>(), 13)) {
            let mixed: String =
                name.chars().zip(upper).map(|(c, up)| if up { c.to_ascii_uppercase() } else { c }).collect();
            prop_assert!(denied(json!(name.clone()), &json!(mixed.clone())));
            let list = format!("x, {name} ,y");
            prop_assert!(denied(json!(mixed.clone()), &json!(list)));
            prop_assert!(denied(json!(name.clone()), &json!([["y", mixed.clone()]])));
        }
    }
}
