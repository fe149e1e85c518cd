//! The limits of a JSON body, counted in one pass over its bytes before it is parsed.
//!
//! The pass does not check whether the text is JSON; it must never count less than a parser builds. Every value counts,
//! also numbers, booleans, nulls and empty containers. The size of audit entries has its own limit in
//! `keepfast_core::audit::extent`.

use http::StatusCode;
use keepfast_json::{Kind, Token, Tokens, decoded_len};

use super::edge_response::EdgeResponse;
use crate::config::JsonLimits;

/// Estimated bytes of memory, with OpenBao's estimate: each value has a slot of 16 bytes.
mod cost {
    /// An array without its elements.
    pub(super) const ARRAY: usize = 40;
    /// An object without its entries.
    pub(super) const OBJECT: usize = 88;
    /// A string or a name, in addition to its decoded bytes.
    pub(super) const STRING: usize = 32;
    /// A number of at most 8 digits; a longer one costs its digits.
    pub(super) const NUMBER: usize = 24;
    /// `true`, `false` or `null`.
    pub(super) const WORD: usize = 17;
}

/// The length of the shortest member of an object with its comma, in bytes: `"":1,`.
const SHORTEST_MEMBER: usize = 5;

/// Refuses a body that exceeds a limit. Returns an upper bound of the number of members of its object.
pub(crate) fn check(text: &[u8], limits: &JsonLimits) -> Result<usize, EdgeResponse> {
    // The text itself stays in memory.
    if text.len() > limits.memory {
        return Err(too_much_memory());
    }
    // Every string, level and entry takes at least one byte, so a short text exceeds no limit.
    let least = limits
        .strings
        .min(limits.depth)
        .min(limits.string_length)
        .min(limits.object_entries)
        .min(limits.array_elements)
        .min(limits.memory / cost::OBJECT);
    if text.len() <= least {
        return Ok(text.len() / SHORTEST_MEMBER);
    }
    Count { limits, strings: 0, memory: 0, members: 1, open: Vec::with_capacity(8) }.run(text)
}

/// Refuses a form with too many parameters, as JSON with as many names and values.
pub(crate) fn check_form(parameters: usize, limits: &JsonLimits) -> Result<(), EdgeResponse> {
    if 2 * parameters > limits.strings {
        return Err(too_many_strings());
    }
    if parameters > limits.object_entries { Err(too_many_entries("max_json_object_entry_count")) } else { Ok(()) }
}

struct Count<'a> {
    limits: &'a JsonLimits,
    strings: usize,
    /// Estimated bytes so far.
    memory: usize,
    /// Members of the outermost object so far.
    members: usize,
    /// Each open object or array.
    open: Vec<Container>,
}

/// An open object or array.
struct Container {
    bound: usize,
    /// The configuration key of the limit.
    setting: &'static str,
    commas: usize,
}

impl Count<'_> {
    fn run(mut self, text: &[u8]) -> Result<usize, EdgeResponse> {
        for token in Tokens::new(text) {
            match token.kind {
                Kind::String { .. } => self.string(&token)?,
                Kind::BeginObject => {
                    self.descend(self.limits.object_entries, "max_json_object_entry_count", cost::OBJECT)?;
                }
                Kind::BeginArray => {
                    self.descend(self.limits.array_elements, "max_json_array_element_count", cost::ARRAY)?;
                }
                Kind::EndObject | Kind::EndArray => {
                    self.open.pop();
                }
                Kind::Comma => self.comma()?,
                Kind::Colon => {}
                Kind::Word => self.word(token.text)?,
            }
        }
        Ok(self.members)
    }

    fn spend(&mut self, memory: usize) -> Result<(), EdgeResponse> {
        self.memory = self.memory.saturating_add(memory);
        if self.memory > self.limits.memory { Err(too_much_memory()) } else { Ok(()) }
    }

    /// Counts the decoded bytes of a string, independent of its escapes.
    fn string(&mut self, token: &Token<'_>) -> Result<(), EdgeResponse> {
        self.strings += 1;
        if self.strings > self.limits.strings {
            return Err(too_many_strings());
        }
        let inside = token.inside();
        let is_escaped = token.kind == Kind::String { escaped: true };
        let length = if is_escaped { decoded_len(inside) } else { inside.len() };
        if length > self.limits.string_length {
            return Err(too_complex("exceeded maximum string length (max_json_string_value_length)"));
        }
        self.spend(cost::STRING + length)
    }

    /// A number, `true`, `false` or `null`.
    fn word(&mut self, text: &[u8]) -> Result<(), EdgeResponse> {
        match text.first() {
            Some(b't' | b'f' | b'n') => self.spend(cost::WORD),
            _ => self.spend(cost::NUMBER + text.len().saturating_sub(8)),
        }
    }

    fn descend(&mut self, bound: usize, setting: &'static str, memory: usize) -> Result<(), EdgeResponse> {
        self.open.push(Container { bound, setting, commas: 0 });
        if self.open.len() > self.limits.depth {
            let message = "failed to decode JSON input: exceeded max depth (max_json_depth)";
            return Err(EdgeResponse::error(StatusCode::BAD_REQUEST, message));
        }
        self.spend(memory)
    }

    fn comma(&mut self) -> Result<(), EdgeResponse> {
        self.members += usize::from(self.open.len() == 1);
        if let Some(container) = self.open.last_mut() {
            container.commas += 1;
            if container.commas >= container.bound {
                return Err(too_many_entries(container.setting));
            }
        }
        Ok(())
    }
}

fn too_complex(why: &str) -> EdgeResponse {
    EdgeResponse::error(StatusCode::BAD_REQUEST, format!("refused JSON input due to high complexity: {why}"))
}

fn too_many_strings() -> EdgeResponse {
    too_complex("exceeded maximum number of strings (max_request_json_strings)")
}

fn too_many_entries(setting: &str) -> EdgeResponse {
    too_complex(&format!("exceeded maximum number of entries ({setting})"))
}

fn too_much_memory() -> EdgeResponse {
    too_complex("exceeded maximum estimated memory limits (max_request_json_memory)")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn verdict(text: &str) -> Result<(), String> {
        let refused = |a: EdgeResponse| String::from_utf8_lossy(&a.body).into_owned();
        check(text.as_bytes(), &JsonLimits::default()).map(drop).map_err(refused)
    }

    #[test]
    fn members_of_the_outermost_object_are_counted() {
        let members = |text: &str| check(text.as_bytes(), &JsonLimits::default()).ok();
        let long = "x".repeat(1000);
        for (text, expected) in [
            (format!("{{\"a\":\"{long}\"}}"), 1),
            (format!("{{\"a\":\"{long}\",\"b\":[1,2,{{\"c\":1,\"d\":2}}],\"e\":\",\"}}"), 3),
            (format!("{{{}}}", vec!["\"\":1"; 500].join(",")), 500),
        ] {
            assert_eq!(members(&text), Some(expected), "{text}");
        }
        // A short text is not scanned.
        assert_eq!(members(&format!("{{{}}}", vec!["\"\":1"; 40].join(","))), Some(40));
    }

    #[test]
    fn sec_ds02_a_body_within_the_limits_passes_and_one_beyond_does_not() {
        let strings = |n: usize| format!("{{\"data\":{{\"x\":[{}]}}}}", vec!["\"s\""; n].join(","));
        assert_eq!(verdict(&strings(998)), Ok(()));
        assert!(verdict(&strings(999)).unwrap_err().contains(
            "refused JSON input due to high complexity: exceeded maximum number of strings (max_request_json_strings)"
        ));
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(verdict(&deep(300)), Ok(()));
        assert!(verdict(&deep(301)).unwrap_err().contains("exceeded max depth (max_json_depth)"));
        let wide = |n: usize| format!("[{}]", vec!["1"; n].join(","));
        assert_eq!(verdict(&wide(10_000)), Ok(()));
        assert!(
            verdict(&wide(10_001)).unwrap_err().contains("maximum number of entries (max_json_array_element_count)")
        );
        let long = |n: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(n));
        assert_eq!(verdict(&long(1 << 20)), Ok(()));
        assert!(
            verdict(&long((1 << 20) + 1)).unwrap_err().contains("maximum string length (max_json_string_value_length)")
        );
    }

    #[test]
    fn sec_al08_ds02_numbers_words_and_empty_containers_count() {
        let rows = |item: &str, n: usize| {
            let row = format!("[{}]", vec![item; 9_000].join(","));
            format!("{{\"a\":[{}]}}", vec![row; n].join(","))
        };
        // OpenBao accepts 1,419,676 numbers, 2,004,096 words, 851,868 empty arrays and 387,236 empty objects in rows.
        for (item, most) in
            [("1", 157), ("-0", 157), ("1.5", 157), ("null", 222), ("true", 222), ("[]", 94), ("{}", 43)]
        {
            assert_eq!(verdict(&rows(item, most)), Ok(()), "{item}");
            let refusal = verdict(&rows(item, most + 1)).unwrap_err();
            let text = "refused JSON input due to high complexity: exceeded maximum estimated memory limits (max_request_json_memory)";
            assert!(refusal.contains(text), "{item}: {refusal}");
        }
    }

    #[test]
    fn the_limit_on_strings_counts_decoded_bytes() {
        let of = |item: &str, n: usize| verdict(&format!("{{\"a\":\"{}\"}}", item.repeat(n)));
        for (item, bytes) in
            [("\\u00e9", 2), ("é", 2), ("\\n", 1), ("\\u0041", 1), ("\\u20ac", 3), ("\\ud83d\\ude00", 4)]
        {
            let most = (1 << 20) / bytes;
            assert_eq!(of(item, most), Ok(()), "{item}");
            assert!(
                of(item, most + 1).unwrap_err().contains("maximum string length (max_json_string_value_length)"),
                "{item}"
            );
        }
    }

    #[test]
    fn sec_ds02_quotes_and_brackets_inside_strings_are_text() {
        let tricky = r#"{"a":"\"[[[[\\","b":"}}]]","c":"\u0022,"}"#;
        let limits = JsonLimits { strings: 6, depth: 1, object_entries: 3, ..JsonLimits::default() };
        assert!(check(tricky.as_bytes(), &limits).is_ok());
        assert!(check(tricky.as_bytes(), &JsonLimits { strings: 5, ..limits }).is_err());
        assert!(check(b"\"unterminated \\", &limits).is_ok());
    }

    use proptest::prelude::*;
    use serde_json::Value;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[\"\\\\\\[\\]{},:a-zä\u{1}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::hash_map("[\"\\\\{,a-c]{0,3}", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    /// Strings, depth, the widest object or array, and the memory of a tree: the expected results of the pass.
    fn measure(value: &Value) -> (usize, usize, usize, usize) {
        let join = |(s, d, w, m): (usize, usize, usize, usize), of: &Value| {
            let (s2, d2, w2, m2) = measure(of);
            (s + s2, d.max(d2), w.max(w2), m + m2)
        };
        match value {
            Value::String(text) => (1, 0, 0, 32 + text.len()),
            Value::Array(items) => {
                let (s, d, w, m) = items.iter().fold((0, 0, items.len(), 40), join);
                (s, d + 1, w, m)
            }
            Value::Object(map) => {
                let names = map.keys().map(|name| 32 + name.len()).sum::<usize>();
                let (s, d, w, m) = map.values().fold((map.len(), 0, map.len(), 88 + names), join);
                (s, d + 1, w, m)
            }
            Value::Number(number) => (0, 0, 0, 24 + number.to_string().len().saturating_sub(8)),
            _ => (0, 0, 0, 17),
        }
    }

    proptest! {
        #[test]
        fn sec_ds02_the_pass_counts_exactly_what_a_parser_builds(value in any_json(), pretty in any::<bool>()) {
            let (strings, depth, width, memory) = measure(&value);
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let exact = JsonLimits { strings, depth, object_entries: width, array_elements: width, ..JsonLimits::default() };
            prop_assert!(check(text.as_bytes(), &exact).is_ok());
            // The same limit applies to the text, and its whitespace costs nothing else.
            if memory > text.len() {
                let (enough, less) = (JsonLimits { memory, ..exact }, JsonLimits { memory: memory - 1, ..exact });
                prop_assert!(check(text.as_bytes(), &enough).is_ok());
                prop_assert!(check(text.as_bytes(), &less).is_err());
            }
            if strings > 0 {
                let fewer = JsonLimits { strings: strings - 1, ..exact };
                prop_assert!(check(text.as_bytes(), &fewer).is_err());
            }
            if depth > 0 {
                let flatter = JsonLimits { depth: depth - 1, ..exact };
                prop_assert!(check(text.as_bytes(), &flatter).is_err());
            }
            if width > 1 {
                let narrow = JsonLimits { object_entries: width - 1, array_elements: width - 1, ..exact };
                prop_assert!(check(text.as_bytes(), &narrow).is_err());
            }
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let tight = JsonLimits { strings: 3, depth: 2, object_entries: 2, array_elements: 2, string_length: 4, memory: 300 };
            let _ = check(&bytes, &tight);
        }
    }
}
